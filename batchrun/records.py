"""The words of batchrun as types: item, request, response, result, failure, and the closed list of kinds.

Records are made once and never changed. They are not declared frozen, because making a frozen one takes three times
as long, and several are made for every item.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any, Literal, Protocol

import orjson


class ErrorKind(StrEnum):
    """What went wrong, as scripts may rely on it; the list is closed."""

    INVALID_INPUT = "invalid_input"
    DUPLICATE_ID = "duplicate_id"
    DATA_BOUNDARY = "data_boundary"
    BAD_REQUEST = "bad_request"
    CONTEXT_LENGTH = "context_length"
    CONTENT_FILTER = "content_filter"
    TRUNCATED = "truncated"
    INVALID_OUTPUT = "invalid_output"
    EMPTY_OUTPUT = "empty_output"
    TIMEOUT = "timeout"
    NETWORK = "network"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    INVALID_RESPONSE = "invalid_response"
    AUTH = "auth"
    PERMISSION = "permission"
    QUOTA = "quota"
    MODEL_NOT_FOUND = "model_not_found"
    NOT_AN_API = "not_an_api"


class RateCause(StrEnum):
    """What was too much where an endpoint says that it was too much."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    CONCURRENCY = "concurrency"
    BURST = "burst"
    DAILY = "daily"
    OVERLOAD = "overload"


@dataclass(slots=True)
class QuotaLevel:
    """What an answer says of a limit by the minute: of which resource, how much, and what is left if it says so."""

    what: Literal["requests", "tokens"]
    limit: float
    remaining: float | None = None


#: Kinds that another attempt may cure.
TRANSIENT_KINDS = frozenset(
    {
        ErrorKind.TIMEOUT,
        ErrorKind.NETWORK,
        ErrorKind.RATE_LIMITED,
        ErrorKind.SERVER_ERROR,
        ErrorKind.INVALID_RESPONSE,
    }
)

#: Kinds that are about the key, the account or the address: they stop the run and blame no item.
RUN_KINDS = frozenset(
    {
        ErrorKind.AUTH,
        ErrorKind.PERMISSION,
        ErrorKind.QUOTA,
        ErrorKind.MODEL_NOT_FOUND,
        ErrorKind.NOT_AN_API,
    }
)

#: One sentence for each kind: what to do about it.
ADVICE: dict[ErrorKind, str] = {
    ErrorKind.INVALID_INPUT: "Correct the line in the input and run again with the corrected lines as input.",
    ErrorKind.DUPLICATE_ID: "Give every line an id of its own; the first line with this id was used.",
    ErrorKind.DATA_BOUNDARY: "Remove the sensitive data from the item; it was not sent.",
    ErrorKind.BAD_REQUEST: "Read the provider's message: a parameter or the message list is not accepted there.",
    ErrorKind.CONTEXT_LENGTH: "Shorten or split the item, or use a model with a longer context.",
    ErrorKind.CONTENT_FILTER: "The provider's moderation refused this item; rephrase it or leave it out.",
    ErrorKind.TRUNCATED: "Raise max_tokens (thinking counts too) and run the failure queue again.",
    ErrorKind.INVALID_OUTPUT: "Look at the answer in provider.body; a clearer prompt or a simpler schema helps most.",
    ErrorKind.EMPTY_OUTPUT: "Run it again later; with thinking models raise max_tokens.",
    ErrorKind.TIMEOUT: "Raise retry.attempt_timeout or lower the concurrency, then run the failure queue again.",
    ErrorKind.NETWORK: "Check the connection to the endpoint, then run the failure queue again.",
    ErrorKind.RATE_LIMITED: "Lower limits.concurrency or requests_per_minute, then run the failures again.",
    ErrorKind.SERVER_ERROR: "The provider had trouble; run the failure queue again later.",
    ErrorKind.INVALID_RESPONSE: "No chat completion came back; run it again, and look at provider.body if it stays.",
    ErrorKind.AUTH: "Check the key (right variable, right region, not expired), then run again.",
    ErrorKind.PERMISSION: "This key may not use this model or service; check it in the provider's console.",
    ErrorKind.QUOTA: "Top up the account or wait for the quota to be renewed, then run again.",
    ErrorKind.MODEL_NOT_FOUND: "Use a model id that this account lists, spelled as the provider spells it.",
    ErrorKind.NOT_AN_API: "Check base_url: it must be the API's root as documented, often ending in /v1.",
}


