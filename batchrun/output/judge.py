"""The judge: the output of a response, or why it has none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchrun.output.extract import extract_value
from batchrun.records import ErrorKind, Extraction

if TYPE_CHECKING:
    from batchrun.output.schema import Schema


@dataclass(slots=True)
class Verdict:
    """Either a value and how it was found, or what is wrong with the text (for people and for the model)."""

    value: Any = None
    extraction: Extraction | None = None
    problem: str | None = None
    kind: ErrorKind = ErrorKind.INVALID_OUTPUT


class Judge:
    """Judges the texts of one job. Without a schema the text itself is the output."""

    def __init__(self, schema: Schema | None) -> None:
        self._schema = schema

    def judge(self, text: str | None, mode: str, arguments: str | None = None) -> Verdict:
        """Give the output of an answer: the JSON value in it that the schema takes; nothing that is not in it.

        `mode` is the way in which it was asked for. `arguments` of the call that takes outputs count more than text.
        Texts of 100 KB take tens of milliseconds, the largest up to a second.
        """
        if self._schema is None:
            return Verdict(value=text)
        said = text if arguments is None else arguments
        if said is None:
            return Verdict(problem="the answer holds tool calls and no text")
        found = extract_value(said, self._schema, as_arguments=arguments is not None)
        if found.kind is not None:
            return Verdict(problem=found.problem, kind=found.kind)
        return Verdict(value=found.value, extraction=Extraction(mode, found.method, found.repairs))
