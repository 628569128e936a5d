"""The Python form of `batchrun run`: a job in, its summary out, with or without an event loop of one's own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from batchrun.runner import Runner

if TYPE_CHECKING:
    from batchrun.job import Job
    from batchrun.requeue import RetryPlan
    from batchrun.selection import OnChange
    from batchrun.sending import Observer
    from batchrun.summary import Summary


async def run_async(
    job: Job, *, observer: Observer | None = None, limit: int | None = None, on_change: OnChange = "error",
    retry: RetryPlan | None = None,
) -> Summary:  # fmt: skip
    """Run a job within a running event loop and give its summary.

    A job that ends with failures, at a limit or because the endpoint said stop ends normally: see
    `Summary.exit_code` and `Summary.stop`. `limit` runs the first items only. `on_change` says what becomes of results
    that were made from another prompt, model, parameters or schema: "error", "keep" or "rerun". `retry` runs the
    failure queue of the job's output instead of its input.

    Raises `JobError` if the job, its input or its schema cannot be used or results changed, `LockedError` if another
    run holds the output folder, `StoreError` if that folder cannot be written.
    """
    return await Runner(job, observer or Silence(), limit=limit, on_change=on_change, retry=retry).run()


def run(
    job: Job, *, observer: Observer | None = None, limit: int | None = None, on_change: OnChange = "error",
    retry: RetryPlan | None = None,
) -> Summary:  # fmt: skip
    """Run a job and wait for its end; `run_async` for callers without an event loop of their own."""
    with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
        return runner.run(run_async(job, observer=observer, limit=limit, on_change=on_change, retry=retry))


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
