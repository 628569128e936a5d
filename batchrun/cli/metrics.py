"""Metrics of a run as a file for the textfile collector of Prometheus' node exporter."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchrun.runner import Runner
    from batchrun.summary import Snapshot, Summary

_INTERVAL_S = 15.0
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
_Value = tuple[str, dict[str, str], float]


class MetricsFile:
    """Keeps a file up to date, replaced in one step. Raises `OSError` from `start` if it cannot be written."""

    def __init__(self, path: Path, job: str) -> None:
        self._path, self._job = path, job

    def start(self) -> None:
        """Write that the run goes on."""
        self._write([("batchrun_running", {}, 1.0)])

    async def follow(self, runner: Runner) -> None:
        """Write how a run stands, now and then, until cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL_S)
            snapshot = runner.snapshot()
            if snapshot is not None:
                with suppress(OSError):  # the end will say it
                    self._write(_of_snapshot(snapshot, runner))

    def finish(self, summary: Summary) -> None:
        """Write how a run ended. Raises `OSError`."""
        self._write(_of_summary(summary))

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
        new.write_text("\n".join(lines) + "\n", encoding="utf-8")
        new.replace(self._path)


def _of_snapshot(snapshot: Snapshot, runner: Runner) -> list[_Value]:
    return [
        ("batchrun_running", {}, 1.0),
        ("batchrun_items", {"state": "result"}, float(snapshot.results)),
        ("batchrun_items", {"state": "failure"}, float(snapshot.failures)),
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
        ("batchrun_exit_code", {}, float(summary.exit_code)),
        ("batchrun_finished_timestamp_seconds", {}, time.time()),
        ("batchrun_duration_seconds", {}, summary.duration_s),
    ]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
