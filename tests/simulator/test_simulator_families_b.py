from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from batchrun.simulator import DIALECTS, FAULTS

THINKING: dict[str, dict[str, Any]] = {
    "openrouter": {"reasoning": {"effort": "high"}},
    "vllm": {"chat_template_kwargs": {"enable_thinking": True}},
    "sglang": {"chat_template_kwargs": {"enable_thinking": True}},
    "llamacpp": {"chat_template_kwargs": {"enable_thinking": True}},
    "ollama": {"reasoning_effort": "max"},
}
REASONING = {name: "reasoning" if name in ("openrouter", "ollama") else "reasoning_content" for name in THINKING}
WANT_USAGE = {"stream_options": {"include_usage": True}}


def added(streamed: list[Any], name: str) -> str:
    parts = [choice["delta"].get(name) for event in streamed for choice in event["choices"]]
    return "".join(part for part in parts if part is not None)


async def refused(provider: Callable[..., Any], dialect: str, fault: str, **fields: Any) -> Any:
    rate = {"rate": 1.0, "count": 0} if fault == "quota_after_n" else 1.0
    async with provider(dialect=dialect, faults={fault: rate}) as sim:
        got = await sim.chat(**fields)
    assert "Retry-After" not in got.headers or fault.startswith("http_429")
    return got


@pytest.mark.parametrize("dialect", THINKING)
@pytest.mark.parametrize("thinking", [False, True])
async def test_a_stream_adds_up_to_the_plain_answer(
    provider: Callable[..., Any], events: Callable[[bytes], list[Any]], dialect: str, thinking: bool
) -> None:
    fields = THINKING[dialect] if thinking else {}
    async with provider(dialect=dialect) as sim:
        plain = await sim.chat(**fields)
        got = await sim.chat(**fields, stream=True, **WANT_USAGE)
        bare = await sim.chat(**fields, stream=True)
    message = plain.body["choices"][0]["message"]
    streamed = events(got.raw)
    name = REASONING[dialect]
    assert message["content"].startswith("【模拟回答】")
    assert added(streamed, "content") == added(events(bare.raw), "content") == message["content"]
    assert added(streamed, name) == (message.get(name) or "")
    assert bool(message.get(name)) == thinking
    assert {event["id"] for event in streamed} == {plain.body["id"]}
    assert streamed[-1]["usage"] == plain.body["usage"]
    assert {event["object"] for event in streamed} == {"chat.completion.chunk"}


@pytest.mark.parametrize("dialect", THINKING)
def test_every_problem_can_be_told(dialect: str) -> None:
    family = DIALECTS[dialect]
    for problem in family.errors:
        status, body = family.refuse(problem, None, {})
        assert 200 <= status < 600
        assert body


@pytest.mark.parametrize("dialect", THINKING)
async def test_every_fault_can_be_sent(provider: Callable[..., Any], dialect: str) -> None:
    silent = {"hang", "reset", "reset_mid_body", "truncated", "sse_comments_forever", "blank_lines_then_json"}
    slow = {"gzip_bomb", "redirect_elsewhere", "sse_keepalive"}
    for name in FAULTS.keys() - silent - slow:
        async with provider(dialect=dialect, faults={name: 1.0}) as sim:
            for stream in (False, True):
                got = await sim.chat("违禁词示例", stream=stream)
                assert got.status in {200, 400, 401, 402, 403, 404, 408, 409, 425, 429, 500, 502, 503, 504}


# OpenRouter


