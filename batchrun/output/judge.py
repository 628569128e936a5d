"""The judge: the output of a response, or why it has none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from batchrun.records import Extraction

if TYPE_CHECKING:
    from batchrun.output.schema import Schema

_FENCE = re.compile(r"\A\s*```[A-Za-z0-9_-]*[ \t]*\r?\n(.*?)\r?\n?[ \t]*```\s*\Z", re.DOTALL)

#: A value nested deeper than this cannot be written into a record.
_DEPTH = 200


@dataclass(slots=True)
class Verdict:
    """Either a value and how it was found, or what is wrong with the text (for people and for the model)."""

    value: Any = None
    extraction: Extraction | None = None
    problem: str | None = None


class Judge:
    """Judges the texts of one job. Without a schema the text itself is the output."""

    def __init__(self, schema: Schema | None) -> None:
        self._schema = schema

    def judge(self, text: str | None, mode: str, arguments: str | None = None) -> Verdict:
        """Give the output of a text: as it is, or out of the one code fence that is all of it; never guessed.

        `mode` is the way in which it was asked for. `arguments` of the call that takes outputs count more than text.
        """
        if self._schema is None:
            return Verdict(value=text)
        method = "as_is"
        if arguments is not None:
            method, text = "tool_call", arguments
        if text is None:
            return Verdict(problem="the answer holds tool calls and no text")
        body = text
        fence = _FENCE.match(text)
        if fence:
            method, body = "fence", fence.group(1)
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            return Verdict(problem=f"not valid JSON: {error}")
        if body.count("[") + body.count("{") > _DEPTH and _too_deep(value):
            return Verdict(problem=f"nested more than {_DEPTH} levels deep")
        problems = self._schema.errors(value)
        if problems:
            return Verdict(problem="; ".join(problems))
        return Verdict(value=value, extraction=Extraction(mode, method))


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEPTH):
        level = [
            child
            for one in level
            if isinstance(one, dict | list)
            for child in (one.values() if isinstance(one, dict) else one)
        ]
    return any(isinstance(one, dict | list) for one in level)
