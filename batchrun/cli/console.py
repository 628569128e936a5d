"""The terminal: the one place that writes to it. What others wrote is made harmless first."""

from __future__ import annotations

import atexit
import errno
import os
import re
import sys
from typing import NoReturn

# C0 and C1 controls, and the marks that turn the reading direction: they could rewrite what stands on the screen.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: object, limit: int = 300) -> str:
    """Make foreign text harmless: one line, control characters spelled out, cut at `limit` characters."""
    clean = _UNSAFE.sub(lambda found: f"\\x{ord(found.group()):02x}", str(text))
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def printable_json(line: str) -> str:
    """Make a line of JSON harmless for a terminal, and leave it JSON that says the same."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", line)


def open_closed_streams() -> None:
    """Point standard streams that the caller closed to nowhere, or the next file opened would take their place."""
    for fd, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            _silence(fd)
            setattr(sys, name, open(fd, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - it stays open


def leave_no_core() -> None:
    """Let a crash leave no image of the memory on disk: the key is in it."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def columns() -> int:
    """Give the width of the terminal that standard error goes to."""
    try:
        return os.get_terminal_size(2).columns or 80
    except OSError:
        return 80


class Console:
    """Writes lines to standard error. A reader that went away (`| head`) ends the writing, never the run.

    Where the disk is full lines wait in the buffer, some kilobytes of them, for room.
    """

    def __init__(self) -> None:
        self._gone = self._waits = False
        self.is_terminal = sys.stderr.isatty()

    def line(self, text: str = "") -> None:
        """Write one line."""
        self.write(text + "\n")

    def write(self, text: str) -> int:
        """Write text as it is; what tqdm needs of a file."""
        if not self._gone:
            try:
                sys.stderr.write(text)
                sys.stderr.flush()
            except OSError as error:
                self._gone = error.errno not in (errno.ENOSPC, errno.EDQUOT)
                if self._gone:
                    _silence(sys.stderr.fileno())
                elif not self._waits:
                    self._waits = True
                    atexit.register(_let_go)
        return len(text)

    def flush(self) -> None:
        """Do nothing: each write is flushed."""

    def isatty(self) -> bool:
        """Tell whether standard error is a terminal."""
        return self.is_terminal

    def fileno(self) -> int:
        """Give what tqdm asks for the width of the screen."""
        return sys.stderr.fileno()

    @property
    def encoding(self) -> str:
        """Give what tells tqdm whether the screen knows more than ASCII."""
        return sys.stderr.encoding


def print_data(text: str) -> None:
    """Write data to standard output, as UTF-8 in every locale; a reader that went away is no error."""
    try:
        sys.stdout.buffer.write((text + "\n").encode("utf-8", "backslashreplace"))
        sys.stdout.buffer.flush()
    except OSError as error:
        _silence(sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            Console().line(f"batchrun: standard output cannot be written: {error.strerror}")


def write_data(data: bytes) -> bool:
    """Write UTF-8 text to standard output as it is, or harmless to a terminal; False if the reader went away.

    Ends the process where it cannot be written.
    """
    if sys.stdout.isatty():
        data = b"\n".join(printable_json(line).encode() for line in data.decode("utf-8", "replace").split("\n"))
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        _silence(sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            fail(f"standard output cannot be written: {error.strerror}", 1)
        return False
    return True


def complain(message: str) -> None:
    """Say why nothing was done."""
    console = Console()
    for number, line in enumerate(message.splitlines() or [""]):
        console.line(("batchrun: " if number == 0 else "          ") + printable(line, 1000))


def fail(message: str, exit_code: int) -> NoReturn:
    """Say why nothing was done, and end."""
    complain(message)
    sys.exit(exit_code)


def _let_go() -> None:
    """Write what waits for room, or Python ends with an exit code of its own because it cannot."""
    try:
        sys.stderr.flush()
    except OSError:
        _silence(sys.stderr.fileno())


def _silence(fd: int) -> None:
    """Point a broken stream to nowhere, or Python complains about it at exit."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != fd:
        os.dup2(nowhere, fd)
        os.close(nowhere)
