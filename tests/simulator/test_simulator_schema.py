from __future__ import annotations

import re
import time
from random import Random
from typing import Any

import jsonschema_rs
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchrun.simulator.patterns import sample
from batchrun.simulator.schema import CompiledSchema, compile_schema
from batchrun.simulator.schema_merge import merge
from batchrun.simulator.source import Unsatisfiable

#: Busy machines are no failures.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

TEXT = "阿里巴巴集团在杭州成立，创始人是马云。"


def obj(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["name", "children", "next"],
        }
    },
    "$ref": "#/$defs/node",
}
EXPRESSION = {
    "$ref": "#/definitions/e",
    "definitions": {
        "e": {"oneOf": [{"$ref": "#/definitions/add"}, {"$ref": "#/definitions/value"}]},
        "add": obj(left={"$ref": "#/definitions/e"}, right={"$ref": "#/definitions/e"}),
        "value": obj(value={"type": "number"}),
    },
}
SCHEMAS: list[Any] = [
    True,
    {},
    {"type": "null"},
    {"type": "boolean"},
    {"type": "integer"},
    {"type": "number"},
    {"type": "string"},
    {"type": "array"},
    {"type": "object"},
    {"type": ["string", "null"]},
    {"type": ["null", "integer"]},
    {"type": ["null", "object"], "required": ["a"]},
    {"const": {"a": [1, None]}},
    {"enum": ["正面", "负面", 3, None]},
    {"type": "string", "enum": [1, "a", None]},
    {"type": "integer", "enum": [1.5, 2.0]},
    {"type": "integer", "minimum": 3, "maximum": 3},
    {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5},
    {"type": "integer", "minimum": 2.5, "maximum": 3.5},
    {"type": "integer", "multipleOf": 7, "minimum": 8, "maximum": 20},
    {"type": "integer", "multipleOf": 2.5, "minimum": 1},
    {"type": "integer", "minimum": -10, "maximum": -5},
    {"type": "integer", "maximum": -5},
    {"type": "integer", "minimum": 10**12},
    {"type": "integer", "multipleOf": 1000},
    {"type": "number", "minimum": 0, "maximum": 1},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.001},
    {"type": "number", "multipleOf": 0.1, "minimum": 0, "maximum": 1},
    {"type": "number", "multipleOf": 0.01, "minimum": 5},
    {"type": "number", "multipleOf": 0.5, "exclusiveMinimum": 1, "maximum": 2},
    {"type": "number", "minimum": 0.37, "maximum": 0.37},
    {"type": "number", "minimum": 0, "maximum": 0},
    {"type": "number", "minimum": -1e-7, "maximum": 1e-7},
    {"type": "number", "exclusiveMinimum": 5, "minimum": 2},
    {"minimum": 5, "maximum": 6},
    {"type": "string", "minLength": 50},
    {"type": "string", "maxLength": 1},
    {"type": "string", "maxLength": 0},
    {"type": "string", "minLength": 3, "maxLength": 3},
    {"minLength": 12},
    *({"type": "string", "format": name} for name in (
        "date", "date-time", "time", "duration", "email", "idn-email", "hostname", "uri",
        "uri-reference", "iri",
        "uuid", "ipv4", "ipv6", "json-pointer", "unheard-of",
    )),
    {"format": "date"},
    {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"},
    {"type": "string", "pattern": r"^1[3-9]\d{9}$"},
    {"type": "string", "pattern": "^[A-Z]{2,4}-[0-9]+$", "minLength": 12},
    {"type": "string", "pattern": "^[a-z]*$", "minLength": 5, "maxLength": 5},
    {"type": "string", "pattern": "^(yes|no|(maybe){2})$"},
    {"type": "string", "pattern": "^[一-龥]{2,4}$"},
    {"type": "string", "pattern": r"^[^\d\s]+@[\w.-]+\.(com|cn)$"},
    {"type": "string", "pattern": "^(?=.*[A-Z])(?=.*\\d).{8,}$"},
    {"type": "string", "pattern": "模拟"},
    {"type": "string", "pattern": r"^\+?\w+\.?[\u4e00-\u9fa5]\x41$"},
    {"type": "string", "pattern": "^a{0,3}|b?c*?$"},
    {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$", "format": "date"},
    {"type": "string", "pattern": "^20", "format": "date"},
    {"type": "array", "items": {"type": "integer"}, "minItems": 5},
    {"type": "array", "items": {"type": "integer"}, "maxItems": 1},
    {"type": "array", "maxItems": 0},
    {"type": "array", "items": False},
    {"type": "array", "items": {"type": "string"}, "minItems": 8, "uniqueItems": True},
    {"type": "array", "items": {"enum": list("abcdefgh")}, "minItems": 8, "uniqueItems": True},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "uniqueItems": True},
    {"type": "array", "items": obj(a={"type": "integer", "maximum": 2}), "minItems": 3, "uniqueItems": True},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"const": "a"}], "items": False, "minItems": 2},
    {"type": "array", "prefixItems": [{"const": 1}], "items": {"const": 2}, "minItems": 4},
    {"type": "array", "contains": {"const": "x"}, "items": {"type": "string"}, "minContains": 2},
    {"type": "array", "contains": {"type": "integer", "minimum": 50}},
    {"minItems": 3},
    obj(a={"type": "string"}, b=obj(c={"type": "array", "items": obj(d={"type": "null"})})),
    {"properties": {"a": {"type": "integer"}}, "required": ["a", "b"]},
    {"type": "object", "properties": {"a": False, "b": True}},
    {"type": "object", "required": ["x", "y"], "additionalProperties": {"type": "integer"}},
    {"type": "object", "additionalProperties": {"type": "integer"}},
    {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 4},
    {"type": "object", "minProperties": 3, "maxProperties": 3},
    {"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "required": ["c"], "maxProperties": 2},
    {"type": "object", "propertyNames": {"pattern": "^[a-z]{3}$"}, "minProperties": 2},
    {"propertyNames": {"enum": ["甲", "乙"]}, "additionalProperties": {"const": 1}, "minProperties": 2},
    {"type": "object", "patternProperties": {"^x-": {"type": "integer"}}, "required": ["x-a"]},
    {
        "type": "object",
        "patternProperties": {"^x[0-9]$": {"type": "integer"}},
        "additionalProperties": False,
        "minProperties": 2,
    },
    {"type": "object", "properties": {"x1": {"minimum": 3}}, "patternProperties": {"^x": {"maximum": 4}}},
    {"type": "object", "properties": {"a": {}}, "dependentRequired": {"a": ["b"]}},
    {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    {"anyOf": [False, {"type": "string"}]},
    {"oneOf": [{"type": "string", "maxLength": 3}, {"type": "integer"}]},
    {"type": "object", "required": ["k"], "oneOf": [obj(k={"const": "a"}), obj(k={"const": "b"})]},
    {"type": "string", "anyOf": [{"type": "integer"}, {"format": "date"}]},
    {"allOf": [{"type": "integer"}, {"minimum": 5}, {"maximum": 6}]},
    {"allOf": [{"type": "number"}, {"type": "integer"}, {"multipleOf": 4}, {"multipleOf": 6}]},
    {"allOf": [{"properties": {"a": {"minimum": 3}}}, obj(a={"maximum": 3})]},
    {"allOf": [{"enum": [1, 2, 3]}, {"enum": [3, 4]}]},
    {"allOf": [{"anyOf": [{"const": 1}, {"const": 2}]}, {"anyOf": [{"const": 2}, {"const": 3}]}]},
    {"allOf": [{"type": "array", "items": {"minimum": 1}}, {"items": {"type": "integer"}, "minItems": 3}]},
    {"if": {"properties": {"a": {"const": 1}}}, "then": {"required": ["b"]}, "properties": {"a": {}}},
    {**obj(a={"const": 2}), "if": {"properties": {"a": {"const": 1}}}, "then": False},
    {"$defs": {"a/b": {"type": "integer"}}, "properties": {"x": {"$ref": "#/$defs/a~1b"}}},
    {**obj(x={"$ref": "#num"}), "$defs": {"n": {"$anchor": "num", "type": "integer"}}},
    {"$defs": {"s": {"type": "string"}}, "$ref": "#/$defs/s", "minLength": 20},
    {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"type": "integer"}}, "$ref": "#/$defs/a"},
    {"type": "object", "properties": {"me": {"$ref": "#"}, "n": {"type": "integer"}}, "required": ["n"]},
    obj(me={"anyOf": [{"$ref": "#"}, {"type": "null"}]}),
    {"type": "object", "properties": {"all": {"type": "array", "items": {"$ref": "#"}, "minItems": 0}}},
    TREE,
    EXPRESSION,
    {**obj(a={"type": "string"}), "title": "标题", "$schema": "https://json-schema.org/draft/2020-12/schema"},
]  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: orjson.dumps(schema).decode()[:70])
def test_instances_are_valid(schema: Any) -> None:
    validator = jsonschema_rs.validator_for(schema, validate_formats=True)
    compiled = CompiledSchema(schema)
    for seed in range(40):
        instance = compiled.instance(seed, TEXT).value
        validator.validate(instance)
        assert compiled.instance(seed, TEXT).value == instance


