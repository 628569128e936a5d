"""Any body that is no answer → an `EndpointError` with a kind from the closed list. The rules are data (dialects/)."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import orjson

from batchrun.endpoint.waits import retry_after
from batchrun.records import EndpointError, ErrorKind, Provider

if TYPE_CHECKING:
    from collections.abc import Mapping

_MESSAGE_KEYS = ("message", "msg", "detail", "error_msg", "err", "status_msg")
_CODE_KEYS = ("code", "status_code", "error_code", "type")
_MAX_UNPACKED = 3
_MAX_DEPTH = 12
_MAX_MESSAGE = 500


@dataclass(frozen=True, slots=True)
class Signal:
    """What an error body says: its message and its codes, however it spells them."""

    message: str = ""
    codes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Rule:
    kind: ErrorKind
    statuses: frozenset[int]
    code: re.Pattern[str] | None
    message: re.Pattern[str] | None

    def fits(self, status: int, signal: Signal) -> bool:
        if self.statuses and status not in self.statuses:
            return False
        if self.code and not any(self.code.search(code) for code in signal.codes):
            return False
        return not self.message or bool(self.message.search(signal.message))


@dataclass(frozen=True, slots=True)
class Rules:
    """The decision table of a dialect."""

    rules: tuple[_Rule, ...]
    statuses: Mapping[str, ErrorKind]

    def kind(self, status: int, signal: Signal) -> ErrorKind:
        """Decide by the first rule that fits, else by the status."""
        for rule in self.rules:
            if rule.fits(status, signal):
                return rule.kind
        exact = self.statuses.get(str(status))
        return exact or self.statuses.get(f"{status // 100}xx", ErrorKind.INVALID_RESPONSE)


@cache
def load_rules(dialect: str = "generic") -> Rules:
    """Read the rules of a dialect that comes with batchrun."""
    text = files("batchrun.endpoint").joinpath("dialects", f"{dialect}.toml").read_text("utf-8")
    table = tomllib.loads(text)
    rules = tuple(
        _Rule(
            ErrorKind(row["kind"]),
            frozenset([row["status"]] if isinstance(row.get("status"), int) else row.get("status", ())),
            _pattern(row.get("code")),
            _pattern(row.get("message")),
        )
        for row in table["rule"]
    )
    return Rules(rules, {status: ErrorKind(kind) for status, kind in table["statuses"].items()})


def _pattern(text: str | None) -> re.Pattern[str] | None:
    return re.compile(text, re.IGNORECASE) if text is not None else None


def classify(provider: Provider, value: Any, rules: Rules) -> EndpointError:
    """Make the error of an HTTP answer that is none. `value` is its body, parsed if it was JSON, else None."""
    signal = read_signal(value)
    status = provider.status
    if status // 100 == 2:
        # An error in a 200 says its status, if at all, in its code.
        status = next((int(code) for code in signal.codes if re.fullmatch("[45][0-9][0-9]", code)), status)
    kind = rules.kind(status, signal)
    message = signal.message or describe(provider.body)
    if provider.status // 100 == 3:
        where = provider.headers.get("location", "elsewhere")
        message = f"redirected to {where}; batchrun follows no redirects, put the right address into base_url"
    return EndpointError(
        kind,
        f"HTTP {provider.status}: {message[:_MAX_MESSAGE]}",
        code=next(iter(signal.codes), None),
        provider=provider,
        retry_after_s=retry_after(provider.headers),
    )


def read_signal(value: Any, unpacked: int = 0, depth: int = 0) -> Signal:
    """Find message and codes in an error body of any shape, unpacking JSON inside strings up to three times."""
    if isinstance(value, str):
        return _read_text(value, unpacked, depth)
    if not isinstance(value, dict) or depth > _MAX_DEPTH:
        return Signal()
    message = ""
    codes = tuple(
        str(value[key])
        for key in _CODE_KEYS
        if isinstance(value.get(key), str | int) and not isinstance(value.get(key), bool) and value[key] != ""
    )
    for key in _MESSAGE_KEYS:
        if isinstance(value.get(key), str) and value[key]:
            inner = _read_text(value[key], unpacked, depth)
            message, codes = inner.message, codes + inner.codes
            break
    for key in ("error", "base_resp", "header", "response", "metadata", "raw", "data"):
        if key in value and not (key == "response" and message):
            inner = read_signal(value[key], unpacked, depth + 1)
            # The outer message often says no more than that a provider failed.
            message, codes = (inner.message or message), inner.codes + codes
    return Signal(message, tuple(dict.fromkeys(codes)))


def _read_text(text: str, unpacked: int, depth: int) -> Signal:
    if unpacked < _MAX_UNPACKED and text.lstrip()[:1] in ("{", '"'):
        try:
            inner = read_signal(orjson.loads(text), unpacked + 1, depth + 1)
        except orjson.JSONDecodeError:
            return Signal(text)
        return inner if inner.message else Signal(text, inner.codes)
    return Signal(text)


def describe(body: bytes) -> str:
    """Say in a few words what a body is that holds no message."""
    text = orjson.loads(body) if body[:1] == b'"' else body.decode("utf-8", "replace")
    if not text or not text.strip():
        return "empty body"
    if text.lstrip()[:1] == "<":
        title = re.search(r"<title[^>]*>\s*([^<]{1,80})", text, re.IGNORECASE)
        return "a web page" + (f" titled {title.group(1).strip()!r}" if title else "")
    return " ".join(text[:200].split())
