from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual import in_virtual_time

from batchrun.pace import Limits, Pacer, Stopping


def told(concurrency: int, requests: float | None = None, tokens: float | None = None) -> Pacer:
    """Give a pacer that is told the concurrency, requests and tokens a minute."""
    return Pacer(Limits(concurrency, requests, tokens))


async def send(pacer: Pacer, sent: list[float], lasts: float = 0.0) -> None:
    ticket = await pacer.admit()
    sent.append(asyncio.get_running_loop().time())
    await asyncio.sleep(lasts)
    pacer.succeeded(ticket)
    pacer.release(ticket)


def test_concurrency_is_reached_and_never_exceeded() -> None:
    async def main() -> list[float]:
        pacer, sent = told(3), []
        await asyncio.gather(*(send(pacer, sent, 1.0) for _ in range(10)))
        return sent

    assert in_virtual_time(main()) == pytest.approx([0, 0, 0, 1, 1, 1, 2, 2, 2, 3])


def test_requests_a_minute_are_spread_evenly() -> None:
    async def main() -> list[float]:
        pacer, sent = told(10, 30), []
        await asyncio.gather(*(send(pacer, sent, 5.0) for _ in range(5)))
        return sent

    # A thousandth of the limit is left unused, because what leaves evenly arrives a little unevenly.
    assert in_virtual_time(main()) == pytest.approx([0, 2, 4, 6, 8], rel=0.002)


@settings(max_examples=60, deadline=None)
@given(
    per_minute=st.integers(1, 600),
    concurrency=st.integers(1, 20),
    requests=st.lists(st.tuples(st.floats(0, 200), st.floats(0, 5)), min_size=2, max_size=40),
    pauses=st.lists(st.tuples(st.floats(0, 200), st.floats(0.1, 90)), max_size=3),
)
def test_no_window_ever_holds_more_than_its_share(
    per_minute: int, concurrency: int, requests: list[tuple[float, float]], pauses: list[tuple[float, float]]
) -> None:
    async def main() -> list[float]:
        pacer, sent = told(concurrency, per_minute), []
        loop = asyncio.get_running_loop()
        for at, seconds in pauses:
            loop.call_at(at, pacer.pause, seconds)

        async def one(after: float, lasts: float) -> None:
            await asyncio.sleep(after)
            await send(pacer, sent, lasts)

        await asyncio.gather(*(one(after, lasts) for after, lasts in requests))
        return sent

    sent = in_virtual_time(main())
    assert len(sent) == len(requests)
    # Requests that are never nearer than this cannot be too many in a window of any length.
    assert all(later - earlier >= 60 / per_minute - 1e-3 for earlier, later in pairwise(sent))
    for at, seconds in pauses:
        # The resolution of the virtual clock: a request of the very moment at which the pause begins may go.
        assert not [moment for moment in sent if at + 1e-3 < moment < at + seconds - 1e-3]


def test_a_pause_holds_everybody_and_a_shorter_one_does_not_end_it() -> None:
    async def main() -> tuple[list[float], float]:
        pacer, sent = told(4), []
        pacer.pause(10.0)
        pacer.pause(2.0)
        left = pacer.paused_for()
        await asyncio.gather(*(send(pacer, sent) for _ in range(8)))
        return sent, left

    sent, left = in_virtual_time(main())
    assert left == pytest.approx(10)
    assert sent == pytest.approx([10.0] * 8)


def test_a_pause_that_comes_while_others_wait_for_their_moment_holds_them_too() -> None:
    async def main() -> list[float]:
        pacer, sent = told(8, 60), []
        asyncio.get_running_loop().call_later(1.5, pacer.pause, 20.0)
        await asyncio.gather(*(send(pacer, sent) for _ in range(6)))
        return sent

    sent = in_virtual_time(main())
    assert sent[:2] == pytest.approx([0, 1], rel=0.002)
    assert min(sent[2:]) >= 21.5 - 1e-3
    assert all(later - earlier >= 1 - 1e-3 for earlier, later in pairwise(sent[2:]))


def test_stop_wakes_at_once_whoever_waits() -> None:
    async def main() -> list[tuple[type[BaseException], float]]:
        loop = asyncio.get_running_loop()
        pacer = told(2, 1)
        pacer.pause(3600)
        waiting = [pacer.admit(), pacer.admit(), pacer.admit(), pacer.sleep(3600), pacer.sleep(86400)]
        loop.call_later(1.0, pacer.stop)

        async def ended(one: object) -> tuple[type[BaseException], float]:
            try:
                await one  # type: ignore[misc]
            except Stopping as error:
                return type(error), loop.time()
            raise AssertionError("it went")

        return await asyncio.gather(*map(ended, waiting))

    for kind, at in in_virtual_time(main()):
        assert kind is Stopping
        assert at == pytest.approx(1.0, abs=0.01)


