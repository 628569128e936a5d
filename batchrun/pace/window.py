"""How much was let go in the last minute, second or day: a ring of cells, which may lie in a file that others share."""

from __future__ import annotations

from math import isfinite

#: A window is kept in so many steps, and for one step more than its length: what was let go leaves it a thousandth too
#: late at most, and half of that at least, for what took longer to get there counts there for longer.
_STEPS = 2048
_RING = _STEPS + 2
_FREE_AT, _TOTAL, _OLDEST, _HEAD = 0, 1, 2, 3
#: The cells that a window needs.
CELLS = _HEAD + _RING


def cells(count: int) -> memoryview[float]:
    """Give so many cells, all zero, of this process alone."""
    return memoryview(bytearray(8 * count)).cast("d")


class Window:
    """Counts what was let go in the last `length_s` seconds, never too little.

    `cells` are `CELLS` numbers, all zero at first. Nothing else holds the state, so cells that several processes map
    make one window of them all; whoever reads or changes it then has to hold their lock. Times never go back.
    """

    __slots__ = ("_cells", "_step", "_width", "length_s")

    def __init__(self, length_s: float, cells: memoryview[float]) -> None:
        self.length_s = length_s
        self._width = length_s / (_STEPS - 1)
        self._cells = cells
        self._step = -1

    @property
    def total(self) -> float:
        """What was let go in the window, as of the last `forget`."""
        return self._cells[_TOTAL]

    @property
    def free_at(self) -> float:
        """When the next may go, if all goes evenly."""
        return self._cells[_FREE_AT]

    @free_at.setter
    def free_at(self, at: float) -> None:
        self._cells[_FREE_AT] = at

    def mend(self, now: float) -> None:
        """Make good what cannot be: what is no number, or of a later time. What is owed is one window at most."""
        cells = self._cells
        latest = int(now // self._width) + 1
        if not all(isfinite(one) for one in cells) or cells[_OLDEST] > latest or cells[_TOTAL] < -1.0:
            for at in range(CELLS):
                cells[at] = 0.0
        if cells[_FREE_AT] > now + self.length_s:
            cells[_FREE_AT] = now + self.length_s

    def forget(self, now: float) -> None:
        """Let what is too old leave the window."""
        cells = self._cells
        first = int(now // self._width) - _STEPS
        oldest = int(cells[_OLDEST])
        if oldest >= first:
            return
        if first - oldest >= _RING:
            for at in range(_HEAD, CELLS):
                cells[at] = 0.0
            cells[_TOTAL] = 0.0
        else:
            for step in range(oldest, first):
                at = _HEAD + step % _RING
                if cells[at]:
                    cells[_TOTAL] -= cells[at]
                    cells[at] = 0.0
        cells[_OLDEST] = first

    def add(self, now: float, amount: float) -> int:
        """Count an amount; give the step by which `change` finds it again."""
        step = int(now // self._width)
        if step != self._step:
            self._step = step
            self.forget(now)  # whose cell it was before
        self._cells[_HEAD + step % _RING] += amount
        self._cells[_TOTAL] += amount
        return step

    def change(self, step: int, by: float) -> None:
        """Correct what was counted in a step, if it is in the window still."""
        cells = self._cells
        if step >= cells[_OLDEST]:
            cells[_HEAD + step % _RING] += by
            cells[_TOTAL] += by

    def room_at(self, now: float, amount: float, most: float) -> float:
        """Give the first time at which an amount more makes no more than `most`. `forget` comes first."""
        cells = self._cells
        over = cells[_TOTAL] + amount - most
        if over <= 1e-9 * most:
            return now
        step = oldest = int(cells[_OLDEST])
        while over > 1e-9 * most and step < oldest + _RING:
            over -= cells[_HEAD + step % _RING]
            step += 1
        # A step has left the window once its last moment has.
        return max(now, (step + _STEPS) * self._width)

    def since(self, now: float) -> float:
        """Give how long ago the oldest was let go that is in the window still, in seconds; 0.0 if there is nothing."""
        oldest = int(self._cells[_OLDEST])
        for step in range(oldest, int(now // self._width) + 1):
            if self._cells[_HEAD + step % _RING] > 0:
                return now - step * self._width
        return 0.0
