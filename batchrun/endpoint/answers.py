"""The bytes of an HTTP answer → a `Response`, or the `EndpointError` that says why it is none."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from batchrun.endpoint.errors import classify, describe, says_error
from batchrun.endpoint.streams import Stream, begins_like_a_stream, has_too_many_values
from batchrun.records import EndpointError, ErrorKind, Provider, Response, Usage
from batchrun.structured import OUTPUT_FUNCTION

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchrun.endpoint.dialect import Dialect

#: More tokens than this are no count; numbers over 64 bits could not even be written down.
_MAX_COUNT = 10**15
#: So much is kept of what is no JSON.
_MAX_KEPT_TEXT = 1024 * 1024
_THINK = re.compile(r"\A\s*<think>(.*?)</think>\s*", re.DOTALL)
_THOUGHT = re.compile(r"\A(.*?)</think>\s*", re.DOTALL)
#: The marks with which models call tools, in an answer that should have had them as `tool_calls` (DeepSeek: full-width
#: bars, https://github.com/sgl-project/sglang/pull/17320; Qwen; Kimi).
_TOOL_MARKUP = re.compile(r"<｜(?:tool▁|DSML｜)|<tool_call>\s*\{|<\|tool_calls?_(?:section_)?begin\|>")
_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"
#: Escapes in JSON text: a pair of surrogates, a lone one (the only group), any other.
_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)
_SHOWN_HEADERS_NOT = frozenset(
    {
        "alt-svc", "connection", "content-encoding", "content-length", "date", "keep-alive", "nel", "report-to",
        "set-cookie", "strict-transport-security", "transfer-encoding", "vary",
    }
)  # fmt: skip


def kept_headers(headers: Any) -> dict[str, str]:
    """Give the headers that a record keeps: all but cookies and what is about the connection alone."""
    kept: dict[str, str] = {}
    for name, value in headers.items():
        key = name.lower()
        if key not in _SHOWN_HEADERS_NOT:
            text = value if value.isascii() else _readable(value)
            kept[key] = f"{kept[key]}, {text}" if key in kept else text
    if "retry-after" in kept and "Date" in headers:
        kept["date"] = headers["Date"]  # what a date in Retry-After counts from
    return kept


def _readable(value: str) -> str:
    """Replace the lone surrogates that stand for bytes that are no UTF-8: no record can hold them."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def understand(
    status: int, headers: dict[str, str], body: bytes, dialect: Dialect, scrub: Callable[[bytes], bytes] | None = None
) -> Response:
    """Make the response of an answer. Raises `EndpointError` with its kind, the body kept as received.

    `scrub` takes out of it what must not be kept.
    """
    body = _trimmed(scrub(body) if scrub else body)
    if body[:1] != b"{" and begins_like_a_stream(body):
        stream = Stream()
        stream.feed(body)
        stream.end()
        return understand_stream(status, headers, stream, dialect, scrub)
    warnings: list[str] = []
    value, kept = _parse(body, warnings)
    provider = Provider(status, headers, kept)
    if status // 100 != 2 or not isinstance(value, dict) or "choices" not in value or says_error(value):
        usage = read_usage(value, dialect) if isinstance(value, dict) else None
        raise _no_answer(provider, value, dialect, usage)
    return _normalise(value, provider, warnings, dialect)


def _trimmed(body: bytes) -> bytes:
    return body.strip(b" \t\r\n\x00").removeprefix(b"\xef\xbb\xbf").lstrip()


def understand_stream(
    status: int,
    headers: dict[str, str],
    stream: Stream,
    dialect: Dialect,
    scrub: Callable[[bytes], bytes] | None = None,
) -> Response:
    """Make the response of a stream that came to its end. Raises `EndpointError` as `understand` does.

    The body of the response, and of the error, is the chat completion that the events make up. `scrub` takes out of
    it what must not be kept.
    """
    warnings: list[str] = []
    value, kept = _assembled(stream, warnings, scrub)
    provider = Provider(status, headers, kept)
    usage = read_usage(value, dialect)
    if stream.error is not None or status // 100 != 2:
        raise classify(provider, value, dialect, usage)
    problem = _cut_off(value, stream, dialect)
    if problem is not None:
        raise EndpointError(ErrorKind.INVALID_RESPONSE, f"HTTP {status}: {problem}", provider=provider, usage=usage)
    return _normalise(value, provider, warnings, dialect)


