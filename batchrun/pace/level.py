"""How many requests may be in flight: found by raising it while that helps, and lowering it where it is refused."""

from __future__ import annotations

#: Below this the level is raised without looking whether that helps: a few more in a server's queue harm nobody.
_CAREFUL_ABOVE = 64
#: Twice as many in flight have to bring at least this much more, or the level was high enough before.
_WORTHWHILE = 1.15
_SHORTEST_ROUND_S = 1.0
_SMALLEST_ROUND = 8
#: A level that was refused is tried again after so long, and then after twice as long.
_RETRY_S = 30.0
_LONGEST_RETRY_S = 300.0
_OVERLOADED = 0.7
#: The level is lowered for overload once in so long at most.
_CUT_S = 2.0


class Level:
    """The number of requests in flight that is allowed, from 1 to `most`. Times are in seconds of one clock.

    It doubles round by round while the slots are all in use and more of them bring more answers; where they do not, it
    goes back, and tries a little more now and then. A refusal for concurrency shows the level that was taken; one for
    overload lowers it. With `start` at `most` it only gives way.
    """

    def __init__(self, start: int, most: int) -> None:
        self.most = most
        self._value = float(min(start, most))
        self._doubles = True
        #: No higher than this until the time comes: it was refused, or brought nothing.
        self._ceiling = float(most)
        self._higher_at = 0.0
        self._higher_after_s = _RETRY_S
        self.cut_at = float("-inf")
        #: The most requests in flight of which one was answered.
        self.proven = 0
        self._before: tuple[float, float] | None = None
        self._poor = 0
        self._is_full = False
        self._begin(0.0)

    @property
    def allowed(self) -> int:
        """How many may be in flight now."""
        return int(self._value)

    @property
    def found(self) -> int:
        """The level that it is at, or on its way back to."""
        return int(max(self._value, min(self._aim, self._ceiling)))

    def succeeded(self, now: float, ordinal: int, latency_s: float) -> None:
        """Take note of an answer. `ordinal` is how many were in flight when its request left, itself included."""
        if ordinal > self.proven:
            self.proven = ordinal
        value = self._value
        if value >= self.most and not self._answers:
            return  # nothing to find out
        if self._answers == 0 and self._began_at <= 0.0:
            self._begin(now - latency_s)
        self._answers += 1
        self._latency_s += latency_s
        self._is_full = self._is_full or ordinal >= value - 1
        aim = min(self._aim, self._ceiling)
        if value < aim:
            if ordinal * 2 > value:
                self._value = min(value + 1.0, aim)
                if self._value >= aim:
                    self._begin(now)  # what it brings is seen once it is reached
        elif self._answers >= max(_SMALLEST_ROUND, value) and now - self._began_at >= self._shortest_s():
            self._end_round(now)

    def refused(self, now: float, sent_at: float, most: int) -> None:
        """Let no more than `most` be in flight, as a refusal showed; a higher level is tried again later."""
        most = max(1, most)
        if sent_at < self.cut_at and most >= self._value:
            return
        if sent_at >= self.cut_at:
            again = self._ceiling <= most * 1.06 + 1 and self.cut_at > float("-inf")
            self._higher_after_s = min(2 * self._higher_after_s, _LONGEST_RETRY_S) if again else _RETRY_S
        self._ceiling = float(min(most, self.most))
        self._higher_at = now + self._higher_after_s
        self._cut(now, self._ceiling)

    def overloaded(self, now: float, sent_at: float) -> None:
        """Lower the level: the endpoint has too much to do."""
        if sent_at >= self.cut_at and now - self.cut_at >= _CUT_S:
            self._cut(now, max(1.0, self._value * _OVERLOADED))

    def restart(self, now: float) -> None:
        """Begin again from a quarter, after a time in which nothing was answered; soon it is what it was."""
        aim = max(self._aim, self._value)
        self._value = max(1.0, self._value / 4)
        self._doubles = True
        self._before = None
        self._begin(now, aim)

    def _cut(self, now: float, value: float) -> None:
        self._value = min(self._value, value)
        self.cut_at = now
        self._doubles = False
        self._before = None
        self._begin(now)

    def _begin(self, now: float, aim: float | None = None) -> None:
        self._began_at = now
        self._answers = 0
        self._latency_s = 0.0
        self._is_full = False
        self._aim = aim or self._value

    def _shortest_s(self) -> float:
        return max(_SHORTEST_ROUND_S, self._latency_s / self._answers)

    def _end_round(self, now: float) -> None:
        """Look at what the level of this round brought, and choose the next one."""
        value, is_full = self._value, self._is_full
        speed = self._answers / max(now - self._began_at, 1e-3)
        before, self._before = self._before, (value, speed)
        if not is_full:
            self._before = None  # the endpoint was not asked for all that it can give
        elif now >= self._higher_at and self._ceiling < self.most:
            self._ceiling = min(float(self.most), self._ceiling + max(1.0, self._ceiling * 0.05))
            self._higher_at = now + self._higher_after_s
        aim = value
        if is_full and self._doubles:
            if before is None or before[0] >= value or value < _CAREFUL_ABOVE:
                aim = 2 * value
            elif speed >= before[1] * _WORTHWHILE:
                self._poor = 0
                aim = 2 * value
            elif self._poor == 0:
                self._poor = 1
                self._before = before  # one round may be bad luck
            else:
                self._poor = 0
                self._value = aim = before[0]
                self._ceiling, self._doubles = before[0], False
                self._higher_at = now + self._higher_after_s
        elif is_full:
            aim = min(self._ceiling, value + max(1.0, value * 0.05))
            self._value = max(value, aim)
        self._begin(now, min(aim, float(self.most)))
