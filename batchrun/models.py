"""The model ids that a key can see, as the endpoint lists them."""

from __future__ import annotations

import asyncio
import datetime
import difflib
import json
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from batchrun.endpoint.answers import parsed
from batchrun.endpoint.client import Client
from batchrun.endpoint.reach import place_of
from batchrun.endpoint.target import target_of
from batchrun.job import JobError, endpoint_job
from batchrun.records import ADVICE, RUN_KINDS, EndpointError, ErrorKind
from batchrun.rehearsal import embedded_simulator
from batchrun.settings import environment, read_key, resolve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from pathlib import Path

    from batchrun.endpoint.target import Target
    from batchrun.job import Job
    from batchrun.records import Provider

MODELS_PATH = "/models"
#: The list has so long, in seconds; the job's `attempt_timeout` counts if it is shorter.
LIST_TIMEOUT_S = 30.0
#: Statuses of a path that is not there.
_ABSENT = (404, 405, 501)
_LIST_KEYS = ("data", "models", "result", "items", "list")
_ID_KEYS = ("id", "name", "model", "model_id", "model_name")
_OWNER_KEYS = ("owned_by", "owner", "organization", "publisher")
_CONTEXT_KEYS = (
    "context_length", "max_model_len", "context_window", "max_context_length", "context_size", "max_input_tokens",
)  # fmt: skip
_FIRST_TIME, _LAST_TIME = 946_684_800, 4_102_444_800  # the years 2000 to 2099, in seconds
_MAX_FACT = 60
_NEAR = 5
#: Similarity from 0 to 1 from which on an id may have been meant; below, everything resembles everything.
_SIMILAR = 0.6


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the list: its id, and the entry as the provider sent it (None where that was the id alone)."""

    id: str
    raw: Mapping[str, Any] | None = None

    def facts(self) -> list[str]:
        """Say what the provider says of it: owner, date (UTC), context length in tokens, then all else, compactly."""
        raw = dict(self.raw or {})
        raw.pop("object", None)
        for key in _ID_KEYS:
            if raw.get(key) == self.id:
                del raw[key]
        facts = []
        owner = next((key for key in _OWNER_KEYS if raw.get(key) and isinstance(raw[key], str)), None)
        if owner:
            facts.append(f"owner {raw.pop(owner)}")
        created = raw.get("created")
        if isinstance(created, int | float) and _FIRST_TIME <= created < _LAST_TIME:
            del raw["created"]
            facts.append(f"created {datetime.datetime.fromtimestamp(created, datetime.UTC):%Y-%m-%d}")
        context = next((key for key in _CONTEXT_KEYS if type(raw.get(key)) is int and raw[key] > 0), None)
        if context:
            facts.append(f"context {raw.pop(context)}")
        return facts + [f"{key}={_compact(value)}" for key, value in raw.items() if value not in (None, "", [], {})]


@dataclass(frozen=True, slots=True)
class ModelList:
    """What an endpoint lists, in its order. `has_more` if it says that the list goes on; `raw` is the whole answer."""

    models: tuple[Model, ...]
    has_more: bool = False
    raw: Any = field(default=None, repr=False)

    @property
    def ids(self) -> list[str]:
        """Give the ids alone."""
        return [model.id for model in self.models]

    def as_dict(self) -> dict[str, Any]:
        """Give the ids, and the answer as it came, as JSON values."""
        entries = [model.id if model.raw is None else model.raw for model in self.models]
        return {"count": len(self.models), "has_more": self.has_more, "ids": self.ids, "models": entries}


def read_list(value: Any) -> ModelList | None:
    """Read a model list in any of its shapes; None if it is none.

    A list of objects or of strings, bare, or under `data`, `models` or the like; null there is an empty list.
    """
    entries = value
    if isinstance(value, dict):
        key = next((key for key in _LIST_KEYS if isinstance(value.get(key), list | dict)), None)
        key = key or next((key for key in _LIST_KEYS if key in value and value[key] is None), None)
        if key is None:
            return None
        entries = value[key] or []
        if isinstance(entries, dict):
            inner = read_list(entries)
            if inner is not None:
                return replace(inner, raw=value)
            # A table by id, as some gateways keep it.
            entries = [{"id": name, **one} for name, one in entries.items() if isinstance(one, dict)]
    if not isinstance(entries, list):
        return None
    models = tuple(model for entry in entries if (model := _model(entry)) is not None)
    if entries and not models:
        return None
    return ModelList(models, isinstance(value, dict) and value.get("has_more") is True, value)


def _model(entry: Any) -> Model | None:
    if isinstance(entry, str):
        return Model(entry) if entry else None
    if isinstance(entry, dict):
        name = next((entry[key] for key in _ID_KEYS if isinstance(entry.get(key), str) and entry[key]), None)
        return None if name is None else Model(name, entry)
    return None


def near(model: str, ids: Iterable[str]) -> list[str]:
    """Give up to five ids that may have been meant: other case, with or without vendor prefix, then similar ones."""
    listed = list(dict.fromkeys(ids))
    wanted, tail = model.casefold(), _tail(model)
    found = [one for one in listed if one.casefold() == wanted]
    found += [one for one in listed if _tail(one) == tail]
    spelled = {_tail(one): one for one in reversed(listed)}
    similar = difflib.get_close_matches(tail, spelled, n=_NEAR, cutoff=_SIMILAR)
    found += [spelled[one] for one in similar]
    found += [one for one in listed if len(tail) > 3 and tail in _tail(one)]  # "v3" is in everything
    return [one for one in dict.fromkeys(found) if one != model][:_NEAR]


def _tail(model: str) -> str:
    return model.rpartition("/")[2].casefold()


def _compact(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text if len(text) <= _MAX_FACT else text[: _MAX_FACT - 1] + "…"


# --- asking for it ----------------------------------------------------------------------------------------------


async def ask(client: Client) -> ModelList:
    """Ask for the list. Raises `EndpointError` with what to do if there is none, or it is refused."""
    provider = await client.fetch("GET", MODELS_PATH)
    listed = list_in(provider)
    if listed is not None:
        return listed
    error = client.error_of(provider)
    if error is None:
        words = f"HTTP {provider.status}: what came is no list of models"
        error = EndpointError(ErrorKind.INVALID_RESPONSE, words, provider=provider)
    raise error


def list_in(provider: Provider) -> ModelList | None:
    """Find the list in an answer; None if it holds none."""
    return read_list(parsed(provider)) if provider.status // 100 == 2 else None


def is_absent(error: EndpointError) -> bool:
    """Tell whether an error means that the endpoint has no model list: 404, 405, 501 or a web page."""
    status = error.provider.status if error.provider else 0
    return status in _ABSENT or (error.kind is ErrorKind.NOT_AN_API and status // 100 == 2)


def why_no_list(error: EndpointError) -> str:
    """Say why there is no list to be had, and what to do instead."""
    if is_absent(error):
        way_out = (
            "This endpoint has no model list: look into the provider's console, or try an id: batchrun check -m ID."
        )
    elif error.kind in RUN_KINDS:
        way_out = f"The list is refused. {ADVICE[error.kind]} An id can be tried without it: batchrun check -m ID."
    else:
        way_out = "There is no list to be had. batchrun check says where it fails."
    return f"{error.message}\n{way_out}"


@dataclass(frozen=True, slots=True)
class Opened:
    """An endpoint that can be asked: its base URL (of the simulated provider too), key and target."""

    base_url: str
    key: str | None = field(repr=False)
    target: Target

    def client(self, *, timeout_s: float, with_key: bool = True, at: str | None = None, stream: bool = False) -> Client:
        """Make a client of which an attempt takes at most so many seconds. Raises `ValueError` for what is no URL.

        `at` is another base URL, of the same host and port.
        """
        retry = self.target.retry
        shorter = replace(retry, attempt_timeout=min(timeout_s, retry.attempt_timeout or timeout_s))
        target = replace(self.target, retry=shorter, stream=stream)
        return Client(at or self.base_url, self.key if with_key else None, target, _unheard)


def _unheard(_words: str) -> None:
    """Take no note: what is learnt of an endpoint here is not kept."""


@asynccontextmanager
async def opened(job: Job, key: str | None, target: Target) -> AsyncIterator[Opened]:
    """Open a job's endpoint, and start the simulated provider if it asks for one. Raises `JobError`."""
    async with AsyncExitStack() as stack:
        simulator = embedded_simulator(job)
        base_url = str(job.endpoint.base_url)
        if simulator is not None:
            await stack.enter_async_context(simulator)
            base_url = simulator.base_url
        yield Opened(base_url, key, target)


async def list_models_async(path: Path | None = None, *, base_url: str | None = None) -> ModelList:
    """Ask an endpoint for its models. `path` is a job file; a base URL wins over the one in it.

    Raises `JobError` if nothing could be sent, `EndpointError` if there is no list to be had.
    """
    # A list needs no model, and may be asked for because the job has none yet, but a placeholder.
    job = endpoint_job(path, {"endpoint.base_url": base_url, "endpoint.model": "any"})
    variables = environment(job)
    job = resolve(job, variables, sends_data=False)
    target, key = target_of(job), read_key(job.endpoint, variables)
    async with opened(job, key, target) as endpoint:
        try:
            place_of(endpoint.base_url)
            client = endpoint.client(timeout_s=LIST_TIMEOUT_S)
        except ValueError as error:
            raise JobError(f"endpoint.base_url: {endpoint.base_url!r} is not a URL: {error}") from error
        async with client:
            return await ask(client)


def list_models(path: Path | None = None, *, base_url: str | None = None) -> ModelList:
    """Ask an endpoint for its models; `list_models_async` for callers with an event loop of their own."""
    return asyncio.run(list_models_async(path, base_url=base_url))
