"""What a provider family decides: the shapes of answers, errors and headers, and what it accepts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from batchrun.simulator.completion import Completion
from batchrun.simulator.dialects.rules import Rules
from batchrun.simulator.dialects.shapes import CREATED, Body, Shape
from batchrun.simulator.limits import Level
from batchrun.simulator.problems import Problem

Facts = Mapping[str, Any]

#: What messages may name that not every case knows.
COMMON_FACTS: Facts = {
    "detail": "The request was rejected by the server.",
    "error": "unexpected end of data",
    "key": "***",
    "limit": 1,
    "method": "POST",
    "model": "the model",
    "organization": "org-simulated",
    "account": "ak-simulated",
    "path": "/",
    "request_id": "simulated",
    "requested": 1,
    "seconds": 1,
    "tokens": 1,
    "used": 1,
    "wait": "1.000",
}


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """How one problem is told; `message` is a format string over the facts of the case.

    `extras` are keys that the error object has besides.
    """

    status: int
    message: str
    type: str | None = None
    code: str | int | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)


Errors = Mapping[Problem, ErrorRow]


def derived(rows: Errors, convert: Callable[[ErrorRow], ErrorRow], own: Errors) -> dict[Problem, ErrorRow]:
    """Make a family's table: its own rows, and the others' made to fit."""
    return {problem: own.get(problem) or convert(row) for problem, row in rows.items()}


def listed(names: Sequence[str], model: Callable[[str], Body]) -> Body:
    """Shape the list of models."""
    return {"object": "list", "data": [model(name) for name in names], "simulated": True}


def model_of(owner: str, **more: object) -> Callable[[str], Body]:
    """Give the function that shapes one model."""
    return lambda name: {
        "id": name, "object": "model", "created": CREATED, "owned_by": owner, **more, "simulated": True,
    }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """A provider family: where its paths begin, what it accepts, and the shapes of what it sends.

    `error` gets the row, the finished message, the parameter at fault and the facts; `limit_headers` gets the state
    of each limit. `aliases` are further beginnings of paths. `request_id` gives the id of the n-th answer, which
    goes into the header `id_header`. Only the problems in `retry_after` come with that header. Where a call
    wants a stream, errors with a status in `framed` are an event. While a call waits, `keep_alive` bytes are sent,
    for plain answers and for streams. With `web_page`, paths outside the API are a web page. `unimplemented`
    are beginnings of paths that are known and not served. With `precharged`, the token limit counts the tokens
    that were asked for, not those that were sent.
    """

    name: str
    base_path: str
    errors: Errors
    error: Callable[[ErrorRow, str, str | None, Facts], Any]
    shape: Shape
    rules: Rules = field(default_factory=Rules)
    model: Callable[[str], Body] = field(default_factory=lambda: model_of("simulator"))
    limit_headers: Callable[[Sequence[Level]], dict[str, str]] = lambda _: {}
    aliases: tuple[str, ...] = ()
    request_id: Callable[[int], str] = lambda number: f"req_simulated{number:010x}"
    id_header: str = "x-request-id"
    headers: Mapping[str, str] = field(default_factory=dict)
    retry_after: frozenset[Problem] = frozenset()
    framed: frozenset[int] = frozenset()
    keep_alive: tuple[bytes, bytes] | None = None
    web_page: bool = False
    unimplemented: tuple[str, ...] = ()
    models_need_key: bool = True
    precharged: bool = False

    @property
    def base_paths(self) -> tuple[str, ...]:
        """Give every beginning of the paths."""
        return (self.base_path, *self.aliases)

    def completion(self, answer: Completion) -> Body:
        """Shape a whole answer."""
        return self.shape.completion(answer)

    def chunks(self, answer: Completion, include_usage: bool) -> Iterable[Body]:
        """Shape an answer as stream chunks."""
        return self.shape.chunks(answer, include_usage)

    def models(self, names: Sequence[str]) -> Body:
        """Shape the list of models."""
        return listed(names, self.model)

    def message(self, problem: Problem, facts: Facts) -> str:
        """Give the message of a problem."""
        return self.errors[problem].message.format_map({**COMMON_FACTS, **facts})

    def refuse(self, problem: Problem, param: str | None, facts: Facts) -> tuple[int, Any]:
        """Give status and body for a problem, given the parameter at fault and what the message names."""
        return self.tell(problem, self.message(problem, facts), param, facts)

    def tell(self, problem: Problem, message: str, param: str | None, facts: Facts) -> tuple[int, Any]:
        """Give status and body for a problem, with another message than the usual one."""
        row = self.errors[problem]
        return row.status, self.error(row, message, param, {**COMMON_FACTS, **facts})
