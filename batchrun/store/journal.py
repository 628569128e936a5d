"""The journal: which attempts are under way, and up to where the other files of the run directory are durable.

A file of lines of one length, each a packed record in base64, that stays small: once in a while, at each start and at
each clean end it is written anew with what still counts. All of it but the calls under way can be found out from the
other files.
"""

from __future__ import annotations

import struct
import time
import zlib
from binascii import a2b_base64, b2a_base64
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from batchrun.ids import DIGEST_BYTES
from batchrun.store.files import Extent, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

#: A packed record, and the line that holds it.
RECORD_BYTES, LINE_BYTES = 48, 65
_HEADER = b"batchrun journal 1".ljust(LINE_BYTES - 1) + b"\n"
_PREFIX = struct.Struct("<BBH")
_SENT = struct.Struct(f"<II8s{DIGEST_BYTES}s18x")
_ENDED = struct.Struct(f"<{DIGEST_BYTES}s34x")
_POINT = struct.Struct("<QQIQIQI")
_BEGUN = struct.Struct("<QII28x")
_MOST = 0xFFFFFFFF


class _Kind(IntEnum):
    BEGUN = 1  # a run began: its time, its recipe, how many calls were ever interrupted before
    SENT = 2  # an attempt is about to leave
    ENDED = 3  # an attempt ended and another one will follow
    POINT = 4  # up to here the files are durable
    SWAP = 5  # new versions of files lie beside them, durable: put them in place, whatever happens


_KINDS = frozenset(kind.value for kind in _Kind)


class Sent(NamedTuple):
    """An attempt under way: where its item stands, the CRC-32 of its line, what its request is made from."""

    line: int
    crc: int
    fingerprint: bytes
    attempt: int = 1


class Point(NamedTuple):
    """What is durable of each file, and since when (seconds since 1970)."""

    results: Extent = Extent()
    failures: Extent = Extent()
    rows: Extent = Extent()
    time: float = 0.0


@dataclass(slots=True)
class Journal:
    """What a journal says. `sent` holds the attempts that began and of which no end is written here, by item digest."""

    point: Point = field(default_factory=Point)
    swapping: bool = False
    recipe: int = 0
    interrupted: int = 0
    sent: dict[bytes, Sent] = field(default_factory=dict)
    #: The first point: the rows of the index after it may end attempts that are in `sent`.
    first: Point | None = None
    points: list[tuple[float, int]] = field(default_factory=list)


def read_journal(path: Path) -> Journal | None:
    """Read a journal up to its first torn or damaged record; None if it is not there, or says nothing that counts.

    Raises `StoreError` if it cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError.of(path, "reading", error) from error
    if data[:LINE_BYTES] != _HEADER:
        return None
    journal = Journal()
    for at in range(LINE_BYTES, len(data) - LINE_BYTES + 1, LINE_BYTES):
        record = _unpacked(data[at : at + LINE_BYTES])
        if len(record) != RECORD_BYTES:
            break
        kind, attempt, check = _PREFIX.unpack_from(record)
        body = record[_PREFIX.size :]
        if check != _check(kind, attempt, body) or kind not in _KINDS:
            break
        _apply(journal, kind, attempt, body)
    return journal if journal.first is not None else None


def _apply(journal: Journal, kind: int, attempt: int, body: bytes) -> None:
    if kind == _Kind.SENT:
        line, crc, fingerprint, key = _SENT.unpack(body)
        journal.sent[key] = Sent(line, crc, fingerprint, attempt)
    elif kind == _Kind.ENDED:
        journal.sent.pop(_ENDED.unpack(body)[0], None)
    elif kind == _Kind.BEGUN:
        _, journal.recipe, journal.interrupted = _BEGUN.unpack(body)
    else:
        milliseconds, *numbers = _POINT.unpack(body)
        results, failures, rows = (Extent(*numbers[place : place + 2]) for place in (0, 2, 4))
        journal.point = Point(results, failures, rows, milliseconds / 1000)
        journal.first = journal.first or journal.point
        journal.points.append((journal.point.time, journal.point.rows.size))
        journal.swapping = kind == _Kind.SWAP


def _unpacked(line: bytes) -> bytes:
    try:
        return a2b_base64(line) if line.endswith(b"\n") else b""
    except ValueError:
        return b""


def _check(kind: int, attempt: int, body: bytes) -> int:
    return zlib.crc32(body, kind << 8 | attempt) & 0xFFFF


def _record(kind: int, attempt: int, body: bytes) -> bytes:
    return b2a_base64(_PREFIX.pack(kind, attempt, _check(kind, attempt, body)) + body)


def sent_record(key: bytes, sent: Sent) -> bytes:
    """Say that an attempt is about to leave."""
    body = _SENT.pack(min(sent.line, _MOST), sent.crc, sent.fingerprint, key)
    return _record(_Kind.SENT, min(sent.attempt, 255), body)


def ended_record(key: bytes) -> bytes:
    """Say that an attempt ended and that another one will follow."""
    return _record(_Kind.ENDED, 0, _ENDED.pack(key))


def point_record(point: Point, *, swap: bool = False) -> bytes:
    """Say what is durable; with `swap`, what will be once the new versions of the files are in place."""
    body = _POINT.pack(round(point.time * 1000), *point.results, *point.failures, *point.rows)
    return _record(_Kind.SWAP if swap else _Kind.POINT, 0, body)


def whole_journal(point: Point, recipe: int, interrupted: int, sent: Iterable[tuple[bytes, Sent]]) -> bytes:
    """Give a journal that holds what still counts."""
    begun = _record(_Kind.BEGUN, 0, _BEGUN.pack(int(time.time() * 1000), recipe, min(interrupted, _MOST)))
    return b"".join((_HEADER, begun, point_record(point), *(sent_record(key, one) for key, one in sent)))
