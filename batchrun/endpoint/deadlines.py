"""One clock for the deadlines of all attempts: a timer for each would cost more than the rest of the client."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Any

#: A deadline is noticed at most this late, or a twentieth of itself if that is sooner.
_LATENESS_S = 1.0


class IdleTimeoutError(TimeoutError):
    """An answer had begun, and then nothing of it came for too long."""


class AbandonedError(TimeoutError):
    """Nothing of an answer came, though the endpoint answers again."""


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt, made by a task; times are of the event loop's clock, in seconds."""

    task: asyncio.Task[Any]
    until: float
    #: Until when the next piece of content must have come; before the first one there is no such time.
    idle_until: float = math.inf
    is_heard: bool = False
    expired: type[TimeoutError] | None = None

    def expire(self, kind: type[TimeoutError]) -> None:
        """Cancel the attempt, unless it was cancelled from here already."""
        if self.expired is None:
            self.expired = kind
            self.task.cancel()

    def check(self) -> None:
        """Turn a cancellation into `TimeoutError` if it came from here, and from nobody else as well."""
        if self.expired is not None and self.task.uncancel() == 0:
            raise self.expired


class Deadlines:
    """Gives every attempt the same time, in seconds of the event loop's clock. `close` it when no attempt is left.

    `timeout_s` is for a whole attempt; `idle_s` is the longest time between two pieces of an answer's content.
    """

    def __init__(self, timeout_s: float, idle_s: float) -> None:
        self._timeout_s = timeout_s
        self._idle_s = idle_s
        self._interval_s = min(_LATENESS_S, timeout_s / 20, idle_s / 20)
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time
        self._running: set[Attempt] = set()
        #: When something was heard of any attempt.
        self.heard_at = self._now()
        self._timer = self._loop.call_later(self._interval_s, self._sweep)

    def start(self) -> Attempt:
        """Start the time of an attempt that the current task makes; when it is over, the task is cancelled."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("an attempt is made by a task")
        attempt = Attempt(task, self._now() + self._timeout_s)
        self._running.add(attempt)
        return attempt

    def hear(self, attempt: Attempt) -> None:
        """Take note that something of an attempt's answer came, be it a sign of life alone."""
        attempt.is_heard = True
        self.heard_at = self._now()

    def progress(self, attempt: Attempt) -> None:
        """Take note that an attempt's answer came on; keep-alives are no progress."""
        attempt.idle_until = self._now() + self._idle_s

    def wait(self, attempt: Attempt) -> None:
        """Take note that an answer is not read on for now, which is not its fault."""
        attempt.idle_until = math.inf

    def abandon(self, started_before: float) -> int:
        """Cancel the attempts that were started before a time and of which nothing was heard; tell how many."""
        until = started_before + self._timeout_s
        found = [attempt for attempt in self._running if not attempt.is_heard and attempt.until < until]
        for attempt in found:
            attempt.expire(AbandonedError)
        return len(found)

    def end(self, attempt: Attempt) -> None:
        """End the time of an attempt."""
        self._running.discard(attempt)

    def close(self) -> None:
        """Stop the clock."""
        self._timer.cancel()

    def _sweep(self) -> None:
        now = self._now()
        for attempt in self._running:
            if attempt.until <= now:
                attempt.expire(TimeoutError)
            elif attempt.idle_until <= now:
                attempt.expire(IdleTimeoutError)
        self._timer = self._loop.call_later(self._interval_s, self._sweep)
