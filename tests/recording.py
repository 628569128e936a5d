"""A picture of the terminal: `python tests/recording.py samples/terminal.svg` (needs: pip install pyte).

Types the quick start's command into a real bash on a real pseudo-terminal, keeps what the screen shows in the middle
of the run and at its end, and draws both as one SVG that needs nothing else. The answers are the simulated provider's.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import pyte

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parent.parent
COMMAND = "batchrun run jobs/quickstart.toml"
COLUMNS, ROWS = 100, 16
CELL, LINE, EDGE, HEAD = 8, 19, 14, 30


class Shell:
    """A bash on a pseudo-terminal, and the screen that it draws."""

    def __init__(self, home: Path) -> None:
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self.screen)
        self._end, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        tools = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        variables = {
            "PATH": tools, "HOME": str(home), "TERM": "xterm-256color", "PS1": "$ ", "LANG": "C.UTF-8",
            "XDG_DATA_HOME": str(home),
        }  # fmt: skip
        self._bash = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-i"], cwd=home, env=variables, start_new_session=True,
            stdin=theirs, stdout=theirs, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def follow(self, wanted: Callable[[str], bool], seconds: float = 60) -> None:
        """Draw what comes until a line of the screen is the one that is waited for."""
        ends = time.monotonic() + seconds
        while not any(wanted(line.rstrip()) for line in self.screen.display):
            left = ends - time.monotonic()
            if left <= 0 or not select.select([self._end], [], [], left)[0]:
                raise SystemExit("\n".join(["The screen never showed what is waited for:", *self.lines()]))
            self._stream.feed(os.read(self._end, 65536))

    def lines(self) -> list[str]:
        lines = [line.rstrip() for line in self.screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def close(self) -> None:
        self.type("exit\n")
        self._bash.wait(10)
        os.close(self._end)


def record() -> tuple[list[str], list[str]]:
    """Give the lines of the screen in the middle of the run and after it."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for part in ("jobs", "samples"):
            shutil.copytree(ROOT / part, home / part)
        shell = Shell(home)
        shell.follow(lambda line: line == "$")
        shell.type(COMMAND + "\n")
        shell.follow(lambda line: any(f"{percent}%|" in line for percent in range(50, 60)))
        shell.follow(lambda line: "in flight" in line)  # the line below the bar is drawn after it
        during = shell.lines()
        shell.follow(lambda line: line.startswith("files "))
        after = shell.lines()
        shell.close()
    return during, after


def window(title: str, lines: list[str], top: float) -> Iterator[str]:
    """Draw a terminal's window; every row is as wide as its cells, whatever the font."""
    width, height = COLUMNS * CELL + 2 * EDGE, HEAD + len(lines) * LINE + EDGE
    yield f'<rect y="{top:g}" width="{width:g}" height="{height:g}" rx="8" fill="#16191d"/>'
    yield f'<text x="{EDGE}" y="{top + 20:g}" fill="#e6a84a" font-family="sans-serif">{escape(title)}</text>'
    for row, line in enumerate(lines):
        if line:
            at = f'x="{EDGE}" y="{top + HEAD + LINE * (row + 0.75):g}" textLength="{len(line) * CELL:g}"'
            yield f'<text {at} fill="#d8dce2" xml:space="preserve">{escape(line)}</text>'


def picture(during: list[str], after: list[str]) -> str:
    """Draw both screens, one below the other."""
    first, second = (HEAD + len(lines) * LINE + EDGE for lines in (during, after))
    width, height = COLUMNS * CELL + 2 * EDGE, first + second + EDGE
    fonts = "ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace"
    size = f'viewBox="0 0 {width:g} {height:g}" font-size="13" font-family="{fonts}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
        *window("during the run (simulated provider)", during, 0),
        *window("after it (simulated provider)", after, first + EDGE),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(picture(*record()), "utf-8")
