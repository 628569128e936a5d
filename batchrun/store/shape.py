"""What the parts of `run.json` are that anybody reads: somebody may have edited it, or another program written it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

#: By key: a type, a table of keys, or a list of what its elements are. Null, and a key that is missing, are fine.
_STOPPED = {"cause": str, "kind": str, "message": str}
_COUNTS = {
    "items": int, "results": int, "failures": int, "pending": int, "failures_by_kind": dict,
    "results_this_run": int, "failures_this_run": int,
}  # fmt: skip
_SUMMARY = {
    "exit_code": int, "stopped": _STOPPED, "simulated": bool, "counts": _COUNTS, "requests": dict,
    "interrupted_calls": dict, "tokens": dict, "cost": dict, "canary": dict, "timing": dict, "files": dict,
}  # fmt: skip
_STATEMENT = {"classification": str, "statement": str, "by": str, "how": str, "at": str, "base_url": str}
_SHAPE: dict[str, Any] = {
    "batchrun": str, "run_id": str, "state": str, "started_at": str, "job_file": str,
    "job": {"endpoint": {"model": str}},
    "dialect": str, "working_directory": str, "made_from": dict,
    "accepted": [{"set": dict, "schema": object, "mode": str}],
    "retry": dict, "last_crash": dict,
    "data_boundary": {"classification": str, "statements": [_STATEMENT], "scan": str},
    "input": [dict], "versions": dict, "summary": _SUMMARY,
}  # fmt: skip
_WORDS: dict[type, str] = {str: "a text", int: "a whole number", bool: "true or false", dict: "an object"}


def problem_of(manifest: Any) -> str | None:
    """Say what of a manifest is not what a run writes: key, what was expected, what stands there; None if all is."""
    return _problem(manifest, _SHAPE, "")


def _problem(value: Any, shape: Any, key: str) -> str | None:
    if value is None or shape is object:
        return None
    kind: type = shape if isinstance(shape, type) else type(shape)
    found_kind = type(value)
    if found_kind is not kind:
        expected = "a list" if kind is list else _WORDS[kind]
        return f"{key or 'the whole'}: expected {expected}, got {_in_words(value)}"
    parts: Iterator[tuple[Any, Any, str]] = iter(())
    if isinstance(shape, dict):
        table: dict[str, Any] = value
        parts = ((table.get(name), part, f"{key}.{name}" if key else name) for name, part in shape.items())
    elif isinstance(shape, list):
        elements: list[Any] = value
        parts = ((one, shape[0], f"{key}[{number}]") for number, one in enumerate(elements))
    return next((found for part in parts if (found := _problem(*part))), None)


def _in_words(value: Any) -> str:
    return "a list" if isinstance(value, list) else "a number" if type(value) is float else _WORDS[type(value)]
