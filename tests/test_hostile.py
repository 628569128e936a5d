"""Endpoints that must not be trusted: what they get, what they cost, and what of them is ever shown."""

from __future__ import annotations

import base64
import gzip
import json
import os
import select
import socket
import stat
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from certificates import Authority
from conftest import KEY, QUICK, Ended, Ran, measured, records, write_lines
from scripted import Action, Call, Drip, Scripted, Wait, always, completion, http, ok

PROMPT = "七色的鹿在第三座山上读一封没有寄出的信"
IDS = "org-AbC123dEf456 proj_ZyX987wVu654 uid: 1234567890123456 account 2100123456 sk-abcd****wxyz from 203.0.113.77"
SECRETS = ("org-AbC1", "proj_ZyX", "1234567890123456", "2100123456", "wxyz", "203.0.113")
EVIL = "\x1b[2J\x1b]52;c;eA==\x07\x9b31m\x9d0;x\x9c\u202egpj\u2066\r\n\x00"


def job(tmp_path: Path, server: Scripted | str, extra: str = "", *, items: int = 3, prompt: str = PROMPT) -> Path:
    write_lines(tmp_path / "in.jsonl", *({"id": f"i{n}", "prompt": prompt} for n in range(items)))
    base_url = server if isinstance(server, str) else server.base_url
    (tmp_path / "job.toml").write_text(
        f'input = "in.jsonl"\noutput = "out"\n[endpoint]\nbase_url = "{base_url}"\nmodel = "m-1"\n{extra}\n[retry]\n'
        'max_attempts = 1\nmax_outage = "1s"\nwait_initial = "20ms"\nattempt_timeout = "5s"\n[data_boundary]\n'
        'classification = "non-sensitive"\n'
    )
    return tmp_path / "job.toml"


# --- what is shown ----------------------------------------------------------------------------------------------


CODED = base64.b64encode(f"user:{KEY}".encode()).decode()
#: The key as a provider may echo it, and what of each must not be seen.
ECHOES = [KEY, quote(KEY, safe=""), quote(KEY, safe="").lower(), CODED, json.dumps(json.dumps(KEY))]
TRACES = [*ECHOES[:3], CODED[8:-4], KEY[3:]]


@pytest.mark.parametrize("status", [400, 401, 402, 429, 503])
@pytest.mark.parametrize("flags", [(), ("--json",), ("--log-format", "json", "--json")], ids=["text", "json", "log"])
def test_an_error_shows_neither_key_nor_prompt_nor_whose_account_it_is(
    status: int, flags: tuple[str, ...], tmp_path: Path, serve: Callable[..., Scripted],
    batchrun: Callable[..., Ended],
) -> None:  # fmt: skip
    words = f"{IDS}, keys {' '.join(ECHOES)}, asked: {PROMPT}"
    server = serve(always(http(status, {"error": {"message": words}}, f"X-Echo: {quote(KEY, safe='')}")))
    ended = batchrun("run", job(tmp_path, server), *flags, OPENAI_API_KEY=KEY)
    assert ended.code in ((3,) if status == 400 else (3, 4))
    shown = ended.out + ended.err + (tmp_path / "out" / "run.json").read_text()
    for text in (*TRACES, *SECRETS, PROMPT, PROMPT[3:]):
        assert text not in shown
    for path in (tmp_path / "out").iterdir():
        data = path.read_bytes().decode("utf-8", "replace")
        assert not [one for one in TRACES if one in data], path
    if status == 400:
        body = records(tmp_path / "out" / "failures.jsonl")[0]["provider"]["body"]
        assert "org-AbC123dEf456" in body["error"]["message"], "the record keeps what came, but for the key"


