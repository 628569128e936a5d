"""JSON Schema → an instance that is valid against it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from batchrun.simulator.formats import FORMATS
from batchrun.simulator.grid import grid
from batchrun.simulator.patterns import sample
from batchrun.simulator.schema_merge import Flat, Flattener, Schema, types_of
from batchrun.simulator.source import BudgetSpent, Source, Unsatisfiable

Maker = Callable[[Source], Any]

#: How generated text begins wherever the schema leaves it free.
MARK = "模拟"

_DEFAULT_ITEMS = 2
_TRIES = 64
_TRIES_PER_ITEM = 32
_MAX_RANK_DEPTH = 4
_MALFORMED = (TypeError, ValueError, AttributeError, KeyError, ArithmeticError, RecursionError, re.error)


@dataclass(frozen=True, slots=True)
class Instance:
    """A generated value; `omitted` tells whether a required property was left out on demand."""

    value: Any
    omitted: bool


class CompiledSchema:
    """A schema that makes instances. Parts are compiled when they are first needed."""

    __slots__ = ("_make",)

    def __init__(self, schema: Schema) -> None:
        self._make = _Compiler(schema).node(schema)

    def instance(self, seed: int, text: str, *, omit_required: bool = False) -> Instance:
        """Make the instance for a seed, with words from a text.

        A schema that nothing satisfies, or that is none, gives an empty object.
        """
        source = Source(seed, text, omit_required=omit_required)
        try:
            value = self._make(source)
        except (Unsatisfiable, BudgetSpent, *_MALFORMED):
            return Instance({}, omitted=False)
        return Instance(value, omitted=omit_required and not source.omit_required)


@lru_cache(maxsize=128)
def compile_schema(text: bytes) -> CompiledSchema:
    """Compile a schema from its JSON text. Raises `ValueError` if the text is not JSON."""
    return CompiledSchema(orjson.loads(text))


class _Compiler:
    """Turns the parts of one schema document into makers."""

    def __init__(self, root: Schema) -> None:
        self.flattener = Flattener(root)
        self._by_reference: dict[str, Maker] = {}

    def node(self, schema: Schema) -> Maker:
        return _Node(self, schema).make

    def maker(self, schema: Schema) -> tuple[Maker, str]:
        """Give the maker of a schema, and the name under which its recursion is counted, empty for none."""
        try:
            flat, references = self.flattener.flatten(schema)
        except Unsatisfiable:
            return _never, ""
        name = " ".join(references)
        alone = len(references) == 1 and not (schema.keys() - _ANNOTATIONS - {"$ref"})
        if not alone:
            return self._build(flat), name
        if name not in self._by_reference:
            self._by_reference[name] = self._build(flat)
        return self._by_reference[name], name

    def rank(self, schema: Schema, depth: int = 0) -> int:
        """Tell how little it takes to make an instance: small for scalars, large for what must nest."""
        if depth > _MAX_RANK_DEPTH:
            return depth
        try:
            flat, _ = self.flattener.flatten(schema)
        except Unsatisfiable:
            return 2 * _MAX_RANK_DEPTH
        if "const" in flat or "enum" in flat:
            return 0
        types = types_of(flat)
        if "null" in types:
            return 0
        if "anyOf" in flat or "oneOf" in flat:
            branches = flat.get("anyOf") or flat.get("oneOf") or ()
            return min((self.rank(branch, depth + 1) for branch in branches), default=depth)
        needed: list[Schema] = []
        if "properties" in flat:
            needed = [flat["properties"].get(name, True) for name in flat.get("required", ())]
        elif flat.get("minItems", 0) > 0:
            needed = [flat.get("items", True)]
        return 1 + max((self.rank(part, depth + 1) for part in needed), default=0)

    def _build(self, flat: Flat) -> Maker:
        try:
            if "const" in flat:
                return _choose([flat["const"]], flat)
            if "enum" in flat:
                return _choose(flat["enum"], flat)
            for keyword in ("anyOf", "oneOf"):
                if keyword in flat:
                    return self._alternatives(flat, keyword, flat[keyword])
            types = types_of(flat) or (_implied_type(flat),)
            if len(types) > 1:
                ordered = sorted(types, key=lambda name: name == "null")
                return self._alternatives(flat, "type", [{"type": name} for name in ordered])
            if types[0] in _CONTAINERS:
                return _CONTAINERS[types[0]](self, flat)
            return _SCALARS[types[0]](flat)
        except Unsatisfiable:
            return _never

    def _alternatives(self, flat: Flat, keyword: str, branches: list[Schema]) -> Maker:
        rest = {name: value for name, value in flat.items() if name != keyword and name not in _ANNOTATIONS}
        schemas = [{"allOf": [rest, branch]} if rest else branch for branch in branches]
        makers = [self.node(schema) for schema in schemas]
        by_rank: list[Maker] = []

        def make(source: Source) -> Any:
            if source.lean and not by_rank:
                order = sorted(range(len(schemas)), key=lambda index: self.rank(schemas[index]))
                by_rank.extend(makers[index] for index in order)
            for maker in by_rank if source.lean else makers:
                with suppress(Unsatisfiable):
                    return maker(source)
            raise Unsatisfiable

        return make


class _Node:
    """One place in a schema, compiled on first use: recursive schemas have no end otherwise."""

    __slots__ = ("_compiler", "_maker", "_reference", "_schema")

    def __init__(self, compiler: _Compiler, schema: Schema) -> None:
        self._compiler = compiler
        self._schema = schema
        self._maker: Maker | None = None
        self._reference = ""

    def make(self, source: Source) -> Any:
        source.spend()
        if self._maker is None:
            self._maker, self._reference = self._compiler.maker(self._schema)
        if not self._reference:
            return self._maker(source)
        source.enter(self._reference)
        try:
            return self._maker(source)
        finally:
            source.leave(self._reference)


def _never(_source: Source) -> Any:
    raise Unsatisfiable


def _choose(values: list[Any], flat: Flat) -> Maker:
    types = types_of(flat)
    fitting = [value for value in values if not types or any(_IS_TYPE[name](value) for name in types)]
    if not fitting:
        raise Unsatisfiable
    return lambda source: fitting[source.below(len(fitting))]


def _null(_flat: Flat) -> Maker:
    return lambda _: None


def _boolean(_flat: Flat) -> Maker:
    return lambda source: source.below(2) == 1


def _integer(flat: Flat) -> Maker:
    return grid(flat, integer=True).integer


def _number(flat: Flat) -> Maker:
    return grid(flat, integer=False).number


def _string(flat: Flat) -> Maker:
    shortest, longest = flat.get("minLength", 0), flat.get("maxLength")
    if longest is not None and shortest > longest:
        raise Unsatisfiable
    if "pattern" in flat:
        return _patterned(flat["pattern"], FORMATS.get(flat.get("format", "")), shortest, longest)
    if flat.get("format") in FORMATS:
        return FORMATS[flat["format"]]

    def make(source: Source) -> str:
        number = str(source.retries) if source.retries else ""
        text = MARK + source.phrase() + number
        if len(text) < shortest:
            text = (text * (shortest // len(text) + 1))[:shortest]
        if longest is not None and len(text) > longest:
            text = text[: max(0, longest - len(number))] + number
        return text[:longest]

    return make


def _patterned(pattern: str, formatted: Maker | None, shortest: int, longest: int | None) -> Maker:
    def make(source: Source) -> str:
        if formatted is not None:
            text = str(formatted(source))
            with suppress(re.error):
                if re.search(pattern, text):
                    return text
        found = sample(pattern, source.below, shortest, longest)
        # No text is known that matches: one that says so beats no answer at all.
        return MARK + source.phrase() if found is None else found

    return make


def _array(compiler: _Compiler, flat: Flat) -> Maker:
    items = flat.get("items", True)
    prefix: list[Schema] = list(flat.get("prefixItems", ()))
    if isinstance(items, list):  # drafts before 2020-12
        prefix, items = items, flat.get("additionalItems", True)
    fewest, most = flat.get("minItems", 0), flat.get("maxItems")
    contained = flat.get("minContains", 1) if "contains" in flat else 0
    needed = max(fewest, len(prefix) + contained if contained else 0)
    usual = max(needed, len(prefix) or (0 if items is False else _DEFAULT_ITEMS))
    if most is not None:
        usual = min(usual, most)
    if needed > usual:
        raise Unsatisfiable
    firsts = [compiler.node(schema) for schema in prefix]
    holder = compiler.node({"allOf": [items, flat["contains"]]}) if contained else _never
    rest = compiler.node(items)
    tries = _TRIES + _TRIES_PER_ITEM * usual if flat.get("uniqueItems") else 1

    def maker_at(position: int) -> Maker:
        if position < len(firsts):
            return firsts[position]
        return holder if position < len(firsts) + contained else rest

    def make(source: Source) -> list[Any]:
        made: list[Any] = []
        seen: set[bytes] = set()
        for position in range(needed if source.lean else usual):
            try:
                made.append(_unlike(maker_at(position), source, seen, tries))
            except Unsatisfiable:
                if len(made) < needed:
                    raise
                break
        return made

    return make


def _unlike(maker: Maker, source: Source, seen: set[bytes], tries: int) -> Any:
    if tries == 1:
        return maker(source)
    outer = source.retries
    try:
        for attempt in range(tries):
            source.retries = attempt
            value = maker(source)
            key = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
            if key not in seen:
                seen.add(key)
                return value
    finally:
        source.retries = outer
    raise Unsatisfiable


def _object(compiler: _Compiler, flat: Flat) -> Maker:
    shape = _Shape(flat)
    if shape.most is not None and len(shape.required) > shape.most:
        raise Unsatisfiable
    optional = [name for name in shape.names if name not in shape.required]
    room = len(optional) if shape.most is None else shape.most - len(shape.required)
    entries = [
        (name, compiler.node(shape.schema_of(name)), name in shape.required)
        for name in shape.names
        if name in shape.required or name in optional[:room]
    ]
    lean_optional = set(optional[: max(0, shape.fewest - len(shape.required))])
    namer = compiler.node({"allOf": [{"type": "string"}, shape.name_schema]})
    last_required = next((name for name in reversed(shape.names) if name in shape.required), None)

    def make(source: Source) -> dict[str, Any]:
        left_out = last_required if source.omit_required else None
        if left_out is not None:
            source.omit_required = False
        made: dict[str, Any] = {}
        for name, maker, needed in entries:
            if name == left_out or not (needed or not source.lean or name in lean_optional):
                continue
            try:
                made[name] = maker(source)
            except Unsatisfiable:
                if needed:
                    raise
        wanted = max(shape.fewest - len(made), 0 if source.lean else shape.usual_extras)
        if left_out is None and wanted:
            _add_extras(made, wanted, namer, compiler, shape, source)
        return made

    return make


def _add_extras(
    made: dict[str, Any], count: int, namer: Maker, compiler: _Compiler, shape: _Shape, source: Source
) -> None:
    outer = source.retries
    end = len(made) + count
    try:
        for attempt in range(_TRIES + count):
            if len(made) >= end:
                return
            source.retries = attempt
            name = namer(source)
            if name not in made and name not in shape.names:
                made[name] = compiler.node(shape.schema_of(name))(source)
    finally:
        source.retries = outer
    if len(made) < shape.fewest:
        raise Unsatisfiable


class _Shape:
    """What a flat schema says about an object's properties."""

    def __init__(self, flat: Flat) -> None:
        self._properties: dict[str, Schema] = flat.get("properties", {})
        self._patterns: dict[str, Schema] = flat.get("patternProperties", {})
        self._additional: Schema = flat.get("additionalProperties", True)
        self._name_schema: Schema = flat.get("propertyNames", True)
        self.fewest: int = flat.get("minProperties", 0)
        self.most: int | None = flat.get("maxProperties")
        self.required: dict[str, None] = dict.fromkeys(flat.get("required", ()))
        for trigger, dependents in flat.get("dependentRequired", {}).items():
            if trigger in self._properties or trigger in self.required:
                self.required.update(dict.fromkeys(dependents))
        allowed = [name for name in self._properties if self._properties[name] is not False or name in self.required]
        self.names: list[str] = [*allowed, *(name for name in self.required if name not in self._properties)]
        # A map from any name to values of one kind is better shown with an entry than empty.
        is_map = isinstance(self._additional, dict) and self._additional and not self.names
        self.usual_extras = int(bool(is_map) and self.most != 0)

    @property
    def name_schema(self) -> Schema:
        """Give the schema of names that are free to choose, from the patterns when only those are allowed."""
        if self._additional is False and self._patterns:
            return {"allOf": [{"pattern": next(iter(self._patterns))}, self._name_schema]}
        return self._name_schema

    def schema_of(self, name: str) -> Schema:
        parts = [self._properties[name]] if name in self._properties else []
        for pattern, schema in self._patterns.items():
            with suppress(re.error):
                if re.search(pattern, name):
                    parts.append(schema)
        if not parts:
            return self._additional
        return parts[0] if len(parts) == 1 else {"allOf": parts}


def _implied_type(flat: Mapping[str, Any]) -> str:
    return next((name for name, keywords in _KEYWORDS.items() if not keywords.isdisjoint(flat)), "string")


_ANNOTATIONS = frozenset(
    {"title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly",
     "$comment", "$schema", "$id", "$anchor", "$defs", "definitions", "nullable"}
)  # fmt: skip
_KEYWORDS: Mapping[str, frozenset[str]] = {
    "object": frozenset(
        {"properties", "required", "additionalProperties", "patternProperties", "minProperties",
         "maxProperties", "propertyNames", "dependentRequired"}
    ),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"}),
    "string": frozenset({"pattern", "minLength", "maxLength", "format"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
}  # fmt: skip
_IS_TYPE: Mapping[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
_SCALARS: Mapping[str, Callable[[Flat], Maker]] = {
    "null": _null,
    "boolean": _boolean,
    "integer": _integer,
    "number": _number,
    "string": _string,
}
_CONTAINERS: Mapping[str, Callable[[_Compiler, Flat], Maker]] = {
    "array": _array,
    "object": _object,
}
