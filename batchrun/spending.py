"""Money: what a run may spend is reserved before a request leaves, and settled when it ends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from batchrun.pace import Stopping
from batchrun.records import EndpointError, ErrorKind, Usage
from batchrun.summary import Stop, StopCause, cost_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from batchrun.estimate import TokenEstimate
    from batchrun.job import Price
    from batchrun.records import Request
    from batchrun.summary import Tally

T = TypeVar("T")

#: How an attempt can end of which the provider says no usage and which it may bill all the same.
_MAYBE_BILLED = frozenset({ErrorKind.TIMEOUT, ErrorKind.NETWORK, ErrorKind.INVALID_RESPONSE})


@dataclass(slots=True)
class Reservation:
    """What a request in flight may cost at most, in the price's currency; `likely` if nobody says what it did cost."""

    most: float
    likely: float


class Spending:
    """Keeps one run from spending more than `most`, which counts what is in flight with what it may cost at most.

    That is a bound as far as requests say how long their answers may be (`max_tokens`); where they do not, twice the
    longest answer so far is taken for one. What ended without a word of its usage counts with what it likely cost.
    `stop` is called when the next request does not fit any more.
    """

    def __init__(
        self, most: float, price: Price, estimate: TokenEstimate, tally: Tally, stop: Callable[[Stop], None]
    ) -> None:
        self._most, self._price, self._estimate, self._tally, self._stop = most, price, estimate, tally, stop
        self._reserved = self.unsaid = 0.0
        #: Calls that ended without a word of their usage, though they may be billed.
        self.unsaid_calls = 0
        self._in_flight = 0
        #: Held by the one that is next, so that the others keep their order.
        self._next = asyncio.Lock()
        self._changed = asyncio.Event()
        self._over = False

    @property
    def spent(self) -> float:
        """What was spent so far, with what may have been."""
        return cost_of(self._tally.usage, self._price) + self.unsaid

    def tell_most(self, most: float) -> None:
        """Let no more than this be spent from now on, what was spent already included."""
        self._most = most
        self._changed.set()

    async def reserve(self, request: Request) -> Reservation:
        """Wait until a request fits. Raises `Stopping` if it never will, or when the run stops."""
        if not self._next.locked() and (taken := self.takes(request)) is not None:
            return taken
        async with self._next:
            while not self._over:
                taken = self.takes(request)
                if taken is not None:
                    return taken
                if not self._in_flight:
                    self._give_up(request)
                    break
                self._changed.clear()
                await self._changed.wait()
        raise Stopping

    def takes(self, request: Request) -> Reservation | None:
        """Reserve for a request that does not wait; None if it does not fit now."""
        reservation = self._reservation(request)
        if self._over or self.spent + self._reserved + reservation.most > self._most:
            return None
        self._reserved += reservation.most
        self._in_flight += 1
        return reservation

    async def pays(self, request: Request, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call when it fits, and settle it when it ends."""
        reservation = await self.reserve(request)
        failed = None
        try:
            return await call()
        except EndpointError as error:
            failed = error
            raise
        finally:
            self._settle(reservation, failed)

    def hedges(self, request: Request) -> bool:
        """Pay for a second call of a request beside the first; one of the two will never say what it took."""
        reservation = self.takes(request)
        if reservation is None:
            return False
        self._settle(reservation)
        self._count_unsaid(reservation)
        return True

    def _settle(self, reservation: Reservation, error: EndpointError | None = None) -> None:
        """Give back what was reserved; the run's tally has the usage, if any, already."""
        self._reserved -= reservation.most
        self._in_flight -= 1
        if error is not None and error.usage is None and error.kind in _MAYBE_BILLED and not error.unreachable:
            self._count_unsaid(reservation)
        self._changed.set()

    def _count_unsaid(self, reservation: Reservation) -> None:
        self.unsaid += reservation.likely
        self.unsaid_calls += 1

    def close(self) -> None:
        """Let nobody wait any more: the run stops."""
        self._over = True
        self._changed.set()

    def _reservation(self, request: Request) -> Reservation:
        prompt, answer = self._estimate.most(request)
        likely = self._estimate.prompt(request), min(answer, self._estimate.answer(request))
        return Reservation(self._cost(prompt, answer), self._cost(*likely))

    def _cost(self, prompt: float, answer: float) -> float:
        """Give what tokens cost if none of the input was cached."""
        return cost_of(Usage(round(prompt), round(answer)), self._price)

    def _give_up(self, request: Request) -> None:
        currency = self._price.currency
        words = (
            f"the next request may cost {self._reservation(request).most:.4g} {currency}, and {self.spent:.4g} of "
            f"{self._most:g} {currency} are spent (budget.max_cost)"
        )
        if not self.spent:
            words += "; no run can send anything so: raise it, or bound the answers by max_tokens"
        self._stop(Stop(StopCause.MAX_COST, words))
