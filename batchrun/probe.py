"""The probe: what one model at one endpoint can do, measured by what it does and not by the absence of an error.

Each capability is a row of the matrix: a few small calls whose answers could not be what they are by chance. Every row
has a bound on its calls, and every call a bound on its tokens, so that a probe's cost is known before it begins.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import orjson

from batchrun.endpoint.answers import parsed, read_usage, text_and_reasoning
from batchrun.endpoint.blame import MAX_TOKENS
from batchrun.endpoint.profile import Cell, Fact, Profile, Verdict, shortened
from batchrun.endpoint.streams import Stream, begins_like_a_stream
from batchrun.endpoint.waits import MAX_WAIT_S
from batchrun.job import Retry
from batchrun.probing import questions as q
from batchrun.probing import verdicts
from batchrun.probing.said import Said, clean, in_json
from batchrun.records import TRANSIENT_KINDS, EndpointError, ErrorKind, Usage, utc_now
from batchrun.retry import Retries

if TYPE_CHECKING:
    from batchrun.endpoint.client import Client
    from batchrun.endpoint.dialect import Dialect
    from batchrun.probing.verdicts import Judged
    from batchrun.records import Provider

_AT_A_TIME = 4
#: An endpoint that asks to wait longer is not waited for.
_LONGEST_WAIT_S = 60.0
#: With more rows than these given up, what is left says more about the moment than about the endpoint.
_FEW = 3
#: Kinds of error that end a probe: the rest of it would say the same.
_ENDS = frozenset({ErrorKind.AUTH, ErrorKind.QUOTA})


class ProbeError(Exception):
    """The endpoint said stop; `error` is what it said."""

    def __init__(self, error: EndpointError) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(slots=True)
class Measured:
    """What a probe found, and what it cost: calls (`repeats` of them made again) and tokens as the endpoint counted.

    `unmeasured` are the rows without a verdict because a call failed, `given_up` those of them whose own calls failed
    for passing reasons. `is_bounded` tells whether a bound on tokens is taken, and heeded as far as that was seen.
    """

    profile: Profile
    max_tokens: int = q.MAX_TOKENS
    calls: int = 0
    repeats: int = 0
    usage: Usage = field(default_factory=Usage)
    uncounted: int = 0
    is_bounded: bool = True
    unmeasured: set[str] = field(default_factory=set)
    given_up: set[str] = field(default_factory=set)

    @property
    def is_usable(self) -> bool:
        """Whether so few rows were given up that the rest is worth keeping."""
        return len(self.given_up) <= _FEW

    def as_dict(self) -> dict[str, Any]:
        """Give it as JSON values: the matrix with its evidence, and the cost."""
        profile = self.profile
        return {
            "base_url": profile.base_url,
            "model": profile.model,
            "dialect": profile.dialect,
            "simulated": profile.simulated,
            "probed_at": profile.probed_at,
            "calls": self.calls,
            "repeats": self.repeats,
            "max_calls": q.MAX_CALLS,
            "max_calls_with_repeats": q.MAX_CALLS_WITH_REPEATS,
            "tokens": {"prompt": self.usage.prompt_tokens, "completion": self.usage.completion_tokens},
            "max_tokens": q.most_tokens(self.max_tokens),
            "max_tokens_with_repeats": q.most_tokens(self.max_tokens, repeats=True),
            "bound_on_tokens_is_heeded": self.is_bounded,
            "answers_without_usage": self.uncounted,
            "given_up": [row.name for row in q.ROWS if row.name in self.given_up],
            "thinks_by_default": profile.thinks,
            "thinking_switches": dict(profile.switches),
            "max_tokens_parameter": profile.max_tokens,
            "matrix": {
                row.name: {
                    "title": row.title, "verdict": cell.verdict.value, "words": cell.words,
                    "evidence": list(cell.evidence),
                }
                for row in q.ROWS if (cell := profile.cells.get(row.name)) is not None
            },
        }  # fmt: skip


class Probe:
    """Measures one model through a client. `progress` is told of each call that ends: how many, of how many at most.

    `path` is where chats go, `base_url` what the profile is kept by. Waits between tries are those of `retry`;
    `waiting` is told of those that hold up everything, in seconds, and why.
    """

    def __init__(
        self, client: Client, dialect: Dialect, base_url: str, model: str, *, path: str = "/chat/completions",
        max_tokens: int = q.MAX_TOKENS, progress: Callable[[int, int], None] = lambda _done, _most: None,
        waiting: Callable[[float, str], None] = lambda _seconds, _why: None, retry: Retry | None = None,
        rng: random.Random | None = None,
    ) -> None:  # fmt: skip
        self._client, self._dialect, self._model = client, dialect, model
        self._path, self._cap, self._progress, self._waiting = path, max_tokens, progress, waiting
        self._slots = asyncio.Semaphore(_AT_A_TIME)
        self._retries = Retries(retry or Retry(), rng or random.Random(), asyncio.sleep)
        self._limit: dict[str, Any] = {"max_tokens": max_tokens}
        self._streams = False
        self._restreamed = 0
        #: Until when, on the loop's clock, the endpoint wants to be left alone.
        self._quiet_until = 0.0
        #: Tokens of the answers so far, with a guess at those that were not counted.
        self._spent = 0
        self._done = Measured(Profile(base_url, model, dialect.name), max_tokens)
        self._cells: dict[str, Cell] = {}
        self._facts: list[Fact] = []
        self._thinks: bool | None = None
        self._switches: dict[str, Any] = {}
        self._headers: set[str] = set()
        #: What was said to calls without any parameter that were refused all the same.
        self._refused_plainly: set[str] = set()

    async def measure(self) -> Measured:
        """Make all calls and give what they showed. Raises `ProbeError` where the endpoint says stop."""
        await self._plain_chat()
        await self._thinking()
        await self._all(lambda: self._max_tokens("max_tokens"), lambda: self._max_tokens("max_completion_tokens"))
        if self._is_heedless():
            name = obeyed(self._cells)
            self._limit = {name: self._cap} if name else self._limit
            self._done.is_bounded = name is not None
        await self._all(
            self._model_list, lambda: self._role("system"), lambda: self._role("developer"), self._without_word,
            self._tools, self._stream, self._stream_usage, self._sampling, self._stop, self._penalties, self._n,
            self._logprobs, self._long_output, self._unknown,
            *(lambda name=name: self._structure(name, name) for name in q.STRUCTURES),
        )  # fmt: skip
        await self._switched()
        self._rate_limit_headers()
        self._doubt()
        done = self._done
        done.profile = replace(
            done.profile, probed_at=utc_now(), thinks=self._thinks, switches=self._switches, cells=self._cells,
            max_tokens=obeyed(self._cells), facts=tuple(self._facts), simulated=done.profile.simulated,
        )  # fmt: skip
        return done

    async def _all(self, *rows: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for row in rows:
                    group.create_task(_run(row))
        except BaseExceptionGroup as failed:
            stop = failed.subgroup(ProbeError)
            if stop is not None:
                raise _first(stop) from None
            raise

    # --- calls ---

    async def _ask(
        self, prompt: str, params: Mapping[str, Any] | None = None, *, limited: bool = True,
        before: tuple[Mapping[str, Any], ...] = (), asked: Mapping[str, Any] | None = None, tries: int = q.TRIES,
    ) -> Said:  # fmt: skip
        """Make one call, and again where it failed for a passing reason or has to be streamed.

        `asked` is what it is about, where that is more than its parameters.
        """
        messages = [*before, {"role": "user", "content": prompt}]
        limit = self._limit if limited else {}
        params = params or {}
        body: dict[str, Any] = {"model": self._model, "messages": messages, **limit, **params}
        said = await self._patiently(body, asked or params, tries)
        wants_stream = said.error is not None and said.error.remedy == "stream" and not said.streamed
        if wants_stream and "stream" not in params and self._restreamed < q.STREAM_CALLS:
            self._restreamed += 1
            said = await self._patiently({**body, "stream": True}, asked or params, tries)
            self._streams = self._streams or said.error is None
        if said.error is not None and said.error.kind is ErrorKind.BAD_REQUEST and not (asked or params):
            self._refused_plainly.add(shortened(said.error.message))
        return said

    async def _patiently(self, body: dict[str, Any], asked: Mapping[str, Any], tries: int) -> Said:
        errors: list[EndpointError] = []
        while True:
            said = await self._once(body, asked)
            said.errors = errors = [*errors, *said.errors] if said.errors else []
            error = said.error
            if error is None or error.kind not in TRANSIENT_KINDS:
                return said
            wait_s = self._retries.wait_s(error, len(errors))
            is_for_all = error.kind is ErrorKind.RATE_LIMITED or error.retry_after_s is not None
            if is_for_all:  # what one call is told holds for the others, too; they wait in `_quiet`
                self._quiet_until = max(self._quiet_until, asyncio.get_running_loop().time() + wait_s)
            most = q.TRIES if error.kind is ErrorKind.RATE_LIMITED else tries  # a 429 costs nothing
            if len(errors) >= most or self._done.repeats >= q.REPEATS or self._quiet_s() > _LONGEST_WAIT_S:
                return said
            self._done.repeats += 1
            if not is_for_all:
                self._waiting(wait_s, error.message)
                await asyncio.sleep(min(wait_s, _LONGEST_WAIT_S))

    async def _once(self, body: dict[str, Any], asked: Mapping[str, Any]) -> Said:
        async with self._slots:
            if self._streams and "stream" not in body:
                body = {**body, "stream": True}
            said = Said(body, asked)
            problem = await self._quiet() or self._used_up()
            if problem is not None:
                said.errors = [problem]
                return said
            self._done.calls += 1
            try:
                provider = await self._client.fetch("POST", self._path, orjson.dumps(body))
            except EndpointError as error:
                said.errors = [error]
            else:
                self._read(said, provider)
            self._progress(self._done.calls, q.MAX_CALLS_WITH_REPEATS)
        if said.error is not None and said.error.kind in _ENDS:
            raise ProbeError(said.error)
        return said

    def _quiet_s(self) -> float:
        return self._quiet_until - asyncio.get_running_loop().time()

    async def _quiet(self) -> EndpointError | None:
        """Wait as long as the endpoint asked for; give an error where that is too long."""
        while (left := self._quiet_s()) > 0:
            if left > _LONGEST_WAIT_S:
                longer = " or longer" if left > MAX_WAIT_S - _LONGEST_WAIT_S else ""
                words = f"not asked: the endpoint asks to wait {left:.0f} s{longer}"
                return EndpointError(ErrorKind.RATE_LIMITED, words)
            self._waiting(left, "the endpoint asks to wait")
            await asyncio.sleep(left)
        return None

    def _used_up(self) -> EndpointError | None:
        """Give an error where the tokens that were stated are used up, because no bound on them is heeded."""
        most = q.most_tokens(self._cap, repeats=True)
        if self._spent + _AT_A_TIME * (self._cap + q.PROMPT_TOKENS) <= most:
            return None
        self._done.is_bounded = False
        return EndpointError(ErrorKind.TRUNCATED, f"not asked: the {most} tokens that a probe may take are used up")

    def _read(self, said: Said, provider: Provider) -> None:
        said.status = provider.status
        self._headers.update(name for name in provider.headers if "ratelimit" in name or name == "retry-after")
        if "x-simulated" in provider.headers:
            self._done.profile = replace(self._done.profile, simulated=True)
        error = self._client.error_of(provider)
        value = parsed(provider)
        if error is None and isinstance(value, str):
            value = self._read_stream(said, value.encode())
        if error is None and not (isinstance(value, dict) and isinstance(value.get("choices"), list)):
            words = f"HTTP {provider.status} without a chat completion"
            error = EndpointError(ErrorKind.INVALID_RESPONSE, words, provider=provider)
        if isinstance(value, dict):
            self._count(said, value, is_answer=error is None)
        if error is None and isinstance(value, dict):
            said.value = value
            said.text, said.reasoning = text_and_reasoning(said.message, said.message.get("content"), self._dialect)
            if said.usage is None:
                self._spent += len(said.text) + len(said.reasoning or "")
            kind = self._dialect.finish_kinds.get(said.finish_reason or "")
            said.is_cut = kind is ErrorKind.TRUNCATED
            if kind is not None and not said.is_cut:
                words = f"the answer ended with finish_reason {said.finish_reason!r}"
                error = EndpointError(kind, words, provider=provider)
        said.errors = [error] if error else []

    def _count(self, said: Said, value: dict[str, Any], *, is_answer: bool) -> None:
        said.usage = read_usage(value, self._dialect)
        if said.usage is not None:
            self._done.usage.add(said.usage)
            self._spent += said.usage.total_tokens
        elif is_answer:
            self._done.uncounted += 1

    def _read_stream(self, said: Said, body: bytes) -> Any:
        if not begins_like_a_stream(body):
            return None
        stream = Stream()
        stream.feed(body)
        stream.end()
        for line in re.findall(rb"^data:[ \t]*(\{.*)$", body, re.MULTILINE):
            try:
                event = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue  # an event in several lines; `stream` has put it together
            said.events.append(event)
        return stream.completion()

    # --- cells and facts ---

    def _put(self, name: str, judged: Judged, *said: Said) -> None:
        verdict, words = judged
        self._cells[name] = Cell(verdict, shortened(clean(words)), tuple(one.evidence() for one in said))

    def _put_off(self, name: str, words: str) -> None:
        """Leave a row unclear because calls failed that it depends on."""
        self._put(name, (Verdict.UNCLEAR, words))
        self._done.unmeasured.add(name)

    def _failed(self, name: str, said: Said, *, control: bool = False) -> bool:
        """Fill in a row one of whose calls failed; tell whether it did. A `control` shows nothing of the parameter."""
        if said.error is None:
            return False
        is_refused = said.is_refused and not control
        words = said.error.message
        if control:
            words = f"nothing to compare with: {words}"
        self._put(name, (Verdict.REJECTED if is_refused else Verdict.UNCLEAR, words), said)
        if not is_refused:
            self._done.unmeasured.add(name)
            if said.is_passing:
                self._done.given_up.add(name)
        return True

    def _fact(self, name: str, value: Any, verdict: Verdict, words: str = "", *, thinking: bool | None = None) -> None:
        if verdict is not Verdict.UNCLEAR:
            self._facts.append(Fact(name, value, verdict, shortened(words), thinking, by="probe"))

    def _parameter_fact(self, name: str, value: Any, said: Said) -> None:
        """Keep for runs what a row showed of a parameter: what is unclear was taken all the same."""
        cell = self._cells[name]
        is_taken = said.error is None and cell.verdict is Verdict.UNCLEAR
        self._fact(name, value, Verdict.ACCEPTED if is_taken else cell.verdict, cell.words, thinking=self._thinks)

    def _doubt(self) -> None:
        """Take back refusals in words with which calls were refused that ask for nothing: they are about the moment."""
        for name, cell in self._cells.items():
            if cell.verdict is Verdict.REJECTED and cell.words in self._refused_plainly and name != "model_list":
                self._cells[name] = replace(cell, verdict=Verdict.UNCLEAR)
                self._done.unmeasured.add(name)
                self._done.given_up.add(name)
        self._facts = [fact for fact in self._facts if fact.words not in self._refused_plainly]

    # --- rows ---

    async def _plain_chat(self) -> None:
        """Find out how this model can be asked at all: with which bound on tokens, streamed or not."""
        said = await self._ask(q.HELLO, asked=self._limit)
        for limit in ({"max_completion_tokens": self._cap}, {}):
            if said.error is None or said.error.kind is not ErrorKind.BAD_REQUEST:
                break
            self._limit = limit
            said = await self._ask(q.HELLO, asked={"max_tokens": 0, "max_completion_tokens": 0})
        if said.error is not None:
            raise ProbeError(said.error)
        if said.streamed:
            self._fact("stream", False, Verdict.REJECTED, "answers come in streams alone")
        self._plain = said
        unlimited = "" if self._limit else "; no bound on its tokens is taken"
        words = f"in streams alone{unlimited}" if said.streamed else f"answers{unlimited}"
        verdict = Verdict.SUPPORTED if said.text or said.thought else Verdict.UNCLEAR
        self._put("plain_chat", (verdict, words if said.text else "an empty answer" + unlimited), said)
        model = said.value.get("model")
        same = model == self._model
        words = "the same" if same else "the answer names no model"
        if isinstance(model, str) and model and not same:
            words = f"as {model!r}"
        self._put("model_echo", (Verdict.SUPPORTED if same else Verdict.UNCLEAR, words), said)

    async def _listed(self) -> tuple[Provider | None, EndpointError | None]:
        """Ask for the list of models; give the answer, or the error."""
        error = await self._quiet()
        if error is not None:
            return None, error
        self._done.calls += 1
        provider = None
        try:
            provider = await self._client.fetch("GET", "/models")
            error = self._client.error_of(provider)
        except EndpointError as failed:
            error = failed
        self._progress(self._done.calls, q.MAX_CALLS_WITH_REPEATS)
        return provider, error

    async def _model_list(self) -> None:
        provider, error = await self._listed()
        for attempt in range(1, q.TRIES):
            if error is None or error.kind is not ErrorKind.RATE_LIMITED or self._done.repeats >= q.REPEATS:
                break
            wait_s = self._retries.wait_s(error, attempt)
            self._quiet_until = max(self._quiet_until, asyncio.get_running_loop().time() + wait_s)
            if self._quiet_s() > _LONGEST_WAIT_S:
                break
            self._done.repeats += 1
            provider, error = await self._listed()
        if provider is None or error is not None:
            error = error or EndpointError(ErrorKind.NETWORK, "no answer")
            passing = error.kind in TRANSIENT_KINDS
            self._put("model_list", (Verdict.UNCLEAR if passing else Verdict.REJECTED, error.message))
            if passing:
                self._done.unmeasured.add("model_list")
                self._done.given_up.add("model_list")
            return
        value = parsed(provider)
        listed = value.get("data") or value.get("models") if isinstance(value, dict) else value
        ids = [
            one.get("id") or one.get("name") if isinstance(one, dict) else one
            for one in (listed if isinstance(listed, list) else ())
        ]
        names = [clean(one) for one in ids if isinstance(one, str)]
        if not names:
            self._put("model_list", (Verdict.UNCLEAR, "it lists nothing"))
            return
        words = f"{len(names)} models, this one {'among them' if self._model in names else 'not among them'}"
        self._cells["model_list"] = Cell(Verdict.SUPPORTED, words, ({"models": names[:50]},))

    def _rate_limit_headers(self) -> None:
        names = sorted(self._headers)
        verdict = Verdict.SUPPORTED if names else Verdict.UNCLEAR
        self._put("rate_limit_headers", (verdict, ", ".join(names) or "none were seen"))

    async def _role(self, role: str) -> None:
        name = f"{role}_role"
        said = await self._ask(q.HELLO, before=({"role": role, "content": q.ORDER},), asked={"role": role, "roles": 0})
        if not self._failed(name, said):
            self._put(name, verdicts.judged_role(said, self._plain), said)

    async def _without_word(self) -> None:
        name = "json_object_without_word"
        said = await self._ask(q.BEIJING, {"response_format": {"type": "json_object"}})
        if not self._failed(name, said):
            self._put(name, verdicts.judged_json(said, self._plain), said)

    async def _structure(self, name: str, row: str, switch: Mapping[str, Any] | None = None) -> None:
        prompt, params = q.STRUCTURES[name]
        said = await self._ask(prompt, {**params, **(switch or {})})
        if not self._failed(row, said):
            if name == "json_object":
                judged = verdicts.judged_json(said, self._plain)
            elif name == "json_schema":
                judged = verdicts.judged_schema(said, self._plain)
            else:
                judged = verdicts.judged_call(said, self._plain, q.WANTED_FUNCTION)
            self._put(row, judged, said)
        cell = self._cells[row]
        thinking = self._thinks if self._thinks is None or switch is None else not self._thinks
        self._fact(name, None, cell.verdict, cell.words, thinking=thinking)

    async def _tools(self) -> None:
        said = await self._ask(q.ABOUT_WEATHER, {"tools": [q.WEATHER]})
        if not self._failed("tools", said):
            self._put("tools", verdicts.judged_tools(said, self._plain), said)

    async def _stream(self) -> None:
        said = await self._ask(q.COUNT, {"stream": True})
        if not self._failed("stream", said):
            self._put("stream", verdicts.judged_stream(said), said)
        elif said.is_refused:
            self._fact("stream", True, Verdict.REJECTED, self._cells["stream"].words)

    async def _stream_usage(self) -> None:
        said = await self._ask(q.HELLO, {"stream": True, "stream_options": {"include_usage": True}})
        if not self._failed("stream_usage", said):
            self._put("stream_usage", verdicts.judged_stream_usage(said), said)

    async def _sampling(self) -> None:
        """Compare two answers to a prompt that asks for something random, with a parameter and without."""
        free = [await self._ask(q.RANDOM), await self._ask(q.RANDOM)]
        failed = next((one for one in free if one.error is not None), None)
        for name, value in (("temperature", 0), ("top_p", 0.01), ("seed", 7)):
            said = await self._ask(q.RANDOM, {name: value})
            if not self._failed(name, said) and not (failed and self._failed(name, failed, control=True)):
                again = await self._ask(q.RANDOM, {name: value})
                # The same request was taken just now: what it says this time is about something else.
                if not self._failed(name, again, control=True):
                    self._put(name, verdicts.judged_draws((said, again), free, name, value), *free, said, again)
            self._parameter_fact(name, value, said)

    async def _stop(self) -> None:
        said = await self._ask(q.COPY, {"stop": [q.STOP]})
        if not self._failed("stop", said):
            free = await self._ask(q.COPY)
            if not self._failed("stop", free, control=True):
                self._put("stop", verdicts.judged_stop(said, free), free, said)
        self._parameter_fact("stop", [q.STOP], said)

    async def _penalties(self) -> None:
        names = ("presence_penalty", "frequency_penalty")
        if not self._done.is_bounded:
            for name in names:
                self._put(name, _NOT_ASKED)
            return
        free = await self._ask(q.LAUGH)
        for name in names:
            said = await self._ask(q.LAUGH, {name: 2})
            if not self._failed(name, said) and not self._failed(name, free, control=True):
                self._put(name, verdicts.judged_penalty(said, free), free, said)
            self._parameter_fact(name, 2, said)

    async def _n(self) -> None:
        said = await self._ask(q.HELLO, {"n": 2})
        if not self._failed("n", said):
            self._put("n", verdicts.judged_n(said, self._plain), said)
        self._parameter_fact("n", 2, said)

    async def _logprobs(self) -> None:
        said = await self._ask(q.HELLO, {"logprobs": True, "top_logprobs": 2})
        if not self._failed("logprobs", said):
            self._put("logprobs", verdicts.judged_logprobs(said, self._plain), said)
        self._parameter_fact("logprobs", True, said)

    async def _max_tokens(self, name: str) -> None:
        said = await self._ask(q.COUNT, {name: q.SHORT}, limited=False)
        if not self._failed(name, said):
            self._put(name, verdicts.judged_bound(said, self._plain, name), said)

    def _is_heedless(self) -> bool:
        """Tell whether no bound on tokens is taken, or the one that is was seen to have no effect."""
        return all(self._cells[name].verdict is Verdict.IGNORED for name in self._limit)

    async def _thinking(self) -> None:
        said = await self._ask(q.RIDDLE)
        plain = self._plain
        shown = said if said.reasoning or not plain.reasoning else plain
        if said.thought or plain.thought:
            self._thinks = True
            where = verdicts.judged_field(shown, self._dialect.reasoning_fields)
            self._put("reasoning", (Verdict.SUPPORTED, where), shown)
        elif self._failed("reasoning", said, control=True):
            pass
        elif said.is_cut and not said.text:
            self._put("reasoning", (Verdict.UNCLEAR, verdicts.cut_or(said, "")), said)
        else:
            self._thinks = False
            self._put("reasoning", (Verdict.UNCLEAR, "the model does not think by default"), said)
        if self._thinks is not None:
            await self._switching(to=not self._thinks)
            return
        for row in ("thinking_on", "thinking_off"):
            self._put_off(row, "not asked: whether the model thinks by default is not known")

    async def _switching(self, *, to: bool) -> None:
        """Look for the parameter that switches thinking the other way, and whether it can be asked for by name."""
        row, back = ("thinking_on", "thinking_off") if to else ("thinking_off", "thinking_on")
        tried: list[Said] = []
        for on, off in self._candidates():
            switch, usual = (on, off) if to else (off, on)
            if not switch:
                continue
            said = await self._ask(q.RIDDLE, switch)
            tried.append(said)
            if said.error is None and said.thought is to:
                self._put(row, (Verdict.SUPPORTED, f"by {in_json(switch)}"), said)
                self._switches["on" if to else "off"] = switch
                await self._usual(back, usual, is_on=not to)
                return
        self._not_switched(row, tried)
        words = "the model thinks by default" if not to else "the model does not think by default"
        self._put(back, (Verdict.UNCLEAR, words))

    def _not_switched(self, row: str, tried: list[Said]) -> None:
        # One that failed for another reason than that it was refused might have worked.
        failed = [said for said in tried if said.error is not None]
        worst = next((said for said in failed if not said.is_refused), next(iter(failed), None))
        if worst is not None:
            self._failed(row, worst)
        elif tried:
            names = ", ".join(in_json(said.asked) for said in tried)
            self._put(row, (Verdict.IGNORED, f"without effect: {names}"), *tried)
        else:
            self._put(row, (Verdict.UNCLEAR, "no way to ask for it is known"))

    async def _usual(self, row: str, switch: dict[str, Any], *, is_on: bool) -> None:
        """See whether the default can be asked for as well."""
        if not switch:
            self._put(row, (Verdict.UNCLEAR, "it is the default; there is no way to ask for it"))
            return
        said = await self._ask(q.RIDDLE, switch)
        if self._failed(row, said):
            return
        if said.thought is is_on:
            self._put(row, (Verdict.SUPPORTED, f"by {in_json(switch)}"), said)
            self._switches["on" if is_on else "off"] = switch
        else:
            self._put(row, (Verdict.IGNORED, f"without effect: {in_json(switch)}"), said)

    def _candidates(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Give the ways to switch thinking that are worth trying: the dialect's for this model, then common ones."""
        rows = [
            (dict(row.on or {}), dict(row.off or {}))
            for row in self._dialect.thinking
            if (row.on or row.off) and (row.model is None or row.model.search(self._model))
        ]
        own = rows[:1]
        others = [one for one in q.SWITCHES if not any(set(one[0]) == set(on) == set(off) for on, off in own)]
        return [*own, *others][: q.MAX_SWITCHES]

    async def _switched(self) -> None:
        """Measure the ways to ask for JSON again with thinking switched the other way: some exclude each other."""
        switch = None if self._thinks is None else self._switches.get("off" if self._thinks else "on")
        if switch is not None:
            await self._all(
                *(lambda name=name: self._structure(name, f"{name}_switched", switch) for name in q.STRUCTURES)
            )
            return
        row = "thinking_off" if self._thinks else "thinking_on"
        for name in q.STRUCTURES:
            if row in self._done.unmeasured:
                self._put_off(f"{name}_switched", "not asked: whether thinking can be switched is not known")
            else:
                self._put(f"{name}_switched", (Verdict.UNCLEAR, "thinking could not be switched"))

    async def _long_output(self) -> None:
        if not self._done.is_bounded:
            self._put("long_output", _NOT_ASKED)
            return
        name = next(iter(self._limit))
        # Asked for once: each time that is more than a refusal might be paid for in full.
        said = await self._ask(q.HELLO, {name: q.LONG, "stream": False}, limited=False, tries=1)
        error = said.error
        if error is not None and error.remedy == "stream":
            self._put("long_output", (Verdict.REJECTED, f"in streams alone: {error.message}"), said)
        elif error is not None and error.kind is ErrorKind.CONTEXT_LENGTH:
            self._put("long_output", (Verdict.REJECTED, error.message), said)
        elif not self._failed("long_output", said):
            self._put("long_output", (Verdict.SUPPORTED, f"{name} = {q.LONG} is taken without a stream"), said)

    async def _unknown(self) -> None:
        said = await self._ask(q.HELLO, {"batchrun_unknown_parameter": True})
        if not self._failed("unknown_parameter", said):
            self._put("unknown_parameter", (Verdict.IGNORED, "tolerated"), said)


_NOT_ASKED: Judged = (Verdict.UNCLEAR, "not asked: no bound on tokens is heeded, and the answer could run long")


def obeyed(cells: Mapping[str, Cell]) -> str | None:
    """Give the one name of the two under which a bound on tokens is obeyed, None if both or neither are."""
    found = [name for name in MAX_TOKENS if name in cells and cells[name].verdict is Verdict.SUPPORTED]
    return found[0] if len(found) == 1 else None


async def _run(row: Callable[[], Awaitable[None]]) -> None:
    await row()


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group
