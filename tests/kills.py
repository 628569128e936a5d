"""Kill the command at random moments, start it again, and take stock from the outside.

    python tests/kills.py --kills 1000 --seed 1 [--items N] [--concurrency N]

The auditor reads the input, the record files and the provider's ledger, and shares no code with batchrun, so that it
cannot be wrong in the same place. The account ends with exit code 1 if anything was lost, doubled or torn.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import urlsplit

from conftest import environment, write_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

COMMAND = [sys.executable, "-m", "batchrun"]
ITEMS = 40
CONCURRENCY = 4
LATENCY = "20ms"
#: Retries, failures that cost nothing and failures that were paid for. With these every answer of status 200 ends its
#: item, so that an item which was paid for twice was asked twice.
FAULTS = {"http_503": 0.08, "content_filter_400": 0.05, "bad_request": 0.05, "length": 0.05}
#: The share of kills at any moment of a process's life; the others are made while it sends.
ANYWHERE = 0.3
#: After so many starts a job may end by itself, however unlucky the moments were.
MAX_STARTS = 40
GRACE_S = 60.0


def until(condition: Callable[[], Any], within_s: float = 20.0, every_s: float = 0.005) -> Any:
    """Poll until a condition holds; give what it gave."""
    end = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < end, "it did not come to pass in time"
        time.sleep(every_s)
    return value


# --- the provider -----------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """A call that the provider answered: whose, with what status, and when."""

    id: str
    status: int
    time: float


class Provider:
    """A simulated provider in a process of its own, which keeps a ledger of the calls that it answered."""

    def __init__(self, folder: Path, latency: str = LATENCY, faults: Mapping[str, float] | None = None) -> None:
        self.folder = folder
        self.ledger = folder / "ledger.jsonl"
        self.clients: list[subprocess.Popen[bytes]] = []
        flags = [word for name, rate in (faults or {}).items() for word in ("--fault", f"{name}={rate}")]
        self._process = subprocess.Popen(
            [*COMMAND, "simulate", "--port", "0", "--latency", latency, "--ledger", str(self.ledger), *flags],
            stdout=subprocess.PIPE, env=environment(), text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        self.url = next((word for word in line.split() if word.startswith("http://")), "")
        assert self.url, f"the simulated provider did not start: {line!r}"
        self._owners: dict[str, str] = {}
        self._read = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in (*self.clients, self._process):
            if process.poll() is None:
                process.kill()
            process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def expect(self, item_id: str, prompt: str) -> None:
        """Learn whose call a prompt is: the ledger's key is a hash of the messages."""
        messages = json.dumps([{"content": prompt, "role": "user"}], ensure_ascii=False, separators=(",", ":"))
        self._owners[blake2b(messages.encode(), digest_size=16).hexdigest()] = item_id

    def answers(self) -> list[Answer]:
        """Give the calls answered since this was asked last. A call that no item can have made is a `KeyError`."""
        with self.ledger.open("rb") as ledger:
            ledger.seek(self._read)
            lines = ledger.readlines()
        self._read += sum(map(len, lines))
        entries = map(json.loads, lines)
        return [Answer(self._owners[entry["key"]], entry["status"], entry["time"]) for entry in entries]

    def answered_something(self) -> bool:
        """Tell whether there are answers that nobody has looked at yet."""
        return self.ledger.stat().st_size > self._read

    def stats(self) -> dict[str, Any]:
        """Give the provider's own counts: calls received, in flight, answered, by fault."""
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=10)
        try:
            connection.request("GET", "/simulator/stats")
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def settle(self) -> dict[str, Any]:
        """Wait until no call is in flight, so that the ledger is complete; give the counts."""
        return until(lambda: stats if not (stats := self.stats())["in_flight"] else None)


