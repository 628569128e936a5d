"""Strings in quotes: where they end, and what is written in them.

A quote ends a string only if what follows fits (`signs.Place`); the others are text. Quotes come in pairs: where those
that were taken for text do not, the string could end at two places, and is not read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batchrun.output.quotes import CLOSERS, NESTING
from batchrun.output.signs import COMMAS, ENDS, SPACE, AmbiguousError, BrokenError, CutOffError
from batchrun.output.strict import scan
from batchrun.records import readable

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchrun.output.signs import Budget, Place

ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|[\s\S]|\Z)")
_PATH = re.compile(r"(?:[A-Za-z]:\\|\\\\|\.{1,2}\\|%\w+%\\)")
#: Commands of LaTeX that begin like an escape of JSON.
_COMMANDS = re.compile(
    r"\\(?:b(?:eta|egin|ar|inom|ig|igg|ullet|oldsymbol|f|ot|ox|eth|ecause|mod|oxed|reve)|f(?:rac|orall|lat|box|rown)"
    r"|n(?:eq?|abla|u|ot|otin|eg|i|mid|parallel|leq|geq|exists|rightarrow|subseteq)"
    r"|r(?:ight|ho|angle|ightarrow|Rightarrow|floor|ceil|m)"
    r"|t(?:heta|imes|ext|au|an|anh|o|op|riangle|frac|ilde|herefore|extbf|extit|extrm))(?![a-z])"
)
_DOCUMENT = re.compile(r"\{\s*\"|\[\s*(?:\{\s*)?\"")
_LONGEST_KEY = 300
_KINDS = {"\n": "raw_newline", "\r": "raw_newline", "\t": "raw_tab"}


@dataclass(slots=True)
class _Inside:
    """What was seen inside of a string so far: pairs that are open, whether there were any quotes, and where those
    stand as text that are like its own.
    """

    begin: int
    opener: str
    closers: str
    nested: int = 0
    has_marks: bool = False
    quotes: list[int] = field(default_factory=list)


class QuotedReader:
    """Reads the strings of one text."""

    def __init__(self, text: str, budget: Budget, place: Place, note: Callable[[str], None]) -> None:
        self._text, self._budget, self._place, self._note = text, budget, place, note

    def read(self, start: int) -> tuple[str, int]:
        """Read the string whose quote stands at a place; give it and where it ends.

        Raises `CutOffError` if it does not end, `AmbiguousError` if it may end at two places.
        """
        text = self._text
        opener = text[start]
        self._place.begin = start + 1
        end, inner = self._end_of_document(start + 1, opener) or self._end(start + 1, opener)
        if not text[end + 1 : end + 200].strip(SPACE + ",，") and end + 200 >= len(text):
            raise CutOffError(start)  # a string is never the last of a document
        raw = text[start + 1 : end]
        if inner:
            self._check_pairs(raw, inner, start)
            self._note("unescaped_quote")
        self._note_quotes(opener, text[end])
        return self._decoded(raw, opener), end + 1

    def _note_quotes(self, opener: str, closer: str) -> None:
        if opener in "'`":
            self._note("single_quotes")
        elif opener != '"' or closer != '"':
            self._note("full_width_punctuation")

    def _end_of_document(self, begin: int, opener: str) -> tuple[int, list[int]] | None:
        """Find the quote after a JSON document that stands in a string without escapes; None if there is none."""
        text = self._text
        if _DOCUMENT.match(text, begin) is None or self._place.context == "key":
            return None
        self._budget.spend(5)
        try:
            end = scan(text, begin)[1]
        except ValueError:
            return None
        if text[end : end + 1] != opener or not self._place.fits(end + 1):
            return None
        self._note("unescaped_quote")
        return end, []

    def _end(self, begin: int, opener: str) -> tuple[int, list[int]]:
        """Find the quote that closes a string; give where it stands, and where quotes like it stand as text."""
        text, is_key = self._text, self._place.context == "key"
        inside = _Inside(begin, opener, CLOSERS[opener])
        stop, at = _STOPS[opener], begin
        while True:
            found = stop.search(text, at)
            if found is None or (is_key and found.start() - begin > _LONGEST_KEY):
                raise self._endless(inside, is_key=is_key, is_cut=found is None)
            self._budget.spend()
            at = found.end()
            sign = found.group()
            if sign[0] == "\\":
                # The last backslash of a Windows path does not escape the quote after it.
                if sign[1:] and sign[1:] in inside.closers and _PATH.match(text, begin) and self._place.fits(at):
                    return at - 1, inside.quotes
            elif sign == opener == '"' and not inside.nested and text[at : at + 1].isalnum():
                inside.has_marks = True
                inside.quotes.append(at - 1)  # no string ends before a letter
            elif sign < " ":
                self._note(_KINDS.get(sign, "raw_control_character"))
            elif self._closes(sign, found.start(), inside):
                return found.start(), inside.quotes

    def _closes(self, sign: str, here: int, inside: _Inside) -> bool:
        """Tell whether a quote closes the string; if not, take it for text."""
        fits = self._place.fits
        inside.has_marks = True
        if sign in NESTING and not (sign in inside.closers and inside.nested == 0 and fits(here + 1)):
            inside.nested += 1
        elif inside.nested and sign in "”’」』":
            inside.nested -= 1
        elif sign in inside.closers and fits(here + 1, is_paired=len(inside.quotes) % 2 == 0):
            return True
        elif inside.nested and sign in "\"'":
            inside.nested -= 1  # a pair of two kinds
        elif sign in (inside.opener, inside.closers[0], '"') and not self._is_apostrophe(sign, here):
            inside.quotes.append(here)
        return False

    def _endless(self, inside: _Inside, *, is_key: bool, is_cut: bool) -> ValueError:
        """Give the error for a string that does not end: it is cut off, or its quotes are in disorder."""
        text, begin = self._text, inside.begin
        if is_key and inside.quotes:
            after = text[inside.quotes[0] + 1 : inside.quotes[0] + 50].lstrip()
            if after[:1] in tuple(",，、}｝]］;；"):
                return BrokenError(begin, "no colon after a key")
        if not is_cut:
            return BrokenError(begin, "a key that does not end")
        is_disorder = inside.quotes if inside.opener == '"' else inside.has_marks
        if is_disorder and text.rstrip().endswith(("}", "]", "｝", "］", "```")):
            return AmbiguousError(begin - 1, "quotes that end no string")
        return CutOffError(begin)

    def _is_apostrophe(self, sign: str, at: int) -> bool:
        around = self._text[at - 1 : at] + self._text[at + 1 : at + 2]
        return sign in "'’" and len(around) == 2 and around.isalpha() and around.isascii()

    def _check_pairs(self, raw: str, inner: list[int], start: int) -> None:
        """See that the quotes that stand as text are pairs around words; raise `AmbiguousError` if not."""
        text = self._text
        if self._place.context == "key" and _IN_NO_KEY.search(raw):
            raise AmbiguousError(start, "a key that may hold a member")
        paired = inner if len(inner) % 2 == 0 else [at for at in inner if not self._is_measure(at)]
        if len(paired) % 2:
            raise AmbiguousError(start, "quotes inside of a string that are no pairs")
        for one, other in zip(paired[::2], paired[1::2], strict=True):
            if _WORDS.search(text, one + 1, other) is None:
                raise AmbiguousError(start, "quotes inside of a string with nothing between them")
            between = text[one + 1 : min(other, one + 100)]
            if _JOINED.match(between) or _NO_QUOTATION.match(between):
                raise AmbiguousError(start, "quotes inside of a string around what is no quotation")
        looks_whole = raw.lstrip().startswith(("{", "[")) and raw.rstrip().endswith(("}", "]"))
        if _OBJECT_INSIDE.search(raw):
            looks_whole = _is_balanced(raw)
            if not looks_whole:
                raise AmbiguousError(start, "a string that holds what may be the end of its object")
        if not looks_whole and _MEMBER_INSIDE.search(raw):
            raise AmbiguousError(start, "a string that holds what may be a further member")

    def _is_measure(self, at: int) -> bool:
        """Tell whether a quote stands for inches or seconds: 15.6" and words after it."""
        text = self._text
        after = text[at + 1 : at + 20].lstrip()[:1]
        return text[at - 1].isdigit() and after not in COMMAS and after not in ENDS and after not in ":："

    def _decoded(self, raw: str, opener: str) -> str:
        if "\\" not in raw:
            return readable(raw)
        is_bad = any(_is_bad(one.group(1), opener) for one in _ESCAPE.finditer(raw))
        is_path = is_bad and _PATH.match(raw) is not None

        def replace(found: re.Match[str]) -> str:
            self._budget.spend()
            body = found.group(1)
            if is_bad and (is_path or _COMMANDS.match(raw, found.start())) and body[:1] in "bfnrtuxU":
                return found.group()
            if body[:1] == "u" and len(body) == 5:
                return chr(int(body[1:], 16))
            if body in ESCAPES:
                return ESCAPES[body]
            if body[:1] in "'’" and body:
                self._note("bad_escape")
                return body
            if opener in "'`" and body[:1] == "x" and len(body) == 3:
                return chr(int(body[1:], 16))
            self._note("bad_escape")
            return found.group()

        decoded = _ESCAPE.sub(replace, raw)
        if is_bad:
            self._note("bad_escape")
        kept = readable(decoded)
        if kept != decoded and "\ufffd" in kept:
            self._note("lone_surrogate")
        return kept


