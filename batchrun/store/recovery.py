"""What the files of a run directory say, after a clean end as after a crash; nothing is changed here.

The records are the truth. The journal says up to where they were durable; what stands after that point is parsed.
Where index and journal are lost or do not fit the records, all records are parsed and the index is made from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from batchrun.records import ErrorKind, Usage
from batchrun.store.files import Extent, StoreError, measure, read_lines, require_regular
from batchrun.store.index import RESULT, Index, Row, state_of
from batchrun.store.journal import Journal, Sent, read_journal
from batchrun.store.queue import Keys, kind_of

if TYPE_CHECKING:
    from pathlib import Path

RESULTS, FAILURES, INDEX, JOURNAL = "results.jsonl", "failures.jsonl", "index", "journal"
#: What a new version of a file is called until it is put in place.
NEW = ".new"


@dataclass(slots=True)
class Recovered:
    """A run directory as it stands.

    `extents` is what is whole of each records file; `kept` are whole records that stand behind a torn one, beyond
    what was ever durable. `index` has the rows that the file lacks as well (all of them if `rebuilt`).
    """

    paths: dict[str, Path]
    journal: Journal
    index: Index
    extents: dict[str, Extent]
    kept: dict[str, list[bytes]]
    rebuilt: bool = False
    #: Calls that were under way when a run was ended by force: perhaps billed, their answers lost.
    interrupted: dict[bytes, Sent] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    #: Why nothing may be run on it: it needs a person.
    refusal: str | None = None
    #: An index that fits its journal, and how many of its rows were durable.
    known: Index | None = None
    known_rows: int = 0
    #: How many rows the file named `index` holds that count.
    rows_in_file: int = 0
    #: How many results and failures are certain to be on the disk, while a run is at it.
    durable: tuple[int, int] = (0, 0)

    def is_ours(self, key: bytes) -> bool:
        """Tell whether a run wrote the record of an item here, as far as index and journal know."""
        number = self.known.find(key) if self.known is not None else 0
        return 0 < number <= self.known_rows or key in self.journal.sent


def recover(folder: Path) -> Recovered:
    """Read a run directory. Raises `StoreError` where a record is damaged that has others after it."""
    for name in (RESULTS, FAILURES, INDEX, JOURNAL):
        require_regular(folder / name)
    journal = read_journal(folder / JOURNAL)
    swapping = journal is not None and journal.swapping
    paths = {name: _current(folder / name, swapping=swapping) for name in (RESULTS, FAILURES, INDEX)}
    index = _index(paths[INDEX], journal)
    if journal is not None and index is not None:
        point = journal.point
        if all(
            measure(paths[name], extent.size) == extent
            for name, extent in ((RESULTS, point.results), (FAILURES, point.failures))
        ):
            return _with_tails(Recovered(paths, journal, index, {RESULTS: point.results, FAILURES: point.failures}, {}))
    return _rebuilt(paths, journal, index)


def _current(path: Path, *, swapping: bool) -> Path:
    new = path.with_name(path.name + NEW)
    return new if swapping and new.exists() else path


def _index(path: Path, journal: Journal | None) -> Index | None:
    if journal is None:
        return None
    try:
        return Index(path, journal.point.rows)
    except StoreError:
        return None


# --- after the point --------------------------------------------------------------------------------------------


def _with_tails(found: Recovered) -> Recovered:
    """Read what was written after the journal's last point: at most some moments of a run that was killed."""
    found.known, found.known_rows = found.index, len(found.index)
    found.rows_in_file = len(found.index)
    found.durable = found.index.results, found.index.failures
    index, ended = found.index, set(_ended_since_first(found))
    keys = Keys()
    for name, path in found.paths.items():
        if name == INDEX:
            continue
        start = found.extents[name]
        whole, torn = start, 0
        found.kept[name] = kept = []
        for line, record in read_lines(path, start.size):
            if record is None:
                torn += len(line)
                continue
            if torn:
                kept.append(line)
            else:
                whole = whole.grown(line)
            row = _row(record, keys, index)
            sent = found.journal.sent.get(row.key)
            if sent is not None:
                row = row._replace(crc=sent.crc, recipe=found.journal.recipe, fingerprint=sent.fingerprint)
            before = index.find(row.key)
            if before and index.state[before] == RESULT:
                if name == FAILURES:
                    continue
                place = _count_lines(path, whole.size) + len(kept)
                raise StoreError(f"{path}:{place}: a second result for {record['id']!r}; restore the file")
            row = row._replace(replaces=before)
            ended.add(row.key)
            index.add(row)
        found.extents[name] = whole
        if torn:
            words = "torn by a crash, cut off; its item runs again"
            found.notes.append(f"{path}: the unfinished last line ({torn} bytes) was {words}")
    found.interrupted = {key: sent for key, sent in found.journal.sent.items() if key not in ended}
    return found


