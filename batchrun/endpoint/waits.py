"""How long the server asked to wait, from the headers of its answer."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: No server makes an item wait longer than this in silence.
MAX_WAIT_S = 300.0


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Give the seconds to wait that the headers ask for, at most `MAX_WAIT_S`; None if they ask for nothing usable.

    Read are `retry-after-ms` (OpenAI, Azure) and `Retry-After` as seconds or as an HTTP date (RFC 9110, 10.2.3).
    Zero, negative, past and unreadable values count as nothing: the caller's own back-off applies.
    `now` is the wall-clock time against which dates count.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None and milliseconds > 0:
        return _bounded(milliseconds / 1000)
    text = headers.get("retry-after")
    if text is None:
        return None
    seconds = _number(text)
    if seconds is None:
        seconds = _until(text, headers, now)
    return None if seconds is None else _bounded(seconds)


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
