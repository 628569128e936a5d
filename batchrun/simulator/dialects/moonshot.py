"""Kimi on Moonshot: errors have a type and no code, and sampling parameters have one value each."""

from __future__ import annotations

from collections.abc import Mapping

from batchrun.simulator.completion import Completion
from batchrun.simulator.dialects import openai
from batchrun.simulator.dialects.base import Dialect, ErrorRow, Facts, derived, model_of
from batchrun.simulator.dialects.rules import (
    Check,
    Params,
    Rules,
    by_effort,
    by_type,
    named_thinking,
    none_of,
    number,
    when,
)
from batchrun.simulator.dialects.shapes import Body, Shape, UsageAt, plain_usage
from batchrun.simulator.problems import Problem

_INVALID, _RATE = "invalid_request_error", "rate_limit_reached_error"
_ACCOUNT = "Your account {organization}<{account}> request reached organization "
_CONTEXT = 262_144
_MONEY = "exceeded_current_quota_error"
_TOKENS = ErrorRow(429, _ACCOUNT + "TPM rate limit, current:{used}, limit:{limit}", _RATE)
_CONCURRENCY = ErrorRow(429, _ACCOUNT + "max concurrency: {limit}, please try again after {seconds} seconds", _RATE)
_OVERLOADED = ErrorRow(429, "The engine is currently overloaded, please try again later", "engine_overloaded_error")
_DETAIL = ErrorRow(400, "Invalid request: {detail}", _INVALID)
#: Refusals of values come in words of their own.
_VALUE = ErrorRow(400, "{detail}", _INVALID)

#: Models that think whatever a request says, that think unless it says no, and that cannot be made to call a tool.
_ALWAYS_THINKING = ("kimi-k3",)
_THINKING_UNASKED = ("kimi-k2.6", "kimi-k2.7")
_NEVER_REQUIRED = ("kimi-k2.6", "kimi-k2.7")

ERRORS = derived(
    openai.ERRORS,
    lambda row: ErrorRow(row.status, row.message, row.type),
    {
        Problem.BAD_REQUEST: _DETAIL,
        Problem.MISSING_PARAMETER: _DETAIL,
        Problem.INVALID_TYPE: _DETAIL,
        Problem.INVALID_VALUE: _VALUE,
        Problem.CONTEXT_LENGTH: ErrorRow(
            400,
            "Invalid request: Your request exceeded model token limit: {limit} (requested: {tokens})",
            _INVALID,
        ),
        Problem.CONTENT_FILTER: ErrorRow(
            400, "The request was rejected because it was considered high risk", "content_filter"
        ),
        Problem.NO_KEY: ErrorRow(401, "Invalid Authentication", "invalid_authentication_error"),
        Problem.WRONG_KEY: ErrorRow(401, "Incorrect API key provided", "incorrect_api_key_error"),
        Problem.PAYMENT: ErrorRow(
            429,
            "Your account {organization}<{account}> is suspended, please check your plan and billing details",
            _MONEY,
        ),
        Problem.QUOTA: ErrorRow(
            429,
            "You exceeded your current token quota: <{organization}> 0, please check your account balance",
            _MONEY,
        ),
        Problem.FORBIDDEN: ErrorRow(403, "The API you are accessing is not open", "permission_denied_error"),
        Problem.MODEL_NOT_FOUND: ErrorRow(
            404, "Not found the model {model} or Permission denied", "resource_not_found_error"
        ),
        Problem.REQUEST_RATE: ErrorRow(
            429, _ACCOUNT + "max RPM: {limit}, please try again after {seconds} seconds", _RATE
        ),
        Problem.TOKEN_RATE: _TOKENS,
        Problem.THROTTLED: _TOKENS,
        Problem.CONCURRENCY: _CONCURRENCY,
        Problem.BALANCE_CONCURRENCY: _CONCURRENCY,
        Problem.DAILY_LIMIT: ErrorRow(429, _ACCOUNT + "TPD rate limit, current:{used}, limit:{limit}", _RATE),
        Problem.OVERLOADED: _OVERLOADED,
        Problem.SERVER: ErrorRow(500, "invalid state transition", "unexpected_output"),
        Problem.UNAVAILABLE: ErrorRow(503, "The server is unavailable, please try again later", "server_unavailable"),
    },
)


