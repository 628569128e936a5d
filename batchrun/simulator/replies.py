"""What goes over the wire for one call, and the ways of sending it: in good order, or as a fault has it."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from itertools import chain

from aiohttp import web

#: Bytes of one write of a stream; events are cut anywhere, as proxies do.
_WRITE_BYTES = 1024
#: Bytes that the header announces and the body lacks.
_MISSING_BYTES = 512
_HANG_S = 3600.0
_KEEP_ALIVES = 10
_KEEP_ALIVE_GAP_S = 0.1
#: What waits in a queue hears something this often, in seconds.
_QUEUE_GAP_S = 0.25
#: What keeps connections alive where a family has nothing of its own: without a stream, and in one.
KEEP_ALIVE = (b"\n", b": keep-alive\n\n")
_LINGER_NONE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, headers, and the body in pieces: one piece, or one per event of a stream.

    `keep_alive` are bytes that mean nothing and may go before them.
    """

    status: int
    headers: dict[str, str]
    pieces: list[bytes]
    stream: bool = False
    keep_alive: bytes = b"\n"


Settle = Callable[[], None]
Deliver = Callable[[web.BaseRequest, Reply, Settle], Awaitable[web.StreamResponse]]


async def in_order(request: web.BaseRequest, reply: Reply, settle: Settle) -> web.StreamResponse:
    """Send the reply as it should be. All of these call `settle` before an answer's last byte goes out."""
    if not reply.stream:
        settle()
        return web.Response(body=reply.pieces[0], status=reply.status, headers=reply.headers)
    return await _send(await _begin(request, reply), reply, settle)


async def then_close(_request: web.BaseRequest, reply: Reply, settle: Settle) -> web.StreamResponse:
    """Send the reply whole and close the connection."""
    settle()
    response = web.Response(body=b"".join(reply.pieces), status=reply.status, headers=reply.headers)
    response.force_close()
    return response


async def after_keep_alives(request: web.BaseRequest, reply: Reply, settle: Settle) -> web.StreamResponse:
    """Send keep-alive bytes for a second, then the reply."""
    response = await _begin(request, reply)
    for _ in range(_KEEP_ALIVES):
        await response.write(reply.keep_alive)
        await asyncio.sleep(_KEEP_ALIVE_GAP_S)
    return await _send(response, reply, settle)


async def among_keep_alives(request: web.BaseRequest, reply: Reply, settle: Settle) -> web.StreamResponse:
    """Send the reply with keep-alive bytes before every piece."""
    pieces = [reply.keep_alive + piece for piece in reply.pieces]
    return await _send(await _begin(request, reply), replace(reply, pieces=pieces), settle)


async def keep_alives_forever(request: web.BaseRequest, reply: Reply, _settle: Settle) -> web.StreamResponse:
    """Send keep-alive bytes until the client leaves, at most for an hour, and never a reply."""
    response = await _begin(request, reply)
    for _ in range(int(_HANG_S / _KEEP_ALIVE_GAP_S)):
        await response.write(reply.keep_alive)
        await asyncio.sleep(_KEEP_ALIVE_GAP_S)
    return await _reset(request)


def queued(delay_s: float) -> Deliver:
    """Give a way of sending that waits with keep-alive bytes first: the status is out before the answer begins."""

    async def deliver(request: web.BaseRequest, reply: Reply, settle: Settle) -> web.StreamResponse:
        response = await _begin(request, reply)
        for _ in range(int(delay_s / _QUEUE_GAP_S)):
            await response.write(reply.keep_alive)
            await asyncio.sleep(_QUEUE_GAP_S)
        await asyncio.sleep(delay_s % _QUEUE_GAP_S)
        return await _send(response, reply, settle)

    return deliver


async def reset(request: web.BaseRequest, _reply: Reply, _settle: Settle) -> web.StreamResponse:
    """Reset the connection instead of answering."""
    return await _reset(request)


async def reset_mid_body(request: web.BaseRequest, reply: Reply, settle: Settle) -> web.StreamResponse:
    """Send half of the reply, then reset the connection."""
    body = b"".join(reply.pieces)
    response = await _begin(request, reply, None if reply.stream else len(body))
    settle()
    await response.write(body[: len(body) // 2])
    return await _reset(request)


async def truncated(request: web.BaseRequest, reply: Reply, settle: Settle) -> web.StreamResponse:
    """Send two thirds of the reply, then close: fewer bytes than announced, or a stream without its end."""
    body = b"".join(reply.pieces)
    response = await _begin(request, reply, None if reply.stream else len(body) + _MISSING_BYTES)
    settle()
    await response.write(body[: len(body) * 2 // 3])
    if request.transport is not None:
        request.transport.close()
    return await until_cancelled()


async def hang(request: web.BaseRequest, _reply: Reply, _settle: Settle) -> web.StreamResponse:
    """Answer nothing until the client leaves, at most for an hour."""
    await asyncio.sleep(_HANG_S)
    return await _reset(request)


async def _begin(request: web.BaseRequest, reply: Reply, length: int | None = None) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    response.content_length = length
    await response.prepare(request)
    return response


async def _send(response: web.StreamResponse, reply: Reply, settle: Settle) -> web.StreamResponse:
    *early, last = _writes(reply.pieces)
    for data in early:
        await response.write(data)
    settle()
    await response.write(last)
    await response.write_eof()
    return response


def _writes(pieces: list[bytes]) -> list[bytes]:
    """Cut pieces into writes: the first and the last as they are, what is between in equal parts."""
    between = b"".join(pieces[1:-1])
    parts = (between[start : start + _WRITE_BYTES] for start in range(0, len(between), _WRITE_BYTES))
    return list(chain(pieces[:1], parts, pieces[1:][-1:]))


async def _reset(request: web.BaseRequest) -> web.StreamResponse:
    transport = request.transport
    if transport is not None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
        transport.abort()
    return await until_cancelled()


async def until_cancelled() -> web.StreamResponse:
    """Wait for the cancellation that ends a handler once its connection is lost."""
    never: asyncio.Future[web.StreamResponse] = asyncio.get_running_loop().create_future()
    return await never
