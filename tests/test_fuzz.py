"""Anything may come: bytes, JSON of wrong types in every place that is read, events cut and ended anyhow.

Nothing but an `EndpointError` may come of it, and never more than a few times what was sent.
"""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import re
import zlib
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrun.endpoint.answers import error_of, keep, understand, understand_stream
from batchrun.endpoint.dialect import Dialect
from batchrun.endpoint.dialect_files import load
from batchrun.endpoint.discreet import without_echo, without_ids
from batchrun.endpoint.errors import classify, describe
from batchrun.endpoint.secret import HIDDEN, Secret
from batchrun.endpoint.streams import Stream
from batchrun.endpoint.unpack import Unpacker, UnpackError
from batchrun.records import EndpointError, Provider, Response

KEY = "sk-fuzz+0123456789/abcdef"
SECRET = Secret(KEY)
#: The same examples at every run: what fails here fails everywhere.
fuzz = settings(derandomize=True, database=None, deadline=None, max_examples=250)
DIALECTS = [load(name) for name in ("generic", "openai", "dashscope", "minimax", "zhipu")]

dialects = st.sampled_from(DIALECTS)
WORDS = [
    "stop",
    "length",
    "tool_calls",
    "<think>",
    "</think>",
    "[DONE]",
    KEY,
    "\x1b[2J",
    "{",
    '{"a":',
    "data: ",
    "1e999",
]
texts = st.text(st.characters(codec=None), max_size=12) | st.sampled_from(WORDS)
numbers = st.integers() | st.floats() | st.sampled_from([10**400, -1, 0, 2**63, 2**64])
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def maybe(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """An object with some of its fields, each as it should be or of any other type; or no object at all."""
    each = {name: one | values for name, one in fields.items()}
    return st.fixed_dictionaries({}, optional=each) | values


functions = maybe(name=texts, arguments=texts)
calls = st.lists(maybe(index=st.integers(-1, 3), id=texts, type=texts, function=functions), max_size=3)
parts = st.lists(maybe(type=texts, text=texts, thinking=texts, summary=texts, index=st.integers(0, 2)), max_size=3)
messages = maybe(
    role=texts, content=texts | parts, reasoning_content=texts, reasoning=texts, reasoning_details=parts, refusal=texts,
    tool_calls=calls, function_call=functions,
)  # fmt: skip
usages = maybe(
    prompt_tokens=numbers, completion_tokens=numbers, total_tokens=numbers, prompt_tokens_details=values,
    completion_tokens_details=values, prompt_cache_hit_tokens=numbers,
)  # fmt: skip
choices = maybe(
    index=st.integers(-1, 3), finish_reason=texts, message=messages, delta=messages,
    logprobs=maybe(content=st.lists(values, max_size=3)), usage=usages,
)  # fmt: skip
errors = maybe(message=texts, code=texts | numbers, type=texts, metadata=values, param=texts)
answers = maybe(
    id=texts, object=texts, model=texts, choices=st.lists(choices, max_size=3), usage=usages, error=errors,
    base_resp=maybe(status_code=numbers, status_msg=texts), code=numbers | texts, message=texts, detail=values,
    data=values, response=values, output=values,
)  # fmt: skip
statuses = st.sampled_from([200, 201, 204, 302, 400, 401, 402, 403, 404, 429, 500, 503, 999])
header_values = texts | st.sampled_from(["0", "-1", "1e400", "nan", "Wed, 21 Oct 2026 07:28:00 GMT", "9" * 400])
headers = st.dictionaries(
    st.sampled_from(["retry-after", "retry-after-ms", "location", "x-ratelimit-reset-requests", "date", "server"]),
    header_values, max_size=4,
)  # fmt: skip


def as_json(value: Any) -> bytes:
    """Write a value as a careless server does: `NaN` and halves of characters too."""
    return json.dumps(value).encode()


def fits(provider: Provider | None, sent: int) -> None:
    """Demand that what is kept is JSON text on one line, without the key, and not much more than what came."""
    if provider is None:
        return
    assert b"\n" not in provider.body
    assert KEY.encode() not in provider.body
    json.loads(provider.body, parse_int=lambda text: text if len(text) > 4000 else int(text))
    # A byte that is no character becomes three, a control character six.
    assert len(provider.body) <= 8 * sent + 4096


def is_understood(read: Any, sent: int) -> None:
    found: Response | EndpointError
    try:
        found = read()
    except EndpointError as error:
        found = error
    fits(found.provider, sent)
    if isinstance(found, EndpointError):
        found.message.encode()
        assert len(found.message) <= 1200
    else:
        assert len(found.text or "") + len(found.reasoning or "") <= 8 * sent


@fuzz
@given(statuses, headers, st.binary(max_size=300), dialects)
def test_any_bytes_are_understood_or_refused(
    status: int, header: dict[str, str], body: bytes, dialect: Dialect
) -> None:
    is_understood(lambda: understand(status, header, body, dialect, SECRET.scrub), len(body))
    fits(keep(status, header, body, SECRET.scrub), len(body))


@fuzz
@given(statuses, headers, answers, dialects)
def test_answers_of_wrong_types_are_understood_or_refused(
    status: int, header: dict[str, str], value: Any, dialect: Dialect
) -> None:
    body = as_json(value)
    is_understood(lambda: understand(status, header, body, dialect, SECRET.scrub), len(body))
    provider = keep(status, header, body, SECRET.scrub)
    error = error_of(provider, dialect)
    assert error is None or isinstance(error, EndpointError)


@fuzz
@given(statuses, headers, answers, dialects)
def test_errors_of_wrong_types_have_a_kind(status: int, header: dict[str, str], value: Any, dialect: Dialect) -> None:
    provider = keep(status, header, as_json(value), SECRET.scrub)
    error = classify(provider, value, dialect)
    assert len(error.message) <= 600
    assert error.retry_after_s is None or 0 <= error.retry_after_s < 1e7
    describe(provider.body).encode("utf-8", "surrogatepass")


line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
NAMES = [b"data: ", b"data:", b"data", b"event: ", b"event:error", b"error: ", b"id: ", b": ", b"", b" "]
JUNK = [b"[DONE]", b"{", b"\xef\xbb\xbf", "错".encode()[:2], b"null", b"[]"]
fields = st.sampled_from(NAMES)
junk = st.binary(max_size=12) | st.sampled_from(JUNK)
payloads = answers.map(as_json) | junk
#: Lines that are mostly events as they should be, each with ends of its own.
lines = st.tuples(fields | st.just(b"data: "), payloads, line_ends, line_ends | st.just(b"")).map(b"".join)
streams = st.lists(lines, max_size=8).map(b"".join)


def places_up_to(last: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, last), max_size=12)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[first:last] for first, last in itertools.pairwise(at)]


