"""Options and types of options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")


class Parsed(click.ParamType[Any]):
    """A value that is read as the job file's are, with the same words for what was expected."""

    def __init__(self, name: str, parser: str) -> None:
        self.name = name
        self._parser = parser

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse the value, or fail with what was expected."""
        from batchrun import expect

        try:
            return getattr(expect, self._parser)(value)
        except ValueError as error:
            self.fail(f"expected {error}, got {value!r}", param, ctx)


def log_options(command: F) -> F:
    """Add the options for what a run says and how."""
    options = (
        click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object on stdout."),
        click.option("-q", "--quiet", is_flag=True, help="Show only what stops the run."),
        click.option("--log-format", type=click.Choice(["text", "json"]), help="Write log lines in place of the bar."),
        click.option(
            "--metrics-file",
            metavar="FILE",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Keep metrics for Prometheus' textfile collector in FILE.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def json_option(command: F) -> F:
    """Add `--json` for commands that print one thing."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")(command)


def endpoint_options(command: F) -> F:
    """Add what says which endpoint is meant."""
    parts = (
        click.argument("job_file", metavar="[JOB]", required=False, type=click.Path(dir_okay=False, path_type=Path)),
        click.option("--base-url", metavar="URL", help="API root as the provider documents it."),
        click.option("-m", "--model", metavar="ID", help="Model id, as your account lists it."),
        json_option,
    )
    for part in reversed(parts):
        command = part(command)
    return command