def error(row: ErrorRow, message: str, _param: str | None, _facts: Facts) -> Body:
    """Shape an error body: type and message alone."""
    return {"error": {"type": row.type, "message": message}, "simulated": True}


def usage(answer: Completion) -> Body:
    """Shape the token counts: cached ones beside the others."""
    counts = {**plain_usage(answer), "cached_tokens": answer.cached_tokens}
    if answer.thinking:
        counts["completion_tokens_details"] = {"reasoning_tokens": answer.reasoning_tokens}
    return counts


def _only(name: str, fixed: float) -> Check:
    return number(name, lambda value: value == fixed, f"invalid {name}: only {fixed:g} is allowed for this model")


def _has_wrong_temperature(params: Params) -> bool:
    value = params.get("temperature")
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return value != (0.6 if _is_quiet(params) else 1)


def _is(params: Params, *models: str) -> bool:
    return str(params.get("model")).startswith(models)


def _is_quiet(params: Params) -> bool:
    return by_type(params) is False and not _is(params, *_ALWAYS_THINKING)


def _thinks_unasked(params: Params) -> bool | None:
    return True if _is(params, *_THINKING_UNASKED) else None


def _names_tool(params: Params) -> bool:
    return isinstance(params.get("tool_choice"), Mapping) and RULES.thinks(params)


RULES: Rules = Rules(
    checks=(
        when(lambda params: params.get("messages") == [], "messages", "Invalid request: messages must not be empty"),
        when(
            lambda params: by_type(params) is False and (named_thinking(params) or _is(params, "kimi-k2.7")),
            "thinking",
            "invalid thinking: only type=enabled is allowed for this model",
        ),
        when(
            lambda params: _has_wrong_temperature(params) and not _is_quiet(params),
            "temperature",
            "invalid temperature: only 1 is allowed for this model",
        ),
        when(_has_wrong_temperature, "temperature", "invalid temperature: only 0.6 is allowed for this model"),
        _only("top_p", 0.95),
        _only("n", 1),
        _only("presence_penalty", 0),
        _only("frequency_penalty", 0),
        when(
            lambda params: params.get("top_logprobs") is not None and params.get("logprobs") is not True,
            "top_logprobs",
            "Invalid request: logprobs must be set to true if top_logprobs is used",
        ),
        when(
            lambda params: params.get("logprobs") is True,
            "logprobs",
            "invalid logprobs: only false is allowed for this model",
        ),
        when(
            lambda params: params.get("tool_choice") == "required" and _is(params, *_NEVER_REQUIRED),
            "tool_choice",
            "tool_choice 'required' is not supported for this model",
        ),
        when(_names_tool, "tool_choice", "tool_choice 'specified' is incompatible with thinking enabled"),
        when(
            lambda params: isinstance(params.get("reasoning_effort"), int | float),
            "reasoning_effort",
            "Invalid request: the `reasoning_effort` field in the request (expected type string) is illegal, and "
            "number is not acceptable",
        ),
    ),
    json_word=None,
    max_stops=5,
    switches=(lambda params: _is(params, *_ALWAYS_THINKING) or None, by_type, by_effort, _thinks_unasked),
    without_effect=none_of("seed", "top_k"),
)


def _model(name: str) -> Body:
    return {
        **model_of("moonshot")(name),
        "context_length": _CONTEXT,
        "supports_reasoning": RULES.thinks({"model": name}),
        "supports_image_in": False,
        "supports_video_in": False,
    }


MOONSHOT = Dialect(
    name="moonshot",
    base_path="/v1",
    errors=ERRORS,
    error=error,
    shape=Shape(
        identify=lambda digits: f"cmpl-{digits}",
        identify_call=lambda _digits, index, name: f"{name}:{index}",
        usage=usage,
        usage_at=UsageAt.CHOICE,
        choice=lambda _: {},
        tool_content="",
    ),
    rules=RULES,
    model=_model,
    id_header="Msh-Request-Id",
    retry_after=frozenset({Problem.OVERLOADED}),
    precharged=True,
)
