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
_ESCAPE = re.compile(r"\\(?:u[0-9A-Fa-f]{4}|[nrtbf])|%(?:0[9AaDd]|2[0-9A-Fa-f]|3[A-Fa-f])")


@dataclass(frozen=True, slots=True, repr=False)
class View:
    """What a text reads like. `removed` holds the offsets in the view before which something invisible stood.

    An offset stands in it once for every character removed there; it is None where nothing was.
    """

    text: str
    removed: list[int] | None = None

    def original(self, start: int, end: int) -> tuple[int, int]:
        """Give the offsets in the original text for a span of the view that is not empty."""
        if self.removed is None:
            return start, end
        return start + bisect_right(self.removed, start), end + bisect_right(self.removed, end - 1)


def flatten(text: str) -> View:
    """Give the plain view of a text; the text itself where nothing needs a change."""
    if text.isascii():
        return View(_unescape(text))
    plain = _ODD.sub(_to_plain, text)
    removed = None
    if len(plain) != len(text):
        removed = [mark.start() - before for before, mark in enumerate(_INVISIBLES.finditer(text))]
    return View(_unescape(_NUMERAL_RUN.sub(_to_digits, plain)), removed)


def _to_plain(run: re.Match[str]) -> str:
    return run[0].translate(_PLAIN)


def _to_digits(run: re.Match[str]) -> str:
    return run[0].translate(_NUMERAL_DIGITS)


def _unescape(text: str) -> str:
    """Blank the escapes of JSON in a string, as in a tool call's arguments, and of links: they are no neighbours."""
    return _ESCAPE.sub(_to_blanks, text) if "\\" in text or "%" in text else text


def _to_blanks(escape: re.Match[str]) -> str:
    return " " * len(escape[0])
