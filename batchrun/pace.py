"""The pacer: who may send now. It bounds concurrency and requests a minute, and pauses everybody when told to."""

from __future__ import annotations

import asyncio


class Stopping(Exception):
    """The run is stopping: nothing more may be sent."""


class Pacer:
    """Lets requests go, first come first served.

    `concurrency` bounds the requests in flight, `requests_per_minute` spaces them evenly, so that no window of any
    length sees more than its share plus one. Time is the event loop's.
    """

    def __init__(self, concurrency: int, requests_per_minute: float | None = None) -> None:
        self.concurrency = concurrency
        self._now = asyncio.get_running_loop().time
        self._slots = asyncio.Semaphore(concurrency)
        self._surplus = 0
        self._interval_s = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._next_at = 0.0
        self._paused_until = 0.0
        self._stopping = asyncio.Event()

    async def admit(self) -> None:
        """Wait for a slot and the right moment. Raises `Stopping`. Each admission needs one `release`."""
        await self._slots.acquire()
        if not self._interval_s and not self._paused_until and not self._stopping.is_set():
            return  # nothing to wait for, which is the rule
        try:
            await self._moment()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give the slot back: the attempt is over, however it ended."""
        if self._surplus:
            self._surplus -= 1
        else:
            self._slots.release()

    def lower(self, concurrency: int) -> bool:
        """Let no more than this many go at a time from now on; tell whether that is less than before."""
        if not 1 <= concurrency < self.concurrency:
            return False
        self._surplus += self.concurrency - concurrency
        self.concurrency = concurrency
        return True

    def pause(self, seconds: float) -> None:
        """Let nobody go for this long: the endpoint said so."""
        self._paused_until = max(self._paused_until, self._now() + seconds)

    def paused_for(self) -> float:
        """Give the seconds that the pause still lasts, 0.0 if there is none."""
        return max(0.0, self._paused_until - self._now())

    def stop(self) -> None:
        """Let nobody go any more; who waits gets `Stopping`."""
        self._stopping.set()

    async def sleep(self, seconds: float) -> None:
        """Sleep, or raise `Stopping` as soon as the run stops."""
        if not self._stopping.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await self._stopping.wait()
            except TimeoutError:
                return
        raise Stopping

    async def _moment(self) -> None:
        if self._stopping.is_set():
            raise Stopping
        now = self._now()
        while True:
            # A moment inside of a pause would be one of many that all come due when the pause ends.
            at = max(now, self._next_at, self._paused_until)
            self._next_at = at + self._interval_s
            if at > now:
                await self.sleep(at - now)
            if self._paused_until <= at:
                return
            now = at
