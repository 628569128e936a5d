"""What a failing disk may cost: never a record, never a second call for one, and never a silence about it.

The faults are made below Python, in the system calls of the command as a process, and in the files as a crash leaves
them; so nothing here depends on how the package writes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from conftest import environment
from faults import (
    FRESH,
    KILLED,
    RECORDS,
    WRITING,
    Bench,
    Forks,
    Point,
    Standing,
    audit,
    sample,
    spread,
    standing,
    strace_problem,
    sweep,
)
from scripted import Call, Scripted, Wait, ok

from batchrun.store.journal import read_journal

FINISHED = "finished"
#: Points of the sample: a kill and an error for each of some nine system calls, and more writes.
SAMPLE = 20


@pytest.fixture(scope="module")
def strace() -> None:
    if problem := strace_problem():
        pytest.skip(problem)


@pytest.fixture(scope="module")
def bench(strace: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with Bench(tmp_path_factory.mktemp("bench")) as bench:
        yield bench


@pytest.fixture(scope="module")
def points(bench: Bench) -> list[Point]:
    return sample(bench, SAMPLE)


# --- system calls that fail or kill -----------------------------------------------------------------------------


@pytest.mark.parametrize("index", range(SAMPLE))
def test_a_fault_in_a_system_call_costs_no_record_and_no_call(index: int, bench: Bench, points: list[Point]) -> None:
    point = points[index]
    hurt, findings = bench.try_point(point)
    while not hurt and point.number > 1:  # not every run makes as many calls
        assert not findings, "; ".join(findings)
        point = replace(point, number=point.number - 1)
        hurt, findings = bench.try_point(point)
    assert hurt, f"{point} did not come to pass"
    assert not findings, f"{point}: " + "; ".join(findings)


def test_the_sample_has_every_kind_of_system_call_that_is_made(bench: Bench, points: list[Point]) -> None:
    made = {call for state in (FRESH, KILLED) for call, _ in bench.counts(state)}
    assert {point.call for point in points} == made
    assert made & set(WRITING)
    assert made & {"rename", "renameat", "renameat2"}
    assert made & {"fsync", "fdatasync"}


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_every_fault_at_every_system_call_costs_no_record_and_no_call(strace: None, tmp_path: Path) -> None:
    account = sweep(tmp_path)
    print(account)
    assert not account.findings, str(account)


@pytest.mark.parametrize("error", ["EDQUOT", "EROFS", "ESTALE"])
def test_an_error_of_a_write_is_named_and_ends_the_run(error: str, bench: Bench) -> None:
    call = next(call for call, name in bench.counts(FRESH) if name == "results.jsonl" and call in WRITING)
    hurt, findings = bench.try_point(Point(FRESH, call, "results.jsonl", 1, error))
    assert hurt
    assert not findings, "; ".join(findings)


# --- files cut short --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """A file that ends at a byte, or has only NULs from there on."""

    name: str
    at: int
    nuls: bool

    def make(self, folder: Path) -> None:
        data = (folder / self.name).read_bytes()
        (folder / self.name).write_bytes(data[: self.at] + (b"\0" * (len(data) - self.at) if self.nuls else b""))


def is_durable(folder: Path) -> bool:
    """Tell whether the journal says that results are on the disk."""
    journal = read_journal(folder / "journal")
    return journal is not None and journal.point.results.size > 0


def cuts(folder: Path) -> list[Cut]:
    """Give the cuts at every byte of the last three lines, or of the last 200 bytes of what is no text."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.name in ("run.json", "lock"):
            continue
        data = path.read_bytes()
        is_text = data.endswith(b"\n") and b"\0" not in data
        lines = data.splitlines(keepends=True)
        begin = sum(map(len, lines[:-3])) if is_text else max(0, len(data) - 200)
        if path.name == "results.jsonl" and len(lines) <= 3 and is_durable(folder):
            begin = len(lines[0])  # no crash takes all of what is on the disk
        found += [Cut(path.name, at, nuls) for at in range(begin, len(data)) for nuls in (False, True)]
    return found


