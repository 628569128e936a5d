"""A stub endpoint that costs as little as Python allows: it answers every request with the same chat completion.

    python tests/bench/stub.py [--delay SECONDS] [--events]

Prints `http://127.0.0.1:PORT/v1` and serves until it is killed. It parses no JSON: it is a load, not a provider.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re

import uvloop

ANSWER = json.dumps(
    {
        "id": "chatcmpl-stub",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "stub",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "【模拟回答】这条评论整体是正面的，物流快，包装好。" * 4},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 120, "completion_tokens": 80, "total_tokens": 200},
        "simulated": True,
    },
    ensure_ascii=False,
).encode()
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-request-id: stub\r\nx-simulated: true\r\nContent-Length: "
    + str(len(ANSWER)).encode()
    + b"\r\n\r\n"
    + ANSWER
)
TEXT = "【模拟回答】这条评论整体是正面的，物流快，包装好。" * 4


def _events() -> bytes:
    """Give the same answer as events, two characters in each, as one write of a chunked body."""
    head = {"id": "chatcmpl-stub", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "stub"}
    deltas = [{"content": TEXT[at : at + 2]} for at in range(0, len(TEXT), 2)]
    choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"})
    usage = {"prompt_tokens": 120, "completion_tokens": 80, "total_tokens": 200}
    chunks = [*({**head, "choices": [choice]} for choice in choices), {**head, "choices": [], "usage": usage}]
    body = b"".join(b"data: %s\n\n" % json.dumps(chunk, ensure_ascii=False).encode() for chunk in chunks)
    body += b"data: [DONE]\n\n"
    lines = (
        b"HTTP/1.1 200 OK",
        b"Content-Type: text/event-stream",
        b"x-simulated: true",
        b"Transfer-Encoding: chunked",
    )
    return b"\r\n".join(lines) + b"\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


EVENTS = _events()
LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)


class Stub(asyncio.Protocol):
    """Reads requests by their Content-Length and answers each, at once or after a delay."""

    delay = 0.0
    response = RESPONSE

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            found = LENGTH.search(self.buffer, 0, end)
            whole = end + 4 + (int(found.group(1)) if found else 0)
            if len(self.buffer) < whole:
                return
            self.buffer = self.buffer[whole:]
            if self.delay:
                asyncio.get_running_loop().call_later(self.delay, self.answer)
            else:
                self.answer()

    def answer(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(self.response)


async def serve(delay: float, *, events: bool) -> None:
    Stub.delay = delay
    Stub.response = EVENTS if events else RESPONSE
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--events", action="store_true")
    options = parser.parse_args()
    uvloop.run(serve(options.delay, events=options.events))
