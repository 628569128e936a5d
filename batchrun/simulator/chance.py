"""Chance that can be repeated: numbers from hashes."""

from __future__ import annotations

from hashlib import blake2b

_MASK = (1 << 64) - 1
_MANTISSA = 1 << 53


def hash64(seed: int, purpose: str, key: bytes, number: int = 0) -> int:
    """Hash seed, purpose, key and number to 64 bits."""
    digest = blake2b(b"%d|%s|%d|" % (seed, purpose.encode(), number), digest_size=8)
    digest.update(key)
    return int.from_bytes(digest.digest(), "big")


def uniform(seed: int, purpose: str, key: bytes, number: int = 0) -> float:
    """Draw a number from 0 (included) to 1 (excluded) that depends on the arguments alone."""
    return (hash64(seed, purpose, key, number) >> 11) / _MANTISSA


class Dice:
    """A splitmix64 generator: an order of magnitude cheaper to seed than `random.Random`."""

    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def below(self, end: int) -> int:
        """Draw a whole number from 0 (included) to `end` (excluded)."""
        self._state = state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        return (state ^ (state >> 31)) % end
