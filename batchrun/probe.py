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
from batchrun.endpoint.profile import Cell, Fact, Profile, Verdict, shortened
from batchrun.endpoint.streams import Stream, begins_like_a_stream
from batchrun.job import Retry
from batchrun.records import TRANSIENT_KINDS, EndpointError, ErrorKind, Usage, utc_now
from batchrun.retry import Retries

if TYPE_CHECKING:
    from batchrun.endpoint.client import Client
    from batchrun.endpoint.dialect import Dialect
    from batchrun.records import Provider

#: Tokens that an answer may have. A model that thinks needs some before it says anything.
MAX_TOKENS = 1024
_AT_A_TIME = 4
#: A call that fails for a passing reason is made so often in all.
_TRIES = 3
_PROMPT_TOKENS = 120
_SHORT = 5
#: Some count a few tokens more than they were asked for; unbounded, the answer has a hundred.
_SLACK = 15
_LONG = 32_768
_EVIDENCE_CHARS = 240
#: Kinds of error that end a probe: the rest of it would say the same.
_ENDS = frozenset({ErrorKind.AUTH, ErrorKind.QUOTA, ErrorKind.NOT_AN_API})


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the matrix: its name in profiles, its title, and how many calls it takes at most."""

    name: str
    title: str
    calls: int


#: In the order of the matrix. Rows without calls are read from the calls of others.
ROWS = (
    Row("plain_chat", "plain chat", 4),
    Row("model_list", "model list", 1),
    Row("model_echo", "answers as the model that was asked", 0),
    Row("rate_limit_headers", "rate-limit headers", 0),
    Row("system_role", "system role", 1),
    Row("developer_role", "developer role", 1),
    Row("json_object", 'response_format json_object, "JSON" in the prompt', 1),
    Row("json_object_without_word", 'response_format json_object, without "JSON"', 1),
    Row("json_schema", "response_format json_schema, strict", 1),
    Row("tools", "tools, tool_choice auto", 1),
    Row("tool_required", "tool_choice required", 1),
    Row("tool", "tool_choice naming a function", 1),
    Row("stream", "streaming", 1),
    Row("stream_usage", "usage in streams (include_usage)", 1),
    Row("temperature", "temperature", 4),
    Row("top_p", "top_p", 2),
    Row("seed", "seed (same answer twice)", 2),
    Row("stop", "stop", 1),
    Row("presence_penalty", "presence_penalty", 2),
    Row("frequency_penalty", "frequency_penalty", 1),
    Row("n", "n (several choices)", 1),
    Row("logprobs", "logprobs", 1),
    Row("max_tokens", "max_tokens", 1),
    Row("max_completion_tokens", "max_completion_tokens", 1),
    Row("reasoning", "reasoning by default, and its field", 1),
    Row("thinking_on", "thinking switched on", 5),
    Row("thinking_off", "thinking switched off", 5),
    Row("json_object_switched", "json_object, thinking the other way", 1),
    Row("json_schema_switched", "json_schema, thinking the other way", 1),
    Row("tool_required_switched", "tool_choice required, thinking the other way", 1),
    Row("tool_switched", "tool_choice naming a function, thinking the other way", 1),
    Row("long_output", f"{_LONG} tokens of output without a stream", 1),
    Row("unknown_parameter", "a parameter that nobody knows", 1),
)
#: Calls that are made again because they must be streamed, at most once in each row that may be the first to find out.
_STREAM_CALLS = 6
MAX_CALLS = sum(row.calls for row in ROWS) + _STREAM_CALLS


def most_tokens(max_tokens: int) -> int:
    """Give how many tokens a probe takes at most, prompts included, if `max_tokens` is obeyed."""
    return MAX_CALLS * (max_tokens + _PROMPT_TOKENS)


class ProbeError(Exception):
    """The endpoint said stop; `error` is what it said."""

    def __init__(self, error: EndpointError) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(slots=True)
class Measured:
    """What a probe found, and what it cost: calls (those made again too) and tokens as the endpoint counted them."""

    profile: Profile
    calls: int = 0
    usage: Usage = field(default_factory=Usage)
    uncounted: int = 0

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
            "max_calls": MAX_CALLS,
            "tokens": {"prompt": self.usage.prompt_tokens, "completion": self.usage.completion_tokens},
            "answers_without_usage": self.uncounted,
            "thinks_by_default": profile.thinks,
            "thinking_switches": dict(profile.switches),
            "max_tokens_parameter": profile.max_tokens,
            "matrix": {
                row.name: {
                    "title": row.title, "verdict": cell.verdict.value, "words": cell.words,
                    "evidence": list(cell.evidence),
                }
                for row in ROWS if (cell := profile.cells.get(row.name)) is not None
            },
        }  # fmt: skip


@dataclass(slots=True)
class _Said:
    """What came back of a call: the completion (a stream put together), or the error."""

    sent: dict[str, Any]
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    value: dict[str, Any] = field(default_factory=dict)
    error: EndpointError | None = None
    text: str = ""
    reasoning: str | None = None
    usage: Usage | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    streamed: bool = False

    @property
    def choice(self) -> dict[str, Any]:
        choices = self.value.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        return first if isinstance(first, dict) else {}

    @property
    def message(self) -> dict[str, Any]:
        message = self.choice.get("message")
        return message if isinstance(message, dict) else {}

    @property
    def is_cut(self) -> bool:
        return self.choice.get("finish_reason") == "length"

    @property
    def called(self) -> list[str]:
        """The names of the functions that the answer calls."""
        calls = self.message.get("tool_calls")
        functions = [one.get("function") for one in calls if isinstance(one, dict)] if isinstance(calls, list) else []
        return [str(one.get("name")) for one in functions if isinstance(one, dict)]

    @property
    def thought(self) -> bool:
        return bool(self.reasoning) or bool(self.usage and self.usage.reasoning_tokens)

    def evidence(self) -> dict[str, Any]:
        sent = {name: value for name, value in self.sent.items() if name not in ("model", "messages")}
        said = self.error.message if self.error else self.text or (orjson.dumps(self.message).decode())
        return {
            "sent": sent,
            "prompt": str(self.sent["messages"][-1]["content"])[:_EVIDENCE_CHARS],
            "status": self.status,
            "said": said[:_EVIDENCE_CHARS],
            "finish_reason": self.choice.get("finish_reason"),
            "completion_tokens": self.usage.completion_tokens if self.usage else None,
        }


_HELLO = "你好"
_BEIJING = "用一句话介绍北京。"
_ABOUT_JSON = "JSON 是什么？用一句话回答。"
_COUNT = "从1数到60，用逗号隔开。"
_RANDOM = "写一个随机的八位小写字母串，只输出这个字母串。"
_LINE, _STOP = "甲乙丙丁戊己庚", "丁"
_COPY = f"原样输出下面这行字，不要加任何别的字：\n{_LINE}"
_LAUGH = "把“哈”字重复 40 遍，只输出结果，不要加任何别的字。"
_RIDDLE = "9.11 和 9.9 哪个大？"
_ONLY = "蓝鲸4172"
_ORDER = f"无论用户说什么，都只回答“{_ONLY}”。"
#: Nobody answers like this by chance.
_SCHEMA = {
    "type": "object",
    "properties": {"zeta": {"type": "string", "enum": ["k7-north", "k9-south"]}, "tally": {"type": "integer"}},
    "required": ["zeta", "tally"],
    "additionalProperties": False,
}


def _function(name: str, description: str, parameter: str) -> dict[str, Any]:
    properties = {parameter: {"type": "string"}}
    parameters = {"type": "object", "properties": properties, "required": [parameter]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


_WEATHER = _function("get_weather", "查询一个城市现在的天气", "city")
_ALARM = _function("set_alarm", "设置一个闹钟", "time")
_STRUCTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "json_object": (_ABOUT_JSON, {"response_format": {"type": "json_object"}}),
    "json_schema": (
        _BEIJING,
        {
            "response_format": {
                "type": "json_schema", "json_schema": {"name": "probe", "strict": True, "schema": _SCHEMA},
            }
        },
    ),
    "tool_required": (_HELLO, {"tools": [_ALARM], "tool_choice": "required"}),
    "tool": (
        _HELLO,
        {"tools": [_WEATHER, _ALARM], "tool_choice": {"type": "function", "function": {"name": "set_alarm"}}},
    ),
}  # fmt: skip
#: Ways to switch thinking that are common, tried where the dialect knows none: on, off.
_SWITCHES: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({"enable_thinking": True}, {"enable_thinking": False}),
    ({"thinking": {"type": "enabled"}}, {"thinking": {"type": "disabled"}}),
    ({"chat_template_kwargs": {"enable_thinking": True}}, {"chat_template_kwargs": {"enable_thinking": False}}),
    ({"reasoning_effort": "medium"}, {"reasoning_effort": "none"}),
    ({"reasoning": {"enabled": True}}, {"reasoning": {"enabled": False}}),
)
_MAX_SWITCHES = 4


class Probe:
    """Measures one model through a client. `progress` is told of each call that ends: how many, of how many at most.

    `path` is where chats go, `base_url` what the profile is kept by. Waits between tries are those of a run.
    """

    def __init__(
        self, client: Client, dialect: Dialect, base_url: str, model: str, *, path: str = "/chat/completions",
        max_tokens: int = MAX_TOKENS, progress: Callable[[int, int], None] = lambda _done, _most: None,
        rng: random.Random | None = None,
    ) -> None:  # fmt: skip
        self._client, self._dialect, self._base_url, self._model = client, dialect, base_url, model
        self._path, self._cap, self._progress = path, max_tokens, progress
        self._slots = asyncio.Semaphore(_AT_A_TIME)
        self._retries = Retries(Retry(max_attempts=_TRIES), rng or random.Random(), asyncio.sleep)
        self._limit: dict[str, Any] = {"max_tokens": max_tokens}
        self._streams = False
        self._done = Measured(Profile(base_url, model, dialect.name))
        self._cells: dict[str, Cell] = {}
        self._facts: list[Fact] = []
        self._thinks = False
        self._switches: dict[str, Any] = {}
        self._headers: set[str] = set()

    async def measure(self) -> Measured:
        """Make all calls and give what they showed. Raises `ProbeError` where the endpoint says stop."""
        await self._plain_chat()
        await self._thinking()
        await self._all(
            self._model_list, lambda: self._role("system"), lambda: self._role("developer"), self._without_word,
            self._tools, self._stream, self._stream_usage, self._sampling, self._stop, self._penalties, self._n,
            self._logprobs, lambda: self._max_tokens("max_tokens"), lambda: self._max_tokens("max_completion_tokens"),
            self._long_output, self._unknown,
            *(lambda name=name: self._structure(name, name) for name in _STRUCTURES),
        )  # fmt: skip
        await self._switched()
        self._rate_limit_headers()
        done = self._done
        done.profile = replace(
            done.profile, probed_at=utc_now(), thinks=self._thinks, switches=self._switches, cells=self._cells,
            max_tokens=self._obeyed(), facts=tuple(self._facts), simulated=done.profile.simulated,
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
        before: tuple[Mapping[str, Any], ...] = (),
    ) -> _Said:  # fmt: skip
        """Make one call, and again where it failed for a passing reason or has to be streamed."""
        messages = [*before, {"role": "user", "content": prompt}]
        limit = self._limit if limited else {}
        body: dict[str, Any] = {"model": self._model, "messages": messages, **limit, **(params or {})}
        if self._streams and "stream" not in body:
            body["stream"] = True
        said = await self._patiently(body)
        wants_stream = said.error is not None and said.error.remedy == "stream"
        if wants_stream and not body.get("stream"):
            said = await self._patiently({**body, "stream": True})
        return said

    async def _patiently(self, body: dict[str, Any]) -> _Said:
        attempt = 1
        while True:
            async with self._slots:
                said = await self._once(body)
            error = said.error
            if error is not None and error.kind in _ENDS:
                raise ProbeError(error)
            if error is None or error.kind not in TRANSIENT_KINDS or attempt == _TRIES:
                return said
            await asyncio.sleep(self._retries.wait_s(error, attempt))
            attempt += 1

    async def _once(self, body: dict[str, Any]) -> _Said:
        said = _Said(body, streamed=body.get("stream") is True)
        self._done.calls += 1
        try:
            provider = await self._client.fetch("POST", self._path, orjson.dumps(body))
        except EndpointError as error:
            said.error = error
            return said
        finally:
            self._progress(self._done.calls, MAX_CALLS)
        self._read(said, provider)
        return said

    def _read(self, said: _Said, provider: Provider) -> None:
        said.status, said.headers = provider.status, provider.headers
        self._headers.update(name for name in provider.headers if "ratelimit" in name or name == "retry-after")
        if "x-simulated" in provider.headers:
            self._done.profile = replace(self._done.profile, simulated=True)
        said.error = self._client.error_of(provider)
        value = parsed(provider)
        if said.error is None and isinstance(value, str):
            value = self._read_stream(said, value.encode())
        if said.error is None and not (isinstance(value, dict) and isinstance(value.get("choices"), list)):
            words = f"HTTP {provider.status} without a chat completion"
            said.error = EndpointError(ErrorKind.INVALID_RESPONSE, words, provider=provider)
        if said.error is not None or not isinstance(value, dict):
            return
        said.value = value
        said.usage = read_usage(value, self._dialect)
        if said.usage is None:
            self._done.uncounted += 1
        else:
            self._done.usage.add(said.usage)
        said.text, said.reasoning = text_and_reasoning(said.message, said.message.get("content"), self._dialect)

    def _read_stream(self, said: _Said, body: bytes) -> Any:
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

    # --- rows ---

    def _put(self, name: str, verdict: Verdict, words: str, *said: _Said) -> None:
        self._cells[name] = Cell(verdict, shortened(words), tuple(one.evidence() for one in said))

    def _refused(self, name: str, said: _Said) -> bool:
        """Fill in a row whose call was refused; tell whether it was."""
        error = said.error
        if error is None:
            return False
        passing = error.kind in TRANSIENT_KINDS and not (error.kind is ErrorKind.SERVER_ERROR and said.status == 500)
        verdict = Verdict.UNCLEAR if passing else Verdict.REJECTED
        self._put(name, verdict, error.message, said)
        return True

    def _fact(self, name: str, value: Any, verdict: Verdict, words: str = "", *, thinking: bool | None = None) -> None:
        if verdict is not Verdict.UNCLEAR:
            self._facts.append(Fact(name, value, verdict, shortened(words), thinking, by="probe"))

    def _parameter_fact(self, name: str, value: Any) -> None:
        """Keep for runs what a row showed of a parameter: what is unclear was taken all the same."""
        cell = self._cells[name]
        refused_for_now = cell.verdict is Verdict.UNCLEAR and any(one["status"] != 200 for one in cell.evidence)
        if not refused_for_now:
            verdict = Verdict.ACCEPTED if cell.verdict is Verdict.UNCLEAR else cell.verdict
            self._fact(name, value, verdict, cell.words, thinking=self._thinks)

    async def _plain_chat(self) -> None:
        """Find out how this model can be asked at all: with which bound on tokens, streamed or not."""
        said = await self._ask(_HELLO)
        for limit in ({"max_completion_tokens": self._cap}, {}):
            if said.error is None or said.error.kind is not ErrorKind.BAD_REQUEST:
                break
            self._limit = limit
            said = await self._ask(_HELLO)
        if said.error is not None:
            raise ProbeError(said.error)
        if said.streamed:
            self._streams = True
            self._fact("stream", False, Verdict.REJECTED, "answers come in streams alone")
        self._baseline = said
        unlimited = "" if self._limit else "; no bound on its tokens is taken"
        words = f"in streams alone{unlimited}" if said.streamed else f"answers{unlimited}"
        verdict = Verdict.SUPPORTED if said.text or said.thought else Verdict.UNCLEAR
        self._put("plain_chat", verdict, words if said.text else "an empty answer" + unlimited, said)
        model = said.value.get("model")
        same = model == self._model
        words = "the same" if same else f"as {model!r}" if model else "the answer names no model"
        self._put("model_echo", Verdict.SUPPORTED if same else Verdict.UNCLEAR, words, said)

    async def _model_list(self) -> None:
        self._done.calls += 1
        provider, error = None, None
        try:
            provider = await self._client.fetch("GET", "/models")
            error = self._client.error_of(provider)
        except EndpointError as failed:
            error = failed
        self._progress(self._done.calls, MAX_CALLS)
        if provider is None or error is not None:
            error = error or EndpointError(ErrorKind.NETWORK, "no answer")
            passing = error.kind in TRANSIENT_KINDS
            verdict = Verdict.UNCLEAR if passing else Verdict.REJECTED
            self._cells["model_list"] = Cell(verdict, shortened(error.message))
            return
        value = parsed(provider)
        listed = value.get("data") or value.get("models") if isinstance(value, dict) else value
        names = [
            str(one.get("id") or one.get("name")) if isinstance(one, dict) else str(one)
            for one in (listed if isinstance(listed, list) else ())
        ]
        if not names:
            self._cells["model_list"] = Cell(Verdict.UNCLEAR, "it lists nothing")
            return
        words = f"{len(names)} models, this one {'among them' if self._model in names else 'not among them'}"
        self._cells["model_list"] = Cell(Verdict.SUPPORTED, words, ({"models": names[:50]},))

    def _rate_limit_headers(self) -> None:
        names = sorted(self._headers)
        verdict = Verdict.SUPPORTED if names else Verdict.UNCLEAR
        self._cells["rate_limit_headers"] = Cell(verdict, ", ".join(names) or "none were seen")

    async def _role(self, role: str) -> None:
        name = f"{role}_role"
        said = await self._ask(_HELLO, before=({"role": role, "content": _ORDER},))
        if self._refused(name, said):
            return
        without, usage = self._baseline.usage, said.usage
        if "4172" in said.text:
            repeated = "无论" in said.text
            self._put(name, Verdict.SUPPORTED, "read, for it is repeated" if repeated else "obeyed", said)
        elif without and usage and 0 < usage.prompt_tokens <= without.prompt_tokens:
            self._put(name, Verdict.IGNORED, "not obeyed, and it costs no tokens: it is not read", said)
        else:
            self._put(name, Verdict.UNCLEAR, _cut_or(said, "taken, but the answer does not obey it"), said)

    async def _without_word(self) -> None:
        said = await self._ask(_BEIJING, {"response_format": {"type": "json_object"}})
        if not self._refused("json_object_without_word", said):
            self._put("json_object_without_word", *_judged_json(said), said)

    async def _structure(self, name: str, row: str, switch: Mapping[str, Any] | None = None) -> None:
        prompt, params = _STRUCTURES[name]
        said = await self._ask(prompt, {**params, **(switch or {})})
        if not self._refused(row, said):
            if name == "json_object":
                self._put(row, *_judged_json(said), said)
            elif name == "json_schema":
                self._put(row, *_judged_schema(said), said)
            else:
                wanted = params["tools"][-1]["function"]["name"]
                self._put(row, *_judged_call(said, wanted), said)
        cell = self._cells[row]
        self._fact(name, None, cell.verdict, cell.words, thinking=self._thinks is (switch is None))

    async def _tools(self) -> None:
        said = await self._ask("北京现在天气怎么样？请调用 get_weather 查询。", {"tools": [_WEATHER]})
        if self._refused("tools", said):
            return
        called = "get_weather" in said.called
        words = "called as asked" if called else _cut_or(said, "taken, but the model answered without a call")
        self._put("tools", Verdict.SUPPORTED if called else Verdict.UNCLEAR, words, said)

    async def _stream(self) -> None:
        said = await self._ask(_COUNT, {"stream": True})
        if self._refused("stream", said):
            if self._cells["stream"].verdict is Verdict.REJECTED:
                self._fact("stream", True, Verdict.REJECTED, self._cells["stream"].words)
            return
        pieces = sum(bool(_delta(event)) for event in said.events)
        if not said.events:
            self._put("stream", Verdict.IGNORED, "the answer came as a whole, not as events", said)
        elif pieces > 1:
            unasked = any(isinstance(event.get("usage"), dict) for event in said.events)
            words = f"{pieces} pieces" + ("; usage comes unasked" if unasked else "")
            self._put("stream", Verdict.SUPPORTED, words, said)
        else:
            self._put("stream", Verdict.UNCLEAR, f"events, but the answer came in {pieces} piece", said)

    async def _stream_usage(self) -> None:
        said = await self._ask(_HELLO, {"stream": True, "stream_options": {"include_usage": True}})
        if not self._refused("stream_usage", said):
            found = bool(said.events) and said.usage is not None and said.usage.completion_tokens > 0
            missing = "asked for and not there" if said.events else "the answer came as a whole, not as events"
            words = "comes when asked for" if found else missing
            self._put("stream_usage", Verdict.SUPPORTED if found else Verdict.IGNORED, words, said)

    async def _sampling(self) -> None:
        """Compare two answers to a prompt that asks for something random, with a parameter and without."""
        free = [await self._ask(_RANDOM), await self._ask(_RANDOM)]
        differ = all(said.error is None and said.text for said in free) and free[0].text != free[1].text
        for name, value in (("temperature", 0), ("top_p", 0.01), ("seed", 7)):
            said = [await self._ask(_RANDOM, {name: value})]
            if not self._refused(name, said[0]):
                said.append(await self._ask(_RANDOM, {name: value}))
                if not self._refused(name, said[1]):
                    empty = next((one for one in (*said, *free) if not one.text), None)
                    same = said[0].text == said[1].text
                    if empty is not None:
                        verdict, words = Verdict.UNCLEAR, _cut_or(empty, "taken; an answer was empty")
                    elif same and differ:
                        verdict, words = Verdict.SUPPORTED, "twice the same answer, which differs without it"
                    elif same:
                        verdict, words = Verdict.UNCLEAR, "taken; answers are the same twice without it, too"
                    else:
                        verdict, words = Verdict.IGNORED, f"two answers differ in spite of {name} = {value}"
                    self._put(name, verdict, words, *free, *said)
            self._parameter_fact(name, value)

    async def _stop(self) -> None:
        said = await self._ask(_COPY, {"stop": [_STOP]})
        if not self._refused("stop", said):
            before, _, _ = _LINE.partition(_STOP)
            if _STOP in said.text:
                verdict, words = Verdict.IGNORED, "the answer goes on behind the stop sequence"
            elif before in said.text:
                verdict, words = Verdict.SUPPORTED, "the answer ends before the stop sequence"
            else:
                verdict, words = Verdict.UNCLEAR, _cut_or(said, "taken, but the answer does not come to it")
            self._put("stop", verdict, words, said)
        self._parameter_fact("stop", [_STOP])

    async def _penalties(self) -> None:
        free = await self._ask(_LAUGH)
        usual = free.text.count("哈")
        for name in ("presence_penalty", "frequency_penalty"):
            said = await self._ask(_LAUGH, {name: 2})
            if not self._refused(name, said):
                count = said.text.count("哈")
                if usual < 20:
                    verdict, words = Verdict.UNCLEAR, "taken; the model does not repeat without it, either"
                elif count < usual * 0.75:
                    verdict, words = Verdict.SUPPORTED, f"{count} repetitions in place of {usual}"
                elif said.text == free.text:
                    verdict, words = Verdict.IGNORED, "word for word the answer without it"
                else:
                    verdict, words = Verdict.UNCLEAR, f"taken; {count} repetitions, {usual} without it"
                self._put(name, verdict, words, free, said)
            self._parameter_fact(name, 2)

    async def _n(self) -> None:
        said = await self._ask(_HELLO, {"n": 2})
        if not self._refused("n", said):
            count = len(said.value["choices"])
            words = f"{count} choice{'' if count == 1 else 's'} for n = 2"
            self._put("n", Verdict.SUPPORTED if count == 2 else Verdict.IGNORED, words, said)
        self._parameter_fact("n", 2)

    async def _logprobs(self) -> None:
        said = await self._ask(_HELLO, {"logprobs": True, "top_logprobs": 2})
        if not self._refused("logprobs", said):
            found = said.choice.get("logprobs")
            inner = found.get("content") if isinstance(found, dict) else None
            words = "they are in the choice" if inner else "taken, and no logprobs come"
            self._put("logprobs", Verdict.SUPPORTED if inner else Verdict.IGNORED, words, said)
        self._parameter_fact("logprobs", True)

    async def _max_tokens(self, name: str) -> None:
        said = await self._ask(_COUNT, {name: _SHORT}, limited=False)
        if self._refused(name, said):
            return
        tokens = said.usage.completion_tokens if said.usage else 0
        if said.is_cut and tokens <= _SHORT + _SLACK:
            self._put(name, Verdict.SUPPORTED, f"cut at {tokens or _SHORT} tokens", said)
        elif tokens > _SHORT + _SLACK:
            self._put(name, Verdict.IGNORED, f"{tokens} tokens came for {name} = {_SHORT}", said)
        else:
            self._put(name, Verdict.UNCLEAR, "the answer is short by itself", said)

    def _obeyed(self) -> str | None:
        """Give the one name of the two under which a bound on tokens is obeyed, None if both or neither are."""
        names = ("max_tokens", "max_completion_tokens")
        obeyed = [name for name in names if self._cells[name].verdict is Verdict.SUPPORTED]
        return obeyed[0] if len(obeyed) == 1 else None

    async def _thinking(self) -> None:
        said = await self._ask(_RIDDLE)
        self._thinks = said.thought or self._baseline.thought
        shown = said if said.reasoning or not self._baseline.reasoning else self._baseline
        field_name = next((name for name in self._dialect.reasoning_fields if shown.message.get(name)), None)
        if self._thinks:
            where = f"in {field_name}" if field_name else "in the text" if shown.reasoning else "counted, not shown"
            self._put("reasoning", Verdict.SUPPORTED, where, shown)
        else:
            self._put("reasoning", Verdict.UNCLEAR, "the model does not think by default", said)
        await self._switching(to=not self._thinks)

    async def _switching(self, *, to: bool) -> None:
        """Look for the parameter that switches thinking the other way, and whether it can be asked for by name."""
        row, back = ("thinking_on", "thinking_off") if to else ("thinking_off", "thinking_on")
        tried: list[_Said] = []
        for on, off in self._candidates():
            switch, usual = (on, off) if to else (off, on)
            if not switch:
                continue
            said = await self._ask(_RIDDLE, switch)
            tried.append(said)
            if said.error is None and said.thought is to:
                self._put(row, Verdict.SUPPORTED, f"by {_json(switch)}", said)
                self._switches["on" if to else "off"] = switch
                await self._usual(back, usual, is_on=not to)
                return
        refused = [said for said in tried if said.error is not None and said.error.kind not in TRANSIENT_KINDS]
        if refused:
            self._refused(row, refused[0])
        else:
            names = ", ".join(_json(_added(said.sent)) for said in tried)
            self._put(row, Verdict.IGNORED, f"without effect: {names}", *tried)
        words = "the model thinks by default" if not to else "the model does not think by default"
        self._put(back, Verdict.UNCLEAR, words)

    async def _usual(self, row: str, switch: dict[str, Any], *, is_on: bool) -> None:
        """See whether the default can be asked for as well."""
        if not switch:
            self._put(row, Verdict.UNCLEAR, "it is the default; there is no way to ask for it")
            return
        said = await self._ask(_RIDDLE, switch)
        if self._refused(row, said):
            return
        if said.thought is is_on:
            self._put(row, Verdict.SUPPORTED, f"by {_json(switch)}", said)
            self._switches["on" if is_on else "off"] = switch
        else:
            self._put(row, Verdict.IGNORED, f"without effect: {_json(switch)}", said)

    def _candidates(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Give the ways to switch thinking that are worth trying: the dialect's for this model, then common ones."""
        rows = [
            (dict(row.on or {}), dict(row.off or {}))
            for row in self._dialect.thinking
            if (row.on or row.off) and (row.model is None or row.model.search(self._model))
        ]
        own = rows[:1]
        others = [one for one in _SWITCHES if not any(set(one[0]) == set(on) == set(off) for on, off in own)]
        return [*own, *others][:_MAX_SWITCHES]

    async def _switched(self) -> None:
        """Measure the ways to ask for JSON again with thinking switched the other way: some exclude each other."""
        switch = self._switches.get("off" if self._thinks else "on")
        names = ("json_object", "json_schema", "tool_required", "tool")
        if switch is None:
            for name in names:
                self._put(f"{name}_switched", Verdict.UNCLEAR, "thinking could not be switched")
            return
        await self._all(*(lambda name=name: self._structure(name, f"{name}_switched", switch) for name in names))

    async def _long_output(self) -> None:
        name = next(iter(self._limit), "max_tokens")
        body = {name: _LONG, "stream": False}
        said = await self._ask(_HELLO, body, limited=False)
        if said.error is None and not said.streamed:
            self._put("long_output", Verdict.SUPPORTED, f"{name} = {_LONG} is taken without a stream", said)
        elif said.error is None:
            self._put("long_output", Verdict.REJECTED, "in streams alone", said)
        else:
            self._refused("long_output", said)

    async def _unknown(self) -> None:
        said = await self._ask(_HELLO, {"batchrun_unknown_parameter": True})
        if not self._refused("unknown_parameter", said):
            self._put("unknown_parameter", Verdict.IGNORED, "tolerated", said)


