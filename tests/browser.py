"""A headless Chromium, driven over its DevTools protocol: how a page looks, what it loads, what it complains of."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from servers import until

if TYPE_CHECKING:
    from collections.abc import Iterator

#: In the order of preference: Debian's packages chromium-headless-shell and chromium, then what others call it.
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "headless_shell")


def find_chromium() -> str | None:
    """Give the path of a Chromium, None if there is none here."""
    named = os.environ.get("BATCHRUN_CHROMIUM")
    return named or next((path for name in NAMES if (path := shutil.which(name))), None)


def need_chromium() -> None:
    """Skip the test without a browser; where its absence is to be noticed, fail."""
    if find_chromium() is None:
        reason = "no Chromium here (Debian: apt-get install chromium-headless-shell fonts-noto-cjk)"
        if os.environ.get("BATCHRUN_BROWSER") == "must":
            pytest.fail(reason)
        pytest.skip(reason)


@dataclass
class Look:
    """What a browser made of a page; `requests` are the addresses that it asked for, the page itself included."""

    png: bytes = b""
    width: int = 0
    scroll_width: int = 0
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    value: Any = None


def look(page: Path, *, width: int = 1280, dark: bool = False, ask: str = "null", phone: bool = False) -> Look:
    """Open a file at a width in CSS pixels; give its whole length as a PNG, and the value of an expression."""
    with _running() as address:
        return asyncio.run(_look(address, page, width, dark=dark, ask=ask, phone=phone))


@contextmanager
def _running() -> Iterator[str]:
    chromium = find_chromium()
    assert chromium is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
            "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip
        # A session of its own: the command is a script in some packages, and the browser has many processes.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            told = Path(profile) / "DevToolsActivePort"
            until(lambda: told.exists() and told.read_text().count("\n"))
            port, path = told.read_text().splitlines()
            yield f"ws://127.0.0.1:{port}{path}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class _Tab:
    """One tab of the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self.session: str | None = None
        self.events: list[dict[str, Any]] = []

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        await self._socket.send_json(message | ({"sessionId": self.session} if self.session else {}))
        while True:
            came = await self._socket.receive_json()
            if came.get("id") == self._number:
                assert "error" not in came, came
                return came["result"]
            self.events.append(came)

    async def until(self, method: str) -> None:
        while not any(one.get("method") == method for one in self.events):
            self.events.append(await self._socket.receive_json())


async def _look(address: str, page: Path, width: int, *, dark: bool, ask: str, phone: bool) -> Look:
    async with (
        asyncio.timeout(60),
        aiohttp.ClientSession() as client,
        client.ws_connect(address, max_msg_size=0) as socket,
    ):
        tab = _Tab(socket)
        target = (await tab.call("Target.createTarget", url="about:blank"))["targetId"]
        tab.session = (await tab.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            await tab.call(f"{domain}.enable")
        await tab.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await tab.call("Emulation.setEmulatedMedia", features=[scheme])
        await tab.call("Page.navigate", url=page.as_uri())
        await tab.until("Page.loadEventFired")
        found = Look()
        sizes = await _value(tab, "[innerWidth, document.scrollingElement.scrollWidth]")
        found.width, found.scroll_width = sizes
        found.value = await _value(tab, ask)
        shot = await tab.call("Page.captureScreenshot", captureBeyondViewport=True)
        found.png = base64.b64decode(shot["data"])
        for event in tab.events:
            _note(found, event)
        return found


async def _value(tab: _Tab, expression: str) -> Any:
    return (await tab.call("Runtime.evaluate", expression=expression, returnByValue=True))["result"].get("value")


def _note(found: Look, event: dict[str, Any]) -> None:
    method, params = event.get("method"), event.get("params", {})
    if method == "Network.requestWillBeSent":
        found.requests.append(params["request"]["url"])
    elif method == "Log.entryAdded":
        found.complaints.append(params["entry"]["text"])
    elif method == "Runtime.consoleAPICalled":
        found.complaints.append(str(params["args"]))
    elif method == "Runtime.exceptionThrown":
        found.complaints.append(str(params["exceptionDetails"]))
