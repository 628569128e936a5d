"""The dry run: everything but sending. Each line is read, rendered and counted; the run directory is not touched."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from batchrun.endpoint.target import target_of
from batchrun.guard import guard_of
from batchrun.items import ItemReader
from batchrun.knowledge import Knowledge
from batchrun.lines import expand_inputs
from batchrun.output import Schema
from batchrun.prompts import RequestBuilder
from batchrun.records import Failure
from batchrun.settings import environment, fill

if TYPE_CHECKING:
    from batchrun.job import Job

_PROBLEMS_SHOWN = 10
# Tokens a character, on the safe side of what DeepSeek documents: 0.6 for Chinese, 0.3 for English
# (api-docs.deepseek.com/quick_start/token_usage).
_TOKENS_PER_WIDE = 0.7
_TOKENS_PER_OTHER = 0.35


@dataclass(slots=True)
class DryRun:
    """What a dry run found; the first problems in words."""

    entries: int = 0
    ready: int = 0
    bytes: int = 0
    estimated_prompt_tokens: float = 0.0
    failures_by_kind: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    #: How the data boundary was looked after, and how many items have hits, by detector.
    scan: str = "off"
    hits: Counter[str] = field(default_factory=Counter)
    #: What it will cost and how long it will take at least, as far as the job says enough for that.
    input_cost: float | None = None
    most_output_cost: float | None = None
    currency: str = ""
    least_seconds: float | None = None

    @property
    def failures(self) -> int:
        """How many lines would be failures without being sent."""
        return self.failures_by_kind.total()

    @property
    def exit_code(self) -> int:
        """Give 0 if every line can be sent, else 3."""
        return 3 if self.failures else 0

    def as_dict(self) -> dict[str, Any]:
        """Give the findings as JSON values."""
        return {
            "dry_run": True,
            "exit_code": self.exit_code,
            "counts": {
                "items": self.entries,
                "ready": self.ready,
                "failures": self.failures,
                "failures_by_kind": dict(sorted(self.failures_by_kind.items())),
            },
            "request_bytes": self.bytes,
            "estimated_prompt_tokens": round(self.estimated_prompt_tokens),
            "forecast": {
                "input_cost": None if self.input_cost is None else round(self.input_cost, 6),
                "most_output_cost": None if self.most_output_cost is None else round(self.most_output_cost, 6),
                "currency": self.currency or None,
                "least_seconds": None if self.least_seconds is None else round(self.least_seconds, 1),
            },
            "data_boundary": {"scan": self.scan, "items_by_detector": dict(sorted(self.hits.items()))},
            "problems": self.problems,
            "warnings": self.warnings,
        }


def dry_run(job: Job, limit: int | None = None) -> DryRun:
    """Read and render every item of a job. Raises `JobError` or `InputError`; the key is not needed."""
    schema = Schema.of(job.structured)
    text = schema.text if schema else None
    variables = environment(job)
    knowledge = Knowledge(fill(job, variables), target_of(job), text, variables)
    guard = guard_of(job, text)
    builder = RequestBuilder(job, text, adapt=knowledge.compiler.adapt, guard=guard)
    templated = bool(job.prompt and job.prompt.user)
    reader = ItemReader(expand_inputs(job.input), encoding=job.encoding, templated=templated)
    found = DryRun()
    for entry in reader:
        if found.entries == limit:
            break
        found.entries += 1
        made = entry if isinstance(entry, Failure) else builder.build(entry)
        if isinstance(made, Failure):
            found.failures_by_kind[made.kind] += 1
            if len(found.problems) < _PROBLEMS_SHOWN:
                found.problems.append(made.message)
        else:
            found.ready += 1
            found.bytes += len(made.body)
            characters = len(made.body.decode())
            wide = (len(made.body) - characters) / 2  # three bytes a Chinese character in UTF-8
            found.estimated_prompt_tokens += wide * _TOKENS_PER_WIDE + (characters - wide) * _TOKENS_PER_OTHER
    _forecast(job, found)
    found.scan = job.data_boundary.scan
    if guard is not None:
        found.hits = guard.counts
    found.warnings = [*knowledge.notes, *knowledge.compiler.warnings]
    return found


def _forecast(job: Job, found: DryRun) -> None:
    """Say what a run will cost and take, from what is known without sending anything."""
    price, limits = job.price, job.limits
    if price is not None:
        found.currency = price.currency
        found.input_cost = found.estimated_prompt_tokens * price.input / 1e6
        most = job.params.get("max_tokens", job.params.get("max_completion_tokens"))
        if isinstance(most, int):
            found.most_output_cost = found.ready * most * price.output / 1e6
    minutes = [
        amount / most
        for amount, most in (
            (found.ready, limits.requests_per_minute),
            (found.estimated_prompt_tokens, limits.tokens_per_minute),
        )
        if most
    ]
    if minutes:
        found.least_seconds = 60 * max(minutes)
