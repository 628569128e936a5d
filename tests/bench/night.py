"""A night in miniature: Debian's cron starts a job every minute, and what may happen in a month of nights happens.

    python tests/bench/night.py

The line is the one that `batchrun schedule` prints for a job with an inbox, in a folder whose name has a blank, a
percent sign and Chinese; only `--metrics-file` is added and, for the two minutes of the long run, a JSON log. cron, its
mail (exim4) and logrotate are the real ones; the provider is the simulated one, in a process of its own with a ledger.
For each minute it prints what cron saw, what the run said to whom, what reached the provider and what lay in the
folder. Needs root, a machine where nobody minds (root's crontab is used, and must be empty before) and the packages
cron, exim4-daemon-light and logrotate. Ends with 1 if an item was lost, doubled or left over.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Self

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import write_lines
from kills import Audit, Provider, audit, until

if TYPE_CHECKING:
    from collections.abc import Callable

CONCURRENCY = 4
LATENCY = "1s"
#: The second of a minute in which stock is taken and the next one prepared.
STOCK_S = 55
LOG_SOCKET = Path("/dev/log")
MAIL = Path("/var/mail")
JOB = f"""
input = "inbox/*.jsonl"
output = "out"

[endpoint]
base_url = "URL"
model = "simulated-chat"

[params]
max_tokens = 200

[limits]
concurrency = {CONCURRENCY}

[price]
input = 1000.0
output = 1000.0

[budget]
max_cost = 100.0

[schedule]
cron = "* * * * *"
window = "10m"

