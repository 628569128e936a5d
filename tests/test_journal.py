"""The run directory against a model of it, killed at any moment; journal and index damaged at any byte."""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from batchrun.ids import digest, repeated
from batchrun.records import ErrorKind, Failure, Item, Provider, Response, Result, Usage
from batchrun.store import RunDirectory, StoreError
from batchrun.store.files import Extent
from batchrun.store.index import FAILED, INDEX_HEADER, KINDS, PENDING, RESULT, Index, Row, state_of, to_lines
from batchrun.store.journal import Point, Sent, ended_record, point_record, read_journal, sent_record, whole_journal
from batchrun.store.recovery import recover

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ITEMS = [Item(f"r-{n}", n + 1, b'{"id":"r-%d"}' % n, {}, digest(f"r-{n}"), 1000 + n) for n in range(8)]
OUTCOME = st.sampled_from(["result", "timeout", "result", "truncated", "wait", None])
FINGERPRINT = bytes(range(8))
RECIPE = 77


def result_of(item: Item) -> Result:
    provider = Provider(200, {}, b'{"choices":[]}')
    response = Response("好", None, "stop", "m", Usage(1, 2, 3), provider)
    return Result(item, "好", response, Usage(1, 2, 3), 1, 0.5, None, FINGERPRINT.hex() * 2)


def failure_of(item: Item, kind: ErrorKind) -> Failure:
    return Failure(item.id, item.line, kind, "why", item.raw, usage=Usage(1, 0, 1))


