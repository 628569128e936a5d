"""vLLM: codes are the status as a number, types are named after it, and answers have keys that nobody else has.

It knows neither money nor moderation nor rates; such refusals stand for those of a gateway that keeps its shapes.
"""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus
from typing import Any

from batchrun.simulator.completion import Completion
from batchrun.simulator.dialects import openai
from batchrun.simulator.dialects.base import Dialect, ErrorRow, Facts, derived
from batchrun.simulator.dialects.rules import Rules, by_effort, by_template, lacks_tools, none_of, number, when
from batchrun.simulator.dialects.shapes import CREATED, Body, Shape, UsageAt, plain_usage
from batchrun.simulator.problems import Problem

_NAMES = {400: "BadRequestError", 404: "NotFoundError", 500: "InternalServerError"}
MAX_MODEL_LEN = 131_072
_MONEY = "Insufficient balance."
#: The check of the key comes before everything that has a type.
_UNAUTHORIZED = ErrorRow(401, "Unauthorized")


def _row(status: int, message: str) -> ErrorRow:
    """Give a row whose type and code follow from the status."""
    return ErrorRow(status, message, _NAMES.get(status) or HTTPStatus(status).phrase, status)


ERRORS = derived(
    openai.ERRORS,
    lambda row: _row(row.status, row.message),
    {
        Problem.BAD_JSON: _row(400, "[{{'type': 'json_invalid', 'loc': ('body', 0), 'msg': 'JSON decode error'}}]"),
        Problem.CONTEXT_LENGTH: _row(
            400,
            "This model's maximum context length is {limit} tokens. However, you requested {tokens} tokens "
            "({tokens} in the messages, 0 in the completion). Please reduce the length of the messages or completion.",
        ),
        Problem.NO_KEY: _UNAUTHORIZED,
        Problem.WRONG_KEY: _UNAUTHORIZED,
        Problem.PAYMENT: _row(402, _MONEY),
        Problem.QUOTA: _row(402, _MONEY),
        Problem.MODEL_NOT_FOUND: _row(404, "The model `{model}` does not exist."),
        Problem.UNKNOWN_PATH: _row(404, "Not Found"),
        Problem.WRONG_METHOD: _row(405, "Method Not Allowed"),
    },
)


def error(row: ErrorRow, message: str, param: str | None, _facts: Facts) -> Body:
    """Shape an error body; without a type the error is a text."""
    told = message if row.type is None else {"message": message, "type": row.type, "param": param, "code": row.code}
    return {"error": told, "simulated": True}


def usage(answer: Completion) -> Body:
    """Shape the token counts: cached ones are not told."""
    return {**plain_usage(answer), "prompt_tokens_details": None}


def _choice(finish: str | None) -> dict[str, Any]:
    return {"logprobs": None} if finish is None else {"logprobs": None, "stop_reason": None}


def _model(name: str) -> dict[str, Any]:
    return {
        "id": name, "object": "model", "created": CREATED, "owned_by": "vllm", "root": name, "parent": None,
        "max_model_len": MAX_MODEL_LEN, "permission": [], "simulated": True,
    }  # fmt: skip


#: What both engines of this kind read: thinking is a matter of the chat template.
RULES = Rules(
    checks=(
        number("temperature", lambda value: value >= 0, "temperature must be non-negative."),
        number("top_p", lambda value: 0 < value <= 1, "top_p must be in (0, 1]."),
        number("max_tokens", lambda value: value >= 1, "max_tokens must be at least 1."),
    ),
    json_word=None,
    without_effect=none_of(),
    constrains=True,
    switches=(by_template, by_effort),
)

_NO_PARSER = when(
    lambda params: lacks_tools(params) and params.get("tool_choice") in (None, "auto"),
    "tool_choice",
    '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
)

VLLM = Dialect(
    name="vllm",
    base_path="/v1",
    errors=ERRORS,
    error=error,
    shape=Shape(
        identify_call=lambda digits, index, _name: f"chatcmpl-tool-{digits[:30]}{index:02}",
        usage=usage,
        usage_at=UsageAt.APART,
        extras={
            "service_tier": None,
            "system_fingerprint": None,
            "prompt_logprobs": None,
            "kv_transfer_params": None,
        },
        stream_extras={},
        choice=_choice,
        message={
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "tool_calls": [],
            "reasoning_content": None,
        },
        tells_logprobs=True,
    ),
    rules=replace(RULES, checks=(*RULES.checks, _NO_PARSER)),
    model=_model,
)
