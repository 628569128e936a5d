"""String formats → texts that have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from batchrun.simulator.source import Source


def _date(source: Source) -> str:
    return f"{2020 + source.below(6)}-{1 + source.below(12):02}-{1 + source.below(28):02}"


def _time(source: Source) -> str:
    return f"{source.below(24):02}:{source.below(60):02}:{source.below(60):02}Z"


def _date_time(source: Source) -> str:
    return f"{_date(source)}T{_time(source)}"


def _host(source: Source) -> str:
    return f"moni{source.below(1000)}.example.com"


def _email(source: Source) -> str:
    return f"moni{source.below(1000)}@example.com"


def _uri(source: Source) -> str:
    return f"https://example.com/moni/{source.below(10_000)}"


def _uuid(source: Source) -> str:
    digits = f"{source.below(1 << 60):015x}{source.below(1 << 60):015x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[12:15]}-8{digits[15:18]}-{digits[18:30]}"


def _ipv4(source: Source) -> str:
    return f"192.0.2.{source.below(256)}"


def _ipv6(source: Source) -> str:
    return f"2001:db8::{source.below(0x10000):x}"


def _duration(source: Source) -> str:
    return f"PT{1 + source.below(59)}M"


def _json_pointer(source: Source) -> str:
    return f"/moni/{source.below(100)}"


#: Every known format; texts use the names and addresses reserved for examples.
FORMATS: Mapping[str, Callable[[Source], str]] = {
    "date": _date,
    "time": _time,
    "date-time": _date_time,
    "duration": _duration,
    "hostname": _host,
    "idn-hostname": _host,
    "email": _email,
    "idn-email": _email,
    "uri": _uri,
    "url": _uri,
    "iri": _uri,
    "uri-reference": _uri,
    "iri-reference": _uri,
    "uuid": _uuid,
    "ipv4": _ipv4,
    "ipv6": _ipv6,
    "json-pointer": _json_pointer,
}
