"""Requests compiled from what is known of an endpoint: the profile first, then the rows of the dialect.

What is not known is found out on the way. A request that is refused for the way in which it asks for JSON, or for a
parameter that may be dropped, goes out again another way at once; what then works is remembered.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from batchrun.endpoint.adapt import Adapter, thinks
from batchrun.endpoint.blame import blamed, blames_structure
from batchrun.endpoint.ladder import Ladder
from batchrun.endpoint.profile import Fact, Verdict, shortened
from batchrun.job import JobError
from batchrun.records import Adapted, ErrorKind
from batchrun.structured import LOWEST, RUNGS, mode_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchrun.endpoint.dialect import Dialect
    from batchrun.endpoint.profile import Profile
    from batchrun.job import Job
    from batchrun.records import EndpointError, Request

_RESERVED = frozenset({"model", "messages", "stream", "stream_options"})
_STRUCTURAL = ("response_format", "tools", "tool_choice")
_MAX_TOKENS = ("max_tokens", "max_completion_tokens")
_TAKEN = (Verdict.SUPPORTED, Verdict.ACCEPTED)
#: A parameter whose value is longer than this is not kept in a profile; it may hold anything.
_MAX_VALUE_CHARS = 200


@dataclass(frozen=True, slots=True)
class Way:
    """How a request is sent: its rung (None where it does not climb), what is left out, and what was refused before.

    `refusals` are names (of a rung or a parameter) and the provider's words.
    """

    rung: str | None = None
    dropped: tuple[str, ...] = ()
    refusals: tuple[tuple[str, str], ...] = ()


class Compiler:
    """Compiles the requests of one job for one endpoint.

    `schema` is the JSON text of the job's schema, if it has one; `params` are what the job asks for in every request;
    `reword` adds the schema in words to messages. Raises `JobError` where the profile knows that what the job asks for
    would be refused, or where nobody knows how to switch the model's thinking.
    """

    def __init__(
        self, job: Job, dialect: Dialect, profile: Profile | None, schema: bytes | None, params: Mapping[str, Any],
        reword: Callable[[list[Any]], list[Any]],
    ) -> None:  # fmt: skip
        self._job, self._dialect, self.profile = job, dialect, profile
        self._drop = job.endpoint.drop_unsupported
        self._thinking = job.endpoint.thinking
        self._params = params
        self._reword = reword
        #: Whether requests climb the ladder: only where the job leaves open how JSON is asked for.
        self._climbs = schema is not None and job.structured.mode == "auto"
        self._mode = "prompt" if job.structured.mode == "auto" else job.structured.mode
        self._ladder = Ladder(orjson.loads(schema) if schema else None, dialect, profile)
        self._adapter = Adapter(dialect, change=self._drop)
        self._warnings: dict[str, str] = {}
        self._refused: dict[str, list[Fact]] = {}
        for fact in profile.facts if profile else ():
            if fact.verdict is Verdict.REJECTED and fact.name not in (*RUNGS, "stream"):
                self._refused.setdefault(fact.name, []).append(fact)
        #: What was learned in this run, about the job's own model.
        self.lessons: list[Fact] = []
        self._worked: set[tuple[str, bool | None, str | None, tuple[str, ...]]] = set()
        self._taken_rungs: set[tuple[str, bool | None, str | None]] = set()
        self._structure_dropped: set[str] = set()
        self._check_thinking()
        self._check_params()
        self._warn_of_no_effect()

    # --- before the batch ---

    def _check_thinking(self) -> None:
        model = str(self._job.endpoint.model)
        if self._thinking == "auto":
            return
        wanted = "true" if self._thinking else "false"
        words = self._cannot_switch(model)
        if words:
            raise JobError(f"endpoint.thinking = {wanted}: {words}")
        if self._switch(model) is None:
            raise JobError(
                f"endpoint.thinking = {wanted}: how thinking is switched for {model} is not known here; measure it "
                "with batchrun probe, or put the provider's own parameter into [params]"
            )

    def _cannot_switch(self, model: str) -> str | None:
        profile = self.profile
        if profile is None or profile.model != model:
            return None
        cell = profile.cells.get("thinking_on" if self._thinking else "thinking_off")
        refused = cell is not None and cell.verdict in (Verdict.REJECTED, Verdict.IGNORED)
        return f"{cell.words} (profile of {profile.measured_at})" if cell and refused else None

    def _check_params(self) -> None:
        """Refuse a job whose own parameters the profile knows to be refused, unless they may be dropped."""
        if self._drop or self.profile is None or self.profile.model != self._job.endpoint.model:
            return
        thinking = self._state(str(self._job.endpoint.model), dict(self._params))
        problems = []
        for name, value in self._params.items():
            fact = self._refusal(name, value, thinking)
            if fact is not None:
                problems.append(self._forbidden(fact))
        fact = self._ladder.fact(self._mode, self.profile.model, thinking) if self._mode != "prompt" else None
        if fact is not None and fact.verdict is Verdict.REJECTED:
            problems.append(
                f'structured.mode = "{self._mode}" is refused here: {fact.words} (profile of {fact.at[:10]}); '
                'mode = "auto" asks in a way that works'
            )
        if problems:
            raise JobError(problems)

    def _warn_of_no_effect(self) -> None:
        profile = self.profile
        if profile is None or profile.model != self._job.endpoint.model:
            return
        for name in self._params:
            cell = profile.cells.get(name)
            other = next((one for one in _MAX_TOKENS if one != name), "") if name in _MAX_TOKENS else ""
            if cell is not None and cell.verdict is Verdict.IGNORED and profile.max_tokens != other:
                self._warnings[name] = (
                    f"{name} is taken here and has no effect: {cell.words} (profile of {profile.measured_at})"
                )

    def _forbidden(self, fact: Fact) -> str:
        return (
            f"params.{fact.name} = {_spelled(fact.value)} is refused here: {fact.words} (profile of {fact.at[:10]}); "
            "remove or change it, or set endpoint.drop_unsupported = true"
        )

    def is_known(self) -> bool:
        """Tell whether the profile knows that requests as the job asks for them are taken."""
        profile, model = self.profile, str(self._job.endpoint.model)
        if profile is None or profile.model != model:
            return False
        thinking = self._state(model, dict(self._params))
        for name, value in self._params.items():
            fact = profile.fact(name, value, thinking=thinking)
            taken = fact is not None and (fact.verdict in _TAKEN or fact.verdict is Verdict.IGNORED)
            if name not in _RESERVED and not taken and not self._is_dropped(fact):
                return False
        rung = self._ladder.rung(model, thinking) if self._climbs else self._mode
        if rung == LOWEST:
            return True
        fact = profile.fact(rung, None, thinking=thinking)
        return fact is not None and fact.verdict in _TAKEN

    def _is_dropped(self, fact: Fact | None) -> bool:
        return self._drop and fact is not None and fact.verdict is Verdict.REJECTED

    # --- a request's body ---

    def adapt(self, body: dict[str, Any]) -> Adapted:
        """Fit a body to the endpoint, in place: thinking, names, parameters that are refused."""
        model = str(body.get("model"))
        changed = self._thinking != "auto" and self._switch_thinking(body, model)
        profile = self.profile if self.profile is not None and self.profile.model == model else None
        if profile is not None and profile.max_tokens is not None:
            changed = self._rename_max_tokens(body, profile.max_tokens) or changed
        thinking = self._state(model, body)
        if self._refused and (problem := self._without_refused(body, model, thinking)):
            if problem is not _DROPPED:
                return Adapted(problem=problem)
            changed = True
        row_changed, streams = self._adapter(body)
        climbs = self._climbs and "response_format" not in body and "tools" not in body
        return Adapted(changed=changed or row_changed, stream=streams, thinking=thinking, climbs=climbs)

    def _state(self, model: str, body: dict[str, Any]) -> bool | None:
        if self._thinking != "auto":
            return bool(self._thinking)
        state = thinks(self._dialect, model, body)
        profile = self.profile
        if profile is None or profile.model != model:
            return state
        for wanted in ("on", "off"):
            switch = profile.switches.get(wanted)
            if switch and all(body.get(name) == value for name, value in switch.items()):
                return wanted == "on"
        # What was measured counts more than what a row says about the model's default.
        has_switch = any(name in body for part in profile.switches.values() for name in part)
        return profile.thinks if profile.thinks is not None and not has_switch else state

    def _switch(self, model: str) -> dict[str, Any] | None:
        """Give the parameters that switch thinking as the job wants it."""
        which = "on" if self._thinking else "off"
        profile = self.profile
        if profile is not None and profile.model == model:
            measured = profile.switches.get(which)
            if measured:
                return dict(measured)
            if profile.thinks is self._thinking:
                return {}
        for row in self._dialect.thinking:
            if row.model is None or row.model.search(model):
                part = row.on if self._thinking else row.off
                return dict(part) if part else {} if row.default is self._thinking else None
        return None

    def _switch_thinking(self, body: dict[str, Any], model: str) -> bool:
        switch = self._switch(model)
        if not switch:
            return False
        before = dict(body)
        for name, value in switch.items():
            own = body.get(name)
            body[name] = {**own, **value} if isinstance(own, dict) and isinstance(value, dict) else value
        return body != before

    def _rename_max_tokens(self, body: dict[str, Any], obeyed: str) -> bool:
        other = _MAX_TOKENS[obeyed == _MAX_TOKENS[0]]
        if other not in body or obeyed in body:
            return False
        body[obeyed] = body.pop(other)
        self._warnings.setdefault(other, f"{other} is sent as {obeyed}, the one that is obeyed here (profile)")
        return True

    def _without_refused(self, body: dict[str, Any], model: str, thinking: bool | None) -> str | None:
        found = None
        for name in self._refused.keys() & body.keys():
            fact = self._refusal(name, body[name], thinking, model)
            if fact is None:
                continue
            if not self._drop:
                return self._forbidden(fact)
            del body[name]
            self._warn_of_drop(fact)
            found = _DROPPED
        return found

    def _refusal(self, name: str, value: Any, thinking: bool | None, model: str | None = None) -> Fact | None:
        if model not in (None, self._job.endpoint.model):
            return None
        text = _key_of(value)
        for fact in self._refused.get(name, ()):
            if _key_of(fact.value) == text and fact.thinking in (None, thinking):
                return fact
        return None

    def _warn_of_drop(self, fact: Fact) -> None:
        words = f"{fact.name} = {_spelled(fact.value)} was left out (drop_unsupported): {fact.words}"
        self._warnings.setdefault(fact.name, words)

    # --- the way of a request ---

    def way(self, request: Request, before: Way | None = None) -> Way:
        """Give the way on which a request goes now; `before` is the one on which it went at its last attempt."""
        if not request.climbs:
            gone = self._mode != "prompt" and request.model in self._structure_dropped
            return before or (Way(dropped=_STRUCTURAL) if gone else _PLAIN)
        rung = self._ladder.rung(request.model, request.thinking)
        if before is None:
            return _WAYS[rung]
        if before.rung is not None and RUNGS.index(rung) > RUNGS.index(before.rung):
            return replace(before, rung=rung)
        return before

    def compiled(self, request: Request, way: Way) -> Request:
        """Give the request as it goes out on a way."""
        if way is _PLAIN:
            return request
        text = request.body
        if way.dropped:
            body = json.loads(text)  # whole numbers of any length stay as they are
            for name in way.dropped:
                body.pop(name, None)
            if self._mode != "prompt" and not request.climbs and set(_STRUCTURAL).intersection(way.dropped):
                body["messages"] = self._reword(body["messages"])
            text = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        suffix = self._ladder.suffix(way.rung) if way.rung else b""
        return replace(request, body=text[:-1] + suffix if suffix else text)

    def mode(self, way: Way) -> str:
        """Give the structured mode of a way, as the records have it."""
        if way.rung is not None:
            return mode_of(way.rung)
        return "prompt" if set(_STRUCTURAL).intersection(way.dropped) else self._mode

    def other_way(self, request: Request, way: Way, error: EndpointError) -> Way | None:
        """Give another way for a request that was refused on one, None if the error is not about the way."""
        refused = error.kind is ErrorKind.BAD_REQUEST
        about_structure = blames_structure(error)
        if not refused and not (about_structure and error.kind in _MAY_BE_ABOUT_THE_WAY):
            return None
        if way.rung not in (None, LOWEST):
            is_new = (request.model, request.thinking, way.rung) not in self._taken_rungs
            name = None if about_structure else self._blamed(request, error)
            if (about_structure and (refused or is_new)) or (refused and is_new and name is None):
                rung = self._ladder.below(str(way.rung), request.model, request.thinking)
                return Way(rung, way.dropped, (*way.refusals, (str(way.rung), shortened(error.message))))
        if not self._drop or not refused:
            return None
        name = self._blamed(request, error)
        if name is None and about_structure and self._mode != "prompt" and not request.climbs:
            name = _STRUCTURAL[0]
        if name is None or name in way.dropped:
            return None
        names = _STRUCTURAL if name in _STRUCTURAL else (name,)
        return Way(way.rung, (*way.dropped, *names), (*way.refusals, (name, shortened(error.message))))

    def unsupported(self, request: Request, error: EndpointError) -> str | None:
        """Say what the job asks for in every request that this refusal is about; None if it is the item's own affair.

        What was taken before in this run, or by the profile, is not unsupported as such.
        """
        if error.kind is not ErrorKind.BAD_REQUEST:
            return None
        body = orjson.loads(request.body)
        name = blamed(error, body)
        if name is None and self._mode != "prompt" and blames_structure(error):
            name = next((one for one in _STRUCTURAL if one in body), None)
        if name is None or any(one[0] == request.model for one in self._worked):
            return None
        if name in _STRUCTURAL and name not in self._params and self._mode != "prompt":
            return (
                f'the endpoint refuses structured.mode = "{self._mode}" ({name}): {error.message}; mode = "auto" finds '
                "a way that works, endpoint.drop_unsupported = true asks in words instead"
            )
        asked = self._params.get(name, _NOTHING)
        if asked is _NOTHING or _key_of(asked) != _key_of(body[name]):
            return None
        return (
            f"the endpoint refuses params.{name} = {_spelled(asked)}: {error.message}; remove or change it, or set "
            "endpoint.drop_unsupported = true"
        )

    def _blamed(self, request: Request, error: EndpointError) -> str | None:
        return blamed(error, orjson.loads(request.body))

    def worked(self, request: Request, way: Way) -> list[str]:
        """Take note that a request was taken on a way; give what is new in it, in words."""
        key = (request.model, request.thinking, way.rung, way.dropped)
        if key in self._worked:
            return []
        self._worked.add(key)
        self._taken_rungs.add(key[:3])
        news = [self._learn_refusal(request, name, words, way) for name, words in way.refusals]
        if request.model == self._job.endpoint.model:
            self._learn_what_is_taken(request, way)
        return [one for one in news if one is not None]

    def _learn_refusal(self, request: Request, name: str, words: str, way: Way) -> str | None:
        if name in RUNGS:
            known = self._ladder.fact(name, request.model, request.thinking)
            self._keep(request, Fact(name, None, Verdict.REJECTED, words, request.thinking))
            if way.rung is None or not self._ladder.move(way.rung, request.model, request.thinking):
                return None
            against = ""
            if known is not None and known.verdict in _TAKEN:
                against = f", which contradicts the profile of {known.at[:10]}"
            return f"JSON is asked for by {mode_of(way.rung)} from now on, {name} is refused{against}: {words}"
        value = orjson.loads(request.body).get(name)
        if name in _STRUCTURAL and self._mode != "prompt":
            self._structure_dropped.add(request.model)
            self._keep(request, Fact(self._mode, None, Verdict.REJECTED, words, request.thinking))
            return f'structured.mode = "{self._mode}" is refused, JSON is asked for in words: {words}'
        fact = Fact(name, value, Verdict.REJECTED, words, request.thinking)
        self._keep(request, fact)
        if request.model == self._job.endpoint.model:
            self._refused.setdefault(name, []).append(fact)
        self._warn_of_drop(fact)
        return f"{name} = {_spelled(value)} is left out from now on (drop_unsupported): {words}"

    def _learn_what_is_taken(self, request: Request, way: Way) -> None:
        if way.rung is not None and way.rung != LOWEST:
            self._keep(request, Fact(way.rung, None, Verdict.ACCEPTED, "", request.thinking))
        elif self._mode != "prompt" and not way.dropped:
            self._keep(request, Fact(self._mode, None, Verdict.ACCEPTED, "", request.thinking))
        for name, value in orjson.loads(request.body).items():
            if name not in _RESERVED and name not in way.dropped:
                self._keep(request, Fact(name, value, Verdict.ACCEPTED, "", request.thinking))

    def _keep(self, request: Request, fact: Fact) -> None:
        """Keep a fact for the profile, unless it says no more than what that knows."""
        if request.model != self._job.endpoint.model or len(_key_of(fact.value)) > _MAX_VALUE_CHARS:
            return
        known = self.profile.fact(fact.name, fact.value, thinking=fact.thinking) if self.profile else None
        says_no_more = known is not None and (
            known.verdict is fact.verdict or (known.verdict in _TAKEN and fact.verdict is Verdict.ACCEPTED)
        )
        if not says_no_more and fact not in self.lessons:
            self.lessons.append(fact)

    # --- accounts ---

    @property
    def warnings(self) -> list[str]:
        """Give what was changed in requests, or went out although a row advises against it."""
        return [*self._warnings.values(), *(
            words for name, words in self._adapter.warnings.items() if name not in self._warnings
        )]  # fmt: skip

    def asked_by(self) -> str | None:
        """Give the structured mode in which the job's own model is asked now, None for a job without schema."""
        if not self._climbs:
            return self._mode if self._job.structured.schema else None
        model = str(self._job.endpoint.model)
        return mode_of(self._ladder.rung(model, self._state(model, dict(self._params))))


_DROPPED = "dropped"
_NOTHING = object()
_PLAIN = Way()
_WAYS = {rung: Way(rung) for rung in RUNGS}
#: Kinds of error that some give instead of a refusal (llama-cpp-python: 500, OpenRouter: 404).
_MAY_BE_ABOUT_THE_WAY = (ErrorKind.SERVER_ERROR, ErrorKind.MODEL_NOT_FOUND)


def _key_of(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1 and 1.0 are the same number
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError:  # a whole number over 64 bits
        return repr(value)


def _spelled(value: Any) -> str:
    text = _key_of(value)
    return text if len(text) <= 60 else text[:59] + "…"
