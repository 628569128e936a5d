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
from batchrun.simulator.chat_request import ChatRequest, Refused, parse
from batchrun.simulator.counters import Counters
from batchrun.simulator.dialects import DIALECTS, Body, Problem
from batchrun.simulator.effects import EFFECTS, HTML, WEB_PAGE, Effect
from batchrun.simulator.faults import Draw, FaultPlan
from batchrun.simulator.ledger import Ledger
from batchrun.simulator.limits import RateLimits, Resource
from batchrun.simulator.replies import Reply, until_cancelled
from batchrun.simulator.settings import SettingsError, SimulatorSettings, check_address

#: The models that are listed; a chat may name any model.
MODELS = ("simulated-chat", "simulated-mini")
STATS_PATH = "/simulator/stats"

_JSON = "application/json"
_EVENTS = "text/event-stream; charset=utf-8"
_MAX_BODY_BYTES = 64 * 1024 * 1024
_BACKLOG = 1024
#: Handlers that still run when the server stops get this long, in seconds, twice; what hangs is cut off.
_SHUTDOWN_S = 0.05
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_NO_EFFECT = Effect()
_RATE_PROBLEMS = {Resource.REQUESTS: Problem.REQUEST_RATE, Resource.TOKENS: Problem.TOKEN_RATE}
_VISIBLE_KEY_CHARACTERS = 3
_SHORT_KEY_CHARACTERS = 12

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class _Call:
    """What is known of a call by the time it is answered."""

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
        self._faults = FaultPlan(settings.faults, settings.seed)
        self._request_numbers = count(1)
        self._admitted = 0
        self._runner: web.ServerRunner | None = None
        self._ledger: Ledger | None = None
        self._limits = self._fresh_limits(lambda: 0.0)
        base = self._dialect.base_path
        self._models_path = f"{base}/models/"
        self._routes: Mapping[str, Mapping[str, Handler]] = {
            f"{base}/chat/completions": {"POST": self._chat},
            f"{base}/models": {"GET": self._list_models},
            STATS_PATH: {"GET": self._show_stats},
        }
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
        if methods is None and path.startswith(self._models_path) and path != self._models_path:
            methods = self._model_routes
        if methods is None:
            return self._unknown_path(request)
        handler = methods.get(request.method)
        if handler is None:
            refused = Refused(Problem.WRONG_METHOD, method=request.method, path=_printable(path))
            return self._plain(*self._refusal(refused), {"Allow": ", ".join(methods)})
        return await handler(request)

    def _unknown_path(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path.startswith(f"{self._dialect.base_path}/") or request.path == self._dialect.base_path:
            path = _printable(request.path)
            return self._plain(*self._refusal(Refused(Problem.UNKNOWN_PATH, method=request.method, path=path)))
        return web.Response(body=WEB_PAGE, headers=self._headers(HTML))

    async def _list_models(self, request: web.BaseRequest) -> web.StreamResponse:
        return self._authorized(request, lambda: self._dialect.models(MODELS))

    async def _show_model(self, request: web.BaseRequest) -> web.StreamResponse:
        return self._authorized(request, lambda: self._dialect.model(request.path.removeprefix(self._models_path)))

    async def _show_stats(self, _request: web.BaseRequest) -> web.StreamResponse:
        return self._plain(200, self.stats)

    def _authorized(self, request: web.BaseRequest, body: Callable[[], Body]) -> web.StreamResponse:
        try:
            self._check_key(request)
        except Refused as refused:
            return self._plain(*self._refusal(refused))
        return self._plain(200, body())

    async def _chat(self, request: web.BaseRequest) -> web.StreamResponse:
        self._counters.begin()
        call = _Call()
        try:
            return await self._answer(request, call)
        except Refused as refused:
            headers = {} if refused.retry_after_s is None else {"Retry-After": str(max(1, ceil(refused.retry_after_s)))}
            status, body = self._refusal(refused)
            self._settle(call, status)
            return self._plain(status, body, {**headers, **self._limit_headers()})
        except ConnectionError:
            return await until_cancelled()  # the client left in the middle: nobody is there to answer
        finally:
            self._counters.end()

    async def _answer(self, request: web.BaseRequest, call: _Call) -> web.StreamResponse:
        self._check_key(request)
        chat = parse(await _body(request))
        call.key = chat.key.hex()
        prompt = study(chat)
        answer = compose(chat, prompt, self._settings.seed)
        self._check_limits(chat.model, answer)
        self._admitted += 1
        try:
            drawn = self._faults.draw(chat.key)
            effect = _NO_EFFECT if drawn.fault is None else EFFECTS[drawn.fault]
            call.attempt = drawn.attempt
            if effect.omit_required:
                answer = compose(chat, prompt, self._settings.seed, omit_required=True)
            if _takes_effect(effect, answer):
                call.fault = drawn.fault
            else:
                effect = _NO_EFFECT
            if call.fault is not None:
                self._counters.by_fault[call.fault] += 1
            await self._pass_time(chat, drawn, effect)
            reply = self._reply(chat, answer, effect)
            return await effect.deliver(request, reply, lambda: self._settle(call, reply.status))
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

    def _check_limits(self, model: str, answer: Answer) -> None:
        most = self._settings.max_concurrency
        if most is not None and self._admitted >= most:
            raise Refused(Problem.CONCURRENCY, retry_after_s=1.0, model=model, limit=most)
        if not self._limits.active:
            return
        over = self._limits.admit(answer.completion.prompt_tokens + answer.completion.completion_tokens)
        if over is not None:
            raise Refused(
                _RATE_PROBLEMS[over.resource],
                retry_after_s=over.retry_after_s,
                model=model,
                limit=over.limit,
                used=over.used,
                requested=over.requested,
                wait=f"{over.retry_after_s:.3f}",
            )

    async def _pass_time(self, chat: ChatRequest, drawn: Draw, effect: Effect) -> None:
        delay = self._settings.latency_s
        if self._settings.jitter_s:
            delay += self._settings.jitter_s * uniform(self._settings.seed, "jitter", chat.key, drawn.attempt)
        if delay:
            await asyncio.sleep(delay * effect.latency_factor)

    def _reply(self, chat: ChatRequest, answer: Answer, effect: Effect) -> Reply:
        content_type, stream = (_EVENTS, True) if chat.stream else (_JSON, False)
        status = 200
        if effect.page is not None:
            status, page = effect.page
            content_type, stream, pieces = HTML, False, [page]
        elif effect.problem is not None:
            status, body = self._dialect.refuse(effect.problem, None, _typical_facts(chat, answer))
            content_type, stream, pieces = _JSON, False, [orjson.dumps(body)]
        else:
            pieces = self._pieces(chat, answer, effect)
        headers = self._headers(effect.content_type or content_type)
        if self._limits.active:
            headers.update(self._limit_headers())
        if effect.headers is not None:
            headers.update(effect.headers())
        return Reply(status, headers, pieces, stream)

    def _pieces(self, chat: ChatRequest, answer: Answer, effect: Effect) -> list[bytes]:
        completion = answer.completion
        if effect.choice is not None:
            completion = replace(completion, choices=tuple(map(effect.choice, completion.choices)))
        bodies = (
            list(self._dialect.chunks(completion, chat.include_usage))
            if chat.stream
            else [self._dialect.completion(completion)]
        )
        if effect.bodies is not None:
            bodies = effect.bodies(bodies, self._dialect)
        if chat.stream:
            pieces = [b"data: %b\n\n" % orjson.dumps(body) for body in bodies]
            pieces.append(b"data: [DONE]\n\n")
        else:
            pieces = [orjson.dumps(bodies[0], option=orjson.OPT_INDENT_2 if effect.pretty else None)]
        return pieces if effect.data is None else effect.data(pieces)

    def _settle(self, call: _Call, status: int) -> None:
        if self._ledger is not None:
            self._ledger.record(call.key, call.attempt, status, call.fault)
        self._counters.answer(status)

    def _refusal(self, refused: Refused) -> tuple[int, Body]:
        return self._dialect.refuse(refused.problem, refused.param, refused.facts)

    def _plain(self, status: int, body: Body, headers: Mapping[str, str] | None = None) -> web.Response:
        return web.Response(body=orjson.dumps(body), status=status, headers={**self._headers(_JSON), **(headers or {})})

    def _headers(self, content_type: str) -> dict[str, str]:
        return {
            "Content-Type": content_type,
            "x-request-id": f"req_simulated{next(self._request_numbers):010x}",
            "x-simulated": "true",
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


def _takes_effect(effect: Effect, answer: Answer) -> bool:
    if effect.omit_required:
        return answer.omitted
    return not effect.json_only or all(choice.is_json for choice in answer.completion.choices)


def _typical_facts(chat: ChatRequest, answer: Answer) -> dict[str, object]:
    """Give facts for the message of a problem that does not really exist."""
    return {
        "detail": "The request was rejected by the server.",
        "key": "***",
        "limit": MAX_PROMPT_TOKENS,
        "model": chat.model,
        "requested": 1,
        "tokens": MAX_PROMPT_TOKENS + answer.completion.prompt_tokens,
        "used": MAX_PROMPT_TOKENS,
        "wait": "1.000",
    }


def _masked(key: str) -> str:
    if len(key) < _SHORT_KEY_CHARACTERS:
        return "***"
    return _printable(f"{key[:_VISIBLE_KEY_CHARACTERS]}***{key[-_VISIBLE_KEY_CHARACTERS:]}")


def _printable(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode("ascii")