def test_draft_4_bounds_and_tuples() -> None:
    schema = {"$schema": "http://json-schema.org/draft-04/schema#", "type": "integer", "minimum": 3,
              "exclusiveMinimum": True, "maximum": 5, "exclusiveMaximum": True}  # fmt: skip
    assert CompiledSchema(schema).instance(0, TEXT).value == 4
    tuple_schema = {"type": "array", "items": [{"const": 1}, {"const": 2}], "additionalItems": False}
    assert CompiledSchema(tuple_schema).instance(0, TEXT).value == [1, 2]


@pytest.mark.parametrize(
    "schema",
    [
        False,
        {"enum": []},
        {"type": "integer", "minimum": 5, "maximum": 4},
        {"type": "string", "minLength": 5, "maxLength": 4},
        {"allOf": [{"type": "string"}, {"type": "integer"}]},
        {"$ref": "https://example.com/other.json"},
        {"$ref": "#/$defs/none"},
        {"$ref": "#"},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        {"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}, "required": ["a", "b"]},
        {"type": "strnig"},
        {"type": 5},
        {"properties": []},
        {"type": "integer", "minimum": "x"},
        {"type": "array", "items": {"enum": [1]}, "uniqueItems": True, "minItems": 2},
        {"type": "array", "minItems": 10**9},
        {"type": "array", "items": [False], "minItems": 1},
    ],
    ids=lambda schema: orjson.dumps(schema).decode()[:70],
)
def test_impossible_and_malformed_schemas_give_an_empty_object(schema: Any) -> None:
    began = time.perf_counter()
    instance = CompiledSchema(schema).instance(0, TEXT)
    assert instance.value == {}
    assert not instance.omitted
    assert time.perf_counter() - began < 2


def test_recursion_is_followed_a_little() -> None:
    value = CompiledSchema(TREE).instance(0, TEXT).value
    assert value["children"][0]["children"][0]["children"] == []
    assert value["next"]["next"]["next"] is None
    assert len(orjson.dumps(value)) < 20_000


def test_all_properties_are_given_and_free_strings_are_marked() -> None:
    schema = {"properties": {"a": {"type": "string"}, "b": {"type": "string", "minLength": 30}, "c": {}}}
    value = CompiledSchema(schema).instance(0, TEXT).value
    assert list(value) == ["a", "b", "c"]
    assert all(text.startswith("模拟") for text in value.values())
    words = {CompiledSchema({"type": "string"}).instance(seed, TEXT).value for seed in range(20)}
    assert len(words) > 1
    assert all(word.removeprefix("模拟") in TEXT for word in words)


def test_a_required_property_can_be_left_out() -> None:
    nested = {"type": "array", "items": obj(a={"type": "integer"}, b={"type": "integer"}), "minItems": 2}
    for schema in (obj(a={"type": "integer"}, b={"type": "null"}), nested, {"anyOf": [obj(a={})]}, TREE):
        instance = CompiledSchema(schema).instance(0, TEXT, omit_required=True)
        assert instance.omitted
        assert not jsonschema_rs.is_valid(schema, instance.value)
    for schema in ({"type": "object", "properties": {"a": {}}}, {"type": "string"}, True):
        assert not CompiledSchema(schema).instance(0, TEXT, omit_required=True).omitted


def test_compiled_schemas_are_kept() -> None:
    assert compile_schema(b'{"type": "integer"}') is compile_schema(b'{"type": "integer"}')


def test_merging_contradictions() -> None:
    with pytest.raises(Unsatisfiable):
        merge({"const": 1}, {"const": 2})
    assert merge({"prefixItems": [{"a": 1}, {"b": 1}]}, {"prefixItems": [{"c": 1}]}) == {
        "prefixItems": [{"allOf": [{"a": 1}, {"c": 1}]}, {"b": 1}]
    }


@pytest.mark.parametrize("pattern", [r"^\p{Han}{2}$", r"^\p{Lu}\d$"])
def test_patterns_that_python_cannot_check(pattern: str) -> None:
    schema = {"type": "string", "pattern": pattern}
    validator = jsonschema_rs.validator_for(schema)
    for seed in range(20):
        validator.validate(CompiledSchema(schema).instance(seed, TEXT).value)


@pytest.mark.parametrize(
    "pattern", [r"^(a)\1$", "^(?!x)zq9$", "[", "(", "a{2", "*", r"\x4", r"[\d-z]", "[z-a]", "[^\\s\\S]"]
)
def test_patterns_beyond_reach_still_give_a_text(pattern: str) -> None:
    assert isinstance(CompiledSchema({"type": "string", "pattern": pattern}).instance(0, TEXT).value, str)


@PATIENT
@given(
    st.recursive(
        st.sampled_from(["a", "中", r"\d", r"\w", "[a-f0-9]", "[^a-z]", ".", r"\.", "[一-龥]", r"\s", r"\S", "-"]),
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=4).map("".join),
            st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"({'|'.join(parts)})"),
            st.tuples(inner, st.sampled_from(["{2}", "{1,3}", "*", "+", "?", "{0,2}", "+?"])).map(
                lambda pair: f"(?:{pair[0]}){pair[1]}"
            ),
        ),
        max_leaves=8,
    ),
    st.integers(0, 2**32),
)
def test_samples_match_their_patterns(pattern: str, seed: int) -> None:
    chance = Random(seed)
    text = sample(f"^{pattern}$", chance.randrange)
    assert text is not None
    assert re.search(f"^{pattern}$", text)


