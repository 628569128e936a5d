"""batchrun against a bare aiohttp loop: throughput, streams, latency-bound efficiency, memory, resuming, start-up.

    python tests/bench/bench.py [throughput] [stream] [latency] [memory] [resume] [startup] [--items N] [--rounds N]

Server and client are separate processes; each figure is a ratio of two measurements of one run, taken in turn,
median of the rounds. Without names all are measured. Needs the package installed beside this Python.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
SYSTEM = "你是一名严谨的数据标注员。"
TEXT = "第{number}条评论：物流很快，包装完好，就是价格比上次贵了一点，总体满意，还会再来。"


@contextmanager
def stub(delay: float = 0.0, *, events: bool = False) -> Iterator[str]:
    """Run the stub endpoint in a process of its own; give its base URL."""
    command = [sys.executable, str(HERE / "stub.py"), "--delay", str(delay), *(["--events"] if events else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def write_inputs(folder: Path, items: int) -> tuple[Path, Path]:
    """Write an input file, and the bodies that the same items come to."""
    inputs, bodies = folder / f"in-{items}.jsonl", folder / f"bodies-{items}.jsonl"
    if not inputs.exists():
        with inputs.open("w", encoding="utf-8") as lines, bodies.open("w", encoding="utf-8") as ready:
            for number in range(items):
                text = TEXT.format(number=number) * 3
                lines.write(json.dumps({"id": f"r-{number}", "text": text}, ensure_ascii=False) + "\n")
                messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"请分析：{text}"}]
                ready.write(json.dumps({"model": "m", "messages": messages}, ensure_ascii=False) + "\n")
    return inputs, bodies


def run_batchrun(
    url: str, inputs: Path, output: Path, concurrency: int, *, again: bool = False, streamed: bool = False
) -> dict[str, float]:
    """Run the installed command; give its own wall time and the process's, its CPU time and its peak memory.

    `again` leaves what is in the run directory.
    """
    job = output.with_suffix(".toml")
    job.write_text(f"[endpoint]\nstream = {str(streamed).lower()}\n")
    if not again:
        shutil.rmtree(output, ignore_errors=True)
    report = output.with_suffix(".peak")
    command = [
        sys.executable, str(HERE.parent / "peak.py"), str(report), "run", str(job), "-i", str(inputs),
        "-o", str(output), "--base-url", url, "-m", "m",
        "--system", SYSTEM, "--prompt", "请分析：{{ text }}", "--concurrency", str(concurrency), "-q", "--json",
    ]  # fmt: skip
    # Profiles go where the output goes, not to the user's own.
    own = {**os.environ, "OPENAI_API_KEY": "sk-bench", "XDG_DATA_HOME": str(output.parent / "data")}
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=own)
    assert process.stdout is not None
    summary = json.loads(process.stdout.read())
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"batchrun ended with {os.waitstatus_to_exitcode(status)}: {summary['stopped']}")
    return {
        "items": summary["counts"]["results"],
        "wall_s": summary["timing"]["duration_s"],
        "process_s": time.perf_counter() - start,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mb": int(report.read_text()) / 1e6,
    }


def run_bare(url: str, bodies: Path, concurrency: int) -> dict[str, float]:
    """Run the yardstick in a process of its own."""
    command = [sys.executable, str(HERE / "bare.py"), url, str(bodies), str(concurrency)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


def throughput(folder: Path, items: int, rounds: int) -> None:
    """Requests a second with everything on, against the bare loop."""
    inputs, bodies = write_inputs(folder, items)
    for concurrency in (64, 500, 1000):
        ratios, cpu = [], []
        with stub() as url:
            for _ in range(rounds):
                bare = run_bare(url, bodies, concurrency)
                ours = run_batchrun(url, inputs, folder / "out", concurrency)
                ratios.append(bare["wall_s"] / ours["wall_s"])
                cpu.append((bare["cpu_s"], ours["cpu_s"]))
        show(f"throughput, concurrency {concurrency}", ratios, "of the bare loop")
        per = [statistics.median(one[side] for one in cpu) / items * 1e6 for side in (0, 1)]
        print(f"{'':34}CPU a request: bare {per[0]:.0f} µs, batchrun {per[1]:.0f} µs (its start included)")


def stream(folder: Path, items: int, rounds: int) -> None:
    """Streamed answers put together, against the bare loop reading the same bytes and parsing none of them."""
    inputs, bodies = write_inputs(folder, items)
    ratios = []
    with stub(events=True) as url:
        for _ in range(rounds):
            bare = run_bare(url, bodies, 64)
            ours = run_batchrun(url, inputs, folder / "out", 64, streamed=True)
            ratios.append(bare["wall_s"] / ours["wall_s"])
    show("streams of 54 events, at 64", ratios, "of the bare loop")
    print(f"{'':34}{items / ours['wall_s']:.0f} answers a second")


def latency(folder: Path, rounds: int) -> None:
    """How near a run that only waits comes to concurrency ÷ latency.

    The stub's own timer adds to its delay; the latency is what one request after the other sees.
    """
    for delay, concurrency, items in ((0.5, 1000, 120_000), (0.2, 1000, 240_000)):
        inputs, bodies = write_inputs(folder, items)
        few, _ = write_inputs(folder, 30)
        with stub(delay) as url:
            run_batchrun(url, few, folder / "out", 1)
            lines = (folder / "out" / "results.jsonl").read_bytes().splitlines()
            seen = statistics.median(json.loads(line)["duration_s"] for line in lines)
            ours, bare = [], []
            for _ in range(rounds):
                ours.append(run_batchrun(url, inputs, folder / "out", concurrency)["wall_s"])
                bare.append(run_bare(url, bodies, concurrency)["wall_s"])
        title = f"after {delay * 1000:.0f} ms, concurrency {concurrency}"
        for name, seconds in ((title, ours), ("  the bare loop", bare)):
            show(name, [items * seen / concurrency / one for one in seconds], f"of concurrency ÷ {seen * 1000:.0f} ms")
            show("", [items * delay / concurrency / one for one in seconds], f"of concurrency ÷ {delay * 1000:.0f} ms")


def memory(folder: Path) -> None:
    """Peak memory and CPU time an item of a long run against a short one."""
    peaks, cpu = {}, {}
    with stub() as url:
        for items in (10_000, 1_000_000):
            inputs, _ = write_inputs(folder, items)
            run = run_batchrun(url, inputs, folder / "out", 64)
            peaks[items], cpu[items] = run["peak_mb"], run["cpu_s"] / items * 1e6
            inputs.unlink()
    print(
        f"{'memory, 10,000 items':34}{peaks[10_000]:.0f} MB, {cpu[10_000]:.0f} µs of CPU an item (its start included)"
    )
    more = peaks[1_000_000] - peaks[10_000]
    print(f"{'memory, 1,000,000 items':34}{peaks[1_000_000]:.0f} MB ({more:+.0f} MB), {cpu[1_000_000]:.0f} µs an item")


PLAIN_PASS = """
import sys
with open(sys.argv[1], "rb") as lines:
    print(sum(1 for line in lines))
