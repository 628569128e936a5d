"""batchrun and the bare loop beside the batch tools that people use today (see rivals.py), in one run.

    python tests/bench/compare.py --python PATH [--python PATH] [--items 5000] [--concurrency 64] [--rounds 3]
    python tests/bench/compare.py --python PATH [--python PATH] --rpm 600 [--minutes 2] [--say silent]

Every tool that one of the Pythons has is measured, by the first that has it; `--only NAME` measures that one alone, and
may be repeated. Needs the package installed beside this Python.

Without a quota: the stub answers at once; in each round the bare loop, batchrun and every tool run in turn. The table
gives medians. Wall and CPU time count from when everything is imported until the last answer is written (batchrun's
CPU time is that of its process, less what one item takes); what start and imports take is a column of its own.

With a quota: for each a stub of its own (limited.py) admits so many calls in any 60 s, and tells the others by
Retry-After when to come again, or whatever `--say` wants of it; each is told the quota if it can be told one, and has
twice the items that the quota admits. They run side by side and mostly wait. So many minutes after its first call a
tool is interrupted; the table gives what was completed until then as a share of what the quota grants, the refused
calls, the items that failed, those whose call was completed but whose answer was not written, and the calls that were
completed for an item again. A tool that has used its input up before that has given up the items that failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bench
import rivals

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
RIVALS = str(HERE / "rivals.py")
DELAY_S = 0.2
"""How long the limited stub takes to answer."""

Figures = dict[str, float]


def peers(pythons: list[str], only: list[str]) -> dict[str, str]:
    """The tools, each with the Python that runs it; prints their versions."""
    found: dict[str, str] = {}
    for python in pythons:
        listed = json.loads(subprocess.run([python, RIVALS, "installed"], check=True, stdout=subprocess.PIPE).stdout)
        for name, versions in listed.items():
            if name not in found and (not only or name in only):
                found[name] = python
                print(f"{name:16}", ", ".join(f"{package} {version}" for package, version in versions.items()))
    return found


def run_peer(name: str, python: str, url: str, bodies: Path, concurrency: int) -> Figures | None:
    """Run a tool in a process of its own; give what it reports, or None and show why if it breaks."""
    command = [python, RIVALS, name, url, str(bodies), str(concurrency)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        print(f"{name} broke: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def throughput(found: dict[str, str], items: int, concurrency: int, rounds: int, folder: Path) -> None:
    """Measure all in turn and print the table."""
    inputs, bodies = bench.write_inputs(folder, items)
    single, _ = bench.write_inputs(folder, 1)
    measured: dict[str, list[Figures]] = {name: [] for name in ("the bare loop", "batchrun", *found)}
    with bench.stub() as url:
        for _ in range(rounds):
            bare = bench.run_bare(url, bodies, concurrency)
            measured["the bare loop"].append({**bare, "ratio": 1.0})
            start = bench.run_batchrun(url, single, folder / "out", 1)["cpu_s"]
            ours = bench.run_batchrun(url, inputs, folder / "out", concurrency)
            ours |= {"cpu_s": ours["cpu_s"] - start, "start_cpu_s": start}
            measured["batchrun"].append({**ours, "ratio": bare["wall_s"] / ours["wall_s"]})
            for name, python in found.items():
                theirs = run_peer(name, python, url, bodies, concurrency)
                if theirs is not None:
                    measured[name].append({**theirs, "ratio": bare["wall_s"] / theirs["wall_s"]})
    print(
        f"\n{items} items, concurrency {concurrency}, {rounds} rounds; bare loop {median(measured, 'wall_s'):.2f} s\n"
    )
    head("", "of the bare loop", "requests a second", "CPU s per 1,000", "start, CPU s", "peak MB", "answers / items")
    for name, rounds_of in measured.items():
        if rounds_of:
            row(name, rounds_of, items)


def median(measured: dict[str, list[Figures]], figure: str) -> float:
    """The median of a figure of the bare loop."""
    return statistics.median(one[figure] for one in measured["the bare loop"])


def row(name: str, rounds: list[Figures], items: int) -> None:
    """Print a tool's line."""

    def middle(figure: str, form: str) -> str:
        values = [one[figure] for one in rounds if figure in one]
        return format(statistics.median(values), form) if values else ""

    ratios = [one["ratio"] for one in rounds]
    spread = f" ({min(ratios):.2f} to {max(ratios):.2f})" if name != "the bare loop" else ""
    second = statistics.median(items / one["wall_s"] for one in rounds)
    cpu = statistics.median(one["cpu_s"] for one in rounds) * 1000 / items
    least = int(min(one["items"] for one in rounds))
    cells = (middle("ratio", ".2f") + spread, f"{second:,.0f}", f"{cpu:.2f}", middle("start_cpu_s", ".1f"))
    line(name, *cells, middle("peak_mb", ".0f"), f"{least} / {items}")