def keep(status: int, headers: dict[str, str], body: bytes, scrub: Callable[[bytes], bytes]) -> Provider:
    """Keep an answer of any kind as it came, but for what `scrub` takes out of it."""
    _, kept = _parse(_trimmed(scrub(body)), [])
    return Provider(status, headers, kept)


def error_of(provider: Provider, dialect: Dialect) -> EndpointError | None:
    """Read an answer of any kind as an error: by its status, by what it says, or because it is a web page."""
    value = parsed(provider)
    if isinstance(value, str) and begins_like_a_stream(value.encode()):
        stream = Stream()
        stream.feed(value.encode())
        stream.end()
        if stream.error is None:
            return None if provider.status // 100 == 2 else _no_answer(provider, None, dialect, None)
        value, provider = stream.error, replace(provider, body=_dump(stream.error, [])[0])
    is_page = isinstance(value, str) and describe(provider.body).startswith("a web page")
    if provider.status // 100 == 2 and not is_page and not (isinstance(value, dict) and says_error(value)):
        return None
    return _no_answer(provider, None if isinstance(value, str) else value, dialect, None)


def parsed(provider: Provider) -> Any:
    """Parse the body of an answer that was kept; a string is the text of one that was no JSON."""
    try:
        return orjson.loads(provider.body)
    except orjson.JSONDecodeError:  # numbers beyond a double
        return json.loads(provider.body, parse_int=_tolerant_int)


def partial(
    status: int, headers: dict[str, str], stream: Stream, dialect: Dialect, scrub: Callable[[bytes], bytes]
) -> tuple[Provider, Usage | None]:
    """Give what a stream that broke off had said so far."""
    value, kept = _assembled(stream, [], scrub)
    return Provider(status, headers, kept), read_usage(value, dialect)


def _assembled(
    stream: Stream, warnings: list[str], scrub: Callable[[bytes], bytes] | None
) -> tuple[dict[str, Any], bytes]:
    value = stream.completion()
    if stream.error is not None and not value["choices"]:
        value = stream.error  # an error that came as an event is kept as it is
    kept, is_whole = _dump(value, warnings)
    clean = scrub(kept) if scrub else kept
    if scrub and stream.malformed is not None:
        stream.malformed = scrub(stream.malformed)
    if not is_whole or clean != kept:
        mended = json.loads(clean)
        value = mended if isinstance(mended, dict) else {"choices": []}
    return value, clean


def _cut_off(value: dict[str, Any], stream: Stream, dialect: Dialect) -> str | None:
    if stream.excess is not None:
        return stream.excess
    if stream.malformed is not None:
        return f"the stream has an event that is no JSON, of {len(stream.malformed)} bytes"
    if not value["choices"]:
        return "the stream ended without an answer"
    if not value["choices"][0]["finish_reason"]:
        return "the stream ended without finish_reason: the answer is cut off"
    if dialect.done and not stream.done:
        return "the stream ended without [DONE]: the answer may be cut off"
    return None


def _dump(value: dict[str, Any], warnings: list[str]) -> tuple[bytes, bool]:
    """Write what the events make up; tell whether that is all of it, or had to be mended to be written."""
    try:
        return orjson.dumps(value), True
    except TypeError:  # whole numbers beyond 64 bits, lone surrogates, deep nesting
        try:
            # Halves of a character that came in two events are one here.
            text = json.dumps(value, allow_nan=False).encode()
        except (ValueError, RecursionError):
            return orjson.dumps("nested too deeply, or with numbers too large, to be kept"), False
    return _without_lone_surrogates(text, warnings), False


def _parse(body: bytes, warnings: list[str]) -> tuple[Any, bytes]:
    """Parse a body; give it parsed (None if it is no JSON) and as one line of JSON text for the record.

    The text is the provider's own bytes: numbers, spelling and doubled keys stay. In valid JSON a raw line end can
    only be white space between tokens, so taking them out changes nothing.
    """
    if has_too_many_values(body):
        return None, _as_text(body)
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value, body = _parse_slowly(body, warnings)
        if value is None:
            return None, body
    if b"\n" in body or b"\r" in body:
        body = body.replace(b"\r", b"").replace(b"\n", b"")
    return value, body


