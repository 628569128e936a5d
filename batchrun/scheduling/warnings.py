"""What may go wrong with a job when nobody is there: said when its schedule is made, not at two in the morning."""

from __future__ import annotations

import glob
import os
import tomllib
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from batchrun.items import ItemReader
from batchrun.job import CREDENTIALS, Job, JobError, is_loopback
from batchrun.lines import InputError, expand_inputs
from batchrun.settings import DEFAULT_KEY_VARIABLE, fill

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True)
class Written:
    """Input and output as they stand in the job file, before {date} and {time} become those of today."""

    input: tuple[str, ...]
    output: str

    @classmethod
    def read(cls, path: Path) -> Written:
        """Read them from a job file that was found to be valid."""
        tables = tomllib.loads(path.read_text("utf-8-sig"))
        given = tables["input"]
        return cls((given,) if isinstance(given, str) else tuple(given), tables["output"])

    @property
    def input_changes(self) -> bool:
        """Tell whether another day has other input files by name."""
        return any(_is_dated(one) for one in self.input)

    @property
    def output_changes(self) -> bool:
        """Tell whether another day has another run directory."""
        return _is_dated(self.output)

    def output_root(self, folder: Path) -> Path:
        """Give the folder in which run directories appear: the last one above them that is the same every day."""
        parts = Path(self.output).parts
        same = tuple(takewhile(lambda part: not _is_dated(part), parts))
        return Path(os.path.normpath(folder.joinpath(*same[: len(parts) - 1])))


def _is_dated(text: str) -> bool:
    return "{date}" in text or "{time}" in text


def warnings(job: Job, written: Written, variables: Mapping[str, str]) -> Iterator[str]:
    """Say what of a job does not suit a run on a schedule, a sentence each."""
    yield from _input(job, written)
    yield from _daily(job, written)
    yield from _endpoint(job, variables)
    yield from _notify(job, variables)


def _input(job: Job, written: Written) -> Iterator[str]:
    if job.input == ("-",):
        yield "input is standard input, which is empty in cron and systemd: every run would have 0 items"
        return
    try:
        expand_inputs(job.input)
    except JobError as error:
        for problem in error.problems:
            when = "of today, as " if written.input_changes else ""
            yield f"a run now would end with exit code 2: {when}{problem}"


def _daily(job: Job, written: Written) -> Iterator[str]:
    """Compare what changes from day to day in input and output."""
    many = len(written.input) > 1 or any(glob.has_magic(one) for one in written.input)
    if written.output_changes and not written.input_changes:
        yield "output has {date} or {time} and input has not: every run sends the whole input again"
    elif "{time}" in written.output and not any("{time}" in one for one in written.input):
        yield (
            "output has {time} and input has not: a second run of a day, such as the one after a kill, sends "
            "everything again; with {date} alone it goes on"
        )
    elif written.input_changes and not written.output_changes:
        yield (
            "input has {date} or {time} and output has not: items without an id, or with ids that come again, meet "
            "those of other days and stop the run (exit code 2); put {date} into output too"
        )
    elif not written.input_changes and not many and job.input != ("-",):
        yield "input and output are the same every day: only lines that are new since the last run are sent"
    elif many and not written.output_changes and _lacks_ids(job):
        yield (
            "items without an id are known by their line, counted over all files: a file that grows, or a new one that "
            "does not sort last, moves the lines behind it and stops the run (exit code 2); give the items ids"
        )


def _lacks_ids(job: Job) -> bool:
    """Tell whether the first item of a file has no id; a file that cannot be read tells nothing."""
    try:
        for path in expand_inputs(job.input):
            if not Path(path).is_file():
                continue
            lines = ItemReader([path], limit=1).next_lines()
            reader = ItemReader([path], encoding=job.encoding, templated=True)
            if any(reader.parse(line).id == f"line:{line[0]}" for line in lines):
                return True
    except (JobError, InputError):
        pass
    return False


def _endpoint(job: Job, variables: Mapping[str, str]) -> Iterator[str]:
    """Look for what a run would not find: it has the `variables` of env_file, not those of whoever asks now."""
    if job.endpoint.simulate:
        return
    beside = _beside(job)
    endpoint = fill(job, variables).endpoint
    for name, variable in (("base_url", "OPENAI_BASE_URL"), ("model", "OPENAI_MODEL")):
        if getattr(endpoint, name) is None:
            yield f"endpoint.{name} is missing in the job, and cron has no {variable}: {beside}"
    if endpoint.base_url and is_loopback(endpoint.base_url):
        return
    yield from _key(job, variables, beside)
    if job.data_boundary.classification != "non-sensitive":
        yield 'a run would end with exit code 2: [data_boundary] does not say classification = "non-sensitive"'


def _notify(job: Job, variables: Mapping[str, str]) -> Iterator[str]:
    variable = job.notify and job.notify.webhook_env
    if variable and variable not in variables:
        yield f"cron and systemd have no variable {variable} with the URL of notify.webhook_env: {_beside(job)}"


def _beside(job: Job) -> str:
    return f"put it into {job.env_file}" if job.env_file else "name a file with it as env_file"


def _key(job: Job, variables: Mapping[str, str], beside: str) -> Iterator[str]:
    file, variable = job.endpoint.api_key_file, job.endpoint.api_key_env or DEFAULT_KEY_VARIABLE
    if file is None:
        if variable not in variables:
            yield f"cron and systemd have no variable {variable} with the key: {beside}, or use api_key_file"
    elif str(file).startswith(CREDENTIALS):
        yield "the key is a credential of systemd: started by cron, a run would end with exit code 2"
    elif not os.access(file, os.R_OK):
        yield f"a run would end with exit code 2: endpoint.api_key_file {file} cannot be read"
