"""Qianfan: every error has an id beside it, and moderation is a 403."""

from __future__ import annotations

from batchrun.simulator.dialects import openai
from batchrun.simulator.dialects.base import Dialect, ErrorRow, Facts, derived
from batchrun.simulator.dialects.rules import Rules, by_flag, by_type
from batchrun.simulator.dialects.shapes import Body, Shape
from batchrun.simulator.problems import Problem

_INVALID, _RATE = "invalid_request_error", "rate_limit_exceeded"
#: What may go well another time.
_AGAIN = (408, 409, 425, 500, 502, 503)


def _other(row: ErrorRow) -> ErrorRow:
    if row.status in _AGAIN:
        return ErrorRow(row.status, row.message, "internal_error", "internal_error")
    return ErrorRow(row.status, row.message, _INVALID, "invalid_argument")


def _limit(name: str) -> ErrorRow:
    return ErrorRow(429, f"Rate limit reached for {name.upper()}", _RATE, f"{name}_rate_limit_exceeded")


_KEY = ErrorRow(401, "Invalid IAM token", _INVALID, "invalid_iam_token")
# What money is told as is not known.
_MONEY = ErrorRow(403, "Account overdue", "access_denied", "account_overdue")

ERRORS = derived(
    openai.ERRORS,
    _other,
    {
        Problem.BAD_JSON: ErrorRow(400, "Malformed JSON: {error}", _INVALID, "malformed_json"),
        Problem.CONTEXT_LENGTH: ErrorRow(400, "Prompt tokens too long", _INVALID, "tokens_too_long"),
        Problem.CONTENT_FILTER: ErrorRow(403, "The content is unsafe", "unsafe_request", "system_unsafe"),
        Problem.NO_KEY: _KEY,
        Problem.WRONG_KEY: _KEY,
        Problem.PAYMENT: _MONEY,
        Problem.QUOTA: _MONEY,
        Problem.FORBIDDEN: ErrorRow(401, "No permission for {model}", _INVALID, "no_parameter_permission"),
        Problem.MODEL_NOT_FOUND: ErrorRow(400, "The model {model} does not exist", _INVALID, "invalid_model"),
        Problem.WRONG_METHOD: ErrorRow(405, "Method {method} not supported", _INVALID, "method_not_supported"),
        Problem.REQUEST_RATE: _limit("rpm"),
        Problem.TOKEN_RATE: _limit("tpm"),
        Problem.THROTTLED: _limit("tpm"),
        Problem.CONCURRENCY: _limit("user"),
        Problem.BALANCE_CONCURRENCY: _limit("user"),
        Problem.BURST: _limit("rpm"),
        Problem.DAILY_LIMIT: _limit("user"),
        Problem.OVERLOADED: _limit("cluster"),
    },
)


def error(row: ErrorRow, message: str, _param: str | None, facts: Facts) -> Body:
    """Shape an error body: with the id of the answer."""
    told = {"code": row.code, "message": message, "type": row.type}
    return {"error": told, "id": f"as-{facts['request_id']}", "simulated": True}


QIANFAN = Dialect(
    name="qianfan",
    base_path="/v2",
    errors=ERRORS,
    error=error,
    shape=Shape(identify=lambda digits: f"as-{digits[:10]}", choice=lambda _: {"flag": 0}),
    rules=Rules(switches=(by_type, by_flag)),
    request_id=lambda number: f"{number:010x}",
)
