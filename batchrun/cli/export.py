"""`batchrun export`: results in the shape that the next tool wants."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from batchrun.cli.console import Console, fail, printable, write_data

if TYPE_CHECKING:
    from batchrun.export import Export, Exported

_FORMATS = ("jsonl", "csv", "parquet", "openai-batch")
_BROKEN_WRITE, _USAGE = 1, 2


@click.command(short_help="Write the results as JSON Lines, CSV, Parquet or Batch lines.")
@click.argument("place", metavar="JOB|RUNDIR", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--format", "form", type=click.Choice(_FORMATS), help="By default what the name of the output says, else jsonl."
)
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(path_type=Path), default=Path("-"),
    help="Where to write; replaced in one step. By default standard output.",
)  # fmt: skip
@click.option(
    "--include", type=click.Choice(["results", "failures", "all"]), default="results",
    help="Which items: all are results, failures and what is pending.",
)  # fmt: skip
@click.option("--fields", metavar="A,B,…", help="Only these fields, in this order; parts too, such as output.label.")
@click.option("--join-input", "--join", "join", is_flag=True, help="Add each item as it stands in the input now.")
@click.option("--ordered", is_flag=True, help="Changes nothing: the order is always that of the input.")
def export(
    place: Path, form: Any, output: Path, include: Any, fields: str | None, join: bool, ordered: bool,  # noqa: ARG001
) -> None:  # fmt: skip
    """Write the results of a run, one row for each item, in the order of the input, not of completion.

    Items are found in the input by their ids; what is not in it any more comes last. Beside a run that is going it
    shows how that stands. All fields of a record are written but `provider` and `input`, which --fields can name.

    \b
    Formats:
      jsonl         one object a line
      csv           for spreadsheets: objects as columns (output.label),
                    formulas made harmless by an apostrophe
      parquet       typed columns (needs: pip install 'batchrun[parquet]')
      openai-batch  as OpenAI's Batch API writes its output file;
                    with --include failures its error file

    \b
    Examples:
      batchrun export runs/reviews -o reviews.csv
      batchrun export runs/reviews --fields id,output.label | head

    Exit codes: 0 written, 1 writing failed, 2 nothing was written: something is wrong here.
    """
    from batchrun.cli.execution import refusing
    from batchrun.export import ParquetError, TargetError, opened
    from batchrun.locate import locate

    for number in (signal.SIGINT, signal.SIGTERM):  # what lies beside the output until it is whole is taken away
        signal.signal(number, _end)
    form = form or {".csv": "csv", ".parquet": "parquet"}.get(output.suffix, "jsonl")
    names = [name.strip() for name in fields.split(",")] if fields is not None else None
    if form == "parquet" and str(output) == "-":
        fail("parquet cannot go to standard output; name a file with -o", _USAGE)
    try:
        with refusing(None), opened(locate(place), form, include=include, fields=names, join=join) as ready:
            done = _to_stdout(ready) if str(output) == "-" else ready.to_file(output)
    except ParquetError as error:
        fail(str(error), _USAGE)
    except TargetError as error:
        fail(str(error), _BROKEN_WRITE)
    _tell(done, output)


def _end(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


def _to_stdout(ready: Export) -> Exported:
    for chunk in ready.chunks():
        if not write_data(chunk):
            break
    return ready.done()


def _tell(done: Exported, output: Path) -> None:
    console = Console()
    counts = ", ".join(f"{count:,} {status}" for status, count in done.rows.items())
    where = "" if str(output) == "-" else f" to {output}"
    console.line(f"exported  {sum(done.rows.values()):,} rows{f' ({counts})' if counts else ''}{printable(where)}")
    for note in done.notes:
        console.line(f"note      {printable(note)}")
