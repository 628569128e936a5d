"""`batchrun init`: a starter job with a sample input and a schema."""

from __future__ import annotations

from pathlib import Path

import click

from batchrun.cli.console import fail, print_data

_FILES = {
    "job.toml": "job.toml",
    "input.jsonl": "input.jsonl",
    "schema.json": "schema.json",
    "env.example": "env.example",
    "gitignore": ".gitignore",
}


@click.command(short_help="Write a starter job with a sample input and a schema.")
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(file_okay=False, path_type=Path))
def init(folder: Path) -> None:
    """Write a commented starter job, a sample input and a schema into DIR (default: here).

    Nothing that is there is overwritten. The job runs as it is, against the simulated provider.

    \b
    Example:
      batchrun init my-job
    """
    from importlib.resources import files

    present = [name for name in _FILES.values() if (folder / name).exists()]
    if present:
        fail(f"{folder}: {', '.join(present)} is there already; nothing was written", 2)
    starter = files("batchrun") / "starter"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for source, name in _FILES.items():
            (folder / name).write_bytes((starter / source).read_bytes())
    except OSError as error:
        fail(f"{error.filename or folder}: cannot be written: {error.strerror}", 2)
    for name in _FILES.values():
        print_data(str(folder / name))
    print_data(f"Now run it: batchrun run {folder / 'job.toml'}")
