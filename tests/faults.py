"""Faults below Python: system calls of the command that fail or kill, files cut short, and what must hold after each.

`python tests/faults.py` tries every fault at every system call on the run directory's files and prints an account.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Self

from conftest import environment
from scripted import Act, Action, Call, Scripted, http, ok

ITEMS = 40
CONCURRENCY = 4
#: Items from this one on are in flight or not begun when a run is killed to be resumed.
HELD_FROM = 20
RECORDS = ("results.jsonl", "failures.jsonl")
TIMEOUT_S = 60.0

#: The system calls that can make, change or lose something, and those of them that name a file by its descriptor.
WRITING = ("write", "pwrite64", "writev", "pwritev", "pwritev2")
BY_DESCRIPTOR = (*WRITING, "fsync", "fdatasync", "ftruncate", "close")
BY_PATH = (
    "mkdir", "mkdirat", "open", "openat", "creat", "rename", "renameat", "renameat2", "link", "linkat", "unlink",
    "unlinkat", "truncate",
)  # fmt: skip
#: What the command may survive: nothing of an item depends on it.
FORGIVABLE = ("close", "unlink", "unlinkat")

KILL = "SIGKILL"
FULL = "ENOSPC from then on"
FAULTS = {KILL: "signal=SIGKILL", "ENOSPC": "error=ENOSPC", "EIO": "error=EIO", FULL: "error=ENOSPC"}
WORDS = {"ENOSPC": "No space left on device", "EIO": "Input/output error"}
#: The states of the run directory in which the command is started.
FRESH, KILLED = "fresh", "killed"
#: Stands for every file of the run directory.
ALL_FILES = "*"


def strace_problem() -> str | None:
    """Give the reason why no system call can be made to fail here, if there is one."""
    if shutil.which("strace") is None:
        return "strace is missing (Debian package strace): no system call can be made to fail"
    tried = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return f"strace may not trace here: {tried.stderr.decode().strip()[:200]}" if tried.returncode else None


@dataclass(frozen=True, order=True)
class Point:
    """A fault at the `number`-th call of a kind on a file, in a run that finds the run directory in a state.

    strace counts per thread and per system call: with one file at a time, that is nearly the file's own order.
    """

    state: str
    call: str
    name: str
    number: int
    fault: str

    def __str__(self) -> str:
        """Name the point as the account does."""
        return f"{self.fault} at {self.call} {self.number} on {self.name} ({self.state})"

    @property
    def injection(self) -> str:
        """Give what strace is to do."""
        onwards = "+" if self.fault == FULL else ""
        return f"inject={self.call}:{FAULTS.get(self.fault, f'error={self.fault}')}:when={self.number}{onwards}"


@dataclass(frozen=True)
class Ran:
    """How a command ended, which prompts it sent, and what strace wrote."""

    code: int
    err: str
    asked: list[str]
    log: str = ""

    @property
    def hurt(self) -> bool:
        """Tell whether the fault came to pass."""
        return "(INJECTED)" in self.log or "killed by SIGKILL" in self.log


@dataclass(frozen=True)
class Standing:
    """The records as they lie: the whole lines of each file, their ids, and what is wrong with them."""

    whole: dict[str, bytes]
    ids: list[str]
    torn: list[str]
    findings: list[str]


def standing(out: Path) -> Standing:
    """Read both files of records without any help from the package."""
    whole: dict[str, bytes] = {}
    ids: list[str] = []
    torn: list[str] = []
    findings: list[str] = []
    for name in RECORDS:
        data = (out / name).read_bytes() if (out / name).exists() else b""
        lines = io.BytesIO(data).readlines()
        size = 0
        for number, line in enumerate(lines, 1):
            found = _id_of(line)
            if found is None:
                torn.append(name)
                if number < len(lines):
                    findings.append(f"{name}:{number} of {len(lines)} is torn, and not the last line")
                break
            ids.append(found)
            size += len(line)
        whole[name] = data[:size]
    findings += [f"{one} has {count} records" for one, count in Counter(ids).items() if count > 1]
    with contextlib.suppress(FileNotFoundError):
        try:
            json.loads((out / "run.json").read_bytes())
        except ValueError as error:
            findings.append(f"run.json is replaced in one step, but: {error}")
    return Standing(whole, ids, torn, findings)


def _id_of(line: bytes) -> str | None:
    try:
        return json.loads(line)["id"] if line.endswith(b"\n") else None
    except (ValueError, KeyError, TypeError):
        return None


Launch = Callable[[Sequence[str]], tuple[int, str]]


def alone(arguments: Sequence[str], prefix: Sequence[str] = ()) -> tuple[int, str]:
    """Run the command in a process of its own; give its exit code and what it said on standard error."""
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", "batchrun", *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(),
        start_new_session=True,
    )  # fmt: skip
    try:
        _, err = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # what strace traced outlives strace
        _, err = process.communicate()
        return 124, f"did not end within {TIMEOUT_S:g} s\n{err.decode()}"
    return process.returncode, err.decode()


class Forks:
    """Runs the command in forks of one process that has imported it already, which is several times as fast."""

    _PROGRAM = """
