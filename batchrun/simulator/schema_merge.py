"""JSON Schemas made flat: local references followed, `allOf` and siblings merged into one object."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from batchrun.simulator.source import Unsatisfiable

Schema = Any
Flat = dict[str, Any]

_NEVER: Flat = {"enum": []}
#: Merging alternatives multiplies them.
_MAX_ALTERNATIVES = 64
#: Merged values deep in a chain of references, cyclic ones included, end somewhere.
_MAX_CHAIN = 32


class Flattener:
    """Flattens the parts of one schema document. Remote references are unsatisfiable."""

    __slots__ = ("_root",)

    def __init__(self, root: Schema) -> None:
        self._root = root

    def flatten(self, schema: Schema, chain: tuple[str, ...] = ()) -> tuple[Flat, tuple[str, ...]]:
        """Give one object without `$ref` and `allOf`, and the references that were followed for it.

        Raises `Unsatisfiable`.
        """
        if not isinstance(schema, dict):
            return ({} if schema is not False else dict(_NEVER)), ()
        if not ("$ref" in schema or "allOf" in schema or "if" in schema):
            return schema, ()
        flat = {name: value for name, value in schema.items() if name not in _FOLDED}
        followed: list[str] = []
        parts = list(_list(schema.get("allOf")))
        if "$ref" in schema:
            reference = str(schema["$ref"])
            if reference in chain or len(chain) > _MAX_CHAIN:
                raise Unsatisfiable
            followed.append(reference)
            chain = (*chain, reference)
            parts.insert(0, self.resolve(reference))
        if "if" in schema:
            parts.append(_conditional(schema))
        for part in parts:
            more, references = self.flatten(part, chain)
            followed.extend(references)
            flat = merge(flat, more)
        return flat, tuple(followed)

    def resolve(self, reference: str) -> Schema:
        """Find the target of a local reference. Raises `Unsatisfiable`."""
        pointer = reference.removeprefix("#")
        if pointer == reference and not (isinstance(self._root, dict) and reference == self._root.get("$id")):
            raise Unsatisfiable
        if pointer == reference or not pointer:
            return self._root
        if not pointer.startswith("/"):
            return self._anchor(pointer)
        target = self._root
        for step in pointer[1:].split("/"):
            target = _step(target, unquote(step).replace("~1", "/").replace("~0", "~"))
        return target

    def _anchor(self, name: str) -> Schema:
        for folder in ("$defs", "definitions"):
            for candidate in self._root.get(folder, {}).values() if isinstance(self._root, dict) else ():
                if isinstance(candidate, dict) and candidate.get("$anchor") == name:
                    return candidate
        raise Unsatisfiable


def merge(first: Flat, second: Flat) -> Flat:
    """Make one object that demands what both demand. Raises `Unsatisfiable` on plain contradictions."""
    if not first or not second:
        return first or second
    merged = dict(first)
    for name, value in second.items():
        if name not in merged:
            merged[name] = value
        elif merged[name] != value:
            merged[name] = _MERGERS.get(name, _keep_first)(merged[name], value)
    return merged


def types_of(flat: Mapping[str, Any]) -> tuple[str, ...]:
    """Give the types a flat schema names, none for a schema that names none."""
    named = flat.get("type", ())
    return (named,) if isinstance(named, str) else tuple(named)


_FOLDED = frozenset({"$ref", "allOf", "if", "then", "else"})


def _conditional(schema: Flat) -> Flat:
    # An instance that meets `if` and `then` meets the whole, and so does one that fails `if` and meets
    # `else`; the second is tried only when the first cannot be made.
    return {"anyOf": [{"allOf": [schema["if"], schema.get("then", True)]}, schema.get("else", True)]}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _step(target: Schema, name: str) -> Schema:
    if isinstance(target, dict) and name in target:
        return target[name]
    if isinstance(target, list) and name.isdecimal() and int(name) < len(target):
        return target[int(name)]
    raise Unsatisfiable


def _keep_first(first: Any, _: Any) -> Any:
    return first


def _both(first: Schema, second: Schema) -> Schema:
    return {"allOf": [first, second]}


def _by_name(first: Any, second: Any) -> Any:
    merged = dict(first)
    for name, value in second.items():
        merged[name] = _both(merged[name], value) if name in merged else value
    return merged


def _union(first: Any, second: Any) -> Any:
    return [*first, *(value for value in second if value not in first)]


def _definitions(first: Any, second: Any) -> Any:
    return {**second, **first}


def _types(first: Any, second: Any) -> Any:
    ours, theirs = types_of({"type": first}), types_of({"type": second})
    common = [name for name in ours if name in theirs or (name == "integer" and "number" in theirs)]
    if "number" in ours and "integer" in theirs and "integer" not in common:
        common.append("integer")
    if not common:
        raise Unsatisfiable
    return common


def _values(first: Any, second: Any) -> Any:
    return [value for value in first if value in second]


def _constant(_first: Any, _second: Any) -> Any:
    raise Unsatisfiable


def _either(first: Any, second: Any) -> Any:
    return bool(first or second)


def _product(first: Any, second: Any) -> Any:
    return [_both(ours, theirs) for ours in first for theirs in second][:_MAX_ALTERNATIVES]


def _multiple(first: Any, second: Any) -> Any:
    if isinstance(first, int) and isinstance(second, int):
        return math.lcm(first, second)
    return max(first, second)


def _positions(first: Any, second: Any) -> Any:
    both = [_both(ours, theirs) for ours, theirs in zip(first, second, strict=False)]
    return [*both, *first[len(both) :], *second[len(both) :]]


_MERGERS: Mapping[str, Callable[[Any, Any], Any]] = {
    "type": _types,
    "properties": _by_name,
    "patternProperties": _by_name,
    "$defs": _definitions,
    "definitions": _definitions,
    "required": _union,
    "enum": _values,
    "const": _constant,
    "minimum": max,
    "exclusiveMinimum": max,
    "minLength": max,
    "minItems": max,
    "minProperties": max,
    "minContains": max,
    "maximum": min,
    "exclusiveMaximum": min,
    "maxLength": min,
    "maxItems": min,
    "maxProperties": min,
    "multipleOf": _multiple,
    "uniqueItems": _either,
    "items": _both,
    "prefixItems": _positions,
    "contains": _both,
    "propertyNames": _both,
    "additionalProperties": _both,
    "anyOf": _product,
    "oneOf": _product,
}
