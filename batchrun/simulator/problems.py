"""Everything a provider refuses a call for, and the exception that says so."""

from __future__ import annotations

from enum import StrEnum


class Problem(StrEnum):
    """Everything a provider refuses a call for."""

    BAD_JSON = "bad_json"
    BAD_REQUEST = "bad_request"
    MISSING_PARAMETER = "missing_parameter"
    INVALID_TYPE = "invalid_type"
    INVALID_VALUE = "invalid_value"
    STREAM_ONLY = "stream_only"
    CONTEXT_LENGTH = "context_length"
    CONTENT_FILTER = "content_filter"
    NO_KEY = "no_key"
    WRONG_KEY = "wrong_key"
    PAYMENT = "payment"
    QUOTA = "quota"  # money, as it runs out in the middle of a run
    FORBIDDEN = "forbidden"
    MODEL_NOT_FOUND = "model_not_found"
    UNKNOWN_PATH = "unknown_path"
    WRONG_METHOD = "wrong_method"
    NOT_IMPLEMENTED = "not_implemented"
    TIMEOUT = "timeout"
    CONFLICT = "conflict"
    BODY_TOO_LARGE = "body_too_large"
    TOO_EARLY = "too_early"
    REQUEST_RATE = "request_rate"
    TOKEN_RATE = "token_rate"  # noqa: S105
    CONCURRENCY = "concurrency"
    BALANCE_CONCURRENCY = "balance_concurrency"  # fewer calls at once, since the balance is low
    BURST = "burst"
    THROTTLED = "throttled"  # tokens again, in words that sound like money
    DAILY_LIMIT = "daily_limit"
    OVERLOADED = "overloaded"
    SERVER = "server"
    BAD_GATEWAY = "bad_gateway"
    UNAVAILABLE = "unavailable"


class Refused(Exception):
    """The request is refused: with which problem, for which parameter, and the facts of the message.

    `retry_after_s` is the time in seconds after which it may be sent again, None when that would not help.
    """

    def __init__(
        self,
        problem: Problem,
        param: str | None = None,
        *,
        retry_after_s: float | None = None,
        **facts: object,
    ) -> None:
        super().__init__(problem, param, facts)
        self.problem = problem
        self.param = param
        self.retry_after_s = retry_after_s
        self.facts = facts
