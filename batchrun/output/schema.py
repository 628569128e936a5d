"""The job's JSON Schema: read, checked and compiled once; validation says path, expected and found."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from batchrun.job import JobError

if TYPE_CHECKING:
    from pathlib import Path

    from batchrun.job import Structured

_SHOWN_ERRORS = 5
#: What a mode says of the outputs of a job without a schema.
_OF_MODE = {"json_object": b'{"type": "object"}', "prompt": b'{"type": ["object", "array"]}'}
_SHOWN_CHARS = 300


class Schema:
    """A compiled schema. `text` is its JSON. No `$ref` reaches a network or another file.

    Validators: jsonschema-rs, drafts 4 to 2020-12, formats asserted.
    """

    def __init__(self, text: bytes, name: str = "schema") -> None:
        import jsonschema_rs

        try:
            value = json.loads(text)  # whole numbers of any length stay as they are
        except (ValueError, RecursionError) as error:
            raise JobError(f"{name}: not valid JSON: {error}") from error
        if not isinstance(value, dict | bool):
            raise JobError(f"{name}: a schema is a JSON object")
        try:
            jsonschema_rs.meta.validate(value)
            self._validator = jsonschema_rs.validator_for(value, retriever=_refuse, validate_formats=True)
        except (ValueError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
            reason = str(error).partition("\n")[0]
            raise JobError(f"{name}: not a valid JSON Schema: {reason}") from error
        self.text = text

    @classmethod
    def load(cls, path: Path) -> Schema:
        """Read a schema file. Raises `JobError` if it cannot be read or is no schema."""
        try:
            return cls(path.read_bytes(), str(path))
        except OSError as error:
            raise JobError(f"structured.schema: {path}: cannot be read: {error.strerror}") from error

    @classmethod
    def of(cls, structured: Structured) -> Schema | None:
        """Give the schema of a job's outputs: its own, or one that says no more than its mode does; None for text."""
        if structured.schema is not None:
            return cls.load(structured.schema)
        text = _OF_MODE.get(structured.mode)
        return cls(text) if text is not None else None

    def errors(self, value: Any) -> list[str]:
        """Give what is wrong with a value, at most five findings, each with its path; empty if it is valid."""
        if self._validator.is_valid(value):
            return []
        found = []
        for error in self._validator.iter_errors(value):
            path = "/".join(map(str, error.instance_path)) or "(root)"
            message = error.message
            found.append(f"{path[:_SHOWN_CHARS]}: {message[:_SHOWN_CHARS]}{'…' if len(message) > _SHOWN_CHARS else ''}")
            if len(found) == _SHOWN_ERRORS:
                break
        return found


def _refuse(uri: str) -> Any:
    raise ValueError(f"$ref to {uri}: only references inside the schema file are followed")
