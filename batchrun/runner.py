"""The runner: wires the seven steps of a record's way for one job."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from batchrun.canary import Canary
from batchrun.control import Control
from batchrun.endpoint.client import Client
from batchrun.endpoint.compile import Way
from batchrun.endpoint.target import target_of
from batchrun.estimate import TokenEstimate
from batchrun.expect import Percent
from batchrun.feed import Feed, in_thread
from batchrun.forecast import Forecast
from batchrun.guard import comparing, guard_of
from batchrun.items import ItemReader
from batchrun.knowledge import Knowledge
from batchrun.lines import InputError, count_items, expand_inputs
from batchrun.manifest import Manifest
from batchrun.outage import Lookout
from batchrun.output import Judge, Schema, Verdict
from batchrun.pace import Stopping, UsedUpError
from batchrun.pacing import open_pacer
from batchrun.prompts import RequestBuilder, accepted_builders, made_from, recipe_of
from batchrun.rate import Rate
from batchrun.records import (
    RESTORED,
    RUN_KINDS,
    TRANSIENT_KINDS,
    EndpointError,
    ErrorKind,
    Failure,
    Item,
    Request,
    Response,
    Result,
    Usage,
    utc_now,
)
from batchrun.rehearsal import embedded_simulator
from batchrun.retry import Retries
from batchrun.selection import FromInput, FromQueue, OnChange, Selection
from batchrun.sending import JobRefusedError, Observer, Sender, Work
from batchrun.settings import environment, exposed, read_key, resolve
from batchrun.spending import Spending
from batchrun.store import RunDirectory, StoreError
from batchrun.summary import InFlight, Snapshot, Stop, StopCause, Summary, Tally, cost_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchrun.items import InputFile
    from batchrun.job import Job
    from batchrun.requeue import RetryPlan

#: After a stop, calls in flight have this long to end; their items stay pending if they do not.
DRAIN_S = 30.0
#: Items that wait for their next attempt; beyond them no new ones are taken up.
_WAITING_ROOM = 1024
_COUNT_REST_S = 5.0
_COUNT_REST_HURRIED_S = 0.3
#: Workers start one after the other. Sent all at once, requests come back all at once, for ever after, and wait.
_START_STEP_S = 0.0004
#: Where it is not known how an endpoint takes such requests, the others wait for the first answer, so long at most,
#: or until so many items were refused for reasons of their own.
_CANARY_PATIENCE_S = 10.0
_CANARIES = 5
_MIN_SAMPLE = 20
_SLOWEST_SHOWN = 3
#: Judging longer texts than this may take longer than the event loop should be held up.
_LONG_CHARS = 5_000
#: Looking through longer items than this may, too.
_LONG_ITEM_BYTES = 50_000
#: So many different warnings are counted each by itself.
_MAX_WARNINGS = 50


class Runner:
    """Runs one job once. Raises `JobError`, `LockedError` or `StoreError`; every other ending is in the summary."""

    def __init__(
        self, job: Job, observer: Observer, *, limit: int | None = None, on_change: OnChange = "error",
        retry: RetryPlan | None = None, rng: random.Random | None = None,
    ) -> None:  # fmt: skip
        variables = environment(job)
        job = resolve(job, variables)
        self._target = target_of(job)
        self.job = job = replace(job, retry=self._target.retry)
        self._key = read_key(job.endpoint, variables)
        self._exposed = exposed(job)
        self._observer = observer
        self._limit = limit
        self._rng = rng or random.Random()
        self._schema = Schema.of(job.structured)
        schema = self._schema.text if self._schema else None
        self._on_change: OnChange = on_change
        self._retry = retry
        changed = retry.changed if retry else None
        self._knowledge = Knowledge(job, self._target, schema, variables, changed)
        #: Fits requests to the endpoint.
        self._compiler = compiler = self._knowledge.compiler
        #: Makes the requests by which items are compared: those of the job as it stands, whatever the endpoint takes.
        self._guard = guard_of(job, schema, changed)
        self._comparing = comparing(job)
        self._own_builder = RequestBuilder(job, schema, guard=self._comparing)
        self._builder = RequestBuilder(job, schema, changed, compiler.adapt, self._guard)
        self._is_changed = bool(changed)
        self._made = made_from(job, schema)
        self._recipe = recipe_of(self._made)
        self._judge = Judge(self._schema)
        self._paths = [] if retry else expand_inputs(job.input)
        self._simulator = embedded_simulator(job)
        self._tally = Tally()
        self._results_now = self._failures_now = self._skipped = 0
        self._under_way: dict[int, Work] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop: Stop | None = None
        self._drain_until = 0.0
        self._feed: Feed | None = None
        self._spending: Spending | None = None
        self._canary = Canary(job.canary, self._look_at_canary) if job.canary else None
        self._forecast: Forecast | None = None
        self._begun = self._simulated = self._aborted = self._is_known = False
        #: Held by the one item that may go while it is not known how requests fare.
        self._turn = asyncio.Semaphore(1)
        self._untaken = self._workers = 0
        self._warnings: dict[str, int] = {}
        self._notes: list[str] = []
        self.total: int | None = None

    # --- the whole run ---

    async def run(self) -> Summary:
        """Run the job to its end, or to the stop that comes first."""
        self._started_at = utc_now()
        loop = asyncio.get_running_loop()
        self._now = loop.time
        self._start_s = loop.time()
        self._rate = Rate(self._start_s)
        async with AsyncExitStack() as stack:
            self._store = RunDirectory(self.job.output)
            stack.callback(self._store.close)
            self._pacer = open_pacer(
                stack,
                self.job,
                self._knowledge,
                self._target.dialect,
                self._learned,
                lambda words: self._observer.notice("outage", words),
                self._start_workers,
            )
            self._retries = Retries(self.job.retry, self._rng, self._pacer.sleep)
            self._waiting_room = asyncio.Semaphore(max(_WAITING_ROOM, 4 * self._pacer.concurrency))
            for words in self._exposed:
                self._note("exposed", words)
            for note in self._store.notes:
                self._observer.notice("recovered", note)
            self._manifest = Manifest(
                self.job, self._target.dialect.name, self._store.manifest(), self._made, self._retry
            )
            self._observer.notice("data_boundary", self._manifest.boundary_in_words())
            await self._tell_of_crash()
            self._selection = self._select()
            await self._selection.prepare(self._begin, lambda: self._stop is not None)
            self._feed = feed = Feed(self._selection.reader)
            if self._stop is not None:
                feed.stop()
            base_url = await self._base_url(stack)
            client = Client(
                base_url, self._key, self._target, self._learned, self._knowledge.streams, self._store.flush
            )
            await stack.enter_async_context(client)
            stack.push_async_callback(feed.close)
            deadline = self.job.budget.deadline
            if deadline is not None:
                timer = loop.call_later(deadline, self._time_is_up, deadline)
                stack.callback(timer.cancel)
            self._lookout = Lookout(
                client, self._pacer, self._compiler, self._tally, self.job.retry.max_outage, self.stop,
                self._count_usage,
            )  # fmt: skip
            dialect = self._target.dialect
            estimate = TokenEstimate(reserved=dialect.charges_reserved)
            self._spending = self._open_spending(estimate)
            self._sender = Sender(
                client, self._pacer, self._compiler, self._store, self._tally, self._count_usage, self._observer,
                self._learned, estimate, self._lookout, dialect.quota, self.job.retry.hedge, self._spending,
            )  # fmt: skip
            control = Control(
                self.job.output, self._pacer, self._spending, lambda words: self._observer.notice("control", words)
            )
            await control.open()
            stack.push_async_callback(control.close)
            self._look_ahead()
            await self._work_and_write()
            self._remember(client.refused_transports)
            self._store.settle()
            summary = await self._summary(feed)
            if self._begun or not self._manifest.is_of_a_run:
                self._store.save_manifest(self._manifest_value(summary))
        return summary

    def _select(self) -> Selection:
        if self._retry is not None:
            return FromQueue(self.job, self._store, self._retry.kinds, self._limit)
        schema = self._schema.text if self._schema else None
        accepted = accepted_builders(self.job, schema, self._manifest.accepted, self._comparing)
        builders = [self._own_builder, *accepted]
        return FromInput(
            self.job, self._paths, self._store, builders, self._made, self._recipe, self._on_change, self._limit
        )

    def _open_spending(self, estimate: TokenEstimate) -> Spending | None:
        most, price = self.job.budget.max_cost, self.job.price
        if most is None or price is None:
            return None
        return Spending(most, price, estimate, self._tally, self.stop)

    async def _tell_of_crash(self) -> None:
        store = self._store
        if not store.interrupted:
            return
        try:
            total = await in_thread(lambda: count_items(self._paths)) if self._paths else None
        except InputError:
            total = None
        crash = self._manifest.note_crash(store.results + store.failures, store.interrupted, total)
        facts = {"done": crash.done, "in_flight": crash.in_flight, "never_sent": crash.never_sent}
        self._observer.notice("crashed", crash.in_words(), **facts)

    async def _base_url(self, stack: AsyncExitStack) -> str:
        if self._simulator is None:
            return str(self.job.endpoint.base_url)
        await stack.enter_async_context(self._simulator)
        return str(self._simulator.base_url)

    def _look_ahead(self) -> None:
        """Let one item go before the others if it is not known how the endpoint takes such requests."""
        for note in self._knowledge.notes:
            self._observer.notice("profile", note)
        if self._knowledge.is_enough:
            self._set_known()
        else:
            # A refusal comes at once; an answer that takes longer is on its way.
            asyncio.get_running_loop().call_later(_CANARY_PATIENCE_S, self._set_known)

    def _remember(self, transports: dict[str, tuple[bool, str]]) -> None:
        trouble = self._knowledge.keep(transports, self._pacer.found, simulated=self._simulated)
        if trouble:
            self._note("profile", trouble)

    async def _work_and_write(self) -> None:
        writer = asyncio.create_task(self._store.keep_synced())
        lookout = asyncio.create_task(self._lookout.watch())
        for helper in (writer, lookout):
            helper.add_done_callback(self._helper_ended)
        try:
            async with asyncio.TaskGroup() as self._group:
                self._start_workers(self._pacer.concurrency)
            if self._stop is None and self._limit is None:
                self._selection.conclude()
        except BaseExceptionGroup as group:
            raise _store_error(group) or group from None
        finally:
            self._store.finish()
            lookout.cancel()
            await writer
            with suppress(asyncio.CancelledError):
                await lookout

    def _spawn(self, coroutine: Any) -> None:
        task = self._group.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._aborted = True  # the others are cancelled now

    def _start_workers(self, wanted: int) -> None:
        """Let as many take up items as may be in flight. One that has too little to do waits."""
        if self._feed is None or self._feed.ended or self._stop is not None or self._aborted:
            return
        started = 0
        while self._workers < wanted:
            self._spawn(self._worker(self._feed, started * _START_STEP_S))
            self._workers += 1
            started += 1

    def _helper_ended(self, helper: asyncio.Task[None]) -> None:
        if not helper.cancelled() and helper.exception() is not None:
            self.abort()

    # --- stopping ---

    def stop(self, stop: Stop) -> None:
        """Send nothing more and let the calls in flight end, for `DRAIN_S` seconds at most. The first stop counts."""
        if self._stop is not None:
            return
        self._stop = stop
        self._pacer.stop()
        if self._spending is not None:
            self._spending.close()
        if self._canary is not None:
            self._canary.close()
        self._set_known(0.0)
        if self._feed is not None:
            self._feed.stop()
        self._drain_until = self._now() + DRAIN_S
        asyncio.get_running_loop().call_later(DRAIN_S, self.abort)
        fields = {"cause": stop.cause.word, "kind": stop.kind, "in_flight": self._in_flight()}
        words = f"{stop.message}; waiting for {self._in_flight()} calls in flight, {DRAIN_S:.0f} s at most"
        self._observer.notice("stopping", words, **fields)

    def _time_is_up(self, deadline: float) -> None:
        """Stop at the deadline, and say so if it was an outage that took the time."""
        words = f"the deadline of {deadline:g} s was reached"
        breaker = self._pacer.breaker
        if breaker.down_since is not None:
            words += f"; the endpoint has been down for {breaker.lasts(self._now()):.0f} s: {breaker.why}"
        self.stop(Stop(StopCause.DEADLINE, words))

    def interrupt(self, cause: StopCause) -> None:
        """Stop for a signal; the second one ends the calls in flight at once."""
        if self._stop is None:
            self.stop(Stop(cause, f"{cause.name} received"))
        else:
            self.abort()

    def abort(self) -> None:
        """End everything under way; what was answered is still written."""
        self._aborted = True
        for task in tuple(self._tasks):
            task.cancel()

    # --- one item ---

    async def _worker(self, feed: Feed, starts_after_s: float) -> None:
        try:
            await self._pacer.sleep(starts_after_s)
        except Stopping:
            return
        while True:
            entry = await feed.next()
            if entry is None:
                if feed.error is not None:
                    self.stop(Stop(StopCause.INPUT, str(feed.error)))
                return
            replaces = self._selection.row_to_replace(entry)
            if replaces is None:
                self._skipped += 1
                self._look_for_refusal()
                continue
            self._begin()
            if self._canary is not None and not self._canary.takes():
                await self._canary.wait()
            try:
                if self._is_known:
                    await self._handle(entry, replaces)
                else:
                    # What the one before it learned is in its request already.
                    async with self._turn:
                        await self._handle(entry, replaces)
            except Stopping:
                return

    async def _handle(self, entry: Item | Failure, replaces: int) -> None:
        made: Request | Failure
        if isinstance(entry, Failure):
            made = entry
        elif self._guard is None or len(entry.raw) < _LONG_ITEM_BYTES:
            made = self._builder.build(entry)
        else:  # in a thread, so that the others do not wait while it is looked through
            made = await asyncio.to_thread(self._builder.build, entry)
        if isinstance(made, Failure):
            self._fail(made, entry, replaces=replaces)
        else:
            await self._first(self._work(entry, made, replaces))

    def _work(self, item: Any, request: Request, replaces: int) -> Work:
        own = self._own_builder.build(item) if self._is_changed else request
        fingerprint = bytes.fromhex(own.fingerprint)[:8] if isinstance(own, Request) else bytes(8)
        key = self._idempotency_key(item, request)
        down_s = self._pacer.down_s
        work = Work(item, request, key, self._now(), fingerprint, replaces, request.fingerprint, down_s)
        self._under_way[id(work)] = work
        return work

    def _set_known(self, step_s: float = _START_STEP_S) -> None:
        """Let all go, one after the other."""
        if not self._is_known:
            self._is_known = True
            loop = asyncio.get_running_loop()
            for number in range(self._workers):
                loop.call_later(number * step_s, self._turn.release)

    async def _first(self, work: Work) -> None:
        """Make an item's first attempt in the worker itself; what needs more goes on in a task of its own."""
        error: EndpointError | None = None
        over = False
        try:
            response = await self._attempt(work)
            over = await self._conclude(work, response)
        except EndpointError as caught:
            error = caught
            record = work.record
            if not record.in_doubt and not self._retries.worthwhile(error, 1 - record.spared):
                over = self._give_up(work, error)
        except BaseException:
            over = True
            raise
        finally:
            if over:
                del self._under_way[id(work)]
        if not over:
            await self._waiting_room.acquire()
            self._spawn(self._follow(work, error))

    async def _follow(self, work: Work, error: EndpointError | None) -> None:
        """Take an item through its further attempts and re-asks; it holds a slot only while it is being sent."""
        over = False
        try:
            while not over:
                before = work.record.spared if error is None else 0
                response = await self._retries.run(
                    lambda: self._attempt(work), error, waiting=self._waits(work), started_at=work.started_at,
                    spared=self._spared(work, before), verdict=lambda: self._pacer.verdict(work.record, self._is_alone),
                    down_s=lambda: self._pacer.down_s - work.down_s,
                )  # fmt: skip
                error = None
                over = await self._conclude(work, response)
        except EndpointError as last:
            self._give_up(work, last)
        except Stopping:
            return
        finally:
            self._waiting_room.release()
            del self._under_way[id(work)]

    def _is_alone(self) -> bool:
        """Tell whether there is but one item under way, and none to come."""
        return len(self._under_way) == 1 and self._feed is not None and self._feed.ended

    def _spared(self, work: Work, before: int) -> Callable[[], int]:
        """Give what counts the attempts that are not the item's own fault, as from now on."""
        return lambda: work.record.spared - before

    def _waits(self, work: Work) -> Any:
        def waiting(seconds: float, error: EndpointError) -> None:
            self._tally.retries += 1
            work.state = f"{error.kind}, next attempt after {seconds:.1f} s"

        return waiting

    async def _attempt(self, work: Work) -> Response:
        """Make one attempt, and see whose affair it is if it is refused."""
        try:
            response = await self._sender.attempt(work)
        except UsedUpError as used_up:
            self.stop(Stop(StopCause.DAILY_LIMIT, str(used_up)))
            raise Stopping from used_up
        except JobRefusedError as refused:
            self.stop(Stop(StopCause.ENDPOINT, str(refused), ErrorKind.BAD_REQUEST))
            raise Stopping from refused
        except EndpointError as error:
            if error.kind not in TRANSIENT_KINDS:
                self._untaken += 1
                if self._untaken >= _CANARIES:
                    self._set_known()
            raise
        self._set_known()
        return response

    def _learned(self, words: str) -> None:
        """Take note of what the endpoint made the client change."""
        self._note("learned", words)

    def _note(self, event: str, words: str) -> None:
        """Tell of an event that the summary has too."""
        self._notes.append(words)
        self._observer.notice(event, words)

    async def _conclude(self, work: Work, response: Response) -> bool:
        """Judge a response and record what it is; False if it goes back to the model once more."""
        if "x-simulated" in response.provider.headers:
            self._simulated = True
        verdict = await self._judged(work, response)
        if verdict.problem is None:
            self._succeed(work, response, verdict)
            return True
        error = EndpointError(verdict.kind, verdict.problem, provider=response.provider)
        said = response.arguments or response.text
        if work.reasks < self.job.structured.reask and said is not None:
            work.reasks += 1
            self._tally.reasks += 1
            self._store.add_reasked(Failure.of_item(work.item, error, attempts=work.attempts, usage=work.usage))
            self._store.attempt_ended(work.item)
            work.request = self._builder.reask(work.request, said, verdict.problem)
            work.key = self._idempotency_key(work.item, work.request)
            return False
        self._give_up(work, error)
        return True

    async def _judged(self, work: Work, response: Response) -> Verdict:
        """Judge a response; a long one in a thread, so that the others do not wait for it."""
        redacted = work.request.redacted if self.job.data_boundary.restore else None
        mode = self._compiler.mode(work.way or Way())
        arguments = (response.text, mode, response.arguments, None if redacted is None else redacted.restore)
        if self._schema is None or len(response.arguments or response.text or "") < _LONG_CHARS:
            return self._judge.judge(*arguments)
        try:
            return await asyncio.to_thread(self._judge.judge, *arguments)
        except asyncio.CancelledError:  # what was answered and paid for is written, whatever else is broken off
            return self._judge.judge(*arguments)

    def _succeed(self, work: Work, response: Response, verdict: Verdict) -> None:
        warnings = (*work.request.warnings, RESTORED) if verdict.restored else work.request.warnings
        for warning in (*response.warnings, *warnings):
            if warning not in self._warnings and len(self._warnings) >= _MAX_WARNINGS:
                warning = "other warnings, see the records"  # noqa: PLW2901
            self._warnings[warning] = self._warnings.get(warning, 0) + 1
        self._results_now += 1
        self._rate.add(1, 0)
        duration = self._now() - work.started_at
        result = Result(
            work.item, verdict.value, response, work.usage, work.attempts, duration, verdict.extraction,
            work.fingerprint_hex, warnings,
        )  # fmt: skip
        self._store.add_result(result, work.fingerprint, work.replaces)
        if self._canary is not None and not self._canary.is_over:
            self._canary.succeeded(duration, self._cost(work.usage))

    def _give_up(self, work: Work, error: EndpointError) -> bool:
        """Record an item's failure; if the fault is the key's, the account's or the address's, stop the run instead."""
        if error.kind in RUN_KINDS:
            self.stop(Stop(StopCause.ENDPOINT, error.message, error.kind))
        else:
            failure = Failure.of_item(work.item, error, attempts=work.attempts, usage=work.usage)
            self._fail(failure, work.item, work.fingerprint, work.replaces)
        return True

    def _fail(self, failure: Failure, entry: Item | Failure, fingerprint: bytes = bytes(8), replaces: int = 0) -> None:
        self._failures_now += 1
        self._rate.add(1, 0)
        self._store.add_failure(failure, entry, fingerprint, replaces)
        if self._canary is not None and not self._canary.is_over:
            self._canary.failed(failure.kind, self._cost(failure.usage))
        most = self.job.budget.max_failures
        if most is None:
            return
        finished = self._results_now + self._failures_now
        if isinstance(most, Percent):
            reached = finished >= _MIN_SAMPLE and self._failures_now * 100 > most.value * finished
        else:
            reached = self._failures_now > most
        if reached:
            self.stop(Stop(StopCause.MAX_FAILURES, f"more than {most} failures (budget.max_failures)"))

    def _idempotency_key(self, item: Item, request: Request) -> str | None:
        """Give a key that is the same for every attempt of this request, and no other's."""
        if not self.job.endpoint.idempotency_key:
            return None
        return blake2b(
            f"{self._manifest.run_id}\n{item.id}\n{request.fingerprint}".encode(), digest_size=16
        ).hexdigest()

    def _look_for_refusal(self) -> None:
        if self._selection.refusal is not None:
            self.stop(Stop(StopCause.INPUT, self._selection.refusal))

    # --- the canary ---

    def _cost(self, usage: Usage | None) -> float:
        return cost_of(usage, self.job.price) if usage is not None and self.job.price is not None else 0.0

    def _look_at_canary(self) -> None:
        """Stop if the first items fared too badly; else say what the others will take, and let them go."""
        canary = self._canary
        if canary is None:
            return
        if canary.problem is not None:
            self.stop(Stop(StopCause.CANARY, canary.problem))
        else:
            self._spawn(self._tell_forecast(canary))

    async def _tell_forecast(self, canary: Canary) -> None:
        words = canary.in_words()
        at_s, spent = self._now(), self._cost(self._tally.usage)
        left = await self._left()
        if left:
            limits = self.job.limits
            tokens = self._tally.usage.total_tokens / max(1, canary.done)
            rates = [
                limits.requests_per_minute,
                limits.tokens_per_minute / tokens if limits.tokens_per_minute and tokens else None,
            ]
            told = limits.concurrency if limits.concurrency != "auto" else None
            now = self._pacer.concurrency
            seconds = canary.seconds_of(
                left, (told or now, told or 4 * now), min((rate for rate in rates if rate), default=None)
            )
            price = self.job.price
            cost, currency = (canary.cost_of(left), price.currency) if price else (None, "")
            self._forecast = Forecast(left, seconds, cost, currency, at_s, spent)
            words += f"; {self._forecast.in_words()}"
        self._observer.notice("canary", words)

    async def _left(self) -> int | None:
        """Count the items that are neither done nor failed, None if that cannot be."""
        if not self._paths or self._selection.reader.is_stream:
            return None
        total = self.total  # counted for the display already, where there is one
        if total is None:
            try:
                total = await in_thread(lambda: count_items(self._paths))
            except InputError:
                return None
        if total is None:
            return None
        total = total if self._limit is None else min(total, self._limit)
        done = self._selection.skipped + self._skipped + self._results_now + self._failures_now
        return max(0, total - done)

    def _canary_account(self) -> dict[str, Any] | None:
        if self._canary is None:
            return None
        forecast = self._forecast and self._forecast.as_dict(self._now(), self._cost(self._tally.usage))
        return {**self._canary.as_dict(), "forecast": forecast}

    # --- accounts ---

    def _count_usage(self, usage: Usage | None) -> None:
        if usage is not None:
            self._tally.usage.add(usage)
            self._rate.add(0, usage.total_tokens)

    def _in_flight(self) -> int:
        return sum(work.state == "sent" for work in self._under_way.values())

    @property
    def attempts_made(self) -> int:
        """How many requests were sent."""
        return self._tally.attempts

    @property
    def recorded(self) -> tuple[int, int]:
        """How many results and failures the run directory holds, those of earlier runs too."""
        return self._store.results, self._store.failures

    def count_total(self) -> None:
        """Count the input's items beside the run, for a progress display; standard input cannot be counted."""

        def counted(counting: asyncio.Future[int | None]) -> None:
            total = None if counting.exception() else counting.result()
            self.total = total if total is None or self._limit is None else min(total, self._limit)

        in_thread(lambda: count_items(self._paths)).add_done_callback(counted)

    def snapshot(self) -> Snapshot | None:
        """Tell how the run stands now; None as long as it has not begun to read its input."""
        if self._feed is None:
            return None
        now = asyncio.get_running_loop().time()
        skipped = self._selection.skipped
        done_now = self._results_now + self._failures_now - self._store.unsynced
        done = skipped + self._skipped + done_now
        reading = not self._feed.ended
        total = self.total if reading else self._feed.given + skipped
        under_way = sorted(self._under_way.values(), key=lambda work: work.started_at)
        in_flight = self._in_flight()
        rate = self._rate.at(now)
        breaker = self._pacer.breaker
        # Once nothing is left to read, the last items are shown one by one; a number would only pretend.
        eta = (total - done) / rate.items_per_s if reading and total and rate.items_per_s > 0 else None
        return Snapshot(
            total=total, done=done, results=self._results_now, failures=self._failures_now,
            retries=self._tally.retries, in_flight=in_flight, waiting=len(under_way) - in_flight, reading=reading,
            requests_per_minute=rate.items_per_s * 60, tokens_per_minute=rate.tokens_per_s * 60, eta_s=eta,
            paused_s=self._pacer.paused_for(), held=self._pacer.is_held,
            outage_s=None if breaker.down_since is None else now - breaker.down_since, outage=breaker.why,
            drain_s=None if self._stop is None else max(0.0, self._drain_until - now),
            slowest=tuple(
                InFlight(work.item.id, now - work.started_at, work.state, work.attempts)
                for work in under_way[:_SLOWEST_SHOWN]
            ),
        )  # fmt: skip

    async def _pending(self, feed: Feed) -> int | None:
        if self._retry is not None:  # what was not tried again is a failure still
            return self._manifest.pending_before
        taken = feed.given - self._skipped - self._results_now - self._failures_now
        if self._stop is None:
            return taken
        within_s = _COUNT_REST_HURRIED_S if self._aborted else _COUNT_REST_S
        rest = await feed.count_rest(self._selection.is_open, within_s)
        return None if rest is None else taken + rest

    def _warned(self) -> tuple[str, ...]:
        """Give the warnings of the whole run: those of answers with how often they came, and those of the input."""
        warnings = [f"{warning} ({count} items)" for warning, count in sorted(self._warnings.items())]
        warnings += [*self._compiler.warnings, *self._notes]
        if self._pacer.outages:
            times = "once" if self._pacer.outages == 1 else f"{self._pacer.outages} times"
            seconds = self._pacer.outage_s + self._pacer.breaker.lasts(self._now())
            warnings.append(f"the endpoint was down {times}, for {seconds:.0f} s in all")
        spending = self._spending
        if spending is not None and spending.unsaid_calls:
            warnings.append(
                f"{spending.unsaid_calls} calls ended without a word of what they took; budget.max_cost counts about "
                f"{spending.unsaid:.4g} for them, the cost nothing"
            )
        left_over = self._selection.left_over() if self._stop is None and self._limit is None else 0
        if left_over:
            warnings.append(f"{left_over} records are of items that are not in the input now; they are kept")
        return tuple(warnings)

    async def _summary(self, feed: Feed) -> Summary:
        pending = await self._pending(feed)
        price = self.job.price
        return Summary(
            output=self.job.output, results=self._store.results, failures=self._store.failures, pending=pending,
            failures_by_kind=dict(+self._store.failure_kinds), results_now=self._results_now,
            failures_now=self._failures_now, tally=self._tally, started_at=self._started_at, finished_at=utc_now(),
            duration_s=asyncio.get_running_loop().time() - self._start_s, simulated=self._simulated,
            stop=self._final_stop(), cost=cost_of(self._tally.usage, price) if price else None,
            currency=price.currency if price else None,
            warnings=self._warned(), interrupted=self._store.interrupted, broken_off=self._store.under_way,
            interrupted_ever=self._store.calls_interrupted, canary=self._canary_account(),
        )  # fmt: skip

    def _final_stop(self) -> Stop | None:
        """Give the stop, with the exit code that fits an input that broke before anything was sent."""
        if self._stop and self._stop.cause is StopCause.INPUT and not self.attempts_made:
            return replace(self._stop, cause=StopCause.INPUT_UNSENT)
        return self._stop

    def _begin(self) -> None:
        """Say in the manifest that there is something to do, before anything is sent."""
        if not self._begun:
            self._store.begin(self._recipe, self._manifest_value(None))
            self._begun = True

    def _manifest_value(self, summary: Summary | None) -> dict[str, Any]:
        return {**self._manifest.value(summary, self._files()), "profile": self._knowledge.as_dict()}

    def _files(self) -> list[InputFile] | None:
        reader = self._selection.reader
        return reader.files if isinstance(reader, ItemReader) else None


def _store_error(group: BaseExceptionGroup[BaseException]) -> StoreError | None:
    """Find the failure of the run directory that ended the workers, if it was that."""
    for error in group.exceptions:
        found = _store_error(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, StoreError):
            return found
    return None
