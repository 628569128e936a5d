"""A set of ids small enough for tens of millions of them: about 15 bytes an id."""

from __future__ import annotations

from hashlib import blake2b

_SHARDS = 1 << 16
_KEY_BYTES = 8
_LINE_BYTES = 5
_STRIDE = _KEY_BYTES + _LINE_BYTES


class IdIndex:
    """Ids with the line where each stood, kept as 80-bit hashes.

    Two different ids are taken for one with a chance of 4e-11 at ten million ids. The first two bytes of the
    hash choose one of 65,536 byte strings, the rest is searched in it; no single step grows with the number
    of ids as rehashing one large table would, so the event loop is never held up.
    """

    __slots__ = ("_count", "_shards")

    def __init__(self) -> None:
        self._shards: list[bytearray | None] = [None] * _SHARDS
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, item_id: str) -> bool:
        digest = _digest(item_id)
        shard = self._shards[digest[0] << 8 | digest[1]]
        return shard is not None and _find(shard, digest[2:]) >= 0

    def add(self, item_id: str, line: int) -> int | None:
        """Add an id. Give None if it is new, else the line it was first added with."""
        digest = _digest(item_id)
        key = digest[2:]
        number = digest[0] << 8 | digest[1]
        shard = self._shards[number]
        if shard is None:
            shard = self._shards[number] = bytearray()
        else:
            at = _find(shard, key)
            if at >= 0:
                return int.from_bytes(shard[at + _KEY_BYTES : at + _STRIDE], "little")
        shard += key + line.to_bytes(_LINE_BYTES, "little")
        self._count += 1
        return None


def _digest(item_id: str) -> bytes:
    return blake2b(item_id.encode("utf-8", "surrogatepass"), digest_size=2 + _KEY_BYTES).digest()


def _find(shard: bytearray, key: bytes) -> int:
    at = shard.find(key)
    while at >= 0 and at % _STRIDE:
        at = shard.find(key, at + 1)
    return at
