"""The simulated provider as a server on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from math import ceil
from types import TracebackType
from typing import Any, Self

import orjson
from aiohttp import web

from batchrun.simulator.answers import MAX_PROMPT_TOKENS, Answer, compose, study
from batchrun.simulator.chance import uniform
from batchrun.simulator.chat_request import MISSING, ChatRequest, check, load
from batchrun.simulator.counters import Counters, Turns
from batchrun.simulator.dialects import DIALECTS, Body
from batchrun.simulator.effects import EFFECTS, EVENTS, HTML, JSON, WEB_PAGE, Effect, Scene, event
from batchrun.simulator.faults import Draw, FaultPlan
from batchrun.simulator.ledger import Ledger
from batchrun.simulator.limits import RateLimits, Resource
from batchrun.simulator.problems import Problem, Refused
from batchrun.simulator.replies import KEEP_ALIVE, Reply, in_order, queued, until_cancelled
from batchrun.simulator.settings import SettingsError, SimulatorSettings, check_address

#: The models that are listed; a chat may name any model.
MODELS = ("simulated-chat", "simulated-mini", "simulated-thinking")
STATS_PATH = "/simulator/stats"

_MAX_BODY_BYTES = 64 * 1024 * 1024
_BACKLOG = 1024
#: Handlers that still run when the server stops get this long, in seconds, twice; what hangs is cut off.
_SHUTDOWN_S = 0.05
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_NO_EFFECT = Effect()
_RATE_PROBLEMS = {Resource.REQUESTS: Problem.REQUEST_RATE, Resource.TOKENS: Problem.TOKEN_RATE}
#: Seconds after which to try again, where nothing says more.
_SOON_S = 1.0
_VISIBLE_KEY_CHARACTERS = 3
_SHORT_KEY_CHARACTERS = 12

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class _Call:
    """What is known of a call by the time it is answered."""

    id: str
    stream: bool = False
    key: str | None = None
    attempt: int = 1
    fault: str | None = None


class Simulator:
    """A simulated OpenAI-compatible provider, an async context manager.

    Serves loopback addresses only; port 0 takes any free port. Raises `SettingsError` for an address or a
    ledger that cannot be used, `OSError` for a port that is taken.
    """

    def __init__(self, settings: SimulatorSettings, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._settings = settings
        self._host = check_address(host, port)
        self._port = port
        self._dialect = DIALECTS[settings.dialect]
        self._counters = Counters()
        self._turns = Turns()
        self._faults = FaultPlan(settings.faults, settings.seed)
        self._request_numbers = count(1)
        self._admitted = 0
        self._runner: web.ServerRunner | None = None
        self._ledger: Ledger | None = None
        self._limits = self._fresh_limits(lambda: 0.0)
        self._routes: dict[str, Mapping[str, Handler]] = {STATS_PATH: {"GET": self._show_stats}}
        for base in self._dialect.base_paths:
            self._routes[f"{base}/chat/completions"] = {"POST": self._chat}
            self._routes[f"{base}/models"] = {"GET": self._list_models}
        self._model_routes: Mapping[str, Handler] = {"GET": self._show_model}

    @property
    def base_url(self) -> str:
        """Give the base URL, as a client is configured with it. Raises `RuntimeError` before the start."""
        if self._runner is None:
            raise RuntimeError("the simulator has no address before it is started")
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._runner.addresses[0][1]}{self._dialect.base_path}"

    @property
    def stats(self) -> dict[str, Any]:
        """Give the counts: calls, answered, by_status, by_fault, in_flight, peak_in_flight."""
        return self._counters.as_dict()

    async def start(self) -> None:
        """Bind and serve. Raises `SettingsError`, `OSError`, and `RuntimeError` when it runs already."""
        if self._runner is not None:
            raise RuntimeError("the simulator is running already")
        loop = asyncio.get_running_loop()
        self._limits = self._fresh_limits(loop.time)
        # Cancellation ends calls whose clients left: `hang` would keep them for an hour.
        server = web.Server(self._handle, request_factory=self._request, handler_cancellation=True, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port, backlog=_BACKLOG).start()
            self._ledger = self._open_ledger()
        except (OSError, SettingsError):
            await runner.cleanup()
            raise
        self._runner = runner

    async def stop(self) -> None:
        """Cut off calls in flight and stop serving; does nothing when it is not running."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            ledger.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def _fresh_limits(self, clock: Callable[[], float]) -> RateLimits:
        return RateLimits(self._settings.requests_per_minute, self._settings.tokens_per_minute, clock)

    def _open_ledger(self) -> Ledger | None:
        path = self._settings.ledger
        if path is None:
            return None
        try:
            return Ledger(path)
        except OSError as error:
            raise SettingsError("ledger", str(path), f"a file that can be written ({error.strerror})") from error

    def _request(
        self, message: Any, payload: Any, protocol: Any, writer: Any, task: asyncio.Task[None]
    ) -> web.BaseRequest:
        loop = asyncio.get_running_loop()
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=_MAX_BODY_BYTES)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        methods = self._routes.get(path)
        if methods is None and self._model_name(path):
            methods = self._model_routes
        if methods is None:
            return self._unknown_path(request)
        handler = methods.get(request.method)
        if handler is None:
            refused = Refused(Problem.WRONG_METHOD, method=request.method, path=_printable(path))
            return self._refuse(refused, _Call(self._next_id()), {"Allow": ", ".join(methods)})
        return await handler(request)

    def _model_name(self, path: str) -> str:
        """Give what stands after the path of the model list; nothing if the path is another one."""
        beginnings = (f"{base}/models/" for base in self._dialect.base_paths)
        return next((path.removeprefix(one) for one in beginnings if path.startswith(one)), "")

    def _unknown_path(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        call = _Call(self._next_id())
        if self._dialect.web_page and not any(f"{path}/".startswith(f"{base}/") for base in self._dialect.base_paths):
            return web.Response(body=WEB_PAGE, headers=self._headers(HTML, call.id))
        known = any(path.startswith(one) for one in self._dialect.unimplemented)
        problem = Problem.NOT_IMPLEMENTED if known else Problem.UNKNOWN_PATH
        return self._refuse(Refused(problem, method=request.method, path=_printable(path)), call)

    async def _list_models(self, request: web.BaseRequest) -> web.StreamResponse:
        return self._authorized(request, lambda: self._dialect.models(MODELS))

    async def _show_model(self, request: web.BaseRequest) -> web.StreamResponse:
        name = self._model_name(request.path)
        if MISSING in name:
            return self._refuse(Refused(Problem.MODEL_NOT_FOUND, "model", model=name), _Call(self._next_id()))
        return self._authorized(request, lambda: self._dialect.model(name))

    async def _show_stats(self, _request: web.BaseRequest) -> web.StreamResponse:
        return self._plain(200, self.stats)

    def _authorized(self, request: web.BaseRequest, body: Callable[[], Body]) -> web.StreamResponse:
        try:
            if self._dialect.models_need_key:
                self._check_key(request)
        except Refused as refused:
            return self._refuse(refused, _Call(self._next_id()))
        return self._plain(200, body())

    async def _chat(self, request: web.BaseRequest) -> web.StreamResponse:
        self._counters.begin()
        call = _Call(self._next_id())
        try:
            return await self._answer(request, call)
        except Refused as refused:
            response = self._refuse(refused, call, self._limit_headers())
            self._settle(call, response.status)
            return response
        except ConnectionError:
            return await until_cancelled()  # the client left in the middle: nobody is there to answer
        finally:
            self._counters.end()

    async def _answer(self, request: web.BaseRequest, call: _Call) -> web.StreamResponse:
        self._check_key(request)
        data = load(await _body(request))
        call.stream = data.get("stream") is True
        chat = check(data, self._dialect.rules)
        call.key = chat.key.hex()
        prompt = study(chat)
        turn = self._turns.of(chat.key) if prompt.leaves_to_chance else 0
        answer = compose(chat, prompt, self._settings.seed, turn=turn)
        self._check_limits(chat, answer)
        if prompt.leaves_to_chance:
            self._turns.take(chat.key)
        self._admitted += 1
        try:
            drawn = self._faults.draw(chat.key, keyword=self._has_keyword(chat))
            effect = _NO_EFFECT if drawn.fault is None else EFFECTS[drawn.fault]
            call.attempt = drawn.attempt
            if effect.omit_required:
                answer = compose(chat, prompt, self._settings.seed, turn=turn, omit_required=True)
            if drawn.fault is not None and _takes_effect(effect, chat, answer):
                call.fault = drawn.fault
                self._faults.spend(drawn.fault)
                self._counters.by_fault[drawn.fault] += 1
            else:
                effect = _NO_EFFECT
            delay = self._delay(chat, drawn) * effect.latency_factor
            deliver = effect.deliver
            if delay and self._waits_aloud(chat, effect):
                deliver = queued(delay)
            elif delay:
                await asyncio.sleep(delay)
            reply = self._reply(chat, answer, effect, call)
            return await deliver(request, reply, lambda: self._settle(call, reply.status))
        finally:
            self._admitted -= 1

    def _check_key(self, request: web.BaseRequest) -> None:
        expected = self._settings.api_key
        if expected is None:
            return
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise Refused(Problem.NO_KEY)
        if key.strip() != expected:
            raise Refused(Problem.WRONG_KEY, key=_masked(key.strip()))

    def _check_limits(self, chat: ChatRequest, answer: Answer) -> None:
        most = self._settings.max_concurrency
        if most is not None and self._admitted >= most:
            used = self._admitted + 1
            raise Refused(Problem.CONCURRENCY, retry_after_s=_SOON_S, model=chat.model, limit=most, used=used)
        if not self._limits.active:
            return
        answered = answer.completion.completion_tokens
        if self._dialect.precharged and chat.max_tokens is not None:
            answered = chat.max_tokens
        over = self._limits.admit(answer.completion.prompt_tokens + answered)
        if over is not None:
            raise Refused(
                _RATE_PROBLEMS[over.resource],
                retry_after_s=over.retry_after_s,
                model=chat.model,
                limit=over.limit,
                used=over.used,
                requested=over.requested,
                seconds=_whole_seconds(over.retry_after_s),
                wait=f"{over.retry_after_s:.3f}",
            )

    def _has_keyword(self, chat: ChatRequest) -> bool:
        return any(self._settings.moderation_keyword in text for text in chat.texts)

    def _delay(self, chat: ChatRequest, drawn: Draw) -> float:
        delay = self._settings.latency_s
        if self._settings.jitter_s:
            delay += self._settings.jitter_s * uniform(self._settings.seed, "jitter", chat.key, drawn.attempt)
        return delay

    def _waits_aloud(self, chat: ChatRequest, effect: Effect) -> bool:
        """Tell whether the header goes out before the wait, which only an answer that will come whole can have."""
        if effect.problem is not None or effect.instead is not None or effect.deliver is not in_order:
            return False
        return self._dialect.keep_alive is not None and self._dialect.keep_alive[chat.stream] != b""

    def _reply(self, chat: ChatRequest, answer: Answer, effect: Effect, call: _Call) -> Reply:
        scene = Scene(self._dialect, answer.completion, chat.stream, self._facts(chat, answer, effect, call))
        status, stream, more = 200, False, dict[str, str]()
        if effect.instead is not None:
            instead = effect.instead(scene)
            status, content_type, pieces = instead.status, instead.content_type, [instead.body]
            more.update(instead.headers)
        elif effect.problem is not None:
            status, body = self._dialect.refuse(effect.problem, None, scene.facts)
            content_type, piece = self._framed(status, body, call)
            pieces = [piece]
            if effect.problem is Problem.OVERLOADED and effect.problem in self._dialect.retry_after:
                more["Retry-After"] = str(_whole_seconds(_SOON_S))
        else:
            content_type, stream, pieces = (
                EVENTS if chat.stream else JSON,
                chat.stream,
                self._pieces(scene, effect, chat),
            )
        headers = {**self._headers(effect.content_type or content_type, call.id), **more}
        if self._limits.active:
            headers.update(self._limit_headers())
        if effect.headers is not None:
            headers.update(effect.headers())
        own = (self._dialect.keep_alive or KEEP_ALIVE)[chat.stream]
        return Reply(status, headers, pieces, stream, own or KEEP_ALIVE[chat.stream])

    def _pieces(self, scene: Scene, effect: Effect, chat: ChatRequest) -> list[bytes]:
        completion = scene.completion
        if effect.completion is not None:
            completion = effect.completion(completion)
        if effect.choice is not None:
            completion = replace(completion, choices=tuple(map(effect.choice, completion.choices)))
        bodies = (
            list(self._dialect.chunks(completion, chat.include_usage))
            if chat.stream
            else [self._dialect.completion(completion)]
        )
        if effect.bodies is not None:
            bodies = effect.bodies(bodies, scene)
        if chat.stream:
            pieces = [*map(event, bodies), b"data: [DONE]\n\n"]
        else:
            pieces = [orjson.dumps(bodies[0], option=orjson.OPT_INDENT_2 if effect.pretty else None)]
        return pieces if effect.data is None else effect.data(pieces)

    def _settle(self, call: _Call, status: int) -> None:
        if self._ledger is not None:
            self._ledger.record(call.key, call.attempt, status, call.fault)
        self._counters.answer(status)

    def _refuse(self, refused: Refused, call: _Call, headers: Mapping[str, str] | None = None) -> web.Response:
        facts = {**refused.facts, "request_id": call.id}
        status, body = self._dialect.refuse(refused.problem, refused.param, facts)
        content_type, data = self._framed(status, body, call)
        made = {**self._headers(content_type, call.id), **(headers or {})}
        if refused.retry_after_s is not None and refused.problem in self._dialect.retry_after:
            made["Retry-After"] = str(_whole_seconds(refused.retry_after_s))
        return web.Response(body=data, status=status, headers=made)

    def _framed(self, status: int, body: Any, call: _Call) -> tuple[str, bytes]:
        """Give content type and bytes of an error."""
        if call.stream and status in self._dialect.framed:
            return EVENTS, event(body)
        return JSON, orjson.dumps(body)

    def _plain(self, status: int, body: Body) -> web.Response:
        headers = self._headers(JSON, self._next_id())
        return web.Response(body=orjson.dumps(body), status=status, headers=headers)

    def _next_id(self) -> str:
        return self._dialect.request_id(next(self._request_numbers))

    def _headers(self, content_type: str, request_id: str) -> dict[str, str]:
        return {
            "Content-Type": content_type,
            self._dialect.id_header: request_id,
            "x-simulated": "true",
            **self._dialect.headers,
        }

    def _facts(self, chat: ChatRequest, answer: Answer, effect: Effect, call: _Call) -> dict[str, object]:
        """Give facts for the message of a problem that does not really exist."""
        at_once = effect.problem is Problem.BALANCE_CONCURRENCY
        return {
            "limit": max(1, self._admitted - 1) if at_once else MAX_PROMPT_TOKENS,
            "model": chat.model,
            "request_id": call.id,
            "tokens": MAX_PROMPT_TOKENS + answer.completion.prompt_tokens,
            "used": max(2, self._admitted) if at_once else MAX_PROMPT_TOKENS,
        }

    def _limit_headers(self) -> dict[str, str]:
        return self._dialect.limit_headers(self._limits.levels())


async def _body(request: web.BaseRequest) -> bytes:
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(_CONTINUE)
        request.writer.output_size = 0
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise Refused(Problem.BODY_TOO_LARGE) from None


def _takes_effect(effect: Effect, chat: ChatRequest, answer: Answer) -> bool:
    if effect.omit_required:
        return answer.omitted
    if (effect.stream_only and not chat.stream) or (effect.plain_only and chat.stream):
        return False
    if effect.thinking_only and not answer.completion.thinking:
        return False
    return not effect.json_only or all(choice.is_json for choice in answer.completion.choices)


def _whole_seconds(seconds: float) -> int:
    return max(1, ceil(seconds))


def _masked(key: str) -> str:
    if len(key) < _SHORT_KEY_CHARACTERS:
        return "***"
    return _printable(f"{key[:_VISIBLE_KEY_CHARACTERS]}***{key[-_VISIBLE_KEY_CHARACTERS:]}")


def _printable(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode("ascii")