async def test_openrouter_answers(provider: Callable[..., Any], events: Callable[[bytes], list[Any]]) -> None:
    async with provider(dialect="openrouter", api_key="sk-or-simulated") as sim:
        assert sim.url.endswith("/api/v1")
        assert (await sim.call("GET", "/api/v1/models")).status == 200
    async with provider(dialect="openrouter") as sim:
        got = await sim.chat(reasoning={"enabled": True})
        bare = await sim.chat(reasoning={"enabled": False})
        streamed = events((await sim.chat(stream=True)).raw)
    choice = got.body["choices"][0]
    assert list(got.body)[:3] == ["id", "provider", "model"]
    assert got.body["id"].startswith("gen-")
    assert choice["native_finish_reason"] == choice["finish_reason"] == "stop"
    assert choice["message"]["reasoning_details"][0]["text"] == choice["message"]["reasoning"]
    assert "reasoning_content" not in choice["message"]
    assert bare.body["choices"][0]["message"]["reasoning"] is None
    assert [bool(event.get("usage")) for event in streamed] == [False] * (len(streamed) - 1) + [True]


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("unauthorized", 401, 401),
        ("payment_required", 402, 402),
        ("quota_after_n", 402, 402),
        ("content_filter_400", 403, 403),
        ("forbidden", 403, 403),
        ("model_not_found", 400, 400),
        ("http_429", 429, 429),
        ("burst_limit", 200, 429),
        ("throttle_quota", 200, 429),
        ("engine_overloaded", 200, 503),
        ("error_in_200", 200, 500),
        ("http_500", 500, 500),
        ("http_502", 502, 502),
        ("http_503", 503, 503),
        ("daily_limit", 429, 429),
    ],
)
async def test_openrouter_errors(provider: Callable[..., Any], fault: str, status: int, code: int) -> None:
    got = await refused(provider, "openrouter", fault)
    assert got.status == status
    assert "choices" not in got.body
    assert got.body["user_id"] == "org-simulated"
    error = got.body["error"]
    assert error["code"] == code
    assert set(error) <= {"message", "code", "metadata"}
    upstream = error["message"] == "Provider returned error"
    assert upstream == (fault in ("burst_limit", "throttle_quota", "engine_overloaded", "http_502"))
    assert ("metadata" in error) == (upstream or fault == "content_filter_400")
    assert not upstream or error["metadata"]["raw"]


async def test_openrouter_upstream_errors_of_a_stream_are_events(provider: Callable[..., Any]) -> None:
    got = await refused(provider, "openrouter", "engine_overloaded", stream=True)
    assert got.headers["Content-Type"].startswith("text/event-stream")
    assert got.raw.startswith(b'data: {"error":')
    got = await refused(provider, "openrouter", "payment_required", stream=True)
    assert got.headers["Content-Type"] == "application/json"


async def test_openrouter_budget_in_flight(provider: Callable[..., Any]) -> None:
    async with provider(dialect="openrouter", max_concurrency=1, faults={"hang": 1.0}) as sim:
        first = asyncio.create_task(sim.chat())
        await sim.until(lambda stats: stats["by_fault"] == {"hang": 1})
        over = await sim.chat("第二条")
        first.cancel()
    assert over.status == over.body["error"]["code"] == 402
    assert over.headers["Retry-After"] == "1"
    assert over.body["error"]["metadata"]["limit_source"] == "openrouter_in_flight_budget"


async def test_openrouter_keys_and_rates(provider: Callable[..., Any]) -> None:
    async with provider(dialect="openrouter", api_key="sk-or-simulated") as sim:
        got = await sim.chat()
        assert (got.status, got.body["error"]["message"]) == (401, "No auth credentials found")
    async with provider(dialect="openrouter", requests_per_minute=1) as sim:
        got = [await sim.chat() for _ in range(2)][1]
        assert (got.status, got.body["error"]["code"]) == (429, 429)
        assert 58 <= int(got.headers["Retry-After"]) <= 60


async def test_openrouter_is_processing(provider: Callable[..., Any]) -> None:
    async with provider(dialect="openrouter", latency_s=0.26) as sim:
        got = await sim.chat(stream=True)
        plain = await sim.chat()
    assert got.raw.startswith(b": OPENROUTER PROCESSING\n\ndata: {")
    assert plain.raw.startswith(b"{")


# vLLM and SGLang


async def test_vllm_answers(provider: Callable[..., Any], events: Callable[[bytes], list[Any]]) -> None:
    async with provider(dialect="vllm") as sim:
        got = await sim.chat(no_such_field=1, guided_json={}, best_of="x")
        streamed = events((await sim.chat(stream=True, **WANT_USAGE)).raw)
        bare = events((await sim.chat(stream=True)).raw)
        models = (await sim.call("GET", "/v1/models")).body["data"]
    assert got.status == 200
    for name in ("prompt_logprobs", "kv_transfer_params", "service_tier"):
        assert got.body[name] is None
        assert not any(name in event for event in streamed)
    choice = got.body["choices"][0]
    assert choice["stop_reason"] is None
    assert choice["message"]["tool_calls"] == []
    assert choice["message"]["reasoning_content"] is None
    assert got.body["usage"]["prompt_tokens_details"] is None
    assert got.body["id"].startswith("chatcmpl-")
    assert streamed[-1]["choices"] == []
    assert not any("usage" in event for event in [*streamed[:-1], *bare])
    assert ["stop_reason" in event["choices"][0] for event in bare] == [False] * (len(bare) - 1) + [True]
    assert models[0]["max_model_len"] == 131_072


