"""The guard at the data boundary: looks at what is about to leave, as the job says, and says what must not."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from batchrun.job import JobError, Prompt
from batchrun.records import Looked

if TYPE_CHECKING:
    from batchrun.boundary import Placeholders, Scanner
    from batchrun.job import DataBoundary, Job
    from batchrun.records import Item

_SHOWN = 5


class Guard:
    """Looks through the requests of one job. Raises `JobError` where the job asks for what cannot be looked for.

    `counts` has the items with hits by detector.
    """

    def __init__(self, boundary: DataBoundary, job_file: str | None = None) -> None:
        from batchrun.boundary import Fields, Scanner  # compiling its patterns takes longer than all of `--help`

        self.mode = boundary.scan
        self.counts: Counter[str] = Counter()
        words = (*boundary.words, *(_read_words(boundary) if boundary.words_file else ()))
        try:
            self._scanner = Scanner(boundary.detectors, boundary.patterns, words)
        except ValueError as error:
            raise JobError(f"{f'{job_file}: ' if job_file else ''}data_boundary.{error}") from error
        self._looked_at = Fields(boundary.include, boundary.skip)
        self._everything = Fields()

    def look(self, item: Item, body: dict[str, Any]) -> Looked:
        """Look through the part of an item's request body that is not the job's own.

        What is found comes from fields of the item; where `include` and `skip` leave a field out, its values may pass.
        No value that is found is in any message.
        """
        found = [(place, text[hit.start : hit.end], hit.detector) for place, text, hit in self._scanner.hits(body)]
        if not found:
            return Looked(body)
        fields = self._fields(item)
        hits = [
            (detector, fields.where(value) or self._scanner.name(place))
            for place, value, detector in found
            if not fields.spares(value)
        ]
        if not hits:
            return Looked(body)
        self.counts.update({detector for detector, _ in hits})
        if self.mode == "block":
            return Looked(body, problem=f"{_in_words(hits)}; nothing of it was sent (data_boundary.scan)")
        if self.mode == "warn":
            return Looked(body, warnings=tuple(f"data_boundary:{one}" for one in sorted({name for name, _ in hits})))
        redacted = _Redacted(self._scanner, fields)
        changed = self._scanner.redact_value(body, redacted.placeholders, fields.spares)
        return Looked(changed, warnings=("data_boundary:redacted",), redacted=redacted)

    def problems(self, texts: dict[str, str | None]) -> list[str]:
        """Tell what must not leave in the job's own texts, by their keys."""
        return [
            f"{key} holds what must not leave with every request: {', '.join(sorted({hit.detector for hit in hits}))}"
            for key, text in texts.items()
            if text and (hits := self._scanner.find(text))
        ]

    def _fields(self, item: Item) -> _ItemFields:
        return _ItemFields(self._scanner, item, self._looked_at, self._everything)


class _ItemFields:
    """The fields of an item, to find out where a value comes from."""

    def __init__(self, scanner: Scanner, item: Item, looked_at: Any, everything: Any) -> None:
        from batchrun.boundary import texts

        self._texts = [(scanner.name(place), text) for place, text in texts(item.fields, looked_at)]
        self._all = [] if looked_at.all else [text for _, text in texts(item.fields, everything)]

    def where(self, value: str) -> str | None:
        """Give the path of a field that is looked at and holds a value."""
        return next((path for path, text in self._texts if value in text), None)

    def spares(self, value: str) -> bool:
        """Tell whether a value stands in fields that are left out alone."""
        return any(value in text for text in self._all) and self.where(value) is None


class _Redacted:
    """The placeholders of one item."""

    def __init__(self, scanner: Scanner, fields: _ItemFields) -> None:
        from batchrun.boundary import Placeholders

        self._scanner, self._fields = scanner, fields
        self.placeholders: Placeholders = Placeholders()

    def redact(self, text: str) -> str:
        """Put placeholders into another text that goes the same way."""
        return self._scanner.redact(text, self.placeholders, self._fields.spares)

    def restore(self, value: Any) -> Any:
        """Put what they stand for back into a JSON value."""
        return self.placeholders.restore(value)


def guard_of(job: Job, schema: bytes | None) -> Guard | None:
    """Give the guard of a job, None if it wants none.

    Raises `JobError` if that cannot be, or if the job's own texts hold what must not leave.
    """
    if job.data_boundary.scan == "off":
        return None
    guard = Guard(job.data_boundary, str(job.path) if job.path else None)
    if guard.mode == "block":
        prompt = job.prompt or Prompt()
        texts = {"prompt.system": prompt.system, "prompt.user": prompt.user}
        problems = guard.problems({**texts, "structured.schema": schema.decode() if schema else None})
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
    return f"holds what must not leave: {', '.join(words[:_SHOWN])}{more}"


def _read_words(boundary: DataBoundary) -> list[str]:
    path = boundary.words_file
    if path is None:
        return []
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise JobError(f"data_boundary.words_file: {path}: not UTF-8 at byte {error.start}") from error
    except OSError as error:
        raise JobError(f"data_boundary.words_file: {path}: cannot be read: {error.strerror}") from error
    return [text for line in lines if (text := line.strip())]
