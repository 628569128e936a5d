"""Packed bytes of an answer → what they stand for, piece by piece, so that whoever takes them can stop in time."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What is asked for. The others need windows of their own of up to 128 MB, and libraries that not everybody has.
ACCEPTED = "gzip, deflate"
_PIECE_BYTES = 65_536
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
#: The low half of the first byte of a zlib stream (RFC 1950); some servers send deflate without that frame.
_DEFLATE = 8
#: gzip allows many packed files in a row; nobody sends them.
_MOST_MEMBERS = 64


class UnpackError(Exception):
    """What came is not packed as it says, or in a way that nobody asked for."""


class Unpacker:
    """Unpacks `gzip` and `deflate`. Raises `UnpackError`; a name that is no packing at all is refused when made."""

    def __init__(self, encoding: str) -> None:
        name = encoding.strip().lower().removeprefix("x-")
        if name not in ("gzip", "deflate"):
            raise UnpackError(f"the answer is packed as {encoding[:40]!r}, which was not asked for")
        self._is_gzip = name == "gzip"
        self._unpacker = zlib.decompressobj(_GZIP) if self._is_gzip else None
        self._members = 1

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Give what the next packed bytes stand for, in pieces of at most 64 KB."""
        while data:
            if self._unpacker is None:
                self._unpacker = zlib.decompressobj(_ZLIB if data[0] & 0xF == _DEFLATE else _RAW)
            if self._unpacker.eof:
                self._next_member()
            try:
                piece = self._unpacker.decompress(data, _PIECE_BYTES)
            except zlib.error as error:
                raise UnpackError("the answer is not packed as it says") from error
            if piece:
                yield piece
            data = self._unpacker.unused_data if self._unpacker.eof else self._unpacker.unconsumed_tail

    @property
    def is_whole(self) -> bool:
        """Tell whether the end came, or nothing at all."""
        return self._unpacker is None or self._unpacker.eof

    def _next_member(self) -> None:
        self._members += 1
        if not self._is_gzip or self._members > _MOST_MEMBERS:
            raise UnpackError("the answer has bytes behind its packed end")
        self._unpacker = zlib.decompressobj(_GZIP)