class Machine(RuleBasedStateMachine):
    """Does what a runner does, dies now and then, and compares what is there afterwards with what must be."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.base = Path(tempfile.mkdtemp())
        self.folder = self.base / "0"
        self.records: dict[bytes, str] = {}  # of each key: "result" or the failure's kind
        self.under_way: set[int] = set()
        self.certain: dict[bytes, str] = {}  # results that are on the disk, whatever happens
        self.unusable = self.repeats = self.life = 0
        self.interrupted: int | None = 0
        self.open()

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.loop.close()
            shutil.rmtree(self.base)

    def open(self) -> None:
        self.store = RunDirectory(self.folder)
        self.compare()
        self.at_open = dict(self.records)
        self.store.begin(RECIPE, {"state": "running"})
        self.under_way.clear()
        self.note_certain()

    def note_certain(self) -> None:
        self.certain = {key: state for key, state in self.records.items() if state == "result"}

    def compare(self) -> None:
        store = self.store
        assert store.results == sum(state == "result" for state in self.records.values())
        failures = Counter(state for state in self.records.values() if state != "result")
        assert +store.failure_kinds == failures
        assert store.failures == failures.total()
        for key, state in self.records.items():
            row = store.index.find(key)
            expected = RESULT if state == "result" else state_of(state)
            assert store.index.state[row] == expected, (key, state)
        assert store.index.find(digest("never seen")) == 0
        if self.interrupted is not None:
            assert store.interrupted == self.interrupted

    # --- what a runner does ---

    def row(self, key: bytes) -> int:
        return self.store.index.find(key)

    @rule(number=st.integers(0, 7), attempt=st.integers(1, 300), end=OUTCOME)
    def take_up_an_item(self, number: int, attempt: int, end: str | None) -> None:
        if ITEMS[number].key not in self.records:
            self.attempt(number, attempt, end)

    @precondition(lambda self: self.failed_before())
    @rule(pick=st.randoms(), end=OUTCOME)
    def try_a_failure_again(self, pick: Any, end: str | None) -> None:
        self.attempt(pick.choice(self.failed_before()), 1, end)

    def attempt(self, number: int, attempt: int, end: str | None) -> None:
        """Send an item, and then: a result, a failure, another attempt later, or no end that anybody hears of."""
        self.turn(lambda: self._attempt(number, attempt, end))

    def turn(self, act: Callable[[], None]) -> None:
        """Do something in a turn of the event loop, at whose end it is written."""

        async def main() -> None:
            act()
            await asyncio.sleep(0)

        self.loop.run_until_complete(main())

    def _attempt(self, number: int, attempt: int, end: str | None) -> None:
        item, store = ITEMS[number], self.store
        store.sent(item, FINGERPRINT, attempt)
        self.under_way.add(number)
        if end is None:
            return
        self.under_way.remove(number)
        if end == "wait":
            store.attempt_ended(item)
            return
        if end == "result":
            store.add_result(result_of(item), FINGERPRINT, self.row(item.key))
        else:
            store.add_failure(failure_of(item, ErrorKind(end)), item, FINGERPRINT, self.row(item.key))
        self.records[item.key] = end
        self.at_open.pop(item.key, None)

    def failed_before(self) -> list[int]:
        """Give the items whose failure an earlier run left."""
        return [n for n, item in enumerate(ITEMS) if self.at_open.get(item.key, "result") != "result"]

    @rule()
    def meet_a_line_that_is_no_item(self) -> None:
        self.unusable += 1
        line = 100 + self.unusable
        key = digest(f"line:{line}")
        failure = Failure(f"line:{line}", line, ErrorKind.INVALID_INPUT, "no", b'{"raw":"x"}', key=key, crc=line)
        self.turn(lambda: self.store.add_failure(failure, failure, bytes(8)))
        self.records[key] = ErrorKind.INVALID_INPUT.value

    @rule()
    def meet_an_id_again(self) -> None:
        self.repeats += 1
        key = repeated("r-0", self.repeats + 1)
        failure = Failure("r-0", 50, ErrorKind.DUPLICATE_ID, "again", b'{"id":"r-0"}', key=key, crc=50)
        self.turn(lambda: self.store.add_failure(failure, failure, bytes(8)))
        self.records[key] = ErrorKind.DUPLICATE_ID.value

    @rule()
    def sync(self) -> None:
        self.loop.run_until_complete(self.store.sync())
        self.note_certain()

    # --- the ends of a run ---

    @rule()
    def end_in_good_order(self) -> None:
        self.store.finish()
        self.loop.run_until_complete(self.store.keep_synced())
        self.store.settle()
        self.store.close()
        queue = [json.loads(line) for line in (self.folder / "failures.jsonl").read_bytes().splitlines()]
        assert len(queue) == sum(state != "result" for state in self.records.values())
        before = {path.name: path.read_bytes() for path in self.folder.iterdir()}
        assert not recover(self.folder).rebuilt
        RunDirectory(self.folder).close()
        assert {path.name: path.read_bytes() for path in self.folder.iterdir()} == before
        self.interrupted = 0
        self.open()

    def die(self) -> None:
        """Leave what a killed process leaves, and go on in a copy."""
        self.life += 1
        copy = self.base / str(self.life)
        shutil.copytree(self.folder, copy)
        self.store.close()
        self.folder = copy
        self.interrupted = len(self.under_way)

    @rule()
    def be_killed(self) -> None:
        self.die()
        self.open()

    @rule(
        name=st.sampled_from(["results.jsonl", "failures.jsonl"]), at=st.integers(0, 2000), size=st.integers(0, 2000),
        nuls=st.booleans(),
    )  # fmt: skip
    def lose_power(self, name: str, at: int, size: int, nuls: bool) -> None:
        """Only what was synced is certain: behind it a file can end anywhere, or have NULs in place of some bytes."""
        self.die()
        journal = read_journal(self.folder / "journal")
        assert journal is not None
        certain = (journal.point.results if name == "results.jsonl" else journal.point.failures).size
        path = self.folder / name
        data = path.read_bytes()
        at = min(certain + at, len(data))
        path.write_bytes(data[:at] + (b"\0" * len(data[at : at + size]) + data[at + size :] if nuls else b""))
        left = standing(self.folder)
        assert {key: left.get(key) for key in self.certain} == self.certain
        self.records = left
        self.repeats = sum(kind == ErrorKind.DUPLICATE_ID for kind in left.values())
        self.interrupted = None  # a call whose record was lost counts as in flight again
        self.open()

    @rule(name=st.sampled_from(["journal", "index"]), at=st.integers(0, 5000), cut=st.booleans())
    def lose_journal_or_index(self, name: str, at: int, cut: bool) -> None:
        self.die()
        path = self.folder / name
        data = bytearray(path.read_bytes())
        if cut or not data:
            path.unlink()
        else:
            data[at % len(data)] ^= 1 << at % 7
            path.write_bytes(data)
        self.interrupted = None
        self.open()

    @invariant()
    def no_record_is_lost_while_running(self) -> None:
        if hasattr(self, "store"):
            lines = (self.folder / "results.jsonl").read_bytes().splitlines()
            assert len(lines) == sum(state == "result" for state in self.records.values())


def standing(folder: Path) -> dict[bytes, str]:
    """Read the whole records of both files: of each key, "result" or the failure's kind."""
    found: dict[bytes, str] = {}
    repeats = 0
    for name in ("failures.jsonl", "results.jsonl"):
        for line in (folder / name).read_bytes().split(b"\n")[:-1]:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            kind = record.get("error", {}).get("kind", "result")
            repeats += kind == ErrorKind.DUPLICATE_ID
            found[repeated("r-0", repeats + 1) if kind == ErrorKind.DUPLICATE_ID else digest(record["id"])] = kind
    return found


