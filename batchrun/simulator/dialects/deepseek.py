"""DeepSeek: nearly every error has the code invalid_request_error, and what waits hears keep-alive bytes.

The codes of 429, 500 and 503 are not known; thinking is off here unless the request or the model's name asks for it.
"""

from __future__ import annotations

from typing import Any

from batchrun.simulator.completion import Completion
from batchrun.simulator.dialects import openai
from batchrun.simulator.dialects.base import Dialect, ErrorRow, derived
from batchrun.simulator.dialects.rules import (
    Params,
    Rules,
    by_effort,
    by_type,
    forces_tool,
    format_type,
    messages_of,
    number,
    when,
)
from batchrun.simulator.dialects.shapes import Body, Shape, UsageAt, as_uuid, detailed_usage
from batchrun.simulator.problems import Problem, Refused

_INVALID = "invalid_request_error"
_MAX_TOKENS = 393_216
_MAX_STOPS = 16
_MOST_LOGPROBS = 20
_ROLES = ("system", "user", "assistant", "tool", "latest_reminder")
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max", "ultra")
#: The penalties are deprecated, top_p is clamped to where it changes little, and the others are not in the schema.
_UNREAD = ("top_p", "frequency_penalty", "presence_penalty", "n", "seed", "top_k")
_SERDE = "Failed to deserialize the JSON body into the target type: "
_CONCURRENCY = ErrorRow(
    429,
    "Your current concurrency is {used}, which exceeds your concurrency limit of {limit} based on your remaining "
    "balance. Please top up your balance to restore your concurrency.",
    "rate_limit_error",
    _INVALID,
)
_TOKENS = ErrorRow(429, "Rate limit reached for TPM", "rate_limit_error", _INVALID)
_MONEY = ErrorRow(402, "Insufficient Balance", "unknown_error", _INVALID)
_BUSY = "Server Overloaded: The server is overloaded due to high traffic"


def _row(status: int, message: str, kind: str = _INVALID) -> ErrorRow:
    return ErrorRow(status, message, kind, _INVALID)


ERRORS = derived(
    openai.ERRORS,
    lambda row: ErrorRow(row.status, row.message, row.type, _INVALID),
    {
        Problem.BAD_JSON: _row(400, "Failed to parse the request body as JSON: {error}"),
        Problem.CONTEXT_LENGTH: _row(
            400,
            "This model's maximum context length is {limit} tokens. However, you requested {tokens} tokens "
            "({tokens} in the messages, 0 in the completion). Please reduce the length of the messages or completion.",
        ),
        Problem.CONTENT_FILTER: _row(400, "Content Exists Risk"),
        Problem.NO_KEY: _row(
            401, "Authentication Fails (auth header format should be Bearer sk-...)", "authentication_error"
        ),
        Problem.WRONG_KEY: _row(401, "Authentication Fails, Your api key: {key} is invalid", "authentication_error"),
        Problem.PAYMENT: _MONEY,
        Problem.QUOTA: _MONEY,
        Problem.MODEL_NOT_FOUND: _row(
            400, "The supported API model names are deepseek-flash, deepseek-v4-pro, but you passed {model}."
        ),
        Problem.REQUEST_RATE: _TOKENS,
        Problem.TOKEN_RATE: _TOKENS,
        Problem.THROTTLED: _TOKENS,
        Problem.CONCURRENCY: _CONCURRENCY,
        Problem.BALANCE_CONCURRENCY: _CONCURRENCY,
        Problem.OVERLOADED: _row(503, _BUSY, "server_error"),
        Problem.SERVER: _row(500, "Server Error", "server_error"),
        Problem.UNAVAILABLE: _row(503, _BUSY, "server_error"),
    },
)


