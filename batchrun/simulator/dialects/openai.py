"""The plain shape: OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Sequence

from batchrun.simulator.dialects.base import Dialect, ErrorRow, Facts
from batchrun.simulator.dialects.shapes import Body, Shape
from batchrun.simulator.limits import Level
from batchrun.simulator.problems import Problem

FINGERPRINT = "fp_simulated"

_INVALID = "invalid_request_error"
_MS_PER_S = 1000
_S_PER_MIN = 60

ERRORS = {
    Problem.BAD_JSON: ErrorRow(400, "We could not parse the JSON body of your request. ({error})", _INVALID, None),
    Problem.BAD_REQUEST: ErrorRow(400, "{detail}", _INVALID, None),
    Problem.MISSING_PARAMETER: ErrorRow(400, "{detail}", _INVALID, "missing_required_parameter"),
    Problem.INVALID_TYPE: ErrorRow(400, "{detail}", _INVALID, "invalid_type"),
    Problem.INVALID_VALUE: ErrorRow(400, "{detail}", _INVALID, "invalid_value"),
    Problem.STREAM_ONLY: ErrorRow(
        400, "This model only supports streaming. Please set 'stream' to true.", _INVALID, "unsupported_value"
    ),
    Problem.CONTEXT_LENGTH: ErrorRow(
        400,
        "This model's maximum context length is {limit} tokens. However, your messages resulted in {tokens} "
        "tokens. Please reduce the length of the messages.",
        _INVALID,
        "context_length_exceeded",
    ),
    Problem.CONTENT_FILTER: ErrorRow(
        400,
        "The response was filtered due to the prompt triggering the content management policy. "
        "Please modify your prompt and retry.",
        _INVALID,
        "content_filter",
    ),
    Problem.NO_KEY: ErrorRow(
        401,
        "You didn't provide an API key. You need to provide your API key in an Authorization header using "
        "Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
        _INVALID,
        None,
    ),
    Problem.WRONG_KEY: ErrorRow(401, "Incorrect API key provided: {key}.", _INVALID, "invalid_api_key"),
    Problem.PAYMENT: ErrorRow(402, "Insufficient balance.", "insufficient_quota", "insufficient_quota"),
    Problem.QUOTA: ErrorRow(
        429,
        "You exceeded your current quota, please check your plan and billing details.",
        "insufficient_quota",
        "insufficient_quota",
    ),
    Problem.FORBIDDEN: ErrorRow(403, "Project does not have access to model `{model}`.", _INVALID, "model_not_allowed"),
    Problem.MODEL_NOT_FOUND: ErrorRow(
        404,
        "The model `{model}` does not exist or you do not have access to it.",
        _INVALID,
        "model_not_found",
    ),
    Problem.UNKNOWN_PATH: ErrorRow(404, "Invalid URL ({method} {path})", _INVALID, None),
    Problem.WRONG_METHOD: ErrorRow(405, "Not allowed to {method} on {path}.", _INVALID, "method_not_supported"),
    Problem.NOT_IMPLEMENTED: ErrorRow(501, "API not implemented", _INVALID, "not_implemented"),
    Problem.TIMEOUT: ErrorRow(408, "Request timed out.", "server_error", "timeout"),
    Problem.CONFLICT: ErrorRow(409, "The resource was updated by another request.", "conflict_error", "conflict"),
    Problem.BODY_TOO_LARGE: ErrorRow(413, "The request body is too large.", _INVALID, "request_too_large"),
    Problem.TOO_EARLY: ErrorRow(425, "The request was sent too early.", "server_error", "too_early"),
    Problem.REQUEST_RATE: ErrorRow(
        429,
        "Rate limit reached for {model} on requests per min (RPM): Limit {limit}, Used {used}, "
        "Requested {requested}. Please try again in {wait}s.",
        "requests",
        "rate_limit_exceeded",
    ),
    Problem.TOKEN_RATE: ErrorRow(
        429,
        "Rate limit reached for {model} on tokens per min (TPM): Limit {limit}, Used {used}, "
        "Requested {requested}. Please try again in {wait}s.",
        "tokens",
        "rate_limit_exceeded",
    ),
    Problem.CONCURRENCY: ErrorRow(
        429,
        "Too many concurrent requests for {model}: concurrency limit of {limit} reached.",
        "requests",
        "rate_limit_exceeded",
    ),
    Problem.BALANCE_CONCURRENCY: ErrorRow(
        429,
        "Your current concurrency is {used}, which exceeds your concurrency limit of {limit} based on your remaining "
        "balance. Please top up your balance to restore your concurrency.",
        "requests",
        "rate_limit_exceeded",
    ),
    Problem.BURST: ErrorRow(
        429,
        "Request rate increased too quickly. Please scale requests more smoothly over time.",
        "requests",
        "rate_limit_exceeded",
    ),
    Problem.THROTTLED: ErrorRow(
        429,
        "Rate limit reached for {model} on tokens per min (TPM). Please increase your quota or try again later.",
        "tokens",
        "rate_limit_exceeded",
    ),
    Problem.DAILY_LIMIT: ErrorRow(
        429,
        "Rate limit reached for {model} on requests per day (RPD). Please try again tomorrow.",
        "requests",
        "rate_limit_exceeded",
    ),
    Problem.OVERLOADED: ErrorRow(
        503, "The engine is currently overloaded, please try again later", "server_error", "engine_overloaded"
    ),
    Problem.SERVER: ErrorRow(
        500, "The server had an error while processing your request. Sorry about that!", "server_error", None
    ),
    Problem.BAD_GATEWAY: ErrorRow(502, "Bad gateway.", "server_error", None),
    Problem.UNAVAILABLE: ErrorRow(
        503,
        "The engine is currently overloaded, please try again later.",
        "server_error",
        "service_unavailable",
    ),
}


def error(row: ErrorRow, message: str, param: str | None, _facts: Facts) -> Body:
    """Shape an error body."""
    return {
        "error": {"message": message, "type": row.type, "param": param, "code": row.code, **row.extras},
        "simulated": True,
    }


def limit_headers(levels: Sequence[Level]) -> dict[str, str]:
    """Shape the state of the limits as headers, with durations such as `1m0s`, `8.5s` and `120ms`."""
    headers = {}
    for level in levels:
        headers[f"x-ratelimit-limit-{level.resource}"] = str(level.limit)
        headers[f"x-ratelimit-remaining-{level.resource}"] = str(level.remaining)
        headers[f"x-ratelimit-reset-{level.resource}"] = duration(level.reset_s)
    return headers


def duration(seconds: float) -> str:
    """Spell a duration in seconds."""
    milliseconds = round(seconds * _MS_PER_S)
    if milliseconds < _MS_PER_S:
        return f"{milliseconds}ms"
    minutes, milliseconds = divmod(milliseconds, _S_PER_MIN * _MS_PER_S)
    spelled = f"{milliseconds / _MS_PER_S:g}s"
    return f"{minutes}m{spelled}" if minutes else spelled


OPENAI = Dialect(
    name="openai",
    base_path="/v1",
    errors=ERRORS,
    error=error,
    shape=Shape(
        extras={"system_fingerprint": FINGERPRINT},
        message={"refusal": None},
        first={"role": "assistant", "content": "", "refusal": None},
        # The thinking is not shown, only counted.
        reasoning=lambda _: {},
        tells_logprobs=True,
    ),
    limit_headers=limit_headers,
    retry_after=frozenset(Problem),
    web_page=True,
)
