from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchrun.simulator.dialects.openai import duration
from batchrun.simulator.limits import WINDOW_S, RateLimits, Resource

#: Busy machines are no failures.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_requests_slide() -> None:
    clock = Clock()
    limits = RateLimits(2, None, clock)
    assert limits.admit(1) is None
    clock.now += 20
    assert limits.admit(1) is None
    over = limits.admit(1)
    assert over is not None
    assert (over.resource, over.limit, over.used, over.retry_after_s) == (Resource.REQUESTS, 2, 2, 40.0)
    clock.now += 39.9
    assert limits.admit(1) is not None
    clock.now += 0.1
    assert limits.admit(1) is None
    # Only the first call has left the window.
    assert limits.admit(1) is not None


def test_tokens_slide() -> None:
    clock = Clock()
    limits = RateLimits(None, 100, clock)
    assert limits.admit(60) is None
    clock.now += 10
    assert limits.admit(40) is None
    over = limits.admit(30)
    assert over is not None
    assert (over.resource, over.used, over.requested, over.retry_after_s) == (Resource.TOKENS, 100, 30, 50.0)
    clock.now += 50
    assert limits.admit(60) is None
    assert limits.admit(1) is not None
    too_large = limits.admit(101)
    assert too_large is not None
    assert too_large.retry_after_s == WINDOW_S


def test_levels() -> None:
    clock = Clock()
    limits = RateLimits(10, 1000, clock)
    assert [(level.remaining, level.reset_s) for level in limits.levels()] == [(10, 0.0), (1000, 0.0)]
    limits.admit(300)
    clock.now += 15
    assert [(level.remaining, level.reset_s) for level in limits.levels()] == [(9, 45.0), (700, 45.0)]
    assert not RateLimits(None, None, clock).active


@PATIENT
@given(
    requests=st.integers(1, 5),
    tokens=st.integers(10, 50),
    calls=st.lists(st.tuples(st.floats(0, 40), st.integers(1, 20)), max_size=40),
)
def test_no_window_of_a_minute_holds_more_than_the_limits(
    requests: int, tokens: int, calls: list[tuple[float, int]]
) -> None:
    clock = Clock()
    limits = RateLimits(requests, tokens, clock)
    admitted: list[tuple[float, int]] = []
    for gap, cost in calls:
        clock.now += gap
        over = limits.admit(cost)
        window = [(when, spent) for when, spent in admitted if clock.now - when < WINDOW_S]
        fits = len(window) < requests and sum(spent for _, spent in window) + cost <= tokens
        assert (over is None) == fits
        if over is None:
            admitted.append((clock.now, cost))
        else:
            assert 0 < over.retry_after_s <= WINDOW_S


def test_durations() -> None:
    spelled = [duration(seconds) for seconds in (0, 0.12, 0.9999, 1, 8.64, 60, 359.5)]
    assert spelled == ["0ms", "120ms", "1s", "1s", "8.64s", "1m0s", "5m59.5s"]


async def test_requests_over_the_wire(provider: Callable[..., Any]) -> None:
    async with provider(requests_per_minute=3) as sim:
        got = [await sim.chat(f"第{number}条") for number in range(4)]
        stats = sim.simulator.stats
    assert [one.status for one in got] == [200, 200, 200, 429]
    remaining = [one.headers["x-ratelimit-remaining-requests"] for one in got]
    assert remaining == ["2", "1", "0", "0"]
    assert got[0].headers["x-ratelimit-limit-requests"] == "3"
    assert got[0].headers["x-ratelimit-reset-requests"] == "1m0s"
    assert "x-ratelimit-limit-tokens" not in got[0].headers
    error = got[3].body["error"]
    assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
    assert "Limit 3, Used 3, Requested 1" in error["message"]
    assert 58 <= int(got[3].headers["Retry-After"]) <= 60
    assert stats["by_status"] == {"200": 3, "429": 1}
    assert stats["by_fault"] == {}


async def test_tokens_over_the_wire(provider: Callable[..., Any]) -> None:
    async with provider() as sim:
        cost = (await sim.chat()).body["usage"]["total_tokens"]
    async with provider(tokens_per_minute=2 * cost + 1) as sim:
        got = [await sim.chat() for _ in range(3)]
    assert [one.status for one in got] == [200, 200, 429]
    assert [one.headers["x-ratelimit-remaining-tokens"] for one in got] == [str(cost + 1), "1", "1"]
    assert got[2].body["error"]["type"] == "tokens"


async def test_concurrency_over_the_wire(provider: Callable[..., Any]) -> None:
    async with provider(max_concurrency=2, faults={"hang": 1.0}) as sim:
        calls = [asyncio.create_task(sim.chat(f"第{number}条")) for number in range(2)]
        await sim.until(lambda stats: stats["by_fault"] == {"hang": 2})
        over = await sim.chat("第三条")
        assert over.status == 429
        assert over.headers["Retry-After"] == "1"
        assert "concurrency limit of 2" in over.body["error"]["message"]
        assert sim.simulator.stats["peak_in_flight"] == 3
        for call in calls:
            call.cancel()
        await sim.until(lambda stats: not stats["in_flight"])
        last = asyncio.create_task(sim.chat("第四条"))
        await sim.until(lambda stats: stats["by_fault"] == {"hang": 3})
        last.cancel()


async def test_refused_calls_draw_no_fault(provider: Callable[..., Any]) -> None:
    async with provider(requests_per_minute=1, faults={"http_500": 1.0}) as sim:
        assert [(await sim.chat()).status for _ in range(3)] == [500, 429, 429]
        assert sim.simulator.stats["by_fault"] == {"http_500": 1}


@PATIENT
@given(st.floats(0, 120))
def test_durations_can_be_read_back(seconds: float) -> None:
    text = duration(seconds)
    if text.endswith("ms"):
        read = int(text[:-2]) / 1000
    else:
        minutes, _, rest = text.rpartition("m")
        read = 60 * int(minutes or 0) + float(rest[:-1])
    assert math.isclose(read, seconds, abs_tol=0.001)
