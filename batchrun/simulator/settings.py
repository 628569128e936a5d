"""What a simulated provider is told to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

from batchrun.simulator.dialects import DIALECTS
from batchrun.simulator.faults import FAULTS, SCOPES, FaultRate, Rate, Scope, as_fault_rate

#: Rates written as decimals may add up to a hair above 1 in binary.
_SUM_TOLERANCE = 1e-9
_MAX_PORT = 65_535


class SettingsError(ValueError):
    """A setting cannot work; the message names the key, the value, and what was expected."""

    def __init__(self, key: str, value: object, expected: str, hint: str = "") -> None:
        super().__init__(f"simulator setting {key} = {value!r}: {hint}expected {expected}")
        self.key = key
        self.value = value
        self.expected = expected


@dataclass(frozen=True, slots=True)
class SimulatorSettings:
    """How the simulated provider behaves. Times are in seconds, rates from 0 to 1.

    `latency_s` passes before an answer begins, and up to `jitter_s` more, depending on prompt and attempt.
    `requests_per_minute` and `tokens_per_minute` are sliding windows; the latter counts the prompt and the
    answer of every admitted call. `faults` maps names of `FAULTS` to rates, or to tables of a rate and a count
    (at most so many times in all); the rates of one scope add up to at most 1. `moderation_keyword` is what
    the fault `moderation_on_keyword` looks for. With an `api_key`, another key is refused. `ledger` is a
    file that gets one JSON line per answered call: time (seconds since the epoch), key (hash of the messages),
    attempt, status, fault.

    Raises `SettingsError`.
    """

    dialect: str = "openai"
    latency_s: float = 0.0
    jitter_s: float = 0.0
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrency: int | None = None
    faults: Mapping[str, Any] = field(default_factory=dict)
    moderation_keyword: str = "违禁词示例"
    seed: int = 0
    api_key: str | None = field(default=None, repr=False)
    ledger: Path | None = None

    def __post_init__(self) -> None:
        for name, (accepts, expected) in _RULES.items():
            value = getattr(self, name)
            if not accepts(value):
                # An API key is a secret even when it is unusable.
                raise SettingsError(name, "***" if name == "api_key" else value, expected)
        if self.dialect not in DIALECTS:
            raise SettingsError("dialect", self.dialect, *_one_of(self.dialect, DIALECTS))
        object.__setattr__(self, "faults", _checked_rates(self.faults))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Build settings from a table with the same keys, as a file has them. Raises `SettingsError`."""
        names = [known.name for known in fields(cls)]
        for key, value in values.items():
            if key not in names:
                raise SettingsError(key, value, *_one_of(key, names))
        arguments = dict(values)
        if isinstance(arguments.get("ledger"), str):
            arguments["ledger"] = Path(arguments["ledger"])
        return cls(**arguments)


def check_address(host: str, port: int) -> str:
    """Give the address to bind for a host name that is this machine's loopback. Raises `SettingsError`."""
    if not _is_int(port) or not 0 <= port <= _MAX_PORT:
        raise SettingsError("port", port, f"a whole number from 0 (any free port) to {_MAX_PORT}")
    if host == "localhost":
        return "127.0.0.1"  # not looked up: a hosts file can point the name elsewhere
    try:
        loopback = ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise SettingsError("host", host, "a loopback address (127.0.0.1, ::1, localhost): it serves no one else")
    return host


def _checked_rates(rates: Mapping[str, Any]) -> dict[str, Rate]:
    for name, rate in rates.items():
        if name not in FAULTS:
            raise SettingsError(f"faults.{name}", rate, *_one_of(name, FAULTS))
    checked = {name: _checked_rate(name, rate) for name, rate in rates.items()}
    for scope in Scope:
        total = sum(as_fault_rate(rate).rate for name, rate in checked.items() if SCOPES[name] is scope)
        if scope is not Scope.SWITCH and total > 1 + _SUM_TOLERANCE:
            raise SettingsError("faults", dict(rates), f"{scope} rates that add up to at most 1, not {total:g}")
    return checked


def _checked_rate(name: str, value: Any) -> Rate:
    made = value
    if isinstance(value, Mapping):
        unknown = [key for key in value if key not in ("rate", "count")]
        if unknown or "rate" not in value:
            raise SettingsError(f"faults.{name}", value, "a rate from 0 to 1, or a table of rate and count")
        made = FaultRate(value["rate"], value.get("count"))
    rate, count = (made.rate, made.count) if isinstance(made, FaultRate) else (made, None)
    if not _is_number(rate) or not 0 <= rate <= 1:
        raise SettingsError(f"faults.{name}", value, "a rate from 0 to 1")
    if count is not None and not (_is_int(count) and count >= 0):
        raise SettingsError(f"faults.{name}", value, "a count that is a whole number, 0 or more")
    return made if isinstance(made, FaultRate) else float(made)


def _one_of(given: object, known: Collection[str]) -> tuple[str, str]:
    """Give what is expected, and a hint if what was given is close to it."""
    close = get_close_matches(str(given), known, n=1)
    return f"one of {', '.join(known)}", f"did you mean {close[0]!r}? " if close else ""


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_seconds(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_limit(value: Any) -> bool:
    return value is None or (_is_int(value) and value >= 1)


def _is_key(value: object) -> bool:
    return value is None or (isinstance(value, str) and value.isascii() and value.isprintable() and value.strip() != "")


_SECONDS = (_is_seconds, "a number of seconds, 0 or more")
_LIMIT = (_is_limit, "a whole number, 1 or more, or None for no limit")
_RULES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "dialect": (lambda value: isinstance(value, str), "the name of a dialect"),
    "latency_s": _SECONDS,
    "jitter_s": _SECONDS,
    "requests_per_minute": _LIMIT,
    "tokens_per_minute": _LIMIT,
    "max_concurrency": _LIMIT,
    "faults": (lambda value: isinstance(value, Mapping), "a table of fault names and rates"),
    "moderation_keyword": (lambda value: isinstance(value, str) and value.strip() != "", "a text that is not blank"),
    "seed": (_is_int, "a whole number"),
    "api_key": (_is_key, "printable ASCII text that is not blank, or None"),
    "ledger": (lambda value: value is None or isinstance(value, Path), "a path, or None"),
}
