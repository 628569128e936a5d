from __future__ import annotations

import gzip
import json
import socket
import ssl
import subprocess
import time
import zlib
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import KEY, Ran, measured, records, write_lines
from scripted import (
    Act,
    Action,
    Call,
    Drip,
    Script,
    Scripted,
    Wait,
    always,
    chunked,
    completion,
    first,
    http,
    ok,
)

from batchrun import Retry, Structured

GOOD = json.dumps(completion()).encode()


def retry(attempts: int = 6, timeout: float = 20.0) -> Retry:
    return Retry(max_attempts=attempts, attempt_timeout=timeout, wait_initial=0.02, wait_max=0.05, max_outage=1.0)


# --- one bad attempt, then a good one ---------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD)
CUT = b"%sContent-Length: %d\r\n\r\n%s" % (HEAD, len(GOOD), GOOD[:40])
#: What goes wrong with the first attempt, and the kind that it counts as.
BREAKS: dict[str, tuple[str, list[Action]]] = {
    "reset before an answer": ("network", [Act.RESET]),
    "reset in the head": ("network", [HEAD, Wait(0.02), Act.RESET]),
    "reset in the body": ("network", [CUT, Wait(0.02), Act.RESET]),
    "closed without an answer": ("network", [Act.CLOSE]),
    "closed in the head": ("network", [HEAD, Act.CLOSE]),
    "closed after the head": ("network", [HEAD + b"Content-Length: 9\r\n\r\n", Act.CLOSE]),
    "shorter than announced": ("network", [CUT, Act.CLOSE]),
    "chunks without an end": ("network", [chunked(GOOD, end=False), Act.CLOSE]),
    "chunk cut": ("network", [chunked(GOOD)[:-40], Act.CLOSE]),
    "cut, closed to mark the end": ("invalid_response", [HEAD + b"Connection: close\r\n\r\n" + GOOD[:40], Act.CLOSE]),
    "no HTTP at all": ("network", [b"SSH-2.0-OpenSSH_9.9\r\n", Act.CLOSE]),
    "bad chunk size": ("network", [HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", Act.CLOSE]),
    "gzip that is none": ("network", [http(200, GOOD, "Content-Encoding: gzip")]),
    "gzip cut": ("invalid_response", [http(200, gzip.compress(GOOD)[:-20], "Content-Encoding: gzip")]),
    "empty": ("invalid_response", [http(200, b"")]),
    "blank lines": ("invalid_response", [http(200, b"\n\n\n\n")]),
    "no content": ("invalid_response", [b"HTTP/1.1 204 No Content\r\n\r\n"]),
    "null": ("invalid_response", [http(200, None)]),
    "choices null": ("invalid_response", [http(200, completion() | {"choices": None})]),
    "no finish_reason": ("invalid_response", [http(200, completion(finish=None))]),
    "spaces for content": ("empty_output", [http(200, completion("  \n"))]),
    "no resources": ("server_error", [http(200, completion(finish="insufficient_system_resource"))]),
    "error in a 200": ("server_error", [http(200, {"error": {"message": "upstream", "code": 502}})]),
    "408": ("timeout", [http(408)]),
    "409": ("server_error", [http(409)]),
    "425": ("server_error", [http(425)]),
    "429": ("rate_limited", [http(429)]),
    "429 with a short wait": ("rate_limited", [http(429, b"", "Retry-After: 0.05")]),
    "429 with nonsense": ("rate_limited", [http(429, b"", "Retry-After: soon")]),
    "500": ("server_error", [http(500, {"error": {"message": "boom"}})]),
    "502 as a page": ("server_error", [http(502, b"<html><title>502 Bad Gateway</title></html>")]),
    "503 with a short wait": ("server_error", [http(503, b"", "retry-after-ms: 20")]),
    "504": ("timeout", [http(504)]),
    "520": ("server_error", [http(520)]),
    "529": ("server_error", [http(529)]),
    "a header of 100 kB": ("network", [http(200, GOOD, "X-Huge: " + "x" * 100_000)]),
    "20,000 headers": ("network", [http(200, GOOD, *(f"X-{n}: 1" for n in range(20_000)))]),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_attempt_is_repeated(name: str, serve: Callable[..., Scripted], go: Callable[..., Ran]) -> None:
    kind, actions = BREAKS[name]
    server = serve(first(*actions))
    ran = go(server)
    assert ran.failed_attempts == {kind: 1}
    assert (ran.summary.exit_code, len(ran.results), len(server.calls)) == (0, 1, 2)
    assert ran.results[0]["attempts"] == 2
    assert ran.results[0]["output"] == "ok"


@pytest.mark.parametrize(
    "actions",
    [
        [Act.HANG],
        [HEAD, Act.HANG],
        [CUT, Act.HANG],
        [HEAD + b"Content-Length: 100000\r\n\r\n", Drip(b"\n", 0.02)],
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", Drip(b"1\r\n\n\r\n", 0.02)],
        [HEAD + b"X-Slow: ", Drip(b"x", 0.02)],
    ],
    ids=["silence", "head, silence", "half, silence", "drip", "chunks of blank lines", "drip in the head"],
)
def test_an_attempt_ends_at_its_timeout(
    actions: list[Action], serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    server = serve(first(*actions))
    ran = go(server, retry=retry(timeout=0.4))
    assert ran.failed_attempts == {"timeout": 1}
    assert ran.results[0]["attempts"] == 2
    slow, good = server.calls
    assert 0.3 <= good.at - slow.at < 5  # the server may hear of the first one late
    assert (slow.same_together, good.same_together) == (1, 1)


def test_the_failure_after_all_attempts_says_what_happened(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    server = serve(always(http(503, {"error": {"message": "overloaded", "code": "busy"}}, "X-Request-Id: r-9")))
    ran = go(server, 1, retry=retry(3))
    assert (ran.summary.exit_code, len(server.calls)) == (3, 3)
    for failure in ran.failures:
        assert failure["error"]["kind"] == "server_error"
        assert (failure["error"]["http_status"], failure["error"]["code"], failure["attempts"]) == (503, "busy", 3)
        assert failure["provider"]["headers"]["x-request-id"] == "r-9"
        assert failure["provider"]["body"] == {"error": {"message": "overloaded", "code": "busy"}}


def test_connection_refused(go: Callable[..., Ran]) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    ran = go(f"http://127.0.0.1:{port}/v1", 2, retry=retry(3))
    assert (ran.summary.exit_code, ran.summary.failures, ran.summary.pending) == (4, 0, 2)
    assert ran.summary.stop is not None
    assert ran.summary.stop.kind == "network"
    assert str(port) in ran.summary.stop.message
    one = go(f"http://127.0.0.1:{port}/v1", 1, retry=retry(2))
    assert one.failed_attempts == {"network": 2}
    assert one.failures[0]["error"]["kind"] == "network"
    assert one.failures[0]["provider"] is None


def test_a_connection_that_is_never_accepted_ends_at_the_timeout(go: Callable[..., Ran]) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):  # the queue of a listener that accepts nobody
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        ran = go(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", retry=retry(2, timeout=0.3))
    assert ran.failed_attempts == {"timeout": 2}
    assert ran.failures[0]["error"]["kind"] == "timeout"


# --- what is not repeated ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (http(400, {"error": {"message": "bad temperature"}}), "bad_request"),
        (http(400, {"error": {"message": "maximum context length is 5"}}), "context_length"),
        (http(400, {"error": {"message": "Content Exists Risk"}}), "content_filter"),
        (http(413), "context_length"),
        (http(422, {"detail": "no"}), "bad_request"),
        (http(451), "content_filter"),
        (http(418), "bad_request"),
        (http(200, completion("half", finish="length")), "truncated"),
        (http(200, completion("half", finish="content_filter")), "content_filter"),
    ],
)
def test_what_another_attempt_cannot_cure_is_sent_once(
    answer: bytes, kind: str, serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    server = serve(lambda call: [answer if call.prompt == "p1" else ok()])
    ran = go(server, 4)
    assert (ran.summary.exit_code, len(ran.results), len(server.of("p1"))) == (3, 3, 1)
    assert [failure["error"]["kind"] for failure in ran.failures] == [kind]
    assert ran.failures[0]["attempts"] == 1
    assert ran.failures[0]["input"] == {"id": "p1", "prompt": "p1"}


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, "auth"), (402, "quota"), (403, "permission"), (404, "not_an_api"), (405, "not_an_api")],
)
def test_the_endpoint_says_stop_and_no_item_is_blamed(
    status: int, kind: str, serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    revoked = [False]

    def script(call: Call) -> list[Action]:
        revoked[0] = revoked[0] or call.number > 10
        return [http(status, {"error": {"message": "stop"}}) if revoked[0] else ok()]

    server = serve(script)
    ran = go(server, 100, concurrency=3)
    assert ran.summary.exit_code == 4
    assert ran.summary.stop is not None
    assert ran.summary.stop.kind == kind
    assert ran.failures == []
    assert len(ran.results) == 10
    assert ran.summary.pending == 90
    assert len(server.calls) <= 13
    good = serve(always(ok()))
    again = go(good, 100)
    assert (again.summary.exit_code, len(again.results), len(good.calls)) == (0, 100, 90)
    assert {record["id"] for record in again.results} == {f"p{number}" for number in range(100)}


def test_a_web_page_is_no_api(serve: Callable[..., Scripted], go: Callable[..., Ran]) -> None:
    ran = go(serve(always(http(200, b"<!doctype html><title>Gateway</title>", "Content-Type: text/html"))), 5)
    assert (ran.summary.exit_code, ran.failures, ran.results) == (4, [], [])
    assert ran.summary.stop is not None
    assert "/v1" in ran.summary.stop.message


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int, serve: Callable[..., Scripted], go: Callable[..., Ran]) -> None:
    other = serve(always(ok("from another host")))
    server = serve(always(http(status, b"", f"Location: {other.base_url}/chat/completions")))
    ran = go(server, 3)
    assert (other.connections, ran.results, ran.failures) == (0, [], [])
    assert ran.summary.exit_code == 4
    assert ran.summary.stop is not None
    assert other.base_url in ran.summary.stop.message


def test_a_certificate_that_nobody_signed_stops_the_run(
    tmp_path: Path, serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    pem = tmp_path / "self-signed.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", pem, "-out", tmp_path / "crt"],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl cannot make a certificate here")
    pem.write_text(pem.read_text() + (tmp_path / "crt").read_text())
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem)
    server = serve(always(ok()), tls=tls)
    ran = go(server, 3)
    assert (server.calls, ran.results, ran.failures, ran.summary.exit_code) == ([], [], [], 4)
    assert ran.summary.stop is not None
    assert "certificate" in ran.summary.stop.message


