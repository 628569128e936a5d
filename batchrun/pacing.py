"""A job's limits → the pacer of its run, with what earlier runs found and what other runs of its scope do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchrun.endpoint.client import most_connections
from batchrun.pace import AUTO_MOST, PACE_CELLS, Limits, Pacer
from batchrun.store import PACE, Pages, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AsyncExitStack

    from batchrun.endpoint.dialect import Dialect
    from batchrun.job import Job
    from batchrun.knowledge import Knowledge


def open_pacer(
    stack: AsyncExitStack, job: Job, knowledge: Knowledge, dialect: Dialect, tell: Callable[[str], None],
    outage: Callable[[str], None], grown: Callable[[int], None],
) -> Pacer:  # fmt: skip
    """Make the pacer of a run.

    `tell` is told in words what limits it, `outage` that the endpoint is down or back, `grown` the concurrency when it
    rises. Raises `JobError` and `StoreError` if the place that a scope shares cannot be used.
    """
    own = job.limits
    most = most_connections()
    concurrency = None if own.concurrency == "auto" else own.concurrency
    if concurrency is not None and concurrency > most:
        tell(f"limits.concurrency is lowered from {concurrency} to {most}: so many files may be open (ulimit -n)")
        concurrency = most
    limits = Limits(
        concurrency, own.requests_per_minute, own.tokens_per_minute, own.requests_per_second, own.tokens_per_second,
        own.requests_per_day, own.tokens_per_day, knowledge.found,
    )  # fmt: skip
    return Pacer(
        limits, shared=_open_pages(stack, job, knowledge, tell), shares_slots=own.scope is not None,
        has_burst_limit=dialect.has_burst_limit, most=min(AUTO_MOST, most), changed=tell, outage=outage,
        grown=grown,
    )  # fmt: skip


def _open_pages(stack: AsyncExitStack, job: Job, knowledge: Knowledge, tell: Callable[[str], None]) -> Pages | None:
    """Open what remembers the pace: for this run directory, or for all runs of a scope."""
    scope = job.limits.scope
    path = knowledge.scope_path(scope) if scope else job.output / PACE
    try:
        pages = Pages(path, PACE_CELLS, is_shared=scope is not None)
    except StoreError as error:
        if scope is not None:
            raise
        tell(f"limits do not hold across a restart of this run: {error}")
        return None
    stack.callback(pages.close)
    return pages
