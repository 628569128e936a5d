"""What a person sees of a run under way: a bar on a terminal, log lines elsewhere."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Protocol

from batchrun.cli.console import Console, columns, printable, printable_json
from batchrun.cli.words import amount, duration
from batchrun.records import utc_now

if TYPE_CHECKING:
    from batchrun.runner import Runner
    from batchrun.summary import Snapshot

_BAR_INTERVAL_S = 0.2
_LOG_INTERVAL_S = 10.0
_BAR = "{percentage:3.0f}%|{bar}| {n:,}/{total:,} [{elapsed}{postfix}]"
_BAR_WITHOUT_TOTAL = "{n:,} done [{elapsed}{postfix}]"


class Display(Protocol):
    """Shows notices and, now and then, how the run stands."""

    interval_s: float
    wants_total: bool

    def notice(self, event: str, message: str, **fields: Any) -> None:
        """Show an event."""

    def show(self, snapshot: Snapshot) -> None:
        """Show how the run stands."""

    def close(self) -> None:
        """Leave the terminal as it was."""


async def follow(runner: Runner, display: Display) -> None:
    """Show how a run stands until cancelled."""
    if display.wants_total:
        runner.count_total()
    while True:
        await asyncio.sleep(display.interval_s)
        snapshot = runner.snapshot()
        if snapshot is not None:
            display.show(snapshot)


def describe(snapshot: Snapshot) -> str:
    """Say how a run stands in one line."""
    total = "?" if snapshot.total is None else f"{snapshot.total:,}"
    parts = [
        f"{snapshot.done:,}/{total} done",
        f"{snapshot.failures:,} failed",
        f"{snapshot.retries:,} retries",
        f"{snapshot.in_flight} in flight",
        f"{amount(snapshot.requests_per_minute)} requests/min",
        f"{amount(snapshot.tokens_per_minute)} tokens/min",
    ]
    if snapshot.outage_s is not None:
        parts.append(_outage(snapshot, snapshot.outage_s))
    if snapshot.waiting:
        parts.append(f"{snapshot.waiting} waiting")
    if snapshot.held:
        parts.append("paused by `batchrun ctl`")
    if snapshot.paused_s:
        parts.append(f"paused for {duration(snapshot.paused_s)} as the endpoint asked")
    parts.append(_outlook(snapshot))
    return ", ".join(part for part in parts if part)


def _outlook(snapshot: Snapshot) -> str:
    if snapshot.drain_s is not None:
        return _drain(snapshot, snapshot.drain_s)
    if snapshot.eta_s is not None:
        return f"about {duration(snapshot.eta_s)} left"
    if not snapshot.reading and snapshot.slowest:
        return "the last: " + tail(snapshot)
    return ""


def _outage(snapshot: Snapshot, lasts_s: float) -> str:
    return f"endpoint down for {duration(lasts_s)}, trying it: {printable(snapshot.outage, 120)}"


def _drain(snapshot: Snapshot, left_s: float) -> str:
    return f"stopping: {snapshot.in_flight} calls in flight have {duration(left_s)} to end (a second signal ends them)"


def tail(snapshot: Snapshot) -> str:
    """Name the slowest items under way, with age and state."""
    return "; ".join(
        f"{printable(work.id, 40)} since {duration(work.age_s)} (attempt {max(1, work.attempts)}, {work.state})"
        for work in snapshot.slowest
    )


class LogLines:
    """Plain or JSON lines on standard error: one event a line, the time first."""

    interval_s = _LOG_INTERVAL_S
    wants_total = True

    def __init__(self, console: Console, *, as_json: bool) -> None:
        self._console = console
        self._as_json = as_json

    def notice(self, event: str, message: str, **fields: Any) -> None:
        """Write an event."""
        if self._as_json:
            line = json.dumps({"time": utc_now(), "event": event, "message": message, **fields}, ensure_ascii=False)
            # JSON leaves C1 controls and direction marks as they are; a terminal would obey them.
            self._console.line(printable_json(line))
        else:
            self._console.line(f"{utc_now()} {event}: {printable(message, 2000)}")

    def show(self, snapshot: Snapshot) -> None:
        """Write a progress line."""
        fields = {
            name: getattr(snapshot, name)
            for name in ("total", "done", "results", "failures", "retries", "in_flight", "waiting")
        } | {
            "requests_per_minute": round(snapshot.requests_per_minute, 1),
            "tokens_per_minute": round(snapshot.tokens_per_minute, 1),
            "eta_s": snapshot.eta_s and round(snapshot.eta_s, 1),
        }
        self.notice("progress", describe(snapshot), **fields)

    def close(self) -> None:
        """Do nothing."""


class Bar:
    """A progress bar, and below it what the run is doing; at the end the slowest items by name."""

    interval_s = _BAR_INTERVAL_S
    wants_total = True

    def __init__(self, console: Console) -> None:
        from tqdm import tqdm  # here, because most runs have no terminal, and it takes a while to load
        from tqdm.utils import disp_trim

        self._trim = disp_trim
        self._bar: tqdm[Any] = tqdm(
            total=None, file=console, dynamic_ncols=True, leave=False, bar_format=_BAR_WITHOUT_TOTAL
        )
        self._below: tqdm[Any] = tqdm(
            total=0, file=console, position=1, dynamic_ncols=True, bar_format="{desc}", leave=False
        )

    def notice(self, event: str, message: str, **fields: Any) -> None:  # noqa: ARG002 - facts are for JSON logs
        """Write an event above the bar."""
        self._bar.write(f"{event}: {printable(message)}", file=self._bar.fp)

    def show(self, snapshot: Snapshot) -> None:
        """Redraw."""
        bar = self._bar
        bar.total = snapshot.total
        bar.n = snapshot.done
        bar.bar_format = _BAR_WITHOUT_TOTAL if snapshot.total is None else _BAR
        left = f"<{duration(snapshot.eta_s)}" if snapshot.eta_s is not None else ""
        bar.set_postfix_str(left, refresh=True)
        # A line longer than the screen would wrap, and every redrawing would leave a piece of it behind.
        self._below.set_description_str(self._trim(self._details(snapshot), columns() - 1), refresh=True)

    def close(self) -> None:
        """Take the bar off the screen."""
        self._below.close()
        self._bar.close()

    def _details(self, snapshot: Snapshot) -> str:
        if snapshot.drain_s is not None:
            return _drain(snapshot, snapshot.drain_s)
        if snapshot.outage_s is not None:
            return _outage(snapshot, snapshot.outage_s)
        if not snapshot.reading and snapshot.slowest:
            return "waiting for " + tail(snapshot)
        text = (
            f"{snapshot.failures:,} failed, {snapshot.retries:,} retries, {snapshot.in_flight} in flight, "
            f"{amount(snapshot.requests_per_minute)} requests/min, {amount(snapshot.tokens_per_minute)} tokens/min"
        )
        if snapshot.held:
            return text + ", paused by `batchrun ctl`"
        return text + (f", paused {duration(snapshot.paused_s)}" if snapshot.paused_s else "")


#: Events that stop nothing: the summary and `run.json` have them, or whoever asked for it knows.
_IN_PASSING = frozenset({"canary", "control", "data_boundary", "exposed", "learned", "outage", "paused", "profile"})


class Quiet:
    """Shows what stops a run, and nothing else."""

    interval_s = 3600.0
    wants_total = False

    def __init__(self, console: Console) -> None:
        self._console = console

    def notice(self, event: str, message: str, **fields: Any) -> None:  # noqa: ARG002 - facts are for JSON logs
        """Write an event, unless it stops nothing."""
        if event not in _IN_PASSING:
            self._console.line(f"batchrun: {event}: {printable(message, 2000)}")

    def show(self, snapshot: Snapshot) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
