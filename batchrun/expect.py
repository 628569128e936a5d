"""What a value of the job file or a flag must be: each function gives the value, or says what was expected.

All of them raise `ValueError` with words for people, such as 'a number above zero'.
"""

from __future__ import annotations

import difflib
import math
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Percent:
    """A share of the items, for example of those that may fail; `value` is 0 to 100."""

    value: float

    def __str__(self) -> str:
        return f"{self.value:g}%"


LARGEST = 2**63 - 1  # of TOML's integers, and of those that `run.json` can hold
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(value: object) -> float:
    """Give seconds for a number of seconds or a text such as "90s", "10m", "1h30m", "500ms". Raises ValueError."""
    expected = 'a duration such as "90s", "10m" or "1h30m"'
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(expected)  # noqa: TRY004 - one kind of error for a value that cannot be used
    if isinstance(value, str):
        text = value.strip().lower()
        parts = _DURATION.findall(text)
        if not parts or _DURATION.sub("", text).strip():
            raise ValueError(expected)
        seconds = sum(float(number) * _UNIT_S[unit] for number, unit in parts)
    else:
        seconds = float(value) if abs(value) <= sys.float_info.max else math.inf
    if not (0 < seconds < math.inf):
        raise ValueError(expected + ", above zero")
    return seconds


def concurrency(value: object) -> Literal["auto"] | int:
    """Give "auto" or a number from 1 to 100,000. Raises ValueError."""
    if value == "auto":
        return "auto"
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= 100_000:
        return number
    raise ValueError('"auto" or a whole number from 1 to 100000')


def max_failures(value: object) -> int | Percent:
    """Give a count, or a `Percent` for a text such as "5%". Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST:
        return value
    if isinstance(value, str):
        text = value.strip()
        if text.isdecimal() and len(text) < len(str(LARGEST)):
            return int(text)
        if re.fullmatch(r"\d+(\.\d+)?%", text) and float(text[:-1]) <= 100:
            return Percent(float(text[:-1]))
    raise ValueError('a whole number such as 10, or a share such as "5%"')


def share(value: object) -> float:
    """Give a share from 0 to 1 for a text such as "2%". Raises ValueError."""
    if value == 0 and not isinstance(value, bool):
        return 0.0
    if isinstance(value, str) and re.fullmatch(r"\d{1,3}(\.\d+)?%", value.strip()) and float(value.strip()[:-1]) <= 100:
        return float(value.strip()[:-1]) / 100
    raise ValueError('a share such as "2%", or 0')


def name(value: object) -> str:
    """Give a name of letters, digits, dots, dashes and underscores. Raises ValueError."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", value):
        return value
    raise ValueError('a name of letters, digits, dots, dashes and underscores, such as "my-account"')


def positive(value: object) -> float:
    """Give a number above zero."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= sys.float_info.max:
        return float(value)
    raise ValueError("a number above zero")


def timezone(value: object) -> str:
    """Give the name of a time zone that this machine knows. Raises ValueError."""
    import zoneinfo  # only jobs with a schedule need it

    expected = 'the name of a time zone such as "Asia/Shanghai" or "UTC"'
    try:
        if isinstance(value, str):
            return zoneinfo.ZoneInfo(value).key
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError) as error:
        if not zoneinfo.available_timezones():
            expected += "; this machine has no time zone database (install tzdata)"
        raise ValueError(expected) from error
    raise ValueError(expected)


def price(value: object) -> float:
    """Give a price per million tokens, zero or more."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max:
        return float(value)
    raise ValueError("a price per million tokens, zero or more")


def text(value: object) -> str:
    """Give a text that is not empty."""
    if isinstance(value, str) and value.strip():
        return value
    raise ValueError("a text that is not empty")


def secret_text(value: object) -> str:
    """Give a text that is not empty and is never repeated in a message; what it must be is said later."""
    return value if isinstance(value, str) else ""


def path(value: object) -> str:
    """Give a text that can be a path."""
    if isinstance(value, str) and value.strip() and "\0" not in value:
        return value
    raise ValueError("a path")


def whole(least: int) -> Callable[[object], int]:
    """Give a function for whole numbers, `least` or more."""

    def convert(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= LARGEST:
            return value
        raise ValueError(f"a whole number, {least} or more")

    return convert


def flag(value: object) -> bool:
    """Give true or false."""
    if isinstance(value, bool):
        return value
    raise ValueError("true or false")


def one_of(*choices: object) -> Callable[[object], Any]:
    """Give a function for values of which only these are allowed."""

    def convert(value: object) -> object:
        # `1 == True`, so the types are compared as well.
        if any(value == choice and type(value) is type(choice) for choice in choices):
            return value
        raise ValueError("one of " + ", ".join(as_toml(choice) for choice in choices))

    return convert


def meant(word: str, known: list[str]) -> str:
    """Give the hint which known word was meant by an unknown one, nothing if none is near."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def meant_or_known(word: str, known: list[str]) -> str:
    """Give the hint which known word was meant by an unknown one, or all that there are."""
    return meant(word, known) or "; known here: " + ", ".join(known)


def as_toml(value: object) -> str:
    """Spell a value as TOML does, for messages."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def inputs(value: object) -> tuple[str, ...]:
    """Give the paths and globs of one text or a list."""
    values = [value] if isinstance(value, str) else value
    if isinstance(values, list) and values and all(isinstance(one, str) and one and "\0" not in one for one in values):
        return tuple(values)
    raise ValueError("a path, a glob, or a list of them")


def texts(value: object) -> tuple[str, ...]:
    """Give a list of texts that are not empty."""
    if isinstance(value, list) and all(isinstance(one, str) and one for one in value):
        return tuple(value)
    raise ValueError("a list of texts that are not empty")


def named_texts(value: object) -> dict[str, str]:
    """Give a table of texts that are not empty."""
    if isinstance(value, dict) and all(isinstance(one, str) and one for one in value.values()):
        return value
    raise ValueError('a table of names and texts, such as { case = "CASE-[0-9]{6}" }')


def zero_or_duration(value: object) -> float:
    """Give seconds, as `duration` does; 0 is fine too."""
    return 0.0 if value == 0 and not isinstance(value, bool) else duration(value)


def rates(value: object) -> dict[str, float | dict[str, float]]:
    """Give a table of names and rates from 0 to 1, or tables such as {"rate": 0.05, "count": 3}."""
    if not isinstance(value, dict):
        raise ValueError(_RATES)  # noqa: TRY004 - one kind of error for a value that cannot be used
    return {name: _counted_rate(one) if isinstance(one, dict) else _rate(one) for name, one in value.items()}


_RATES = "a table of fault names with rates from 0 to 1, or with tables such as { rate = 0.05, count = 3 }"


def _rate(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise ValueError(_RATES)


def _counted_rate(value: dict[str, object]) -> dict[str, float]:
    count = value.get("count", 0)
    if "rate" not in value or not {"rate", "count"}.issuperset(value):
        raise ValueError(_RATES)
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= LARGEST:
        raise ValueError(_RATES)
    return {"rate": _rate(value["rate"]), **({"count": count} if "count" in value else {})}
