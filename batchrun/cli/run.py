"""`batchrun run`: run or resume a job."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchrun.cli.console import Console, print_data, printable_json
from batchrun.cli.options import Parsed, log_options
from batchrun.cli.simulate import Duration

if TYPE_CHECKING:
    from batchrun.cli.progress import Display
    from batchrun.job import Job
    from batchrun.runner import Runner
    from batchrun.selection import OnChange

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


_PATH = click.Path(path_type=Path)
_POSITIVE = click.FloatRange(min=0, min_open=True)


@click.command(short_help="Run a job, or go on where it stopped.")
@click.argument("job_file", metavar="[JOB]", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "-i",
    "--input",
    "inputs",
    metavar="PATH",
    multiple=True,
    shell_complete=_PATH.shell_complete,
    help="Input file or glob, or - for standard input. May be repeated.",
)
@click.option("-o", "--output", type=_PATH, metavar="RUNDIR", help="Run directory: results, failures, records.")
@click.option("-m", "--model", metavar="ID", help="Model id, as your account lists it.")
@click.option("--base-url", metavar="URL", help="API root as the provider documents it.")
@click.option("--prompt", metavar="TEMPLATE", help="User message; {{ text }} is the item's field `text`.")
@click.option("--system", metavar="TEMPLATE", help="System message, a template too.")
@click.option("--schema", type=_PATH, metavar="FILE", help="JSON Schema that every output must obey.")
@click.option(
    "--concurrency", type=Parsed("N|auto", "concurrency"), metavar="N|auto", help="Requests in flight at most."
)
@click.option("--rpm", type=_POSITIVE, metavar="N", help="Requests a minute at most.")
@click.option("--tpm", type=_POSITIVE, metavar="N", help="Tokens a minute at most.")
@click.option("--max-attempts", type=click.IntRange(1, 1_000_000), metavar="N", help="Attempts for an item at most.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N items, for a trial.")
@click.option("--deadline", type=Duration(), help="Send nothing after so long, such as 2h.")
@click.option(
    "--max-cost", type=_POSITIVE, metavar="AMOUNT", help="Stop before more than this is spent; needs [price]."
)
@click.option("--max-failures", type=Parsed("N|P%", "max_failures"), help="Stop when more items failed.")
@click.option(
    "--on-change",
    type=click.Choice(["error", "keep", "rerun"]),
    default="error",
    show_default=True,
    help="When prompt, model, parameters, schema or an item are not what results were made from.",
)
@click.option("--dry-run", is_flag=True, help="Read, render, scan and count everything; send nothing.")
@click.option("--confirm-non-sensitive", is_flag=True, help="State that the data may leave this machine.")
@log_options
def run(
    job_file: Path | None, dry_run: bool, limit: int | None, as_json: bool, quiet: bool, log_format: str | None,
    metrics_file: Path | None, on_change: OnChange, **flags: Any,
) -> None:  # fmt: skip
    """Run a job, or go on where it stopped: finished items are never sent again.

    JOB is a TOML file (`batchrun init` writes one), and flags override it. Without JOB, --input, --output, --model
    and --base-url say what to do. The key comes from the environment (OPENAI_API_KEY, or what the job names).

    \b
    Examples:
      batchrun run job.toml --dry-run
      batchrun run job.toml --limit 20
      batchrun run -i in.jsonl -o out --base-url http://127.0.0.1:8000/v1 -m ID

    \b
    Exit codes:
      0         every item is a result
      2         nothing was sent: something is wrong here
      3         finished, and some items failed
      4         the endpoint said stop: key, balance, model and the like
      5         a limit of yours was reached
      75        another run is at it
      130, 143  interrupted; run it again to go on
    """
    from batchrun.cli.execution import carry_out, refusal_of, refusing

    console = Console()
    with refusing(log_format, refused=None if dry_run else refusal_of(job_file, log_format)):
        job = _load(job_file, flags)
        if dry_run:
            _dry_run(job, limit, console, as_json=as_json, quiet=quiet)

    def runner(display: Display) -> Runner:
        from batchrun.runner import Runner

        return Runner(job, display, limit=limit, on_change=on_change)

    again = f"batchrun run {job_file or ''}".rstrip()
    carry_out(
        runner, job, again, console, as_json=as_json, quiet=quiet, log_format=log_format, metrics_file=metrics_file
    )


def _load(job_file: Path | None, flags: dict[str, Any]) -> Job:
    from batchrun.job import expand_date, job_from_flags, load_job

    overrides = {key: flags[flag] for flag, key in _OVERRIDES.items() if flags[flag] is not None}
    if flags["inputs"]:
        overrides["input"] = tuple(expand_date(one) for one in flags["inputs"])
    if flags["output"]:
        overrides["output"] = Path(expand_date(str(flags["output"])))
    if flags["confirm_non_sensitive"]:
        overrides["data_boundary.classification"] = "non-sensitive"
        overrides["data_boundary.by_flag"] = True
    return load_job(job_file, overrides) if job_file else job_from_flags(overrides)


def _dry_run(job: Job, limit: int | None, console: Console, *, as_json: bool, quiet: bool) -> None:
    import json

    from batchrun.cli.words import rehearsal
    from batchrun.dryrun import dry_run

    if not job.endpoint.model:
        job = dataclasses.replace(job, endpoint=dataclasses.replace(job.endpoint, model="not-sent"))
    found = dry_run(job, limit)
    if as_json:
        print_data(printable_json(json.dumps(found.as_dict(), ensure_ascii=False)))
    if not quiet:
        for line in rehearsal(found):
            console.line(line)
    raise SystemExit(found.exit_code)
