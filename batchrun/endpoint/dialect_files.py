"""Dialect files → dialects: those that come with batchrun, and those of the user's own.

A file holds tables of rows. Its rows come before those of the dialect that it extends, which in the end is `generic`;
where rows compete, the first that fits decides. `dialects/README.md` says what each table means.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from batchrun import expect
from batchrun.endpoint.dialect import (
    AliasRow,
    BaseUrlRow,
    BoundRow,
    ChargeRow,
    Dialect,
    ErrorRow,
    FinishRow,
    LaneRow,
    LimitRow,
    MistakeRow,
    ParameterRow,
    Pattern,
    QuotaRow,
    ReasoningRow,
    RecogniseRow,
    StreamRow,
    StructuredRow,
    ThinkingRow,
    UsageRow,
    WaitRow,
)
from batchrun.job import JobError
from batchrun.records import ErrorKind, RateCause

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

GENERIC = "generic"


@cache
def names() -> tuple[str, ...]:
    """Give the names of the dialects that come with batchrun."""
    folder = files("batchrun.endpoint").joinpath("dialects")
    return tuple(sorted(one.name.removesuffix(".toml") for one in folder.iterdir() if one.name.endswith(".toml")))


@cache
def load(name: str) -> Dialect:
    """Read a dialect that comes with batchrun, by its name."""
    text = files("batchrun.endpoint").joinpath("dialects", f"{name}.toml").read_text("utf-8")
    return _build(name, _read(text, f"dialect {name}"), extends=name != GENERIC)


def load_file(path: Path) -> Dialect:
    """Read a dialect file of the user's own. Raises `JobError`."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise JobError(f"endpoint.dialect: {path}: the dialect file cannot be read: {reason}") from error
    values = _read(text, str(path))
    extends = values.get("extends", GENERIC)
    if extends not in names():
        raise JobError(f"{path}: extends: expected one of {', '.join(names())}, got {extends!r}")
    return _build(path.stem, values)


def _build(name: str, values: Mapping[str, Any], *, extends: bool = True) -> Dialect:
    base = load(values.get("extends", GENERIC)) if extends else None
    rows = {key: (*values.get(key, ()), *(getattr(base, key) if base else ())) for key in _TABLES}
    # What the endpoint says in words counts before what its status says, also if the status is a family's own row.
    rows["error"] = (
        *(row for row in rows["error"] if not row.by_status_alone),
        *(row for row in rows["error"] if row.by_status_alone),
    )
    # How a family is recognised and where it lives is not inherited.
    for key in ("recognise", "base_url"):
        rows[key] = values.get(key, ())
    kinds: dict[str, ErrorKind | None] = {}
    for row in rows["finish"]:
        kinds.setdefault(row.reason, row.kind)

    def paths(what: str) -> tuple[tuple[str, ...], ...]:
        return tuple(dict.fromkeys(tuple(row.path.split(".")) for row in rows["usage"] if row.what == what))

    return Dialect(
        name=name, title=values.get("title", name), guessed=False,
        done=values.get("done", base.done if base else False), **rows, finish_kinds=kinds, usage_at=paths("usage"),
        cached_at=paths("cached"), reasoning_at=paths("reasoning"),
        reasoning_fields=tuple(dict.fromkeys(row.field for row in rows["reasoning"])),
    )  # fmt: skip


@cache
def unknown() -> Dialect:
    """Give the dialect of an endpoint that was not recognised: `generic`, until an answer shows more."""
    return replace(load(GENERIC), guessed=True)


# --- reading a file -------------------------------------------------------------------------------------------------


def _pattern(value: object) -> Pattern:
    if isinstance(value, str):
        try:
            return re.compile(value, re.IGNORECASE)
        except re.error as error:
            raise ValueError(f"a regular expression ({error})") from error
    raise ValueError("a regular expression")


def _group(value: object) -> Pattern:
    pattern = _pattern(value)
    if not pattern.groups:
        raise ValueError("a regular expression with a group for the number, such as (\\d+)")
    return pattern


def _path(value: object) -> str:
    if isinstance(value, str) and value.startswith("/") and not value.startswith("//"):
        return value
    raise ValueError("a path that begins with /")


def _parameter(value: object) -> str:
    if value in _RESERVED:
        raise ValueError(f"a parameter that is not made by batchrun itself ({', '.join(_RESERVED)})")
    return _TEXT(value)


def _kind(value: object) -> ErrorKind:
    return ErrorKind(expect.one_of(*(kind.value for kind in ErrorKind))(value))


def _cause(value: object) -> RateCause:
    return RateCause(expect.one_of(*(cause.value for cause in RateCause))(value))


def _status(value: object) -> tuple[int | str, ...]:
    values = value if isinstance(value, list) else [value]
    for one in values:
        if not (type(one) is int and 100 <= one <= 599) and not re.fullmatch("[1-5]xx", str(one)):
            raise ValueError('an HTTP status such as 429, "5xx", or a list of them')
    return tuple(values)


