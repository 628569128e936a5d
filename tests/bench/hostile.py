"""Hostile servers against `batchrun run`: memory, time, endings, and what leaks to screen, log, files, other hosts.

    python tests/bench/hostile.py [ROW ...] [--list]

Server and command are processes of their own. Each row is run as a script runs it (text log, `--json`), as a log
collector does (JSON log) and on a terminal with its bar; memory is the peak of the first, less that of an ordinary run.
Ends with 1 if a row breaks a bound: 80 MB, no key and no prompt in anything printed, no key in a run file, no control
byte on a terminal, no call to another host, no answer of another item.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import os
import pty
import re
import select
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

HERE = Path(__file__).parent
KEY = "sk-hostile+0123456789/abcdefghijklmnop"
PROMPT = "七色的鹿在第{number}座山上读一封没有寄出的信 canary prompt"
ITEMS = 6
MOST_MB = 80
MB = 1 << 20
PIECE = b" " * MB
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
#: What writes over a screen: ESC, CSI and OSC as C1, a title, the clipboard, line ends, a turned reading direction.
EVIL = "\x1b[2J\x1b]0;owned\x07\x1b]52;c;b3duZWQ=\x07\x9b2J\x9d0;x\x9c\r\n\x00\x08\u202egpj\u2066\u2028"
IDS = "org-AbC123dEf456GhI789 proj_ZyX987wVu654 uid 1234567890123456 sk-abcd********wxyz from 203.0.113.77"


@dataclass
class Asked:
    """A request: how many came before it, the item's number, the place of another origin."""

    number: int
    item: int
    prompt: str
    other: str
    streamed: bool


@dataclass(frozen=True)
class Pause:
    """Say nothing for so many seconds."""

    seconds: float


class Reset:
    """Reset the connection."""


Part = bytes | Pause | Reset
Answer = Callable[[Asked], Iterable[Part]]


@dataclass(frozen=True)
class Row:
    """A hostile server: what it answers, how it is spoken to, whether answers are asked for as streams."""

    answer: Answer
    stream: bool = False
    tls: str | None = None
    scheme: str | None = None
    secrets: tuple[str, ...] = ()
    job: str = ""


