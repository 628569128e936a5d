"""Files that lose nothing: some only grow by whole records, the others are replaced in one step."""

from __future__ import annotations

import json
import os
import re
import stat
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import orjson

from batchrun.items import has_rounded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PRIVATE, _PRIVATE_FOLDER = 0o600, 0o700
_CHUNK_BYTES = 1 << 20
_LINES_BYTES = 1 << 17
#: How a record begins: id and line, then for a failure its error, which is never nested.
_HEAD = re.compile(rb'\{"id":"(?:[^"\\]|\\.)*","line":\d+,("error":\{(?:"(?:[^"\\]|\\.)*"|[^"{}])*\},)?')
_LONG_NUMBER = re.compile(rb"(?<![0-9])[0-9]{19}")
#: What a record of ours has beside its id; foreign lines have not.
_MARKS = ({"fingerprint", "provider"}, {"error", "input"})


class StoreError(Exception):
    """The run directory cannot be written or is not as it was left; the run must stop."""

    @classmethod
    def of(cls, path: Path, doing: str, error: OSError) -> StoreError:
        """Make the error of a system call that failed."""
        return cls(f"{path}: {doing} failed: {error.strerror or error} (errno {error.errno})")


class Extent(NamedTuple):
    """The first `size` bytes of a file, and their CRC-32."""

    size: int = 0
    crc: int = 0

    def grown(self, data: bytes) -> Extent:
        """Give the extent with more bytes at its end."""
        return Extent(self.size + len(data), zlib.crc32(data, self.crc))


class GrowingFile:
    """A file of ours that only grows, by whole lines. One thread writes; any other may `sync`.

    `extent` is what was written, `synced` what is on the disk for certain. Raises `StoreError` where the file cannot
    be opened or is no regular file.
    """

    def __init__(self, path: Path, extent: Extent) -> None:
        """Open or make the file, and cut off what stands after `extent`."""
        self.path = path
        self.extent = self.synced = extent
        self._waiting: list[bytes] = []
        self._fd = open_private(path)
        try:
            size = os.fstat(self._fd).st_size
            if size > extent.size:
                self._cut(extent.size)
        except BaseException:
            os.close(self._fd)
            raise
        if size < extent.size:
            os.close(self._fd)
            raise StoreError(f"{path}: has {size} bytes where {extent.size} were a moment ago")

    def put(self, lines: bytes) -> None:
        """Let lines be written at the end by the next `flush`."""
        self._waiting.append(lines)

    def flush(self) -> None:
        """Write what waits. Raises `StoreError`; the file then has the whole lines that there was room for."""
        if not self._waiting:
            return
        data = self._waiting[0] if len(self._waiting) == 1 else b"".join(self._waiting)
        self._waiting.clear()
        view, written = memoryview(data), 0
        try:
            while written < len(data):
                written += os.write(self._fd, view[written:])
        except OSError as error:
            whole = data[: data.rfind(b"\n", 0, written) + 1]
            self.extent = self.extent.grown(whole)
            self._cut(self.extent.size)
            raise StoreError.of(self.path, "writing", error) from error
        self.extent = self.extent.grown(data)

    def append(self, lines: bytes) -> None:
        """Write lines at the end now. Raises `StoreError` as `flush` does."""
        self.put(lines)
        self.flush()

    @property
    def is_synced(self) -> bool:
        """Tell whether all that was written is on the disk."""
        return self.synced.size == self.extent.size

    def sync(self) -> None:
        """Wait until what was written before the call is on the disk. Raises `StoreError`.

        After a failed sync the kernel counts the pages as clean though they are not on the disk, so they are cut off:
        nobody may later take them for durable.
        """
        extent = self.extent
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            self._cut(self.synced.size)
            raise StoreError.of(self.path, "writing to disk", error) from error
        self.synced = extent

    def close(self) -> None:
        """Close the file. Raises `StoreError`."""
        try:
            os.close(self._fd)
        except OSError as error:
            raise StoreError.of(self.path, "closing", error) from error

    def check(self) -> None:
        """Raise `StoreError` if the file was deleted, moved, cut or appended to by somebody else."""
        status = os.fstat(self._fd)
        try:
            there = self.path.lstat()
        except OSError:
            there = None
        if there is None or not os.path.samestat(status, there):
            raise StoreError(f"{self.path}: was deleted or moved while the run was writing it; nothing more is sent")
        if status.st_size != self.extent.size:
            raise StoreError(
                f"{self.path}: has {status.st_size} bytes where batchrun left {self.extent.size}: "
                "something else wrote or cut it while the run was going; nothing more is sent"
            )

    def _cut(self, size: int) -> None:
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:
            raise StoreError.of(self.path, "cutting off an unfinished line", error) from error