def _number(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise ValueError("a number")


def _table(value: object) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise ValueError("a table")


def _header(value: object) -> str:
    return expect.text(value).lower()


def _anything(value: object) -> object:
    return value


_TEXT, _FLAG = expect.text, expect.flag
_RESERVED = ("messages", "model", "stream")
#: For every table of a dialect file: the type of its rows, and what turns each key's value into the row's.
_TABLES: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "recognise": (
        RecogniseRow,
        {
            "base_url": _pattern, "header": _header, "key": _TEXT, "code": _pattern, "message": _pattern,
            "wins": _FLAG,
        },
    ),
    "base_url": (BaseUrlRow, {"url": _TEXT}),
    "mistake": (MistakeRow, {"kind": _kind, "hint": _TEXT, "base_url": _pattern, "message": _pattern}),
    "error": (
        ErrorRow,
        {
            "kind": _kind, "status": _status, "code": _pattern, "message": _pattern, "header": _header,
            "cause": _cause, "wait_s": _number, "attempts": expect.whole(1), "then": _kind,
            "remedy": expect.one_of("stream", "no_stream"),
        },
    ),
    "wait": (
        WaitRow,
        {"header": _header, "message": _group, "unit": expect.one_of("s", "ms", "duration")},
    ),
    "limit": (LimitRow, {"what": _cause, "message": _group}),
    "quota": (
        QuotaRow,
        {
            "what": expect.one_of("requests", "tokens"), "limit": _header, "remaining": _header, "reset": _header,
            "unit": expect.one_of("s", "ms", "duration"),
        },
    ),
    "finish": (FinishRow, {"reason": _TEXT, "kind": _kind}),
    "parameter": (
        ParameterRow,
        {
            "name": _parameter, "rule": expect.one_of("drop", "rename", "clamp", "fix", "ignored"), "model": _pattern,
            "thinking": _FLAG, "to": _parameter, "min": _number, "max": _number, "value": _anything,
        },
    ),
    "thinking": (ThinkingRow, {"model": _pattern, "on": _table, "off": _table, "default": _FLAG}),
    "stream": (
        StreamRow,
        {
            "mode": expect.one_of("only", "prefer", "never"), "model": _pattern, "thinking": _FLAG,
            "min_max_tokens": expect.whole(1),
        },
    ),
    "structured": (
        StructuredRow,
        {
            "mode": expect.one_of("json_schema", "tool", "tool_required", "json_object"),
            "rule": expect.one_of("refused", "ignored"), "model": _pattern, "thinking": _FLAG,
        },
    ),
    "usage": (UsageRow, {"what": expect.one_of("usage", "cached", "reasoning"), "path": _TEXT}),
    "reasoning": (ReasoningRow, {"field": _TEXT}),
    "alias": (AliasRow, {"model": _pattern}),
    "bound": (
        BoundRow,
        {"what": expect.one_of("request_bytes", "response_s", "stream_s", "queue_s"), "value": _number},
    ),
    "charge": (ChargeRow, {"tokens": expect.one_of("used", "reserved")}),
    "lane": (
        LaneRow,
        {
            "base_url": _pattern, "expected": _TEXT, "path": _path, "attempt_timeout": expect.duration,
            "item_timeout": expect.duration,
        },
    ),
}  # fmt: skip
#: Where a row's fact is from, when it was read there, and what else there is to say.
_ABOUT_A_ROW: dict[str, Any] = {"source": _TEXT, "date": _TEXT, "note": _TEXT}
_TOP: dict[str, Any] = {"title": _TEXT, "extends": _TEXT, "done": _FLAG}


def _read(text: str, where: str) -> dict[str, Any]:
    """Read the text of a dialect file. Raises `JobError` with every problem in it."""
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise JobError(f"{where}: not valid TOML: {error}") from error
    problems: list[str] = []
    values: dict[str, Any] = {}
    for key, value in tables.items():
        if key in _TABLES and isinstance(value, list):
            kind, converters = _TABLES[key]
            values[key] = tuple(
                row
                for number, one in enumerate(value, 1)
                if (row := _row(kind, converters, one, f"{where}: [[{key}]] {number}", problems)) is not None
            )
        elif key in _TABLES:
            problems.append(f"{where}: {key}: expected rows, [[{key}]]")
        elif key in _TOP:
            _convert(values, key, value, _TOP[key], where, problems)
        else:
            problems.append(f"{where}: {key}: unknown{expect.meant_or_known(key, [*_TABLES, *_TOP])}")
    if problems:
        raise JobError(problems)
    return values


def _row(kind: type[Any], converters: Mapping[str, Any], value: object, where: str, problems: list[str]) -> Any:
    if not isinstance(value, dict):
        problems.append(f"{where}: expected a table")
        return None
    before = len(problems)
    made: dict[str, Any] = {}
    for key, one in value.items():
        if key in converters:
            _convert(made, key, one, converters[key], where, problems)
        elif key in _ABOUT_A_ROW:
            _convert({}, key, one, _ABOUT_A_ROW[key], where, problems)
        else:
            problems.append(f"{where}: {key}: unknown key{expect.meant_or_known(key, [*converters, *_ABOUT_A_ROW])}")
    if len(problems) > before:
        return None
    try:
        return kind(**made)
    except TypeError as error:  # a key without a default is missing
        problems.append(f"{where}: {str(error).rpartition('missing')[2].strip() or error} missing")
        return None


def _convert(
    into: dict[str, Any], key: str, value: object, convert: Callable[[object], Any], where: str, problems: list[str]
) -> None:
    try:
        into[key] = convert(value)
    except ValueError as error:
        problems.append(f"{where}: {key}: expected {error}, got {expect.as_toml(value)[:60]}")
