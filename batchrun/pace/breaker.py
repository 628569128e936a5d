"""The circuit breaker: whether the endpoint is down, so that nobody is sent and no item is blamed."""

from __future__ import annotations

from dataclasses import dataclass

#: So many failures one after the other, with no answer between, of so many items that had not failed before.
_STREAK = 5
_FRESH = 3
#: Where no connection came about at all, it is nobody's own fault, and fewer are enough.
_UNREACHABLE = 3
#: Until the next trial: longer the longer it lasts, first up to 5 s, in the long run up to 30 s.
_FIRST_TRIAL_S = 1.0
_TRIAL_S, _LONG_TRIAL_S = 5.0, 30.0


@dataclass(slots=True)
class Record:
    """What an item's failed attempts say: how many there were, and how many of them were not its own fault."""

    failed: int = 0
    spared: int = 0


class Breaker:
    """Opens when everything fails, and closes when a trial is answered. Times are in seconds of one clock."""

    def __init__(self) -> None:
        #: Since when the endpoint is down; None if it is not.
        self.down_since: float | None = None
        self.why = ""
        self._streak: list[Record] = []
        self._unreachable = 0
        self._fresh = 0
        self._first_at = 0.0
        self._next_trial_at = 0.0
        #: A trial was answered after which items failed as before: they are what is wrong.
        self._is_the_items = False

    def failed(self, now: float, record: Record, why: str, *, unreachable: bool) -> bool:
        """Take note of a failed attempt; True if that opens the breaker. Attempts of a time of failure are spared."""
        record.failed += 1
        if self.down_since is not None:
            record.spared += 1
            self.why = why
            return False
        if not self._streak:
            self._first_at = now
        self._streak.append(record)
        self._unreachable += unreachable
        self._fresh += record.failed == 1 and not unreachable
        is_down = self._unreachable >= _UNREACHABLE or (
            len(self._streak) >= _STREAK and self._fresh + self._unreachable >= _FRESH and not self._is_the_items
        )
        if is_down:
            self.open(now, why, since=self._first_at)
        return is_down

    def open(self, now: float, why: str, since: float | None = None) -> None:
        """Hold everybody: the endpoint is down, perhaps since an earlier time."""
        self.down_since = now if since is None else since
        self.why = why
        for one in self._streak:
            one.spared += 1
        self._next_trial_at = now + _FIRST_TRIAL_S
        self._forget()

    def answered(self) -> None:
        """Take note that an item was answered."""
        self._is_the_items = False
        if self._streak:
            self._forget()

    def trial_due(self, now: float) -> bool:
        """Tell whether it is time for a trial request."""
        return self.down_since is not None and now >= self._next_trial_at

    def trial_sent(self, now: float) -> None:
        """Take note that one goes now."""
        lasts = now - (self.down_since or now)
        self._next_trial_at = now + max(_FIRST_TRIAL_S, min(_TRIAL_S, lasts / 4), min(_LONG_TRIAL_S, lasts / 24))

    def not_before(self, at: float) -> None:
        """Put the next trial off: the endpoint asked for it."""
        self._next_trial_at = max(self._next_trial_at, at)

    def close(self) -> None:
        """Let everybody go again: a trial was answered. If they fail again without an answer, it is their own fault."""
        self.down_since = None
        self._is_the_items = True
        self._forget()

    def _forget(self) -> None:
        self._streak.clear()
        self._unreachable = self._fresh = 0
