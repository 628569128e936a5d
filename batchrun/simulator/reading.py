"""What a message's text tells: its weight, the kind of job, a JSON Schema, and what the job is about."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

import orjson

from batchrun.simulator.tokens import weight

#: Readings of longer texts are not kept, so that the cache stays small.
_MAX_CACHED_CHARACTERS = 65_536
_CACHED_READINGS = 128
#: Instructions stand at the beginning of a prompt; what it is about may say anything.
_CUE_CHARACTERS = 2_000
#: A schema is looked for in the first so many characters, at so many opening braces that could not be read.
_SCHEMA_CHARACTERS = 200_000
_MAX_UNREADABLE = 32
_INSTRUCTION_CHARACTERS = 200
_QUOTE_CHARACTERS = 40


class Task(StrEnum):
    """Kinds of job that are recognised."""

    SUMMARY = "summary"
    TRANSLATION = "translation"
    SENTIMENT = "sentiment"
    ENTITIES = "entities"
    CODE = "code"
    GENERAL = "general"


_CUES: Mapping[str, Task] = {
    "摘要": Task.SUMMARY,
    "总结": Task.SUMMARY,
    "概括": Task.SUMMARY,
    "翻译": Task.TRANSLATION,
    "translate": Task.TRANSLATION,
    "Translate": Task.TRANSLATION,
    "情感": Task.SENTIMENT,
    "评论": Task.SENTIMENT,
    "实体": Task.ENTITIES,
    "抽取": Task.ENTITIES,
    "docstring": Task.CODE,
    "函数": Task.CODE,
    "代码": Task.CODE,
    "def ": Task.CODE,
}
_TYPES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
#: Keys under which a schema is handed around inside another object.
_WRAPPERS = ("schema", "json_schema", "parameters", "response_format")
_OPENING = re.compile(r'\{\s*"')
_DECODER = json.JSONDecoder()
#: Where an instruction ends and the text begins: a colon (in ASCII only before a space) or a line's end.
_BREAK = re.compile(r"：|:(?=\s)|\n")
_SENTENCE = re.compile(rf"[^。！？!?；\n]{{1,{_QUOTE_CHARACTERS}}}")
_EDGES = " \t\r\n`'\"“”「」<>：:。！？!?；"


@dataclass(frozen=True, slots=True)
class Reading:
    """The facts of one text: its weight in twentieths of a token, its task, and the JSON text of its schema.

    `subject` is the text without the schema and without the instruction before it.
    """

    weight: int
    task: Task | None
    schema: bytes | None
    subject: str

    def quote(self) -> str:
        """Give the first sentence of the subject, at most 40 characters."""
        found = _SENTENCE.search(self.subject)
        return found[0].strip(_EDGES) if found else ""


def read(text: str) -> Reading:
    """Read a text; the readings of texts that come again and again, such as system prompts, are kept."""
    return _kept(text) if len(text) <= _MAX_CACHED_CHARACTERS else _read(text)


def _read(text: str) -> Reading:
    schema, start, end = _find_schema(text)
    rest = text if schema is None else f"{text[:start]}\n{text[end:]}"
    return Reading(weight(text), _task(rest[:_CUE_CHARACTERS]), schema, _subject(rest))


_kept = lru_cache(maxsize=_CACHED_READINGS)(_read)


def _task(text: str) -> Task | None:
    found = [(position, task) for cue, task in _CUES.items() if (position := text.find(cue)) >= 0]
    return min(found)[1] if found else None


def _subject(text: str) -> str:
    text = text.strip()
    end = _BREAK.search(text, 0, _INSTRUCTION_CHARACTERS)
    return (text[end.end() :].strip(_EDGES) if end else "") or text.strip(_EDGES)


def _find_schema(text: str) -> tuple[bytes | None, int, int]:
    for value, start, end in _objects(text[:_SCHEMA_CHARACTERS]):
        schema = _unwrap(value)
        if schema is not None:
            # Lone surrogates and huge numbers cannot be written again: no schema worth looking at has them.
            with suppress(orjson.JSONEncodeError):
                return orjson.dumps(schema), start, end
    return None, 0, 0


def _objects(text: str) -> Iterator[tuple[dict[str, Any], int, int]]:
    """Find the JSON objects of a text, outermost ones first; gives up when many braces open no object."""
    position = 0
    for _ in range(_MAX_UNREADABLE):
        while opening := _OPENING.search(text, position):
            start = opening.start()
            try:
                value, position = _DECODER.raw_decode(text, start)
            except (ValueError, RecursionError):
                position = start + 1
                break
            yield value, start, position
        else:
            return


def _unwrap(value: Any) -> dict[str, Any] | None:
    for _ in range(len(_WRAPPERS)):
        if not isinstance(value, dict):
            return None
        if _looks_like_schema(value):
            return value
        value = next((value[name] for name in _WRAPPERS if name in value), None)
    return None


def _looks_like_schema(value: dict[str, Any]) -> bool:
    named = value.get("type")
    types = named if isinstance(named, list) else [named]
    return (
        (bool(types) and all(isinstance(name, str) and name in _TYPES for name in types))
        or isinstance(value.get("properties"), dict)
        or isinstance(value.get("$defs"), dict)
        or (isinstance(value.get("enum"), list) and bool(value["enum"]))
        or isinstance(value.get("$ref"), str)
        or any(isinstance(value.get(name), list) for name in ("anyOf", "oneOf", "allOf"))
    )