Machine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
test_the_run_directory_stands_for_what_happened = Machine.TestCase


@pytest.mark.long
def test_the_run_directory_stands_for_what_happened_for_long() -> None:
    class Longer(Machine):
        pass

    Longer.TestCase.settings = settings(
        max_examples=1500, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
    )
    Longer.TestCase("runTest").runTest()


@contextmanager
def no_file_longer(size: int) -> Iterator[None]:
    """Let writing fail beyond a size, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_one_file_has_no_room_for_keeps_no_other_from_being_written(tmp_path: Path) -> None:
    async def main() -> None:
        store = RunDirectory(tmp_path)
        store.begin(RECIPE, {})
        for item in ITEMS[:3]:
            store.sent(item, FINGERPRINT, 1)
        store.add_result(result_of(ITEMS[0]), FINGERPRINT)
        store.flush()
        with no_file_longer((tmp_path / "results.jsonl").stat().st_size + 20):
            store.add_result(result_of(ITEMS[1]), FINGERPRINT)
            store.add_failure(failure_of(ITEMS[2], ErrorKind.TIMEOUT), ITEMS[2], FINGERPRINT)
            await asyncio.sleep(0)
            with pytest.raises(StoreError, match=r"results\.jsonl"):
                await store.keep_synced()
            with pytest.raises(StoreError):
                store.sent(ITEMS[3], FINGERPRINT, 1)
            store.close()

    asyncio.run(main())
    assert standing(tmp_path) == {ITEMS[0].key: "result", ITEMS[2].key: "timeout"}
    assert (tmp_path / "results.jsonl").read_bytes().endswith(b"}\n")
    assert RunDirectory(tmp_path).interrupted == 1, "the call whose answer found no room"


def test_a_run_whose_journal_broke_at_its_end_does_not_end_well(tmp_path: Path) -> None:
    async def main() -> None:
        store = RunDirectory(tmp_path)
        store.begin(RECIPE, {})
        store.sent(ITEMS[0], FINGERPRINT, 1)
        store.flush()
        with no_file_longer((tmp_path / "journal").stat().st_size + 2):
            store.attempt_ended(ITEMS[0])
            await asyncio.sleep(0)
            store.finish()
            await store.keep_synced()
        with pytest.raises(StoreError, match="journal"):
            store.settle()
        store.close()

    asyncio.run(main())


# --- the files ----------------------------------------------------------------------------------------------------

U32 = st.integers(0, 2**32 - 1)
KEYS = st.binary(min_size=10, max_size=10)
EXTENTS = st.builds(Extent, st.integers(0, 2**60), U32)
POINTS = st.builds(Point, EXTENTS, EXTENTS, EXTENTS, st.integers(0, 2**40).map(lambda ms: ms / 1000))
SENT = st.builds(Sent, U32, U32, st.binary(min_size=8, max_size=8), st.integers(1, 255))


@given(POINTS, U32, U32, st.dictionaries(KEYS, SENT), st.lists(st.tuples(KEYS, SENT)), st.lists(KEYS), POINTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_journal_says_what_was_written(
    tmp_path: Path, first: Point, recipe: int, ever: int, open_: dict[bytes, Sent], sent: list[tuple[bytes, Sent]],
    ended: list[bytes], last: Point,
) -> None:  # fmt: skip
    path = tmp_path / "journal"
    more = b"".join(sent_record(*one) for one in sent) + b"".join(map(ended_record, ended))
    path.write_bytes(whole_journal(first, recipe, ever, open_.items()) + more + point_record(last))
    journal = read_journal(path)
    assert journal is not None
    assert (journal.first, journal.point, journal.swapping) == (first, last, False)
    assert (journal.recipe, journal.interrupted) == (recipe, ever)
    expected = {key: one for key, one in {**open_, **dict(sent)}.items() if key not in ended}
    assert journal.sent == expected


def a_journal() -> bytes:
    sent = {item.key: Sent(item.line, item.crc, FINGERPRINT) for item in ITEMS[:3]}
    point = Point(Extent(10, 1), Extent(20, 2), Extent(77, 3), 5.0)
    return whole_journal(Point(), RECIPE, 2, sent.items()) + ended_record(ITEMS[0].key) + point_record(point)


def test_a_journal_cut_anywhere_says_what_came_before(tmp_path: Path) -> None:
    path, data = tmp_path / "journal", a_journal()
    path.write_bytes(data)
    whole = read_journal(path)
    assert whole is not None
    for size in range(len(data)):
        path.write_bytes(data[:size])
        journal = read_journal(path)
        if journal is not None:
            assert journal.point in (Point(), whole.point)
            assert journal.sent.keys() <= {item.key for item in ITEMS[:3]}
    path.write_bytes(data + b"\0" * 65)
    assert read_journal(path) == whole


@given(st.integers(0, len(a_journal()) - 1), st.integers(0, 7))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
def test_a_damaged_journal_invents_no_point(tmp_path: Path, at: int, bit: int) -> None:
    data = bytearray(a_journal())
    data[at] ^= 1 << bit
    (tmp_path / "journal").write_bytes(data)
    journal = read_journal(tmp_path / "journal")
    if journal is not None:
        assert journal.point in (Point(), Point(Extent(10, 1), Extent(20, 2), Extent(77, 3), 5.0))


ROWS = st.lists(
    st.builds(
        Row, st.integers(1, FAILED + len(KINDS) - 1), U32, KEYS, st.none() | U32, U32,
        st.binary(min_size=8, max_size=8), st.just(0),
        st.builds(lambda a, b, c, d: Usage(a, b, a + b, c, d), *[st.integers(0, 2**31)] * 4),
    ),
    unique_by=lambda row: row.key, max_size=40,
)  # fmt: skip


@given(ROWS, ROWS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_an_index_says_what_was_written(tmp_path: Path, in_file: list[Row], added: list[Row]) -> None:
    path = tmp_path / "index"
    data = INDEX_HEADER + b"".join(to_lines(row.pack()) for row in in_file)
    path.write_bytes(data)
    index = Index(path, Extent().grown(data))
    for row in added:
        index.add(row)
    rows = [*in_file, *added]
    assert list(index.rows()) == rows
    assert [index.fingerprint(number) for number in range(1, len(rows) + 1)] == [row.fingerprint for row in rows]
    last = {row.key: number for number, row in enumerate(rows, 1)}
    assert {key: index.find(key) for key in last} == last
    assert index.results == sum(row.state == RESULT for row in rows)
    total = Usage()
    for row in rows:
        total.add(row.usage or Usage())
    assert index.usage() == total


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_damaged_index_is_refused(tmp_path: Path, data: Any) -> None:
    rows = [Row(RESULT, n, digest(str(n)), n, RECIPE, FINGERPRINT) for n in range(1, 5)]
    whole = INDEX_HEADER + b"".join(to_lines(row.pack()) for row in rows)
    extent = Extent().grown(whole)
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    for text in (bytes(damaged), whole[:at]):
        (tmp_path / "index").write_bytes(text)
        with pytest.raises(StoreError):
            Index(tmp_path / "index", extent)


def test_a_row_that_replaces_another_counts_in_its_place() -> None:
    index = Index()
    index.add(Row(state_of("timeout"), 1, digest("a"), 5))
    index.add(Row(RESULT, 2, digest("b"), 6))
    index.add(Row(RESULT, 1, digest("a"), 5, replaces=1))
    index.add(Row(PENDING, 2, digest("b"), replaces=2))
    assert (index.results, index.failures, index.find(digest("a")), index.is_cure(3)) == (1, 0, 3, True)
    assert index.state[index.find(digest("b"))] == PENDING


def test_a_pass_skips_the_lines_of_finished_items_and_no_others() -> None:
    from zlib import crc32

    index = Index()
    lines = [(number, b'{"id":%d}' % number, 8) for number in range(1, 8)]
    for number, text, _ in lines[:5]:
        index.add(Row(RESULT, number, digest(str(number)), crc32(text), RECIPE if number != 2 else RECIPE + 1))
    index.add(Row(PENDING, 3, digest("3"), replaces=3))
    index.prepare(RECIPE)
    edited = [(number, text + b" " if number == 4 else text, size) for number, text, size in lines]
    assert [number for number, _, _ in index.unfinished(edited)] == [2, 3, 4, 6, 7]
    assert (index.line_skipped(digest("1")), index.line_skipped(digest("2"))) == (1, None)
    index.prepare(None)
    assert [number for number, _, _ in index.unfinished(lines)] == [3, 6, 7]
