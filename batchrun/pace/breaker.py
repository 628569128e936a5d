"""The circuit breaker: whether the endpoint is down, so that nobody is sent and no item is blamed."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

#: So many failures one after the other, with no answer between; more where failures are the rule.
_STREAK = 5
_CHANCE = 1e-3
_MOST = 0.7
#: Where no connection came about at all, it is nobody's own fault, and fewer are enough.
_UNREACHABLE = 3
#: So many items that fail though a trial was answered just before are to blame themselves. Then a streak has to be
#: this long, and twice as long each time, until an item is answered.
_TO_BLAME = 3
_BLAMED_STREAK = 20
#: What an item fails with right after a trial was answered may be an outage's so often; then it is what brings it on.
_MOST_CONTRARY = 3
#: Until the next trial: longer the longer it lasts, first up to 5 s, in the long run up to 30 s.
_FIRST_TRIAL_S = 1.0
_TRIAL_S, _LONG_TRIAL_S = 5.0, 30.0
#: How fast the usual share of failures follows.
_FOLLOWS = 0.02


@dataclass(slots=True)
class Record:
    """What an item's failed attempts say: how many there were, and how many of them were not its own fault.

    Of those in doubt nobody knows yet: nothing that was sent later was answered.
    """

    failed: int = 0
    spared: int = 0
    in_doubt: int = 0
    contrary: int = 0


class Breaker:
    """Opens when everything fails. A trial that is answered lets single items go; one that is answered closes it.

    Times are in seconds of one clock.
    """

    def __init__(self) -> None:
        #: Since when the endpoint is down; None if it is not.
        self.down_since: float | None = None
        self.why = ""
        #: A trial was answered: one item at a time may go.
        self.is_half_open = False
        self._opened_at = 0.0
        #: Failures one after the other.
        self.streak = 0
        #: When the attempts in doubt failed, and whose they are.
        self._in_doubt: deque[tuple[float, Record]] = deque()
        #: When the last of what was answered was sent.
        self.vouched_at = -math.inf
        self._first_at, self._first_number = 0.0, 0
        self._unreachable = 0
        self._share = 0.0
        self._next_trial_at = 0.0
        self._shortest = _STREAK
        #: Items that failed after a trial that was answered, and what was spared them meanwhile.
        self._contrary: list[Record] = []

    def failed(
        self, now: float, record: Record, number: int, why: str, *, unreachable: bool, spares: bool = False
    ) -> bool:
        """Take note of a failed attempt; True if that opens the breaker. Attempts of a time of failure are spared.

        With `spares` it is nobody's own, whatever else comes of it.

        `number` counts all that were sent: failures come sooner than answers, so what counts is that most of what was
        sent from the first of them on failed.
        """
        record.failed += 1
        if self.down_since is not None:
            self.why = why
            if self.is_half_open and not unreachable:
                return self._contradict(now, record)
            record.spared += 1
            return False
        if spares:
            record.spared += 1
        else:
            self.doubt(now, record)
        if self.streak and 2 * self.streak < number - self._first_number:
            self._forget()
        if not self.streak:
            self._first_at, self._first_number = now, number
        self.streak += 1
        self._unreachable += unreachable
        span = number - self._first_number + 1
        is_most = self.streak >= max(self._enough(), _MOST * span)
        if self._unreachable >= _UNREACHABLE or is_most:
            self.open(now, why, since=self._first_at)
            return True
        return False

    def open(self, now: float, why: str, since: float | None = None, *, spares: bool = True) -> None:
        """Hold everybody: the endpoint is down, perhaps since an earlier time. Without `spares` a trial is to tell."""
        self.down_since = now if since is None else since
        self._opened_at = now
        self.why = why
        if spares:
            self._spare()
        self._contrary = []
        self.is_half_open = False
        self._next_trial_at = now + _FIRST_TRIAL_S
        self._forget()

    def doubt(self, now: float, record: Record) -> None:
        """Take note of a failed attempt that may be an outage's."""
        record.in_doubt += 1
        self._in_doubt.append((now, record))

    @property
    def in_doubt_since(self) -> float | None:
        """Since when it is not known whose fault a failed attempt was; None if there is none."""
        return self._in_doubt[0][0] if self._in_doubt else None

    def _spare(self) -> None:
        for _, one in self._in_doubt:
            one.in_doubt -= 1
            one.spared += 1
        self._in_doubt.clear()

    def vouched(self, sent_at: float) -> None:
        """Take note that what was sent then was answered: what failed before that was no outage's fault."""
        self.vouched_at = max(sent_at, self.vouched_at)
        doubts = self._in_doubt
        while doubts and doubts[0][0] < sent_at:  # the loop's clock may be as coarse as a millisecond
            doubts.popleft()[1].in_doubt -= 1

    def answered(self, sent_at: float) -> bool:
        """Take note that an item which was sent then was answered; True if that closes the breaker."""
        self.vouched(sent_at)
        for _ in range(self.streak):
            self._share += (1.0 - self._share) * _FOLLOWS
        self._share -= self._share * _FOLLOWS
        self._shortest = _STREAK
        if self.streak:
            self._forget()
        if self.is_half_open:
            self.close()
            return True
        return False

    def lasts(self, now: float) -> float:
        """Give how long everybody has been held, in seconds."""
        return 0.0 if self.down_since is None else now - self._opened_at

    def trial_due(self, now: float, *, asked: bool) -> bool:
        """Tell whether it is time for a trial request; where the endpoint is not down only if somebody asks."""
        wanted = asked if self.down_since is None else not self.is_half_open
        return wanted and now >= self._next_trial_at

    def trial_sent(self, now: float) -> None:
        """Take note that one goes now."""
        lasts = self.lasts(now)
        self._next_trial_at = now + max(_FIRST_TRIAL_S, min(_TRIAL_S, lasts / 4), min(_LONG_TRIAL_S, lasts / 24))

    def not_before(self, at: float) -> None:
        """Put the next trial off: the endpoint asked for it."""
        self._next_trial_at = max(self._next_trial_at, at)

    def trial_answered(self) -> None:
        """Let one item go: a trial was answered."""
        self.is_half_open = True

    def trial_failed(self, now: float, why: str) -> bool:
        """Take note that a trial was not answered; True if that opens the breaker."""
        if self.down_since is None:
            self.open(now, why, since=self.in_doubt_since)
            return True
        self.why = why
        self._spare()
        return False

    def _contradict(self, now: float, record: Record) -> bool:
        """An item failed though the trial before it was answered. If that goes on, the items are what is wrong."""
        self.is_half_open = False
        self._next_trial_at = now + _FIRST_TRIAL_S
        if record.contrary < _MOST_CONTRARY:
            record.contrary += 1
            self.doubt(now, record)
        if all(one is not record for one in self._contrary):
            self._contrary.append(record)
        if len(self._contrary) >= _TO_BLAME or record.failed - record.spared > _STREAK:
            self._shortest = max(_BLAMED_STREAK, 2 * self._shortest)
            self.close()
        return False

    def _enough(self) -> float:
        """Give how many failures in a row are no chance, where so many are usual."""
        if self._share <= 0.0:
            return self._shortest
        return max(float(self._shortest), math.log(_CHANCE) / math.log(min(self._share, 0.97)))

    def close(self) -> None:
        """Let everybody go again."""
        self.down_since = None
        self.is_half_open = False
        self._forget()

    def _forget(self) -> None:
        self.streak = 0
        self._unreachable = 0
