"""The guard at the data boundary: looks at what is about to leave, as the job says, and says what must not."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchrun.job import JobError, Prompt
from batchrun.records import Looked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrun.boundary import Fields, Placeholders, Scanner
    from batchrun.job import DataBoundary, Job
    from batchrun.records import Item

_SHOWN = 5
_LONG_NUMBER = re.compile(r"\d{6,}")
_NO_LETTERS = re.compile(r"[\W_]+")


class Guard:
    """Looks through the requests of one job. Raises `JobError` where the job asks for what cannot be looked for.

    `counts` has the items with hits by detector.
    """

    def __init__(self, boundary: DataBoundary, job_file: str | None = None) -> None:
        from batchrun.boundary import Fields, Scanner  # compiling its patterns takes longer than all of `--help`

        self.mode = boundary.scan
        self.counts: Counter[str] = Counter()
        words = (*boundary.words, *(_read_words(Path(boundary.words_file)) if boundary.words_file else ()))
        try:
            self._scanner = Scanner(boundary.detectors, boundary.patterns, words)
        except (ValueError, TypeError, AttributeError) as error:
            raise JobError(f"{f'{job_file}: ' if job_file else ''}data_boundary.{error}") from error
        self._looked_at = Fields(boundary.include, boundary.skip)

    def look(self, item: Item, body: dict[str, Any]) -> Looked | None:
        """Look through the part of an item's request body that is not the job's own; None if it may go as it is.

        What is found comes from fields of the item; where `include` and `skip` leave a field out, its values may pass.
        No value that is found is in any message.
        """
        if self._scanner.is_clean(body):
            return None
        found = [(place, text[hit.start : hit.end], hit.detector) for place, text, hit in self._scanner.hits(body)]
        fields = _ItemFields(self._scanner, item, self._looked_at)
        hits = [
            (detector, fields.where(value) or fields.masked(self._scanner.name(place)))
            for place, value, detector in found
            if not fields.spares(value)
        ]
        if not hits:
            return None
        self.counts.update({detector for detector, _ in hits})
        if self.mode == "block":
            return Looked(body, problem=_in_words(hits))
        if self.mode == "warn":
            return Looked(body, warnings=tuple(f"data_boundary:{one}" for one in sorted({name for name, _ in hits})))
        return self._redact(body, fields, hits)

    def _redact(self, body: dict[str, Any], fields: _ItemFields, hits: list[tuple[str, str]]) -> Looked:
        redacted = _Redacted(self._scanner, fields)
        changed = self._scanner.redact_value(body, redacted.placeholders, fields.spares)
        left = [text[hit.start : hit.end] for _, text, hit in self._scanner.hits(changed)]
        if all(fields.spares(value) or redacted.placeholders.holds(value) for value in left):
            return Looked(changed, warnings=("data_boundary:redacted",), redacted=redacted)
        return Looked(body, problem=f"{_in_words(hits)} (and not all of it could be redacted)")

    def problems(self, texts: dict[str, Any]) -> list[str]:
        """Tell what must not leave in the job's own texts and values, by their keys."""
        return [
            f"{key} holds what must not leave with every request: {', '.join(names)}"
            for key, value in texts.items()
            if (names := sorted({hit.detector for _, _, hit in self._scanner.hits(value)}))
        ]


