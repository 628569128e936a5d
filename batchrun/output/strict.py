"""Strict JSON: read exactly, or refused. What a record could not hold exactly is refused as well.

Whole numbers keep every digit. A key that comes twice with different values, a number beyond the range of a double,
NaN and Infinity are refused, for each of them has two readings. Half of a surrogate pair, where an escape makes one,
becomes U+FFFD, because no UTF-8 file can hold it; the texts read here have none.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import orjson

from batchrun.records import readable

if TYPE_CHECKING:
    from collections.abc import Callable

#: A value nested deeper than this is not kept: there are readers of JSON that stop at 255.
MAX_DEPTH = 254
#: The whole numbers of more digits that Python reads take quadratic time.
MAX_DIGITS = 4_000

_IS_NOT_ZERO = re.compile(r"[-+]?[0.]*[1-9]")
_WINDOW = 2_000
#: An escape, a literal or a number that the end of a window cuts is found to be wrong so many characters before it.
_LONGEST_TOKEN = 16
_TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"


class NotJsonError(ValueError):
    """A text is no strict JSON."""


class UnkeepableError(ValueError):
    """What is written is JSON, and cannot be kept: two readings, or no place in a record. The message says what."""


def loads(text: str) -> Any:
    """Read a text that is one JSON value and nothing else, not even space around it.

    Raises `NotJsonError` where it is none, `UnkeepableError` where it cannot be kept.
    """
    try:
        value, end = _scanned(text)
    except json.JSONDecodeError as error:
        raise NotJsonError(error.msg) from error
    if end != len(text):
        raise NotJsonError("more follows after the value")
    return _checked(value, text)


def scan(text: str, start: int) -> tuple[Any, int]:
    """Read the object or array that starts at a place; give it and where it ends. Raises as `loads` does."""
    # The scanner's errors count lines from the beginning of what it gets, so it gets no more than it needs.
    size = _WINDOW
    while True:
        window = text[start : start + size]
        try:
            value, end = _scanned(window)
        except json.JSONDecodeError as error:
            is_cut = error.msg.startswith("Unterminated") or error.pos + _LONGEST_TOKEN >= size
            if not is_cut or start + size >= len(text):
                raise NotJsonError(error.msg) from error
            size *= 16
        else:
            return _checked(value, window[:end]), start + end


def _scanned(text: str) -> tuple[Any, int]:
    try:
        # One character is found faster than two.
        has_exponent = ("e" in text and "e-" in text) or ("E" in text and "E-" in text)
        return (_SCAN_CHECKED if has_exponent else _SCAN)(text, 0)
    except orjson.JSONDecodeError as error:
        raise UnkeepableError("a number out of the range of a double") from error
    except StopIteration as missing:
        raise json.JSONDecodeError("a value is missing", "", missing.value) from missing
    except RecursionError:
        raise UnkeepableError(_TOO_DEEP) from None
    except (json.JSONDecodeError, UnkeepableError):
        raise
    except ValueError as error:  # Python reads no whole numbers of more than 4,300 digits: that takes quadratic time
        raise UnkeepableError("a number of thousands of digits") from error


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its members. Raises `UnkeepableError` if one comes twice with different values."""
    made = dict(pairs)
    if len(made) != len(pairs):
        for key, value in pairs:
            if not same(made[key], value):
                raise UnkeepableError(f"the key {key[:80]!r} comes twice with different values")
    return made


def same(one: Any, other: Any) -> bool:
    """Tell whether two JSON values are the same: 1 is not true, and 1.0 is another spelling than 1."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def whole_number(digits: str) -> int:
    """Read a whole number of any length that can be read in good time."""
    if len(digits) > MAX_DIGITS:
        raise UnkeepableError(f"a number of {len(digits)} digits")
    return int(digits)


def real_number(text: str) -> float:
    """Read a number with a fraction or an exponent. Raises `UnkeepableError` if it is beyond the range."""
    value = float(text)
    if value - value != 0 or (value == 0 and _IS_NOT_ZERO.match(text)):
        raise UnkeepableError(f"the number {text[:40]} is out of the range of a double")
    return value


def _checked(value: Any, text: str) -> Any:
    if not isinstance(value, str | dict | list):
        return value
    if len(text) > MAX_DEPTH and text.count("[") + text.count("{") > MAX_DEPTH and _is_too_deep(value):
        raise UnkeepableError(_TOO_DEEP)
    return _readable(value) if "\\" in text and "\\u" in text else value


def _readable(value: Any) -> Any:
    """Replace the halves of surrogate pairs in a value. Nothing is deeper here than the reader could go."""
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, list):
        return [_readable(one) for one in value]
    if isinstance(value, dict):
        return unique([(readable(key), _readable(one)) for key, one in value.items()])
    return value


def _is_too_deep(value: Any) -> bool:
    try:
        orjson.dumps(value)  # refuses to go deeper than 254 levels, and is faster than going there here
    except TypeError:
        level = [value]
        for _ in range(MAX_DEPTH):
            level = [
                child
                for one in level
                if isinstance(one, dict | list)
                for child in (one.values() if isinstance(one, dict) else one)
            ]
        return any(isinstance(one, dict | list) for one in level)
    return False


def _refuse(name: str) -> Any:
    raise UnkeepableError(f"{name} is no JSON value")


# For numbers the other reader is the fastest function that refuses those beyond the range; below it, it gives 0.
_PLAIN = json.JSONDecoder(object_pairs_hook=unique, parse_constant=_refuse, parse_float=orjson.loads)
_CHECKED = json.JSONDecoder(object_pairs_hook=unique, parse_constant=_refuse, parse_float=real_number)
# The decoder's own method would raise for a missing value by counting lines from the beginning of the text.
_SCAN: Callable[[str, int], tuple[Any, int]] = vars(_PLAIN)["scan_once"]
_SCAN_CHECKED: Callable[[str, int], tuple[Any, int]] = vars(_CHECKED)["scan_once"]
