"""One clock for the deadlines of all attempts: a timer for each would cost more than the rest of the client."""

from __future__ import annotations

import asyncio
from typing import Any

#: A deadline is noticed at most this late, or a twentieth of itself if that is sooner.
_LATENESS_S = 1.0


class Deadlines:
    """Gives every attempt the same time, in seconds of the event loop's clock. `close` it when no attempt is left."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._interval_s = min(_LATENESS_S, timeout_s / 20)
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time
        self._running: dict[asyncio.Task[Any] | None, float] = {}
        self._expired: set[asyncio.Task[Any] | None] = set()
        self._timer = self._loop.call_later(self._interval_s, self._sweep)

    def start(self) -> None:
        """Start the time of the attempt that the current task makes; when it is over, the task is cancelled."""
        self._running[asyncio.current_task()] = self._now() + self._timeout_s

    def check(self) -> None:
        """Turn a cancellation into `TimeoutError` if it came from here, and from nobody else as well."""
        task = asyncio.current_task()
        if task in self._expired and task is not None and task.uncancel() == 0:
            raise TimeoutError

    def end(self) -> None:
        """End the time of the current task's attempt."""
        task = asyncio.current_task()
        del self._running[task]
        self._expired.discard(task)

    def close(self) -> None:
        """Stop the clock."""
        self._timer.cancel()

    def _sweep(self) -> None:
        now = self._now()
        for task, until in self._running.items():
            if until <= now and task is not None and task not in self._expired:
                self._expired.add(task)
                task.cancel()
        self._timer = self._loop.call_later(self._interval_s, self._sweep)
