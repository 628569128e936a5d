"""Ollama: parameter and code are always null, ids repeat, and a used-up quota is a text without anything around it.

Only its cloud has quotas; moderation and rates stand for those of a gateway that keeps its shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchrun.simulator.dialects import openai
from batchrun.simulator.dialects.base import Dialect, ErrorRow, Facts, derived, model_of
from batchrun.simulator.dialects.rules import Params, Rules, by_effort, by_reasoning
from batchrun.simulator.dialects.shapes import Shape, UsageAt, plain_usage
from batchrun.simulator.problems import Problem, Refused

_TYPES = {400: "invalid_request_error", 404: "not_found_error"}
_EFFORTS = ("high", "medium", "low", "max", "none")
#: Ids are one of so many.
_IDS = 999


def _row(status: int, message: str) -> ErrorRow:
    """Give a row whose type follows from the status."""
    return ErrorRow(status, message, _TYPES.get(status, "api_error"))


def _used_up(period: str) -> ErrorRow:
    """Give a row without a type, whose message is the body."""
    return ErrorRow(
        429,
        f"you (simulated) have reached your {period} usage limit, upgrade for higher limits: "
        "https://ollama.com/upgrade",
    )


_KEY = _row(401, "unauthorized")
_BUSY = _row(503, "server busy, please try again.  maximum pending requests exceeded")

ERRORS = derived(
    openai.ERRORS,
    lambda row: _row(row.status, row.message),
    {
        Problem.CONTEXT_LENGTH: ErrorRow(
            400,
            "request ({tokens} tokens) exceeds the available context size ({limit} tokens), try increasing it",
            "exceed_context_size_error",
        ),
        Problem.NO_KEY: _KEY,
        Problem.WRONG_KEY: _KEY,
        Problem.PAYMENT: _used_up("session"),
        Problem.QUOTA: _used_up("session"),
        Problem.DAILY_LIMIT: _used_up("weekly"),
        Problem.MODEL_NOT_FOUND: _row(404, 'model "{model}" not found, try pulling it first'),
        Problem.UNKNOWN_PATH: _row(404, "404 page not found"),
        Problem.OVERLOADED: _BUSY,
        Problem.UNAVAILABLE: _BUSY,
    },
)


def error(row: ErrorRow, message: str, _param: str | None, facts: Facts) -> Any:
    """Shape an error body; without a type it is the bare message."""
    return message if row.type is None else openai.error(row, message, None, facts)


def _check_effort(params: Params) -> None:
    reasoning = params.get("reasoning")
    effort = reasoning.get("effort") if isinstance(reasoning, Mapping) else params.get("reasoning_effort")
    if isinstance(effort, str) and effort and effort not in _EFFORTS:
        detail = f'invalid reasoning value: \'{effort}\' (must be "high", "medium", "low", "max", or "none")'
        raise Refused(Problem.BAD_REQUEST, detail=detail)


OLLAMA = Dialect(
    name="ollama",
    base_path="/v1",
    errors=ERRORS,
    error=error,
    shape=Shape(
        identify=lambda digits: f"chatcmpl-{int(digits[:16], 16) % _IDS}",
        identify_call=lambda digits, _index, _name: f"call_{digits[:8]}",
        usage=plain_usage,
        usage_at=UsageAt.APART,
        extras={"system_fingerprint": "fp_ollama"},
        choice=lambda _: {},
        reasoning=lambda text: {"reasoning": text},
        tool_content="",
        tool_index=True,
    ),
    rules=Rules(
        checks=(_check_effort,),
        ignored=frozenset(
            {"tool_choice", "n", "logit_bias", "user", "logprobs", "top_logprobs", "max_completion_tokens"}
        ),
        json_word=None,
        switches=(by_reasoning, by_effort),
    ),
    model=model_of("library"),
)
