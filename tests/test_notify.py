"""Who is told how a run ended, and what is measured of it."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import KEY, Ended, environment, write_lines
from kills import until
from scripted import Act, Drip, Scripted, always, completion, http, ok

JOB = """
input = "in.jsonl"
output = "out"
[endpoint]
base_url = "URL"
model = "m-1"
stream = false
[price]
input = 1000000.0
output = 500000.0
[notify]
"""

QUIETLY = 'command = "true"'


def write_job(folder: Path, server: Scripted, notify: str) -> None:
    write_lines(folder / "in.jsonl", *({"id": f"r-{number}", "prompt": f"问{number}"} for number in range(4)))
    (folder / "job.toml").write_text(JOB.replace("URL", server.base_url) + notify)


def metrics_of(path: Path) -> dict[str, Any]:
    """Read a file of metrics: a number for each, of items one for each state."""
    found: dict[str, Any] = {}
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            name, labels, value = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line).groups()
            if state := re.search(r'state="(\w+)"', labels):
                found.setdefault(name, {})[state[1]] = float(value)
            else:
                found[name] = float(value)
    return found


class Bench:
    def __init__(self, folder: Path, batchrun: Callable[..., Ended]) -> None:
        self.folder, self._command = folder, batchrun

    def run(self, server: Scripted, notify: str, *flags: object, **variables: str) -> Ended:
        write_job(self.folder, server, notify)
        return self._command("run", self.folder / "job.toml", "-q", *flags, OPENAI_API_KEY=KEY, **variables)


@pytest.fixture
def bench(tmp_path: Path, batchrun: Callable[..., Ended]) -> Bench:
    return Bench(tmp_path, batchrun)


@pytest.fixture
def good(serve: Callable[..., Scripted]) -> Scripted:
    return serve(always(ok("答")))


@pytest.fixture
def bad(serve: Callable[..., Scripted]) -> Scripted:
    return serve(lambda call: [http(200, completion("x", finish="length" if call.number == 1 else "stop"))])


def test_a_command_gets_the_summary_and_no_key_prompt_or_answer(bench: Bench, good: Scripted) -> None:
    ended = bench.run(good, 'command = "cat > told.json; env > told.env"')
    assert (ended.code, ended.err) == (0, "")
    told = json.loads((bench.folder / "told.json").read_text())
    assert told["summary"]["counts"]["results"] == 4
    assert told["text"].startswith(
        "batchrun job.toml: exit code 0\n4 results, 0 failures, 0 pending\ncost 16.0000 CNY\n"
    )
    assert told["job"] == str(bench.folder / "job.toml")
    for name in ("told.json", "told.env"):
        text = (bench.folder / name).read_text()
        assert KEY not in text
        assert "问" not in text
        assert "答" not in text


@pytest.mark.parametrize(("on", "times"), [("trouble", 0), ("always", 1)])
def test_a_good_end_is_told_where_that_is_wanted(on: str, times: int, bench: Bench, good: Scripted) -> None:
    bench.run(good, f'command = "echo x >> told"\non = "{on}"')
    told = bench.folder / "told"
    assert (len(told.read_text().splitlines()) if told.exists() else 0) == times


def test_trouble_is_told(bench: Bench, bad: Scripted) -> None:
    ended = bench.run(bad, 'command = "cat > told.json"\non = "trouble"')
    assert ended.code == 3
    assert "exit code 3\n3 results, 1 failures" in json.loads((bench.folder / "told.json").read_text())["text"]


@pytest.mark.parametrize(
    ("kind", "text_of"),
    [
        ("json", lambda body: body["text"]),
        ("dingtalk", lambda body: (body["msgtype"], body["text"]["content"])[1]),
        ("wecom", lambda body: (body["msgtype"], body["text"]["content"])[1]),
        ("feishu", lambda body: (body["msg_type"], body["content"]["text"])[1]),
    ],
)
def test_a_webhook_gets_what_its_robot_reads(
    kind: str, text_of: Callable[[Any], str], bench: Bench, good: Scripted, serve: Callable[..., Scripted]
) -> None:
    robot = serve(always(http(200, {"errcode": 0})))
    url = f"{robot.base_url}/robot/send?access_token=secret-token"
    ended = bench.run(good, f'webhook_env = "ROBOT"\nwebhook_format = "{kind}"', ROBOT=url)
    assert (ended.code, ended.err) == (0, "")
    (call,) = robot.calls
    assert (call.method, call.target) == ("POST", "/v1/robot/send?access_token=secret-token")
    assert "4 results, 0 failures" in text_of(call.body)
    for path in (bench.folder / "out").iterdir():
        assert b"secret-token" not in path.read_bytes()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (http(200, {"errcode": 310000, "errmsg": "keywords not in content"}), "code 310000"),
        (http(404), "HTTP 404"),
        (http(302, b"", "Location: http://127.0.0.1:9/"), "HTTP 302"),
        (b"no HTTP at all\r\n\r\n", "BadStatusLine"),
    ],
)
def test_a_webhook_that_takes_nothing_is_said_and_changes_no_exit_code(
    answer: bytes, words: str, bench: Bench, good: Scripted, serve: Callable[..., Scripted]
) -> None:
    robot = serve(always(answer))
    ended = bench.run(good, 'webhook_env = "ROBOT"', ROBOT=f"{robot.base_url}?token=secret-token")
    assert ended.code == 0
    assert f"notify: notify.webhook_env: the message was not taken: {words}" in ended.err
    assert "secret-token" not in ended.err


@pytest.mark.parametrize("first", [[http(502)], [http(429)], [Act.RESET]], ids=["502", "429", "reset"])
def test_a_webhook_that_has_a_bad_moment_is_asked_again(
    first: list[Any], bench: Bench, good: Scripted, serve: Callable[..., Scripted]
) -> None:
    robot = serve(lambda _: first if len(robot.calls) == 1 else [http(200, {"errcode": 0})])
    ended = bench.run(good, 'webhook_env = "ROBOT"', ROBOT=robot.base_url)
    assert (ended.code, ended.err) == (0, "")
    assert [call.body["summary"]["exit_code"] for call in robot.calls] == [0, 0]


@pytest.mark.parametrize(
    ("notify", "words"),
    [
        ('command = "echo no >&2; exit 7"', "notify.command ended with 7: no"),
        ('webhook_env = "NONE"', "notify.webhook_env: NONE holds no URL"),
    ],
)
def test_what_cannot_be_told_is_said(notify: str, words: str, bench: Bench, good: Scripted) -> None:
    ended = bench.run(good, notify)
    assert ended.code == 0
    assert words in ended.err


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:9/?token=secret-token", "Connection refused"),
        ("https://127.0.0.1:9/?token=secret-token", "Connection refused"),
        ("http://[::1/?token=secret-token", "ValueError"),
        ("http://127.0.0.1:x/?token=secret-token", "InvalidURL"),
    ],
)
def test_a_webhook_that_cannot_be_reached_is_said_without_its_url(
    url: str, words: str, bench: Bench, good: Scripted
) -> None:
    ended = bench.run(good, 'webhook_env = "ROBOT"', ROBOT=url)
    assert ended.code == 0
    assert ended.err.startswith("batchrun: notify: notify.webhook_env: ")
    assert words in ended.err
    assert "secret-token" not in ended.err


@pytest.mark.long
@pytest.mark.parametrize("action", [Act.HANG, Drip(b"HTTP/1.1 200 OK\r\nx: y", 1.0)], ids=["silent", "endless"])
def test_a_webhook_that_never_ends_its_answer_is_left(
    action: Any, bench: Bench, good: Scripted, serve: Callable[..., Scripted]
) -> None:
    ended = bench.run(good, 'webhook_env = "ROBOT"', ROBOT=serve(always(action)).base_url)
    assert ended.code == 0
    assert ended.err == "batchrun: notify: notify.webhook_env: the message was not taken: no answer within 20 s\n"


@pytest.mark.long
@pytest.mark.timeout(120)
def test_a_command_that_hangs_is_killed_with_what_it_started(bench: Bench, good: Scripted) -> None:
    write_job(bench.folder, good, 'command = "sleep 1000 & echo $! > pid; wait"')
    command = [sys.executable, "-m", "batchrun", "run", bench.folder / "job.toml", "-q"]
    ended = subprocess.run(
        command, cwd=bench.folder, env=environment(OPENAI_API_KEY=KEY), capture_output=True, text=True, check=False
    )
    assert (ended.returncode, "did not end within 60 s, and was killed" in ended.stderr) == (0, True)
    state = Path(f"/proc/{int((bench.folder / 'pid').read_text())}/stat")
    until(lambda: not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z")


def test_metrics_are_what_the_textfile_collector_reads(bench: Bench, bad: Scripted) -> None:
    path = bench.folder / "batchrun.prom"
    ended = bench.run(bad, 'command = "true"', "--metrics-file", path)
    assert ended.code == 3
    lines = path.read_text().splitlines()
    shape = re.compile(r'[a-z_]+\{job_file="[^"]+"(,[a-z]+="[^"]*")*\} -?[0-9.e+]+')
    values = {line.partition("{")[0] + line.partition("}")[2]: line for line in lines if not line.startswith("#")}
    assert all(shape.fullmatch(line) for line in values.values())
    assert {"batchrun_running 0", "batchrun_exit_code 3", "batchrun_requests_total 4"} <= set(values)
    assert any('state="failure"} 1' in line for line in lines)
    for name in {line.partition("{")[0] for line in values.values()}:
        assert any(line.startswith(f"# TYPE {name} ") for line in lines)
    assert not path.with_name("batchrun.prom.new").exists()


@pytest.mark.parametrize("on", ["trouble", "always"])
def test_a_run_that_is_refused_is_told_and_measured(on: str, bench: Bench, good: Scripted) -> None:
    metrics = bench.folder / "batchrun.prom"
    bench.run(good, QUIETLY, "--metrics-file", metrics)
    ended = bench.run(good, f'command = "cat > told.json"\non = "{on}"', "--metrics-file", metrics, "-i", "gone.jsonl")
    assert (ended.code, ended.err) == (2, "batchrun: input: gone.jsonl: no such file\n")
    told = json.loads((bench.folder / "told.json").read_text())
    assert told["text"].startswith("batchrun job.toml: exit code 2\nstopped: input: gone.jsonl: no such file\n")
    assert told["summary"]["exit_code"] == 2
    assert metrics_of(metrics)["batchrun_running"] == 0
    assert metrics_of(metrics)["batchrun_exit_code"] == 2


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("[limits]\nconcurency = 3\n", "limits.concurency: unknown key"),
        ('[retry]\nwait_max = "soon"\n', "retry.wait_max: expected"),
        ("[prompt]\nuser = '{{ text'\n", "template"),
        ("[structured]\nschema = 'none.json'\n", "none.json"),
    ],
    ids=["an unknown key", "a wrong value", "a template", "no schema"],
)
def test_a_job_of_which_no_run_can_be_made_is_told(more: str, words: str, bench: Bench, good: Scripted) -> None:
    ended = bench.run(good, f'command = "cat > told.json"\non = "trouble"\n{more}')
    assert (ended.code, good.calls) == (2, [])
    told = json.loads((bench.folder / "told.json").read_text())
    assert told["summary"]["exit_code"] == 2
    assert words in told["summary"]["stopped"]["message"]
    assert words in ended.err


@pytest.mark.parametrize(
    ("more", "flags"),
    [("[limits]\nrpm = 3\n", ["--dry-run"]), ("webhook = 3\n", []), ("[[[\n", [])],
    ids=["a rehearsal", "a wrong notify", "no TOML"],
)
def test_nobody_is_told_of_a_rehearsal_or_where_it_cannot_be_read_whom(
    more: str, flags: list[str], bench: Bench, good: Scripted
) -> None:
    assert bench.run(good, f'command = "cat > told.json"\n{more}', *flags).code == 2
    assert not (bench.folder / "told.json").exists()


def test_a_run_without_its_env_file_is_told_by_a_command_of_the_jobs_folder(
    bench: Bench, good: Scripted, batchrun: Callable[..., Ended], tmp_path_factory: pytest.TempPathFactory
) -> None:
    write_job(bench.folder, good, 'command = "./tell"')
    job = bench.folder / "job.toml"
    job.write_text(job.read_text().replace("[endpoint]", 'env_file = "gone"\n[endpoint]', 1))
    (bench.folder / "tell").write_text("#!/bin/sh\ncat > told.json\n")
    (bench.folder / "tell").chmod(0o755)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    ended = batchrun("run", job, "-q", cwd=elsewhere)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "gone: cannot be read" in json.loads((bench.folder / "told.json").read_text())["text"]
    assert list(elsewhere.iterdir()) == []


def test_a_retry_of_a_run_directory_is_told_and_measured_as_a_run_of_its_job(
    bench: Bench, bad: Scripted, batchrun: Callable[..., Ended], tmp_path_factory: pytest.TempPathFactory
) -> None:
    bench.run(bad, 'command = "cat > told.json"')
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    command = ("retry", bench.folder / "out", "-q", "--metrics-file", "m.prom")
    assert batchrun(*command, cwd=elsewhere, OPENAI_API_KEY=KEY).code == 0
    told = json.loads((bench.folder / "told.json").read_text())
    assert (told["job"], told["summary"]["exit_code"]) == (str(bench.folder / "job.toml"), 0)
    assert f'batchrun_exit_code{{job_file="{bench.folder}/job.toml"}} 0' in (elsewhere / "m.prom").read_text()
    assert json.loads((bench.folder / "out/run.json").read_text())["job_file"] == str(bench.folder / "job.toml")


def test_a_start_beside_a_run_tells_nobody_and_leaves_its_metrics_alone(bench: Bench, good: Scripted) -> None:
    metrics = bench.folder / "batchrun.prom"
    bench.run(good, QUIETLY, "--metrics-file", metrics)
    before = metrics.read_bytes()
    folder = os.open(bench.folder / "out", os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        ended = bench.run(good, 'command = "echo x >> told"', "--metrics-file", metrics)
    finally:
        os.close(folder)
    assert (ended.code, ended.err) == (75, "")
    assert metrics.read_bytes() == before
    assert not (bench.folder / "told").exists()


def test_a_killed_run_leaves_what_is_known_of_the_one_before_and_counts_the_folder(
    bench: Bench, good: Scripted, serve: Callable[..., Scripted]
) -> None:
    metrics = bench.folder / "batchrun.prom"
    bench.run(good, QUIETLY, "--metrics-file", metrics, "--limit", "3")
    before = metrics_of(metrics)
    with metrics.open("a") as file:
        file.write('batchrun_exit_code{job_file="/another/job.toml"} 4\n')
    silent = serve(always(Act.HANG))
    write_job(bench.folder, silent, QUIETLY)
    command = [sys.executable, "-m", "batchrun", "run", bench.folder / "job.toml", "-q", "--metrics-file", metrics]
    with subprocess.Popen(command, cwd=bench.folder, env=environment(OPENAI_API_KEY=KEY)) as process:
        until(lambda: metrics_of(metrics)["batchrun_running"] == 1)
        process.kill()
    now = metrics_of(metrics)
    assert now["batchrun_items"] == {"result": 3, "failure": 0}
    for name in ("batchrun_exit_code", "batchrun_finished_timestamp_seconds", "batchrun_duration_seconds"):
        assert now[name] == before[name]


def test_metrics_that_cannot_be_written_are_refused_before_anything_is_sent(bench: Bench, good: Scripted) -> None:
    ended = bench.run(good, 'command = "true"', "--metrics-file", bench.folder / "none" / "batchrun.prom")
    assert ended.code == 2
    assert "--metrics-file" in ended.err
    assert not good.calls
