"""The audit: that each item is exactly one of result, failure and pending, proved from the files alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from batchrun.changes import Changes
from batchrun.guard import comparing
from batchrun.ids import IdIndex
from batchrun.items import ItemReader
from batchrun.lines import expand_inputs
from batchrun.output import Schema
from batchrun.prompts import RequestBuilder, accepted_builders, made_from, recipe_of
from batchrun.status import read_beside_a_run
from batchrun.store import StoreError
from batchrun.store.files import measure, read_lines
from batchrun.store.index import PENDING, RESULT
from batchrun.store.lock import holder
from batchrun.store.queue import Keys
from batchrun.store.recovery import FAILURES, RESULTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchrun.locate import Located
    from batchrun.store.recovery import Recovered


class Fault(StrEnum):
    """What an audit can find."""

    MISSING = "missing"  # the journal knows a record that is in no file
    DUPLICATED = "duplicated"  # an item has two records
    FOREIGN = "foreign"  # a line that no run wrote here
    TORN = "torn"  # a record that was durable is damaged
    CHANGED = "changed"  # an item, or a record, is not what it was
    ORPHANED = "orphaned"  # a record whose item is not in the input now


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault: where it is, and what is wrong there."""

    fault: Fault
    place: str
    message: str


@dataclass(slots=True)
class Audit:
    """What an audit found. `items` and `pending` are None where the input cannot be read a second time.

    `remarks` are no faults: what a crash left and the next run mends by itself.
    """

    output: str
    items: int | None = None
    results: int = 0
    failures: int = 0
    pending: int | None = None
    in_flight: int = 0
    is_live: bool = False
    findings: list[Finding] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """Give 0 if the audit is passed, else 3."""
        return 3 if self.findings else 0

    def add(self, fault: Fault, place: object, message: str) -> None:
        """Take a finding down."""
        self.findings.append(Finding(fault, str(place), message))

    def as_dict(self) -> dict[str, Any]:
        """Give the audit as JSON values."""
        return {
            "output": self.output,
            "exit_code": self.exit_code,
            "live": self.is_live,
            "counts": {
                "items": self.items, "results": self.results, "failures": self.failures, "pending": self.pending,
                "in_flight": self.in_flight,
            },
            "findings_by_fault": dict(Counter(one.fault.value for one in self.findings)),
            "findings": [{"fault": one.fault, "place": one.place, "message": one.message} for one in self.findings],
            "remarks": self.remarks,
        }  # fmt: skip


def audit(located: Located) -> Audit:
    """Audit a run directory; nothing is changed. Raises `JobError` or `InputError` if job or input cannot be read."""
    return _Auditor(located).run()


