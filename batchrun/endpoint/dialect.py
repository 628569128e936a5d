"""A dialect: how a provider family spells errors, limits and extras. The facts are TOML files, this reads them.

A file of `dialects/` (or a user's own, of the same form) holds tables of rows. Its rows come before those of the
dialect that it extends, which in the end is `generic`; where rows compete, the first that fits decides.
`dialects/README.md` says what each table means.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from batchrun import expect
from batchrun.job import JobError
from batchrun.records import ErrorKind, RateCause

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Pattern = re.Pattern[str]

GENERIC = "generic"


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """What an error means. It fits if everything that it names fits.

    `wait_s` counts where the answer names no wait of its own. After `attempts` attempts that ended so the item is
    given up, as `then` if that is named. `remedy` is the transport that the endpoint wants instead.
    """

    kind: ErrorKind
    status: tuple[int | str, ...] = ()
    code: Pattern | None = None
    message: Pattern | None = None
    header: str | None = None
    cause: RateCause | None = None
    wait_s: float | None = None
    attempts: int | None = None
    then: ErrorKind | None = None
    remedy: Literal["stream", "no_stream"] | None = None

    def fits(self, status: int, codes: tuple[str, ...], message: str, headers: Mapping[str, str]) -> bool:
        """Tell whether an error answer is what this row is about.

        An error that came with a good status says nothing by it: then code and message decide alone.
        """
        is_silent = status // 100 == 2 and not self.by_status_alone
        if self.status and not is_silent and not {status, f"{status // 100}xx"}.intersection(self.status):
            return False
        if self.code and not any(self.code.search(code) for code in codes):
            return False
        if self.header is not None and self.header not in headers:
            return False
        return not self.message or bool(self.message.search(message))

    @property
    def by_status_alone(self) -> bool:
        """Tell whether it asks for nothing but the status: such rows come last."""
        return not (self.code or self.message or self.header)


@dataclass(frozen=True, slots=True)
class WaitRow:
    """Where a wait is written: in a header, or in the message (its first group), and in which unit."""

    header: str | None = None
    message: Pattern | None = None
    unit: Literal["s", "ms", "duration"] = "s"


@dataclass(frozen=True, slots=True)
class LimitRow:
    """Where a message (its first group) tells the limit that was reached."""

    what: RateCause
    message: Pattern


@dataclass(frozen=True, slots=True)
class FinishRow:
    """What a finish reason means: a kind of error, or None for a good end."""

    reason: str
    kind: ErrorKind | None = None


@dataclass(frozen=True, slots=True)
class ParameterRow:
    """What the endpoint does with a parameter of the request, for models that fit `model`, thinking or not.

    Rules: `drop` (refused), `rename` (to `to`), `clamp` (to `min` and `max`), `fix` (only `value` is taken),
    `ignored` (taken and without effect).
    """

    name: str
    rule: Literal["drop", "rename", "clamp", "fix", "ignored"]
    model: Pattern | None = None
    thinking: bool | None = None
    to: str | None = None
    min: float | None = None
    max: float | None = None
    value: Any = None


@dataclass(frozen=True, slots=True)
class ThinkingRow:
    """How thinking is switched: what to put into the request to have it on or off, and what holds without."""

    model: Pattern | None = None
    on: Any = None
    off: Any = None
    default: bool | None = None


@dataclass(frozen=True, slots=True)
class StreamRow:
    """Whether answers must, should or cannot be streamed, for requests that fit all of the rest."""

    mode: Literal["only", "prefer", "never"]
    model: Pattern | None = None
    thinking: bool | None = None
    min_max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Where a count of tokens stands: for `usage` in the body, else within the usage object; a dotted path."""

    what: Literal["usage", "cached", "reasoning"]
    path: str


@dataclass(frozen=True, slots=True)
class ReasoningRow:
    """The field of a message that holds the reasoning."""

    field: str


@dataclass(frozen=True, slots=True)
class RecogniseRow:
    """How the family shows: by base URL (host and path), or in an error answer by header, key, code or message.

    A row that `wins` counts before those of other families: the mark of a gateway on what it passes on.
    """

    base_url: Pattern | None = None
    header: str | None = None
    key: str | None = None
    code: Pattern | None = None
    message: Pattern | None = None
    wins: bool = False


@dataclass(frozen=True, slots=True)
class BaseUrlRow:
    """A base URL as the provider documents it."""

    url: str


