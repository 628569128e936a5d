"""HTTP/1.1 requests over kept connections. Connections and the parser are aiohttp's; its session is left out.

A session does for every request what is the same for all of them here (headers, URL, cookies, a task that writes the
body), which is more than half of the time of a call. What stands below it has no promise beyond a minor version of
aiohttp, which is why those are bounded in `pyproject.toml`.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiohttp.connector import Connection
    from multidict import CIMultiDictProxy

    from batchrun.endpoint.route import Route

CONNECT_TIMEOUT_S = 10.0
#: Below the shortest keep-alive of common servers (uvicorn's 5 s), so that a closing connection is seldom reused.
_KEEP_ALIVE_S = 4.5
#: So many answers and interim answers may wait on a connection to be looked at.
_MOST_ANSWERS = 64
#: Longer bodies are not copied behind their headers.
_SHORT_BYTES = 65_536
_NO_TRACES: list[Any] = []


class Reply:
    """An answer whose headers are there. `content` is read to its end, then `release` it, or `close` it before."""

    __slots__ = ("_connection", "_wire", "content", "headers", "status")

    def __init__(
        self, status: int, headers: CIMultiDictProxy[str], content: aiohttp.StreamReader, connection: Connection,
        wire: Wire,
    ) -> None:  # fmt: skip
        self.status, self.headers, self.content, self._connection = status, headers, content, connection
        self._wire = wire

    @property
    def is_whole(self) -> bool:
        """Tell whether the whole body is there; nearly always it came together with its headers."""
        return self.content.is_eof()

    async def read(self) -> bytes:
        """Read the whole body."""
        return self.content.read_nowait() if self.is_whole else await self.content.read()

    def release(self) -> None:
        """Let the connection be used again, unless there is more on it: of the answer, or of the request."""
        self._wire.give_back(self._connection)

    def close(self) -> None:
        """End the connection."""
        _end(self._connection)


class Wire:
    """Sends requests with the same headers and gives their answers. Redirects are answers like any other.

    Raises what aiohttp's session raises: `aiohttp.ClientError`, `TimeoutError` and `OSError`.
    """

    def __init__(self, headers: Mapping[str, str], route: Route, before: Callable[[], None]) -> None:
        """`before` is called before requests leave, once for all those of a turn of the event loop.

        If it raises an exception they do not leave, and `send` raises it.
        """
        self._headers = headers
        self._proxy = URL(route.proxy) if route.proxy else None
        # The pacer bounds the concurrency; a limit here would only make requests wait unseen.
        self._connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, ssl=route.tls or True)
        self._connector._factory = functools.partial(_Protocol, loop=asyncio.get_running_loop())  # type: ignore[assignment] # noqa: SLF001
        # Whoever calls times the whole; aiohttp's own timers for it take a sixth of a request's time.
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
        self._heads: dict[tuple[str, URL], _Head] = {}
        self._before = before
        self._leaving: list[tuple[_Protocol, bytes, bytes]] = []
        self._loop = asyncio.get_running_loop()
        #: Connections that may be used again, the one used last at the end, and since when.
        self._idle: deque[tuple[Connection, float]] = deque()

    async def close(self) -> None:
        """Close all connections."""
        while self._idle:
            self._idle.pop()[0].close()
        await self._connector.close()

    async def send(self, method: str, url: URL, body: bytes | None, own: bytes = b"") -> Reply:
        """Send a request and give its answer as soon as its headers are there. `own` are header lines of it alone."""
        head = self._heads.get((method, url))
        if head is None:
            head = self._heads[method, url] = _Head(method, url, self._headers, self._proxy)
        connection = self._kept() or await self._new(head)
        try:
            protocol = self._leave(connection, head.lines + own, body)
            while True:
                message, content = await protocol.read()
                if message.code == 101:
                    protocol.force_close()  # nobody knows what follows it
                if message.code >= 200 or message.code == 101:
                    return Reply(message.code, message.headers, content, connection, self)
        except HttpProcessingError as error:
            _end(connection)
            info = head.request.request_info
            raise aiohttp.ClientResponseError(
                info, (), status=error.code, message=error.message, headers=error.headers
            ) from error
        except BaseException:
            _end(connection)
            raise

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for other requests, unless something is on its way on it or it ends."""
        transport = connection.transport
        if transport is None or transport.get_write_buffer_size() or not _protocol_of(connection).rest():
            _end(connection)
        else:
            self._idle.append((connection, self._loop.time()))

    def _kept(self) -> Connection | None:
        """Take a connection on which nothing came that nobody asked for: it would answer the next request."""
        idle, too_old = self._idle, self._loop.time() - _KEEP_ALIVE_S
        while idle and idle[0][1] < too_old:
            idle.popleft()[0].close()
        while idle:
            connection, _ = idle.pop()
            if _protocol_of(connection).is_free:
                return connection
            connection.close()
        return None

    async def _new(self, head: _Head) -> Connection:
        try:
            return await self._connector.connect(head.request, _NO_TRACES, self._timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {head.request.url}") from error

    def _leave(
        self, connection: Connection, head: bytes, body: bytes | None
    ) -> _Protocol:  # fmt: skip
        """Let a request leave at the end of this turn of the event loop; give what reads its answer."""
        protocol = _protocol_of(connection)
        protocol.refuse_early()
        if not self._leaving:
            self._loop.call_soon(self._write_all)
        if body is None:
            self._leaving.append((protocol, head + b"\r\n", b""))
        elif len(body) <= _SHORT_BYTES:
            self._leaving.append((protocol, b"%sContent-Length: %d\r\n\r\n%s" % (head, len(body), body), b""))
        else:
            self._leaving.append((protocol, b"%sContent-Length: %d\r\n\r\n" % (head, len(body)), body))
        return protocol

    def _write_all(self) -> None:
        leaving, self._leaving = self._leaving, []
        try:
            self._before()
        except Exception as error:  # noqa: BLE001 - raised by `send`
            for protocol, _, _ in leaving:
                protocol.set_exception(error)
            return
        for protocol, start, rest in leaving:
            protocol.refuse_early()
            transport = protocol.transport
            # Where the connection is gone meanwhile, the one that waits for the answer hears of it from the protocol.
            if transport is not None and not transport.is_closing():
                transport.write(start)
                if rest:
                    transport.write(rest)


def _protocol_of(connection: Connection) -> _Protocol:
    protocol = connection.protocol
    if not isinstance(protocol, _Protocol):
        raise TypeError("the connection was given back")
    return protocol


def _end(connection: Connection) -> None:
    """End a connection at once: what of a request has not left yet does not leave any more."""
    if connection.transport is not None:
        connection.transport.abort()
    connection.close()


class _Head:
    """What all requests of a method to a URL begin with; `request` is the one that connections are made for."""

    def __init__(self, method: str, url: URL, headers: Mapping[str, str], proxy: URL | None) -> None:
        self.request = request = aiohttp.ClientRequest(method, url, headers=headers, proxy=proxy)
        request.headers.pop("Content-Length", None)
        target = request.url.raw_path_qs
        if proxy is not None and not request.is_ssl():  # it is forwarded
            target = str(request.url)
            password = aiohttp.BasicAuth.from_url(proxy)
            if password is not None:
                request.headers["Proxy-Authorization"] = password.encode()
        lines = [f"{request.method} {target} HTTP/1.1", *(f"{key}: {text}" for key, text in request.headers.items())]
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a line end in a header")
        self.lines = "\r\n".join([*lines, ""]).encode()


class _Protocol(ResponseHandler):
    """Reads the answers of one connection, and ends one on which they pile up: `100 Continue` could fill the memory."""

    #: Whether something came since it was free for a request.
    _is_heard = False

    @property
    def is_free(self) -> bool:
        """Tell whether a request may leave on it."""
        return self.is_connected() and not self._is_heard and not self.should_close

    def rest(self) -> bool:
        """Get free for another request; False if there is more than the answer on the connection, or it ends."""
        if self.should_close or self._parser is None:
            return False
        try:
            # Blank lines before an answer are skipped; the head of one that has begun they bring to an end.
            begun, _, _ = self._parser.feed_data(b"\n\n")
        except HttpProcessingError:
            return False
        self._is_heard = False
        return not begun

    def refuse_early(self) -> None:
        """Drop what came before a request left, which cannot be its answer; whoever waits for that is told."""
        if self._is_heard and self._exception is None:
            self._drop(aiohttp.ServerDisconnectedError("something came before the request left"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.set_response_params(read_until_eof=True, auto_decompress=False)

    def data_received(self, data: bytes) -> None:
        self._is_heard = True
        super().data_received(data)
        if len(self) > _MOST_ANSWERS and self._exception is None:
            self._drop(aiohttp.ClientPayloadError("more answers than were asked for"))

    def _drop(self, error: aiohttp.ClientError) -> None:
        self._buffer.clear()
        self.set_exception(error)
        if self.transport is not None:
            self.transport.abort()
