"""A live run is paused, resumed and slowed down from outside, by its own user alone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended, environment, records, write_lines
from scripted import Scripted, Wait, ok
from servers import until

JOB = """
input = "in.jsonl"
output = "OUT"
[endpoint]
base_url = "URL"
model = "m-1"
[limits]
concurrency = 2
"""


class Live:
    """A run of 400 items, two at a time, 20 ms each."""

    def __init__(self, folder: Path, server: Scripted, command: Callable[..., Ended], more: str = "") -> None:
        self.folder, self.server, self.command = folder, server, command
        self.out = folder / ("long-name-" * 12) / "out"  # longer than the path of a socket may be
        self.out.parent.mkdir()
        write_lines(folder / "in.jsonl", *({"id": f"r-{number}", "prompt": f"p{number}"} for number in range(400)))
        (folder / "job.toml").write_text(JOB.replace("URL", server.base_url).replace("OUT", str(self.out)) + more)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "batchrun", "run", "job.toml", "--log-format", "json"],
            cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        until(lambda: len(server.calls) > 10)

    def ctl(self, *words: str) -> Ended:
        return self.command("ctl", self.out, *words)

    def calls_within(self, seconds: float) -> int:
        before = len(self.server.calls)
        time.sleep(seconds)
        return len(self.server.calls) - before


@pytest.fixture
def live(tmp_path: Path, serve: Any, batchrun: Any) -> Iterator[Live]:
    live = Live(tmp_path, serve(lambda call: [Wait(0.02), ok()]), batchrun)
    with live.process:
        yield live
        live.process.kill()


def test_a_paused_run_sends_nothing_and_a_resumed_one_ends(live: Live) -> None:
    ended = live.ctl("pause")
    assert (ended.code, ended.out.split(":")[0]) == (0, "paused")
    time.sleep(0.3)
    assert live.calls_within(1.0) == 0
    assert live.process.poll() is None
    assert live.ctl("resume").code == 0
    assert live.process.wait(60) == 0
    assert len(records(live.out / "results.jsonl")) == 400
    events = [json.loads(line) for line in live.process.stderr.read().splitlines()]
    assert [one["message"].split(":")[0] for one in events if one["event"] == "control"] == ["paused", "resumed"]
    assert {path.name for path in live.out.iterdir()} == {
        "failures.jsonl", "index", "journal", "pace", "results.jsonl", "run.json",
    }  # fmt: skip


def test_limits_are_changed_without_a_restart(live: Live) -> None:
    assert live.ctl("set", "rpm=120").out == "set rpm = 120.0\n"
    time.sleep(1.0)
    assert live.calls_within(2.0) <= 5
    assert live.ctl("set", "requests_per_minute=60000", "concurrency=8").code == 0
    until(lambda: max(call.together for call in live.server.calls[-20:]) == 8)
    assert live.process.wait(60) == 0


@pytest.fixture
def paying(tmp_path: Path, serve: Any, batchrun: Any) -> Iterator[Live]:
    """A run that may spend 200; each of its answers costs 1."""
    more = """[params]
max_tokens = 2
[budget]
max_cost = 200
[price]
input = 0.0
output = 500000.0
"""
    live = Live(tmp_path, serve(lambda call: [Wait(0.05), ok()]), batchrun, more)
    with live.process:
        yield live
        live.process.kill()


@pytest.mark.parametrize(("most", "code", "results"), [(160, 5, 160), (300.5, 5, 300), (400, 0, 400)])
def test_what_a_run_may_spend_is_lowered_and_raised(most: float, code: int, results: int, paying: Live) -> None:
    assert paying.ctl("pause").code == 0
    assert (
        paying.ctl("set", f"max_cost={most}", "concurrency=8").out == f"set max_cost = {float(most)}, concurrency = 8\n"
    )
    assert paying.ctl("resume").code == 0
    assert paying.process.wait(60) == code
    assert len(records(paying.out / "results.jsonl")) == results


def test_less_than_was_spent_already_ends_the_run(paying: Live) -> None:
    until(lambda: len(paying.server.calls) > 30)
    assert paying.ctl("set", "max_cost=1").code == 0
    assert paying.process.wait(60) == 5
    assert 25 < len(records(paying.out / "results.jsonl")) < 200
    assert json.loads((paying.out / "run.json").read_text())["summary"]["stopped"]["message"].endswith(
        "(budget.max_cost)"
    )


def test_a_paused_run_stops_in_good_order(live: Live) -> None:
    assert live.ctl("pause").code == 0
    live.process.send_signal(signal.SIGTERM)
    assert live.process.wait(20) == 143


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["set", "rpm=0"], "rpm: expected a number above zero, got '0'"),
        (["set", "rpm=fast"], "rpm: expected a number above zero"),
        (["set", "model=x"], "model: cannot be set on a live run; concurrency, max_cost, requests_per_minute"),
        (["set", "concurrency=0"], "concurrency: expected"),
        (["set"], "set takes one or more of rpm=N"),
        (["set", "rpm"], "set takes one or more of rpm=N"),
        (["set", "max_cost=30"], "max_cost: this run was begun without budget.max_cost"),
        (["set", "max_cost=-1"], "max_cost: expected a number above zero"),
        (["pause", "now"], "pause takes no values"),
        (["stop"], "'stop' is not one of"),
    ],
)
def test_what_cannot_be_done_is_refused_and_the_run_goes_on(words: list[str], said: str, live: Live) -> None:
    ended = live.ctl(*words)
    assert (ended.code, said in ended.err) == (2, True), ended.err
    assert live.process.poll() is None


def address(folder: Path) -> str:
    status = folder.stat()
    return f"\0batchrun-{status.st_dev:x}-{status.st_ino:x}"


def test_garbage_does_the_run_no_harm(live: Live) -> None:
    for garbage in (b"", b"\n", b"[]\n", b"\xff\xfe\n", b'{"do": "set", "values": []}\n', b"x" * 100_000 + b"\n"):
        with socket.socket(socket.AF_UNIX) as connection, contextlib.suppress(ConnectionError):
            connection.connect(address(live.out))
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            assert b"error" in connection.recv(1000)
    assert live.ctl("pause").code == 0
    assert live.ctl("resume").code == 0
    assert live.process.wait(60) == 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_nobody_else_can_steer_a_run(live: Live) -> None:
    said = "import json, os, socket; os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.connect(ADDRESS); "
    said += "s.sendall(json.dumps({'do': 'pause'}).encode() + b'\\n'); print(s.recv(1000).decode())"
    done = subprocess.run(
        [sys.executable, "-c", said.replace("ADDRESS", repr(address(live.out)))],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "this run is somebody else's" in done.stdout
    assert live.process.wait(60) == 0


def test_without_a_run_there_is_nothing_to_steer(live: Live) -> None:
    live.process.kill()
    live.process.wait()
    ended = live.ctl("pause")
    assert (ended.code, "no run is going there that could be steered" in ended.err) == (2, True)
    assert live.command("run", "job.toml").code == 0
