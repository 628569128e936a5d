"""The server of llama.cpp: any model name is answered, codes are numbers, and a model that still loads is a 503.

It knows neither money nor moderation nor rates; such refusals stand for those of a gateway that keeps its shapes.
"""

from __future__ import annotations

from collections.abc import Iterator

from batchrun.simulator.completion import Completion
from batchrun.simulator.dialects import openai
from batchrun.simulator.dialects.base import Dialect, ErrorRow, Facts, derived, model_of
from batchrun.simulator.dialects.rules import Rules, by_template, none_of
from batchrun.simulator.dialects.shapes import Body, Shape, UsageAt, plain_usage
from batchrun.simulator.problems import Problem

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    501: "not_supported_error",
    503: "unavailable_error",
}
_CONTEXT = 131_072
_OWN_FAULT = 500
_TOO_LONG = "exceed_context_size_error"
_PROMPT_PER_S = 1000.0
_PREDICTED_PER_S = 50.0
_MS_PER_S = 1000.0


def _row(status: int, message: str) -> ErrorRow:
    """Give a row whose type and code follow from the status."""
    other = "server_error" if status >= _OWN_FAULT else "invalid_request_error"
    return ErrorRow(status, message, _TYPES.get(status, other), status)


_KEY = _row(401, "Invalid API Key")
_LOADING = _row(503, "Loading model")
_MONEY = _row(402, "Insufficient balance.")

ERRORS = derived(
    openai.ERRORS,
    lambda row: _row(row.status, row.message),
    {
        Problem.CONTEXT_LENGTH: ErrorRow(
            400,
            "request ({tokens} tokens) exceeds the available context size ({limit} tokens), try increasing it",
            _TOO_LONG,
            400,
        ),
        Problem.NO_KEY: _KEY,
        Problem.WRONG_KEY: _KEY,
        Problem.PAYMENT: _MONEY,
        Problem.QUOTA: _MONEY,
        Problem.MODEL_NOT_FOUND: _row(404, "model '{model}' not found"),
        Problem.UNKNOWN_PATH: _row(404, "File Not Found"),
        Problem.OVERLOADED: _LOADING,
        Problem.UNAVAILABLE: _LOADING,
        Problem.SERVER: _row(500, "Failed to parse tool call arguments as JSON"),
    },
)


def error(row: ErrorRow, message: str, _param: str | None, facts: Facts) -> Body:
    """Shape an error body: no parameter, and numbers where the prompt is too long."""
    told: Body = {"code": row.code, "message": message, "type": row.type}
    if row.type == _TOO_LONG:
        told.update(n_prompt_tokens=facts["tokens"], n_ctx=facts["limit"])
    return {"error": told, "simulated": True}


def timings(answer: Completion) -> Body:
    """Shape how long it took, at a steady speed."""
    fresh = answer.prompt_tokens - answer.cached_tokens
    return {
        "cache_n": answer.cached_tokens,
        "prompt_n": fresh,
        "prompt_ms": fresh / _PROMPT_PER_S * _MS_PER_S,
        "prompt_per_token_ms": _MS_PER_S / _PROMPT_PER_S,
        "prompt_per_second": _PROMPT_PER_S,
        "predicted_n": answer.completion_tokens,
        "predicted_ms": answer.completion_tokens / _PREDICTED_PER_S * _MS_PER_S,
        "predicted_per_token_ms": _MS_PER_S / _PREDICTED_PER_S,
        "predicted_per_second": _PREDICTED_PER_S,
    }


class TimedShape(Shape):
    """Answers that tell how long they took: whole ones, and the last chunk of a stream."""

    __slots__ = ()

    def completion(self, answer: Completion) -> Body:
        """Shape a whole answer."""
        return {**super().completion(answer), "timings": timings(answer)}

    def chunks(self, answer: Completion, include_usage: bool) -> Iterator[Body]:
        """Shape an answer as stream chunks."""
        *early, last = super().chunks(answer, include_usage)
        yield from early
        yield {**last, "timings": timings(answer)}


LLAMACPP = Dialect(
    name="llamacpp",
    base_path="/v1",
    errors=ERRORS,
    error=error,
    shape=TimedShape(
        identify_call=lambda digits, index, _name: f"{digits[:30]}{index:02}",
        usage=plain_usage,
        usage_at=UsageAt.APART,
        extras={"system_fingerprint": "b0-simulated"},
        choice=lambda _: {},
        first={"role": "assistant", "content": None},
        tells_logprobs=True,
    ),
    rules=Rules(json_word=None, switches=(by_template,), any_model=True, without_effect=none_of()),
    model=model_of("llamacpp", meta={"n_ctx_train": _CONTEXT}),
)
