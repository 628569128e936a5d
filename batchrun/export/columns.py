"""The columns of an export: fields, parts of fields, and what the objects among the outputs are made of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from batchrun.export.rows import ANY_VALUE, FIELDS, PARTS, JsonText

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from batchrun.export.rows import Row

#: Fields that are written only if they are asked for: what went in, and the whole of what came back.
_ON_DEMAND = ("input", "provider")
#: Objects with more different keys than this in all are no table; they stay JSON text in one column.
MOST_KEYS = 1000
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name, the field that it is of, and the path to a part of it (None for the whole).

    `but_objects` leaves out objects, whose keys have columns of their own.
    """

    name: str
    field: str
    path: str | None = None
    but_objects: bool = False

    def value(self, row: Row) -> Any:
        """Give the column's value in a row: a JSON value, perhaps as `JsonText`; None for nothing."""
        if self.path is not None:
            return picked(row.parsed(self.field), self.path)
        if self.but_objects and isinstance(row.parsed(self.field), dict):
            return None
        return row.values.get(self.field)


def picked(value: Any, path: str) -> Any:
    """Follow a dotted path through objects, whose keys may hold dots themselves; None where it leads nowhere."""
    found = _picked(value, path)
    return None if found is _MISSING else found


def _picked(value: Any, path: str) -> Any:
    if not isinstance(value, dict):
        return _MISSING
    if path in value:
        return value[path]
    at = path.find(".")
    while at >= 0:
        if path[:at] in value:
            found = _picked(value[path[:at]], path[at + 1 :])
            if found is not _MISSING:
                return found
        at = path.find(".", at + 1)
    return _MISSING


def columns_of(names: Sequence[str] | None, *, join: bool) -> list[Column]:
    """Give the columns by the names asked for, or all that are usual.

    Raises `ValueError` with what was expected.
    """
    if names is None:
        return [Column(one, one) for one in FIELDS if one not in _ON_DEMAND or (one == "input" and join)]
    found = [_column(name) for name in names]
    if join and all(one.field != "input" for one in found):
        found.append(Column("input", "input"))
    twice = [name for number, name in enumerate(names) if name in names[:number]]
    if twice:
        raise ValueError(f"each field once, got {twice[0]!r} twice")
    return found


def _column(name: str) -> Column:
    field, dot, path = name.partition(".")
    if field in FIELDS and (not dot or field in ANY_VALUE or path in PARTS.get(field, ())):
        return Column(name, field, path if dot else None)
    if field in PARTS:
        raise ValueError(f"{field} or one of {', '.join(f'{field}.{part}' for part in PARTS[field])}, got {name!r}")
    known = ", ".join((*FIELDS, *(f"{field}.KEY" for field in ANY_VALUE)))
    raise ValueError(f"one of {known}, got {name!r}")


def flat(columns: Iterable[Column], rows: Iterable[Row]) -> tuple[list[Column], list[str]]:
    """Give columns for a table without objects, and the fields that have too many different keys for that.

    Of outputs and inputs that are objects each key is a column (`output.情感`); deeper objects and lists are left as
    they are. The keys are those of all rows, in the order in which the rows first have them; all rows are read.
    """
    columns = list(columns)
    open_fields = [one.field for one in columns if one.field in ("output", "input") and one.path is None]
    keys: dict[str, dict[str, None]] = {field: {} for field in open_fields}
    others = dict.fromkeys(open_fields, False)
    if open_fields:
        for row in rows:
            for field in open_fields:
                value = row.parsed(field)
                if isinstance(value, dict) and len(keys[field]) <= MOST_KEYS:
                    keys[field].update(dict.fromkeys(value))
                elif value is not None:
                    others[field] = True
    return [part for one in columns for part in _parts(one, keys, others)], [
        field for field, found in keys.items() if len(found) > MOST_KEYS
    ]


def _parts(column: Column, keys: dict[str, dict[str, None]], others: dict[str, bool]) -> list[Column]:
    name = column.field
    if column.path is not None:
        return [column]
    if name in PARTS:
        return [Column(f"{name}.{part}", name, part) for part in PARTS[name]]
    if name not in keys or not 0 < len(keys[name]) <= MOST_KEYS:
        return [column]
    whole = [Column(name, name, but_objects=True)] if others[name] else []
    return [*whole, *(Column(f"{name}.{key}", name, key) for key in keys[name])]


def as_text(value: Any) -> str | None:
    """Give a text as it is, any other value as JSON text, None for nothing."""
    if value is None or isinstance(value, str):
        return value
    return as_json(value).decode()


def as_json(value: Any) -> bytes:
    """Give a value as JSON text; whole numbers keep all their digits."""
    if isinstance(value, JsonText):
        return value.text
    try:
        return orjson.dumps(value)
    except TypeError:  # whole numbers over 64 bits, which the fast writer refuses
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