async def _run(row: Callable[[], Awaitable[None]]) -> None:
    await row()


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


def _added(sent: Mapping[str, Any]) -> dict[str, Any]:
    known = ("model", "messages", "stream", "max_tokens", "max_completion_tokens")
    return {name: value for name, value in sent.items() if name not in known}


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _delta(event: Mapping[str, Any]) -> object:
    choices = event.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    delta = first.get("delta") if isinstance(first, dict) else None
    return delta.get("content") if isinstance(delta, dict) else None


def _cut_or(said: _Said, words: str) -> str:
    return "the answer was cut at the bound on its tokens; raise --max-tokens" if said.is_cut else words


def _value(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _judged_json(said: _Said) -> tuple[Verdict, str]:
    if isinstance(_value(said.text), dict):
        return Verdict.SUPPORTED, "a JSON object, to a question that asks for none"
    if said.is_cut:
        return Verdict.UNCLEAR, _cut_or(said, "")
    if not said.text:
        return Verdict.UNCLEAR, "an empty answer"
    return Verdict.IGNORED, "the answer is no JSON object"


def _judged_schema(said: _Said) -> tuple[Verdict, str]:
    value = _value(said.text)
    if isinstance(value, dict) and set(value) == {"zeta", "tally"}:
        obeyed = value["zeta"] in ("k7-north", "k9-south") and type(value["tally"]) is int
        if obeyed:
            return Verdict.SUPPORTED, "a value that obeys the schema, to a question about something else"
    if said.is_cut:
        return Verdict.UNCLEAR, _cut_or(said, "")
    if not said.text:
        return Verdict.UNCLEAR, "an empty answer"
    return Verdict.IGNORED, "JSON that does not obey the schema" if value is not None else "the answer is no JSON"


def _judged_call(said: _Said, wanted: str) -> tuple[Verdict, str]:
    if said.called == [wanted]:
        return Verdict.SUPPORTED, "called, to a greeting that asks for none"
    if said.is_cut:
        return Verdict.UNCLEAR, _cut_or(said, "")
    called = ", ".join(said.called)
    return Verdict.IGNORED, f"{called} was called in its place" if called else "the model answered without a call"
