"""MiniMax: errors come with status 200 and a base_resp, and thinking stays in the content unless it is split off."""

from __future__ import annotations

from batchrun.simulator.dialects import openai
from batchrun.simulator.dialects.base import Dialect, ErrorRow, Facts, derived
from batchrun.simulator.dialects.rules import Params, Rules, by_type
from batchrun.simulator.dialects.shapes import Body, Shape
from batchrun.simulator.problems import Problem

_OK = 200
#: What may go well another time.
_AGAIN = (408, 409, 425, 500, 502, 503)


def _row(code: int, message: str) -> ErrorRow:
    return ErrorRow(_OK, message, code=code)


def _other(row: ErrorRow) -> ErrorRow:
    return _row(1000, "unknown error") if row.status in _AGAIN else _row(2013, f"invalid params, {row.message}")


_MONEY = _row(1008, "insufficient balance")
_RATE = _row(1002, "rate limit")
_TOKENS = _row(1039, "token limit")
_CONNECTIONS = _row(1041, "conn limit")

ERRORS = derived(
    openai.ERRORS,
    _other,
    {
        Problem.CONTENT_FILTER: _row(1026, "input new_sensitive"),
        Problem.NO_KEY: _row(1004, "login fail: Please carry the API secret key in the 'Authorization' field"),
        Problem.WRONG_KEY: _row(2049, "invalid api key"),
        Problem.PAYMENT: _MONEY,
        Problem.QUOTA: _MONEY,
        Problem.FORBIDDEN: _row(1004, "not authorized"),
        # What answers for a wrong path is not known.
        Problem.UNKNOWN_PATH: ErrorRow(404, "404 page not found", code=404),
        Problem.WRONG_METHOD: ErrorRow(405, "405 method not allowed", code=405),
        Problem.TIMEOUT: _row(1001, "timeout"),
        Problem.REQUEST_RATE: _RATE,
        Problem.BURST: _RATE,
        Problem.TOKEN_RATE: _TOKENS,
        Problem.THROTTLED: _TOKENS,
        Problem.CONCURRENCY: _CONNECTIONS,
        Problem.BALANCE_CONCURRENCY: _CONNECTIONS,
        Problem.DAILY_LIMIT: _row(2056, "usage limit exceeded"),
        Problem.OVERLOADED: _row(1002, "rate limit"),
        Problem.SERVER: _row(1013, "internal error"),
    },
)


def error(row: ErrorRow, message: str, _param: str | None, _facts: Facts) -> Body:
    """Shape an error body: a base_resp alone."""
    return {"base_resp": {"status_code": row.code, "status_msg": message}, "simulated": True}


def _by_model(params: Params) -> bool | None:
    return True if str(params.get("model")).startswith(("MiniMax-M2", "MiniMax-M3")) else None


MINIMAX = Dialect(
    name="minimax",
    base_path="/v1",
    errors=ERRORS,
    error=error,
    shape=Shape(
        extras={
            "input_sensitive": False,
            "output_sensitive": False,
            "input_sensitive_type": 0,
            "output_sensitive_type": 0,
            "base_resp": {"status_code": 0, "status_msg": ""},
        },
        choice=lambda _: {},
    ),
    rules=Rules(
        switches=(by_type, _by_model), thinks_in_content=lambda params: params.get("reasoning_split") is not True
    ),
    framed=frozenset({_OK}),
)
