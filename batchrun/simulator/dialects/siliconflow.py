"""SiliconFlow: errors stand at the top level with whole numbers for codes, and a wrong key is a bare JSON string."""

from __future__ import annotations

from typing import Any

from batchrun.simulator.dialects import openai
from batchrun.simulator.dialects.base import Dialect, ErrorRow, Facts, derived
from batchrun.simulator.dialects.rules import Rules, by_flag
from batchrun.simulator.dialects.shapes import Shape, UsageAt
from batchrun.simulator.problems import Problem

_UNAUTHORIZED = 401
_MONEY = ErrorRow(403, "Sorry, your account balance is insufficient", code=30001)


def _limit(name: str) -> ErrorRow:
    return ErrorRow(429, f"Request was rejected due to rate limiting. Details:{name} limit reached.")


ERRORS = derived(
    openai.ERRORS,
    lambda row: ErrorRow(row.status, row.message, code=20015 if row.status == 400 else None),
    {
        Problem.NO_KEY: ErrorRow(_UNAUTHORIZED, "Invalid token"),
        Problem.WRONG_KEY: ErrorRow(_UNAUTHORIZED, "Invalid token"),
        Problem.PAYMENT: _MONEY,
        Problem.QUOTA: _MONEY,
        Problem.MODEL_NOT_FOUND: ErrorRow(400, "Model does not exist. Please check it carefully.", code=20012),
        Problem.REQUEST_RATE: _limit("RPM"),
        Problem.CONCURRENCY: _limit("RPM"),
        Problem.BALANCE_CONCURRENCY: _limit("RPM"),
        Problem.BURST: _limit("RPM"),
        Problem.TOKEN_RATE: _limit("TPM"),
        Problem.THROTTLED: _limit("TPM"),
        Problem.DAILY_LIMIT: _limit("RPD"),
    },
)


def error(row: ErrorRow, message: str, _param: str | None, _facts: Facts) -> Any:
    """Shape an error body: a text where the key is refused, else code, message and data."""
    if row.status == _UNAUTHORIZED:
        return message
    code = {} if row.code is None else {"code": row.code}
    return {**code, "message": message, "data": None, "simulated": True}


SILICONFLOW = Dialect(
    name="siliconflow",
    base_path="/v1",
    errors=ERRORS,
    error=error,
    shape=Shape(
        identify=lambda digits: digits, usage_at=UsageAt.FINISH, choice=lambda _: {}, extras={"system_fingerprint": ""}
    ),
    rules=Rules(json_word=None, switches=(by_flag,)),
)
