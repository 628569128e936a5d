"""CPU time and peak memory of `batchrun export` on a finished run of many items, by format.

    python tests/bench/export.py [--items N] [FORMAT …]

Memory is the peak of the process less that of one that exports a run of one item. Needs the package installed beside
this Python; Parquet needs pyarrow too.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from finished import finish  # noqa: E402 - it lies in the folder above

WAYS = {
    "jsonl": ["--format", "jsonl"],
    "jsonl-all-join": ["--format", "jsonl", "--include", "all", "--join-input"],
    "csv": ["--format", "csv"],
    "csv-all-join": ["--format", "csv", "--include", "all", "--join-input"],
    "openai-batch": ["--format", "openai-batch"],
    "parquet": ["--format", "parquet"],
    "parquet-all-join": ["--format", "parquet", "--include", "all", "--join-input"],
}


def measure(job: Path, flags: list[str]) -> tuple[float, int, int]:
    """Export once; give the seconds of CPU, the peak memory in bytes and the size of what was written."""
    written, report = job.parent / "written", job.parent / "peak"
    start = _cpu_s()
    command = [sys.executable, str(HERE.parent / "peak.py"), str(report), "export"]
    command += [str(job), "-o", str(written), *flags]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return _cpu_s() - start, int(report.read_text()), written.stat().st_size


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ways", nargs="*", choices=[*WAYS, []], default=[])
    parser.add_argument("--items", type=int, default=1_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        large, small = Path(folder) / "large", Path(folder) / "small"
        large.mkdir()
        small.mkdir()
        finish(large, given.items)
        finish(small, 1)
        for way in given.ways or WAYS:
            seconds, peak, size = measure(large / "job.toml", WAYS[way])
            above = peak - measure(small / "job.toml", WAYS[way])[1]
            speed, more, much = given.items / seconds, above / 2**20, size / 2**20
            print(f"{way:17} {seconds:6.1f} s {speed:9,.0f} items/s {more:6.1f} MiB above idle {much:7.1f} MiB written")


if __name__ == "__main__":
    main()
