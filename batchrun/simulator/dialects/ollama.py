"""Ollama: no codes of errors, thinking in `reasoning`, ids that repeat, and parameters that are ignored."""

from __future__ import annotations

from batchrun.simulator.dialects import openai
from batchrun.simulator.dialects.base import Dialect, ErrorRow, derived, model_of
from batchrun.simulator.dialects.rules import Rules, by_effort
from batchrun.simulator.dialects.shapes import Shape, plain_usage
from batchrun.simulator.problems import Problem

_IDS = 999

ERRORS = derived(
    openai.ERRORS,
    lambda row: ErrorRow(row.status, row.message, "invalid_request_error" if row.status < 500 else "api_error"),
    {Problem.MODEL_NOT_FOUND: ErrorRow(404, 'model "{model}" not found, try pulling it first', "not_found_error")},
)

OLLAMA = Dialect(
    name="ollama",
    base_path="/v1",
    errors=ERRORS,
    error=lambda row, message, _param, facts: openai.error(row, message, None, facts),
    shape=Shape(
        identify=lambda digits: f"chatcmpl-{int(digits, 16) % _IDS}",
        usage=plain_usage,
        choice=lambda _: {},
        reasoning=lambda text: {"reasoning": text},
    ),
    rules=Rules(
        ignored=frozenset({"tool_choice", "n", "logit_bias", "user", "logprobs", "top_logprobs"}),
        json_word=None,
        switches=(by_effort,),
    ),
    model=model_of("library"),
)