@dataclass(frozen=True, slots=True)
class MistakeRow:
    """A usual mistake: the kind of error that it ends in, the base URLs or messages that give it away, and a hint."""

    kind: ErrorKind
    hint: str
    base_url: Pattern | None = None
    message: Pattern | None = None


@dataclass(frozen=True, slots=True)
class AliasRow:
    """Model ids that the answer's `model` does not repeat, without another model having answered."""

    model: Pattern


@dataclass(frozen=True, slots=True)
class BoundRow:
    """A documented bound, for hints alone: bytes of a request, seconds until the endpoint gives up."""

    what: Literal["request_bytes", "response_s", "stream_s", "queue_s"]
    value: float


@dataclass(frozen=True, slots=True)
class LaneRow:
    """A half-price synchronous lane: the base URL it wants, the path instead of /chat/completions, its times."""

    base_url: Pattern
    expected: str
    path: str = "/chat/completions"
    attempt_timeout: float = 3600.0
    item_timeout: float = 86400.0


@dataclass(frozen=True, slots=True)
class Dialect:
    """The facts of one family, its own before those that it extends."""

    name: str
    title: str
    #: True if the endpoint was not recognised, so that an answer may still show whose family it is.
    guessed: bool
    #: Whether a stream without `[DONE]` is cut off.
    done: bool
    recognise: tuple[RecogniseRow, ...]
    base_url: tuple[BaseUrlRow, ...]
    mistake: tuple[MistakeRow, ...]
    error: tuple[ErrorRow, ...]
    wait: tuple[WaitRow, ...]
    limit: tuple[LimitRow, ...]
    finish: tuple[FinishRow, ...]
    parameter: tuple[ParameterRow, ...]
    thinking: tuple[ThinkingRow, ...]
    stream: tuple[StreamRow, ...]
    usage: tuple[UsageRow, ...]
    reasoning: tuple[ReasoningRow, ...]
    alias: tuple[AliasRow, ...]
    bound: tuple[BoundRow, ...]
    lane: tuple[LaneRow, ...]
    #: Made from the rows: the kind of each finish reason, and where things stand, as paths.
    finish_kinds: Mapping[str, ErrorKind | None]
    usage_at: tuple[tuple[str, ...], ...]
    cached_at: tuple[tuple[str, ...], ...]
    reasoning_at: tuple[tuple[str, ...], ...]
    reasoning_fields: tuple[str, ...]


# --- reading ----------------------------------------------------------------------------------------------------