def _check_messages(params: Params) -> None:
    for index, message in enumerate(messages_of(params)):
        role = message.get("role")
        detail = ""
        if isinstance(role, str) and role not in _ROLES:
            known = ", ".join(f"`{one}`" for one in _ROLES)
            detail = f"{_SERDE}messages[{index}].role: unknown variant `{role}`, expected one of {known}"
        elif isinstance(message.get("content"), list):
            detail = f"{_SERDE}messages[{index}]: invalid type: sequence, expected a string"
        if detail:
            raise Refused(Problem.BAD_REQUEST, detail=f"{detail} at line 1 column 1")


def _check_stops(params: Params) -> None:
    stops = params.get("stop")
    if isinstance(stops, list) and len(stops) > _MAX_STOPS:
        raise Refused(Problem.BAD_REQUEST, detail=f"Stop string array too long: {len(stops)}")


def _check_effort(params: Params) -> None:
    effort = params.get("reasoning_effort")
    if isinstance(effort, str) and effort not in _EFFORTS:
        known = ", ".join(f"`{one}`" for one in _EFFORTS[:-1])
        detail = f"{_SERDE}reasoning_effort: unknown variant `{effort}`, expected one of {known}"
        raise Refused(Problem.BAD_REQUEST, detail=detail)


def usage(answer: Completion) -> Body:
    """Shape the token counts: cached ones twice."""
    return {
        **detailed_usage(answer),
        "prompt_cache_hit_tokens": answer.cached_tokens,
        "prompt_cache_miss_tokens": answer.prompt_tokens - answer.cached_tokens,
    }


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "owned_by": "deepseek", "simulated": True}


def _without_effect(params: Params) -> tuple[str, ...]:
    return (*_UNREAD, "temperature") if RULES.thinks(params) else _UNREAD


RULES: Rules = Rules(
    checks=(
        _check_messages,
        _check_stops,
        _check_effort,
        number(
            "max_tokens",
            lambda value: 1 <= value <= _MAX_TOKENS,
            f"Invalid max_tokens value, the valid range of max_tokens is [1, {_MAX_TOKENS}]",
        ),
        number(
            "temperature",
            lambda value: 0 <= value <= 2,
            "Invalid temperature value, the valid range of temperature is [0, 2]",
        ),
        number("top_p", lambda value: 0 < value <= 1, "Invalid top_p value, the valid range of top_p is (0, 1.0]"),
        when(
            lambda params: params.get("top_logprobs") is not None and params.get("logprobs") is not True,
            "top_logprobs",
            "Invalid top_logprobs and logprobs value, logprobs must be set to true if top_logprobs is used.",
        ),
        number(
            "top_logprobs",
            lambda value: 0 <= value <= _MOST_LOGPROBS,
            "Invalid top_logprobs value, the valid range of top_logprobs is [0, 20].",
        ),
        when(
            lambda params: format_type(params) == "json_schema",
            "response_format",
            "This response_format type is unavailable now",
        ),
        when(
            lambda params: forces_tool(params) and RULES.thinks(params),
            "tool_choice",
            "Thinking mode does not support this tool_choice",
        ),
    ),
    ignored=frozenset({"max_completion_tokens"}),
    json_word="Prompt must contain the word 'json' in some form to use 'response_format' of type 'json_object'.",
    max_stops=_MAX_STOPS,
    without_effect=_without_effect,
    switches=(by_type, by_effort),
)

DEEPSEEK = Dialect(
    name="deepseek",
    base_path="",
    aliases=("/v1", "/beta"),
    errors=ERRORS,
    error=lambda row, message, _param, facts: openai.error(row, message, None, facts),
    shape=Shape(
        identify=as_uuid,
        identify_call=lambda digits, index, _name: f"call_{index:02}_{digits[:24]}",
        usage=usage,
        usage_at=UsageAt.FINISH,
        extras={"system_fingerprint": openai.FINGERPRINT},
        last={"content": ""},
        null_usage=True,
        null_other=True,
        tool_content="",
        tool_index=True,
        tells_logprobs=True,
    ),
    rules=RULES,
    model=_model,
    request_id=lambda number: f"{number:032x}",
    id_header="x-ds-trace-id",
    keep_alive=(b"\n", b": keep-alive\n\n"),
)
