"""Counts of what the simulator did."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Any

_MAX_TURNS = 10_000


class Turns:
    """How often each prompt that leaves something to chance was answered; the oldest of too many are forgotten."""

    __slots__ = ("_turns",)

    def __init__(self) -> None:
        self._turns: OrderedDict[bytes, int] = OrderedDict()

    def of(self, key: bytes) -> int:
        """Give how often the prompt with this key was answered."""
        return self._turns.get(key, 0)

    def take(self, key: bytes) -> None:
        """Count an answer to the prompt with this key."""
        self._turns[key] = self._turns.get(key, 0) + 1
        self._turns.move_to_end(key)
        if len(self._turns) > _MAX_TURNS:
            self._turns.popitem(last=False)


class Counters:
    """Counts of chat calls: received, answered, by status, by fault, and how many were in flight at once."""

    __slots__ = ("answered", "by_fault", "by_status", "calls", "in_flight", "peak_in_flight")

    def __init__(self) -> None:
        self.calls = 0
        self.answered = 0
        self.in_flight = 0
        self.peak_in_flight = 0
        self.by_status: Counter[str] = Counter()
        self.by_fault: Counter[str] = Counter()

    def begin(self) -> None:
        """Count a call that came in."""
        self.calls += 1
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)

    def end(self) -> None:
        """Count a call that is over, answered or not."""
        self.in_flight -= 1

    def answer(self, status: int) -> None:
        """Count an answer."""
        self.answered += 1
        self.by_status[str(status)] += 1

    def as_dict(self) -> dict[str, Any]:
        """Give all counts as a value that JSON can hold; statuses are strings."""
        return {
            "calls": self.calls,
            "answered": self.answered,
            "by_status": dict(self.by_status),
            "by_fault": dict(self.by_fault),
            "in_flight": self.in_flight,
            "peak_in_flight": self.peak_in_flight,
        }
