"""What an answer says about pace: how long to wait, and what is left of a limit."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from batchrun import expect
from batchrun.records import QuotaLevel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from batchrun.endpoint.dialect import QuotaRow, WaitRow

#: No server makes an item wait longer than this in silence.
MAX_WAIT_S = 300.0
#: A limit that is renewed later than this is not one by the minute.
_LONGEST_RESET_S = 90.0


def asked_wait(
    headers: Mapping[str, str], message: str, rows: Iterable[WaitRow], now: datetime | None = None
) -> float | None:
    """Give the seconds to wait that an answer asks for, at most `MAX_WAIT_S`; None if it asks for nothing usable.

    Headers of the rows count first, then `Retry-After` as seconds or as an HTTP date (RFC 9110, 10.2.3), then the
    message. Zero, negative, past and unreadable values count as nothing: the caller's own back-off applies.
    `now` is the wall-clock time against which dates count.
    """
    in_message = None
    for row in rows:
        if row.header is not None:
            seconds = _in_unit(headers.get(row.header), row.unit)
            if seconds is not None and seconds > 0:
                return _bounded(seconds)
        elif row.message and in_message is None:
            found = row.message.search(message)
            in_message = _in_unit(found.group(1), row.unit) if found else None
    seconds = _retry_after(headers, now)
    if seconds is not None and seconds > 0:
        return _bounded(seconds)
    return None if in_message is None else _bounded(in_message)


def quota_levels(headers: Mapping[str, str], rows: Iterable[QuotaRow]) -> list[QuotaLevel]:
    """Give what an answer's headers say of its limits by the minute; nothing of what is unreadable or not positive."""
    found: dict[str, QuotaLevel] = {}
    for row in rows:
        limit = _number(headers.get(row.limit))
        if limit is None or limit <= 0 or math.isinf(limit) or row.what in found:
            continue
        reset = _in_unit(headers.get(row.reset), row.unit) if row.reset else None
        if reset is not None and reset > _LONGEST_RESET_S:
            continue
        left = _number(headers.get(row.remaining)) if row.remaining else None
        found[row.what] = QuotaLevel(row.what, limit, left if left is not None and left >= 0 else None)
    return list(found.values())


def _in_unit(text: str | None, unit: str) -> float | None:
    if unit == "duration":
        try:
            return expect.duration(text)
        except ValueError:
            return None
    number = _number(text)
    return number if number is None or unit == "s" else number / 1000


def _retry_after(headers: Mapping[str, str], now: datetime | None) -> float | None:
    text = headers.get("retry-after")
    if text is None:
        return None
    seconds = _number(text)
    return _until(text, headers, now) if seconds is None else seconds


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return None if math.isnan(number) else number


def _until(text: str, headers: Mapping[str, str], now: datetime | None) -> float | None:
    """Give the seconds until an HTTP date, by the server's own clock if it sent its Date."""
    try:
        until = parsedate_to_datetime(text)
        at = now or (parsedate_to_datetime(headers["date"]) if "date" in headers else datetime.now(UTC))
        return (until - at).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return None


def _bounded(seconds: float) -> float | None:
    return min(seconds, MAX_WAIT_S) if seconds > 0 else None
