"""The fields of a JSON value: every string in it with its path, and copies with every string changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

#: A shorter whole number is nothing that is looked for, not even by a word or pattern of the user's.
_SHORTEST_NUMBER = 1000


#: Where a value stands: the place it is in, and its key or index there; nothing for a whole value.
Place: TypeAlias = tuple[Any, str | int] | None


def path_of(place: Place, root: str, shown: Callable[[str], str]) -> str:
    """Give the path from a root by that name: `messages[0].content`. `shown` masks what a key must not tell."""
    steps: list[str] = []
    while place is not None:
        place, key = place
        steps.append(f"[{key}]" if isinstance(key, int) else f".{shown(key)}")
    return (root + "".join(reversed(steps))).lstrip(".")


class Fields:
    """Which fields are looked at: those of `include`, all where it names none, without those of `skip`."""

    def __init__(self, include: Iterable[str] = (), skip: Iterable[str] = ()) -> None:
        self._include = [tuple(name.split(".")) for name in include]
        self._skip = [tuple(name.split(".")) for name in skip]
        #: Whether everything is looked at.
        self.all = not self._include and not self._skip
        #: Whether nothing is looked at but what is named.
        self.is_chosen = bool(self._include)

    def covers(self, names: tuple[str, ...]) -> bool:
        """Tell whether the text under these keys is looked at."""
        if self.all:
            return True
        if any(names[: len(skipped)] == skipped for skipped in self._skip):
            return False
        return not self._include or any(names[: len(included)] == included for included in self._include)


_Names = tuple[str, ...]


def texts(value: Any, fields: Fields) -> Iterator[tuple[Place, str]]:
    """Yield every string, key and long whole number of a value as text, each with its place. Any depth is fine."""
    everything = fields.all
    stack: list[tuple[Place, _Names, Any]] = [(None, (), value)]
    while stack:
        place, names, one = stack.pop()
        if isinstance(one, dict):
            inside = [((place, key), () if everything else (*names, key), inner) for key, inner in one.items()]
            yield from ((where, where[1]) for where, keys, _ in inside if everything or fields.covers(keys))
            stack += reversed(inside)
        elif isinstance(one, list | tuple):
            stack += [((place, index), names, one[index]) for index in range(len(one) - 1, -1, -1)]
        elif (text := as_text(one)) is not None and (everything or fields.covers(names)):
            yield place, text


def rebuilt(value: Any, change: Callable[[str], str], fields: Fields | None = None) -> Any:
    """Give a copy of a value with every string, key and long whole number that the fields cover changed.

    A number stays a number where `change` leaves its digits as they are. Any depth is fine.
    """
    fields = fields or Fields()
    top = [value]
    stack: list[tuple[Any, _Names]] = [(top, ())]
    while stack:
        box, names = stack.pop()
        for key, one in list(box.items() if isinstance(box, dict) else enumerate(box)):
            inside = (*names, key) if isinstance(box, dict) else names
            box[key] = _changed(one, change) if fields.covers(inside) else one
            if isinstance(one, dict):
                box[key] = {_changed_key(name, change, fields, inside): two for name, two in one.items()}
            elif isinstance(one, list | tuple):
                box[key] = list(one)
            else:
                continue
            stack.append((box[key], inside))
    return top[0]


def _changed_key(key: str, change: Callable[[str], str], fields: Fields, names: _Names) -> str:
    return change(key) if fields.covers((*names, key)) else key


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    text = as_text(value)
    if text is None:
        return value
    new = change(text)
    return value if new == text else new


def as_text(value: Any) -> str | None:
    """Give a string, or a long whole number as one; None for any other value."""
    if isinstance(value, str):
        return value
    if type(value) is float and abs(value) < 1e18 and value.is_integer():  # whole numbers of a table with gaps
        value = int(value)
    return str(value) if type(value) is int and abs(value) >= _SHORTEST_NUMBER else None