# --- the auditor ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Audit:
    """What an input and the two record files say about each item, at one moment."""

    results: list[bytes]  # whole lines
    failures: list[bytes]
    missing: list[str]  # in neither file: pending, or lost if the run says that it is done
    doubled: list[str]  # twice in one file
    both: list[str]  # in both files
    damaged: list[str]  # lines that are no record of this job, though another line or a line end follows
    torn: list[str]  # files whose last line is not whole
    finished: frozenset[str]
    paid: int  # records that an answer of status 200 led to

    @property
    def wrong(self) -> list[str]:
        """Say what must not be at any moment."""
        return [
            *(f"{name}: twice in one file" for name in self.doubled),
            *(f"{name}: in both files" for name in self.both),
            *self.damaged,
        ]

    def vanished(self, before: Audit) -> list[str]:
        """Say what stood whole in the files before and does not now; results also keep their place."""
        kept = set(self.failures)
        gone = [f"failures.jsonl: {line[:40]!r} is gone" for line in before.failures if line not in kept]
        if self.results[: len(before.results)] != before.results:
            gone.append("results.jsonl no longer begins with the results that it held")
        return gone


def audit(source: Path, rundir: Path) -> Audit:
    """Take stock of a run directory from the input and the record files alone."""
    ids = [json.loads(line)["id"] for line in source.read_bytes().split(b"\n") if line]
    damaged: list[str] = []
    torn: list[str] = []
    lines: dict[str, list[bytes]] = {}
    found: dict[str, Counter[str]] = {}
    paid = 0
    for name in ("results.jsonl", "failures.jsonl"):
        path = rundir / name
        *whole, tail = (path.read_bytes() if path.exists() else b"").split(b"\n")
        lines[name], found[name] = whole, Counter()
        if tail:
            torn.append(name)
        for number, line in enumerate(whole, 1):
            record = _record(line)
            if record is None or record["id"] not in ids:
                damaged.append(f"{name}:{number}: no record of this job")
                continue
            found[name][record["id"]] += 1
            status = record["error"]["http_status"] if "error" in record else record["provider"]["status"]
            paid += status == 200
    results, failures = found.values()
    return Audit(
        *lines.values(),
        missing=[name for name in ids if name not in results and name not in failures],
        doubled=[name for name in ids if max(results[name], failures[name]) > 1],
        both=[name for name in ids if results[name] and failures[name]],
        damaged=damaged, torn=torn, finished=frozenset(results) | frozenset(failures), paid=paid,
    )  # fmt: skip


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("id"), str) else None


def contents(rundir: Path) -> dict[str, bytes]:
    """Give every file of a run directory, byte for byte."""
    return {str(path.relative_to(rundir)): path.read_bytes() for path in rundir.rglob("*") if path.is_file()}


def verified(rundir: Path) -> bool:
    """Ask the command itself whether the files of a run directory account for every item."""
    if not rundir.exists():
        return True  # killed before anything was made
    ended = subprocess.run(
        [*COMMAND, "verify", str(rundir)], cwd=rundir.parent, env=environment(), stdin=subprocess.DEVNULL,
        capture_output=True, timeout=GRACE_S, check=False,
    )  # fmt: skip
    assert ended.returncode in (0, 3), ended.stderr.decode()
    return ended.returncode == 0


# --- a job ------------------------------------------------------------------------------------------------------