class _ItemFields:
    """The fields of an item, to find out where a value comes from, and whether it may pass."""

    def __init__(self, scanner: Scanner, item: Item, looked_at: Fields) -> None:
        from batchrun.boundary import Fields, texts

        named = [(scanner.name(place), text) for place, text in texts(item.fields, looked_at)]
        everything = named
        if not looked_at.all:
            everything = [(scanner.name(place), text) for place, text in texts(item.fields, Fields())]
        # Where an item has none of the fields that are to be looked at, it is looked at as a whole.
        is_partial = not looked_at.all and (bool(named) or not looked_at.is_chosen)
        self._named = named if is_partial else everything
        self._spared = [text for _, text in everything] if is_partial else []
        self._places: dict[str, str] = {}
        for path, text in self._named:
            for hit in scanner.find(text):
                self._places.setdefault(text[hit.start : hit.end], path)
        self._values = sorted(self._places, key=len, reverse=True)
        self._bare = "\0".join(_bare(text) for _, text in self._named) if self._spared else ""

    def where(self, value: str) -> str | None:
        """Give the path of a field that is looked at and holds a value, as far as that is found out."""
        path = self._places.get(value)
        if path is None:
            path = next((path for path, text in self._named if value in text), None)
        return self.masked(path) if path else None

    def spares(self, value: str) -> bool:
        """Tell whether a value stands in fields that are left out, and in no spelling in one that is looked at."""
        if not self._spared or value in self._places or not any(value in text for text in self._spared):
            return False
        bare = _bare(value)
        return not bare or bare not in self._bare

    def masked(self, path: str) -> str:
        """Take what was found, and whatever else looks like a number of somebody's, out of a path that people see."""
        for value in self._values:
            path = path.replace(value, "…")
        return _LONG_NUMBER.sub("…", path)


class _Redacted:
    """The placeholders of one item."""

    def __init__(self, scanner: Scanner, fields: _ItemFields) -> None:
        from batchrun.boundary import Placeholders

        self._scanner, self._fields = scanner, fields
        self.placeholders: Placeholders = Placeholders()

    @property
    def digest(self) -> bytes:
        """Give a hash of the values that were taken out."""
        return self.placeholders.digest

    def redact(self, text: str) -> str:
        """Put placeholders into another text that goes the same way; those that stand in it already stay."""
        return self._scanner.redact(text, self.placeholders, self._fields.spares, literals=False)

    def restore(self, value: Any) -> Any:
        """Put what they stand for back into a JSON value."""
        return self.placeholders.restore(value)


def _bare(text: str) -> str:
    """Give the letters and digits of a text, in one width and case."""
    return _NO_LETTERS.sub("", unicodedata.normalize("NFKC", text)).casefold()


def guard_of(job: Job, schema: bytes | None, changed: Mapping[str, Any] | None = None) -> Guard | None:
    """Give the guard of a job, None if it wants none. `changed` are parameters given beside the job.

    Raises `JobError` if that cannot be, or if the job's own texts hold what must not leave.
    """
    if job.data_boundary.scan == "off":
        return None
    guard = Guard(job.data_boundary, str(job.path) if job.path else None)
    if guard.mode != "warn":
        prompt = job.prompt or Prompt()
        texts = {"prompt.system": prompt.system, "prompt.user": prompt.user}
        texts["structured.schema"] = schema.decode() if schema else None
        params = {f"params.{name}": {name: value} for name, value in {**job.params, **(changed or {})}.items()}
        problems = guard.problems({**texts, **params})
        if problems:
            raise JobError(f"{job.path}: {problem}" if job.path else problem for problem in problems)
    return guard


def comparing(job: Job) -> Guard | None:
    """Give the guard for requests that are made to be compared and not sent: only one that changes them matters."""
    return Guard(job.data_boundary) if job.data_boundary.scan == "redact" else None


def _in_words(hits: list[tuple[str, str]]) -> str:
    """Name what was found where, each once."""
    counted = Counter(hits)
    words = [f"{name} in {where}{f' ({count} times)' if count > 1 else ''}" for (name, where), count in counted.items()]
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return f"holds what must not leave: {', '.join(words[:_SHOWN])}{more}; nothing of it was sent (data_boundary.scan)"


def _read_words(path: Path) -> list[str]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise JobError(f"data_boundary.words_file: {path}: not UTF-8 at byte {error.start}") from error
    except OSError as error:
        raise JobError(f"data_boundary.words_file: {path}: cannot be read: {error.strerror}") from error
    return [text for line in lines if (text := line.strip())]
