"""One clock for the deadlines of all attempts: a timer for each would cost more than the rest of the client."""

from __future__ import annotations

import asyncio
from typing import Any

#: A deadline is noticed at most this late, or a twentieth of itself if that is sooner.
_LATENESS_S = 1.0


class IdleTimeoutError(TimeoutError):
    """An answer had begun, and then nothing of it came for too long."""


class AbandonedError(TimeoutError):
    """Nothing of an answer came, though the endpoint answers again."""


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
        self._running: dict[asyncio.Task[Any] | None, float] = {}
        self._idle: dict[asyncio.Task[Any] | None, float] = {}
        #: The tasks of which no answer has begun, and when something was heard of any.
        self._unheard: set[asyncio.Task[Any] | None] = set()
        self.heard_at = self._now()
        self._expired: dict[asyncio.Task[Any] | None, type[TimeoutError]] = {}
        self._timer = self._loop.call_later(self._interval_s, self._sweep)

    def start(self) -> None:
        """Start the time of the attempt that the current task makes; when it is over, the task is cancelled."""
        task = asyncio.current_task()
        self._running[task] = self._now() + self._timeout_s
        self._unheard.add(task)

    def hear(self) -> None:
        """Take note that something of the current task's answer came, be it a sign of life alone."""
        self._unheard.discard(asyncio.current_task())
        self.heard_at = self._now()

    def abandon(self, started_before: float) -> int:
        """Cancel the attempts that were started before a time and of which nothing was heard; tell how many."""
        found = [task for task in self._unheard if self._running[task] - self._timeout_s < started_before]
        for task in found:
            if task is not None and task not in self._expired:
                self._expired[task] = AbandonedError
                task.cancel()
        return len(found)

    def progress(self) -> None:
        """Take note that the current task's answer came on; keep-alives are no progress."""
        self._idle[asyncio.current_task()] = self._now() + self._idle_s

    def check(self) -> None:
        """Turn a cancellation into `TimeoutError` if it came from here, and from nobody else as well."""
        task = asyncio.current_task()
        expired = self._expired.get(task)
        if expired is not None and task is not None and task.uncancel() == 0:
            raise expired

    def end(self) -> None:
        """End the time of the current task's attempt."""
        task = asyncio.current_task()
        del self._running[task]
        self._idle.pop(task, None)
        self._unheard.discard(task)
        self._expired.pop(task, None)

    def close(self) -> None:
        """Stop the clock."""
        self._timer.cancel()

    def _sweep(self) -> None:
        now = self._now()
        for times, kind in ((self._running, TimeoutError), (self._idle, IdleTimeoutError)):
            for task, until in times.items():
                if until <= now and task is not None and task not in self._expired:
                    self._expired[task] = kind
                    task.cancel()
        self._timer = self._loop.call_later(self._interval_s, self._sweep)