def completion(content: Any, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    return {"object": "chat.completion", "model": "m", "choices": [choice], "usage": usage, **more}


def http(status: int, body: Any, *headers: str, length: int | None = None) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
    lines = [f"HTTP/1.1 {status} Something", f"Content-Length: {len(data) if length is None else length}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape") + data


def ok(asked: Asked, **more: Any) -> bytes:
    return http(200, completion(f"item {asked.item}", **more))


def part(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(delta: Any, finish: str | None = None) -> bytes:
    value = {"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def error(words: str, code: str = "x") -> dict[str, Any]:
    return {"error": {"message": words, "code": code}}


# --- bombs ---


def squeezed(wbits: int, size: int, data: bytes = PIECE) -> bytes:
    packer = zlib.compressobj(6, wbits=wbits)
    return b"".join(packer.compress(data) for _ in range(size // len(data))) + packer.flush()


def zstd_bomb() -> bytes:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return bytes(zstd.compress(PIECE * 200))


def in_pieces(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), 65536):
        yield part(data[at : at + 65536])
    yield b"0\r\n\r\n"


def bomb(encoding: str, make: Callable[[], bytes], status: int = 200, *, announced: bool = True) -> Answer:
    made: list[bytes] = []

    def answer(_asked: Asked) -> Iterable[Part]:
        if not made:
            made.append(make())
        head = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Encoding: %s\r\n" % (
            status, encoding.encode(),
        )  # fmt: skip
        if announced:
            return [head + b"Content-Length: %d\r\n\r\n" % len(made[0]), made[0]]
        return [head + b"Transfer-Encoding: chunked\r\n\r\n", *in_pieces(made[0])]

    return answer


def forever(head: bytes, *pieces: bytes, every_s: float = 0.0) -> Answer:
    def answer(_asked: Asked) -> Iterator[Part]:
        yield head
        while True:
            yield from pieces
            if every_s:
                yield Pause(every_s)

    return answer


def says(*parts: Part) -> Answer:
    return lambda _asked: parts


def redirect(status: int) -> Answer:
    return lambda asked: [http(status, b"", f"Location: http://{asked.other}/v1/chat/completions?key={KEY}")]


def echo(asked: Asked) -> str:
    return f"bad key {KEY} (or {quote(KEY, safe='')}, {base64.b64encode(b'user:' + KEY.encode()).decode()}) for {IDS}: "


def refusal(status: int) -> Answer:
    return lambda asked: [http(status, error(echo(asked) + asked.prompt + EVIL), f"X-Echo: {KEY}")]


def gzip_stream() -> Answer:
    body = squeezed(31, 200 * MB, (b"data: " + b"x" * 1018)[:1024] * 1024)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n"
    return says(head + b"Content-Length: %d\r\n\r\n" % len(body), body)


def pieces_of_key(_asked: Asked) -> Iterable[Part]:
    halves = (KEY[:11], KEY[11:])
    events = [event({"content": one}) for one in halves] + [event({}, "stop"), b"data: [DONE]\n\n"]
    return [EVENTS, *map(part, events), b"0\r\n\r\n"]


def many_choices(_asked: Asked) -> Iterator[Part]:
    yield EVENTS
    for number in range(1_000_000):
        yield part(b'data: {"choices":[{"index":%d,"delta":{"content":"x"}}]}\n\n' % number)


def growing_parts(_asked: Asked) -> Iterator[Part]:
    """A long text, and then as many small pieces to it as there is time for."""
    detail = {"index": 0, "type": "reasoning.text", "text": "x" * (8 * MB)}
    yield EVENTS
    yield part(event({"reasoning_details": [detail]}))
    small = part(event({"reasoning_details": [{**detail, "text": "y"}]}) * 1000)
    while True:
        yield small


DEEP = b"[" * 200_000 + b"]" * 200_000
LISTS = b'{"choices":[' + b"[]," * (5 * MB) + b"[]]}"
ROWS: dict[str, Row] = {
    "ordinary": Row(lambda asked: [ok(asked)]),
    "gzip bomb 200 MB": Row(bomb("gzip", lambda: squeezed(31, 200 * MB))),
    "gzip bomb, chunked": Row(bomb("gzip", lambda: squeezed(31, 200 * MB), announced=False)),
    "deflate bomb": Row(bomb("deflate", lambda: squeezed(15, 200 * MB))),
    "raw deflate bomb": Row(bomb("deflate", lambda: squeezed(-15, 200 * MB))),
    "zstd bomb, not asked for": Row(bomb("zstd", zstd_bomb)),
    "br, not asked for": Row(bomb("br", lambda: bytes(1000))),
    "gzip twice, said twice": Row(bomb("gzip, gzip", lambda: gzip.compress(squeezed(31, 200 * MB)))),
    "gzip twice, said once": Row(bomb("gzip", lambda: gzip.compress(squeezed(31, 200 * MB)))),
    "a million empty gzips": Row(bomb("gzip", lambda: gzip.compress(b"") * 1_000_000)),
    "bomb in a 400": Row(bomb("gzip", lambda: squeezed(31, 200 * MB), 400)),
    "bomb in a 500": Row(bomb("gzip", lambda: squeezed(31, 200 * MB), 500)),
    "bomb in a stream": Row(gzip_stream(), stream=True),
    "300 MB announced": Row(says(HEAD + b"Content-Length: %d\r\n\r\n" % (300 * MB), *[PIECE] * 300)),
    "300 MB until the end": Row(says(HEAD + b"Connection: close\r\n\r\n", *[b"x" * MB] * 300)),
    "15 MB of small lists": Row(says(http(200, LISTS))),
    "endless body": Row(forever(CHUNKED + b"\r\n", part(b"x" * MB))),
    "endless SSE, no line end": Row(forever(EVENTS, part(b"data: " + b"x" * MB)), stream=True),
    "endless SSE, events": Row(forever(EVENTS, part(event({"content": "x" * 1000}) * 100)), stream=True),
    "a line of 100 MB in SSE": Row(says(EVENTS, part(b"data: "), *[part(b"x" * MB)] * 100, part(b"\n\n")), stream=True),
    "endless keep-alives": Row(forever(EVENTS, part(b": keep-alive\n\n"), every_s=0.05), stream=True),
    "a million choices": Row(many_choices, stream=True),
    "small pieces to a long text": Row(growing_parts, stream=True),
    "endless headers": Row(forever(HEAD, b"X-A: b\r\n" * 1000)),
    "endless header": Row(forever(HEAD + b"X-A: ", b"b" * 10_000)),
    "endless 100 Continue": Row(forever(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100)),
    "endless trailers": Row(forever(CHUNKED + b"\r\n1\r\n{\r\n0\r\n", b"X-A: b\r\n" * 1000)),
    "an endless chunk extension": Row(forever(CHUNKED + b"\r\n1;", b"x" * 10_000)),
    "endless empty chunks of gzip": Row(
        forever(CHUNKED + b"Content-Encoding: gzip\r\n\r\n" + part(gzip.compress(b"")[:10]),
                part(b"\x00\x00\x00\xff\xff" * 10_000))
    ),
    "a header of 10 MB": Row(says(HEAD + b"X-A: " + b"b" * (10 * MB) + b"\r\n\r\n")),
    "20,000 headers": Row(says(HEAD + b"".join(b"X-%d: b\r\n" % n for n in range(20_000)) + b"\r\n")),
    "slow headers": Row(forever(HEAD + b"X-A: ", b"b", every_s=0.05)),
    "slow body": Row(forever(HEAD + b"Content-Length: 100000\r\n\r\n", b"x", every_s=0.05)),
    "200,000 deep": Row(says(http(200, DEEP))),
    "200,000 deep in an answer": Row(says(http(200, b'{"choices":' + DEEP + b"}"))),
    "200,000 deep in an error": Row(says(http(500, json.dumps(error(DEEP.decode())).encode()))),
    "NUL bytes": Row(says(http(200, bytes(100_000)))),
    "NUL in the answer": Row(lambda asked: [http(200, completion(f"item {asked.item}\x00"))]),
    "6,000 digits": Row(says(http(200, json.dumps(completion("x")).encode()[:-1] + b',"b":' + b"7" * 6000 + b"}"))),
    "1e999": Row(says(http(200, json.dumps(completion("x")).encode()[:-1] + b',"a":1e999,"b":' + b"9" * 6000 + b"}"))),
    "lone surrogates": Row(says(http(200, json.dumps(completion("\ud800 x \udfff")).encode()))),
    "evil in an error": Row(says(http(400, error(EVIL, EVIL)))),
    "evil in a 401": Row(says(http(401, error(EVIL, EVIL)))),
    "evil in a 503": Row(says(http(503, error(EVIL, EVIL)))),
    "evil in a 500 page": Row(says(http(500, f"<title>{EVIL}</title>".encode()))),
    "evil in an answer": Row(lambda asked: [http(200, completion(EVIL, model=EVIL, system_fingerprint=EVIL))]),
    "evil in headers": Row(says(b"HTTP/1.1 500 \x1b[2J\x9b2J\r\nX-\x1b[2J: \x1b[2J\r\n\r\n")),
    "evil in a finish_reason": Row(
        lambda asked: [http(200, completion("x") | {"choices": [
            {"index": 0, "message": {"content": "x"}, "finish_reason": EVIL}]})]
    ),
    "301 elsewhere": Row(redirect(301)),
    "302 elsewhere": Row(redirect(302)),
    "307 elsewhere": Row(redirect(307)),
    "308 elsewhere": Row(redirect(308)),
    "307 to itself": Row(says(http(307, b"", "Location: /v1/chat/completions"))),
    "key, ids, prompt in a 400": Row(refusal(400)),
    "key, ids, prompt in a 401": Row(refusal(401)),
    "key, ids, prompt in a 402": Row(refusal(402)),
    "key, ids, prompt in a 429": Row(refusal(429)),
    "key, ids, prompt in a 503": Row(refusal(503)),
    "prompt as a page": Row(lambda asked: [http(200, f"<html><title>{asked.prompt[:40]} {KEY}".encode())]),
    "key in headers": Row(lambda asked: [http(200, completion("x"), f"X-Echo: Bearer {KEY}", f"X-Request-Id: {KEY}")]),
    "key in a 200": Row(lambda asked: [http(200, completion(f"your key is {KEY}, {echo(asked)}", model=KEY))]),
    "key in a stream in pieces": Row(pieces_of_key, stream=True),
    "key in a bad status line": Row(lambda asked: [f"HTTP/1.1 {KEY} {IDS}\r\n{KEY}\r\n\r\n".encode()]),
    "an answer behind the answer": Row(lambda asked: [ok(asked) + http(200, completion("stolen"))]),
    "HTTP/1.0": Row(lambda asked: [b"HTTP/1.0 200 OK\r\n\r\n" + ok(asked).partition(b"\r\n\r\n")[2]]),
    "a bad status line": Row(says(b"HTTP/9.9 what\r\n\r\n")),
    "length too long": Row(lambda asked: [http(200, completion("x"), length=100_000)]),
    "length too short": Row(lambda asked: [http(200, completion(f"item {asked.item}"), length=20)]),
    "two lengths": Row(lambda asked: [http(200, completion("x"), "Content-Length: 5")]),
    "length and chunks": Row(lambda asked: [http(200, completion("x"), "Transfer-Encoding: chunked")]),
    "reset in the body": Row(lambda asked: [ok(asked)[:-20], Pause(0.05), Reset()]),
    "closed without an answer": Row(says()),
    "self-signed": Row(lambda asked: [ok(asked)], tls="self"),
    "expired certificate": Row(lambda asked: [ok(asked)], tls="expired"),
    "certificate of another host": Row(lambda asked: [ok(asked)], tls="host"),
    "certificate of a CA file": Row(lambda asked: [ok(asked)], tls="good"),
    "HTTP/2 at once": Row(says(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + bytes(18))),
    "TLS on a plain port": Row(lambda asked: [ok(asked)], tls="good", scheme="http"),
    "plain on a TLS port": Row(lambda asked: [ok(asked)], scheme="https"),
}  # fmt: skip

# --- the server, a process of its own -------------------------------------------------------------------------------


class Server:
    """Serves a row until standard input ends, and then prints what it was asked."""

    def __init__(self, row: Row, pem: str | None) -> None:
        self.row = row
        self.asked = self.elsewhere = 0
        self.tls = None
        if pem:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(pem)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.other = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.place = f"127.0.0.1:{self.other.getsockname()[1]}"

    def serve(self) -> None:
        for task in (self.accept, self.accept_elsewhere):
            threading.Thread(target=task, daemon=True).start()
        print(self.listener.getsockname()[1], flush=True)
        sys.stdin.read()
        print(json.dumps({"asked": self.asked, "elsewhere": self.elsewhere}), flush=True)
        os._exit(0)

    def accept_elsewhere(self) -> None:
        while True:
            self.other.accept()
            self.elsewhere += 1

    def accept(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.converse, args=(connection,), daemon=True).start()

    def converse(self, connection: socket.socket) -> None:
        with suppress(OSError, ValueError):
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
            with connection, connection.makefile("rb") as reader:
                while self.answer(connection, reader):
                    pass

    def answer(self, connection: socket.socket, reader: Any) -> bool:
        length = 0
        first = reader.readline()
        while line := reader.readline().strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        if not first:
            return False
        self.asked += 1
        body = json.loads(reader.read(length) or b"{}")
        prompt = next((one["content"] for one in reversed(body.get("messages", []))), "")
        found = re.search(r"\d+", prompt)
        asked = Asked(self.asked, int(found.group()) if found else -1, prompt, self.place, bool(body.get("stream")))
        parts = list(self.row.answer(asked)) if not hasattr(self.row.answer(asked), "__next__") else None
        for one in parts if parts is not None else self.row.answer(asked):
            if isinstance(one, Pause):
                time.sleep(one.seconds)
            elif isinstance(one, Reset):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()
                return False
            else:
                connection.sendall(one)
        data = b"".join(one for one in parts or [] if isinstance(one, bytes))
        return bool(parts) and b"connection: close" not in data[:300].lower() and b"HTTP/1.0" not in data[:20]


# --- the command ----------------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What a row came to."""

    peak: int = 0
    wall_s: float = 0.0
    code: int = -1
    ending: str = ""
    kinds: dict[str, int] = field(default_factory=dict)
    asked: int = 0
    faults: list[str] = field(default_factory=list)


@contextmanager
def serving(name: str, pem: Path | None) -> Iterator[tuple[int, dict[str, int]]]:
    command = [sys.executable, __file__, "--serve", name, *(["--pem", str(pem)] if pem else [])]
    account: dict[str, int] = {}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline()), account
            process.stdin.close()
            account.update(json.loads(process.stdout.readline()))
        finally:
            process.kill()


def write_job(folder: Path, row: Row, port: int, certificates: Path) -> None:
    lines = [json.dumps({"id": f"i-{n}", "prompt": PROMPT.format(number=n)}) for n in range(ITEMS)]
    (folder / "in.jsonl").write_text("\n".join(lines) + "\n")
    scheme = row.scheme or ("https" if row.tls else "http")
    ca_file = f'ca_file = "{certificates / "ca.pem"}"' if row.tls in ("good", "host", "expired") else ""
    (folder / "job.toml").write_text(
        f'input = "in.jsonl"\noutput = "out"\n[endpoint]\nbase_url = "{scheme}://127.0.0.1:{port}/v1"\nmodel = "m"\n'
        f"stream = {str(row.stream).lower()}\n{ca_file}\n[limits]\nconcurrency = 4\n[retry]\nmax_attempts = 1\n"
        'attempt_timeout = "4s"\nidle_timeout = "2s"\nmax_outage = "3s"\nwait_initial = "100ms"\nwait_max = "200ms"\n'
    )


def environment(folder: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "XDG_DATA_HOME": str(folder / "data"), "OPENAI_API_KEY": KEY, "TERM": "xterm"}


def run_once(folder: Path, *flags: str) -> tuple[int, bytes, bytes]:
    shutil.rmtree(folder / "out", ignore_errors=True)
    command = [sys.executable, str(HERE.parent / "peak.py"), str(folder / "peak"), "run", "job.toml", *flags]
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, timeout=120, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def run_on_a_terminal(folder: Path) -> bytes:
    shutil.rmtree(folder / "out", ignore_errors=True)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "batchrun", "run", "job.toml"], cwd=folder, env=environment(folder), stdin=theirs,
        stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    said = b""
    with suppress(OSError):
        while select.select([ours], [], [], 120)[0] and (data := os.read(ours, 65536)):
            said += data
    process.wait(10)
    os.close(ours)
    return said


#: What the bar itself writes: carriage returns, cursor up, erased lines.
OF_THE_BAR = re.compile(rb"\x1b\[[0-9;?]*[A-KMm]|\r")
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def spellings_of_key() -> list[bytes]:
    plain = KEY.encode()
    coded = [base64.b64encode(b"user:" + plain)[8:-4], quote(KEY, safe="").encode(), KEY.replace("/", "\\/").encode()]
    return [plain, *coded]


def leaks(said: bytes, where: str, *, prompts: bool = True) -> list[str]:
    text = said.decode("utf-8", "replace")
    found = [f"key in {where}" for spelled in spellings_of_key() if spelled in said]
    found += [f"{one} in {where}" for one in ("org-AbC1", "proj_Zy", "1234567890123456", "203.0.113") if one in text]
    if prompts and any(PROMPT.format(number=n)[4:24] in text for n in range(ITEMS)):
        found.append(f"prompt in {where}")
    if prompts and ("Traceback" in text):
        found.append(f"traceback in {where}")
    return found


def leaks_in_files(folder: Path) -> list[str]:
    found = []
    for path in [*(folder / "out").rglob("*"), *(folder / "data").rglob("*")]:
        if path.is_file():
            data = path.read_bytes()
            found += [f"key in {path.name}" for spelled in spellings_of_key() if spelled in data]
            if path.name == "run.json":
                found += leaks(data, "run.json", prompts=False)
            if path.stat().st_mode & 0o077:
                found.append(f"{path.name} is open to others")
    return found


def swapped(folder: Path) -> list[str]:
    path = folder / "out" / "results.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    records = [json.loads(line, parse_int=float) for line in lines]
    wrong = [
        one["id"] for one in records if str(one["output"]).startswith("item ") and one["id"][2:] not in one["output"]
    ]
    return [f"{one} has the answer of another" for one in wrong] + [
        "an answer that nobody asked for" for one in records if one["output"] == "stolen"
    ]


def measure(name: str, folder: Path, certificates: Path) -> Seen:
    row, seen = ROWS[name], Seen()
    folder.mkdir()
    pem = certificates / f"{row.tls}.pem" if row.tls else None
    with serving(name, pem) as (port, account):
        write_job(folder, row, port, certificates)
        began = time.monotonic()
        seen.code, out, err = run_once(folder, "--log-format", "text", "--json")
        seen.wall_s = time.monotonic() - began
        seen.peak = int((folder / "peak").read_text())
        seen.faults += leaks(out + err, "output") + leaks_in_files(folder) + swapped(folder)
        summary = json.loads(out or b"{}")
        seen.kinds = summary.get("requests", {}).get("failed_attempts_by_kind", {})
        counts = summary.get("counts", {})
        seen.ending = f"{counts.get('results')} / {counts.get('failures')} / {counts.get('pending')}"
        as_json = run_once(folder, "--log-format", "json")
        seen.faults += leaks(as_json[1] + as_json[2], "JSON log")
        screen = run_on_a_terminal(folder)
        seen.faults += leaks(screen, "screen")
    for text, where in ((out + err, "output"), (as_json[2], "JSON log"), (OF_THE_BAR.sub(b"", screen), "screen")):
        if found := CONTROL.findall(text.decode("utf-8", "replace")):
            seen.faults.append(f"{len(found)} control bytes in {where}: {found[:3]}")
    seen.asked = account["asked"]
    if account["elsewhere"]:
        seen.faults.append(f"{account['elsewhere']} calls elsewhere")
    return seen


def make_certificates(folder: Path) -> None:
    """Make an authority, and certificates of it that are good, expired and of another host; and one of its own."""

    def openssl(*words: object) -> None:
        subprocess.run(["openssl", *map(str, words)], cwd=folder, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", 2, "-subj", "/CN=Authority", "-keyout", "ca.key",
            "-out", "ca.pem")  # fmt: skip
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", 2, "-subj", "/CN=127.0.0.1", "-addext",
            "subjectAltName=IP:127.0.0.1", "-keyout", "self.key", "-out", "self.crt")  # fmt: skip
    for name, host, dates in (
        ("good", "IP:127.0.0.1", ("-days", 2)),
        ("host", "DNS:other.example", ("-days", 2)),
        ("expired", "IP:127.0.0.1", ("-not_before", "20200101000000Z", "-not_after", "20200102000000Z")),
    ):
        openssl(
            "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-keyout", f"{name}.key", "-out", f"{name}.csr"
        )
        (folder / "ext").write_text(f"subjectAltName={host}\n")
        if name == "expired":
            (folder / "index").write_text("")
            (folder / "serial").write_text("01\n")
            (folder / "conf").write_text(
                "[ca]\ndefault_ca=own\n[own]\nnew_certs_dir=.\ndatabase=index\nserial=serial\ndefault_md=sha256\n"
                "policy=any\n[any]\ncommonName=supplied\n"
            )
            openssl("ca", "-batch", "-config", "conf", "-cert", "ca.pem", "-keyfile", "ca.key", "-in", f"{name}.csr",
                    "-out", f"{name}.crt", "-extfile", "ext", "-startdate", dates[1], "-enddate", dates[3],
                    "-notext")  # fmt: skip
        else:
            openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                    "-extfile", "ext", "-out", f"{name}.crt", *dates)  # fmt: skip
    for name in ("self", "good", "host", "expired"):
        (folder / f"{name}.pem").write_text((folder / f"{name}.key").read_text() + (folder / f"{name}.crt").read_text())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW")
    parser.add_argument("--list", action="store_true", help="name the rows")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--pem", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        Server(ROWS[given.serve], given.pem).serve()
    if given.list:
        print("\n".join(ROWS))
        return 0
    names = [name for name in ROWS if not given.rows or name == "ordinary" or any(one in name for one in given.rows)]
    print("| server | MB over an ordinary run | s | exit | results / failures / pending | failed attempts | calls |")
    print("|---|---|---|---|---|---|---|")
    faults = 0
    with tempfile.TemporaryDirectory() as place:
        certificates = Path(place) / "certificates"
        certificates.mkdir()
        make_certificates(certificates)
        idle = 0
        for number, name in enumerate(names):
            seen = measure(name, Path(place) / str(number), certificates)
            idle = idle or seen.peak
            over = (seen.peak - idle) / 1e6
            if over > MOST_MB:
                seen.faults.append(f"{over:.0f} MB")
            kinds = ", ".join(f"{count} {kind}" for kind, count in seen.kinds.items()) or "none"
            print(f"| {name} | {over:.0f} | {seen.wall_s:.1f} | {seen.code} | {seen.ending} | {kinds} | {seen.asked} |")
            for fault in dict.fromkeys(seen.faults):
                print(f"  ^ FAULT: {fault}")
            sys.stdout.flush()
            faults += bool(seen.faults)
    print(f"{len(names)} rows, {faults} with a fault; an ordinary run takes {idle / 1e6:.0f} MB")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