def fed(pieces: list[bytes]) -> Stream:
    stream = Stream()
    for piece in pieces:
        assert stream.feed(piece) in (True, False)
    stream.end()
    return stream


@fuzz
@given(streams, places_up_to(4000), dialects, statuses)
def test_any_events_cut_anywhere_are_understood_or_refused(
    data: bytes, places: list[int], dialect: Dialect, status: int
) -> None:
    stream = fed(cut(data, places))
    is_understood(lambda: understand_stream(status, {}, stream, dialect, SECRET.scrub), len(data) + 500)
    if not data.startswith(b"\r") and b"\r" not in data:
        assert repr(fed([data]).completion()) == repr(stream.completion()), "where it is cut does not matter"


@fuzz
@given(st.lists(choices, min_size=1, max_size=6), places_up_to(4000), dialects)
def test_chunks_of_wrong_types_are_understood_or_refused(
    chunks: list[Any], places: list[int], dialect: Dialect
) -> None:
    data = b"".join(b"data: " + as_json({"choices": [one]}) + b"\n\n" for one in chunks) + b"data: [DONE]\n\n"
    stream = fed(cut(data, places))
    is_understood(lambda: understand_stream(200, {}, stream, dialect, SECRET.scrub), len(data))


def chunk(delta: str) -> str:
    return f'data: {{"choices":[{{"index":0,"delta":{{{delta}}}}}]}}\n\n'


