"""Where in an answer JSON may stand: after the thoughts, in fences, between words; which braces of prose it is not."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from batchrun.output.labels import Label, label_of, words_before
from batchrun.output.signs import SPACE, BrokenError, Budget, CutOffError
from batchrun.output.strict import NotJsonError, UnkeepableError, loads, scan
from batchrun.output.tolerant import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator

_S = rf"[{SPACE}]*+"
_ENTITY = r"(?:quot|#34|#39|apos|#x22|#x27|ldquo)"
_QUOTE = r"[\"“”'‘’「『＂`]"
_COMMON = rf"{_QUOTE}|//|/\*|#|,|&{_ENTITY};|\\+[\"n]|\Z"
_OPENER = re.compile(
    rf"[{{｛](?={_S}(?:{_COMMON}|[}}｝]|[^\s\"“”'‘’「」{{}}\[\]:：,，…=()]{{1,60}}[ \t]*[:：=]))"
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
_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
#: After an object, this is a member of it that stands outside.
_MEMBER_AFTER = re.compile(r"\s*[,，]?\s*\"[^\"\n{}]{1,100}\"\s*[:：]")
#: Before a bracket, this makes it the value of a key whose own bracket is lost.
_KEY_BEFORE = re.compile(r"[\"”]\s*:\s*\Z")
_COMMENTS = re.compile(r"//[^\n]*|/\*[^*]*+(?:\*(?!/)[^*]*+)*+(?:\*/)?|(?<=\s)#[^\n]*")
#: A line of words after JSON.
_WORDS_AGAIN = re.compile(r"\n(?=[^\W\d_][^\"{}\[\]\n]{2,60}[:：]?[ \t]*\n)|\n(?=[^\W\d_][^\"{}\[\]\n]{2,60}[:：])")
_BRACKETS = re.compile(r"[{}\[\]｛｝［］]")
_CITING = re.compile(
    r"(?:见|参考|文献|参阅|引用|引|注|图|表|式|章|节|页|如|第|脚注|来源|出处|间|于|集合|数组|下标|索引|[A-Za-z0-9_)\]])\s*\Z"
)
_NAMING = re.compile(r"(?:\A|[:：=\n]|是|为|成|果|案|出)\s*\Z")

_THOUGHT_NAMES = "think|thinking|thought|thoughts|reasoning|reflection|seed:think|scratchpad|analysis"
_THOUGHT_TAG = re.compile(
    rf"(?P<open><(?:{_THOUGHT_NAMES})>|◁think▷|\[THINK\]|<\|(?:begin_of_thought|start_thinking)\|>)"
    rf"|(?P<close></(?:{_THOUGHT_NAMES})>|◁/think▷|\[/THINK\]|<\|(?:end_of_thought|end_thinking)\|>)",
    re.IGNORECASE,
)
#: So many tags are looked at closely.
_LOOKS = 50
_AFTER_THOUGHTS = re.compile(r"[ \t]*(?:\n|\r|[{\[`<｛]|\Z)")


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
    words: str = ""


def after_thoughts(text: str) -> str | None:
    """Give what comes after the thoughts of an answer, None if they do not end. An opening tag may be lost.

    Tags inside of a line are text that speaks of them.
    """
    begin = looks = 0
    opened: int | None = None
    mentioned = False
    for tag in _THOUGHT_TAG.finditer(text):
        if tag.lastgroup == "open":
            if opened is None and (looks := looks + 1) < _LOOKS and _is_in_brackets(text, begin, tag.start()):
                mentioned = True
                continue
            opened = tag.start() if opened is None else opened
            continue
        if mentioned and opened is None:
            mentioned, is_end = False, False
        elif opened is not None:
            is_end = _starts_line(text, opened, begin)
        else:
            is_end = begin == 0 and (
                _AFTER_THOUGHTS.match(text, tag.end()) is not None or text[tag.start() - 1] in "\n。！？.!?"
            )
        if is_end:
            begin, opened = tag.end(), None
    if opened is not None and _starts_line(text, opened, begin):
        return None
    return text[begin:] if begin else text


def _is_in_brackets(text: str, begin: int, at: int) -> bool:
    return text.count("{", begin, at) > text.count("}", begin, at)


def _starts_line(text: str, at: int, begin: int) -> bool:
    return at == begin or text[at - 1] == "\n" or not text[max(begin, at - 50) : at].strip(SPACE)


class Finder:
    """Finds the candidates of one text, from its beginning to its end."""

    def __init__(self, text: str, budget: Budget) -> None:
        self._text, self._budget = text, budget
        self._reader = Reader(text, budget)
        self._found = Found()
        #: The mark of the fence that is open, where its content ends, and whether JSON is expected in it.
        self._fence: str | None = None
        self._fence_end = 0
        #: The next mark that closes each kind of fence.
        self._closings: dict[str, re.Match[str] | None] = {}
        self._has_entities: bool | None = None
        self._fence_holds_json = False

    def find(self) -> Found:
        """Give them. Raises `BudgetError` where that would take too long."""
        text, position = self._text, 0
        while True:
            self._budget.spend()
            opener = _OPENER.search(text, position)
            if opener is None:
                break
            if opener.group()[0] in "`~":
                position = self._mark(opener.group(), opener.end())
            else:
                position = self._try(opener.start())
            if self._found.is_cut_off:
                break
        if (
            self._fence is not None
            and not self._found.candidates
            and self._fence_holds_json
            and not text[self._fence_begin :].strip()
        ):
            self._found.is_cut_off = True
        return self._found

    # --- fences ---

    def _mark(self, mark: str, end: int) -> int:
        """Open or close a fence."""
        if self._fence is not None:
            if mark[0] == self._fence[0] and len(mark) >= len(self._fence):
                self._fence = None
            return end
        language = _LANGUAGE.match(self._text, end)
        name = language.group(1).lower() if language else ""
        self._fence = mark
        self._fence_holds_json = name in _JSON_LANGUAGES or not name.isalpha()
        self._fence_begin = language.end() if language and name in _JSON_LANGUAGES else end
        closing = self._closing_after(mark, end)
        self._fence_end = closing.start("mark") if closing else len(self._text)
        return self._fence_begin

    def _closing_after(self, mark: str, end: int) -> re.Match[str] | None:
        if mark not in self._closings or ((known := self._closings[mark]) is not None and known.start() < end - 1):
            self._closings[mark] = _closing(mark).search(self._text, end)
        return self._closings[mark]

    # --- one bracket ---

    def _try(self, start: int) -> int:
        """Read what begins at a bracket; give where to look on."""
        text = self._text
        if _ESCAPED.match(text, start):
            return self._read_escaped(start)
        if _STRICT.match(text, start):
            try:
                value, end = scan(text, start)
            except NotJsonError:
                self._budget.spend(5)
            except UnkeepableError as error:
                return self._broken(start, str(error))
            else:
                return self._add(start, end, value, ())
        if self._has_entities is None:
            self._has_entities = _ENTITIES.search(text) is not None
        if self._has_entities and _ENTITIES.search(text, start, self._region_end()):
            return self._read_escaped(start)
        return self._read_tolerantly(start)

    def _region_end(self) -> int:
        return self._fence_end if self._fence is not None else len(self._text)

    def _read_tolerantly(self, start: int) -> int:
        """Read with repairs: up to the end of the fence, if there is one, else up to the end of the text."""
        if self._fence is None or self._fence_end >= len(self._text):
            return self._read_with(self._reader, start, start)
        reader = Reader(self._text[start : self._fence_end], self._budget)
        try:
            return self._read_with(reader, 0, start)
        except CutOffError:
            # A string may hold the mark that ends a fence.
            return self._read_past_fence(start, reader.looks_like_json)

    def _read_with(self, reader: Reader, begin: int, start: int) -> int:
        """Read with a reader of the text, for which the bracket at `start` stands at `begin`."""
        try:
            reading = reader.read(begin)
        except BrokenError as error:
            if reader.looks_like_json or error.looks:
                return self._broken(start, f"character {error.position - begin + start}: {error.reason}")
            return self._balanced_end(start) if reader.has_members and self._text[start] in "{｛" else start + 1
        except UnkeepableError as error:
            return self._broken(start, str(error))
        except CutOffError:
            if reader is not self._reader:
                raise
            return self._cut(start, reader.looks_like_json or reader.begins_quoted)
        end = reading.end - begin + start
        return self._add(start, end, reading.value, reading.repairs, is_quoted=reading.is_quoted)

    def _read_past_fence(self, start: int, looks_like_json: bool) -> int:
        try:
            reading = self._reader.read(start)
        except (BrokenError, CutOffError, UnkeepableError):
            if not looks_like_json:
                return start + 1
            candidate = self._make(start, self._fence_end, None, ())
            candidate.problem = CUT_IN_FENCE
            self._found.candidates.append(candidate)
            return self._fence_end
        end = self._add(start, reading.end, reading.value, reading.repairs, is_quoted=reading.is_quoted)
        self._fence = None
        return end

    def _cut(self, start: int, looks_like_json: bool) -> int:
        rest = self._text[start + 1 :]
        if not looks_like_json and self._reader.has_bare_key:
            looks_like_json = self._is_named(start, len(self._text))
        if looks_like_json or not _COMMENTS.sub("", rest).strip(SPACE + "{["):
            candidate = self._make(start, len(self._text), None, ())
            if candidate.label_in(self._text) in (Label.EXAMPLE, Label.DRAFT):
                found = _WORDS_AGAIN.search(self._text, start)
                if found is not None:  # it was cut off before, and the answer goes on
                    return found.start()
            self._found.is_cut_off = True
        return start + 1

    def _broken(self, start: int, problem: str) -> int:
        end = self._balanced_end(start)
        candidate = self._make(start, end, None, ())
        candidate.problem = problem
        if end == len(self._text) and candidate.label_in(self._text) in (Label.EXAMPLE, Label.DRAFT):
            found = _WORDS_AGAIN.search(self._text, start)
            end = candidate.end = found.start() if found is not None else end
        self._found.candidates.append(candidate)
        return end

    def _balanced_end(self, start: int) -> int:
        """Give where brackets are balanced again, whatever else stands there, or where a fence or the text ends."""
        depth = 0
        for bracket in _BRACKETS.finditer(self._text, start):
            depth += 1 if bracket.group() in "{[｛［" else -1
            if depth <= 0:
                return bracket.end()
        return self._fence_end if self._fence is not None else len(self._text)

    # --- documents that were escaped as a whole ---

    def _read_escaped(self, start: int) -> int:
        """Read a document of which every string was escaped once more, as JSON or as HTML."""
        end = self._region_end()
        found, repair = self._unescaped_in(start, end)
        if found.is_cut_off and end < len(self._text):
            # A string may hold the mark that ends a fence.
            longer, repair = self._unescaped_in(start, len(self._text))
            if not longer.is_cut_off:
                found, end = longer, len(self._text)
        if found.is_cut_off and not found.candidates:
            self._found.is_cut_off = True
            return end
        if len(found.candidates) != 1 or found.candidates[0].start:
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
        else:
            text, repair = html.unescape(text), "html_entities"
        if _ESCAPED.match(text) or _ENTITIES.search(text):
            return Found(), repair  # escaped more than once
        return Finder(text, self._budget).find(), repair

    # --- candidates ---

    def _make(self, start: int, end: int, value: Any, repairs: tuple[str, ...]) -> Candidate:
        candidates = self._found.candidates
        begin = candidates[-1].end if candidates else 0
        fenced = self._fence is not None and self._fence_holds_json
        return Candidate(start, end, value, repairs, fenced, begin)

    def _add(self, start: int, end: int, value: Any, repairs: tuple[str, ...], *, is_quoted: bool = True) -> int:
        text = self._text
        self._budget.spend(6)
        if _KEY_BEFORE.search(text, max(0, start - 40), start) and _member_before(text, start):
            return self._broken(start, "a value whose object has no beginning")
        if isinstance(value, dict) and _MEMBER_AFTER.match(text, end):
            return self._broken(start, "members follow after the end of their object")
        candidate = self._make(start, end, value, repairs)
        candidate.is_weak = not candidate.is_fenced and self._is_weak(candidate, is_quoted)
        if candidate.is_weak and not self._is_named(start, end):
            return end
        self._found.candidates.append(candidate)
        return end

    def _is_weak(self, candidate: Candidate, is_quoted: bool) -> bool:
        value = candidate.value
        if isinstance(value, dict):
            return not value or not (is_quoted or _starts_line(self._text, candidate.start, candidate.begin))
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


@lru_cache(maxsize=16)
def _closing(mark: str) -> re.Pattern[str]:
    """Match the mark that closes a fence: on a line of its own or after a bracket; in a string there may be others."""
    return re.compile(rf"(?:\n[ \t>]*|[}}\]｝］][ \t]*)(?P<mark>{mark[0]}{{{len(mark)},}})(?!\w)")


#: What is wrong with a candidate in a fence that was closed before it.
CUT_IN_FENCE = "it is cut off: its fence ends before it"


def _member_before(text: str, start: int) -> bool:
    return re.search(r"\"[^\"\n]{1,100}\"\s*:\s*\Z", text[max(0, start - 120) : start]) is not None


def _holds_objects(value: list[Any]) -> bool:
    return any(isinstance(one, dict | list) for one in value)


def _unescaped(text: str) -> str:
    def replace(found: re.Match[str]) -> str:
        body = found.group(1)
        if len(body) == 5:
            return chr(int(body[1:], 16))
        return _SIMPLE.get(body, body)

    return _ESCAPE.sub(replace, text)


def scalar_in_fence(text: str) -> Iterator[Any]:
    """Give the values of fences that hold nothing but one strict JSON value."""
    for found in re.finditer(r"(`{3,}|~{3,})[\w-]*[ \t]*\n(.{0,2000}?)\n[ \t]*\1", text, re.DOTALL):
        try:
            yield loads(found.group(2).strip(SPACE))
        except ValueError:
            continue
