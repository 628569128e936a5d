"""A stub endpoint with limits and outages, which counts exactly what it was asked and what it did.

    python tests/bench/limited.py [--delay SECONDS] [--rpm N] [--tpm N] [--concurrency N] [--window WINDOW] [--say HOW]
        [--outage KIND --outage-at SECONDS --outage-for SECONDS]

Prints `http://127.0.0.1:PORT/v1` and serves until it is killed. A call takes `len(body) // 4` tokens for its prompt and
80 for its answer, both counted when it is admitted. Refused calls count nothing and are answered 429 at once.

Windows: `sliding` (N in any 60 s), `bucket` (N at first, refilled by N / 60 a second, never more than N), `fixed` (N in
each 60 s since the first request), `second` (N / 60 in any second). A limit on concurrency holds from when a request is
read until its answer is written, or its connection is gone.

A refusal says nothing (`silent`), why (`cause`), why and in the header Retry-After when the call would be admitted
(`retry-after`), why and the limit, always that of a minute (`numbers`), or what `retry-after` says, with
x-ratelimit-* on every answer (`headers`): what may be sent now, and how long until nothing is used.

Outages, in seconds from the first request: `refused` (nothing listens, all connections are aborted), `reset`
(connections are reset when a request is read, and those of calls under way), `503` and `429` (at once and in silence;
calls under way are answered), `hang` (what arrives, and what is under way, is never answered).

`GET /stats` is never limited. In it, calls = accepted + the sum of `refused` (`outage` is what arrived during one), and
accepted = completed + cut (the connection went away before) + in_flight. Times are seconds since the first call.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import re
import socket
import struct
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Protocol, cast

import uvloop

MINUTE_S = 60.0
ANSWER_TOKENS = 80
ANSWER = {
    "id": "chatcmpl-limited",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "limited",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "【模拟回答】这条评论整体是正面的，物流快，包装好。" * 2},
            "finish_reason": "stop",
        }
    ],
    "simulated": True,
}
#: Why, in words like OpenAI's without numbers, and with them but without a time to wait.
CAUSES = {
    "requests": "Rate limit reached for requests per min.",
    "tokens": "Rate limit reached for tokens per min.",
    "concurrency": "Too many concurrent requests.",
}
NUMBERS = {
    "requests": "Rate limit reached for m on requests per min (RPM): Limit {limit}, Used {used}, Requested {asked}.",
    "tokens": "Rate limit reached for m on tokens per min (TPM): Limit {limit}, Used {used}, Requested {asked}.",
    "concurrency": "Too many concurrent requests for m: concurrency limit of {limit} reached.",
}
#: OpenAI has no word for the third; `requests` would say that it is the first.
TYPES = {"requests": "requests", "tokens": "tokens", "concurrency": "rate_limit_error"}
REASONS = {200: "OK", 404: "Not Found", 429: "Too Many Requests", 503: "Service Unavailable"}
LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
#: Closing a socket that lingers for no time resets its connection.
RESET = struct.pack("ii", 1, 0)


class Window(Protocol):
    """How much of a limit is used. Times never go back."""

    def wait(self, now: float, amount: int) -> float:
        """Give the seconds until an amount is admitted, 0.0 if it is now."""

    def take(self, now: float, amount: int) -> None:
        """Count an amount that is admitted."""

    def left(self, now: float) -> float:
        """Give what would be admitted now."""

    def reset(self, now: float) -> float:
        """Give the seconds until nothing is used."""


class Sliding:
    """No more than a limit in any span of so many seconds, of which one end is open."""

    def __init__(self, limit: float, seconds: float) -> None:
        self.limit = limit
        self.seconds = seconds
        self.entries: deque[tuple[float, int]] = deque()
        self.used = 0

    def wait(self, now: float, amount: int) -> float:
        self.forget(now)
        over = self.used + amount - self.limit
        if over <= 0:
            return 0.0
        for at, entry in self.entries:
            over -= entry
            if over <= 0:
                return self.seconds - (now - at)
        return self.seconds  # more than the limit itself: never

    def take(self, now: float, amount: int) -> None:
        self.entries.append((now, amount))
        self.used += amount

    def left(self, now: float) -> float:
        self.forget(now)
        return self.limit - self.used

    def reset(self, now: float) -> float:
        self.forget(now)
        return self.seconds - (now - self.entries[-1][0]) if self.entries else 0.0

    def forget(self, now: float) -> None:
        while self.entries and now - self.entries[0][0] >= self.seconds:
            self.used -= self.entries.popleft()[1]


class Bucket:
    """Full at first, and refilled evenly by its capacity a minute."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.level = float(limit)
        self.at = 0.0

    def wait(self, now: float, amount: int) -> float:
        self.refill(now)
        # What rounding takes away must not make anybody wait.
        return max(0.0, amount - self.level - 1e-6) * MINUTE_S / self.limit

    def take(self, now: float, amount: int) -> None:
        self.refill(now)
        self.level -= amount

    def left(self, now: float) -> float:
        self.refill(now)
        return self.level

    def reset(self, now: float) -> float:
        self.refill(now)
        return (self.limit - self.level) * MINUTE_S / self.limit

    def refill(self, now: float) -> None:
        self.level = min(float(self.limit), self.level + (now - self.at) * self.limit / MINUTE_S)
        self.at = now


