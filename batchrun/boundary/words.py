"""The user's own words: any number of them, found in one pass over a text."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Iterator

from batchrun.boundary.detector import Span
from batchrun.boundary.view import flatten

#: Up to so many different first characters are searched for by a pattern.
_FEW = 300


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
        self._begins = _beginnings(self._lengths)
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
        lengths = self._lengths
        for start, pair in self._places(lowered):
            for length in lengths.get(pair, ()):
                end = start + length
                if end <= len(lowered) and lowered[start:end] in self._words and _stands_alone(lowered, start, end):
                    yield start, end
                    break

    def _places(self, text: str) -> Iterable[tuple[int, str]]:
        """Give the places at which a word may begin, with the two characters there; none where none can."""
        if self._begins is not None:
            return ((found.start(), text[found.start() : found.start() + 2]) for found in self._begins.finditer(text))
        if not self._lengths or self._lengths.keys().isdisjoint(map(operator.add, text, text[1:])):
            return ()
        return enumerate(map(operator.add, text, text[1:]))


def _beginnings(pairs: Iterable[str]) -> re.Pattern[str] | None:
    """Give a pattern for the first characters of words that are few; of many it would match nearly everywhere."""
    firsts = {pair[0] for pair in pairs}
    if not 0 < len(firsts) <= _FEW:
        return None
    seconds = {pair[1] for pair in pairs}
    return re.compile("[{}](?=[{}])".format(*("".join(map(re.escape, sorted(one))) for one in (firsts, seconds))))


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Tell whether neither end of a span is in the middle of a Latin word or a number."""
    return not (start and _joined(text[start - 1 : start + 1])) and not _joined(text[end - 1 : end + 1])


def _joined(pair: str) -> bool:
    return len(pair) == 2 and pair.isascii() and pair.isalnum()
