"""The lines of the records files by item: which failures count now, and which results are to be set aside."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from batchrun.ids import IdIndex, digest, repeated
from batchrun.records import ErrorKind
from batchrun.store.files import StoreError, read_lines
from batchrun.store.index import FAILED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batchrun.store.index import Index


class Keys:
    """Gives the digest that a record is known by, for the records of one file in their order."""

    def __init__(self) -> None:
        self._repeats: Counter[str] = Counter()

    def of(self, record: dict[str, Any]) -> bytes:
        """Give the digest of a record's id, or of its second, third, … use."""
        if kind_of(record) != ErrorKind.DUPLICATE_ID:
            return digest(record["id"])
        self._repeats[record["id"]] += 1
        return repeated(record["id"], self._repeats[record["id"]] + 1)


def kind_of(record: dict[str, Any]) -> str | None:
    """Give the error kind of a failure, None for a result."""
    error = record.get("error")
    return str(error.get("kind")) if isinstance(error, dict) else None


def current_failures(path: Path, index: Index, end: int) -> Iterator[tuple[bytes, dict[str, Any], int]]:
    """Give the failures that count: line, record and row of each item that is a failure now, its last record alone.

    `end` is the size of the file that `index` covers. Raises `StoreError`.
    """
    last, keys = IdIndex(), Keys()
    for number, (_, record) in enumerate(read_lines(path, end=end)):
        if record is not None:
            last.put(keys.of(record), number)
    keys = Keys()
    for number, (line, record) in enumerate(read_lines(path, end=end)):
        if record is None:
            raise StoreError(f"{path}:{number + 1}: not a record of batchrun")
        key = keys.of(record)
        row = index.find(key)
        if index.state[row] >= FAILED and last.get(key) == number:
            yield line, record, row
