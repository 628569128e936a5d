"""What is exported: exactly one row for each item, in the order of the input."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from batchrun.items import ItemReader
from batchrun.job import JobError
from batchrun.lines import InputError, expand_inputs
from batchrun.records import Item
from batchrun.store.files import read_exactly

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchrun.locate import Located
    from batchrun.records import Failure
    from batchrun.store.snapshot import Record, Snapshot

#: Which rows are wanted: `all` are results, failures and what is pending.
Include = Literal["results", "failures", "all"]
RESULT, FAILURE, PENDING = "result", "failure", "pending"
_WANTED = {"results": (RESULT,), "failures": (FAILURE,), "all": (RESULT, FAILURE, PENDING)}


#: The fields of a row, in the order in which they are written.
FIELDS = (
    "id", "line", "status", "output", "error", "finish_reason", "model", "usage", "attempts", "duration_s",
    "finished_at", "reasoning", "extraction", "fingerprint", "warnings", "input", "provider",
)  # fmt: skip
#: Fields that are objects, and what of; others that are not plain values hold any JSON value.
PARTS = {
    "error": ("kind", "message", "http_status", "code", "advice"),
    "usage": ("prompt_tokens", "completion_tokens", "total_tokens"),
    "extraction": ("mode", "method", "repairs"),
}
ANY_VALUE = ("output", "input", "provider")


@dataclass(frozen=True, slots=True)
class JsonText:
    """A JSON value as text, spelled as it was read or received."""

    text: bytes


class Row:
    """An item: where it stands in the input (or stood), its record if it has one, what was read if that is joined.

    `values` are those of the `FIELDS` that it has; some are left as `JsonText`.
    """

    __slots__ = ("_parsed", "id", "line", "record", "status", "values")

    def __init__(self, id: str, line: int, status: str, record: Record | None, read: JsonText | None) -> None:  # noqa: A002
        self.id, self.line, self.status, self.record = id, line, status, record
        own = {"id": id, "line": line, "status": status}
        if record is None:
            self.values: dict[str, Any] = own
        else:
            self.values = {**record.values, **own, "provider": JsonText(record.provider)}
        if read is not None:
            self.values["input"] = read
        self._parsed: dict[str, Any] = {}

    def parsed(self, name: str) -> Any:
        """Give the value of one of the `FIELDS` as Python values, None where there is none."""
        value = self.values.get(name)
        if not isinstance(value, JsonText):
            return value
        if name not in self._parsed:
            try:
                self._parsed[name] = read_exactly(value.text)
            except (ValueError, RecursionError):  # a provider may send what only others can read
                self._parsed[name] = None
        return self._parsed[name]


@dataclass(slots=True)
class Counts:
    """How many rows there were of each status; of them without an item in the input; items that were changed since."""

    by_status: dict[str, int] = field(default_factory=dict)
    not_in_input: int = 0
    changed: int = 0


class Rows:
    """Gives the rows again and again, the same each time; `counts` is of the last time.

    The input decides the order and is joined by the items' ids; what is not in it any more comes last, by the lines
    where it stood. Without `join` an input that cannot be read (again) is no error: then all rows come by those lines,
    and what is pending is not known. Raises `JobError`, `InputError` or `StoreError`.
    """

    def __init__(self, located: Located, snapshot: Snapshot, include: Include, *, join: bool) -> None:
        self._job, self._snapshot, self._join = located.job, snapshot, join
        self._wanted = _WANTED[include]
        #: The input files, none where they cannot be read (again).
        self.paths: list[str] = []
        self.counts = Counts()
        #: Why the rows come by the lines of the records, if they do.
        self.unread: str | None = None
        try:
            paths = expand_inputs(self._job.input)
            stream = self._reader(paths).is_stream
        except JobError as error:
            if join:
                raise
            self.unread = str(error).partition("\n")[0]
            return
        if not stream:
            self.paths = paths
            return
        self.unread = "input: standard input or a pipe, which cannot be read again"
        if join:
            raise JobError(f"{self.unread}; nothing can be joined: name a copy in the job file and name that")

    def __iter__(self) -> Iterator[Row]:
        self.counts = Counts()
        seen = bytearray(len(self._snapshot) + 1)
        if self.paths:
            yield from self._in_input(seen)
        for number in self._snapshot.rows_by_line(seen):
            status = self._status(number)
            if status in self._wanted:
                self.counts.not_in_input += self.unread is None
                record = self._snapshot.read(number)
                yield self._counted(Row(record.values["id"], self._snapshot.line(number), status, record, None))

    def _in_input(self, seen: bytearray) -> Iterator[Row]:
        snapshot = self._snapshot
        try:
            for entry in self._reader(self.paths):
                number = snapshot.find(entry.key)
                seen[number] = 1
                status = self._status(number)
                if status not in self._wanted:
                    continue
                self.counts.changed += snapshot.crc(number) not in (None, entry.crc)
                record = snapshot.read(number) if number else None
                read = _text(entry) if self._join else None
                yield self._counted(Row(entry.id, entry.line, status, record, read))
        except InputError as error:
            if self._join:
                raise
            self.unread = f"{error}; from there on"

    def _reader(self, paths: list[str]) -> ItemReader:
        job = self._job
        return ItemReader(paths, encoding=job.encoding, templated=bool(job.prompt and job.prompt.user))

    def _status(self, number: int) -> str:
        if not number:
            return PENDING
        return RESULT if self._snapshot.is_result(number) else FAILURE

    def _counted(self, row: Row) -> Row:
        counts = self.counts.by_status
        counts[row.status] = counts.get(row.status, 0) + 1
        return row


def _text(entry: Item | Failure) -> JsonText:
    return JsonText(entry.raw if isinstance(entry, Item) else entry.input)
