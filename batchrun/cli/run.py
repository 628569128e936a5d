"""`batchrun run`: run or resume a job."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from batchrun.cli.console import Console, fail, print_data
from batchrun.cli.simulate import Duration

if TYPE_CHECKING:
    from batchrun.cli.progress import Display
    from batchrun.job import Job
    from batchrun.runner import Runner
    from batchrun.selection import OnChange
    from batchrun.summary import Summary

#: What each flag overrides in the job.
_OVERRIDES = {
    "output": "output",
    "model": "endpoint.model",
    "base_url": "endpoint.base_url",
    "prompt": "prompt.user",
    "system": "prompt.system",
    "schema": "structured.schema",
    "concurrency": "limits.concurrency",
    "rpm": "limits.requests_per_minute",
    "tpm": "limits.tokens_per_minute",
    "max_attempts": "retry.max_attempts",
    "deadline": "budget.deadline",
    "max_cost": "budget.max_cost",
    "max_failures": "budget.max_failures",
}


class _Parsed(click.ParamType[Any]):
    """A value that is read as the job file's are, with the same words for what was expected."""

    def __init__(self, name: str, parser: str) -> None:
        self.name = name
        self._parser = parser

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from batchrun import expect

        try:
            return getattr(expect, self._parser)(value)
        except ValueError as error:
            self.fail(f"expected {error}, got {value!r}", param, ctx)


_PATH = click.Path(path_type=Path)
_POSITIVE = click.FloatRange(min=0, min_open=True)


