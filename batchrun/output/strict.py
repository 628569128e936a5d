"""Strict JSON: read exactly, or refused. What a record could not hold exactly is refused as well.

Whole numbers keep every digit. A key that comes twice with different values, a number beyond the range of a double,
NaN and Infinity are refused, for each of them has two readings. Half of a surrogate pair becomes U+FFFD, because no
UTF-8 file can hold it.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from batchrun.records import readable

if TYPE_CHECKING:
    from collections.abc import Callable

#: A value nested deeper than this cannot be written into a record by every reader.
MAX_DEPTH = 200
#: The whole numbers of more digits that Python reads take quadratic time.
MAX_DIGITS = 4_000

_HUGE = re.compile(r"[eE]\+?[0-9]{3}|(?<![0-9])[0-9]{309}")


_TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"


class NotJsonError(ValueError):
    """A text is no strict JSON."""


class UnkeepableError(ValueError):
    """What is written is JSON, and cannot be kept: two readings, or no place in a record. The message says what."""


def loads(text: str) -> Any:
    """Read a text that is one JSON value and nothing else, not even space around it.

    Raises `NotJsonError` where it is none, `UnkeepableError` where it cannot be kept.
    """
    value, end = scan(text, 0)
    if end != len(text):
        raise NotJsonError("more follows after the value")
    return value


def scan(text: str, start: int) -> tuple[Any, int]:
    """Read the JSON value that starts at a place; give it and where it ends. Raises as `loads` does."""
    try:
        if _HUGE.search(text, start):
            value, end = _SCAN_CHECKED(text, start)
        else:
            value, end = _SCAN(text, start)
    except StopIteration as missing:
        raise NotJsonError("a value is missing") from missing
    except json.JSONDecodeError as error:
        raise NotJsonError(error.msg) from error
    except RecursionError:
        raise UnkeepableError(_TOO_DEEP) from None
    if isinstance(value, str | dict | list):
        value = _checked(value, text if end - start == len(text) else text[start:end])
    return value, end


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
    if math.isinf(value):
        raise UnkeepableError(f"the number {text[:40]} is out of the range of a double")
    return value


def _checked(value: Any, text: str) -> Any:
    if "\\u" in text or not (text.isascii() or _is_writable(text)):
        value = _readable(value)
    if len(text) > MAX_DEPTH and text.count("[") + text.count("{") > MAX_DEPTH and _is_too_deep(value):
        raise UnkeepableError(_TOO_DEEP)
    return value


def _is_writable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for one in level
            if isinstance(one, dict | list)
            for child in (one.values() if isinstance(one, dict) else one)
        ]
    return any(isinstance(one, dict | list) for one in level)


def _refuse(name: str) -> Any:
    raise UnkeepableError(f"{name} is no JSON value")


# Where nothing in a text is long or has a large exponent, its numbers need no check, which costs as much as the rest.
_PLAIN = json.JSONDecoder(object_pairs_hook=unique, parse_constant=_refuse)
_CHECKED = json.JSONDecoder(
    object_pairs_hook=unique, parse_constant=_refuse, parse_int=whole_number, parse_float=real_number
)
# The decoders' own method would raise for a missing value by counting lines from the beginning of the text.
_SCAN: Callable[[str, int], tuple[Any, int]] = vars(_PLAIN)["scan_once"]
_SCAN_CHECKED: Callable[[str, int], tuple[Any, int]] = vars(_CHECKED)["scan_once"]
