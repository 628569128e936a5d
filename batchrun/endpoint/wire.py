"""HTTP/1.1 requests over kept connections. Connections and the parser are aiohttp's; its session is left out.

A session does for every request what is the same for all of them here (headers, URL, cookies, a task that writes the
body), which is more than half of the time of a call. What stands below it has no promise beyond a minor version of
aiohttp, which is why those are bounded in `pyproject.toml`.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Mapping

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

    __slots__ = ("_connection", "content", "headers", "status")

    def __init__(
        self, status: int, headers: CIMultiDictProxy[str], content: aiohttp.StreamReader,
        connection: aiohttp.connector.Connection,
    ) -> None:  # fmt: skip
        self.status, self.headers, self.content, self._connection = status, headers, content, connection

    async def read(self) -> bytes:
        """Read the whole body; nearly always it came together with its headers."""
        content = self.content
        return content.read_nowait() if content.is_eof() else await content.read()

    def release(self) -> None:
        """Let the connection be used again, unless there is more on it: of the answer, or of the request."""
        transport = self._connection.transport
        if transport is not None and transport.get_write_buffer_size():
            self._connection.close()
        else:
            self._connection.release()

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


class Wire:
    """Sends requests with the same headers and gives their answers. Redirects are answers like any other.

    Raises what aiohttp's session raises: `aiohttp.ClientError`, `TimeoutError` and `OSError`.
    """

    def __init__(self, headers: Mapping[str, str], route: Route) -> None:
        self._headers = headers
        self._proxy = URL(route.proxy) if route.proxy else None
        self._connector = _Connector(
            # The pacer bounds the concurrency; a limit here would only make requests wait unseen.
            limit=0, keepalive_timeout=_KEEP_ALIVE_S, ttl_dns_cache=300, ssl=route.tls or True
        )  # fmt: skip
        # Whoever calls times the whole; aiohttp's own timers for it take a sixth of a request's time.
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
        self._heads: dict[tuple[str, URL], _Head] = {}

    async def close(self) -> None:
        """Close all connections."""
        await self._connector.close()

    async def send(self, method: str, url: URL, body: bytes | None, own: bytes = b"") -> Reply:
        """Send a request and give its answer as soon as its headers are there. `own` are header lines of it alone."""
        head = self._heads.get((method, url))
        if head is None:
            head = self._heads[method, url] = _Head(method, url, self._headers, self._proxy)
        try:
            connection = await self._connector.connect(head.request, _NO_TRACES, self._timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {url}") from error
        try:
            protocol = _started(connection, head.lines(), own, body)
            while True:
                message, content = await protocol.read()
                if message.code >= 200 or message.code == 101:
                    return Reply(message.code, message.headers, content, connection)
        except HttpProcessingError as error:
            connection.close()
            info = head.request.request_info
            raise aiohttp.ClientResponseError(
                info, (), status=error.code, message=error.message, headers=error.headers
            ) from error
        except BaseException:
            connection.close()
            raise


class _Head:
    """What all requests of a method to a URL begin with; `request` is the one that connections are made for."""

    def __init__(self, method: str, url: URL, headers: Mapping[str, str], proxy: URL | None) -> None:
        self.request = aiohttp.ClientRequest(method, url, headers=headers, proxy=proxy)
        self.request.headers.pop("Content-Length", None)
        self._lines: bytes | None = None

    def lines(self) -> bytes:
        """Give the lines; the first connection may add what the proxy wants to them."""
        if self._lines is None:
            request = self.request
            is_forwarded = request.proxy is not None and not request.is_ssl()
            target = str(request.url) if is_forwarded else request.url.raw_path_qs
            lines = [
                f"{request.method} {target} HTTP/1.1",
                *(f"{key}: {text}" for key, text in request.headers.items()),
            ]
            if any("\r" in line or "\n" in line for line in lines):
                raise ValueError("a line end in a header")
            self._lines = "\r\n".join([*lines, ""]).encode()
        return self._lines


def _started(
    connection: aiohttp.connector.Connection, head: bytes, own: bytes, body: bytes | None
) -> ResponseHandler:  # fmt: skip
    """Write a request; give what reads its answer."""
    protocol = connection.protocol
    transport = None if protocol is None else protocol.transport
    if protocol is None or transport is None or transport.is_closing():
        raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")
    protocol.set_response_params(read_until_eof=True, auto_decompress=False)
    if body is None:
        transport.write(b"%s%s\r\n" % (head, own))
    elif len(body) <= _SHORT_BYTES:
        transport.write(b"%s%sContent-Length: %d\r\n\r\n%s" % (head, own, len(body), body))
    else:
        transport.write(b"%s%sContent-Length: %d\r\n\r\n" % (head, own, len(body)))
        transport.write(body)
    return protocol


class _Protocol(ResponseHandler):
    """Ends a connection on which answers pile up: `100 Continue` for ever would fill the memory."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if len(self) > _MOST_ANSWERS and self._exception is None:
            self._buffer.clear()
            self.set_exception(aiohttp.ClientPayloadError("more answers than were asked for"))
            if self.transport is not None:
                self.transport.abort()


class _Connector(aiohttp.TCPConnector):
    """Gives out no idle connection on which bytes came that nobody asked for: they would answer the next request."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = functools.partial(_Protocol, loop=asyncio.get_running_loop())  # type: ignore[assignment]

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - not ours
    ) -> aiohttp.connector.Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            if connection.protocol is None or not connection.protocol.should_close:
                return connection
            connection.close()
