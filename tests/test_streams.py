"""Streams: events of every shape that providers send → one chat completion, or an honest failure."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import completion

from batchrun.endpoint.answers import understand, understand_stream
from batchrun.endpoint.dialect import Dialect
from batchrun.endpoint.dialect_files import load, unknown
from batchrun.endpoint.streams import Stream, begins_like_a_stream
from batchrun.records import EndpointError, Response

HEAD = {"id": "c-1", "object": "chat.completion.chunk", "created": 7, "model": "m-1"}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
DONE = b"data: [DONE]\n\n"


def chunk(delta: Any = None, finish: Any = None, **more: Any) -> dict[str, Any]:
    return {**HEAD, "choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}], **more}


def events(*values: Any, end: bytes = DONE) -> bytes:
    return b"".join(b"data: %s\n\n" % orjson.dumps(value) for value in values) + end


def assembled(data: bytes, *, step: int = 0) -> Stream:
    stream = Stream()
    for start in range(0, len(data), step or len(data)):
        stream.feed(data[start : start + (step or len(data))])
    stream.end()
    return stream


def answer(data: bytes, dialect: Dialect | None = None, step: int = 0) -> Response:
    return understand_stream(200, {}, assembled(data, step=step), dialect or unknown())


def refused(data: bytes, dialect: Dialect | None = None, status: int = 200) -> EndpointError:
    with pytest.raises(EndpointError) as caught:
        understand_stream(status, {}, assembled(data), dialect or unknown())
    return caught.value


PLAIN = events(
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": "你"}),
    chunk({"content": "好"}),
    chunk({}, "stop"),
    {**HEAD, "choices": [], "usage": USAGE},
)


def test_a_plain_stream_is_one_completion() -> None:
    found = answer(PLAIN)
    assert (found.text, found.finish_reason, found.model, found.warnings) == ("你好", "stop", "m-1", ())
    assert found.usage is not None
    assert found.usage.as_record() == USAGE
    body = orjson.loads(found.provider.body)
    assert body["object"] == "chat.completion"
    assert body["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "你好"}, "finish_reason": "stop"}
    ]
    assert body["usage"] == USAGE
    assert (body["id"], body["created"]) == ("c-1", 7)


def test_it_does_not_matter_where_the_bytes_are_cut() -> None:
    expected = answer(PLAIN).provider.body
    for ending in (b"\n", b"\r\n", b"\r"):
        data = PLAIN.replace(b"\n", ending)
        assert all(answer(data, step=step).provider.body == expected for step in range(1, 40))


@pytest.mark.parametrize(
    "data",
    [
        b": keep-alive\n\n" * 3 + PLAIN,
        b"\n\n\r\n" + PLAIN,
        b"\xef\xbb\xbf" + PLAIN,
        PLAIN.replace(b"data: ", b"data:"),
        PLAIN.replace(b"\n\n", b"\n"),
        PLAIN.replace(b"data: {", b"event: message\nid: 4\nretry: 10\ndata: {"),
        PLAIN.replace(b'"choices"', b'\ndata: "choices"'),
        PLAIN.removesuffix(b"\n\n"),
        PLAIN.replace(DONE, b": OPENROUTER PROCESSING\n\n" + DONE),
    ],
    ids=["comments", "blank", "bom", "no space", "single line ends", "fields", "two lines", "torn end", "comment last"],
)
def test_the_framing_may_be_loose(data: bytes) -> None:
    assert begins_like_a_stream(data)
    found = answer(data)
    assert (found.text, found.usage and found.usage.total_tokens) == ("你好", 5)


@pytest.mark.parametrize(
    "end",
    [
        [chunk({}, "stop", usage=USAGE)],
        [chunk({}, "stop"), {**HEAD, "choices": [], "usage": USAGE}],
        [{**HEAD, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE}]}],
        [{**HEAD, "usage": None, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE}]}],
        [chunk({}, "stop", usage=USAGE), chunk({}, None, usage=None)],
        [chunk({}, "stop", usage=USAGE), chunk({}, None, usage={})],
    ],
    ids=[
        "on the last chunk",
        "a chunk of its own",
        "in the choice",
        "in the choice, null outside",
        "null after it",
        "nothing after it",
    ],
)
def test_usage_is_found_in_all_its_places(end: list[Any]) -> None:
    found = answer(events(chunk({"content": "x"}, usage=None), *end))
    assert (found.text, found.warnings) == ("x", ())
    assert found.usage is not None
    assert found.usage.total_tokens == 5


def test_reasoning_and_refusals_are_put_together() -> None:
    found = answer(
        events(
            chunk({"role": "assistant", "content": None, "reasoning_content": ""}),
            chunk({"content": None, "reasoning_content": "想"}),
            chunk({"content": None, "reasoning_content": "好"}),
            chunk({"content": "答", "reasoning_content": None}),
            chunk({"content": "", "reasoning_content": None}, "stop", usage=USAGE),
        )
    )
    assert (found.text, found.reasoning) == ("答", "想好")
    error = refused(events(chunk({"refusal": "I "}), chunk({"refusal": "cannot."}, "stop")))
    assert (error.kind, "I cannot." in error.message) == ("content_filter", True)


def half(delta: bytes) -> bytes:
    return b'data: {"id":"c-1","model":"m-1","choices":[{"index":0,"delta":%s}]}\n\n' % delta


def test_halves_of_a_character_in_two_events_are_one() -> None:
    data = half(b'{"content":"a\\ud83d"}') + half(b'{"content":"\\ude00b"}') + events(chunk({}, "stop", usage=USAGE))
    found = answer(data)
    assert (found.text, found.warnings) == ("a😀b", ())
    assert orjson.loads(found.provider.body)["choices"][0]["message"]["content"] == "a😀b"


def test_half_a_character_is_replaced_wherever_it_stands() -> None:
    data = half(b'{"content":"a\\ud83d","reasoning_content":"\\ude00"}') + events(chunk({}, "stop", usage=USAGE))
    found = answer(data)
    assert (found.text, found.reasoning, found.warnings) == ("a\ufffd", "\ufffd", ("lone_surrogate_replaced",))
    data = half(b'{"content":"a"}') + b'data: {"error":{"message":"bad \\ud83d","code":"x\\ud83d"}}\n\n'
    error = refused(data)
    assert (error.message, error.code) == ("HTTP 200: bad \ufffd", "x\ufffd")
    inner = json.dumps({"message": "bad \ud83d"})
    with pytest.raises(EndpointError) as caught:
        understand(400, {}, json.dumps({"error": {"message": inner}}).encode(), unknown())
    orjson.dumps([caught.value.message, caught.value.code])


def test_content_may_come_in_parts() -> None:
    def parts(text: str) -> dict[str, Any]:
        return {"content": [{"type": "text", "text": text}]}

    found = answer(events(chunk({"role": "assistant", "content": None}), chunk(parts("a")), chunk(parts("b"), "stop")))
    assert found.text == "ab"
    assert answer(events(chunk({"content": ""}), chunk(parts("a"), "stop"))).text == "a"


def test_reasoning_details_go_on_where_they_ended() -> None:
    def detail(text: str, **more: Any) -> dict[str, Any]:
        return {"reasoning_details": [{"type": "reasoning.text", "index": 0, "text": text, **more}]}

    found = answer(events(chunk(detail("a")), chunk(detail("b", signature="s")), chunk({"content": "x"}, "stop")))
    assert (found.text, found.reasoning) == ("x", "ab")
    message = orjson.loads(found.provider.body)["choices"][0]["message"]
    assert message["reasoning_details"] == [
        {"type": "reasoning.text", "index": 0, "text": "ab", "signature": "s"},
    ]


def calls(*pieces: dict[str, Any]) -> list[dict[str, Any]]:
    chunks = [chunk({"tool_calls": [piece]}) for piece in pieces]
    found = answer(events(chunk({"role": "assistant", "content": None}), *chunks, chunk({}, "tool_calls")))
    assert (found.text, found.finish_reason) == (None, "tool_calls")
    made: list[dict[str, Any]] = orjson.loads(found.provider.body)["choices"][0]["message"]["tool_calls"]
    return made


def test_the_id_of_a_tool_call_is_not_overwritten_by_an_empty_one() -> None:
    assert calls(
        {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 0, "id": "", "type": "function", "function": {"name": "", "arguments": '{"a"'}},
        {"index": 0, "id": "", "type": "function", "function": {"name": None, "arguments": ": 1}"}},
        {"index": 0, "id": "", "type": "function", "function": {"arguments": None}},
    ) == [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}]


def test_several_tool_calls_are_told_apart_by_index_or_by_id() -> None:
    def call(call_id: str | None, arguments: str, index: int | None = None) -> dict[str, Any]:
        place = {} if index is None else {"index": index}
        return {**place, "id": call_id, "function": {"name": "f", "arguments": arguments}}

    by_index = calls(call("a", "1", 0), call("b", "2", 1), call("", "3", 0), call(None, "4", 1))
    assert [(one["id"], one["function"]["arguments"]) for one in by_index] == [("a", "13"), ("b", "24")]
    by_id = calls(call("a", "1"), call(None, "2"), call("b", "3"), call("", "4"), call("a", "5"))
    assert [(one["id"], one["function"]["arguments"]) for one in by_id] == [("a", "125"), ("b", "34")]


def test_calls_that_all_say_index_0_are_told_apart_by_their_ids() -> None:
    made = calls(
        {"index": 0, "id": "a", "function": {"name": "f", "arguments": "1"}},
        {"index": 0, "id": "b", "function": {"name": "g", "arguments": "2"}},
        {"index": 0, "id": "", "function": {"arguments": "3"}},
    )
    assert [(one["id"], one["function"]["name"], one["function"]["arguments"]) for one in made] == [
        ("a", "f", "1"), ("b", "g", "23"),
    ]  # fmt: skip


def test_the_older_form_of_a_call_is_put_together() -> None:
    said: list[Any] = [None, {"name": "f", "arguments": ""}, {"arguments": '{"a"'}, {"arguments": ":1}"}]
    pieces = [{"function_call": one} for one in said]
    found = answer(events(*map(chunk, pieces), chunk({}, "function_call", usage=USAGE)))
    message = orjson.loads(found.provider.body)["choices"][0]["message"]
    assert (found.text, message["function_call"]) == (None, {"name": "f", "arguments": '{"a":1}'})


def test_success_may_be_said_in_several_ways() -> None:
    for end in ({"base_resp": {"status_code": "0"}}, {"code": 0, "message": "success"}, {"base_resp": {}}):
        assert answer(events(chunk({"content": "x"}, "stop", usage=USAGE), end)).text == "x"


def test_an_empty_reason_does_not_take_back_the_end() -> None:
    found = answer(events(chunk({"content": "x"}, "stop"), chunk({}, "", usage=USAGE)))
    assert (found.text, found.finish_reason) == ("x", "stop")


def test_messages_that_grow_are_the_last_one() -> None:
    def grown(text: str, finish: Any = None, **more: Any) -> dict[str, Any]:
        return {**HEAD, "choices": [{"index": 0, "message": {"content": text}, "finish_reason": finish, **more}]}

    assert answer(events(grown("o"), grown("ok then"), grown("ok then more", "stop"))).text == "ok then more"
    both = [grown("hel", delta={"content": "hel"}), grown("hello", "stop", delta={"content": "lo"})]
    assert answer(events(*both)).text == "hello"


def test_text_behind_a_list_of_thoughts_is_kept_with_it() -> None:
    thought = {"content": [{"type": "thinking", "thinking": "why"}]}
    found = answer(events(chunk(thought), chunk({"content": "x"}), chunk({"content": "y"}, "stop")))
    assert (found.text, found.reasoning) == ("xy", "why")


def test_a_choice_without_its_usual_keys_is_read() -> None:
    piece = {"function": {"arguments": ""}, "index": 0, "id": "", "type": "function"}
    bare = {**HEAD, "choices": [{"delta": {"tool_calls": [piece]}, "index": 0}]}
    found = answer(events(chunk({"tool_calls": [{**piece, "id": "call_1"}]}), bare, chunk({}, "tool_calls")))
    assert found.finish_reason == "tool_calls"


def test_unknown_fields_are_kept_wherever_they_stand() -> None:
    first = {**chunk({"content": "x", "audio_id": "a", "score": 2}), "provider": "P", "x_debug": {"n": 1}}
    first["choices"][0]["native_finish_reason"] = None
    last = chunk({"content": "y", "audio_id": "a", "thoughts": "t1"}, "stop", service_tier="default")
    last["choices"][0]["native_finish_reason"] = "STOP"
    found = answer(events(first, chunk({"thoughts": "t0"}), last, {"timings": {"ms": 3}, "choices": []}))
    body = orjson.loads(found.provider.body)
    assert (body["provider"], body["x_debug"], body["service_tier"], body["timings"]) == (
        "P", {"n": 1}, "default", {"ms": 3},
    )  # fmt: skip
    choice = body["choices"][0]
    assert choice["native_finish_reason"] == "STOP"
    assert choice["message"] == {
        "role": "assistant", "content": "xy", "audio_id": "a", "score": 2, "thoughts": "t0t1",
    }  # fmt: skip


def test_log_probabilities_are_put_together() -> None:
    def with_logprobs(token: str, finish: Any = None) -> dict[str, Any]:
        one = chunk({"content": token}, finish)
        one["choices"][0]["logprobs"] = {"content": [{"token": token}], "refusal": None}
        return one

    body = orjson.loads(answer(events(with_logprobs("a"), with_logprobs("b", "stop"))).provider.body)
    assert body["choices"][0]["logprobs"]["content"] == [{"token": "a"}, {"token": "b"}]


def test_several_choices_are_kept_apart() -> None:
    def at(index: int, text: str, finish: Any = None) -> dict[str, Any]:
        return {**HEAD, "choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}]}

    found = answer(events(at(1, "c"), at(0, "a"), at(1, "d", "stop"), at(0, "b", "stop")))
    assert found.text == "ab"
    assert [one["message"]["content"] for one in orjson.loads(found.provider.body)["choices"]] == ["ab", "cd"]


def test_a_whole_message_at_the_end_does_not_double_the_text() -> None:
    last = {**HEAD, "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "ab", "name": "n"}}]}
    found = answer(events(chunk({"content": "a"}), chunk({"content": "b"}), last))
    assert found.text == "ab"
    assert orjson.loads(found.provider.body)["choices"][0]["message"]["name"] == "n"
    assert answer(events(last)).text == "ab"


# --- streams that are no answer ---------------------------------------------------------------------------------

HALF = [chunk({"role": "assistant", "content": "half"}), chunk({"content": " of it"}, usage=None)]


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (events(*HALF, end=b""), "invalid_response", "finish_reason"),
        (events(*HALF), "invalid_response", "finish_reason"),
        (events(*HALF, {"error": {"message": "boom", "code": 502}}), "server_error", "boom"),
        (events(*HALF, {"error": {"message": "slow down", "code": "429"}}), "rate_limited", "slow down"),
        (events(*HALF, {"error": "boom"}), "server_error", "boom"),
        (
            events(*HALF, end=b'error: {"code": 500, "message": "boom", "type": "server_error"}\n\n'),
            "server_error",
            "boom",
        ),
        (events(*HALF, chunk({}, "error", error={"code": 503, "message": "gone"})), "server_error", "gone"),
        (events(*HALF, {"base_resp": {"status_code": 1027, "status_msg": "output sensitive"}}), None, "sensitive"),
        (events(*HALF, {"code": "data_inspection_failed", "message": "inappropriate"}), "content_filter", "inappr"),
        (events(*HALF, end=b'event: error\ndata: {"message": "boom", "code": 500}\n\n'), "server_error", "boom"),
        (events(*HALF, end=b"event: error\ndata: all is lost\n\n"), "server_error", "all is lost"),
        (events(*HALF, end=b"data: {half an event\n\n" + DONE), "invalid_response", "no JSON"),
        (events(*HALF, chunk({}, "length")), "truncated", "length"),
        (events(*HALF, chunk({}, "content_filter")), "content_filter", "content_filter"),
        (events(*HALF, chunk({}, "insufficient_system_resource")), "server_error", "insufficient"),
    ],
)
def test_a_stream_without_its_end_is_no_success_and_its_text_is_kept(data: bytes, kind: str | None, words: str) -> None:
    error = refused(data)
    assert words in error.message
    assert kind is None or error.kind == kind
    assert error.provider is not None
    assert orjson.loads(error.provider.body)["choices"][0]["message"]["content"] == "half of it"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (DONE, "invalid_response"),
        (b": keep-alive\n\n: keep-alive\n\n", "invalid_response"),
        (events({**HEAD, "choices": []}), "invalid_response"),
        (events({**HEAD, "choices": None}), "invalid_response"),
        (events({**HEAD, "choices": "x"}, [1], "x", 3, None), "invalid_response"),
        (events(chunk({}, "stop")), "empty_output"),
        (events(chunk({"content": " \n "}, "stop")), "empty_output"),
        (events(chunk({"reasoning_content": "all of it"}, "stop")), "empty_output"),
    ],
)
def test_a_stream_without_an_answer_has_its_kind(data: bytes, kind: str) -> None:
    assert refused(data).kind == kind


def test_done_is_demanded_where_the_dialect_sends_it() -> None:
    data = PLAIN.removesuffix(DONE)
    assert answer(data).text == "你好"
    error = refused(data, load("deepseek"))
    assert (error.kind, "[DONE]" in error.message) == ("invalid_response", True)
    assert error.usage is not None, "what was paid for is counted"


def test_an_error_that_comes_as_an_event_is_kept_as_it_is() -> None:
    body = {"error": {"code": "data_inspection_failed", "message": "no"}, "request_id": "r"}
    error = refused(events(body, end=b""), status=400)
    assert error.kind == "content_filter"
    assert error.provider is not None
    assert orjson.loads(error.provider.body) == body


def test_events_that_nobody_asked_for_are_read_all_the_same() -> None:
    assert understand(200, {}, PLAIN, unknown()).text == "你好"
    assert understand(200, {}, b": keep-alive\n\n" + PLAIN, unknown()).text == "你好"


def test_content_alone_is_progress() -> None:
    stream = Stream()
    assert not stream.feed(b": keep-alive\n\n")
    assert not stream.feed(b"\n\n")
    assert not stream.feed(events(chunk({"role": "assistant", "content": ""}), end=b""))
    assert not stream.feed(events({**HEAD, "choices": []}, end=b""))
    assert not stream.feed(b": keep")
    assert not stream.feed(b"-alive")
    assert not stream.feed(b"\n\n")
    assert stream.feed(b'data: {"choices":[{"delta":{"content":"a')
    assert stream.feed(b'"}}]}\n\n')
    assert stream.feed(events(chunk({"reasoning_content": "x"}), end=b""))
    assert stream.feed(events(chunk({"tool_calls": [{"index": 0}]}), end=b""))
    assert stream.feed(events(chunk({}, "stop"), end=b""))
    assert not stream.done
    stream.feed(DONE)
    assert stream.done


def test_a_long_event_in_many_pieces_takes_no_longer_than_its_bytes() -> None:
    """Joined again for every piece, this would copy 50 GB."""
    text = "x" * (20 << 20)
    data = events(chunk({"content": text}, "stop"))
    assert answer(data, step=4096).text == text
    lines = b"data: {\n" + b"data: 1,\n" * 200_000 + b"\n"
    assert refused(lines).kind == "invalid_response"


@pytest.mark.parametrize("data", [b"", b"{}", b'{"data": 1}', b"<html>", b"data", b"dat: x", b"x: y", b"[1]"])
def test_what_is_no_stream_is_not_taken_for_one(data: bytes) -> None:
    assert not begins_like_a_stream(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec=None), max_size=4),
    lambda child: (
        st.lists(child, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ("choices", "function_call", "delta", "message", "content", "tool_calls", "function", "arguments",
                 "index", "id",
                 "finish_reason", "usage", "error", "reasoning_content", "reasoning_details", "logprobs", "role",
                 "base_resp", "status_code", "name", "text", "x"),
            ),
            child,
            max_size=4,
        )
    ),
    max_leaves=25,
)  # fmt: skip


@given(st.lists(JSON, max_size=6), st.binary(max_size=20), st.integers(1, 50))
def test_any_events_are_an_answer_or_an_endpoint_error(values: list[Any], more: bytes, step: int) -> None:
    data = b"".join(b"data: %s\n\n" % json.dumps(value).encode() for value in values) + more
    stream = assembled(data, step=step)
    found: Any = None
    try:
        found = understand_stream(200, {}, stream, unknown())
    except EndpointError as error:
        found = error
    provider = found.provider
    texts = [found.text, found.reasoning, found.model] if isinstance(found, Response) else [found.message, found.code]
    orjson.dumps(texts)
    assert b"\n" not in provider.body
    json.loads(provider.body)


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=8), st.integers(1, 60))
def test_a_streamed_text_is_the_text(pieces: list[str], step: int) -> None:
    data = events(*(chunk({"content": piece}) for piece in pieces), chunk({}, "stop", usage=USAGE))
    stream = assembled(data, step=step)
    text = "".join(pieces)
    whole = stream.completion()
    assert whole["choices"][0]["message"]["content"] == text
    expected = completion(text)
    assert whole["usage"] == USAGE
    assert whole["choices"][0]["finish_reason"] == expected["choices"][0]["finish_reason"]
