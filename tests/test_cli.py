"""The command line as a user, a script and cron meet it: real processes, signals, terminals and pipes."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from conftest import environment, records, write_lines

from batchrun.cli.explain import EXPLANATIONS
from batchrun.records import ErrorKind

COMMAND = [sys.executable, "-m", "batchrun"]
RESULT_KEYS = {"id", "line", "output", "finish_reason", "model", "usage", "attempts", "duration_s", "finished_at",
               "reasoning", "extraction", "fingerprint", "warnings", "provider"}  # fmt: skip
FAILURE_KEYS = {"id", "line", "error", "attempts", "usage", "finished_at", "input", "provider"}
USAGE_KEYS = {"prompt_tokens", "completion_tokens", "total_tokens"}


def until(condition, within_s: float = 20):
    """Poll until a condition holds; give what it gave."""
    end = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < end, "it did not come to pass in time"
        time.sleep(0.01)
    return value


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


@pytest.fixture
def job(tmp_path):
    """Write items and a job for an endpoint; give the arguments that run it."""

    def make(url: str, items: int = 20, extra: str = "") -> list[str]:
        write_lines(tmp_path / "input.jsonl", *({"id": f"读者-{n}", "prompt": f"第 {n} 条"} for n in range(items)))
        text = f'input = "input.jsonl"\noutput = "out"\n[endpoint]\nbase_url = "{url}"\nmodel = "m"\n{extra}\n'
        (tmp_path / "job.toml").write_text(text)
        return ["run", "job.toml"]

    return make


@pytest.fixture
def start(tmp_path):
    """Start the command and go on; what still runs at the end is killed."""
    processes = []

    def begin(*arguments, **options):
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)], cwd=tmp_path, env=environment(), stdin=subprocess.DEVNULL,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )  # fmt: skip
        processes.append(process)
        return process

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


# --- init and a first run ---


def test_what_init_writes_runs_as_it_is(batchrun, tmp_path):
    made = batchrun("init", "my-job")
    assert (made.code, made.err) == (0, "")
    names = {"job.toml", "input.jsonl", "schema.json", "env.example", ".gitignore"}
    assert {path.name for path in (tmp_path / "my-job").iterdir()} == names
    ran = batchrun("run", "job.toml", cwd=tmp_path / "my-job")
    assert ran.code == 0
    results = records(tmp_path / "my-job/runs/first/results.jsonl")
    assert {result["id"] for result in results} == {f"m-{number}" for number in range(1, 9)}
    assert all(result["output"].keys() == {"类别", "摘要", "需要回复"} for result in results)
    assert "simulated" in ran.err


@pytest.mark.parametrize("present", ["job.toml", ".gitignore"])
def test_init_overwrites_nothing_and_then_writes_nothing(batchrun, tmp_path, present):
    (tmp_path / present).write_text("mine")
    refused = batchrun("init")
    assert refused.code == 2
    assert f"{present} is there already; nothing was written" in refused.err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(present, "mine")]


def test_a_finished_run_says_what_it_did_on_standard_error_alone(batchrun, simulator, job):
    ended = batchrun(*job(simulator()))
    assert (ended.code, ended.out) == (0, "")
    assert "20 results, 0 failures, 0 pending" in ended.err


def test_version_and_help_are_data(batchrun):
    for arguments in (["--version"], ["run", "--help"], ["simulate", "--list-faults"]):
        ended = batchrun(*arguments)
        assert (ended.code, ended.err) == (0, "")
        assert ended.out


@pytest.mark.parametrize("arguments", [["walk"], ["run", "--nonsense"], ["run", "--max-attempts", "9" * 20]])
def test_wrong_usage_ends_with_2(batchrun, arguments):
    assert batchrun(*arguments).code == 2


# --- flags ---


def test_a_dry_run_counts_everything_and_sends_and_makes_nothing(batchrun, tmp_path):
    write_lines(tmp_path / "input", {"id": "a", "prompt": "x"}, {"id": "a", "prompt": "x"}, b"{", {"id": "\x1b[31m"})
    call = ["run", "-i", "input", "-o", "out", "--base-url", "https://host.invalid/v1", "--dry-run"]
    ended = batchrun(*call, "--json")
    assert ended.code == 3
    assert ended.json()["counts"] == {
        "items": 4, "ready": 1, "failures": 3, "failures_by_kind": {"duplicate_id": 1, "invalid_input": 2},
    }  # fmt: skip
    assert len(ended.json()["problems"]) == 3
    assert "nothing was sent" in ended.err
    assert "\x1b" not in ended.err
    assert batchrun(*call, "--limit", "1", "-q").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["input"]


def test_limit_takes_the_first_items_and_a_later_run_the_rest(batchrun, simulator, job, tmp_path):
    run = job(simulator())
    first = batchrun(*run, "--limit", "3", "--json")
    assert (first.code, first.json()["counts"]["results"]) == (0, 3)
    assert {result["line"] for result in records(tmp_path / "out/results.jsonl")} == {1, 2, 3}
    rest = batchrun(*run, "--json").json()["counts"]
    assert (rest["results"], rest["results_this_run"]) == (20, 17)


def test_json_on_standard_output_is_one_object_and_nothing_else(batchrun, simulator, job, tmp_path):
    ended = batchrun(*job(simulator(), extra='[price]\ncurrency = "EUR"\ninput = 1.0\noutput = 2.0'), "--json")
    assert ended.out.count("\n") == 1
    summary = ended.json()
    assert summary == json.loads((tmp_path / "out/run.json").read_text())["summary"]
    assert summary["exit_code"] == ended.code == 0
    assert summary["cost"]["currency"] == "EUR"
    assert summary["files"]["results"].endswith("out/results.jsonl")


def test_quiet_says_nothing_of_a_run_that_goes_well(batchrun, simulator, job):
    ended = batchrun(*job(simulator()), "-q")
    assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_quiet_still_says_what_stops_a_run(batchrun, simulator, job):
    ended = batchrun(*job(simulator("--fault", "unauthorized=1")), "-q")
    assert ended.code == 4
    assert "stopping" in ended.err


@pytest.mark.parametrize(("fault", "code"), [("slow=0", 0), ("bad_request=1", 3), ("unauthorized=1", 4)])
def test_every_line_of_the_json_log_is_an_object_with_time_event_and_message(batchrun, simulator, job, fault, code):
    ended = batchrun(*job(simulator("--fault", fault)), "--log-format", "json")
    assert ended.code == code
    lines = [json.loads(line) for line in ended.err.splitlines()]
    assert lines
    assert all({"time", "event", "message"} <= line.keys() for line in lines)
    assert lines[-1]["event"] == "finished"
    assert lines[-1]["summary"]["exit_code"] == code


def test_the_json_log_stays_json_whatever_a_name_holds(batchrun, simulator, job, tmp_path):
    job(simulator())
    folder = "a\x1b[31m\x85\u202e\u2028b"
    ended = batchrun("run", "job.toml", "-o", folder, "--log-format", "json")
    boundary, line = ended.err.split("\n")[:-1]
    assert json.loads(boundary)["event"] == "data_boundary"
    assert json.loads(line)["summary"]["files"]["results"] == f"{folder}/results.jsonl"
    assert not set("\x1b\x85\u202e\u2028") & set(ended.err)
    assert (tmp_path / folder / "results.jsonl").exists()


@pytest.mark.parametrize("arguments", [["-i", "none", "-o", "out"], ["-o", "out"], ["none.toml"]])
def test_a_refusal_is_json_too_where_the_log_is(batchrun, arguments):
    ended = batchrun("run", *arguments, "--base-url", "http://127.0.0.1:9/v1", "--log-format", "json")
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert json.loads(line)["event"] == "error"


# --- records and manifest ---


def test_every_record_has_the_keys_of_the_contract_and_readable_chinese(batchrun, simulator, job, tmp_path):
    url = simulator("--fault", "bad_request=0.3", "--fault", "content_filter_400=0.2", "--fault", "length=0.1")
    ended = batchrun(*job(url, items=60, extra="[retry]\nmax_attempts = 1"))
    assert ended.code == 3
    results, failures = records(tmp_path / "out/results.jsonl"), records(tmp_path / "out/failures.jsonl")
    assert len(results) + len(failures) == 60
    assert min(len(results), len(failures)) > 5
    for result in results:
        assert result.keys() == RESULT_KEYS
        assert result["usage"].keys() == USAGE_KEYS
        assert result["provider"].keys() == {"status", "headers", "body"}
        assert result["output"] == result["provider"]["body"]["choices"][0]["message"]["content"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", result["finished_at"])
    for failure in failures:
        assert failure.keys() == FAILURE_KEYS
        assert failure["error"].keys() == {"kind", "message", "http_status", "code", "advice"}
        assert failure["input"] == {"id": failure["id"], "prompt": f"第 {failure['line'] - 1} 条"}
    for name in ("results.jsonl", "failures.jsonl", "run.json"):
        text = (tmp_path / "out" / name).read_text("utf-8")
        assert not re.search(r"\\u[0-9a-f]{4}", text)
    assert "读者-1" in (tmp_path / "out/results.jsonl").read_text("utf-8")


def test_the_manifest_tells_job_input_versions_and_ending(batchrun, simulator, job, tmp_path):
    assert batchrun(*job(simulator("--fault", "bad_request=0.3"))).code == 3
    text = (tmp_path / "out/run.json").read_text("utf-8")
    manifest = json.loads(text)
    assert manifest["state"] == "finished"
    assert manifest["job"]["endpoint"]["model"] == "m"
    (described,) = manifest["input"]
    assert (described["path"], described["lines"]) == ("input.jsonl", 20)
    assert described["size"] == (tmp_path / "input.jsonl").stat().st_size
    assert manifest["versions"].keys() >= {"python", "batchrun"}
    counts = manifest["summary"]["counts"]
    assert counts["items"] == counts["results"] + counts["failures"] == 20
    assert counts["failures_by_kind"] == {"bad_request": counts["failures"]}
    assert manifest["summary"]["tokens"]["total"] > 0
    assert manifest["summary"]["timing"]["duration_s"] >= 0


def test_files_of_a_run_are_private(batchrun, simulator, job, tmp_path):
    assert batchrun(*job(simulator())).code == 0
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()} == {0o600}


# --- again, twice at once, stopped ---


@pytest.mark.parametrize("fault", ["slow=0", "bad_request=0.4"])
def test_a_second_run_sends_nothing_and_changes_no_byte(batchrun, simulator, job, tmp_path, fault):
    run = job(simulator("--fault", fault, "--ledger", tmp_path / "ledger"))
    first = batchrun(*run)
    before, calls = contents(tmp_path / "out"), records(tmp_path / "ledger")
    second = batchrun(*run, "--json")
    assert second.code == first.code
    assert second.json()["requests"]["attempts"] == 0
    assert contents(tmp_path / "out") == before
    assert records(tmp_path / "ledger") == calls


def test_an_empty_input_is_a_success_with_0_items(batchrun, tmp_path):
    (tmp_path / "input").write_bytes(b"\n\n")
    ended = batchrun("run", "-i", "input", "-o", "out", "-m", "m", "--base-url", "http://127.0.0.1:9/v1", "--json")
    assert (ended.code, ended.json()["counts"]["items"]) == (0, 0)


def test_a_second_run_beside_a_live_one_ends_with_75_and_names_the_holder(batchrun, simulator, job, start, tmp_path):
    run = job(simulator("--latency", "800ms"), items=60, extra="[limits]\nconcurrency = 10")
    first = start(*run)
    until(lambda: size(tmp_path / "out/results.jsonl"))
    began = time.monotonic()
    second = batchrun(*run)
    assert second.code == 75
    assert time.monotonic() - began < 5
    assert f"pid {first.pid}" in second.err
    assert second.out == ""
    first.communicate(timeout=30)
    assert first.returncode == 0
    assert len(records(tmp_path / "out/results.jsonl")) == 60


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 143)], ids=["term", "int", "hup"]
)
def test_a_signal_ends_a_run_in_order_and_the_same_command_finishes_it(
    batchrun, simulator, job, start, tmp_path, number, code
):
    ledger = tmp_path / "ledger"
    run = job(simulator("--latency", "100ms", "--ledger", ledger), items=120, extra="[limits]\nconcurrency = 10")
    process = start(*run, "--json")
    until(lambda: size(tmp_path / "out/results.jsonl"))
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert b"Traceback" not in err
    counts = json.loads(out)["counts"]
    done = records(tmp_path / "out/results.jsonl")
    assert 0 < len(done) < 120
    assert counts["results"] + counts["pending"] == counts["items"] == 120
    assert len(records(ledger)) == len(done) == counts["results"]  # what was in flight ended and was kept
    assert json.loads((tmp_path / "out/run.json").read_text())["state"] == "stopped"
    assert batchrun(*run).code == 0
    results = records(tmp_path / "out/results.jsonl")
    assert results[: len(done)] == done
    assert sorted(result["line"] for result in results) == list(range(1, 121))
    assert len(records(ledger)) == 120


def test_a_second_interrupt_ends_at_once(simulator, job, start, tmp_path):
    ledger = tmp_path / "ledger"
    run = job(simulator("--fault", "hang=1", "--ledger", ledger), items=5)
    process = start(*run, "--log-format", "json")
    until(lambda: (tmp_path / "out/run.json").exists())
    process.send_signal(signal.SIGINT)
    assert [json.loads(process.stderr.readline())["event"] for _ in range(2)] == ["data_boundary", "stopping"]
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130
    assert time.monotonic() - began < 3
    assert records(tmp_path / "out/failures.jsonl") == []


def test_a_key_that_is_refused_ends_with_4_and_blames_no_item(batchrun, simulator, job, tmp_path):
    run = job(simulator("--fault", "unauthorized=1"))
    ended = batchrun(*run, "--json")
    assert ended.code == 4
    summary = ended.json()
    assert summary["stopped"]["kind"] == "auth"
    assert (summary["counts"]["pending"], summary["counts"]["failures"], summary["counts"]["results"]) == (20, 0, 0)
    assert records(tmp_path / "out/failures.jsonl") == records(tmp_path / "out/results.jsonl") == []
    assert "the same command again" in ended.err
    job(simulator())
    assert batchrun(*run).code == 0


def test_failures_end_with_3_and_the_way_on(batchrun, simulator, job, tmp_path):
    ended = batchrun(*job(simulator("--fault", "bad_request=1")))
    assert ended.code == 3
    assert "20 bad_request" in ended.err
    again = re.search(r"batchrun (retry \S+)", ended.err)
    assert batchrun(*again.group(1).split()).code == 3
    job(simulator())
    assert batchrun("retry", "job.toml").code == 0
    assert len(records(tmp_path / "out/results.jsonl")) == 20
    assert records(tmp_path / "out/failures.jsonl") == []


# --- pipes, terminals, locales ---


@pytest.mark.parametrize("gone", ["stdout", "stderr"])
def test_a_reader_that_goes_away_does_not_stop_a_run(simulator, job, start, tmp_path, gone):
    run = job(simulator("--fault", "http_503=0.2"))
    reading, writing = os.pipe()
    os.close(reading)
    process = start(*run, "--json", **{gone: writing})
    os.close(writing)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert b"Traceback" not in (out or b"") + (err or b"")
    assert b"Exception" not in (err or b"")
    assert len(records(tmp_path / "out/results.jsonl")) == 20


@pytest.mark.parametrize("closed", ["0", "1", "2"])
def test_a_stream_that_is_closed_from_the_start_does_not_stop_a_run(simulator, job, tmp_path, closed):
    run = " ".join([*COMMAND, *job(simulator()), "--json"])
    process = subprocess.run(
        f"exec {run} {closed}>&-", shell=True, cwd=tmp_path, env=environment(), capture_output=True, check=False
    )
    assert b"Traceback" not in process.stderr
    assert process.returncode == 0
    assert len(records(tmp_path / "out/results.jsonl")) == 20


def test_a_full_disk_behind_standard_output_gives_no_traceback(simulator, job, start, tmp_path):
    with Path("/dev/full").open("wb") as full:
        process = start(*job(simulator()), "--json", stdout=full)
    _, err = process.communicate(timeout=30)
    assert b"Traceback" not in err
    assert len(records(tmp_path / "out/results.jsonl")) == 20


@pytest.mark.parametrize(
    "variables", [{}, {"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "ascii"}]
)
def test_utf_8_goes_in_and_out_in_any_locale(batchrun, simulator, tmp_path, variables):
    write_lines(tmp_path / "输入.jsonl", {"id": "读者", "评论": "好🙂"})
    flags = ["--prompt", "分析：{{ 评论 }}", "-m", "模型", "--base-url", simulator()]
    ended = batchrun("run", "-i", "输入.jsonl", "-o", "结果", *flags, "--json", **variables)
    assert ended.code == 0, ended.err
    assert ended.json()["files"]["results"] == "结果/results.jsonl"
    (result,) = records(tmp_path / "结果/results.jsonl")
    assert (result["id"], result["model"]) == ("读者", "模型")


def on_terminal(tmp_path, *arguments, columns: int = 150, **variables) -> tuple[int, str]:
    """Run the command on a terminal; give its exit code and all that the terminal got."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], cwd=tmp_path, env=environment(TERM="xterm", **variables),
        stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    shown += os.read(ours, 65536)
                except OSError:  # how Linux says that the other side is closed
                    break
        return process.wait(5), shown.decode()
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_terminal_gets_a_bar_with_done_and_total(simulator, job, tmp_path):
    run = job(simulator("--latency", "500ms"), items=12, extra="[limits]\nconcurrency = 4")
    code, shown = on_terminal(tmp_path, *run)
    assert code == 0
    assert re.search(r"\d+%\|[█▏▎▍▌▋▊▉ ]{100,}\| \d+/12 ", shown)  # as wide as the screen
    assert "in flight" in shown
    assert "12 results, 0 failures" in shown


