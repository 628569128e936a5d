"""MiniMax: errors are a base_resp in a 200, and thinking stands in the content unless it is split off."""

from __future__ import annotations

from batchrun.simulator.dialects import openai
from batchrun.simulator.dialects.base import Dialect, ErrorRow, Facts, derived, model_of
from batchrun.simulator.dialects.rules import Rules
from batchrun.simulator.dialects.shapes import Body, Shape
from batchrun.simulator.problems import Problem

_OK = {"status_code": 0, "status_msg": ""}
_MONEY = ErrorRow(200, "insufficient balance", None, 1008)
_TOKENS = ErrorRow(200, "token limit", None, 1039)
_CONNECTIONS = ErrorRow(200, "connection limit", None, 1041)
_KEY = ErrorRow(200, "invalid api key", None, 2049)


def _plain(row: ErrorRow) -> ErrorRow:
    # What comes from in front of the API keeps its status.
    if row.status == 400:
        return ErrorRow(200, row.message, None, 2013)
    return ErrorRow(200 if row.status == 429 else row.status, row.message, None, 1002 if row.status == 429 else 1000)


ERRORS = derived(
    openai.ERRORS,
    _plain,
    {
        Problem.CONTENT_FILTER: ErrorRow(200, "input new_sensitive", None, 1026),
        Problem.NO_KEY: ErrorRow(200, "not authorized", None, 1004),
        Problem.WRONG_KEY: _KEY,
        Problem.FORBIDDEN: ErrorRow(200, "not authorized", None, 1004),
        Problem.PAYMENT: _MONEY,
        Problem.QUOTA: _MONEY,
        Problem.MODEL_NOT_FOUND: ErrorRow(200, "invalid params, unknown model '{model}'", None, 2013),
        Problem.TOKEN_RATE: _TOKENS,
        Problem.THROTTLED: _TOKENS,
        Problem.CONCURRENCY: _CONNECTIONS,
        Problem.BALANCE_CONCURRENCY: _CONNECTIONS,
    },
)


def error(row: ErrorRow, message: str, _param: str | None, _facts: Facts) -> Body:
    """Shape an error body."""
    return {"base_resp": {"status_code": row.code, "status_msg": message}, "simulated": True}


MINIMAX = Dialect(
    name="minimax",
    base_path="/v1",
    errors=ERRORS,
    error=error,
    shape=Shape(
        extras={"base_resp": _OK, "input_sensitive": False, "output_sensitive": False},
        stream_extras={},
        choice=lambda _: {},
    ),
    rules=Rules(json_word=None, thinks_in_content=lambda params: params.get("reasoning_split") is not True),
    model=model_of("minimax"),
    framed=frozenset({200}),
)
