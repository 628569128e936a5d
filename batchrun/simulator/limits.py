"""The provider's own rate limits: sliding windows of one minute."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

#: The length of the window, in seconds.
WINDOW_S = 60.0


class Resource(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"


@dataclass(frozen=True, slots=True)
class Level:
    """How much of one limit is left; `reset_s` is the time in seconds until the window is empty again."""

    resource: Resource
    limit: int
    remaining: int
    reset_s: float


@dataclass(frozen=True, slots=True)
class OverLimit:
    """Why a call was not admitted; it would be after `retry_after_s` seconds, other calls aside."""

    resource: Resource
    limit: int
    used: int
    requested: int
    retry_after_s: float


class RateLimits:
    """Requests and tokens in the last minute, by a clock in seconds. A refused call counts nothing."""

    __slots__ = ("_calls", "_clock", "_requests", "_tokens", "_used_tokens")

    def __init__(self, requests: int | None, tokens: int | None, clock: Callable[[], float]) -> None:
        self._requests = requests
        self._tokens = tokens
        self._clock = clock
        self._calls: deque[tuple[float, int]] = deque()
        self._used_tokens = 0

    @property
    def active(self) -> bool:
        """Tell whether there is any limit."""
        return self._requests is not None or self._tokens is not None

    def admit(self, tokens: int) -> OverLimit | None:
        """Count a call of so many tokens, or say which limit forbids it."""
        if not self.active:
            return None
        now = self._forget()
        over = self._over(tokens, now)
        if over is None:
            self._calls.append((now, tokens))
            self._used_tokens += tokens
        return over

    def levels(self) -> list[Level]:
        """Give the state of each limit there is."""
        now = self._forget()
        reset = _left(self._calls[-1][0], now) if self._calls else 0.0
        pairs = (
            (Resource.REQUESTS, self._requests, len(self._calls)),
            (Resource.TOKENS, self._tokens, self._used_tokens),
        )
        return [
            Level(resource, limit, max(0, limit - used), reset) for resource, limit, used in pairs if limit is not None
        ]

    def _over(self, tokens: int, now: float) -> OverLimit | None:
        calls = self._calls
        if self._requests is not None and len(calls) >= self._requests:
            wait = _left(calls[len(calls) - self._requests][0], now)
            return OverLimit(Resource.REQUESTS, self._requests, len(calls), 1, wait)
        if self._tokens is not None and self._used_tokens + tokens > self._tokens:
            wait = self._token_wait(self._used_tokens + tokens - self._tokens, now)
            return OverLimit(Resource.TOKENS, self._tokens, self._used_tokens, tokens, wait)
        return None

    def _token_wait(self, excess: int, now: float) -> float:
        for when, tokens in self._calls:
            excess -= tokens
            if excess <= 0:
                return _left(when, now)
        return WINDOW_S  # more than the whole window: no wait helps, and a provider says so in no better way

    def _forget(self) -> float:
        now = self._clock()
        calls = self._calls
        while calls and _left(calls[0][0], now) <= 0:
            self._used_tokens -= calls.popleft()[1]
        return now


def _left(when: float, now: float) -> float:
    # In this order of operations rounding never gives more than the window.
    return WINDOW_S - (now - when)
