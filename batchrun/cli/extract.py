"""`batchrun extract`: the extraction alone, as a filter."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from batchrun.cli.console import fail, print_data, printable_json

_FINISHED_WITH_FAILURES = 3
_USAGE = 2


@click.command(short_help="Take the JSON value out of a model's answer, as a filter.")
@click.argument("source", metavar="[FILE|-]", default="-", shell_complete=click.Path().shell_complete)
@click.option(
    "--schema", metavar="FILE", type=click.Path(path_type=Path), help="The JSON Schema that the value must obey."
)
@click.option("--finish-reason", metavar="WORD", help="What the answer ended with; `length` means that it was cut off.")
def extract(source: str, schema: Path | None, finish_reason: str | None) -> None:
    """Take the JSON value out of a model's answer, as a run does: strictly, then with repairs, never guessed.

    Reads the answer from FILE or standard input (UTF-8) and writes one line of JSON: `output` and `extraction` (how it
    was found and which repairs it needed), or `error`.

    \b
    Example:
      batchrun extract --schema review.schema.json answer.txt

    Exit codes: 0 there is a value, 3 there is none, 2 the schema or the file cannot be used.
    """
    from batchrun.extraction import extract as extract_from
    from batchrun.job import JobError
    from batchrun.output import Schema

    try:
        compiled = Schema.load(schema) if schema else None
    except JobError as error:
        fail(str(error), _USAGE)
    found = extract_from(_read(source), compiled, finish_reason=finish_reason)
    line = found.to_json().decode().rstrip("\n")
    print_data(printable_json(line) if sys.stdout.isatty() else line)
    raise SystemExit(0 if found.ok else _FINISHED_WITH_FAILURES)


def _read(source: str) -> str:
    name = "standard input" if source == "-" else source
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        return data.decode()
    except OSError as error:
        fail(f"{name}: cannot be read: {error.strerror}", _USAGE)
    except UnicodeDecodeError as error:
        fail(f"{name}: byte {error.start} is no UTF-8", _USAGE)
