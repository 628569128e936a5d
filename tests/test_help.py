"""What a stranger asks of the command: its help, and the Tab key of a real shell."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shlex
import shutil
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from conftest import ROOT, environment

from batchrun.cli import main

README = "".join((ROOT / page).read_text("utf-8") for page in ("README.md", "docs/reference.md"))


def test_the_help_fits_a_screen_and_names_every_command_once(batchrun) -> None:
    ended = batchrun("--help")
    assert ended.code == 0
    for name in main.commands:
        assert len(re.findall(rf"^  {name} +[A-Z]", ended.out, re.MULTILINE)) == 1, name
        told = batchrun(name, "--help")
        assert told.code == 0
        assert max(map(len, told.out.splitlines())) <= 80, name
        assert "Exit codes" in told.out or name in ("simulate", "init", "explain"), name


def test_the_examples_of_the_help_and_of_the_readme_are_taken_by_the_command() -> None:
    commands = []
    for command in main.commands.values():
        assert command.help
        examples = re.findall(r"^ +(batchrun .+)", command.help.partition("Example")[2], re.MULTILINE)
        assert examples, command.name
        commands += examples
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL):
        commands += re.findall(r"(?:^|[|&/] ?)(batchrun [a-z].+)", block, re.MULTILINE)
    assert len(commands) > 35
    for command in commands:
        words = shlex.split(re.split(r"[|&>]{1,2} ", command)[0], comments=True)
        # Values that stand for a path need not be there; a flag or a choice that is not there is refused.
        main.commands[words[1]].make_context(words[1], words[2:], resilient_parsing=True)


#: How each shell is started without what its user has set up.
SHELLS = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "--interactive"],
}
#: Becomes a program whose terminal is its own, as fish wants it.
OWN_TERMINAL = "import os, sys; os.login_tty(0); os.execvp(sys.argv[1], sys.argv[1:])"


class Terminal:
    """A shell on a terminal of its own."""

    def __init__(self, shell: str, folder: Path) -> None:
        self._end, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 150, 0, 0))
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        variables = environment(PATH=path, HOME=str(folder), TERM="xterm", LANG="C.UTF-8", PS1="$ ")
        self._process = subprocess.Popen(
            [sys.executable, "-c", OWN_TERMINAL, *SHELLS[shell]], cwd=folder, env=variables,
            stdin=theirs, stdout=theirs, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)
        self.shown = ""

    def type(self, text: str, until: str) -> None:
        """Type, and read what is shown until something stands there that was not typed."""
        self.shown = ""
        os.write(self._end, text.encode())
        end = time.monotonic() + 30
        while not re.search(until, self.shown):
            ready = select.select([self._end], [], [], max(0.0, end - time.monotonic()))[0]
            assert ready, f"{until!r} was never shown, but {self.shown!r}"
            self.shown += os.read(self._end, 65536).decode("utf-8", "replace")

    def close(self) -> None:
        os.close(self._end)  # the shell gets SIGHUP
        self._process.kill()
        self._process.wait(10)


@pytest.mark.parametrize("shell", SHELLS)
def test_what_the_readme_says_of_completion_completes_in_a_real_shell(shell, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    (line,) = re.findall(rf"^(.*_BATCHRUN_COMPLETE={shell}_source.*?) +#", README, re.MULTILINE)
    (tmp_path / "reviews.toml").touch()
    terminal = Terminal(shell, tmp_path)
    try:
        if shell == "zsh":
            line = f"autoload -Uz compinit; compinit -u; {line}"
        terminal.type(
            f"{line}; echo set$((20 + 1))up\n" if shell != "fish" else f"{line}; echo set(math 20 + 1)up\n", "set21up"
        )
        terminal.type("batchrun ver\t", r"ver.*ify")
        terminal.type("\x15batchrun run rev\t", r"rev.*iews\.toml")
        terminal.type("\x15batchrun run --on-change ke\t", r"ke.*ep")
        terminal.type("\x15batchrun explain conte\t\t", "content_filter")
        terminal.type("\x15batchrun simulate --dialect deep\t", r"deep.*seek")
    finally:
        terminal.close()
