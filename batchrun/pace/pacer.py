"""The pacer: who may send now. It bounds what is in flight, requests and tokens, and holds everybody if it must."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from batchrun.pace.breaker import Breaker, Record
from batchrun.pace.level import Level
from batchrun.pace.limit import Entry, Limit, Ramp
from batchrun.pace.window import CELLS, Window
from batchrun.pace.window import cells as own_cells
from batchrun.records import EndpointError, ErrorKind, RateCause

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from batchrun.records import QuotaLevel

#: Who wakes up later than it was due by no more than this is not counted as late, or the lateness would add up.
_LATE_S = 0.05
_RESOLUTION_S = 1e-6
#: One answer with an absurd Retry-After must not stall everybody: limits are kept by the minute.
_MAX_PAUSE_S = 60.0
#: Where a refusal for too many requests or tokens names no wait.
_PAUSE_S = 1.0
#: A limit of a day that is used up is waited for so long; longer, and the run had better end.
_LONGEST_WAIT_S = 300.0
#: An item that is refused for reasons of pace so often is given up like any other.
_MOST_SPARED = 10
#: A refusal that says nothing is taken for one of concurrency if that many of the slots ever answered were in use.
_NEAR_PROVEN = 0.8
_SHARED_SLOT_S = 0.05
#: A refusal comes at once: who was not refused so soon was taken.
_SCOUT_S = 0.5
_ENOUGH_DOUBTS = 2
#: Where more were answered before, a refusal for concurrency lowers the level to no less than this share at once.
_PLAUSIBLE = 0.5
#: So many refusals are no chance, if they are half of what was sent meanwhile.
_ENOUGH_REFUSED, _SUSPECTS = 3, 8
#: So many are no chance either, where each answer makes up for a little of one.
_TOO_MANY = 6.0
#: So many, in the same way, lower a limit that is in use.
_ENOUGH_TO_CUT = 2.0
#: So much of a refusal is forgotten with every answer.
_TOLERATES = 0.03
#: So many timeouts make an overload, where so many answers make up for one.
_ENOUGH_TIMEOUTS, _FORGIVES = 3.0, 0.05
#: The longest time of an answer fades with every answer.
_FADES = 0.999
#: After so long without a refusal the item that went first is taken to have been taken.
_HALF_OPEN_S = 3.0
#: After a shorter time the level is what it was.
_LONG_HOLD_S = 5.0
#: Whether an item is to blame for its last attempt is looked for so often, and asked by a trial if for so long, and the
#: longest answer, nothing else tells.
_VERDICT_S, _PATIENCE_S = 0.1, 1.0
#: So many refusals in a row, though it gave way, are an outage.
_AN_OUTAGE = 8
#: Answers between two refusals that make each of them a lone one, and how many such make it a habit.
_LONE_AFTER, _HABIT = 20, 2
#: Where the level was raised, this part of what is in flight more is let go in so long.
_GROWS_BY, _GROWS_S = 8, 0.025
_NOT_REFUSED = (None, 0.0)
_NEVER = float("-inf")
_AUTO_START = 16
#: No level is higher than this by itself: one core has enough to do with it.
AUTO_MOST = 1000
_SECOND, _MINUTE, _DAY = 1.0, 60.0, 86400.0
#: The windows, in the order in which their cells lie.
_WINDOWS = (
    ("requests", _MINUTE), ("tokens", _MINUTE), ("requests", _SECOND), ("tokens", _SECOND), ("requests", _DAY),
    ("tokens", _DAY),
)  # fmt: skip
PACE_CELLS = len(_WINDOWS) * CELLS
_OUTAGE_KINDS = frozenset({ErrorKind.NETWORK, ErrorKind.TIMEOUT, ErrorKind.SERVER_ERROR, ErrorKind.INVALID_RESPONSE})


class Stopping(Exception):
    """The run is stopping: nothing more may be sent."""


class UsedUpError(Exception):
    """A limit of a day is used up, and more is let go only in hours; the message says which, and when."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the user allows: requests and tokens a second, a minute and a day, and how many requests in flight.

    `concurrency` None means that the pacer finds it. `found` are a minute's requests and tokens and the concurrency
    that an earlier run found, None where it found none.
    """

    concurrency: int | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    requests_per_second: float | None = None
    tokens_per_second: float | None = None
    requests_per_day: float | None = None
    tokens_per_day: float | None = None
    found: Found | None = None

    def of(self, what: str, length_s: float) -> float | None:
        """Give the limit of a resource in a window."""
        unit = {_SECOND: "second", _MINUTE: "minute", _DAY: "day"}[length_s]
        most: float | None = getattr(self, f"{what}_per_{unit}")
        return most


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of an endpoint's limits; None where there is nothing to say."""

    concurrency: int | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None


