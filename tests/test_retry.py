from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtual import in_virtual_time

from batchrun.job import Retry
from batchrun.pace import Limits, Pacer, Stopping
from batchrun.records import TRANSIENT_KINDS, EndpointError, ErrorKind, Provider, Response
from batchrun.retry import Retries

ANSWER = Response("ok", None, "stop", "m", None, Provider(200, {}, b"{}"))
HOPELESS = sorted(set(ErrorKind) - TRANSIENT_KINDS - {ErrorKind.EMPTY_OUTPUT})


def error(kind: ErrorKind = ErrorKind.SERVER_ERROR, retry_after_s: float | None = None) -> EndpointError:
    return EndpointError(kind, "it failed", retry_after_s=retry_after_s)


def retries(sleep: Callable[..., object] = asyncio.sleep, seed: int = 1, **settings: float) -> Retries:
    return Retries(Retry(**settings), random.Random(seed), sleep)  # type: ignore[arg-type]


class Endpoint:
    """Raises the given errors, one an attempt, then answers; knows when it was asked."""

    def __init__(self, *errors: EndpointError, lasts: float = 0.0) -> None:
        self.errors = list(errors)
        self.asked: list[float] = []
        self.waits: list[float] = []
        self.lasts = lasts

    async def attempt(self) -> Response:
        self.asked.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.lasts)
        if self.errors:
            raise self.errors.pop(0)
        return ANSWER

    async def run(self, policy: Retries, first: EndpointError | None = None) -> Response:
        return await policy.run(
            self.attempt, first, waiting=lambda seconds, _: self.waits.append(seconds), started_at=0.0
        )


def failing(endpoint: Endpoint, policy: Retries, first: EndpointError | None = None) -> EndpointError:
    async def main() -> EndpointError:
        with pytest.raises(EndpointError) as caught:
            await endpoint.run(policy, first)
        return caught.value

    return in_virtual_time(main())


@given(st.integers(1, 2000), st.integers(0, 10**6))
def test_backoff_doubles_to_its_ceiling_with_jitter_in_its_upper_half(attempt: int, seed: int) -> None:
    wait = retries(seed=seed, wait_initial=0.5, wait_max=40.0).wait_s(error(), attempt)
    ceiling = min(40.0, 0.5 * 2.0 ** min(attempt - 1, 100))
    assert ceiling / 2 <= wait <= ceiling


def test_jitter_spreads() -> None:
    waits = {round(retries(seed=seed).wait_s(error(), 3), 3) for seed in range(100)}
    assert len(waits) > 80


@given(st.floats(0.001, 300), st.integers(1, 20), st.integers(0, 1000))
def test_a_wait_is_never_less_than_the_server_asked_for_nor_less_than_the_backoff(
    asked: float, attempt: int, seed: int
) -> None:
    wait = retries(seed=seed, wait_initial=1.0, wait_max=8.0).wait_s(error(retry_after_s=asked), attempt)
    ceiling = min(8.0, 2.0 ** (attempt - 1))
    assert max(asked, ceiling / 2) <= wait <= max(asked + 1, ceiling)


def test_attempts_are_as_many_as_allowed_and_the_last_error_counts() -> None:
    errors = [error() for _ in range(9)]
    last = errors[3]
    endpoint = Endpoint(*errors)
    assert failing(endpoint, retries(max_attempts=4)) is last
    assert len(endpoint.asked) == 4


def test_an_attempt_that_was_made_already_counts() -> None:
    endpoint = Endpoint(*(error() for _ in range(9)))
    failing(endpoint, retries(max_attempts=4), error())
    assert len(endpoint.asked) == 3
    assert endpoint.asked[0] >= 0.5  # not before the first one's wait


def test_the_time_between_attempts_is_the_wait_that_was_told() -> None:
    async def main() -> Endpoint:
        endpoint = Endpoint(error(), error(retry_after_s=90), error())
        assert await endpoint.run(retries()) is ANSWER
        return endpoint

    endpoint = in_virtual_time(main())
    gaps = [later - earlier for earlier, later in zip(endpoint.asked, endpoint.asked[1:], strict=False)]
    assert gaps == pytest.approx(endpoint.waits, abs=1e-3)
    assert 90 <= gaps[1] <= 91
    assert gaps[0] <= 1
    assert 2 <= gaps[2] <= 4


