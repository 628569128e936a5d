"""An endpoint that is down, silent, or slow for one: over real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import KEY, QUICK, Ended, Ran, write_lines
from scripted import Act, Action, Call, Scripted, Wait, always, http, ok

from batchrun import Endpoint as EndpointSection
from batchrun import Job, Retry
from batchrun.cli.progress import describe
from batchrun.endpoint.client import Client
from batchrun.endpoint.target import target_of
from batchrun.records import EndpointError, Request
from batchrun.summary import Snapshot

PATIENT = replace(QUICK, max_outage=60.0)


def is_item(call: Call) -> bool:
    return call.prompt.startswith("p")


class Down:
    """Answers well, but from the given call on it breaks for so many seconds."""

    def __init__(self, actions: list[Action], at_call: int, seconds: float) -> None:
        self.actions, self.at_call, self.seconds = actions, at_call, seconds
        self.since: float | None = None

    def __call__(self, call: Call) -> list[Action]:
        if call.number >= self.at_call and self.since is None:
            self.since = time.monotonic()
        if self.since is not None and time.monotonic() - self.since < self.seconds:
            return self.actions
        return [Wait(0.02), ok()]


OUTAGES: dict[str, list[Action]] = {
    "503": [http(503)],
    "reset": [Act.RESET],
    "closed": [Act.CLOSE],
    "a page": [http(502, b"<html>")],
    "nothing": [http(200, b"")],
}
CUT: list[Action] = [http(200, b'{"id": "c-1", "obj', length=500), Act.CLOSE]
OTHERS: dict[str, list[Action]] = {
    "cut": CUT,
    "refused": [http(429, {"error": {"message": "busy"}})],
    "refused for a second": [http(429, {"error": {"message": "busy"}}, "Retry-After: 1")],
    "silence": [Act.HANG],
}


@pytest.mark.parametrize("actions", OUTAGES.values(), ids=OUTAGES)
def test_an_outage_in_the_middle_costs_no_item_and_few_calls(
    actions: list[Action], serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    server = serve(Down(actions, at_call=100, seconds=3.0))
    ran = go(server, 300, concurrency=8, retry=replace(PATIENT, max_attempts=2))
    assert (ran.summary.exit_code, len(ran.results)) == (0, 300)
    assert len(server.calls) <= 300 + 30
    assert 2 <= ran.summary.tally.trials <= 8
    assert any("the endpoint was down once, for" in warning for warning in ran.summary.warnings)


@pytest.mark.parametrize("max_attempts", [1, 2])
@pytest.mark.parametrize("actions", [*OUTAGES.values(), *OTHERS.values()], ids=[*OUTAGES, *OTHERS])
def test_an_outage_that_meets_the_last_items_costs_none_of_them(
    actions: list[Action], max_attempts: int, serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    server = serve(Down(actions, at_call=18, seconds=2.0))
    retry = replace(PATIENT, max_attempts=max_attempts, attempt_timeout=2.5)
    ran = go(server, 20, concurrency=2, retry=retry)
    assert (ran.summary.exit_code, len(ran.results)) == (0, 20)


@pytest.mark.parametrize("actions", [OUTAGES["503"], OUTAGES["reset"], *OTHERS.values()], ids=["503", "reset", *OTHERS])
def test_an_outage_that_meets_one_item_at_a_time_costs_none(
    actions: list[Action], serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    server = serve(Down(actions, at_call=5, seconds=2.5))
    ran = go(server, 10, concurrency=1, retry=replace(PATIENT, max_attempts=2, attempt_timeout=1.0))
    assert (ran.summary.exit_code, len(ran.results)) == (0, 10)


def test_where_one_item_goes_at_a_time_one_that_is_not_answered_in_time_is_no_outage(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    seen: list[str] = []

    def script(call: Call) -> list[Action]:
        seen.append(call.prompt)
        return [Act.HANG] if call.prompt in ("p3", "p6") and seen.count(call.prompt) == 1 else [ok()]

    ran = go(serve(script), 10, concurrency=1, retry=replace(PATIENT, attempt_timeout=0.5))
    assert (ran.summary.exit_code, len(ran.results)) == (0, 10)
    assert len(seen) == 12
    assert ran.summary.tally.trials == 0
    assert not any("down" in warning for warning in ran.summary.warnings)


def test_an_item_is_not_blamed_before_something_sent_later_was_answered(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    def script(call: Call) -> list[Action]:
        if call.prompt == "p1" and call.attempt <= 2:
            return [http(503)]
        return [Wait(0.5), ok()]

    server = serve(script)
    ran = go(server, ["p0", "p1"], concurrency=1, retry=replace(PATIENT, max_attempts=2))
    assert (ran.summary.exit_code, [failure["id"] for failure in ran.failures]) == (3, ["p1"])
    assert (len(server.of("p1")), ran.summary.tally.trials) == (2, 1), "nobody else was there to be answered"
    trial = server.calls[-1]
    assert not is_item(trial)
    assert trial.at > server.of("p1")[-1].at


def test_an_item_that_brings_the_outage_on_is_blamed_in_the_end(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    down_until = 0.0

    def script(call: Call) -> list[Action]:
        nonlocal down_until
        if call.prompt == "p5":
            down_until = time.monotonic() + 0.9
        return [Act.RESET] if time.monotonic() < down_until else [Wait(0.01), ok()]

    ran = go(serve(script), ["p4", "p5"], concurrency=1, retry=replace(PATIENT, max_attempts=2))
    assert (ran.summary.exit_code, [failure["id"] for failure in ran.failures]) == (3, ["p5"])


def test_the_time_of_an_outage_is_not_taken_from_an_item(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    down = Down([http(503)], at_call=10, seconds=3.0)

    def script(call: Call) -> list[Action]:
        began = down.since
        actions = down(call)
        is_first = began is not None and is_item(call) and call.prompt not in seen and actions is not down.actions
        if is_first:
            seen.add(call.prompt)
        return [http(500)] if is_first else actions

    seen: set[str] = set()
    ran = go(serve(script), 20, concurrency=4, retry=replace(PATIENT, item_timeout=2.0))
    assert (ran.summary.exit_code, len(ran.results)) == (0, 20)
    assert len(seen) >= 4


def test_an_outage_that_lasts_too_long_ends_the_run_and_blames_no_item(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    server = serve(always(http(503, {"error": {"message": "maintenance"}})))
    ran = go(server, 20, concurrency=4, retry=replace(QUICK, max_outage=1.5))
    assert (ran.summary.exit_code, ran.summary.failures, ran.summary.pending) == (4, 0, 20)
    assert ran.summary.stop is not None
    assert ran.summary.stop.kind == "server_error"
    assert "has been down" in ran.summary.stop.message
    assert "maintenance" in ran.summary.stop.message
    good = serve(always(ok()))
    assert go(good, 20).summary.exit_code == 0, "the same command again"


def test_items_that_break_the_endpoint_become_failures_while_the_others_go_on(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    server = serve(lambda call: [http(500)] if is_item(call) and int(call.prompt[1:]) % 7 == 3 else [ok()])
    ran = go(server, 70, retry=replace(PATIENT, max_attempts=3))
    assert (ran.summary.exit_code, len(ran.results), len(ran.failures)) == (3, 60, 10)
    assert {failure["error"]["kind"] for failure in ran.failures} == {"server_error"}


def test_items_that_break_the_endpoint_become_failures_also_where_there_are_no_others(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    server = serve(lambda call: [http(500)] if is_item(call) else [ok()])
    ran = go(server, 12, retry=replace(PATIENT, max_attempts=3))
    assert (ran.summary.exit_code, len(ran.failures), ran.summary.pending) == (3, 12, 0)
    assert ran.summary.tally.trials >= 1


def test_calls_into_the_silence_are_given_up_and_those_that_live_are_not(serve: Callable[..., Scripted]) -> None:
    def script(call: Call) -> list[Action]:
        if call.prompt == "dead":
            return [Act.HANG]
        if call.prompt == "alive":
            return [b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n", Wait(0.6), ok("x")]
        return [ok()]

    server = serve(script)

    async def main() -> tuple[list[BaseException | object], int]:
        job = Job(
            (), Path("unused"), endpoint=EndpointSection(server.base_url, "m-1"), retry=Retry(attempt_timeout=20.0)
        )
        async with Client(server.base_url, KEY, target_of(job), lambda _: None) as client:
            calls = [asyncio.create_task(client.chat(request(name))) for name in ("dead", "alive")]
            await asyncio.sleep(0.2)
            count = client.abandon(asyncio.get_running_loop().time())
            return await asyncio.gather(*calls, return_exceptions=True), count

    (dead, alive), count = asyncio.run(main())
    assert count == 1
    assert isinstance(dead, EndpointError)
    assert (dead.kind, dead.abandoned) == ("timeout", True)
    assert not (isinstance(alive, EndpointError) and alive.abandoned)


def request(prompt: str) -> Request:
    body = b'{"model":"m-1","messages":[{"role":"user","content":"%s"}]}' % prompt.encode()
    return Request(body, "0" * 32, [{"role": "user", "content": prompt}], "m-1")


def test_a_straggler_is_asked_a_second_time_where_wanted(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    def script(call: Call) -> list[Action]:
        return [Wait(20.0 if call.prompt == "p60" and call.attempt == 1 else 0.01), ok()]

    server = serve(script)
    began = time.monotonic()
    ran = go(server, 80, retry=replace(QUICK, hedge=0.05))
    assert time.monotonic() - began < 10.0
    assert (ran.summary.exit_code, len(ran.results)) == (0, 80)
    assert (ran.summary.tally.hedges, len(server.of("p60")), len(server.calls)) == (1, 2, 81)
    (late,) = (record for record in ran.results if record["id"] == "p60")
    assert late["attempts"] == 2


def test_where_both_fail_the_item_is_tried_again_as_ever(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    def script(call: Call) -> list[Action]:
        if call.prompt == "p60" and call.attempt <= 2:
            return [Wait(2.0), http(503)]
        return [Wait(0.01), ok()]

    server = serve(script)
    ran = go(server, 80, retry=replace(QUICK, hedge=0.05))
    assert (ran.summary.exit_code, len(ran.results)) == (0, 80)
    assert len(server.of("p60")) == 3


def test_the_display_says_that_the_endpoint_is_down() -> None:
    snapshot = Snapshot(
        total=100, done=10, results=10, failures=0, retries=0, in_flight=0, waiting=5, reading=True,
        requests_per_minute=0.0, tokens_per_minute=0.0, eta_s=None, paused_s=0.0, held=False, outage_s=75.0,
        outage="HTTP 503: maintenance\x1b[2J", drain_s=None, slowest=(),
    )  # fmt: skip
    said = describe(snapshot)
    assert "endpoint down for 1m15s, trying it: HTTP 503: maintenance" in said
    assert "\x1b" not in said


def test_a_deadline_in_an_outage_says_that_the_endpoint_is_down(tmp_path: Path, batchrun: Callable[..., Ended]) -> None:
    write_lines(tmp_path / "in.jsonl", *({"id": str(number), "prompt": "p"} for number in range(8)))
    flags = ("--base-url", "http://127.0.0.1:9/v1", "-m", "m", "-o", "out", "--deadline", "4s")
    ended = batchrun("run", "-q", "-i", "in.jsonl", *flags)
    assert ended.code == 5
    assert "stopping: the deadline of 4 s was reached; the endpoint has been down for" in ended.err
    assert "127.0.0.1" in ended.err