def few_or_all(few: int) -> Any:
    every = pytest.param(None, id="every", marks=[pytest.mark.long, pytest.mark.timeout(3600)])
    return pytest.mark.parametrize("count", [pytest.param(few, id="sample"), every])


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Bench]:
    with Bench(tmp_path, items=6, held_from=4) as bench:
        yield bench


@pytest.fixture
def larger(tmp_path: Path) -> Iterator[Bench]:
    """A job whose results are larger than any other file of it."""
    with Bench(tmp_path, items=16) as bench:
        yield bench


@pytest.fixture
def forks(tmp_path: Path) -> Iterator[Forks]:
    with Forks(tmp_path) as forks:
        yield forks


def begin(bench: Bench, state: str) -> Standing:
    """Leave a run directory in a state, and tell how it lies."""
    if state == KILLED:
        return bench.prepare(KILLED)
    _, findings = bench.again(bench.prepare(FRESH))
    assert not findings, "; ".join(findings)
    return standing(bench.out)


@pytest.mark.parametrize("state", [FINISHED, KILLED])
@few_or_all(20)
def test_what_a_crash_cut_is_asked_once_more_and_nothing_else(
    count: int | None, state: str, small: Bench, forks: Forks, tmp_path: Path
) -> None:
    uncut = begin(small, state)
    assert not uncut.torn
    shutil.copytree(small.out, tmp_path / "uncut")
    possible = cuts(tmp_path / "uncut")
    assert {cut.name for cut in possible} >= set(RECORDS)
    for cut in possible if count is None else [possible[index] for index in spread(count, len(possible))]:
        shutil.rmtree(small.out)
        shutil.copytree(tmp_path / "uncut", small.out)
        cut.make(small.out)
        before = standing(small.out)
        # Where only the last line end is gone, the record is whole: it may be kept as well as asked for again.
        lost = set(uncut.ids) - set(before.ids)
        whole = cut.name in RECORDS and cut.at == len(uncut.whole[cut.name]) - 1 and not cut.nuls
        _, findings = small.again(before, forks, spared=lost if whole else ())
        assert not findings, f"{cut}: " + "; ".join(findings)


# --- writes cut short -------------------------------------------------------------------------------------------


@few_or_all(12)
def test_a_write_that_the_kernel_cuts_short_leaves_no_torn_line(count: int | None, larger: Bench, forks: Forks) -> None:
    results = begin(larger, FINISHED).whole["results.jsonl"]
    lines = results.splitlines(keepends=True)
    # Not in the last line: the next run's file may be some bytes shorter, for durations differ.
    sizes = range(len(b"".join(lines[:-3])) + 1, len(b"".join(lines[:-1])))
    for size in sizes if count is None else [sizes[index] for index in spread(count, len(sizes))]:
        larger.prepare(FRESH)
        forks.largest = size
        ran = larger.run(forks)
        forks.largest = None
        after = standing(larger.out)
        told = f"cut at {size} of {len(results)} bytes: {ran.err}"
        assert ran.code == 1, told
        assert "File too large" in ran.err, told
        assert "Traceback" not in ran.err, told
        assert (after.torn, after.findings, audit(larger.out, forks)) == ([], [], []), told
        _, findings = larger.again(after, forks)
        assert not findings, told + "; ".join(findings)


# --- a disk that goes away --------------------------------------------------------------------------------------

#: Runs the command in a folder that is unmounted under it, and again when it is back.
VANISHES = """
mkdir -p "$work/disk" "$work/place" && mount -t tmpfs tmpfs "$work/disk" && mount --bind "$work/disk" "$work/place" ||
    exit 77
"$@" & run=$!
until [ -s "$work/place/out/results.jsonl" ]; do kill -0 $run || exit 78; sleep 0.01; done
umount -l "$work/place" && touch "$work/broken" || exit 79
wait $run; echo $? > "$work/first-code"; cp -r "$work/disk/out" "$work/first"
mount --bind "$work/disk" "$work/place" || exit 79
"$@"; echo $? > "$work/second-code"; cp -r "$work/place/out" "$work/second"
"""

