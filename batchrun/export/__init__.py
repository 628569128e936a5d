"""Results in the shape that the next tool wants: JSON Lines, CSV, Parquet, lines of OpenAI's Batch API."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from batchrun.export.columns import MOST_KEYS, columns_of, flat
from batchrun.export.lines import batch_lines, csv_lines, gathered, json_lines
from batchrun.export.parquet import ParquetError, ParquetFile, load_arrow
from batchrun.export.rows import Include, Rows
from batchrun.export.target import TargetError, refusal, replacing
from batchrun.job import JobError
from batchrun.store.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batchrun.export.columns import Column
    from batchrun.locate import Located

__all__ = ["Export", "Exported", "ParquetError", "TargetError", "opened"]

Format = Literal["jsonl", "csv", "parquet", "openai-batch"]


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: rows by status, and what is worth knowing about them."""

    rows: dict[str, int]
    notes: tuple[str, ...]


@contextmanager
def opened(
    located: Located, form: Format, *, include: Include, fields: list[str] | None, join: bool
) -> Iterator[Export]:
    """Get ready to export a run directory as it stands now.

    Raises `JobError` if a field is none or the input is needed and not there, `StoreError` if the records cannot be
    read, `ParquetError` where pyarrow is missing.
    """
    if not located.folder.is_dir():
        raise JobError(f"{located.folder}: there is no run directory yet")
    try:
        columns = columns_of(fields, join=join)
    except ValueError as error:
        raise JobError(f"fields: expected {error}") from error
    if fields is not None and form == "openai-batch":
        raise JobError("fields: lines of OpenAI's Batch API have fields of their own; leave it out")
    if form == "parquet":
        load_arrow()
    needs_input = join or (include != "failures" and any(one.field == "input" for one in columns))
    if needs_input and form == "openai-batch":
        raise JobError("join-input: lines of OpenAI's Batch API have no place for the input; leave it out")
    with Snapshot(located.folder) as snapshot:
        yield Export(located, snapshot, form, columns, Rows(located, snapshot, include, join=needs_input))


class Export:
    """A run directory that is about to be written in another form."""

    def __init__(
        self, located: Located, snapshot: Snapshot, form: Format, columns: list[Column], rows: Rows
    ) -> None:  # fmt: skip
        self._located, self._snapshot, self._form, self._columns, self._rows = located, snapshot, form, columns, rows
        self._too_long = 0
        self._notes: list[str] = []

    def to_file(self, path: Path) -> Exported:
        """Write a file, in one step. Raises `JobError` if it must not be written to, else as `chunks` does."""
        problem = refusal(path, self._located.folder, self._sources())
        if problem:
            raise JobError(problem)
        with replacing(path) as file:
            if self._form == "parquet":
                structured = self._located.job.structured
                is_json = structured.schema is not None or structured.mode != "auto"
                ParquetFile(file, self._columns, json_output=is_json).write(self._rows)
            else:
                for chunk in self.chunks():
                    file.write(chunk)
        return self.done()

    def chunks(self) -> Iterator[bytes]:
        """Give the export in a text format, piece by piece.

        Raises `StoreError`, or `InputError` where a joined input breaks off.
        """
        if self._form == "openai-batch":
            return gathered(batch_lines(self._rows, str(self._located.manifest.get("run_id"))))
        if self._form == "csv":
            columns, too_many = flat(self._columns, self._rows)
            self._notes += [
                f"{field}: its objects have more than {MOST_KEYS} different keys; they stay JSON text in one column"
                for field in too_many
            ]
            return csv_lines(columns, self._rows, self._count_too_long)
        return gathered(json_lines(self._columns, self._rows))

    def done(self) -> Exported:
        """Say what was written."""
        counts, rows = self._rows.counts, self._rows
        notes = [*self._snapshot.notes, *self._notes]
        if self._snapshot.holder:
            notes.append(f"a run is at it ({self._snapshot.holder}): this is how it stood a moment ago")
        if rows.unread:
            notes.append(
                f"{rows.unread}: rows are in the order of the lines in the records; pending items are not known"
            )
        if counts.not_in_input:
            notes.append(f"{counts.not_in_input} items are not in the input now; they come last")
        if counts.changed and any(one.field == "input" for one in self._columns):
            notes.append(f"{counts.changed} items read otherwise in the input now than when they ran")
        if self._too_long:
            notes.append(f"{self._too_long} cells are longer than the 32,767 characters that Excel keeps")
        if (self._located.manifest.get("summary") or {}).get("simulated"):
            notes.append("the answers come from the simulated provider, not from a model")
        return Exported(dict(counts.by_status), tuple(notes))

    def _sources(self) -> list[str]:
        """Give the files that the job is made of."""
        job = self._located.job
        return [*self._rows.paths, *(str(one) for one in (job.path, job.structured.schema) if one is not None)]

    def _count_too_long(self) -> None:
        self._too_long += 1
