"""Parquet: rows to typed columns, some thousands of rows at a time. The one room that knows pyarrow, an extra."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, BinaryIO

from batchrun.export.columns import as_json, as_text
from batchrun.export.rows import ANY_VALUE, PARTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from batchrun.export.columns import Column
    from batchrun.export.rows import Row

#: A row group is written when it holds so many rows, or so many bytes.
_GROUP_ROWS = 20_000
_GROUP_BYTES = 16 * 1024 * 1024
#: So many rows at most, or about so many characters, are held as Python values, which take several times as much.
_BATCH_ROWS = 1000
_BATCH_CHARS = 4 * 1024 * 1024
#: The key under which a column's metadata says how its text is to be read: `json` or `text`.
CONTENT = b"batchrun.content"


class ParquetError(Exception):
    """The file cannot be made: pyarrow is not there, or a record has a value of another type than records have."""


def load_arrow() -> Any:
    """Give pyarrow. Raises `ParquetError` where it is not installed."""
    # Heeded when it is first imported: the system's pool gives back what was freed, of which others keep 16 MiB more.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError as error:
        raise ParquetError(
            f"Parquet needs pyarrow, an extra: pip install 'batchrun[parquet]' (importing it failed: {error})"
        ) from error
    return pa


class ParquetFile:
    """Writes rows to a file. The schema follows from the columns alone, never from what stands in them.

    What the contract fixes is typed (`line`, `usage`, `finished_at` …). What may be any JSON value is a column of text:
    JSON text for `input` and `provider`, and for `output` where the job wants JSON (`json_output`). Raises
    `ParquetError`.
    """

    def __init__(self, file: BinaryIO, columns: Sequence[Column], *, json_output: bool) -> None:
        self._pa = load_arrow()
        self._columns = columns
        types = _types(self._pa)
        self._makers: list[Callable[[Any], Any]] = []
        fields = []
        for one in columns:
            kind, make, content = _kind(one, types, json_output=json_output)
            metadata = {CONTENT: content} if content else None
            fields.append(self._pa.field(one.name, kind, metadata=metadata))
            self._makers.append(make)
        self._schema = self._pa.schema(fields)
        self._batches: list[Any] = []
        self._file = self._pa.parquet.ParquetWriter(file, self._schema, compression="zstd")

    def write(self, rows: Iterable[Row]) -> None:
        """Write rows, and finish the file."""
        with self._file:  # it must be closed before what it writes to
            self._write(rows)

    def _write(self, rows: Iterable[Row]) -> None:
        values: list[list[Any]] = [[] for _ in self._columns]
        ids: list[str] = []
        size = 0
        for row in rows:
            ids.append(row.id)
            for held, one, make in zip(values, self._columns, self._makers, strict=True):
                value = one.value(row)
                made = None if value is None else make(value)
                size += len(made) if isinstance(made, str) else 0
                held.append(made)
            if len(ids) >= _BATCH_ROWS or size >= _BATCH_CHARS:
                self._take(values, ids)
                values, ids, size = [[] for _ in self._columns], [], 0
        if ids:
            self._take(values, ids)
        self._write_group()

    def _take(self, values: list[list[Any]], ids: list[str]) -> None:
        pa = self._pa
        try:
            arrays = [pa.array(held, field.type) for held, field in zip(values, self._schema, strict=True)]
        except (pa.ArrowException, TypeError, OverflowError) as error:
            where = f"a record between id {ids[0]!r} and id {ids[-1]!r}"
            raise ParquetError(f"{where} is not as records are: {error}") from error
        self._batches.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        if (
            sum(batch.num_rows for batch in self._batches) >= _GROUP_ROWS
            or sum(batch.nbytes for batch in self._batches) >= _GROUP_BYTES
        ):
            self._write_group()

    def _write_group(self) -> None:
        if self._batches:
            table = self._pa.Table.from_batches(self._batches)
            self._file.write_table(table, row_group_size=table.num_rows)
            self._batches = []


def _types(pa: Any) -> dict[str, Any]:
    """Give the types of what the contract fixes, by column."""
    text, whole = pa.string(), pa.int64()
    types = {
        "line": whole, "attempts": whole, "duration_s": pa.float64(), "finished_at": pa.timestamp("ms", tz="UTC"),
        "warnings": pa.list_(text), "extraction.repairs": pa.list_(text), "error.http_status": whole,
    } | {f"usage.{part}": whole for part in PARTS["usage"]}  # fmt: skip
    for name, keys in PARTS.items():
        types[name] = pa.struct([(key, types.get(f"{name}.{key}", text)) for key in keys])
    return {"": text, **types}


def _kind(
    column: Column, types: dict[str, Any], *, json_output: bool
) -> tuple[Any, Callable[[Any], Any], bytes | None]:
    """Give a column's type, what makes its values, and what its text is if that is to be said."""
    if column.name in types:
        return types[column.name], _time if column.name == "finished_at" else _same, None
    if column.field not in ANY_VALUE:
        return types[""], _same, None
    if column.path is None and (column.field != "output" or json_output):
        return types[""], _json, b"json"
    return types[""], as_text, b"text"


def _same(value: Any) -> Any:
    return value


def _json(value: Any) -> str:
    return as_json(value).decode("utf-8", "replace")


def _time(value: str) -> Any:
    from datetime import datetime

    return datetime.fromisoformat(value)
