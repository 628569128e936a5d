"""Probing the endpoint of a job: the client, the measurement, and the profile that is kept of it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from batchrun.endpoint.client import Client
from batchrun.endpoint.profile import ProfileError, load_profile, profile_path, save_profile
from batchrun.endpoint.target import target_of
from batchrun.job import JobError
from batchrun.knowledge import endpoint_key
from batchrun.probe import MAX_TOKENS, Measured, Probe
from batchrun.rehearsal import embedded_simulator
from batchrun.settings import environment, read_key, resolve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from batchrun.job import Job

#: One call of a probe may take so long, in seconds.
_ATTEMPT_S = 180.0


@dataclass(frozen=True, slots=True)
class Probed:
    """What was measured, where the profile is, and what became of saving it (None: saved)."""

    measured: Measured
    path: Path | None
    trouble: str | None


def checked(job: Job, *, sends: bool = True) -> Job:
    """Fill a job's endpoint from the environment and check that it can be probed. Raises `JobError`."""
    job = resolve(job, environment(job), sends_data=sends)
    if job.endpoint.model is None:
        raise JobError("no model: set endpoint.model in the job, give -m ID, or set OPENAI_MODEL")
    return job


async def probe(
    job: Job, *, max_tokens: int = MAX_TOKENS, progress: Callable[[int, int], None] = lambda _done, _most: None,
    save: bool = True,
) -> Probed:  # fmt: skip
    """Measure the model of a job's endpoint and keep the profile, in place of an older one.

    Raises `JobError`, and `ProbeError` where the endpoint says stop.
    """
    variables = environment(job)
    job = checked(job)
    target = target_of(job)
    times = replace(target.retry, attempt_timeout=min(_ATTEMPT_S, target.retry.attempt_timeout or _ATTEMPT_S))
    target = replace(target, retry=times, stream=False)
    model = str(job.endpoint.model)
    path = profile_path(endpoint_key(job), model, variables)
    async with AsyncExitStack() as stack:
        simulator = embedded_simulator(job)
        base_url = str(job.endpoint.base_url)
        if simulator is not None:
            await stack.enter_async_context(simulator)
            base_url = str(simulator.base_url)
        key = read_key(job.endpoint, variables)
        client = await stack.enter_async_context(Client(base_url, key, target, lambda _words: None))
        measured = await Probe(
            client, target.dialect, endpoint_key(job), model, path=target.path, max_tokens=max_tokens, progress=progress
        ).measure()
    return Probed(measured, path, _save(measured, path) if save else None)


def _save(measured: Measured, path: Path | None) -> str | None:
    """Save a profile; what runs learned of other values of parameters stays with it."""
    profile = measured.profile
    try:
        before = load_profile(path)
    except ProfileError:
        before = None
    if before is not None:
        learned = replace(before, facts=tuple(fact for fact in before.facts if fact.by == "run"))
        kept = [
            fact for fact in learned.facts
            if fact.name != "stream" and profile.fact(fact.name, fact.value, thinking=fact.thinking) is None
        ]  # fmt: skip
        profile = replace(profile, facts=(*kept, *profile.facts), learned_at=before.learned_at)
    try:
        save_profile(profile, path)
    except ProfileError as error:
        return str(error)
    return None