class Fixed:
    """No more than a limit in each minute, counted from the first time that it is asked."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.began: float | None = None
        self.number = 0
        self.used = 0

    def wait(self, now: float, amount: int) -> float:
        self.turn(now)
        return 0.0 if self.used + amount <= self.limit else self.ends(now)

    def take(self, now: float, amount: int) -> None:
        self.turn(now)
        self.used += amount

    def left(self, now: float) -> float:
        self.turn(now)
        return float(self.limit - self.used)

    def reset(self, now: float) -> float:
        self.turn(now)
        return self.ends(now) if self.used else 0.0

    def turn(self, now: float) -> None:
        if self.began is None:
            self.began = now
        number = int((now - self.began) // MINUTE_S)
        if number != self.number:
            self.number, self.used = number, 0

    def ends(self, now: float) -> float:
        assert self.began is not None
        return (self.number + 1) * MINUTE_S - (now - self.began)


def window(kind: str, limit: int) -> Window:
    """Make a window of a kind for so much a minute."""
    if kind == "bucket":
        return Bucket(limit)
    if kind == "fixed":
        return Fixed(limit)
    return Sliding(limit / MINUTE_S, 1.0) if kind == "second" else Sliding(limit, MINUTE_S)


@dataclass(slots=True)
class Refusal:
    """Why a call is not admitted; it would be after `wait_s`, where time alone helps."""

    cause: str
    limit: int
    used: int
    asked: int
    wait_s: float | None


class Limits:
    """All limits that there are: a call is admitted by all of them or by none."""

    def __init__(self, kind: str, rpm: int | None, tpm: int | None, concurrency: int | None) -> None:
        most = {"requests": rpm, "tokens": tpm}
        self.most = {cause: limit for cause, limit in most.items() if limit is not None}
        self.windows = {cause: window(kind, limit) for cause, limit in self.most.items()}
        self.concurrency = concurrency

    def admit(self, now: float, tokens: int, in_flight: int) -> Refusal | None:
        """Count a call, or say what forbids it: of requests and tokens the one that does so for longer."""
        amounts = {"requests": 1, "tokens": tokens}
        waits = {cause: one.wait(now, amounts[cause]) for cause, one in self.windows.items()}
        cause = max(waits, key=lambda one: waits[one], default=None)
        if cause is not None and waits[cause] > 0:
            limit = self.most[cause]
            used = limit - math.floor(self.windows[cause].left(now))
            return Refusal(cause, limit, used, amounts[cause], waits[cause])
        if self.concurrency is not None and in_flight >= self.concurrency:
            return Refusal("concurrency", self.concurrency, in_flight, 1, None)
        for name, one in self.windows.items():
            one.take(now, amounts[name])
        return None

    def headers(self, now: float) -> list[str]:
        """Spell the state of the limits as OpenAI does."""
        lines = []
        for cause, one in self.windows.items():
            lines += [
                f"x-ratelimit-limit-{cause}: {self.most[cause]}",
                f"x-ratelimit-remaining-{cause}: {max(0, math.floor(one.left(now)))}",
                f"x-ratelimit-reset-{cause}: {duration(one.reset(now))}",
            ]
        return lines


def duration(seconds: float) -> str:
    """Spell a duration: `120ms`, `8.5s`, `1m0s`; rounded up, so that nobody comes too early."""
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    spelled = f"{milliseconds / 1000:g}s"
    return f"{minutes}m{spelled}" if minutes else spelled


def largest(entries: list[tuple[float, int]], seconds: float) -> int:
    """Give the largest sum of amounts in any span of so many seconds, of which one end is open."""
    most = total = left = 0
    for at, amount in entries:
        total += amount
        while at - entries[left][0] >= seconds:
            total -= entries[left][1]
            left += 1
        most = max(most, total)
    return most


def by_second(entries: list[tuple[float, int]]) -> list[int]:
    """Add amounts up by whole seconds."""
    sums = Counter[int]()
    for at, amount in entries:
        sums[int(at)] += amount
    return [sums[second] for second in range(max(sums, default=-1) + 1)]


@dataclass
class Counts:
    """What happened. Times are seconds since the first call."""

    calls: list[float] = field(default_factory=list)
    #: When, and with how many tokens.
    accepted: list[tuple[float, int]] = field(default_factory=list)
    completed: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    #: Seconds that it had the calls it answered, all in all.
    held_s: float = 0.0
    in_flight: int = 0
    most_in_flight: int = 0
    bodies: Counter[bytes] = field(default_factory=Counter)
    completed_bodies: Counter[bytes] = field(default_factory=Counter)

    def report(self) -> dict[str, Any]:
        """Give it as `GET /stats` does."""
        calls = [(at, 1) for at in self.calls]
        accepted = [(at, 1) for at, _ in self.accepted]
        spans = {"minute": MINUTE_S, "second": 1.0}
        histogram = Counter(self.bodies.values())
        return {
            "calls": len(calls),
            "accepted": len(accepted),
            "accepted_tokens": sum(tokens for _, tokens in self.accepted),
            "completed": len(self.completed),
            "cut": self.cut,
            "held_s": self.held_s,
            "refused": dict(self.refused),
            "in_flight": self.in_flight,
            "max_in_flight": self.most_in_flight,
            "largest": {
                name: {
                    "calls": largest(calls, seconds),
                    "accepted": largest(accepted, seconds),
                    "tokens": largest(self.accepted, seconds),
                }
                for name, seconds in spans.items()
            },
            "last_call_s": self.calls[-1] if self.calls else None,
            "last_completion_s": self.completed[-1] if self.completed else None,
            "calls_by_second": by_second(calls),
            "accepted_by_second": by_second(accepted),
            "tokens_by_second": by_second(self.accepted),
            "completed_by_second": by_second([(at, 1) for at in self.completed]),
            "bodies": len(self.bodies),
            "calls_per_body": {str(calls): histogram[calls] for calls in sorted(histogram)},
            "completed_bodies": len(self.completed_bodies),
            "completed_more_than_once": sum(times > 1 for times in self.completed_bodies.values()),
        }


@dataclass(slots=True, eq=False)
class Call:
    """A call that was admitted and is not answered yet; one without a timer never is."""

    connection: Connection
    body: bytes
    prompt_tokens: int
    began_s: float
    timer: asyncio.TimerHandle | None = None


class Connection(asyncio.Protocol):
    """Reads requests by their Content-Length. Clients wait for an answer before they send the next one."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.buffer = b""
        self.under_way: set[Call] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.endpoint.connections.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        self.endpoint.connections.discard(self)
        for call in list(self.under_way):
            self.endpoint.ended(call)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0 and not self.transport.is_closing():
            found = LENGTH.search(self.buffer, 0, end)
            whole = end + 4 + (int(found.group(1)) if found else 0)
            if len(self.buffer) < whole:
                return
            first, body = self.buffer[: self.buffer.index(b"\r\n")], self.buffer[end + 4 : whole]
            self.buffer = self.buffer[whole:]
            if first.startswith(b"POST ") and b"/chat/completions " in first:
                self.endpoint.called(self, body)
            elif first.startswith(b"GET /stats "):
                self.send(200, self.endpoint.report())
            else:
                self.send(404, {"error": {"message": "no such path"}})

    def send(self, status: int, value: Any, lines: list[str] | None = None) -> None:
        """Write an answer."""
        body = json.dumps(value, ensure_ascii=False).encode()
        head = [
            f"HTTP/1.1 {status} {REASONS[status]}",
            "Content-Type: application/json",
            "x-request-id: limited",
            "x-simulated: true",
            *(lines or []),
            f"Content-Length: {len(body)}",
        ]
        self.transport.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)

    def reset(self) -> None:
        """Send a RST now."""
        if not self.transport.is_closing():
            with socket.socket(fileno=os.dup(self.transport.get_extra_info("socket").fileno())) as same:
                same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.transport.abort()