"""


def resume(folder: Path, rounds: int) -> None:
    """Skip a million finished items, against a plain pass over the lines of their results."""
    items, output = 1_000_000, folder / "out"
    inputs, _ = write_inputs(folder, items)
    with stub() as url:
        run_batchrun(url, inputs, output, 64)
        results = output / "results.jsonl"
        show_size = f"{results.stat().st_size / 1e9:.2f} GB of results"
        passes, again = [], []
        for _ in range(rounds):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", PLAIN_PASS, str(results)], check=True, stdout=subprocess.DEVNULL)
            passes.append(time.perf_counter() - start)
            again.append(run_batchrun(url, inputs, output, 64, again=True))
        (output / "journal").unlink()
        rebuilt = run_batchrun(url, inputs, output, 64, again=True)
    plain = statistics.median(passes)
    for name, runs in (("resume, 1,000,000 done", again), ("  without its journal", [rebuilt])):
        seconds = [one["process_s"] for one in runs]
        print(
            f"{name:34}{statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f}), "
            f"{statistics.median(seconds) / plain:.1f} plain passes over {show_size}, "
            f"{max(one['peak_mb'] for one in runs):.0f} MB"
        )


def startup(rounds: int) -> None:
    """CPU time of `batchrun --help`, against Python's own start."""
    times: dict[str, list[float]] = {"help": [], "python": []}
    for _ in range(max(5, rounds)):
        for name, arguments in (("help", ["-m", "batchrun", "--help"]), ("python", ["-c", "pass"])):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            times[name].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    help_s, python_s = statistics.median(times["help"]), statistics.median(times["python"])
    print(f"{'batchrun --help':34}{help_s * 1000:.0f} ms of CPU (Python alone: {python_s * 1000:.0f} ms)")


def show(name: str, ratios: list[float], unit: str) -> None:
    """Print a figure: the median, and how far the rounds lie apart."""
    print(f"{name:34}{statistics.median(ratios):.2f} {unit} ({min(ratios):.2f} to {max(ratios):.2f})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    names = options.names or ["throughput", "stream", "latency", "memory", "resume", "startup"]
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if "throughput" in names:
            throughput(folder, options.items, options.rounds)
        if "stream" in names:
            stream(folder, options.items // 5, options.rounds)
        if "latency" in names:
            latency(folder, min(2, options.rounds))
        if "memory" in names:
            memory(folder)
        if "resume" in names:
            resume(folder, options.rounds)
        if "startup" in names:
            startup(options.rounds)


if __name__ == "__main__":
    main()
