"""Carrying out a run on the terminal: signals, progress, the ending in words or JSON, the exit code."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from batchrun.cli.console import Console, complain, print_data, printable, printable_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from batchrun.cli.metrics import MetricsFile
    from batchrun.cli.progress import Display
    from batchrun.job import Job
    from batchrun.runner import Runner
    from batchrun.summary import Summary

_LONGEST_LINE = 4000


def carry_out(
    make: Callable[[Display], Runner], job: Job, again: str, console: Console, *, as_json: bool, quiet: bool,
    log_format: str | None, metrics_file: Path | None = None,
) -> NoReturn:  # fmt: skip
    """Make a runner for a job, run it and end the process with its exit code. `again` is the command that was given."""
    from batchrun.cli.metrics import MetricsFile

    display = _display(console, quiet=quiet, log_format=log_format)
    metrics = MetricsFile(metrics_file, str(job.path.absolute() if job.path else "")) if metrics_file else None
    made: list[Runner] = []

    def refused(message: str, exit_code: int) -> None:
        from batchrun.notify import tell_refusal

        _say(_measured(lambda: metrics.refused(exit_code) if metrics else None), log_format)
        _say(tell_refusal(job, message, exit_code), log_format)

    with refusing(log_format, made, quiet=quiet, refused=refused):
        if metrics:
            _check(metrics, metrics_file)
        made.append(make(display))
        summary = _execute(made[0], display, metrics)
    _report(summary, again, console, as_json=as_json, quiet=quiet, log_format=log_format)
    from batchrun.notify import tell

    _say(_measured(lambda: metrics.finish(summary) if metrics else None), log_format)
    _say(tell(made[0].job, summary), log_format)
    raise SystemExit(summary.exit_code)


def refusal_of(job_file: Path | None, log_format: str | None) -> Callable[[str, int], None]:
    """Give what tells whom a job file names that no job could be made of it, as far as the file can be read."""

    def refused(message: str, exit_code: int) -> None:
        from batchrun.job import job_to_notify
        from batchrun.notify import tell_refusal

        job = job_to_notify(job_file) if job_file is not None and job_file.is_file() else None
        if job is not None:
            _say(tell_refusal(job, message, exit_code), log_format)

    return refused


def _say(problems: list[str], log_format: str | None) -> None:
    """Say what went wrong with telling others."""
    for problem in problems:
        _display(Console(), quiet=True, log_format=log_format).notice("notify", problem)


def _check(metrics: MetricsFile, path: Path | None) -> None:
    from batchrun.job import JobError

    try:
        metrics.check()
    except OSError as error:
        raise JobError(f"--metrics-file: {path}: cannot be written: {error.strerror}") from error


def _measured(write: Callable[[], None]) -> list[str]:
    """Write the file of metrics; give what went wrong with that."""
    try:
        write()
    except OSError as error:
        return [f"--metrics-file: cannot be written: {error.strerror}"]
    return []


@contextmanager
def refusing(
    log_format: str | None, made: list[Runner] | None = None, *, quiet: bool = False,
    refused: Callable[[str, int], None] | None = None,
) -> Iterator[None]:  # fmt: skip
    """Turn what a job, an input or a run directory can be refused for into a message and the exit code for it.

    That another run is at it goes without a message if `quiet`: cron would mail one for every start beside a long run.
    Whatever else it is, `refused` is told as well.

    A run directory that fails before anything was sent by the runner in `made` is refused as well (2), later it is
    an error (1).
    """
    from batchrun.job import JobError
    from batchrun.lines import InputError
    from batchrun.store import LockedError, StoreError

    try:
        yield
    except LockedError as error:
        if not quiet:
            _complain(str(error), 75, log_format)
        raise SystemExit(75) from error
    except (JobError, InputError, StoreError) as error:
        exit_code = 1 if isinstance(error, StoreError) and made and made[0].attempts_made else 2
        _complain(str(error), exit_code, log_format)
        if refused is not None:
            refused(str(error), exit_code)
        raise SystemExit(exit_code) from error


def _complain(message: str, exit_code: int, log_format: str | None) -> None:
    """Say why the run is over, in the form that the log has."""
    if log_format != "json":
        complain(message)
        return
    from batchrun.cli.progress import LogLines

    LogLines(Console(), as_json=True).notice("error", message, exit_code=exit_code)


def _display(console: Console, *, quiet: bool, log_format: str | None) -> Display:
    from batchrun.cli.progress import Bar, LogLines, Quiet

    if log_format is not None:
        return LogLines(console, as_json=log_format == "json")
    if quiet:
        return Quiet(console)
    return Bar(console) if console.is_terminal else LogLines(console, as_json=False)


def _execute(runner: Runner, display: Display, metrics: MetricsFile | None) -> Summary:
    import asyncio
    import gc

    from batchrun.api import event_loop_factory

    # The collector's defaults cost a server-like process a third of its time at a thousand requests in flight.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        with asyncio.Runner(loop_factory=event_loop_factory()) as loop:
            return loop.run(_watched(runner, display, metrics))
    finally:
        display.close()


async def _watched(runner: Runner, display: Display, metrics: MetricsFile | None) -> Summary:
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
    following = {asyncio.create_task(follow(runner, display))}
    if metrics is not None:
        following.add(asyncio.create_task(metrics.follow(runner)))
    try:
        return await runner.run()
    finally:
        for one in following:
            one.cancel()
        await asyncio.wait(following)


def _report(
    summary: Summary, again: str, console: Console, *, as_json: bool, quiet: bool, log_format: str | None
) -> None:
    import json

    from batchrun.cli.progress import LogLines
    from batchrun.cli.words import ending

    if as_json:
        print_data(printable_json(json.dumps(summary.as_dict(), ensure_ascii=False)))
    if log_format == "json":
        message = f"{summary.results} results, {summary.failures} failures"
        LogLines(console, as_json=True).notice("finished", message, summary=summary.as_dict())
    elif not quiet:
        for line in ending(summary, again):
            console.line(printable(line, _LONGEST_LINE))  # paths and commands are of others too
