"""The index: one small row for each record, so that a run can go on without parsing its results.

A file of lines of one length, each a packed row in base64, in the order in which records were written; a later row of
an item replaces its earlier one. In memory it is held as columns of bytes, a few for each item, because Python objects
for millions of rows would not fit.
"""

from __future__ import annotations

import struct
import sys
import zlib
from array import array
from binascii import a2b_base64, b2a_base64
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from batchrun.ids import DIGEST_BYTES, IdIndex
from batchrun.records import ErrorKind, Usage
from batchrun.store.files import Extent, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchrun.items import Line

_ROW = struct.Struct(f"<BBxxIII{DIGEST_BYTES}s2x8sIIIIIx")
#: A packed row, and the line that holds it.
ROW_BYTES, LINE_BYTES = 57, 77
INDEX_HEADER = b"batchrun index 1".ljust(LINE_BYTES - 1) + b"\n"
_LINE, _CRC, _RECIPE, _KEY, _FINGERPRINT, _REPLACES, _TOKENS = 4, 8, 12, 16, 28, 36, 40
_CHUNK_ROWS = 1 << 14
_CHUNK_BYTES = LINE_BYTES * _CHUNK_ROWS
_MOST = 0xFFFFFFFF
_KNOWS_LINE = 1
_NO_ROWS = Extent()
_NO_USAGE = Usage()

#: States of a row; a failure's is `FAILED` plus the place of its kind in this list, which is closed and only grows.
PENDING, RESULT, FAILED = 0, 1, 2
KINDS = tuple(ErrorKind)
_PLACES = {kind.value: place for place, kind in enumerate(KINDS)}


def state_of(kind: str | None) -> int:
    """Give the state of a failure of a kind (one that is not of the list counts as a bad request), or of a result."""
    return RESULT if kind is None else FAILED + _PLACES.get(kind, _PLACES[ErrorKind.BAD_REQUEST])


class Row(NamedTuple):
    """What is known of a record without reading it.

    `crc` is of its input line, None where that is not known; `recipe` and `fingerprint` say what it was made from
    (0 and zeros: not known); `replaces` is the number of the row that this one takes the place of, 0 for none.
    """

    state: int
    line: int
    key: bytes
    crc: int | None = None
    recipe: int = 0
    fingerprint: bytes = bytes(8)
    replaces: int = 0
    usage: Usage | None = None

    def pack(self) -> bytes:
        """Give the row's bytes, as `Index.add` takes them and `to_lines` writes them."""
        usage = self.usage or _NO_USAGE
        tokens = (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.reasoning_tokens)
        head = (
            self.state, self.crc is not None, min(self.line, _MOST), self.crc or 0, self.recipe, self.key,
            self.fingerprint, self.replaces,
        )  # fmt: skip
        try:
            return _ROW.pack(*head, *tokens)
        except struct.error:  # counts that no provider should send
            return _ROW.pack(*head, *(min(max(0, count), _MOST) for count in tokens))


def to_lines(rows: bytes) -> bytes:
    """Give packed rows as the lines of the file."""
    return b"".join(b2a_base64(rows[start : start + ROW_BYTES]) for start in range(0, len(rows), ROW_BYTES))


