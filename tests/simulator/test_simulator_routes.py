from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest

from batchrun.simulator import SettingsError, Simulator, SimulatorSettings

CHAT = "/v1/chat/completions"
USER = [{"role": "user", "content": "你好"}]


async def test_a_plain_answer(provider: Callable[..., Any]) -> None:
    async with provider() as sim:
        got = await sim.chat("请写一个摘要：今天天气很好。我们去公园。")
    assert got.status == 200
    assert got.headers["x-simulated"] == "true"
    assert got.headers["x-request-id"]
    assert got.headers["Content-Type"] == "application/json"
    body = got.body
    assert body["simulated"] is True
    assert body["system_fingerprint"] == "fp_simulated"
    assert body["model"] == "test-model"
    assert body["object"] == "chat.completion"
    assert got.content.startswith("【模拟回答】")
    assert "今天天气很好" in got.content
    assert body["choices"][0]["finish_reason"] == "stop"
    usage = body["usage"]
    # 20 characters, all CJK or full-width: ceil(0.7 * 20) + 8
    assert usage["prompt_tokens"] == 22
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0}


async def test_models(provider: Callable[..., Any]) -> None:
    async with provider() as sim:
        listed = await sim.call("GET", "/v1/models")
        one = await sim.call("GET", "/v1/models/some/org-model")
        none = await sim.call("GET", "/v1/models/")
    assert listed.status == 200
    assert all(model["object"] == "model" for model in listed.body["data"])
    assert one.body["id"] == "some/org-model"
    assert none.status == 404


async def test_stats_are_the_same_over_http(provider: Callable[..., Any]) -> None:
    async with provider() as sim:
        await sim.chat()
        await sim.chat(temperature=9)
        got = await sim.call("GET", "/simulator/stats")
        assert got.body == sim.simulator.stats
    assert got.body == {
        "calls": 2,
        "answered": 2,
        "by_status": {"200": 1, "400": 1},
        "by_fault": {},
        "in_flight": 0,
        "peak_in_flight": 1,
    }


