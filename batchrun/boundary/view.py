"""A plain view of a text: digits and letters of every width as ASCII, and the way back to the text's own offsets."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

_HYPHENS = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63－"
_SPACES = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
#: Zero-width characters, marks of direction, and what makes an emoji of a digit.
_INVISIBLE = (
    "\u00ad\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
    "\u2060\u2061\u2062\u2063\u2064\u2066\u2067\u2068\u2069\ufe0e\ufe0f\ufeff\u20e3"
)
_NUMERALS = dict(zip("〇零一二三四五六七八九幺壹贰叁肆伍陆柒捌玖", "001234567891123456789", strict=True))


def _plain_characters() -> dict[int, str]:
    """Map every character that stands for another to it, and the invisible ones to nothing."""
    wide = {code: chr(code - 0xFEE0) for first, last in ("０９", "ＡＺ", "ａｚ") for code in _codes(first, last)}
    signs = {ord(sign): chr(ord(sign) - 0xFEE0) for sign in "＠．＋＿"}
    mathematical = {0x1D7CE + number: str(number % 10) for number in range(50)}
    return {
        **wide, **signs, **mathematical, ord("﹫"): "@", ord("｡"): ".",
        **dict.fromkeys(map(ord, _HYPHENS), "-"),
        **dict.fromkeys(map(ord, _SPACES), " "),
        **dict.fromkeys(map(ord, _INVISIBLE), ""),
    }  # fmt: skip


def _codes(first: str, last: str) -> range:
    return range(ord(first), ord(last) + 1)


def _as_set(codes: Iterable[int]) -> str:
    """Write a set of characters in ranges, of which the search is ten times as fast as of single ones beyond U+FFFF."""
    ranges: list[list[int]] = []
    for code in sorted(codes):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges) + "]"


_PLAIN = _plain_characters()
# The set stands before the repeat, because the search for a first character of a set is the fast one.
_ODD_SET = _as_set(_PLAIN)
_ODD = re.compile(f"{_ODD_SET}{_ODD_SET}*")
_INVISIBLES = re.compile(f"[{_INVISIBLE}]")
_NUMERAL_SET = "[" + "".join(_NUMERALS) + "]"
#: So long a run of numerals is read out digit by digit; a shorter one is words.
_NUMERAL_RUN = re.compile(f"{_NUMERAL_SET}(?={_NUMERAL_SET}){_NUMERAL_SET}{{10,}}")
_NUMERAL_DIGITS = str.maketrans(_NUMERALS)
#: Escapes of JSON in a string, as in a tool call's arguments, and of links.
_ESCAPE = re.compile(r"\\(?:u[0-9A-Fa-f]{4}|[nrtbf\"/])|(?:%[0-9A-Fa-f]{2})+")
_CONTROLS = dict.fromkeys("nrtbf", " ")


@dataclass(slots=True, repr=False)
class View:
    """What a text reads like. `removed` holds the offsets in the view before which something invisible stood.

    An offset stands in it once for every character removed there; it is None where nothing was. `decoded` gives for
    each character of the text without its escapes where it begins and ends in the text with them.
    """

    text: str
    removed: list[int] | None = None
    decoded: tuple[list[int], list[int]] | None = None

    def original(self, start: int, end: int) -> tuple[int, int]:
        """Give the offsets in the original text for a span of the view that is not empty."""
        if self.removed is not None:
            start, end = start + bisect_right(self.removed, start), end + bisect_right(self.removed, end - 1)
        if self.decoded is not None:
            starts, ends = self.decoded
            return starts[start], ends[end - 1]
        return start, end


def flatten(text: str) -> View:
    """Give the plain view of a text; the text itself where nothing needs a change."""
    if ("\\" in text or "%" in text) and _ESCAPE.search(text):
        plain, decoded = _decoded(text)
        view = _flattened(plain)
        return View(view.text, view.removed, decoded)
    return _flattened(text)


def _flattened(text: str) -> View:
    if text.isascii():
        return View(text)
    plain = _ODD.sub(_to_plain, text)
    removed = None
    if len(plain) != len(text):
        removed = [mark.start() - before for before, mark in enumerate(_INVISIBLES.finditer(text))]
    return View(_NUMERAL_RUN.sub(_to_digits, plain), removed)


def _decoded(text: str) -> tuple[str, tuple[list[int], list[int]]]:
    """Give a text with the characters that its escapes stand for, and where each begins and ends in the original."""
    parts: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    position = 0
    for escape in _ESCAPE.finditer(text):
        start, end = escape.span()
        parts.append(text[position:start])
        starts += range(position, start)
        ends += range(position + 1, start + 1)
        for one, length in _meant(escape[0]):
            parts.append(one)
            starts.append(start)
            start += length
            ends.append(start)
        position = end
    parts.append(text[position:])
    starts += range(position, len(text))
    ends += range(position + 1, len(text) + 1)
    return "".join(parts), (starts, ends)


def _meant(escape: str) -> list[tuple[str, int]]:
    """Give the characters that an escape stands for, each with how much of the escape it takes."""
    if escape[0] == "%":
        try:
            return [(one, 3 * len(one.encode())) for one in bytes.fromhex(escape.replace("%", "")).decode()]
        except UnicodeDecodeError:
            return [(one, 1) for one in escape]
    if escape[1] == "u":
        code = int(escape[2:], base=16)  # noqa: FURB166 - "\\u" is no prefix of a number
        return [(" " if 0xD800 <= code < 0xE000 else chr(code), 6)]
    return [(_CONTROLS.get(escape[1], escape[1]), 2)]


def _to_plain(run: re.Match[str]) -> str:
    return run[0].translate(_PLAIN)


def _to_digits(run: re.Match[str]) -> str:
    return run[0].translate(_NUMERAL_DIGITS)
