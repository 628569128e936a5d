"""An endpoint with limits in virtual time, and a client of it that does what the sender does: an hour in a second."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter, deque
from dataclasses import dataclass, field

from batchrun.pace import Pacer, Record
from batchrun.records import EndpointError, ErrorKind, QuotaLevel, RateCause


@dataclass
class Endpoint:
    """Answers after `latency_s`; refuses at once what is over a limit by the minute, or over the concurrency.

    `window` is sliding (any 60 s), bucket (full at first, refilled evenly), fixed (60 s each) or second (a sixtieth in
    any second). `says` is silent (nothing), cause, wait (cause, and how long), seconds (the same in whole seconds), or
    headers (the same, and with every answer and refusal what the limits are and what is left of them). `down` are times
    (from, until) in which it refuses everything as `down_as` says.
    """

    requests: int | None = None
    tokens: int | None = None
    concurrency: int | None = None
    window: str = "sliding"
    says: str = "silent"
    latency_s: float = 0.2
    #: By so much of it the time of an answer varies.
    varies: float = 0.2
    down: tuple[float, float] = (-1.0, -1.0)
    down_as: ErrorKind = ErrorKind.SERVER_ERROR
    rng: random.Random = field(default_factory=lambda: random.Random(1))
    calls: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    accepted: list[tuple[float, float]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    _log: deque[tuple[float, float]] = field(default_factory=deque)
    _bucket: dict[str, tuple[float, float]] = field(default_factory=dict)

    async def call(self, tokens: float) -> None:
        now = asyncio.get_running_loop().time()
        self.calls += 1
        if self.down[0] <= now < self.down[1]:
            self.refused["down"] += 1
            raise EndpointError(self.down_as, "down")
        over = self._over(now, tokens)
        if over is not None:
            cause, wait = over
            self.refused[cause.value] += 1
            error = EndpointError(ErrorKind.RATE_LIMITED, "slow down")
            if self.says != "silent":
                error.cause = cause
            if self.says in ("wait", "seconds", "headers") and cause is not RateCause.CONCURRENCY:
                error.retry_after_s = wait if self.says == "wait" else float(math.ceil(wait))
            raise error
        self.accepted.append((now, tokens))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.latency_s * self.rng.uniform(1 - self.varies, 1 + self.varies))
        finally:
            self.in_flight -= 1

    def _over(self, now: float, tokens: float) -> tuple[RateCause, float] | None:
        if self.concurrency is not None and self.in_flight >= self.concurrency:
            return RateCause.CONCURRENCY, 0.0
        wanted = {"requests": (self.requests, 1.0), "tokens": (self.tokens, tokens)}
        for what, (most, amount) in wanted.items():
            wait = None if most is None else self._wait(now, what, most, amount)
            if wait is not None:
                return RateCause(what), wait
        for what, (most, amount) in wanted.items():
            if most is not None and self.window == "bucket":
                left, at = self._bucket.get(what, (float(most), now))
                self._bucket[what] = (min(most, left + (now - at) * most / 60) - amount, now)
        self._log.append((now, tokens))
        return None

    def headers(self) -> list[QuotaLevel]:
        """Give what its headers say now."""
        if self.says != "headers":
            return []
        now = asyncio.get_running_loop().time()
        told = []
        for what, most in (("requests", self.requests), ("tokens", self.tokens)):
            if most is not None:
                told.append(QuotaLevel(what, float(most), float(math.floor(self._left(now, what, most)))))
        return told

    def _left(self, now: float, what: str, most: float) -> float:
        if self.window == "bucket":
            left, at = self._bucket.get(what, (most, now))
            return max(0.0, min(most, left + (now - at) * most / 60))
        begin = now // 60 * 60 if self.window == "fixed" else now - 60.0
        used = 0.0
        for at, spent in reversed(self.accepted):
            if at <= begin:
                break
            used += 1.0 if what == "requests" else spent
        return max(0.0, most - used)

    def _wait(self, now: float, what: str, most: float, amount: float) -> float | None:
        if self.window == "bucket":
            left, at = self._bucket.get(what, (most, now))
            lacks = amount - min(most, left + (now - at) * most / 60)
            return lacks * 60 / most if lacks > 1e-9 else None
        length = 1.0 if self.window == "second" else 60.0
        begin = now // 60 * 60 if self.window == "fixed" else now - length
        while self._log and self._log[0][0] < begin + (0.0 if self.window == "fixed" else 1e-9):
            self._log.popleft()
        used = sum(1.0 if what == "requests" else spent for _, spent in self._log)
        if used + amount <= most * length / 60 + 1e-9:
            return None
        return begin + 60.0 - now if self.window == "fixed" else self._log[0][0] + length - now


@dataclass
class Done:
    """What became of a job: answers, and failures after so many attempts that count."""

    answers: int = 0
    failures: int = 0
    attempts: int = 0


async def work_off(
    pacer: Pacer, endpoint: Endpoint, seconds: float, *, sizes: tuple[float, float] = (100.0, 100.0), seed: int = 1,
    off: float = 0.0,
) -> Done:  # fmt: skip
    """Send without end for so long, as many at a time as the pacer lets, with retries like a run's.

    What a request takes is known beforehand but for a share, `off` at most.
    """
    loop = asyncio.get_running_loop()
    rng, done, until = random.Random(seed), Done(), loop.time() + seconds

    async def worker() -> None:
        while loop.time() < until:
            amount = rng.uniform(*sizes)
            await _item(pacer, endpoint, done, amount, amount * rng.uniform(1 - off, 1 + off), rng)

    workers: set[asyncio.Task[None]] = set()
    while loop.time() < until:
        while len(workers) < 3 * pacer.concurrency + 10:
            workers.add(asyncio.create_task(worker()))
        await asyncio.sleep(0.1)
        pacer.look()
        if pacer.takes_trial():
            workers.add(asyncio.create_task(_trial(pacer, endpoint, done)))
        workers = {one for one in workers if not one.done()}
    for one in workers:
        one.cancel()
    ended = await asyncio.gather(*workers, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError | None) for one in ended), ended
    return done


async def _item(
    pacer: Pacer, endpoint: Endpoint, done: Done, amount: float, guess: float, rng: random.Random
) -> None:  # fmt: skip
    record, attempts = Record(), 0
    while True:
        error = await _attempt(pacer, endpoint, done, amount, guess, record)
        attempts += 1
        if error is None:
            done.answers += 1
            return
        if attempts - record.spared >= 6:
            done.failures += 1
            return
        wait = min(60.0, 2.0 ** (attempts - record.spared))
        await asyncio.sleep(max(error.retry_after_s or 0.0, rng.uniform(wait / 2, wait)))


async def _attempt(
    pacer: Pacer, endpoint: Endpoint, done: Done, amount: float, guess: float, record: Record
) -> EndpointError | None:  # fmt: skip
    ticket = await pacer.admit(guess)
    done.attempts += 1
    try:
        await endpoint.call(amount)
    except EndpointError as error:
        pacer.failed(ticket, error, record)
        return error
    else:
        pacer.succeeded(ticket, amount)
        return None
    finally:
        for quota in endpoint.headers():
            pacer.take_quota(quota)
        pacer.release(ticket)


async def _trial(pacer: Pacer, endpoint: Endpoint, done: Done) -> None:
    done.attempts += 1
    try:
        await endpoint.call(10.0)
    except EndpointError as error:
        if pacer.is_down(error):
            return
    pacer.recovered()
