"""The judge: the output of a response, or why it has none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchrun.records import ErrorKind, Extraction

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchrun.output.extract import Finding
    from batchrun.output.schema import Schema


@dataclass(slots=True)
class Verdict:
    """Either a value and how it was found, or what is wrong with the text (for people and for the model)."""

    value: Any = None
    extraction: Extraction | None = None
    problem: str | None = None
    kind: ErrorKind = ErrorKind.INVALID_OUTPUT
    #: Whether something was put back into the value that had been taken out of the request.
    restored: bool = False


class Judge:
    """Judges the texts of one job. Without a schema the text itself is the output."""

    def __init__(self, schema: Schema | None) -> None:
        self._schema = schema
        if schema is not None:  # what reads JSON as models write it takes a while to load
            from batchrun.output.extract import extract_value

            self._extract_value = extract_value

    def judge(
        self, text: str | None, mode: str, arguments: str | None = None, restore: Callable[[Any], Any] | None = None
    ) -> Verdict:
        """Give the output of an answer: the JSON value in it that the schema takes; nothing that is not in it.

        `mode` is the way in which it was asked for. `arguments` of the call that takes outputs count more than text.
        `restore` puts back into a value what had been taken out of the request. Texts of 100 KB take tens of
        milliseconds, the largest up to a second.
        """
        if self._schema is None:
            return Verdict(value=text) if restore is None else _restored(Verdict(value=text), restore)
        said = text if arguments is None else arguments
        if said is None:
            return Verdict(problem="the answer holds tool calls and no text")
        found = self._extract_value(said, self._schema, as_arguments=arguments is not None)
        if restore is None:
            return Verdict(problem=found.problem, kind=found.kind) if found.kind is not None else _verdict(found, mode)
        # The schema is for the values, and decides which of several candidates is meant.
        meant = self._extract_value(said, _Restoring(self._schema, restore), as_arguments=arguments is not None)
        if meant.kind is None:
            return _restored(_verdict(meant, mode), restore)
        # What is wrong is said of the answer as it came: with its values it must not go back.
        problem = found.problem or "with its values put back the output is not what the schema asks for"
        return Verdict(problem=problem, kind=meant.kind)


class _Restoring:
    """A schema for values with placeholders: it looks at what they stand for."""

    def __init__(self, schema: Schema, restore: Callable[[Any], Any]) -> None:
        self._schema, self._restore = schema, restore

    def errors(self, value: Any) -> list[str]:
        """Give what is wrong with a value once everything is put back."""
        return self._schema.errors(self._restore(value))


def _verdict(found: Finding, mode: str) -> Verdict:
    return Verdict(value=found.value, extraction=Extraction(mode, found.method, found.repairs))


def _restored(verdict: Verdict, restore: Callable[[Any], Any]) -> Verdict:
    value = restore(verdict.value)
    verdict.restored = value != verdict.value
    verdict.value = value
    return verdict