#: The warning of a result in whose output stands what was taken out of its request.
RESTORED = "data_boundary:restored"


def utc_now() -> str:
    """Give the wall-clock time as the records spell it: UTC, milliseconds, a trailing Z."""
    seconds, milliseconds = divmod(time.time_ns() // 1_000_000, 1000)
    return f"{_utc_second(seconds)}.{milliseconds:03d}Z"


@lru_cache(maxsize=8)
def _utc_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


@dataclass(slots=True)
class Usage:
    """Tokens of one answer, or of several added up."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Add two usages field by field."""
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.total_tokens + other.total_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )

    def add(self, other: Usage) -> None:
        """Add another usage to this one."""
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        self.total_tokens += other.total_tokens
        self.cached_tokens += other.cached_tokens
        self.reasoning_tokens += other.reasoning_tokens

    def as_record(self) -> dict[str, int]:
        """Give the three numbers that a record carries."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.total_tokens,
        }


@dataclass(slots=True)
class Item:
    """One input record that can be used.

    `raw` is the line as JSON text in UTF-8, exactly as read; `fields` is the same, parsed. `key` is the digest by
    which the run directory knows the item, `crc` the CRC-32 of its line.
    """

    id: str
    line: int
    raw: bytes
    fields: dict[str, Any]
    key: bytes = b""
    crc: int = 0


@dataclass(slots=True)
class Request:
    """The HTTP body for an item, and the fingerprint (hex) of all that a result is made from.

    `stream` tells whether its answer is better streamed, if nothing else decides that; the body does not say it.
    """

    body: bytes
    fingerprint: str
    messages: list[Any]
    model: str = ""
    stream: bool = False
    #: Whether thinking is on in it, None where that is not known.
    thinking: bool | None = None
    #: Whether it may ask for JSON in the way that the endpoint takes.
    climbs: bool = False
    #: How often something to be left out had been found when it was built.
    generation: int = 0
    #: What of the item is to be looked at by somebody, for its result.
    warnings: tuple[str, ...] = ()
    #: What stands in it for what must not leave, if anything does.
    redacted: Redacted | None = None


class Redacted(Protocol):
    """Placeholders, and what they stand for."""

    @property
    def digest(self) -> bytes:
        """Give a hash of the values that were taken out."""

    def redact(self, text: str) -> str:
        """Put placeholders into another text that goes the same way."""

    def restore(self, value: Any) -> Any:
        """Put what they stand for back into a JSON value."""


@dataclass(slots=True)
class Looked:
    """What a look at a body that is about to leave found: the `problem` for which it must not, or the body to send."""

    body: dict[str, Any]
    problem: str | None = None
    warnings: tuple[str, ...] = ()
    redacted: Redacted | None = None


@dataclass(slots=True)
class Adapted:
    """What became of a request's body when it was fitted to the endpoint, or the `problem` with it."""

    changed: bool = False
    stream: bool = False
    thinking: bool | None = None
    climbs: bool = False
    generation: int = 0
    problem: str | None = None


@dataclass(slots=True)
class Provider:
    """What the endpoint sent: status, headers (lower-case names), body as one line of JSON text."""

    status: int
    headers: dict[str, str]
    body: bytes

    def as_record(self) -> dict[str, Any]:
        """Give the record's `provider` value; the body goes in as received, not re-serialised."""
        return {"status": self.status, "headers": self.headers, "body": orjson.Fragment(self.body)}


@dataclass(slots=True)
class Response:
    """A chat completion that was understood. `text` is None where the answer is tool calls alone.

    `arguments` are those with which it calls the function that takes outputs, as the model wrote them.
    """

    text: str | None
    reasoning: str | None
    finish_reason: str | None
    model: str | None
    usage: Usage | None
    provider: Provider
    warnings: tuple[str, ...] = ()
    arguments: str | None = None


