"""A dialect: what a provider family does in its own way, as rows of facts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrun.records import ErrorKind, RateCause

Pattern = re.Pattern[str]


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
class QuotaRow:
    """The headers by which an answer tells a limit by the minute, what is left of it, and when it is renewed.

    `unit` is that of the reset. One that is more than a minute away is of another limit, which is left alone.
    """

    what: Literal["requests", "tokens"]
    limit: str
    remaining: str | None = None
    reset: str | None = None
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
class StructuredRow:
    """A way to ask for JSON that is refused or has no effect, for models that fit `model`, thinking or not."""

    mode: Literal["json_schema", "tool", "tool_required", "json_object"]
    rule: Literal["refused", "ignored"]
    model: Pattern | None = None
    thinking: bool | None = None


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
class ChargeRow:
    """What counts towards a limit of tokens: those of the answer, or those that the request reserves for it."""

    tokens: Literal["used", "reserved"]


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
    quota: tuple[QuotaRow, ...]
    finish: tuple[FinishRow, ...]
    parameter: tuple[ParameterRow, ...]
    thinking: tuple[ThinkingRow, ...]
    stream: tuple[StreamRow, ...]
    structured: tuple[StructuredRow, ...]
    usage: tuple[UsageRow, ...]
    reasoning: tuple[ReasoningRow, ...]
    alias: tuple[AliasRow, ...]
    bound: tuple[BoundRow, ...]
    charge: tuple[ChargeRow, ...]
    lane: tuple[LaneRow, ...]
    #: Made from the rows: the kind of each finish reason, and where things stand, as paths.
    finish_kinds: Mapping[str, ErrorKind | None]
    usage_at: tuple[tuple[str, ...], ...]
    cached_at: tuple[tuple[str, ...], ...]
    reasoning_at: tuple[tuple[str, ...], ...]
    reasoning_fields: tuple[str, ...]

    @property
    def has_burst_limit(self) -> bool:
        """Tell whether the endpoint refuses what comes too suddenly, however little it is by the minute."""
        return any(row.cause is not None and row.cause.value == "burst" for row in self.error)

    @property
    def charges_reserved(self) -> bool:
        """Tell whether the bound of an answer counts towards a limit of tokens, and not its length."""
        return bool(self.charge) and self.charge[0].tokens == "reserved"
