"""The target of a run: where its requests go, in which dialect, over which lane, with which times."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from batchrun.endpoint.dialect import Dialect
from batchrun.endpoint.recognise import address_of, choose
from batchrun.endpoint.route import Route, route_of
from batchrun.job import ATTEMPT_TIMEOUT_S, ITEM_TIMEOUT_S, JobError
from batchrun.records import ErrorKind

if TYPE_CHECKING:
    from batchrun.job import Job, Retry
    from batchrun.records import EndpointError


@dataclass(frozen=True, slots=True)
class Target:
    """What the job and its dialect say of an endpoint. `retry` has its times filled in."""

    dialect: Dialect
    path: str
    stream: Literal["auto"] | bool
    retry: Retry
    route: Route = field(default_factory=Route)


def target_of(job: Job) -> Target:
    """Find the dialect of a job's endpoint and what its lane changes. Raises `JobError`."""
    endpoint = job.endpoint
    dialect = choose(endpoint.dialect, endpoint.base_url, endpoint.simulate)
    path, stream = "/chat/completions", endpoint.stream
    attempt_s, item_s = ATTEMPT_TIMEOUT_S, ITEM_TIMEOUT_S
    if endpoint.lane == "batch":
        if not dialect.lane:
            raise JobError(
                f'endpoint.lane = "batch": {dialect.title} has no synchronous batch lane that is known here; '
                "a dialect file of your own can name one ([[lane]])"
            )
        if stream is True:
            raise JobError(
                'endpoint.stream = true: the batch lane does not stream; remove it or endpoint.lane = "batch"'
            )
        address = address_of(endpoint.base_url or "")
        lane = next((row for row in dialect.lane if row.base_url.search(address)), None)
        # A simulated provider stands on this machine, whatever the lane wants.
        if lane is None and not endpoint.simulate:
            expected = " or ".join(row.expected for row in dialect.lane)
            raise JobError(f'endpoint.base_url: lane = "batch" of {dialect.title} wants {expected}')
        lane = lane or dialect.lane[0]
        path, stream = lane.path, False
        attempt_s, item_s = lane.attempt_timeout, lane.item_timeout
    retry = replace(
        job.retry,
        attempt_timeout=job.retry.attempt_timeout or attempt_s,
        item_timeout=job.retry.item_timeout or item_s,
    )
    return Target(dialect, path, stream, retry, route_of(endpoint))


def hint(dialect: Dialect, error: EndpointError, base_url: str, *, streamed: bool) -> str | None:
    """Give the hint that fits an error at this base URL, None if there is none."""
    address = address_of(base_url)
    is_documented = base_url in {row.url for row in dialect.base_url}
    for row in dialect.mistake:
        if (
            row.kind == error.kind
            and not (row.base_url and (is_documented or not row.base_url.search(address)))
            and not (row.message and not row.message.search(error.message))
        ):
            return row.hint
    bounds = {row.what: row.value for row in reversed(dialect.bound)}
    status = error.provider.status if error.provider else None
    if status == 413 and "request_bytes" in bounds:
        return f"{dialect.title} takes requests of {bounds['request_bytes'] / 2**20:g} MiB at most"
    if error.kind is ErrorKind.TIMEOUT and not streamed and "response_s" in bounds:
        return f"{dialect.title} cuts answers that are not streamed at {bounds['response_s']:g} s"
    return None
