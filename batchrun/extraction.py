"""The extraction alone: text in, the JSON value that was meant or an honest failure out, as in a run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchrun.output import Schema
from batchrun.output.extract import extract_value
from batchrun.records import ErrorKind, Extraction, error_record, record_line

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class ExtractionError:
    """Why there is no value: `kind` is `invalid_output`, `truncated` or `empty_output`, as in the failure queue."""

    kind: ErrorKind
    message: str

    def as_record(self) -> dict[str, Any]:
        """Give the `error` value of a record."""
        return error_record(self.kind, self.message)


@dataclass(frozen=True, slots=True)
class Extracted:
    """What an answer holds: `output` and how it was found (`extraction`), or `error`."""

    output: Any
    extraction: Extraction | None
    error: ExtractionError | None

    @property
    def ok(self) -> bool:
        """Tell whether there is a value; it may be None, which is JSON's null."""
        return self.error is None

    def to_json(self) -> bytes:
        """Give one line of JSON, newline included: the keys `output`, `extraction` and `error` of a run's records."""
        return record_line(
            {
                "output": self.output,
                "extraction": self.extraction and self.extraction.as_record(),
                "error": self.error and self.error.as_record(),
            }
        )


def extract(
    text: str, schema: Schema | Mapping[str, Any] | bool | None = None, *, finish_reason: str | None = None
) -> Extracted:
    """Find the JSON value that a model's answer means.

    `schema` is a JSON Schema (draft 4 to 2020-12) that the value must obey; without one any object or array is
    wanted, or whatever the whole text is as JSON. An answer with the `finish_reason` "length" is `truncated` however
    whole it looks.

    Raises `JobError` for a schema that is none; a text is never too broken to be judged. Texts of 100 KB take tens of
    milliseconds, the largest up to a second.
    """
    if schema is not None and not isinstance(schema, Schema):
        schema = Schema(json.dumps(schema).encode())
    if finish_reason == "length":
        message = "the answer ended with finish_reason 'length'"
        return Extracted(None, None, ExtractionError(ErrorKind.TRUNCATED, message))
    found = extract_value(text, schema)
    if found.kind is not None:
        return Extracted(None, None, ExtractionError(found.kind, found.problem))
    return Extracted(found.value, Extraction(None, found.method, found.repairs), None)