@pytest.mark.parametrize("command", ["run", "check", "models"])
@pytest.mark.parametrize("flag", [(), ("--json",)])
def test_what_an_endpoint_says_never_steers_a_terminal(
    command: str, flag: tuple[str, ...], tmp_path: Path, serve: Callable[..., Scripted],
    batchrun: Callable[..., Ended],
) -> None:  # fmt: skip
    def script(call: Call) -> list[Action]:
        if call.target.endswith("/models"):
            return [http(200, {"data": [{"id": EVIL, "owned_by": EVIL}]})]
        return [http(401, {"error": {"message": EVIL, "code": EVIL}})]

    ended = batchrun(command, job(tmp_path, serve(script)), *flag, OPENAI_API_KEY=KEY)
    shown = ended.out + ended.err
    assert "gpj" in shown
    assert not set(EVIL) & set(shown) - set("\n[]0123456789;=cegjmpxAJ"), ascii(shown)


def test_names_of_files_never_steer_a_terminal(
    tmp_path: Path, serve: Callable[..., Scripted], batchrun: Callable[..., Ended]
) -> None:
    server = serve(always(ok()))
    job(tmp_path, server)
    name = "out\x1b[2J\u202e"
    ended = batchrun("run", "job.toml", "-o", name, "--json", OPENAI_API_KEY=KEY)
    state = batchrun("status", name)
    assert (ended.code, state.code) == (0, 0)
    assert not {"\x1b", "\u202e"} & set(ended.out + ended.err + state.out + state.err)


# --- what it costs ----------------------------------------------------------------------------------------------


def test_only_packings_that_have_a_bound_are_asked_for(serve: Callable[..., Scripted], go: Callable[..., Ran]) -> None:
    server = serve(always(http(200, b"x", "Content-Encoding: zstd")))
    ran = go(server, retry=replace(QUICK, max_attempts=1))
    assert server.calls[0].values("accept-encoding") == ["gzip, deflate"]
    assert ran.failures[0]["error"]["kind"] == "network"
    assert "zstd" in ran.failures[0]["error"]["message"]


@pytest.mark.parametrize("packed", [zlib.compress, lambda data: zlib.compress(data, wbits=-15), gzip.compress])
def test_a_packed_answer_is_an_answer(
    packed: Callable[[bytes], bytes], serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    data = packed(json.dumps(completion()).encode())
    encoding = "gzip" if packed is gzip.compress else "deflate"
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in data)
    assert go(serve(always(head + pieces + b"0\r\n\r\n"))).results[0]["output"] == "ok"


def bomb(size: int, packing: int = 31) -> bytes:
    packer = zlib.compressobj(6, wbits=packing)
    return b"".join(packer.compress(b" " * (1 << 20)) for _ in range(size >> 20)) + packer.flush()


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "bad_request"), (401, "auth"), (402, "quota"), (500, "server_error")]
)
@pytest.mark.parametrize("how", ["bomb", "endless", "unknown packing"])
def test_an_error_is_known_by_its_status_however_much_comes(
    status: int, kind: str, how: str, serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    endless = f"HTTP/1.1 {status} X\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    ways: dict[str, list[Action]] = {
        "bomb": [http(status, bomb(100 << 20), "Content-Encoding: gzip")],
        "endless": [endless, Drip(b"10000\r\n" + b"x" * 65536 + b"\r\n", 0.0001)],
        "unknown packing": [http(status, b"x" * 99, "Content-Encoding: br")],
    }
    ran = go(serve(always(*ways[how])), 1, retry=replace(QUICK, max_attempts=1))
    stop = ran.summary.stop
    assert (stop.kind if stop else ran.failures[0]["error"]["kind"]) == kind
    assert ran.summary.duration_s < 10


def test_large_answers_come_one_after_the_other_and_all_of_them(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    server = serve(lambda call: [http(200, completion(call.prompt + "x" * (5 << 20)))])
    ran = go(server, 8, concurrency=8)
    assert ran.failed_attempts == {}
    assert {one["id"]: one["output"][:2] for one in ran.results} == {f"p{n}": f"p{n}" for n in range(8)}


EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
MEGABYTE = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"
EXCESSES: dict[str, tuple[bool, list[Action], str]] = {
    "interim answers for ever": (False, [Drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 5000, 0.001)], "network"),
    "a line for ever": (True, [EVENTS, b"6\r\ndata: \r\n", Drip(MEGABYTE, 0.001)], "invalid_response"),
    "many values": (False, [http(200, b'{"choices":[' + b"[]," * (4 << 20) + b"[]]}")], "invalid_response"),
}


