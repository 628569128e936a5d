"""The manifest, `run.json`: what ran, on what, and how it ended."""

from __future__ import annotations

import os
import pwd
import sys
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchrun.job import as_plain
from batchrun.records import utc_now
from batchrun.version import __version__

if TYPE_CHECKING:
    from batchrun.items import InputFile
    from batchrun.job import Job
    from batchrun.requeue import RetryPlan
    from batchrun.summary import Summary


@dataclass(frozen=True, slots=True)
class Crash:
    """What a run left that was ended by force. `never_sent` is None where the input cannot be counted."""

    noticed_at: str
    done: int
    in_flight: int
    never_sent: int | None

    def in_words(self) -> str:
        """Say it in one line."""
        unsent = "the others were" if self.never_sent is None else f"{self.never_sent} were"
        return (
            f"an earlier run was ended by force: {self.done} items are done, {unsent} never sent, and "
            f"{self.in_flight} calls were in flight, perhaps billed; their items run again"
        )


class Manifest:
    """Makes the manifest of a run, with what stays of those of earlier runs in the same directory (`before`)."""

    def __init__(
        self, job: Job, dialect: str, before: dict[str, Any], made: dict[str, Any], retry: RetryPlan | None
    ) -> None:
        self._job, self._dialect, self._before, self._made, self._retry = job, dialect, before, made, retry
        self._started_at = utc_now()
        self.run_id = str(before.get("run_id") or uuid.uuid4())
        #: Other requests whose results count as this job's; see `prompts.accepted_builders`.
        self.accepted: list[dict[str, Any]] = list(before.get("accepted") or [])
        if retry and retry.changed and {"set": dict(retry.changed)} not in self.accepted:
            self.accepted.append({"set": dict(retry.changed)})
        self._crash: Any = before.get("last_crash")
        #: Who stated what about the data and when, in all runs; one statement the same as the last is not repeated.
        self._statements: list[dict[str, Any]] = list((before.get("data_boundary") or {}).get("statements") or [])
        statement = _statement(job, self._statements)
        if statement is not None and not _is_repeated(statement, self._statements):
            self._statements.append(statement)

    @property
    def is_of_a_run(self) -> bool:
        """Tell whether the manifest on disk says how a run ended: not if there is none, or the run was killed."""
        return self._before.get("state") not in (None, "running")

    @property
    def pending_before(self) -> int | None:
        """How many items were pending when the last run ended, None if that is not known."""
        counts = (self._before.get("summary") or {}).get("counts") or {}
        pending: int | None = counts.get("pending")
        return pending

    def note_crash(self, done: int, in_flight: int, total: int | None) -> Crash:
        """Take note of what an earlier run left when it was ended by force."""
        never_sent = None if total is None else max(0, total - done - in_flight)
        crash = Crash(utc_now(), done, in_flight, never_sent)
        self._crash = as_plain(crash)
        return crash

    def boundary_in_words(self) -> str:
        """Say in one line what is stated about the data, by whom, and how it is looked through."""
        boundary = self._job.data_boundary
        if self._job.endpoint.stays_here:
            said = "the endpoint is on this machine, so nothing need be stated"
        else:
            last = self._statements[-1]
            said = f"{boundary.classification} data, says {last['by']} by {last['how']} on {last['at'][:10]}"
        return f"{said}; scan: {boundary.scan}"

    def value(self, summary: Summary | None, files: list[InputFile] | None) -> dict[str, Any]:
        """Give the manifest as JSON values; without a summary the run goes on, without files they are as before."""
        job, retry = self._job, self._retry
        return {
            "batchrun": __version__,
            "run_id": self.run_id,
            "state": "running" if summary is None else "stopped" if summary.stop else "finished",
            "started_at": self._started_at,
            "job_file": str(job.path) if job.path else None,
            "job": as_plain(replace(job, path=None)),
            "dialect": self._dialect,
            "working_directory": as_plain(Path.cwd()),
            "made_from": self._made,
            "accepted": self.accepted,
            "retry": retry and {"kinds": sorted(retry.kinds), "set": dict(retry.changed)},
            "last_crash": self._crash,
            "data_boundary": {
                "classification": job.data_boundary.classification,
                "statements": self._statements,
                "scan": job.data_boundary.scan,
            },
            "input": self._before.get("input", []) if files is None else [as_plain(file) for file in files],
            "versions": {"python": sys.version.split()[0], "batchrun": __version__},
            "summary": summary and summary.as_dict(),
        }


#: What who confirms it states.
BOUNDARY_STATEMENT = (
    "The data holds no sensitive personal data, no confidential customer data, no regulated data and no "
    "residency-bound data, and may be sent again."
)


_FLAG = "--confirm-non-sensitive"


def _statement(job: Job, before: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Give what is stated about a job's data, None where nothing leaves this machine."""
    if job.endpoint.stays_here:
        return None
    boundary = job.data_boundary
    if boundary.by_flag:
        how = _FLAG
    elif job.path is not None:
        how = str(job.path.absolute())
    else:  # a run directory named for a retry goes on with what its job said
        how = next(
            (str(one["how"]) for one in reversed(before) if one["how"] != _FLAG), "the program that made the job"
        )
    return {
        "classification": boundary.classification,
        "statement": BOUNDARY_STATEMENT,
        "by": _user(),
        "how": as_plain(how),
        "at": utc_now(),
        "base_url": job.endpoint.base_url,
    }


def _is_repeated(statement: dict[str, Any], before: list[dict[str, Any]]) -> bool:
    return bool(before) and {**before[-1], "at": None} == {**statement, "at": None}


def _user() -> str:
    """Give the name of the user whose process this is, or the number where it has none."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
