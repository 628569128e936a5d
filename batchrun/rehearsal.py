"""The simulated provider inside a run, as the job describes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchrun.job import JobError

if TYPE_CHECKING:
    from batchrun.job import Job
    from batchrun.simulator import Simulator


def embedded_simulator(job: Job) -> Simulator | None:
    """Make the simulated provider that a job asks for, None if it asks for none. Raises `JobError`."""
    if not job.endpoint.simulate:
        return None
    from batchrun.simulator import SettingsError, Simulator, SimulatorSettings

    options = job.simulator
    keyword: dict[str, Any] = (
        {} if options.moderation_keyword is None else {"moderation_keyword": options.moderation_keyword}
    )
    try:
        settings = SimulatorSettings(
            dialect=job.endpoint.simulate, latency_s=options.latency, jitter_s=options.jitter,
            requests_per_minute=options.requests_per_minute, tokens_per_minute=options.tokens_per_minute,
            max_concurrency=options.max_concurrency, faults=options.faults, seed=options.seed, **keyword,
        )  # fmt: skip
    except SettingsError as error:
        raise JobError(f"simulated provider: {error}") from error
    return Simulator(settings)