[notify]
command = "cat >> told.jsonl; echo >> told.jsonl"
"""


class Cron:
    """Debian's cron daemon, its log and its mail. The crontab is emptied and the mail taken away at the end."""

    def __init__(self) -> None:
        for name in ("cron", "crontab", "sendmail", "logrotate"):
            assert shutil.which(name), f"{name} is not installed"
        assert subprocess.run(["crontab", "-l"], capture_output=True, check=False).returncode, "root has a crontab"
        assert not LOG_SOCKET.exists(), "a syslog daemon is at work here"
        self._log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._log.bind(str(LOG_SOCKET))
        self._sizes = self._mailboxes()
        self._read = dict(self._sizes)
        #: What cron wrote about commands; by process the minute in which it was started, and its exit code.
        self.said: list[str] = []
        self.started: dict[int, str] = {}
        self.ended: dict[int, int] = {}
        self._grandchildren: dict[int, int] = {}
        threading.Thread(target=self._listen, daemon=True).start()
        environment = {"PATH": os.environ["PATH"]}
        self._daemon = subprocess.Popen(["cron", "-f", "-L", "7"], env=environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._daemon.terminate()
        self._daemon.wait()
        subprocess.run(["crontab", "-r"], check=False)
        LOG_SOCKET.unlink()
        for path in self._mailboxes():
            if path in self._sizes:
                os.truncate(path, self._sizes[path])
            else:
                path.unlink()

    def install(self, lines: str) -> None:
        subprocess.run(["crontab", "-"], input=lines, text=True, check=True)

    def mail(self) -> list[str]:
        """Give subject and text of the messages that came since this was asked last."""
        found = []
        for path, size in self._mailboxes().items():
            new = path.read_bytes()[self._read.get(path, 0) : size].decode("utf-8", "replace")
            self._read[path] = size
            for message in re.split(r"^From .*$", new, flags=re.MULTILINE)[1:]:
                head, _, body = message.partition("\n\n")
                if "Cron Daemon" in head:
                    found.append(("failed: " if "(failed)" in head else "") + body.strip())
        return found

    def _stat(self, pid: int) -> list[str]:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()

    def _mailboxes(self) -> dict[Path, int]:
        return {path: path.stat().st_size for path in MAIL.iterdir() if path.is_file()}

    def _listen(self) -> None:
        while True:
            line = self._log.recv(8192).decode("utf-8", "replace")
            found = re.search(r"CRON\[(\d+)\]: (\((?:root|CRON)\) (CMD|END|error)\b.*)", line)
            if found is None:
                continue
            pid = int(found[1])
            self.said.append(re.sub(r"\((cd .*)\)$", "(…)", found[2]))
            if found[3] == "CMD":
                self.started[pid] = time.strftime("%H:%M")
                self._grandchildren[int(self._stat(pid)[1])] = pid
            elif status := re.search(r"#(\d+) failed with exit status (\d+)", found[2]):
                self.ended[int(status[1])] = int(status[2])
            elif found[3] == "END":
                self.ended.setdefault(self._grandchildren[pid], 0)


class Night:
    """The job, its inbox and everything that is known of it from the outside."""

    def __init__(self, folder: Path, cron: Cron, provider: Provider) -> None:
        self.folder, self.cron, self.provider = folder, cron, provider
        self.out, self.log, self.metrics = folder / "out", folder / "night.log", folder / "batchrun.prom"
        self.job = folder / "job.toml"
        self.job.write_text(JOB.replace("URL", provider.url), "utf-8")
        for name in ("inbox", "away"):
            (folder / name).mkdir()
        self.items: list[str] = []
        self.answered: Counter[str] = Counter()
        self._told = 0
        self.wrong: list[str] = []
        self.lines = self._command("schedule", "--cron", self.job).stdout

    def _command(self, *words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "batchrun", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def arrive(self, name: str, count: int) -> None:
        """Put a file of new items into the inbox, in one step."""
        ids = [f"{name}-{number}" for number in range(count)]
        for one in ids:
            self.provider.expect(one, f"第 {one} 条")
        new = write_lines(self.folder / "new", *({"id": one, "prompt": f"第 {one} 条"} for one in ids))
        new.rename(self.folder / "inbox" / f"{name}.jsonl")
        self.items += ids

    def schedule(self, more: str = "") -> None:
        """Install what `batchrun schedule` prints, with flags behind the command."""
        metrics = f" --metrics-file {self.metrics.name}{more}"
        self.cron.install(re.sub(r"^(?!#).+$", lambda line: line[0] + metrics, self.lines, flags=re.MULTILINE))

    def move_inbox(self, source: str, target: str) -> None:
        for path in (self.folder / source).iterdir():
            path.rename(self.folder / target / path.name)

    def budget(self, most: float) -> None:
        text = self.job.read_text("utf-8")
        self.job.write_text(re.sub(r"max_cost = .*", f"max_cost = {most}", text), "utf-8")

    def kill(self, after: int) -> None:
        """Kill the run with SIGKILL when so many items are answered."""
        until(lambda: self._answers() >= after, within_s=50, every_s=0.05)
        pid = int(re.search(r"pid (\d+)", (self.out / "lock").read_text())[1])
        os.kill(pid, signal.SIGKILL)
        show("kill", f"SIGKILL when {after} items were answered")

    def rotate(self, way: str, at_s: float) -> None:
        """Let logrotate put the JSON log aside, so many seconds after the minute began."""
        time.sleep(max(0.0, at_s - time.time() % 60))
        settings = self.folder / "logrotate.conf"
        settings.write_text(f'"{self.log}" {{\n rotate 5\n nocompress\n {way}\n}}\n', "utf-8")
        size = self.log.stat().st_size
        state = ["-s", self.folder / "logrotate.state"]
        subprocess.run(["logrotate", "-f", *state, settings], check=True)
        show("logrotate", f"{way}, at second {at_s:.0f}, with {size} bytes in the log")

    def audit(self) -> Audit:
        whole = self.folder / "all"
        whole.write_bytes(b"".join(path.read_bytes() for path in sorted(self.folder.glob("[ia]*/*.jsonl"))))
        try:
            return audit(whole, self.out)
        finally:
            whole.unlink()

    def _answers(self) -> int:
        for answer in self.provider.answers():
            self.answered[answer.id] += answer.status == 200
        return self.answered.total()

    def take_stock(self, before: tuple[int, int, dict[str, bytes]], expected: list[int | None]) -> None:
        """Print everything that can be seen of a minute from the outside; None is a run that goes on."""
        self._answers()
        calls, answers, files = before
        stats, found = self.provider.stats(), self.audit()
        codes = []
        for pid, minute in self.cron.started.items():
            codes.append(self.cron.ended.get(pid))
            show("cron", f"started at {minute}: " + ("goes on" if codes[-1] is None else f"exit code {codes[-1]}"))
        for pid in self.cron.ended:
            self.cron.started.pop(pid, None)
        show("log", "; ".join(self.cron.said))
        self.cron.said.clear()
        show("mail", *self.cron.mail())
        show("notify", *(" | ".join(json.loads(line)["text"].split("\n")[:-1]) for line in self._new_lines()))
        values = re.findall(
            r'^batchrun_(\w+)\{job_file="[^"]*"(?:,\w+="(\w+)")?\} (\S+)', self.metrics.read_text(), re.MULTILINE
        )
        wanted = ("running", "items", "requests_total", "exit_code")
        show("metrics", ", ".join(f"{label or name} {value}" for name, label, value in values if name in wanted))
        answered = self.answered.total() - answers
        paid = f"items paid twice so far: {self.paid_twice()}"
        show("provider", f"{stats['calls'] - calls} calls, {answered} answered; {paid}")
        show("counts", self._counts(found))
        changed = sorted(name for name, data in self.files().items() if data != files.get(name))
        show("folder", f"{' '.join(sorted(self.files()))}; changed: {' '.join(changed) or 'nothing'}")
        self.wrong += found.wrong
        if codes != expected:
            self.wrong.append(f"exit codes {codes}, expected {expected}")

    def _counts(self, found: Audit) -> str:
        results, failures, pending = map(len, (found.results, found.failures, found.missing))
        return f"{len(self.items)} items: {results} results, {failures} failures, {pending} pending"

    def _new_lines(self) -> list[str]:
        """Give what notify was told since this was asked last."""
        path = self.folder / "told.jsonl"
        lines = [line for line in path.read_text("utf-8").split("\n") if line] if path.exists() else []
        new, self._told = lines[self._told :], len(lines)
        return new

    def paid_twice(self) -> int:
        return sum(count > 1 for count in self.answered.values())

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.out.iterdir()} if self.out.exists() else {}

    def mark(self) -> tuple[int, int, dict[str, bytes]]:
        return self.provider.stats()["calls"], self.answered.total(), self.files()

    def logged(self) -> None:
        """Print what the JSON log and what was moved away of it hold; every line must be whole."""
        events: list[tuple[str, str]] = []
        for path in sorted(self.folder.glob("night.log*"), reverse=True):
            lines = [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]
            names = Counter(line["event"] for line in lines)
            show("JSON log", f"{path.name}: {', '.join(f'{count} {name}' for name, count in names.items()) or 'empty'}")
            events += [(line["time"], line["event"]) for line in lines]
        times = [datetime.fromisoformat(at) for at, _ in events]
        gap = max((later - earlier).total_seconds() for earlier, later in pairwise(times))
        show("in all", f"{len(events)} events, in order; {gap:.1f} s between two at most (a line is due every 10 s)")
        if events != sorted(events) or events[-1][1] != "finished" or gap > 15:
            self.wrong.append("the log lacks an event")

    def end(self) -> int:
        """Audit the whole night; give the exit code."""
        found, stats = self.audit(), self.provider.stats()
        verified = self._command("verify", self.job)
        ours = (
            "inbox",
            "away",
            "out",
            "job.toml",
            "told.jsonl",
            self.metrics.name,
            "logrotate.conf",
            "logrotate.state",
        )
        left = [
            name
            for path in self.folder.iterdir()
            if (name := path.name) not in ours and not name.startswith(self.log.name)
        ]
        print("\nThe whole night")
        show("counts", self._counts(found))
        show("provider", f"{stats['calls']} calls, {stats['calls'] / len(self.items):.3f} an item")
        show("paid", f"{self.paid_twice()} items twice")
        show("verify", f"exit code {verified.returncode}: {verified.stdout.strip()}")
        show("folder", " ".join(sorted(self.files())))
        show("left over", *left)
        self.wrong += [*found.missing, *found.torn, *left, *(["verify"] if verified.returncode else [])]
        if len(found.results) != len(self.items) or self.paid_twice() > CONCURRENCY:
            self.wrong.append("not every item was answered once")
        show("wrong", *self.wrong)
        return 1 if self.wrong else 0


def show(what: str, *lines: str) -> None:
    for line in lines or ["nothing"]:
        print(f"    {what:9} {line}", flush=True)


@dataclass(frozen=True)
class Minute:
    """What is done before a minute begins and while it lasts, and how the runs end of which something is seen then."""

    title: str
    codes: list[int | None]
    before: Callable[[Night], object] = lambda _: None
    during: Callable[[Night], object] = lambda _: None


def over_night(night: Night) -> None:
    night.rotate("copytruncate", 20)
    night.rotate("create", 45)


def the_long_run(night: Night) -> None:
    night.arrive("b", 300)
    night.schedule(f" --log-format json 2>> {night.log.name}")


def over_budget(night: Night) -> None:
    night.logged()
    night.schedule()
    night.arrive("c", 60)
    night.budget(2.0)


def ordinary(night: Night) -> None:
    night.arrive("a-late", 10)  # it sorts before what is done
    night.arrive("d", 20)


def killed(night: Night) -> None:
    night.kill(50)


MINUTES = (
    Minute("120 new items; the run is killed in the middle", [137], lambda night: night.arrive("a", 120), killed),
    Minute("the next start finishes what the killed run left", [0]),
    Minute("300 new items, more than a minute's; the JSON log is moved away twice", [None], the_long_run, over_night),
    Minute("a start beside the long run, which ends later", [0, 75]),
    Minute("60 new items cost more than max_cost = 2", [5], over_budget),
    Minute("max_cost = 100 again", [0], lambda night: night.budget(100.0)),
    Minute("an ordinary run: two new files, one of which sorts before what is done", [0], ordinary),
    Minute("somebody emptied the inbox", [2], lambda night: night.move_inbox("inbox", "away")),
    Minute("its files are back, and nothing is new", [0], lambda night: night.move_inbox("away", "inbox")),
)


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the crontab is emptied all the same
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["XDG_DATA_HOME"] = str(Path(temporary) / "data")
        folder = Path(temporary) / "夜班 100%"
        folder.mkdir(mode=0o700)
        with Cron() as cron, Provider(Path(temporary), LATENCY) as provider:
            night = Night(folder, cron, provider)
            print(night.lines.strip())
            if time.time() % 60 > STOCK_S:
                time.sleep(60 - STOCK_S)
            night.schedule()
            for number, minute in enumerate(MINUTES, 1):
                minute.before(night)
                before = night.mark()
                time.sleep(60.5 - time.time() % 60)
                print(f"\n{number}. {minute.title}", flush=True)
                minute.during(night)
                time.sleep(max(0.0, STOCK_S - time.time() % 60))
                night.take_stock(before, minute.codes)
            return night.end()


if __name__ == "__main__":
    sys.exit(main())
