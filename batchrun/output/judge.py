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


@dataclass(slots=True)
class Verdict:
    """Either a value and how it was found, or what is wrong with the text (for people and for the model)."""

    value: Any = None
    extraction: Extraction | None = None
    problem: str | None = None


class Judge:
    """Judges the texts of one job. Without a schema the text itself is the output."""

    def __init__(self, schema: Schema | None, mode: str) -> None:
        self._schema = schema
        self._mode = mode

    def judge(self, text: str | None) -> Verdict:
        """Give the output of a text: as it is, or out of the one code fence that is all of it; never guessed."""
        if self._schema is None or text is None:
            return Verdict(value=text)
        method, body = "as_is", text
        fence = _FENCE.match(text)
        if fence:
            method, body = "fence", fence.group(1)
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            return Verdict(problem=f"not valid JSON: {error}")
        problems = self._schema.errors(value)
        if problems:
            return Verdict(problem="; ".join(problems))
        return Verdict(value=value, extraction=Extraction(self._mode, method))
