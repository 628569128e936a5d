"""The commands on a run directory: retry, status, verify, reparse."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended, environment, records, write_lines
from scripted import Call, Scripted, Wait, completion, http, ok

from batchrun.store import RunDirectory

SCHEMA = {"type": "object", "properties": {"分": {"type": "integer", "maximum": 5}}, "required": ["分"]}
JOB = """
input = "in.jsonl"
output = "out"
[endpoint]
base_url = "URL"
model = "m-1"
[structured]
schema = "schema.json"
reask = 0
[retry]
wait_initial = "10ms"
wait_max = "10ms"
[price]
input = 1000.0
output = 1000.0
"""


class Bench:
    """A job whose answers are the numbers that its prompts are; some items fail until they are given more tokens."""

    def __init__(self, folder: Path, batchrun: Callable[..., Ended]) -> None:
        self.folder, self.out = folder, folder / "out"
        self.command = batchrun
        self.delay = 0.0
        self.server = Scripted(self._answer)

    def _answer(self, call: Call) -> list[Any]:
        if call.prompt == "坏":
            return [http(400, {"error": {"message": "no", "code": "bad"}})]
        if call.prompt.startswith("长") and call.body.get("max_tokens", 0) < 100:
            return [Wait(self.delay), http(200, completion('{"分"', finish="length"))]
        number = call.prompt.removeprefix("长")
        return [Wait(self.delay), ok(f'{{"分": {number}}}')]

    def prepare(self, *items: Any) -> None:
        write_lines(self.folder / "in.jsonl", *items)
        (self.folder / "schema.json").write_text(json.dumps(SCHEMA))
        (self.folder / "job.toml").write_text(JOB.replace("URL", self.server.base_url))

    def schema(self, most: int) -> None:
        (self.folder / "schema.json").write_text(json.dumps(SCHEMA).replace('"maximum": 5', f'"maximum": {most}'))

    def run(self, *flags: object) -> Ended:
        return self.command("run", "job.toml", *flags)

    def verified(self) -> None:
        ended = self.command("verify", "job.toml")
        assert ended.code == 0, ended.out
        assert self.command("verify", "out").code == 0

    def ids(self, name: str) -> list[str]:
        found = [record["id"] for record in records(self.out / name)]
        assert len(set(found)) == len(found)
        return sorted(found)

    def contents(self) -> dict[str, tuple[bytes, int]]:
        return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in self.out.iterdir()}

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "batchrun", *arguments]
        return subprocess.Popen(
            command, cwd=self.folder, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip


@pytest.fixture
def bench(tmp_path: Path, batchrun: Callable[..., Ended]) -> Iterator[Bench]:
    made = Bench(tmp_path, batchrun)
    with made.server:
        made.prepare(*({"id": f"r-{n}", "prompt": str(n)} for n in range(6)), *FAILING)
        yield made


FAILING = [{"id": "long-1", "prompt": "长1"}, {"id": "long-2", "prompt": "长2"}, {"id": "bad", "prompt": "坏"}]


def until(condition: Callable[[], object], within_s: float = 20) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "it did not come to pass in time"
        time.sleep(0.01)


# --- retry --------------------------------------------------------------------------------------------------------


def test_what_succeeds_in_a_retry_leaves_the_queue_and_the_rest_stays(bench: Bench) -> None:
    assert bench.run().code == 3
    ended = bench.command("retry", "out", "--kind", "truncated", "--set", "max_tokens=8192", "--json")
    assert (ended.code, ended.json()["counts"]["results_this_run"]) == (3, 2)
    assert bench.ids("failures.jsonl") == ["bad"]
    assert bench.ids("results.jsonl") == sorted(["long-1", "long-2", *(f"r-{n}" for n in range(6))])
    asked = [call for call in bench.server.calls if call.prompt == "长1"]
    assert [call.body.get("max_tokens") for call in asked] == [None, 8192]
    assert {record["line"] for record in records(bench.out / "results.jsonl")} == set(range(1, 9))
    bench.verified()


@pytest.mark.parametrize("lose", [[], ["index"], ["journal", "index"]])
def test_results_of_a_retry_with_other_parameters_are_results_of_the_job(lose: list[str], bench: Bench) -> None:
    bench.run()
    bench.command("retry", "job.toml", "--set", "max_tokens=8192")
    for name in lose:
        (bench.out / name).unlink()
    before = len(bench.server.calls)
    assert (bench.run().code, len(bench.server.calls)) == (3, before)
    bench.verified()


def test_what_fails_again_stands_in_the_queue_once(bench: Bench) -> None:
    bench.run()
    first = {record["id"]: record["finished_at"] for record in records(bench.out / "failures.jsonl")}
    for _ in range(2):
        assert bench.command("retry", "out").code == 3
        assert bench.ids("failures.jsonl") == ["bad", "long-1", "long-2"]
    last = {record["id"]: record["finished_at"] for record in records(bench.out / "failures.jsonl")}
    assert all(last[key] > first[key] for key in first)
    bench.verified()


def test_a_retry_that_is_killed_loses_nothing_and_the_next_one_ends_it(bench: Bench) -> None:
    many = [{"id": f"long-{n}", "prompt": f"长{n % 6}"} for n in range(30)]
    bench.prepare(*many)
    bench.run()
    bench.delay = 0.05
    for enough in (1, 9, 17):
        process = bench.start("retry", "out", "--set", "max_tokens=100", "--concurrency", "3")
        until(lambda: (bench.out / "results.jsonl").read_bytes().count(b"\n") >= enough)  # noqa: B023
        process.kill()
        process.wait()
        results = set(bench.ids("results.jsonl"))
        assert results | {record["id"] for record in records(bench.out / "failures.jsonl")} == {i["id"] for i in many}
        bench.verified()
    assert bench.command("retry", "out", "--set", "max_tokens=100").code == 0
    assert (len(bench.ids("results.jsonl")), bench.ids("failures.jsonl")) == (30, [])
    bench.verified()
    answered = [call.prompt for call in bench.server.calls if call.body.get("max_tokens")]
    assert len(answered) <= 30 + 3 * 3


def test_a_queue_that_a_killed_retry_left_is_put_in_order_by_a_run_with_nothing_else_to_do(bench: Bench) -> None:
    bench.prepare({"id": "long", "prompt": "长1"})
    bench.run()
    left = (bench.out / "failures.jsonl").read_bytes()
    bench.command("retry", "out", "--set", "max_tokens=100")
    assert bench.ids("failures.jsonl") == []
    (bench.out / "failures.jsonl").write_bytes(left)
    (bench.out / "journal").unlink()
    assert bench.run().code == 0
    assert (bench.ids("results.jsonl"), bench.ids("failures.jsonl")) == (["long"], [])
    bench.verified()


def test_a_retry_changes_what_a_batch_line_says_itself(bench: Bench) -> None:
    body = {"messages": [{"role": "user", "content": "长3"}], "max_tokens": 7}
    bench.prepare({"custom_id": "b", "method": "POST", "url": "/v1/chat/completions", "body": body})
    assert bench.run().code == 3
    assert bench.command("retry", "out", "--set", "max_tokens=200").code == 0


@pytest.mark.parametrize(
    ("given", "sent"), [("x=1", 1), ("x=true", True), ("x=hot", "hot"), ('x={"type":"disabled"}', {"type": "disabled"})]
)
def test_set_takes_json_or_else_text(given: str, sent: Any, bench: Bench) -> None:
    bench.run()
    bench.command("retry", "out", "--kind", "bad_request", "--set", given)
    assert bench.server.calls[-1].body["x"] == sent


@pytest.mark.parametrize("given", ["max_tokens", "=1", "messages=[]", "stream=true", "x=1e999"])
def test_set_refuses_what_it_cannot_set(given: str, bench: Bench) -> None:
    bench.run()
    before = len(bench.server.calls)
    assert (bench.command("retry", "out", "--set", given).code, len(bench.server.calls)) == (2, before)


@pytest.mark.parametrize("extra", [b"1e400", b"9" * 30, b"[" * 400 + b"]" * 400])
def test_whatever_the_refusal_held_its_item_is_tried_again(extra: bytes, bench: Bench) -> None:
    answers = [http(400, b'{"error":{"message":"no","x":' + extra + b"}}"), ok('{"分": 1}')]
    bench.server._script = lambda call: [answers[min(call.number, 2) - 1]]
    bench.prepare({"id": "a", "prompt": "1", "provider": {"body": {}}, "n": 12345678901234567890123})
    job = bench.folder / "job.toml"
    job.write_text(job.read_text().replace("[structured]", '[structured]\nmode = "prompt"'))  # asked in no other way
    assert bench.run().code == 3
    flags = ["--base-url", bench.server.base_url, "-m", "m-1", "--json"]
    other = bench.command("run", "-i", "out/failures.jsonl", "-o", "other", *flags)
    assert (other.code, other.json()["counts"]["results"]) == (0, 1)
    assert bench.command("retry", "out").code == 0
    assert bench.ids("results.jsonl") == ["a"]
    bench.verified()


def test_a_run_made_of_flags_can_be_retried(bench: Bench) -> None:
    flags = ["-i", "in.jsonl", "-o", "elsewhere", "--base-url", bench.server.base_url, "-m", "m-1"]
    assert bench.command("run", *flags).code == 3
    asked = len(bench.server.calls)
    assert bench.command("retry", "elsewhere", "--kind", "bad_request").code == 3
    assert [call.prompt for call in bench.server.calls[asked:]] == ["坏"]


def test_a_failure_queue_is_the_input_of_another_job(bench: Bench) -> None:
    bench.run()
    text = (bench.folder / "job.toml").read_text()
    text = text.replace("in.jsonl", "out/failures.jsonl").replace('"out"', '"again"') + "[params]\nmax_tokens = 500\n"
    (bench.folder / "other.toml").write_text(text)
    assert bench.command("run", "other.toml").code == 3
    assert {record["id"] for record in records(bench.folder / "again/results.jsonl")} == {"long-1", "long-2"}


@pytest.mark.parametrize("arguments", [["retry", "nowhere"], ["retry", "job.toml"], ["reparse", "job.toml"]])
def test_where_no_run_was_there_is_nothing_to_change(arguments: list[str], bench: Bench) -> None:
    assert bench.command(*arguments).code == 2
    assert not bench.out.exists()


# --- status -------------------------------------------------------------------------------------------------------


def test_status_counts_what_is_done_before_and_after_a_run(bench: Bench) -> None:
    before = bench.command("status", "job.toml", "--json").json()
    assert before["counts"] == {
        "items": 9, "results": 0, "failures": 0, "pending": 9, "in_flight": 0, "failures_by_kind": {},
    }  # fmt: skip
    bench.run()
    after = bench.command("status", "out", "--json").json()
    assert after["state"] == "finished"
    assert (after["counts"]["results"], after["counts"]["failures"], after["counts"]["pending"]) == (6, 3, 0)
    assert after["counts"]["failures_by_kind"] == {"bad_request": 1, "truncated": 2}
    assert after["tokens"]["prompt"] > 0
    assert after["cost"]["amount"] == pytest.approx(after["tokens"]["total"] / 1000)
    shown = bench.command("status", "job.toml").out
    assert "6 results, 3 failures, 0 pending" in shown
    assert "2 truncated" in shown


def test_status_does_not_call_new_items_done_because_old_ones_have_left_the_input(bench: Bench) -> None:
    bench.run()
    bench.prepare({"id": "new", "prompt": "1"})
    counts = bench.command("status", "job.toml", "--json").json()["counts"]
    assert (counts["items"], counts["results"], counts["pending"]) == (1, 6, None)
    shown = bench.command("status", "job.toml").out
    assert "6 results, 3 failures, an unknown number pending" in shown
    assert "`batchrun verify` tells what is pending" in shown
    assert "1 pending" in bench.command("verify", "job.toml").out


def test_status_and_verify_work_beside_a_run_which_others_cannot_join(bench: Bench) -> None:
    bench.prepare(*({"id": f"r-{n}", "prompt": str(n % 6)} for n in range(2000)))
    bench.delay = 0.1
    process = bench.start("run", "job.toml", "--concurrency", "4")
    try:
        until(lambda: (bench.out / "index").exists() and (bench.out / "index").read_bytes().count(b"\n") > 8)
        live = bench.command("status", "out", "--json").json()
        assert (live["state"], f"pid {process.pid}" in live["holder"]) == ("running", True)
        assert 0 < live["counts"]["results"] < 2000
        assert 1 <= live["counts"]["in_flight"] <= 4
        assert live["items_per_minute"] > 0
        assert live["eta_s"] > 0
        assert bench.command("verify", "out").code == 0
        for command in (["run", "job.toml"], ["retry", "out"], ["reparse", "out"]):
            refused = bench.command(*command)
            assert refused.code == 75
            assert str(process.pid) in refused.err
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
    bench.verified()
    assert "SIGTERM" in bench.command("status", "out").out


def test_calls_in_flight_at_a_crash_are_counted_and_kept(bench: Bench) -> None:
    bench.prepare(*({"id": f"r-{n}", "prompt": str(n % 6)} for n in range(40)))
    bench.command("run", "job.toml", "-o", "before", "--limit", "1")  # so that no item has to go first
    bench.delay = 30.0
    before = len(bench.server.calls)
    process = bench.start("run", "job.toml", "--concurrency", "4")
    until(lambda: len(bench.server.calls) == before + 4)
    process.kill()
    process.wait()
    bench.delay = 0.0
    killed = bench.command("status", "out", "--json").json()
    assert (killed["state"], killed["counts"]["in_flight"]) == ("ended by force", 4)
    bench.verified()
    ended = bench.run()
    assert ended.code == 0
    assert "4 calls were in flight, perhaps billed" in ended.err
    assert "36 were never sent" in ended.err
    manifest = json.loads((bench.out / "run.json").read_text())
    assert manifest["last_crash"] | {"noticed_at": ""} == {
        "noticed_at": "", "done": 0, "in_flight": 4, "never_sent": 36,
    }  # fmt: skip
    assert manifest["summary"]["interrupted_calls"] == {"found": 4, "left": 0, "ever": 4}
    bench.run()
    assert bench.command("status", "out", "--json").json()["interrupted_calls_ever"] == 4


# --- verify -------------------------------------------------------------------------------------------------------


def edit(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


TAMPERINGS = {
    "missing": ("results.jsonl", lambda lines: lines[:2] + lines[3:]),
    "missing failure": ("failures.jsonl", lambda lines: lines[1:]),
    "duplicated": ("results.jsonl", lambda lines: [*lines, lines[1]]),
    "duplicated failure": ("failures.jsonl", lambda lines: [*lines, lines[1]]),
    "foreign": ("results.jsonl", lambda lines: [*lines, lines[1].replace(b'"id":"r-', b'"id":"z-')]),
    "foreign junk": ("failures.jsonl", lambda lines: [*lines, b"a line of another program\n"]),
    "torn": ("results.jsonl", lambda lines: [*lines[:2], lines[2][:40] + b"\n", *lines[3:]]),
    "torn tail": ("results.jsonl", lambda lines: [*lines[:-1], lines[-1][:-9]]),
    "torn NULs": ("failures.jsonl", lambda lines: [*lines[:-1], b"\0" * len(lines[-1])]),
    "changed": ("results.jsonl", lambda lines: [lines[0].replace(b'"attempts":1', b'"attempts":2'), *lines[1:]]),
    "changed item": ("../in.jsonl", lambda lines: [lines[0].replace(b'"0"', b'"4"'), *lines[1:]]),
    "orphaned": ("../in.jsonl", lambda lines: lines[1:]),
}


@pytest.mark.parametrize("what", TAMPERINGS)
def test_verify_finds_and_names(what: str, bench: Bench) -> None:
    bench.run()
    bench.verified()
    name, change = TAMPERINGS[what]
    edit(bench.out / name, change)
    before = bench.contents()
    ended = bench.command("verify", "out")
    assert ended.code == 3
    fault = what.split()[0]
    assert any(line.startswith(fault) for line in ended.out.splitlines()), ended.out
    found = bench.command("verify", "job.toml", "--json")
    assert found.code == 3
    assert fault in {one["fault"] for one in found.json()["findings"]}
    assert bench.contents() == before


def test_verify_finds_an_item_in_both_files(bench: Bench) -> None:
    bench.run()
    failure = records(bench.out / "failures.jsonl")[0]
    edit(bench.out / "failures.jsonl", lambda lines: [*lines, json.dumps({**failure, "id": "r-1"}).encode() + b"\n"])
    ended = bench.command("verify", "out")
    assert ended.code == 3
    assert "duplicated" in ended.out
    assert "r-1" in ended.out


def test_what_a_crash_leaves_at_the_end_of_a_file_is_no_fault(bench: Bench) -> None:
    bench.run()
    whole = (bench.out / "results.jsonl").read_bytes()
    (bench.out / "results.jsonl").write_bytes(whole + whole[:70])
    assert bench.command("verify", "out").code == 0
    assert (bench.run().code, (bench.out / "results.jsonl").read_bytes()) == (3, whole)


def test_verify_escapes_what_it_repeats(bench: Bench) -> None:
    bench.prepare({"id": "a\x1b[31m\u202e", "prompt": "1"})
    bench.run()
    bench.prepare({"id": "a\x1b[31m\u202e", "prompt": "2"})
    ended = bench.command("verify", "out")
    assert ended.code == 3
    assert not set("\x1b\u202e") & set(ended.out)


def test_a_run_directory_that_was_moved_is_read_with_the_input_where_it_was(bench: Bench) -> None:
    bench.run()
    elsewhere = bench.folder / "elsewhere"
    elsewhere.mkdir()
    shutil.move(bench.out, elsewhere / "kept")
    assert bench.command("verify", "kept", cwd=elsewhere).code == 0
    assert bench.command("status", "kept", "--json", cwd=elsewhere).json()["counts"]["pending"] == 0


# --- reparse ------------------------------------------------------------------------------------------------------


def test_reparse_moves_what_the_schema_moves_and_back(bench: Bench) -> None:
    bench.run()
    asked = len(bench.server.calls)
    first = {record["id"]: record for record in records(bench.out / "results.jsonl")}
    bench.schema(3)
    assert bench.run().code == 2
    ended = bench.command("reparse", "job.toml", "--json")
    assert (ended.code, ended.json()["counts"]["results_that_failed"]) == (3, 2)
    assert bench.ids("results.jsonl") == ["r-0", "r-1", "r-2", "r-3"]
    failed = {record["id"]: record for record in records(bench.out / "failures.jsonl")}
    assert failed["r-5"]["error"]["kind"] == "invalid_output"
    assert failed["r-5"]["input"] == {"id": "r-5", "prompt": "5"}
    assert failed["r-5"]["provider"] == first["r-5"]["provider"]
    bench.verified()
    assert bench.run().code == 3
    bench.schema(5)
    assert bench.command("reparse", "out").code == 3
    second = {record["id"]: record for record in records(bench.out / "results.jsonl")}
    assert second.keys() == first.keys()
    for key, record in second.items():
        for name in ("output", "provider", "usage", "line", "fingerprint", "attempts"):
            assert record[name] == first[key][name], (key, name)
    assert second["r-5"]["warnings"] == ["reparsed"]
    bench.verified()
    for name in ("index", "journal"):
        (bench.out / name).unlink()
    assert (bench.run().code, len(bench.server.calls)) == (3, asked)
    bench.verified()


def test_reparse_with_nothing_to_change_changes_no_byte(bench: Bench) -> None:
    bench.run()
    bench.command("reparse", "job.toml")
    before = (bench.out / "results.jsonl").stat(), (bench.out / "failures.jsonl").stat()
    assert bench.command("reparse", "job.toml").code == 3
    assert ((bench.out / "results.jsonl").stat(), (bench.out / "failures.jsonl").stat()) == before


@pytest.mark.parametrize(
    "extra", [b"1e400", b"12345678901234567890123456", b'"\\u4e2d\xe4\xb8\xad\\/"', b'1,"x":2'],
    ids=["1e400", "26 digits", "escapes", "doubled key"],
)  # fmt: skip
def test_reparse_leaves_the_provider_body_byte_for_byte(extra: bytes, bench: Bench) -> None:
    answer = json.dumps(completion('{"分": 5}')).encode()[:-1] + b',"x":' + extra + b"}"
    bench.server._script = lambda call: [http(200, answer)]
    bench.prepare({"id": "a", "prompt": "5"})
    bench.run()
    body = (bench.out / "results.jsonl").read_bytes().partition(b'"body":')[2].rstrip(b"\n")
    bench.schema(3)
    assert bench.command("reparse", "job.toml").code == 3
    assert body in (bench.out / "failures.jsonl").read_bytes()
    bench.schema(5)
    assert bench.command("reparse", "job.toml").code == 0
    assert body in (bench.out / "results.jsonl").read_bytes()


def test_reparse_without_the_input_of_what_would_fail_changes_nothing(bench: Bench) -> None:
    bench.run()
    bench.schema(3)
    (bench.folder / "in.jsonl").unlink()
    before = bench.contents()
    ended = bench.command("reparse", "out")
    assert ended.code == 2
    assert "Traceback" not in ended.err
    assert bench.contents() == before


#: Copies the folder aside before each renaming: that is what a process killed there leaves.
COPYING = """
import shutil, sys
from pathlib import Path
folder, copies = Path(sys.argv.pop(1)).resolve(), Path(sys.argv.pop(1))

