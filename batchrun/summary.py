"""How a run stands and how it ended: numbers for people, for scripts and for `run.json`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from batchrun.records import ErrorKind, Usage

if TYPE_CHECKING:
    from pathlib import Path

    from batchrun.job import Price


class StopCause(Enum):
    """Why a run ended before its input did: a word, and the exit code that says so."""

    INPUT = ("input", 1)
    INPUT_UNSENT = ("input_unsent", 2)
    ENDPOINT = ("endpoint", 4)
    DAILY_LIMIT = ("daily_limit", 5)
    DEADLINE = ("deadline", 5)
    MAX_FAILURES = ("max_failures", 5)
    MAX_COST = ("max_cost", 5)
    CANARY = ("canary", 5)
    SIGINT = ("sigint", 130)
    SIGTERM = ("sigterm", 143)

    def __init__(self, word: str, exit_code: int) -> None:
        self.word = word
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a run stopped early: the cause, the endpoint's error kind if that was it, and words for people."""

    cause: StopCause
    message: str
    kind: ErrorKind | None = None


@dataclass(frozen=True, slots=True)
class InFlight:
    """An item under way: `age_s` since it was first sent, and what it is doing."""

    id: str
    age_s: float
    state: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How a run stands now.

    `total` is None while it is unknown; `done` counts what is on the disk, earlier runs' records too. After a stop
    `drain_s` is how long the calls in flight may still take.
    """

    total: int | None
    done: int
    results: int
    failures: int
    retries: int
    in_flight: int
    waiting: int
    reading: bool
    requests_per_minute: float
    tokens_per_minute: float
    eta_s: float | None
    paused_s: float
    held: bool
    outage_s: float | None
    outage: str
    drain_s: float | None
    slowest: tuple[InFlight, ...]


@dataclass(slots=True)
class Tally:
    """What this run did so far; its own requests and tokens, not those of earlier runs."""

    attempts: int = 0
    retries: int = 0
    reasks: int = 0
    trials: int = 0
    hedges: int = 0
    failed_attempts: Counter[str] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended. Counts are of the run directory; tally, tokens and times of this run.

    `pending` is None where the rest of the input could not be counted (standard input that was not read to its end).
    `interrupted` are the calls whose end nobody knows, perhaps billed, that an earlier run left when it was ended by
    force, `broken_off` those that this run left, `interrupted_ever` those of all runs in this folder.
    """

    output: Path
    results: int
    failures: int
    pending: int | None
    failures_by_kind: dict[str, int]
    results_now: int
    failures_now: int
    tally: Tally
    started_at: str
    finished_at: str
    duration_s: float
    simulated: bool
    stop: Stop | None = None
    cost: float | None = None
    currency: str | None = None
    warnings: tuple[str, ...] = ()
    interrupted: int = 0
    broken_off: int = 0
    interrupted_ever: int = 0
    canary: dict[str, Any] | None = None

    @property
    def results_path(self) -> Path:
        """Where the results are."""
        return self.output / "results.jsonl"

    @property
    def failures_path(self) -> Path:
        """Where the failure queue is."""
        return self.output / "failures.jsonl"

    @property
    def exit_code(self) -> int:
        """Give the exit code: 0 all results, 3 some failures, else the one of the stop."""
        if self.stop is not None:
            return self.stop.cause.exit_code
        return 3 if self.failures else 0

    def as_dict(self) -> dict[str, Any]:
        """Give the summary as JSON values: what `--json` prints and `run.json` keeps."""
        usage = self.tally.usage
        items = None if self.pending is None else self.results + self.failures + self.pending
        return {
            "exit_code": self.exit_code,
            "stopped": self.stop and {
                "cause": self.stop.cause.word, "kind": self.stop.kind, "message": self.stop.message,
            },
            "simulated": self.simulated,
            "counts": {
                "items": items,
                "results": self.results,
                "failures": self.failures,
                "pending": self.pending,
                "failures_by_kind": dict(sorted(self.failures_by_kind.items())),
                "results_this_run": self.results_now,
                "failures_this_run": self.failures_now,
            },
            "requests": {
                "attempts": self.tally.attempts,
                "retries": self.tally.retries,
                "reasks": self.tally.reasks,
                "trials": self.tally.trials,
                "hedges": self.tally.hedges,
                "failed_attempts_by_kind": dict(sorted(self.tally.failed_attempts.items())),
                "rate_limited_by_cause": dict(sorted(self.tally.causes.items())),
            },
            "interrupted_calls": {
                "found": self.interrupted,
                "left": self.broken_off,
                "ever": self.interrupted_ever,
            },
            "tokens": {
                "prompt": usage.prompt_tokens,
                "cached_prompt": usage.cached_tokens,
                "completion": usage.completion_tokens,
                "reasoning": usage.reasoning_tokens,
                "total": usage.total_tokens,
            },
            "cost": None if self.cost is None else {"amount": round(self.cost, 6), "currency": self.currency},
            "canary": self.canary,
            "timing": {
                "started_at": self.started_at,
                "finished_at": self.finished_at,
                "duration_s": round(self.duration_s, 3),
            },
            "files": {
                "results": str(self.results_path),
                "failures": str(self.failures_path),
                "manifest": str(self.output / "run.json"),
            },
            "warnings": list(self.warnings),
        }  # fmt: skip


def cost_of(usage: Usage, price: Price) -> float:
    """Give what tokens cost, in the price's currency; cached input counts as input where it has no price."""
    cached_price = price.input if price.cached_input is None else price.cached_input
    fresh = max(0, usage.prompt_tokens - usage.cached_tokens)
    parts = (fresh * price.input, usage.cached_tokens * cached_price, usage.completion_tokens * price.output)
    return sum(parts) / 1_000_000
