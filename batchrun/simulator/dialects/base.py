"""What a provider family decides: the shapes of answers, errors and headers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from batchrun.simulator.completion import Completion
from batchrun.simulator.limits import Level

Body = dict[str, Any]


class Problem(StrEnum):
    """Everything a provider refuses a call for."""

    BAD_REQUEST = "bad_request"
    MISSING_PARAMETER = "missing_parameter"
    INVALID_TYPE = "invalid_type"
    INVALID_VALUE = "invalid_value"
    CONTEXT_LENGTH = "context_length"
    CONTENT_FILTER = "content_filter"
    NO_KEY = "no_key"
    WRONG_KEY = "wrong_key"
    PAYMENT = "payment"
    FORBIDDEN = "forbidden"
    MODEL_NOT_FOUND = "model_not_found"
    UNKNOWN_PATH = "unknown_path"
    WRONG_METHOD = "wrong_method"
    TIMEOUT = "timeout"
    CONFLICT = "conflict"
    BODY_TOO_LARGE = "body_too_large"
    TOO_EARLY = "too_early"
    REQUEST_RATE = "request_rate"
    TOKEN_RATE = "token_rate"  # noqa: S105
    CONCURRENCY = "concurrency"
    SERVER = "server"
    BAD_GATEWAY = "bad_gateway"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """How one problem is told; `message` is a format string over the facts of the case."""

    status: int
    message: str
    type: str | None
    code: str | None


@dataclass(frozen=True, slots=True)
class Dialect:
    """A provider family: where its paths begin, and functions that shape what it sends.

    `error` gets the row, the finished message and the parameter at fault; `chunks` gets the completion and
    whether usage is wanted; `limit_headers` gets the state of each limit.
    """

    name: str
    base_path: str
    errors: Mapping[Problem, ErrorRow]
    error: Callable[[ErrorRow, str, str | None], Body]
    completion: Callable[[Completion], Body]
    chunks: Callable[[Completion, bool], Iterable[Body]]
    limit_headers: Callable[[Sequence[Level]], dict[str, str]]
    models: Callable[[Sequence[str]], Body]
    model: Callable[[str], Body]

    def refuse(self, problem: Problem, param: str | None, facts: Mapping[str, object]) -> tuple[int, Body]:
        """Give status and body for a problem, given the parameter at fault and what the message names."""
        row = self.errors[problem]
        return row.status, self.error(row, row.message.format_map(facts), param)
