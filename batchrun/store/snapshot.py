"""The records of a run directory as they stand at one moment: which of them count, and where; also beside a run."""

from __future__ import annotations

import os
from array import array
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import orjson

from batchrun.store.files import StoreError, parse_record, record_head, split_last
from batchrun.store.index import FAILED, RESULT
from batchrun.store.lock import holder
from batchrun.store.queue import Keys
from batchrun.store.recovery import FAILURES, INDEX, RESULTS, Recovered, recover

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TRIES = 5


class Record(NamedTuple):
    """A record that counts: its values but `provider`, and that as the JSON text that stands in the file."""

    values: dict[str, Any]
    provider: bytes

    def sent(self) -> tuple[dict[str, Any], bytes]:
        """Give `status` and `headers` of what the provider sent (0 and none: nothing), and its body as it stands."""
        split = split_last(self.provider, b"body")
        if split is not None and isinstance(split[0].get("status"), int):
            return split
        return {"status": 0, "headers": {}}, b""


class Snapshot:
    """The records that count, by the number of their row in the index; 0 is none.

    About 50 bytes are held for each record, none of its text: where it stands is known, and it is read when it is asked
    for. What a run writes later, or puts in place anew, changes nothing here. No lock is taken and nothing is written.
    Raises `StoreError`; close it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder
        #: Who was at it, None if nobody was.
        self.holder = holder(folder)
        self._files: dict[str, int] = {}
        try:
            found = self._open()
            #: What a crash left; of a run that is still going its unfinished last line is no such thing.
            self.notes: list[str] = [] if self.holder else found.notes
            self._index = found.index
            rows = len(self._index) + 1
            self._at, self._size = array("Q", bytes(8 * rows)), array("I", bytes(4 * rows))
            for name in self._files:
                self._scan(name, found.extents[name].size)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        while self._files:
            os.close(self._files.popitem()[1])

    def __len__(self) -> int:
        return len(self._index)

    def find(self, key: bytes) -> int:
        """Give the row of an item's record by the item's digest, 0 if it has none that counts."""
        row = self._index.find(key)
        return row if self._size[row] else 0

    def is_result(self, row: int) -> bool:
        """Tell whether a row's record is a result, not a failure."""
        return self._index.state[row] == RESULT

    def crc(self, row: int) -> int | None:
        """Give the CRC-32 of the line that a row's item stood on, None if it is not known."""
        return self._index.crc(row)

    def line(self, row: int) -> int:
        """Give the line on which a row's item stood."""
        return self._index.line(row)

    def rows_by_line(self, seen: bytearray) -> Iterator[int]:
        """Give the rows of records that count and are not `seen`, in the order of the lines of their items."""
        rest = array("I", (row for row, size in enumerate(self._size) if size and not seen[row]))
        if not rest:
            return
        most = 4 * len(self) + 100_000  # a line number beyond is one of a damaged row; such rows come last
        last = min(most, max(map(self._index.line, rest)))
        first, following = array("I", bytes(4 * (last + 1))), array("I", bytes(4 * len(self._size)))
        for row in reversed(rest):  # so that those of one line come in the order of their rows
            line = min(self._index.line(row), last)
            following[row], first[line] = first[line], row
        for start in first:
            row = start
            while row:
                yield row
                row = following[row]

    def read(self, row: int) -> Record:
        """Read the record of a row. Raises `StoreError`."""
        name = RESULTS if self.is_result(row) else FAILURES
        try:
            line = os.pread(self._files[name], self._size[row], self._at[row])
        except OSError as error:
            raise StoreError.of(self.path / name, "reading", error) from error
        record = _split(line)
        if record is None:
            raise StoreError(f"{self.path / name}: byte {self._at[row]}: not a record of batchrun; was it changed?")
        return record

    # --- taking it ---

    def _open(self) -> Recovered:
        """Read index and journal, and open the files that they are about."""
        for left in reversed(range(_TRIES)):
            before = self._identities()
            found = recover(self.path)
            if found.refusal:
                raise StoreError(found.refusal)
            for name in (RESULTS, FAILURES):
                fd = _open(found.paths[name])
                if fd is not None:
                    self._files[name] = fd
            # An index that had to be made anew beside a run may be one that was just being replaced.
            again = left and found.rebuilt and holder(self.path) is not None
            if before == self._identities() and not again:
                return found
            self.close()
        raise StoreError(f"{self.path}: its files are put in place anew all the time; try again later")

    def _identities(self) -> list[tuple[int, int]]:
        """Give what tells whether a file is still the same one."""
        found = []
        for name in (RESULTS, FAILURES, INDEX):
            try:
                status = (self.path / name).stat()
            except OSError:
                found.append((0, 0))
            else:
                found.append((status.st_dev, status.st_ino))
        return found

    def _scan(self, name: str, proven: int) -> None:
        """Take down where the records of a file stand that count; its first `proven` bytes are known to be ours."""
        keys, state, index, at = Keys(), self._index.state, self._index, 0
        is_results = name == RESULTS
        try:
            with os.fdopen(os.dup(self._files[name]), "rb") as file:
                for line in file:
                    start, at = at, at + len(line)
                    record = record_head(line) if at <= proven else None
                    if record is None or not (is_results or "error" in record):
                        record = parse_record(line)
                    if record is None:
                        continue
                    row = index.find(keys.of(record))
                    # A later failure of the same item takes the place of an earlier one.
                    if state[row] == RESULT if is_results else state[row] >= FAILED:
                        self._at[row], self._size[row] = start, len(line)
        except OSError as error:
            raise StoreError.of(self.path / name, "reading", error) from error


def _open(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError.of(path, "reading", error) from error


def _split(line: bytes) -> Record | None:
    """Split a record; of one that is nested too deeply only its head is read."""
    if not line.endswith(b"}\n"):
        return None
    split = split_last(line[:-1], b"provider")
    if split is not None and isinstance(split[0].get("id"), str):
        return Record(*split)
    values = parse_record(line)
    if values is None:
        return None
    provider = values.pop("provider", None)  # not spelled as a run spells it
    return Record(values, orjson.dumps(provider))
