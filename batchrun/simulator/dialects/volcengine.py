"""Doubao on Volcengine Ark: codes in CamelCase, and the id of the request in every message."""

from __future__ import annotations

from batchrun.simulator.dialects import openai
from batchrun.simulator.dialects.base import Dialect, ErrorRow, Facts, derived
from batchrun.simulator.dialects.rules import Rules, by_effort, by_type
from batchrun.simulator.dialects.shapes import Body, Shape, chatcmpl
from batchrun.simulator.problems import Problem

#: What may go well another time.
_AGAIN = (408, 409, 425, 500, 502, 503)
_ID = " Request ID: {request_id}"


def _row(status: int, code: str, message: str, kind: str) -> ErrorRow:
    return ErrorRow(status, message + _ID, kind, code)


def _other(row: ErrorRow) -> ErrorRow:
    if row.status in _AGAIN:
        return _row(row.status, "InternalServiceError", row.message, "InternalServerError")
    return _row(row.status, "InvalidParameter", row.message, "BadRequest")


def _limit(code: str, message: str) -> ErrorRow:
    return _row(429, code, message, "TooManyRequests")


_OVERDUE = _row(
    403, "AccountOverdueError", "The request failed because your account has an overdue balance.", "Forbidden"
)
_KEY = _row(401, "AuthenticationError", "The API key or AK/SK in the request is missing or invalid.", "Unauthorized")
_REQUESTS = _limit("ModelAccountRpmRateLimitExceeded", "The RPM limit of the model for your account is exceeded.")
_TOKENS = _limit("ModelAccountTpmRateLimitExceeded", "The TPM limit of the model for your account is exceeded.")
_INFLIGHT = _limit("InflightBatchsizeExceeded", "The number of requests in flight exceeds the limit.")

ERRORS = derived(
    openai.ERRORS,
    _other,
    {
        Problem.MISSING_PARAMETER: _row(400, "MissingParameter", "{detail}", "BadRequest"),
        Problem.CONTEXT_LENGTH: _row(
            400, "OutofContextError", "The input is {tokens} tokens long, more than {limit}.", "BadRequest"
        ),
        Problem.CONTENT_FILTER: _row(
            400, "InputTextRiskDetection", "The input text may contain sensitive information.", "BadRequest"
        ),
        Problem.NO_KEY: _KEY,
        Problem.WRONG_KEY: _KEY,
        Problem.PAYMENT: _OVERDUE,
        Problem.QUOTA: _OVERDUE,
        Problem.FORBIDDEN: _row(403, "AccessDenied", "You have no access to {model}.", "Forbidden"),
        Problem.MODEL_NOT_FOUND: _row(
            404,
            "InvalidEndpointOrModel.NotFound",
            "The model or endpoint {model} does not exist or you do not have access to it.",
            "NotFound",
        ),
        Problem.REQUEST_RATE: _REQUESTS,
        Problem.TOKEN_RATE: _TOKENS,
        Problem.THROTTLED: _TOKENS,
        Problem.CONCURRENCY: _INFLIGHT,
        Problem.BALANCE_CONCURRENCY: _INFLIGHT,
        Problem.BURST: _limit("RequestBurstTooFast", "The request rate increased too fast."),
        Problem.DAILY_LIMIT: _limit("SetLimitExceeded", "The limit that was set for the model is reached."),
        Problem.OVERLOADED: _limit("ServerOverloaded", "The service is overloaded, please try again later."),
    },
)


def error(row: ErrorRow, message: str, param: str | None, _facts: Facts) -> Body:
    """Shape an error body: an empty parameter, never null."""
    told = {"code": row.code, "message": message, "param": param or "", "type": row.type}
    return {"error": told, "simulated": True}


VOLCENGINE = Dialect(
    name="volcengine",
    base_path="/api/v3",
    aliases=("/api/v3/batch",),
    errors=ERRORS,
    error=error,
    shape=Shape(identify=chatcmpl, extras={"service_tier": "default"}, null_usage=True, tells_logprobs=True),
    rules=Rules(json_word=None, switches=(by_type, by_effort)),
)
