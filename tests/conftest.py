"""What the tests share: the installed command as a real process, and a simulated provider as another."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from certificates import Authority
from hypothesis import HealthCheck, settings
from scripted import Scripted

from batchrun import Endpoint, Job, Limits, Retry, Structured, Summary, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parent.parent

# Tests run side by side: how long an example takes says nothing.
settings.register_profile("busy", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Give standard output, which must be one JSON value."""
        return json.loads(self.out)


def environment(**variables: str) -> dict[str, str]:
    """Give a bare environment, as cron does: no key, no proxy, no locale, no colours."""
    return {"PATH": os.environ["PATH"], "XDG_DATA_HOME": os.environ.get("XDG_DATA_HOME", _data_home()), **variables}


def hearing_sigint() -> None:
    """Hear SIGINT, which who starts tests in the background has switched off."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@cache
def _data_home() -> str:
    """Give a folder for the profiles of this process, so that the user's own are left alone."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return folder.name


@pytest.fixture(autouse=True)
def data_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test profiles of its own."""
    folder = tmp_path_factory.mktemp("data")
    monkeypatch.setenv("XDG_DATA_HOME", str(folder))
    return folder


def records(path: Path) -> list[dict[str, Any]]:
    """Read a JSON Lines file; every line must be whole."""
    data = path.read_bytes()
    assert not data or data.endswith(b"\n"), f"{path} has a torn last line"
    return [json.loads(line) for line in data.split(b"\n")[:-1]]


def write_lines(path: Path, *items: Any) -> Path:
    """Write items as JSON Lines; bytes go in as they are."""
    lines = [item if isinstance(item, bytes) else json.dumps(item, ensure_ascii=False).encode() for item in items]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


@pytest.fixture
def batchrun(tmp_path: Path) -> Callable[..., Ended]:
    """Run the command in a process of its own, in an empty folder, and give how it ended."""

    def call(*arguments: object, stdin: bytes | None = None, cwd: Path = tmp_path, **variables: str) -> Ended:
        process = subprocess.run(
            [sys.executable, "-m", "batchrun", *map(str, arguments)],
            input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL, capture_output=True, cwd=cwd,
            env=environment(**variables), timeout=150, check=False,
        )  # fmt: skip
        return Ended(process.returncode, process.stdout.decode(), process.stderr.decode())

    return call


def measured(folder: Path, *arguments: object) -> tuple[int, int]:
    """Run the command in a folder; give its exit code and its peak resident memory in bytes."""
    report = folder / "peak-memory"
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "peak.py"), str(report), *map(str, arguments)],
        cwd=folder, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, int(report.read_text())


@pytest.fixture
def simulator() -> Iterator[Callable[..., str]]:
    """Start simulated providers in processes of their own; each call gives a base URL."""
    processes = []

    def start(*flags: object) -> str:
        process = subprocess.Popen(
            [sys.executable, "-m", "batchrun", "simulate", "--port", "0", *map(str, flags)],
            stdout=subprocess.PIPE, env=environment(), text=True,
        )  # fmt: skip
        processes.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "http://" in line, f"the simulated provider did not start: {line!r}"
        return next(word for word in line.split() if word.startswith("http://"))

    yield start
    for process in processes:
        process.terminate()
    for process in processes:
        process.communicate(timeout=10)


@pytest.fixture
def endpoint() -> Iterator[tuple[str, list[tuple[str | None, bytes]]]]:
    """An endpoint that keeps what it was asked; gives its URL and (Authorization, body) of every request."""
    asked: list[tuple[str | None, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            asked.append((self.headers.get("authorization"), body))
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "好"}}
            answer = json.dumps({"object": "chat.completion", "model": "m", "choices": [choice]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
        server.shutdown()
        thread.join()


KEY = "sk-made+up/0123456789-abcdef"
QUICK = Retry(wait_initial=0.02, wait_max=0.05, attempt_timeout=20.0, max_outage=3.0)


@dataclass
class Ran:
    summary: Summary
    results: list[dict[str, Any]]
    failures: list[dict[str, Any]]

    @property
    def failed_attempts(self) -> dict[str, int]:
        return dict(self.summary.tally.failed_attempts)


@pytest.fixture
def serve() -> Iterator[Callable[..., Scripted]]:
    with ExitStack() as stack:
        yield lambda script, **options: stack.enter_context(Scripted(script, **options))


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Run a job of some items against a server, in this process."""

    def call(
        server: Scripted | str, items: int | list[str] = 1, *, key: str | None = KEY, retry: Retry = QUICK,
        concurrency: int = 4, rpm: float | None = None, tpm: float | None = None, structured: Structured | None = None,
        params: dict[str, Any] | None = None, **endpoint: Any,
    ) -> Ran:  # fmt: skip
        prompts = [f"p{number}" for number in range(items)] if isinstance(items, int) else items
        path = write_lines(tmp_path / "in.jsonl", *({"id": prompt, "prompt": prompt} for prompt in prompts))
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        if key is not None:
            monkeypatch.setenv("OPENAI_API_KEY", key)
        base_url = server if isinstance(server, str) else server.base_url
        job = Job(
            (str(path),), tmp_path / "out", endpoint=Endpoint(base_url, **{"model": "m-1", **endpoint}), retry=retry,
            limits=Limits(concurrency, rpm, tpm), structured=structured or Structured(), params=params or {},
        )  # fmt: skip
        summary = run(job)
        return Ran(summary, records(summary.results_path), records(summary.failures_path))

    return call


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here")
    return Authority(tmp_path_factory.mktemp("authority"))