def _count_lines(path: Path, size: int) -> int:
    with path.open("rb") as file:
        return file.read(size).count(b"\n")


def _ended_since_first(found: Recovered) -> list[bytes]:
    """Give the items whose rows were written since the journal was begun: their attempts are over."""
    first = found.journal.first
    return found.index.keys_from(first.rows.size) if first and found.journal.sent else []


def _row(record: dict[str, Any], keys: Keys, index: Index) -> Row:
    """Make the row of a record from what the record itself says."""
    line = record.get("line")
    line = line if isinstance(line, int) and line >= 0 else 0
    kind = kind_of(record)
    fingerprint = _fingerprint(record) if kind is None else bytes(8)
    key = keys.of(record)
    while kind == ErrorKind.DUPLICATE_ID and index.find(key):
        key = keys.of(record)  # a further use of the id, beside those that are known
    return Row(state_of(kind), line, key, fingerprint=fingerprint, usage=_usage(record.get("usage")))


def _fingerprint(record: dict[str, Any]) -> bytes:
    try:
        return bytes.fromhex(record["fingerprint"])[:8].ljust(8, b"\0")
    except (KeyError, TypeError, ValueError):
        return bytes(8)


def _usage(value: object) -> Usage | None:
    if not isinstance(value, dict):
        return None
    counts = [value.get(key) for key in ("prompt_tokens", "completion_tokens")]
    prompt, completion = (count if isinstance(count, int) else 0 for count in counts)
    return Usage(prompt, completion, prompt + completion)


# --- without index or journal -----------------------------------------------------------------------------------


def _rebuilt(paths: dict[str, Path], journal: Journal | None, old: Index | None) -> Recovered:
    """Make the index anew from the records; what an index that is whole knew beside them is kept."""
    found = Recovered(paths, journal or Journal(), Index(), {RESULTS: Extent(), FAILURES: Extent()}, {}, rebuilt=True)
    found.known, found.known_rows = old, 0 if old is None else len(old)
    index, keys = found.index, Keys()
    for name in (RESULTS, FAILURES):
        found.kept[name] = []
        whole, torn = Extent(), b""
        for place, (line, record) in enumerate(read_lines(paths[name]), 1):
            where = f"{paths[name]}:{place}"
            if torn:
                raise StoreError(
                    f"{paths[name]}:{place - 1}: not a record of batchrun, with more lines after it; "
                    "the file was damaged or changed, restore it or use another output"
                )
            if record is None:
                torn = line
                continue
            whole = whole.grown(line)
            row = _carried(_row(record, keys, index), old, found.journal)
            before = index.find(row.key)
            if before and name == RESULTS:
                raise StoreError(f"{where}: a second result for {record['id']!r}; restore the file")
            if before and index.state[before] == RESULT:
                continue  # a failure that has become a result, not yet taken out of the queue
            index.add(row._replace(replaces=before))
        found.extents[name] = whole
        if torn:
            found.notes.append(f"{paths[name]}: the unfinished last line was cut off ({len(torn)} bytes)")
    found.interrupted = {key: sent for key, sent in found.journal.sent.items() if not index.find(key)}
    _tell_of_rebuilding(found, old, has_journal=journal is not None)
    return found


def _carried(row: Row, old: Index | None, journal: Journal) -> Row:
    sent = journal.sent.get(row.key)
    number = old.find(row.key) if old is not None else 0
    if old is not None and number and old.state[number] == row.state:
        return row._replace(crc=old.crc(number), recipe=old.recipe(number), fingerprint=old.fingerprint(number))
    if sent is not None:
        return row._replace(crc=sent.crc, recipe=journal.recipe, fingerprint=sent.fingerprint)
    return row


def _tell_of_rebuilding(found: Recovered, old: Index | None, *, has_journal: bool) -> None:
    folder = found.paths[RESULTS].parent
    known, there = old.results if old is not None else 0, found.index.results
    if not has_journal and not len(found.index):
        return  # a new run directory
    if found.journal.point.results.size and not there:
        found.refusal = (
            f"{found.paths[RESULTS]}: is gone or empty, but results were written to it. Put it back, or, to pay for "
            f"all of them again, delete {folder / JOURNAL} too"
        )
    what = "does not fit the records" if has_journal else "is missing or unreadable"
    found.notes.append(
        f"{folder / JOURNAL}: {what}; index and journal were rebuilt from {there} results and "
        f"{found.index.failures} failures"
    )
    if known > there:
        found.notes.append(f"{found.paths[RESULTS]}: {known - there} results that were in it are gone; they run again")
