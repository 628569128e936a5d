"""vLLM: codes of errors are whole numbers, and answers have keys of its own."""

from __future__ import annotations

from batchrun.simulator.completion import Completion
from batchrun.simulator.dialects import openai
from batchrun.simulator.dialects.base import Dialect, ErrorRow, derived, model_of
from batchrun.simulator.dialects.rules import Rules, by_template
from batchrun.simulator.dialects.shapes import Body, Shape, plain_usage

_TYPES = {400: "BadRequestError", 401: "AuthenticationError", 404: "NotFoundError", 429: "RateLimitError"}

ERRORS = derived(
    openai.ERRORS,
    lambda row: ErrorRow(row.status, row.message, _TYPES.get(row.status, "InternalServerError"), row.status),
    {},
)


def usage(answer: Completion) -> Body:
    """Shape the token counts: without details."""
    return {**plain_usage(answer), "prompt_tokens_details": None}


VLLM = Dialect(
    name="vllm",
    base_path="/v1",
    errors=ERRORS,
    error=lambda row, message, _param, facts: openai.error(row, message, None, facts),
    shape=Shape(
        usage=usage,
        extras={"prompt_logprobs": None, "kv_transfer_params": None},
        stream_extras={},
        choice=lambda _: {"logprobs": None, "stop_reason": None},
        message={"reasoning_content": None, "tool_calls": []},
    ),
    rules=Rules(json_word=None, switches=(by_template,)),
    model=model_of("vllm", max_model_len=131_072),
)
