"""`batchrun ctl`: steer a live run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from batchrun.cli.console import print_data


@click.command(short_help="Pause, resume or slow down a live run.")
@click.argument("place", metavar="JOB|RUNDIR", type=click.Path(exists=True, path_type=Path))
@click.argument("what", metavar="pause|resume|set", type=click.Choice(["pause", "resume", "set"]))
@click.argument("values", metavar="[KEY=VALUE]...", nargs=-1)
def ctl(place: Path, what: str, values: tuple[str, ...]) -> None:
    """Steer a run that is going, without a restart.

    `pause` sends nothing more and lets the calls in flight end; `resume` goes on. `set` changes limits: rpm=N, tpm=N,
    concurrency=N or concurrency=auto, and max_cost=N where the run has a max_cost: what it may spend in all. The job
    file stays as it is: the next run has its limits again. Only the user whose run it is can do this.

    \b
    Examples:
      batchrun ctl job.toml pause
      batchrun ctl job.toml set rpm=300 concurrency=20

    Exit codes: 0 done, 2 there is no such run or no such limit.
    """
    from batchrun.cli.console import fail
    from batchrun.cli.execution import refusing
    from batchrun.control import ControlError, ask
    from batchrun.locate import locate

    command: dict[str, Any] = {"do": what}
    if what == "set":
        command["values"] = _pairs(values)
    elif values:
        raise click.UsageError(f"{what} takes no values")
    with refusing(None):
        folder = locate(place).folder
    try:
        print_data(ask(folder, command))
    except ControlError as error:
        fail(str(error), 2)


def _pairs(values: tuple[str, ...]) -> dict[str, str]:
    pairs = dict(value.split("=", 1) for value in values if "=" in value)
    if len(pairs) != len(values) or not pairs:
        raise click.UsageError("set takes one or more of rpm=N, tpm=N, concurrency=N|auto, max_cost=N")
    return pairs
