"""Regular expression → a text that matches it, for the plain patterns that JSON Schemas use."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

Below = Callable[[int], int]
Ranges = tuple[tuple[int, int], ...]

_DIGIT: Ranges = ((48, 57),)
_LETTER: Ranges = ((97, 122), (65, 90))
_WORD: Ranges = (*_LETTER, *_DIGIT, (95, 95))
_SPACE: Ranges = ((32, 32),)
_HAN: Ranges = ((0x4E00, 0x9FA5),)
_PRINTABLE: Ranges = (
    (97, 122),
    (48, 57),
    (65, 90),
    (33, 47),
    (58, 64),
    (91, 96),
    (123, 126),
    (32, 32),
    *_HAN,
)
_CLASSES = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}
_HEX_LENGTHS = {"x": 2, "u": 4}
_PROPERTIES = {
    "L": _LETTER,
    "Ll": ((97, 122),),
    "Lu": ((65, 90),),
    "N": _DIGIT,
    "Nd": _DIGIT,
    "Han": _HAN,
    "Script=Han": _HAN,
    "sc=Han": _HAN,
}
_COUNTS = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_BRACES = re.compile(r"\{(\d+)(,(\d*))?\}")
_GROUP = re.compile(r"\?(?::|P?<[A-Za-z_]\w*>)")
_PROPERTY = re.compile(r"p\{([\w=]+)\}")

#: Open-ended repeats are stretched by these many, in turn, until the text is long enough.
_STRETCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256, 1024)
#: Texts that match many patterns which cannot be read here (look-aheads, back-references).
_COMMON = (
    "2024-01-15", "2024-01-15T08:30:00Z", "08:30:00", "08:30", "13800138000", "100000", "1", "12.50", "A1",
    "Aa1!aaaa", "abc", "ABC", "a", "user@example.com", "https://example.com/", "模拟",
    "模拟文本", "是", "v1.0.0",
)  # fmt: skip


class UnreadablePattern(ValueError):
    """A pattern uses what this module does not know."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A class of characters or a group of alternatives, and how often it comes."""

    what: Ranges | tuple[_Sequence, ...]
    is_group: bool
    low: int
    high: int | None


_Sequence = tuple[_Piece, ...]


def sample(pattern: str, below: Below, min_length: int = 0, max_length: int | None = None) -> str | None:
    """Make a text that matches a pattern and is as long as asked, or give None if there is no telling how."""
    matches, alternatives = _read(pattern)

    def fits(text: str) -> bool:
        return len(text) >= min_length and (max_length is None or len(text) <= max_length) and matches(text)

    if alternatives is not None:
        shortest = _spell(alternatives, below, 0)
        if fits(shortest):
            return shortest
        # A single open repeat meets an exact length with the first of these.
        for stretch in (max(0, min_length - len(shortest)), *_STRETCHES):
            text = _spell(alternatives, below, stretch)
            if fits(text):
                return text
    start = below(len(_COMMON))
    return next((text for text in (*_COMMON[start:], *_COMMON[:start]) if fits(text)), None)


@lru_cache(maxsize=256)
def _read(pattern: str) -> tuple[Callable[[str], bool], tuple[_Sequence, ...] | None]:
    try:
        alternatives: tuple[_Sequence, ...] | None = _Reader(pattern).read()
    except (UnreadablePattern, RecursionError):
        alternatives = None
    try:
        search = re.compile(pattern).search
    except (re.error, RecursionError, OverflowError):
        # ECMA patterns that Python cannot check, such as \p{Han}: taken on trust if they could be read above.
        return (lambda _: alternatives is not None), alternatives
    return (lambda text: search(text) is not None), alternatives


def _spell(alternatives: tuple[_Sequence, ...], below: Below, stretch: int) -> str:
    out = []
    for piece in alternatives[below(len(alternatives))]:
        room = stretch if piece.high is None else min(stretch, piece.high - piece.low)
        for _ in range(piece.low + room):
            if piece.is_group:
                out.append(_spell(piece.what, below, stretch))  # type: ignore[arg-type]
            else:
                low, high = piece.what[below(len(piece.what))]
                out.append(chr(low + below(high - low + 1)))  # type: ignore[operator]
    return "".join(out)


