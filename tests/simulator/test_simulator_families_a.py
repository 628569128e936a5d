from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

#: Fault → status and code by family; a text is the whole body, `type:` stands before a type.
ERRORS = {
    "zhipu": [(401, "1002"), (429, "1113"), (400, "1301"), (429, "1303"), (400, "1211"), (429, "1305")],
    "minimax": [(200, 2049), (200, 1008), (200, 1026), (200, 1002), (200, 2013), (200, 1002)],
    "volcengine": [
        (401, "AuthenticationError"),
        (403, "AccountOverdueError"),
        (400, "InputTextRiskDetection"),
        (429, "ModelAccountRpmRateLimitExceeded"),
        (404, "InvalidEndpointOrModel.NotFound"),
        (429, "ServerOverloaded"),
    ],
    "siliconflow": [(401, "Invalid token"), (403, 30001), (400, 20015), (429, None), (400, 20012), (503, None)],
    "stepfun": [
        (401, "type:invalid_api_key"),
        (402, "type:insufficient_balance"),
        (451, "type:censorship_blocked"),
        (429, "type:requests"),
        (400, "type:invalid_request_error"),
        (503, "type:server_error"),
    ],
    "qianfan": [
        (401, "invalid_iam_token"),
        (403, "account_overdue"),
        (403, "system_unsafe"),
        (429, "rpm_rate_limit_exceeded"),
        (400, "invalid_model"),
        (429, "cluster_rate_limit_exceeded"),
    ],
    "hunyuan": [
        (401, "invalid_api_key"),
        (402, "insufficient_quota"),
        (400, "content_filter"),
        (429, "rate_limit_exceeded"),
        (404, "model_not_found"),
        (503, "engine_overloaded"),
    ],
}
FAULTS = ("unauthorized", "payment_required", "content_filter_400", "http_429", "model_not_found", "engine_overloaded")
THINKING: dict[str, dict[str, Any]] = {
    "zhipu": {"thinking": {"type": "enabled"}},
    "minimax": {"thinking": {"type": "enabled"}, "reasoning_split": True},
    "volcengine": {"thinking": {"type": "enabled"}},
    "siliconflow": {"enable_thinking": True},
    "stepfun": {"reasoning_effort": "high"},
    "qianfan": {"enable_thinking": True},
    "hunyuan": {"enable_thinking": True},
}


def code_of(body: Any) -> Any:
    if isinstance(body, str):
        return body
    if "base_resp" in body:
        return body["base_resp"]["status_code"]
    if "error" not in body:
        return body.get("code")
    error = body["error"]
    return error["code"] if "code" in error else f"type:{error['type']}"


@pytest.mark.parametrize("family", ERRORS)
async def test_errors(provider: Callable[..., Any], family: str) -> None:
    for fault, (status, code) in zip(FAULTS, ERRORS[family], strict=True):
        async with provider(dialect=family, faults={fault: 1.0}) as sim:
            got = await sim.chat()
            assert (got.status, code_of(got.body)) == (status, code), fault
            assert "{" not in got.raw.decode().replace('{"', "")


@pytest.mark.parametrize("family", ERRORS)
async def test_answers(provider: Callable[..., Any], events: Callable[[bytes], list[Any]], family: str) -> None:
    async with provider(dialect=family) as sim:
        for fields in ({}, THINKING[family]):
            got = await sim.chat(**fields)
            message = got.body["choices"][0]["message"]
            chunks = events((await sim.chat(stream=True, **fields)).raw)
            deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
            assert got.status == 200
            assert "".join(delta.get("content") or "" for delta in deltas) == got.content
            thought = "".join(delta.get("reasoning_content") or "" for delta in deltas)
            assert thought == message.get("reasoning_content", "")
            assert bool(thought) == bool(fields)


async def test_zhipu_refuses_in_its_own_words(provider: Callable[..., Any]) -> None:
    async with provider(dialect="zhipu") as sim:
        hot = await sim.chat(temperature=1.5)
        empty = await sim.chat(messages=[])
        off = await sim.chat(model="glm-5.3", thinking={"type": "disabled"})
    assert hot.body["error"] == {"code": "1210", "message": "temperature参数非法：限制数值范围[0,1]"}
    assert empty.body["error"] == {"code": "1214", "message": "输入不能为空"}
    assert off.body["error"]["message"] == "该模型始终思考，不支持关闭思考；请使用 low、high 或 max。"


async def test_minimax_in_streams_and_content(provider: Callable[..., Any]) -> None:
    async with provider(dialect="minimax", faults={"payment_required": 1.0}) as sim:
        got = await sim.chat(stream=True)
    assert got.raw.startswith(b'data: {"base_resp":{"status_code":1008,"status_msg":"insufficient balance"}')
    async with provider(dialect="minimax") as sim:
        got = await sim.chat(model="MiniMax-M2")
    assert got.content.startswith("<think>")
    assert got.body["base_resp"]["status_code"] == 0
    assert got.body["input_sensitive"] is False


async def test_volcengine_batch_path(provider: Callable[..., Any]) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "你好"}]}
    async with provider(dialect="volcengine") as sim:
        assert (await sim.call("POST", "/api/v3/batch/chat/completions", json=body)).status == 200


@pytest.mark.parametrize("family", ["zhipu", "minimax", "volcengine", "qianfan"])
async def test_what_passes_is_not_told_as_a_bad_parameter(provider: Callable[..., Any], family: str) -> None:
    again = {"1230", 1000, "InternalServiceError", "internal_error"}
    for fault in ("http_409", "http_425", "http_502", "http_503"):
        async with provider(dialect=family, faults={fault: 1.0}) as sim:
            assert code_of((await sim.chat()).body) in again


@pytest.mark.parametrize("family", ERRORS)
async def test_keys_and_limits_that_are_real(provider: Callable[..., Any], family: str) -> None:
    async with provider(dialect=family, api_key="sk-right-simulated-key", requests_per_minute=1) as sim:
        sim.session.headers["Authorization"] = "Bearer sk-wrong"
        wrong = await sim.chat()
        sim.session.headers["Authorization"] = "Bearer sk-right-simulated-key"
        got = [await sim.chat() for _ in range(2)]
    assert (wrong.status, code_of(wrong.body)) == ERRORS[family][0]
    assert got[0].status == 200
    assert (got[1].status, code_of(got[1].body)) == ERRORS[family][3]
