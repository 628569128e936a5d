"""The failure queue as input: items that failed, to be tried again under their own ids and lines."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from batchrun.ids import digest
from batchrun.items import requeued
from batchrun.records import ErrorKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from batchrun.items import Line
    from batchrun.records import Failure, Item
    from batchrun.store import RunDirectory

_BATCH = 64


@dataclass(frozen=True, slots=True)
class RetryPlan:
    """Run the failure queue instead of the input: failures of some kinds (none named: of all), with changed parameters.

    `changed` holds request parameters by name; they win over those of the job and of the item.
    """

    kinds: frozenset[str] = frozenset()
    changed: Mapping[str, Any] = field(default_factory=dict)


class QueueReader:
    """Gives the items of a run directory's failure queue, of all kinds or of some.

    The second use of an id is never tried: another item has the id. `rows` tells by digest which record of the queue
    an entry comes from. `next_lines` is called in any one thread, `parse` in one thread.
    """

    is_stream = False

    def __init__(self, store: RunDirectory, kinds: frozenset[str], *, templated: bool, limit: int | None) -> None:
        self.rows: dict[bytes, int] = {}
        self._index = store.index
        self._kinds = kinds
        self._templated = templated
        self._left = limit
        self._ahead: dict[int, dict[str, Any]] = {}
        self._lines = self._read(store)

    def next_lines(self) -> list[Line]:
        """Give the next records of the queue, by their rows; an empty list at the end."""
        batch: list[Line] = []
        while len(batch) < _BATCH and self._left != 0 and (line := next(self._lines, None)) is not None:
            batch.append(line)
            self._left = None if self._left is None else self._left - 1
        return batch

    def parse(self, line: Line) -> Item | Failure:
        """Make the item of a record again, with the id and the line that it had."""
        row = line[0]
        record = self._ahead.pop(row)
        read = requeued(record, record["line"], templated=self._templated)
        return replace(read, key=digest(record["id"]), crc=self._index.crc(row) or 0)

    def _read(self, store: RunDirectory) -> Iterator[Line]:
        for line, record, row in store.current_failures():
            kind = str(record["error"].get("kind"))
            if kind == ErrorKind.DUPLICATE_ID or (self._kinds and kind not in self._kinds) or "input" not in record:
                continue  # a record that is nested too deeply to be read has no input that could be sent
            self.rows[digest(record["id"])] = row
            self._ahead[row] = record
            yield row, line, len(line)
