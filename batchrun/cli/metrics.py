"""Metrics of a run as a file for the textfile collector of Prometheus' node exporter."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchrun.runner import Runner
    from batchrun.summary import Snapshot, Summary

_INTERVAL_S = 15.0
#: How often a run is looked at until it has begun.
_BEGINNING_S = 0.2
#: What each metric is: a gauge, unless its name ends with _total.
_HELP = {
    "batchrun_items": "Items of the run directory by state.",
    "batchrun_running": "Whether the run goes on.",
    "batchrun_in_flight": "Requests on their way.",
    "batchrun_requests_per_minute": "Requests answered lately.",
    "batchrun_requests_total": "Requests sent by this run.",
    "batchrun_retries_total": "Attempts after the first, of this run.",
    "batchrun_tokens_total": "Tokens that this run took.",
    "batchrun_cost": "What this run cost, in the currency of the job's prices.",
    "batchrun_exit_code": "How the last run ended.",
    "batchrun_finished_timestamp_seconds": "When the last run ended.",
    "batchrun_duration_seconds": "How long the last run took.",
}
#: What is said of the last run, also while the next one goes on, and if that is killed.
_LAST = ("batchrun_exit_code", "batchrun_finished_timestamp_seconds", "batchrun_duration_seconds")
_Value = tuple[str, dict[str, str], float]


class MetricsFile:
    """Keeps a file up to date, replaced in one step. Nothing is written before the run has its folder: a start beside
    another run leaves that one's file alone.
    """

    def __init__(self, path: Path, job: str) -> None:
        self._path, self._job = path, job

    def check(self) -> None:
        """Raise `OSError` if the file cannot be written, as far as that can be told without writing it."""
        folder = self._path.absolute().parent
        folder.stat()
        if self._path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    async def follow(self, runner: Runner) -> None:
        """Write how a run stands as soon as it has begun, and then now and then, until cancelled."""
        last: list[_Value] | None = None
        while True:
            snapshot = runner.snapshot()
            if snapshot is not None:
                last = self._last() if last is None else last
                with suppress(OSError):  # the end will say it
                    self._write([*_of_snapshot(snapshot, runner), *last])
            await asyncio.sleep(_BEGINNING_S if snapshot is None else _INTERVAL_S)

    def finish(self, summary: Summary) -> None:
        """Write how a run ended. Raises `OSError`."""
        self._write(_of_summary(summary))

    def refused(self, exit_code: int) -> None:
        """Write that a run ended without a summary. Raises `OSError`."""
        self._write([("batchrun_running", {}, 0.0), *_ending(exit_code)])

    def _last(self) -> list[_Value]:
        """Give what the file says of the last run of this job."""
        try:
            lines = self._path.read_text("utf-8").splitlines()
            begins = {f'{name}{{job_file="{_escaped(self._job)}"}} ': name for name in _LAST}
            return [
                (name, {}, float(line.removeprefix(begin)))
                for line in lines for begin, name in begins.items() if line.startswith(begin)
            ]  # fmt: skip
        except (OSError, ValueError):
            return []

    def _write(self, values: list[_Value]) -> None:
        lines, named = [], set()
        for name, labels, value in values:
            if name not in named:
                named.add(name)
                kind = "counter" if name.endswith("_total") else "gauge"
                lines += [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} {kind}"]
            shown = ",".join(f'{key}="{_escaped(one)}"' for key, one in {"job_file": self._job, **labels}.items())
            lines.append(f"{name}{{{shown}}} {value:.10g}")
        new = self._path.with_name(self._path.name + ".new")
        try:
            new.write_text("\n".join(lines) + "\n", encoding="utf-8")
            new.replace(self._path)
        except OSError:
            with suppress(OSError):
                new.unlink()
            raise


def _of_snapshot(snapshot: Snapshot, runner: Runner) -> list[_Value]:
    results, failures = runner.recorded
    return [
        ("batchrun_running", {}, 1.0),
        ("batchrun_items", {"state": "result"}, float(results)),
        ("batchrun_items", {"state": "failure"}, float(failures)),
        ("batchrun_in_flight", {}, float(snapshot.in_flight)),
        ("batchrun_requests_per_minute", {}, snapshot.requests_per_minute),
        ("batchrun_requests_total", {}, float(runner.attempts_made)),
        ("batchrun_retries_total", {}, float(snapshot.retries)),
    ]


def _of_summary(summary: Summary) -> list[_Value]:
    tally = summary.tally
    pending = [("pending", summary.pending)] if summary.pending is not None else []
    states = [("result", summary.results), ("failure", summary.failures), *pending]
    return [
        ("batchrun_running", {}, 0.0),
        *(("batchrun_items", {"state": state}, float(count)) for state, count in states),
        ("batchrun_requests_total", {}, float(tally.attempts)),
        ("batchrun_retries_total", {}, float(tally.retries)),
        ("batchrun_tokens_total", {"kind": "prompt"}, float(tally.usage.prompt_tokens)),
        ("batchrun_tokens_total", {"kind": "completion"}, float(tally.usage.completion_tokens)),
        *([("batchrun_cost", {"currency": str(summary.currency)}, summary.cost)] if summary.cost is not None else []),
        *_ending(summary.exit_code),
        ("batchrun_duration_seconds", {}, summary.duration_s),
    ]


def _ending(exit_code: int) -> list[_Value]:
    return [
        ("batchrun_exit_code", {}, float(exit_code)),
        ("batchrun_finished_timestamp_seconds", {}, time.time()),
    ]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