# --- what is good although it looks odd -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "actions",
    [
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n\n\r\n", Wait(0.1), b"2\r\n\n\n\r\n" + CHUNKS],
        [http(200, GOOD, "Content-Type: text/html; charset=utf-16")],
        [http(200, GOOD, "Content-Type: application/octet-stream")],
        [http(200, b"\xef\xbb\xbf" + GOOD)],
        [http(200, gzip.compress(GOOD), "Content-Encoding: gzip")],
        [chunked(*(GOOD[at : at + 1] for at in range(len(GOOD))))],
        [HEAD + b"Connection: close\r\n\r\n" + GOOD, Act.CLOSE],
        [b"HTTP/1.0 200 OK\r\n\r\n" + GOOD, Act.CLOSE],
        [b"HTTP/1.1 100 Continue\r\n\r\n" + ok()],
        [b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + ok()],
        [ok()[:30], Wait(0.05), ok()[30:]],
        [http(200, GOOD, "X-Twice: a", "X-Twice: b", "Set-Cookie: secret=1", "Set-Cookie: other=2")],
        [http(200, GOOD, "X-Big: " + "x" * 7000)],
    ],
    ids=["keep-alive lines", "other charset", "octet stream", "BOM", "gzip", "bytes", "close", "HTTP/1.0", "100", "103",
         "in two", "twice", "big header"],
)  # fmt: skip
def test_an_odd_answer_is_a_result_at_once(
    actions: list[Action], serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    server = serve(always(*actions))
    ran = go(server)
    assert (ran.failed_attempts, len(server.calls)) == ({}, 1)
    assert ran.results[0]["output"] == "ok"
    assert ran.results[0]["attempts"] == 1
    assert ran.results[0]["provider"]["body"] == completion()


def test_header_lines_of_one_name_are_joined_and_cookies_are_not_kept(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    garbled = "X-Msg: " + "错误".encode("gb18030").decode("latin-1")
    server = serve(always(http(200, GOOD, "X-Twice: a", "x-twice: b", "Set-Cookie: secret=1", garbled)))
    ran = go(server, 2)
    for record in ran.results:
        assert record["provider"]["headers"]["x-twice"] == "a, b"
        assert "x-msg" in record["provider"]["headers"]
        assert "set-cookie" not in record["provider"]["headers"]
    assert all(not call.values("cookie") for call in server.calls)


def test_a_header_of_no_encoding_on_an_error_breaks_nothing(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    garbled = "错误".encode("gb18030").decode("latin-1")
    ran = go(serve(always(http(400, garbled.encode("latin-1"), f"X-Msg: {garbled}"))), 3)
    assert [failure["error"]["kind"] for failure in ran.failures] == ["bad_request"] * 3


# --- connections ------------------------------------------------------------------------------------------------


def test_connections_are_used_again(serve: Callable[..., Scripted], go: Callable[..., Ran]) -> None:
    server = serve(always(ok()))
    assert go(server, 20, concurrency=2).summary.exit_code == 0
    assert server.connections <= 2


def test_a_connection_closed_between_two_requests_costs_no_attempt(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    server = serve(always(ok(), Wait(0.02), Act.CLOSE))
    ran = go(server, 5, concurrency=1, rpm=600)
    assert ran.failed_attempts == {}
    assert [record["attempts"] for record in ran.results] == [1] * 5
    assert server.connections == 5


def test_a_connection_closed_as_the_next_request_comes_loses_nothing(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    server = serve(lambda call: [ok(call.prompt)] if call.on_connection < 3 else [Act.CLOSE])
    ran = go(server, 12, concurrency=2)
    assert ran.summary.exit_code == 0
    assert sorted(record["output"] for record in ran.results) == sorted(f"p{number}" for number in range(12))
    assert all(call.same_together == 1 for call in server.calls)


@pytest.mark.parametrize("gap", [None, Wait(0.03)])
def test_bytes_after_an_answer_are_no_answer_to_the_next_request(
    gap: Wait | None, serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    def script(call: Call) -> list[Action]:
        stale = ok(f"stale, of {call.prompt}")
        return [ok(call.prompt), gap, stale] if gap else [ok(call.prompt) + stale]

    ran = go(serve(script), 6, concurrency=1, rpm=600)
    assert {record["id"]: record["output"] for record in ran.results} == {f"p{n}": f"p{n}" for n in range(6)}


# --- pace -------------------------------------------------------------------------------------------------------


def test_concurrency_is_reached_and_never_exceeded(serve: Callable[..., Scripted], go: Callable[..., Ran]) -> None:
    server = serve(lambda call: [Wait(0.01), http(503) if call.attempt == 1 and call.number % 5 == 0 else ok()])
    ran = go(server, 60, concurrency=3)
    assert ran.summary.exit_code == 0
    assert max(call.together for call in server.calls) == 3


def test_a_429_with_a_wait_pauses_everybody(serve: Callable[..., Scripted], go: Callable[..., Ran]) -> None:
    def script(call: Call) -> list[Action]:
        if call.number == 1:
            return [Wait(0.1), http(429, {"error": {"message": "slow down"}}, "Retry-After: 1")]
        # Those in flight at the time end long after the 429 has been read, and before the pause ends.
        return [Wait(0.5 if call.number <= 4 else 0.0), ok()]

    server = serve(script)
    ran = go(server, 12, concurrency=4)
    assert ran.summary.exit_code == 0
    refused_at = server.calls[0].answered_at
    assert refused_at is not None
    early = [call for call in server.calls[4:] if call.at < refused_at + 0.99]
    assert (len(server.calls), early) == (13, [])


def test_the_same_item_is_never_twice_in_flight(serve: Callable[..., Scripted], go: Callable[..., Ran]) -> None:
    def script(call: Call) -> list[Action]:
        if not call.prompt.startswith("p"):
            return [ok()]  # a trial, because so much went wrong
        ends: list[list[Action]] = [[Act.RESET], [http(503)], [CUT, Act.CLOSE], [Act.HANG], [Wait(0.05), ok()]]
        return ends[(int(call.prompt[1:]) + call.attempt) % 5]

    server = serve(script)
    ran = go(server, 25, concurrency=8, retry=replace(retry(timeout=0.3), max_outage=60.0))
    assert len(ran.results) == 25
    assert max(call.same_together for call in server.calls) == 1


# --- what is sent -----------------------------------------------------------------------------------------------


def test_the_idempotency_key_is_one_per_item(serve: Callable[..., Scripted], go: Callable[..., Ran]) -> None:
    server = serve(lambda call: [http(503) if call.attempt < 3 else ok()])
    go(server, 2)
    keys = {
        call.prompt: {tuple(one.values("idempotency-key")) for one in server.of(call.prompt)} for call in server.calls
    }
    assert all(len(found) == 1 for found in keys.values())
    assert all(len(values) == 1 and values[0] for found in keys.values() for values in found)
    assert len(set.union(*keys.values())) == 2


def test_the_idempotency_key_is_the_same_after_a_restart(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    refusing, good = serve(always(http(401))), serve(always(ok()))
    go(refusing, 1)
    go(good, 1)
    assert refusing.calls[0].values("idempotency-key") == good.calls[0].values("idempotency-key")


def test_the_idempotency_key_can_be_switched_off(serve: Callable[..., Scripted], go: Callable[..., Ran]) -> None:
    server = serve(always(ok()))
    go(server, 2, idempotency_key=False)
    assert [call.values("idempotency-key") for call in server.calls] == [[], []]


@pytest.mark.parametrize(("key", "sent"), [(KEY, [f"Bearer {KEY}"]), (None, []), ("x", ["Bearer x"])])
def test_the_key_goes_into_one_header(
    key: str | None, sent: list[str], serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    server = serve(always(ok()))
    go(server, key=key)
    call = server.calls[0]
    assert call.values("authorization") == sent
    assert call.values("content-type") == ["application/json"]
    assert call.values("host") == [f"127.0.0.1:{server.port}"]
    assert call.body == {"model": "m-1", "messages": [{"role": "user", "content": "p0"}]}


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("", "/chat/completions"),
        ("/", "/chat/completions"),
        ("/v1", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("/api/paas/v4//", "/api/paas/v4/chat/completions"),
        ("/a%20b/v3", "/a%20b/v3/chat/completions"),
    ],
)
def test_the_path_of_the_base_url_is_kept(
    path: str, target: str, serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    server = serve(always(ok()))
    assert go(f"http://127.0.0.1:{server.port}{path}").summary.exit_code == 0
    assert [call.target for call in server.calls] == [target]


# --- limits that the job names ------------------------------------------------------------------------------------


def test_tokens_a_minute_are_spread_by_what_the_answers_take(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    """A hundred tokens a second, twenty an answer: five answers a second once that is known."""
    times: list[float] = []

    def script(call: Call) -> list[bytes]:
        times.append(time.monotonic())
        return [http(200, completion("好", usage={"prompt_tokens": 15, "completion_tokens": 5, "total_tokens": 20}))]

    ran = go(serve(script), 16, concurrency=8, tpm=6000)
    assert len(ran.results) == 16
    # The first ones are estimated high, and wait no longer for that than until the first answers.
    assert all(later - times[3] >= 0.19 * (number - 3) for number, later in enumerate(times) if number > 3)


def test_a_request_larger_than_a_minute_fails_clearly_and_is_not_sent(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    server = serve(
        always(http(200, completion("好", usage={"prompt_tokens": 20, "completion_tokens": 1, "total_tokens": 21})))
    )
    ran = go(server, [*(f"短 {number}" for number in range(6)), "长" * 60_000], concurrency=1, tpm=6000)
    assert len(ran.results) == 6
    assert [one["error"]["kind"] for one in ran.failures] == ["bad_request"]
    assert "tokens_per_minute is 6,000" in ran.failures[0]["error"]["message"]
    assert len(server.calls) == 6


# --- JSON output ------------------------------------------------------------------------------------------------


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    path = tmp_path / "schema.json"
    path.write_text('{"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}')
    return path


def test_an_invalid_output_goes_back_once_with_the_problem(
    schema: Path, serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    server = serve(lambda call: [ok('{"n": "three"}') if len(call.body["messages"]) < 4 else ok('{"n": 3}')])
    ran = go(server, structured=Structured(schema))
    result = ran.results[0]
    assert (result["output"], result["attempts"], len(server.calls)) == ({"n": 3}, 2, 2)
    assert result["usage"] == {"prompt_tokens": 6, "completion_tokens": 4, "total_tokens": 10}
    sent, again = (call.body["messages"] for call in server.calls)
    assert again[: len(sent)] == sent
    assert again[len(sent)] == {"role": "assistant", "content": '{"n": "three"}'}
    assert again[-1]["role"] == "user"
    assert 'n: "three" is not of type "integer"' in again[-1]["content"]
    keys = [call.values("idempotency-key") for call in server.calls]
    assert keys[0] != keys[1]


@pytest.mark.parametrize("answer", ["no JSON", '{"n": 1.5}', "[" * 300 + "]" * 300, '{"n": "' + "x" * 100_000 + '"}'])
@pytest.mark.parametrize("reask", [0, 1, 2])
def test_an_output_that_stays_invalid_is_a_failure(
    answer: str, reask: int, schema: Path, serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    server = serve(always(ok(answer)))
    ran = go(server, structured=Structured(schema, reask=reask))
    failure = ran.failures[0]
    assert (failure["error"]["kind"], failure["attempts"], len(server.calls)) == (
        "invalid_output",
        reask + 1,
        reask + 1,
    )
    assert failure["usage"]["total_tokens"] == 5 * (reask + 1)
    assert failure["provider"]["body"]["choices"][0]["message"]["content"] == answer
    assert len(failure["error"]["message"]) < 2000


def test_both_answers_are_kept_where_one_went_back(
    tmp_path: Path, schema: Path, serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    server = serve(lambda call: [ok("三" if len(call.body["messages"]) < 4 else '{"n": 3}')])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "reasked.jsonl").write_text('{"id":"torn')
    ran = go(server, 2, structured=Structured(schema))
    kept = records(tmp_path / "out" / "reasked.jsonl")
    assert {one["id"] for one in kept} == {one["id"] for one in ran.results} == {"p0", "p1"}
    for one in kept:
        assert (one["error"]["kind"], one["attempts"]) == ("invalid_output", 1)
        assert one["provider"]["body"]["choices"][0]["message"]["content"] == "三"
        assert one["usage"]["total_tokens"] == 5
    assert (ran.summary.tally.reasks, ran.summary.tally.usage.total_tokens) == (2, 20)


def test_an_answer_that_breaks_off_goes_back_and_is_truncated_if_it_stays_so(
    schema: Path, serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    server = serve(always(ok('{"n": 3, "text": "还没有')))
    failure = go(server, structured=Structured(schema)).failures[0]
    assert (failure["error"]["kind"], failure["attempts"]) == ("truncated", 2)
    assert "cut off" in server.calls[1].body["messages"][-1]["content"]


@pytest.mark.parametrize(
    ("answer", "method", "repairs"),
    [
        ('好的，结果如下：\n{"n": 3}\n请查收。', "embedded", []),
        ('```json\n{"n"：3，"说": "关于"双减"政策"}\n```', "fence", ["full_width_punctuation", "unescaped_quote"]),
        ("初稿：{'n': 1}\n最终：{'n': 3,}", "embedded", ["single_quotes", "trailing_comma"]),
        ('{"n": 3, "x": "' + "好" * 30_000 + '",}', "embedded", ["trailing_comma"]),
        ('{"n": 3, "id": 123456789012345678901234567890}', "as_is", []),
        ('{"n": 3, "标签": "以</think>结尾"}', "as_is", []),
    ],
)
def test_an_answer_is_read_as_it_is_meant(
    answer: str, method: str, repairs: list[str], schema: Path, serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    server = serve(always(ok(answer)))
    result = go(server, structured=Structured(schema)).results[0]
    assert (result["output"]["n"], len(server.calls)) == (3, 1)
    assert result["output"].get("id", 123456789012345678901234567890) == 123456789012345678901234567890
    assert result["extraction"] == {"mode": "json_schema", "method": method, "repairs": repairs}


def test_repaired_arguments_of_a_call_count(
    schema: Path, serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    body = completion(None, finish="tool_calls")
    call = {"id": "1", "type": "function", "function": {"name": "output", "arguments": "{'n': 3,}"}}
    body["choices"][0]["message"]["tool_calls"] = [call]
    ran = go(serve(always(http(200, body))), structured=Structured(schema, mode="tool"))
    assert ran.results[0]["output"] == {"n": 3}
    assert ran.results[0]["extraction"] == {
        "mode": "tool", "method": "tool_call", "repairs": ["single_quotes", "trailing_comma"],
    }  # fmt: skip


@pytest.mark.parametrize(("mode", "taken"), [("json_object", ['{"a": 1}']), ("prompt", ["[1, 2]", '{"a": 1}'])])
def test_a_mode_without_a_schema_asks_for_json_of_its_kind(
    mode: Any, taken: list[str], serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    answers = ['{"a": 1}', "[1, 2]", "没有"]
    server = serve(lambda call: [ok(answers[int(call.body["messages"][-1]["content"][1:])])])
    ran = go(server, 3, structured=Structured(mode=mode, reask=0))
    assert sorted(json.dumps(one["output"]) for one in ran.results) == taken
    assert {one["error"]["kind"] for one in ran.failures} == {"invalid_output"}
    body = server.calls[0].body
    assert (body.get("response_format") == {"type": "json_object"}) == (mode == "json_object")
    assert "JSON" in "".join(message["content"] for message in body["messages"])


def test_tool_calls_alone_are_no_valid_output(
    schema: Path, serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    body = completion(None, finish="tool_calls")
    body["choices"][0]["message"]["tool_calls"] = [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]
    ran = go(serve(always(http(200, body))), structured=Structured(schema))
    assert ran.results == []
    assert ran.failures[0]["error"]["kind"] == "invalid_output"


@pytest.mark.parametrize("mode", ["json_object", "json_schema", "prompt"])
def test_the_mode_decides_what_goes_on_the_wire(
    mode: Any, schema: Path, serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    server = serve(always(ok('```json\n{"n": 3}\n```')))
    ran = go(server, structured=Structured(schema, mode=mode))
    assert ran.results[0]["output"] == {"n": 3}
    assert ran.results[0]["extraction"] == {"mode": mode, "method": "fence", "repairs": []}
    body = server.calls[0].body
    told = json.loads(schema.read_text())
    assert (
        body.get("response_format")
        == {
            "json_object": {"type": "json_object"},
            "json_schema": {"type": "json_schema", "json_schema": {"name": "output", "strict": True, "schema": told}},
            "prompt": None,
        }[mode]
    )
    words = "".join(message["content"] for message in body["messages"])
    assert ("JSON" in words) == (mode != "json_schema")


# --- the command: secrets, surroundings, memory -----------------------------------------------------------------


def command(tmp_path: Path, server: Scripted, *flags: object) -> list[str]:
    path = write_lines(tmp_path / "in.jsonl", *({"id": f"i{n}", "prompt": f"i{n}"} for n in range(6)))
    return [
        "run", "-i", str(path), "-o", str(tmp_path / "out"), "--base-url", server.base_url, "-m", "m-1",
        "--max-attempts", "2", *map(str, flags),
    ]  # fmt: skip


def spelled(text: str) -> str:
    """Spell every character of a text as JSON may."""
    return "".join(f"\\u{ord(one):04X}" for one in text)


def test_a_key_that_the_provider_echoes_is_nowhere(
    tmp_path: Path, serve: Callable[..., Scripted], batchrun: Callable[..., Any]
) -> None:
    slashed = KEY.replace("/", "\\/")
    answers = [
        http(200, completion(f"your key is {KEY}", system_fingerprint=KEY), f"X-Echo: {KEY}", f"X-Request-Id: a{KEY}b"),
        http(400, {"error": {"message": f"bad request with key {KEY}", "code": KEY}}, f"X-Echo: Bearer {KEY}"),
        http(400, f'{{"error": {{"message": "key {slashed} or {spelled(KEY)}"}}}}'.encode()),
        http(503, f"<html><title>{KEY}</title>{KEY}</html>".encode(), f"Retry-After: {KEY}"),
        f"HTTP/1.1 {KEY} {KEY}\r\n{KEY}\r\n\r\n{KEY}".encode(),
        http(200, GOOD[:-1] + f',"a":"{slashed}","b":"{spelled(KEY)}"}}'.encode()),
    ]
    server = serve(lambda call: [answers[int(call.prompt[1:])] if call.prompt.startswith("i") else ok()])
    ended = batchrun(*command(tmp_path, server, "--json"), OPENAI_API_KEY=KEY)
    assert ended.code == 3
    assert ended.json()["counts"]["results"] == 2
    stop = serve(always(http(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}})))
    (tmp_path / "out" / "failures.jsonl").unlink()
    refused = batchrun(*command(tmp_path, stop), OPENAI_API_KEY=KEY)
    assert refused.code == 4
    assert "Incorrect API key" in refused.err
    moved = serve(always(http(302, b"", f"Location: http://127.0.0.1:1/?key={KEY}")))
    redirected = batchrun(*command(tmp_path, moved, "--log-format", "json"), OPENAI_API_KEY=KEY)
    assert redirected.code == 4
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    written = {path: path.read_bytes().decode("utf-8", "replace") for path in files}
    assert len(written) >= 3
    said = [one.out + one.err for one in (ended, refused, redirected)]
    for text in [*written.values(), *said]:
        assert KEY not in text
        assert slashed not in text
        assert spelled(KEY).lower() not in text.lower()
    for record in [*records(tmp_path / "out" / "results.jsonl")]:
        assert KEY not in json.dumps(record).replace("\\/", "/")


def test_a_placeholder_for_a_key_spoils_no_answer(serve: Callable[..., Scripted], go: Callable[..., Ran]) -> None:
    for key in ("0", "EMPTY", '"'):
        ran = go(serve(always(ok("EMPTY is 0"))), [f"with {key}"], key=key)
        assert ran.results[-1]["output"] == "EMPTY is 0"


def test_proxy_variables_and_netrc_are_ignored(
    tmp_path: Path, serve: Callable[..., Scripted], batchrun: Callable[..., Any]
) -> None:
    proxy, server = serve(always(ok("from the proxy"))), serve(always(ok("from the endpoint")))
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login someone password from-netrc\n")
    netrc.chmod(0o600)
    address = f"http://127.0.0.1:{proxy.port}"
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    ended = batchrun(*command(tmp_path, server), **dict.fromkeys(names, address), HOME=str(tmp_path), NETRC=str(netrc))
    assert ended.code == 0
    assert proxy.connections == 0
    assert {record["output"] for record in records(tmp_path / "out" / "results.jsonl")} == {"from the endpoint"}
    assert all(not call.values("authorization") for call in server.calls)


MANY = 70 * 1024 * 1024


def gzip_bomb(size: int) -> bytes:
    packer = zlib.compressobj(6, wbits=31)
    piece = b" " * (1 << 20)
    return b"".join(packer.compress(piece) for _ in range(size >> 20)) + packer.flush()


@pytest.mark.parametrize(
    "script",
    [
        lambda: always(http(200, b" " * MANY)),
        lambda: always(
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n", Drip(b"100000\r\n" + b" " * (1 << 20) + b"\r\n", 0.001)
        ),
        lambda: always(http(200, gzip_bomb(MANY * 3), "Content-Encoding: gzip")),
    ],
    ids=["announced", "endless", "gzip bomb"],
)
def test_a_body_without_measure_is_cut_off_in_bounded_memory(
    script: Callable[[], Script], tmp_path: Path, serve: Callable[..., Scripted]
) -> None:
    server = serve(script())
    arguments = command(tmp_path, server, "--limit", 1, "--concurrency", 1, "--max-attempts", 1)
    code, peak = measured(tmp_path, *arguments)
    assert code == 3
    failure = records(tmp_path / "out" / "failures.jsonl")[0]
    assert failure["error"]["kind"] == "invalid_response"
    assert "longer than" in failure["error"]["message"]
    assert peak < 4 * MANY
