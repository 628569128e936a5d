from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.endpoint.answers import kept_headers
from batchrun.endpoint.dialect_files import unknown
from batchrun.endpoint.waits import MAX_WAIT_S, asked_wait

WAITS = unknown().wait
NOW = datetime(2026, 11, 22, 10, 0, 0, tzinfo=UTC)


def http_date(seconds: float) -> str:
    return format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 7 "}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "0", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "0"}, None),
        ({"retry-after": "0.0"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "-inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "5, 5"}, None),
        ({"retry-after": "5 seconds"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after-ms": "nan"}, None),
        ({"retry-after": "1e3"}, MAX_WAIT_S),
        ({"retry-after": "inf"}, MAX_WAIT_S),
        ({"retry-after": "1e20"}, MAX_WAIT_S),
        ({"retry-after": "9" * 400}, MAX_WAIT_S),
        ({"retry-after": http_date(30)}, 30.0),
        ({"retry-after": http_date(-30)}, None),
        ({"retry-after": http_date(0)}, None),
        ({"retry-after": http_date(86400)}, MAX_WAIT_S),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:20 -0000"}, None),
        ({"retry-after": "Sun, 99 Nov 2026 10:00:20 GMT"}, None),
        ({"retry-after": "Sun, 22 Nov 99999999 10:00:20 GMT"}, None),
    ],
)  # fmt: skip
def test_the_wait_that_the_headers_ask_for(headers: dict[str, str], seconds: float | None) -> None:
    assert asked_wait(headers, "", WAITS, NOW) == seconds


def test_a_date_counts_from_the_servers_own_clock_when_it_sent_its_date() -> None:
    # Both dates are long past here; by the server's clock there are twenty seconds between them.
    headers = {"retry-after": http_date(20 - 1e8), "date": http_date(-1e8)}
    assert asked_wait(headers, "", WAITS) == 20.0


def test_a_date_without_the_servers_date_counts_from_now() -> None:
    until = datetime.now(UTC) + timedelta(seconds=100)
    wait = asked_wait({"retry-after": format_datetime(until, usegmt=True)}, "", WAITS)
    assert wait is not None
    assert 90 < wait <= 100


def test_the_headers_that_a_record_keeps_hold_what_a_date_counts_from() -> None:
    kept = kept_headers({"Retry-After": http_date(20 - 1e8), "Date": http_date(-1e8), "Set-Cookie": "a=b"})
    assert asked_wait(kept, "", WAITS) == 20.0
    assert "set-cookie" not in kept
    assert "date" not in kept_headers({"Date": http_date(0), "X-A": "1"})


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "date"]), st.text(max_size=40)))
def test_no_header_makes_it_fail_or_gives_a_wait_that_is_none(headers: dict[str, str]) -> None:
    wait = asked_wait(headers, "", WAITS)
    assert wait is None or 0 < wait <= MAX_WAIT_S