def test_nobody_goes_after_a_stop_and_every_slot_comes_back() -> None:
    async def main() -> None:
        pacer = told(1)
        pacer.stop()
        for _ in range(3):  # a slot that stayed taken would make the second call wait for ever
            with pytest.raises(Stopping):
                await asyncio.wait_for(pacer.admit(), 1)
        with pytest.raises(Stopping):
            await pacer.sleep(0)

    in_virtual_time(main())


def test_one_who_gives_up_waiting_holds_no_slot() -> None:
    async def main() -> list[float]:
        pacer, sent = told(1), []
        pacer.pause(100)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pacer.admit(), 5)
        await send(pacer, sent)
        return sent

    assert in_virtual_time(main()) == pytest.approx([100])


# --- tokens ---------------------------------------------------------------------------------------------------------


def in_any_minute(sent: list[tuple[float, float]]) -> float:
    """Give the most that any minute saw of what was sent: times and amounts."""
    return max(sum(amount for at, amount in sent if start <= at < start + 59.999) for start, _ in sent)


async def spend(pacer: Pacer, sent: list[tuple[float, float]], tokens: float, lasts: float, used: float | None) -> None:
    ticket = await pacer.admit(tokens)
    sent.append((asyncio.get_running_loop().time(), tokens))
    await asyncio.sleep(lasts)
    pacer.succeeded(ticket, used)
    pacer.release(ticket)


@settings(max_examples=80, deadline=None)
@given(
    per_minute=st.integers(100, 100_000),
    concurrency=st.integers(1, 20),
    shares=st.lists(st.tuples(st.floats(0.0005, 1.5), st.floats(0, 5), st.floats(0, 200)), min_size=2, max_size=60),
    requests=st.none() | st.integers(5, 600),
)
def test_no_minute_ever_sees_more_tokens_than_the_limit(
    per_minute: int, concurrency: int, shares: list[tuple[float, float, float]], requests: int | None
) -> None:
    async def main() -> list[tuple[float, float]]:
        pacer, sent = told(concurrency, requests, per_minute), []

        async def one(share: float, lasts: float, after: float) -> None:
            await asyncio.sleep(after)
            await spend(pacer, sent, min(share, 0.99) * per_minute, lasts, None)

        await asyncio.gather(*(one(*each) for each in shares))
        return sent

    sent = in_virtual_time(main())
    assert len(sent) == len(shares)
    assert in_any_minute(sent) <= per_minute
    if requests:
        assert in_any_minute([(at, 1) for at, _ in sent]) <= requests


def test_the_limit_is_used_in_full_and_evenly_from_the_first_second() -> None:
    async def main() -> list[tuple[float, float]]:
        pacer, sent = told(50, None, 60_000), []
        async with asyncio.TaskGroup() as group:
            for _ in range(3000):
                group.create_task(spend(pacer, sent, 100.0, 3.0, 100.0))
        return sent

    sent = in_virtual_time(main())
    hours = sent[-1][0] / 3600
    assert 300_000 / (hours * 3_600_000) > 0.998
    for second in range(0, 300, 10):
        assert sum(amount for at, amount in sent if second <= at < second + 1) <= 1100


def test_what_an_answer_really_took_corrects_what_was_reserved() -> None:
    async def main(used: float | None) -> float:
        pacer, sent = told(4, None, 60_000), []
        async with asyncio.TaskGroup() as group:
            for _ in range(300):
                group.create_task(spend(pacer, sent, 1000.0, 0.5, used))
        return sent[-1][0]

    reserved, settled, over = (in_virtual_time(main(used)) for used in (None, 200.0, 3000.0))
    assert reserved == pytest.approx(300, rel=0.01)
    assert settled < 160
    assert over > 850


def test_a_large_request_is_not_overtaken_for_ever() -> None:
    async def main() -> list[tuple[float, float]]:
        pacer, sent = told(100, None, 6_000), []
        async with asyncio.TaskGroup() as group:
            for number in range(61):
                group.create_task(spend(pacer, sent, 900.0 if number == 1 else 100.0, 0.1, None))
                await asyncio.sleep(0)
        return sent

    sent = in_virtual_time(main())
    assert [amount for _, amount in sent][:3] == [100.0, 900.0, 100.0]
    assert sent[1][0] <= 2.0


def test_more_than_a_minute_has_goes_alone_and_not_never() -> None:
    async def main() -> list[tuple[float, float]]:
        pacer, sent = told(4, None, 1_000), []
        for tokens in (100.0, 5_000.0, 100.0):
            await spend(pacer, sent, tokens, 0.0, None)
        return sent

    times = [at for at, _ in in_virtual_time(main())]
    assert times[1] - times[0] == pytest.approx(60, abs=0.2)
    assert times[2] - times[1] == pytest.approx(300, rel=0.01), "it is paid for in full"


def test_who_waits_for_tokens_hears_of_the_end() -> None:
    async def main() -> None:
        pacer, sent = told(4, None, 60), []
        await spend(pacer, sent, 60.0, 0.0, None)
        waiting = asyncio.create_task(pacer.admit(60.0))
        await asyncio.sleep(1.0)
        pacer.stop()
        with pytest.raises(Stopping):
            await waiting

    in_virtual_time(main())
