"""One attempt of an item: admitted, sent, settled; and again another way where only the way was refused."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol

from batchrun.endpoint.waits import quota_levels
from batchrun.hedge import Hedge, first_good
from batchrun.pace import Record
from batchrun.records import EndpointError, ErrorKind, Usage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from batchrun.endpoint.client import Client
    from batchrun.endpoint.compile import Compiler, Way
    from batchrun.endpoint.dialect import QuotaRow
    from batchrun.estimate import TokenEstimate
    from batchrun.outage import Lookout
    from batchrun.pace import Pacer, Ticket
    from batchrun.records import Item, Provider, Request, Response
    from batchrun.spending import Spending
    from batchrun.store import RunDirectory
    from batchrun.summary import Tally

_NOTED_PAUSE_S = 5.0
#: An estimate is no count: what is only a little over a limit is tried.
_SURELY = 1.2


class Observer(Protocol):
    """Who is told what happens during a run."""

    def notice(self, event: str, message: str, **fields: Any) -> None:
        """Take note of an event: its name for machines, words for people, and facts."""


class JobRefusedError(Exception):
    """The endpoint refuses what the job asks for in every request; its words are in the message."""


@dataclass(slots=True)
class Work:
    """An item under way; `started_at` is in the event loop's seconds, `down_s` how long the endpoint had been down."""

    item: Item
    request: Request
    key: str | None
    started_at: float
    fingerprint: bytes
    replaces: int
    fingerprint_hex: str
    down_s: float = 0.0
    attempts: int = 0
    reasks: int = 0
    usage: Usage | None = None
    way: Way | None = None
    record: Record = field(default_factory=Record)
    state: str = "waiting for a slot"


