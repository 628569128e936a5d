"""From an answer's text to the value that was meant, or an honest failure.

The order: the text as it is; then the JSON inside of it, read strictly or with repairs. Of several candidates those
that obey the schema count first, then those that are called neither example nor draft, then those in a fence, then
those that are called final, then the last one. What stays ambiguous fails.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

from batchrun.output.candidates import CUT_IN_FENCE, Candidate, Finder, scalar_in_fence
from batchrun.output.labels import (
    Label,
    is_alternative,
    is_enumerated,
    is_of_another,
    is_only_a_draft,
    is_series,
    is_withdrawn,
    names_final,
)
from batchrun.output.signs import SPACE, Budget, BudgetError
from batchrun.output.strict import NotJsonError, UnkeepableError, loads, same
from batchrun.output.thoughts import after_thoughts
from batchrun.records import ErrorKind, readable

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Reading one answer takes so many steps at most, one being some microseconds.
_STEPS = 300_000


class Validator(Protocol):
    """What can tell what is wrong with a value."""

    def errors(self, value: Any) -> list[str]:
        """Give what is wrong with a value; nothing if it is valid."""


@dataclass(slots=True)
class Finding:
    """What was found in an answer: a value and how it was found, or what is wrong (`kind` and `problem`)."""

    value: Any = None
    method: str = ""
    repairs: tuple[str, ...] = ()
    kind: ErrorKind | None = None
    problem: str = ""


def extract_value(text: str, schema: Validator | None, *, as_arguments: bool = False) -> Finding:
    """Find the JSON value in an answer; `as_arguments` says that it is the arguments of a call and nothing else.

    Never raises: a text that is too large or too damaged is a failure as well.
    """
    stripped = readable(text).strip(SPACE)
    if not stripped:
        return Finding(kind=ErrorKind.EMPTY_OUTPUT, problem="the answer is empty")
    try:
        found = _Extraction(stripped, schema).run()
    except BudgetError as error:
        return _failed(str(error))
    if as_arguments and found.kind is None:
        found.method = "tool_call"
    return found


def _failed(problem: str, kind: ErrorKind = ErrorKind.INVALID_OUTPUT) -> Finding:
    return Finding(kind=kind, problem=problem)


def _cut_off() -> Finding:
    return _failed("the JSON value is cut off: the answer ends before it does", ErrorKind.TRUNCATED)


class _Extraction:
    def __init__(self, text: str, schema: Validator | None, *, is_inner: bool = False) -> None:
        self._text, self._schema, self._is_inner = text, schema, is_inner
        self._budget = Budget(_STEPS)
        #: What comes after the thoughts, and what it calls the candidates, by where they start.
        self._rest = text
        self._labels: dict[int, Label] = {}

    def run(self) -> Finding:
        whole = self._whole(self._text)
        if whole is not None:
            return whole
        rest = after_thoughts(self._text)
        if rest is None:
            return _failed("the answer ends while the model is still thinking", ErrorKind.TRUNCATED)
        rest = rest.strip(SPACE)
        if not rest:
            return Finding(kind=ErrorKind.EMPTY_OUTPUT, problem="there is no answer after the thoughts")
        if len(rest) < len(self._text):
            whole = self._whole(rest)
            if whole is not None:
                return whole
        return self._inside(rest)

    # --- the text as it is ---

    def _whole(self, text: str) -> Finding | None:
        """Read the whole text as strict JSON; None if it is none."""
        try:
            value = loads(text)
        except NotJsonError:
            return None
        except UnkeepableError as error:
            return _failed(str(error))
        errors = self._errors(value)
        if isinstance(value, str) and not self._is_inner and errors:
            inner = _Extraction(value.strip(SPACE), self._schema, is_inner=True)
            found = inner.run() if value.strip(SPACE)[:1] in ("{", "[", "`", "｛") else None
            if found is not None and found.kind is None:
                found.method = "json_string"
                return found
            if found is not None:
                return found
        if errors and _is_call(value):
            call = Candidate(0, len(text), value)
            if not self._unwrap(call):
                return Finding(call.value, "tool_call")
        if errors:
            return _failed("; ".join(errors))
        return Finding(value, "as_is")

    def _errors(self, value: Any) -> list[str]:
        return self._schema.errors(value) if self._schema is not None else []

    # --- the JSON inside of it ---

    def _inside(self, text: str) -> Finding:
        self._rest = text
        found = Finder(text, self._budget).find()
        if found.is_cut_off:
            return _cut_off()
        candidates = found.candidates
        if not candidates:
            return self._scalar(text)
        problems: dict[int, list[str]] = {}
        valid: list[Candidate] = []
        for one in candidates:
            if one.problem is not None:
                continue
            self._budget.spend(3)
            errors = self._errors(one.value)
            if errors and _is_call(one.value) and not self._unwrap(one):
                one.is_tool_call, errors = True, []
            if errors:
                problems[id(one)] = errors
            else:
                valid.append(one)
        lines = self._as_lines(text, candidates)
        if lines is not None:
            return lines
        chosen = [one for one in valid if not one.is_weak] or valid
        if not chosen:
            return self._none_valid(candidates, problems)
        final = self._final_is_invalid(chosen[-1], candidates, problems)
        return final or self._choose(chosen, candidates)

    def _final_is_invalid(
        self, chosen: Candidate, candidates: Sequence[Candidate], problems: dict[int, list[str]]
    ) -> Finding | None:
        """Give the failure if what is called final is of the same kind as what obeys the schema, and does not."""
        for one in candidates:
            if id(one) in problems and one.start > chosen.start and self._label(one) is Label.FINAL:
                values = (one.value, chosen.value)
                if all(isinstance(value, dict) for value in values) and one.value.keys() & chosen.value.keys():
                    return _failed("; ".join(problems[id(one)]))
        return None

    def _unwrap(self, call: Candidate) -> list[str]:
        """Take the arguments of a call that a model wrote as text."""
        arguments = call.value.get("function", call.value)["arguments"]
        if isinstance(arguments, str):
            try:
                arguments = loads(arguments)
            except ValueError:
                return ["the arguments of the call are no JSON"]
        errors = self._errors(arguments)
        if not errors:
            call.value = arguments
        return errors

    def _scalar(self, text: str) -> Finding:
        """Take a single value that is no container: alone in a fence, or a word that the schema knows."""
        if self._schema is not None:
            values = [one for one in scalar_in_fence(text) if not self._errors(one)]
            if values and all(same(values[0], one) for one in values):
                return Finding(values[0], "fence")
            word = text.strip(SPACE + "。.`*")
            if len(word) <= 40 and "\n" not in word and not self._errors(word) and self._errors(f"{word}\u0000"):
                return Finding(word, "as_is", ("bare_value",))
        if text.startswith('"') and text.count('"') == 1:
            return _cut_off()
        return _failed("there is no JSON in the answer")

    def _as_lines(self, text: str, candidates: Sequence[Candidate]) -> Finding | None:
        """Take objects that follow each other with nothing between them, as JSON Lines have them, for one array."""
        if len(candidates) < 2 or any(one.problem is not None for one in candidates):
            return None
        runs: list[list[Candidate]] = [[candidates[0]]]
        for before, one in pairwise(candidates):
            between = text[before.end : one.start].strip(SPACE)
            if between in ("", ",", "，", ";") and before.is_fenced == one.is_fenced:
                runs[-1].append(one)
            else:
                runs.append([one])
        objects = [run for run in runs if len(run) > 1 and all(isinstance(one.value, dict) for one in run)]
        if len(objects) != 1:
            return None
        run = objects[0]
        values = [one.value for one in run]
        if len(runs) > 1 and any(self._is_meant(one) for r in runs if r is not run for one in r):
            return None
        if _all_same(run[0], run) and not self._errors(run[0].value):
            return None  # said twice, meant once
        if not self._is_meant(run[0]) or self._errors(values):
            return None
        return Finding(values, "json_lines", _all_repairs(run))

    def _none_valid(self, candidates: Sequence[Candidate], problems: dict[int, list[str]]) -> Finding:
        last = candidates[-1]
        if last.problem == CUT_IN_FENCE:
            return _cut_off()
        for one in reversed(candidates):
            if one.problem is not None:
                return _failed(f"broken JSON: {one.problem}")
            if id(one) in problems:
                return _failed("; ".join(problems[id(one)]))
        return _failed(_SEVERAL)

    # --- the choice ---

    def _label(self, one: Candidate) -> Label:
        label = self._labels.get(one.start)
        if label is None:
            self._budget.spend(15)
            label = self._labels[one.start] = one.label_in(self._rest)
        return label

    def _is_meant(self, one: Candidate) -> bool:
        return self._label(one) not in (Label.EXAMPLE, Label.DRAFT)

    def _choose(self, valid: list[Candidate], candidates: Sequence[Candidate]) -> Finding:
        text = self._rest
        kept = [one for one in valid if self._is_meant(one)]
        if not kept:
            if any(
                self._label(one) is Label.EXAMPLE or is_only_a_draft(one.before(text), one.after(text)) for one in valid
            ):
                only_example = _failed("the only JSON that fits is called an example or a draft")
                return self._broken_beside(valid[-1], candidates) or only_example
            if _LATER_PIECE.search(text, valid[-1].end):
                return _failed("what follows the draft cannot be read")
            kept = valid
        pool = [one for one in kept if one.is_fenced] or kept
        finals = [one for one in kept if self._label(one) is Label.FINAL]
        is_split = pool is not kept and finals and not any(one.is_fenced for one in finals)
        if is_split and not _all_same(finals[-1], pool):
            return _failed("one piece of JSON stands in a fence and another one is called final")
        pool = [one for one in pool if self._label(one) is Label.FINAL] or pool
        chosen = pool[-1]
        trouble = self._rival(chosen, pool, candidates)
        if trouble:
            return trouble
        method = "tool_call" if chosen.is_tool_call else "fence" if chosen.is_fenced else "embedded"
        return Finding(chosen.value, method, chosen.repairs)

    def _broken_beside(self, chosen: Candidate, candidates: Sequence[Candidate]) -> Finding | None:
        """Give the failure if something broken may be what is meant, and not this candidate."""
        for one in candidates:
            if one.problem is None or one.is_weak or not self._is_meant(one):
                continue
            is_aside = one.is_fenced < chosen.is_fenced and self._label(one) is not Label.FINAL
            if is_aside and self._is_meant(chosen):
                continue
            if one.start < chosen.start and self._label(chosen) is Label.FINAL:
                continue
            if one.problem == CUT_IN_FENCE:
                return _cut_off()
            return _failed(f"broken JSON beside another piece of JSON: {one.problem}")
        place = names_final(self._rest, chosen.end)
        if place is not None and not any(one.start <= place < one.end for one in candidates):
            return _failed("what is called final cannot be read")
        return None

    def _rival(self, chosen: Candidate, pool: list[Candidate], candidates: Sequence[Candidate]) -> Finding | None:
        """Give the failure if another candidate may as well be the one that is meant."""
        text = self._rest
        broken = self._broken_beside(chosen, candidates)
        if broken is not None:
            return broken
        if is_withdrawn(text[chosen.end : chosen.end + 200]):
            return _failed("the only JSON that fits is taken back after it")
        others = [one for one in pool if one is not chosen and not same(one.value, chosen.value)]
        if not others:
            return None
        last = others[-1]
        if self._label(chosen) is Label.FINAL and self._label(last) is not Label.FINAL:
            return None
        between = text[last.end : chosen.start].strip(SPACE + ",，;；")
        if not re.sub(r"[`~]{3,}\w*|\s", "", between):
            return _failed(_SEVERAL)
        if is_alternative(chosen.between(text)) or is_alternative(last.between(text)):
            return _failed(_SEVERAL)
        before = last.before(text)
        is_one_of_several = is_enumerated(before) or is_enumerated(last.between(text))
        words = chosen.before(text)
        if (is_enumerated(words) and is_one_of_several) or is_series(before, words) or is_of_another(before, words):
            return _failed(_SEVERAL)
        return None


_LATER_PIECE = re.compile(r"\n[ \t]*[{\[｛]|(?:`{3,}|~{3,})[a-zA-Z]")
_SEVERAL = "several pieces of JSON, and nothing says which one is meant"


def _all_same(one: Candidate, others: Sequence[Candidate]) -> bool:
    return all(same(one.value, other.value) for other in others)


def _is_call(value: Any) -> bool:
    """Tell whether a value is a call of a function as models write it when they write it as text."""
    if not isinstance(value, dict):
        return False
    if "function" in value and value.keys() <= {"id", "type", "function", "index"}:
        return _is_call(value["function"])
    return {"name", "arguments"} <= value.keys() <= {"name", "arguments", "id", "type"}


def _all_repairs(candidates: Sequence[Candidate]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(repair for one in candidates for repair in one.repairs))
