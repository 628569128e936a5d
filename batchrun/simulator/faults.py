"""Which fault a call meets: a table of names, and a draw from seed, prompt and attempt alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate

from batchrun.simulator.chance import uniform

#: A prompt that was pushed out of the map begins at attempt 1 again; retries come back long before that.
MAX_REMEMBERED_PROMPTS = 65_536


class Scope(StrEnum):
    """What a fault's draw depends on."""

    TRANSIENT = "transient"  # drawn anew for each attempt
    PERMANENT = "permanent"  # decided by the prompt alone, the same for every attempt
    RUN = "run"  # drawn for each attempt, before the others; means the whole run, not the prompt


_TABLE: tuple[tuple[Scope, str, str], ...] = (
    (Scope.RUN, "unauthorized", "401: the key is refused"),
    (Scope.RUN, "payment_required", "402: the balance is used up"),
    (Scope.RUN, "forbidden", "403: the key may not use the model"),
    (Scope.RUN, "model_not_found", "404: there is no such model"),
    (Scope.RUN, "html_200", "200 with a web page, as from an address that is no API"),
    (Scope.TRANSIENT, "http_500", "500: server error"),
    (Scope.TRANSIENT, "http_502", "502: bad gateway, as JSON"),
    (Scope.TRANSIENT, "http_503", "503: overloaded"),
    (Scope.TRANSIENT, "http_408", "408: request timeout"),
    (Scope.TRANSIENT, "http_409", "409: conflict"),
    (Scope.TRANSIENT, "http_425", "425: too early"),
    (Scope.TRANSIENT, "http_429", "429 with Retry-After: 1"),
    (Scope.TRANSIENT, "http_429_date", "429 with Retry-After as an HTTP date one second ahead"),
    (Scope.TRANSIENT, "http_429_absurd", "429 with Retry-After: 100000"),
    (Scope.TRANSIENT, "retry_after_garbage", "429 with Retry-After: soon"),
    (Scope.TRANSIENT, "reset", "connection reset before the first byte"),
    (Scope.TRANSIENT, "reset_mid_body", "connection reset in the middle of the body"),
    (Scope.TRANSIENT, "truncated", "the body ends early, the connection closes in good order"),
    (Scope.TRANSIENT, "hang", "no answer until the client leaves, at most an hour"),
    (Scope.TRANSIENT, "empty_200", "200 with an empty body"),
    (Scope.TRANSIENT, "blank_lines_200", "200 with blank lines only, then the connection closes"),
    (Scope.TRANSIENT, "blank_lines_then_json", "keep-alive bytes for a second, then the normal answer"),
    (Scope.TRANSIENT, "choices_null", "200 with choices: null"),
    (Scope.TRANSIENT, "choices_empty", "200 with choices: []"),
    (Scope.TRANSIENT, "bad_json", "200 with a JSON text that is cut off, of the announced length"),
    (Scope.TRANSIENT, "error_in_200", "200 with an error object instead of an answer"),
    (Scope.TRANSIENT, "html_502", "502 with a web page"),
    (Scope.TRANSIENT, "octet_stream_500", "500 with a JSON error announced as application/octet-stream"),
    (Scope.TRANSIENT, "whitespace_content", "200 with content of spaces, finish reason stop"),
    (Scope.TRANSIENT, "wrong_content_type", "the good answer announced as text/html; no error"),
    (Scope.TRANSIENT, "pretty_json", "the good answer, pretty-printed; no error"),
    (Scope.TRANSIENT, "slow", "the good answer after ten times the latency"),
    (Scope.TRANSIENT, "fenced", "a JSON answer in a markdown fence"),
    (Scope.PERMANENT, "content_filter_400", "400: refused by moderation"),
    (Scope.PERMANENT, "content_filter_finish", "200 with a cut answer, finish reason content_filter"),
    (Scope.PERMANENT, "context_length", "400: the prompt is too long"),
    (Scope.PERMANENT, "length", "200 with a cut answer, finish reason length"),
    (Scope.PERMANENT, "empty_content", "200 with content of no characters, finish reason stop"),
    (Scope.PERMANENT, "bad_request", "400: invalid request"),
    (Scope.PERMANENT, "invalid_json_output", "prose where a JSON answer was wanted"),
    (Scope.PERMANENT, "missing_field", "a JSON answer without one of its required properties"),
)

#: Every fault by name, with one line on what the client sees.
FAULTS: Mapping[str, str] = {name: description for _, name, description in _TABLE}
#: The scope of every fault.
SCOPES: Mapping[str, Scope] = {name: scope for scope, name, _ in _TABLE}


@dataclass(frozen=True, slots=True)
class Draw:
    """What was drawn for one call: the attempt number of its prompt, from 1, and a fault's name or None."""

    attempt: int
    fault: str | None


_UNHARMED = Draw(1, None)


class FaultPlan:
    """Decides the fault of every call from rates (fault name → 0..1) and a seed.

    One number is drawn per scope and compared with the running sum of its rates, so rates add up as given.
    """

    __slots__ = ("_attempts", "_ladders", "_limit", "_seed")

    def __init__(self, rates: Mapping[str, float], seed: int, limit: int = MAX_REMEMBERED_PROMPTS) -> None:
        self._seed = seed
        self._limit = limit
        self._attempts: OrderedDict[bytes, int] = OrderedDict()
        self._ladders = {
            scope: ladder
            for scope in (Scope.RUN, Scope.TRANSIENT, Scope.PERMANENT)
            if (ladder := _ladder(rates, scope))
        }

    @property
    def remembered(self) -> int:
        """Give the number of prompts whose attempts are counted."""
        return len(self._attempts)

    def draw(self, key: bytes) -> Draw:
        """Draw for the next attempt of the prompt with this key, and count the attempt if it matters."""
        if not self._ladders:
            return _UNHARMED
        attempt = self._attempts.get(key, 0) + 1
        fault = self._fault(key, attempt)
        if fault is None and attempt == 1:
            return _UNHARMED
        self._attempts[key] = attempt
        self._attempts.move_to_end(key)
        if len(self._attempts) > self._limit:
            self._attempts.popitem(last=False)
        return Draw(attempt, fault)

    def _fault(self, key: bytes, attempt: int) -> str | None:
        for scope, ladder in self._ladders.items():
            drawn = uniform(self._seed, scope, key, 0 if scope is Scope.PERMANENT else attempt)
            for top, name in ladder:
                if drawn < top:
                    return name
        return None


def _ladder(rates: Mapping[str, float], scope: Scope) -> tuple[tuple[float, str], ...]:
    # The table's order, not the mapping's: the same rates written in another order must draw the same faults.
    names = [name for name in FAULTS if SCOPES[name] is scope and rates.get(name, 0.0) > 0.0]
    return tuple(zip(accumulate(rates[name] for name in names), names, strict=True))
