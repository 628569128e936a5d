"""Requests compiled from what is known of an endpoint: the profile first, then the rows of the dialect.

What is not known is found out on the way. A request that is refused for the way in which it asks for JSON, or for a
parameter that may be dropped, goes out again another way at once; what then works is remembered.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import orjson

from batchrun.endpoint.adapt import Adapter, fits, holds, thinks
from batchrun.endpoint.blame import MAX_TOKENS, RESERVED, blamed, blames_structure, is_about_the_schema
from batchrun.endpoint.ladder import Ladder
from batchrun.endpoint.profile import Fact, Verdict, shortened
from batchrun.job import JobError
from batchrun.records import Adapted, ErrorKind, Request
from batchrun.structured import LOWEST, RUNGS, mode_of, parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from batchrun.endpoint.dialect import Dialect
    from batchrun.endpoint.profile import Profile
    from batchrun.job import Job
    from batchrun.records import EndpointError

_TAKEN = (Verdict.SUPPORTED, Verdict.ACCEPTED)
_OF_TOOLS = ("tools", "tool_choice")
#: Kinds of error that some give instead of a refusal (llama-cpp-python: 500, OpenRouter: 404).
_MAY_BE_ABOUT_THE_WAY = (ErrorKind.SERVER_ERROR, ErrorKind.MODEL_NOT_FOUND, ErrorKind.NOT_AN_API)
#: A rung that was taken is left for good when it was refused so often, and in so large a share.
_REFUSALS, _SHARE = 3, 0.2
#: Asked alone, with nothing of any item, it tells whether the job or an item is what an endpoint refuses.
_GREETING = "你好，请用 JSON 回答。"
#: Values that are not kept in a profile: whom they name is nobody's affair, and they say nothing of the endpoint.
_PERSONAL = frozenset({"user", "user_id", "safety_identifier", "metadata", "prompt_cache_key"})
_MAX_VALUE_CHARS, _MAX_TEXT_CHARS = 200, 32
_ECHOED_CHARS = 6


@dataclass(frozen=True)
class Way:
    """How a request is sent: its rung (None where it does not climb), what is left out, what was refused before.

    With `in_words` the schema is asked for in words and not in the mode that the job names. `renamed` is a bound on
    tokens that goes under its other name; `innocent` parameters were left out in vain. `refusals` are names (of a rung
    or a parameter) and the provider's words.
    """

    rung: str | None = None
    in_words: bool = False
    dropped: tuple[str, ...] = ()
    renamed: str | None = None
    innocent: tuple[str, ...] = ()
    refusals: tuple[tuple[str, str], ...] = ()

    @cached_property
    def mark(self) -> str:
        """Give what tells this way from others in a few characters, nothing for a request as it was built."""
        return "-".join(filter(None, (self.rung, "in_words" if self.in_words else None, *self.dropped, self.renamed)))


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
        self._job, self._dialect = job, dialect
        self._model = str(job.endpoint.model)
        self.profile = profile if profile is not None and profile.model == self._model else None
        self._drop = job.endpoint.drop_unsupported
        self._thinking = job.endpoint.thinking
        self._reword = reword
        value = orjson.loads(schema) if schema else None
        self._has_schema = schema is not None
        #: Whether requests climb the ladder: only where the job leaves open how JSON is asked for.
        self._climbs = self._has_schema and job.structured.mode == "auto"
        self._mode = "prompt" if job.structured.mode == "auto" else job.structured.mode
        self._of_mode = parameters(self._mode, value) if schema else {}
        self._of_schema = (blake2b(schema or b"", digest_size=6).hexdigest(),)
        self._ladder = Ladder(value, dialect, self.profile, self._of_schema)
        self._adapter = Adapter(dialect, change=self._drop)
        self._warnings: dict[str, str] = {}
        #: By model and name: what is known to be refused. It grows; `_generation` counts how often it did.
        self._refused: dict[tuple[str, str], list[Fact]] = {}
        self._generation = 0
        for fact in self.profile.facts if self.profile else ():
            if fact.verdict is Verdict.REJECTED and fact.name not in (*RUNGS, "stream"):
                self._refused.setdefault((self._model, fact.name), []).append(fact)
        self._obeyed = self.profile.max_tokens if self.profile else None
        #: What was learned in this run, about the job's own model.
        self.lessons: list[Fact] = []
        self._worked: set[tuple[str, bool | None, str]] = set()
        self._taken_rungs: Counter[tuple[str, bool | None, str | None]] = Counter()
        self._refused_rungs: Counter[tuple[str, bool | None, str]] = Counter()
        self._taken_values: set[tuple[str, str, str]] = set()
        self._mode_dropped: set[str] = set()
        self._switch_here = self._find_switch()
        #: What the job asks for in every request.
        self._params = {**params, **(self._switch_here or {})}
        self._check_params()
        self._warn_of_no_effect()

    # --- before the batch ---

    def _find_switch(self) -> dict[str, Any] | None:
        """Give the parameters that switch thinking as the job wants it, for its own model."""
        if self._thinking == "auto":
            return None
        wanted = "true" if self._thinking else "false"
        cell = self.profile.cells.get("thinking_on" if self._thinking else "thinking_off") if self.profile else None
        if self.profile and cell and cell.verdict in (Verdict.REJECTED, Verdict.IGNORED):
            words = f"{cell.words} (profile of {self.profile.measured_at})"
            raise JobError(f"endpoint.thinking = {wanted}: {words}")
        switch = self._switch(self._model)
        if switch is None:
            raise JobError(
                f"endpoint.thinking = {wanted}: how thinking is switched for {self._model} is not known here; measure "
                "it with batchrun probe, or put the provider's own parameter into [params]"
            )
        against = [name for name in switch if name in self._job.params]
        if against:
            raise JobError(
                f"params.{against[0]} and endpoint.thinking = {wanted} both switch thinking here; remove one of them"
            )
        return switch

    def _check_params(self) -> None:
        """Refuse a job whose own parameters the profile knows to be refused, unless they may be dropped."""
        if self.profile is None:
            return
        body = {"model": self._model, **self._params}
        thinking = self._state(self._model, body)
        mode = self._ladder.fact(self._mode, self._model, thinking) if self._of_mode else None
        if self._drop:
            if mode is not None and mode.verdict is Verdict.REJECTED:
                self._leave_mode(self._model, mode.words)
            return
        problems = []
        for name in self._params:
            fact = self._refusal(name, body, thinking)
            if fact is not None and not self._goes_renamed(name, body):
                problems.append(self._forbidden(fact))
        if mode is not None and mode.verdict is Verdict.REJECTED:
            problems.append(
                f'structured.mode = "{self._mode}" is refused here: {mode.words} (profile of {mode.at[:10]}); '
                'mode = "auto" asks in a way that works'
            )
        if problems:
            raise JobError(problems)

    def _warn_of_no_effect(self) -> None:
        profile = self.profile
        for name in self._params if profile else ():
            cell = profile.cells.get(name) if profile else None
            if profile and cell and cell.verdict is Verdict.IGNORED and not self._goes_renamed(name, self._params):
                self._warnings[name] = (
                    f"{name} is taken here and has no effect: {cell.words} (profile of {profile.measured_at})"
                )

    def _goes_renamed(self, name: str, body: Mapping[str, Any]) -> bool:
        return name in MAX_TOKENS and self._obeyed not in (None, name) and self._obeyed not in body

    def _forbidden(self, fact: Fact) -> str:
        if fact.name in (self._switch_here or {}):
            what, hint = f"endpoint.thinking = {str(self._thinking).lower()} ({fact.name})", "remove it"
        else:
            what, hint = f"params.{fact.name} = {_spelled(fact.value)}", "remove or change it"
        return (
            f"{what} is refused here: {fact.words} (profile of {fact.at[:10]}); {hint}, or set "
            "endpoint.drop_unsupported = true"
        )

    def is_known(self) -> bool:
        """Tell whether the profile knows that requests as the job asks for them are taken."""
        profile = self.profile
        if profile is None:
            return False
        body = {"model": self._model, **self._params}
        thinking = self._state(self._model, body)
        for name, value in self._params.items():
            fact = profile.fact(name, value, thinking=thinking, among=_others(body, name))
            if name in RESERVED or self._goes_renamed(name, body):
                continue
            if fact is None or not (fact.verdict in (*_TAKEN, Verdict.IGNORED) or self._drop):
                return False
        rung = self._ladder.rung(self._model, thinking) if self._climbs else self._mode
        if rung == LOWEST:
            return True
        known = self._ladder.fact(rung, self._model, thinking)
        return known is not None and (known.verdict in _TAKEN or self._drop)

    # --- a request's body ---

    def adapt(self, body: dict[str, Any]) -> Adapted:
        """Fit a body to the endpoint, in place: thinking, names, parameters that are refused."""
        model = str(body.get("model"))
        changed = self._thinking != "auto" and self._switch_thinking(body, model)
        if self._obeyed is not None and model == self._model:
            changed = self._rename_max_tokens(body, self._obeyed) or changed
        thinking = self._state(model, body)
        if self._refused:
            facts = self._refusals(model, body, thinking)
            if facts and not self._drop:
                return Adapted(problem=self._forbidden(facts[0]))
            for fact in facts:
                for name in _group(fact.name):
                    body.pop(name, None)
                self._warn_of_drop(fact)
                changed = True
        row_changed, streams = self._adapter(body)
        climbs = self._climbs and not any(name in body for name in ("response_format", *_OF_TOOLS))
        return Adapted(changed or row_changed, streams, thinking, climbs, self._generation)

    def _state(self, model: str, body: Mapping[str, Any]) -> bool | None:
        """Tell whether thinking is on in a request; None if nobody knows."""
        state = thinks(self._dialect, model, body)
        profile = self.profile if model == self._model else None
        if profile is None:
            return state
        for wanted in ("on", "off"):
            switch = profile.switches.get(wanted)
            if switch and holds(body, switch):
                return wanted == "on"
        # What was measured counts more than what a row says about the model's default.
        has_switch = any(name in body for part in profile.switches.values() for name in part)
        return profile.thinks if profile.thinks is not None and not has_switch else state

    def _switch(self, model: str) -> dict[str, Any] | None:
        """Give the parameters that switch a model's thinking as the job wants it, None if nobody knows."""
        which = "on" if self._thinking else "off"
        profile = self.profile if model == self._model else None
        if profile is not None:
            measured = profile.switches.get(which)
            if measured:
                return dict(measured)
            if profile.thinks is self._thinking:
                return {}
        for row in self._dialect.thinking:
            if fits(row.model, model):
                part = row.on if self._thinking else row.off
                return dict(part) if part else {} if row.default is self._thinking else None
        return None

    def _switch_thinking(self, body: dict[str, Any], model: str) -> bool:
        """Put the switch into a body; what an item says about it itself counts more."""
        switch = self._switch_here if model == self._model else self._switch(model)
        changed = False
        for name, value in (switch or {}).items():
            own = body.get(name)
            if name not in body:
                body[name] = value
                changed = True
            elif isinstance(own, dict) and isinstance(value, dict) and not set(own) & set(value):
                body[name] = {**own, **value}
                changed = True
        return changed

    def _rename_max_tokens(self, body: dict[str, Any], obeyed: str) -> bool:
        other = _other_bound(obeyed)
        if other not in body or obeyed in body:
            return False
        body[obeyed] = body.pop(other)
        self._warnings.setdefault(other, f"{other} is sent as {obeyed}, the one that is obeyed here")
        return True

    def _refusals(self, model: str, body: Mapping[str, Any], thinking: bool | None) -> list[Fact]:
        """Give what is known to be refused of a body."""
        found = [self._refusal(name, body, thinking, model) for name in body if (model, name) in self._refused]
        return [fact for fact in found if fact is not None]

    def _refusal(
        self, name: str, body: Mapping[str, Any], thinking: bool | None, model: str | None = None
    ) -> Fact | None:
        value, among = _key_of(body[name]), _others(body, name)
        facts = [
            fact
            for fact in self._refused.get((model or self._model, name), ())
            if _key_of(fact.value) == value and fact.among in (None, among)
        ]
        states = {fact.thinking for fact in facts}
        if thinking is None and states >= {True, False}:
            return facts[-1]
        return next((fact for fact in reversed(facts) if fact.thinking in (None, thinking)), None)

    def _warn_of_drop(self, fact: Fact) -> None:
        words = f"{fact.name} = {_spelled(fact.value)} was left out (drop_unsupported): {fact.words}"
        self._warnings.setdefault(fact.name, words)

    # --- the way of a request ---

    def way(self, request: Request, before: Way | None = None) -> Way:
        """Give the way on which a request goes now; `before` is the one on which it went at its last attempt."""
        way = before or _PLAIN
        if request.climbs:
            rung = self._ladder.rung(request.model, request.thinking)
            if before is None:
                way = _WAYS[rung]
            elif way.rung is not None and RUNGS.index(rung) > RUNGS.index(way.rung):
                way = replace(way, rung=rung)
        elif before is None and self._of_mode and request.model in self._mode_dropped:
            way = Way(in_words=True)
        if request.generation != self._generation and self._drop:
            way = self._without_what_was_learned(request, way)
        return way

    def _without_what_was_learned(self, request: Request, way: Way) -> Way:
        """Leave out of a request what was found to be refused after it was built."""
        body = _body_of(request)
        facts = self._refusals(request.model, body, request.thinking)
        names = [name for fact in facts for name in _group(fact.name) if name in body and name not in way.dropped]
        return replace(way, dropped=(*way.dropped, *names)) if names else way

    def compiled(self, request: Request, way: Way) -> Request:
        """Give the request as it goes out on a way."""
        if way is _PLAIN:
            return request
        text = request.body
        if way.dropped or way.renamed or way.in_words:
            body = {name: value for name, value in _body_of(request).items() if name not in way.dropped}
            if way.in_words:
                self._put_in_words(body)
            if way.renamed in body:
                body[_other_bound(str(way.renamed))] = body.pop(str(way.renamed))
            text = _text_of(body)
        suffix = self._ladder.suffix(way.rung) if way.rung else b""
        return replace(request, body=text[:-1] + suffix if suffix else text)

    def _put_in_words(self, body: dict[str, Any]) -> None:
        """Ask for the schema in words, in place of the mode that the job names; an item's own format stays."""
        is_own = {name for name, value in self._of_mode.items() if name in body and body[name] != value}
        if not is_own:
            for name in self._of_mode:
                body.pop(name, None)
            if self._mode != "json_object":  # in that mode the words are there already
                body["messages"] = self._reword(body["messages"])

    def mode(self, way: Way) -> str:
        """Give the structured mode of a way, as the records have it."""
        if way.rung is not None:
            return mode_of(way.rung)
        return "prompt" if way.in_words else self._mode

    def other_way(self, request: Request, way: Way, error: EndpointError) -> Way | None:
        """Give another way for a request that was refused on one, None if the error is not about the way."""
        refused = error.kind is ErrorKind.BAD_REQUEST
        about_structure = blames_structure(error)
        if not refused and not (about_structure and error.kind in _MAY_BE_ABOUT_THE_WAY):
            return None
        body = {name: value for name, value in _body_of(request).items() if name not in way.dropped}
        names = blamed(error, body)
        words = self._without_echo(request, error.message)
        if way.rung not in (None, LOWEST):
            is_new = not self._taken_rungs[request.model, request.thinking, way.rung]
            if about_structure or (is_new and not names):
                rung = self._ladder.below(str(way.rung), request.model, request.thinking)
                return replace(way, rung=rung, refusals=(*way.refusals, (str(way.rung), words)))
        if not refused:
            return None
        bound = next((name for name in MAX_TOKENS if name in body), None)
        if bound and way.renamed is None and _other_bound(bound) not in body and _other_bound(bound) in error.message:
            return replace(way, renamed=bound, refusals=(*way.refusals, (bound, words)))
        return self._without_another(request, way, names, words, about_structure=about_structure)

    def _without_another(
        self, request: Request, way: Way, names: list[str], words: str, *, about_structure: bool
    ) -> Way | None:
        """Leave out one more parameter; if the words are still the same, the last one was left out in vain."""
        if not self._drop:
            return None
        body = _body_of(request)
        of_mode = [name for name, value in self._of_mode.items() if body.get(name) == value]
        if about_structure and of_mode and not names:
            names = of_mode[:1]
        if way.refusals and way.refusals[-1][1] == words:
            name = way.refusals[-1][0]
            if name in of_mode and way.in_words:
                way = replace(way, in_words=False, innocent=(*way.innocent, *of_mode), refusals=way.refusals[:-1])
            elif name in way.dropped:
                dropped = tuple(one for one in way.dropped if one not in _group(name))
                innocent = (*way.innocent, *_group(name))
                way = replace(way, dropped=dropped, innocent=innocent, refusals=way.refusals[:-1])
        spared = {*way.dropped, *way.innocent, *(of_mode if way.in_words else ())}
        name = next((one for one in names if one not in spared), "")
        if not name:
            return None
        refusals = (*way.refusals, (name, words))
        if name in of_mode:
            return replace(way, in_words=True, refusals=refusals)
        more = tuple(one for one in _group(name) if one not in way.dropped)
        return replace(way, dropped=(*way.dropped, *more), refusals=refusals)

    # --- what an answer or a refusal teaches ---

    def may_be_the_job_s(self, request: Request, error: EndpointError) -> bool:
        """Tell whether a refusal may be about what the job asks for in every request: if it says so, and nothing was
        taken yet.
        """
        if error.kind is not ErrorKind.BAD_REQUEST or request.model != self._model:
            return False
        if any(model == self._model for model, _, _ in self._worked):
            return False
        asked = {**self._params, **self._of_mode}
        return bool(blamed(error, asked)) or (bool(self._of_mode) and blames_structure(error))

    def greeting(self, request: Request, way: Way) -> Request:
        """Give a request with what the job asks for and nothing of any item: whether that is refused, tells whose
        affair a refusal is.
        """
        messages = [{"role": "user", "content": _GREETING}]
        of_mode = {} if way.in_words else self._of_mode
        body = {"model": self._model, "messages": messages, **self._params, **of_mode}
        body = {name: value for name, value in body.items() if name not in way.dropped}
        self.adapt(body)
        return replace(request, body=_text_of(body), messages=messages)

    def greeted(self, greeting: Request, refusal: EndpointError | None) -> str | None:
        """Say what the job asks for in every request that is refused; None if a greeting was taken."""
        if refusal is None or refusal.kind is not ErrorKind.BAD_REQUEST:
            self._worked.add((self._model, None, "greeting"))
            return None
        body = _body_of(greeting)
        names = blamed(refusal, body)
        if self._of_mode and (set(names[:1]) & set(self._of_mode) or (not names and blames_structure(refusal))):
            hint = "" if self._drop else ", endpoint.drop_unsupported = true asks in words instead"
            return (
                f'the endpoint refuses structured.mode = "{self._mode}": {refusal.message}; mode = "auto" finds a way '
                f"that works{hint}"
            )
        if not names:
            return None  # it refuses everything, whatever is asked for
        hint = "" if self._drop else ", or set endpoint.drop_unsupported = true"
        name = names[0]
        fact = Fact(name, body[name], Verdict.REJECTED, shortened(refusal.message), among=_others(body, name))
        self._keep(self._model, fact)
        if name in (self._switch_here or {}):
            wanted = str(self._thinking).lower()
            return f"the endpoint refuses endpoint.thinking = {wanted} ({name}): {refusal.message}; remove it{hint}"
        return (
            f"the endpoint refuses params.{name} = {_spelled(body[name])}: {refusal.message}; remove or change it{hint}"
        )

    def worked(self, request: Request, way: Way) -> list[str]:
        """Take note that a request was taken on a way; give what is new in it, in words."""
        news = [self._learn_refusal(request, way, name, words) for name, words in way.refusals]
        self._taken_rungs[request.model, request.thinking, way.rung] += 1
        worked = (request.model, request.thinking, way.mark)
        if worked not in self._worked:
            self._worked.add(worked)
            self._learn_what_is_taken(request, way)
        return [one for one in news if one is not None]

    def _learn_refusal(self, request: Request, way: Way, name: str, words: str) -> str | None:
        if name in RUNGS:
            return self._learn_rung(request, way, name, words)
        if way.in_words and name in self._of_mode:
            if request.model in self._mode_dropped:
                return None
            self._keep(request.model, self._rung_fact(request, self._mode, words))
            return self._leave_mode(request.model, words)
        body = _body_of(request)
        if name == way.renamed:
            self._obeyed = _other_bound(name)
            self._rename_max_tokens(body, self._obeyed)
            return None
        if name not in body:
            return None
        value = body[name]
        if (request.model, name, _key_of(value)) in self._taken_values:
            self._warnings.setdefault(name, f"{name} was left out of items for which it was refused: {words}")
            return None
        thinking = self._thinking_of(request, way)
        fact = Fact(name, value, Verdict.REJECTED, words, thinking, among=_others(body, name))
        if self._refusal(name, body, thinking, request.model) is not None:
            return None
        self._keep(request.model, fact)
        self._refused.setdefault((request.model, name), []).append(fact)
        self._generation += 1
        self._warn_of_drop(fact)
        return f"{name} = {_spelled(value)} is left out from now on (drop_unsupported): {words}"

    def _leave_mode(self, model: str, words: str) -> str:
        self._mode_dropped.add(model)
        said = f'structured.mode = "{self._mode}" is refused, JSON is asked for in words (drop_unsupported): {words}'
        self._warnings.setdefault("structured.mode", said)
        return said

    def _learn_rung(self, request: Request, way: Way, rung: str, words: str) -> str | None:
        """Move all requests down if a rung was never taken, or is refused often; else only this one went down."""
        model, thinking, lower = request.model, request.thinking, str(way.rung)
        key = (model, thinking, rung)
        self._refused_rungs[key] += 1
        taken, refused = self._taken_rungs[key], self._refused_rungs[key]
        if taken and (refused < _REFUSALS or refused < _SHARE * taken):
            self._warnings.setdefault(rung, f"{rung} was refused for some items, which were asked by {lower}: {words}")
            return None
        known = self._ladder.fact(rung, model, thinking)
        self._keep(model, self._rung_fact(request, rung, words))
        if not self._ladder.move(lower, model, thinking):
            return None
        is_against = known is not None and known.verdict in _TAKEN
        against = f", which contradicts the profile of {known.at[:10]}" if known and is_against else ""
        return f"JSON is asked for by {mode_of(lower)} from now on, {rung} is refused{against}: {words}"

    def _rung_fact(self, request: Request, rung: str, words: str) -> Fact:
        """Make the fact of a refused rung; if the words are about the schema, it says nothing of other schemas."""
        among = self._of_schema if is_about_the_schema(words) else None
        return Fact(rung, None, Verdict.REJECTED, words, request.thinking, among=among)

    def _learn_what_is_taken(self, request: Request, way: Way) -> None:
        body = _body_of(request)
        thinking = self._thinking_of(request, way)
        rung = way.rung or (self._mode if self._of_mode and not way.in_words else LOWEST)
        if rung != LOWEST:
            self._keep(request.model, Fact(rung, None, Verdict.ACCEPTED, "", thinking))
        for name, value in body.items():
            if name not in RESERVED and name not in way.dropped and name != way.renamed:
                self._taken_values.add((request.model, name, _key_of(value)))
                if name not in self._of_mode:
                    self._keep(request.model, Fact(name, value, Verdict.ACCEPTED, "", thinking))

    def _thinking_of(self, request: Request, way: Way) -> bool | None:
        """Tell whether thinking is on in a request as it goes out: with its switch left out nobody knows."""
        return None if set(way.dropped) & set(self._switch_here or {}) else request.thinking

    def _keep(self, model: str, fact: Fact) -> None:
        """Keep a fact for the profile, unless it says no more than what that knows, or more than it should."""
        if model != self._model or not self._may_be_kept(fact):
            return
        known = (
            self.profile.fact(fact.name, fact.value, thinking=fact.thinking, among=fact.among or ())
            if self.profile
            else None
        )
        says_no_more = known is not None and (
            known.verdict is fact.verdict or (known.verdict in _TAKEN and fact.verdict is Verdict.ACCEPTED)
        )
        if not says_no_more and not any(_same_but_for_time(fact, one) for one in self.lessons):
            self.lessons.append(fact)

    def _may_be_kept(self, fact: Fact) -> bool:
        """Tell whether a value may be kept: what items say themselves only if it is a number or a switch."""
        if fact.name in _PERSONAL or len(_key_of(fact.value)) > _MAX_VALUE_CHARS:
            return False
        if fact.value is None or isinstance(fact.value, bool | int | float):
            return not isinstance(fact.value, int) or abs(fact.value) < 2**63
        if fact.name not in self._params:
            return False
        return not isinstance(fact.value, str) or (len(fact.value) <= _MAX_TEXT_CHARS and "@" not in fact.value)

    def _without_echo(self, request: Request, words: str) -> str:
        """Take what a refusal repeats of the messages out of its words."""
        for message in request.messages:
            content = message.get("content") if isinstance(message, dict) else None
            if isinstance(content, str) and len(content) >= _ECHOED_CHARS:
                words = words.replace(content, "…")
                at = words.find(content[:_ECHOED_CHARS])
                words = words if at < 0 else words[:at] + "…"
        return shortened(words)

    # --- accounts ---

    @property
    def obeyed_bound(self) -> str | None:
        """Give the name under which a bound on tokens is obeyed, None where that is not known."""
        return self._obeyed

    @property
    def warnings(self) -> list[str]:
        """Give what was changed in requests, or went out although a row advises against it."""
        return [*self._warnings.values(), *(
            words for name, words in self._adapter.warnings.items() if name not in self._warnings
        )]  # fmt: skip

    def asked_by(self) -> str | None:
        """Give the structured mode in which the job's own model is asked now, None for a job without schema."""
        if not self._climbs:
            dropped = self._model in self._mode_dropped
            return ("prompt" if dropped else self._mode) if self._has_schema else None
        return mode_of(self._ladder.rung(self._model, self._state(self._model, {**self._params})))


_PLAIN = Way()
_WAYS = {rung: Way(rung) for rung in RUNGS}


def _group(name: str) -> tuple[str, ...]:
    return _OF_TOOLS if name in _OF_TOOLS else (name,)


def _other_bound(name: str) -> str:
    return MAX_TOKENS[name == MAX_TOKENS[0]]


def _others(names: Iterable[str], name: str) -> tuple[str, ...]:
    """Give the other parameters of a body, in order."""
    return tuple(sorted(one for one in names if one != name and one not in RESERVED))


def _same_but_for_time(one: Fact, other: Fact) -> bool:
    return replace(one, at="") == replace(other, at="")


def _body_of(request: Request) -> dict[str, Any]:
    """Parse a request's body, with whole numbers of any length; nothing if even Python cannot."""
    try:
        value = json.loads(request.body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _text_of(body: dict[str, Any]) -> bytes:
    """Write a body that `_body_of` parsed."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


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
