"""What a generated JSON value draws on: chance, phrases of the prompt, and a budget."""

from __future__ import annotations

import re
from collections import Counter

from batchrun.simulator.chance import Dice

#: Beyond this many nodes only what is required is generated; beyond the hard limit nothing is.
_LEAN_NODES = 2_000
_MAX_NODES = 20_000
#: A definition that refers to itself is followed in full so often, then only where it must be.
_FULL_RECURSIONS = 2
_MAX_RECURSIONS = 12

_PHRASE = re.compile("[\u4e00-\u9fff]{2,6}")
_PHRASE_SEARCH_CHARACTERS = 400
_FALLBACK_PHRASE = "文本"


class Unsatisfiable(Exception):
    """No instance can be made from a part of a schema; another alternative may do."""


class BudgetSpent(Exception):
    """The instance grew beyond all bounds."""


class Source:
    """Chance and words for one instance.

    With `omit_required`, the first object that requires a property lacks one; the flag is False after that.
    """

    __slots__ = ("_dice", "_lean", "_nodes", "_open", "_phrases", "_text", "omit_required", "retries")

    def __init__(self, seed: int, text: str, *, omit_required: bool = False) -> None:
        self._dice = Dice(seed)
        self._text = text
        self._phrases: list[str] | None = None
        self._nodes = 0
        self._lean = 0
        self._open: Counter[str] = Counter()
        self.omit_required = omit_required
        self.retries = 0

    @property
    def lean(self) -> bool:
        """Tell whether to leave out everything that may be left out."""
        return self._lean > 0 or self._nodes > _LEAN_NODES

    def below(self, end: int) -> int:
        """Draw a whole number from 0 (included) to `end` (excluded)."""
        return self._dice.below(end)

    def phrase(self) -> str:
        """Draw some characters of the prompt."""
        if self._phrases is None:
            found = _PHRASE.findall(self._text, 0, _PHRASE_SEARCH_CHARACTERS)
            self._phrases = found or [self._text.strip()[:12].strip() or _FALLBACK_PHRASE]
        return self._phrases[self.below(len(self._phrases))]

    def spend(self) -> None:
        """Count a node. Raises `BudgetSpent`."""
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise BudgetSpent

    def enter(self, reference: str) -> None:
        """Follow a reference. Raises `Unsatisfiable` when it was followed within itself too often."""
        depth = self._open[reference]
        if depth >= _MAX_RECURSIONS:
            raise Unsatisfiable
        self._open[reference] = depth + 1
        self._lean += depth >= _FULL_RECURSIONS

    def leave(self, reference: str) -> None:
        """Come back from a reference."""
        depth = self._open[reference] - 1
        self._open[reference] = depth
        self._lean -= depth >= _FULL_RECURSIONS
