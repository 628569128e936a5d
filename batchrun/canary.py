"""The canary: the first items of a run go alone, and tell whether the others may follow, how long and for how much."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from batchrun.records import ErrorKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchrun.job import Canary as Settings

#: When all but a tenth are in, the others are waited for this long, in seconds.
_ENOUGH = 0.9
_PATIENCE_S = 60.0
#: Standard errors either side: 19 of 20 intervals hold what they are for.
_WIDE = 1.96


@dataclass(frozen=True, slots=True)
class Range:
    """A forecast: most likely between `low` and `high`."""

    low: float
    high: float

    def as_list(self) -> list[float]:
        """Give it as JSON values."""
        return [round(self.low, 6), round(self.high, 6)]


class Canary:
    """Lets the first items of a run go and holds the others, until it is known how the first ones fared.

    Costs are in the currency of the job's prices, 0.0 where it has none. Only one that is `over` has an opinion.
    """

    def __init__(self, settings: Settings, concluded: Callable[[], None]) -> None:
        """`concluded` is called once, when it is known how the first items fared."""
        self._settings, self._concluded = settings, concluded
        self._let_go = 0
        self._failures: dict[str, int] = {}
        self._seconds: list[float] = []
        self._costs: list[float] = []
        self._over = asyncio.Event()
        self._patience: asyncio.TimerHandle | None = None
        self._is_judged = False
        self.problem: str | None = None

    def takes(self) -> bool:
        """Tell whether one more item may go."""
        if self._over.is_set() or self._let_go < self._settings.items:
            self._let_go += 1
            return True
        return False

    async def wait(self) -> None:
        """Wait until it is known how the first items fared."""
        await self._over.wait()

    @property
    def is_over(self) -> bool:
        """Tell whether the others may go."""
        return self._over.is_set()

    @property
    def done(self) -> int:
        """How many of the first items have ended."""
        return len(self._seconds) + sum(self._failures.values())

    def succeeded(self, seconds: float, cost: float) -> None:
        """Take note of a result of the first items: how long its attempts took in all, and what they cost."""
        self._seconds.append(seconds)
        self._costs.append(cost)
        self._look()

    def failed(self, kind: ErrorKind, cost: float) -> None:
        """Take note of a failure of the first items."""
        self._failures[kind.value] = self._failures.get(kind.value, 0) + 1
        self._costs.append(cost)
        self._look()

    def close(self) -> None:
        """Hold nobody any more."""
        if self._patience is not None:
            self._patience.cancel()
        self._over.set()

    def _look(self) -> None:
        wanted = self._settings.items
        if self.done >= wanted:
            self._conclude()
        elif self._patience is None and self.done >= math.ceil(_ENOUGH * wanted):
            self._patience = asyncio.get_running_loop().call_later(_PATIENCE_S, self._conclude)

    def _conclude(self) -> None:
        if self._over.is_set():
            return
        self._is_judged = True
        settings, failures = self._settings, sum(self._failures.values())
        truncated = self._failures.get(ErrorKind.TRUNCATED.value, 0)
        for name, count, most in (
            ("max_truncated", truncated, settings.max_truncated),
            ("max_failure_rate", failures, settings.max_failure_rate),
        ):
            if most is not None and count > most * self.done:
                self.problem = self.problem or f"canary: {self.in_words()}; more than canary.{name} = {most * 100:g}%"
        self._concluded()
        self.close()

    def in_words(self) -> str:
        """Say how the first items fared."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self._failures.items()))
        return f"{len(self._seconds)} of the first {self.done} items are results{f', {kinds}' if kinds else ''}"

    def cost_of(self, items: int) -> Range:
        """Forecast what so many further items cost."""
        return _of_all(self._costs, items)

    def seconds_of(self, items: int, at_once: tuple[int, int], per_minute: float | None) -> Range:
        """Forecast how long so many further items take, if so few or so many are in flight, and no more than
        `per_minute` leave."""
        work = _of_all(self._seconds, items)
        least = 0.0 if per_minute is None else items / per_minute * 60
        few, many = at_once
        return Range(max(least, work.low / max(1, min(many, items))), max(least, work.high / max(1, min(few, items))))

    def as_dict(self) -> dict[str, Any]:
        """Give how the first items fared as JSON values."""
        return {
            "items": self.done,
            "results": len(self._seconds),
            "failures_by_kind": dict(sorted(self._failures.items())),
            "passed": self.problem is None if self._is_judged else None,
        }


def _of_all(seen: list[float], items: int) -> Range:
    """Give the sum of so many further values, each like those that were seen."""
    if not seen:
        return Range(0.0, 0.0)
    mean = fmean(seen)
    error = stdev(seen) * math.sqrt(1 / len(seen) + 1 / max(1, items)) if len(seen) > 1 else mean
    return Range(max(0.0, mean - _WIDE * error) * items, (mean + _WIDE * error) * items)
