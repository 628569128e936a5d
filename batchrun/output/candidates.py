"""Where in an answer JSON may stand: in fences and between words; which braces of prose it is not."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from batchrun.output.labels import Label, label_of, words_before
from batchrun.output.quoted import ESCAPES
from batchrun.output.signs import ENDS, SPACE, BrokenError, Budget, CutOffError, starts_line
from batchrun.output.strict import NotJsonError, UnkeepableError, loads, scan
from batchrun.output.tolerant import Reader
from batchrun.records import readable

if TYPE_CHECKING:
    from collections.abc import Iterator

_S = rf"[{SPACE}]*+"
_ENTITY = r"(?:quot|#34|#39|apos|#x22|#x27|ldquo)"
_QUOTE = r"[\"“”'‘’「『＂`]"
_COMMON = rf"{_QUOTE}|//|/\*|#|,|&{_ENTITY};|\\+[\"n]|\Z"
_OPENER = re.compile(
    rf"[{{｛](?={_S}(?:{_COMMON}|[}}｝]|[^\s\"“”'‘’「」{{}}｛｝［］\[\]:：,，…=()]{{1,60}}[ \t]*[:：=]"
    r"|[\w$-]{1,60}\s*\Z))"
    r"|(?:(?<=\n)|(?<![\s\S])|(?<=[:：]))[{｛](?=[^\n{}｛｝]{0,40}?[\"”'’][ \t]*[:：])"
    rf"|[\[［](?={_S}(?:{_COMMON}|[\]］{{｛\[［(\w\-+.…]))"
    rf"|【(?={_S}(?:[\"“{{｛]))"
    r"|`{3,}|~{3,}"
)
_ESCAPED = re.compile(rf"[{{\[]{_S}(?:[{{\[]{_S}){{0,5}}\\+[\"n]")
#: Quotes escaped as HTML has them, where a string begins or ends.
_ENTITIES = re.compile(rf"[{{\[｛［:：,，]{_S}&{_ENTITY};|&{_ENTITY};{_S}[:：,，}}\]｝］]")
_STRICT = re.compile(r"[{\[][ \t\r\n]*[\"{\[\]}\-0-9tfn]")
_LANGUAGE = re.compile(r"[ \t]*([\w+#.-]*)")
_JSON_LANGUAGES = frozenset(
    {"", "json", "jsonc", "json5", "jsonl", "ndjson", "jsonlines", "text", "txt", "plaintext", "output", "html"}
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|[\s\S])")
#: What begins so was meant to be JSON; a quote after a brace may begin a set of mathematics.
_BEGINS = re.compile(rf"[\[［]{_S}(?:{_QUOTE}|[{{\[｛［])|[{{｛]{_S}[{{\[]")
_BEGINS_SET = re.compile(rf"[{{｛]{_S}{_QUOTE}[^\"“”'\n]{{0,80}}[\"”'’]{_S}[,，、}}｝|]")
_BEGINS_MEMBER = re.compile(rf"[{{｛](?:{_S}{_QUOTE}|[^\n{{}}｛｝]{{0,40}}?[\"”'’][ \t]*[:：])")
_MEMBERS_BEFORE = re.compile(
    r"[\"'“”’\w]\s*[:：]\s*[^,，\n]{1,60}[,，]\s*[\"'“‘]?\w[^\"'“”,，\n]{0,40}[\"'”’]?\s*[:：]\s*\Z"
)
_OPENED_BEFORE = re.compile(r"[{｛\[［]\s*\Z")
_GOES_ON_WITH = re.compile(
    r"\s*+(?:[,，;；\"“]|\w{1,40}[\"'”]?[:：](?![-)]))|\w{1,40}[\"”]\s*[,，}\]｝］】]|\s*+\w{1,40}[\"”]\s*[,，]"
)
_WORD = re.compile(r"[{｛]\s*[\w$-]+\s*\Z")
_NUMBERS = re.compile(r"[\[［][\s\d,，.\-+eE\[\]]*\Z")
#: After an object, this is a member of it that stands outside.
_MEMBER_AFTER = re.compile(rf"\s*+[,，]?\s*+{_QUOTE}[^\"“”'\n{{}}]{{1,100}}[\"”’'」』＂`]\s*+[:：]")
_WORD_AFTER = re.compile(r"\s*+,\s*+[^\W\d]\w{0,40}\s*+[:：]")
#: Before a bracket, these make it a part of something.
_KEY_BEFORE = re.compile(r"[\"”’'」』\w]\s*[:：]\s*\Z")
_COMMA_BEFORE = re.compile(r"[,，]\s*\Z")
#: After a bracket too many, these show that it closed something.
_GOES_ON = re.compile(r"[}\]｝］】\s]*+[,，\"“{\[]")
_MEMBER_BEFORE = re.compile(r"\"[^\"\n]{1,100}\"\s*:\s*\Z")
#: A text that ends with one of these was not cut off in the middle of a value.
_LAST_SIGNS = frozenset("}]｝］】`。.！!？?）)")
_COMMENT_LINE = re.compile(r"\n[ \t]*+(?://|#)[^\n]*\Z")
_COMMENTS = re.compile(r"//[^\n]*|/\*[^*]*+(?:\*(?!/)[^*]*+)*+(?:\*/)?|(?<=\s)#[^\n]*")
#: A line of words after JSON.
_WORDS_AGAIN = re.compile(r"\n(?=[^\W\d_][^\"{}\[\]\n]{2,60}[:：]?[ \t]*\n)|\n(?=[^\W\d_][^\"{}\[\]\n]{2,60}[:：])")
#: So many parts of a text are read with one layer of escapes taken off.
_MOST_UNESCAPINGS = 4
_LONG_REFERENCE = re.compile(r"&#x?[0-9a-fA-F]{9}")
_SCALAR_FENCE = re.compile(r"^[ \t]*(`{3,9}|~{3,9})[\w-]*[ \t]*\n([^\n]{0,2000})\n[ \t]*\1", re.MULTILINE)
_BRACKETS = re.compile(r"[{}\[\]｛｝［］]")
_CITING = re.compile(
    r"(?:见|参考|文献|参阅|引用|引|注|图|表|式|章|节|页|如|第|脚注|来源|出处|间|于|集合|数组|下标|索引|[A-Za-z0-9_)\]])\s*\Z"
)
_NAMING = re.compile(r"(?:\A|[:：=\n]|是|为|成|果|案|出)\s*\Z")


@dataclass(slots=True)
class Candidate:
    """A piece of JSON in an answer, or of what was meant to be JSON: then `problem` says what is wrong with it."""

    start: int
    end: int
    value: Any = None
    repairs: tuple[str, ...] = ()
    is_fenced: bool = False
    #: Where the candidate before it ends.
    begin: int = 0
    problem: str | None = None
    #: Whether it may as well be something that prose has in brackets.
    is_weak: bool = False
    is_tool_call: bool = False

    def before(self, text: str) -> str:
        """Give the sentence before it."""
        return words_before(text, self.begin, self.start)

    def between(self, text: str) -> str:
        """Give the words between the candidate before it and this one, the last 300 characters at most."""
        return text[max(self.begin, self.start - 300) : self.start]

    def after(self, text: str) -> str:
        """Give the words after it, 60 characters at most."""
        return text[self.end : self.end + 60]

    def label_in(self, text: str) -> Label:
        """Tell what the text calls it."""
        return label_of(self.before(text), self.after(text))


@dataclass(slots=True)
class Found:
    """All candidates of a text, and whether the last one is cut off by its end."""

    candidates: list[Candidate] = field(default_factory=list)
    is_cut_off: bool = False


@dataclass(slots=True)
class Fence:
    """A fence that is open: its mark, where its content begins and ends, whether JSON is expected in it."""

    mark: str
    begin: int
    end: int
    holds_json: bool
    is_named: bool


class Finder:
    """Finds the candidates of one text, from its beginning to its end."""

    def __init__(self, text: str, budget: Budget) -> None:
        self._text, self._budget = text, budget
        self._reader = Reader(text, budget)
        self._found = Found()
        self._fence: Fence | None = None
        #: The next mark that closes each kind of fence, the reader of a fence's content, the next escaped quote.
        self._closings: dict[str, re.Match[str] | None] = {}
        self._fence_reader: tuple[int, int, Reader] | None = None
        self._entity = -1
        self._unescapings = 0

    def find(self) -> Found:
        """Give them. Raises `BudgetError` where that would take too long."""
        text, position = self._text, 0
        while not self._found.is_cut_off:
            self._budget.spend(2)
            opener = _OPENER.search(text, position)
            if opener is None:
                break
            if opener.group()[0] in "`~":
                position = self._mark(opener.group(), opener.end())
            else:
                position = self._try(opener.start())
        fence = self._fence
        if fence is not None and fence.holds_json and not text[fence.begin :].strip():
            # A mark without a name at the very end may as well be one that closes a fence that was never opened.
            self._found.is_cut_off = self._found.is_cut_off or fence.is_named or not self._found.candidates
        return self._found

    # --- fences ---

    def _mark(self, mark: str, end: int) -> int:
        """Open or close a fence."""
        if self._fence is not None:
            if mark[0] == self._fence.mark[0] and len(mark) >= len(self._fence.mark):
                self._fence = None
            return end
        language = _LANGUAGE.match(self._text, end)
        name = language.group(1).lower() if language else ""
        begin = language.end() if language and name in _JSON_LANGUAGES else end
        holds_json = name in _JSON_LANGUAGES or not name.isalpha()
        self._fence = Fence(mark, begin, self._closing_after(mark, end), holds_json, bool(name))
        return begin

    def _closing_after(self, mark: str, end: int) -> int:
        known = self._closings.get(mark)
        if mark not in self._closings or (known is not None and known.start("mark") < end):
            known = self._closings[mark] = _closing(mark).search(self._text, end)
        return known.start("mark") if known is not None else len(self._text)

    def _past(self, end: int) -> int:
        """Go on behind a candidate; one that holds the mark of its fence in a string reaches behind that."""
        fence = self._fence
        if fence is not None and end > fence.end:
            fence.end = self._closing_after(fence.mark, end - 1)
        return end

    def _region_end(self) -> int:
        return self._fence.end if self._fence is not None else len(self._text)

    # --- one bracket ---

    def _try(self, start: int) -> int:
        """Read what begins at a bracket; give where to look on."""
        text = self._text
        self._budget.spend(2)
        if _ESCAPED.match(text, start):
            if self._unescapings < _MOST_UNESCAPINGS:
                return self._read_escaped(start)
            return self._broken(start, "an escaped document among others")
        if _STRICT.match(text, start):
            try:
                value, end = scan(text, start)
            except NotJsonError:
                self._budget.spend(5)
            except UnkeepableError as error:
                return self._broken(start, str(error))
            else:
                return self._add(start, end, value, ())
        if self._entity < start:
            found = _ENTITIES.search(text, start)
            self._entity = found.start() if found else len(text)
        if self._entity < self._region_end() and self._unescapings < _MOST_UNESCAPINGS:
            return self._read_escaped(start)
        return self._read_tolerantly(start)

    def _read_tolerantly(self, start: int) -> int:
        """Read with repairs: up to the end of the fence, if there is one, else up to the end of the text."""
        fence = self._fence
        if fence is None or fence.end >= len(self._text):
            return self._read_with(self._reader, 0, start)
        if self._fence_reader is None or self._fence_reader[:2] != (fence.begin, fence.end):
            reader = Reader(self._text[fence.begin : fence.end], self._budget)
            self._fence_reader = fence.begin, fence.end, reader
        reader = self._fence_reader[2]
        try:
            return self._read_with(reader, fence.begin, start)
        except CutOffError:
            # A string may hold the mark that ends a fence.
            return self._read_past_fence(start, reader)

    def _read_with(self, reader: Reader, shift: int, start: int) -> int:
        """Read with a reader of the text from `shift` on."""
        try:
            reading = reader.read(start - shift)
        except BrokenError as error:
            return self._not_read(start, reader, error, shift)
        except UnkeepableError as error:
            return self._broken(start, str(error))
        except CutOffError:
            if reader is not self._reader:
                raise
            return self._cut(start, reader)
        return self._add(start, reading.end + shift, reading.value, reading.repairs, is_quoted=reading.is_quoted)

    def _not_read(self, start: int, reader: Reader, error: BrokenError, shift: int) -> int:
        """Go past what could not be read: nothing inside of what was meant to be JSON is taken for the whole."""
        text = self._text
        if reader.looks_like_json or error.looks or _BEGINS.match(text, start):
            is_certain = reader.looks_like_json or error.looks
            return self._broken(start, f"character {error.position + shift}: {error.reason}", is_certain=is_certain)
        if _BEGINS_SET.match(text, start):
            return self._past(self._balanced_end(start))
        if _BEGINS_MEMBER.match(text, start):
            return self._broken(start, f"character {error.position + shift}: {error.reason}")
        if text[start] in "{｛" and (reader.has_members or reader.has_bare_key):
            return self._past(self._balanced_end(start))
        return start + 1

    def _read_past_fence(self, start: int, inner: Reader) -> int:
        looks_like_json = inner.looks_like_json or _BEGINS.match(self._text, start) is not None
        try:
            reading = self._reader.read(start)
        except (BrokenError, CutOffError, UnkeepableError):
            if not looks_like_json:
                return start + 1
            end = self._region_end()
            candidate = self._make(start, end, None, ())
            candidate.problem = CUT_IN_FENCE
            self._found.candidates.append(candidate)
            return end
        return self._add(start, reading.end, reading.value, reading.repairs, is_quoted=reading.is_quoted)

    def _cut(self, start: int, reader: Reader) -> int:
        text = self._text
        looks_like_json = reader.looks_like_json or reader.begins_quoted or _BEGINS.match(text, start) is not None
        if not looks_like_json and (reader.has_bare_key or _NUMBERS.match(text, start) or _WORD.match(text, start)):
            looks_like_json = self._is_named(start, len(text))
        if looks_like_json or not _COMMENTS.sub("", text[start + 1 :]).strip(SPACE + "{["):
            candidate = self._make(start, len(text), None, ())
            if candidate.label_in(text) in (Label.EXAMPLE, Label.DRAFT):
                found = _WORDS_AGAIN.search(text, start)
                if found is not None:  # it was cut off before, and the answer goes on
                    return found.start()
            self._found.is_cut_off = True
        return start + 1

    def _broken(self, start: int, problem: str, *, is_certain: bool = True) -> int:
        end = self._balanced_end(start)
        candidate = self._make(start, end, None, ())
        candidate.problem = problem
        text = self._text
        candidate.is_weak = not is_certain and not starts_line(text, start, candidate.begin)
        if end == len(text):
            found = _WORDS_AGAIN.search(text, start)
            if candidate.label_in(text) in (Label.EXAMPLE, Label.DRAFT):
                end = candidate.end = found.start() if found is not None else end
            elif found is None and not candidate.is_weak and text.rstrip()[-1:] not in _LAST_SIGNS:
                self._found.is_cut_off = True  # whatever else is wrong with it
        self._found.candidates.append(candidate)
        return self._past(end)

    def _balanced_end(self, start: int) -> int:
        """Give where brackets are balanced again, whatever else stands there, or where a fence or the text ends."""
        depth = 0
        for bracket in _BRACKETS.finditer(self._text, start):
            depth += 1 if bracket.group() in "{[｛［" else -1
            if depth <= 0:
                return bracket.end()
        return max(self._region_end(), start + 1)

    # --- documents that were escaped as a whole ---

    def _read_escaped(self, start: int) -> int:
        """Read a document of which every string was escaped once more, as JSON or as HTML."""
        text, end = self._text, self._region_end()
        self._unescapings += 1
        found, repair = self._unescaped_in(start, end)
        if found.is_cut_off and end < len(text):
            # A string may hold the mark that ends a fence.
            longer, repair = self._unescaped_in(start, len(text))
            if not longer.is_cut_off:
                found, end = longer, len(text)
        is_open = text[start - 1 : start] == '"' and not text[:end].rstrip(SPACE).endswith('"')
        if is_open or (found.is_cut_off and not found.candidates):
            self._found.is_cut_off = True
            return end
        if len(found.candidates) != 1 or found.candidates[0].start:
            self._unescapings = _MOST_UNESCAPINGS
            if repair == "html_entities":
                return self._read_tolerantly(start)
            return self._broken(start, "an escaped document that cannot be read")
        only = found.candidates[0]
        if only.problem is not None:
            return self._broken(start, only.problem)
        return self._add(start, end, only.value, (repair, *only.repairs))

    def _unescaped_in(self, start: int, end: int) -> tuple[Found, str]:
        """Find the candidates of a region with one layer of escapes taken off; give the repair's name, too."""
        self._budget.spend((end - start) // 50)
        text, repair = self._text[start:end], "escaped_document"
        if _ESCAPED.match(text):
            text = _unescaped(text)
        elif _LONG_REFERENCE.search(text):
            return Found(), "html_entities"
        else:
            text, repair = html.unescape(text), "html_entities"
        text = readable(text)
        if _ESCAPED.match(text) or _ENTITIES.search(text):
            return Found(), repair  # escaped more than once
        return Finder(text, self._budget).find(), repair

    # --- candidates ---

    def _make(self, start: int, end: int, value: Any, repairs: tuple[str, ...]) -> Candidate:
        candidates = self._found.candidates
        begin = candidates[-1].end if candidates else 0
        fenced = self._fence is not None and self._fence.holds_json
        return Candidate(start, end, value, repairs, fenced, begin)

    def _add(self, start: int, end: int, value: Any, repairs: tuple[str, ...], *, is_quoted: bool = True) -> int:
        self._budget.spend(6)
        self._past(end)
        candidate = self._make(start, end, value, repairs)
        candidate.is_weak = not candidate.is_fenced and self._is_weak(candidate, is_quoted)
        fragment = self._is_fragment(candidate)
        if fragment:
            return self._broken(start, fragment)
        if candidate.is_weak and start == candidate.begin > 0:
            candidate.is_weak = False  # it follows another one without a word
        if candidate.is_weak and not self._is_named(start, end):
            return end
        if candidate.is_fenced and _COMMENT_LINE.search(self._text, max(candidate.begin, start - 200), start):
            return end
        self._found.candidates.append(candidate)
        return end

    def _is_fragment(self, candidate: Candidate) -> str:
        """Tell why a value is not a whole one: what stands beside it belongs to it."""
        text, start, end = self._text, candidate.start, candidate.end
        before = text[max(candidate.begin, start - 130) : start]
        follows_comma = _COMMA_BEFORE.search(before) is not None
        if _MEMBER_BEFORE.search(before):
            return "a value whose object has no beginning"
        if _OPENED_BEFORE.search(before) or _MEMBERS_BEFORE.search(before):
            return "a part of something that has no beginning"
        if (follows_comma or _KEY_BEFORE.search(before)) and self._is_in_brackets(candidate.begin, start):
            return "a part of something that cannot be read"
        if isinstance(candidate.value, dict):
            has_word_after = _WORD_AFTER.match(text, end) and text.count("}", end) > text.count("{", end)
            if has_word_after or _MEMBER_AFTER.match(text, end):
                return "members follow after the end of their object"
        after = text[end : end + 200].lstrip(SPACE)
        if after[:1] in ENDS and (follows_comma or candidate.is_weak or _GOES_ON.match(after)):
            return "a bracket closes after it that was not opened"
        return self._goes_on_after(end)

    def _goes_on_after(self, end: int) -> str:
        """Tell whether a value goes on after its end: more members or elements, and a bracket that was not opened."""
        text, depth = self._text, 0
        if _GOES_ON_WITH.match(text, end) is None:
            return ""
        limit = min(self._region_end() if self._region_end() >= end else len(text), end + 300)
        for bracket in _BRACKETS.finditer(text, end, limit):
            depth += 1 if bracket.group() in "{[｛［" else -1
            if depth < 0:
                return "it goes on after its end"
        return ""

    def _is_in_brackets(self, begin: int, start: int) -> bool:
        between = self._text[max(begin, start - 2000) : start]
        return any(between.count(one) > between.count(other) for one, other in (("{", "}"), ("[", "]"), ("｛", "｝")))

    def _is_weak(self, candidate: Candidate, is_quoted: bool) -> bool:
        value = candidate.value
        if isinstance(value, dict):
            is_plain = is_quoted or len(value) > 1 or starts_line(self._text, candidate.start, candidate.begin)
            return not value or not is_plain
        return not any(isinstance(one, str | dict | list) for one in value) or not (is_quoted or _holds_objects(value))

    def _is_named(self, start: int, end: int) -> bool:
        """Tell whether a bracket of numbers or bare words is given as a value, and not in passing."""
        text = self._text
        line = text.rfind("\n", max(0, start - 12), start) + 1 or max(0, start - 12)
        is_last = not text[end : end + 20].strip(SPACE) and text[start - 1 : start] in SPACE
        if text[start] in "{｛" and is_last:
            return True
        if text[end : end + 1] == "(" or _CITING.search(text, line, start):
            return False
        return is_last or line == start or _NAMING.search(text, line, start) is not None


#: What is wrong with a candidate in a fence that was closed before it.
CUT_IN_FENCE = "it is cut off: its fence ends before it"


@lru_cache(maxsize=16)
def _closing(mark: str) -> re.Pattern[str]:
    """Match the mark that closes a fence: on a line of its own or after a bracket; in a string there may be others."""
    return re.compile(rf"(?:\n[ \t>]*+|[}}\]｝］][ \t]*+)(?P<mark>{mark[0]}{{{len(mark)},}})(?!\w)")


def _holds_objects(value: list[Any]) -> bool:
    return any(isinstance(one, dict | list) for one in value)


def _unescaped(text: str) -> str:
    def replace(found: re.Match[str]) -> str:
        body = found.group(1)
        if len(body) == 5:
            return chr(int(body[1:], 16))
        return ESCAPES.get(body, body)

    return _ESCAPE.sub(replace, text)


def scalar_in_fence(text: str) -> Iterator[Any]:
    """Give the values of fences that hold nothing but one strict JSON value."""
    for found in _SCALAR_FENCE.finditer(text):
        try:
            yield loads(found.group(2).strip(SPACE))
        except ValueError:
            continue
