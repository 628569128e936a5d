"""Any body that is no answer → an `EndpointError` with a kind from the closed list. The rules are a dialect's rows."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from batchrun.endpoint.discreet import without_ids
from batchrun.endpoint.recognise import recognise_answer
from batchrun.endpoint.waits import asked_wait
from batchrun.records import EndpointError, ErrorKind, Provider, Usage

if TYPE_CHECKING:
    from batchrun.endpoint.dialect import Dialect, ErrorRow

_MESSAGE_KEYS = ("message", "msg", "detail", "error_msg", "err", "status_msg")
_CODE_KEYS = ("code", "status_code", "error_code", "type")
#: Codes that say more (OpenRouter's metadata), and never are the code that a record shows.
_HINT_KEYS = ("provider_error_code", "limit_source")
_NESTED_KEYS = ("error", "base_resp", "header", "response", "metadata", "raw", "data", "detail")
#: Codes with which some say that nothing is wrong.
SUCCESS = (0, "0", None, "", "success", "Success", "ok")
_MAX_UNPACKED = 3
_MAX_UNPACKED_TEXT = 65_536
_MAX_DEPTH = 12
_MAX_MESSAGE = 500
_MATCHED = 1000


@dataclass(frozen=True, slots=True)
class Signal:
    """What an error body says: its message and its codes, however it spells them, and codes that only say more."""

    message: str = ""
    codes: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()


def says_error(body: dict[str, Any]) -> bool:
    """Tell whether a body or an event with a good status is an error: `error` is there, or MiniMax's `base_resp`."""
    base = body.get("base_resp")
    return bool(body.get("error")) or (isinstance(base, dict) and base.get("status_code") not in SUCCESS)


def classify(provider: Provider, value: Any, dialect: Dialect, usage: Usage | None = None) -> EndpointError:
    """Make the error of an HTTP answer that is none. `value` is its body, parsed if it was JSON, else None."""
    signal = read_signal(value) if value is not None else Signal(plain_text(provider.body))
    headers = provider.headers
    status = provider.status
    if status // 100 == 2:
        # An error in a 200 says its status, if at all, in its code.
        status = next((int(code) for code in signal.codes if re.fullmatch("[45][0-9][0-9]", code)), status)
    # Patterns see the beginning and the end of a long message, which may repeat the whole prompt.
    text = signal.message
    if len(text) > 2 * _MATCHED:
        signal = replace(signal, message=f"{text[:_MATCHED]} … {text[-_MATCHED:]}")
    if dialect.guessed:
        dialect = recognise_answer(headers, value, signal.codes, signal.message) or dialect
    row = _row(dialect, status, signal, headers)
    message = without_ids(signal.message[: 2 * _MAX_MESSAGE]) or describe(provider.body)
    if provider.status // 100 == 3:
        where = shown_place(headers.get("location", "elsewhere"))
        message = f"redirected to {where}; batchrun follows no redirects, put the right address into base_url"
    is_told = isinstance(value, dict) and bool(value.get("error") or value.get("base_resp") or value.get("code"))
    error = EndpointError(
        row.kind if row else ErrorKind.SERVER_ERROR if is_told else ErrorKind.INVALID_RESPONSE,
        f"HTTP {provider.status}: {message[:_MAX_MESSAGE]}",
        code=next(iter(signal.codes), None),
        provider=provider,
        usage=usage,
        retry_after_s=asked_wait(headers, signal.message, dialect.wait),
    )
    if row is not None:
        error.cause, error.remedy = row.cause, row.remedy
        error.attempts, error.then = row.attempts, row.then
        if error.retry_after_s is None:
            error.retry_after_s = row.wait_s
    if error.cause is not None:
        error.limit = _limit(dialect, error.cause, signal.message)
    return error


def shown_place(location: str) -> str:
    """Give an address without what may be a secret: user, query, fragment."""
    scheme, mark, rest = re.split(r"[?#]", location[:_MAX_MESSAGE])[0].rpartition("://")
    host, slash, path = rest.partition("/")
    return scheme + mark + host.rpartition("@")[2] + slash + path


def _row(dialect: Dialect, status: int, signal: Signal, headers: dict[str, str]) -> ErrorRow | None:
    codes = signal.codes + signal.hints
    for row in dialect.error:
        if row.fits(status, codes, signal.message, headers):
            return row
    return None


def _limit(dialect: Dialect, cause: str, message: str) -> int | None:
    for row in dialect.limit:
        found = row.message.search(message) if row.what == cause else None
        if found and (found.group(1) or "").isdecimal():
            return int(found.group(1)[:9])
    return None


def read_signal(value: Any, unpacked: int = 0, depth: int = 0) -> Signal:
    """Find message and codes in an error body of any shape, unpacking JSON inside strings up to three times."""
    if isinstance(value, str):
        return _read_text(value, unpacked, depth)
    if isinstance(value, list) and value:
        value = value[0]  # FastAPI lists what is wrong with a request, in `detail`
    if not isinstance(value, dict) or depth > _MAX_DEPTH:
        return Signal()
    message = ""
    codes, hints = _codes(value, _CODE_KEYS), _codes(value, _HINT_KEYS)
    for key in _MESSAGE_KEYS:
        if isinstance(value.get(key), str) and value[key]:
            inner = _read_text(value[key], unpacked, depth)
            message, codes = inner.message, codes + inner.codes
            break
    for key in _NESTED_KEYS:
        if key in value and not (key in ("response", "detail") and message):
            inner = read_signal(value[key], unpacked, depth + 1)
            # The outer message often says no more than that a provider failed.
            message, codes, hints = (inner.message or message), inner.codes + codes, inner.hints + hints
    return Signal(message, tuple(dict.fromkeys(codes)), hints)


def _codes(value: dict[str, Any], keys: tuple[str, ...]) -> tuple[str, ...]:
    found = (value.get(key) for key in keys)
    return tuple(str(one) for one in found if isinstance(one, str | int) and not isinstance(one, bool) and one != "")


def _read_text(text: str, unpacked: int, depth: int) -> Signal:
    """Read a message, which may be JSON itself, with something behind it (one-api adds its request id)."""
    begins = text.lstrip()
    if unpacked < _MAX_UNPACKED and begins[:1] in ("{", '"'):
        try:
            value, _ = json.JSONDecoder().raw_decode(begins[:_MAX_UNPACKED_TEXT])
        except (ValueError, RecursionError):
            return Signal(text)
        inner = read_signal(value, unpacked + 1, depth + 1)
        return inner if inner.message else Signal(text, inner.codes)
    return Signal(text)


def plain_text(body: bytes) -> str:
    """Give the beginning of a body that is neither JSON nor a web page; `body` holds it as a JSON string."""
    text = orjson.loads(body) if body[:1] == b'"' else ""
    return "" if text.lstrip()[:1] == "<" else " ".join(text[:_MAX_MESSAGE].split())


def describe(body: bytes) -> str:
    """Say in a few words what a body is that holds no message."""
    text = orjson.loads(body) if body[:1] == b'"' else body.decode("utf-8", "replace")
    if not text or not text.strip():
        return "empty body"
    if text.lstrip()[:1] == "<":
        title = re.search(r"<title[^>]*>\s*([^<]{1,80})", text, re.IGNORECASE)
        return "a web page" + (f" titled {without_ids(title.group(1).strip())!r}" if title else "")
    return without_ids(" ".join(text[:200].split()))
