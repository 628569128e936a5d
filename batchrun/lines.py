"""Input files to lines: paths and globs, plain or packed, in chunks; no line and no file is ever held whole."""

from __future__ import annotations

import glob
import gzip
import io
import os
import select
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from batchrun.job import JobError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: A longer line is not read into memory; it becomes a failure with its first bytes.
MAX_LINE_BYTES = 64 * 1024 * 1024
KEPT_OF_LONG_LINE = 64 * 1024
_CHUNK_BYTES = 128 * 1024


class InputError(Exception):
    """The input broke while it was read (a truncated archive, an I/O error); what was read before it stands."""


def expand_inputs(patterns: Sequence[str]) -> list[str]:
    """Give the files that paths and globs name, in order, each once. Raises `JobError` where nothing is there."""
    paths: dict[str, None] = {}
    problems = []
    for pattern in patterns:
        if pattern == "-" or os.path.exists(pattern):  # noqa: PTH110 - Path.exists raises where it may not look
            found = [pattern]
        else:
            found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - patterns may be absolute
            found = [one for one in found if not Path(one).is_dir()]
        if not found:
            problems.append(
                f"input: {pattern}: no such file" + (" (no file matches)" if glob.has_magic(pattern) else "")
            )
        paths.update(dict.fromkeys(found))
    for path in paths:
        if path != "-":
            problems += _unreadable(Path(path))
    if problems:
        raise JobError(problems)
    return list(paths)


def _unreadable(path: Path) -> list[str]:
    if path.is_dir():
        return [f"input: {path}: is a folder; name its files, for example {path}/*.jsonl"]
    if path.is_fifo():
        return []
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        return [f"input: {path}: cannot be read: {error.strerror}"]
    return _utf16(str(path), start)


def _utf16(path: str, start: bytes) -> list[str]:
    if start[:2] in (b"\xff\xfe", b"\xfe\xff", b"{\x00", b"\x00{"):
        return [f"input: {path}: is UTF-16; convert it first: iconv -f UTF-16 -t UTF-8"]
    return []


def count_items(paths: Sequence[str]) -> int | None:
    """Count lines that are not empty, fast and without parsing; None for standard input and pipes.

    For a progress display: lines of blanks alone are counted although they are no items. Raises `InputError`.
    """
    if any(path == "-" or not Path(path).is_file() for path in paths):
        return None
    count = 0
    for path in paths:
        last = b"\n"
        with open_input(path) as file:
            for chunk in read_chunks(HashedFile(file), path):
                count += chunk.count(b"\n") - chunk.count(b"\n\n")
                last = chunk[-1:]
        count += last != b"\n"
    return count


def open_input(path: str) -> io.RawIOBase:
    """Open a file, or standard input for "-". Raises `InputError`."""
    try:
        if path == "-":
            return io.FileIO(sys.stdin.fileno(), closefd=False)
        return io.FileIO(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


class HashedFile(io.RawIOBase):
    """A raw file that counts what passes, and can be read on after its first bytes were looked at.

    `digest`, a hash object of hashlib, is fed with what passes.
    """

    def __init__(self, file: io.RawIOBase, digest: Any = None) -> None:
        self._file = file
        self._digest = digest
        self._ahead = b""
        self.size = 0

    def readable(self) -> bool:
        """Tell the readers of packed files that they may read."""
        return True

    def peek(self) -> bytes:
        """Give the first bytes without consuming them."""
        while len(self._ahead) < 4:
            more = self._take(_CHUNK_BYTES)
            if not more:
                break
            self._ahead += more
        return self._ahead[:4]

    def read(self, size: int = -1) -> bytes:
        """Read what is there, `size` bytes at most; nothing at the end."""
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
            return data
        return self._take(size)

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer, for `io.BufferedReader`."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _take(self, size: int) -> bytes:
        while (data := self._file.read(size)) is None:  # standard input may be set not to block
            select.select([self._file], [], [])
        if self._digest is not None:
            self._digest.update(data)
        self.size += len(data)
        return data


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def read_chunks(file: HashedFile, path: str) -> Iterator[bytes]:
    """Yield a file's bytes as they come, unpacked if its first bytes say gzip or zstd."""
    name = "standard input" if path == "-" else path
    try:
        start = file.peek()
        reader: _Readable = file
        if start[:2] == b"\x1f\x8b":
            reader = gzip.GzipFile(fileobj=io.BufferedReader(file, _CHUNK_BYTES))
        elif start == b"\x28\xb5\x2f\xfd":
            reader = _open_zstd(file)
        chunk = reader.read(_CHUNK_BYTES)
        problems = _utf16(name, chunk[:4])
        if problems:
            raise InputError(problems[0])
        while chunk:
            yield chunk
            chunk = reader.read(_CHUNK_BYTES)
    except EOFError as error:
        raise InputError(f"{name}: the compressed file is truncated") from error
    except (OSError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{name}: reading failed: {reason}") from error


def _open_zstd(file: HashedFile) -> _Readable:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd

    class Reader(zstd.ZstdFile):
        """Reports damage as the other readers do."""

        def read(self, size: int | None = -1) -> bytes:
            try:
                return super().read(size)
            except zstd.ZstdError as error:
                raise OSError(str(error)) from error

    return Reader(io.BufferedReader(file, _CHUNK_BYTES))


def split_lines(chunks: Iterator[bytes]) -> Iterator[list[tuple[bytes, int]]]:
    """Split chunks at newline bytes alone; yield batches of (line, its whole length).

    A line over the limit is cut to its first bytes. The byte-order mark of UTF-8 is taken off the first line.
    """
    parts: list[bytes] = []
    length = 0
    first = True
    for chunk in chunks:
        whole, newline, rest = chunk.rpartition(b"\n")
        if newline:
            head, *others = whole.split(b"\n")
            parts.append(head)
            lines = [_joined(parts, length + len(head)), *((other, len(other)) for other in others)]
            parts, length = [], 0
            if first:
                lines[0] = _without_bom(*lines[0])
                first = False
            yield lines
        length += len(rest)
        if length <= MAX_LINE_BYTES:
            parts.append(rest)
        elif len(parts) > 1:
            parts = [b"".join(parts)[:KEPT_OF_LONG_LINE]]
    if length:
        last = _joined(parts, length)
        yield [_without_bom(*last) if first else last]


def _joined(parts: list[bytes], length: int) -> tuple[bytes, int]:
    text = b"".join(parts)
    return (text[:KEPT_OF_LONG_LINE] if length > MAX_LINE_BYTES else text), length


def _without_bom(text: bytes, length: int) -> tuple[bytes, int]:
    return text.removeprefix(b"\xef\xbb\xbf"), length
