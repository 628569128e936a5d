"""The feed: items for many workers from one reader that works in a thread, a little ahead of them."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from batchrun.lines import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchrun.items import Line
    from batchrun.records import Failure, Item

T = TypeVar("T")


class Reader(Protocol):
    """Where entries come from: `next_lines` is called in a thread, `parse` in the event loop's."""

    @property
    def is_stream(self) -> bool:
        """Tell whether more may come only later."""

    def next_lines(self) -> list[Line]:
        """Give the next lines; none at the end. Raises `InputError`."""

    def parse(self, line: Line) -> Item | Failure:
        """Make an entry of a line."""


class Feed:
    """Gives each entry of the input to one worker. At most two batches of the reader are in memory.

    If the input breaks, the feed ends and `error` says why.
    """

    def __init__(self, reader: Reader) -> None:
        self.given = 0
        self.error: InputError | None = None
        self.ended = False
        self._reader = reader
        self._batch: list[Line] = []
        self._fetching: asyncio.Future[list[Line]] | None = None
        self._stopped = asyncio.Event()
        self._stop_task: asyncio.Task[bool] | None = None

    async def next(self) -> Item | Failure | None:
        """Give the next entry; None at the end, after `stop`, or when the input broke."""
        while not self._batch:
            if self._is_over():
                return None
            await self._refill()
        if self._is_over():
            return None
        self.given += 1
        return self._reader.parse(self._batch.pop())

    def _is_over(self) -> bool:
        return self.ended or self._stopped.is_set()

    def stop(self) -> None:
        """Give nothing more, and wake who waits for input."""
        self._stopped.set()

    async def close(self) -> None:
        """Release what `next` waits on."""
        if self._stop_task is not None:
            self._stop_task.cancel()
            await asyncio.wait({self._stop_task})

    async def count_rest(self, counts: Callable[[Item | Failure], bool], within_s: float) -> int | None:
        """Count the entries not given out for which `counts` holds; None if that cannot be done in the time."""
        if self.error is not None or (self._reader.is_stream and not self.ended):
            return None
        until = time.monotonic() + within_s
        try:
            async with asyncio.timeout(within_s + 1):
                ahead = await self._fetching if self._fetching else []
                return await in_thread(lambda: self._count([*reversed(self._batch), *ahead], counts, until))
        except (TimeoutError, InputError):
            return None

    def _count(self, ahead: list[Line], counts: Callable[[Item | Failure], bool], until: float) -> int | None:
        number = 0
        batch = ahead or self._reader.next_lines()
        while batch:
            if time.monotonic() > until:
                return None
            number += sum(counts(self._reader.parse(line)) for line in batch)
            batch = self._reader.next_lines()
        return number

    async def _refill(self) -> None:
        if self._stop_task is None:
            self._stop_task = asyncio.create_task(self._stopped.wait())
        fetching = self._fetching = self._fetching or in_thread(self._reader.next_lines)
        if not fetching.done():
            waited: set[asyncio.Future[Any]] = {fetching, self._stop_task}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if self._fetching is not fetching or not fetching.done():
            return  # another worker took the batch, or the run stops
        self._fetching = None
        try:
            self._batch = fetching.result()[::-1]  # taken from the end, which is cheap
        except InputError as error:
            self.error = error
        if self._batch:
            self._fetching = in_thread(self._reader.next_lines)
        else:
            self.ended = True


def in_thread(function: Callable[[], T]) -> asyncio.Future[T]:
    """Run a function in a thread that does not keep the process alive: it may wait for standard input for ever."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def deliver(value: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)  # type: ignore[arg-type] # None only where T is
        future.exception()  # a stop may leave the future unread

    def work() -> None:
        value, error = None, None
        try:
            value = function()
        except BaseException as caught:  # noqa: BLE001 - handed over to the task that waits
            error = caught
        if not loop.is_closed():
            loop.call_soon_threadsafe(deliver, value, error)

    threading.Thread(target=work, name="batchrun-reader", daemon=True).start()
    return future