#: Runs the command on a file system that finds an error of its own and lets nobody write any more, and again when it
#: is repaired. What had not reached the disk by then is lost, as after a power failure.
TURNS_READ_ONLY = """
PATH="$PATH:/usr/sbin:/sbin"
mkdir -p "$work/place" && truncate -s 16M "$work/image" && mkfs.ext4 -q "$work/image" &&
    mount -o loop,errors=remount-ro "$work/image" "$work/place" || exit 77
device=$(findmnt -n -o SOURCE "$work/place"); fault="/sys/fs/ext4/${device##*/}/trigger_fs_error"
[ -w "$fault" ] || exit 77
"$@" & run=$!
# A row of the index, beside its head, stands for a record that is on the disk.
until [ "$(cat "$work/place/out/index" 2>/dev/null | wc -l)" -gt 1 ]; do kill -0 $run || exit 78; sleep 0.01; done
echo 1 > "$fault" && touch "$work/broken" || exit 79
wait $run; echo $? > "$work/first-code"
umount "$work/place" && { e2fsck -fy "$work/image" > "$work/repair" 2>&1; [ $? -le 1 ]; } &&
    mount -o loop "$work/image" "$work/place" && cp -r "$work/place/out" "$work/first" || exit 79
"$@"; echo $? > "$work/second-code"; cp -r "$work/place/out" "$work/second"
"""


@pytest.mark.parametrize("script", [VANISHES, TURNS_READ_ONLY], ids=["vanishes", "turns read-only"])
def test_a_disk_that_goes_away_ends_the_run_and_the_next_one_goes_on(script: str, tmp_path: Path) -> None:
    if not shutil.which("unshare"):
        pytest.skip("unshare is missing: no file system of the test's own")
    ids = [f"a{number}" for number in range(400)]
    (tmp_path / "in.jsonl").write_text("".join(f'{{"id":"{one}","prompt":"{one}"}}\n' for one in ids))

    def answer(call: Call) -> list[Any]:
        # The disk goes away while the run is at it: until then, answers take their time.
        if not (tmp_path / "broken").exists():
            return [Wait(0.005 if call.number < 100 else 0.2), ok()]
        return [Wait(0.005), ok()]

    with Scripted(answer) as server:
        command = [
            sys.executable, "-m", "batchrun", "run", "-q", "-i", tmp_path / "in.jsonl",
            "-o", tmp_path / "place" / "out", "--base-url", server.base_url, "-m", "m-1", "--concurrency", "4",
        ]  # fmt: skip
        ended = subprocess.run(
            ["unshare", "-m", "sh", "-c", script, "sh", *command],
            capture_output=True, env=environment(work=str(tmp_path)), check=False, timeout=60,
        )  # fmt: skip
        told = ended.stderr.decode()
        if ended.returncode == 77 or "unshare failed" in told:
            pytest.skip(f"no file system could be mounted: {told.strip()[:200]}")
        assert ended.returncode == 0, told
        first, second = standing(tmp_path / "first"), standing(tmp_path / "second")
        calls = [call.prompt for call in server.calls]
    assert [(tmp_path / f"{run}-code").read_text() for run in ("first", "second")] == ["1\n", "0\n"], told
    assert str(tmp_path / "place" / "out") in told
    assert "Traceback" not in told
    assert first.ids
    assert not first.findings
    assert not [*audit(tmp_path / "first"), *audit(tmp_path / "second")]
    assert (second.findings, second.torn, sorted(second.ids)) == ([], [], sorted(ids))
    assert second.whole["results.jsonl"].startswith(first.whole["results.jsonl"])
    assert not [one for one in first.ids if calls.count(one) > 1], "what was written is not asked again"
    assert len(calls) - len(ids) <= 50, "the run ends soon after the disk"
