"""What a detector is: a name, a cheap test that spares most texts the search, and the search."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from re import Match, Pattern
from typing import TypeAlias

#: Offsets of the first character and after the last one.
Span: TypeAlias = tuple[int, int]
Accept: TypeAlias = Callable[[str, Match[str]], Span | None]


def as_written(value: str) -> str:
    """Give a value as it stands, for values that are spelled in one way only."""
    return value


@dataclass(frozen=True, slots=True)
class Detector:
    """Finds one kind of data in the plain view of a text.

    `trigger` is false for a view that holds nothing of the kind; detectors that share one are searched together.
    `canonical` gives one spelling for all spellings of a value.
    """

    name: str
    trigger: Callable[[str], object]
    find: Callable[[str], Iterable[Span]]
    canonical: Callable[[str], str] = as_written


def accepted(pattern: Pattern[str], accept: Accept, view: str) -> Iterator[Span]:
    """Yield the spans that a pattern proposes and `accept` confirms; after a refusal the next character is tried.

    Work is linear in the view where the pattern's matches are bounded.
    """
    position = 0
    while found := pattern.search(view, position):
        span = accept(view, found)
        if span is None:
            position = found.start() + 1
        else:
            yield span
            position = max(span[1], found.start() + 1)


def matched(_view: str, found: Match[str]) -> Span:
    """Accept whatever a pattern matches."""
    return found.span()