async def test_sglang_answers(provider: Callable[..., Any], events: Callable[[bytes], list[Any]]) -> None:
    async with provider(dialect="sglang") as sim:
        got = await sim.chat()
        streamed = events((await sim.chat(stream=True)).raw)
    assert len(got.body["id"]) == 32
    assert got.body["choices"][0]["matched_stop"] is None
    assert got.body["choices"][0]["message"]["tool_calls"] is None
    assert streamed[-1]["choices"][0]["delta"] == {}
    assert not any("usage" in event for event in streamed)


@pytest.mark.parametrize("dialect", ["vllm", "sglang"])
@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        ("payment_required", 402, "Payment Required"),
        ("quota_after_n", 402, "Payment Required"),
        ("content_filter_400", 400, "BadRequestError"),
        ("bad_request", 400, "BadRequestError"),
        ("context_length", 400, "BadRequestError"),
        ("forbidden", 403, "Forbidden"),
        ("model_not_found", 404, "NotFoundError"),
        ("http_429", 429, "Too Many Requests"),
        ("http_500", 500, "InternalServerError"),
        ("http_503", 503, "Service Unavailable"),
    ],
)
async def test_errors_of_engines(
    provider: Callable[..., Any], dialect: str, fault: str, status: int, kind: str
) -> None:
    got = await refused(provider, dialect, fault)
    assert got.status == status
    error = got.body if dialect == "sglang" else got.body["error"]
    assert (error["type"], error["code"], error["param"]) == (kind, status, None)
    assert isinstance(error["message"], str)
    assert (got.body.get("object") == "error") == ("error" not in got.body) == (dialect == "sglang")


@pytest.mark.parametrize("dialect", ["vllm", "sglang"])
async def test_keys_rates_and_models_of_engines(provider: Callable[..., Any], dialect: str) -> None:
    async with provider(dialect=dialect, api_key="sk-simulated") as sim:
        for path, method in (("/v1/models", "GET"), ("/v1/chat/completions", "POST")):
            got = await sim.call(method, path)
            assert (got.status, got.body) == (401, {"error": "Unauthorized", "simulated": True})
    async with provider(dialect=dialect, requests_per_minute=1) as sim:
        missing = await sim.chat(model="a-missing-model")
        bad = await sim.call("POST", "/v1/chat/completions", data=b"{")
        over = [await sim.chat() for _ in range(2)][1]
    told = [got.body if dialect == "sglang" else got.body["error"] for got in (missing, bad, over)]
    assert [error["code"] for error in told] == [404, 400, 429]
    assert told[0]["message"] == "The model `a-missing-model` does not exist."
    assert told[0]["type"] == "NotFoundError"
    assert "'json_invalid'" in told[1]["message"]
    assert "Retry-After" not in over.headers


# llama.cpp


async def test_llamacpp_answers(provider: Callable[..., Any], events: Callable[[bytes], list[Any]]) -> None:
    async with provider(dialect="llamacpp") as sim:
        got = await sim.chat(model="a-missing-model")
        bare = events((await sim.chat(stream=True)).raw)
        streamed = events((await sim.chat(stream=True, **WANT_USAGE)).raw)
        thinking = events((await sim.chat(stream=True, **THINKING["llamacpp"])).raw)
    assert (got.status, got.body["model"]) == (200, "a-missing-model")
    assert got.body["timings"]["predicted_n"] == got.body["usage"]["completion_tokens"]
    for chunks in (bare, streamed, thinking):
        assert ["timings" in chunk for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
        assert chunks[0]["choices"][0]["delta"].items() >= {"role": "assistant", "content": None}.items()
    assert bare[0]["choices"][0]["delta"] == {"role": "assistant", "content": None}
    assert (bare[-1]["choices"][0]["delta"], bare[-1]["choices"][0]["finish_reason"]) == ({}, "stop")
    assert streamed[-1]["choices"] == []
    assert not any("usage" in event for event in [*streamed[:-1], *bare])


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        ("unauthorized", 401, "authentication_error"),
        ("payment_required", 402, "invalid_request_error"),
        ("quota_after_n", 402, "invalid_request_error"),
        ("content_filter_400", 400, "invalid_request_error"),
        ("forbidden", 403, "permission_error"),
        ("model_not_found", 404, "not_found_error"),
        ("http_429", 429, "invalid_request_error"),
        ("http_500", 500, "server_error"),
        ("http_503", 503, "unavailable_error"),
        ("engine_overloaded", 503, "unavailable_error"),
    ],
)
async def test_llamacpp_errors(provider: Callable[..., Any], fault: str, status: int, kind: str) -> None:
    got = await refused(provider, "llamacpp", fault)
    error = got.body["error"]
    assert (got.status, error["code"], error["type"]) == (status, status, kind)
    assert set(error) == {"code", "message", "type"}
    if status == 503:
        assert error["message"] == "Loading model"


