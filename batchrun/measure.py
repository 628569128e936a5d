"""Probing the endpoint of a job: the client, the measurement, and the profile that is kept of it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from batchrun.endpoint.client import Client
from batchrun.endpoint.profile import Fact, Profile, ProfileError, Verdict, load_profile, profile_path, save_profile
from batchrun.endpoint.target import target_of
from batchrun.job import JobError
from batchrun.knowledge import endpoint_key
from batchrun.probe import Measured, Probe, obeyed
from batchrun.probing.questions import MAX_TOKENS, ROWS, STRUCTURES
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
    """What was measured, where the profile is, and what became of saving it (`trouble` None: saved).

    `kept` names the rows that stay as they were measured before, because their calls failed this time.
    """

    measured: Measured
    path: Path | None
    trouble: str | None
    kept: tuple[str, ...] = ()


def checked(job: Job, *, sends: bool = True) -> Job:
    """Fill a job's endpoint from the environment and check that it can be probed. Raises `JobError`."""
    job = resolve(job, environment(job), sends_data=sends)
    if job.endpoint.model is None:
        raise JobError("no model: set endpoint.model in the job, give -m ID, or set OPENAI_MODEL")
    return job


async def probe(
    job: Job, *, max_tokens: int = MAX_TOKENS, progress: Callable[[int, int], None] = lambda _done, _most: None,
    waiting: Callable[[float, str], None] = lambda _seconds, _why: None, save: bool = True,
) -> Probed:  # fmt: skip
    """Measure the model of a job's endpoint and keep the profile, in place of an older one.

    What could not be measured because the endpoint was in trouble stays as it was known; with much of it, nothing is
    saved.

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
            client, target.dialect, endpoint_key(job), model, path=target.path, max_tokens=max_tokens,
            progress=progress, waiting=waiting, retry=target.retry,
        ).measure()  # fmt: skip
    return Probed(measured, path, *(_save(measured, path) if save else (None, ())))


def _save(measured: Measured, path: Path | None) -> tuple[str | None, tuple[str, ...]]:
    """Save a profile; gives words if that failed, and the rows that are kept from before."""
    if not measured.is_usable:
        return (
            f"{len(measured.given_up)} rows were given up because the endpoint was in trouble: nothing was saved, "
            "and a profile from before stays; probe again later"
        ), ()
    profile = measured.profile
    kept: tuple[str, ...] = ()
    try:
        before = load_profile(path)
    except ProfileError:
        before = None
    if before is not None:
        profile, kept = _merged(profile, before, measured.unmeasured)
    try:
        save_profile(profile, path)
    except ProfileError as error:
        return str(error), ()
    return None, kept


def _merged(profile: Profile, before: Profile, unmeasured: set[str]) -> tuple[Profile, tuple[str, ...]]:
    """Give a new profile with what an older one knows better, and the rows of which that is so.

    These are the lessons of runs about other values of parameters, and the rows whose calls failed this time.
    """
    good = {
        name: cell for name, cell in before.cells.items()
        if name in unmeasured and cell.verdict is not Verdict.UNCLEAR and before.simulated is profile.simulated
    }  # fmt: skip
    if profile.thinks is None and before.thinks is not None and before.simulated is profile.simulated:
        # What was measured in the default state was measured in the state that this was known to be.
        refiled = (replace(one, thinking=None if one.name == "stream" else before.thinks) for one in profile.facts)
        profile = replace(profile, thinks=before.thinks, facts=tuple(refiled))
    switches = {
        state: switch for state, switch in before.switches.items()
        if f"thinking_{state}" in good and before.thinks is profile.thinks
    }  # fmt: skip
    cells = {**profile.cells, **good}
    facts = [
        fact for fact in before.facts
        if (fact.by == "run" and fact.name != "stream") or (fact.by == "probe" and _row_of(fact, before) in good)
    ]  # fmt: skip
    kept = [fact for fact in facts if profile.fact(fact.name, fact.value, thinking=fact.thinking) is None]
    merged = replace(
        profile, facts=(*kept, *profile.facts), learned_at=before.learned_at, cells=cells,
        switches={**switches, **profile.switches}, max_tokens=obeyed(cells),
    )  # fmt: skip
    return merged, tuple(row.name for row in ROWS if row.name in good)


def _row_of(fact: Fact, profile: Profile) -> str:
    """Give the row of the matrix from which a probe made a fact."""
    is_switched = fact.name in STRUCTURES and fact.thinking is not None and fact.thinking is not profile.thinks
    return f"{fact.name}_switched" if is_switched else fact.name