def _parse_slowly(body: bytes, warnings: list[str]) -> tuple[Any, bytes]:
    """Parse what the fast reader refuses and is JSON all the same: numbers beyond a double, lone surrogates.

    A lone surrogate is no character and would make the record unreadable to most parsers; it becomes U+FFFD.
    """
    try:
        value = json.loads(body.decode(), parse_constant=_refuse, parse_int=_tolerant_int)
    except (ValueError, RecursionError):
        return None, _as_text(body)
    mended = _without_lone_surrogates(body, warnings)
    if mended != body:
        value = json.loads(mended, parse_int=_tolerant_int)
    return value, mended


def _as_text(body: bytes) -> bytes:
    """Keep what is no JSON as a JSON string, a long one as far as it may be worth something."""
    cut = "…" if len(body) > _MAX_KEPT_TEXT else ""
    return orjson.dumps(body[:_MAX_KEPT_TEXT].decode("utf-8", "replace") + cut)


def _without_lone_surrogates(text: bytes, warnings: list[str]) -> bytes:
    mended = _ESCAPE.sub(lambda found: rb"\ufffd" if found.group(1) else found.group(), text)
    if mended != text:
        warnings.append("lone_surrogate_replaced")
    return mended


def _refuse(name: str) -> None:
    raise ValueError(name)


def _tolerant_int(text: str) -> int | float:
    return int(text) if len(text) < 4000 else float("inf")


def _no_answer(provider: Provider, value: Any, dialect: Dialect, usage: Usage | None) -> EndpointError:
    if provider.status // 100 == 2 and not isinstance(value, dict):
        what = describe(provider.body)
        if what.startswith("a web page"):
            message = f"HTTP {provider.status} with {what}: base_url does not point at an API (is /v1 missing?)"
            return EndpointError(ErrorKind.NOT_AN_API, message, provider=provider)
        message = f"HTTP {provider.status} without a chat completion: {what}"
        return EndpointError(ErrorKind.INVALID_RESPONSE, message, provider=provider)
    return classify(provider, value, dialect, usage)


def _normalise(value: dict[str, Any], provider: Provider, warnings: list[str], dialect: Dialect) -> Response:
    """Take the first choice's message out of a chat completion; everything else stays in the body."""
    usage = read_usage(value, dialect)
    try:
        choice = value["choices"][0]
        message = choice["message"]
        content = message.get("content")
    except (AttributeError, IndexError, KeyError, TypeError):
        words = f"HTTP {provider.status} without choices[0].message"
        raise EndpointError(ErrorKind.INVALID_RESPONSE, words, provider=provider, usage=usage) from None
    finish = choice.get("finish_reason")
    text, reasoning = text_and_reasoning(message, content, dialect)
    if finish != "stop" or not text or text.isspace() or text[0] in _INVISIBLE:
        trouble = _trouble(finish, message, text, dialect)
        if trouble is not None:
            raise EndpointError(trouble[0], trouble[1], provider=provider, usage=usage)
        if finish not in dialect.finish_kinds:
            warnings.append(f"finish_reason:{str(finish)[:40]}")
    if "<" in text and _TOOL_MARKUP.search(text):
        warnings.append("tool_markup")
    if usage is None:
        warnings.append("no_usage")
    model = value.get("model")
    if not isinstance(model, str):
        model = None
    return Response(text or None, reasoning, str(finish), model, usage, provider, tuple(warnings), _arguments(message))


def _arguments(message: dict[str, Any]) -> str | None:
    """Give the arguments with which a message calls the function that takes outputs, as the model wrote them.

    None if there is no such call, or another one beside it.
    """
    calls = message.get("tool_calls")
    if not isinstance(calls, list) or len(calls) != 1 or not isinstance(calls[0], dict):
        return None
    function = calls[0].get("function")
    if not isinstance(function, dict) or function.get("name") != OUTPUT_FUNCTION:
        return None
    arguments = function.get("arguments")
    if isinstance(arguments, dict):  # some send them unpacked
        return json.dumps(arguments, ensure_ascii=False)
    return arguments if isinstance(arguments, str) else None


