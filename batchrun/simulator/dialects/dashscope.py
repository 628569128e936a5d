"""Qwen on DashScope: arrears are a 400, insufficient_quota is throttling, some errors of streams are events.

Limits per second and the text of a wrong path are not modelled beyond what is documented.
"""

from __future__ import annotations

from batchrun.simulator.dialects import openai
from batchrun.simulator.dialects.base import Dialect, ErrorRow, Facts, derived, model_of
from batchrun.simulator.dialects.rules import (
    NO_JSON_WORD,
    Params,
    Rules,
    by_flag,
    forces_tool,
    format_type,
    formats_known,
    lacks_tools,
    named_thinking,
    none_of,
    number,
    streams,
    when,
)
from batchrun.simulator.dialects.shapes import Body, Shape, as_uuid
from batchrun.simulator.problems import Problem

_INVALID, _PARAMETER = "invalid_request_error", "invalid_parameter_error"
_HELP = " For details, see: https://help.aliyun.com/zh/model-studio/error-code#"
_MOST_LOGPROBS = 5
_MOST_CHOICES = 4
_ALWAYS_THINKING = ("qwq", "deepseek-r1")
_THINKING_UNASKED = ("qwen3.5", "qwen3.6", "qwen3.7", "qwen3.8")
_FORMATS = ("text", "json_object", "json_schema")


def _row(status: int, code: str, message: str) -> ErrorRow:
    """Give a row of the classes whose type is their code."""
    return ErrorRow(status, message, code, code)


def _parameter(message: str) -> ErrorRow:
    return ErrorRow(400, message, _INVALID, _PARAMETER)


_ARREARS = _row(
    400, "Arrearage", f"Access denied, please make sure your account is in good standing.{_HELP}overdue-payment"
)
_QUOTA = _row(429, "insufficient_quota", "You exceeded your current quota, please check your plan and billing details.")
_REQUESTS = _row(429, "limit_requests", "You have exceeded your current request limit.")
_UNAVAILABLE = _row(503, "ModelUnavailable", "Model is unavailable, try again later.")

ERRORS = derived(
    openai.ERRORS,
    lambda row: ErrorRow(row.status, row.message, row.type, row.code or _PARAMETER),
    {
        Problem.BAD_JSON: _parameter("Required body invalid, please check the request body format."),
        Problem.BAD_REQUEST: _parameter("{detail}"),
        Problem.MISSING_PARAMETER: _parameter("{detail}"),
        Problem.INVALID_TYPE: _parameter("{detail}"),
        Problem.INVALID_VALUE: _parameter("{detail}"),
        Problem.STREAM_ONLY: _parameter(
            "This model only support stream mode, please enable the stream parameter to access the model."
        ),
        Problem.CONTEXT_LENGTH: _parameter("Range of input length should be [1, {limit}]"),
        Problem.CONTENT_FILTER: _row(400, "data_inspection_failed", "Input data may contain inappropriate content."),
        Problem.NO_KEY: ErrorRow(401, "Incorrect API key provided.", _INVALID, "invalid_api_key"),
        Problem.WRONG_KEY: ErrorRow(401, "Incorrect API key provided.", _INVALID, "invalid_api_key"),
        Problem.PAYMENT: _ARREARS,
        Problem.QUOTA: _ARREARS,
        Problem.FORBIDDEN: _row(403, "access_denied", "Access denied."),
        Problem.MODEL_NOT_FOUND: ErrorRow(
            404, "The model {model} does not exist or you do not have access to it.", _INVALID, "model_not_found"
        ),
        Problem.UNKNOWN_PATH: _row(404, "NotFound", "Not found!"),
        Problem.WRONG_METHOD: _parameter("Request method '{method}' is not supported."),
        Problem.TIMEOUT: _row(408, "RequestTimeOut", "Request timed out, please try again later."),
        Problem.BODY_TOO_LARGE: _row(413, "BadRequest.TooLarge", "Payload Too Large."),
        Problem.REQUEST_RATE: _REQUESTS,
        Problem.TOKEN_RATE: _QUOTA,
        Problem.CONCURRENCY: _row(429, "Throttling", "Requests throttling triggered."),
        Problem.BURST: _row(
            429,
            "limit_burst_rate",
            "Request rate increased too quickly. To ensure system stability, please adjust your client logic to scale "
            "requests more smoothly over time.",
        ),
        Problem.THROTTLED: _QUOTA,
        Problem.DAILY_LIMIT: _row(
            403,
            "AllocationQuota.FreeTierOnly",
            "The free tier of the model has been exhausted. If you want to continue access the model on a paid basis, "
            'please disable the "use free tier only" mode in the management console.',
        ),
        Problem.OVERLOADED: _row(
            503,
            "ModelServingError",
            "Too many requests. Your requests are being throttled due to system capacity limits. Please try "
            "again later.",
        ),
        Problem.SERVER: _row(
            500, "internal_error", "An internal error has occured, try again later or contact service support."
        ),
        Problem.UNAVAILABLE: _UNAVAILABLE,
    },
)


