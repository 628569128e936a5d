"""A set of ids small enough for tens of millions of them: about 15 bytes an id."""

from __future__ import annotations

from hashlib import blake2b

#: More of them would take more memory than the ids of a million items do, fewer more time to search.
_SHARD_BITS = 14
_KEY_BYTES = 8
_VALUE_BYTES = 5
_STRIDE = _KEY_BYTES + _VALUE_BYTES
#: Bytes of a `digest`.
DIGEST_BYTES = 2 + _KEY_BYTES


def digest(text: str) -> bytes:
    """Give the 80-bit hash by which an id is known; stable over processes and versions."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


class IdIndex:
    """Digests of ids, each with a number below 2**40, such as the line where the id stood.

    Two different ids are taken for one with a chance of 2e-10 at ten million ids. The first 14 bits of the digest
    choose one of 16,384 byte strings, in which its last eight bytes are searched; no single step grows with the number
    of ids as rehashing one large table would, so the event loop is never held up.
    """

    __slots__ = ("_count", "_shards")

    def __init__(self) -> None:
        self._shards: list[bytearray | None] = [None] * (1 << _SHARD_BITS)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, key: bytes, number: int) -> int | None:
        """Add a digest. Give None if it is new, else the number it was first added with."""
        at = _place(key)
        shard = self._shards[at]
        if shard is None:
            shard = self._shards[at] = bytearray()
        else:
            found = _find(shard, key[2:])
            if found >= 0:
                return int.from_bytes(shard[found + _KEY_BYTES : found + _STRIDE], "little")
        shard += key[2:] + number.to_bytes(_VALUE_BYTES, "little")
        self._count += 1
        return None

    def get(self, key: bytes) -> int | None:
        """Give the number of a digest, None if it is not there."""
        shard = self._shards[_place(key)]
        found = -1 if shard is None else _find(shard, key[2:])
        if shard is None or found < 0:
            return None
        return int.from_bytes(shard[found + _KEY_BYTES : found + _STRIDE], "little")

    def put(self, key: bytes, number: int) -> int | None:
        """Set the number of a digest. Give the number that it had, None if it is new."""
        before = self.add(key, number)
        if before is not None:
            shard = self._shards[_place(key)] or bytearray()
            found = _find(shard, key[2:])
            shard[found + _KEY_BYTES : found + _STRIDE] = number.to_bytes(_VALUE_BYTES, "little")
        return before


def _place(key: bytes) -> int:
    return (key[0] << 8 | key[1]) >> (16 - _SHARD_BITS)


def _find(shard: bytearray, key: bytes) -> int:
    at = shard.find(key)
    while at >= 0 and at % _STRIDE:
        at = shard.find(key, at + 1)
    return at


def repeated(item_id: str, use: int) -> bytes:
    """Give the digest for the second, third, … use of an id, which is no item of its own but has a record."""
    return digest(f"\udc00{use}\0{item_id}")  # a lone surrogate cannot stand in an item's id
