"""How fast a run goes: items and tokens a second over the last minute."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

_WINDOW_S = 60.0
_STEP_S = 0.5


@dataclass(frozen=True, slots=True)
class Speed:
    """Items and tokens a second."""

    items_per_s: float
    tokens_per_s: float


class Rate:
    """Counts what is done and gives the speed over the last minute, or since the start if that is shorter."""

    def __init__(self, started_at: float) -> None:
        self._items = 0
        self._tokens = 0
        self._samples = deque([(started_at, 0, 0)])

    def add(self, items: int, tokens: int) -> None:
        """Count something done."""
        self._items += items
        self._tokens += tokens

    def at(self, now: float) -> Speed:
        """Give the speed at a time, in the clock's seconds; asked again and again, it forgets what is too old."""
        if now - self._samples[-1][0] >= _STEP_S:
            self._samples.append((now, self._items, self._tokens))
        while len(self._samples) > 1 and now - self._samples[1][0] >= _WINDOW_S:
            self._samples.popleft()
        then, items, tokens = self._samples[0]
        span = now - then
        if span <= 0:
            return Speed(0.0, 0.0)
        return Speed((self._items - items) / span, (self._tokens - tokens) / span)