def _pattern(value: object) -> Pattern:
    if isinstance(value, str):
        try:
            return re.compile(value, re.IGNORECASE)
        except re.error as error:
            raise ValueError(f"a regular expression ({error})") from error
    raise ValueError("a regular expression")


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
        {"header": _header, "message": _pattern, "unit": expect.one_of("s", "ms", "duration")},
    ),
    "limit": (LimitRow, {"what": _cause, "message": _pattern}),
    "finish": (FinishRow, {"reason": _TEXT, "kind": _kind}),
    "parameter": (
        ParameterRow,
        {
            "name": _TEXT, "rule": expect.one_of("drop", "rename", "clamp", "fix", "ignored"), "model": _pattern,
            "thinking": _FLAG, "to": _TEXT, "min": _number, "max": _number, "value": _anything,
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
    "usage": (UsageRow, {"what": expect.one_of("usage", "cached", "reasoning"), "path": _TEXT}),
    "reasoning": (ReasoningRow, {"field": _TEXT}),
    "alias": (AliasRow, {"model": _pattern}),
    "bound": (
        BoundRow,
        {"what": expect.one_of("request_bytes", "response_s", "stream_s", "queue_s"), "value": _number},
    ),
    "lane": (
        LaneRow,
        {
            "base_url": _pattern, "expected": _TEXT, "path": _TEXT, "attempt_timeout": expect.duration,
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
            problems.append(f"{where}: {key}: unknown{_near(key, [*_TABLES, *_TOP])}")
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
            problems.append(f"{where}: {key}: unknown key{_near(key, [*converters, *_ABOUT_A_ROW])}")
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


def _near(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]}?" if near else "; known here: " + ", ".join(known)


# --- the dialects that there are -------------------------------------------------------------------------------


@cache
def names() -> tuple[str, ...]:
    """Give the names of the dialects that come with batchrun."""
    folder = files("batchrun.endpoint").joinpath("dialects")
    return tuple(sorted(one.name.removesuffix(".toml") for one in folder.iterdir() if one.name.endswith(".toml")))


@cache
def load(name: str) -> Dialect:
    """Read a dialect that comes with batchrun, by its name."""
    text = files("batchrun.endpoint").joinpath("dialects", f"{name}.toml").read_text("utf-8")
    return _build(name, _read(text, f"dialect {name}"), guessed=False)


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
    return _build(path.stem, values, guessed=False)


def _build(name: str, values: Mapping[str, Any], *, guessed: bool) -> Dialect:
    base = None if name == GENERIC else load(values.get("extends", GENERIC))
    rows = {key: (*values.get(key, ()), *(getattr(base, key) if base else ())) for key in _TABLES}
    # What the endpoint says in words counts before what its status says, also if the status is a family's own row.
    rows["error"] = (
        *(row for row in rows["error"] if not row.by_status_alone),
        *(row for row in rows["error"] if row.by_status_alone),
    )
    # How a family is recognised, where it lives and what it sells is not inherited.
    for key in ("recognise", "base_url", "lane"):
        rows[key] = values.get(key, ())
    kinds: dict[str, ErrorKind | None] = {}
    for row in rows["finish"]:
        kinds.setdefault(row.reason, row.kind)

    def paths(what: str) -> tuple[tuple[str, ...], ...]:
        return tuple(dict.fromkeys(tuple(row.path.split(".")) for row in rows["usage"] if row.what == what))

    return Dialect(
        name=name, title=values.get("title", name), guessed=guessed,
        done=values.get("done", base.done if base else False), **rows, finish_kinds=kinds, usage_at=paths("usage"),
        cached_at=paths("cached"), reasoning_at=paths("reasoning"),
        reasoning_fields=tuple(dict.fromkeys(row.field for row in rows["reasoning"])),
    )  # fmt: skip


# --- which one it is --------------------------------------------------------------------------------------------


def choose(setting: str, base_url: str | None, simulated: str | None = None) -> Dialect:
    """Give the dialect of an endpoint: the one that is set, else the one that its base URL shows, else `generic`.

    `setting` is "auto", a name, or the path of a file that ends in .toml. Raises `JobError`.
    """
    if setting != "auto":
        if setting.endswith(".toml"):
            return load_file(Path(setting))
        if setting in names():
            return load(setting)
        known = ", ".join(names())
        near = _near(setting, list(names()))
        near = near if "mean" in near else ""
        raise JobError(
            f"endpoint.dialect: expected auto, one of {known}, or a path that ends in .toml; got {setting!r}{near}"
        )
    if simulated in names():
        return load(str(simulated))
    name = recognise(base_url) if base_url else None
    return load(name) if name else unknown()


@cache
def unknown() -> Dialect:
    """Give the dialect of an endpoint that was not recognised: `generic`, until an answer shows more."""
    text = files("batchrun.endpoint").joinpath("dialects", f"{GENERIC}.toml").read_text("utf-8")
    return _build(GENERIC, _read(text, "dialect generic"), guessed=True)


def recognise(base_url: str) -> str | None:
    """Give the family whose base URL this is, None if it is nobody's that is known."""
    address = base_url.partition("://")[2].rpartition("@")[2]
    for name in names():
        for row in load(name).recognise:
            if row.base_url and row.base_url.search(address):
                return name
    return None


def recognise_answer(headers: Mapping[str, str], value: object, codes: tuple[str, ...], message: str) -> Dialect | None:
    """Give the family that an error answer shows, by a row of which everything fits; None if it shows none."""
    for name, row in _marks():
        if _shows(row, headers, value, codes, message):
            return load(name)
    return None


@cache
def _marks() -> tuple[tuple[str, RecogniseRow], ...]:
    rows = [(name, row) for name in names() for row in load(name).recognise if not row.base_url]
    return tuple(sorted(rows, key=lambda one: not one[1].wins))


def _shows(row: RecogniseRow, headers: Mapping[str, str], value: object, codes: tuple[str, ...], message: str) -> bool:
    if row.header is not None and row.header not in headers:
        return False
    if row.key is not None and not (isinstance(value, dict) and row.key in value):
        return False
    if row.code and not any(row.code.search(code) for code in codes):
        return False
    return not row.message or bool(row.message.search(message))
