"""`batchrun report`: one self-contained HTML page about a run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from batchrun.cli.console import Console, fail

_ERROR = 1


@click.command(short_help="Write one self-contained HTML page about a run.")
@click.argument("place", metavar="JOB|RUNDIR", type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(path_type=Path, allow_dash=True),
    help="Where the page goes, - for standard output. By default report.html in the run directory.",
)  # fmt: skip
@click.option("--lang", type=click.Choice(["zh", "en"]), help="Language of the page. By default that of the locale.")
@click.option(
    "--samples", metavar="N", type=click.IntRange(0, 50), default=3, show_default=True,
    help="So many results, and failures of each kind, are shown with their texts.",
)  # fmt: skip
def report(place: Path, output: Path | None, lang: str | None, samples: int) -> None:
    """Write one HTML page about a run, for people.

    It tells how the run ended and what to do next; then throughput, time, tokens and cost, failures with advice,
    attempts, repairs, warnings, samples, and what is known of the endpoint.

    The page is one file that loads nothing and runs no script, readable by you alone. It holds samples of your data
    unless you say --samples 0. A run that is going can be reported on as well; no lock is taken.

    \b
    Example:
      batchrun report runs/reviews --lang zh --samples 0 -o for-others.html

    Exit codes: 0 the page is written, 2 there is nothing to report on, or the page cannot be put there.
    """
    from batchrun.cli.execution import refusing
    from batchrun.locate import locate
    from batchrun.report import default_language, make_report, save_report

    with refusing(None):
        located = locate(place)
        page = make_report(located, lang or default_language(os.environ), samples=samples, named=str(place))
        if output is not None and str(output) == "-":
            _print(page)
            return
        into = output or located.folder / "report.html"
        save_report(page, into)
    Console().line(f"report    {into} ({len(page) / 1000:,.0f} kB)")


def _print(page: bytes) -> None:
    try:
        sys.stdout.buffer.write(page)
        sys.stdout.buffer.flush()
    except OSError as error:
        fail(f"standard output cannot be written: {error.strerror}", _ERROR)
