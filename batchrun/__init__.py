"""batchrun: JSONL prompts in, answers out, nothing lost.

from batchrun import Job, run

summary = run(Job.load("job.toml"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchrun.version import __version__

if TYPE_CHECKING:
    from batchrun.api import run, run_async
    from batchrun.expect import Percent
    from batchrun.extraction import Extracted, ExtractionError, extract
    from batchrun.job import (
        Budget,
        DataBoundary,
        Endpoint,
        Job,
        JobError,
        Limits,
        Price,
        Prompt,
        Retry,
        Schedule,
        SimulatorOptions,
        Structured,
    )  # fmt: skip
    from batchrun.output import Schema
    from batchrun.records import ErrorKind
    from batchrun.requeue import RetryPlan
    from batchrun.store import LockedError, StoreError, read_records
    from batchrun.summary import Stop, StopCause, Summary

_HOMES = {
    "batchrun.api": ("run", "run_async"),
    "batchrun.expect": ("Percent",),
    "batchrun.extraction": ("Extracted", "ExtractionError", "extract"),
    "batchrun.job": (
        "Budget", "DataBoundary", "Endpoint", "Job", "JobError", "Limits", "Price", "Prompt", "Retry",
        "Schedule", "SimulatorOptions", "Structured",
    ),
    "batchrun.output": ("Schema",),
    "batchrun.records": ("ErrorKind",),
    "batchrun.requeue": ("RetryPlan",),
    "batchrun.store": ("LockedError", "StoreError", "read_records"),
    "batchrun.summary": ("Stop", "StopCause", "Summary"),
}  # fmt: skip

__all__ = [
    "Budget", "DataBoundary", "Endpoint", "ErrorKind", "Extracted", "ExtractionError", "Job", "JobError", "Limits",
    "LockedError", "Percent", "Price", "Prompt", "Retry", "RetryPlan", "Schedule", "Schema", "SimulatorOptions", "Stop",
    "StopCause", "StoreError", "Structured", "Summary", "__version__", "extract", "read_records", "run", "run_async",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: aiohttp alone takes longer to import than `--help` may take."""
    for home, names in _HOMES.items():
        if name in names:
            import importlib

            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'batchrun' has no attribute {name!r}")
