"""Which entries a run takes up: those of the input that have no record of what they are now, or failures to retry."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Literal, Protocol

from batchrun.changes import Changes, describe, refusal
from batchrun.feed import in_thread
from batchrun.ids import digest
from batchrun.items import ItemReader
from batchrun.job import JobError
from batchrun.records import ErrorKind, Item
from batchrun.requeue import QueueReader
from batchrun.store.index import PENDING, RESULT, state_of
from batchrun.store.rundir import WORTH_SAVING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from batchrun.feed import Reader
    from batchrun.job import Job
    from batchrun.prompts import RequestBuilder
    from batchrun.records import Failure
    from batchrun.store import RunDirectory

OnChange = Literal["error", "keep", "rerun"]
_SHOWN = 5


class Selection(Protocol):
    """Where a run's entries come from, and which of them it takes up."""

    #: Why the run must stop, once there is a reason.
    refusal: str | None

    @property
    def reader(self) -> Reader:
        """Give the reader of all entries."""

    @property
    def skipped(self) -> int:
        """Give how many entries the reader left out because they are finished."""

    async def prepare(self, begin: Callable[[], None], stopped: Callable[[], bool]) -> None:
        """Look at what is there before anything is sent, unless `stopped` meanwhile.

        `begin` must be called before anything is changed.
        """

    def row_to_replace(self, entry: Item | Failure) -> int | None:
        """Give the row of the record that the entry's next one replaces, 0 if it has none, None to leave it alone."""

    def is_open(self, entry: Item | Failure) -> bool:
        """Tell whether an entry is still to be done."""

    def conclude(self) -> None:
        """Do what is to be done when all entries were taken up."""

    def left_over(self) -> int:
        """Count the records whose items the whole input did not have."""


class FromInput:
    """The entries of the input that are not finished, and those that changed, by the user's word on changes."""

    def __init__(
        self, job: Job, paths: Sequence[str], store: RunDirectory, builders: list[RequestBuilder],
        made: Mapping[str, Any], recipe: int, on_change: OnChange, limit: int | None,
    ) -> None:  # fmt: skip
        self.refusal: str | None = None
        self._job, self._paths, self._store = job, paths, store
        self._index = store.index
        self._made, self._recipe = made, recipe
        self._on_change = on_change
        self._limit = limit
        self._changes = Changes(store.index, recipe, builders)
        self.reader = self._new_reader(limit)

    @property
    def skipped(self) -> int:
        """Give how many finished entries the reader left out."""
        return self.reader.skipped

    async def prepare(self, begin: Callable[[], None], stopped: Callable[[], bool]) -> None:
        """Find the results whose items changed; refuse, or set them aside. Raises `JobError`, `InputError`."""
        self._begin = begin
        index = self._index
        if not index.results or self._on_change == "keep" or self.reader.is_stream:
            index.prepare(None if self._on_change == "keep" else self._recipe)
            return
        reader = self._new_reader(None)
        all_met, nothing_else = await in_thread(lambda: self._changes.all_met(reader, stopped))
        if nothing_else and self._limit is None and not stopped():
            self.reader = reader  # read to its end: nothing changed, and nothing is left to do
            return
        if not (all_met or nothing_else):
            again = self._new_reader(None)
            rows, first = await in_thread(lambda: self._changed(again, stopped))
            if rows and self._on_change == "error" and not stopped():
                raise JobError(self._words(first, len(rows)))
            if index.confirmed >= WORTH_SAVING:
                begin()
                self._store.save_index()  # before rows are added to the file: those in memory are what is saved
            if rows and not stopped():
                begin()
                self._store.set_aside(rows)
        index.prepare(self._recipe)

    def row_to_replace(self, entry: Item | Failure) -> int | None:
        """Say what becomes of an entry: None if it is finished."""
        index = self._index
        if not len(index):
            return 0
        row = index.find(entry.key)
        if row:
            index.seen[row] = 1
        if self.is_open(entry):
            return row
        if index.state[row] == RESULT and self._on_change != "keep" and self._changes.is_changed(entry, row):
            self.refusal = "\n".join(self._words([entry], 1))
        return None

    def is_open(self, entry: Item | Failure) -> bool:
        """Tell whether an entry has no record, or the failure of another request."""
        row = self._index.find(entry.key)
        state = self._index.state[row]
        if state in (PENDING, RESULT):
            return state == PENDING
        return self._on_change != "keep" and self._changes.is_changed(entry, row)

    def conclude(self) -> None:
        """Let the failures of lines that were no items go, where the input, read to its end, has something else now."""
        index = self._index
        unusable = state_of(ErrorKind.INVALID_INPUT.value)
        if self._on_change == "keep" or not index.seen or unusable not in index.state:
            return
        for row, (state, line, key) in enumerate(index.each(), 1):
            is_gone = state == unusable and not index.seen[row] and line <= self.reader.lines
            if is_gone and key == digest(f"line:{line}"):
                self._begin()
                self._store.withdraw(row, key)

    def left_over(self) -> int:
        """Count the records of items that the input did not have."""
        return self._index.left_over()

    def _new_reader(self, limit: int | None) -> ItemReader:
        templated = bool(self._job.prompt and self._job.prompt.user)
        known = self._index if len(self._index) else None
        return ItemReader(self._paths, encoding=self._job.encoding, templated=templated, known=known, limit=limit)

    def _changed(self, reader: ItemReader, stopped: Callable[[], bool]) -> tuple[array[int], list[Item | Failure]]:
        """Find the results whose items changed: the rows of all, and the first items to be named."""
        rows = array("I")
        first: list[Item | Failure] = []
        for row, entry in self._changes.changed_results(reader, stopped):
            rows.append(row)
            if len(first) < _SHOWN:
                first.append(entry)
        return rows, first

    def _words(self, items: Sequence[Item | Failure], count: int) -> list[str]:
        job_changes = []
        if self._index.recipes() != {self._recipe}:
            before = self._store.manifest().get("made_from")
            job_changes = describe(before if isinstance(before, dict) else None, self._made)
        return refusal(self._job.output, job_changes, items, count, self._index.results)


class FromQueue:
    """The failures of a run directory, of all kinds or of some."""

    def __init__(self, job: Job, store: RunDirectory, kinds: frozenset[str], limit: int | None) -> None:
        self.refusal: str | None = None
        templated = bool(job.prompt and job.prompt.user)
        self.reader = QueueReader(store, kinds, templated=templated, limit=limit)
        self.skipped = 0

    async def prepare(self, begin: Callable[[], None], stopped: Callable[[], bool]) -> None:
        """Do nothing: an item of the queue has no answer that could be mistaken."""

    def row_to_replace(self, entry: Item | Failure) -> int | None:
        """Give the row of the failure; a line that still is no item keeps the failure that it has."""
        return self.reader.rows[entry.key] if isinstance(entry, Item) else None

    def is_open(self, entry: Item | Failure) -> bool:  # noqa: ARG002 - the same for every one
        """Give False: what is not tried again stays a failure."""
        return False

    def conclude(self) -> None:
        """Do nothing."""

    def left_over(self) -> int:
        """Give 0: the queue is no input that could lack something."""
        return 0
