"""SGLang: as vLLM, but an error is the whole body, and ids are bare."""

from __future__ import annotations

from batchrun.simulator.dialects import vllm
from batchrun.simulator.dialects.base import Dialect, ErrorRow, Facts, model_of
from batchrun.simulator.dialects.shapes import Body, Shape, UsageAt


def error(row: ErrorRow, message: str, param: str | None, facts: Facts) -> Body:
    """Shape an error body: nothing is wrapped around it."""
    if row.type is None:
        return vllm.error(row, message, param, facts)
    return {
        "object": "error", "message": message, "type": row.type, "param": param, "code": row.code, "simulated": True,
    }  # fmt: skip


def _model(name: str) -> Body:
    return model_of("sglang", root=name, max_model_len=vllm.MAX_MODEL_LEN)(name)


SGLANG = Dialect(
    name="sglang",
    base_path="/v1",
    errors=vllm.ERRORS,
    error=error,
    shape=Shape(
        identify=str,
        usage=vllm.usage,
        usage_at=UsageAt.APART,
        choice=lambda _: {"logprobs": None, "matched_stop": None},
        message={"reasoning_content": None, "tool_calls": None},
        first={"role": "assistant", "content": "", "reasoning_content": None, "tool_calls": None},
        tells_logprobs=True,
    ),
    rules=vllm.RULES,
    model=_model,
)
