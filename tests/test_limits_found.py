"""Limits that nobody told, and endpoints that fail: minutes of a run in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from paced import Done, Endpoint, work_off
from virtual import in_virtual_time

from batchrun.pace import Found, Limits, Pacer, Record, UsedUpError
from batchrun.records import EndpointError, ErrorKind, QuotaLevel, RateCause

MINUTES = 5


def run(
    endpoint: Endpoint, limits: Limits | None = None, *, seconds: float = MINUTES * 60.0,
    sizes: tuple[float, float] = (200.0, 500.0), then: Callable[[Pacer], None] = lambda _: None,
    has_burst_limit: bool = False, off: float = 0.0,
) -> Done:  # fmt: skip
    async def main() -> Done:
        pacer = Pacer(limits or Limits(), has_burst_limit=has_burst_limit)
        done = await work_off(pacer, endpoint, seconds, sizes=sizes, off=off)
        then(pacer)
        return done

    return in_virtual_time(main())


def in_any(accepted: list[tuple[float, float]], length_s: float, *, tokens: bool) -> float:
    """Give the most that any window of this length saw."""
    most = total = 0.0
    begin = 0
    for at, amount in accepted:
        total += amount if tokens else 1.0
        while accepted[begin][0] <= at - length_s:
            total -= accepted[begin][1] if tokens else 1.0
            begin += 1
        most = max(most, total)
    return most


@pytest.mark.parametrize("says", ["silent", "cause", "wait", "headers"])
@pytest.mark.parametrize("window", ["sliding", "bucket", "fixed", "second"])
def test_a_hidden_limit_of_requests_is_found_and_used(window: str, says: str) -> None:
    endpoint = Endpoint(requests=600, window=window, says=says)
    done = run(endpoint)
    assert done.failures == 0
    assert len(endpoint.accepted) >= 0.9 * 600 * MINUTES
    assert endpoint.refused["requests"] <= 0.05 * endpoint.calls


@pytest.mark.parametrize("says", ["silent", "cause", "wait", "headers"])
@pytest.mark.parametrize("window", ["sliding", "bucket", "fixed"])
def test_a_hidden_limit_of_tokens_is_found_and_used(window: str, says: str) -> None:
    endpoint = Endpoint(tokens=200_000, window=window, says=says)
    done = run(endpoint)
    assert done.failures == 0
    assert sum(tokens for _, tokens in endpoint.accepted) >= 0.9 * 200_000 * MINUTES
    assert endpoint.refused["tokens"] <= 0.05 * endpoint.calls


@pytest.mark.parametrize("seed", range(3))
def test_where_pauses_hold_all_up_the_rate_is_what_was_answered(seed: int) -> None:
    endpoint = Endpoint(tokens=60_000, window="bucket", says="seconds", rng=random.Random(seed))
    done = run(endpoint, sizes=(120.0, 560.0))
    assert done.failures == 0
    assert sum(tokens for _, tokens in endpoint.accepted) >= 0.97 * 60_000 * (MINUTES + 1)
    assert endpoint.refused["tokens"] <= 0.05 * endpoint.calls


@pytest.mark.parametrize("says", ["silent", "cause"])
@pytest.mark.parametrize(("most", "latency_s"), [(20, 1.0), (5, 4.0), (150, 10.0)])
def test_a_hidden_limit_of_concurrency_is_found_and_used(most: int, latency_s: float, says: str) -> None:
    endpoint = Endpoint(concurrency=most, latency_s=latency_s, says=says)
    levels: list[int] = []
    done = run(endpoint, seconds=600, then=lambda pacer: levels.append(pacer.concurrency))
    assert done.failures == 0
    assert len(endpoint.accepted) * latency_s >= 0.9 * most * 600
    assert sum(endpoint.refused.values()) <= 0.05 * endpoint.calls
    assert 0.9 * most <= levels[0] <= 1.1 * most + 1


@pytest.mark.parametrize("says", ["silent", "cause", "wait", "headers"])
def test_all_three_at_once(says: str) -> None:
    endpoint = Endpoint(requests=600, tokens=150_000, concurrency=10, latency_s=1.0, says=says)
    done = run(endpoint)
    assert done.failures == 0
    assert sum(tokens for _, tokens in endpoint.accepted) >= 0.9 * 150_000 * MINUTES
    assert sum(endpoint.refused.values()) <= 0.05 * endpoint.calls


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("off", [0.0, 0.2])
def test_told_tokens_are_used_up_and_nothing_is_refused_though_they_are_only_guessed(off: float, seed: int) -> None:
    endpoint = Endpoint(tokens=60_000, rng=random.Random(seed))
    run(endpoint, Limits(concurrency=20, tokens_per_minute=60_000.0), sizes=(120.0, 560.0), off=off)
    assert sum(tokens for _, tokens in endpoint.accepted) >= 0.993 * 60_000 * MINUTES
    assert endpoint.refused["tokens"] <= 2


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("window", ["sliding", "bucket", "fixed"])
def test_what_headers_say_is_kept_though_tokens_are_only_guessed(window: str, seed: int) -> None:
    endpoint = Endpoint(requests=600, tokens=60_000, concurrency=20, window=window, says="headers", varies=0.0)
    endpoint.rng = random.Random(seed)
    run(endpoint, off=0.1)
    assert sum(tokens for _, tokens in endpoint.accepted) >= 0.97 * 60_000 * MINUTES
    assert sum(endpoint.refused.values()) <= 0.02 * endpoint.calls


def test_where_headers_say_a_minute_and_less_counts_the_rate_goes_down() -> None:
    endpoint = Endpoint(tokens=150_000, window="second", says="headers")
    run(endpoint, off=0.1)
    assert sum(tokens for _, tokens in endpoint.accepted) >= 0.65 * 150_000 * MINUTES
    assert endpoint.refused["tokens"] <= 0.05 * endpoint.calls


def test_the_level_goes_up_in_steps_though_all_are_answered_at_the_same_moment() -> None:
    levels: list[tuple[float, int]] = []

    async def main() -> None:
        now = asyncio.get_running_loop().time
        pacer = Pacer(Limits(), grown=lambda level: levels.append((now(), level)))
        levels.append((now(), pacer.concurrency))
        await work_off(pacer, Endpoint(varies=0.0), 20.0)

    in_virtual_time(main())
    assert levels[-1][1] >= 400
    for (earlier, low), (later, high) in pairwise(levels):
        assert later - earlier >= 0.02
        assert high <= low + max(1, low // 8)


@pytest.mark.parametrize("latency_s", [1.0, 20.0])
def test_without_a_limit_the_level_rises(latency_s: float) -> None:
    endpoint = Endpoint(latency_s=latency_s)
    run(endpoint, Limits(), seconds=40 * latency_s + 20)
    assert endpoint.most_in_flight >= 400


def test_where_more_at_a_time_brings_nothing_the_level_stays_low() -> None:
    class Slots(Endpoint):
        """Works on 80 at a time; the others wait in a queue."""

        async def call(self, tokens: float) -> None:
            async with slots:
                await super().call(tokens)

    endpoint = Slots(latency_s=1.0)
    slots = asyncio.Semaphore(80)
    levels: list[int] = []
    run(endpoint, then=lambda pacer: levels.append(pacer.concurrency))
    assert levels[0] <= 200
    assert len(endpoint.accepted) >= 0.95 * 80 * 60 * MINUTES


def test_a_lone_refusal_is_no_limit() -> None:
    class Moody(Endpoint):
        """Refuses one of fifty for no reason."""

        async def call(self, tokens: float) -> None:
            if self.rng.random() < 0.02:
                self.calls += 1
                self.refused["moody"] += 1
                raise EndpointError(ErrorKind.RATE_LIMITED, "slow down")
            await super().call(tokens)

    moody, calm = Moody(latency_s=2.0), Endpoint(latency_s=2.0)
    limits = Limits(concurrency=50)
    done = run(moody, limits)
    run(calm, limits)
    assert done.failures == 0
    assert len(moody.accepted) >= 0.9 * len(calm.accepted)


@pytest.mark.parametrize("kind", [ErrorKind.SERVER_ERROR, ErrorKind.NETWORK, ErrorKind.RATE_LIMITED])
def test_an_outage_costs_no_item_and_few_calls_and_ends_soon(kind: ErrorKind) -> None:
    endpoint = Endpoint(down=(60.0, 120.0), down_as=kind, latency_s=1.0)
    done = run(endpoint, Limits(concurrency=50), seconds=150)
    assert done.failures == 0
    assert endpoint.refused["down"] <= 120
    before = sum(at < 60 for at, _ in endpoint.accepted) / 60
    share = 0.8 if kind is ErrorKind.RATE_LIMITED else 0.9
    assert sum(130 <= at < 140 for at, _ in endpoint.accepted) / 10 >= share * before


@pytest.mark.parametrize("seconds", [0.5, 2.5, 5.0])
def test_one_item_at_a_time_gets_going_again_after_a_time_of_refusals(seconds: float) -> None:
    endpoint = Endpoint(down=(0.1, 0.1 + seconds), down_as=ErrorKind.RATE_LIMITED, latency_s=0.02)
    done = run(endpoint, Limits(concurrency=1), seconds=60)
    assert done.failures == 0
    assert sum(at >= 30 for at, _ in endpoint.accepted) >= 0.9 * 30 / 0.02


def test_many_errors_that_are_no_outage_neither_stop_nor_slow_a_run() -> None:
    class Shaky(Endpoint):
        """Fails one of five."""

        async def call(self, tokens: float) -> None:
            if self.rng.random() < 0.2:
                self.calls += 1
                raise EndpointError(ErrorKind.SERVER_ERROR, "shaky")
            await super().call(tokens)

    endpoint = Shaky(latency_s=2.0)
    run(endpoint, Limits(concurrency=50))
    assert len(endpoint.accepted) >= 0.9 * 50 / 2.0 * 60 * MINUTES


def test_what_an_earlier_run_found_is_where_the_next_one_begins() -> None:
    found: list[Found] = []
    run(Endpoint(requests=600), then=lambda pacer: found.append(pacer.found))
    assert found[0].requests_per_minute == pytest.approx(600, rel=0.1)
    endpoint = Endpoint(requests=600)
    run(endpoint, Limits(found=found[0]))
    assert sum(at < 10 for at, _ in endpoint.accepted) <= 150, "no burst at first"
    assert len(endpoint.accepted) >= 0.9 * 600 * MINUTES
    assert endpoint.refused["requests"] <= 0.02 * endpoint.calls


def test_a_limit_that_the_headers_tell_is_kept_before_anything_is_refused() -> None:
    class Telling(Endpoint):
        """Tells its limit with every answer."""

        async def call(self, tokens: float) -> None:
            await super().call(tokens)
            pacers[0].take_quota(QuotaLevel("requests", 600.0))

    endpoint, pacers = Telling(requests=600), []

    async def main() -> None:
        pacers.append(Pacer(Limits()))
        await work_off(pacers[0], endpoint, 300.0)

    in_virtual_time(main())
    assert endpoint.refused["requests"] <= 0.005 * endpoint.calls
    assert len(endpoint.accepted) >= 0.97 * 600 * MINUTES


def test_a_slow_start_where_the_endpoint_has_a_burst_limit() -> None:
    endpoint = Endpoint()
    run(endpoint, Limits(concurrency=100), seconds=60, has_burst_limit=True)
    by_second = [sum(second <= at < second + 1 for at, _ in endpoint.accepted) for second in range(60)]
    assert by_second[0] <= 3
    assert all(later <= 2 * earlier + 3 for earlier, later in zip(by_second, by_second[5:], strict=False))
    assert by_second[55] >= 450


@pytest.mark.parametrize(("length_s", "unit"), [(1.0, "second"), (60.0, "minute"), (86400.0, "day")])
@pytest.mark.parametrize("tokens", [False, True])
def test_no_window_of_any_length_sees_more_than_was_told(length_s: float, unit: str, tokens: bool) -> None:
    what, most = ("tokens", 5_000.0) if tokens else ("requests", 20.0)
    limits = Limits(concurrency=50, **{f"{what}_per_{unit}": most})
    endpoint = Endpoint(latency_s=1.0)

    async def main() -> None:
        pacer = Pacer(limits, wall=lambda: asyncio.get_running_loop().time() + 1e9)
        loop = asyncio.get_running_loop()

        async def one() -> None:
            ticket = await pacer.admit(500.0)
            endpoint.accepted.append((loop.time(), 500.0))
            await asyncio.sleep(1.0)
            pacer.succeeded(ticket, 500.0)
            pacer.release(ticket)

        running = [asyncio.create_task(one()) for _ in range(200)]
        await asyncio.wait(running, timeout=8 * length_s)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    in_virtual_time(main())
    assert in_any(endpoint.accepted, length_s * 0.999, tokens=tokens) <= most
    if unit != "day":
        assert in_any(endpoint.accepted, length_s * 7, tokens=tokens) >= 6 * most


def test_a_daily_limit_that_is_used_up_is_said_and_not_waited_for() -> None:
    async def main() -> None:
        pacer = Pacer(Limits(concurrency=5, requests_per_day=3))
        for _ in range(3):
            pacer.release(await pacer.admit())
        with pytest.raises(UsedUpError, match=r"requests_per_day = 3 is used up; there is room again in 24\.\d hours"):
            await pacer.admit()

    in_virtual_time(main())


def test_a_named_limit_is_kept_at_once() -> None:
    async def main() -> Found:
        pacer = Pacer(Limits())
        ticket = await pacer.admit()
        error = EndpointError(ErrorKind.RATE_LIMITED, "max RPM: 60")
        error.cause, error.limit = RateCause.REQUESTS, 60
        pacer.failed(ticket, error, Record())
        pacer.release(ticket)
        return pacer.found

    assert in_virtual_time(main()).requests_per_minute == 60