class SharedPace(Protocol):
    """State that outlives the process, or that several processes share. The cells are `PACE_CELLS` numbers."""

    @property
    def cells(self) -> memoryview[float]:
        """The numbers."""

    @property
    def paused_until(self) -> float:
        """Until when nobody may go, in seconds of the system's monotonic clock."""

    def pause(self, until: float) -> None:
        """Let nobody go until then."""

    def locked(self) -> AbstractContextManager[object]:
        """Keep the others away from the cells."""

    def take_slot(self, most: int) -> bool:
        """Take one of the slots that all share; False if all are taken."""

    def free_slot(self) -> None:
        """Give a slot back."""


class Ticket:
    """An admission. `Pacer.succeeded` or `failed` says what became of it, `release` gives the slot back."""

    __slots__ = ("entries", "number", "ordinal", "sent_at")

    def __init__(self, sent_at: float, number: int, ordinal: int, entries: list[Entry]) -> None:
        self.sent_at = sent_at
        self.number = number
        self.ordinal = ordinal
        self.entries = entries


class _Suspicion:
    """Sees whether refusals are the rule: several of them, and most of what was sent from the first of them on."""

    def __init__(self) -> None:
        self._first = self._refused = 0

    def grows(self, number: int) -> bool:
        """Take note that the request of this number was refused; True if there are too many."""
        span = number - self._first + 1
        if not self._refused or (span > _SUSPECTS and 2 * self._refused < span):
            self._first, self._refused, span = number, 0, 1
        self._refused += 1
        return self._refused >= _ENOUGH_REFUSED and 2 * self._refused >= span


