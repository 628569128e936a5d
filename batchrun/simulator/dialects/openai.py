"""The plain shape: OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from batchrun.simulator.completion import Choice, Completion
from batchrun.simulator.dialects.base import Body, Dialect, ErrorRow, Problem
from batchrun.simulator.limits import Level

#: A fixed time, so that the same prompt gives the same body; 2024-01-01 in seconds since the epoch.
CREATED = 1_704_067_200
FINGERPRINT = "fp_simulated"
#: Characters of content in one stream chunk.
DELTA_CHARACTERS = 4

_INVALID = "invalid_request_error"
_MS_PER_S = 1000
_S_PER_MIN = 60

ERRORS = {
    Problem.BAD_REQUEST: ErrorRow(400, "{detail}", _INVALID, None),
    Problem.MISSING_PARAMETER: ErrorRow(400, "{detail}", _INVALID, "missing_required_parameter"),
    Problem.INVALID_TYPE: ErrorRow(400, "{detail}", _INVALID, "invalid_type"),
    Problem.INVALID_VALUE: ErrorRow(400, "{detail}", _INVALID, "invalid_value"),
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
    Problem.FORBIDDEN: ErrorRow(403, "Project does not have access to model `{model}`.", _INVALID, "model_not_allowed"),
    Problem.MODEL_NOT_FOUND: ErrorRow(
        404,
        "The model `{model}` does not exist or you do not have access to it.",
        _INVALID,
        "model_not_found",
    ),
    Problem.UNKNOWN_PATH: ErrorRow(404, "Invalid URL ({method} {path})", _INVALID, None),
    Problem.WRONG_METHOD: ErrorRow(405, "Not allowed to {method} on {path}.", _INVALID, "method_not_supported"),
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


def error(row: ErrorRow, message: str, param: str | None) -> Body:
    """Shape an error body."""
    return {
        "error": {"message": message, "type": row.type, "param": param, "code": row.code},
        "simulated": True,
    }


def completion(answer: Completion) -> Body:
    """Shape a whole answer."""
    return {
        "id": answer.id,
        "object": "chat.completion",
        "created": CREATED,
        "model": answer.model,
        "choices": [_choice(answer, index) for index in range(len(answer.choices))],
        "usage": usage(answer),
        "system_fingerprint": FINGERPRINT,
        "simulated": True,
    }


def chunks(answer: Completion, include_usage: bool) -> Iterator[Body]:
    """Shape an answer as stream chunks: role, content, finish, and usage if wanted."""
    frame: Body = {
        "id": answer.id,
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": answer.model,
        "system_fingerprint": FINGERPRINT,
    }
    rest: Body = {"usage": None, "simulated": True} if include_usage else {"simulated": True}
    for index, choice in enumerate(answer.choices):
        for delta in _deltas(answer, index, choice):
            yield {**frame, "choices": [_chunk_choice(index, delta, None)], **rest}
        yield {**frame, "choices": [_chunk_choice(index, {}, choice.finish_reason)], **rest}
    if include_usage:
        yield {**frame, "choices": [], "usage": usage(answer), "simulated": True}


def usage(answer: Completion) -> Body:
    """Shape the token counts."""
    completion_tokens = answer.completion_tokens
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": answer.prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
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


def models(names: Sequence[str]) -> Body:
    """Shape the list of models."""
    return {"object": "list", "data": [model(name) for name in names], "simulated": True}


def model(name: str) -> Body:
    """Shape one model."""
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "simulator", "simulated": True}


def _choice(answer: Completion, index: int) -> Body:
    choice = answer.choices[index]
    message: Body = {"role": "assistant", "content": choice.text, "refusal": None}
    if choice.tool is not None:
        message["content"] = None
        message["tool_calls"] = [_tool_call(answer, index, choice.tool, choice.text)]
    return {"index": index, "message": message, "logprobs": None, "finish_reason": choice.finish_reason}


def _chunk_choice(index: int, delta: Body, finish_reason: str | None) -> Body:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _deltas(answer: Completion, index: int, choice: Choice) -> Iterator[Body]:
    pieces = [choice.text[start : start + DELTA_CHARACTERS] for start in range(0, len(choice.text), DELTA_CHARACTERS)]
    if choice.tool is None:
        yield {"role": "assistant", "content": "", "refusal": None}
        for piece in pieces:
            yield {"content": piece}
        return
    call = {"index": 0, **_tool_call(answer, index, choice.tool, "")}
    yield {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None}
    for piece in pieces:
        yield {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}


def _tool_call(answer: Completion, index: int, name: str, arguments: str) -> dict[str, Any]:
    call_id = f"call_{answer.id.rpartition('-')[2][:20]}{index}"
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


OPENAI = Dialect(
    name="openai",
    base_path="/v1",
    errors=ERRORS,
    error=error,
    completion=completion,
    chunks=chunks,
    limit_headers=limit_headers,
    models=models,
    model=model,
)