class Endpoint:
    """Answers, refuses, breaks down, and counts."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.delay: float = options.delay
        self.varies: float = options.varies
        self.random = random.Random(1)
        self.say: str = options.say
        self.limits = Limits(options.window, options.rpm, options.tpm, options.concurrency)
        self.outage: str | None = options.outage
        self.outage_at: float = options.outage_at
        self.outage_for: float = options.outage_for
        self.is_out = False
        self.first_at: float | None = None
        self.counts = Counts()
        self.connections: set[Connection] = set()
        self.server: asyncio.Server | None = None
        self.tasks: set[asyncio.Task[None]] = set()

    def now(self) -> float:
        """Give the seconds since the first call, finer than the event loop's."""
        if self.first_at is None:
            self.first_at = time.monotonic()
            if self.outage is not None:
                task = asyncio.get_running_loop().create_task(self.break_down())
                self.tasks.add(task)
        return time.monotonic() - self.first_at

    def called(self, connection: Connection, body: bytes) -> None:
        """Take a call: answer it later, or refuse it."""
        now, counts = self.now(), self.counts
        key = blake2b(body, digest_size=16).digest()
        counts.calls.append(now)
        counts.bodies[key] += 1
        if self.is_out:
            counts.refused["outage"] += 1
            self.fail(connection)
            return
        call = Call(connection, key, len(body) // 4, now)
        tokens = call.prompt_tokens + ANSWER_TOKENS
        refusal = self.limits.admit(now, tokens, counts.in_flight)
        if refusal is not None:
            counts.refused[refusal.cause] += 1
            self.refuse(connection, refusal)
            return
        counts.accepted.append((now, tokens))
        counts.in_flight += 1
        counts.most_in_flight = max(counts.most_in_flight, counts.in_flight)
        connection.under_way.add(call)
        delay = self.delay * self.random.uniform(1 - self.varies, 1 + self.varies)
        call.timer = asyncio.get_running_loop().call_later(delay, self.answer, call)

    def answer(self, call: Call) -> None:
        """Answer a call, unless its connection is going away."""
        if call.connection.transport.is_closing():
            return
        prompt = call.prompt_tokens
        total = prompt + ANSWER_TOKENS
        usage = {"prompt_tokens": prompt, "completion_tokens": ANSWER_TOKENS, "total_tokens": total}
        call.connection.send(200, {**ANSWER, "usage": usage}, self.headers())
        now = self.now()
        self.counts.completed.append(now)
        self.counts.held_s += now - call.began_s
        self.counts.completed_bodies[call.body] += 1
        self.ended(call, completed=True)

    def ended(self, call: Call, *, completed: bool = False) -> None:
        """Count a call out."""
        call.connection.under_way.discard(call)
        self.counts.in_flight -= 1
        if not completed:
            self.counts.cut += 1
        if call.timer is not None:
            call.timer.cancel()

    def refuse(self, connection: Connection, refusal: Refusal) -> None:
        """Answer 429, and say as much as is to be said."""
        if self.say == "silent":
            connection.send(429, {"error": {"message": "Too Many Requests"}})
            return
        texts = NUMBERS if self.say == "numbers" else CAUSES
        message = texts[refusal.cause].format(limit=refusal.limit, used=refusal.used, asked=refusal.asked)
        error = {"message": message, "type": TYPES[refusal.cause], "param": None, "code": "rate_limit_exceeded"}
        lines = self.headers()
        if self.say in ("retry-after", "headers") and refusal.wait_s is not None:
            lines.append(f"Retry-After: {math.ceil(refusal.wait_s)}")
        connection.send(429, {"error": error}, lines)

    def headers(self) -> list[str]:
        """Give the headers that every answer has."""
        return self.limits.headers(self.now()) if self.say == "headers" else []

    def report(self) -> dict[str, Any]:
        """Give what `GET /stats` does."""
        began = None if self.first_at is None else time.time() - (time.monotonic() - self.first_at)
        return {"first_call_at": began, "is_out": self.is_out, **self.counts.report()}

    # --- outages ---

    async def break_down(self) -> None:
        """Be out for a time."""
        await asyncio.sleep(self.outage_at)
        self.is_out = True
        port = None
        if self.outage == "refused":
            port = await self.stop_listening()
        elif self.outage in ("reset", "hang"):
            for connection in list(self.connections):
                self.drop_calls(connection)
        await asyncio.sleep(self.outage_for)
        self.is_out = False
        if port is not None:
            self.server = await asyncio.get_running_loop().create_server(self.connect, sock=port, backlog=4096)

    def drop_calls(self, connection: Connection) -> None:
        """Never answer what is under way on a connection."""
        if connection.under_way and self.outage == "reset":
            connection.reset()
        for call in connection.under_way:
            if call.timer is not None:
                call.timer.cancel()

    def fail(self, connection: Connection) -> None:
        """Do to a call what the outage does to calls."""
        if self.outage == "503":
            connection.send(503, {"error": {"message": "Service Unavailable"}})
        elif self.outage == "429":
            connection.send(429, {"error": {"message": "Too Many Requests"}})
        elif self.outage in ("reset", "refused"):
            connection.reset()

    async def stop_listening(self) -> socket.socket:
        """Abort all connections, and let nobody listen: a socket that only holds the port keeps others from it."""
        assert self.server is not None
        address = self.server.sockets[0].getsockname()
        self.server.close()
        for connection in list(self.connections):
            connection.reset()
        held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        while True:
            try:
                held.bind(address)
            except OSError:
                await asyncio.sleep(0.001)  # the event loop closes what listened a little later
            else:
                return held

    def connect(self) -> Connection:
        """Serve another connection."""
        return Connection(self)


async def serve(options: argparse.Namespace) -> None:
    endpoint = Endpoint(options)
    loop = asyncio.get_running_loop()
    endpoint.server = await loop.create_server(endpoint.connect, "127.0.0.1", options.port, backlog=4096)
    print(f"http://127.0.0.1:{endpoint.server.sockets[0].getsockname()[1]}/v1", flush=True)
    await loop.create_future()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.2)
    parser.add_argument("--varies", type=float, default=0.0, help="by so much of the delay it is shorter or longer")
    parser.add_argument("--rpm", type=int)
    parser.add_argument("--tpm", type=int)
    parser.add_argument("--concurrency", type=int)
    parser.add_argument("--window", choices=["sliding", "bucket", "fixed", "second"], default="sliding")
    parser.add_argument("--say", choices=["silent", "cause", "retry-after", "numbers", "headers"], default="silent")
    parser.add_argument("--outage", choices=["refused", "reset", "503", "429", "hang"])
    parser.add_argument("--outage-at", type=float, default=10.0)
    parser.add_argument("--outage-for", type=float, default=60.0)
    options = parser.parse_args()
    if options.window == "second" and options.rpm is not None and options.rpm < MINUTE_S:
        parser.error("fewer than 60 requests a minute are none in a second")
    uvloop.run(serve(options))


if __name__ == "__main__":
    main()
