"""Benchmark of the extraction of JSON from model answers: batchrun and the libraries used today, side by side.

    python tests/bench/extractors.py cases DIR…                  hand-made cases (JSON Lines, see below)
    python tests/bench/extractors.py damages --seed N --count N  generated damages
    python tests/bench/extractors.py hostile                     time and memory on hostile inputs
    python tests/bench/extractors.py speed                       valid JSON, against json.loads
    python tests/bench/extractors.py suites         the published test cases of the libraries, from their sdists

A case is a line {"id", "text", "schema", "finish_reason", "output" or "error"}. `right` for a case that must fail
means that it failed; a truncated answer must be flagged as such by batchrun. The other libraries know no finish_reason
and name no kinds of failure. Readers run in processes of their own, so that crashes and endless loops are counted.
What is not installed is left out.
"""

from __future__ import annotations

import argparse
import ast
import json
import multiprocessing
import re
import resource
import statistics
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from peers import PEERS, RAW, Refused, installed

sys.path.insert(0, str(Path(__file__).parents[1]))
from extraction.damage import generate

__all__ = ["Problem", "Tally", "main", "same"]

LIMIT = 20.0
OURS = "batchrun"


@dataclass(frozen=True)
class Problem:
    """A text and what must come of it."""

    name: str
    text: str
    schema: dict[str, Any] | None
    finish_reason: str | None
    output: Any
    error: str | None
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """What a reader made of a problem."""

    outcome: str  # right, wrong, failed, crashed
    kind: str | None  # of the failure, where the reader names one
    seconds: float
    shown: str  # the value or the message, for people


@dataclass
class Tally:
    """The verdicts on one reader."""

    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    bad: list[tuple[Problem, Verdict]] = field(default_factory=list)

    def add(self, problem: Problem, verdict: Verdict) -> None:
        """Count one verdict."""
        self.seconds += verdict.seconds
        self.counts[verdict.outcome] += 1
        failed = verdict.outcome != "crashed" and verdict.kind is not None
        self.counts["unflagged"] += failed and problem.error == "truncated" and verdict.kind != "truncated"
        self.counts["falsely"] += failed and problem.error != "truncated" and verdict.kind == "truncated"
        self.counts["must"] += problem.error is not None
        self.counts["must_right"] += problem.error is not None and verdict.outcome == "right"
        if verdict.outcome != "right":
            self.bad.append((problem, verdict))


def say(text: str = "") -> None:
    """Print a line at once."""
    print(text, flush=True)


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same: true is not 1, and numbers are compared exactly."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(item, other[key]) for key, item in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return one == other
    return type(one) is type(other) and bool(one == other)


# --- readers in processes of their own ---


def ours() -> Callable[..., Any] | None:
    """The extractor of batchrun, if it is there."""
    try:
        from batchrun import extract  # type: ignore[import-not-found,attr-defined,unused-ignore]
    except ImportError:
        return None
    made: Callable[..., Any] = extract
    return made


def readers() -> list[str]:
    """The names of all readers that can run."""
    return ([OURS] if ours() is not None else []) + list(PEERS)


