"""The Python form of `batchrun run`: a job in, its summary out, with or without an event loop of one's own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from batchrun.runner import Runner

if TYPE_CHECKING:
    from batchrun.job import Job
    from batchrun.runner import Observer
    from batchrun.summary import Summary


async def run_async(job: Job, *, observer: Observer | None = None, limit: int | None = None) -> Summary:
    """Run a job within a running event loop and give its summary.

    A job that ends with failures, at a limit or because the endpoint said stop ends normally: see
    `Summary.exit_code` and `Summary.stop`. `limit` runs the first items only. Raises `JobError` if the job, its
    input or its schema cannot be used, `LockedError` if another run holds the output folder, `StoreError` if that
    folder cannot be written.
    """
    return await Runner(job, observer or Silence(), limit=limit).run()


def run(job: Job, *, observer: Observer | None = None, limit: int | None = None) -> Summary:
    """Run a job and wait for its end; `run_async` for callers without an event loop of their own."""
    with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
        return runner.run(run_async(job, observer=observer, limit=limit))


def event_loop_factory() -> Any:
    """Give uvloop's event loop where it is installed, else None for asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


class Silence:
    """An observer that takes no note."""

    def notice(self, event: str, message: str, **fields: Any) -> None:
        """Do nothing."""
