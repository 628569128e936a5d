"""Files that lose nothing: JSON Lines that only grow by whole lines, and files replaced in one step."""

from __future__ import annotations

import json
import os
import re
import stat
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_PRIVATE = 0o600
#: How a record begins: id and line, then for a failure its error, which is never nested.
_HEAD = re.compile(rb'\{"id":"(?:[^"\\]|\\.)*","line":\d+,("error":\{(?:"(?:[^"\\]|\\.)*"|[^"{}])*\},)?')


class StoreError(Exception):
    """The run directory cannot be written or is not as it was left; the run must stop."""

    @classmethod
    def of(cls, path: Path, doing: str, error: OSError) -> StoreError:
        """Make the error of a system call that failed."""
        return cls(f"{path}: {doing} failed: {error.strerror or error} (errno {error.errno})")


class JsonLines:
    """A JSON Lines file of ours, open for appending. What a crash tore is cut off when it is opened.

    Raises `StoreError` where the file cannot be opened, is no regular file, or is damaged before its last line.
    """

    def __init__(self, path: Path, read: Callable[[dict[str, Any]], None]) -> None:
        """Open or make the file; `read` is called with each record that stands in it."""
        self.path = path
        self.lines = 0
        self.note: str | None = None
        self._fd = _open_private(path)
        try:
            self._size = self._recover(read)
        except BaseException:
            os.close(self._fd)
            raise

    def append(self, data: bytes) -> None:
        """Write whole lines at the end, all or nothing. Raises `StoreError`; the file is then as before."""
        if not data:
            return
        self._check_unchanged()
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            self._cut(self._size)
            raise StoreError.of(self.path, "writing", error) from error
        self._size += len(data)

    def sync(self) -> None:
        """Wait until what was written is on the disk. Raises `StoreError`."""
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise StoreError.of(self.path, "writing to disk", error) from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _check_unchanged(self) -> None:
        status = os.fstat(self._fd)
        try:
            there = self.path.lstat()
        except OSError:
            there = None
        if there is None or not os.path.samestat(status, there):
            raise StoreError(f"{self.path}: was deleted or moved while the run was writing it; nothing more is sent")
        if status.st_size != self._size:
            raise StoreError(
                f"{self.path}: has {status.st_size} bytes where batchrun left {self._size}: "
                "something else wrote or cut it while the run was going; nothing more is sent"
            )

    def _recover(self, read: Callable[[dict[str, Any]], None]) -> int:
        size = 0
        with os.fdopen(os.dup(self._fd), "rb") as file:
            file.seek(0)
            for line in file:
                record = _record(line)
                if record is None:
                    if file.read(1):
                        raise StoreError(
                            f"{self.path}:{self.lines + 1}: not a record of batchrun, with more lines after it; "
                            "the file was damaged or changed, restore it or use another output"
                        )
                    break
                try:
                    read(record)
                except ValueError as error:
                    raise StoreError(f"{self.path}:{self.lines + 1}: {error}; restore the file") from error
                self.lines += 1
                size += len(line)
        torn = os.fstat(self._fd).st_size - size
        if torn:
            self._cut(size)
            self.note = f"{self.path}: the unfinished last line was cut off ({torn} bytes); its item runs again"
        return size

    def _cut(self, size: int) -> None:
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:
            raise StoreError.of(self.path, "cutting off an unfinished line", error) from error


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """Give the whole records of a results or failures file, also of a run that is still going. Raises `StoreError`."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                record = _record(line)
                if record is not None:
                    yield record
                elif line.endswith(b"\n"):
                    raise StoreError(f"{path}:{number}: not a record of batchrun")
    except OSError as error:
        raise StoreError.of(path, "reading", error) from error


def _record(line: bytes) -> dict[str, Any] | None:
    """Parse a line of ours; None if it is torn or not ours."""
    if not line.endswith(b"}\n"):
        return None
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            record = json.loads(line, parse_int=_integer)  # a provider's body may hold numbers that orjson refuses
        except ValueError:
            return None
        except RecursionError:
            record = _record_head(line)
    return record if isinstance(record, dict) and isinstance(record.get("id"), str) else None


def _integer(text: str) -> int | float:
    return int(text) if len(text) < 4000 else float("inf")  # Python refuses to read longer ones


def _record_head(line: bytes) -> dict[str, Any] | None:
    """Read what is needed of a record that is nested too deeply to be parsed: a provider's body or an item can be."""
    found = _HEAD.match(line)
    return orjson.loads(b"{%s}" % found[0].removeprefix(b"{").removesuffix(b",")) if found else None


def _open_private(path: Path) -> int:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(path, flags, _PRIVATE)
    except OSError as error:
        raise StoreError.of(path, "opening", error) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise StoreError(f"{path}: is not a regular file")
    return fd


def replace_file(path: Path, data: bytes) -> None:
    """Put a file in place in one step, on disk before it is seen. Raises `StoreError`."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, _PRIVATE)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError.of(path, "writing", error) from error


def sync_folder(path: Path) -> None:
    """Make names that were added to or changed in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
