"""Servers that others wrote, installed from .ci/real-servers.txt and run as processes of their own."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from conftest import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def need(*modules: str) -> None:
    """Skip the tests without these modules; where they are what is checked, their absence is a failure."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if not missing:
        return
    reason = f"not installed: {', '.join(missing)} (pip install --no-deps -r .ci/real-servers.txt)"
    if os.environ.get("BATCHRUN_REAL_SERVERS") == "must":
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def until(condition: Callable[[], Any], within_s: float = 60) -> Any:
    """Poll until a condition holds; give what it gave."""
    end = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < end, "it did not come to pass in time"
        time.sleep(0.02)
    return value


def ask(url: str, body: Any = None, key: str | None = None) -> tuple[int, bytes]:
    """Send one request without batchrun; give status and body, and status 0 if nobody listens."""
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except urllib.error.URLError:
        return 0, b""


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a server; its standard output is a pipe, what it says on standard error goes to a file."""
    with log.open("wb") as said:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, env=environment(), text=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def wait_for(process: subprocess.Popen[str], url: str, log: Path) -> None:
    """Wait until an address answers 200."""

    def answers() -> bool:
        assert process.poll() is None, f"the server ended: {log.read_text(errors='replace')[-2000:]}"
        return ask(url)[0] == 200

    until(answers)
