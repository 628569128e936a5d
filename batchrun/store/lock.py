"""The lock of a run directory: the kernel's, so that it dies with its process; a file says who holds it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from typing import TYPE_CHECKING

from batchrun.records import utc_now
from batchrun.store.files import StoreError, check_folder, make_folder, open_ours, open_private

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = "lock"
_LONGEST_NAME = 200
#: `struct flock` with a whole-file write lock, as Linux lays it out on 64-bit machines.
_WHOLE_FILE = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


class LockedError(Exception):
    """Another run holds the run directory."""


class Lock:
    """Holds a run directory, which is made, private, if need be.

    The folder itself is locked, which nobody can delete and make anew without being noticed; the file named `lock`
    says who holds it, and is locked too so that `holder` can ask without taking part.
    Raises `LockedError` or `StoreError`.
    """

    def __init__(self, path: Path) -> None:
        self._file = path / HOLDER
        try:
            make_folder(path)
            check_folder(path)
            self._folder_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise StoreError.of(path, "making the run directory", error) from error
        try:
            self._take(path)
        except BaseException:
            os.close(self._folder_fd)
            raise

    def release(self) -> None:
        """Give the lock back."""
        # The file is only a hint for people, and the folder may be gone or read-only by now.
        with contextlib.suppress(OSError):
            self._file.unlink()
        for fd in (self._file_fd, self._folder_fd):
            with contextlib.suppress(OSError):
                os.close(fd)

    def _take(self, path: Path) -> None:
        try:
            fcntl.flock(self._folder_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(f"{path}: another run holds this run directory ({_named(self._file)})") from error
        except OSError as error:
            raise StoreError.of(path, "locking the run directory", error) from error
        try:
            self._file_fd = open_private(self._file)
        except StoreError as error:
            raise StoreError(f"{error}; it says who holds the run directory") from error
        try:
            os.ftruncate(self._file_fd, 0)
            os.write(self._file_fd, f"pid {os.getpid()} since {utc_now()}\n".encode())
            with contextlib.suppress(AttributeError):  # not every system has locks that belong to an open file
                fcntl.fcntl(self._file_fd, fcntl.F_OFD_SETLK, _WHOLE_FILE)
        except OSError as error:
            os.close(self._file_fd)
            raise StoreError.of(self._file, "writing", error) from error


def holder(path: Path) -> str | None:
    """Say who holds a run directory now, None if nobody does; asks the kernel and takes no lock."""
    try:
        fd = os.open(path / HOLDER, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _WHOLE_FILE)
    except (AttributeError, OSError):
        return _named(path / HOLDER)
    finally:
        os.close(fd)
    return None if struct.unpack_from("h", answer)[0] == fcntl.F_UNLCK else _named(path / HOLDER)


def _named(file: Path) -> str:
    try:
        with open_ours(file) as said:
            return said.read(_LONGEST_NAME).decode("utf-8", "replace").strip() or "holder unknown"
    except (OSError, StoreError):
        return "holder unknown"
