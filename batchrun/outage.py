"""The lookout: sees when the endpoint is down or silent, tries it with single requests, and ends the wait."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from batchrun.pace import Stopping
from batchrun.records import EndpointError, ErrorKind
from batchrun.summary import Stop, StopCause

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchrun.endpoint.client import Client
    from batchrun.endpoint.compile import Compiler, Way
    from batchrun.pace import Pacer
    from batchrun.records import Request, Usage
    from batchrun.summary import Tally

_LOOKS_S = 0.25
#: Nothing heard for so long, and for so many times the longest answer, with so many requests in flight, is suspect.
_SILENT_S = 10.0
_SILENT_TIMES = 3.0
_SILENT_IN_FLIGHT = 4
#: What was in flight in a time of silence is given up once it is that old and the endpoint answers others.
_DEAD_S, _DEAD_TIMES = 30.0, 10.0
#: A trial that was not answered after so long, or so many times the longest answer, is given up.
_TRIAL_S = 30.0
_MOST_TRIALS = 16
#: Who is refused has been refused all along if the last refusal is no older than this.
_LATELY_S = 120.0


class Lookout:
    """Watches one run's endpoint. `stop` ends the run, `count` takes the tokens that trials cost.

    A trial asks with what the job asks for and nothing of an item, so that no item can be at fault. Any answer that is
    not another sign of an outage ends it.
    """

    def __init__(
        self, client: Client, pacer: Pacer, compiler: Compiler, tally: Tally, max_outage_s: float,
        stop: Callable[[Stop], None], count: Callable[[Usage | None], None],
    ) -> None:  # fmt: skip
        self._client, self._pacer, self._compiler = client, pacer, compiler
        self._tally, self._max_outage_s, self._stop, self._count = tally, max_outage_s, stop, count
        self._last: tuple[Request, Way] | None = None
        self._trials: set[asyncio.Task[None]] = set()
        self._kind = ErrorKind.NETWORK
        self._broken: BaseException | None = None
        #: Calls that were sent before this time and are silent still are given up.
        self._dead_before: float | None = None
        self._now = asyncio.get_running_loop().time

    def sees(self, request: Request, way: Way) -> None:
        """Remember how the job asks."""
        self._last = request, way

    async def watch(self) -> None:
        """Look on until the run stops."""
        try:
            while True:
                await self._pacer.sleep(_LOOKS_S)
                self._look()
        except Stopping:
            return
        finally:
            for trial in self._trials:
                trial.cancel()

    def _look(self) -> None:
        if self._broken is not None:
            raise self._broken
        now, pacer = self._now(), self._pacer
        pacer.look()
        breaker = pacer.breaker
        if breaker.down_since is None:
            self._look_for_silence(now)
            if not self._trials:
                self._look_for_trial()
        elif breaker.lasts(now) > self._max_outage_s:
            words = f"the endpoint has been down for {breaker.lasts(now):.0f} s (retry.max_outage): {breaker.why}"
            self._stop(Stop(StopCause.ENDPOINT, words, self._kind))
        elif len(self._trials) < _MOST_TRIALS:
            self._look_for_trial()
        since, last = pacer.refused
        if since is not None and now - since > self._max_outage_s and now - last < _LATELY_S:
            words = f"the endpoint has refused everything for {now - since:.0f} s (retry.max_outage)"
            self._stop(Stop(StopCause.ENDPOINT, words, ErrorKind.RATE_LIMITED))

    def _look_for_trial(self) -> None:
        if self._last is not None and self._pacer.takes_trial():
            trial = asyncio.create_task(self._try(*self._last))
            self._trials.add(trial)
            trial.add_done_callback(self._trial_ended)

    def _trial_ended(self, trial: asyncio.Task[None]) -> None:
        self._trials.discard(trial)
        if not trial.cancelled() and trial.exception() is not None:
            self._broken = trial.exception()

    def _look_for_silence(self, now: float) -> None:
        pacer = self._pacer
        longest_s = _SILENT_TIMES * pacer.longest_s
        if self._dead_before is not None and pacer.is_full:
            # Nothing goes any more, because of calls whose answers are not to be expected.
            self._client.abandon(min(self._dead_before, now - max(_DEAD_S, _DEAD_TIMES * pacer.longest_s)))
        silent_s = now - max(pacer.last_answer_at, self._client.heard_at)
        if longest_s and pacer.in_flight >= _SILENT_IN_FLIGHT and silent_s > max(_SILENT_S, longest_s):
            self._kind = ErrorKind.TIMEOUT
            self._dead_before = now
            pacer.suspect(f"no answer for {silent_s:.0f} s, with {pacer.in_flight} requests in flight")

    async def _try(self, request: Request, way: Way) -> None:
        """Send one trial request; if it is answered, let everybody go again."""
        breaker = self._pacer.breaker
        sent_at = self._now()
        self._tally.attempts += 1
        self._tally.trials += 1
        try:
            async with asyncio.timeout(max(_TRIAL_S, _SILENT_TIMES * self._pacer.longest_s)):
                response = await self._client.chat(self._compiler.greeting(request, way))
        except TimeoutError:
            self._tally.failed_attempts[ErrorKind.TIMEOUT.value] += 1
            self._failed(ErrorKind.TIMEOUT, "a trial request was not answered")
            return
        except EndpointError as error:
            self._tally.failed_attempts[error.kind.value] += 1
            self._count(error.usage)
            if self._pacer.is_down(error):
                self._failed(error.kind, error.message)
                if error.retry_after_s is not None:
                    breaker.not_before(self._now() + min(error.retry_after_s, 60.0))
                return
        else:
            self._count(response.usage)
        breaker.vouched(sent_at)
        if breaker.down_since is not None and not breaker.is_half_open:
            self._pacer.recovered()
            for trial in self._trials:  # those that went into the silence
                if trial is not asyncio.current_task():
                    trial.cancel()

    def _failed(self, kind: ErrorKind, why: str) -> None:
        self._kind = kind
        self._pacer.trial_failed(why)
