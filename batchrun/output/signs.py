"""What counts as syntax where: brackets, commas, colons, space and comments, and whether a place fits what follows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from batchrun.output.quotes import CLOSERS

if TYPE_CHECKING:
    from collections.abc import Callable

OPENING = {"{": "{", "｛": "{", "[": "[", "［": "[", "【": "[", "(": "(", "（": "("}
CLOSING = {"{": "}", "[": "]", "(": ")"}
_MOST_COMMAS = 3
#: Closing brackets of objects and arrays, as the ASCII ones that they stand for.
ENDS = {"}": "}", "]": "]", "｝": "}", "］": "]", "】": "]"}
COMMAS = frozenset(",，、;；")
#: Space that people do not see, and that models put between tokens: no-break, ideographic, zero-width, byte-order mark.
UNUSUAL_SPACE = "\u00a0\u1680\u2000-\u200f\u2028-\u202f\u205f-\u2064\u3000\ufeff\u0085\u180e\u00ad\v\f"
SPACE = " \t\r\n\u00a0\u1680\u200b\u200c\u200d\u2028\u2029\u202f\u205f\u2060\u3000\ufeff\u0085\u180e\u00ad\v\f"
_SPACE = rf"[ \t\r\n{UNUSUAL_SPACE}]*+"
_SPACES = re.compile(_SPACE)
_COMMENT = re.compile(r"//[^\n]*|#[^\n]*|/\*[^*]*+(?:\*(?!/)[^*]*+)*+\*/")
_UNUSUAL = re.compile(f"[{UNUSUAL_SPACE}]")
COLON = re.compile(r"[:：]|=>|=(?!=)")
_MARKS = "\\s!-#%-/:-@\\[-^`{-~，。：；！？、“”‘’「」『』（）【】［］｛｝《》…"
_BARE = rf"(?:[^{_MARKS}0-9][^{_MARKS}\-.]{{0,60}}(?:[\-.][^{_MARKS}]{{1,60}}){{0,4}}+)"
BARE_KEY = re.compile(rf"({_BARE}|[0-9]{{1,18}}){_SPACE}(?=[:：]|=>|=(?!=))")
_QUOTED_KEY = re.compile(rf"[\"“”'‘’「『＂`][^\"“”\n{{}}「」]{{0,100}}[\"”“'’」』＂`]{_SPACE}(?:[:：]|=>|=(?!=))")
_WORD_KEY = re.compile(rf"{_BARE}{_SPACE}[:：](?!//)")
_WORD_KEY_AND_VALUE = re.compile(
    rf"{_BARE}{_SPACE}[:：]{_SPACE}(?:[\"'“{{\[]|-?[0-9]|(?:true|false|null|True|False|None)\b)"
)
_CUT_KEY = re.compile(r"[\"“”'‘’「『＂`][^\"“”\n{}「」]{0,100}(?:[\"”’」『＂`]\s{0,99})?\Z")
_ELEMENT = re.compile(r"[\"“'‘「『＂`{\[｛［(\d０-９+\-]|(?:true|false|null|True|False|None)\b")
_BARE_ELEMENT = re.compile(r"[^\"“”'「」{}\[\]:：,，\n]{1,60}[,，\]］\n]")
_WHOLE_STRING = re.compile(rf"\"[^\"\n]{{0,300}}\"(?:{_SPACE}[,，\]］]|[ \t]+\")")
_JOIN = re.compile(r"\s*\+\s*[\"']")
_LATER_END = re.compile(r"[^\n{\[]{0,300}[\"”]\s*[}\]｝］]")


class BrokenError(ValueError):
    """No reading fits. `position` is where in the text; `looks` tells whether JSON was meant."""

    def __init__(self, position: int, reason: str, *, looks: bool = False) -> None:
        super().__init__(reason)
        self.position, self.reason, self.looks = position, reason, looks


class AmbiguousError(BrokenError):
    """More than one reading fits, or something was left out."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(position, reason, looks=True)


class CutOffError(ValueError):
    """The text ends before the value does."""

    def __init__(self, position: int) -> None:
        super().__init__("the text ends before the value does")
        self.position = position


class BudgetError(ValueError):
    """Reading on would take too long."""


