"""The user's own words: any number of them, found in one pass over a text."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Iterator

from batchrun.boundary.detector import Span
from batchrun.boundary.view import flatten


class Words:
    """Finds words whatever their width and case. A word of Latin letters or digits is not found inside a longer one.

    The first two characters of the words are looked up for every place of a text, so the time does not grow with the
    number of words but with the number of different lengths among those that begin alike.
    """

    def __init__(self, words: Iterable[str]) -> None:
        """Raise `ValueError` for a word without anything visible."""
        self._words: set[str] = set()
        lengths: dict[str, set[int]] = {}
        for word in words:
            plain = flatten(word.strip()).text.lower()
            if not plain:
                raise ValueError(f"words: {word!r} is empty")
            self._words.add(plain)
            if len(plain) > 1:
                lengths.setdefault(plain[:2], set()).add(len(plain))
        self._lengths = {pair: sorted(found, reverse=True) for pair, found in lengths.items()}
        singles = "".join(re.escape(word) for word in self._words if len(word) == 1)
        self._singles = re.compile(f"[{singles}]") if singles else None

    def find(self, view: str) -> Iterator[Span]:
        """Yield the longest word at each place of a view, in no order."""
        lowered = view.lower()
        if len(lowered) != len(view):  # İ becomes two characters
            lowered = "".join(one.lower() if len(one.lower()) == 1 else one for one in view)
        if self._singles is not None:
            yield from (
                found.span() for found in self._singles.finditer(lowered) if _stands_alone(lowered, *found.span())
            )
        if self._lengths and not self._lengths.keys().isdisjoint(map(operator.add, lowered, lowered[1:])):
            yield from self._longer(lowered)

    def _longer(self, text: str) -> Iterator[Span]:
        lengths = self._lengths
        for start, pair in enumerate(map(operator.add, text, text[1:])):
            for length in lengths.get(pair, ()):
                end = start + length
                if end <= len(text) and text[start:end] in self._words and _stands_alone(text, start, end):
                    yield start, end
                    break


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Tell whether neither end of a span is in the middle of a Latin word or a number."""
    return not (start and _joined(text[start - 1 : start + 1])) and not _joined(text[end - 1 : end + 1])


def _joined(pair: str) -> bool:
    return len(pair) == 2 and pair.isascii() and pair.isalnum()
