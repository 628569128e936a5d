"""What is known of a job's endpoint before a run, as a compiler of its requests, and what is kept of it afterwards."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from batchrun.endpoint.compile import Compiler
from batchrun.endpoint.profile import (
    Fact,
    Profile,
    ProfileError,
    Verdict,
    data_home,
    load_profile,
    profile_path,
    shortened,
    update_profile,
)
from batchrun.job import JobError
from batchrun.pace import Found
from batchrun.prompts import in_words, with_schema

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from batchrun.endpoint.target import Target
    from batchrun.job import Job

_DAY_S = 86400.0


def endpoint_key(job: Job) -> str:
    """Give what a job's endpoint is known by: its base URL, or the name of the simulated provider inside the run."""
    endpoint = job.endpoint
    return f"simulate://{endpoint.simulate}" if endpoint.simulate else str(endpoint.base_url)


class Knowledge:
    """Finds the profile of a job's endpoint and model, makes the compiler of its requests, and keeps what was learned.

    `notes` are for people: which profile counts, how old it is, or why there is none. `params` win over those of the
    job. Raises `JobError` as `Compiler` does.
    """

    def __init__(
        self, job: Job, target: Target, schema: bytes | None, variables: Mapping[str, str],
        params: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self._job = job
        self._dialect = target.dialect
        self._variables = variables
        self.notes: list[str] = []
        self.path: Path | None = None
        #: Whether the profile is older than the job wants it.
        self.is_old = False
        self.profile = self._find(variables) if job.endpoint.profile == "auto" else None
        words = in_words(schema)
        try:
            self.compiler = Compiler(
                job, target.dialect, self.profile, schema, {**job.params, **(params or {})},
                lambda messages: with_schema(messages, words) if words else messages,
            )  # fmt: skip
        except JobError as error:
            # Whoever is refused by a profile has to know which, and how old it is.
            raise JobError([*error.problems, *self.notes]) from error

    def _find(self, variables: Mapping[str, str]) -> Profile | None:
        job = self._job
        if job.endpoint.model is None:
            return None
        self.path = profile_path(endpoint_key(job), job.endpoint.model, variables)
        try:
            profile = load_profile(self.path)
        except ProfileError as error:
            self.notes.append(str(error))
            return None
        if profile is None:
            return None
        self.notes.append(f"the profile of {profile.measured_at} counts: {self.path}")
        age = profile.age_s()
        if age is None or age > job.endpoint.profile_max_age:
            days = "of an unknown age" if age is None else f"{age / _DAY_S:.0f} days old"
            self.notes.append(
                f"the profile is {days} (endpoint.profile_max_age is {job.endpoint.profile_max_age / _DAY_S:g} days); "
                "measure again: batchrun probe"
            )
            self.is_old = True
        return profile

    @property
    def is_enough(self) -> bool:
        """Tell whether requests as the job asks for them are known to be taken, so that none has to go first."""
        return not self.is_old and self.compiler.is_known()

    @property
    def streams(self) -> dict[str, bool]:
        """Give by model whether its answers have to be streamed, as far as the profile knows."""
        profile = self.profile
        if profile is None:
            return {}
        for streamed in (True, False):
            fact = profile.fact("stream", not streamed, thinking=None)
            if fact is not None and fact.verdict is Verdict.REJECTED:
                return {profile.model: streamed}
        return {}

    @property
    def found(self) -> Found | None:
        """Give what earlier runs found of the endpoint's limits; None if nothing is known."""
        limits = self.profile.limits if self.profile else {}
        if not limits:
            return None
        concurrency = limits.get("concurrency")
        return Found(
            None if concurrency is None else int(concurrency), limits.get("requests_per_minute"),
            limits.get("tokens_per_minute"),
        )  # fmt: skip

    def scope_path(self, name: str) -> Path:
        """Give the file by which the runs of a scope share their limits. Raises `JobError` if there is no place."""
        home = data_home(self._variables)
        if home is None:
            raise JobError("limits.scope needs a place for what runs share: this user has no home, set XDG_DATA_HOME")
        return home.parent / "scopes" / name

    def as_dict(self) -> dict[str, Any]:
        """Give as JSON values which profile counts, how JSON is asked for now, and what this run learned."""
        profile = self.profile
        return {
            "path": str(self.path) if profile and self.path else None,
            "measured_at": profile.measured_at if profile else None,
            "structured_mode": self.compiler.asked_by(),
            "learned": [
                {"name": fact.name, "value": fact.value, "verdict": fact.verdict.value, "words": fact.words}
                for fact in self.compiler.lessons
            ],
        }

    def keep(self, transports: Mapping[str, tuple[bool, str]], found: Found, *, simulated: bool) -> str | None:
        """Save what a run learned; `transports` tells by model which one was refused, with the provider's words.

        `found` is what it found of the limits; what it did not come to stays as it was.

        A simulated provider inside of the run is gone with it, and nothing of it is kept. Gives words if that failed.
        """
        job, compiler = self._job, self.compiler
        lessons, model = list(compiler.lessons), job.endpoint.model
        if job.endpoint.simulate or model is None or job.endpoint.profile == "off":
            return None
        if model in transports:
            streamed, words = transports[model]
            lessons.append(Fact("stream", streamed, Verdict.REJECTED, shortened(words)))
        obeyed = compiler.obeyed_bound
        before = self.profile.limits if self.profile else {}
        limits = {**before, **{name: value for name, value in asdict(found).items() if value is not None}}
        if not lessons and limits == before and obeyed == (self.profile.max_tokens if self.profile else None):
            return None

        def learned(before: Profile | None) -> Profile:
            before = before or Profile(endpoint_key(job), model, self._dialect.name)
            more = before.with_facts(lessons)
            return replace(
                more, simulated=simulated or before.simulated, max_tokens=obeyed or before.max_tokens,
                limits={**before.limits, **limits},
            )  # fmt: skip

        try:
            update_profile(self.path, learned)
        except ProfileError as error:
            return str(error)
        return None
