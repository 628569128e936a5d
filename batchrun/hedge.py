"""A second request for what takes much longer than the others: off unless a share of all requests is given to it."""

from __future__ import annotations

import asyncio
import statistics
from collections import deque
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

_SAMPLES = 200
_ENOUGH = 20
#: So many times what nineteen of twenty take is much longer.
_MUCH_LONGER = 3.0
_SHORTEST_S = 1.0


class Hedge:
    """Decides when a request is sent a second time. At most `share` of the requests are."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._times: deque[float] = deque(maxlen=_SAMPLES)
        self._answers = 0
        self._hedges = 0
        self._after_s: float | None = None

    def answered(self, seconds: float) -> None:
        """Take note of how long an answer took."""
        self._times.append(seconds)
        self._answers += 1
        if self._answers % _ENOUGH == 0:
            self._after_s = max(_SHORTEST_S, _MUCH_LONGER * statistics.quantiles(self._times, n=20)[-1])

    def after_s(self) -> float | None:
        """Give after how many seconds a request is to be sent again; None for never."""
        return self._after_s

    def takes(self) -> bool:
        """Take one of the second requests, if there is one left."""
        if self._hedges + 1 > self._share * self._answers:
            return False
        self._hedges += 1
        return True


async def first_good(
    call: Callable[[], Awaitable[T]], after_s: float, second: Callable[[], asyncio.Future[T] | None]
) -> T:
    """Give what a call returns, or a second one that begins after so many seconds, whichever is first to succeed.

    `second` gives the other call, or None if there is to be none. Where both fail, the error of the last is raised;
    what is still under way in the end is cancelled.
    """
    tasks: set[asyncio.Future[T]] = {asyncio.ensure_future(call())}
    try:
        done, pending = await asyncio.wait(tasks, timeout=after_s)
        if not done:
            other = second()
            if other is not None:
                pending.add(other)
                tasks |= pending
        while True:
            if not done:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            good = next((one for one in done if one.exception() is None), None)
            if good is not None or not pending:
                return (good or done.pop()).result()
            done = set()
    finally:
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