import json, os, resource, sys
from batchrun import run
from batchrun.__main__ import main
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if not child:
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 0)
        os.dup2(nowhere, 1)
        os.dup2(os.open(order["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        if order["largest"] is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest"], order["largest"]))
        sys.argv[1:] = order["arguments"]
        try:
            main()
        except SystemExit as end:
            sys.stderr.flush()
            os._exit(end.code or 0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

    def __init__(self, folder: Path) -> None:
        self._err = folder / "stderr"
        #: No file of the command grows beyond this many bytes: the write that would is cut short by the kernel.
        self.largest: int | None = None
        self._process = subprocess.Popen(
            [sys.executable, "-c", self._PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment(),
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=10)

    def __call__(self, arguments: Sequence[str]) -> tuple[int, str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"arguments": list(arguments), "err": str(self._err), "largest": self.largest}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline()), self._err.read_text()


def audit(out: Path, launch: Launch = alone) -> list[str]:
    """Let the command audit a run directory. A run that died before its manifest stood has nothing to audit."""
    if not (out / "run.json").exists():
        return []
    code, err = launch(["verify", str(out)])
    return [] if code == 0 else [f"verify ends with {code}: {err.strip()[:500]}"]


class Bench:
    """One job, a server that answers it at once, and one run directory that is put into the state wanted."""

    def __init__(self, folder: Path, items: int = ITEMS, held_from: int = HELD_FROM) -> None:
        self.folder = folder.resolve()  # strace compares paths as they are written
        self.out = self.folder / "out"
        self.ids = [f"{'x' if number % 8 == 5 or number == 1 else 'a'}{number}" for number in range(items)]
        self._held_from = held_from
        self._held = items
        self._killed = self.folder / "killed"
        self._input = self.folder / "in.jsonl"
        self._input.write_text("".join(json.dumps({"id": one, "prompt": one}) + "\n" for one in self.ids))
        self._server = Scripted(self._answer)
        self._counts: dict[str, Counter[tuple[str, str]]] = {}
        self._names: set[str] = set()

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()

    def _answer(self, call: Call) -> Iterable[Action]:
        if int(call.prompt[1:]) >= self._held:
            return [Act.HANG]
        return [http(400, {"error": {"message": "no"}}) if call.prompt[0] == "x" else ok()]

    # --- runs ---

    @property
    def arguments(self) -> list[str]:
        """Give the command line of the job."""
        return [
            "run", "-q", "-i", str(self._input), "-o", str(self.out), "--base-url", self._server.base_url, "-m", "m-1",
            "--concurrency", str(CONCURRENCY),
        ]  # fmt: skip

    def run(self, launch: Launch = alone) -> Ran:
        """Run the job."""
        before = len(self._server.calls)
        code, err = launch(self.arguments)
        self._settle()
        return Ran(code, err, [call.prompt for call in self._server.calls[before:]])

    def traced(self, names: Iterable[str], *flags: str) -> Ran:
        """Run the job under strace, which sees and hurts only calls on these files of the run directory."""
        log = self.folder / "strace.log"
        # A path matches as the call spells it: in full, or relative to a descriptor of the folder.
        paths = [["-P", str(self.out / name), *(["-P", name] if name != "." else [])] for name in names]
        # Stopping only at the calls wanted is faster, but where seccomp stops them strace injects no signal.
        stops = [] if any(KILL in flag for flag in flags) else ["--seccomp-bpf"]
        strace = ["strace", "-f", *stops, "-y", "-o", str(log), *itertools.chain(*paths), *flags]
        ran = self.run(lambda arguments: alone(arguments, strace))
        return Ran(ran.code, ran.err, ran.asked, log.read_text())

    def _settle(self) -> None:
        """Wait until the server has read all that a process now dead has sent: connections are accepted in order."""
        with socket.create_connection(("127.0.0.1", self._server.port)) as last:
            last.shutdown(socket.SHUT_WR)
            last.recv(1)
        _until(lambda: not self._server._tasks, "the server has read everything")

    # --- states ---

    def prepare(self, state: str) -> Standing:
        """Put the run directory into a state, and tell how it lies."""
        shutil.rmtree(self.out, ignore_errors=True)
        if state == KILLED:
            if not self._killed.exists():
                self._kill_one()
                self.out.rename(self._killed)
            shutil.copytree(self._killed, self.out)
        return standing(self.out)

    def tear(self) -> Standing:
        """Leave the first bytes of records of items that were in flight, as a process leaves them that dies there."""
        for name, kind in zip(RECORDS, "ax", strict=True):
            in_flight = self.ids[self._held_from : self._held_from + CONCURRENCY]
            begun = next(one for one in in_flight if one[0] == kind)
            with (self.out / name).open("ab") as file:
                file.write(b'{"id":"%s","line":%d,"' % (begun.encode(), self.ids.index(begun) + 1))
        return standing(self.out)

    def _kill_one(self) -> None:
        """Run the job until all but the held items have their records and as many as may be are in flight; kill it."""
        before = len(self._server.calls)
        self._held = self._held_from
        sent = min(len(self.ids), self._held + CONCURRENCY)
        process = subprocess.Popen(
            [sys.executable, "-m", "batchrun", *self.arguments], stdin=subprocess.DEVNULL, env=environment()
        )
        try:
            _until(lambda: len(standing(self.out).ids) == self._held, "the records are written")
            _until(lambda: len(self._server.calls) - before == sent, "the last calls are in flight")
        finally:
            process.kill()
            process.wait()
            self._settle()
            self._held = len(self.ids)

    # --- what must hold ---

    def complete(self, before: Standing) -> list[str]:
        """Find what is wrong where everything should be done: each item in its file, once, after what stood before."""
        now = standing(self.out)
        findings = [*now.findings, *(f"{name} ends with a torn line" for name in now.torn)]
        if not (self.out / "run.json").exists():
            findings.append("run.json is missing")
        for name, kind in zip(RECORDS, "ax", strict=True):
            if not now.whole[name].startswith(before.whole[name]):
                findings.append(f"{name} does not begin with the whole lines that stood there")
            there = {json.loads(line)["id"] for line in now.whole[name].splitlines()}
            due = {one for one in self.ids if one[0] == kind}
            if there != due:
                findings.append(f"{name}: missing {sorted(due - there)}, not its own {sorted(there - due)}")
        return findings

    def again(self, before: Standing, launch: Launch = alone, spared: Iterable[str] = ()) -> tuple[Ran, list[str]]:
        """Run without a fault: what has no record is asked once, nothing else is; `spared` need not be asked."""
        ran = self.run(launch)
        findings = [] if ran.code == 3 else [f"the next run ends with {ran.code}, not 3: {ran.err.strip()[-500:]}"]
        asked = Counter(ran.asked)
        due = set(self.ids) - set(before.ids)
        if twice := sorted(one for one, count in asked.items() if count > 1):
            findings.append(f"the next run asks more than once: {twice}")
        if again := sorted(set(asked) & set(before.ids)):
            findings.append(f"the next run asks again what has its record: {again}")
        if skipped := sorted(due - set(asked) - set(spared)):
            findings.append(f"the next run does not ask: {skipped}")
        return ran, [*findings, *self.complete(before), *audit(self.out, launch)]

    def try_point(self, point: Point) -> tuple[bool, list[str]]:
        """Inject one fault, look, and run again; tell whether the fault came to pass, and what was wrong."""
        names = self.names(point.state)
        before = self._prepare_torn(point.state)
        manifest = self._manifest()
        first = self.traced(
            names if point.name == ALL_FILES else [point.name], "-e", f"trace={point.call}", "-e", point.injection
        )
        if not first.hurt:
            findings = [] if first.code == 3 else [f"nothing was injected, but exit {first.code}: {first.err[-500:]}"]
            return False, findings + self.complete(before)
        after = standing(self.out)
        findings = [*self._ending(point, first, manifest), *after.findings, *audit(self.out)]
        for name in RECORDS:
            if not after.whole[name].startswith(before.whole[name]):
                findings.append(f"the fault cost {name} whole lines")
        second, found = self.again(after)
        extra = len(first.asked) + len(second.asked) - len(self.ids) + len(before.ids)
        if extra > CONCURRENCY:
            findings.append(f"{extra} calls were made for nothing, more than the {CONCURRENCY} in flight")
        if strange := {path.name for path in self.out.iterdir()} - self._names:
            findings.append(f"left behind, and no name of an undisturbed run: {sorted(strange)}")
        return True, findings + found

    def _ending(self, point: Point, ran: Ran, manifest: bytes) -> list[str]:
        """Find what is wrong with how the command ended; `manifest` is as it was before."""
        if point.fault == KILL:
            return [] if ran.code == -signal.SIGKILL else [f"ends with {ran.code}, not killed"]
        made_before = point.call in ("mkdir", "mkdirat") and point.state == KILLED
        if "Traceback" in ran.err:
            frames = [line.strip() for line in ran.err.splitlines() if line.startswith("  File ")]
            return [f"a traceback is no message: {ran.err.splitlines()[-1]} at {frames[-1]}"]
        if ran.code == 3 and (point.call in FORGIVABLE or point.name == "lock" or made_before):
            return self.complete(standing(self.out))
        due = (1,) if ran.asked else (1, 2) if self._a_call_was_leaving(manifest) else (2,)
        findings = [] if ran.code in due else [f"ends with {ran.code}, not {due}, after {len(ran.asked)} requests"]
        named = self.out if point.name in (".", ALL_FILES) else self.out / point.name.removesuffix(".tmp")
        error = point.fault.split()[0]
        if str(named) not in ran.err:
            findings.append(f"the message does not name {named.name}: {ran.err.strip()[-300:]!r}")
        if WORDS.get(error, error) not in ran.err and f"errno {getattr(errno, error)}" not in ran.err:
            findings.append(f"the message does not name {error}: {ran.err.strip()[-300:]!r}")
        return findings

    def _a_call_was_leaving(self, manifest: bytes) -> bool:
        """Ask whether the run had begun, and noted a call that then did not get as far as the server."""
        if self._manifest() == manifest:
            return False
        command = [sys.executable, "-m", "batchrun", "status", str(self.out), "--json"]
        done = subprocess.run(command, env=environment(), capture_output=True, check=False, timeout=60)
        return done.returncode == 0 and json.loads(done.stdout)["counts"]["in_flight"] > 0

    def _manifest(self) -> bytes:
        path = self.out / "run.json"
        return path.read_bytes() if path.exists() else b""

    def _prepare_torn(self, state: str) -> Standing:
        before = self.prepare(state)
        return self.tear() if state == KILLED else before

    # --- what there is to hurt ---

    def counts(self, state: str) -> Counter[tuple[str, str]]:
        """Count the calls of an undisturbed run on each file of the run directory, by system call and name."""
        if state not in self._counts:
            before = self._prepare_torn(state)
            ran = self.traced((), "-e", "trace=" + ",".join(f"?{call}" for call in (*BY_DESCRIPTOR, *BY_PATH)))
            findings = self.complete(before)
            assert (ran.code, findings) == (3, []), f"an undisturbed run fails: {ran.code} {findings} {ran.err}"
            self._counts[state] = Counter(_calls(ran.log, self.out))
            self._names |= {name for _, name in self._counts[state]}
        return self._counts[state]

    def names(self, state: str) -> list[str]:
        """Give the names that a run uses in the run directory."""
        return sorted({name for _, name in self.counts(state)})

    def targets(self, state: str) -> list[tuple[Point, int]]:
        """Give the first point of every kind, with how many such calls an undisturbed run makes."""
        counts = self.counts(state)
        one_file = [
            (Point(state, call, name, 1, fault), count)
            for (call, name), count in sorted(counts.items())
            for fault in (KILL, "ENOSPC", "EIO")
        ]
        writes = {call: sum(counts[key] for key in counts if key[0] == call) for call in WRITING}
        return one_file + [(Point(state, call, ALL_FILES, 1, FULL), count) for call, count in writes.items() if count]


def _calls(log: str, out: Path) -> Iterator[tuple[str, str]]:
    """Find the calls on a folder and what is in it; strace shows where a descriptor leads."""
    by_descriptor = re.compile(rf"^\d+ +({'|'.join(BY_DESCRIPTOR)})\(\d+<([^>]*)>", re.MULTILINE)
    by_path = re.compile(rf'^\d+ +({"|".join(BY_PATH)})\((?:\w+<([^>]*)>, )?"([^"]*)"', re.MULTILINE)
    found = [(call, Path(path)) for call, path in by_descriptor.findall(log)]
    found += [(call, Path(folder) / path) for call, folder, path in by_path.findall(log)]
    for call, path in found:
        if path.is_relative_to(out):
            yield call, str(path.relative_to(out))


def spread(count: int, among: int, offset: int = 0) -> list[int]:
    """Choose indices evenly, and the same ones each time: the golden ratio leaves no part out for long."""
    return sorted({int((offset + number) * 0.6180339887 % 1 * among) for number in range(count)})


def sample(bench: Bench, size: int) -> list[Point]:
    """Choose a kill and an error for every system call that is made, and more for writes, at numbers evenly spread."""
    points: dict[tuple[bool, str], list[Point]] = {}
    for first, count in bench.targets(FRESH) + bench.targets(KILLED):
        found = points.setdefault((first.fault != KILL, first.call), [])
        found += [replace(first, number=number) for number in range(1, count + 1)]
    kinds = sorted(points)  # the kills first
    writes = [kind for kind in kinds if kind[1] in WRITING]
    order = itertools.islice(itertools.chain(kinds, itertools.cycle(writes)), size)
    return [points[kind][spread(1, len(points[kind]), number)[0]] for number, kind in enumerate(order)]


@dataclass
class Account:
    """What was tried, and what was found."""

    tried: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    def add(self, point: Point, findings: list[str]) -> None:
        """Add one point."""
        self.tried[point.call, point.fault] += 1
        self.findings += [f"{point}: {finding}" for finding in findings]

    def __str__(self) -> str:
        """Give a table of the points tried by system call and fault, and the findings."""
        lines = [f"{'points tried':14}" + "".join(f"{fault:>22}" for fault in FAULTS)]
        calls = sorted({call for call, _ in self.tried})
        lines += [f"{call:14}" + "".join(f"{self.tried[call, fault]:22}" for fault in FAULTS) for call in calls]
        return "\n".join(
            [*lines, f"{self.tried.total()} points, {len(self.findings)} findings", *sorted(self.findings)]
        )


def sweep(folder: Path, at_once: int = 1) -> Account:
    """Try every fault at every call: the first, the second, and so on until a run ends undisturbed."""
    account = Account()
    todo: SimpleQueue[Point] = SimpleQueue()

    def work(bench: Bench) -> None:
        while True:
            try:
                first = todo.get_nowait()
            except Empty:
                return
            for number in itertools.count(1):
                point = replace(first, number=number)
                hurt, findings = bench.try_point(point)
                if not hurt and number > 1 and not findings:
                    break
                account.add(point, findings if hurt else [*findings, "the fault did not come to pass"])
                if not hurt:
                    break

    with ExitStack() as stack:
        benches = []
        for number in range(at_once):
            (folder / str(number)).mkdir()
            benches.append(stack.enter_context(Bench(folder / str(number))))
        for bench in benches:
            targets = [point for state in (FRESH, KILLED) for point, _ in bench.targets(state)]
        for point in targets:
            todo.put(point)
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(work, benches))
    return account


def _until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.002)


def main() -> int:
    """Run the complete sweep and print its account."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-j", "--at-once", type=int, default=1, metavar="N", help="points tried at once (default 1)")
    at_once = parser.parse_args().at_once
    if problem := strace_problem():
        print(problem, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        account = sweep(Path(folder), at_once)
    print(account)
    return 1 if account.findings else 0


if __name__ == "__main__":
    sys.exit(main())