async def test_llamacpp_keys_rates_and_long_prompts(provider: Callable[..., Any]) -> None:
    async with provider(dialect="llamacpp", api_key="sk-simulated") as sim:
        got = await sim.chat()
    assert got.status == 401
    assert got.body["error"] == {"message": "Invalid API Key", "type": "authentication_error", "code": 401}
    async with provider(dialect="llamacpp", requests_per_minute=1) as sim:
        over = [await sim.chat() for _ in range(2)][1]
    assert (over.status, over.body["error"]["code"]) == (429, 429)
    assert "Retry-After" not in over.headers
    error = (await refused(provider, "llamacpp", "context_length")).body["error"]
    used, limit = error["n_prompt_tokens"], error["n_ctx"]
    assert used > limit
    assert error == {
        "code": 400,
        "message": f"request ({used} tokens) exceeds the available context size ({limit} tokens), try increasing it",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": used,
        "n_ctx": limit,
    }


# Ollama


async def test_ollama_answers(provider: Callable[..., Any], events: Callable[[bytes], list[Any]]) -> None:
    tools = [{"type": "function", "function": {"name": "extract"}}]
    unread = {"n": 3, "tool_choice": "required", "tools": tools, "logit_bias": 1, "user": 2, "logprobs": "x"}
    async with provider(dialect="ollama") as sim:
        got = await sim.chat(**unread)
        ids = {(await sim.chat(f"第{number}条")).body["id"] for number in range(150)}
        bare = events((await sim.chat(stream=True)).raw)
        streamed = events((await sim.chat(stream=True, **WANT_USAGE)).raw)
        quiet = await sim.chat(reasoning_effort="none", model="thinking")
        wrong = await sim.chat(reasoning_effort="extreme")
    (choice,) = got.body["choices"]
    assert choice["message"]["content"].startswith("【模拟回答】")
    assert set(choice) == {"index", "message", "finish_reason"}
    assert all(0 <= int(one.removeprefix("chatcmpl-")) <= 998 for one in ids)
    assert len(ids) < 150
    assert bare[-1]["choices"][0]["delta"] == {}
    assert streamed[-1]["choices"] == []
    assert not any("usage" in event for event in [*streamed[:-1], *bare])
    assert "reasoning" not in quiet.body["choices"][0]["message"]
    assert wrong.status == 400
    assert wrong.body["error"]["message"].startswith("invalid reasoning value: 'extreme'")


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        ("unauthorized", 401, "api_error"),
        ("content_filter_400", 400, "invalid_request_error"),
        ("bad_request", 400, "invalid_request_error"),
        ("context_length", 400, "exceed_context_size_error"),
        ("forbidden", 403, "api_error"),
        ("model_not_found", 404, "not_found_error"),
        ("http_429", 429, "api_error"),
        ("http_500", 500, "api_error"),
        ("http_503", 503, "api_error"),
    ],
)
async def test_ollama_errors(provider: Callable[..., Any], fault: str, status: int, kind: str) -> None:
    got = await refused(provider, "ollama", fault)
    error = got.body["error"]
    assert (got.status, error["type"], error["param"], error["code"]) == (status, kind, None, None)


@pytest.mark.parametrize("fault", ["payment_required", "quota_after_n", "daily_limit"])
@pytest.mark.parametrize("stream", [False, True])
async def test_ollama_quotas_are_bare_texts(provider: Callable[..., Any], fault: str, stream: bool) -> None:
    got = await refused(provider, "ollama", fault, stream=stream)
    period = "weekly" if fault == "daily_limit" else "session"
    assert got.status == 429
    assert got.body.startswith(f"you (simulated) have reached your {period} usage limit")


async def test_ollama_keys_rates_and_models(provider: Callable[..., Any]) -> None:
    async with provider(dialect="ollama", api_key="sk-simulated") as sim:
        got = await sim.chat()
    assert got.status == 401
    assert got.body["error"] == {"message": "unauthorized", "type": "api_error", "param": None, "code": None}
    async with provider(dialect="ollama", requests_per_minute=1) as sim:
        missing = await sim.chat(model="a-missing-model")
        over = [await sim.chat() for _ in range(2)][1]
    assert missing.status == 404
    assert missing.body["error"]["message"] == 'model "a-missing-model" not found, try pulling it first'
    assert over.status == 429
    assert "Retry-After" not in over.headers