class Sender:
    """Makes attempts. `learned` is told in words what the endpoint made it change."""

    def __init__(
        self, client: Client, pacer: Pacer, compiler: Compiler, store: RunDirectory, tally: Tally,
        count: Callable[[Usage | None], None], observer: Observer, learned: Callable[[str], None],
        estimate: TokenEstimate, lookout: Lookout, quota: tuple[QuotaRow, ...], hedge: float,
        spending: Spending | None,
    ) -> None:  # fmt: skip
        self._client, self._pacer, self._compiler, self._store = client, pacer, compiler, store
        self._tally, self._count_tokens, self._observer, self._learned = tally, count, observer, learned
        self._estimate, self._lookout, self._quota = estimate, lookout, quota
        self._hedge = Hedge(hedge) if hedge else None
        self._spending = spending
        self._now = asyncio.get_running_loop().time
        self._greeting = asyncio.Lock()

    async def attempt(self, work: Work) -> Response:
        """Make one attempt: further calls where only the way in which something was asked for was refused.

        Raises `EndpointError`, `Stopping`, and `JobRefusedError` if what the job asks for in every request is refused.
        """
        self._check_size(work)
        compiler = self._compiler
        work.way = way = compiler.way(work.request, work.way)
        refusal: EndpointError | None = None
        while True:
            request = compiler.compiled(work.request, way)
            try:
                # There must be money left if that is bounded.
                if self._spending is None:
                    response = await self._send(work, request, refusal)
                else:
                    response = await self._spending.pays(request, partial(self._send, work, request, refusal))
            except EndpointError as error:
                if error.other_way and refusal is None:  # it was the way in which the answer was to come
                    work.attempts -= 1
                    refusal = error
                    continue
                refusal = None
                other = compiler.other_way(work.request, way, error)
                if other is None:
                    if compiler.may_be_the_job_s(work.request, error):
                        await self._greet(work.request, way, error)
                    raise
                work.attempts -= 1
                work.way = way = other
            else:
                for news in compiler.worked(work.request, way):
                    self._learned(news)
                if way.refusals:
                    work.way = replace(way, refusals=())  # they have been learned from
                return response

    def _check_size(self, work: Work) -> None:
        """Refuse a request of more tokens than a minute may have: it would wait for ever, or be refused for ever."""
        most = self._pacer.tokens_per_minute
        if most is None or not self._estimate.is_sure:
            return
        prompt = self._estimate.prompt(work.request)
        if prompt > most * _SURELY:
            who = (
                "limits.tokens_per_minute is" if self._pacer.is_told_tokens else "the endpoint's limit by the minute is"
            )
            words = f"the request has about {prompt:,.0f} tokens, and {who} {most:,.0f}"
            raise EndpointError(ErrorKind.BAD_REQUEST, f"{words}: it was not sent")

    async def _greet(self, request: Request, way: Way, error: EndpointError) -> None:
        """Ask with what the job asks for and nothing of the item; raise `JobRefusedError` if that is refused."""
        async with self._greeting:
            if not self._compiler.may_be_the_job_s(request, error):
                return  # another one has found it out
            greeting = self._compiler.greeting(request, way)
            refusal = None
            ticket = await self._pacer.admit(self._estimate.of(greeting))
            self._tally.attempts += 1
            try:
                response = await self._client.chat(greeting)
                self._pacer.succeeded(ticket, self._used(greeting, response.usage))
                self._count_tokens(response.usage)
            except EndpointError as error:
                refusal = error
                self._pacer.failed(ticket, error, Record(), self._used(greeting, error.usage))
                self._tally.failed_attempts[error.kind.value] += 1
                self._count_tokens(error.usage)
            finally:
                self._pacer.release(ticket)
            words = self._compiler.greeted(greeting, refusal)
            if words is not None:
                raise JobRefusedError(words)

    async def _send(self, work: Work, request: Request, refusal: EndpointError | None) -> Response:
        """Admit, send, settle."""
        tokens = self._estimate.of(request)
        ticket = self._pacer.takes_another(tokens) or await self._pacer.admit(tokens)
        try:
            self._store.sent(work.item, work.fingerprint, work.attempts + 1)
            work.attempts += 1
            work.state = "sent"
            self._tally.attempts += 1
            if work.way is not None:
                self._lookout.sees(work.request, work.way)
            if self._hedge is None:
                response = await self._client.chat(request, _key_of(work), refusal)
            else:
                response = await self._hedged(self._hedge, work, request, refusal)
        except EndpointError as error:
            self._failed(work, request, ticket, error)
            raise
        finally:
            self._pacer.release(ticket)
        usage = response.usage
        self._pacer.succeeded(ticket, self._used(request, usage))
        self._take_quota(response.provider)
        self._count_usage(work, usage)
        return response

    async def _hedged(
        self, hedge: Hedge, work: Work, request: Request, refusal: EndpointError | None
    ) -> Response:  # fmt: skip
        """Make the call, and a second one beside it if that takes much longer than the others."""
        after_s, began_at = hedge.after_s(), self._now()

        def call() -> Awaitable[Response]:
            return self._client.chat(request, _key_of(work), refusal)

        def second() -> asyncio.Future[Response] | None:
            if not hedge.takes() or (self._spending is not None and not self._spending.hedges(request)):
                return None
            ticket = self._pacer.takes_another(self._estimate.of(request))
            return None if ticket is None else self._beside(work, call, ticket)

        response = await (call() if after_s is None else first_good(call, after_s, second))
        hedge.answered(self._now() - began_at)
        return response

    def _beside(self, work: Work, call: Callable[[], Awaitable[Response]], ticket: Ticket) -> asyncio.Future[Response]:
        work.attempts += 1
        self._store.sent(work.item, work.fingerprint, work.attempts)
        self._tally.attempts += 1
        self._tally.hedges += 1
        made = asyncio.ensure_future(call())
        made.add_done_callback(lambda _: self._pacer.release(ticket))
        return made

    def _failed(self, work: Work, request: Request, ticket: Ticket, error: EndpointError) -> None:
        self._store.attempt_ended(work.item)
        self._tally.failed_attempts[error.kind.value] += 1
        self._count_usage(work, error.usage)
        if error.cause is not None:
            self._tally.causes[error.cause.value] += 1
        before = self._pacer.paused_for()
        self._pacer.failed(ticket, error, work.record, self._used(request, error.usage))
        paused_s = self._pacer.paused_for()
        if paused_s >= _NOTED_PAUSE_S > before:
            self._observer.notice("paused", f"the endpoint asks to wait {paused_s:.0f} s", seconds=round(paused_s, 1))
        if error.provider is not None:
            self._take_quota(error.provider)

    def _take_quota(self, provider: Provider) -> None:
        headers = provider.headers
        for row in self._quota:
            if row.limit in headers:
                for level in quota_levels(headers, self._quota):
                    self._pacer.take_quota(level)
                return

    def _used(self, request: Request, usage: Usage | None) -> float | None:
        """Learn from what an answer took; give what it took of the limit, None if nobody knows."""
        if usage is None:
            return None
        self._estimate.learn(request, usage)
        return self._estimate.used(request, usage)

    def _count_usage(self, work: Work, usage: Usage | None) -> None:
        if usage is not None:
            work.usage = usage if work.usage is None else work.usage + usage
            self._count_tokens(usage)


def _key_of(work: Work) -> str | None:
    """Give the idempotency key of a call: asked another way, a request is another one to who remembers keys."""
    mark = work.way.mark if work.way else ""
    if work.key is None or not mark:
        return work.key
    return blake2b(f"{work.key} {mark}".encode(), digest_size=16).hexdigest()
