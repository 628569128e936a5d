"""What a run will take in time and money, from how its first items fared; and afterwards what it did take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchrun.canary import Range


@dataclass(slots=True)
class Forecast:
    """A forecast for the items that are left, made `at_s` (of the event loop's clock) when `spent` was spent."""

    items: int
    seconds: Range
    cost: Range | None
    currency: str
    at_s: float
    spent: float

    def in_words(self) -> str:
        """Say it in a few words."""
        words = f"the other {self.items:,} will take {_span(self.seconds.low)} to {_span(self.seconds.high)}"
        if self.cost is not None:
            words += f" and cost {self.cost.low:.4g} to {self.cost.high:.4g} {self.currency}"
        return words

    def as_dict(self, now_s: float, spent: float) -> dict[str, Any]:
        """Give it as JSON values, beside what the run took since it was made."""
        has_cost = self.cost is not None
        return {
            "items": self.items,
            "seconds": self.seconds.as_list(),
            "cost": self.cost.as_list() if self.cost is not None else None,
            "took": {
                "seconds": round(now_s - self.at_s, 3),
                "cost": round(spent - self.spent, 6) if has_cost else None,
            },
        }


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 5400 else f"{seconds / 3600:.3g} h"
