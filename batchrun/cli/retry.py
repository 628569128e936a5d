"""`batchrun retry`: run the failure queue again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from batchrun.cli.console import Console, printable
from batchrun.cli.options import Parsed, log_options
from batchrun.records import ErrorKind

if TYPE_CHECKING:
    from batchrun.cli.progress import Display
    from batchrun.runner import Runner


class _Param(click.ParamType[Any]):
    name = "PARAM=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        name, equals, text = str(value).partition("=")
        if not name or not equals:
            self.fail(f"expected PARAM=VALUE, such as max_tokens=8192, got {value!r}", param, ctx)
        if name in ("messages", "stream"):
            self.fail(f"{name} is set by batchrun and cannot be changed", param, ctx)
        try:
            changed = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            changed = text
        try:  # it must go into requests and into `run.json`, and come out of both as it went in
            same = orjson.loads(orjson.dumps((name, changed))) == [name, changed]
        except TypeError:
            same = False
        if not same:
            self.fail(f"{printable(value)}: JSON cannot hold this value exactly; give another", param, ctx)
        return name, changed


def _no_constant(name: str) -> None:
    raise ValueError(name)


@click.command(short_help="Run the failures again, all or some kinds.")
@click.argument("place", metavar="JOB|RUNDIR", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--kind", "kinds", multiple=True, metavar="K", type=click.Choice([kind.value for kind in ErrorKind]),
    help="Only failures of this kind, such as truncated. May be repeated.",
)  # fmt: skip
@click.option(
    "--set", "changed", multiple=True, type=_Param(),
    help="Another value for a request parameter, such as max_tokens=8192. May be repeated.",
)  # fmt: skip
@click.option(
    "--concurrency", type=Parsed("N|auto", "concurrency"), metavar="N|auto", help="Requests in flight at most."
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N of them.")
@click.option("--confirm-non-sensitive", is_flag=True, help="State that the data may leave this machine.")
@log_options
def retry(
    place: Path, kinds: tuple[str, ...], changed: tuple[tuple[str, Any], ...], concurrency: Any, limit: int | None,
    confirm_non_sensitive: bool, as_json: bool, quiet: bool, log_format: str | None,
    metrics_file: Path | None,
) -> None:  # fmt: skip
    """Run the failure queue of a job again. What succeeds leaves the queue and becomes a result.

    With RUNDIR the job is the one that ran there last; with JOB it is the job file as it is now. Parameters given
    with --set win over those of the job and of the item. Lines that are no items, and second uses of an id, stay
    failures: correct them in the input.

    \b
    Example:
      batchrun retry runs/reviews --kind truncated --set max_tokens=8192

    Exit codes: as of `batchrun run`.
    """
    from batchrun.cli.execution import carry_out, refusal_of, refusing
    from batchrun.locate import locate

    with refusing(log_format, refused=refusal_of(place, log_format)):
        job = locate(place, to_change=True).job
    if concurrency is not None:
        job = dataclasses.replace(job, limits=dataclasses.replace(job.limits, concurrency=concurrency))
    if confirm_non_sensitive:
        boundary = dataclasses.replace(job.data_boundary, classification="non-sensitive", by_flag=True)
        job = dataclasses.replace(job, data_boundary=boundary)

    def runner(display: Display) -> Runner:
        from batchrun.requeue import RetryPlan
        from batchrun.runner import Runner

        return Runner(job, display, limit=limit, retry=RetryPlan(frozenset(kinds), dict(changed)))

    carry_out(
        runner,
        job,
        f"batchrun retry {place}",
        Console(),
        as_json=as_json,
        quiet=quiet,
        log_format=log_format,
        metrics_file=metrics_file,
    )