LONG = "x" * 4_000_000
#: What comes first, and what comes behind it again and again.
GROWING: dict[str, tuple[str, str]] = {
    "choices": ("", 'data: {"choices":[{"index":%d,"delta":{"content":"x"}}]}\n\n'),
    "tool calls": ("", chunk('"tool_calls":[{"index":%d,"function":{"arguments":"x"}}]')),
    "fields": ("", 'data: {"f%d":1,"choices":[]}\n\n'),
    "fields of a message": ("", chunk('"f%d":1')),
    "a part's text": (
        chunk(f'"reasoning_details":[{{"index":0,"text":"{LONG}"}}]'),
        chunk('"reasoning_details":[{"index":0,"text":"y%d"}]'),
    ),
    "a function's arguments": (
        chunk(f'"function_call":{{"arguments":"{LONG}"}}'),
        chunk('"function_call":{"arguments":"y%d"}'),
    ),
    "a text that is told again": (
        chunk(f'"content":"{LONG}"'),
        'data: {"choices":[{"index":0,"message":{"content":"y%d"}}]}\n\n',
    ),
}


@pytest.mark.parametrize("name", GROWING)
def test_many_small_events_take_neither_long_nor_much(name: str) -> None:
    """Copied at each event, four megabytes would come to 80 GB."""
    first, form = GROWING[name]
    stream = Stream()
    stream.feed(first.encode())
    for number in range(0, 20_000, 100):
        stream.feed("".join(form % one for one in range(number, number + 100)).encode())
    stream.end()
    assert len(orjson.dumps(stream.completion())) < 9_000_000
    assert (stream.excess is not None) == (not first)


@fuzz
@given(
    st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "X-Gzip"]), st.lists(st.integers(0, 300), max_size=5)
)
def test_any_packed_bytes_are_unpacked_or_refused(data: bytes, encoding: str, places: list[int]) -> None:
    for packed in (data, gzip.compress(data), zlib.compress(data) + data, zlib.compress(data, wbits=-15)):
        unpacker = Unpacker(encoding)
        try:
            pieces = [piece for one in cut(packed, places) for piece in unpacker.feed(one)]
        except UnpackError:
            continue
        assert all(len(piece) <= 65_536 for piece in pieces)


@fuzz
@given(st.binary(max_size=20_000), places_up_to(30_000))
def test_what_was_packed_is_unpacked_wherever_it_is_cut(data: bytes, places: list[int]) -> None:
    forms = {"gzip": [gzip.compress(data), gzip.compress(data[:9]) + gzip.compress(data[9:])]}
    forms["deflate"] = [zlib.compress(data), zlib.compress(data, wbits=-15)]
    for encoding, packed in ((encoding, one) for encoding, every in forms.items() for one in every):
        unpacker = Unpacker(encoding)
        assert b"".join(piece for one in cut(packed, places) for piece in unpacker.feed(one)) == data
        assert unpacker.is_whole


key_texts = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=12, max_size=60)


@fuzz
@given(key_texts, st.binary(max_size=8), st.binary(max_size=8), st.text(max_size=8))
def test_a_key_is_found_in_every_usual_spelling(key: str, before: bytes, behind: bytes, text: str) -> None:
    secret = Secret(key)
    inner = json.dumps(text + key + text)
    lowered = re.sub("%[0-9A-F]{2}", lambda found: found.group().lower(), quote(key, safe=""))
    spelled = "".join(f"\\u{ord(char):04X}" for char in key)
    for said in (key, inner, json.dumps(inner), quote(key, safe=""), lowered, spelled):
        hidden = secret.hide(f"<{said}>")
        assert HIDDEN in hidden
        assert key not in hidden
        assert said.strip('"') not in hidden
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        whole = encode(before + key.encode() + behind)
        assert HIDDEN.encode() in secret.scrub(whole)


IDS = [
    "org-",
    "proj_",
    "AbC123dEf",
    "uid",
    ":",
    " ",
    "1234567890",
    "sk-",
    "***",
    "203.0.113.9",
    "::1",
    "a@b.co",
    "账号",
]
word = st.sampled_from(IDS)


@fuzz
@given(st.lists(word | texts, max_size=40).map("".join), st.lists(texts, max_size=3))
def test_any_words_can_be_shown(words: str, prompts: list[str]) -> None:
    shown = without_echo(without_ids(words), [{"role": "user", "content": one} for one in prompts])
    assert len(shown) <= 4 * len(words) + 20
    assert without_ids(words * 20) is not None
