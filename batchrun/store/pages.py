"""Numbers in a file that outlive the process, and that several processes may share."""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

from batchrun.store.files import StoreError, make_folder, open_private, require_regular

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

#: The file in a run directory that remembers its pace.
PACE = "pace"
_WORDS = 8
_VERSION, _PAUSED_UNTIL, _BOOT, _WANTED_BY, _WANTED_AT, _ROWS_AT = 0, 1, 2, 3, 4, 6
_LONGEST_PAUSE_S = 300.0
#: A slot that another process asked for so shortly ago is left to it by who has its share.
_WANTED_S = 0.3
_FORM = 2.0
#: Each process that shares slots has a row: how many of them it holds. Its lock on the row dies with it.
_ROWS = 256
_HEAD = _ROWS_AT + _ROWS
_LOCKS_AT = 1 << 30


class Pages:
    """`cells` are numbers that other processes see at once; they are zero at first, and when the machine has restarted.

    They are written without waiting for the disk: they survive the process, not the machine, as its clock does not
    either. Raises `StoreError` where the file cannot be made.
    """

    def __init__(self, path: Path, count: int, *, is_shared: bool) -> None:
        self._is_shared = is_shared
        self._row = -1
        size = (_HEAD + count) * _WORDS
        try:
            make_folder(path.parent)
            require_regular(path)
            self._fd = open_private(path)
        except OSError as error:
            raise StoreError.of(path, "making", error) from error
        try:
            with self.locked():
                self._map = self._mapped(size)
                self._words = memoryview(self._map).cast("d")
                self._begin()
            if is_shared:
                self._take_row()
        except (OSError, ValueError) as error:
            os.close(self._fd)
            raise StoreError(f"{path}: cannot be used to share limits: {error}") from error
        self.cells = self._words[_HEAD:]

    def _mapped(self, size: int) -> mmap.mmap:
        if os.fstat(self._fd).st_size != size:
            os.ftruncate(self._fd, 0)
            # Where the disk has no room for a page, writing to it would end the process.
            os.posix_fallocate(self._fd, 0, size)
        return mmap.mmap(self._fd, size)

    def _begin(self) -> None:
        """Begin anew what is of another form or of another start of the machine, and what cannot be."""
        words, boot = self._words, _boot()
        if words[_VERSION] != _FORM or words[_BOOT] != boot:
            self._map[:] = bytes(len(self._map))
            words[_VERSION], words[_BOOT] = _FORM, boot
        if not words[_PAUSED_UNTIL] <= time.monotonic() + _LONGEST_PAUSE_S:
            words[_PAUSED_UNTIL] = 0.0

    def locked(self) -> AbstractContextManager[object]:
        """Give a lock that keeps other processes away, if there may be any; it can be taken again and again."""
        return _Flock(self._fd) if self._is_shared else nullcontext()

    @property
    def paused_until(self) -> float:
        """Until when nobody may go, in seconds of the system's monotonic clock."""
        return self._words[_PAUSED_UNTIL]

    def pause(self, until: float) -> None:
        """Let nobody go until then."""
        if until > self._words[_PAUSED_UNTIL]:
            self._words[_PAUSED_UNTIL] = until

    def take_slot(self, most: int) -> bool:
        """Take one of `most` slots that all processes share; False if all are taken. The caller holds the lock."""
        words, rows = self._words, self._words[_ROWS_AT:_HEAD]
        now = time.monotonic()
        is_wanted = words[_WANTED_BY] not in (0.0, self._row + 1.0) and 0.0 <= now - words[_WANTED_AT] < _WANTED_S
        if is_wanted and 2 * rows[self._row] >= most:
            return False
        if sum(rows) >= most:
            self._look_for_dead()
            if sum(rows) >= most:
                words[_WANTED_BY], words[_WANTED_AT] = self._row + 1.0, now
                return False
        if not is_wanted:
            words[_WANTED_BY] = 0.0
        rows[self._row] += 1
        return True

    def free_slot(self) -> None:
        """Give a slot back."""
        with self.locked():
            self._words[_ROWS_AT + self._row] -= 1

    def close(self) -> None:
        """Give up the row, and the file; the mapping goes with the last who holds cells."""
        if self._row >= 0:
            self._words[_ROWS_AT + self._row] = 0.0
        os.close(self._fd)

    def _take_row(self) -> None:
        for row in range(_ROWS):
            if self._try_row(row):
                self._row = row
                self._words[_ROWS_AT + row] = 0.0
                return
        raise StoreError(f"more than {_ROWS} runs share one scope")

    def _try_row(self, row: int) -> bool:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _LOCKS_AT + row)
        except BlockingIOError:
            return False
        return True

    def _look_for_dead(self) -> None:
        """Free the slots of processes that ended without giving them back."""
        for row in range(_ROWS):
            if self._words[_ROWS_AT + row] and row != self._row and self._try_row(row):
                self._words[_ROWS_AT + row] = 0.0
                fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, _LOCKS_AT + row)


class _Flock:
    """The kernel's lock on an open file: gone with the process."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)


def _boot() -> float:
    """Give a number for this start of the machine, since which its monotonic clock runs; 0.0 where it has none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123 - no path of ours
            return float(int(file.read()[:8], 16) + 1)
    except (OSError, ValueError):
        return 0.0