async def test_other_paths_and_methods(provider: Callable[..., Any]) -> None:
    async with provider() as sim:
        for path in ("/v1/completion", "/v1", "/v1/", "/v1/v1/chat/completions"):
            got = await sim.call("POST", path, json={})
            assert got.status == 404
            assert got.body["error"]["type"] == "invalid_request_error"
            assert path in got.body["error"]["message"]
        for method, path in (
            ("POST", "/chat/completions"),
            ("GET", "/"),
            ("GET", "/v2/models"),
            ("GET", "/v1x"),
        ):
            got = await sim.call(method, path)
            assert got.status == 200
            assert got.headers["Content-Type"].startswith("text/html")
            assert got.headers["x-simulated"] == "true"
            assert got.raw.startswith(b"<!doctype html>")
        for method, path, allowed in (
            ("GET", CHAT, "POST"),
            ("DELETE", "/v1/models", "GET"),
            ("PUT", "/v1/models/x", "GET"),
        ):
            got = await sim.call(method, path)
            assert got.status == 405
            assert got.headers["Allow"] == allowed
            assert got.body["error"]["code"] == "method_not_supported"


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"messages": None}, "messages", "Missing required parameter"),
        ({"messages": []}, "messages", "non-empty"),
        ({"messages": "hi"}, "messages", "array"),
        ({"messages": [3]}, "messages[0]", "object"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "messages[0].role", "'boss'"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "None"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role", "user"),
        ({"messages": [*USER, {"role": "user"}]}, "messages[1].content", "string"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "string"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content", "string"),
        ({"model": None}, "model", "model"),
        ({"model": 5}, "model", "string"),
        ({"model": ""}, "model", "string"),
        ({"max_tokens": 0}, "max_tokens", "1 or more"),
        ({"max_tokens": -5}, "max_tokens", "1 or more"),
        ({"max_tokens": True}, "max_tokens", "1 or more"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens", "1 or more"),
        ({"temperature": 2.1}, "temperature", "0 to 2"),
        ({"temperature": "0"}, "temperature", "0 to 2"),
        ({"temperature": -0.1}, "temperature", "0 to 2"),
        ({"top_p": 1.1}, "top_p", "0 to 1"),
        ({"n": 9}, "n", "1 to 8"),
        ({"n": 0}, "n", "1 to 8"),
        ({"stop": ["a"] * 5}, "stop", "up to 4"),
        ({"stop": 3}, "stop", "string"),
        ({"stream": "yes"}, "stream", "boolean"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream"),
        ({"response_format": "json"}, "response_format", "object"),
        ({"response_format": {"type": "yaml"}}, "response_format.type", "yaml"),
        ({"response_format": {"type": "json_object"}}, "messages", "must contain the word 'json'"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.name", "Missing"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema",
            "Missing",
        ),
        ({"tools": [{}]}, "tools[0].function.name", "Missing"),
        ({"tool_choice": "required"}, "tool_choice", "tools"),
        (
            {
                "tools": [{"type": "function", "function": {"name": "a"}}],
                "tool_choice": {"type": "function", "function": {"name": "b"}},
            },
            "tool_choice",
            "named",
        ),
    ],
)
async def test_bad_requests(provider: Callable[..., Any], change: dict[str, object], param: str, words: str) -> None:
    body = {"model": "m", "messages": USER, **change}
    body = {name: value for name, value in body.items() if value is not None}
    async with provider() as sim:
        got = await sim.call("POST", CHAT, json=body)
    assert got.status == 400
    error = got.body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert words in error["message"]
    assert got.headers["x-simulated"] == "true"


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[1]", b'"x"', b'{"model": "\\ud83d"}', b"null"])
async def test_a_body_that_is_no_json_object(provider: Callable[..., Any], raw: bytes) -> None:
    async with provider() as sim:
        got = await sim.call("POST", CHAT, data=raw)
    assert got.status == 400
    assert "JSON body" in got.body["error"]["message"]


async def test_nulls_count_as_absent_and_extra_parameters_pass(provider: Callable[..., Any]) -> None:
    async with provider() as sim:
        got = await sim.chat(stop=None, n=None, temperature=None, enable_thinking=False, seed=4)
    assert got.status == 200


async def test_the_key_is_checked(provider: Callable[..., Any]) -> None:
    async with provider(api_key="sk-right-key-0123456789") as sim:
        for headers, code in (
            ({}, None),
            ({"Authorization": "Basic x"}, None),
            ({"Authorization": "Bearer "}, None),
            ({"Authorization": "Bearer sk-wrong-key-0123456789"}, "invalid_api_key"),
            ({"Authorization": "Bearer short"}, "invalid_api_key"),
        ):
            for method, path in (("POST", CHAT), ("GET", "/v1/models"), ("GET", "/v1/models/x")):
                got = await sim.call(method, path, headers=headers)
                assert got.status == 401
                assert got.body["error"]["code"] == code
                assert "wrong-key" not in got.raw.decode()
                assert "right" not in got.raw.decode()
        sim.session.headers["Authorization"] = "Bearer sk-right-key-0123456789"
        assert (await sim.chat()).status == 200
        assert (await sim.call("GET", "/v1/models")).status == 200


async def test_a_prompt_beyond_the_context_is_refused(provider: Callable[..., Any]) -> None:
    async with provider() as sim:
        fits = await sim.chat("x" * 365_000)
        too_long = await sim.chat("长" * 190_000)
    assert fits.status == 200
    assert too_long.status == 400
    assert too_long.body["error"]["code"] == "context_length_exceeded"
    assert "128000 tokens" in too_long.body["error"]["message"]


async def test_content_parts_are_read(provider: Callable[..., Any]) -> None:
    parts = [{"type": "text", "text": "翻译：早上好"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    async with provider() as sim:
        got = await sim.call("POST", CHAT, json={"model": "m", "messages": [{"role": "user", "content": parts}]})
    assert "早上好" in got.content
    assert "译" in got.content


async def test_clients_that_expect_continue_are_told_to(provider: Callable[..., Any]) -> None:
    async with provider() as sim:
        got = await sim.call("POST", CHAT, json={"model": "m", "messages": USER}, expect100=True)
    assert got.status == 200


async def test_the_ledger_has_every_answered_call(provider: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    async with provider(ledger=path, faults={"http_500": 0.5}, seed=1) as sim:
        for number in range(20):
            got = await sim.chat(f"第{number}条")
            # The line is there before the answer is.
            last = orjson.loads(path.read_bytes().splitlines()[-1])
            assert last["status"] == got.status
            assert last["fault"] == ("http_500" if got.status == 500 else None)
        await sim.chat(stream=True)
        await sim.chat(temperature=9)
        lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
        assert len(lines) == sim.simulator.stats["answered"] == 22
    assert all(set(line) == {"time", "key", "attempt", "status", "fault"} for line in lines)
    assert all(re.fullmatch("[0-9a-f]{32}", line["key"]) for line in lines[:-1])
    assert lines[-1]["key"] is None
    assert len({line["key"] for line in lines[:20]}) == 20


async def test_the_ledger_counts_attempts_and_is_appended_to(provider: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for _ in range(2):
        async with provider(ledger=path, faults={"http_503": 1.0}) as sim:
            await sim.chat()
            await sim.chat()
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert [line["attempt"] for line in lines] == [1, 2, 1, 2]
    assert len({line["key"] for line in lines}) == 1


async def test_a_ledger_that_cannot_be_written(tmp_path: Path) -> None:
    simulator = Simulator(SimulatorSettings(ledger=tmp_path / "no" / "ledger"))
    with pytest.raises(SettingsError, match="ledger"):
        await simulator.start()
    with pytest.raises(RuntimeError):
        _ = simulator.base_url


async def test_start_stop_and_addresses() -> None:
    simulator = Simulator(SimulatorSettings(), host="localhost")
    await simulator.stop()
    await simulator.start()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1", simulator.base_url)
    with pytest.raises(RuntimeError):
        await simulator.start()
    port = int(simulator.base_url.split(":")[2].split("/")[0])
    with pytest.raises(OSError, match="address already in use"):
        await Simulator(SimulatorSettings(), port=port).start()
    await simulator.stop()
    await simulator.stop()
    async with Simulator(SimulatorSettings(), host="::1") as six:
        assert six.base_url.startswith("http://[::1]:")


async def test_stop_cuts_off_what_hangs(provider: Callable[..., Any]) -> None:
    async with provider(faults={"hang": 1.0}) as sim:
        call = asyncio.create_task(sim.raw())
        await sim.until(lambda stats: stats["by_fault"] == {"hang": 1})
        await sim.simulator.stop()
        received, _ = await call
    assert received == b""


async def test_clients_that_leave_in_the_middle(provider: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    body = orjson.dumps({"model": "m", "messages": USER, "stream": True, "n": 8})
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    async with provider() as sim:
        address = urlsplit(sim.url)
        for number in range(60):
            _, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(head + (body if number % 3 else body[:10]))
            for _ in range(number % 12):
                await asyncio.sleep(0)
            writer.transport.abort() if number % 2 else writer.close()
        assert (await sim.chat()).status == 200
        await sim.until(lambda stats: not stats["in_flight"])
    assert not caplog.records
