"""Counts of what the simulator did."""

from __future__ import annotations

from collections import Counter
from typing import Any


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
