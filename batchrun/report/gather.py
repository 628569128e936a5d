"""Reads the records of a run once, in bounded memory: distributions, counts and samples for the page."""

from __future__ import annotations

import calendar
import random
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from batchrun.records import ErrorKind
from batchrun.report.counting import Names, Reservoir, Sizes, Timeline
from batchrun.report.samples import Sample, failure_sample, result_sample
from batchrun.store.files import exactly, read_lines
from batchrun.store.queue import current_failures, kind_of
from batchrun.store.recovery import FAILURES, RESULTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchrun.report.visible import Veil
    from batchrun.store.recovery import Recovered

#: The same files give the same samples.
_SEED = 20240229
_MOST_ATTEMPTS = 10
_KINDS = frozenset(kind.value for kind in ErrorKind)


@dataclass(slots=True)
class Facts:
    """What the records of a run say."""

    timeline: Timeline = field(default_factory=Timeline)
    durations_s: Sizes = field(default_factory=Sizes)
    prompt_tokens: Sizes = field(default_factory=Sizes)
    completion_tokens: Sizes = field(default_factory=Sizes)
    #: Attempts of results and of failures; the last count is of those with as many or more.
    attempts: Counter[tuple[bool, int]] = field(default_factory=Counter)
    modes: Names = field(default_factory=Names)
    methods: Names = field(default_factory=Names)
    repairs: Names = field(default_factory=Names)
    repaired: int = 0
    extracted: int = 0
    finish_reasons: Names = field(default_factory=Names)
    models: Names = field(default_factory=Names)
    warnings: Names = field(default_factory=Names)
    kinds: Counter[str] = field(default_factory=Counter)
    #: By kind what the provider called it: HTTP status and code.
    causes: defaultdict[str, Names] = field(default_factory=lambda: defaultdict(lambda: Names(40)))
    results: list[Sample] = field(default_factory=list)
    failures: dict[str, list[Sample]] = field(default_factory=dict)
    #: Records that could not be read to the end: nested too deeply, or not as a run writes them.
    odd: int = 0


def gather(found: Recovered, veil: Veil, samples: int) -> Facts:
    """Read the records of a run directory as `found` has them. Raises `StoreError` for what is no record."""
    facts, clock = Facts(), _Clock()
    kept: Reservoir[Sample] = Reservoir(samples, random.Random(_SEED))
    for line, record in read_lines(found.paths[RESULTS], end=found.extents[RESULTS].size):
        if record is None or "provider" not in record:
            facts.odd += 1
            continue
        _take_result(facts, record, clock)
        place = kept.place()
        if place is not None:
            kept.put(place, result_sample(exactly(line, record), veil))
    facts.results = sorted(kept.kept, key=lambda sample: sample.line)
    _read_failures(facts, found, veil, samples, clock)
    return facts


def _read_failures(facts: Facts, found: Recovered, veil: Veil, samples: int, clock: _Clock) -> None:
    chance = random.Random(_SEED)
    kept: dict[str, Reservoir[Sample]] = {}
    for line, record in _failures(found):
        kind = kind_of(record) or ""
        if "input" not in record or kind not in _KINDS:
            facts.odd += 1
            continue
        _take_failure(facts, record, kind, clock)
        reservoir = kept.setdefault(kind, Reservoir(samples, chance))
        place = reservoir.place()
        if place is not None:
            reservoir.put(place, failure_sample(exactly(line, record), veil))
    facts.failures = {kind: sorted(one.kept, key=lambda sample: sample.line) for kind, one in kept.items()}


def _failures(found: Recovered) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Give the failures that count now; after a clean end those are all in the file."""
    path, end = found.paths[FAILURES], found.extents[FAILURES].size
    if sum(1 for _ in read_lines(path, end=end)) == found.index.failures:
        yield from ((line, record) for line, record in read_lines(path, end=end) if record is not None)
    else:
        yield from ((line, record) for line, record, _ in current_failures(path, found.index, end))


def _take_result(facts: Facts, record: dict[str, Any], clock: _Clock) -> None:
    usage = record.get("usage")
    tokens = 0
    if type(usage) is dict:
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if type(prompt) is int and type(completion) is int:
            facts.prompt_tokens.add(prompt)
            facts.completion_tokens.add(completion)
            tokens = prompt + completion
    at = clock.ms(record.get("finished_at"))
    if at is not None:
        facts.timeline.add(at, is_result=True, tokens=tokens)
    duration = record.get("duration_s")
    if type(duration) is float or type(duration) is int:
        facts.durations_s.add(duration)
    _count_attempts(facts, record, is_result=True)
    facts.finish_reasons.add(record.get("finish_reason"))
    facts.models.add(record.get("model"))
    for warning in record.get("warnings") or ():
        facts.warnings.add(warning)
    extraction = record.get("extraction")
    if type(extraction) is dict:
        _take_extraction(facts, extraction)


def _take_extraction(facts: Facts, extraction: dict[str, Any]) -> None:
    facts.extracted += 1
    facts.modes.add(extraction.get("mode"))
    facts.methods.add(extraction.get("method"))
    repairs = extraction.get("repairs")
    if repairs:
        facts.repaired += 1
        for repair in repairs:
            facts.repairs.add(repair)


def _take_failure(facts: Facts, record: dict[str, Any], kind: str, clock: _Clock) -> None:
    error, usage = record["error"], record.get("usage")
    facts.kinds[kind] += 1
    status, code = error.get("http_status"), error.get("code")
    if status is not None or code is not None:
        facts.causes[kind].add(" ".join(str(one) for one in (status, code) if one is not None))
    total = usage.get("total_tokens") if isinstance(usage, dict) else 0
    at = clock.ms(record.get("finished_at"))
    if at is not None:
        facts.timeline.add(at, is_result=False, tokens=total if type(total) is int else 0)
    _count_attempts(facts, record, is_result=False)


def _count_attempts(facts: Facts, record: dict[str, Any], *, is_result: bool) -> None:
    attempts = record.get("attempts")
    if type(attempts) is int:
        facts.attempts[is_result, max(0, min(attempts, _MOST_ATTEMPTS))] += 1


class _Clock:
    """Reads times as the records spell them; those of one second cost one reading."""

    def __init__(self) -> None:
        self._second = ""
        self._ms = 0

    def ms(self, text: object) -> int | None:
        """Give Unix milliseconds, None for what is no time of a record."""
        if not isinstance(text, str) or len(text) != 24 or not text[20:23].isdigit():
            return None
        second = text[:19]
        if second != self._second:
            try:
                self._ms = calendar.timegm(time.strptime(second, "%Y-%m-%dT%H:%M:%S")) * 1000
            except ValueError:
                return None
            self._second = second
        return self._ms + int(text[20:23])
