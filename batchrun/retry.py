"""The retry layer: whether an attempt that failed is worth another one, and when. The one place that knows tenacity."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from tenacity import AsyncRetrying, RetryCallState

from batchrun.job import ITEM_TIMEOUT_S
from batchrun.records import TRANSIENT_KINDS, EndpointError, ErrorKind

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from batchrun.job import Retry
    from batchrun.records import Response

#: An empty answer is paid for; DeepSeek's JSON mode gives one now and then and advises another attempt
#: (api-docs.deepseek.com/guides/json_mode). Tried this often in all.
_EMPTY_OUTPUT_ATTEMPTS = 3


async def _known() -> None:
    """Wait for nothing: it is known of each attempt whether it counts."""


class Retries:
    """Decides over attempts by the job's `[retry]` section. `rng` draws the jitter, `sleep` waits in seconds."""

    def __init__(self, settings: Retry, rng: random.Random, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._settings = settings
        self._rng = rng
        self._sleep = sleep

    def worthwhile(self, error: EndpointError, attempt: int, alike: int = 1) -> bool:
        """Tell whether another attempt may succeed after the given attempt (counted from 1) ended in `error`.

        `alike` is how many attempts ended like this one. Where that is as often as the dialect allows, the error's
        kind becomes what it then means.
        """
        most = self._settings.max_attempts
        if error.attempts is not None and alike >= min(error.attempts, most):
            error.kind = error.then or error.kind
            return False
        if attempt >= most:
            return False
        if error.kind is ErrorKind.EMPTY_OUTPUT:
            return alike < _EMPTY_OUTPUT_ATTEMPTS
        return error.kind in TRANSIENT_KINDS

    def wait_s(self, error: EndpointError, attempt: int) -> float:
        """Give the seconds until the next attempt: exponential with jitter, never less than the server asked for."""
        settings = self._settings
        # The exponent is bounded because 2.0**1024 overflows.
        ceiling = min(settings.wait_max, settings.wait_initial * 2.0 ** min(attempt - 1, 60))
        backoff = self._rng.uniform(ceiling / 2, ceiling)
        if error.retry_after_s is None:
            return backoff
        # Those whom the server sent away together come back spread over a moment.
        return max(backoff, error.retry_after_s + self._rng.uniform(0.0, min(1.0, ceiling / 4)))

    async def run(
        self,
        attempt: Callable[[], Awaitable[Response]],
        first: EndpointError | None,
        *,
        waiting: Callable[[float, EndpointError], None],
        started_at: float,
        spared: Callable[[], int] = lambda: 0,
        verdict: Callable[[], Awaitable[None]] = _known,
        down_s: Callable[[], float] = lambda: 0.0,
    ) -> Response:
        """Repeat `attempt` until it succeeds or another is not worthwhile; then raise its last `EndpointError`.

        `first` is the error of the first attempt, if that was made already. `waiting` is told of each wait before
        it begins. `spared` gives how many of the attempts do not count, `verdict` waits until that is known of each.
        `started_at` is the loop's time when the item was first sent: no attempt begins later than
        `retry.item_timeout` seconds after it, and the seconds that the endpoint was down since, which `down_s` gives.
        """
        done = [first] if first else []

        async def one() -> Response:
            if done:
                raise done.pop()
            return await attempt()

        latest = started_at + (self._settings.item_timeout or ITEM_TIMEOUT_S)
        again = _Again(self, spared, verdict, lambda: latest + down_s())
        retrying = AsyncRetrying(
            retry=again,
            wait=lambda _: again.wait_s,
            sleep=self._sleep,
            before_sleep=lambda state: waiting(state.upcoming_sleep, _error_of(state)),
            reraise=True,
        )
        return await retrying(one)


def _error_of(state: RetryCallState) -> EndpointError:
    error = state.outcome.exception() if state.outcome else None
    if not isinstance(error, EndpointError):
        raise TypeError(f"not an attempt's error: {error!r}")
    return error


class _Again:
    """Decides whether an item gets another attempt, and after how many seconds: `wait_s`."""

    def __init__(
        self,
        retries: Retries,
        spared: Callable[[], int],
        verdict: Callable[[], Awaitable[None]],
        latest: Callable[[], float],
    ) -> None:
        self._retries, self._spared, self._verdict, self._latest = retries, spared, verdict, latest
        self._spared_before = 0
        self._alike: Counter[tuple[ErrorKind, int | None]] = Counter()
        self.wait_s = 0.0

    async def __call__(self, retry_state: RetryCallState) -> bool:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        if not isinstance(error, EndpointError):
            return False
        number, way = retry_state.attempt_number, (error.kind, error.attempts)
        before, self._spared_before = self._spared_before, self._spared()
        self._alike[way] += self._spared_before == before
        if self._is_due(error, number, self._alike[way]):
            return True
        await self._verdict()
        before, self._spared_before = self._spared_before, self._spared()
        return self._spared_before > before and self._is_due(error, number, self._alike[way])

    def _is_due(self, error: EndpointError, number: int, alike: int) -> bool:
        counted = number - self._spared_before
        if not self._retries.worthwhile(error, counted, alike):
            return False
        self.wait_s = self._retries.wait_s(error, max(1, counted))
        return asyncio.get_running_loop().time() + self.wait_s <= self._latest()