def readable(text: str) -> str:
    """Join the halves of characters in a text, and replace those that are alone: no record can hold them."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class EndpointError(Exception):
    """One attempt ended without a usable answer.

    `retry_after_s` is what the server asked for, already bounded; `usage` what the answer cost, if it said so.
    Set where the dialect knows: `cause` is what was too much and `limit` how much is allowed; the item is given up
    after `attempts` attempts that ended so, as `then` if that is set; `remedy` is the transport that would do better.
    """

    cause: RateCause | None = None
    limit: int | None = None
    attempts: int | None = None
    then: ErrorKind | None = None
    remedy: Literal["stream", "no_stream"] | None = None
    #: No connection came about, so that nothing was sent.
    unreachable: bool = False
    #: It was given up because the endpoint had fallen silent and now answers others.
    abandoned: bool = False
    #: The request is worth sending once more at once, in the way that `remedy` says.
    other_way: bool = False

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        code: str | None = None,
        provider: Provider | None = None,
        usage: Usage | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        message = readable(message)
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.code = None if code is None else readable(code)
        self.provider = provider
        self.usage = usage
        self.retry_after_s = retry_after_s


@dataclass(slots=True)
class Extraction:
    """How the output was found: the structured mode (None where nobody asked), the method, the repairs needed."""

    mode: str | None
    method: str
    repairs: tuple[str, ...] = ()

    def as_record(self) -> dict[str, Any]:
        """Give the record's `extraction` value."""
        return {"mode": self.mode, "method": self.method, "repairs": list(self.repairs)}


def record_line(record: dict[str, Any]) -> bytes:
    """Give the line of a record with an `output`, newline included."""
    try:
        return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # whole numbers over 64 bits, which the fast writer refuses
        output = json.dumps(record["output"], ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        record = {**record, "output": orjson.Fragment(output)}
        return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


@dataclass(slots=True)
class Result:
    """An item that ended well; `duration_s` is None where its answer was first taken for a failure."""

    item: Item
    output: Any
    response: Response
    usage: Usage | None
    attempts: int
    duration_s: float | None
    extraction: Extraction | None
    fingerprint: str
    warnings: tuple[str, ...] = ()
    finished_at: str = field(default_factory=utc_now)

    def to_json(self) -> bytes:
        """Give the line of `results.jsonl`, newline included."""
        response = self.response
        return record_line(
            {
                "id": self.item.id,
                "line": self.item.line,
                "output": self.output,
                "finish_reason": response.finish_reason,
                "model": response.model,
                "usage": self.usage and self.usage.as_record(),
                "attempts": self.attempts,
                "duration_s": None if self.duration_s is None else round(self.duration_s, 3),
                "finished_at": self.finished_at,
                "reasoning": response.reasoning,
                "extraction": self.extraction and self.extraction.as_record(),
                "fingerprint": self.fingerprint,
                "warnings": [*response.warnings, *self.warnings],
                "provider": response.provider.as_record(),
            }
        )


#: The keys of a failure record. An input line with exactly these is the failure queue of another run.
FAILURE_KEYS = frozenset(
    {"id", "line", "error", "attempts", "usage", "finished_at", "input", "provider"},
)


def error_record(
    kind: ErrorKind, message: str, http_status: int | None = None, code: str | None = None
) -> dict[str, Any]:
    """Give the `error` value of a record."""
    return {"kind": kind, "message": message, "http_status": http_status, "code": code, "advice": ADVICE[kind]}


@dataclass(slots=True)
class Failure:
    """An item that ended badly. `input` is the item as JSON text, exactly as read; `key` and `crc` are as in `Item`."""

    id: str
    line: int
    kind: ErrorKind
    message: str
    input: bytes
    attempts: int = 0
    http_status: int | None = None
    code: str | None = None
    usage: Usage | None = None
    provider: Provider | None = None
    finished_at: str = field(default_factory=utc_now)
    key: bytes = b""
    crc: int = 0

    @classmethod
    def of_item(cls, item: Item, error: EndpointError, *, attempts: int, usage: Usage | None) -> Failure:
        """Make the failure of an item whose last attempt ended in `error`."""
        provider = error.provider
        return cls(
            id=item.id,
            line=item.line,
            kind=error.kind,
            message=error.message,
            input=item.raw,
            attempts=attempts,
            http_status=provider.status if provider else None,
            code=error.code,
            usage=usage,
            provider=provider,
        )

    def to_json(self) -> bytes:
        """Give the line of `failures.jsonl`, newline included."""
        return orjson.dumps(
            {
                "id": self.id,
                "line": self.line,
                "error": error_record(self.kind, self.message, self.http_status, self.code),
                "attempts": self.attempts,
                "usage": self.usage and self.usage.as_record(),
                "finished_at": self.finished_at,
                "input": orjson.Fragment(self.input),
                "provider": self.provider and self.provider.as_record(),
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
