"""A tolerant reader of JSON as language models write it: what is meant is read where there is one way to read it.

Chinese marks count as syntax only where syntax is expected, and a quote closes a string only if what follows fits
(`quoted`). Nothing is made up: a missing value, an ellipsis, quotes that pair in two ways end the reading, and a text
that ends too early is told from one that is broken. Each step of the reader takes a bounded time, and so does each
text (`Budget`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from batchrun.output.quoted import QuotedReader
from batchrun.output.quotes import CLOSERS
from batchrun.output.signs import (
    BARE_KEY,
    CLOSING,
    COLON,
    COMMAS,
    ENDS,
    OPENING,
    SPACE,
    AmbiguousError,
    BrokenError,
    Budget,
    CutOffError,
    Place,
)
from batchrun.output.strict import MAX_DEPTH, NotJsonError, UnkeepableError, real_number, same, scan, whole_number

_LITERALS: dict[str, Any] = {"true": True, "false": False, "null": None}
_PYTHON = {"True": True, "False": False, "None": None, "TRUE": True, "FALSE": False, "NULL": None}
_JAVASCRIPT = {"undefined": None}
_NO_VALUES = re.compile(r"[-+]?(?:nan|inf(?:inity)?)\Z", re.IGNORECASE)
_ELLIPSIS = re.compile(r"\.{3,}|…+|。{3,}|⋯+")
#: A comment that says so stands for something that was left out.
_LEFT_OUT = re.compile(
    r"\.\.\.|…|省略|未列|没有列|不再列|篇幅|待补|待续|未完|类似|同理"
    r"|以此类推|依此类推|依次类推|略去|此处略|下略|后略|从略|等等|(?<![战策攻忽侵概谋简粗方大省])略\W*$"
    r"|(?:其余|其他|其它|更多)[^,，]{0,10}(?:略|省|同|相似|一样)|(?:其余|更多)(?:的|项|条|数据|内容|记录|字段|条目|元素|部分)*\W*$"
    r"|\b(?:more|rest|remaining|etc|omitted|and so on|continue[ds]?|truncated|similar(?:ly)?)\b",
    re.IGNORECASE,
)
#: A comment that holds a member or an element and nothing else may be a slip.
_NO_REMARK = re.compile(r"(?://|#|/\*)\s*[\"“'][^\"”'\n]{1,80}[\"”']\s*(?:[:：]\s*\S|,?\s*\Z)")
_NOT_LEFT_OUT = re.compile(r"[不没未无勿非别][^，。,\s]{0,4}省略")
_INTEGER = re.compile(r"[-+]?[0-9]+\Z")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\Z")
_STRICT_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?\Z")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]")
_GROUPED = re.compile(r"[-+]?[1-9][0-9]{0,2}(?:_[0-9]{3})+\Z")
_HEXADECIMAL = re.compile(r"0[xX][0-9a-fA-F]{1,16}\Z")
_TO_HALF_WIDTH = {
    ord(full): ord(half) for full, half in zip("０１２３４５６７８９＋－．", "0123456789+-.", strict=True)
}
_FULL_DIGIT = re.compile(r"[０-９]")
_ENTITY = re.compile(r"&(?:quot|apos|#\d+|#x[0-9a-fA-F]+);?")
#: After a comma, a name and a value, and no colon between them.
_NO_COLON = re.compile(r"[ \t]*[A-Za-z_]\w{0,30}[ \t]+[^,，:：\n]{1,60}[,，}\n]")
_APART = re.compile(r"[0-9]{1,3}[ \t]+[0-9]{3}(?![0-9])|.*(?<![0-9.])0[0-9]")
#: A number or a literal with signs after it that belong to neither; numbers with a comma that are not one.
_STRAY = re.compile(
    r"(?:[-+]?[0-9０-９][0-9０-９.．]*|true|false|null|True|False|None)\s*[:：。「」『』/\\;；、…=|&^]+\Z|.*(?<![A-Za-z])['‘’]|.*['‘’](?![A-Za-z])"
)
_LISTED = re.compile(r"[-+]?[0-9.]+\s*[,，](?![0-9]{3}(?:[,.]|\Z|\s*[^0-9\s]))")
_MEMBER_LIKE = re.compile(r"[^\W\d]\w{0,40}\s*[:：]\s*(?!//)\S")
_CALL = re.compile(r"(?:new\s+)?[A-Za-z_][\w.]*\s*\(")
#: Where a bare value may end; a comma and a line's end only if what follows fits.
_BARE_STOP = re.compile(r"[,，、;；\n\r}\]｝］】)）{\[｛［\"“”＂`]|(?<=[\s\u3000])(?://|/\*|#)|\.{3,}|…")
_NUMBERS_APART = re.compile(r"-?[0-9.]+(?:[ \t]+-?[0-9.]+)+\Z")
_PYTHON_PREFIX = re.compile(r"(?:u|b|r|rb|br)(?=')")

# Members that are not damaged, or damaged everywhere in the same way, are read by one match each.
_S = r"[ \t\r\n]*+"
_LINES = rf"{_S}(?://[^\n]*+\n{_S})*+"
_STRING = r"(?:\"([^\"\\\x00-\x1f“”]*+)\"|'([^'\"\\\x00-\x1f‘’]*+)'|“([^“”\"\\\x00-\x1f]*+)”)"
_NEXT_KEY = r"(?:\"[^\"\\\n“”]{0,120}+\"|'[^'\"\\\n‘’]{0,120}+'|“[^“”\"\\\n]{0,120}+”)[ \t]*+[:：]"
_NEXT_WORD = r"[^\W\d]\w{0,60}+[ \t]*+[:：](?!//)"
_SIMPLE = r"(-?(?:0|[1-9][0-9]{0,15})(?:\.[0-9]{1,20})?|true|false|null)"
_COMMA = re.compile(rf"{_S},")
_KEY = re.compile(
    rf"({_LINES})(?:\"([^\"\\\x00-\x1f“”]*+)\"|'([^'\"\\\x00-\x1f‘’]*+)'|“([^“”\"\\\x00-\x1f]*+)”"
    rf"|([^\W\d]\w{{0,60}}+)){_S}(:|：){_S}"
)


def _ended(value: str, next_one: str, closer: str) -> re.Pattern[str]:
    """Match a value with the comma after it, or none where the next one stands in a new line, or before its end."""
    return re.compile(
        rf"{value}{_S}(?:([,，])(?={_LINES}(?:{next_one}|{closer}))|(?<=\n)(?={next_one})|(?<=\n )(?={next_one})"
        rf"|(?={closer}[ \t]*+(?:[,，\]}}｝］】\n\r]|\Z)))"
    )


_MEMBER_STRING = _ended(_STRING, _NEXT_KEY, "[}｝]")
_MEMBER_OTHER = _ended(_SIMPLE, _NEXT_KEY, "[}｝]")
# The same where keys have no quotes.
_WORD_STRING = _ended(_STRING, f"(?:{_NEXT_KEY}|{_NEXT_WORD})", "[}｝]")
_WORD_OTHER = _ended(_SIMPLE, f"(?:{_NEXT_KEY}|{_NEXT_WORD})", "[}｝]")
_ELEMENT_STRING = _ended(_LINES + _STRING, r"[\"'“{\[]", r"[\]］】]")
_ELEMENT_OTHER = re.compile(rf"{_S}{_SIMPLE}{_S}(?:([,，])(?={_S}[\"{{\[\]\-0-9tfn])|(?=\]))")
#: So many parts of a document are tried as strict JSON in vain before the reader takes it that all of it is damaged.
_TRIALS = 40


@dataclass(slots=True)
class Reading:
    """A value that was read: where its text ends, and the repairs that were needed, in order of appearance."""

    value: Any
    end: int
    repairs: tuple[str, ...]
    #: Whether a quoted key or string was read, which prose in brackets does not have.
    is_quoted: bool


@dataclass(slots=True)
class _Frame:
    opener: str
    value: Any
    key: str | None = None
    #: Whether a member may come next: at the beginning, and after a comma.
    open: bool = True
    members: int = field(default=0)


class Reader:
    """Reads the value that starts at a bracket of a text.

    `read` raises `CutOffError` where the text ends before the value, `AmbiguousError` where it can be read in two
    ways, `BrokenError` where in none; `looks_like_json` tells then whether JSON was meant at all.
    """

    def __init__(self, text: str, budget: Budget) -> None:
        self._text, self._budget = text, budget
        self._repairs: dict[str, None] = {}
        self._stack: list[_Frame] = []
        self._trials = _TRIALS
        self._place = Place(text, budget, self._closers)
        self._quoted = QuotedReader(text, budget, self._place, self._note)
        #: Whether a quoted key or string was read, which prose in brackets does not have; whether any member was.
        self.looks_like_json = self.has_members = self.begins_quoted = False

    @property
    def has_bare_key(self) -> bool:
        """Tell whether a key without quotes was read."""
        return self._place.bare_keys

    def read(self, start: int) -> Reading:
        """Read the object or array whose bracket stands at a place."""
        self._repairs.clear()
        self._stack.clear()
        self._trials = _TRIALS
        self._place.bare_keys = self.looks_like_json = self.has_members = self.begins_quoted = False
        self._open(start)
        root = self._stack[0].value
        position = start + 1
        while self._stack:
            self._budget.spend()
            frame = self._stack[-1]
            position = self._member(frame, position) if frame.opener == "{" else self._element(frame, position)
        return Reading(root, position, tuple(self._repairs), self.looks_like_json)

    # --- brackets ---

    def _closers(self) -> str:
        return "".join(CLOSING[frame.opener] for frame in self._stack)

    def _open(self, position: int) -> None:
        sign = self._text[position]
        opener = OPENING[sign]
        if sign != opener:
            self._note("full_width_punctuation")
        if opener == "(":
            self._note("python_tuple")
        if len(self._stack) >= MAX_DEPTH:
            raise UnkeepableError(f"nested more than {MAX_DEPTH} levels deep")
        self._stack.append(_Frame(opener, {} if opener == "{" else []))

    def _close(self, position: int) -> int:
        """Take a closing bracket, also one that closes more than it says."""
        sign = self._text[position]
        closer = ENDS.get(sign, ")")
        if sign != closer:
            self._note("full_width_punctuation")
        wanted = self._closers()
        if not wanted.endswith(closer):
            if len(wanted) > 1 and wanted[-2] == closer and self._stack[-1].members:
                self._note("missing_bracket")
                self._pop(position)
            elif len(wanted) == 1 and self._ends_at(position + 1):
                self._note("wrong_bracket")
            else:
                raise BrokenError(position, f"{sign!r} where {wanted[-1]!r} was expected")
        self._pop(position)
        return self._past_comma(position + 1)

    def _past_comma(self, position: int) -> int:
        """Take the comma after a container at once, as most have one."""
        comma = _COMMA.match(self._text, position) if self._stack else None
        if comma is None:
            return position
        self._stack[-1].open = True
        return comma.end()

    def _ends_at(self, position: int) -> bool:
        rest = self._text[position : position + 200].lstrip()
        return not rest or rest.startswith("```")

    def _pop(self, position: int) -> None:
        frame = self._stack.pop()
        if frame.key is not None:
            raise BrokenError(position, f"the value of {frame.key!r} is missing")
        if self._stack:
            self._put(self._stack[-1], frame.value, position)

    def _put(self, frame: _Frame, value: Any, position: int) -> None:
        frame.open = False
        frame.members += 1
        self.has_members = True
        if frame.opener != "{":
            frame.value.append(value)
            return
        key, frame.key = frame.key, None
        if key in frame.value and not same(frame.value[key], value):
            raise AmbiguousError(position, f"the key {key[:80]!r} comes twice with different values")  # type: ignore[index]
        frame.value[key] = value

    # --- members and elements ---

    def _member(self, frame: _Frame, position: int) -> int:
        """Read on in an object: members as long as they are plain, else a key, a value, a comma or its end."""
        text = self._text
        while True:
            if frame.key is None:
                found = _KEY.match(text, position) if frame.open else None
                if found is None:
                    return self._key(frame, position)
                frame.key = self._plain_key(found)
                position = found.end()
            words = self._place.bare_keys
            found = (_WORD_STRING if words else _MEMBER_STRING).match(text, position)
            if found is not None:
                value = self._plain_string(found)
            else:
                found = (_WORD_OTHER if words else _MEMBER_OTHER).match(text, position)
                if found is None:
                    return self._value(frame, position)
                value = _plain(found.group(1))
            self._put(frame, value, position)
            position = self._plain_end(frame, found)
            if not frame.open:
                return position

    def _element(self, frame: _Frame, position: int) -> int:
        """Read on in an array: elements as long as they are plain, else one element, a comma or its end."""
        text = self._text
        while frame.open:
            found = _ELEMENT_STRING.match(text, position)
            if found is not None:
                value = self._plain_string(found)
                begin = max(found.start(1), found.start(2), found.start(3))
                if begin - position > len("// ") and "//" in text[position:begin]:
                    self._skip(position)  # comments before it
            else:
                found = _ELEMENT_OTHER.match(text, position)
                if found is None:
                    break
                value = _plain(found.group(1))
            self._put(frame, value, position)
            position = self._plain_end(frame, found)
            if not frame.open:
                return position
        position, is_member = self._between(frame, position)
        if not is_member:
            return position
        return self._value(frame, position)

    def _plain_key(self, found: re.Match[str]) -> str:
        """Give a key that one match found, and take note of how it is spelt."""
        comments, quoted, single, curly, word, colon = found.groups()
        if "/" in comments:
            self._skip(found.start())
        if colon != ":":
            self._note("full_width_punctuation")
        key = next((one for one in (quoted, single, curly) if one is not None), None)
        if key is not None:
            self.looks_like_json = True
            self._check_key(key, found.start())
            if quoted is None:
                self._note("single_quotes" if single is not None else "full_width_punctuation")
            return str(key)
        self._place.bare_keys = True
        self._note("bare_key")
        return str(word)

    def _check_key(self, key: str, position: int) -> None:
        if key[:1] in _NO_BEGINNING or key.strip(SPACE)[:1] in COMMAS:
            raise AmbiguousError(position, f"the key {key[:40]!r}: a comma on the wrong side of a quote")

    def _plain_string(self, found: re.Match[str]) -> str:
        self.looks_like_json = True
        if (value := found.group(1)) is None:
            value = found.group(2)
            self._note("single_quotes" if value is not None else "full_width_punctuation")
            value = found.group(3) if value is None else value
        return str(value)

    def _plain_end(self, frame: _Frame, found: re.Match[str]) -> int:
        """Take note of what comes after a value that one match found: a comma, none, or the container's end."""
        self._budget.spend()
        end = found.end()
        comma = found.group(found.re.groups)
        if comma is not None:
            frame.open = True
            if comma != ",":
                self._note("full_width_punctuation")
        elif self._text[end] not in ENDS:
            frame.open = True
            self._note("missing_comma")
        return end

    def _between(self, frame: _Frame, position: int) -> tuple[int, bool]:
        """Take space, comments and then one comma or the end of the container; else tell that a member comes."""
        position = self._skip(position)
        sign = self._sign(position)
        if sign in COMMAS:
            return self._comma(frame, position), False
        if sign in ENDS or (sign in ")）" and frame.opener == "("):
            if frame.open and frame.members:
                self._note("trailing_comma")
            return self._close(position), False
        if _ELLIPSIS.match(self._text, position):
            raise AmbiguousError(position, "an ellipsis: something was left out")
        if not frame.open:
            self._note("missing_comma")
            frame.open = True
            return position, False
        return position, True

    def _comma(self, frame: _Frame, position: int) -> int:
        if frame.open:
            self._note("doubled_comma" if frame.members else "leading_comma")
        if self._text[position] != ",":
            self._note("full_width_punctuation" if self._text[position] in "，；、" else "semicolon")
        frame.open = True
        return position + 1

    def _key(self, frame: _Frame, position: int) -> int:
        text = self._text
        position, is_member = self._between(frame, position)
        if not is_member:
            return position
        prefix = _PYTHON_PREFIX.match(text, position)
        position = prefix.end() if prefix else position
        if text[position] in CLOSERS:
            at_quote = position
            self.begins_quoted = True
            self._place.context = "key"
            frame.key, position = self._quoted.read(position)
            self._check_key(frame.key, at_quote)
            colon = COLON.match(text, self._skip(position))
            if colon is None:
                if self._skip(position) >= len(text):
                    self.looks_like_json = True
                    raise CutOffError(position)
                raise BrokenError(position, f"no colon after the key {frame.key[:80]!r}", looks=frame.members > 0)
            self.looks_like_json = True
        else:
            bare = BARE_KEY.match(text, position)
            if bare is None:
                self._cut_off_at(position)
                raise BrokenError(position, "a key was expected")
            frame.key, position = bare.group(1).strip(), bare.end(1)
            colon = COLON.match(text, self._skip(position))
            if colon is None:
                raise BrokenError(position, f"no colon after the key {frame.key[:80]!r}")
            self._place.bare_keys = True
            self._note("bare_key")
        if colon.group().strip() != ":":
            self._note("full_width_punctuation" if "：" in colon.group() else "wrong_colon")
        return colon.end()

    def _cut_off_at(self, position: int) -> None:
        """Raise `CutOffError` if nothing but the beginning of a bare word is left of the text."""
        rest = self._text[position : position + 100]
        is_last = position + len(rest) >= len(self._text) and _LAST_WORD.fullmatch(rest)
        if is_last and (self.looks_like_json or self.has_bare_key or not self.has_members):
            raise CutOffError(position)

    # --- values ---

    def _value(self, frame: _Frame, position: int) -> int:
        text = self._text
        position = self._skip(position)
        sign = self._sign(position)
        if sign in OPENING and (sign not in "(（" or self._is_tuple(position)):
            return self._sub_document(frame, position)
        prefix = _PYTHON_PREFIX.match(text, position)
        if prefix is not None:
            self._note("python_literal")
            position, sign = prefix.end(), text[prefix.end()]
        if sign in CLOSERS:
            self._place.context = "member" if frame.opener == "{" else "element"
            self.looks_like_json = self.looks_like_json or frame.opener != "{"
            value, position = self._quoted.read(position)
            self.looks_like_json = True
            while (joined := _JOINED.match(text, position)) is not None:
                self._note("concatenation")
                more, position = self._quoted.read(joined.end() - 1)
                value += more
            self._put(frame, value, position)
            return position
        return self._bare(frame, position)

    def _sub_document(self, frame: _Frame, position: int) -> int:
        """Open a container, or take it whole if it is strict JSON: a document is rarely damaged everywhere."""
        if self._trials and self._text[position] in "{[":
            try:
                value, end = scan(self._text, position)
            except NotJsonError:
                self._trials -= 1
                self._budget.spend(5)
            else:
                self._put(frame, value, position)
                self.looks_like_json = self.looks_like_json or isinstance(value, dict)
                return self._past_comma(end)
        self._open(position)
        return position + 1

    def _is_tuple(self, position: int) -> bool:
        """Tell whether a parenthesis opens a Python tuple: a comma or its end comes after its first, simple value."""
        return _TUPLE.match(self._text, position) is not None

    def _bare(self, frame: _Frame, position: int) -> int:
        """Read a value without quotes: a number, a literal, or a word as it is written."""
        text = self._text
        end = self._bare_end(frame, position)
        word = text[position:end].strip(SPACE)
        if not word:
            if end >= len(text):
                raise CutOffError(position)
            what = f"the value of {frame.key[:80]!r}" if frame.key is not None else "a value"
            raise BrokenError(position, f"{what} is missing", looks=self.looks_like_json)
        if end >= len(text):
            raise CutOffError(position)
        if word[0] in ":：=":
            raise BrokenError(position, f"{word[0]!r} where a value was expected", looks=self.looks_like_json)
        if frame.opener != "{" and _MEMBER_LIKE.match(word):
            raise BrokenError(position, "a member where an element was expected", looks=self.looks_like_json)
        if frame.opener != "{" and _NUMBERS_APART.match(word):
            if _APART.match(word):
                raise AmbiguousError(position, "one number with spaces in it, or several")
            first = re.match(r"\S+", word)
            self._put(frame, self._scalar(first.group(), position), position)  # type: ignore[union-attr]
            return position + first.end()  # type: ignore[union-attr]
        self._put(frame, self._scalar(word, position), position)
        return end

    def _bare_end(self, frame: _Frame, position: int) -> int:
        """Find where a value without quotes ends: at a bracket, a comment, or a comma or line's end that fits."""
        text, at, is_member = self._text, position, frame.opener == "{"
        while True:
            self._budget.spend()
            found = _BARE_STOP.search(text, at, position + _MAX_BARE)
            if found is None:
                if position + _MAX_BARE < len(text):
                    raise BrokenError(position, "a value without quotes that does not end")
                return len(text)
            sign, here, at = found.group(), found.start(), found.end()
            if sign in ENDS or sign.startswith(("/", "#")):
                return here
            if sign in ")）" and self._stack[-1].opener != "(":
                continue
            if sign in ")）" or self._place.ends_bare(here, position, is_member=is_member):
                return here
            if sign in COMMAS and not (is_member and _NO_COLON.match(text, at)):
                continue
            if sign in "\n\r":
                raise BrokenError(here, "a value without quotes that goes on in the next line")
            if sign.startswith(("...", "…")):
                raise AmbiguousError(here, "an ellipsis: something was left out")
            raise BrokenError(here, f"{sign!r} in a value without quotes")

    def _scalar(self, word: str, position: int) -> Any:
        if word in _LITERALS:
            return _LITERALS[word]
        for names, repair in ((_PYTHON, "python_literal"), (_JAVASCRIPT, "javascript_literal")):
            if word in names:
                self._note(repair)
                return names[word]
        if _NO_VALUES.match(word):
            raise AmbiguousError(position, f"{word} is no JSON value")
        half = word.translate(_TO_HALF_WIDTH) if _FULL_DIGIT.search(word) else word
        number = self._number(half)
        if number is not None:
            if half != word:
                self._note("full_width_digits")
            return number
        if _STRAY.match(word) or _LISTED.match(word):
            raise BrokenError(position, f"not a value: {word[:40]!r}", looks=self.looks_like_json)
        if _ENTITY.search(word):
            raise BrokenError(position, "an HTML entity in a value without quotes", looks=True)
        if _CALL.match(word):
            raise BrokenError(position, f"an expression where a value was expected: {word[:40]!r}")
        self._note("bare_value")
        return word

    def _number(self, word: str) -> int | float | None:
        if _STRICT_NUMBER.match(word):
            return whole_number(word) if _INTEGER.match(word) else real_number(word)
        if _HEXADECIMAL.match(word):
            self._note("number_format")
            return int(word, 16)
        if _GROUPED.match(word):
            self._note("number_format")
            return whole_number(word.replace("_", ""))
        if _NUMBER.match(word) and not _LEADING_ZERO.match(word):
            self._note("number_format")
            return whole_number(word.lstrip("+")) if _INTEGER.match(word) else real_number(word)
        return None

    # --- signs ---

    def _skip(self, position: int) -> int:
        """Skip space and comments."""
        if '"' <= self._text[position : position + 1] <= "~" and self._text[position] not in "#/":
            return position
        end, marks = self._place.skip(position)
        for repair, words in marks:
            self._note(repair)
            if repair == "comment" and _NO_REMARK.match(words):
                raise AmbiguousError(position, f"a part of the document, or a comment: {words[:60]!r}")
            if repair == "comment" and _LEFT_OUT.search(_NOT_LEFT_OUT.sub("", words)):
                raise AmbiguousError(position, f"a comment says that something was left out: {words[:60]!r}")
        return end

    def _sign(self, position: int) -> str:
        if position >= len(self._text):
            raise CutOffError(position)
        return self._text[position]

    def _note(self, repair: str) -> None:
        self._repairs[repair] = None


_LAST_WORD = re.compile(r"(?:/\*?|[\w$-]*)\s*")
_NO_BEGINNING = frozenset("\n\r")
#: A value without quotes is no longer than this.
_MAX_BARE = 5_000
_JOINED = re.compile(r"\s*\+\s*(?=[\"'])[\"']")
_TUPLE = re.compile(
    r"[(（]\s*(?:[)）]|(?:\"[^\"\n]{0,200}\"|'[^'\n]{0,200}'|-?[0-9.]{1,30}|True|False|None|\()\s*(?:,|\(|[)）]\s*[,\])}]))"
)


def _plain(word: str) -> Any:
    if word in _LITERALS:
        return _LITERALS[word]
    return float(word) if "." in word else int(word)
