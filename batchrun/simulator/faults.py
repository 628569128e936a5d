"""Which fault a call meets: a table of names, and a draw from seed, prompt and attempt alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from typing import Any

from batchrun.simulator.chance import uniform

#: A prompt that was pushed out of the map begins at attempt 1 again; retries come back long before that.
MAX_REMEMBERED_PROMPTS = 65_536


class Scope(StrEnum):
    """What a fault's draw depends on."""

    TRANSIENT = "transient"  # drawn anew for each attempt
    PERMANENT = "permanent"  # decided by the prompt alone, the same for every attempt
    RUN = "run"  # drawn for each attempt, before the others; means the whole run, not the prompt
    SWITCH = "switch"  # not drawn: on with any rate above zero, and its own condition decides


_TABLE: tuple[tuple[Scope, str, str], ...] = (
    (Scope.SWITCH, "quota_after_n", "every call after the first COUNT (20) is refused for money, the family's way"),
    (Scope.SWITCH, "moderation_on_keyword", "prompts with the moderation keyword are refused, the family's way"),
    (Scope.RUN, "unauthorized", "the key is refused, the family's way"),
    (Scope.RUN, "payment_required", "the balance is used up, the family's way"),
    (Scope.RUN, "forbidden", "the key may not use the model, the family's way"),
    (Scope.RUN, "model_not_found", "there is no such model, the family's way"),
    (Scope.RUN, "daily_limit", "the limit of the day is reached, the family's way"),
    (Scope.RUN, "html_200", "200 with a web page, as from an address that is no API"),
    (Scope.RUN, "redirect_elsewhere", "307 to another host"),
    (Scope.TRANSIENT, "http_500", "500: server error"),
    (Scope.TRANSIENT, "http_502", "502: bad gateway, as JSON"),
    (Scope.TRANSIENT, "http_503", "503: overloaded"),
    (Scope.TRANSIENT, "http_408", "408: request timeout"),
    (Scope.TRANSIENT, "http_409", "409: conflict"),
    (Scope.TRANSIENT, "http_425", "425: too early"),
    (Scope.TRANSIENT, "http_429", "too many requests, the family's way, with Retry-After: 1"),
    (Scope.TRANSIENT, "http_429_date", "the same with Retry-After as an HTTP date one second ahead"),
    (Scope.TRANSIENT, "http_429_absurd", "the same with Retry-After: 100000"),
    (Scope.TRANSIENT, "retry_after_garbage", "the same with Retry-After: soon"),
    (Scope.TRANSIENT, "empty_429", "429 with an empty body"),
    (Scope.TRANSIENT, "bare_string_error", "429 with a JSON string for a body"),
    (Scope.TRANSIENT, "burst_limit", "the rate rose too quickly, the family's way"),
    (Scope.TRANSIENT, "throttle_quota", "tokens are throttled in words that sound like money, the family's way"),
    (Scope.TRANSIENT, "balance_capped_concurrency", "429: too many calls at once for the remaining balance"),
    (Scope.TRANSIENT, "engine_overloaded", "the engine is overloaded, the family's way"),
    (Scope.TRANSIENT, "reset", "connection reset before the first byte"),
    (Scope.TRANSIENT, "reset_mid_body", "connection reset in the middle of the body"),
    (Scope.TRANSIENT, "truncated", "the body ends early, the connection closes in good order"),
    (Scope.TRANSIENT, "hang", "no answer until the client leaves, at most an hour"),
    (Scope.TRANSIENT, "empty_200", "200 with an empty body"),
    (Scope.TRANSIENT, "blank_lines_200", "200 with blank lines only, then the connection closes"),
    (Scope.TRANSIENT, "blank_lines_then_json", "keep-alive bytes for a second, then the normal answer"),
    (Scope.TRANSIENT, "sse_keepalive", "streams only: keep-alive comments before and between the events; no error"),
    (Scope.TRANSIENT, "sse_comments_forever", "keep-alive comments (blank lines without stream) and nothing else"),
    (Scope.TRANSIENT, "choices_null", "200 with choices: null"),
    (Scope.TRANSIENT, "choices_empty", "200 with choices: []"),
    (Scope.TRANSIENT, "bad_json", "200 with a JSON text that is cut off, of the announced length"),
    (Scope.TRANSIENT, "error_in_200", "200 with an error object instead of an answer"),
    (Scope.TRANSIENT, "base_resp_200", "200 with a base_resp that says: rate limit"),
    (Scope.TRANSIENT, "html_502", "502 with a web page"),
    (Scope.TRANSIENT, "html_504", "504 with a web page"),
    (Scope.TRANSIENT, "octet_stream_500", "500 with a JSON error announced as application/octet-stream"),
    (Scope.TRANSIENT, "gzip_bomb", "200 with a small gzip body that unpacks to more than 100 MB"),
    (Scope.TRANSIENT, "no_done", "streams only: everything but [DONE]"),
    (Scope.TRANSIENT, "done_without_finish", "streams only: half of the chunks, no finish reason, then [DONE]"),
    (Scope.TRANSIENT, "stream_cut", "streams only: half of the chunks, then the end in good order"),
    (
        Scope.TRANSIENT,
        "error_mid_stream",
        "streams only: half, then a chunk with error and finish reason error, [DONE]",
    ),
    (Scope.TRANSIENT, "error_after_text", "streams only: half of the chunks, then an error event"),
    (Scope.TRANSIENT, "whitespace_content", "200 with content of spaces, finish reason stop"),
    (Scope.TRANSIENT, "tool_markup_in_content", "the markup of a tool call in the content, finish reason stop"),
    (Scope.TRANSIENT, "finish_null", "an answer whose finish reason is null"),
    (Scope.TRANSIENT, "finish_insufficient_system_resource", "a cut answer with this finish reason"),
    (Scope.TRANSIENT, "finish_aborted", "a cut answer, finish reason aborted"),
    (Scope.TRANSIENT, "finish_network_error", "a cut answer, finish reason network_error"),
    (Scope.TRANSIENT, "usage_in_choice", "streams only: usage in the choice that finishes; no error"),
    (Scope.TRANSIENT, "usage_chunk_empty_choices", "streams only: usage on a chunk with choices: []; no error"),
    (Scope.TRANSIENT, "usage_merged", "streams only: usage on the finish chunk; no error"),
    (Scope.TRANSIENT, "no_usage", "the good answer without usage"),
    (Scope.TRANSIENT, "no_reasoning", "where there is thinking: the good answer without it"),
    (Scope.TRANSIENT, "think_in_content", "the good answer with <think>…</think> in front"),
    (Scope.TRANSIENT, "content_parts", "the good answer with content as a list of parts"),
    (Scope.TRANSIENT, "other_model", "the good answer under another model's id"),
    (Scope.TRANSIENT, "wrong_content_type", "the good answer announced as text/html; no error"),
    (Scope.TRANSIENT, "pretty_json", "without stream only: the good answer, pretty-printed; no error"),
    (Scope.TRANSIENT, "slow", "the good answer after ten times the latency"),
    (Scope.TRANSIENT, "fenced_json", "JSON answers only: in a markdown fence"),
    (Scope.PERMANENT, "content_filter_400", "refused by moderation, the family's way"),
    (Scope.PERMANENT, "content_filter_finish", "200 with a cut answer, finish reason content_filter"),
    (Scope.PERMANENT, "finish_sensitive", "200 with a cut answer, finish reason sensitive"),
    (Scope.PERMANENT, "double_encoded_error", "400: refused by moderation, as JSON in JSON in the message"),
    (Scope.PERMANENT, "context_length", "the prompt is too long, the family's way"),
    (Scope.PERMANENT, "length", "200 with a cut answer, finish reason length"),
    (Scope.PERMANENT, "empty_content", "200 with content of no characters, finish reason stop"),
    (Scope.PERMANENT, "bad_request", "invalid request, the family's way"),
    (Scope.PERMANENT, "octet_stream_error", "the same, announced as application/octet-stream"),
    (Scope.PERMANENT, "sse_framed_error", "400: invalid request, framed as an event: data: {…}"),
    (Scope.PERMANENT, "invalid_json_output", "JSON answers only: prose instead"),
    (Scope.PERMANENT, "missing_field", "JSON answers only: without one of the required properties"),
)

