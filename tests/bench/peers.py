"""The libraries that people use today for JSON from model answers, each called as its documentation says.

Each reader takes the text and the schema and returns a value, or raises. What it returned is then validated as a
careful user would do it: an invalid value counts as an honest failure. Readers whose package is missing are left out.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Callable
from functools import cache
from typing import Any

__all__ = ["PEERS", "RAW", "Refused", "accept", "installed"]

Schema = dict[str, Any] | None
Reader = Callable[[str, Schema], Any]


class Refused(Exception):
    """The reader gave no value, or one that does not obey the schema."""


@cache
def module(name: str) -> Any:
    """The module, imported when it is first needed."""
    return importlib.import_module(name)


def something(value: Any, nothing: Any) -> Any:
    """The value, unless it is the one by which the library says that it found nothing."""
    if value is nothing or (type(value) is type(nothing) and value == nothing):
        raise Refused("nothing found")
    return value


def json_repair(text: str, _: Schema) -> Any:
    """json_repair as in its README; an empty string means that it found nothing."""
    return something(module("json_repair").loads(text), "")


def json_repair_schema(text: str, schema: Schema) -> Any:
    """json_repair with its schema-guided repair (in beta), where there is a schema."""
    if schema is None:
        return json_repair(text, schema)
    return something(module("json_repair").repair_json(text, schema=schema, return_objects=True), "")


def robust_json_parser(text: str, _: Schema) -> Any:
    """The loads of robust_json_parser, which raises when it finds nothing."""
    return module("robust_json").loads(text)


def fast_json_repair(text: str, _: Schema) -> Any:
    """The loads of fast_json_repair; an empty string means that it found nothing."""
    return something(module("fast_json_repair").loads(text), "")


def instructor(text: str, _: Schema) -> Any:
    """The extractor that instructor applies in its JSON and Markdown modes."""
    return json.loads(module("instructor.v2.core.json").extract_json_from_codeblock(text))


def langchain(text: str, _: Schema) -> Any:
    """The JsonOutputParser of langchain_core; None stands for what it could not parse."""
    return something(langchain_parser().parse(text), None)


@cache
def langchain_parser() -> Any:
    """One parser for all calls."""
    return module("langchain_core.output_parsers").JsonOutputParser()


RAW: dict[str, Reader] = {
    "json_repair": json_repair,
    "json_repair+schema": json_repair_schema,
    "robust_json_parser": robust_json_parser,
    "fast_json_repair": fast_json_repair,
    "instructor": instructor,
    "langchain": langchain,
}
"""The readers by name, without validation."""

NEEDED = {
    "json_repair": ["json_repair"],
    "json_repair+schema": ["json_repair", "jsonschema", "pydantic"],
    "robust_json_parser": ["robust_json"],
    "fast_json_repair": ["fast_json_repair"],
    "instructor": ["instructor"],
    "langchain": ["langchain_core"],
}


def installed(name: str) -> bool:
    """Whether everything that the reader needs is there."""
    return all(importlib.util.find_spec(needed) is not None for needed in NEEDED[name])


def accept(text: str, schema: Schema, value: Any) -> Any:
    """The value if it obeys the schema; without one, if it is an object or array or the text is JSON as it is."""
    if schema is not None:
        if not validator(schema).is_valid(value):
            raise Refused("not valid against the schema")
        return value
    if not isinstance(value, (dict, list)):
        json.loads(text)
    return value


COMPILED: dict[int, tuple[dict[str, Any], Any]] = {}


def validator(schema: dict[str, Any]) -> Any:
    """The compiled schema (kept together with it, so that no other gets its identity)."""
    if id(schema) not in COMPILED:
        COMPILED[id(schema)] = schema, module("jsonschema_rs").validator_for(schema)
    return COMPILED[id(schema)][1]


def careful(reader: Reader) -> Reader:
    """The reader with validation of what it returns."""

    def read(text: str, schema: Schema) -> Any:
        return accept(text, schema, reader(text, schema))

    return read


PEERS: dict[str, Reader] = {name: careful(reader) for name, reader in RAW.items() if installed(name)}
"""The installed readers by name, with validation."""