class Index:
    """The rows of an index, numbered from 1; 0 stands for none.

    `prepare` chooses which rows let a line be skipped unparsed, then `unfinished` sieves lines, in any one thread.
    """

    def __init__(self, path: Path | None = None, extent: Extent = _NO_ROWS) -> None:
        """Read the rows of a file that `extent` covers. Raises `StoreError` if it does not fit the file."""
        self._path = path
        self._extent = extent
        self._added = bytearray()
        self.state = bytearray(1)
        self._flags = bytearray(1)
        self._lines = array("I", [0])
        self._crcs = array("I", [0])
        self._recipes = array("I", [0])
        self._keys: IdIndex | None = None
        self._cures: set[int] = set()
        for rows in self._read_file(check=True):
            self._extend(rows)
        self._at = array("I", [0])
        self._skip = bytearray(1)
        self.seen = bytearray()
        self.skipped = 0
        #: How many rows were confirmed since the file was read.
        self.confirmed = 0

    def __len__(self) -> int:
        return len(self.state) - 1

    @property
    def results(self) -> int:
        """How many items have a result."""
        return self.state.count(RESULT)

    @property
    def failures(self) -> int:
        """How many items, and lines that are none, are failures."""
        return len(self.state) - self.state.count(PENDING) - self.results

    def kinds(self) -> dict[str, int]:
        """Count the failures by kind."""
        counts = {kind.value: self.state.count(FAILED + place) for place, kind in enumerate(KINDS)}
        return {kind: count for kind, count in counts.items() if count}

    def recipes(self) -> set[int]:
        """Give the recipes by which the results were made."""
        if self._recipes.tobytes()[4:] == self._recipes[-1:].tobytes() * len(self) and self.results:
            return {self._recipes[-1]}
        return {recipe for recipe, state in zip(self._recipes, self.state, strict=True) if state == RESULT}

    def add(self, row: Row) -> None:
        """Add a row that is not in the file yet."""
        number = len(self.state)
        self.state.append(row.state)
        self._flags.append(_KNOWS_LINE if row.crc is not None else 0)
        self._lines.append(min(row.line, _MOST))
        self._crcs.append(row.crc or 0)
        self._recipes.append(row.recipe)
        self._replace(number, row.replaces)
        self._added += row.pack()
        if self._keys is not None:
            self._keys.put(row.key, number)

    def confirm(self, number: int, line: int, crc: int, recipe: int) -> None:
        """Take note where a row's item stands now, and that it makes the same request; nothing new changes nothing."""
        now = (min(line, _MOST), crc, recipe, _KNOWS_LINE)
        if now != (self._lines[number], self._crcs[number], self._recipes[number], self._flags[number]):
            self._lines[number], self._crcs[number], self._recipes[number], self._flags[number] = now
            self.confirmed += 1

    def added_lines(self) -> Iterator[bytes]:
        """Give the lines for the rows that are not in the file yet, some thousands at a time."""
        for start in range(0, len(self._added), _CHUNK_ROWS * ROW_BYTES):
            yield to_lines(bytes(self._added[start : start + _CHUNK_ROWS * ROW_BYTES]))

    def all_lines(self) -> Iterator[bytes]:
        """Give the lines for all rows as they are now, with what was confirmed."""
        for number, row in enumerate(self.rows(), 1):
            now = row._replace(line=self._lines[number], crc=self.crc(number), recipe=self._recipes[number])
            yield to_lines(now.pack())

    def usage(self) -> Usage:
        """Add up the tokens of all records that were ever written."""
        total = Usage()
        for rows in chain(self._read_file(check=False), (bytes(self._added),)):
            prompt, completion, cached, reasoning = (sum(_column(rows, _TOKENS + 4 * one)) for one in range(4))
            total.add(Usage(prompt, completion, prompt + completion, cached, reasoning))
        return total

    # --- one row ---

    def find(self, key: bytes) -> int:
        """Give the number of an item's row, 0 if it has none."""
        return self._digests().get(key) or 0 if len(self) else 0

    def _digests(self) -> IdIndex:
        if self._keys is None:
            keys = IdIndex()
            for number, (_, _, key) in enumerate(self.each(), 1):
                keys.put(key, number)
            self._keys = keys
        return self._keys

    def keys_from(self, size: int) -> list[bytes]:
        """Give the digests of the rows of the file after its first `size` bytes."""
        if self._path is None or size >= self._extent.size:
            return []
        start = max(size, LINE_BYTES)
        rows = a2b_base64(self._read_at(start, self._extent.size - start))
        return [rows[start : start + DIGEST_BYTES] for start in range(_KEY, len(rows), ROW_BYTES)]

    def each(self) -> Iterator[tuple[int, int, bytes]]:
        """Give state, line and digest of each row."""
        number = 0
        for rows in chain(self._read_file(check=False), (self._added,)):
            for start in range(_KEY, len(rows), ROW_BYTES):
                number += 1
                yield self.state[number], self._lines[number], bytes(rows[start : start + DIGEST_BYTES])

    def rows(self) -> Iterator[Row]:
        """Give each row as it is, for an index that is to be written anew."""
        for rows in chain(self._read_file(check=False), (self._added,)):
            for start in range(0, len(rows), ROW_BYTES):
                yield _row_of(bytes(rows[start : start + ROW_BYTES]))

    def is_cure(self, number: int) -> bool:
        """Tell whether a row is the result of an item that was a failure before."""
        return number in self._cures

    def line(self, number: int) -> int:
        """Give the line on which a row's item stood."""
        return self._lines[number]

    def recipe(self, number: int) -> int:
        """Give the recipe of a row, 0 if it is not known."""
        return self._recipes[number]

    def crc(self, number: int) -> int | None:
        """Give the CRC-32 of the line of a row's item, None if it is not known."""
        return self._crcs[number] if self._flags[number] & _KNOWS_LINE else None

    def fingerprint(self, number: int) -> bytes:
        """Give the start of the fingerprint of a row's request; zeros if it is not known."""
        in_file = max(self._extent.size // LINE_BYTES - 1, 0)
        if self._path is None or number > in_file:
            at = (number - in_file - 1) * ROW_BYTES + _FINGERPRINT
            return bytes(self._added[at : at + 8])
        return a2b_base64(self._read_at(number * LINE_BYTES, LINE_BYTES))[_FINGERPRINT : _FINGERPRINT + 8]

    # --- a pass over the input ---

    def prepare(self, recipe: int | None) -> None:
        """Begin a pass in which lines are skipped whose item is finished and was made by `recipe`; None is any."""
        self.seen = bytearray(len(self.state))
        self.skipped = 0
        most = 4 * len(self.state) + 100_000  # a line number beyond is one of a damaged row, or of little use
        last = max((line for line in self._lines if line <= most), default=0)
        self._at = at = array("I", bytes(4 * (last + 1)))
        for number, line in enumerate(self._lines):
            if line <= last:
                at[line] = number
        at[0] = 0
        self._skip = bytearray(
            state != PENDING and flags & _KNOWS_LINE and (recipe is None or made == recipe)
            for state, flags, made in zip(self.state, self._flags, self._recipes, strict=True)
        )

    def unfinished(self, lines: list[Line]) -> list[Line]:
        """Give the lines that must be looked at; those of unchanged finished items at their old place are left out."""
        at, skip, crcs, seen, size, crc = self._at, self._skip, self._crcs, self.seen, len(self._at), zlib.crc32
        rest = []
        for line in lines:
            number = at[line[0]] if line[0] < size else 0
            if skip[number] and crcs[number] == crc(line[1]):
                seen[number] = 1
            else:
                rest.append(line)
        self.skipped += len(lines) - len(rest)
        if rest and len(self):
            self._digests()  # they will be asked for; better made here, in the reader's thread
        return rest

    def met(self, state: int) -> int:
        """Count the rows of a state whose items this pass met."""
        if self.state.count(state) == len(self):
            return self.seen.count(1)
        return sum(met and one == state for met, one in zip(self.seen, self.state, strict=True))

    def left_over(self) -> int:
        """Count the rows that stand for a record and whose items this pass did not meet."""
        if len(self) == self.results or not self.seen:
            return self.results - self.met(RESULT)
        return sum(state != PENDING and not met for state, met in zip(self.state, self.seen, strict=True))

    def line_skipped(self, key: bytes) -> int | None:
        """Give the line of an item that this pass met already, None if it did not."""
        if not self.skipped:
            return None
        number = self.find(key)
        return self._lines[number] if number and self.seen[number] else None

    # --- reading the file ---

    def _extend(self, rows: bytes) -> None:
        before = len(self.state)
        self.state += rows[0::ROW_BYTES]
        self._flags += rows[1::ROW_BYTES]
        self._lines += _column(rows, _LINE)
        self._crcs += _column(rows, _CRC)
        self._recipes += _column(rows, _RECIPE)
        for number, replaced in enumerate(_column(rows, _REPLACES), before):
            if replaced:
                self._replace(number, replaced)

    def _replace(self, number: int, replaced: int) -> None:
        if not 0 < replaced < number:
            return
        if self.state[replaced] >= FAILED and self.state[number] == RESULT:
            self._cures.add(number)
        self.state[replaced] = PENDING
        self._flags[replaced] = 0

    def _read_at(self, start: int, size: int) -> bytes:
        path = self._path or Path()
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(start)
                return file.read(size)
        except OSError as error:
            raise StoreError.of(path, "reading", error) from error

    def _read_file(self, *, check: bool) -> Iterator[bytes]:
        if self._path is None or not self._extent.size:
            return
        try:
            with self._path.open("rb", buffering=0) as file:
                header = file.read(LINE_BYTES)
                found = Extent().grown(header)
                while found.size < self._extent.size:
                    lines = file.read(min(_CHUNK_BYTES, self._extent.size - found.size))
                    found = found.grown(lines)
                    rows = _unpacked(lines)
                    if not rows:
                        break
                    yield rows
        except OSError as error:
            raise StoreError.of(self._path, "reading", error) from error
        if check and (found != self._extent or header != INDEX_HEADER):
            raise StoreError(f"{self._path}: is damaged")


def _row_of(packed: bytes) -> Row:
    state, flags, line, crc, recipe, key, fingerprint, replaces, *counts = _ROW.unpack(packed)
    usage = Usage(counts[0], counts[1], counts[0] + counts[1], counts[2], counts[3])
    known = crc if flags & _KNOWS_LINE else None
    return Row(state, line, key, known, recipe, fingerprint, replaces, usage)


def _unpacked(lines: bytes) -> bytes:
    """Give the packed rows of lines of the file; nothing where they are damaged."""
    try:
        rows = a2b_base64(lines)
    except ValueError:
        return b""
    return rows if len(rows) == len(lines) // LINE_BYTES * ROW_BYTES else b""


def _column(rows: bytes, offset: int) -> array[int]:
    """Give one column of whole numbers, 32 bits each."""
    column = bytearray(4 * (len(rows) // ROW_BYTES))
    for place in range(4):
        column[place::4] = rows[offset + place :: ROW_BYTES]
    numbers = array("I", bytes(column))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
