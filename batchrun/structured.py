"""The ways to ask for JSON, from the strictest down to words alone."""

from __future__ import annotations

from typing import Any

#: `tool` names the function that must be called, `tool_required` only demands a call.
RUNGS = ("json_schema", "tool", "tool_required", "json_object", "prompt")
LOWEST = RUNGS[-1]
#: The function that is called with the output, and the name of the schema.
OUTPUT_FUNCTION = "output"


def parameters(rung: str, schema: Any) -> dict[str, Any]:
    """Give the parameters of a request that ask for JSON in one of these ways; none for words alone."""
    if rung == "json_schema":
        wanted = {"name": OUTPUT_FUNCTION, "strict": True, "schema": schema}
        return {"response_format": {"type": "json_schema", "json_schema": wanted}}
    if rung == "json_object":
        return {"response_format": {"type": "json_object"}}
    if rung in ("tool", "tool_required"):
        function = {"name": OUTPUT_FUNCTION, "description": "Takes the output.", "parameters": schema}
        named = {"type": "function", "function": {"name": OUTPUT_FUNCTION}}
        return {
            "tools": [{"type": "function", "function": function}],
            "tool_choice": named if rung == "tool" else "required",
        }
    return {}


def mode_of(rung: str) -> str:
    """Give the structured mode that a rung is, as the job file and the records have it."""
    return "tool" if rung == "tool_required" else rung
