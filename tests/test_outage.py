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


@pytest.mark.parametrize(
    "actions",
    [[http(503)], [Act.RESET], [Act.CLOSE], [http(502, b"<html>")], [http(200, b"")]],
    ids=["503", "reset", "closed", "a page", "nothing"],
)
def test_an_outage_in_the_middle_costs_no_item_and_few_calls(
    actions: list[Action], serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    server = serve(Down(actions, at_call=100, seconds=3.0))
    ran = go(server, 300, concurrency=8, retry=replace(PATIENT, max_attempts=2))
    assert (ran.summary.exit_code, len(ran.results)) == (0, 300)
    assert len(server.calls) <= 300 + 30
    assert 2 <= ran.summary.tally.trials <= 8
    assert any("the endpoint was down once, for" in warning for warning in ran.summary.warnings)


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
