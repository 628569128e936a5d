"""OpenRouter: codes are the status as a number, and what the provider behind it refuses comes with status 200.

A 402 is money, unless it says when to try again: then too many calls share the budget for those in flight.
"""

from __future__ import annotations

from typing import Any

from batchrun.simulator.dialects import openai
from batchrun.simulator.dialects.base import Dialect, ErrorRow, Facts, derived, model_of
from batchrun.simulator.dialects.rules import Rules, by_effort, by_reasoning, named_thinking
from batchrun.simulator.dialects.shapes import Body, Shape, UsageAt
from batchrun.simulator.problems import Problem

_CONTEXT = 131_072
_SUPPORTED = (
    "frequency_penalty", "logprobs", "max_tokens", "presence_penalty", "response_format", "seed", "stop",
    "structured_outputs", "temperature", "tool_choice", "tools", "top_logprobs", "top_p",
)  # fmt: skip
_PROVIDER = "Simulated"


def _row(code: int, message: str, **metadata: object) -> ErrorRow:
    """Give a row whose status is its code."""
    return ErrorRow(code, message, None, code, {"metadata": metadata} if metadata else {})


def _upstream(code: int, raw: str, **metadata: object) -> ErrorRow:
    """Give a row for what the provider behind it refuses: the status is 200, the news is in the metadata."""
    told = {"raw": raw, "provider_name": _PROVIDER, **metadata}
    return ErrorRow(200, "Provider returned error", None, code, {"metadata": told})


_POOL = "upstream_provider_shared_pool"
_TOKENS = _upstream(
    429,
    '{"error":{"message":"Rate limit reached for tokens per minute.","type":"tokens"}}',
    limit_source=_POOL,
    provider_error_code="tpm_rate_limit_exceeded",
)

ERRORS = derived(
    openai.ERRORS,
    lambda row: _row(row.status, row.message),
    {
        Problem.CONTEXT_LENGTH: _row(
            400,
            "This endpoint's maximum context length is {limit} tokens. However, you requested about {tokens} tokens. "
            "Please reduce the length of either one.",
        ),
        Problem.CONTENT_FILTER: _row(
            403,
            "The prompt was flagged by the moderation of the provider.",
            reasons=["simulated"],
            flagged_input="…",
            provider_name=_PROVIDER,
        ),
        Problem.NO_KEY: _row(401, "No auth credentials found"),
        Problem.WRONG_KEY: _row(401, "User not found."),
        Problem.PAYMENT: _row(402, "Insufficient credits. Please add more credits to continue."),
        Problem.QUOTA: _row(
            402,
            "This request requires more credits, or fewer max_tokens. You requested up to 2000 tokens, but can only "
            "afford 500.",
        ),
        Problem.FORBIDDEN: _row(403, "This key may not use the model {model}."),
        Problem.MODEL_NOT_FOUND: _row(400, "{model} is not a valid model ID"),
        Problem.REQUEST_RATE: _row(429, "Rate limit exceeded: {limit} requests per minute."),
        Problem.TOKEN_RATE: _row(429, "Rate limit exceeded: {limit} tokens per minute."),
        Problem.THROTTLED: _TOKENS,
        Problem.BURST: _upstream(
            429,
            '{"error":{"message":"Request rate increased too quickly.","type":"requests"}}',
            limit_source=_POOL,
            provider_error_code="rpm_rate_limit_exceeded",
        ),
        Problem.CONCURRENCY: _row(
            402,
            "The requests in flight use up the budget. Please try again later.",
            limit_source="openrouter_in_flight_budget",
        ),
        Problem.DAILY_LIMIT: _row(429, "Rate limit exceeded: free-models-per-day."),
        Problem.OVERLOADED: _upstream(503, "The engine is currently overloaded, please try again later"),
        Problem.SERVER: _row(500, "Internal Server Error"),
        Problem.BAD_GATEWAY: _row(502, "Provider returned error", raw="error code: 502", provider_name=_PROVIDER),
        Problem.UNAVAILABLE: _row(503, "No provider meets the routing requirements of this request."),
    },
)


def error(row: ErrorRow, message: str, _param: str | None, facts: Facts) -> Body:
    """Shape an error body: code and message, metadata where there is any, and whose call it was."""
    told = {"message": message, "code": row.code, **row.extras}
    return {"error": told, "user_id": facts["organization"], "simulated": True}


def reasoning(text: str | None) -> Body:
    """Shape thinking: as text, and in parts."""
    parts = [] if text is None else [{"type": "reasoning.text", "text": text, "format": "unknown", "index": 0}]
    return {"reasoning": text, "reasoning_details": parts}


def _choice(finish: str | None) -> dict[str, Any]:
    return {"logprobs": None, "native_finish_reason": finish}


def _model(name: str) -> Body:
    supported = _SUPPORTED + (("reasoning", "include_reasoning") if named_thinking({"model": name}) else ())
    return {
        **model_of("openrouter")(name),
        "name": name,
        "context_length": _CONTEXT,
        "pricing": {"prompt": "0", "completion": "0"},
        "supported_parameters": [*supported],
    }


OPENROUTER = Dialect(
    name="openrouter",
    base_path="/api/v1",
    errors=ERRORS,
    error=error,
    shape=Shape(
        identify=lambda digits: f"gen-{digits}",
        usage_at=UsageAt.FINISH,
        extras={"provider": _PROVIDER},
        order=("id", "provider", "model", "object", "created"),
        choice=_choice,
        message={"refusal": None, "reasoning": None},
        reasoning=reasoning,
        tells_logprobs=True,
    ),
    rules=Rules(json_word=None, switches=(by_reasoning, by_effort)),
    model=_model,
    retry_after=frozenset({Problem.REQUEST_RATE, Problem.TOKEN_RATE, Problem.CONCURRENCY}),
    framed=frozenset({200}),
    keep_alive=(b"", b": OPENROUTER PROCESSING\n\n"),
    models_need_key=False,
)
