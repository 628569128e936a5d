"""The ladder of ways to ask for JSON, from the strictest down to words alone; a refusal moves a run down it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from batchrun.endpoint.adapt import applies
from batchrun.endpoint.profile import Verdict
from batchrun.structured import LOWEST, RUNGS, mode_of, parameters

if TYPE_CHECKING:
    from batchrun.endpoint.dialect import Dialect
    from batchrun.endpoint.profile import Fact, Profile

_OF_NO_USE = (Verdict.REJECTED, Verdict.IGNORED)


class Ladder:
    """Knows on which rung the requests of a job ask for JSON, for each model and state of thinking.

    It begins on the highest rung that neither the profile nor the rows of the dialect forbid. Values that are no
    objects cannot be asked for by tools or `json_object`.
    """

    def __init__(self, schema: Any, dialect: Dialect, profile: Profile | None, of_schema: tuple[str, ...]) -> None:
        """`of_schema` is what refusals that are about this schema are known by."""
        self._of_schema = of_schema
        self._dialect = dialect
        self._profile = profile
        is_object = isinstance(schema, dict) and (schema.get("type") == "object" or "properties" in schema)
        self._rungs = RUNGS if is_object else ("json_schema", LOWEST)
        self._now: dict[tuple[str, bool | None], str] = {}
        self._suffixes = {rung: _suffix(parameters(rung, schema)) for rung in RUNGS}

    def rung(self, model: str, thinking: bool | None) -> str:
        """Give the rung on which requests to a model stand now."""
        key = (model, thinking)
        found = self._now.get(key)
        if found is None:
            found = self._now[key] = self._usable(self._rungs, model, thinking)
        return found

    def below(self, rung: str, model: str, thinking: bool | None) -> str:
        """Give where a request goes on that was refused on a rung: where the others stand, if that is lower."""
        now = self.rung(model, thinking)
        if RUNGS.index(now) > RUNGS.index(rung):
            return now
        return self._usable(tuple(one for one in self._rungs if RUNGS.index(one) > RUNGS.index(rung)), model, thinking)

    def move(self, rung: str, model: str, thinking: bool | None) -> bool:
        """Move all requests to a model down to a rung; False if they stand there or lower."""
        if RUNGS.index(self.rung(model, thinking)) >= RUNGS.index(rung):
            return False
        self._now[model, thinking] = rung
        return True

    def suffix(self, rung: str) -> bytes:
        """Give what ends a request's body in place of its last brace, nothing for words alone."""
        return self._suffixes[rung]

    def fact(self, rung: str, model: str, thinking: bool | None) -> Fact | None:
        """Give what the profile knows of a rung."""
        profile = self._profile
        if profile is None or profile.model != model:
            return None
        return profile.fact(rung, None, thinking=thinking, among=self._of_schema)

    def _usable(self, rungs: tuple[str, ...], model: str, thinking: bool | None) -> str:
        return next((rung for rung in rungs if self._may_use(rung, model, thinking)), LOWEST)

    def _may_use(self, rung: str, model: str, thinking: bool | None) -> bool:
        fact = self.fact(rung, model, thinking)
        if fact is not None and fact.verdict is not Verdict.UNCLEAR:
            return fact.verdict not in _OF_NO_USE
        return not any(
            row.mode in (rung, mode_of(rung)) and applies(row, model, thinking) for row in self._dialect.structured
        )


def _suffix(added: dict[str, Any]) -> bytes:
    return b"," + orjson.dumps(added)[1:] if added else b""