def test_no_bar_where_there_is_no_terminal(batchrun, simulator, job):
    ended = batchrun(*job(simulator("--latency", "300ms")), TERM="xterm")
    assert "\r" not in ended.err
    assert "%|" not in ended.err


def test_a_terminal_gets_no_colours_with_no_color(simulator, job, tmp_path):
    code, shown = on_terminal(tmp_path, *job(simulator("--latency", "300ms")), NO_COLOR="1")
    assert code == 0
    assert not re.search(r"\x1b\[[0-9;]*m", shown)


def test_control_characters_of_an_id_never_reach_the_terminal(simulator, tmp_path):
    hostile = "\x1b]52;c;eA==\x07\x9b31m\u202egnp\u061c\r\n\x08"
    write_lines(
        tmp_path / "input", {"id": hostile, "prompt": "x"}, {"id": hostile, "prompt": "x"}, {"id": hostile + "2"}
    )
    url = simulator("--latency", "1s")
    _, shown = on_terminal(tmp_path, "run", "-i", "input", "-o", "out", "-m", "m", "--base-url", url)
    assert "gnp" in shown  # the slowest item is named, harmlessly
    _, rehearsed = on_terminal(tmp_path, "run", "-i", "input", "-o", "out", "--dry-run")
    assert "gnp" in rehearsed
    for text in (shown, rehearsed):
        assert "\x1b]52" not in text
        assert not set("\x07\x9b\u202e\u061c\x08") & set(text)
    assert {record["id"] for record in records(tmp_path / "out/failures.jsonl")} == {hostile, hostile + "2"}


