"""How answers come: streamed or whole, kept alive, standing still, over another lane."""

from __future__ import annotations

import gzip
import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from conftest import KEY, QUICK, Ran
from scripted import Act, Action, Call, Drip, Scripted, Wait, completion, http, ok

HEAD = {"id": "c-1", "object": "chat.completion.chunk", "model": "m-1"}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def piece(delta: Any = None, finish: Any = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return b"data: %s\n\n" % orjson.dumps({**HEAD, "choices": [choice], **more})


TEXT = [piece({"role": "assistant", "content": ""}), piece({"content": "o"}), piece({"content": "k"})]
END = [piece({}, "stop"), b"data: %s\n\n" % orjson.dumps({**HEAD, "choices": [], "usage": USAGE})]
DONE = b"data: [DONE]\n\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

JSON_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def part(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


LAST = b"0\r\n\r\n"


def streamed(*parts: bytes) -> bytes:
    return EVENTS + b"".join(map(part, parts)) + LAST


def good(call: Call) -> Iterable[Action]:
    assert call.body["stream"] is True
    assert call.body["stream_options"] == {"include_usage": True}
    return [streamed(*TEXT, *END, DONE)]


def text_of(record: dict[str, Any]) -> str:
    text: str = record["provider"]["body"]["choices"][0]["message"]["content"]
    return text


def test_a_streamed_record_looks_like_any_other(serve: Callable[..., Scripted], go: Callable[..., Ran]) -> None:
    server = serve(good)
    ran = go(server, 3, stream=True)
    assert ran.summary.exit_code == 0
    for record in ran.results:
        assert (record["output"], record["finish_reason"], record["model"]) == ("ok", "stop", "m-1")
        assert (record["usage"], record["warnings"], record["attempts"]) == (USAGE, [], 1)
        body = record["provider"]["body"]
        assert (body["object"], text_of(record)) == ("chat.completion", "ok")


def test_how_an_answer_comes_changes_no_fingerprint(serve: Callable[..., Scripted], go: Callable[..., Ran]) -> None:
    server = serve(lambda call: [ok()] if "stream" not in call.body else good(call))
    assert go(server, 1, stream=False).summary.exit_code == 0
    again = go(server, 1, stream=True)
    assert (again.summary.exit_code, len(server.calls)) == (0, 1)


def test_a_connection_is_used_again_after_a_stream(serve: Callable[..., Scripted], go: Callable[..., Ran]) -> None:
    server = serve(good)
    assert go(server, 6, concurrency=1, stream=True).summary.results == 6
    assert server.connections == 1


def test_a_server_that_keeps_silent_after_done_does_not_hold_the_item(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    server = serve(lambda call: [EVENTS + b"".join(map(part, [*TEXT, *END, DONE])), Act.HANG])
    started = time.monotonic()
    assert go(server, 2, concurrency=1, stream=True).summary.results == 2
    assert time.monotonic() - started < 10


ERROR_EVENT = b'data: {"error":{"message":"late","code":500}}\n\n'


@pytest.mark.parametrize(
    "end",
    [
        [part(DONE), Act.CLOSE],
        [part(DONE), Wait(0.05), Act.RESET],
        [part(DONE + ERROR_EVENT), LAST],
        [part(DONE), Wait(0.05), part(ERROR_EVENT), LAST],
        [part(DONE + DONE), LAST],
        [part(b"data: [DONE]\n"), Act.HANG],
        [Act.CLOSE],
        [Act.HANG],
    ],
    ids=[
        "closed",
        "reset",
        "an error",
        "a late error",
        "twice",
        "half an event",
        "no [DONE], closed",
        "no [DONE], silence",
    ],
)
def test_an_answer_that_is_complete_is_not_lost_to_what_comes_after_it(
    end: list[Action], serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    server = serve(lambda call: [EVENTS, *map(part, [*TEXT, *END]), *end])
    ran = go(server, 1, stream=True, retry=replace(QUICK, max_attempts=1, idle_timeout=0.4))
    assert [(record["output"], record["usage"]) for record in ran.results] == [("ok", USAGE)]
    strict = go(
        server, ["strict"], stream=True, dialect="deepseek", retry=replace(QUICK, max_attempts=1, idle_timeout=0.4)
    )
    assert strict.summary.results == (1 if end[0] in (Act.CLOSE, Act.HANG) else 2), "[DONE] is demanded there"


def test_a_whole_answer_to_a_streamed_request_is_an_answer(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    body = orjson.dumps(completion())
    answers = {
        "p0": http(200, body),
        "p1": JSON_HEAD + part(b"\n\n") + part(body[:3]) + part(body[3:]) + LAST,
        "p2": http(200, gzip.compress(body), "Content-Encoding: gzip"),
    }  # fmt: skip
    ran = go(serve(lambda call: [answers[call.prompt]]), 3, stream=True)
    assert [record["output"] for record in ran.results] == ["ok"] * 3


def test_a_streamed_answer_that_nobody_asked_for_is_an_answer(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    ran = go(serve(lambda call: [streamed(*TEXT, *END, DONE)]), 1, stream=False)
    assert ran.results[0]["output"] == "ok"


@pytest.mark.parametrize("gap", ["between bytes", "one byte at a time"])
def test_events_come_in_any_pieces(gap: str, serve: Callable[..., Scripted], go: Callable[..., Ran]) -> None:
    whole = b"".join([*TEXT, *END, DONE])
    if gap == "between bytes":
        actions: list[Action] = [EVENTS, part(whole[:50]), Wait(0.05), part(whole[50:]), LAST]
    else:
        actions = [EVENTS, *(part(whole[at : at + 1]) for at in range(len(whole))), LAST]
    assert go(serve(lambda call: actions), 1, stream=True).results[0]["output"] == "ok"


BREAKS: dict[str, tuple[str, list[Action]]] = {
    "closed in order without an end": ("invalid_response", [streamed(*TEXT)]),
    "[DONE] without finish_reason": ("invalid_response", [streamed(*TEXT, DONE)]),
    "cut in the middle": ("network", [EVENTS, *map(part, TEXT), Act.CLOSE]),
    "reset in the middle": ("network", [EVENTS, *map(part, TEXT), Wait(0.05), Act.RESET]),
    "an error in the middle": ("server_error", [streamed(*TEXT, b'data: {"error":{"message":"x","code":500}}\n\n')]),
    "keep-alives for ever": ("timeout", [EVENTS, *map(part, TEXT), Drip(part(b": keep-alive\n\n"), 0.05)]),
    "empty deltas for ever": ("timeout", [EVENTS, *map(part, TEXT), Drip(part(piece()), 0.05)]),
    "silence": ("timeout", [EVENTS, *map(part, TEXT), Act.HANG]),
}


@pytest.mark.parametrize("name", BREAKS)
def test_what_came_of_a_broken_stream_is_kept_in_the_failure(
    name: str, serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    kind, actions = BREAKS[name]
    retry = replace(QUICK, max_attempts=1, idle_timeout=0.4)
    ran = go(serve(lambda call: actions), 1, stream=True, retry=retry)
    (failure,) = ran.failures
    assert failure["error"]["kind"] == kind
    assert text_of(failure) == "ok"
    assert ran.summary.duration_s < 10


def test_an_answer_that_stands_still_says_so(serve: Callable[..., Scripted], go: Callable[..., Ran]) -> None:
    half = orjson.dumps(completion())[:40]
    retry = replace(QUICK, max_attempts=1, idle_timeout=0.4)
    ran = go(serve(lambda call: [JSON_HEAD, part(half), Drip(part(b"\n"), 0.05)]), 1, retry=retry)
    assert "complete" not in ran.failures[0]["error"]["message"]
    (failure,) = ran.failures
    assert (failure["error"]["kind"], "0.4 s" in failure["error"]["message"]) == ("timeout", True)


@pytest.mark.parametrize("stream", [True, False])
def test_keep_alives_before_an_answer_are_no_content_and_no_end(
    stream: bool, serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    """A queue may be longer than the time that an answer may stand still; the whole attempt has its own limit."""
    alive = part(b": keep-alive\n\n" if stream else b"\n")
    rest = [*map(part, [*TEXT, *END, DONE])] if stream else [part(orjson.dumps(completion()))]
    head = EVENTS if stream else JSON_HEAD
    patient: list[Action] = [head]
    for _ in range(8):
        patient += [alive, Wait(0.1)]
    ran = go(serve(lambda call: [*patient, *rest, LAST]), 1, stream=stream, retry=replace(QUICK, idle_timeout=0.3))
    assert (ran.summary.results, ran.summary.tally.attempts) == (1, 1)


@pytest.mark.parametrize("stream", [True, False])
def test_keep_alives_for_ever_end_at_the_attempts_limit(
    stream: bool, serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    head = EVENTS if stream else JSON_HEAD
    alive = Drip(part(b": keep-alive\n\n" if stream else b"\n"), 0.02)
    retry = replace(QUICK, max_attempts=1, attempt_timeout=0.6, idle_timeout=0.2)
    ran = go(serve(lambda call: [head, alive]), 1, stream=stream, retry=retry)
    assert ran.failures[0]["error"]["kind"] == "timeout"
    assert ran.summary.duration_s < 8


def test_an_endless_stream_is_cut_off(serve: Callable[..., Scripted], go: Callable[..., Ran]) -> None:
    big = part(piece({"content": "x" * (1 << 20)}))
    retry = replace(QUICK, max_attempts=1)
    ran = go(serve(lambda call: [EVENTS, *[big] * 70, Act.HANG]), 1, stream=True, retry=retry)
    (failure,) = ran.failures
    assert (failure["error"]["kind"], "longer than" in failure["error"]["message"]) == ("invalid_response", True)


def test_an_error_to_a_streamed_request_is_read_however_it_is_framed(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    error = b'{"error":{"code":"data_inspection_failed","message":"inappropriate content"},"request_id":"r"}'
    answers = {
        "p0": http(400, error, "Content-Type: application/octet-stream"),
        "p1": http(400, b"data: " + error + b"\n\n", "Content-Type: text/event-stream"),
        "p2": http(400, b"\n\ndata:" + error + b"\n\ndata: [DONE]\n\n"),
    }
    ran = go(serve(lambda call: [answers[call.prompt]]), 3, stream=True)
    assert [record["error"]["kind"] for record in ran.failures] == ["content_filter"] * 3
    assert all(record["provider"]["body"] == orjson.loads(error) for record in ran.failures)


# --- the transport that the endpoint wants ----------------------------------------------------------------------

ONLY = {
    "error": {"code": "invalid_parameter_error", "message": "This model only support stream mode, please enable it"}
}


def test_an_endpoint_that_only_streams_is_streamed_from_then_on(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    server = serve(lambda call: good(call) if call.body.get("stream") else [http(400, ONLY)])
    ran = go(server, 20, concurrency=2)
    assert (ran.summary.exit_code, ran.summary.results) == (0, 20)
    refused = [call for call in server.calls if not call.body.get("stream")]
    assert 1 <= len(refused) <= 2, "those in flight may be refused, none after them"
    assert all(record["attempts"] == 1 for record in ran.results), "a refusal burns no attempt"
    assert any("streamed from now on" in warning for warning in ran.summary.warnings)


def test_an_endpoint_that_does_not_stream_is_not_streamed(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    def script(call: Call) -> Iterable[Action]:
        if call.body.get("stream"):
            return [http(400, {"error": {"message": "stream is not supported by this model"}})]
        return [ok()]

    ran = go(serve(script), 4, dialect="dashscope", model="qwq-made-up", concurrency=1)
    assert ran.summary.results == 4
    assert any("not streamed" in warning for warning in ran.summary.warnings)


def test_an_endpoint_that_wants_neither_is_asked_twice_and_no_more(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    def script(call: Call) -> Iterable[Action]:
        if call.body.get("stream"):
            return [http(400, {"error": {"message": "stream is not supported by this model"}})]
        return [http(400, ONLY)]

    server = serve(script)
    ran = go(server, 1)
    assert ran.failures[0]["error"]["kind"] == "bad_request"
    assert len(server.calls) == 2


def test_a_refusal_of_one_item_does_not_take_away_what_works(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    """What one item's error says of streaming may be its own text, repeated by the endpoint."""
    quoted = {"error": {"message": "cannot answer: 'our radio only supports streaming'"}}

    def script(call: Call) -> Iterable[Action]:
        if call.prompt == "p3":
            return [http(400, quoted)]
        if call.body.get("stream"):
            return [http(400, {"error": {"message": "stream is not supported by this model"}})]
        return [ok()]

    ran = go(serve(script), 12, concurrency=1)
    assert (ran.summary.results, [one["id"] for one in ran.failures]) == (11, ["p3"])


@pytest.mark.parametrize("words", ["stream is not supported", "Unrecognized request argument supplied: stream_options"])
def test_a_timeout_puts_streaming_on_trial_and_no_more(
    words: str, serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    def script(call: Call) -> Iterable[Action]:
        if call.body.get("stream"):
            return [Wait(0.02), http(400, {"error": {"message": words}})]
        return [http(504, b"<html>")] if call.prompt == "p3" and call.attempt == 1 else [Wait(0.02), ok()]

    server = serve(script)
    ran = go(server, 40, concurrency=8)
    assert (ran.summary.results, ran.summary.failures) == (40, 0)
    assert sum(bool(call.body.get("stream")) for call in server.calls) <= 8, "those in flight, and none after them"


def test_the_second_call_is_paced_counted_and_not_made_after_a_stop(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    server = serve(lambda call: good(call) if call.body.get("stream") else [http(400, ONLY)])
    ran = go(server, 3, concurrency=1, rpm=240)
    assert ran.summary.tally.attempts == len(server.calls) == 4
    gaps = [later.at - earlier.at for earlier, later in itertools.pairwise(server.calls)]
    assert min(gaps) > 0.12

    def dying(call: Call) -> Iterable[Action]:
        if call.number == 1:
            return [http(401, {"error": {"message": "no"}})]
        return [Wait(0.3), http(400, ONLY)]

    server = serve(dying)
    ran = go(server, [f"q{n}" for n in range(20)], concurrency=8)
    assert (ran.summary.exit_code, ran.summary.failures) == (4, 0)
    assert not any(call.body.get("stream") for call in server.calls)


def test_a_gateway_that_gives_up_on_long_answers_is_streamed_from_then_on(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    page = b"<html><head><title>504 Gateway Time-out</title></head></html>"
    server = serve(lambda call: good(call) if call.body.get("stream") else [http(504, page)])
    ran = go(server, 6, concurrency=1)
    assert ran.summary.results == 6
    assert [bool(call.body.get("stream")) for call in server.calls].count(False) == 1
    assert sum(record["attempts"] for record in ran.results) == 7, "what timed out was an attempt"


@pytest.mark.parametrize(("setting", "streams"), [(True, [True]), (False, [False])])
def test_what_the_job_says_is_not_overruled(
    setting: bool, streams: list[bool], serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    refusal = http(400, {"error": {"message": "stream is not supported"}}) if setting else http(400, ONLY)
    server = serve(lambda call: [refusal])
    ran = go(server, 1, stream=setting)
    assert [bool(call.body.get("stream")) for call in server.calls] == streams
    assert ran.failures[0]["error"]["kind"] == "bad_request"


# --- lanes ------------------------------------------------------------------------------------------------------

LANE = """
title = "A made-up provider"
[[lane]]
base_url = "^127\\\\.0\\\\.0\\\\.1:[0-9]+/v1"
expected = "http://127.0.0.1/v1"
path = "/batch/chat/completions"
attempt_timeout = "2h"
item_timeout = "48h"
"""


def test_the_batch_lane_has_its_own_path_and_times_and_does_not_stream(
    serve: Callable[..., Scripted], go: Callable[..., Ran], tmp_path: Path
) -> None:
    (tmp_path / "mine.toml").write_text(LANE)
    server = serve(lambda call: [ok()])
    retry = replace(QUICK, attempt_timeout=None)
    ran = go(server, 1, lane="batch", dialect=str(tmp_path / "mine.toml"), retry=retry)
    assert ran.summary.results == 1
    assert [call.target for call in server.calls] == ["/v1/batch/chat/completions"]
    assert "stream" not in server.calls[0].body
    job = orjson.loads((tmp_path / "out" / "run.json").read_bytes())["job"]
    assert (job["retry"]["attempt_timeout"], job["retry"]["item_timeout"]) == (7200.0, 172800.0)


# --- what the answers show --------------------------------------------------------------------------------------


def test_another_model_and_missing_reasoning_are_warnings(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    def script(call: Call) -> Iterable[Action]:
        number = call.number
        body = completion() | {"model": "cheaper-model" if number == 3 else "m-1-2026-10-01"}
        if number != 8:
            body["choices"][0]["message"]["reasoning_content"] = "because"
        return [http(200, body)]

    ran = go(serve(script), 9, concurrency=1)
    warned = [record["warnings"] for record in sorted(ran.results, key=lambda one: str(one["id"]))]
    assert warned == [[], [], ["other_model:cheaper-model"], [], [], [], [], ["no_reasoning"], []]
    assert {"other_model:cheaper-model (1 items)", "no_reasoning (1 items)"} <= set(ran.summary.warnings)


@pytest.mark.parametrize("stream", [True, False])
def test_a_key_that_comes_in_pieces_is_nowhere(
    stream: bool, serve: Callable[..., Scripted], go: Callable[..., Ran], tmp_path: Path
) -> None:
    """Also where nobody asked for a stream, and where the pieces are parts of a content list."""
    parts = [{"type": "text", "text": KEY[:10]}, {"type": "text", "text": KEY[10:]}]
    answers = {
        "p0": streamed(piece({"content": KEY[:10]}), piece({"content": KEY[10:]}), *END, DONE),
        "p1": http(200, completion(parts)),
    }
    ran = go(serve(lambda call: [answers[call.prompt]]), 2, stream=stream)
    assert [record["output"] for record in ran.results] == ["[key]", "[key]"]
    for path in (tmp_path / "out").iterdir():
        assert KEY.encode() not in path.read_bytes()


def test_the_key_is_nowhere_in_what_a_stream_left(
    serve: Callable[..., Scripted], go: Callable[..., Ran], tmp_path: Path
) -> None:
    echo = [piece({"content": "for " + KEY[:9]}), piece({"content": KEY[9:]})]
    error = b"data: %s\n\n" % orjson.dumps({"error": {"message": f"no such key: {KEY}", "code": 500}})
    answers = {
        "p0": streamed(*echo, *END, DONE),
        "p1": streamed(*echo, error),
        "p2": streamed(b"data: {broken %s\n\n" % KEY.encode()),
    }
    # What is asked beside the items tells whether the endpoint is to blame.
    server = serve(lambda call: [answers.get(call.prompt, streamed(*END, DONE))])
    ran = go(server, 3, stream=True, retry=replace(QUICK, max_attempts=1))
    assert (ran.summary.results, ran.summary.failures) == (1, 2)
    assert ran.results[0]["output"] == "for [key]"
    for path in (tmp_path / "out").iterdir():
        assert KEY.encode() not in path.read_bytes()