class Budget:
    """The steps that reading one text may take; one is some microseconds."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def spend(self, steps: int = 1) -> None:
        """Take steps. Raises `BudgetError` when there are none left."""
        self._left -= steps
        if self._left < 0:
            raise BudgetError("the text is too large or too damaged to be read in good time")


class Place:
    """Knows where in a text the reader is: in which containers, in a key, a member's value or an element."""

    def __init__(self, text: str, budget: Budget, closers: Callable[[], str]) -> None:
        self._text, self._budget, self._closers = text, budget, closers
        self.context: Literal["key", "member", "element"] = "key"
        #: Where the string begins that is being read.
        self.begin = 0
        #: Whether keys of this document come without quotes.
        self.bare_keys = False

    def skip(self, position: int) -> tuple[int, list[tuple[str, str]]]:
        """Give where space and comments end, and what of them is no JSON: a repair's name and the words."""
        marks: list[tuple[str, str]] = []
        text = self._text
        while True:
            end = _SPACES.match(text, position).end()  # type: ignore[union-attr]
            if end > position:
                if _UNUSUAL.search(text, position, end):
                    marks.append(("unicode_space", ""))
                position = end
            if text[position : position + 1] not in ("/", "#"):
                return position, marks
            self._budget.spend()
            comment = _COMMENT.match(text, position)
            if comment is None:
                if text.startswith("/*", position):
                    self._budget.spend((len(text) - position) // 200)
                    raise CutOffError(position)
                return position, marks
            self._budget.spend(len(comment.group()) // 200)
            marks.append(("comment", comment.group()))
            position = comment.end()

    def _past(self, position: int) -> int:
        """Give where space ends, and comments, if there are some."""
        position = _SPACES.match(self._text, position).end()  # type: ignore[union-attr]
        if self._text.startswith(("//", "/*", "#"), position):
            try:
                return self.skip(position)[0]
            except CutOffError:
                return len(self._text)
        return position

    # --- may a string end here? ---

    def fits(self, after: int, *, is_paired: bool = True) -> bool:
        """Tell whether what stands after a quote fits the end of the string that is being read.

        Where the quotes that were taken for text so far are no pairs, only what is syntax beyond doubt fits.
        """
        self._budget.spend()
        if self.context == "key":
            return COLON.match(self._text, _SPACES.match(self._text, after).end()) is not None  # type: ignore[union-attr]
        if self._text.startswith("//", after):
            return False  # no comment: a part of an address
        at = self._past(after)
        sign = self._text[at : at + 1]
        if not sign or sign in ENDS:
            return not sign or self._fits_closer(at)
        if sign in ")）":
            return self._closers()[-1] == ")"
        if sign in COMMAS:
            return self._fits_comma(at, is_paired=is_paired)
        if sign == "+" and _JOIN.match(self._text, at):
            return True
        return self._fits_without_comma(after, at)

    def _fits_closer(self, at: int) -> bool:
        text, closers = self._text, self._closers()
        closer = ENDS[text[at]]
        if closers.endswith(closer):
            left = len(closers) - 1
        elif len(closers) > 1 and closers[-2] == closer:
            left = len(closers) - 2
        else:
            # A bracket in place of another one: only at the very end.
            return len(closers) == 1 and not text[at + 1 : at + 100].strip(SPACE + "`")
        after = self._past(at + 1)
        sign = text[after : after + 1]
        if not sign:
            return True
        if left:
            if sign in COMMAS or sign in ENDS or sign in ")）" or "\n" in text[at:after]:
                return True
            return sign in '{["“' and (after > at + 1 or sign in "{[")
        if after > at + 1 or sign in "<`":
            return True
        return _LATER_END.match(text, at + 1) is None

    def _fits_comma(self, at: int, *, is_paired: bool) -> bool:
        text = self._text
        after = self._past(at + 1)
        for _ in range(_MOST_COMMAS):
            if text[after : after + 1] not in COMMAS:
                break
            after = self._past(after + 1)  # one too many
        sign = text[after : after + 1]
        if not sign or sign in ENDS:
            return True
        if text.startswith(("...", "…"), after):
            return text[at] == ","
        if self.context == "member":
            return self._begins_member(at, after, is_paired=is_paired)
        if text[at] == ",":
            if _ELEMENT.match(text, after):
                return True
            return "\n" in text[at:after] or _BARE_ELEMENT.match(text, after) is not None
        return is_paired and (sign in CLOSERS or sign in "{[｛［" or "\n" in text[at:after])

    def _begins_member(self, at: int, after: int, *, is_paired: bool) -> bool:
        """Tell whether what stands after a comma is the key of the next member."""
        text = self._text
        if _QUOTED_KEY.match(text, after) or (is_paired and _CUT_KEY.match(text, after)):
            return True
        if self.bare_keys or "\n" in text[at:after]:
            return _WORD_KEY.match(text, after) is not None
        return is_paired and text[at] == "," and _WORD_KEY_AND_VALUE.match(text, after) is not None

    def _fits_without_comma(self, after: int, at: int) -> bool:
        text = self._text
        if self.context == "member":
            if _QUOTED_KEY.match(text, at):
                return at > after or after > self.begin + 2
            return "\n" in text[after:at] and self.bare_keys and _WORD_KEY.match(text, at) is not None
        if "\n" in text[after:at]:
            return text[at] in CLOSERS or text[at] in "{["
        return at > after and _WHOLE_STRING.match(text, at) is not None

    # --- may a value without quotes end here? ---

    def ends_bare(self, at: int, begin: int, *, is_member: bool) -> bool:
        """Tell whether a comma, a line's end or a quote after a value without quotes is syntax."""
        text = self._text
        if text[at] in CLOSERS:
            return self._begins_next(at, begin, is_member=is_member)
        if text[at] not in COMMAS and text[at] not in "\r\n":
            return False
        is_line_end = text[at] in "\r\n"
        after = self._past(at if is_line_end else at + 1)
        for _ in range(_MOST_COMMAS):
            if is_line_end or text[after : after + 1] not in COMMAS:
                break
            after = self._past(after + 1)  # one too many
        sign = text[after : after + 1]
        if not sign or sign in ENDS or sign in ")）":
            return True
        if is_line_end and sign in COMMAS:
            return True
        if not is_member:
            return not is_line_end and text[at] in ",，、"
        if text.startswith(("...", "…"), after) or sign == "," or _CUT_KEY.match(text, after):
            return True
        return _QUOTED_KEY.match(text, after) is not None or _WORD_KEY.match(text, after) is not None

    def _begins_next(self, at: int, begin: int, *, is_member: bool) -> bool:
        """Tell whether a quote after a value without quotes begins the next one: a comma is missing then."""
        text = self._text
        if at == begin or text[at - 1] not in SPACE:
            return False
        return (_QUOTED_KEY if is_member else _WHOLE_STRING).match(text, at) is not None


def starts_line(text: str, at: int, begin: int) -> bool:
    """Tell whether nothing but space stands before a place, in its line or back to `begin`."""
    return at == begin or text[at - 1] == "\n" or not text[max(begin, at - 50) : at].strip(SPACE)