#: Every fault by name, with one line on what the client sees.
FAULTS: Mapping[str, str] = {name: description for _, name, description in _TABLE}
#: The scope of every fault.
SCOPES: Mapping[str, Scope] = {name: scope for scope, name, _ in _TABLE}


#: How many calls are answered before `quota_after_n` refuses, if no count says otherwise.
_CALLS_BEFORE_QUOTA = 20


@dataclass(frozen=True, slots=True)
class FaultRate:
    """How often a fault comes: a rate from 0 to 1, and at most so many times in all."""

    rate: float
    count: int | None = None


#: A rate alone, or with a count.
Rate = float | FaultRate


def as_fault_rate(value: Any) -> FaultRate:
    """Give the rate and the count of a setting."""
    return value if isinstance(value, FaultRate) else FaultRate(float(value))


@dataclass(frozen=True, slots=True)
class Draw:
    """What was drawn for one call: the attempt number of its prompt, from 1, and a fault's name or None."""

    attempt: int
    fault: str | None


_UNHARMED = Draw(1, None)


class FaultPlan:
    """Decides the fault of every call from rates (fault name → 0..1, or with a count) and a seed.

    One number is drawn per scope and compared with the running sum of its rates, so rates add up as given. A fault
    with a count comes no more once it took effect that often; which calls it meets then depends on their order.
    """

    __slots__ = ("_attempts", "_calls", "_ladders", "_left", "_limit", "_seed", "_switches")

    def __init__(self, rates: Mapping[str, Rate], seed: int, limit: int = MAX_REMEMBERED_PROMPTS) -> None:
        made = {name: as_fault_rate(rate) for name, rate in rates.items()}
        self._seed = seed
        self._limit = limit
        self._calls = 0
        self._attempts: OrderedDict[bytes, int] = OrderedDict()
        self._left: dict[str, int] = {name: one.count for name, one in made.items() if one.count is not None}
        self._ladders = {
            scope: ladder for scope in (Scope.RUN, Scope.TRANSIENT, Scope.PERMANENT) if (ladder := _ladder(made, scope))
        }
        self._switches = {name for name, one in made.items() if SCOPES[name] is Scope.SWITCH and one.rate > 0}

    @property
    def remembered(self) -> int:
        """Give the number of prompts whose attempts are counted."""
        return len(self._attempts)

    def draw(self, key: bytes, *, keyword: bool = False) -> Draw:
        """Draw for the next attempt of the prompt with this key, and count the attempt if it matters.

        `keyword` tells whether the prompt holds the keyword of the moderation.
        """
        self._calls += 1
        if not self._ladders and not self._switches:
            return _UNHARMED
        attempt = self._attempts.get(key, 0) + 1
        fault = self._switched(keyword=keyword) or self._fault(key, attempt)
        if fault is None and attempt == 1:
            return _UNHARMED
        self._attempts[key] = attempt
        self._attempts.move_to_end(key)
        if len(self._attempts) > self._limit:
            self._attempts.popitem(last=False)
        return Draw(attempt, fault)

    def spend(self, name: str) -> None:
        """Count that a drawn fault took effect."""
        if name in self._left and name != "quota_after_n":
            self._left[name] -= 1

    def _switched(self, *, keyword: bool) -> str | None:
        if "quota_after_n" in self._switches and self._calls > self._left.get("quota_after_n", _CALLS_BEFORE_QUOTA):
            return "quota_after_n"
        name = "moderation_on_keyword"
        return name if keyword and name in self._switches and self._left.get(name) != 0 else None

    def _fault(self, key: bytes, attempt: int) -> str | None:
        for scope, ladder in self._ladders.items():
            drawn = uniform(self._seed, scope, key, 0 if scope is Scope.PERMANENT else attempt)
            for top, name in ladder:
                if drawn < top:
                    if self._left.get(name) != 0:
                        return name
                    break  # used up: this scope harms nobody here, the next one may
        return None


def _ladder(rates: Mapping[str, FaultRate], scope: Scope) -> tuple[tuple[float, str], ...]:
    # The table's order, not the mapping's: the same rates written in another order must draw the same faults.
    names = [name for name in FAULTS if SCOPES[name] is scope and name in rates and rates[name].rate > 0.0]
    return tuple(zip(accumulate(rates[name].rate for name in names), names, strict=True))
