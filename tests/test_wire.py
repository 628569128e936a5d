"""Which request an answer is given to, and what leaves, where a server keeps to no order."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest
from yarl import URL

from batchrun.api import event_loop_factory
from batchrun.endpoint.route import Route
from batchrun.endpoint.wire import Wire

Read = Callable[[], Awaitable[tuple[bytes, bytes]]]
Serve = Callable[[Read, asyncio.StreamWriter], Awaitable[None]]
LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, event_loop_factory()], ids=["asyncio", "ours"])


def answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@asynccontextmanager
async def served(serve: Serve, seen: list[tuple[bytes, bytes]]) -> AsyncIterator[int]:
    """Serve on loopback; give the port. `seen` takes the head and the body of every request."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def read() -> tuple[bytes, bytes]:
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
            seen.append((head, await reader.readexactly(int(fields.get(b"content-length", 0)))))
            return seen[-1]

        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await serve(read, writer)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def ask(wire: Wire, url: URL, body: bytes) -> Any:
    """Give the status and the body of an answer, or the kind of error."""
    try:
        reply = await wire.send("POST", url, body)
        text = await reply.read()
    except aiohttp.ClientError as error:
        return type(error)
    reply.release()
    return reply.status, text


def asked(loop: Any, serve: Serve) -> tuple[list[Any], list[bytes]]:
    """Ask four times, one after the other; give the answers, and what the server saw."""
    seen: list[tuple[bytes, bytes]] = []

    async def main() -> list[Any]:
        async with served(serve, seen) as port:
            wire = Wire({}, Route(), lambda: None)
            answers = [await ask(wire, URL(f"http://127.0.0.1:{port}/v1"), b"q%d" % number) for number in range(4)]
            await wire.close()
            return answers

    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(main()), [body for _, body in seen]


@LOOPS
def test_what_comes_before_a_request_left_answers_nothing(loop: Any) -> None:
    seen = b""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            nonlocal seen
            for _ in range(4):
                connection, _ = listener.accept()
                with connection, suppress(ConnectionError):
                    connection.sendall(answer(b"nobody asked"))
                    while data := connection.recv(4096):
                        seen += data

        async def keep_busy() -> None:
            while True:
                time.sleep(0.02)  # noqa: ASYNC251 - what came is there before anything leaves
                await asyncio.sleep(0)

        async def main() -> list[Any]:
            wire = Wire({}, Route(), lambda: None)
            busy = asyncio.create_task(keep_busy())
            url = URL(f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
            answers = [await ask(wire, url, b"q") for _ in range(4)]
            busy.cancel()
            await wire.close()
            return answers

        greeter = threading.Thread(target=greet)
        greeter.start()
        with asyncio.Runner(loop_factory=loop) as runner:
            assert runner.run(main()) == [aiohttp.ServerDisconnectedError] * 4
        greeter.join(10)
    assert seen == b"", "what is given up before it left costs nothing"


HEAD = b"HTTP/1.1 200 OK\r\nX-One: two\r\nContent-Length: 5\r\n\r\n"


@LOOPS
@pytest.mark.parametrize("cut", [1, 7, 11, 16, 17, 20, 25, 29, 43, 47, len(HEAD) - 1])
def test_the_beginning_of_another_answer_is_not_left_for_the_next_request(cut: int, loop: Any) -> None:
    async def serve(read: Read, writer: asyncio.StreamWriter) -> None:
        _, body = await read()
        writer.write(answer(b"to " + body) + HEAD[:cut])
        while True:
            _, body = await read()
            writer.write(HEAD[cut:] + b"stale" + answer(b"to " + body) + HEAD[:cut])

    answers, seen = asked(loop, serve)
    assert answers == [(200, b"to q%d" % number) for number in range(4)]
    assert seen == [b"q0", b"q1", b"q2", b"q3"]


@LOOPS
def test_blank_lines_after_an_answer_cost_no_connection(loop: Any) -> None:
    connections = []

    async def serve(read: Read, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        while True:
            writer.write(answer(b"to " + (await read())[1]) + b"\r\n\r\n")

    assert asked(loop, serve)[0] == [(200, b"to q%d" % number) for number in range(4)]
    assert len(connections) == 1


@LOOPS
def test_no_request_follows_on_a_connection_that_changes_its_protocol(loop: Any) -> None:
    async def serve(read: Read, writer: asyncio.StreamWriter) -> None:
        while True:
            _, body = await read()
            writer.write(b"HTTP/1.1 101 Something\r\n\r\n")
            await asyncio.sleep(0.05)
            writer.write(answer(b"to " + body))

    assert asked(loop, serve)[0] == [(101, b"")] * 4


@LOOPS
def test_what_is_left_of_a_request_that_is_given_up_does_not_leave(loop: Any) -> None:
    size = 50_000_000
    came = 0
    begun, over = asyncio.Event(), asyncio.Event()

    async def read_slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal came
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                came += len(data)
                begun.set()
                if came < 1 << 20:
                    await asyncio.sleep(0.02)
        writer.close()
        over.set()

    async def main() -> None:
        server = await asyncio.start_server(read_slowly, "127.0.0.1", 0)
        wire = Wire({}, Route(), lambda: None)
        url = URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        sending = asyncio.create_task(wire.send("POST", url, b"x" * size))
        await begun.wait()
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
        async with asyncio.timeout(20):
            await over.wait()
        await wire.close()
        server.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())
    assert 0 < came < size / 2


def test_a_proxy_is_told_its_password_with_every_request_over_a_kept_connection() -> None:
    seen: list[tuple[bytes, bytes]] = []

    async def serve(read: Read, writer: asyncio.StreamWriter) -> None:
        while True:
            await read()
            writer.write(answer(b""))

    async def main() -> None:
        async with served(serve, seen) as port:
            wire = Wire({}, Route(None, f"http://someone:pa%2Fss@127.0.0.1:{port}"), lambda: None)
            for method, path in (("GET", "models"), ("POST", "chat"), ("POST", "chat"), ("GET", "models")):
                (await wire.send(method, URL(f"http://endpoint.test/v1/{path}"), b"")).release()
            await wire.close()

    asyncio.run(main())
    assert [head.split()[1] for head, _ in seen] == [
        b"http://endpoint.test/v1/" + name for name in (b"models", b"chat", b"chat", b"models")
    ]
    assert all(b"\r\nProxy-Authorization: Basic c29tZW9uZTpwYS9zcw==\r\n" in head for head, _ in seen)