class _Auditor:
    def __init__(self, located: Located) -> None:
        self._located = located
        self._audit = Audit(str(located.folder), is_live=holder(located.folder) is not None)
        self._found: Recovered | None = None
        self._paths = {name: located.folder / name for name in (RESULTS, FAILURES)}
        self._written = {RESULTS: IdIndex(), FAILURES: IdIndex()}
        self._input = IdIndex()
        #: How many keys of the two files are those of entries of the input.
        self._matched = 0

    def run(self) -> Audit:
        audit = self._audit
        try:
            self._found = found = read_beside_a_run(self._located)
            self._paths = found.paths
            audit.in_flight = len(found.interrupted)
            audit.remarks += found.notes
        except StoreError as error:
            audit.remarks.append(f"{error}; whether items changed is not looked at before that is mended")
        self._read_results()
        both = self._read_failures()
        audit.results = len(self._written[RESULTS])
        audit.failures = len(self._written[FAILURES]) - both
        if self._read_input() and self._matched < audit.results + audit.failures:
            self._name_those_not_in_the_input()
        self._compare_with_journal()
        return audit

    # --- the records ---

    def _read_results(self) -> None:
        written = self._written[RESULTS]
        for place, record, key, number in self._records(RESULTS):
            before = written.put(key, number)
            if before is not None:
                self._doubled(place, record, f"has a result on line {before} already")

    def _read_failures(self) -> int:
        """Take the queue down; give how many of its items have a result too."""
        written, results, both = self._written[FAILURES], self._written[RESULTS], set()
        is_settled = self._is_settled()
        for place, record, key, number in self._records(FAILURES):
            before = written.put(key, number)
            if before is not None and is_settled:
                self._doubled(place, record, f"has a failure on line {before} already")
            if results.get(key) is not None:
                both.add(key)
                if is_settled or self._found is None or not self._found.index.is_cure(self._found.index.find(key)):
                    self._doubled(place, record, "has a result too")
        return len(both)

    def _doubled(self, place: str, record: dict[str, Any], what: str) -> None:
        self._audit.add(Fault.DUPLICATED, place, f"id {record['id']!r} {what}")

    def _records(self, name: str) -> Iterator[tuple[str, dict[str, Any], bytes, int]]:
        """Give place, record, key and line number of each record of a file, and find fault with what is none."""
        path, keys, at = self._paths[name], Keys(), 0
        point = self._found.journal.point if self._found else None
        durable = 0 if point is None else (point.results if name == RESULTS else point.failures).size
        for number, (line, record) in enumerate(read_lines(path), 1):
            place = f"{name}:{number}"
            if record is not None:
                yield place, record, keys.of(record), number
            elif at < durable or self._found is None:
                self._audit.add(Fault.TORN, place, f"is no whole record ({len(line)} bytes)")
            elif line.endswith(b"\n") and not self._audit.is_live:
                self._audit.add(Fault.FOREIGN, place, "is no record of batchrun: something else wrote it")
            # Else it is the unfinished last line of a run under way, or of one that was killed: its item is pending.
            at += len(line)

    def _is_settled(self) -> bool:
        """Tell whether the last run ended in good order, so that the queue holds what is a failure and no more."""
        found = self._found
        if found is None or self._audit.is_live:
            return False
        return found.rebuilt or (len(found.journal.points) == 1 and not found.journal.sent)

    # --- the input ---

    def _read_input(self) -> bool:
        """Take the input down and compare it with the records; False if it was standard input or a pipe."""
        job, audit = self._located.job, self._audit
        templated = bool(job.prompt and job.prompt.user)
        reader = ItemReader(expand_inputs(job.input), encoding=job.encoding, templated=templated)
        if reader.is_stream:
            audit.remarks.append("the input cannot be read again (standard input): what is pending is not counted")
            return False
        changes = self._changes()
        audit.pending = 0
        for entry in reader:
            self._input.add(entry.key, entry.line)
            if self._written[RESULTS].get(entry.key) is not None:
                self._matched += 1
                row = self._found.index.find(entry.key) if self._found is not None else 0
                if changes is not None and row and changes.is_changed(entry, row):
                    place = f"line {entry.line}, id {entry.id!r}"
                    audit.add(Fault.CHANGED, place, "the item or the job is not what the result was made from")
            elif self._written[FAILURES].get(entry.key) is not None:
                self._matched += 1
            else:
                audit.pending += 1
        audit.items = len(self._input)
        return True

    def _changes(self) -> Changes | None:
        if self._found is None:
            return None
        job, manifest = self._located.job, self._located.manifest
        compiled = Schema.of(job.structured)
        schema = compiled.text if compiled else None
        guard = comparing(job)
        accepted = accepted_builders(job, schema, list(manifest.get("accepted") or []), guard)
        builders = [RequestBuilder(job, schema, guard=guard), *accepted]
        return Changes(self._found.index, recipe_of(made_from(job, schema)), builders)

    def _name_those_not_in_the_input(self) -> None:
        for name in (RESULTS, FAILURES):
            keys = Keys()
            for number, (_, record) in enumerate(read_lines(self._paths[name]), 1):
                if record is None or self._input.get(key := keys.of(record)) is not None:
                    continue
                ours = self._found is not None and self._found.is_ours(key)
                fault = Fault.ORPHANED if ours else Fault.FOREIGN
                words = "now" if ours else "and no run wrote it here"
                self._audit.add(fault, f"{name}:{number}", f"id {record['id']!r} is not in the input {words}")

    # --- the journal ---

    def _compare_with_journal(self) -> None:
        found, audit = self._found, self._audit
        if found is None or not found.rebuilt or found.known is None:
            return
        for state, line, key in found.known.each():
            if state != PENDING and all(written.get(key) is None for written in self._written.values()):
                what = "result" if state == RESULT else "failure"
                audit.add(Fault.MISSING, f"line {line}", f"the journal knows of its {what}, which is in no file")
        point = found.journal.point
        for name, extent in ((RESULTS, point.results), (FAILURES, point.failures)):
            if not audit.findings and measure(self._paths[name], extent.size) != extent:
                audit.add(Fault.CHANGED, name, "its bytes are not those that were written")
