"""one-api and new-api gateways: a web page outside the API, Chinese texts, and used-up quota as 401 or 403."""

from __future__ import annotations

from batchrun.simulator.dialects import openai
from batchrun.simulator.dialects.base import Dialect, ErrorRow, Facts, derived, model_of
from batchrun.simulator.dialects.rules import Rules, by_effort, by_flag, by_type
from batchrun.simulator.dialects.shapes import Body, Shape
from batchrun.simulator.problems import Problem

#: Every model of a gateway was made at this time, in seconds since the epoch.
_CREATED = 1_626_777_600
_GATEWAY = "one_api_error"
_REQUEST = " (request id: {request_id})"
_BUSY = ErrorRow(429, f"当前分组上游负载已饱和，请稍后再试{_REQUEST}", _GATEWAY, "")
_NO_CHANNEL = f"当前分组 default 下对于模型 {{model}} 无可用渠道{_REQUEST}"
_BUSY_PROBLEMS = (
    Problem.REQUEST_RATE,
    Problem.TOKEN_RATE,
    Problem.CONCURRENCY,
    Problem.BALANCE_CONCURRENCY,
    Problem.BURST,
    Problem.THROTTLED,
    Problem.OVERLOADED,
)


def _passed_on(row: ErrorRow) -> ErrorRow:
    return ErrorRow(row.status, row.message + _REQUEST, row.type, row.code)


ERRORS = derived(
    openai.ERRORS,
    _passed_on,
    {
        **dict.fromkeys(_BUSY_PROBLEMS, _BUSY),
        Problem.NO_KEY: ErrorRow(401, f"未提供令牌{_REQUEST}", _GATEWAY, ""),
        Problem.WRONG_KEY: ErrorRow(401, f"无效的令牌{_REQUEST}", _GATEWAY, ""),
        Problem.PAYMENT: ErrorRow(
            403, f"用户额度不足, 剩余额度: ＄0.000000{_REQUEST}", "new_api_error", "insufficient_user_quota"
        ),
        Problem.QUOTA: ErrorRow(401, f"该令牌额度已用尽{_REQUEST}", _GATEWAY, ""),
        Problem.FORBIDDEN: ErrorRow(403, f"该令牌无权使用模型：{{model}}{_REQUEST}", _GATEWAY, ""),
        Problem.MODEL_NOT_FOUND: ErrorRow(503, _NO_CHANNEL, _GATEWAY, "model_not_found"),
        Problem.UNKNOWN_PATH: ErrorRow(404, "Invalid URL ({method} {path})", "invalid_request_error", ""),
        Problem.NOT_IMPLEMENTED: ErrorRow(501, "API not implemented", _GATEWAY, "api_not_implemented"),
        Problem.SERVER: ErrorRow(500, "Panic detected, error: simulated", "one_api_panic", ""),
        Problem.BAD_GATEWAY: ErrorRow(
            502, "bad response status code 502", "upstream_error", "bad_response_status_code", {"param": "502"}
        ),
        Problem.UNAVAILABLE: ErrorRow(503, _NO_CHANNEL, _GATEWAY, ""),
    },
)


def error(row: ErrorRow, message: str, param: str | None, facts: Facts) -> Body:
    """Shape an error body: an empty parameter, never null."""
    return openai.error(row, message, param or "", facts)


def _model(name: str) -> Body:
    return {**model_of("custom", root=name, parent=None)(name), "created": _CREATED}


ONEAPI = Dialect(
    name="oneapi",
    base_path="/v1",
    errors=ERRORS,
    error=error,
    shape=Shape(tells_logprobs=True),
    rules=Rules(switches=(by_type, by_flag, by_effort)),
    model=_model,
    request_id=lambda number: f"20240101000000{number:010}",
    web_page=True,
    unimplemented=("/v1/files", "/v1/fine_tuning"),
)