# --- reading ----------------------------------------------------------------------------------------------------


def require_regular(path: Path) -> None:
    """Raise `StoreError` if something else than a file of ours stands at a path: a pipe would be waited for."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError.of(path, "reading", error) from error
    if not stat.S_ISREG(mode):
        raise StoreError(f"{path}: is not a regular file")


def open_ours(path: Path, *, buffering: int = 0) -> BinaryIO:
    """Open a file for reading if it is one and no link to one: a pipe would be waited for. Raises `StoreError`.

    `FileNotFoundError` if there is none.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError.of(path, "reading", error) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise StoreError(f"{path}: is not a regular file")
    return os.fdopen(fd, "rb", buffering=buffering)


def measure(path: Path, size: int) -> Extent:
    """Give the extent of a file's first `size` bytes, or of all of it if it is shorter; empty if it is not there."""
    crc = done = 0
    try:
        with open_ours(path) as file:
            while done < size and (data := file.read(min(_CHUNK_BYTES, size - done))):
                crc = zlib.crc32(data, crc)
                done += len(data)
    except FileNotFoundError:
        return Extent()
    except OSError as error:
        raise StoreError.of(path, "reading", error) from error
    return Extent(done, crc)


def whole_lines(path: Path) -> Extent:
    """Give the extent of a file's whole lines: what stands after the last of them was torn. Raises `StoreError`."""
    extent = tail = Extent()
    try:
        with open_ours(path) as file:
            while data := file.read(_CHUNK_BYTES):
                head, newline, after = data.rpartition(b"\n")
                if newline:
                    extent = tail.grown(head + newline)
                    tail = extent.grown(after)
                else:
                    tail = tail.grown(data)
    except FileNotFoundError:
        return Extent()
    except OSError as error:
        raise StoreError.of(path, "reading", error) from error
    return extent


def count_lines(path: Path) -> int:
    """Count the lines of a file. Raises `StoreError`."""
    try:
        with open_ours(path) as file:
            return sum(data.count(b"\n") for data in iter(lambda: file.read(_CHUNK_BYTES), b""))
    except OSError as error:
        raise StoreError.of(path, "reading", error) from error