def test_log_lines_replace_the_bar_on_a_terminal_when_asked_for(simulator, job, tmp_path):
    code, shown = on_terminal(tmp_path, *job(simulator()), "--log-format", "json")
    assert code == 0
    assert all(json.loads(line)["event"] for line in shown.split("\r\n") if line)


@pytest.mark.parametrize(
    "flags", [["--prompt", b"caf\xe9 {{ id }}"], ["-m", b"m\xe9"], ["-o", b"out\xe9"], ["--system", b"\xe9"]]
)
def test_a_flag_that_is_not_utf_8_is_refused(tmp_path, flags):
    write_lines(tmp_path / "input", {"id": "a", "prompt": "x"})
    call = [*COMMAND, "run", "-i", "input", "-o", "out", "-m", "m", "--base-url", "http://127.0.0.1:9/v1", *flags]
    process = subprocess.run(call, cwd=tmp_path, env=environment(), capture_output=True, timeout=30, check=False)
    assert process.returncode == 2
    assert b"holds bytes that are not UTF-8" in process.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["input"]


def test_an_input_file_whose_name_is_not_utf_8_is_read(batchrun, simulator, tmp_path):
    name = os.fsdecode("输入.jsonl".encode("gb18030"))
    write_lines(tmp_path / name, {"id": "a", "prompt": "x"})
    ended = batchrun("run", "-i", "*.jsonl", "-o", "out", "-m", "m", "--base-url", simulator())
    assert (ended.code, "Traceback" in ended.err) == (0, False)
    assert json.loads((tmp_path / "out/run.json").read_text())["summary"]["counts"]["results"] == 1