def watch(event, arguments):
    if event == "os.rename" and Path(str(arguments[0])).resolve().parent == folder:
        shutil.copytree(folder, copies / str(len(list(copies.iterdir()))))

sys.addaudithook(watch)
from batchrun.cli import main
main()
"""


def test_reparse_killed_at_any_renaming_leaves_all_of_the_old_or_all_of_the_new(bench: Bench) -> None:
    bench.run()
    bench.schema(3)
    old = bench.ids("results.jsonl")
    copies = bench.folder / "copies"
    copies.mkdir()
    subprocess.run(
        [sys.executable, "-c", COPYING, "out", copies, "reparse", "job.toml"], cwd=bench.folder, env=environment(),
        check=False, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    new = bench.ids("results.jsonl")
    seen = []
    for copy in sorted(copies.iterdir(), key=lambda path: int(path.name)):
        shutil.rmtree(bench.out)
        shutil.copytree(copy, bench.out)
        RunDirectory(bench.out).close()
        found = bench.ids("results.jsonl")
        assert found in (old, new)
        assert sorted([*found, *bench.ids("failures.jsonl")]) == sorted([*old, "bad", "long-1", "long-2"])
        assert {path.name for path in bench.out.iterdir()} <= {
            "results.jsonl", "failures.jsonl", "index", "journal", "pace", "run.json",
        }  # fmt: skip
        seen.append(found == new)
    assert seen == sorted(seen), "first all of the old, then all of the new"
    assert set(seen) == {False, True}


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("summary",), "all is well", "summary: expected an object, got a text"),
        (("summary", "counts", "pending"), "none", "summary.counts.pending: expected a whole number, got a text"),
        (("summary", "stopped"), [], "summary.stopped: expected an object, got a list"),
        (("accepted",), [3], "accepted[0]: expected an object, got a whole number"),
        (("data_boundary", "statements"), {}, "data_boundary.statements: expected a list, got an object"),
        (("job", "endpoint"), True, "job.endpoint: expected an object, got true or false"),
        (("job", "limits", "tokens_per_second"), "many", "job.limits.tokens_per_second: expected a number above zero"),
        (("job", "structured", "mode"), [], "job.structured.mode: expected one of"),
        (("job", "input"), 3, "job.input: expected a path, a glob, or a list of them"),
        ((), ["x"], "the whole: expected an object, got a list"),
    ],
    ids=lambda one: ".".join(one) if isinstance(one, tuple) else "",
)
def test_a_manifest_with_wrong_types_is_named_by_every_reader(
    place: tuple[str, ...], value: object, words: str, tmp_path: Path, batchrun: Callable[..., Ended]
) -> None:
    write_lines(tmp_path / "in.jsonl", {"id": "a", "prompt": "x"}, {"id": "b", "prompt": "y"})
    assert batchrun("run", "-i", "in.jsonl", "-o", "out", "--base-url", "http://127.0.0.1:9/v1", "-m", "m",
                    "--max-attempts", 1, "--limit", 1, "-q").code == 3  # fmt: skip
    path = tmp_path / "out" / "run.json"
    manifest: Any = json.loads(path.read_text())
    if place:
        table = manifest
        for key in place[:-1]:
            table = table[key]
        table[place[-1]] = value
    else:
        manifest = value
    path.write_text(json.dumps(manifest))
    before = {one.name: one.read_bytes() for one in (tmp_path / "out").iterdir()}
    for command in (["status"], ["report"], ["verify"], ["export"], ["retry"], ["reparse"], ["ctl"]):
        more = ["pause"] if command == ["ctl"] else []
        ended = batchrun(*command, "out", *more)
        assert (ended.code, ended.out) == (2, ""), (command, ended.err)
        assert f"out/run.json: {words}" in ended.err
        assert "Traceback" not in ended.err
    assert {one.name: one.read_bytes() for one in (tmp_path / "out").iterdir()} == before
