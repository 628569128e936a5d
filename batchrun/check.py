"""The smoke test of an endpoint: step by step from the settings to one short chat, each failure with its likely cause.

Nothing of the user's data is sent, and everything goes to the endpoint's own host and port.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from batchrun import diagnose, models
from batchrun.curl import curl_of
from batchrun.endpoint import reach
from batchrun.endpoint.client import Client
from batchrun.endpoint.target import target_of
from batchrun.job import PLACEHOLDER_MODEL, JobError, endpoint_job, is_loopback, without_password
from batchrun.origins import KeySource, Setting, key_in_words, key_source, proxies, route_in_words, settings_of
from batchrun.records import EndpointError, ErrorKind, Request
from batchrun.settings import environment, exposed, read_key, resolve

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from batchrun.job import Job
    from batchrun.models import ModelList, Opened
    from batchrun.records import Provider, Response

Status = Literal["ok", "failed", "note", "skipped"]
#: Seconds for an answer to an empty request, for one that only looks for the root, and for the chat; the job's
#: `attempt_timeout` counts if it is shorter. A batch lane takes what it takes, up to ten minutes.
_PROBE_TIMEOUT_S = 30.0
_CANDIDATE_TIMEOUT_S = 5.0
_CHAT_TIMEOUT_S = 120.0
_LANE_TIMEOUT_S = 600.0
#: The client takes the key out of what the endpoint says. This is for what the settings say, where a shorter one is a
#: placeholder ("ollama", "lm-studio") that is no secret, and a word of its own.
_SHORTEST_SECRET = 12
_HIDDEN_KEY = "[key]"
_MESSAGES = [{"role": "user", "content": "Reply with one word: ok"}]
_SHOWN_TEXT = 60
_SHOWN_IDS = 10
_WRONG_HERE, _WRONG_THERE = 2, 4


@dataclass(frozen=True, slots=True)
class Step:
    """A step that ended. `detail` says what was found, one fact a line; `diagnosis` the likely cause and the fix."""

    name: str
    status: Status
    detail: str
    seconds: float = 0.0
    diagnosis: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Give it as JSON values."""
        return {
            "name": self.name, "status": self.status, "detail": self.detail, "seconds": round(self.seconds, 3),
            "diagnosis": self.diagnosis,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Check:
    """What a check found.

    `exit_code`: 0 it works, 2 the settings are wrong or name no model, 4 the endpoint's side. `curl` is the command
    that sends the same chat, None where no base URL is known; `base_url_found` another root that answers as an API.
    """

    steps: tuple[Step, ...]
    exit_code: int
    curl: str | None = None
    settings: tuple[Setting, ...] = ()
    base_url_found: str | None = None
    answer: dict[str, Any] | None = None
    simulated: bool = False

    @property
    def ok(self) -> bool:
        """Tell whether the endpoint works."""
        return self.exit_code == 0

    def as_dict(self) -> dict[str, Any]:
        """Give it as JSON values."""
        return {
            "ok": self.ok,
            "exit_code": self.exit_code,
            "simulated": self.simulated,
            "settings": {one.name: {"value": one.value, "from": one.origin or None} for one in self.settings},
            "steps": [step.as_dict() for step in self.steps],
            "base_url_found": self.base_url_found,
            "answer": self.answer,
            "curl": self.curl,
        }


class _FailedError(Exception):
    """A step failed: its detail, what to do, and the exit code."""

    def __init__(self, detail: str, *diagnosis: str, exit_code: int = _WRONG_THERE) -> None:
        super().__init__(detail)
        self.detail = detail
        self.diagnosis = diagnosis
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class _Found:
    """How a step ended that did not fail; `seconds` where it is not the time that it took."""

    detail: str
    status: Status = "ok"
    diagnosis: str | None = None
    seconds: float | None = None


async def check_async(
    path: Path | None = None, *, base_url: str | None = None, model: str | None = None,
    report: Callable[[Step], None] | None = None,
) -> Check:  # fmt: skip
    """Check an endpoint. `path` is a job file; what is given besides wins over it. Raises nothing for what it finds.

    `report` is told of each step when it ends.
    """
    return await _Checker({"base_url": base_url, "model": model}, report or _silently).run(path)


def check(
    path: Path | None = None, *, base_url: str | None = None, model: str | None = None,
    report: Callable[[Step], None] | None = None,
) -> Check:  # fmt: skip
    """Check an endpoint and wait for the end; `check_async` for callers with an event loop of their own."""
    return asyncio.run(check_async(path, base_url=base_url, model=model, report=report))


def _silently(_step: Step) -> None:
    """Take no note."""


@dataclass(slots=True)
class _Checker:
    """Carries a check from step to step, with what the steps before found."""

    given: dict[str, str | None]
    report: Callable[[Step], None]
    steps: list[Step] = field(default_factory=list)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    settings: list[Setting] = field(default_factory=list)
    proxies: list[str] = field(default_factory=list)
    source: KeySource = field(default_factory=lambda: KeySource("none"))
    secret: str | None = field(default=None, repr=False)
    exit_code: int = 0
    base_url_found: str | None = None
    answer: dict[str, Any] | None = None
    streamed: bool = False
    listed: ModelList | None = None
    list_error: EndpointError | None = None
    list_seconds: float = 0.0
    list_is_open: bool = False
    addresses: list[str] = field(default_factory=list)
    address: str = ""
    job: Job = field(init=False)
    endpoint: Opened | None = None
    place: reach.Place = field(init=False)
    next: reach.Place = field(init=False)
    client: Client = field(init=False)
    http: Provider = field(init=False)

    async def run(self, path: Path | None) -> Check:
        steps: list[tuple[str, Callable[[], Awaitable[_Found]]]] = [
            ("settings", lambda: self._settings(path)),
            ("name", self._name),
            ("tcp", self._tcp),
            ("tls", self._tls),
            ("http", self._http),
            ("key", self._key),
            ("models", self._models),
            ("model", self._model),
            ("chat", self._chat),
        ]
        async with self.stack:
            for name, step in steps:
                if self.exit_code:
                    self._end(Step(name, "skipped", "a step before failed"))
                else:
                    await self._do(name, step)
        settings = tuple(replace(one, value=self._hide(one.value)) for one in self.settings)
        found = self.base_url_found and self._hide(self.base_url_found)
        return Check(
            tuple(self.steps), self.exit_code, self._curl(), settings, found, self.answer,
            bool(self.endpoint and self.job.endpoint.simulate),
        )  # fmt: skip

    async def _do(self, name: str, step: Callable[[], Awaitable[_Found]]) -> None:
        now = asyncio.get_running_loop().time
        begun = now()
        try:
            found = await step()
        except _FailedError as failed:
            self.exit_code = failed.exit_code
            lines = "\n".join(line for line in failed.diagnosis if line)
            self._end(Step(name, "failed", failed.detail, now() - begun, lines or None))
            return
        seconds = now() - begun if found.seconds is None else found.seconds
        self._end(Step(name, found.status, found.detail, seconds, found.diagnosis))

    def _end(self, step: Step) -> None:
        words = None if step.diagnosis is None else self._hide(step.diagnosis)
        step = Step(step.name, step.status, self._hide(step.detail), step.seconds, words)
        self.steps.append(step)
        self.report(step)

    def _hide(self, text: str) -> str:
        return text.replace(self.secret, _HIDDEN_KEY) if self.secret else text

    # --- 1: the settings ---

    async def _settings(self, path: Path | None) -> _Found:
        try:
            written = endpoint_job(path, {f"endpoint.{name}": value for name, value in self.given.items()})
            variables = environment(written)
            self.proxies = proxies(variables)
            self.job = job = resolve(written, variables, sends_data=False)
            target = target_of(job)
            self.source = key_source(job, variables)
            self.settings = settings_of(self.given, written, job, variables, target.dialect)
            key = self._read_key(variables)
            self.settings.append(key_in_words(key, self.source, job.endpoint))
            if self.proxies:
                how = "connects directly" if target.route.proxy is None else "endpoint.proxy counts"
                self.settings.append(Setting("proxy", f"{', '.join(self.proxies)} set", f"ignored: {how}"))
            self.settings += route_in_words(job)
            endpoint = await self.stack.enter_async_context(models.opened(job, key, target))
            try:
                self.place = reach.place_of(endpoint.base_url)
                #: What is connected to: the endpoint, or the proxy that leads to it.
                self.next = reach.place_of(target.route.proxy or endpoint.base_url)
                self.client = await self.stack.enter_async_context(endpoint.client(timeout_s=_PROBE_TIMEOUT_S))
            except ValueError as error:
                raise JobError(f"endpoint.base_url: {endpoint.base_url!r} is not a URL: {error}") from error
        except JobError as error:
            raise _FailedError(
                error.problems[0], *error.problems[1:], *self._settings_trouble(error), exit_code=_WRONG_HERE
            ) from error
        self.endpoint = endpoint
        return self._remarks(key, endpoint.base_url)

    def _read_key(self, variables: dict[str, str]) -> str | None:
        """Read the key; where it cannot be one, say in the error what it looks like."""
        raw = "" if self.source.kind == "file" else variables.get(self.source.variable, "")
        self.secret = raw if len(raw) >= _SHORTEST_SECRET else None
        try:
            key = read_key(self.job.endpoint, variables)
        except JobError as error:
            if self.source.kind == "file" and self.source.file is not None and self.source.file.is_file():
                raw = self.source.file.read_bytes().decode("utf-8", "replace").removesuffix("\n")
            raise JobError([*error.problems, *filter(None, [diagnose.key_trouble(raw)])]) from error
        self.secret = key if key and len(key) >= _SHORTEST_SECRET else None
        return key

    def _settings_trouble(self, error: JobError) -> list[str]:
        if any(PLACEHOLDER_MODEL in problem for problem in error.problems):
            return ["`batchrun models` with the same job lists the ids that your key can see."]
        return []

    def _remarks(self, key: str | None, base_url: str) -> _Found:
        below = diagnose.below_the_root(base_url)
        remarks = [
            diagnose.key_trouble(key),
            *exposed(self.job),
            f"base_url ends in /{below}, which is seldom an API's root: batchrun appends the path." if below else None,
            "The key goes over the network in clear text: base_url is http, and not on this machine."
            if key and not self.place.tls and not is_loopback(base_url) else None,
        ]  # fmt: skip
        words = "\n".join(filter(None, remarks))
        return _Found("\n".join(map(str, self.settings)), "note" if words else "ok", words or None)

    @property
    def _opened(self) -> Opened:
        if self.endpoint is None:
            raise RuntimeError("no step comes before the settings")
        return self.endpoint

    # --- 2 to 4: below HTTP ---

    async def _name(self) -> _Found:
        place = self.next
        if place.is_address:
            self.addresses = [place.host]
            return _Found(f"{place.host} is an address, there is no name to look up")
        try:
            self.addresses = await reach.look_up(place)
        except TimeoutError as error:
            words = f"{place.host}: the name service did not answer within {reach.LOOKUP_TIMEOUT_S:g} s"
            raise _FailedError(words, diagnose.no_name(self.proxies)) from error
        except OSError as error:
            words = f"{place.host}: {error.strerror or error}"
            raise _FailedError(words, diagnose.no_name(self.proxies)) from error
        return _Found(f"{place.host} is {', '.join(self.addresses)}")

    async def _tcp(self) -> _Found:
        place = self.next
        attempts = await reach.connect(place, self.addresses)
        good = [one for one in attempts if one.problem is None]
        bad = [f"{one.address}: {one.words}" for one in attempts if one.problem is not None]
        if not good:
            proxy = self._opened.target.route.proxy
            words = diagnose.no_connection(place, proxy or self._opened.base_url, attempts, self.proxies)
            raise _FailedError(f"port {place.port}; {'; '.join(bad)}", words)
        self.address = good[0].address
        took = ", ".join(one.address for one in good)
        return _Found("; ".join([f"{took} port {place.port}", *bad]))

    async def _tls(self) -> _Found:
        if not self.place.tls:
            return _Found("plain http, no TLS", "skipped")
        if self._opened.target.route.proxy:
            return _Found("through the proxy: the requests that follow check the certificate", "skipped")
        try:
            done = await reach.handshake(self.place, self.address, self._opened.target.route.tls)
        except reach.TlsError as error:
            raise _FailedError(error.message, diagnose.no_tls(error, self.place, self._opened.base_url)) from error
        shown = done.certificate
        words = (
            f"{done.version}, certificate for {shown.names_in_words}, {shown.days_left} days left, "
            f"issued by {shown.issuer}"
        )
        if diagnose.is_soon(shown):
            return _Found(words, "note", "The certificate ends soon; its owner must renew it.")
        return _Found(words)

    # --- 5: HTTP ---

    async def _http(self) -> _Found:
        target, base_url = self._opened.target, self._opened.base_url
        try:
            self.http = provider = await self.client.fetch("POST", target.path, b"{}")
        except EndpointError as silence:
            words = diagnose.no_answer(silence, base_url, self.proxies)
            raise _FailedError(silence.message, await self._tls_behind() or words) from silence
        error = self.client.error_of(provider)
        said = error.message if error else f"HTTP {provider.status}"
        why = diagnose.not_an_api(provider, error)
        if why is None and diagnose.is_proven(provider):
            return _Found(f"POST {target.path} with an empty request is answered as an API does: {said}")
        # What speaks TLS and is asked in plain http says 400, if anything (nginx, Apache, Go).
        tls = await self._tls_behind() if provider.status == 400 else None
        if tls is not None:
            raise _FailedError(why or said, tls)
        if why is None:
            return _Found(f"POST {target.path} is refused, not in JSON: {said}", "note")
        where = reach.wire_url(base_url, target.path)
        raise _FailedError(f"POST {where}: {why}", *await self._other_roots(provider, error))

    async def _tls_behind(self) -> str | None:
        """Say what to do if a port that is asked in plain http speaks TLS."""
        if self.place.tls or self._opened.target.route.proxy or not await reach.speaks_tls(self.place, self.address):
            return None
        return diagnose.speaks_tls(self._opened.base_url)

    async def _other_roots(self, provider: Provider, error: EndpointError | None) -> list[str]:
        """Look for the API's root elsewhere on the same server, by empty requests, and say what was found."""
        base_url, target = self._opened.base_url, self._opened.target
        words = diagnose.wrong_path(provider, base_url)
        if provider.status // 100 == 5:  # the server has trouble, its path may be right
            return words
        documented = [row.url for row in target.dialect.base_url]
        origin = reach.origin_of(base_url)
        tried = diagnose.candidates(base_url, documented)
        async with self._opened.client(timeout_s=_CANDIDATE_TIMEOUT_S, at=origin) as client:
            for path in tried:
                if await self._is_api(client, path + target.path):
                    self.base_url_found = origin + path
                    return [*words, f"{origin}{path} answers as an API: put that into base_url."]
        words.append(f"Tried without success on this server: {', '.join(path or '/' for path in tried)}.")
        elsewhere = diagnose.documented_elsewhere(target.dialect, base_url)
        words.append(
            elsewhere or "Take base_url from the provider's documentation: what stands before /chat/completions."
        )
        if error is not None and error.message.endswith(")") and " (" in error.message:
            words.insert(0, error.message)  # with the dialect's hint
        return words

    async def _is_api(self, client: Client, path: str) -> bool:
        try:
            provider = await client.fetch("POST", path, b"{}")
        except (EndpointError, ValueError):
            return False
        return diagnose.not_an_api(provider, client.error_of(provider)) is None and diagnose.is_proven(provider)

    # --- 6 to 8: key and models ---

    async def _key(self) -> _Found:
        error = self.client.error_of(self.http)
        if error is not None and diagnose.is_about_the_account(error):
            raise _FailedError(error.message, *self._refused(error))
        now = asyncio.get_running_loop().time
        begun = now()
        await self._ask_for_list()
        self.list_seconds = now() - begun
        return self._judged()

    def _refused(self, error: EndpointError) -> list[str]:
        opened = self._opened
        return diagnose.refused(
            error, opened.key, self.source, opened.target.dialect, opened.base_url,
            beside_file=self.job.env_file is not None,
        )  # fmt: skip

    async def _ask_for_list(self) -> None:
        try:
            self.listed = await models.ask(self.client)
        except EndpointError as error:
            self.list_error = error
            return
        if self._opened.key is None:
            self.list_is_open = True
            return
        async with self._opened.client(timeout_s=_PROBE_TIMEOUT_S, with_key=False) as stranger:
            try:
                await models.ask(stranger)
            except EndpointError as error:
                self.list_is_open = not diagnose.is_about_the_account(error)
            else:
                self.list_is_open = True

    def _judged(self) -> _Found:
        """Say what the answers so far prove of the key."""
        refused = self.list_error is not None and diagnose.is_about_the_account(self.list_error)
        if self._opened.key is None:
            if refused and self.list_error is not None:
                words = f"no key is sent; the model list wants one ({self.list_error.message}); the chat will show"
                return _Found(words, "note", seconds=0.0)
            return _Found("no key is sent, and none was asked for so far", seconds=0.0)
        if refused and self.list_error is not None:
            trouble = "\n".join(self._refused(self.list_error))
            words = f"the model list refuses it ({self.list_error.message}); the chat will show whether it is good"
            return _Found(words, "note", trouble, seconds=0.0)
        if self.listed is not None and not self.list_is_open:
            return _Found("accepted: the model list answers with it, and not without", seconds=0.0)
        return _Found("not refused, and not proven either: the chat will show", seconds=0.0)

    async def _models(self) -> _Found:
        error = self.list_error
        if self.listed is None and error is not None:
            if models.is_absent(error):
                words = f"no model list here, which is fine ({error.message})"
                return _Found(words, seconds=self.list_seconds)
            return _Found(f"no model list: {error.message}", "note", seconds=self.list_seconds)
        listed = self.listed or models.ModelList(())
        count = f"{len(listed.models):,} listed" + (", and it says that there are more" if listed.has_more else "")
        if self._opened.key is not None:
            count += "; without a key too, so that it says nothing of the key" if self.list_is_open else ""
        return _Found(count, seconds=self.list_seconds)

    async def _model(self) -> _Found:
        model = self.job.endpoint.model
        ids = self.listed.ids if self.listed else []
        if model is None:
            choice = ", ".join(ids[:_SHOWN_IDS]) + (
                f" and {len(ids) - _SHOWN_IDS:,} more" if len(ids) > _SHOWN_IDS else ""
            )
            listed = f"Listed here: {choice}." if ids else "There is no list to choose from: look into the console."
            words = "Give -m ID, endpoint.model in the job file, or set OPENAI_MODEL."
            raise _FailedError("no model id is given", words, listed, exit_code=_WRONG_HERE)
        if not ids:
            return _Found(f"{model}; no list to look it up in", "skipped")
        if model in ids:
            return _Found(f"{model} is listed")
        return _Found(diagnose.not_listed(model, models.near(model, ids)), "note")

    # --- 9: the chat ---

    async def _chat(self) -> _Found:
        model = str(self.job.endpoint.model)
        self.streamed = self._opened.target.stream is True
        try:
            try:
                return self._answered(await self._say(model, streamed=self.streamed))
            except EndpointError as error:
                if error.remedy != "stream" or self.streamed:
                    raise
                refusal = error
            self.streamed = True
            found = self._answered(await self._say(model, streamed=True))
        except EndpointError as error:
            return self._no_chat(error, model)
        words = f"Only streamed answers come ({refusal.message}); a run finds that out by itself, or set stream = true."
        return _Found(found.detail, "note", words)

    async def _say(self, model: str, *, streamed: bool) -> Response:
        timeout_s = _LANE_TIMEOUT_S if self.job.endpoint.lane == "batch" else _CHAT_TIMEOUT_S
        body = self._body(model, streamed=streamed)
        if streamed:
            del body["stream"]  # the client says it, as it does in a run
        data = json.dumps(body, ensure_ascii=False).encode()
        async with self._opened.client(timeout_s=timeout_s, stream=streamed) as client:
            return await client.chat(Request(data, "", list(_MESSAGES), model))

    def _body(self, model: str, *, streamed: bool) -> dict[str, Any]:
        return {"model": model, "messages": _MESSAGES, "stream": streamed}

    def _answered(self, response: Response) -> _Found:
        text = response.text or ""
        asked, usage = self.job.endpoint.model, response.usage
        self.answer = {
            "text": self._hide(text),
            "reasoning": response.reasoning is not None,
            "model": response.model,
            "finish_reason": response.finish_reason,
            "usage": usage and usage.as_record(),
            "warnings": list(response.warnings),
            "streamed": self.streamed,
        }
        short = " ".join(text.split())
        shown = short if len(short) <= _SHOWN_TEXT else short[:_SHOWN_TEXT] + "…"
        facts = [f"answer {shown!r}" if text else "an answer without text"]
        facts.append(f"{usage.prompt_tokens} + {usage.completion_tokens} tokens" if usage else "no token counts")
        if response.model and response.model != asked:
            facts.append(f"answered by {response.model}")
        if response.reasoning is not None:
            facts.append("with reasoning")
        facts += [f"warning {warning}" for warning in response.warnings if warning != "no_usage"]
        return _Found(", ".join(facts))

    def _no_chat(self, error: EndpointError, model: str) -> _Found:
        if error.kind is ErrorKind.TRUNCATED:
            words = "The endpoint works; a run counts such answers as truncated: set max_tokens in [params]."
            return _Found(error.message, "note", words)
        if diagnose.is_about_the_account(error):
            raise _FailedError(error.message, *self._refused(error), *self._model_too(error, model)) from error
        ids = self.listed.ids if self.listed and self.listed.ids else None
        meant = models.near(model, ids) if ids and model not in ids else []
        advice = diagnose.no_chat(error, model, meant, is_listed=None if ids is None else model in ids)
        raise _FailedError(error.message, *advice) from error

    def _model_too(self, error: EndpointError, model: str) -> list[str]:
        """Name near ids where a refusal may be about the model."""
        ids = self.listed.ids if self.listed else []
        if error.kind is not ErrorKind.PERMISSION or not ids or model in ids:
            return []
        return [diagnose.not_listed(model, models.near(model, ids))]

    # --- the ending ---

    def _curl(self) -> str | None:
        """Write the chat as a curl command; None where the settings do not tell where it would go."""
        if self.endpoint is None:
            return None
        body = self._body(self.job.endpoint.model or PLACEHOLDER_MODEL, streamed=self.streamed)
        url = reach.wire_url(self.endpoint.base_url, self.endpoint.target.path)
        route = self.job.endpoint
        return self._hide(curl_of(
            url, body, self.source, direct=bool(self.proxies), proxy=route.proxy and without_password(route.proxy),
            ca_file=route.ca_file,
        ))  # fmt: skip