class _Reader:
    """A recursive-descent reader of one pattern. Raises `UnreadablePattern`."""

    def __init__(self, pattern: str) -> None:
        self._text = pattern
        self._at = 0

    def read(self) -> tuple[_Sequence, ...]:
        alternatives = self._alternatives()
        if self._at < len(self._text):
            raise UnreadablePattern(self._text)
        return alternatives

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        character = self._peek()
        if not character:
            raise UnreadablePattern(self._text)
        self._at += 1
        return character

    def _alternatives(self) -> tuple[_Sequence, ...]:
        found = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            found.append(self._sequence())
        return tuple(found)

    def _sequence(self) -> _Sequence:
        pieces = []
        while self._peek() not in ("", "|", ")"):
            atom = self._atom()
            low, high = self._count()
            if atom is not None:
                pieces.append(_Piece(atom[0], atom[1], low, high))
        return tuple(pieces)

    def _atom(self) -> tuple[Ranges | tuple[_Sequence, ...], bool] | None:
        character = self._take()
        if character in "^$":
            return None
        if character == "(":
            return self._group(), True
        if character == "[":
            return self._class(), False
        if character == "\\":
            ranges = self._escape()
            return None if ranges is None else (ranges, False)
        if character == ".":
            return _LETTER, False
        if character in "*+?{":
            raise UnreadablePattern(self._text)
        return ((ord(character), ord(character)),), False

    def _group(self) -> tuple[_Sequence, ...]:
        if self._peek() == "?":
            opening = _GROUP.match(self._text, self._at)
            if opening is None:
                raise UnreadablePattern(self._text)
            self._at = opening.end()
        alternatives = self._alternatives()
        if self._take() != ")":
            raise UnreadablePattern(self._text)
        return alternatives

    def _count(self) -> tuple[int, int | None]:
        low: int
        high: int | None
        character = self._peek()
        if character in _COUNTS:
            self._at += 1
            low, high = _COUNTS[character]
        elif braces := _BRACES.match(self._text, self._at):
            self._at = braces.end()
            low = int(braces[1])
            high = (int(braces[3]) if braces[3] else None) if braces[2] else low
        else:
            return 1, 1
        if self._peek() == "?":  # a lazy repeat matches the same texts
            self._at += 1
        return low, high

    def _escape(self) -> Ranges | None:
        character = self._take()
        if character in "bB":
            return None
        if character in _CLASSES:
            return _CLASSES[character]
        if character.lower() in _CLASSES:
            return _without(_PRINTABLE, _CLASSES[character.lower()])
        if character == "p":
            return self._property()
        if character in _HEX_LENGTHS:
            return self._hexadecimal(_HEX_LENGTHS[character])
        if character.isdigit() and character != "0":
            raise UnreadablePattern(self._text)
        code = ord(_CONTROLS.get(character, character))
        return ((code, code),)

    def _property(self) -> Ranges:
        found = _PROPERTY.match(self._text, self._at - 1)
        if found is None or found[1] not in _PROPERTIES:
            raise UnreadablePattern(self._text)
        self._at = found.end()
        return _PROPERTIES[found[1]]

    def _hexadecimal(self, length: int) -> Ranges:
        digits = self._text[self._at : self._at + length]
        self._at += length
        try:
            code = int(digits, 16)
        except ValueError:
            raise UnreadablePattern(self._text) from None
        return ((code, code),)

    def _class(self) -> Ranges:
        negated = self._peek() == "^"
        self._at += negated
        ranges: list[tuple[int, int]] = []
        while self._peek() != "]" or not ranges:
            ranges.extend(self._class_member())
        self._at += 1
        found = tuple(ranges)
        return _without(_PRINTABLE, found) if negated else found

    def _class_member(self) -> Ranges:
        first = self._class_character()
        if self._peek() != "-" or self._text[self._at + 1 : self._at + 2] == "]":
            return first
        self._at += 1
        last = self._class_character()
        low, high = first[0][0], last[-1][1]
        if len(first) > 1 or len(last) > 1 or low > high:
            raise UnreadablePattern(self._text)
        return ((low, high),)

    def _class_character(self) -> Ranges:
        character = self._take()
        if character != "\\":
            return ((ord(character), ord(character)),)
        if self._peek() == "b":
            raise UnreadablePattern(self._text)
        return self._escape() or ()


def _without(pool: Ranges, forbidden: Ranges) -> Ranges:
    for low, high in forbidden:
        kept: list[tuple[int, int]] = []
        for start, end in pool:
            if start < low:
                kept.append((start, min(end, low - 1)))
            if end > high:
                kept.append((max(start, high + 1), end))
        pool = tuple((start, end) for start, end in kept if start <= end)
    if not pool:
        raise UnreadablePattern("nothing left to choose from")
    return pool