def error(row: ErrorRow, message: str, _param: str | None, facts: Facts) -> Body:
    """Shape an error body: with the id of the request, and no parameter."""
    told = {"code": row.code, "param": None, "message": message, "type": row.type}
    request = facts["request_id"]
    return {"error": told, "id": f"chatcmpl-{request}", "request_id": request, "simulated": True}


def _always_thinks(params: Params) -> bool:
    return named_thinking(params) or str(params.get("model")).startswith(_ALWAYS_THINKING)


def _thinks_unasked(params: Params) -> bool:
    return _always_thinks(params) or str(params.get("model")).startswith(_THINKING_UNASKED)


def _thinks(params: Params) -> bool:
    return RULES.thinks(params)


RULES: Rules = Rules(
    checks=(
        when(lambda params: params.get("messages") == [], "messages", "[] is too short - 'messages'"),
        when(
            lambda params: params.get("enable_thinking") is False and _always_thinks(params),
            "enable_thinking",
            "The value of the enable_thinking parameter is restricted to True.",
        ),
        when(
            lambda params: params.get("enable_thinking") is True and not streams(params),
            "enable_thinking",
            "parameter.enable_thinking must be set to false for non-streaming calls",
        ),
        number(
            "thinking_budget",
            lambda value: 0 < value <= 131_072,
            "The thinking_budget parameter must be a positive integer and not greater than 131072",
        ),
        formats_known(
            _FORMATS,
            "Unknown format of response_format, response_format should be a dict, includes 'type' and an optional key "
            "'json_schema'. The response_format type from user is {type}.",
        ),
        when(
            lambda params: format_type(params) == "json_object" and _thinks(params),
            "response_format",
            "Json mode response is not supported when enable_thinking is true",
        ),
        when(
            lambda params: forces_tool(params) and _thinks(params),
            "tool_choice",
            "The tool_choice parameter does not support being set to required or object in thinking mode",
        ),
        number("temperature", lambda value: 0 <= value < 2, "Temperature should be in [0.0, 2.0)"),
        number("top_p", lambda value: 0 < value <= 1, "Range of top_p should be (0.0, 1.0]"),
        number("presence_penalty", lambda value: -2 <= value <= 2, "Presence_penalty should be in [-2.0, 2.0]"),
        number("n", lambda value: 1 <= value <= _MOST_CHOICES, "Range of n should be [1, 4]"),
        when(lacks_tools, "tools", "The tool call is not supported."),
        when(
            lambda params: bool(params.get("tools")) and params.get("n") not in (None, 1),
            "n",
            "Range of n should be [1, 1] when tools are set",
        ),
        number("max_tokens", lambda value: 1 <= value <= 65_536, "Range of max_tokens should be [1, 65536]"),
        number("seed", lambda value: 0 <= value < 2**63, "Range of seed should be [0, 9223372036854775807]"),
        number("top_logprobs", lambda value: 0 <= value <= _MOST_LOGPROBS, "Range of top_logprobs should be [0, 5]"),
    ),
    json_word=NO_JSON_WORD,
    switches=(by_flag, lambda params: _thinks_unasked(params) or None),
    without_effect=none_of("frequency_penalty"),
)

DASHSCOPE = Dialect(
    name="dashscope",
    base_path="/compatible-mode/v1",
    errors=ERRORS,
    error=error,
    shape=Shape(
        identify=lambda digits: f"chatcmpl-{as_uuid(digits)}",
        extras={"system_fingerprint": None},
        order=("choices", "object", "usage", "created", "system_fingerprint", "model", "id"),
        first={"content": "", "role": "assistant"},
        last={"content": ""},
        null_usage=True,
        null_other=True,
        tool_content="",
        tool_more={"id": "", "type": "function"},
        bare_tool_chunk=True,
        tells_logprobs=True,
    ),
    rules=RULES,
    model=model_of("system"),
    request_id=lambda number: as_uuid(f"{number:032x}"),
    framed=frozenset({400}),
)