class Job:
    """Items of their own for a provider, a run directory, and the command that runs them."""

    def __init__(self, provider: Provider, name: str, items: int = ITEMS, concurrency: int = CONCURRENCY) -> None:
        self.provider = provider
        self.name = name
        self.items = items
        self.folder = provider.folder / name
        self.folder.mkdir()
        self.source = self.folder / "input.jsonl"
        self.rundir = self.folder / "out"
        self.log = self.folder / "log"
        prompts = {f"r-{number}": f"{name}, item {number}" for number in range(items)}
        write_lines(self.source, *({"id": item_id, "prompt": prompt} for item_id, prompt in prompts.items()))
        for item_id, prompt in prompts.items():
            provider.expect(item_id, prompt)
        (self.folder / "job.toml").write_text(
            f'input = "input.jsonl"\noutput = "out"\n'
            f'[endpoint]\nbase_url = "{provider.url}"\nmodel = "m"\n'
            f"[limits]\nconcurrency = {concurrency}\n"
            f'[retry]\nwait_initial = "20ms"\nwait_max = "50ms"\n'
        )

    def start(self) -> subprocess.Popen[bytes]:
        """Start the command and go on; what still runs when the provider ends is killed."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [*COMMAND, "run", "job.toml", "-q"], cwd=self.folder, env=environment(),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self.provider.clients = [client for client in self.provider.clients if client.poll() is None] + [process]
        return process

    def run(self) -> int:
        """Run the command to its end; give its exit code."""
        return self.start().wait(GRACE_S)

    def audit(self) -> Audit:
        """Take stock."""
        return audit(self.source, self.rundir)


# --- the account ------------------------------------------------------------------------------------------------


@dataclass
class Account:
    """What many kills came to. Whatever stands in `lost`, `doubled`, `torn` or `wrong` must not have happened."""

    concurrency: int
    jobs: int = 0
    starts: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    wasted: list[int] = field(default_factory=list)  # answered and paid for, but not on disk: one number for each kill
    wasted_sending: list[int] = field(default_factory=list)  # of the kills that came between first call and last record
    kills_before_a_call: int = 0
    kills_after_all: int = 0
    torn_tails: int = 0  # last lines torn by a kill; the next run cuts them off
    failing: int = 0  # killed starts that had written failures
    cut_off: int = 0  # calls that a kill cut off before the provider had answered

    @property
    def kills(self) -> int:
        """Count the kills."""
        return len(self.wasted)

    @property
    def is_exact(self) -> bool:
        """Tell whether nothing happened that must not."""
        return not (self.lost or self.doubled or self.torn or self.wrong)

    @property
    def average(self) -> float:
        """Give the calls wasted by a kill, on average over all of them."""
        return statistics.fmean(self.wasted or [0])

    @property
    def worst(self) -> int:
        """Give the calls wasted by the worst kill."""
        return max(self.wasted, default=0)

    def observe(self, job: Job, before: Audit, calls_before: int, exit_code: int) -> Audit:
        """Enter what one start of a job did, after its end; give how the files stand now."""
        calls = job.provider.settle()["calls"] - calls_before
        answers = job.provider.answers()
        after = job.audit()
        self.starts += 1
        where = f"{job.name}, start {self.starts}"
        paid = sum(answer.status == 200 for answer in answers) - (after.paid - before.paid)
        again = sorted({answer.id for answer in answers} & before.finished)
        self.lost += [f"{where}: {what}" for what in after.vanished(before)]
        self.doubled += [f"{where}: {what}" for what in after.doubled + after.both]
        self.torn += [f"{where}: {what}" for what in after.damaged]
        self.wrong += [f"{where}: {item_id} was finished and was sent again" for item_id in again]
        if paid < 0:
            self.wrong.append(f"{where}: {-paid} records without an answer of the provider")
        if not verified(job.rundir):
            self.wrong.append(f"{where}: batchrun verify found something wrong")
        if exit_code == -9:
            self._killed(before, after, calls, paid)
            self.cut_off += calls - len(answers)
        else:
            self._ended(job, where, after, paid, exit_code)
        return after

    def _killed(self, before: Audit, after: Audit, calls: int, paid: int) -> None:
        self.wasted.append(paid)
        self.torn_tails += len(after.torn)
        self.failing += len(after.failures) > len(before.failures)
        if not calls:
            self.kills_before_a_call += 1
        elif after.missing:
            self.wasted_sending.append(paid)
        else:
            self.kills_after_all += 1

    def _ended(self, job: Job, where: str, after: Audit, paid: int, exit_code: int) -> None:
        self.torn += [f"{where}: the last line of {name}" for name in after.torn]
        self.lost += [f"{where}: {item_id}" for item_id in after.missing]
        if exit_code != (3 if after.failures else 0):
            last = job.log.read_text()[-500:]
            self.wrong.append(f"{where}: exit code {exit_code}, {len(after.failures)} failures: {last}")
        if paid:
            self.wrong.append(f"{where}: {paid} calls wasted though nothing was killed")

    def rerun(self, job: Job, after: Audit) -> None:
        """Run a finished job once more, which must not make a call or change a byte."""
        calls, files = job.provider.stats()["calls"], contents(job.rundir)
        exit_code = job.run()
        if job.provider.stats()["calls"] != calls:
            self.wrong.append(f"{job.name}: a call was made though all was finished")
        if contents(job.rundir) != files:
            self.wrong.append(f"{job.name}: a run with nothing to do changed a file")
        if exit_code != (3 if after.failures else 0):
            self.wrong.append(f"{job.name}: exit code {exit_code} of a run with nothing to do")
        job.provider.answers()  # none of the next job's

    def __str__(self) -> str:
        sending = statistics.fmean(self.wasted_sending or [0])
        histogram = ", ".join(f"{count} x {waste}" for waste, count in sorted(Counter(self.wasted).items()))
        account = f"""\
