"""The bytes of an HTTP answer → a `Response`, or the `EndpointError` that says why it is none."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from batchrun.endpoint.errors import Rules, classify, describe
from batchrun.records import EndpointError, ErrorKind, Provider, Response, Usage

#: Reasons to finish that mean trouble on the provider's side (DeepSeek, Zhipu, OpenRouter): another attempt may do.
_TROUBLE = {
    "insufficient_system_resource": ErrorKind.SERVER_ERROR,
    "aborted": ErrorKind.SERVER_ERROR,
    "network_error": ErrorKind.SERVER_ERROR,
    "error": ErrorKind.SERVER_ERROR,
    "content_filter": ErrorKind.CONTENT_FILTER,
    "sensitive": ErrorKind.CONTENT_FILTER,
    "length": ErrorKind.TRUNCATED,
    "model_context_window_exceeded": ErrorKind.TRUNCATED,
}
_FINE = ("stop", "tool_calls", "function_call", "stop_sequence", "end_turn", "eos")
#: More tokens than this are no count; numbers over 64 bits could not even be written down.
_MAX_COUNT = 10**15
_THINK = re.compile(r"\A\s*<think>(.*?)</think>\s*", re.DOTALL)
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


def understand(status: int, headers: dict[str, str], body: bytes, rules: Rules) -> Response:
    """Make the response of an answer. Raises `EndpointError` with its kind, the body kept as received."""
    body = body.strip(b" \t\r\n\x00").removeprefix(b"\xef\xbb\xbf")
    warnings: list[str] = []
    value, kept = _parse(body, warnings)
    provider = Provider(status, headers, kept)
    if status // 100 != 2 or not isinstance(value, dict) or "choices" not in value or _is_error(value):
        raise _no_answer(provider, value, rules)
    return _normalise(value, provider, warnings)


def _parse(body: bytes, warnings: list[str]) -> tuple[Any, bytes]:
    """Parse a body; give it parsed (None if it is no JSON) and as one line of JSON text for the record.

    The text is the provider's own bytes: numbers, spelling and doubled keys stay. In valid JSON a raw line end can
    only be white space between tokens, so taking them out changes nothing.
    """
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
    if body[:5] == b"data:":
        body = body[5:].strip()
    try:
        value = json.loads(body.decode(), parse_constant=_refuse, parse_int=_tolerant_int)
    except (ValueError, RecursionError):
        return None, orjson.dumps(body.decode("utf-8", "replace"))
    mended = _ESCAPE.sub(lambda found: rb"\ufffd" if found.group(1) else found.group(), body)
    if mended != body:
        warnings.append("lone_surrogate_replaced")
        value = json.loads(mended, parse_int=_tolerant_int)
    return value, mended


def _refuse(name: str) -> None:
    raise ValueError(name)


def _tolerant_int(text: str) -> int | float:
    return int(text) if len(text) < 4000 else float("inf")


def _is_error(value: dict[str, Any]) -> bool:
    base = value.get("base_resp")  # MiniMax says errors here, with HTTP 200
    return bool(value.get("error")) or (isinstance(base, dict) and base.get("status_code", 0) != 0)


def _no_answer(provider: Provider, value: Any, rules: Rules) -> EndpointError:
    if provider.status // 100 == 2 and not isinstance(value, dict):
        what = describe(provider.body)
        if what.startswith("a web page"):
            message = f"HTTP {provider.status} with {what}: base_url does not point at an API (is /v1 missing?)"
            return EndpointError(ErrorKind.NOT_AN_API, message, provider=provider)
        message = f"HTTP {provider.status} without a chat completion: {what}"
        return EndpointError(ErrorKind.INVALID_RESPONSE, message, provider=provider)
    return classify(provider, value, rules)


def _normalise(value: dict[str, Any], provider: Provider, warnings: list[str]) -> Response:
    """Take the first choice's message out of a chat completion; everything else stays in the body."""
    usage = read_usage(value.get("usage"))
    try:
        choice = value["choices"][0]
        message = choice["message"]
        content = message.get("content")
    except (AttributeError, IndexError, KeyError, TypeError):
        words = f"HTTP {provider.status} without choices[0].message"
        raise EndpointError(ErrorKind.INVALID_RESPONSE, words, provider=provider, usage=usage) from None
    finish = choice.get("finish_reason")
    text, reasoning = _text_and_reasoning(message, content)
    if finish != "stop" or not text or text.isspace():
        trouble = _trouble(finish, message, text)
        if trouble is not None:
            raise EndpointError(trouble[0], trouble[1], provider=provider, usage=usage)
        if finish not in _FINE:
            warnings.append(f"finish_reason:{str(finish)[:40]}")
    if usage is None:
        warnings.append("no_usage")
    model = value.get("model")
    if not isinstance(model, str):
        model = None
    return Response(text or None, reasoning, str(finish), model, usage, provider, tuple(warnings))


def _trouble(finish: object, message: dict[str, Any], text: str) -> tuple[ErrorKind, str] | None:
    if not isinstance(finish, str) or not finish:
        return ErrorKind.INVALID_RESPONSE, "the answer has no finish_reason: it may be cut off"
    kind = _TROUBLE.get(finish)
    if kind is not None:
        return kind, f"the answer ended with finish_reason {finish!r}"
    if text.strip() or message.get("tool_calls"):
        return None
    if isinstance(message.get("refusal"), str) and message["refusal"]:
        return ErrorKind.CONTENT_FILTER, f"the model refused: {message['refusal'][:200]}"
    return ErrorKind.EMPTY_OUTPUT, "the answer is empty"


def _text_and_reasoning(message: dict[str, Any], content: Any) -> tuple[str, str | None]:
    if isinstance(content, list):  # a list of parts, as some servers send it
        texts = (part.get("text") for part in content if isinstance(part, dict))
        content = "".join(text for text in texts if isinstance(text, str))
    text = content if isinstance(content, str) else ""
    for key in ("reasoning_content", "reasoning"):
        reasoning = message.get(key)
        if reasoning and isinstance(reasoning, str):
            return text, reasoning
    thought = _THINK.match(text) if "<think>" in text else None
    return (text[thought.end() :], thought.group(1).strip()) if thought else (text, None)


def read_usage(value: Any) -> Usage | None:
    """Read the tokens from a usage object; cached tokens stand in one of three places.

    `prompt_tokens_details.cached_tokens` (OpenAI, Qwen), `cached_tokens` (Kimi), `prompt_cache_hit_tokens` (DeepSeek).
    """
    if not isinstance(value, dict):
        return None
    prompt_details = value.get("prompt_tokens_details")
    completion_details = value.get("completion_tokens_details")
    prompt = _count(value.get("prompt_tokens"))
    completion = _count(value.get("completion_tokens"))
    cached = _count(prompt_details.get("cached_tokens")) if isinstance(prompt_details, dict) else 0
    for key in ("cached_tokens", "prompt_cache_hit_tokens"):
        if not cached and key in value:
            cached = _count(value[key])
    reasoning = _count(completion_details.get("reasoning_tokens")) if isinstance(completion_details, dict) else 0
    return Usage(prompt, completion, _count(value.get("total_tokens")) or prompt + completion, cached, reasoning)


def _count(number: Any) -> int:
    return number if type(number) is int and 0 <= number <= _MAX_COUNT else 0
