"""The scanner: which spans of a text, and which fields of a value, hold data that should not leave."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchrun.boundary.addresses import ADDRESSES
from batchrun.boundary.detector import Detector, Span, as_written
from batchrun.boundary.fields import Fields, Place, as_text, path_of, rebuilt, texts
from batchrun.boundary.keys import KEYS
from batchrun.boundary.numbers import NUMBERS
from batchrun.boundary.placeholders import LITERAL, Placeholders, lookalikes
from batchrun.boundary.view import View, flatten
from batchrun.boundary.words import Words

#: The name of hits on the user's own words.
WORD = "word"
_BUILT_IN = (*KEYS, *NUMBERS, *ADDRESSES)
#: The names of all detectors, in the order in which they win where two find the same span.
DETECTORS = tuple(detector.name for detector in _BUILT_IN)
_DATA_URL = re.compile(r"data:(?:[a-z]{1,20}/[a-z0-9.+\-]{1,60})?(?:;charset=[\w\-]{1,20})?;base64,[A-Za-z0-9+/=]*")
#: How many texts, of how many characters, are remembered as clean.
_MOST_CLEAN = 1024
_LONGEST_CLEAN = 8192
#: How often a text is looked at again when what was found in it is covered.
_ROUNDS = 64
#: Nothing that is looked for by form does without a letter or digit; many a Chinese text has none.
_PLAIN = re.compile(r"[0-9A-Za-z]")
_NAME = re.compile(r"[^\W_]\w{0,39}")


@dataclass(frozen=True, slots=True)
class Hit:
    """Where a detector found something: offsets in the original text. The value itself is never kept here."""

    detector: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Finding:
    """A hit in a field of a value, such as `messages[0].content`; a hit in a key has the path of the field itself."""

    path: str
    hit: Hit


class Scanner:
    """Finds and replaces what built-in detectors, the user's patterns and the user's words describe.

    `detectors` are names of `DETECTORS`, all of them where it is None. `patterns` are regular expressions by name;
    they see the text as written and its plain view, and like any regular expression one of them can take exponential
    time. `include` and `skip` name fields of the values given to `scan` and `redact_value`, dotted where nested and
    without the places in lists: `messages.content`; a field covers everything in it.
    """

    def __init__(
        self, detectors: Iterable[str] | None = None, patterns: Mapping[str, str] | None = None,
        words: Iterable[str] = (), include: Iterable[str] = (), skip: Iterable[str] = (),
    ) -> None:  # fmt: skip
        """Raise `ValueError` that names a detector, pattern or word that cannot be used."""
        self._patterns = {name: _compiled(name, source) for name, source in (patterns or {}).items()}
        words = tuple(words)
        self._words = Words(words) if words else None
        chosen = _chosen(detectors)
        self._groups = _by_trigger(chosen)
        self._canonical = {detector.name: detector.canonical for detector in chosen}
        names = [LITERAL, *self._canonical, WORD, *self._patterns]
        self._labels = frozenset(name.upper() for name in names)
        self._ranks = {name: rank for rank, name in enumerate(names)}
        self._fields = Fields(include, skip)
        #: Texts without a hit among the first that were scanned: keys, system prompts, what is in every request.
        self._clean: set[str] = set()

    def find(self, text: str) -> list[Hit]:
        """Give the hits in a text, in order; spans that overlap are one hit, named after the longest of them."""
        found = self._found(text)
        return self._merged(found) if found else []

    def scan(self, value: Any, path: str = "") -> list[Finding]:
        """Give the hits in every string, key and whole number of a JSON value, such as a request body.

        `path` is what the value is called. The bytes of a data URL in base64 are skipped.
        """
        return [Finding(self.name(place, path), hit) for place, _, hit in self.hits(value)]

    def hits(self, value: Any) -> Iterator[tuple[Place, str, Hit]]:
        """Yield the hits in a JSON value, each with its place and the text in which it is."""
        for place, text in texts(value, self._fields):
            if found := self._looked(text):
                yield from ((place, text, hit) for hit in self._merged(found))

    def is_clean(self, value: Any) -> bool:
        """Tell whether there is no hit in a JSON value; this takes half of the time of `hits`, which says where."""
        if not self._fields.all:
            return next(self.hits(value), None) is None
        clean = self._clean
        stack = [value]
        while stack:
            one = stack.pop()
            if type(one) is str:
                if one not in clean and self._looked(one):
                    return False
            elif isinstance(one, dict):
                stack += one
                stack += one.values()
            elif isinstance(one, list | tuple):
                stack += one
            elif (text := as_text(one)) is not None and self._looked(text):
                return False
        return True

    def _looked(self, text: str) -> list[tuple[str, int, int]]:
        """Give what is found in a text, and remember one in which nothing is."""
        clean = self._clean
        if text in clean:
            return []
        found = self._found(text)
        if not found and len(clean) < _MOST_CLEAN and len(text) <= _LONGEST_CLEAN:
            clean.add(text)
        return found

    def name(self, place: Place, path: str = "") -> str:
        """Give the path of a place, in which a key that is a hit itself is masked."""
        return path_of(place, path, self._masked)

    def redact(
        self, text: str, placeholders: Placeholders, spared: Callable[[str], bool] = lambda _: False,
        *, literals: bool = True,
    ) -> str:  # fmt: skip
        """Put a placeholder for every hit.

        With `literals` what looks like a placeholder already gets one too, to come back as it was. The same value gets
        the same placeholder for as long as `placeholders` is the same. Values that are `spared` stay.
        """
        hits = self._uncovered(text, spared, literals=literals)
        if not hits:
            return text
        parts: list[str] = []
        position = 0
        for hit in hits:
            value = text[hit.start : hit.end]
            canonical = self._canonical.get(hit.detector, as_written)(flatten(value).text)
            parts += text[position : hit.start], placeholders.put(hit.detector, canonical, value)
            position = hit.end
        return "".join([*parts, text[position:]])

    def redact_value(
        self, value: Any, placeholders: Placeholders, spared: Callable[[str], bool] = lambda _: False
    ) -> Any:
        """Give a copy of a JSON value with all its strings and keys redacted; a number with a hit becomes a string."""
        return rebuilt(value, lambda text: self.redact(text, placeholders, spared), self._fields)

    def _uncovered(self, text: str, spared: Callable[[str], bool], *, literals: bool) -> list[Hit]:
        """Give the hits in a text, and those that come to light when the ones beside them are gone."""
        more = [one for one in self._found(text) if not spared(text[one[1] : one[2]])]
        more += [(LITERAL, start, end) for start, end in (lookalikes(text, self._labels) if literals else ())]
        found: list[tuple[str, int, int]] = []
        for _ in range(_ROUNDS):
            if not more:
                break
            found += more
            text = _covered(text, self._merged(more))
            more = [one for one in self._found(text) if not spared(text[one[1] : one[2]])]
        return self._merged(found) if found else []

    def _masked(self, text: str) -> str:
        """Put the detector's name for every hit, for texts that people see."""
        for hit in reversed(self.find(text)):
            text = f"{text[: hit.start]}<{hit.detector}>{text[hit.end :]}"
        return text

    def _found(self, text: str) -> list[tuple[str, int, int]]:
        if (bytes_end := _data_url_end(text)) > 0:
            return [(name, start + bytes_end, end + bytes_end) for name, start, end in self._found(text[bytes_end:])]
        view = flatten(text)
        plain = view.text
        found = [
            (name, *view.original(*span))
            for trigger, group in (self._groups if _PLAIN.search(plain) else ())
            if trigger(plain)
            for name, find in group
            for span in find(plain)
        ]
        if self._words is not None:
            found += [(WORD, *view.original(*span)) for span in self._words.find(plain)]
        for name, pattern in self._patterns.items():
            found += [(name, *span) for span in _matches(pattern, text, view)]
        return found

    def _merged(self, found: list[tuple[str, int, int]]) -> list[Hit]:
        """Join spans that overlap; the longest gives the name, then the first detector."""
        found.sort(key=lambda one: (one[1], one[2], self._ranks[one[0]]))
        merged: list[Hit] = []
        longest = 0
        for name, start, end in found:
            last = merged[-1] if merged else None
            if last is None or start >= last.end:
                merged.append(Hit(name, start, end))
                longest = end - start
                continue
            wins = (start - end, self._ranks[name]) < (-longest, self._ranks[last.detector])
            merged[-1] = Hit(name if wins else last.detector, last.start, max(end, last.end))
            longest = max(longest, end - start)
        return merged


