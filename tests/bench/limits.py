"""batchrun against an endpoint with limits and outages (`limited.py`), which counts what it really got.

    python tests/bench/limits.py told [--minutes N] [--only PATTERN …] [--at-once N]
    python tests/bench/limits.py found [--minutes N] [--only PATTERN …] [--at-once N]
    python tests/bench/limits.py outage [--seconds N] [--only PATTERN …]
    python tests/bench/limits.py restarts [--rpm N] [--kills N] [--after SECONDS SECONDS]

`told`: limits that batchrun is told; cases are LIMIT/WINDOW. `found`: the same limits and nothing told; cases are
LIMIT/WINDOW/HOW (how a refusal speaks). LIMIT is `requests` (600 a minute), `tokens` (60,000), `concurrency` (20) or
`all` three, of which tokens bind: the items are Chinese texts of 20 to 600 characters, about 350 tokens a call with the
answer. A pattern may have `*`.

What no client can exceed: in whole minutes from the first request a limit of N a minute admits N times the minutes, and
a bucket N more, for it is full at first; a concurrency of C admits C times the minutes ÷ the time for which the
endpoint itself held a call (a little more than its delay). A run is judged by the
minutes asked for, whether it lasted so long or not; there are more items than it can get through, and its own deadline
ends it (exit 5) 5 s later. `used` is what was admitted in these minutes in % of that, less the share of calls that did
not lead to the first answer of an item; of several limits the one that is used most counts. An even stream gets 100 %
of a sliding window, but only 67 % of what a bucket gives in two minutes; `rate` is therefore the same in % without the
reserve, and with a bucket can be more than 100 %. Where tokens are counted by the second no client reaches 100 %, as
calls of several hundred tokens do not fill 1,000.

`outage`: a job of 6,000 items at concurrency 50, the outage 10 s after the first request. `back` is from the end of the
outage to the first second with 90 % of the completions a second before (from the third second on), which the two
seconds after it have on the average too. `restarts`: 120 requests a minute are told, the command is killed 20 times
after 1 to 4 s and then runs for a minute; how many requests came in the largest minute. A command that starts with one
request and goes on evenly is seen to forget what came before it only where that one is much: try `--rpm 30`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.request import urlopen

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
DELAY_S = 0.2
#: By so much of it an answer comes earlier or later: where all come at the same moment, what the client does with the
#: first ones makes the last ones late.
VARIES = 0.1
LIMITS = {
    "requests": {"rpm": 600},
    "tokens": {"tpm": 60_000},
    "concurrency": {"concurrency": 20},
    "all": {"rpm": 600, "tpm": 60_000, "concurrency": 20},
}
#: More items than a minute has by any limit: no call has fewer than 100 tokens.
ITEMS_A_MINUTE = {"requests": 600, "tokens": 600, "concurrency": 6_000, "all": 600}
OUTAGES = ["refused", "reset", "503", "429", "hang"]
OUTAGE_AT_S = 10
#: What a command may take beyond the time at which it should be through.
GRACE_S = 60.0
SENTENCES = (
    "物流很快，包装完好，就是价格比上次贵了一点，总体满意，还会再来。",
    "客服回复得很慢，问了三次才说清楚退货的流程，体验不太好。",
    "屏幕清晰，续航比宣传的短一些，不过在这个价位已经很难得了。",
    "孩子非常喜欢，颜色和图片一致，没有异味，做工也算细致。",
    "说明书写得太简单，安装花了整整一个下午，少了两颗螺丝。",
)


class Ended(NamedTuple):
    """How the command ended: its exit code, None if it had to be killed, and its summary, empty without one."""

    code: int | None
    summary: dict[str, Any]


# --- processes ---

children: set[subprocess.Popen[Any]] = set()
closing = threading.Event()


@contextmanager
def running(command: list[str], **more: Any) -> Iterator[subprocess.Popen[Any]]:
    """Run a command; whatever happens, it does not outlive this."""
    process = subprocess.Popen(command, start_new_session=True, **more)
    children.add(process)
    try:
        if closing.is_set():
            raise KeyboardInterrupt
        yield process
    finally:
        kill(process)
        children.discard(process)


def kill(process: subprocess.Popen[Any]) -> None:
    """End a command and what it started."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def limited(*flags: object) -> Iterator[str]:
    """Run the endpoint in a process of its own; give its base URL."""
    command = [
        sys.executable,
        str(HERE / "limited.py"),
        "--delay",
        str(DELAY_S),
        "--varies",
        str(VARIES),
        *map(str, flags),
    ]
    with running(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        with process.stdout:
            url = process.stdout.readline().strip()
            assert url, "the endpoint did not start"
            yield url


def stats_of(url: str) -> dict[str, Any]:
    """Ask the endpoint what it counted."""
    with urlopen(url.removesuffix("/v1") + "/stats", timeout=30) as answer:
        counted: dict[str, Any] = json.load(answer)
    assert counted["calls"] == counted["accepted"] + sum(counted["refused"].values())
    assert counted["accepted"] == counted["completed"] + counted["cut"] + counted["in_flight"]
    return counted


def write_job(folder: Path, items: int, seed: int) -> None:
    """Write a job and its input: texts of 20 to 600 characters."""
    rng = random.Random(seed)
    with (folder / "in.jsonl").open("w", encoding="utf-8") as lines:
        for number in range(items):
            length = rng.randint(20, 600)
            text = f"第{number}条："
            while len(text) < length:
                text += rng.choice(SENTENCES)
            lines.write(json.dumps({"id": f"r-{number}", "text": text[:length]}, ensure_ascii=False) + "\n")
    (folder / "job.toml").write_text(
        'input = "in.jsonl"\noutput = "out"\n'
        '[prompt]\nsystem = "你是一名严谨的数据标注员。"\nuser = "请分析：{{ text }}"\n'
        '[endpoint]\nmodel = "limited"\nstream = false\n',
        encoding="utf-8",
    )


@contextmanager
def batchrun(folder: Path, url: str, *flags: object) -> Iterator[subprocess.Popen[Any]]:
    """Start the installed command on the job; its summary goes to a file."""
    command = [
        sys.executable, "-m", "batchrun", "run", str(folder / "job.toml"), "--base-url", url, "-q", "--json",
        *map(str, flags),
    ]  # fmt: skip
    # Profiles and all else that it learns go where the output goes, not to the user's own.
    own = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    own |= {"OPENAI_API_KEY": "sk-bench", "XDG_DATA_HOME": str(folder / "data")}
    with (
        (folder / "summary.json").open("wb") as summary,
        (folder / "errors.txt").open("ab") as errors,
        running(command, stdout=summary, stderr=errors, stdin=subprocess.DEVNULL, env=own) as process,
    ):
        yield process


def run_batchrun(folder: Path, url: str, *flags: object, within_s: float) -> Ended:
    """Run the command to its end, or kill it."""
    with batchrun(folder, url, *flags) as process:
        try:
            code = process.wait(within_s)
        except subprocess.TimeoutExpired:
            code = None
    try:
        summary = json.loads((folder / "summary.json").read_bytes())
    except ValueError:
        summary = {}
    if code not in (0, 3, 5):
        print(f"batchrun ended with {code}: {(folder / 'errors.txt').read_text()[-500:]}", file=sys.stderr)
    return Ended(code, summary)


# --- limits ---


def measure_limits(name: str, minutes: int, *, is_told: bool) -> str:
    """Run a case; give its row."""
    limit, kind, *how = name.split("/")
    limits = LIMITS[limit]
    flags = [word for option, value in limits.items() for word in (f"--{option}", value)]
    says = ["--say", *how] if how else []
    deadline = minutes * 60 + 5
    with tempfile.TemporaryDirectory() as temporary, limited(*flags, "--window", kind, *says) as url:
        folder = Path(temporary)
        write_job(folder, 2 * ITEMS_A_MINUTE[limit] * (minutes + 1), seed=1)
        told = flags if is_told else []
        ended = run_batchrun(folder, url, *told, "--deadline", f"{deadline}s", within_s=deadline + GRACE_S)
        stats = stats_of(url)
    largest, calls = stats["largest"]["minute"], stats["calls"]
    refused = 100 * sum(stats["refused"].values()) / calls
    cells = [
        f"{100 * used(stats, limits, minutes, reserve=kind == 'bucket'):.1f} %",
        f"{100 * used(stats, limits, minutes, reserve=False):.1f} %",
        f"{refused:.2f} %",
        failed(ended),
        f"{calls / stats['bodies']:.3f}",
        f"{largest['accepted']}",
        f"{largest['tokens']:,}",
        f"{stats['max_in_flight']}",
        f"{stats['last_call_s']:.0f} s",
        f"{ended.code}",
    ]
    return row(name, cells)


LIMITS_HEAD = [
    "used", "rate", "refused", "failed", "calls an item", "largest minute", "its tokens", "in flight", "lasted", "exit",
]  # fmt: skip


def used(stats: dict[str, Any], limits: dict[str, int], minutes: int, *, reserve: bool) -> float:
    """Give which part was used of what was allowed, with the reserve of a bucket or without."""
    seconds = minutes * 60
    calls, tokens = (sum(stats[f"{what}_by_second"][:seconds]) for what in ("accepted", "tokens"))
    counted = minutes + reserve
    held_s = stats["held_s"] / max(1, stats["completed"])
    parts = {"rpm": calls / counted, "tpm": tokens / counted, "concurrency": calls * held_s / seconds}
    # What was not answered, and what was answered before, is of no use.
    useful: float = stats["completed_bodies"] / max(1, stats["accepted"])
    share: float = max(parts[option] / most for option, most in limits.items())
    return useful * share


def failed(ended: Ended) -> str:
    """Give how many items failed."""
    return str(ended.summary["counts"]["failures"]) if ended.summary else "?"


# --- outages ---


def measure_outage(kind: str, seconds: int, items: int, settings: str, time_limit: float) -> str:
    """Run a job with an outage in its middle; give its row."""
    flags = ["--outage", kind, "--outage-at", OUTAGE_AT_S, "--outage-for", seconds]
    with tempfile.TemporaryDirectory() as temporary, limited(*flags) as url:
        folder = Path(temporary)
        write_job(folder, items, seed=2)
        with (folder / "job.toml").open("a", encoding="utf-8") as job:
            job.write(settings)
        ended = run_batchrun(folder, url, "--concurrency", 50, within_s=time_limit)
        end = time.monotonic() + seconds
        while (stats := stats_when_back(url)) is None and time.monotonic() < end:
            time.sleep(0.5)
    assert stats is not None, "the endpoint did not come back"
    attempts = ended.summary["requests"]["attempts"] if ended.summary else None
    before, back = recovery(stats["completed_by_second"], OUTAGE_AT_S, OUTAGE_AT_S + seconds)
    cells = [
        failed(ended),
        f"{stats['calls'] / items:.3f}",
        "?" if attempts is None else f"{attempts / items:.3f}",
        f"{stats['refused'].get('outage', 0)}",
        f"{before:.0f} a second",
        "never" if back is None else f"{back} s",
        f"{stats['completed_more_than_once']}",
        f"{stats['last_call_s']:.0f} s",
        f"{ended.code}",
    ]
    return row(kind, cells)


OUTAGE_HEAD = [
    "failed", "calls an item", "attempts an item", "calls in it", "before", "back", "paid twice", "lasted", "exit",
]  # fmt: skip


def stats_when_back(url: str) -> dict[str, Any] | None:
    """Ask the endpoint what it counted; None while it does not listen."""
    try:
        return stats_of(url)
    except OSError:
        return None


def recovery(completed: list[int], began: int, ended: int) -> tuple[float, int | None]:
    """Give completions a second before an outage, and the seconds from its end until they are back, None for never."""
    before = statistics.mean([*completed[2:began], *([0] * (began - len(completed)))])
    for second in range(ended, len(completed) - 2):
        if min(completed[second], statistics.mean(completed[second : second + 3])) >= 0.9 * before:
            return before, second - ended
    return before, None


# --- restarts ---


def measure_restarts(rpm: int, kills: int, after: list[float], last_s: int, seed: int) -> str:
    """Kill the command again and again, let it run, and give its row."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary, limited() as url:
        folder = Path(temporary)
        write_job(folder, 2_000, seed=3)
        began = time.monotonic()
        for _ in range(kills):
            with batchrun(folder, url, "--rpm", rpm) as process, suppress(subprocess.TimeoutExpired):
                code = process.wait(rng.uniform(*after))
                print(f"batchrun ended by itself with {code}", file=sys.stderr)
        killing = time.monotonic() - began
        ended = run_batchrun(folder, url, "--rpm", rpm, "--deadline", f"{last_s}s", within_s=last_s + GRACE_S)
        stats = stats_of(url)
    largest = stats["largest"]["minute"]
    cells = [
        f"{kills} in {killing:.0f} s",
        f"{rpm}",
        f"{largest['accepted']}",
        f"{largest['calls']}",
        f"{largest['accepted'] / rpm * 100 - 100:+.0f} %",
        f"{stats['cut']}",
        f"{stats['completed_more_than_once']}",
        failed(ended),
        f"{ended.code}",
    ]
    return row("restarts", cells)


RESTARTS_HEAD = [
    "kills", "told", "largest minute", "its calls", "over", "cut off", "paid twice", "failed", "exit",
]  # fmt: skip


# --- the command ---


def row(name: str, cells: list[str]) -> str:
    """Spell a row of a table."""
    return f"| {name:31} | " + " | ".join(f"{cell:>11}" for cell in cells) + " |"


def show(title: str, head: list[str]) -> None:
    """Print the head of a table."""
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}")
    print(row(title, head))
    print("|---" * (len(head) + 1) + "|", flush=True)


def chosen(names: list[str], patterns: list[str]) -> list[str]:
    """Give the cases that a pattern fits."""
    cases = [name for name in names if not patterns or any(fnmatch(name, pattern) for pattern in patterns)]
    if not cases:
        sys.exit(f"no such case; there are {' '.join(names)}")
    return cases


def limit_cases(options: argparse.Namespace) -> None:
    is_told = options.command == "told"
    windows = ["sliding", "bucket"] if is_told else ["sliding", "bucket", "second"]
    names = [f"{limit}/{kind}" for limit in LIMITS for kind in windows]
    if not is_told:
        names = [f"{name}/{how}" for name in names for how in ("silent", "cause", "retry-after", "headers")]
    cases = chosen(names, options.only)
    show(f"{options.command}, {options.minutes} min", LIMITS_HEAD)
    pool = ThreadPoolExecutor(options.at_once)
    try:
        rows = [pool.submit(measure_limits, name, options.minutes, is_told=is_told) for name in cases]
        for one in rows:
            print(one.result(), flush=True)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def outage_cases(options: argparse.Namespace) -> None:
    settings = f'[retry]\nattempt_timeout = "{options.attempt_timeout}"\n' if options.attempt_timeout else ""
    cases = chosen(OUTAGES, options.only)
    show(f"outage of {options.seconds} s", OUTAGE_HEAD)
    for kind in cases:
        print(measure_outage(kind, options.seconds, options.items, settings, options.time_limit), flush=True)


def restart_cases(options: argparse.Namespace) -> None:
    show("", RESTARTS_HEAD)
    print(measure_restarts(options.rpm, options.kills, options.after, options.last, options.seed), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("told", "found"):
        command = commands.add_parser(name)
        command.add_argument("--minutes", type=int, default=2, help="whole minutes to judge by")
        command.add_argument("--only", nargs="+", default=[], metavar="PATTERN")
        command.add_argument("--at-once", type=int, default=1, metavar="N", help="run so many cases beside each other")
        command.set_defaults(measure=limit_cases)
    command = commands.add_parser("outage")
    command.add_argument("--seconds", type=int, default=60)
    command.add_argument("--items", type=int, default=6_000)
    command.add_argument("--only", nargs="+", default=[], metavar="KIND")
    command.add_argument("--attempt-timeout", metavar="DURATION", help="instead of batchrun's default")
    command.add_argument("--time-limit", type=float, default=1_000, metavar="SECONDS", help="for each kind")
    command.set_defaults(measure=outage_cases)
    command = commands.add_parser("restarts")
    command.add_argument("--rpm", type=int, default=120)
    command.add_argument("--kills", type=int, default=20)
    command.add_argument("--after", type=float, nargs=2, default=[1.0, 4.0], metavar="SECONDS", help="least and most")
    command.add_argument("--last", type=int, default=60, metavar="SECONDS", help="how long it runs in the end")
    command.add_argument("--seed", type=int, default=1)
    command.set_defaults(measure=restart_cases)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        options.measure(options)
    finally:
        closing.set()
        for process in list(children):
            kill(process)


if __name__ == "__main__":
    main()
