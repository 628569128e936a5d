"""The numbers that a JSON Schema allows, as multiples of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import Any

from batchrun.simulator.source import Source, Unsatisfiable

#: How far a range goes that is open at one end or both, in steps of at least 1.
_SPAN = 100
_CENT = Fraction(1, 100)
_NARROW = Fraction(1, 10)
_NARROW_STEPS = 16


@dataclass(frozen=True, slots=True)
class Grid:
    """The multiples of `step` from `low` to `high` times, both included."""

    step: Fraction
    low: int
    high: int

    def integer(self, source: Source) -> int:
        """Draw a whole number; the step must be one."""
        return (self.low + source.below(self.high - self.low + 1)) * self.step.numerator

    def number(self, source: Source) -> float:
        """Draw a number."""
        return (self.low + source.below(self.high - self.low + 1)) * self.step.numerator / self.step.denominator


def grid(flat: Mapping[str, Any], *, integer: bool) -> Grid:
    """Read the bounds and `multipleOf` of a flat schema. Raises `Unsatisfiable`."""
    low, low_open = _bound(flat, "minimum", "exclusiveMinimum", max)
    high, high_open = _bound(flat, "maximum", "exclusiveMaximum", min)
    step = _step(flat, low, high, integer=integer)
    span = _SPAN * max(step, Fraction(1))
    if low is None:
        low = Fraction(0) if high is None or high >= step else high - span
    if high is None:
        high = low + span
    first, last = ceil(low / step), floor(high / step)
    first += low_open and first * step == low
    last -= high_open and last * step == high
    if first > last:
        raise Unsatisfiable
    return Grid(step, first, last)


def _bound(flat: Mapping[str, Any], closed: str, exclusive: str, tighter: Any) -> tuple[Fraction | None, bool]:
    limit = _fraction(flat.get(closed))
    strict = flat.get(exclusive)
    if isinstance(strict, bool):  # draft 4: a flag beside the bound
        return limit, strict
    edge = _fraction(strict)
    if edge is None or (limit is not None and limit != edge and tighter(limit, edge) == limit):
        return limit, False
    return edge, True


def _fraction(value: Any) -> Fraction | None:
    return None if value is None else Fraction(str(value))


def _step(flat: Mapping[str, Any], low: Fraction | None, high: Fraction | None, *, integer: bool) -> Fraction:
    multiple = _fraction(flat.get("multipleOf"))
    if multiple is not None and multiple > 0:
        # A multiple of p/q is whole exactly when it is a multiple of p.
        return Fraction(multiple.numerator) if integer else multiple
    if integer:
        return Fraction(1)
    if low is None or high is None or high - low >= _NARROW:
        return _CENT
    if high > low:
        return (high - low) / _NARROW_STEPS
    return abs(low) or Fraction(1)