@click.command(short_help="Run a job; the same command again goes on where it stopped.")
@click.argument("job_file", metavar="[JOB]", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("-i", "--input", "inputs", metavar="PATH", multiple=True, help="Input file, glob, or - for stdin.")
@click.option("-o", "--output", type=_PATH, metavar="RUNDIR", help="Run directory for results and failures.")
@click.option("-m", "--model", metavar="ID", help="Model id, as your account lists it.")
@click.option("--base-url", metavar="URL", help="API root as the provider documents it.")
@click.option("--prompt", metavar="TEMPLATE", help="User message; {{ name }} is an item's field.")
@click.option("--system", metavar="TEMPLATE", help="System message, a template too.")
@click.option("--schema", type=_PATH, metavar="FILE", help="JSON Schema that every output must obey.")
@click.option("--concurrency", type=_Parsed("N|auto", "concurrency"), help="Requests in flight at most.")
@click.option("--rpm", type=_POSITIVE, help="Requests a minute at most.")
@click.option("--tpm", type=_POSITIVE, help="Tokens a minute at most.")
@click.option("--max-attempts", type=click.IntRange(1, 1_000_000), metavar="N", help="Attempts for an item at most.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N items.")
@click.option("--deadline", type=Duration(), help="Send nothing after this time, such as 2h.")
@click.option("--max-cost", type=_POSITIVE, metavar="AMOUNT", help="Stop before more than this is spent.")
@click.option("--max-failures", type=_Parsed("N|P%", "max_failures"), help="Stop after more failures.")
@click.option(
    "--on-change",
    type=click.Choice(["error", "keep", "rerun"]),
    default="error",
    show_default=True,
    help="What to do if the job or an item is not what results were made from.",
)
@click.option("--dry-run", is_flag=True, help="Read, render and count everything; send nothing.")
@click.option("--confirm-non-sensitive", is_flag=True, help="State that the data may leave this machine.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="Show only what stops the run.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Log lines instead of a bar.")
def run(
    job_file: Path | None, dry_run: bool, limit: int | None, as_json: bool, quiet: bool, log_format: str | None,
    on_change: OnChange, **flags: Any,
) -> None:  # fmt: skip
    """Run a job, or go on where it stopped: finished items are never sent again.

    JOB is a TOML file; flags override it. Without JOB, --input, --output and --base-url say what to do. The key
    comes from the environment (OPENAI_API_KEY, or the variable that the job names).

    \b
    Exit codes: 0 all results, 3 some failures, 4 the endpoint said stop, 5 a limit of yours was reached,
    2 nothing was sent because something is wrong here, 75 another run is at it, 130/143 interrupted.
    """
    from batchrun.job import JobError
    from batchrun.lines import InputError
    from batchrun.store import LockedError, StoreError

    console = Console()
    display: Display | None = None
    runner: Runner | None = None
    try:
        job = _load(job_file, flags)
        if dry_run:
            _dry_run(job, limit, console, as_json=as_json, quiet=quiet)
        from batchrun.runner import Runner

        display = _display(console, quiet=quiet, log_format=log_format)
        runner = Runner(job, display, limit=limit, on_change=on_change)
        summary = _execute(runner, display)
    except (JobError, InputError) as error:
        _refuse(str(error), 2, log_format)
    except LockedError as error:
        _refuse(str(error), 75, log_format)
    except StoreError as error:
        _refuse(str(error), 1 if runner and runner.attempts_made else 2, log_format)
    _report(summary, job_file, console, as_json=as_json, quiet=quiet, log_format=log_format)
    raise SystemExit(summary.exit_code)


def _refuse(message: str, exit_code: int, log_format: str | None) -> NoReturn:
    """Say why the run is over, in the form that the log has, and end."""
    if log_format != "json":
        fail(message, exit_code)
    from batchrun.cli.progress import LogLines

    LogLines(Console(), as_json=True).notice("error", message, exit_code=exit_code)
    raise SystemExit(exit_code)


def _load(job_file: Path | None, flags: dict[str, Any]) -> Job:
    from batchrun.job import expand_date, job_from_flags, load_job

    overrides = {key: flags[flag] for flag, key in _OVERRIDES.items() if flags[flag] is not None}
    if flags["inputs"]:
        overrides["input"] = tuple(expand_date(one) for one in flags["inputs"])
    if flags["output"]:
        overrides["output"] = Path(expand_date(str(flags["output"])))
    if flags["confirm_non_sensitive"]:
        overrides["data_boundary.classification"] = "non-sensitive"
    return load_job(job_file, overrides) if job_file else job_from_flags(overrides)


def _dry_run(job: Job, limit: int | None, console: Console, *, as_json: bool, quiet: bool) -> None:
    import json

    from batchrun.cli.words import rehearsal
    from batchrun.dryrun import dry_run

    if not job.endpoint.model:
        job = dataclasses.replace(job, endpoint=dataclasses.replace(job.endpoint, model="not-sent"))
    found = dry_run(job, limit)
    if as_json:
        print_data(json.dumps(found.as_dict(), ensure_ascii=False))
    if not quiet:
        for line in rehearsal(found):
            console.line(line)
    raise SystemExit(found.exit_code)


def _display(console: Console, *, quiet: bool, log_format: str | None) -> Display:
    from batchrun.cli.progress import Bar, LogLines, Quiet

    if log_format is not None:
        return LogLines(console, as_json=log_format == "json")
    if quiet:
        return Quiet(console)
    return Bar(console) if console.is_terminal else LogLines(console, as_json=False)


def _execute(runner: Runner, display: Display) -> Summary:
    import asyncio
    import gc

    from batchrun.api import event_loop_factory

    # The collector's defaults cost a server-like process a third of its time at a thousand requests in flight.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        with asyncio.Runner(loop_factory=event_loop_factory()) as loop:
            return loop.run(_watched(runner, display))
    finally:
        display.close()


async def _watched(runner: Runner, display: Display) -> Summary:
    """Run, with signals handled and progress shown."""
    import asyncio
    import signal

    from batchrun.cli.progress import follow
    from batchrun.summary import StopCause

    loop = asyncio.get_running_loop()
    causes = {signal.SIGINT: StopCause.SIGINT, signal.SIGTERM: StopCause.SIGTERM, signal.SIGHUP: StopCause.SIGTERM}
    for number, cause in causes.items():
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup stays in force
            loop.add_signal_handler(number, runner.interrupt, cause)
    following = asyncio.create_task(follow(runner, display))
    try:
        return await runner.run()
    finally:
        following.cancel()
        await asyncio.wait({following})


def _report(
    summary: Summary, job_file: Path | None, console: Console, *, as_json: bool, quiet: bool, log_format: str | None
) -> None:
    import json

    from batchrun.cli.progress import LogLines
    from batchrun.cli.words import ending

    if as_json:
        print_data(json.dumps(summary.as_dict(), ensure_ascii=False))
    if log_format == "json":
        message = f"{summary.results} results, {summary.failures} failures"
        LogLines(console, as_json=True).notice("finished", message, summary=summary.as_dict())
    elif not quiet:
        for line in ending(summary, str(job_file or "")):
            console.line(line)