_WORDS = re.compile(r"[^\W_]|[?？!！%@#&*+<>—-]")
#: Inside of a string: what looks like the end of another one, a key and a colon.
_OBJECT_INSIDE = re.compile(r"\{\s*\"[^\"\n]{1,60}\"\s*:")
_MEMBER_INSIDE = re.compile(r"[\",]\s*\"[^\"\n]{1,60}\"\s*:|\"\s*,\s*[^\s\",:，：]{1,40}\"\s*:")
_IN_NO_KEY = re.compile(r"[,，;；:：\n{}\[\]]")
#: A comma at the beginning or a colon at the end: the quotes are those of two strings.
_NO_QUOTATION = re.compile(r"\s*[,，、;；]|\s*[:：]\s|[^:：]*[^\s:：]\s*[:：]\s*\Z")
_JOINED = re.compile(r"\s*\+[^+]{0,90}\+\s*\Z")


def _is_balanced(raw: str) -> bool:
    """Tell whether the braces of a text open and close in order."""
    depth = 0
    for sign in raw:
        depth += (sign == "{") - (sign == "}")
        if depth < 0:
            return False
    return depth == 0


def _is_bad(body: str, opener: str) -> bool:
    return not (body in ESCAPES or (body[:1] == "u" and len(body) == 5) or (body == "'" or opener in "'`"))


def _stop_at(opener: str) -> re.Pattern[str]:
    signs = set(CLOSERS[opener]) | {opener} | set(NESTING) & set("“„‘" if opener in "\"“”＂'‘’" else opener)
    if "“" in signs:
        signs.add("”")
    if "‘" in signs:
        signs.add("’")
    if opener not in "'‘’":
        signs -= {"‘", "’"}
    else:
        signs -= {"“", "”", "„"}
    return re.compile(r"\\[\s\S]|\\\Z|[" + re.escape("".join(sorted(signs))) + r"\x00-\x1f]")


_STOPS = {opener: _stop_at(opener) for opener in CLOSERS}
