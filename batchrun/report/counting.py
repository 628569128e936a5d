"""Distributions in bounded memory: of sizes in steps that grow, over time in steps that widen, of names up to a number.

However many records there are, each of these holds some thousands of numbers at most.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

T = TypeVar("T")

#: Steps a doubling: each is 4.4 % wide, so that a quantile is at most 2.2 % off.
_STEPS = 16
_MOST_SLOTS = 4096
_MOST_NAMES = 200
_LEAST, _MOST = 1e-6, 1e15
#: Widths of a slot of time in milliseconds: those in which is counted, each of which divides the next, and those that
#: can be shown, whatever they are multiples of.
_WIDTHS_MS = (
    100, 500, 1_000, 5_000, 10_000, 30_000, 60_000, 300_000, 900_000, 1_800_000, 3_600_000, 21_600_000, 86_400_000,
    604_800_000,
)  # fmt: skip
_SHOWN_MS = tuple(sorted({
    *_WIDTHS_MS, 200, 2_000, 15_000, 20_000, 120_000, 180_000, 600_000, 7_200_000, 10_800_000, 43_200_000, 172_800_000,
}))  # fmt: skip
#: A longer silence is no part of a run: one that gets no answer ends after `retry.max_outage`, 15 minutes by default.
_SILENCE_MS = 900_000


@dataclass(frozen=True, slots=True)
class Bar:
    """How many values lie from `low` to `high`."""

    low: float
    high: float
    count: int


class Sizes:
    """Counts numbers above zero by steps of 4.4 %; what is smaller than a millionth, as zero is, counts apart."""

    def __init__(self) -> None:
        self._steps: Counter[int] = Counter()
        self.zeros = 0
        self.total = 0.0
        self.least = math.inf
        self.most = 0.0

    def add(self, value: float) -> None:
        """Count a number; what is no size (negative, endless) is left out."""
        if not 0 <= value < _MOST:
            return
        self.total += value
        self.least = min(self.least, value)
        self.most = max(self.most, value)
        if value < _LEAST:
            self.zeros += 1
        else:
            self._steps[math.floor(math.log2(value) * _STEPS)] += 1

    @property
    def count(self) -> int:
        """How many numbers were counted."""
        return self._steps.total() + self.zeros

    def quantile(self, share: float) -> float:
        """Give the value below which this share (0 to 1) lies, 2.2 % off at most; 0 if there is none."""
        wanted = max(1, math.ceil(share * self.count)) - self.zeros
        if wanted <= 0:
            return 0.0
        for step in sorted(self._steps):
            wanted -= self._steps[step]
            if wanted <= 0:
                return min(max(2 ** ((step + 0.5) / _STEPS), self.least), self.most)
        return 0.0

    def bars(self, most: int, *, grain: float = 0.0) -> list[Bar]:
        """Give at most so many bars of equal width on a scale of doublings, empty ones between them included.

        None is narrower than `grain`, which is 1 for what comes in whole numbers.
        """
        if not self._steps:
            return []
        first, last = min(self._steps), max(self._steps)
        low = 2 ** (first / _STEPS)
        width = next(
            w
            for w in (1, 2, 4, 8, 16, 32, 64, 128)
            if last // w - first // w < most and (w >= _STEPS or low * (2 ** (w / _STEPS) - 1) >= grain)
        )
        counts: Counter[int] = Counter()
        for step, count in self._steps.items():
            counts[step // width] += count
        return [
            Bar(2 ** (one * width / _STEPS), 2 ** ((one + 1) * width / _STEPS), counts[one])
            for one in range(first // width, last // width + 1)
        ]


@dataclass(slots=True)
class Slot:
    """What ended in one slot of time."""

    results: int = 0
    failures: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Stretch:
    """Slots one after the other, the first of which begins at `start_ms` (Unix time)."""

    start_ms: int
    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class Course:
    """What ended when: stretches of work with long silences between them, in slots of `width_ms`.

    `left_out` counts stretches before the first one here.
    """

    width_ms: int
    stretches: tuple[Stretch, ...]
    left_out: int = 0


class Timeline:
    """Counts what ended when, in slots that widen when there are too many of them."""

    def __init__(self) -> None:
        self._slots: dict[int, Slot] = {}
        self._level = 0
        self.first_ms: int | None = None
        self.last_ms: int | None = None

    def add(self, at_ms: int, *, is_result: bool, tokens: int) -> None:
        """Count the end of an item."""
        self.first_ms = at_ms if self.first_ms is None else min(self.first_ms, at_ms)
        self.last_ms = at_ms if self.last_ms is None else max(self.last_ms, at_ms)
        slot = self._slots.get(at_ms // _WIDTHS_MS[self._level])
        if slot is None:
            slot = self._new(at_ms)
        if is_result:
            slot.results += 1
        else:
            slot.failures += 1
        slot.tokens += tokens

    def _new(self, at_ms: int) -> Slot:
        while len(self._slots) >= _MOST_SLOTS and self._level + 1 < len(_WIDTHS_MS):
            self._slots = _widened(self._slots, _WIDTHS_MS[self._level + 1] // _WIDTHS_MS[self._level])
            self._level += 1
        return self._slots.setdefault(at_ms // _WIDTHS_MS[self._level], Slot())

    def course(self, most: int, most_stretches: int = 6) -> Course:
        """Give what ended when in about so many slots."""
        counted = _WIDTHS_MS[self._level]
        slots, width, stretches = self._slots, counted, _stretches(self._slots, counted)
        for wider in _SHOWN_MS:
            if sum(last - first + 1 for first, last in stretches[-most_stretches:]) <= most:
                break
            if wider > counted and wider % counted == 0:
                slots, width = _widened(self._slots, wider // counted), wider
                stretches = _stretches(slots, width)
        left_out = max(0, len(stretches) - most_stretches)
        return Course(
            width,
            tuple(
                Stretch(first * width, tuple(slots.get(one, Slot()) for one in range(first, last + 1)))
                for first, last in stretches[left_out:]
            ),
            left_out,
        )


def _widened(slots: dict[int, Slot], times: int) -> dict[int, Slot]:
    wider: dict[int, Slot] = {}
    for number, slot in slots.items():
        into = wider.setdefault(number // times, Slot())
        into.results += slot.results
        into.failures += slot.failures
        into.tokens += slot.tokens
    return wider


def _stretches(slots: dict[int, Slot], width: int) -> list[tuple[int, int]]:
    """Give the first and last slot of each stretch, in order."""
    found: list[tuple[int, int]] = []
    for number in sorted(slots):
        if found and (number - found[-1][1] - 1) * width <= _SILENCE_MS:
            found[-1] = found[-1][0], number
        else:
            found.append((number, number))
    return found


class Names:
    """Counts names that others may have made up: so many at most, the rest together."""

    def __init__(self, most: int = _MOST_NAMES) -> None:
        self._counts: Counter[str] = Counter()
        self._most = most
        #: How often a name came for which there was no room.
        self.others = 0

    def add(self, name: object) -> None:
        """Count a name once more."""
        text = name if isinstance(name, str) else str(name)
        text = text[:300]
        if text in self._counts or len(self._counts) < self._most:
            self._counts[text] += 1
        else:
            self.others += 1

    def __bool__(self) -> bool:
        return bool(self._counts)

    def items(self) -> Iterator[tuple[str, int]]:
        """Give each name with its count, the most frequent first."""
        yield from sorted(self._counts.items(), key=lambda pair: (-pair[1], pair[0]))


@dataclass(slots=True)
class Reservoir(Generic[T]):
    """Keeps so many of what comes, each with the same chance, whatever the number (algorithm R, Vitter 1985)."""

    size: int
    random: random.Random
    kept: list[T] = field(default_factory=list)
    seen: int = 0

    def place(self) -> int | None:
        """Give the place for what comes next, None if it is not kept; only then is it worth making."""
        self.seen += 1
        if self.seen <= self.size:
            return self.seen - 1
        place = self.random.randrange(self.seen) if self.size else 0
        return place if place < self.size else None

    def put(self, place: int, one: T) -> None:
        """Keep something at its place."""
        if place < len(self.kept):
            self.kept[place] = one
        else:
            self.kept.append(one)