@pytest.mark.parametrize("name", EXCESSES)
def test_what_is_endless_is_ended_in_little_memory(name: str, tmp_path: Path, serve: Callable[..., Scripted]) -> None:
    stream, actions, kind = EXCESSES[name]
    good = job(tmp_path, serve(always(ok())), "stream = false", items=4)
    code, idle = measured(tmp_path, "run", good, "--concurrency", 4)
    assert code == 0
    (tmp_path / "out").rename(tmp_path / "before")
    bad = job(tmp_path, serve(always(*actions)), f"stream = {str(stream).lower()}", items=4)
    _, peak = measured(tmp_path, "run", bad, "--concurrency", 4)
    assert {one["error"]["kind"] for one in records(tmp_path / "out" / "failures.jsonl")} <= {kind}
    assert peak - idle < 80e6


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, {"error": {"message": "Incorrect API key provided"}}, "auth"),
        (402, {"error": {"message": "Insufficient Balance"}}, "quota"),
        (429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}, "quota"),
    ],
)
def test_a_revoked_key_costs_the_calls_in_flight_and_no_more(
    status: int, body: Any, kind: str, serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    refused_at: list[float] = []

    def script(call: Call) -> list[Action]:
        if call.number <= 200:
            return [Wait(0.05), ok()]
        if not refused_at:
            refused_at.append(time.monotonic())
            return [http(status, body)]
        return [Wait(0.5), http(status, body)]

    server = serve(script)
    ran = go(server, 600, concurrency=50)
    stop = ran.summary.stop
    assert stop is not None
    assert (ran.summary.exit_code, stop.kind, ran.failures) == (4, kind, [])
    late = [call for call in server.calls if call.at > refused_at[0] + 0.2]
    assert late == [], "no call leaves once the refusal has come"
    assert len(server.calls) <= 201 + 50
    assert len(ran.results) + (ran.summary.pending or 0) == 600


# --- the way there ----------------------------------------------------------------------------------------------


class Proxy:
    """A proxy that lets anybody through by CONNECT; keeps the heads of the requests and all that it could read."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 Established\r\n\r\n") -> None:
        self.heads: list[str] = []
        self.read = b""
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._lead, args=(connection,), daemon=True).start()

    def _lead(self, near: socket.socket) -> None:
        with suppress(OSError), near:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                one = near.recv(1)
                if not one:
                    return
                head += one
            self.heads.append(head.decode())
            near.sendall(self._answer)
            host, _, port = head.split()[1].decode().partition(":")
            if b" 200 " not in self._answer:
                return
            with socket.create_connection((host, int(port))) as far:
                while True:
                    for one in select.select([near, far], [], [], 20)[0]:
                        data = one.recv(65536)
                        self.read += data
                        if not data:
                            return
                        (far if one is near else near).sendall(data)


@pytest.fixture
def proxy() -> Iterator[Callable[..., Proxy]]:
    made: list[Proxy] = []

    def make(*arguments: Any) -> Proxy:
        made.append(Proxy(*arguments))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_proxy_is_followed_where_the_job_names_it_and_sees_no_key(
    tmp_path: Path, serve: Callable[..., Scripted], batchrun: Callable[..., Ended], authority: Authority,
    proxy: Callable[..., Proxy],
) -> None:  # fmt: skip
    server = serve(always(ok()), tls=authority.tls("IP:127.0.0.1"))
    way, other = proxy(), proxy()
    path = job(
        tmp_path, server, f'proxy = "http://someone:pa%2Fssword@{way.place}"\nca_file = "{authority.pem}"', items=2
    )
    ended = batchrun("run", path, "--json", OPENAI_API_KEY=KEY, HTTPS_PROXY=f"http://{other.place}")
    assert ended.code == 0, ended.err
    assert len(server.calls) == 2
    assert other.heads == []
    assert all(head.startswith("CONNECT 127.0.0.1:") for head in way.heads)
    assert "Basic " + base64.b64encode(b"someone:pa/ssword").decode() in way.heads[0]
    assert KEY not in "".join(way.heads)
    assert KEY.encode() not in way.read
    assert not any(call.values("proxy-authorization") for call in server.calls)
    checked = batchrun("check", path, "--json", OPENAI_API_KEY=KEY, HTTPS_PROXY=f"http://{other.place}")
    assert checked.code in (0, 4)  # this server does not answer an empty request as an API does
    assert checked.json()["settings"]["through"]["value"] == f"the proxy http://…@{way.place}"
    assert "ignored" in checked.json()["settings"]["proxy"]["from"]
    written = "".join(file.read_bytes().decode("utf-8", "replace") for file in (tmp_path / "out").iterdir())
    for text in ("pa/ssword", "pa%2Fssword", "someone"):
        assert text not in ended.out + ended.err + checked.out + checked.err + written
    again = batchrun("retry", "out", OPENAI_API_KEY=KEY)
    assert again.code == 2
    assert "name the job file" in again.err


@pytest.mark.parametrize(("status", "code"), [(407, 4), (403, 4), (502, 3)])
def test_a_proxy_that_leads_nowhere_is_named(
    status: int, code: int, tmp_path: Path, batchrun: Callable[..., Ended], proxy: Callable[..., Proxy]
) -> None:
    way = proxy(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status)
    path = job(tmp_path, "https://127.0.0.1:9/v1", f'proxy = "http://u:secret-word@{way.place}"')
    ended = batchrun("run", path, OPENAI_API_KEY=KEY)
    assert ended.code == code
    said = ended.err if code == 4 else (tmp_path / "out" / "failures.jsonl").read_text()
    assert f"HTTP {status} of the proxy http://…@{way.place}" in said
    assert "secret-word" not in ended.err + said
    assert len(way.heads) == 1 or status == 502


@pytest.mark.parametrize(
    "value", ["https://p:1", "socks5://p:1", "p:3128", "http://", "http://u:pw@h:99999", "http://h/x"]
)
def test_a_proxy_that_can_be_none_is_refused(value: str, tmp_path: Path, batchrun: Callable[..., Ended]) -> None:
    ended = batchrun("run", job(tmp_path, "https://127.0.0.1:9/v1", f'proxy = "{value}"'), OPENAI_API_KEY=KEY)
    assert ended.code == 2
    assert "endpoint.proxy: expected http://host:port" in ended.err
    assert "u:pw" not in ended.err


def test_certificates_count_that_the_job_s_authorities_signed(
    tmp_path: Path, serve: Callable[..., Scripted], batchrun: Callable[..., Ended], authority: Authority
) -> None:
    server = serve(always(ok()), tls=authority.tls("IP:127.0.0.1"))
    trusting = f'ca_file = "{authority.pem}"'
    refused = batchrun("run", job(tmp_path, server), OPENAI_API_KEY=KEY)
    assert (refused.code, server.calls) == (4, [])
    assert batchrun("run", job(tmp_path, server, trusting), OPENAI_API_KEY=KEY).code == 0
    expired = serve(always(ok()), tls=authority.tls("IP:127.0.0.1", days=-1))
    elsewhere = serve(always(ok()), tls=authority.tls("DNS:other.example"))
    for number, bad in enumerate((expired, elsewhere)):
        path = job(tmp_path, bad, trusting)
        ended = batchrun("run", path, "-o", f"other-{number}", OPENAI_API_KEY=KEY)
        assert (ended.code, bad.calls) == (4, [])
        assert "certificate" in ended.err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (b"", "no certificate in PEM form"),
        (b"\x30\x82\x03", "no certificate in PEM form"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be read"),
        (b"-----BEGIN CERTIFICATE-----\n", "cannot be read"),
    ],
)
def test_a_ca_file_that_is_none_is_refused(
    content: bytes | None, words: str, tmp_path: Path, batchrun: Callable[..., Ended]
) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_bytes(content)
    path = job(tmp_path, "https://127.0.0.1:9/v1", 'ca_file = "ca.pem"')
    for command in ("run", "check", "models"):
        ended = batchrun(command, path, OPENAI_API_KEY=KEY)
        assert ended.code == 2
        assert words in ended.out + ended.err
        assert "ca_file" in ended.out + ended.err
        assert "Traceback" not in ended.err


def test_plain_http_to_another_machine_needs_to_be_allowed(
    tmp_path: Path, serve: Callable[..., Scripted], batchrun: Callable[..., Ended]
) -> None:
    """0.0.0.0 is no loopback address, and leads to this machine."""
    server = serve(always(ok()))
    remote = server.base_url.replace("127.0.0.1", "0.0.0.0")
    for command in ("run", "check", "models", "probe"):
        ended = batchrun(command, job(tmp_path, remote), OPENAI_API_KEY=KEY)
        assert (ended.code, server.connections) == (2, 0)
        assert "allow_http" in ended.out + ended.err
    assert batchrun("run", job(tmp_path, remote, "allow_http = true"), OPENAI_API_KEY=KEY).code == 0
    assert len(server.calls) == 3


# --- the key and the files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["api_key_file", "env_file"])
def test_a_key_that_others_can_read_is_said(
    place: str, tmp_path: Path, serve: Callable[..., Scripted], batchrun: Callable[..., Ended]
) -> None:
    server = serve(always(ok()))
    path, key = job(tmp_path, server), tmp_path / "key"
    key.write_text(KEY if place == "api_key_file" else f"OPENAI_API_KEY={KEY}\n")
    text = path.read_text()
    line = f'{place} = "key"\n'
    path.write_text(line + text if place == "env_file" else text.replace("[endpoint]\n", f"[endpoint]\n{line}"))
    key.chmod(0o640)
    ended = batchrun("run", path, "--json")
    assert ended.code == 0
    assert "chmod 600" in ended.err
    assert any("open to others" in one for one in ended.json()["warnings"])
    assert "chmod 600" in batchrun("check", path).out
    key.chmod(0o600)
    assert "chmod 600" not in batchrun("run", path, "-o", "other").err
    assert {call.values("authorization")[0] for call in server.calls if call.raw} == {f"Bearer {KEY}"}


def test_a_crash_leaves_no_memory_on_disk_and_the_key_is_in_no_argument(
    tmp_path: Path, serve: Callable[..., Scripted], batchrun: Callable[..., Ended]
) -> None:
    seen: list[tuple[str, bytes]] = []

    def script(call: Call) -> list[Action]:
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                arguments = (process / "cmdline").read_bytes()
                if str(tmp_path).encode() in arguments and b"batchrun" in arguments:
                    seen.append(((process / "limits").read_text(), arguments))
        return [ok()]

    assert batchrun("run", job(tmp_path, serve(script), items=1), OPENAI_API_KEY=KEY).code == 0
    assert seen
    for limits, arguments in seen:
        assert KEY.encode() not in arguments
        core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
        assert core.split()[4] == "0"


@pytest.mark.parametrize("name", ["results.jsonl", "failures.jsonl", "lock", "pace", "run.json.tmp", "journal"])
@pytest.mark.parametrize("what", ["hard link", "symbolic link", "pipe"])
def test_nothing_is_written_through_what_others_put_there(
    name: str, what: str, tmp_path: Path, serve: Callable[..., Scripted], batchrun: Callable[..., Ended]
) -> None:
    out, victim = tmp_path / "out", tmp_path / "victim"
    out.mkdir(mode=0o700)
    victim.write_text("untouched\n")
    if what == "hard link":
        os.link(victim, out / name)
    elif what == "symbolic link":
        (out / name).symlink_to(victim)
    else:
        os.mkfifo(out / name)
    server = serve(always(ok()))
    ended = batchrun("run", job(tmp_path, server), OPENAI_API_KEY=KEY)
    assert victim.read_text() == "untouched\n"
    assert "Traceback" not in ended.err
    if name in ("run.json.tmp", "pace") or (name, what) == ("journal", "hard link"):
        assert ended.code == 0, "it is made anew, or a run is possible without"
    else:
        assert (ended.code, server.calls) == (2, [])
        assert name in ended.err


@pytest.mark.parametrize("name", ["run.json", "lock", "results.jsonl", "failures.jsonl", "index", "journal"])
def test_a_pipe_is_not_waited_for(name: str, tmp_path: Path, batchrun: Callable[..., Ended]) -> None:
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / name)
    for command in ("status", "verify", "report", "export", "reparse"):
        assert "Traceback" not in batchrun(command, "out").err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("what", ["folder", "link to a folder", "file"])
def test_what_belongs_to_others_in_a_place_for_everybody_is_refused(
    what: str, tmp_path: Path, serve: Callable[..., Scripted], batchrun: Callable[..., Ended]
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    out, elsewhere = shared / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    if what == "link to a folder":
        out.symlink_to(elsewhere)
        os.lchown(out, 12345, 12345)
    else:
        out.mkdir()
        (out / "results.jsonl").touch()
        os.chown(out if what == "folder" else out / "results.jsonl", 12345, 12345)
    server = serve(always(ok()))
    ended = batchrun("run", job(tmp_path, server), "-o", out, OPENAI_API_KEY=KEY)
    assert (ended.code, server.calls) == (2, [])
    assert "belongs to another user" in ended.err
    assert list(elsewhere.iterdir()) == []


def test_folders_on_the_way_are_private_too(
    tmp_path: Path, serve: Callable[..., Scripted], batchrun: Callable[..., Ended]
) -> None:
    ended = batchrun("run", job(tmp_path, serve(always(ok()))), "-o", "a/b/c", OPENAI_API_KEY=KEY)
    assert ended.code == 0
    for folder in ("a", "a/b", "a/b/c"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o700


# --- templates --------------------------------------------------------------------------------------------------

TEMPLATES = [
    "{{ 'a' * 10**9 }}", "{{ 10 ** (10 ** 8) }}", "{{ '%1000000000d' % 1 }}", "{{ '%*d' % (10**9, 1) }}",
    "{{ '{:1000000000}'.format(1) }}", "{{ 'a' | center(10**9) }}", "{{ 'a'.ljust(10**9) }}", "{{ [text] * 10**9 }}",
    "{{ '%0999999999d' | format(1) }}", "{{ 'a' | indent(10**9, true) }}", "{{ range(10**9) | list }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{{ text }}{% endfor %}{% endfor %}",
]  # fmt: skip


def test_a_template_that_makes_too_much_fails_its_item_in_little_memory(tmp_path: Path) -> None:
    write_lines(tmp_path / "in.jsonl", {"text": "x"})
    _, idle = measured(tmp_path, "run", "-i", "in.jsonl", "-o", "o", "--dry-run", "--prompt", "{{ text }}{# #}")
    for template in TEMPLATES:
        code, peak = measured(tmp_path, "run", "-i", "in.jsonl", "-o", "o", "--dry-run", "--prompt", template)
        assert code == 3, template
        assert peak - idle < 80e6, template


def test_templates_may_still_reckon_and_format(tmp_path: Path, batchrun: Callable[..., Ended]) -> None:
    write_lines(tmp_path / "in.jsonl", {"text": "ab"})
    template = "{{ text * 3 }}{{ 2 ** 10 + 7 % 4 }}{{ '%5d|%s' % (3, text) }}{{ '{:>5}'.format(1) }}{{ 'a'.center(5) }}"
    assert batchrun("run", "-i", "in.jsonl", "-o", "o", "--dry-run", "--prompt", template).code == 0