class Pacer:
    """Lets requests go, first come first served: a large one that waits for its tokens is not overtaken.

    Limits are kept in every window and spread evenly. Tokens are reserved when a request is admitted and corrected
    when it ends. What the endpoint refuses says more: the cause of a refusal decides what gives way. `has_burst_limit`
    begins slowly. `shared` holds the windows, so that they outlive the process or are common to several; with
    `shares_slots` the concurrency is common too. `changed` is told in words what was found, `outage` that the
    endpoint is down or back, `grown` the level when it rises. Time is the event loop's, which is the system's
    monotonic clock.
    """

    def __init__(
        self, limits: Limits, *, shared: SharedPace | None = None, shares_slots: bool = False,
        has_burst_limit: bool = False, most: int = AUTO_MOST, changed: Callable[[str], None] = lambda _: None,
        outage: Callable[[str], None] = lambda _: None,
        grown: Callable[[int], None] = lambda _: None, wall: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._loop = asyncio.get_running_loop()
        self._now = now = self._loop.time
        found = limits.found or Found()
        self.is_auto = limits.concurrency is None
        self._most = most
        #: Whether the user lets nobody go.
        self.is_held = False
        most = limits.concurrency or most
        self._level = Level(found.concurrency or _AUTO_START if self.is_auto else most, most)
        self._allowed = self._level.allowed
        self._grows: asyncio.TimerHandle | None = None
        self._changed_words, self._grown, self._outage = changed, grown, outage
        #: How often the endpoint was down, and for how many seconds in all.
        self.outages, self.outage_s = 0, 0.0
        self._shared = shared
        self._shared_most = limits.concurrency if shared is not None and shares_slots else None
        cells = shared.cells if shared is not None else own_cells(PACE_CELLS)
        self._lock: AbstractContextManager[object] = shared.locked() if shared is not None else nullcontext()
        offset = wall() - now()
        self._requests: list[Limit] = []
        self._tokens: list[Limit] = []
        self._daily: dict[Limit, str] = {}
        for number, (what, length_s) in enumerate(_WINDOWS):
            told = limits.of(what, length_s)
            if told is None and length_s != _MINUTE:
                continue
            ring = cells[number * CELLS : (number + 1) * CELLS]
            is_day = length_s == _DAY
            limit = Limit(
                Window(length_s, ring), told, getattr(found, f"{what}_per_minute") if length_s == _MINUTE else None,
                spread=not is_day, offset=offset if is_day else 0.0, is_of_tokens=what == "tokens",
            )  # fmt: skip
            with self._lock:
                limit.mend(now())
            (self._requests if what == "requests" else self._tokens).append(limit)
            if is_day:
                self._daily[limit] = f"limits.{what}_per_day"
        self._limits = [*self._requests, *self._tokens]
        self.breaker = Breaker()
        self._ramp = Ramp(now(), 1.0) if has_burst_limit else None
        #: Slots in use, and those of them whose request is on its way.
        self._taken = self._sent = 0
        self._waiting_for_slot: deque[asyncio.Future[None]] = deque()
        #: Held by the one that is next, so that the others keep their order.
        self._next = asyncio.Lock()
        #: Whether there is anything that may hold one up, beside the slots: as long as not, nothing is looked at.
        self._is_bound = shared is not None and shares_slots
        self._is_bound |= has_burst_limit or any(limit.most is not None for limit in self._limits)
        #: Set where the one that is next may go earlier than it thought, or not at all.
        self._changed = asyncio.Event()
        self._paused_until = 0.0
        #: When something was answered last, and since when and until when all was refused.
        self.last_answer_at = now()
        self.refused: tuple[float | None, float] = (None, 0.0)
        #: The longest time that an answer took lately.
        self.longest_s = 0.0
        self._stopping = asyncio.Event()
        self._said: set[RateCause] = set()
        self._due = 0.0
        #: How long everybody was held, when a trial was answered, and when the item that goes first afterwards went.
        self._held_s = 0.0
        self._back_at = _NEVER
        self._half_at: float | None = None
        #: Refusals without an answer between, of what was sent after it had given way.
        self._in_a_row = 0
        self._lone = self._refused_number = 0
        #: After a refusal one goes first, and the others a moment later if it is not refused.
        self._is_scouting = False
        self._scout_at: float | None = None
        self._doubts = 0
        self._suspicion = _Suspicion()
        #: When it gave way last and why; and whether nothing that was sent since was answered.
        self._gave_way_at = float("-inf")
        self._cause = RateCause.REQUESTS
        self._is_alert = False
        self._timeouts = self._refusals = 0.0
        self._number = 0
        #: Items that wait to hear whether they are to blame.
        self._accused = 0

    # --- who may go ---

    @property
    def concurrency(self) -> int:
        """How many may be in flight now."""
        return self._allowed

    @property
    def in_flight(self) -> int:
        """How many requests are on their way."""
        return self._sent

    async def admit(self, tokens: float = 0.0) -> Ticket:
        """Wait for a slot and the right moment. Each admission needs one `release`.

        More tokens than a window has are waited for until the window is empty. Raises `Stopping`, and `UsedUpError`
        if that moment is hours away.
        """
        if self._taken < self._allowed and not self._waiting_for_slot:
            self._taken += 1
        else:
            await self._slot()
        try:
            if not self._next.locked() and not self._stopping.is_set():
                now = self._now()
                ticket = self._try(now, now, tokens)
                if ticket is not None:
                    return ticket
            return await self._moment(tokens)
        except BaseException:
            self._free()
            raise

    def _failed_at(self, now: float, ticket: Ticket, error: EndpointError, record: Record) -> None:
        breaker = self.breaker
        was_down = breaker.down_since is not None
        # Where nobody was answered who went out later, a timeout tells of the endpoint, once, rather than of the item.
        # And what went out before the endpoint was back ends when it does.
        in_silence = error.kind is ErrorKind.TIMEOUT and _NEVER < breaker.vouched_at < ticket.sent_at
        spares = (in_silence and self._sent > 1 and not record.spared) or (
            ticket.sent_at < self._back_at and record.spared < _MOST_SPARED
        )
        if breaker.failed(
            now, record, ticket.number, error.message, unreachable=error.unreachable, spares=spares
        ):  # fmt: skip
            self._opened()
        elif was_down and breaker.down_since is None:
            self._go_on(now)  # it was the items' own fault
        elif in_silence and not was_down and (self._sent > 1 or breaker.streak > 1):
            # Where only one is in flight, its next attempt tells as well as a trial.
            breaker.open(now, error.message, since=self.last_answer_at, spares=False)
            self._opened()

    def _timed_out(self, now: float, ticket: Ticket) -> None:
        """Take many timeouts for an overload."""
        self._timeouts += 1.0
        if self._timeouts >= _ENOUGH_TIMEOUTS:
            self._timeouts = 0.0
            self._level.overloaded(now, ticket.sent_at)
            self._take_level()

    def takes_another(self, tokens: float) -> Ticket | None:
        """Admit a request that does not wait: None if there is no slot, or it is not the moment."""
        if self._taken >= self._allowed or self._waiting_for_slot or self._next.locked() or self._stopping.is_set():
            return None
        now = self._now()
        ticket = self._try(now, now, tokens)
        self._taken += ticket is not None
        return ticket

    def release(self, ticket: Ticket) -> None:  # noqa: ARG002 - whoever gives it back had one
        """Give the slot back: the attempt is over, however it ended."""
        if self._shared_most is not None and self._shared is not None:
            self._shared.free_slot()
        self._sent -= 1
        self._free()

    def succeeded(self, ticket: Ticket, tokens: float | None = None) -> None:
        """Take note of an answer. `tokens` are those that it took of the limit, if known."""
        now = self._now()
        latency_s = now - ticket.sent_at
        self.last_answer_at = now
        self.refused = _NOT_REFUSED
        self._in_a_row = 0
        self.longest_s = max(latency_s, self.longest_s * _FADES)
        if self.breaker.answered(ticket.sent_at):
            self._go_on(now)
        self._level.succeeded(now, ticket.ordinal, latency_s)
        self._forgive(ticket)
        with self._lock:
            self._settle(ticket, tokens)
            if self._is_bound:
                for limit, entry in zip(self._limits, ticket.entries, strict=True):
                    if limit.accepted(now, entry):
                        self._changed.set()

    def _forgive(self, ticket: Ticket) -> None:
        """Let an answer make up for earlier trouble."""
        if self._refusals:
            self._refusals = max(0.0, self._refusals - _TOLERATES)
        if self._timeouts:
            self._timeouts = max(0.0, self._timeouts - _FORGIVES)
        if self._is_alert and ticket.sent_at > self._gave_way_at:
            self._is_alert = False
        if self._doubts and ticket.sent_at >= self._level.cut_at:
            self._doubts = 0
        if self._is_scouting and self._scout_at is not None and ticket.sent_at >= self._scout_at:
            self._is_scouting = False
        if self._level.allowed != self._allowed:
            self._take_level()

    def failed(self, ticket: Ticket, error: EndpointError, record: Record, tokens: float | None = None) -> None:
        """Take note of a failed attempt; `record` learns whether it was the item's own affair."""
        if error.kind is ErrorKind.RATE_LIMITED:
            self._refused(ticket, error, record)
            return
        now = self._now()
        with self._lock:
            self._settle(ticket, tokens)
            for limit, entry in zip(self._limits, ticket.entries, strict=True):
                if limit.lost(now, entry):
                    self._changed.set()
        if error.abandoned:
            record.failed += 1
            if record.spared < _MOST_SPARED:
                record.spared += 1
            else:
                self.breaker.doubt(now, record)
            self.longest_s = max(self.longest_s, now - ticket.sent_at)
            return
        if error.kind not in _OUTAGE_KINDS or error.attempts is not None:
            record.failed += 1
            self.last_answer_at = now
            if self.breaker.answered(ticket.sent_at):
                self._go_on(now)
            return
        if error.unreachable:
            with self._lock:
                self._uncount(ticket)
        if error.kind is ErrorKind.TIMEOUT:
            self._timed_out(now, ticket)
        self._failed_at(now, ticket, error, record)

    def take_quota(self, quota: QuotaLevel) -> None:
        """Take note of what the endpoint says of a limit."""
        self._is_bound = True
        limit = (self._requests if quota.what == "requests" else self._tokens)[0]
        with self._lock:
            is_news = limit.said_by_header(self._now(), quota.limit, quota.remaining)
        if is_news:
            self._say(RateCause(quota.what), None)

    @property
    def is_full(self) -> bool:
        """Tell whether as many requests are on their way as may be."""
        return self._sent >= self._allowed

    def pause(self, seconds: float) -> None:
        """Let nobody go for this long: the endpoint said so."""
        self._is_bound = True
        until = self._now() + seconds
        self._paused_until = max(self._paused_until, until)
        if self._shared is not None:
            self._shared.pause(until)

    def paused_for(self) -> float:
        """Give the seconds that the pause still lasts, 0.0 if there is none."""
        return max(0.0, self._paused_until - self._now())

    def stop(self) -> None:
        """Let nobody go any more; who waits gets `Stopping`."""
        self._stopping.set()
        self._changed.set()
        for waiter in self._waiting_for_slot:
            if not waiter.done():
                waiter.set_exception(Stopping())
        self._waiting_for_slot.clear()

    def hold(self) -> None:
        """Let nobody go until `let_go`: the user wants it so."""
        self.is_held = self._is_bound = True

    def let_go(self) -> None:
        """Let those go that were held."""
        self.is_held = False
        self._changed.set()

    def tell_limit(self, what: str, most: float) -> None:
        """Let a minute have so many "requests" or "tokens" from now on: the user says so."""
        self._is_bound = True
        with self._lock:
            (self._requests if what == "requests" else self._tokens)[0].tell(self._now(), most)
        self._changed.set()

    def tell_concurrency(self, level: int | None) -> None:
        """Let so many be in flight from now on; None finds the level again."""
        self.is_auto = level is None
        self._level = Level(min(self._allowed, self._most), self._most) if level is None else Level(level, level)
        if self._shared_most is not None and level is not None:
            self._shared_most = level
        self._take_level()

    async def sleep(self, seconds: float) -> None:
        """Sleep, or raise `Stopping` as soon as the run stops."""
        if not self._stopping.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await self._stopping.wait()
            except TimeoutError:
                return
        raise Stopping

    @property
    def tokens_per_minute(self) -> float | None:
        """The tokens that a minute may have as far as the user or the endpoint said so; None if nobody did."""
        limit = self._tokens[0]
        return limit.most if limit.is_exact else None

    @property
    def is_told_tokens(self) -> bool:
        """Tell whether it is the user who said how many."""
        return self._tokens[0].is_told

    @property
    def found(self) -> Found:
        """What was found of the endpoint's limits, beyond what the user told."""
        level = self._level.found if self.is_auto and self._level.proven else None
        return Found(level, self._requests[0].found, self._tokens[0].found)

    # --- when the endpoint is down ---

    def suspect(self, why: str) -> None:
        """Hold everybody until a trial request was answered."""
        self._is_bound = True
        self.breaker.open(self._now(), why, since=self.last_answer_at)
        self._opened()

    def takes_trial(self) -> bool:
        """Tell whether a trial request may go now; it counts like any other, and needs no slot."""
        now = self._now()
        if self.is_held or not self.breaker.trial_due(now, asked=self._is_asked(now)):
            return False
        with self._lock:
            if any(limit.earliest(now, 1.0) > now for limit in self._limits if limit.is_told):
                return False
            for limit in self._limits:
                limit.count(now, 1.0)
        self.breaker.trial_sent(now)
        return True

    def _is_asked(self, now: float) -> bool:
        """Tell whether somebody waits for a verdict that nothing in flight is likely to bring."""
        since = self.breaker.in_doubt_since
        if not self._accused or since is None:
            return False
        return not self._sent or now - since > _PATIENCE_S + self.longest_s

    async def verdict(self, record: Record, is_alone: Callable[[], bool]) -> None:
        """Wait until it is known of each failed attempt whose fault it was. Raises `Stopping`.

        The only item of a run is not waited with if nothing was ever answered: that is no outage in the middle.
        """
        self._accused += 1
        try:
            while record.in_doubt and not (self.breaker.vouched_at == _NEVER and is_alone()):
                await self.sleep(_VERDICT_S)
        finally:
            self._accused -= 1

    @property
    def down_s(self) -> float:
        """How many seconds the endpoint was down in all, until now."""
        return self.outage_s + self.breaker.lasts(self._now())

    def trial_failed(self, why: str) -> None:
        """Take note that a trial request shows that the endpoint is down."""
        if self.breaker.trial_failed(self._now(), why):
            self._opened()

    @staticmethod
    def is_down(error: EndpointError) -> bool:
        """Tell whether an attempt that ended so leaves it open that the endpoint is down."""
        return error.kind in _OUTAGE_KINDS or error.kind is ErrorKind.RATE_LIMITED

    def recovered(self) -> None:
        """Let an item go: a trial request was answered. If it is not refused, everybody may go.

        Where all slots are held by requests that went into a silence, nobody could go first.
        """
        now = self._now()
        self._held_s = self.breaker.lasts(now)
        self.last_answer_at = self._back_at = now
        self._half_at = None
        if self.is_full:
            self.breaker.close()
            self._go_on(now)
        else:
            self.breaker.trial_answered()
        self._changed.set()

    def look(self) -> None:
        """Let everybody go, if the item that went first was not refused for a while: its answer is on its way."""
        now = self._now()
        if self.breaker.is_half_open and self._half_at is not None and now - self._half_at >= _HALF_OPEN_S:
            self.breaker.close()
            self._go_on(now)

    def _go_on(self, now: float) -> None:
        self._half_at = None
        self.outage_s += self._held_s
        self._outage(f"the endpoint answers again, after {self._held_s:.0f} s")
        if self._held_s >= _LONG_HOLD_S:
            self._level.restart(now)
            self._take_level()
        self._changed.set()

    def _opened(self) -> None:
        self._is_bound = True
        self.outages += 1
        self._outage(f"the endpoint is down: {self.breaker.why}; everybody waits until a trial is answered")

    # --- moments ---

    async def _moment(self, tokens: float) -> Ticket:
        async with self._next:
            due = None
            while True:
                if self._stopping.is_set():
                    raise Stopping
                now = self._now()
                is_late = due is not None and 0.0 <= now - due <= _LATE_S
                ticket = self._try(now, due if is_late and due is not None else now, tokens)
                if ticket is not None:
                    return ticket
                due = self._due
                if due - now > _LONGEST_WAIT_S and not self.breaker.down_since:
                    self._look_for_used_up(now, tokens)
                self._changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(due - now):
                        await self._changed.wait()

    def _try(self, now: float, due: float, tokens: float) -> Ticket | None:
        """Let one go if it may go now; else put into `_due` when to ask again."""
        with self._lock:
            at = self._earliest(now, tokens) if self._is_bound else now
            if at > now + _RESOLUTION_S:
                self._due = at
                return None
            if (
                self._shared_most is not None
                and self._shared is not None
                and not self._shared.take_slot(self._shared_most)
            ):
                self._due = now + _SHARED_SLOT_S
                return None
            entries = [limit.take(now, due, tokens if limit.is_of_tokens else 1.0) for limit in self._limits]
        if self._ramp is not None:
            self._ramp.take(now)
        if self._is_scouting:
            self._is_scouting, self._scout_at = self._scout_at is None, now
        if self.breaker.is_half_open:
            self._half_at = now
        self._sent += 1
        self._number += 1
        return Ticket(now, self._number, self._sent, entries)

    def _earliest(self, now: float, tokens: float) -> float:
        if self.breaker.down_since is not None and not (self.breaker.is_half_open and self._half_at is None):
            return now + 3600.0  # woken when that changes
        if self.is_held:
            return now + 3600.0
        at = max(now, self._paused_until)
        if self._is_scouting and self._scout_at is not None:
            at = max(at, self._scout_at + _SCOUT_S)
        if self._shared is not None:
            at = max(at, min(self._shared.paused_until, now + _MAX_PAUSE_S))
        for limit in self._limits:
            at = max(at, limit.earliest(now, tokens if limit.is_of_tokens else 1.0))
        if self._ramp is not None:
            if self._ramp.is_over(now):
                self._ramp = None
            else:
                at = max(at, self._ramp.earliest(now))
        return at

    def _look_for_used_up(self, now: float, tokens: float) -> None:
        for limit, name in self._daily.items():
            at = limit.earliest(now, tokens if limit.is_of_tokens else 1.0)
            if at - now > _LONGEST_WAIT_S:
                hours = (at - now) / 3600
                raise UsedUpError(f"{name} = {limit.most:g} is used up; there is room again in {hours:.1f} hours")

    # --- slots ---

    async def _slot(self) -> None:
        if self._stopping.is_set():
            raise Stopping
        waiter = self._loop.create_future()
        self._waiting_for_slot.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._free()
            raise

    def _free(self) -> None:
        self._taken -= 1
        self._wake()

    def _wake(self) -> None:
        waiting = self._waiting_for_slot
        while waiting and self._taken < self._allowed:
            waiter = waiting.popleft()
            if not waiter.done():
                self._taken += 1
                waiter.set_result(None)

    def _take_level(self) -> None:
        """Let the level count that is allowed now; what is more is let go bit by bit, for a refusal comes at once."""
        before, level = self._allowed, self._level.allowed
        if level <= before:
            self._allowed = level
            return
        if self._grows is not None:
            return
        self._allowed = min(level, before + max(1, before // _GROWS_BY))
        self._grows = self._loop.call_later(_GROWS_S, self._grow_on)
        self._wake()
        self._grown(self._allowed)

    def _grow_on(self) -> None:
        self._grows = None
        self._take_level()

    # --- what refusals say ---

    def _refused(self, ticket: Ticket, error: EndpointError, record: Record) -> None:
        """Give way where it is certain that it was too much: a gateway refuses one or the other for no reason."""
        self._is_bound = True
        now = self._now()
        self.refused = (self.refused[0] or now, now)
        with self._lock:
            self._uncount(ticket)
        is_herd = ticket.sent_at <= self._gave_way_at
        is_trial = any(entry.is_trial for entry in ticket.entries)
        is_certain = not is_herd and self._is_certain(ticket, error, is_trial=is_trial)
        if error.retry_after_s is not None:
            self._wait_as_asked(now, ticket, error, is_certain=is_certain)
        if is_herd:
            self._give_way(now, ticket, error, error.cause or self._cause)
        elif is_certain:
            self._give_way_now(now, ticket, error)
        else:
            self._hold(now, ticket, error)
        for limit, entry in zip(self._limits, ticket.entries, strict=True):
            limit.lost(now, entry)  # a trial that was refused for something else
        self._take_level()
        self._changed.set()
        self._in_a_row += not is_herd and not is_trial
        self._charge(now, ticket, error, record)

    def _wait_as_asked(self, now: float, ticket: Ticket, error: EndpointError, *, is_certain: bool) -> None:
        """Let everybody wait as long as the endpoint asked one to, unless it asks now one and now the other."""
        wait_s = min(error.retry_after_s or 0.0, _MAX_PAUSE_S)
        for limit in self._limits:
            limit.come_back(now + wait_s)
        if error.limit is None and (is_certain or not self._is_habit(ticket)):
            self.pause(wait_s)

    def _give_way_now(self, now: float, ticket: Ticket, error: EndpointError) -> None:
        self._cause = error.cause or self._guess(now, ticket)
        self._gave_way_at, self._is_alert, self._refusals = now, True, 0.0
        self._give_way(now, ticket, error, self._cause)
        if error.cause is not RateCause.CONCURRENCY:
            self._is_scouting, self._scout_at = True, None
            if error.retry_after_s is None:
                self.pause(_PAUSE_S)
        self._say(self._cause, error)

    def _charge(self, now: float, ticket: Ticket, error: EndpointError, record: Record) -> None:
        """Decide whose affair a refusal was: the pace's, the endpoint's, or after many of them the item's own."""
        if self.breaker.down_since is None and self._in_a_row >= _AN_OUTAGE and error.retry_after_s is None:
            for limit in self._limits:
                limit.drop()
            self.breaker.open(now, error.message)
            self._opened()
        if self.breaker.down_since is None and record.spared < _MOST_SPARED:
            record.failed += 1
            record.spared += 1
        else:
            self._failed_at(now, ticket, error, record)

    def _is_habit(self, ticket: Ticket) -> bool:
        """Tell whether refusals come alone there, so that one that names a wait is no reason for all to wait."""
        answers = ticket.number - self._refused_number
        self._refused_number = ticket.number
        self._lone = min(2 * _HABIT, self._lone + 1) if answers > _LONE_AFTER else max(0, self._lone - 1)
        return self._lone >= _HABIT

    def _is_certain(self, ticket: Ticket, error: EndpointError, *, is_trial: bool) -> bool:
        """Tell whether a refusal is no chance: it says what for, it was tried for, or there are too many of them."""
        self._refusals += 1.0
        grows = self._suspicion.grows(ticket.number)
        says_so = error.limit is not None or error.cause is RateCause.BURST
        return grows or says_so or is_trial or self._is_alert or self._refusals >= _TOO_MANY

    def _hold(self, now: float, ticket: Ticket, error: EndpointError) -> None:
        """Raise no limit that is in use, and lower it a little if that was not the only refusal lately."""
        for at in (0, len(self._requests)):
            limit = self._limits[at]
            if limit.binds(now):
                limit.hold(now)
                if self._refusals >= _ENOUGH_TO_CUT:
                    self._refusals = 0.0
                    with self._lock:
                        limit.refused(
                            now, ticket.entries[at], ticket.sent_at, error.limit, is_named=True,
                            asks_to_wait=error.retry_after_s is not None,
                        )  # fmt: skip

    def _give_way(self, now: float, ticket: Ticket, error: EndpointError, cause: RateCause) -> None:
        is_explained = True
        if cause is RateCause.CONCURRENCY:
            least = int(_PLAUSIBLE * self._level.allowed) if self._level.proven >= ticket.ordinal else 1
            self._level.refused(now, ticket.sent_at, error.limit or max(ticket.ordinal - 1, least))
        elif cause is RateCause.REQUESTS or cause is RateCause.TOKENS:
            at = 0 if cause is RateCause.REQUESTS else len(self._requests)
            with self._lock:
                is_explained = self._limits[at].refused(
                    now, ticket.entries[at], ticket.sent_at, error.limit, is_named=error.cause is not None,
                    asks_to_wait=error.retry_after_s is not None,
                )  # fmt: skip
        elif cause is RateCause.BURST:
            self._ramp = Ramp(now, self._requests[0].rate(now) / 2)
        else:
            self._level.overloaded(now, ticket.sent_at)
        if not is_explained:
            # What was found is no limit of requests: whatever is sent is refused.
            self._requests[0].drop()
            self.breaker.open(now, error.message, since=self.last_answer_at)
            self._opened()

    def _guess(self, now: float, ticket: Ticket) -> RateCause:
        """Find out what a refusal without a reason was about: what held the others up, or what was never seen."""
        level = self._level
        if self._requests[0].binds(now):
            return RateCause.REQUESTS
        if self._tokens[0].binds(now):
            return RateCause.TOKENS
        if ticket.sent_at >= level.cut_at and ticket.ordinal <= level.allowed:
            self._doubts += 1  # the level had been lowered, and that was not enough
        if ticket.ordinal <= max(1.0, _NEAR_PROVEN * level.proven) or self._doubts >= _ENOUGH_DOUBTS:
            self._doubts = 0
            return RateCause.REQUESTS
        return RateCause.CONCURRENCY

    def _settle(self, ticket: Ticket, tokens: float | None) -> None:
        if tokens is not None:
            for at in range(len(self._requests), len(self._limits)):
                self._limits[at].settle(ticket.entries[at], tokens)
            if self._next.locked():
                self._changed.set()

    def _uncount(self, ticket: Ticket) -> None:
        """Take back what did not count there. Where the user told a limit of requests, refused ones may count."""
        self._settle(ticket, 0.0)
        for at, limit in enumerate(self._requests):
            if not limit.is_told:
                limit.uncount(ticket.entries[at])

    def _say(self, cause: RateCause, error: EndpointError | None) -> None:
        """Tell once what of each kind was found."""
        words = {
            RateCause.CONCURRENCY: f"no more than {self._level.allowed} requests at a time",
            RateCause.REQUESTS: f"about {self._requests[0].most or 0:,.0f} requests a minute",
            RateCause.TOKENS: f"about {self._tokens[0].most or 0:,.0f} tokens a minute",
            RateCause.BURST: "a slow start",
        }.get(cause)
        if words is not None and cause not in self._said:
            self._said.add(cause)
            why = f": {error.message}" if error else ", as its headers say"
            self._changed_words(f"{words} from now on, and what fits better as it is found out{why}")
