from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson
import pytest

from batchrun.simulator import Simulator, SimulatorSettings


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    asyncio.run(pyfuncitem.obj(**arguments))
    return True


@dataclass
class Got:
    status: int
    headers: Any
    raw: bytes

    @property
    def body(self) -> Any:
        return orjson.loads(self.raw)

    @property
    def content(self) -> Any:
        return self.body["choices"][0]["message"]["content"]


@dataclass
class Provider:
    """A running simulator with two clients: aiohttp, and bytes on a socket."""

    simulator: Simulator
    session: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return self.simulator.base_url

    @property
    def origin(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def chat_path(self) -> str:
        return f"{urlsplit(self.url).path}/chat/completions"

    async def call(self, method: str, path: str, **options: Any) -> Got:
        async with self.session.request(method, self.origin + path, **options) as response:
            return Got(response.status, response.headers, await response.read())

    async def chat(self, prompt: str = "请写一个摘要：今天天气很好。", **fields: Any) -> Got:
        body = {"model": "test-model", "messages": [{"role": "user", "content": prompt}], **fields}
        return await self.call("POST", self.chat_path, data=BytesIO(orjson.dumps(body)))

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> None:
        """Let everything run until the counts are as wanted."""
        while not condition(self.simulator.stats):  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def raw(self, prompt: str = "你好", **fields: Any) -> tuple[bytes, bool]:
        """Send a chat, read to the end; tell whether the connection was reset."""
        body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": prompt}], **fields})
        address = urlsplit(self.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        head = f"POST {self.chat_path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
        received = bytearray()
        was_reset = False
        try:
            while data := await reader.read(65536):
                received += data
        except ConnectionResetError:
            was_reset = True
        writer.close()
        return bytes(received), was_reset


def events(raw: bytes) -> list[Any]:
    """Take a complete event stream apart; the last event is [DONE]."""
    parts = [part for part in raw.decode().split("\n\n") if not part.startswith(":")]
    assert parts[-2:] == ["data: [DONE]", ""]
    return [orjson.loads(part.removeprefix("data: ")) for part in parts[:-2]]


@pytest.fixture(name="events")
def events_fixture() -> Callable[[bytes], list[Any]]:
    return events


@pytest.fixture
def provider() -> Callable[..., Any]:
    @asynccontextmanager
    async def run(**settings: Any) -> AsyncIterator[Provider]:
        async with (
            Simulator(SimulatorSettings(**settings)) as simulator,
            aiohttp.ClientSession() as session,
            asyncio.timeout(10),
        ):
            yield Provider(simulator, session)

    return run