kills         {self.kills} in {self.starts} starts of {self.jobs} jobs
moments       {self.kills_before_a_call} before the first call, {len(self.wasted_sending)} while sending, \
{self.kills_after_all} after the last record
lost          {len(self.lost)}
doubled       {len(self.doubled)}
torn          {len(self.torn)} (and {self.torn_tails} last lines torn by a kill and cut off by the next run)
other faults  {len(self.wrong)}
wasted calls  {sum(self.wasted)}: {self.average:.3f} for each kill, {sending:.3f} for each kill while sending
worst kill    {self.worst} at concurrency {self.concurrency}; kills x calls wasted: {histogram}
cut off       {self.cut_off} calls that the provider had not answered yet"""
        return "\n".join([account, *self.lost[:10], *self.doubled[:10], *self.torn[:10], *self.wrong[:10]])


# --- the kills --------------------------------------------------------------------------------------------------


class Life(NamedTuple):
    """How long an undisturbed process takes: in all, from the first answer to the last, and from there to its end."""

    whole_s: float
    sending_s: float
    ending_s: float


def measure(provider: Provider, items: int, concurrency: int) -> Life:
    """Take the life of an undisturbed process: the median of three."""
    lives = []
    for number in range(3):
        job = Job(provider, f"undisturbed-{number}", items, concurrency)
        began = time.time()
        code = job.run()
        ended = time.time()
        assert code in (0, 3), job.log.read_text()
        times = [answer.time for answer in provider.answers()]
        lives.append(Life(ended - began, times[-1] - times[0], ended - times[-1]))
    return Life(*map(statistics.median, zip(*lives, strict=True)))


def kill(process: subprocess.Popen[bytes], chance: random.Random, life: Life, provider: Provider, left: float) -> int:
    """Kill a process at a random moment; give its exit code, which is its own if it ended before.

    Some moments are drawn from the whole of an undisturbed life: the interpreter's start, reading what is there,
    sending, the end. The others from the time that matters most: from the first answer in the ledger to the end, as far
    off as the share of items that is left lets expect.
    """
    if chance.random() < ANYWHERE:
        after_s = chance.uniform(0, life.whole_s)
    else:
        after_s = chance.uniform(0, life.sending_s * left + life.ending_s)
        until(lambda: provider.answered_something() or process.poll() is not None, GRACE_S, 0.001)
    try:
        return process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait(GRACE_S)


def kill_and_resume(
    folder: Path, kills: int, seed: int, *, items: int = ITEMS, concurrency: int = CONCURRENCY,
    faults: Mapping[str, float] = FAULTS,
) -> Account:  # fmt: skip
    """Run one job after another, each killed and started again until it ends by itself, until there were enough kills.

    The folder keeps the jobs with which something went wrong.
    """
    chance = random.Random(seed)
    account = Account(concurrency)
    with Provider(folder, LATENCY, faults) as provider:
        life = measure(provider, items, concurrency)
        while account.kills < kills:
            job = Job(provider, f"job-{account.jobs}", items, concurrency)
            _to_its_end(job, account, kills, chance, life)
            account.jobs += 1
            if account.is_exact:
                shutil.rmtree(job.folder)
    return account


def _to_its_end(job: Job, account: Account, kills: int, chance: random.Random, life: Life) -> None:
    stand = job.audit()
    for number in range(MAX_STARTS + 1):
        calls = job.provider.stats()["calls"]
        process = job.start()
        if number < MAX_STARTS and account.kills < kills:
            exit_code = kill(process, chance, life, job.provider, len(stand.missing) / job.items)
        else:
            exit_code = process.wait(GRACE_S)
        stand = account.observe(job, stand, calls, exit_code)
        if exit_code != -9:
            break
    account.rerun(job, stand)


def main() -> int:
    """Kill as often as asked, print the account, and give the exit code."""
    parser = argparse.ArgumentParser(description="Kill batchrun at random moments and take stock.")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--concurrency", type=int, default=CONCURRENCY)
    flags = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    account = kill_and_resume(folder, flags.kills, flags.seed, items=flags.items, concurrency=flags.concurrency)
    print(account)
    if account.is_exact:
        shutil.rmtree(folder)
        return 0
    print(f"the jobs with which something went wrong are in {folder}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