def _trouble(finish: object, message: dict[str, Any], text: str, dialect: Dialect) -> tuple[ErrorKind, str] | None:
    if not isinstance(finish, str) or not finish:
        return ErrorKind.INVALID_RESPONSE, "the answer has no finish_reason: it may be cut off"
    kind = dialect.finish_kinds.get(finish)
    if kind is not None:
        return kind, f"the answer ended with finish_reason {finish!r}"
    if text.strip().strip(_INVISIBLE) or message.get("tool_calls") or message.get("function_call"):
        return None
    if isinstance(message.get("refusal"), str) and message["refusal"]:
        return ErrorKind.CONTENT_FILTER, f"the model refused: {message['refusal'][:200]}"
    return ErrorKind.EMPTY_OUTPUT, "the answer is empty"


def text_and_reasoning(message: dict[str, Any], content: Any, dialect: Dialect) -> tuple[str, str | None]:
    """Give the text of a message with this content, and the reasoning, wherever it stands."""
    thoughts: list[str] = []
    if isinstance(content, list):  # a list of parts, as some servers send it
        content, thoughts = _join_parts(content)
    text = content if isinstance(content, str) else ""
    for key in dialect.reasoning_fields:
        reasoning = message.get(key)
        if reasoning and isinstance(reasoning, str):
            return text, reasoning
    details = message.get("reasoning_details")
    if details and isinstance(details, list):
        thoughts += _join_parts(details)[1]
    if thoughts:
        return text, "".join(thoughts)
    return _without_thoughts(text) if "think>" in text else (text, None)


def _without_thoughts(text: str) -> tuple[str, str | None]:
    """Take `<think>` off the beginning of a text. An opening tag may be lost; what is not closed is all thought."""
    found = _THINK.match(text)
    # A text that begins as JSON does is no thought that lost its tag.
    if found is None and text.find("<think>") < 0 and text.lstrip()[:1] not in ("{", "["):
        found = _THOUGHT.match(text)
    if found:
        return text[found.end() :], found.group(1).strip() or None
    if text.lstrip().startswith("<think>"):
        return "", text.lstrip().removeprefix("<think>").strip()
    return text, None


def _join_parts(parts: list[Any]) -> tuple[str, list[str]]:
    """Give the text of a list of parts, and the thoughts among them."""
    texts: list[str] = []
    thoughts: list[str] = []
    for part in parts:
        if isinstance(part, dict):
            kind = part.get("type")
            thinks = isinstance(kind, str) and ("thinking" in kind or "reasoning" in kind)
            for key in ("text", "thinking", "summary"):
                if isinstance(part.get(key), str):
                    (thoughts if thinks else texts).append(part[key])
    return "".join(texts), thoughts


def read_usage(body: dict[str, Any], dialect: Dialect) -> Usage | None:
    """Read the tokens of an answer from where the dialect says that they stand; None if they stand nowhere.

    Those of the reasoning are among those of the answer, also where the provider counts them apart.
    """
    value = body.get("usage")
    if not isinstance(value, dict):
        value = next((one for path in dialect.usage_at if isinstance(one := _at(body, path), dict)), None)
        if value is None:
            return None
    prompt = _count(value.get("prompt_tokens"))
    completion = _count(value.get("completion_tokens"))
    cached, reasoning = _first_count(value, dialect.cached_at), _first_count(value, dialect.reasoning_at)
    total = _count(value.get("total_tokens"))
    # xAI, and what passes Gemini on, count it beside the answer: https://github.com/vercel/ai/pull/12425
    if reasoning and total >= prompt + completion + reasoning:
        completion += reasoning
    return Usage(prompt, completion, total or prompt + completion, cached, reasoning)


def _first_count(value: dict[str, Any], paths: tuple[tuple[str, ...], ...]) -> int:
    for path in paths:
        count = _count(_at(value, path)) if path[0] in value else 0
        if count:
            return count
    return 0


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


def _count(number: Any) -> int:
    return number if type(number) is int and 0 <= number <= _MAX_COUNT else 0