def test_no_id_is_taken_for_the_record_of_a_duplicate(batchrun, simulator, tmp_path):
    items = [{"id": "a", "prompt": "1"}, {"id": "a", "prompt": "2"}, {"id": "\x002", "prompt": "3"}]
    write_lines(tmp_path / "input", *items)
    call = ["run", "-i", "input", "-o", "out", "-m", "m", "--base-url", simulator()]
    batchrun(*call, "--limit", "2")
    batchrun(*call)
    assert {record["id"] for record in records(tmp_path / "out/results.jsonl")} == {"a", "\x002"}


def test_a_limit_is_reached_without_waiting_for_more_of_standard_input(simulator, tmp_path):
    command = ["run", "-i", "-", "-o", "out", "--base-url", simulator(), "-m", "m", "--limit", "2", "-q"]
    process = subprocess.Popen(
        [sys.executable, "-m", "batchrun", *command], stdin=subprocess.PIPE, cwd=tmp_path, env=environment()
    )
    assert process.stdin is not None
    with process.stdin:  # stays open: the sender has not finished
        process.stdin.write(b'{"id": "a", "prompt": "1"}\n{"id": "b", "prompt": "2"}\n')
        process.stdin.flush()
        assert process.wait(timeout=20) == 0
    assert {record["id"] for record in records(tmp_path / "out" / "results.jsonl")} == {"a", "b"}


# --- explain ---


def test_every_kind_is_explained(batchrun):
    assert set(EXPLANATIONS) == {kind.value for kind in ErrorKind}
    listed = batchrun("explain")
    assert [line.split()[0] for line in listed.out.splitlines()] == [kind.value for kind in ErrorKind]
    for kind in (ErrorKind.TRUNCATED, ErrorKind.TIMEOUT, ErrorKind.QUOTA):
        ended = batchrun("explain", kind.value)
        assert ended.code == 0
        assert "What helps" in ended.out
        assert max(map(len, ended.out.splitlines())) <= 100
    assert "stops the run (exit code 4)" in batchrun("explain", "quota").out.replace("\n  ", " ")
    wrong = batchrun("explain", "trunc")
    assert (wrong.code, "did you mean truncated?" in wrong.err) == (2, True)
