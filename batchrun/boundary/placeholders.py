"""Placeholders for what must not leave, and the way back."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from hashlib import blake2b
from typing import Any

from batchrun.boundary.detector import Span
from batchrun.boundary.fields import rebuilt

#: The name for text of the input that looks like a placeholder.
LITERAL = "literal"
#: A placeholder, and what a model may make of one: other brackets, one pair of them, another case, escapes of Markdown.
# A backslash stands before each bracket or before none, so that one before an exact placeholder is no part of it.
_LOOSE = re.compile(
    r"(?:[\[［【]{1,2}|(?:\\[\[［【]){1,2}) ?(?P<token>[^\W_][\w\\]{2,100}?) ?(?:[\]］】]{1,2}|(?:\\[\]］】]){1,2})"
)
_TOKEN = re.compile(r"(?P<label>\w+)_[0-9]+(?:V[0-9]+)?")


class Placeholders:
    """The placeholders of one item: `[[MOBILE_1]]` for a value, `[[MOBILE_1V2]]` for its second spelling.

    Keep one for all texts of an item, so that the same value has the same number throughout. Never shows its values.
    """

    def __init__(self) -> None:
        self._tokens: dict[tuple[str, str], str] = {}
        self._values: dict[str, str] = {}
        self._numbers: dict[tuple[str, str], int] = {}
        self._counts: dict[str, int] = {}
        self._spellings: dict[tuple[str, int], int] = {}

    def __len__(self) -> int:
        return len(self._values)

    @property
    def digest(self) -> bytes:
        """Give a hash of the values, each with its placeholder."""
        pairs = "\0".join(f"{token}\0{value}" for token, value in self._values.items())
        return blake2b(pairs.encode("utf-8", "surrogatepass"), digest_size=16).digest()

    def holds(self, text: str) -> bool:
        """Tell whether a text is a placeholder that was given out, or stands in one."""
        return any(text in f"[[{token}]]" for token in self._values)

    def put(self, detector: str, canonical: str, value: str) -> str:
        """Give the placeholder for a value as it is written; `canonical` is the same for all its spellings."""
        label = detector.upper()
        token = self._tokens.get((label, value))
        if token is None:
            token = self._tokens[label, value] = self._new(label, canonical)
            self._values[token] = value
        return f"[[{token}]]"

    def restore(self, value: Any) -> Any:
        """Give a copy of a text or JSON value with the original values for the placeholders that were given out.

        Other brackets of the square kind, a single pair of them and another case are taken for the same placeholder.
        One that was never given out stays as it is, and so does one without brackets.
        """
        return rebuilt(value, self._restored) if self._values else value

    def _restored(self, text: str) -> str:
        return _LOOSE.sub(self._value, text) if "_" in text else text

    def _value(self, found: re.Match[str]) -> str:
        return self._values.get(_token(found), found[0])

    def _new(self, label: str, canonical: str) -> str:
        number = self._numbers.get((label, canonical))
        if number is None:
            number = self._numbers[label, canonical] = self._counts[label] = self._counts.get(label, 0) + 1
        spelling = self._spellings[label, number] = self._spellings.get((label, number), 0) + 1
        return f"{label}_{number}V{spelling}" if spelling > 1 else f"{label}_{number}"


def lookalikes(text: str, labels: Container[str]) -> Iterator[Span]:
    """Yield what `Placeholders.restore` could take for a placeholder of a detector with one of these labels."""
    if "_" not in text:
        return
    for found in _LOOSE.finditer(text):
        token = _TOKEN.fullmatch(_token(found))
        if token is not None and token["label"] in labels:
            yield found.span()


def _token(found: re.Match[str]) -> str:
    return found["token"].replace("\\", "").upper()
