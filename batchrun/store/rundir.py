"""One run directory: held by one run, its records appended by one writer, its other files replaced in one step."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import ExitStack, suppress
from itertools import chain
from typing import TYPE_CHECKING, Any

import orjson

from batchrun.store.files import (
    Extent,
    GrowingFile,
    StoreError,
    count_lines,
    open_ours,
    read_lines,
    replace_file,
    sync_folder,
    temporary,
    whole_lines,
    write_file,
)
from batchrun.store.index import FAILED, INDEX_HEADER, KINDS, PENDING, RESULT, Index, Row, state_of, to_lines
from batchrun.store.journal import Point, Sent, ended_record, point_record, sent_record, whole_journal
from batchrun.store.lock import HOLDER, Lock
from batchrun.store.pages import PACE
from batchrun.store.queue import Keys, current_failures
from batchrun.store.recovery import FAILURES, INDEX, JOURNAL, NEW, RESULTS, Recovered, recover
from batchrun.store.shape import problem_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from batchrun.records import Failure, Item, Result, Usage

MANIFEST = "run.json"
#: Where results go that `--on-change rerun` replaces.
OUTDATED = "outdated.jsonl"
#: The answers that went back to the model, as failures: what took their place stands with the others.
REASKED = "reasked.jsonl"
#: Records are written at once and synced together this often; less often on a disk that takes long for it.
_SYNC_INTERVAL_S = 0.05
#: Index and journal can be made anew from the records, so they are synced less often.
_SLOW_SYNC_INTERVAL_S = 1.0
_CHECK_INTERVAL_S = 0.02
#: The journal is written anew when it has grown to so many bytes.
_LARGE_JOURNAL_BYTES = 512 * 1024
#: When so many rows were confirmed, finding it out again would take longer than writing it down.
WORTH_SAVING = 10_000
_NOT_OPEN = "the run directory was not begun"


class RunDirectory:
    """Results, failures, index, journal and manifest of one job.

    Opening it makes it if need be, takes its lock and mends what a crash left. From `begin` on records are written as
    soon as the event loop comes round, so that a killed process loses none that it had time for, and count (`results`,
    `failures`) as soon as they are on the disk. What is `sent` is written by `flush`, which comes before the sending.
    Raises `LockedError`, or `StoreError` where it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results_path = path / RESULTS
        self.failures_path = path / FAILURES
        self.manifest_path = path / MANIFEST
        self._lock = Lock(path)
        self._files: dict[str, GrowingFile] = {}
        self._recipe = 0
        self._under_way: dict[bytes, Sent] = {}
        self._rows: list[Row] = []
        self._dirty, self._ending = asyncio.Event(), asyncio.Event()
        self._checked_at = self._synced_at = 0.0
        self._begun = self._is_flushed_soon = False
        #: Up to where the journal says that everything is durable.
        self._last = Point()
        #: What broke the writing; the run is over then, and everybody is told the same.
        self._broken: StoreError | None = None
        try:
            self._take_stock(recover(path))
        except BaseException:
            self.close()
            raise

    def _take_stock(self, found: Recovered) -> None:
        if found.refusal:
            raise StoreError(found.refusal)
        #: What had to be mended.
        self.notes = found.notes
        #: The rows of the records as they stood when the folder was opened.
        self.index = found.index
        self.results, self.failures = found.index.results, found.index.failures
        self.failure_kinds = Counter(found.index.kinds())
        #: Calls that were under way when an earlier run was ended by force: perhaps billed, their answers lost.
        self.interrupted = len(found.interrupted)
        self._interrupted_ever = found.journal.interrupted
        self._finish_swap(found)
        self._extents = {**found.extents, INDEX: found.journal.point.rows}
        mended = len(found.index) > found.rows_in_file or found.journal.swapping
        if found.rebuilt:
            self._extents[INDEX] = Extent()
            mended = mended or found.journal.first is not None
        for name in (RESULTS, FAILURES):
            self._open(name).append(b"".join(found.kept[name]))
            mended = mended or bool(found.kept[name])
        sync_folder(self.path)
        if not mended:
            return
        self._recipe = found.journal.recipe
        index = self._open(INDEX)
        if not index.extent.size:
            index.append(INDEX_HEADER)
        for lines in found.index.added_lines():
            index.append(lines)
        for file in self._files.values():
            file.sync()
        self._write_journal(self._point(), found.interrupted)
        self.index = Index(self.path / INDEX, index.extent)

    def save_index(self) -> None:
        """Write down what was confirmed of the index's rows, so that it need not be found out again."""
        if self.index.confirmed >= WORTH_SAVING:
            extent = write_file(self.path / (INDEX + NEW), chain([INDEX_HEADER], self.index.all_lines()))
            self.swap({INDEX: extent})
            self.index.confirmed = 0

    def _finish_swap(self, found: Recovered) -> None:
        """Put files in place that were ready for it, and take away what was not ready when a run was killed."""
        for name in (RESULTS, FAILURES, INDEX):
            new = self.path / (name + NEW)
            try:
                if found.paths[name] == new:
                    new.replace(self.path / name)
                else:
                    new.unlink(missing_ok=True)
            except OSError as error:
                raise StoreError.of(new, "putting it in place", error) from error
        for name in (MANIFEST, JOURNAL):
            left = temporary(self.path / name)
            try:
                left.unlink(missing_ok=True)
            except OSError as error:
                raise StoreError.of(left, "taking it away", error) from error

    # --- a run ---

    def begin(self, recipe: int, manifest: dict[str, Any]) -> None:
        """Get ready to write, and say so in the manifest.

        `recipe` says what the items' requests are made from beside the items. Raises `StoreError`.
        """
        if self._broken:
            raise self._broken
        try:
            self._begin(recipe, manifest)
        except StoreError as error:
            self._broken = error
            raise

    def _begin(self, recipe: int, manifest: dict[str, Any]) -> None:
        self.save_manifest(manifest)
        self._recipe = recipe
        self._interrupted_ever += self.interrupted
        if INDEX not in self._files:
            self._open(INDEX)
        if not self._files[INDEX].extent.size:
            self._files[INDEX].append(INDEX_HEADER)
        self._write_journal(self._point(), {})
        self._open_journal()
        self._begun = True

    def sent(self, entry: Item, fingerprint: bytes, attempt: int) -> None:
        """Take note that an attempt is about to leave. Raises `StoreError`, also if the files were tampered with."""
        self._guard()
        now = time.monotonic()
        if now - self._checked_at > _CHECK_INTERVAL_S:
            self._check(now)
        sent = Sent(entry.line, entry.crc, fingerprint, attempt)
        self._put(JOURNAL, sent_record(entry.key, sent))
        self._under_way[entry.key] = sent
        self._dirty.set()

    def attempt_ended(self, entry: Item) -> None:
        """Take note that an attempt ended, that the item is not finished, and that nothing of it is under way."""
        if self._under_way.pop(entry.key, None) is not None and not self._broken:
            self._put(JOURNAL, ended_record(entry.key))

    def add_result(self, result: Result, fingerprint: bytes, replaces: int = 0) -> None:
        """Write a result. `fingerprint` is of the item's own request; `replaces` the row of what it takes the place of.

        Raises `StoreError`.
        """
        self._add(RESULTS, result.to_json(), self._row(RESULT, result.item, fingerprint, replaces, result.usage))

    def add_failure(self, failure: Failure, entry: Item | Failure, fingerprint: bytes, replaces: int = 0) -> None:
        """Write the failure of an item, or of a line that is none. Raises `StoreError`."""
        row = self._row(state_of(failure.kind.value), entry, fingerprint, replaces, failure.usage)
        self._add(FAILURES, failure.to_json(), row)

    def add_reasked(self, failure: Failure) -> None:
        """Write down an answer that goes back to the model, and why. Raises `StoreError`."""
        self._guard()
        if REASKED not in self._files:
            self._extents[REASKED] = whole_lines(self.path / REASKED)
            self._open(REASKED)
            self._files[JOURNAL] = self._files.pop(JOURNAL)  # written last: it says that the attempt ended
        self._put(REASKED, failure.to_json())

    def withdraw(self, row: int, key: bytes) -> None:
        """Let a record count no more: its item is pending again, or its line is no longer what it was."""
        self._rows.append(Row(PENDING, self.index.line(row), key, replaces=row))
        self._dirty.set()

    def current_failures(self) -> Iterator[tuple[bytes, dict[str, Any], int]]:
        """Give the failure queue as it stands now: line, record and row of each item that is a failure."""
        return current_failures(self.failures_path, self.index, self._files[FAILURES].extent.size)

    async def keep_synced(self) -> None:
        """Sync what is written, group by group, until `finish` is called. Raises `StoreError`."""
        while not (self._ending.is_set() and not self._rows):
            await self._dirty.wait()
            self._dirty.clear()
            start = time.monotonic()
            await self.sync()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(_SYNC_INTERVAL_S, 4 * (time.monotonic() - start))):
                    await self._ending.wait()

    def finish(self) -> None:
        """Let `keep_synced` end as soon as everything is durable."""
        self._ending.set()
        self._dirty.set()

    def settle(self) -> None:
        """Leave the folder in good order: the queue holds what is a failure now, the journal what still counts.

        A run that was killed may have left the queue to one that has nothing else to do. Raises `StoreError`.
        """
        self.flush()
        is_settled = count_lines(self.failures_path) == self.failures
        if not self._begun:
            if is_settled:
                return
            self.begin(self._recipe, self.manifest())
        self._sync_now(self._files.values())
        if not is_settled:
            index = Index(self.path / INDEX, self._files[INDEX].extent)
            size = self._files[FAILURES].extent.size
            current = (line for line, _, _ in current_failures(self.failures_path, index, size))
            self.swap({FAILURES: write_file(self.path / (FAILURES + NEW), current)})
        self._interrupted_ever += len(self._under_way)
        self._write_journal(self._point(), {})

    def close(self) -> None:
        """Close the files and give the lock back. Raises `StoreError`, but nothing that counts can be lost by it."""
        with ExitStack() as stack:
            stack.callback(self._lock.release)
            for file in self._files.values():
                stack.callback(file.close)
            was_broken = self._broken
            try:
                self.flush()
            except StoreError:
                if not was_broken:
                    raise
            finally:
                self._files.clear()

    @property
    def calls_interrupted(self) -> int:
        """How many calls of all runs ended with nobody knowing how."""
        return self._interrupted_ever + (0 if self._begun else self.interrupted)

    @property
    def unsynced(self) -> int:
        """How many records are written and not yet known to be on the disk."""
        return len(self._rows)

    @property
    def under_way(self) -> int:
        """How many attempts left and have not ended; after the run: that were broken off."""
        return len(self._under_way)

    # --- the manifest ---

    def manifest(self) -> dict[str, Any]:
        """Give the manifest as it stands on disk; empty if there is none or it cannot be read."""
        return read_manifest(self.path)

    def save_manifest(self, manifest: dict[str, Any]) -> None:
        """Replace `run.json`. Raises `StoreError`."""
        replace_file(self.manifest_path, orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))

    # --- new versions of files ---

    def swap(self, new: dict[str, Extent]) -> None:
        """Put new versions of files in place, all of them or, after a crash before the decision is durable, none.

        They lie beside the files under the name with `.new` and are durable. Raises `StoreError`.
        """
        point = self._point(new)
        self._append(JOURNAL, point_record(point, swap=True))
        self._files[JOURNAL].sync()
        for name in new:
            try:
                (self.path / (name + NEW)).replace(self.path / name)
            except OSError as error:
                raise StoreError.of(self.path / name, "putting it in place", error) from error
            self._files.pop(name).close()
            self._extents[name] = new[name]
            self._open(name)
        sync_folder(self.path)
        self._last = point
        self._append(JOURNAL, point_record(point))

    def replace_records(self, results: Iterator[bytes], failures: Iterator[bytes], rows: Iterator[Row]) -> None:
        """Replace all records, and the rows of the index for them, in one step. Raises `StoreError`."""
        lines = (to_lines(row.pack()) for row in rows)
        new = {
            RESULTS: write_file(self.path / (RESULTS + NEW), results),
            FAILURES: write_file(self.path / (FAILURES + NEW), failures),
            INDEX: write_file(self.path / (INDEX + NEW), chain([INDEX_HEADER], lines)),
        }
        self.swap(new)
        self.index = Index(self.path / INDEX, new[INDEX])
        self.results, self.failures = self.index.results, self.index.failures
        self.failure_kinds = Counter(self.index.kinds())

    def set_aside(self, rows: Iterable[int]) -> None:
        """Move results out of the results file into `outdated.jsonl`; their items are pending again.

        Raises `StoreError`.
        """
        chosen = bytearray(len(self.index.state))
        for row in rows:
            chosen[row] = 1
        outdated = self.path / OUTDATED
        size = sum(len(line) for line, _ in read_lines(outdated) if line.endswith(b"\n"))
        aside = GrowingFile(outdated, Extent(size))  # without a last line that a crash tore
        try:
            lines = self._kept_results(chosen, aside)
            extent = write_file(self.path / (RESULTS + NEW), lines)
            aside.sync()
        finally:
            aside.close()
        self._sync_now([self._files[INDEX]])
        self._append_rows()
        self._sync_now([self._files[INDEX]])
        self.swap({RESULTS: extent})

    def _kept_results(self, chosen: bytearray, aside: GrowingFile) -> Iterator[bytes]:
        keys = Keys()
        for line, record in read_lines(self.results_path):
            if record is None:
                raise StoreError(f"{self.results_path}: is not as it was left")
            key = keys.of(record)
            row = self.index.find(key)
            if chosen[row]:
                aside.append(line)
                self._rows.append(Row(PENDING, self.index.line(row), key, replaces=row))
            else:
                yield line

    # --- files ---

    def _open(self, name: str) -> GrowingFile:
        self._files[name] = GrowingFile(self.path / name, self._extents[name])
        return self._files[name]

    def _point(self, new: dict[str, Extent] | None = None) -> Point:
        """Give the point at which the files stand, all their rows written and everything synced."""
        extents = {**self._extents, **{name: file.extent for name, file in self._files.items()}, **(new or {})}
        return Point(extents[RESULTS], extents[FAILURES], extents[INDEX], time.time())

    def _write_journal(self, point: Point, under_way: dict[bytes, Sent]) -> None:
        """Replace the journal by one that holds what still counts."""
        self._last = point
        whole = whole_journal(point, self._recipe, self._interrupted_ever, under_way.items())
        replace_file(self.path / JOURNAL, whole)
        self._extents[JOURNAL] = Extent().grown(whole)

    def _open_journal(self) -> None:
        """Go on with the journal that was just written."""
        if JOURNAL in self._files:
            self._files.pop(JOURNAL).close()
        self._open(JOURNAL)

    def _row(self, state: int, entry: Item | Failure, fingerprint: bytes, replaces: int, usage: Usage | None) -> Row:
        return Row(state, entry.line, entry.key, entry.crc, self._recipe, fingerprint, replaces, usage)

    def _add(self, name: str, line: bytes, row: Row) -> None:
        self._guard()
        self._put(name, line)
        self._rows.append(row)
        self._under_way.pop(row.key, None)
        self._dirty.set()

    def _put(self, name: str, line: bytes) -> None:
        """Let a line be written with all others of this turn of the event loop."""
        self._files[name].put(line)
        if not self._is_flushed_soon:
            self._is_flushed_soon = True
            asyncio.get_running_loop().call_soon(self._flush_soon)

    def _flush_soon(self) -> None:
        self._is_flushed_soon = False
        try:
            self.flush()
        except StoreError:
            self._dirty.set()  # `keep_synced` raises it, which ends the run

    def flush(self) -> None:
        """Write what waits, each file though another cannot be written. Raises `StoreError`."""
        for file in self._files.values():
            try:
                file.flush()
            except StoreError as error:
                self._broken = self._broken or error
        if self._broken:
            raise self._broken

    def _append(self, name: str, lines: bytes) -> None:
        self._files[name].put(lines)
        self.flush()

    def _guard(self) -> None:
        if not self._begun:
            raise RuntimeError(_NOT_OPEN)
        if self._broken:
            raise self._broken

    def _check(self, now: float) -> None:
        """Notice what others did to the files before more is paid for."""
        self._checked_at = now
        try:
            for file in self._files.values():
                file.check()
        except StoreError as error:
            self._broken = self._broken or error
            raise self._broken from None

    async def sync(self) -> None:
        """Wait until all records that are written are on the disk; they count from then on. Raises `StoreError`."""
        if not self._begun:
            return
        now = time.monotonic()
        slow = now - self._synced_at >= _SLOW_SYNC_INTERVAL_S
        names = (RESULTS, FAILURES, INDEX, JOURNAL) if slow else (RESULTS, FAILURES)
        self._guard()
        self.flush()
        self._check(now)
        rows = len(self._rows)
        extents = self._files[RESULTS].extent, self._files[FAILURES].extent
        await asyncio.to_thread(self._sync_now, [self._files[name] for name in names])
        if slow:
            self._synced_at = now
        self._append_rows(rows)
        if rows:
            # A point must claim no record whose row is not in the index: that one would never be looked at again.
            self._last = Point(*extents, self._files[INDEX].extent, time.time())
            self._append(JOURNAL, point_record(self._last))
        if self._files[JOURNAL].extent.size > _LARGE_JOURNAL_BYTES:
            self._write_journal(self._last, self._under_way)
            self._open_journal()

    def _sync_now(self, files: Iterable[GrowingFile]) -> None:
        try:
            for file in files:
                if not file.is_synced:
                    file.sync()
        except StoreError as error:
            self._broken = self._broken or error
            raise self._broken from None

    def _append_rows(self, count: int | None = None) -> None:
        """Write the first rows that wait; what they stand for is durable, so it counts from now on."""
        rows = self._rows[:count]
        del self._rows[:count]
        if rows:
            self._append(INDEX, b"".join(to_lines(row.pack()) for row in rows))
        for row in rows:
            if row.replaces:
                self._count(self.index.state[row.replaces], -1)
                self.index.state[row.replaces] = PENDING
            self._count(row.state, 1)

    def _count(self, state: int, change: int) -> None:
        if state == RESULT:
            self.results += change
        elif state >= FAILED:
            self.failures += change
            self.failure_kinds[KINDS[state - FAILED].value] += change


def is_own_file(name: str) -> bool:
    """Tell whether a name in a run directory is that of a file of a run, whether it is there now or not."""
    own = (RESULTS, FAILURES, INDEX, JOURNAL, MANIFEST, OUTDATED, REASKED, PACE, HOLDER)
    return name.removesuffix(NEW).removesuffix(".tmp") in own


def read_manifest(path: Path) -> dict[str, Any]:
    """Give the manifest of a run directory as it stands; empty if there is none, or one that is damaged.

    Raises `StoreError` if it cannot be read, or is none that a run writes.
    """
    try:
        with open_ours(path / MANIFEST) as file:
            value = orjson.loads(file.read())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    except OSError as error:
        raise StoreError.of(path / MANIFEST, "reading", error) from error
    if problem := problem_of(value):
        raise StoreError(f"{path / MANIFEST}: {problem}; correct it, or delete the file: the records stay")
    manifest: dict[str, Any] = value or {}
    return manifest
