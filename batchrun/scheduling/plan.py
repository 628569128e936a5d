"""What a scheduled run needs, worked out from its job: command, places, surroundings, and what may go wrong there."""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from batchrun.cron import FIELDS, Cron, parse
from batchrun.endpoint.profile import data_home
from batchrun.job import CREDENTIALS, Job, JobError, Schedule, load_job
from batchrun.scheduling.warnings import Written, warnings
from batchrun.settings import environment

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNITS_S = (("d", 86400), ("h", 3600), ("m", 60))
#: What a line for cron or a unit cannot hold: neither has a way to write a line end, units must be UTF-8.
_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Plan:
    """A scheduled run. All paths are absolute.

    `folder` is the working directory, `variables` what the run must find in its environment, `writable` the folders
    that it writes into, `credential` the id under which systemd hands it the key, `user` who it runs as.
    """

    name: str
    job: Path
    folder: Path
    command: tuple[str, ...]
    cron: Cron
    zone: str | None
    window: float | None
    variables: Mapping[str, str]
    writable: tuple[Path, ...]
    env_file: Path | None
    credential: str | None
    user: str
    warnings: tuple[str, ...]


def plan(path: Path) -> Plan:
    """Work out how the job of a file is to be run on its schedule. Raises `JobError`."""
    path = Path(os.path.abspath(path))  # noqa: PTH100 - symbolic links stay as the user wrote them
    job = load_job(path)
    schedule = job.schedule
    if schedule is None:
        raise JobError(f"{path}: no [schedule]; expected a section with cron = {FIELDS}, timezone and window optional")
    variables, problem = _environment(job)
    written = Written.read(path)
    home = data_home({**variables, **os.environ})
    outputs = [written.output_root(path.parent)]
    made = Plan(
        name=_unit_name(path), job=path, folder=path.parent, command=_command(path, job, schedule),
        cron=parse(schedule.cron), zone=schedule.timezone, window=schedule.window,
        variables={name: value for name in ("XDG_DATA_HOME",) if (value := os.environ.get(name))},
        writable=tuple(outputs if home is None else [*outputs, home.parent]),
        env_file=job.env_file, credential=_credential(job), user=_user(),
        warnings=(*problem, *warnings(job, written, variables)),
    )  # fmt: skip
    for text in (*made.command, *map(str, made.writable), *made.variables.values(), str(made.env_file or "")):
        if _UNWRITABLE.search(text):
            raise JobError(f"{text!r}: control characters, and bytes that are not UTF-8, can stand in no unit")
    return made


def _environment(job: Job) -> tuple[Mapping[str, str], list[str]]:
    """Give what a run finds in its env_file, and what is wrong with that file."""
    try:
        return environment(job, {}), []
    except JobError as error:
        return {}, [f"a run would end with exit code 2: {error}"]


def _command(path: Path, job: Job, schedule: Schedule) -> tuple[str, ...]:
    """Give the command: this installation's own, as no PATH can be relied on."""
    beside = Path(sys.executable).parent / "batchrun"
    program = [str(beside)] if os.access(beside, os.X_OK) else [sys.executable, "-P", "-m", "batchrun"]
    window, deadline = schedule.window, job.budget.deadline
    flags = [] if window is None or (deadline or window + 1) <= window else ["--deadline", _duration(window)]
    return (*program, "run", "-q", *flags, str(path))


def _duration(seconds: float) -> str:
    """Write seconds as the job file does, exactly: 6h, 1h30m, 90.5s."""
    text = ""
    for unit, size in _UNITS_S:
        count, seconds = divmod(seconds, size)
        text += f"{count:.0f}{unit}" if count else ""
    return text + (f"{seconds!r}s".replace(".0s", "s") if seconds else "")


def _unit_name(path: Path) -> str:
    """Name the units after the job file, or its folder where it is called job.toml, in the letters that units allow."""
    meant = path.parent.name if path.stem == "job" else path.stem
    clean = re.sub(r"[^A-Za-z0-9_.-]+", "-", meant).strip("-.")
    if clean != meant:
        clean = f"{clean or 'job'}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
    return f"batchrun-{clean[:100]}"


def _credential(job: Job) -> str | None:
    file = str(job.endpoint.api_key_file or "")
    if not file.startswith(CREDENTIALS):
        return None
    name = file.removeprefix(CREDENTIALS)
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name):
        raise JobError(
            "endpoint.api_key_file: expected a name of letters, digits, dots, dashes and underscores "
            f"behind {CREDENTIALS}, got {file!r}"
        )
    return name


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
