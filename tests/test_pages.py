"""What outlives a process or is shared by several: real files, real processes, real SIGKILL."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Ended, environment, records, write_lines
from servers import until

from batchrun.pace import PACE_CELLS, Limits, Pacer
from batchrun.store import Pages, StoreError

JOB = """
input = "in.jsonl"
output = "out-%(name)s"
[endpoint]
base_url = "%(url)s"
model = "m-1"
[limits]
%(limits)s
"""


def job(folder: Path, name: str, url: str, limits: str, items: int = 300) -> Path:
    write_lines(folder / "in.jsonl", *({"prompt": f"第 {number} 条"} for number in range(items)))
    path = folder / f"{name}.toml"
    path.write_text(JOB % {"name": name, "url": url, "limits": limits})
    return path


def start(folder: Path, path: Path, *flags: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "batchrun", "run", str(path), "-q", *map(str, flags)]
    return subprocess.Popen(command, cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)


def times(ledger: Path) -> list[float]:
    return sorted(json.loads(line)["time"] for line in ledger.read_bytes().splitlines())


def most_in(moments: list[float], seconds: float) -> int:
    return max(sum(begin <= at < begin + seconds for at in moments) for begin in moments)


def test_killed_again_and_again_a_run_stays_inside_its_limit(tmp_path: Path, simulator: Callable[..., str]) -> None:
    ledger = tmp_path / "ledger.jsonl"
    path = job(tmp_path, "a", simulator("--ledger", ledger), "requests_per_minute = 30")
    for number in range(8):  # each start would send one at once, and one two seconds later
        before = len(times(ledger)) if ledger.exists() else 0
        process = start(tmp_path, path)
        if number % 2:
            until(lambda before=before: ledger.exists() and len(times(ledger)) > before)
        else:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1.0)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    sent = times(ledger)
    assert len(sent) >= 4
    assert min(later - earlier for earlier, later in pairwise(sent)) >= 1.9


def test_two_runs_of_one_scope_share_their_limit(tmp_path: Path, simulator: Callable[..., str]) -> None:
    ledger = tmp_path / "ledger.jsonl"
    url = simulator("--ledger", ledger)
    limits = 'requests_per_minute = 600\nscope = "account-1"'
    both = [start(tmp_path, job(tmp_path, name, url, limits), "--limit", 60) for name in "ab"]
    for process in both:
        assert process.wait(60) == 0, process.communicate()
        process.communicate()
    sent = times(ledger)
    assert len(sent) == 120
    assert most_in(sent, 5.0) <= 52
    assert sent[-1] - sent[0] <= 13.0


def test_two_runs_of_one_scope_share_their_slots_and_a_killed_one_gives_its_own_back(
    tmp_path: Path, simulator: Callable[..., str]
) -> None:
    url = simulator("--latency", "2s", "--max-concurrency", 4)
    limits = 'concurrency = 4\nscope = "account-1"'
    first = start(tmp_path, job(tmp_path, "a", url, limits), "--limit", 100)
    time.sleep(1.5)  # it holds all slots, and its calls are under way
    first.send_signal(signal.SIGKILL)
    first.communicate()
    second = start(tmp_path, job(tmp_path, "b", url, limits), "--limit", 4)
    third = start(tmp_path, job(tmp_path, "c", url, limits), "--limit", 4)
    for process in (second, third):
        assert process.wait(40) == 0, process.communicate()
        process.communicate()
    for name in "bc":
        summary = json.loads((tmp_path / f"out-{name}" / "run.json").read_bytes())["summary"]
        assert summary["requests"]["rate_limited_by_cause"] in ({}, {"concurrency": 4})


def test_a_scope_needs_a_usable_name(batchrun: Callable[..., Ended], tmp_path: Path) -> None:
    ended = batchrun("run", job(tmp_path, "a", "http://127.0.0.1:9/v1", 'scope = "../x"'))
    assert ended.code == 2
    assert "limits.scope: expected a name of letters, digits, dots, dashes and underscores" in ended.err


@pytest.mark.parametrize("content", [b"", b"x" * 100, os.urandom(60_000)], ids=["empty", "short", "noise"])
def test_a_file_that_is_none_of_ours_is_begun_anew(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pace"
    path.write_bytes(content)
    pages = Pages(path, PACE_CELLS, is_shared=True)
    assert not any(pages.cells)
    assert pages.paused_until == 0.0
    pages.close()


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"precious")
    (tmp_path / "pace").symlink_to(tmp_path / "other")
    with pytest.raises(StoreError, match="not a regular file"):
        Pages(tmp_path / "pace", PACE_CELLS, is_shared=False)
    assert (tmp_path / "other").read_bytes() == b"precious"


def test_what_was_let_go_before_is_known_to_the_next(tmp_path: Path) -> None:
    async def let_go(count: int) -> float:
        pages = Pages(tmp_path / "pace", PACE_CELLS, is_shared=False)
        pacer = Pacer(Limits(concurrency=4, requests_per_minute=60), shared=pages)
        began = asyncio.get_running_loop().time()
        for _ in range(count):
            pacer.release(await pacer.admit())
        pages.close()
        return asyncio.get_running_loop().time() - began

    assert asyncio.run(let_go(1)) < 0.5
    assert asyncio.run(let_go(1)) >= 0.9


def test_slots_are_counted_over_processes(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom batchrun.store import Pages\n"
        "pages = Pages(Path(sys.argv[1]), 8, is_shared=True)\n"
        "with pages.locked():\n    assert pages.take_slot(2)\nprint('taken', flush=True)\ntime.sleep(60)\n"
    )
    path = tmp_path / "scope"
    pages = Pages(path, 8, is_shared=True)
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environment()) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pages.locked():
            assert pages.take_slot(2)
            assert not pages.take_slot(2), "one is the other's"
        other.kill()
        other.wait()
    with pages.locked():
        assert pages.take_slot(2), "the kernel has taken it from the dead"
        assert not pages.take_slot(2)
    pages.free_slot()
    with pages.locked():
        assert pages.take_slot(2)
    pages.close()


def test_the_day_s_limit_ends_a_run_with_its_own_code(tmp_path: Path, simulator: Callable[..., str]) -> None:
    path = job(tmp_path, "a", simulator(), "requests_per_day = 5", items=9)
    codes: list[Any] = []
    for _ in range(2):
        process = start(tmp_path, path)
        _, said = process.communicate(timeout=30)
        codes.append(process.returncode)
        assert b"limits.requests_per_day = 5 is used up" in said
    assert codes == [5, 5]
    assert len(records(tmp_path / "out-a" / "results.jsonl")) == 5