@pytest.mark.parametrize("kind", HOPELESS)
def test_what_cannot_succeed_is_not_repeated(kind: ErrorKind) -> None:
    endpoint = Endpoint(error(kind), error(kind))
    assert failing(endpoint, retries()).kind is kind
    assert len(endpoint.asked) == 1
    assert not retries().worthwhile(error(kind), 1)


@pytest.mark.parametrize("kind", sorted(TRANSIENT_KINDS))
def test_what_may_pass_is_repeated(kind: ErrorKind) -> None:
    async def main() -> Endpoint:
        endpoint = Endpoint(error(kind), error(kind))
        await endpoint.run(retries())
        return endpoint

    assert len(in_virtual_time(main()).asked) == 3


def test_an_empty_output_is_asked_for_three_times_in_all() -> None:
    endpoint = Endpoint(*(error(ErrorKind.EMPTY_OUTPUT) for _ in range(9)))
    assert failing(endpoint, retries()).kind is ErrorKind.EMPTY_OUTPUT
    assert len(endpoint.asked) == 3


def test_other_failures_do_not_count_as_empty_outputs() -> None:
    endpoint = Endpoint(*(error() for _ in range(3)), *(error(ErrorKind.EMPTY_OUTPUT) for _ in range(9)))
    assert failing(endpoint, retries(max_attempts=9)).kind is ErrorKind.EMPTY_OUTPUT
    assert len(endpoint.asked) == 6


def test_one_attempt_allowed_is_one_attempt_made() -> None:
    endpoint = Endpoint(error(), error())
    failing(endpoint, retries(max_attempts=1))
    assert len(endpoint.asked) == 1
    assert endpoint.waits == []


def test_no_attempt_begins_after_the_items_time() -> None:
    endpoint = Endpoint(*(error() for _ in range(99)), lasts=10.0)
    failing(endpoint, retries(max_attempts=99, item_timeout=60.0, wait_max=5.0))
    assert endpoint.asked[-1] <= 60
    assert 4 <= len(endpoint.asked) <= 7


def test_a_wait_beyond_the_items_time_ends_it_at_once() -> None:
    endpoint = Endpoint(error(ErrorKind.RATE_LIMITED, retry_after_s=300), error())
    assert failing(endpoint, retries(item_timeout=100.0)).kind is ErrorKind.RATE_LIMITED
    assert len(endpoint.asked) == 1


def test_other_exceptions_go_through() -> None:
    async def broken() -> Response:
        raise ZeroDivisionError

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await retries().run(broken, None, waiting=lambda *_: None, started_at=0.0)

    in_virtual_time(main())


def test_a_stop_ends_the_wait_at_once() -> None:
    async def main() -> float:
        pacer = Pacer(Limits(1))
        endpoint = Endpoint(error(retry_after_s=300))
        asyncio.get_running_loop().call_later(2.0, pacer.stop)
        with pytest.raises(Stopping):
            await endpoint.run(retries(pacer.sleep))
        return asyncio.get_running_loop().time()

    assert in_virtual_time(main()) == pytest.approx(2.0, abs=0.01)


def test_an_item_that_waits_holds_no_slot() -> None:
    async def main() -> list[str]:
        pacer = Pacer(Limits(1))
        order: list[str] = []
        errors = [error(retry_after_s=60)]

        async def attempt(name: str) -> Response:
            ticket = await pacer.admit()
            try:
                order.append(name)
                await asyncio.sleep(1)
                if name == "slow" and errors:
                    raise errors.pop()
                return ANSWER
            finally:
                pacer.release(ticket)

        policy = retries(pacer.sleep)
        slow = policy.run(lambda: attempt("slow"), None, waiting=lambda *_: None, started_at=0.0)
        await asyncio.gather(slow, *(attempt(f"other {n}") for n in range(5)))
        return order

    assert in_virtual_time(main()) == ["slow", *(f"other {n}" for n in range(5)), "slow"]
