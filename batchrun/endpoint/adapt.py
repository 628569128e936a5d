"""What a dialect's rows do to a request: thinking on or off, parameters that are refused, streamed or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchrun.endpoint.blame import MAX_TOKENS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrun.endpoint.dialect import Dialect, ParameterRow, Pattern, StreamRow, StructuredRow


class Adapter:
    """Adapts request bodies to a dialect, in place.

    With `change` parameters that the endpoint refuses are dropped, renamed or bounded; without it they go out as they
    are, for rows grow old. Either way `warnings` says so, once for each parameter.
    """

    def __init__(self, dialect: Dialect, *, change: bool) -> None:
        self._dialect = dialect
        self._change = change
        renamed = {row.name for row in dialect.parameter if row.rule == "rename"}
        #: Renamed ones first: they are then looked at under their new names.
        self._names = sorted({row.name for row in dialect.parameter}, key=lambda name: (name not in renamed, name))
        self.warnings: dict[str, str] = {}

    def __call__(self, body: dict[str, Any]) -> tuple[bool, bool]:
        """Adapt a body; tell whether it was changed, and whether its answer is better streamed."""
        dialect = self._dialect
        if not self._names and not dialect.stream:
            return False, False
        model = str(body.get("model"))
        thinking = thinks(dialect, model, body)
        changed = False
        for name in self._names:
            if name in body and (row := _row(dialect, name, model, thinking)) is not None:
                changed = self._apply(row, body) or changed
        return changed, self._streams(model, thinking, body)

    def _apply(self, row: ParameterRow, body: dict[str, Any]) -> bool:
        name, value = row.name, body[row.name]
        what = _problem(row, value)
        if what is None:
            return False
        title = self._dialect.title
        if row.rule == "ignored" or not self._change:
            # Renaming is for what is taken and has no effect under its old name.
            hint = "" if row.rule == "ignored" else "; drop_unsupported = true would change it"
            self.warnings.setdefault(name, f"{title} {what}; it was sent as it is{hint}")
            return False
        del body[name]
        if row.rule == "rename" and row.to:
            body.setdefault(row.to, value)
            done = f"sent as {row.to}"
        elif row.rule == "clamp":
            body[name] = _bounded(value, row)
            done = f"sent as {body[name]}"
        elif row.rule == "fix" and row.value is not None:
            body[name] = row.value
            done = f"sent as {row.value}"
        else:
            done = "left out"
        self.warnings.setdefault(name, f"{title} {what}; {done} (drop_unsupported)")
        return True

    def _streams(self, model: str, thinking: bool | None, body: dict[str, Any]) -> bool:
        for row in self._dialect.stream:
            if not applies(row, model, thinking):
                continue
            most = next((body[name] for name in MAX_TOKENS if type(body.get(name)) is int), 0)
            if row.min_max_tokens is None or most >= row.min_max_tokens:
                return row.mode != "never"
        return False


def thinks(dialect: Dialect, model: str, body: Mapping[str, Any]) -> bool | None:
    """Tell whether a request has thinking on, by the switches in it and the model's default; None if nobody knows."""
    for row in dialect.thinking:
        if fits(row.model, model):
            if row.on and holds(body, row.on):
                return True
            if row.off and holds(body, row.off):
                return False
            return row.default
    return None


def holds(body: Any, part: Any) -> bool:
    """Tell whether a body says what a part of one says, whatever else it says."""
    if isinstance(part, dict):
        return isinstance(body, dict) and all(key in body and holds(body[key], value) for key, value in part.items())
    return bool(body == part)


def _row(dialect: Dialect, name: str, model: str, thinking: bool | None) -> ParameterRow | None:
    return next((row for row in dialect.parameter if row.name == name and applies(row, model, thinking)), None)


def applies(row: ParameterRow | StreamRow | StructuredRow, model: str, thinking: bool | None) -> bool:
    """Tell whether a row is about a model in this state of thinking."""
    return fits(row.model, model) and (row.thinking is None or row.thinking is thinking)


def fits(pattern: Pattern | None, model: str) -> bool:
    """Tell whether a row is about a model; without a pattern it is about all."""
    return pattern is None or bool(pattern.search(model))


def _problem(row: ParameterRow, value: Any) -> str | None:
    """Say what the endpoint has against a parameter's value; None if it has nothing."""
    if row.rule == "drop":
        return f"refuses {row.name}"
    if row.rule == "ignored":
        return f"ignores {row.name}"
    if row.rule == "rename":
        return f"has {row.to} in place of {row.name}"
    if row.rule == "fix":
        return None if value == row.value else f"takes only {row.value} for {row.name}"
    if isinstance(value, bool) or not isinstance(value, int | float) or value == _bounded(value, row):
        return None
    least = "" if row.min is None else f" from {row.min:g}"
    most = "" if row.max is None else f" up to {row.max:g}"
    return f"takes {row.name}{least}{most}, not {value}"


def _bounded(value: float, row: ParameterRow) -> float:
    """Give the nearest value that is taken; a whole number stays one."""
    for bound, is_beyond in ((row.min, row.min is not None and value < row.min),
                             (row.max, row.max is not None and value > row.max)):  # fmt: skip
        if is_beyond and bound is not None:
            return int(bound) if isinstance(value, int) and bound == int(bound) else bound
    return value