def read(reader: str, problem: Problem) -> tuple[Any, str | None, str]:
    """The value, or the kind of the failure and its message (a library's is just "failed")."""
    if reader == OURS:
        extract = ours()
        if extract is None:
            raise ImportError(OURS)
        found = extract(problem.text, schema=problem.schema, finish_reason=problem.finish_reason)
        if found.ok:
            return found.output, None, ""
        return None, str(found.error.kind), str(found.error.message)
    try:
        return PEERS[reader](problem.text, problem.schema), None, ""
    except (RecursionError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001  # any error of a library is its way to say no
        return None, "", f"{type(error).__name__}: {str(error)[:200]}"


def judge(reader: str, problem: Problem) -> Verdict:
    """Run the reader on the problem."""
    start = time.perf_counter()
    try:
        value, kind, message = read(reader, problem)
    except BaseException as error:  # noqa: BLE001  # a panic of a Rust extension is no Exception
        return Verdict("crashed", None, time.perf_counter() - start, f"{type(error).__name__}: {str(error)[:200]}")
    seconds = time.perf_counter() - start
    named = kind or None
    if kind is not None:
        must = problem.error is not None
        flagged = reader != OURS or problem.error != "truncated" or kind == "truncated"
        return Verdict("right" if must and flagged else "failed", named, seconds, message)
    right = problem.error is None and same(value, problem.output)
    return Verdict("right" if right else "wrong", None, seconds, repr(value)[:400])


def serve(reader: str, pipe: Connection) -> None:
    """Judge problems until there are no more (in a process of its own)."""
    while (problem := pipe.recv()) is not None:
        pipe.send(judge(reader, problem))


class Worker:
    """A process with one reader, replaced when it dies or does not answer."""

    def __init__(self, reader: str) -> None:
        self.reader = reader
        self.start()

    def start(self) -> None:
        """Start the process and warm the reader up."""
        context = multiprocessing.get_context("spawn")
        self.pipe, child = context.Pipe()
        self.process = context.Process(target=serve, args=(self.reader, child), daemon=True)
        self.process.start()
        child.close()
        self.pipe.send(Problem("warm-up", '{"a": 1,}', None, None, None, None, ()))
        if not self.pipe.poll(60):
            raise TimeoutError(self.reader)
        self.pipe.recv()

    def judge(self, problem: Problem) -> Verdict:
        """The verdict on one problem; a crash or no answer is one too."""
        self.pipe.send(problem)
        message = f"no answer in {LIMIT:.0f} s"
        if self.pipe.poll(LIMIT):
            try:
                verdict: Verdict = self.pipe.recv()
            except EOFError:
                self.process.join()
                message = f"the process died ({self.process.exitcode})"
            else:
                return verdict
        self.process.kill()
        self.process.join()
        self.start()
        return Verdict("crashed", None, LIMIT if "no answer" in message else 0.0, message)

    def stop(self) -> None:
        """End the process."""
        self.pipe.send(None)
        self.process.join(5)
        self.process.kill()


def run(reader: str, problems: Iterable[Problem]) -> Tally:
    """All verdicts on one reader."""
    worker, tally = Worker(reader), Tally()
    for problem in problems:
        tally.add(problem, worker.judge(problem))
    worker.stop()
    return tally


def share(part: int, whole: int) -> str:
    """A count with its share."""
    return f"{part} ({100 * part / whole:.1f} %)" if whole else "0"


HEADING = """| | right | silently wrong | honest failure | crash or timeout | must-fail cases failed \
| truncated, not flagged | falsely flagged | time, ms |
|---|---|---|---|---|---|---|---|---|"""


def compare(problems: list[Problem], show: int) -> None:
    """Run all readers on the problems and print the table."""
    if OURS not in readers():
        say("(batchrun cannot be imported here and is left out)\n")
    say(f"{len(problems)} cases, {sum(problem.error is not None for problem in problems)} of them must fail\n")
    say(HEADING)
    for reader in readers():
        tally = run(reader, problems)
        counts, total = tally.counts, len(problems)
        flags = (str(counts["unflagged"]), str(counts["falsely"])) if reader == OURS else ("–", "–")
        cells = [share(counts[name], total) for name in ("right", "wrong", "failed", "crashed")]
        must = share(counts["must_right"], counts["must"])
        say(f"| {' | '.join([reader, *cells, must, *flags, f'{1000 * tally.seconds:.0f}'])} |")
        if reader == OURS:
            kept = tally
    if OURS in readers():
        explain(kept, problems, show)


def explain(tally: Tally, problems: list[Problem], show: int) -> None:
    """What batchrun did not get right, by tag and one by one."""
    totals = Counter(tag for problem in problems for tag in problem.tags)
    missed = Counter(tag for problem, _ in tally.bad for tag in problem.tags)
    say("\nNot right by tag: " + (", ".join(f"{tag} {n}/{totals[tag]}" for tag, n in missed.most_common()) or "none"))
    for problem, verdict in tally.bad[:show]:
        say(f"\n--- {problem.name} [{', '.join(problem.tags)}]: {verdict.outcome} {verdict.kind or ''} {verdict.shown}")
        say(f"expected: {problem.error or json.dumps(problem.output, ensure_ascii=False)}")
        say(problem.text if len(problem.text) < 1500 else problem.text[:1500] + " […]")


# --- cases and damages ---


def load_cases(places: list[Path]) -> Iterator[Problem]:
    """The cases of the files and of all .jsonl files in the directories."""
    files = [file for place in places for file in (sorted(place.rglob("*.jsonl")) if place.is_dir() else [place])]
    for file in files:
        for number, line in enumerate(file.read_text("utf-8").split("\n"), 1):
            if line.strip():
                case = json.loads(line)
                name = f"{case.get('id', '?')} ({file.name}:{number})"
                yield Problem(name, case["text"], case.get("schema"), case.get("finish_reason", "stop"),
                              case.get("output"), case.get("error"), tuple(case.get("tags", ())))  # fmt: skip


def load_damages(seed: int, count: int) -> Iterator[Problem]:
    """Generated cases."""
    for at, case in enumerate(generate(seed, count)):
        yield Problem(f"{seed}-{at}", case.text, case.schema, case.finish_reason, case.output, case.error, case.damages)


# --- hostile inputs ---

MEGA = 1_000_000
PROSE = "根据原文，双方约定在三个工作日内完成验收；逾期的，按日支付违约金。The second party agreed. "
BRACED = "对集合{1,2}中的元素（参见[3]），尊敬的{姓名}先生：区间[0, 1)内成立，模板{{a}}除外。"
ROW = '{"编号": 1, "名称": "智能手表", "标签": ["好", "快"], "价格": 299.5, "有货": true}'


def filled(piece: str, size: int = MEGA) -> str:
    """The piece repeated up to a size in characters."""
    return (piece * (size // len(piece) + 1))[:size]


def rows(row: str, size: int = 100_000) -> str:
    """An array of the same row."""
    return "[" + ",\n".join([row] * (size // len(row))) + "]"


HOSTILE: dict[str, Callable[[], str]] = {
    "1 MB of prose": lambda: filled(PROSE),
    "1 MB of prose with braces": lambda: filled(BRACED),
    "1 MB of prose with braces, then JSON": lambda: filled(BRACED) + "\n" + ROW,
    "JSON, then 1 MB of prose with braces": lambda: ROW + "\n" + filled(BRACED),
    "1 MB of prose with apostrophes": lambda: filled("it's the user's {choice} "),
    "100,000 [": lambda: "[" * 100_000,
    "100,000 {": lambda: "{" * 100_000,
    "100,000 (": lambda: "(" * 100_000,
    "100,000 ［": lambda: "［" * 100_000,
    "100,000 ｛": lambda: "｛" * 100_000,
    "100,000 【": lambda: "【" * 100_000,
    "100,000 [{": lambda: "[{" * 50_000,
    "100,000 ]": lambda: "]" * 100_000,
    "depth 100,000 closed, arrays": lambda: "[" * 100_000 + "]" * 100_000,
    "depth 100,000 closed, objects": lambda: '{"a":' * 100_000 + "1" + "}" * 100_000,
    "a million double quotes": lambda: '"' * MEGA,
    "a million single quotes": lambda: "'" * MEGA,
    "a million full-width quotes": lambda: "“" * MEGA,
    "a million pairs of full-width quotes": lambda: "“”" * (MEGA // 2),
    'a million quotes in {"a": "': lambda: '{"a": "' + '"' * MEGA + '"}',
    '1 MB of {"a":"': lambda: filled('{"a":"'),
    '1 MB of {"a":': lambda: filled('{"a":'),
    '1 MB of "a":': lambda: "{" + filled('"a":'),
    "1 MB of backslashes": lambda: "\\" * MEGA,
    '1 MB of backslashes in {"a": "': lambda: '{"a": "' + "\\" * MEGA + '"}',
    "1 MB of fences": lambda: filled("```"),
    "1 MB of fences on lines": lambda: filled("```json\n"),
    "1 MB of fenced braces": lambda: filled("```json\n{\n```\n"),
    "1 MB of <think>": lambda: filled("<think>"),
    "1 MB of </think>": lambda: filled("</think>"),
    "1 MB of <think>{</think>": lambda: filled("<think>{</think>"),
    "1 MB of <tool_call>": lambda: filled("<tool_call>"),
    "1 MB of commas": lambda: filled(","),
    "1 MB of commas in [": lambda: "[" + filled(",") + "]",
    "1 MB of colons": lambda: filled(":"),
    "1 MB of colons in {": lambda: "{" + filled(":") + "}",
    "[[1,[1,[1…": lambda: "[" + filled("[1,", 300_000),
    "1 MB of /*": lambda: "{" + filled("/*"),
    "1 MB of //": lambda: "{" + filled("// a\n"),
    "1 MB of spaces in {": lambda: "{" + filled(" ") + "}",
    "1 MB of &quot;": lambda: filled("&quot;"),
    "1 MB of {}": lambda: filled("{} "),
    "1 MB of small objects": lambda: filled('{"a": 1}\n'),
    "1 MB of [1": lambda: filled("[1"),
    "1 MB of {a": lambda: filled("{a"),
    "1 MB of digits": lambda: "[" + "9" * MEGA + "]",
    "valid, 1 MB": lambda: rows(ROW, MEGA),
    "valid, 1 MB, in prose": lambda: "结果：\n" + rows(ROW, MEGA) + "\n以上。",
    "valid, 1 MB string": lambda: json.dumps({"a": filled(PROSE)}, ensure_ascii=False),
    "100 KB, trailing commas": lambda: rows(ROW.replace("]", ",]").replace("}", ",}")),
    "100 KB, single quotes": lambda: rows(ROW.replace('"', "'")),
    "100 KB, bare keys": lambda: rows(re.sub(r'"(\w+)":', r"\1:", ROW)),
    "100 KB, full-width": lambda: rows(ROW.replace(":", "：").replace(", ", "，")),
    "100 KB, unescaped quotes": lambda: rows(ROW.replace("智能手表", '所谓"智能"手表')),
    "100 KB, missing commas": lambda: rows(ROW.replace(", ", "\n")),
    "100 KB, cut off": lambda: rows(ROW)[:-1000],
    "100 KB, first closer missing": lambda: rows(ROW).replace("}", "", 1),
    "100 KB, comments": lambda: rows(ROW.replace(", ", ", // 注\n")),
    "100 KB, one string never closed": lambda: rows(ROW).replace('名称"', "名称", 1),
    "100 KB, bad escapes": lambda: rows(ROW.replace("智能", "C:\\\\Users\\李".replace("\\\\", "\\"))),
    "100 KB, a quote after every character": lambda: '{"a": "' + '字"' * 50_000 + '"}',
}


def one_hostile(reader: str, name: str) -> None:
    """Run one reader on one hostile input and print time, memory and outcome as JSON (in a process of its own)."""
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    text = HOSTILE[name]()
    judge(reader, Problem("warm-up", '{"a": 1,}', None, None, None, None, ()))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    try:
        _, kind, _ = read(reader, Problem(name, text, None, "stop", None, None, ()))
        outcome = "value" if kind is None else kind or "failed"
    except BaseException as error:  # noqa: BLE001
        outcome = type(error).__name__
    seconds = time.perf_counter() - start
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    say(json.dumps({"ms": 1000 * seconds, "mb": memory, "outcome": outcome}))
    sys.stdout.flush()


def hostile_cell(reader: str, name: str) -> str:
    """Time, memory and outcome of one reader on one hostile input."""
    command = [sys.executable, __file__, "one", reader, name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT + 3, check=False)
        found = json.loads(done.stdout.splitlines()[0])
    except subprocess.TimeoutExpired:
        return f"**> {LIMIT:.0f} s**"
    except (IndexError, ValueError):
        return f"**died ({done.returncode})**"
    if found["ms"] > 1000 * LIMIT:
        return f"**> {LIMIT:.0f} s**"
    ms = f"{found['ms']:.0f}" if found["ms"] >= 10 else f"{found['ms']:.1f}"
    limit = 50 if name.startswith("100 KB") else 1000
    ms = f"**{ms}**" if found["ms"] > limit else ms
    outcome = f"**{found['outcome']}**" if found["outcome"].endswith(("Error", "Exception")) else found["outcome"]
    return f"{ms} ms, +{found['mb']:.0f} MB, {outcome}"


def hostile(only: str, chosen: list[str]) -> None:
    """Print the table of the hostile inputs."""
    names = [name for name in chosen or readers() if name != "json_repair+schema"]
    say("Time, additional memory, outcome; bold: over 1 s (50 ms for 100 KB), an error that is no failure, or worse.\n")
    say(f"| | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for name in HOSTILE:
        if only in name:
            say(f"| `{name}` | {' | '.join(hostile_cell(reader, name) for reader in names)} |")


# --- speed ---


def speed() -> None:
    """Print how long valid JSON takes, as a multiple of json.loads."""
    row = json.loads(ROW)
    texts = {
        "200 B": json.dumps(row | {"说明": "合格" * 20}, ensure_ascii=False),
        "2 KB": json.dumps([row] * 16, ensure_ascii=False),
        "100 KB": json.dumps([row | {"编号": at} for at in range(1000)], ensure_ascii=False),
    }
    say(f"| valid JSON | json.loads, µs | {' | '.join(readers())} |\n|---|---|{'---|' * len(readers())}")
    for name, text in texts.items():
        value = json.loads(text)
        members = {"type": "object", "required": list(row), "properties": {"编号": {"type": "integer"}}}
        schema = members if isinstance(value, dict) else {"type": "array", "items": members}
        medians = interleaved(text, schema)
        base = medians.pop("json.loads")
        cells = [f"{medians[r] / base:.2f}× ({medians[r + ' validated'] / base:.2f}×)" for r in readers()]
        say(f"| {name} ({len(text.encode())} B) | {1e6 * base:.1f} | {' | '.join(cells)} |")
    say("\nMedians of interleaved runs; in brackets with validation against a schema.")


def interleaved(text: str, schema: dict[str, Any]) -> dict[str, float]:
    """The median seconds of each reader, run in turns."""
    calls: dict[str, Callable[[], Any]] = {"json.loads": lambda: json.loads(text)}
    for reader in readers():
        calls[reader] = raw_call(reader, text, None)
        calls[f"{reader} validated"] = raw_call(reader, text, schema)
    times: dict[str, list[float]] = {name: [] for name in calls}
    inner = max(1, 20_000 // len(text))
    for _ in range(41):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(inner):
                call()
            times[name].append((time.perf_counter() - start) / inner)
    return {name: statistics.median(taken[1:]) for name, taken in times.items()}


def raw_call(reader: str, text: str, schema: dict[str, Any] | None) -> Callable[[], Any]:
    """A call without the bookkeeping."""
    extract = ours()
    if reader == OURS and extract is not None:
        return lambda: extract(text, schema=schema)
    return (lambda: RAW[reader](text, None)) if schema is None else (lambda: PEERS[reader](text, schema))


# --- published suites ---

SDISTS = {
    "json_repair": "json_repair==0.58.2",  # later sdists come without tests
    "robust_json_parser": "robust_json_parser==0.1.7",
    "json5": "json5==0.17.3",
    "dirtyjson": "dirtyjson==1.0.8",
}
CALLS = {"repair_json", "loads"}
HARMLESS = {"return_objects", "ensure_ascii", "skip_json_loads", "indent"}


@dataclass(frozen=True)
class Published:
    """A test case of a library."""

    suite: str
    place: str
    text: str
    expected: Any


def sdist(requirement: str, cache: Path) -> Path:
    """The source distribution, downloaded once; nothing in it is executed by us."""
    cache.mkdir(parents=True, exist_ok=True)
    name, _, version = requirement.partition("==")
    pattern = f"{name}-{version}.tar.gz"
    if not (cache / pattern).exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-binary", ":all:", "--no-deps",
                   "--dest", str(cache), requirement]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
    return cache / pattern


def test_sources(archive: Path) -> Iterator[tuple[str, str]]:
    """The test files of an sdist: name and text."""
    with tarfile.open(archive) as opened:
        for member in opened.getmembers():
            path = Path(member.name)
            if member.isfile() and path.suffix == ".py" and "test" in member.name.partition("/")[2]:
                file = opened.extractfile(member)
                if file is not None:
                    yield path.name, file.read().decode("utf-8")


class Finder(ast.NodeVisitor):
    """Collects pairs of input and expected value from the syntax tree of a test file."""

    def __init__(self) -> None:
        self.names: dict[str, ast.expr] = {}
        self.pairs: list[tuple[int, str, Any]] = []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Names hold within a function."""
        self.names = {}
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        """Remember what a name stands for."""
        if len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            self.names[node.targets[0].id] = node.value

    def visit_Assert(self, node: ast.Assert) -> None:
        """`assert loads(text) == value`."""
        test = node.test
        if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq):
            self.pair(node.lineno, test.left, test.comparators[0])

    def visit_Call(self, node: ast.Call) -> None:
        """`self.assertEqual(loads(text), value)` and `self.check(text, value)`."""
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if name == "assertEqual" and len(node.args) == 2:
            self.pair(node.lineno, node.args[0], node.args[1])
            self.pair(node.lineno, node.args[1], node.args[0])
        elif name == "check" and len(node.args) == 2 and not node.keywords:
            self.add(node.lineno, node.args[0], node.args[1], dumped=False)

    def resolved(self, node: ast.expr) -> ast.expr:
        """What a name stands for, if it is one."""
        return self.names.get(node.id, node) if isinstance(node, ast.Name) else node

    def pair(self, line: int, called: ast.expr, expected: ast.expr) -> None:
        """Add the pair if the first expression is a call of a loader with nothing unusual."""
        call = self.resolved(called)
        if not isinstance(call, ast.Call) or len(call.args) != 1:
            return
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        options = {keyword.arg for keyword in call.keywords}
        if name in CALLS and options <= HARMLESS:
            self.add(line, call.args[0], expected, dumped=name == "repair_json" and "return_objects" not in options)

    def add(self, line: int, text: ast.expr, expected: ast.expr, *, dumped: bool) -> None:
        """Add the pair if both are literals."""
        try:
            source, value = ast.literal_eval(self.resolved(text)), ast.literal_eval(self.resolved(expected))
            if dumped and value:
                value = json.loads(value)
        except (ValueError, TypeError):
            return
        if isinstance(source, str):
            self.pairs.append((line, source, value))


def published(suite: str, cache: Path) -> Iterator[Published]:
    """The test cases of a library, each text once."""
    seen = set()
    for name, source in test_sources(sdist(SDISTS[suite], cache)):
        finder = Finder()
        finder.visit(ast.parse(source))
        for line, text, expected in finder.pairs:
            if text not in seen:
                seen.add(text)
                yield Published(suite, f"{name}:{line}", text, expected)


def apart(case: Published) -> str | None:
    """Why the expectation contradicts the specification, by rule, or None."""
    text, expected = case.text, case.expected
    rules: list[tuple[str, Callable[[], bool]]] = [
        ("nothing found is a value", lambda: expected in ("", None) and strict(text) is not expected),
        ("no object or array", lambda: not isinstance(expected, (dict, list)) and not is_strict(text)),
        ("completes what was cut off", lambda: cut_off(text)),
        ("fills a missing value", lambda: bool(re.search(r"[:：]\s*[,，}\]]|:\s*$", text)) and not is_strict(text)),
        ("merges several values", lambda: isinstance(expected, list) and first_mark(text) == "{"),
        ("chooses among several values", lambda: several(text)),
        ("drops a duplicate key", lambda: has_duplicates(text, expected)),
        ("a number that JSON has not", lambda: bool(re.search(r"\b(NaN|Infinity)\b|\b0[xX]", text))),
    ]
    return next((name for name, rule in rules if rule()), None)


def strict(text: str) -> Any:
    """The value of strict JSON, or an object that is no JSON value."""
    try:
        return json.loads(text)
    except ValueError:
        return Refused


def is_strict(text: str) -> bool:
    """Whether the text is strict JSON."""
    return strict(text) is not Refused


def cut_off(text: str) -> bool:
    """Whether more brackets are opened than closed, or the text ends inside a string."""
    if is_strict(text):
        return False
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', text, flags=re.DOTALL)
    opened = sum(map(bare.count, "{[")) - sum(map(bare.count, "}]"))
    total = sum(map(text.count, "{[")) - sum(map(text.count, "}]"))
    return opened > 0 and total > 0


def several(text: str) -> bool:
    """Whether one JSON value follows another, with at most a comma between them."""
    if is_strict(text) or not first_mark(text):
        return False
    try:
        _, end = json.JSONDecoder().raw_decode(text, text.index(first_mark(text)))
    except ValueError:
        return False
    return text[end:].lstrip(" \n\t,")[:1] in {"{", "["}


def first_mark(text: str) -> str:
    """The first opening mark in the text."""
    found = re.search(r"[{\[]", text)
    return found.group() if found else ""


def has_duplicates(text: str, expected: Any) -> bool:
    """Whether a flat object is written with one of its keys twice."""
    if not isinstance(expected, dict) or any(isinstance(item, (dict, list)) for item in expected.values()):
        return False
    keys = Counter(re.findall(r"[{,]\s*[\"']?(\w+)[\"']?\s*:", text))
    return any(count > 1 for count in keys.values())


def agreed(case: Published) -> bool:
    """Whether two other libraries read the text as the suite expects."""
    votes = 0
    for name, reader in RAW.items():
        if installed(name) and name not in {case.suite, "json_repair+schema"}:
            try:
                votes += same(reader(case.text, None), case.expected)
            except Exception:  # noqa: BLE001
                continue
    return votes >= 2


def suites(cache: Path, show: int) -> None:
    """Print how batchrun and the libraries do on the published cases on which three libraries agree."""
    everything: list[Problem] = []
    set_apart: list[tuple[str, Problem]] = []
    say("| suite | cases | set apart | consensus |\n|---|---|---|---|")
    for suite, requirement in SDISTS.items():
        cases = list(published(suite, cache))
        outside = [(reason, case) for case in cases if (reason := apart(case)) is not None]
        inside = [case for case in cases if apart(case) is None and agreed(case)]
        everything += [problem_of(case) for case in inside]
        set_apart += [(reason, problem_of(case)) for reason, case in outside]
        reasons = Counter(reason for reason, _ in outside)
        told = ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common())
        say(f"| {requirement} | {len(cases)} | {told} | {len(inside)} |")
    say()
    compare(everything, show)
    if OURS in readers():
        say("\nCases set apart, batchrun:\n")
        say("| reason | fails | as the suite | other value | crash |\n|---|---|---|---|---|")
        for reason in dict.fromkeys(reason for reason, _ in set_apart):
            counts = run(OURS, [problem for why, problem in set_apart if why == reason]).counts
            say(f"| {reason} | {counts['failed']} | {counts['right']} | {counts['wrong']} | {counts['crashed']} |")


def problem_of(case: Published) -> Problem:
    """A published case as a problem without schema."""
    return Problem(f"{case.suite} {case.place}", case.text, None, "stop", case.expected, None, (case.suite,))


# --- command line ---


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = made.add_subparsers(dest="command", required=True)
    cases = commands.add_parser("cases", help="hand-made cases")
    cases.add_argument("places", nargs="+", type=Path)
    damages = commands.add_parser("damages", help="generated damages")
    damages.add_argument("--seed", type=int, default=1)
    damages.add_argument("--count", type=int, default=2000)
    inputs = commands.add_parser("hostile", help="hostile inputs")
    inputs.add_argument("--only", default="", help="only inputs whose name contains this")
    inputs.add_argument("--reader", action="append", default=[], help="only this reader (may be repeated)")
    commands.add_parser("speed", help="valid JSON against json.loads")
    tests = commands.add_parser("suites", help="published test cases of the libraries")
    tests.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "batchrun-suites")
    one = commands.add_parser("one", help="one hostile input (used by hostile)")
    one.add_argument("reader")
    one.add_argument("name")
    for command in (cases, damages, tests):
        command.add_argument("--show", type=int, default=20, help="how many failures of batchrun to print")
    return made


def main() -> None:
    """Run the chosen benchmark."""
    options = parser().parse_args()
    match options.command:
        case "cases":
            compare(list(load_cases(options.places)), options.show)
        case "damages":
            compare(list(load_damages(options.seed, options.count)), options.show)
        case "hostile":
            hostile(options.only, options.reader)
        case "speed":
            speed()
        case "suites":
            suites(options.cache, options.show)
        case "one":
            one_hostile(options.reader, options.name)


if __name__ == "__main__":
    main()
