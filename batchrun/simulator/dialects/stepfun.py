"""StepFun: errors have a type and no code; money is a 402, moderation a 451."""

from __future__ import annotations

from batchrun.simulator.dialects import moonshot, openai
from batchrun.simulator.dialects.base import Dialect, ErrorRow, derived
from batchrun.simulator.dialects.rules import Rules
from batchrun.simulator.dialects.shapes import Shape
from batchrun.simulator.problems import Problem

_KEY = ErrorRow(401, "Incorrect API key provided", "invalid_api_key")
_MONEY = ErrorRow(402, "Insufficient balance", "insufficient_balance")

ERRORS = derived(
    openai.ERRORS,
    lambda row: ErrorRow(row.status, row.message, row.type),
    {
        Problem.CONTENT_FILTER: ErrorRow(451, "The content you provided is not allowed", "censorship_blocked"),
        Problem.NO_KEY: _KEY,
        Problem.WRONG_KEY: _KEY,
        Problem.PAYMENT: _MONEY,
        Problem.QUOTA: _MONEY,
        Problem.MODEL_NOT_FOUND: ErrorRow(
            400, "model {model} does not exist or you have no permission", "invalid_request_error"
        ),
    },
)

STEPFUN = Dialect(
    name="stepfun",
    base_path="/v1",
    errors=ERRORS,
    error=moonshot.error,
    shape=Shape(identify=lambda digits: digits),
    rules=Rules(),
)
