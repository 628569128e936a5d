"""Watches the answers of a run for what nobody announces: another model, or reasoning that is suddenly gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchrun.endpoint.dialect import Dialect
    from batchrun.records import Response

#: After so many answers of a model, all of them with reasoning, one without is worth a warning.
_ALWAYS = 5
#: What may follow the id that was asked for: a date, a tag, a variant.
_SUFFIXES = "-:@/"


class Watch:
    """Gives the warnings for each answer, given the model that was asked for."""

    def __init__(self, dialect: Dialect) -> None:
        self._aliases = [row.model for row in dialect.alias]
        self._models: dict[tuple[str, str], bool] = {}
        self._reasoned: dict[str, int] = {}

    def warnings(self, asked: str, response: Response) -> tuple[str, ...]:
        """Give `other_model:<id>` and `no_reasoning` where they apply."""
        found = []
        answered = response.model
        if answered and answered != asked and not self._is_same(asked, answered):
            found.append(f"other_model:{answered[:80]}")
        reasoned = self._reasoned.get(asked, 0)
        if response.reasoning:
            self._reasoned[asked] = reasoned + 1 if reasoned >= 0 else reasoned
        elif reasoned >= _ALWAYS:
            found.append("no_reasoning")
        elif reasoned >= 0:
            self._reasoned[asked] = -1  # it does without at times
        return tuple(found)

    def _is_same(self, asked: str, answered: str) -> bool:
        known = self._models.get((asked, answered))
        if known is None:
            known = _same(asked, answered) or any(alias.search(asked) for alias in self._aliases)
            if len(self._models) < 1000:
                self._models[asked, answered] = known
        return known


def _same(asked: str, answered: str) -> bool:
    """Tell whether two ids may name one model: up to case, the maker's name before it, a date or tag after it."""
    wanted, got = asked.lower().removesuffix(":latest"), answered.lower().removesuffix(":latest")
    for one, other in ((wanted, got), (wanted.rpartition("/")[2], got.rpartition("/")[2])):
        if one == other or (one and other.startswith(one) and other[len(one)] in _SUFFIXES):
            return True
    return False
