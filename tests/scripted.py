"""A scripted server: exact bytes and bad manners on a real socket, and an account of what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Self


class Act(Enum):
    """What ends a connection."""

    CLOSE = "close it in good order"
    RESET = "reset it"
    HANG = "say nothing until the client leaves"


@dataclass(frozen=True)
class Wait:
    """Say nothing for so long."""

    seconds: float


@dataclass(frozen=True)
class Drip:
    """Send a piece again and again until the client leaves."""

    piece: bytes
    every_s: float


Action = bytes | Act | Wait | Drip


@dataclass
class Call:
    """One request as it came in; the first call has number 1, so has the first for its prompt ("" if it has none)."""

    number: int
    attempt: int
    connection: int
    on_connection: int
    method: str
    target: str
    headers: list[tuple[str, str]]
    raw: bytes
    prompt: str
    at: float
    together: int = 0
    same_together: int = 0
    answered_at: float | None = field(default=None, repr=False)

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]


Script = Callable[[Call], Iterable[Action]]


class Scripted:
    """Serves on loopback in a thread of its own. `script` says for each call what to do."""

    def __init__(self, script: Script, *, tls: Any = None) -> None:
        self.calls: list[Call] = []
        self.connections = 0
        self._script = script
        self._tls = tls
        self._attempts: Counter[str] = Counter()
        self._open: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    @property
    def base_url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}/v1"

    def of(self, prompt: str) -> list[Call]:
        """Give the calls for a prompt."""
        return [call for call in self.calls if call.prompt == prompt]

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls, limit=1 << 20)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        number = self.connections
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, _GoneError, asyncio.CancelledError):
                on_connection = 0
                while True:
                    on_connection += 1
                    call = await self._read(reader, number, on_connection)
                    await self._answer(call, reader, writer)
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader, connection: int, on_connection: int) -> Call:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in head[1:-2])]
        raw = await reader.readexactly(int(dict(headers).get("content-length", 0)))
        messages = json.loads(raw or b"{}").get("messages", [])
        prompt = next((one["content"] for one in reversed(messages) if one["role"] == "user"), "")
        prompt = prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False)
        self._attempts[prompt] += 1
        self._open[prompt] += 1
        call = Call(
            len(self.calls) + 1, self._attempts[prompt], connection, on_connection, *head[0].split(" ")[:2], headers,
            raw, prompt, time.monotonic(), self._open.total(), self._open[prompt],
        )  # fmt: skip
        self.calls.append(call)
        return call

    async def _answer(self, call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            actions = list(self._script(call))
            for index, action in enumerate(actions):
                if index == len(actions) - 1 and not isinstance(action, Drip) and action is not Act.HANG:
                    self._ended(call)  # before its last bytes, for the client may be quicker than this thread
                await self._do(action, reader, writer)
        finally:
            self._ended(call)

    def _ended(self, call: Call) -> None:
        if call.answered_at is None:
            call.answered_at = time.monotonic()
            self._open[call.prompt] -= 1

    async def _do(self, action: Action, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if isinstance(action, bytes):
            for start in range(0, len(action), 1 << 20):
                writer.write(action[start : start + (1 << 20)])
                await writer.drain()
        elif isinstance(action, Wait):
            await _silence(reader, action.seconds)
        elif isinstance(action, Drip):
            while True:
                writer.write(action.piece)
                await _silence(reader, action.every_s)
        elif action is Act.HANG:
            await _silence(reader, 60)
        else:
            if action is Act.RESET:
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            raise _GoneError


class _GoneError(Exception):
    """The connection is over."""


async def _silence(reader: asyncio.StreamReader, seconds: float) -> None:
    """Wait, but not longer than the client does; it sends nothing before it is answered."""
    try:
        await asyncio.wait_for(reader.read(1), seconds)
    except TimeoutError:
        return
    raise _GoneError


def completion(content: Any = "ok", *, finish: Any = "stop", **more: Any) -> dict[str, Any]:
    """Give a chat completion with 3 + 2 tokens."""
    return {
        "id": "c-1", "object": "chat.completion", "model": "m-1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}, **more,
    }  # fmt: skip


def http(status: int = 200, body: Any = b"", *headers: str, length: int | None = None) -> bytes:
    """Give an HTTP answer; a body that is not bytes goes out as JSON. `length` is announced in place of its own."""
    data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    kind = "application/json" if not isinstance(body, bytes) else "text/plain"
    lines = [f"HTTP/1.1 {status} Something", f"Content-Length: {len(data) if length is None else length}"]
    if not any(header.lower().startswith("content-type:") for header in headers):
        lines.append(f"Content-Type: {kind}")
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + data


def chunked(*pieces: bytes, end: bool = True) -> bytes:
    """Give a chunked 200 answer; without its end it is broken off."""
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + chunks + (b"0\r\n\r\n" if end else b"")


def ok(content: Any = "ok") -> bytes:
    """Give a good answer."""
    return http(200, completion(content))


def always(*actions: Action) -> Script:
    """Do the same for every call."""
    return lambda call: actions


def first(*actions: Action, then: bytes | None = None) -> Script:
    """Do this for the first attempt of every prompt, and answer well afterwards."""
    return lambda call: actions if call.attempt == 1 else [then or ok()]