def _covered(text: str, hits: Iterable[Hit]) -> str:
    """Put brackets over hits, as a placeholder has them at its ends."""
    parts: list[str] = []
    position = 0
    for hit in hits:
        parts += text[position : hit.start], "]" * (hit.end - hit.start)
        position = hit.end
    return "".join([*parts, text[position:]])


def _data_url_end(text: str) -> int:
    """Give the offset behind the bytes of a data URL, which are no text and can be megabytes; 0 where there is none."""
    found = _DATA_URL.match(text) if text.startswith("data:") else None
    return found.end() if found else 0


def _chosen(names: Iterable[str] | None) -> Sequence[Detector]:
    if names is None:
        return _BUILT_IN
    wanted = set(names)
    if unknown := sorted(wanted.difference(DETECTORS)):
        raise ValueError(f"detectors: there is no {unknown[0]!r}; there are {', '.join(DETECTORS)}")
    return [detector for detector in _BUILT_IN if detector.name in wanted]


_Finder = tuple[str, Callable[[str], Iterable[Span]]]


def _by_trigger(detectors: Iterable[Detector]) -> list[tuple[Callable[[str], object], list[_Finder]]]:
    groups: dict[Callable[[str], object], list[_Finder]] = {}
    for detector in detectors:
        groups.setdefault(detector.trigger, []).append((detector.name, detector.find))
    return list(groups.items())


def _compiled(name: str, source: str) -> re.Pattern[str]:
    if not (_NAME.fullmatch(name) and _NAME.fullmatch(name.upper())):
        raise ValueError(f"patterns: {name!r} is no name: a letter or digit, then letters, digits and _, at most 40")
    if name in (*DETECTORS, WORD, LITERAL):
        raise ValueError(f"patterns: {name!r} is the name of a built-in detector")
    try:
        return re.compile(source)
    except re.error as error:
        raise ValueError(f"patterns.{name}: {error}") from error
    except (OverflowError, RecursionError) as error:
        raise ValueError(f"patterns.{name}: cannot be compiled: {error}") from error


def _matches(pattern: re.Pattern[str], text: str, view: View) -> Iterator[Span]:
    """Yield the matches in the text as written and in its plain view that are not empty."""
    yield from (found.span() for found in pattern.finditer(text) if found.end() > found.start())
    if view.text != text:
        yield from (
            view.original(*found.span()) for found in pattern.finditer(view.text) if found.end() > found.start()
        )
