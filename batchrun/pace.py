"""The pacer: who may send now. It bounds concurrency, requests and tokens a minute, and pauses everybody if told to."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

#: So much of a limit is used: what leaves evenly here arrives a little unevenly there.
_USED = 0.999
_WINDOW_S = 60.0
#: Who wakes up later than it was due by no more than this is not counted as late, or the lateness would add up.
_LATE_S = 0.05
_RESOLUTION_S = 1e-6


class Stopping(Exception):
    """The run is stopping: nothing more may be sent."""


@dataclass(slots=True)
class _Entry:
    """What was admitted at a time; `counts` as long as it is in the window."""

    at: float
    amount: float
    counts: bool = True


@dataclass(slots=True)
class Ticket:
    """An admission, to be given back by `Pacer.release`."""

    tokens: _Entry | None = None


class _Limit:
    """So much a minute, in every minute, spread evenly: there is never a burst, neither at the start nor later.

    What is admitted is paid for before the next may go (a token bucket that holds nothing), and no window of a
    minute's length holds more than the limit, however large a single amount is.
    """

    def __init__(self, most: float) -> None:
        self.most = most
        self._rate = most * _USED / _WINDOW_S
        self._free_at = 0.0
        self._window: deque[_Entry] = deque()
        self._sum = 0.0

    def earliest(self, now: float, amount: float) -> float:
        """Give the first time at which an amount may go. Times asked for never go back."""
        at = max(now, self._free_at)
        window = self._window
        while window and window[0].at <= now - _WINDOW_S:
            self._sum -= self._leave()
        over = self._sum + amount - self.most
        for entry in window:
            if over <= 1e-9:
                break
            at = max(at, entry.at + _WINDOW_S)
            over -= entry.amount
        return at

    def take(self, at: float, amount: float) -> _Entry:
        """Admit an amount at a time."""
        entry = _Entry(at, amount)
        self._window.append(entry)
        self._sum += amount
        self._free_at = max(self._free_at, at) + amount / self._rate
        return entry

    def settle(self, entry: _Entry, amount: float) -> None:
        """Correct an amount to what it really was."""
        change = amount - entry.amount
        entry.amount = amount
        if entry.counts:
            self._sum += change
        self._free_at += change / self._rate

    def _leave(self) -> float:
        entry = self._window.popleft()
        entry.counts = False
        return entry.amount


class Pacer:
    """Lets requests go, first come first served: a large one that waits for its tokens is not overtaken.

    `concurrency` bounds the requests in flight; `requests_per_minute` and `tokens_per_minute` are kept in every window
    of a minute and spread evenly. Tokens are reserved when a request is admitted and corrected when it is released.
    Time is the event loop's.
    """

    def __init__(
        self, concurrency: int, requests_per_minute: float | None = None, tokens_per_minute: float | None = None
    ) -> None:
        self.concurrency = concurrency
        self._now = asyncio.get_running_loop().time
        self._slots = asyncio.Semaphore(concurrency)
        self._surplus = 0
        self._requests = _Limit(requests_per_minute) if requests_per_minute else None
        self._tokens = _Limit(tokens_per_minute) if tokens_per_minute else None
        #: Held by the one that is next, so that the others keep their order.
        self._next = asyncio.Lock()
        #: Set where the one that is next may go earlier than it thought, or not at all.
        self._changed = asyncio.Event()
        self._paused_until = 0.0
        self._stopping = asyncio.Event()

    async def admit(self, tokens: float = 0.0) -> Ticket | None:
        """Wait for a slot and the right moment. Raises `Stopping`. Each admission needs one `release`.

        More tokens than a minute has are waited for until the minute is empty.
        """
        await self._slots.acquire()
        is_free = self._requests is None and self._tokens is None
        if is_free and not self._paused_until and not self._stopping.is_set():
            return None  # nothing to wait for, which is the rule
        try:
            return await self._moment(tokens)
        except BaseException:
            self._free()
            raise

    def release(self, ticket: Ticket | None = None, tokens: float | None = None) -> None:
        """Give the slot back: the attempt is over, however it ended. `tokens` are those that it took, if known."""
        if ticket is not None and ticket.tokens is not None and tokens is not None and self._tokens is not None:
            self._tokens.settle(ticket.tokens, tokens)
            self._changed.set()
        self._free()

    def _free(self) -> None:
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
        self._changed.set()

    async def sleep(self, seconds: float) -> None:
        """Sleep, or raise `Stopping` as soon as the run stops."""
        if not self._stopping.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await self._stopping.wait()
            except TimeoutError:
                return
        raise Stopping

    async def _moment(self, tokens: float) -> Ticket:
        if self._tokens is not None:
            tokens = min(tokens, self._tokens.most)
        async with self._next:
            due = None
            while True:
                if self._stopping.is_set():
                    raise Stopping
                now = self._now()
                at = self._earliest(now, tokens)
                if at <= now + _RESOLUTION_S:
                    return self._admitted(due if due is not None and 0.0 <= now - due <= _LATE_S else now, tokens)
                due = at
                self._changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(at - now):
                        await self._changed.wait()

    def _earliest(self, now: float, tokens: float) -> float:
        at = max(now, self._paused_until)
        if self._requests is not None:
            at = max(at, self._requests.earliest(now, 1.0))
        if self._tokens is not None:
            at = max(at, self._tokens.earliest(now, tokens))
        return at

    def _admitted(self, at: float, tokens: float) -> Ticket:
        if self._requests is not None:
            self._requests.take(at, 1.0)
        return Ticket(self._tokens.take(at, tokens) if self._tokens is not None else None)
