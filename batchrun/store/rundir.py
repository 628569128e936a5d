"""One run directory: locked by one run, its records appended by one writer, its manifest replaced in one step."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import orjson

from batchrun.ids import IdIndex
from batchrun.records import ErrorKind, Failure, utc_now
from batchrun.store.files import JsonLines, StoreError, replace_file, sync_folder

if TYPE_CHECKING:
    from pathlib import Path

    from batchrun.records import Item, Result

_HOLDER = "lock"
_COMMIT_INTERVAL_S = 0.05
_BUFFER_BYTES = 8 * 1024 * 1024


class LockedError(Exception):
    """Another run holds the run directory."""


class RunDirectory:
    """Results, failures and manifest of one job.

    Opening it makes it if need be, takes its lock and reads which items are finished; records are buffered by
    `add_result` and `add_failure` and made durable, many at once, by `write`. Raises `LockedError` or `StoreError`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results_path = path / "results.jsonl"
        self.failures_path = path / "failures.jsonl"
        self.manifest_path = path / "run.json"
        self.finished = IdIndex()
        self.failure_kinds: Counter[str] = Counter()
        self._lock = _lock(path)
        self._results: list[bytes] = []
        self._failures: list[bytes] = []
        self._buffered = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._full = asyncio.Event()
        self._closing = False
        try:
            self._results_file = JsonLines(self.results_path, self._read_result)
            self._failures_file = JsonLines(self.failures_path, self._read_failure)
            sync_folder(path)
        except BaseException:
            os.close(self._lock)
            raise

    @property
    def results(self) -> int:
        """How many results are in the file."""
        return self._results_file.lines

    @property
    def failures(self) -> int:
        """How many failures are in the queue."""
        return self._failures_file.lines

    @property
    def notes(self) -> list[str]:
        """What had to be mended when the folder was opened."""
        return [file.note for file in (self._results_file, self._failures_file) if file.note]

    def manifest(self) -> dict[str, Any]:
        """Give the manifest as it stands on disk; empty if there is none or it cannot be read."""
        try:
            value = orjson.loads(self.manifest_path.read_bytes())
        except (OSError, orjson.JSONDecodeError):
            return {}
        return value if isinstance(value, dict) else {}

    def save_manifest(self, manifest: dict[str, Any]) -> None:
        """Replace `run.json`. Raises `StoreError`."""
        replace_file(self.manifest_path, orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))

    def add_result(self, result: Result) -> None:
        """Hand a result to the writer."""
        line = result.to_json()
        self._results.append(line)
        self._added(line)

    def add_failure(self, failure: Failure) -> None:
        """Hand a failure to the writer."""
        line = failure.to_json()
        self._failures.append(line)
        self.failure_kinds[failure.kind.value] += 1
        self._added(line)

    async def room(self) -> None:
        """Wait until the writer has caught up."""
        await self._room.wait()

    @property
    def is_behind(self) -> bool:
        """Tell whether the writer holds so much that nothing should be added: wait for `room` then."""
        return not self._room.is_set()

    async def write(self) -> None:
        """Write what is handed over, group by group, until `finish` is called. Raises `StoreError`."""
        while not (self._closing and not self._buffered):
            await self._wake.wait()
            self._wake.clear()
            results, failures, lines = b"".join(self._results), b"".join(self._failures), len(self._results)
            failed = len(self._failures)
            self._results.clear()
            self._failures.clear()
            self._buffered = 0
            self._room.set()
            if results or failures:
                await asyncio.to_thread(self._commit, results, failures)
                self._results_file.lines += lines
                self._failures_file.lines += failed
            if not self._closing:
                await self._pause()

    def finish(self) -> None:
        """Let `write` end as soon as everything handed over is durable."""
        self._closing = True
        self._wake.set()
        self._full.set()

    def is_finished(self, entry: Item | Failure) -> bool:
        """Tell whether an item, or a line that is none, already has its record."""
        if not self.finished:
            return False
        return _key(entry.id, entry.line, entry.kind if isinstance(entry, Failure) else "") in self.finished

    def close(self) -> None:
        """Close the files and give the lock back."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / _HOLDER).unlink()
        self._results_file.close()
        self._failures_file.close()
        os.close(self._lock)

    def _commit(self, results: bytes, failures: bytes) -> None:
        for file, data in ((self._results_file, results), (self._failures_file, failures)):
            if data:
                file.append(data)
                file.sync()

    def _added(self, line: bytes) -> None:
        self._buffered += len(line)
        self._wake.set()
        if self._buffered > _BUFFER_BYTES:
            self._room.clear()
            self._full.set()

    async def _pause(self) -> None:
        """Let records gather for a moment, unless the buffer is full or the run is over."""
        self._full.clear()
        if self._buffered <= _BUFFER_BYTES:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_COMMIT_INTERVAL_S):
                    await self._full.wait()

    def _read_result(self, record: dict[str, Any]) -> None:
        if self.finished.add(record["id"], _line(record)) is not None:
            raise ValueError(f"a second result for {record['id']!r}")

    def _read_failure(self, record: dict[str, Any]) -> None:
        error = record.get("error")
        kind = error.get("kind") if isinstance(error, dict) else None
        self.failure_kinds[str(kind)] += 1
        line = _line(record)
        self.finished.add(_key(record["id"], line, str(kind)), line)


def _key(item_id: str, line: int, kind: str) -> str:
    """Give what a record is found by: the id, but for the second use of an id, which is no item of its own."""
    # A lone surrogate cannot stand in an item's id.
    return f"\udc00{line}" if kind == ErrorKind.DUPLICATE_ID else item_id


def _line(record: dict[str, Any]) -> int:
    line = record.get("line")
    return line if isinstance(line, int) and 0 <= line < 1 << 40 else 0


def _lock(path: Path) -> int:
    """Make the folder, private, and lock it; the lock is the kernel's and dies with the process."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError.of(path, "making the run directory", error) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise LockedError(f"{path}: another run holds this run directory ({_holder(path)})") from error
    except OSError as error:
        os.close(fd)
        raise StoreError.of(path, "locking the run directory", error) from error
    try:
        # Only a hint for people; the lock itself is on the folder.
        (path / _HOLDER).write_text(f"pid {os.getpid()} since {utc_now()}\n")
        (path / _HOLDER).chmod(0o600)
    except OSError as error:
        os.close(fd)
        raise StoreError.of(path / _HOLDER, "writing", error) from error
    return fd


def _holder(path: Path) -> str:
    try:
        return (path / _HOLDER).read_text().strip() or "holder unknown"
    except OSError:
        return "holder unknown"
