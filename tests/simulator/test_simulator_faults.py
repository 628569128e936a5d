from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema_rs
import orjson
import pytest
import uvloop

from batchrun.simulator import FAULTS, Simulator, SimulatorSettings
from batchrun.simulator.faults import SCOPES, FaultPlan, Scope

SCHEMA = {
    "type": "object",
    "properties": {"情感": {"enum": ["正面", "负面"]}, "理由": {"type": "string"}},
    "required": ["情感", "理由"],
    "additionalProperties": False,
}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("unauthorized", 401, "invalid_api_key"),
        ("payment_required", 402, "insufficient_quota"),
        ("forbidden", 403, "model_not_allowed"),
        ("model_not_found", 404, "model_not_found"),
        ("http_500", 500, None),
        ("http_502", 502, None),
        ("http_503", 503, "service_unavailable"),
        ("http_408", 408, "timeout"),
        ("http_409", 409, "conflict"),
        ("http_425", 425, "too_early"),
        ("http_429", 429, "rate_limit_exceeded"),
        ("http_429_date", 429, "rate_limit_exceeded"),
        ("http_429_absurd", 429, "rate_limit_exceeded"),
        ("retry_after_garbage", 429, "rate_limit_exceeded"),
        ("octet_stream_500", 500, None),
        ("content_filter_400", 400, "content_filter"),
        ("context_length", 400, "context_length_exceeded"),
        ("bad_request", 400, None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_errors_have_a_status_and_the_error_shape(
    provider: Callable[..., Any], name: str, status: int, code: str | None, stream: bool
) -> None:
    async with provider(faults={name: 1.0}) as sim:
        got = await sim.chat(stream=stream)
        stats = sim.simulator.stats
    assert got.status == status
    assert set(got.body["error"]) == {"message", "type", "param", "code"}
    assert got.body["error"]["code"] == code
    assert "{" not in got.body["error"]["message"]
    assert got.body["simulated"] is True
    assert got.headers["x-simulated"] == "true"
    assert stats["by_fault"] == {name: 1}
    assert stats["by_status"] == {str(status): 1}


async def test_retry_after_values(provider: Callable[..., Any]) -> None:
    values = {}
    for name in ("http_429", "http_429_absurd", "retry_after_garbage", "http_429_date"):
        async with provider(faults={name: 1.0}) as sim:
            values[name] = (await sim.chat()).headers["Retry-After"]
    ahead = parsedate_to_datetime(values.pop("http_429_date")).timestamp() - time.time()
    assert 0 < ahead <= 2
    assert values == {"http_429": "1", "http_429_absurd": "100000", "retry_after_garbage": "soon"}


async def test_octet_stream(provider: Callable[..., Any]) -> None:
    async with provider(faults={"octet_stream_500": 1.0}) as sim:
        assert (await sim.chat()).headers["Content-Type"] == "application/octet-stream"


async def test_web_pages(provider: Callable[..., Any]) -> None:
    for name, status in (("html_200", 200), ("html_502", 502)):
        async with provider(faults={name: 1.0}) as sim:
            for stream in (False, True):
                got = await sim.chat(stream=stream)
                assert got.status == status
                assert got.headers["Content-Type"].startswith("text/html")
                assert got.raw.startswith(b"<")


@pytest.mark.parametrize("stream", [False, True])
async def test_reset_before_the_first_byte(provider: Callable[..., Any], stream: bool) -> None:
    async with provider(faults={"reset": 1.0}) as sim:
        received, was_reset = await sim.raw(stream=stream)
        with pytest.raises(aiohttp.ClientConnectionError):
            await sim.chat()
        stats = sim.simulator.stats
    assert received == b""
    assert was_reset
    assert stats["answered"] == 0
    assert stats["by_fault"] == {"reset": 2}
    assert stats["in_flight"] == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_reset_in_the_middle(provider: Callable[..., Any], stream: bool) -> None:
    async with provider(faults={"reset_mid_body": 1.0}) as sim:
        received, was_reset = await sim.raw(stream=stream)
    assert was_reset
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b'"simulated":true' not in received[-30:]
    assert (b"data: " in received) == stream


def test_resets_are_resets_on_uvloop_too() -> None:
    async def run() -> None:
        settings = SimulatorSettings(faults={"reset": 0.5, "reset_mid_body": 0.5})
        async with Simulator(settings) as simulator, aiohttp.ClientSession() as session:
            for number in range(8):
                body = {"model": "m", "messages": [{"role": "user", "content": str(number)}]}
                with pytest.raises(aiohttp.ClientError) as caught:
                    async with session.post(f"{simulator.base_url}/chat/completions", json=body) as response:
                        await response.read()
                assert "reset" in str(caught.value).lower() or "not completed" in str(caught.value).lower()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def test_truncated(provider: Callable[..., Any]) -> None:
    async with provider(faults={"truncated": 1.0}) as sim:
        received, was_reset = await sim.raw()
        head, _, body = received.partition(b"\r\n\r\n")
        announced = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        assert not was_reset
        assert 0 < len(body) < announced
        with pytest.raises(aiohttp.ClientPayloadError):
            await sim.chat()
        streamed, was_reset = await sim.raw(stream=True)
        assert not was_reset
        assert b"data: " in streamed
        assert b"[DONE]" not in streamed
        assert not streamed.endswith(b"0\r\n\r\n")


async def test_hang_lasts_until_the_client_leaves(provider: Callable[..., Any]) -> None:
    async with provider(faults={"hang": 1.0}) as sim:
        call = asyncio.create_task(sim.chat())
        await sim.until(lambda stats: stats["by_fault"] == {"hang": 1})
        assert sim.simulator.stats["in_flight"] == 1
        call.cancel()
        await sim.until(lambda stats: not stats["in_flight"])
        assert sim.simulator.stats["answered"] == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_bodies_without_an_answer(provider: Callable[..., Any], stream: bool) -> None:
    for name in ("empty_200", "blank_lines_200"):
        async with provider(faults={name: 1.0}) as sim:
            got = await sim.chat(stream=stream)
            assert got.status == 200
            assert got.raw.strip(b"\n") == b""
            assert (got.raw != b"") == (name == "blank_lines_200")
            assert got.headers["Connection"] == "close"


@pytest.mark.parametrize("stream", [False, True])
async def test_keep_alives_before_the_answer(provider: Callable[..., Any], stream: bool) -> None:
    async with provider() as good:
        expected = await good.chat(stream=stream)
    async with provider(faults={"blank_lines_then_json": 1.0}) as sim:
        began = time.monotonic()
        got = await sim.chat(stream=stream)
        assert time.monotonic() - began >= 0.9
    before, after = got.raw[: -len(expected.raw)], got.raw[-len(expected.raw) :]
    assert after == expected.raw
    assert before == (b": keep-alive\n\n" if stream else b"\n") * 10


async def test_choices_and_errors_in_200(provider: Callable[..., Any]) -> None:
    async with provider(faults={"choices_null": 1.0}) as sim:
        assert (await sim.chat()).body["choices"] is None
        assert b'"choices":null' in (await sim.chat(stream=True)).raw
    async with provider(faults={"choices_empty": 1.0}) as sim:
        assert (await sim.chat()).body["choices"] == []
    async with provider(faults={"error_in_200": 1.0}) as sim:
        got = await sim.chat()
        assert got.status == 200
        assert got.body["error"]["type"] == "server_error"
        streamed = (await sim.chat(stream=True)).raw
        assert streamed.startswith(b'data: {"error":')


async def test_bad_json(provider: Callable[..., Any]) -> None:
    async with provider(faults={"bad_json": 1.0}) as sim:
        got = await sim.chat()
        assert got.status == 200
        assert int(got.headers["Content-Length"]) == len(got.raw)
        with pytest.raises(orjson.JSONDecodeError):
            _ = got.body
        streamed = (await sim.chat(stream=True)).raw
        assert b"[DONE]" not in streamed
        assert not streamed.endswith(b"\n\n")


async def test_faults_that_are_no_errors(provider: Callable[..., Any]) -> None:
    async with provider() as good:
        expected = await good.chat()
    async with provider(faults={"wrong_content_type": 1.0}) as sim:
        got = await sim.chat()
        assert got.headers["Content-Type"].startswith("text/html")
        assert got.raw == expected.raw
    async with provider(faults={"pretty_json": 1.0}) as sim:
        got = await sim.chat()
        assert got.raw.count(b"\n") > 10
        assert got.body == expected.body
    async with provider(faults={"slow": 1.0}, latency_s=0.02) as sim:
        began = time.monotonic()
        got = await sim.chat()
        assert time.monotonic() - began >= 0.2
        assert got.raw == expected.raw


async def test_latency_and_jitter(provider: Callable[..., Any]) -> None:
    async with provider(latency_s=0.05, jitter_s=0.01) as sim:
        began = time.monotonic()
        await sim.chat()
        assert time.monotonic() - began >= 0.05


@pytest.mark.parametrize(
    ("name", "finish"),
    [
        ("whitespace_content", "stop"),
        ("empty_content", "stop"),
        ("length", "length"),
        ("content_filter_finish", "content_filter"),
    ],
)
async def test_content_faults(
    provider: Callable[..., Any], events: Callable[[bytes], list[Any]], name: str, finish: str
) -> None:
    async with provider() as good:
        whole = (await good.chat()).content
    async with provider(faults={name: 1.0}) as sim:
        got = await sim.chat()
        streamed = events((await sim.chat(stream=True)).raw)
    choice = got.body["choices"][0]
    assert choice["finish_reason"] == finish
    text = choice["message"]["content"]
    if name == "empty_content":
        assert text == ""
    elif name == "whitespace_content":
        assert text
        assert not text.strip()
    else:
        assert text == whole[: len(whole) // 2]
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in streamed) == text
    assert streamed[-1]["choices"][0]["finish_reason"] == finish


async def test_faults_of_json_answers(provider: Callable[..., Any]) -> None:
    validator = jsonschema_rs.validator_for(SCHEMA)
    async with provider(faults={"fenced_json": 1.0}) as sim:
        text = (await sim.chat(response_format=JSON_SCHEMA)).content
        assert text.startswith("```json\n")
        assert text.endswith("\n```")
        assert validator.is_valid(orjson.loads(text.removeprefix("```json\n").removesuffix("\n```")))
    async with provider(faults={"invalid_json_output": 1.0}) as sim:
        text = (await sim.chat(response_format=JSON_SCHEMA)).content
        assert text.startswith("【模拟回答】")
        assert not set(text) & set("{}[]")
    async with provider(faults={"missing_field": 1.0}) as sim:
        value = orjson.loads((await sim.chat(response_format=JSON_SCHEMA)).content)
        assert list(value) == ["情感"]
        assert not validator.is_valid(value)


async def test_faults_of_json_answers_leave_prose_alone(provider: Callable[..., Any]) -> None:
    async with provider() as good:
        expected = (await good.chat()).raw
    for name in ("fenced_json", "invalid_json_output", "missing_field"):
        async with provider(faults={name: 1.0}) as sim:
            assert (await sim.chat()).raw == expected
            assert sim.simulator.stats["by_fault"] == {}
    free = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    async with provider(faults={"missing_field": 1.0}) as sim:
        assert (await sim.chat(response_format=free)).status == 200
        assert sim.simulator.stats["by_fault"] == {}


def test_transient_rates_add_up() -> None:
    rates = {"http_500": 0.1, "http_429": 0.2, "reset": 0.05, "slow": 0.3}
    plan = FaultPlan(rates, seed=5)
    count = 20_000
    drawn = Counter(plan.draw(str(number).encode()).fault for number in range(count))
    for name, rate in rates.items():
        assert abs(drawn[name] / count - rate) < 0.015
    assert abs(drawn[None] / count - 0.35) < 0.015


def test_rates_that_add_up_to_one_spare_nobody() -> None:
    names = [name for name in FAULTS if SCOPES[name] is Scope.TRANSIENT]
    plan = FaultPlan(dict.fromkeys(names, 1 / len(names)), seed=0)
    faults = {plan.draw(str(number).encode()).fault for number in range(2000)}
    assert faults == set(names)


def test_draws_depend_on_seed_prompt_and_attempt_alone() -> None:
    rates = {"http_500": 0.3, "length": 0.2}
    keys = [str(number).encode() for number in range(300)]
    first = FaultPlan(rates, seed=1)
    drawn = [[first.draw(key) for _ in range(4)] for key in keys]
    second = FaultPlan(dict(reversed(rates.items())), seed=1)
    rounds = [[second.draw(key) for key in reversed(keys)] for _ in range(4)]
    # Attempts are counted from the first fault on; before it every draw is that of attempt 1.
    again = [list(column) for column in zip(*(list(reversed(one)) for one in rounds), strict=True)]
    assert again == drawn
    other = FaultPlan(rates, seed=2)
    assert [other.draw(key).fault for key in keys] != [one[0].fault for one in drawn]


def test_permanent_faults_come_back_and_transient_ones_change() -> None:
    plan = FaultPlan({"bad_request": 0.3}, seed=3)
    for number in range(200):
        key = str(number).encode()
        assert len({plan.draw(key).fault for _ in range(5)}) == 1
    plan = FaultPlan({"http_500": 0.5}, seed=3)
    met = [[plan.draw(str(number).encode()).fault for _ in range(8)] for number in range(200)]
    began_badly = [faults for faults in met if faults[0]]
    assert began_badly
    assert sum(None in faults for faults in began_badly) > 0.9 * len(began_badly)


def test_attempts_are_kept_only_where_they_matter_and_bounded() -> None:
    plan = FaultPlan({"http_500": 0.01}, seed=0)
    faulty = sum(plan.draw(str(number).encode()).fault is not None for number in range(10_000))
    assert plan.remembered == faulty
    plan = FaultPlan({"http_500": 1.0}, seed=0, limit=100)
    for number in range(1000):
        plan.draw(str(number).encode())
    assert plan.remembered == 100
    assert plan.draw(b"999").attempt == 2
    assert plan.draw(b"1").attempt == 1
    none = FaultPlan({"http_500": 0.0}, seed=0)
    none.draw(b"x")
    assert none.remembered == 0


async def test_a_faulty_run_is_repeated_exactly(provider: Callable[..., Any], tmp_path: Path) -> None:
    runs = []
    for number in range(2):
        path = tmp_path / f"{number}.jsonl"
        faults = {"http_500": 0.2, "choices_null": 0.2, "length": 0.1}
        async with provider(ledger=path, seed=9, faults=faults) as sim:
            prompts = [f"第{index}题" for index in range(30)] * 3
            await asyncio.gather(*(sim.chat(prompt) for prompt in prompts))
        lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
        runs.append(sorted((line["key"], line["attempt"], line["status"], str(line["fault"])) for line in lines))
    assert runs[0] == runs[1]
    assert len({run[3] for run in runs[0]}) == 4