def _bounds(name: str, least: int, most: int) -> st.SearchStrategy[dict[str, int]]:
    return st.tuples(st.integers(least, most), st.integers(0, 4)).map(
        lambda pair: {f"min{name}": pair[0], f"max{name}": pair[0] + pair[1]}
    )


SCALARS = st.one_of(
    st.just({"type": "null"}),
    st.just({"type": "boolean"}),
    st.tuples(st.integers(-50, 50), st.integers(0, 60)).map(
        lambda pair: {"type": "integer", "minimum": pair[0], "maximum": pair[0] + pair[1]}
    ),
    st.tuples(st.integers(-50, 50), st.integers(1, 60)).map(
        lambda pair: {"type": "number", "exclusiveMinimum": pair[0] / 8, "maximum": (pair[0] + pair[1]) / 8}
    ),
    st.integers(1, 30).map(lambda step: {"type": "integer", "multipleOf": step}),
    _bounds("Length", 0, 12).map(lambda bounds: {"type": "string", **bounds}),
    st.sampled_from(["date", "time", "uuid", "email"]).map(lambda name: {"type": "string", "format": name}),
    st.lists(st.one_of(st.text(max_size=4), st.integers(-9, 9), st.none()), min_size=1, unique_by=repr).map(
        lambda values: {"enum": values}
    ),
    st.integers(1, 3).map(lambda number: {"$ref": f"#/$defs/d{number}"}),
)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.sampled_from(["标题", "a", "b b", "$ref2", "类/别", "x~y"])
    return st.one_of(
        st.tuples(inner, _bounds("Items", 0, 3)).map(lambda pair: {"type": "array", "items": pair[0], **pair[1]}),
        st.lists(inner, min_size=1, max_size=3).map(
            lambda parts: {"type": "array", "prefixItems": parts, "items": False, "minItems": len(parts)}
        ),
        st.tuples(st.dictionaries(names, inner, max_size=4), st.sets(names), st.booleans()).map(
            lambda triple: {
                "type": "object",
                "properties": triple[0],
                "required": sorted(triple[1] & triple[0].keys()),
                "additionalProperties": triple[2],
            }
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts}),
        st.tuples(inner, st.just({"description": "说明"})).map(lambda pair: {"allOf": list(pair)}),
        inner.map(lambda schema: {"type": "object", "additionalProperties": schema, "minProperties": 2}),
    )


@settings(PATIENT, max_examples=300)
@given(
    st.recursive(SCALARS, _containers, max_leaves=12),
    st.fixed_dictionaries({f"d{number}": st.recursive(SCALARS, _containers, max_leaves=3) for number in (1, 2, 3)}),
    st.integers(0, 2**64 - 1),
)
def test_any_combination_is_valid(body: Any, definitions: Any, seed: int) -> None:
    # References to definitions that refer to each other without end have no instance; these cut them off.
    ended = {name: {"anyOf": [schema, {"type": "null"}]} for name, schema in definitions.items()}
    schema = {"$defs": ended, "allOf": [body]}
    value = CompiledSchema(schema).instance(seed, TEXT).value
    jsonschema_rs.validator_for(schema, validate_formats=True).validate(value)