def head(*cells: str) -> None:
    """Print the head of a table."""
    line(*cells)
    print("|---" * len(cells) + "|")


def line(*cells: str) -> None:
    """Print a line of a table."""
    print("| " + " | ".join(cells) + " |", flush=True)


@contextmanager
def limited(rpm: int, say: str) -> Iterator[str]:
    """Run the stub with a limit in a process of its own; give its base URL."""
    told = ["--rpm", str(rpm), "--window", "sliding", "--say", say, "--delay", str(DELAY_S)]
    command = [sys.executable, str(HERE / "limited.py"), *told]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def stats(url: str) -> dict[str, Any]:
    """What the stub counted."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/stats") as answer:
        counted: dict[str, Any] = json.load(answer)
    return counted


def start(
    name: str, python: str, url: str, folder: Path, items: int, told: argparse.Namespace
) -> subprocess.Popen[Any]:
    """Start batchrun or a tool with the quota told, if it can be."""
    inputs, bodies = bench.write_inputs(folder, items)
    quota = ["--rpm", str(told.rpm)]
    own = {**os.environ, "OPENAI_API_KEY": rivals.KEY, "XDG_DATA_HOME": str(folder / "data")}
    if name.startswith("batchrun"):
        command = [
            python, "-m", "batchrun", "run", "-i", str(inputs), "-o", str(folder / "out"), "--base-url", url,
            "-m", "m", "--system", bench.SYSTEM, "--prompt", "请分析：{{ text }}", "--concurrency",
            str(told.concurrency), "-q", "--json",
        ]  # fmt: skip
    else:
        command = [python, RIVALS, name, url, str(bodies), str(told.concurrency), "--output", str(folder / "out.jsonl")]
    if name == "batchrun" or name in rivals.QUOTA:
        command += quota
    with (folder / "log").open("w") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=own, start_new_session=True)


def stop(process: subprocess.Popen[Any]) -> None:
    """Interrupt a tool, and kill it if it does not end."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def results(folder: Path) -> dict[str, int]:
    """How many answers and failures batchrun wrote."""
    files = {"items": folder / "out" / "results.jsonl", "failed": folder / "out" / "failures.jsonl"}
    return {what: len(file.read_bytes().splitlines()) for what, file in files.items()}


def quota(name: str, python: str, folder: Path, told: argparse.Namespace, ready: threading.Event) -> list[str]:
    """Run one tool against a limit for the time; give its line. `ready` is set when its first call came."""
    granted = told.rpm * told.minutes
    with limited(told.rpm, told.say) as url:
        process = start(name, python, url, folder, granted * 2, told)
        try:
            while (began := stats(url)["first_call_at"]) is None and process.poll() is None:
                time.sleep(0.05)
            ready.set()
            time.sleep(max(0.0, (began or 0) + told.minutes * 60 - time.time()))
            found = stats(url)
            ended = process.poll() is not None
        finally:
            stop(process)
        last = stats(url)
    wrote = results(folder) if name.startswith("batchrun") else rivals.count(name, folder / "out.jsonl")
    share = f"{found['completed'] / granted:.1%}"
    lost = last["completed_bodies"] - rivals.OWN_CALLS.get(name, 0) - wrote["items"]
    again = last["completed"] - last["completed_bodies"]
    failed = f"{wrote['failed']}{', input used up' if ended else ''}"
    yes = "yes" if name == "batchrun" or name in rivals.QUOTA else "no"
    return [name, yes, share, str(sum(found["refused"].values())), failed, str(lost), str(again)]


def quotas(found: dict[str, str], told: argparse.Namespace, folder: Path) -> None:
    """Run all against a limit, one started when the one before has made its first call, and print the table."""
    rows: dict[str, list[str]] = {}
    threads = []
    runs = {"batchrun": sys.executable, "batchrun, not told": sys.executable, **found}
    for name, python in runs.items():
        own = folder / name.replace(", ", "-").replace(" ", "-")
        own.mkdir()
        ready = threading.Event()

        def run(name: str = name, python: str = python, own: Path = own, ready: threading.Event = ready) -> None:
            rows[name] = quota(name, python, own, told, ready)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        ready.wait(60)
    for thread in threads:
        thread.join()
    print(f"\n{told.rpm} calls in any 60 s (refusals: {told.say}), {told.minutes} minutes, at {told.concurrency}\n")
    head("", "quota told", "completed", "calls refused", "items failed", "answers lost", "completed again")
    for name in runs:
        if name in rows:
            line(*rows[name])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", action="append", default=[], metavar="PATH")
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rpm", type=int)
    parser.add_argument("--minutes", type=int, default=2)
    parser.add_argument("--say", default="retry-after")
    told = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}")
    found = peers(told.python, told.only)
    with tempfile.TemporaryDirectory() as temporary:
        if told.rpm:
            quotas(found, told, Path(temporary))
        else:
            throughput(found, told.items, told.concurrency, told.rounds, Path(temporary))


if __name__ == "__main__":
    main()
