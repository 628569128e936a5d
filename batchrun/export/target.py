"""Where an export goes: a file that is put in place in one step, whole or not at all."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from batchrun.store.rundir import is_own_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: As the user's umask has it: an export is for others to read, unlike the run directory.
_MODE = 0o666
_BUFFER_BYTES = 1 << 18


class TargetError(Exception):
    """The file cannot be written; what stood there before still does."""


def refusal(path: Path, folder: Path, sources: Iterable[str]) -> str | None:
    """Say why a file must not be written to, None if it may: it is a run's own, or one that its job is made of."""
    path = path.resolve()
    if path.is_dir():
        return f"{path}: is a folder; name a file in it"
    if not path.parent.is_dir():
        return f"{path}: there is no folder {path.parent}"
    if path.parent == folder.resolve() and is_own_file(path.name):
        return f"{path}: is the run directory's own file; export to another one"
    for one in sources:
        if path.exists() and Path(one).exists() and path.samefile(one):
            return f"{path}: belongs to the job (its input, schema or file); export to another file"
    return None


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write to that takes the place of `path` when all went well: on the disk first, then in one step.

    What is no regular file, such as a device or a pipe, is written to as it is. Raises `TargetError`.
    """
    path = path.resolve()
    try:
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            with path.open("wb") as file:
                yield file
            return
        yield from _replaced(path)
    except OSError as error:
        raise TargetError(f"{path}: writing failed: {error.strerror or error}") from error


def _replaced(path: Path) -> Iterator[BinaryIO]:
    beside = path.with_name(f".{path.name[:200]}.{os.getpid()}.tmp")
    try:
        # Within, so that a signal right after it leaves nothing either.
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
        with os.fdopen(fd, "wb", _BUFFER_BYTES) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except FileExistsError:  # another process of that number is at it
        raise
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
