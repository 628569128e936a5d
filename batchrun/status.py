"""How a run directory stands, from its files alone; safe beside a run that is at it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchrun.job import JobError
from batchrun.lines import InputError, count_items, expand_inputs
from batchrun.store.index import LINE_BYTES
from batchrun.store.lock import holder
from batchrun.store.recovery import recover
from batchrun.summary import cost_of

if TYPE_CHECKING:
    from batchrun.job import Job
    from batchrun.locate import Located
    from batchrun.records import Usage
    from batchrun.store.recovery import Recovered

_WINDOW_S = 60.0
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Status:
    """How a run directory stands. `items` is None where the input cannot be counted, `pending` too then, and where
    there are more records than items: those that are done have left the input.

    `in_flight` are calls under way or, if nobody holds the folder, interrupted by force and perhaps billed.
    """

    output: str
    state: str
    holder: str | None
    items: int | None
    results: int
    failures: int
    pending: int | None
    failures_by_kind: dict[str, int]
    in_flight: int
    interrupted_ever: int
    items_per_minute: float | None
    eta_s: float | None
    usage: Usage
    cost: float | None
    currency: str | None
    simulated: bool
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Give the status as JSON values."""
        return {
            "output": self.output,
            "state": self.state,
            "holder": self.holder,
            "counts": {
                "items": self.items, "results": self.results, "failures": self.failures, "pending": self.pending,
                "in_flight": self.in_flight, "failures_by_kind": self.failures_by_kind,
            },
            "interrupted_calls_ever": self.interrupted_ever,
            "items_per_minute": self.items_per_minute and round(self.items_per_minute, 1),
            "eta_s": self.eta_s and round(self.eta_s, 1),
            "tokens": {
                "prompt": self.usage.prompt_tokens, "cached_prompt": self.usage.cached_tokens,
                "completion": self.usage.completion_tokens, "reasoning": self.usage.reasoning_tokens,
                "total": self.usage.total_tokens,
            },
            "cost": None if self.cost is None else {"amount": round(self.cost, 6), "currency": self.currency},
            "simulated": self.simulated,
            "notes": list(self.notes),
        }  # fmt: skip


def read_beside_a_run(located: Located) -> Recovered:
    """Read a run directory whose files may be put in place anew at any moment. Raises `StoreError`."""
    for _ in range(_TRIES - 1):
        found = recover(located.folder)
        if not found.rebuilt or holder(located.folder) is None:
            return found
    return recover(located.folder)


def status_of(located: Located, found: Recovered | None = None) -> Status:
    """Take stock of a run directory, as `found` has it if it was read. Raises `StoreError` if its files are damaged."""
    job, folder = located.job, located.folder
    held = holder(folder)
    found = found or read_beside_a_run(located)
    index = found.index
    results, failures = found.durable if held and not found.rebuilt else (index.results, index.failures)
    items = _count(job)
    pending, notes = None, list(found.notes)
    if items is not None and results + failures <= items:
        pending = items - results - failures
    elif items is not None:
        notes.append(
            "there are records of items that are not in the input now; `batchrun verify` tells what is pending"
        )
    rate = _items_per_minute(found) if held else None
    usage = index.usage()
    summary = located.manifest.get("summary") or {}
    return Status(
        output=str(folder), state=_state(located, found, held=held is not None), holder=held, items=items,
        results=results, failures=failures, pending=pending, failures_by_kind=index.kinds(),
        in_flight=len(found.interrupted), interrupted_ever=found.journal.interrupted, items_per_minute=rate,
        eta_s=pending / rate * 60 if pending and rate else None, usage=usage,
        cost=cost_of(usage, job.price) if job.price else None,
        currency=job.price.currency if job.price else None,
        simulated=bool(job.endpoint.simulate or summary.get("simulated")), notes=tuple(notes),
    )  # fmt: skip


def _state(located: Located, found: Recovered, *, held: bool) -> str:
    state = str(located.manifest.get("state") or "new")
    if held:
        return "running"
    if state != "running":
        stopped = (located.manifest.get("summary") or {}).get("stopped")
        return f"{state}: {stopped.get('message')}" if stopped else state
    return "ended by force" if found.interrupted or located.manifest.get("summary") is None else state


def _count(job: Job) -> int | None:
    try:
        return count_items(expand_inputs(job.input))
    except (InputError, JobError):
        return None


def _items_per_minute(found: Recovered) -> float | None:
    """Give how fast records were written over the last minute, or since the journal begins if that is later."""
    now = time.time()
    points = [point for point in found.journal.points if now - point[0] <= _WINDOW_S] or found.journal.points[-1:]
    if not points or now - points[0][0] <= 0:
        return None
    rows = max(0, found.journal.point.rows.size - points[0][1]) // LINE_BYTES
    return rows / max(now - points[0][0], 1.0) * 60
