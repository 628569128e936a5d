"""A run directory and its job, named by either: the job file, or the directory with what its manifest says."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchrun.job import Job, JobError, job_from_manifest, load_job
from batchrun.settings import environment, fill
from batchrun.store import read_manifest
from batchrun.store.lock import HOLDER
from batchrun.store.recovery import FAILURES, RESULTS

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Located:
    """A job whose `output` is the run directory, and the manifest that stands there (empty: there is none)."""

    job: Job
    manifest: dict[str, Any]

    @property
    def folder(self) -> Path:
        """The run directory."""
        return self.job.output


def locate(path: Path, *, to_change: bool = False) -> Located:
    """Find a run directory by its path or by its job file. Raises `JobError` if it cannot be used.

    Where no run has begun yet, or was killed before it said what it runs, there still is something to look at, but
    nothing `to_change`.
    """
    if not path.is_dir():
        job = load_job(path)
        if to_change and not job.output.is_dir():
            raise JobError(f"{job.output}: there is no run directory yet (the output of {path})")
        return _as_run(job, read_manifest(job.output))
    manifest = read_manifest(path)
    if not isinstance(manifest.get("job"), dict):
        if not to_change and any((path / name).exists() for name in (HOLDER, RESULTS, FAILURES)):
            return Located(Job(input=("-",), output=path), {})
        raise JobError(f"{path}: no run.json with a job in it; is it a run directory? Name the job file instead")
    folder = Path(str(manifest.get("working_directory") or Path.cwd()))
    try:
        job = job_from_manifest(manifest["job"], folder)
    except JobError as error:
        raise JobError(f"{path / 'run.json'}: {error}; name the job file instead") from error
    if job.data_boundary.by_flag:  # what was said on a command line was said for that run
        job = replace(job, data_boundary=replace(job.data_boundary, classification=None, by_flag=False))
    file = manifest.get("job_file")
    return Located(replace(job, output=path, path=folder / file if isinstance(file, str) else None), manifest)


def _as_run(job: Job, manifest: dict[str, Any]) -> Located:
    """Fill in what the job takes from the environment; the model that ran, where the environment is silent now."""
    try:
        variables: Mapping[str, str] = environment(job)
    except JobError:  # its env_file is gone: what needs a key will say so, the records can be looked at without
        variables = os.environ
    job = fill(job, variables)
    ran = manifest.get("job")
    if job.endpoint.model is None and isinstance(ran, dict):
        job = replace(job, endpoint=replace(job.endpoint, model=ran.get("endpoint", {}).get("model")))
    return Located(job, manifest)