def read_lines(path: Path, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """Give the lines of a records file from a byte on, each with its record, None if it is torn or none of ours.

    A file that is not there has no lines. `end` is where a line ends up to which to read. Raises `StoreError`.
    """
    try:
        with open_ours(path, buffering=_LINES_BYTES) as file:
            at = file.seek(start)
            while (end is None or at < end) and (line := file.readline()):
                at += len(line)
                yield line, parse_record(line)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError.of(path, "reading", error) from error


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """Give the whole records of a results or failures file, also of a run that is still going. Raises `StoreError`."""
    if not path.exists():
        raise StoreError(f"{path}: there is no such file")
    for number, (line, record) in enumerate(read_lines(path.resolve()), 1):  # a link of the caller's own is fine
        if record is not None:
            yield exactly(line, record)
        elif line.endswith(b"\n"):
            raise StoreError(f"{path}:{number}: not a record of batchrun")


def exactly(line: bytes, record: dict[str, Any]) -> dict[str, Any]:
    """Give the record of a line with its numbers as they are: the fast reader rounds whole ones over 64 bits."""
    exact: dict[str, Any] = read_exactly(line) if _LONG_NUMBER.search(line) else record
    return exact


def parse_record(line: bytes) -> dict[str, Any] | None:
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
            return record_head(line)
    if not isinstance(record, dict) or not isinstance(record.get("id"), str):
        return None
    return record if any(marks <= record.keys() for marks in _MARKS) else None


def read_exactly(text: bytes) -> Any:
    """Parse the JSON text of a record or of a part of it; whole numbers keep all their digits.

    Raises `ValueError` or `RecursionError`.
    """
    # The fast reader makes floats of whole numbers over 64 bits.
    return json.loads(text, parse_int=_integer) if _LONG_NUMBER.search(text) else orjson.loads(text)


def _integer(text: str) -> int | float:
    return int(text) if len(text) < 4000 else float("inf")  # Python refuses to read longer ones


def record_head(line: bytes) -> dict[str, Any] | None:
    """Give id, line and, of a failure, error of a record; None if it does not begin as records do.

    All that can be read of one that is nested too deeply, as a provider's body or an item can be; and quickly read.
    """
    found = _HEAD.match(line)
    return orjson.loads(b"{%s}" % found[0].removeprefix(b"{").removesuffix(b",")) if found else None


def last_value(text: bytes, key: bytes) -> bytes | None:
    """Give the text of the last value of an object as records spell it; None if it is spelled otherwise."""
    split = split_last(text, key)
    return split[1] if split else None


def split_last(text: bytes, key: bytes) -> tuple[dict[str, Any], bytes] | None:
    """Split an object as records spell it: its values without the last key, and the text of that key's value.

    None if it is spelled otherwise. The same words inside of a string have escaped quotes, and inside of an earlier
    value or of the last one itself what stands before them is no whole object.
    """
    words = b',"%s":' % key
    at = text.find(words)
    while at >= 0:
        head = text[:at] + b"}"
        try:
            values = orjson.loads(head)
        except orjson.JSONDecodeError:
            at = text.find(words, at + 1)
        else:
            free = [values.get("output"), values.get("input")]  # nothing else of a record holds numbers of any size
            return read_exactly(head) if has_rounded(free) else values, text[at + len(words) : -1]
    return None


# --- opening and replacing --------------------------------------------------------------------------------------


def open_private(path: Path) -> int:
    """Open a file of ours, or make it, for nobody but the user. Raises `StoreError`."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(path, flags, _PRIVATE)
    except OSError as error:
        raise StoreError.of(path, "opening", error) from error
    try:
        _check_own(path, os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_own(path: Path, status: os.stat_result) -> None:
    """Raise `StoreError` for what others put in the place of a file of ours."""
    if not stat.S_ISREG(status.st_mode):
        raise StoreError(f"{path}: is not a regular file")
    if status.st_nlink > 1:
        raise StoreError(f"{path}: has another name somewhere else (a hard link); what is written here would go there")
    # Where a file system maps users, what one makes oneself belongs to whom the folder belongs to.
    folder = path.parent.stat()
    if status.st_uid != os.geteuid() and (status.st_uid != folder.st_uid or folder.st_mode & stat.S_IWOTH):
        raise StoreError(f"{path}: belongs to another user (uid {status.st_uid})")


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, for nobody but the user. Raises `OSError`."""
    try:
        path.mkdir(mode=_PRIVATE_FOLDER)
    except FileNotFoundError:
        make_folder(path.parent)
        path.mkdir(mode=_PRIVATE_FOLDER)
    except FileExistsError:
        if not path.is_dir():
            raise


def check_folder(path: Path) -> None:
    """Raise `StoreError` for a run directory, or a link to one, that others put where everybody may put something."""
    is_open = bool(path.absolute().parent.stat().st_mode & stat.S_IWOTH)
    owners = {path.lstat().st_uid, path.stat().st_uid}
    if is_open and not owners <= {os.geteuid(), 0}:
        raise StoreError(f"{path}: belongs to another user (uid {max(owners)}), and stands where everybody may write")


def write_file(path: Path, data: Iterator[bytes] | bytes) -> Extent:
    """Write a new file, or one anew, and wait until it is on the disk. Raises `StoreError`; no part is left then."""
    extent = Extent()
    try:
        fd = _open_new(path)
        try:
            with os.fdopen(fd, "wb") as file:
                for piece in (data,) if isinstance(data, bytes) else data:
                    file.write(piece)
                    extent = extent.grown(piece)
                file.flush()
                os.fsync(fd)
        except BaseException:
            with suppress(OSError):
                path.unlink()
            raise
    except OSError as error:
        raise StoreError.of(path, "writing", error) from error
    return extent


def _open_new(path: Path) -> int:
    """Make a file, in place of what a run that was killed left there: nothing is written through a link of others."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags, _PRIVATE)
    except FileExistsError:
        path.unlink()
        return os.open(path, flags, _PRIVATE)


def temporary(path: Path) -> Path:
    """Give the name that a file has until it is put in place."""
    return path.with_name(path.name + ".tmp")


def replace_file(path: Path, data: bytes) -> None:
    """Put a file in place in one step, on disk before it is seen. Raises `StoreError`."""
    write_file(temporary(path), data)
    try:
        temporary(path).replace(path)
    except OSError as error:
        raise StoreError.of(path, "writing", error) from error
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make names that were added to or changed in a folder durable. Raises `StoreError`."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise StoreError.of(path, "writing to disk", error) from error
