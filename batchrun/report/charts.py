"""Charts as numbers for inline SVG: places in percent, so that they fit any width while their texts keep their size.

No chart library fits a page without scripts, style attributes and outside resources that is read on a phone as well
as on paper: they draw for one width and shrink the texts with it, or bring megabytes of script.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batchrun.report.counting import Bar, Course, Slot

#: How much of the width, in percent, a character of a label takes on a wide screen and on a narrow one.
_WIDE, _NARROW = 1.1, 2.6
_LEAST_BARS = 12


@dataclass(frozen=True, slots=True)
class Column:
    """One bar: its parts from the bottom (class, value), how wide it is, and what it says when pointed at."""

    parts: tuple[tuple[str, float], ...]
    title: str
    width: float = 1.0


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle; all numbers in percent of the plot."""

    kind: str
    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A label at so many percent from the left or the top; `minor` ones are for wide screens alone.

    `row` is how many lines lower a label stands that would run into the one before it.
    """

    at: float
    text: str
    anchor: str = "middle"
    minor: bool = False
    row: int = 0


@dataclass(slots=True)
class Chart:
    """A chart of upright bars; `label` says in words what it shows, `rules` are upright lines across it."""

    label: str
    rects: list[Rect] = field(default_factory=list)
    y_ticks: list[Tick] = field(default_factory=list)
    x_ticks: list[Tick] = field(default_factory=list)
    rules: list[Tick] = field(default_factory=list)


def chart(label: str, columns: Sequence[Column | None], written: Callable[[float], str]) -> Chart:
    """Draw bars side by side; None is a gap, two bars wide at least."""
    top = nice_above(max((sum(value for _, value in one.parts) for one in columns if one), default=0.0))
    made = Chart(label)
    gap = gap_width(len(columns))
    whole = sum(gap if one is None else one.width for one in columns)
    at = 0.0
    for column in columns:
        width = gap if column is None else column.width
        if column is not None:
            made.rects += _rects(column, 100 * at / whole, 100 * width / whole, top)
        at += width
    made.y_ticks = [Tick(100 - 100 * share, written(top * share)) for share in (0.0, 0.5, 1.0)]
    return made


def gap_width(columns: int) -> float:
    """Give how wide a gap among so many columns is, in columns."""
    return max(2.0, 0.05 * columns)


def _rects(column: Column, x: float, width: float, top: float) -> list[Rect]:
    rects = []
    below = 0.0
    for kind, value in column.parts:
        height = 100 * value / top
        if value > 0:
            shown = max(height, 0.7)  # one among thousands is still there
            rects.append(Rect(kind, x + 0.06 * width, 100 - below - shown, 0.88 * width, shown, column.title))
            below += height
    return rects


def nice_above(value: float) -> float:
    """Give the end of an axis for values up to this one: a round number, half of which is round too."""
    if value <= 0:
        return 1.0
    power = 10 ** math.floor(math.log10(value))
    return next(float(step * power) for step in (1, 1.2, 1.6, 2, 3, 4, 5, 6, 8, 10) if step * power >= value * 0.999)


# --- over time ----------------------------------------------------------------------------------------------------


def course_chart(
    label: str, course: Course, column: Callable[[int, Slot], Column], time: Callable[[int], str],
    gap: Callable[[int], str], written: Callable[[float], str],
) -> Chart:  # fmt: skip
    """Draw what ended when. `column` makes the bar of a slot, `gap` says how long a silence (in ms) was."""
    columns: list[Column | None] = []
    for stretch in course.stretches:
        if columns:
            columns.append(None)
        columns += [column(stretch.start_ms + i * course.width_ms, slot) for i, slot in enumerate(stretch.slots)]
    made = chart(label, columns, written)
    whole = sum(gap_width(len(columns)) if one is None else one.width for one in columns)
    at, end_ms = 0.0, 0
    ticks: list[Tick] = []
    for stretch in course.stretches:
        if end_ms:
            middle = 100 * (at + gap_width(len(columns)) / 2) / whole
            made.rules.append(Tick(middle, gap(stretch.start_ms - end_ms), minor=True))
            at += gap_width(len(columns))
        end_ms = stretch.start_ms + len(stretch.slots) * course.width_ms
        ticks.append(Tick(100 * at / whole, time(stretch.start_ms), "start"))
        if len(course.stretches) == 1:
            ticks += [
                Tick(100 * share, time(round(stretch.start_ms + share * (end_ms - stretch.start_ms))), minor=minor)
                for share, minor in ((0.25, True), (0.5, False), (0.75, True))
            ]
        at += len(stretch.slots)
    ticks.append(Tick(100.0, time(end_ms), "end"))
    made.x_ticks = _apart(ticks)
    return made


def _apart(ticks: list[Tick]) -> list[Tick]:
    """Leave out labels that would run into each other; the last one counts most."""
    kept: list[Tick] = []
    *others, last = ticks
    major = -100.0
    for tick in others:
        after = last.at - tick.at
        before = tick.at - (kept[-1].at if kept else -100.0)
        if not kept or min(before, after / 1.5) >= _room(tick, _WIDE):
            is_minor = bool(kept) and (tick.minor or min(tick.at - major, after / 1.5) < _room(tick, _NARROW))
            major = major if is_minor else tick.at
            kept.append(replace(tick, minor=is_minor))
    return [*kept, last]


def _room(tick: Tick, share: float) -> float:
    """Give how much of the width a label needs with the space beside it; Chinese characters are twice as wide."""
    return share * (2 + sum(1 if ord(char) < 0x2E80 else 2 for char in tick.text))


# --- by size ------------------------------------------------------------------------------------------------------


def size_chart(
    label: str, bars: list[Bar], rules: Sequence[tuple[float, str]], written: Callable[[float], str],
    heights: Callable[[float], str], title: Callable[[Bar], str],
) -> Chart:  # fmt: skip
    """Draw how many there are of each size on a logarithmic scale. `rules` are sizes to be marked, with their names."""
    if not bars:
        return Chart(label)
    step = math.log2(bars[0].high / bars[0].low)
    missing = max(0, _LEAST_BARS - len(bars))
    before, after = (missing + 1) // 2, missing // 2
    empty = Column((), "")
    columns = [Column((("results", bar.count),), title(bar) if bar.count else "") for bar in bars]
    made = chart(label, [*[empty] * before, *columns, *[empty] * after], heights)
    low = math.log2(bars[0].low) - step * before
    high = math.log2(bars[-1].high) + step * after

    def place(value: float) -> float:
        return 100 * (math.log2(value) - low) / (high - low)

    made.x_ticks = _size_ticks(2**low, 2**high, place, written)
    for value, name in rules:
        at = place(value)
        anchor = "end" if at > 85 or (not made.rules and at > 15) else "start"
        row = 1 if made.rules and made.rules[-1].anchor == anchor and at - made.rules[-1].at < 15 else 0
        made.rules.append(Tick(at, name, anchor, row=row))
    return made


def _size_ticks(
    low: float, high: float, place: Callable[[float], float], written: Callable[[float], str]
) -> list[Tick]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8), tuple(one / 10 for one in range(10, 100))):
        values = [step * 10.0**power for power in decades for step in steps]
        values = [value for value in values if low * 1.01 <= value <= high * 0.99]
        if len(values) >= 3:
            break
    else:
        values = [low, high]
    kept: list[Tick] = []
    major = -100.0
    for value in values:
        at = place(value)
        anchor = "start" if at < 4 else "end" if at > 96 else "middle"
        tick = Tick(at, written(value), anchor)
        if not kept or at - kept[-1].at >= _room(tick, _WIDE):
            is_minor = at - major < _room(tick, _NARROW)
            major = major if is_minor else at
            kept.append(replace(tick, minor=is_minor))
    return kept
