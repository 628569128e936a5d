"""Two clocks: that of a schedule's time zone, and that of the machine, which most crons go by."""

from __future__ import annotations

import datetime
import zoneinfo
from itertools import product
from pathlib import Path

from batchrun.cron import Cron, parse

#: How far ahead clocks are compared: rules are published a year or two ahead, if that.
_YEARS = 3
_DAY_MINUTES = 24 * 60
LOCALTIME = Path("/etc/localtime")


def machine_clock(localtime: Path = LOCALTIME) -> zoneinfo.ZoneInfo:
    """Give the zone that cron goes by; UTC where the machine names none. The variable TZ is the shell's alone."""
    try:
        with localtime.open("rb") as file:
            _, _, name = str(localtime.resolve()).partition("zoneinfo/")
            return zoneinfo.ZoneInfo.from_file(file, key=name or None)
    except (OSError, ValueError):
        return zoneinfo.ZoneInfo("UTC")


def name_of(clock: zoneinfo.ZoneInfo) -> str:
    """Name a zone for people."""
    return clock.key or "the machine's zone"


def difference(clock: datetime.tzinfo, other: datetime.tzinfo, start: datetime.datetime) -> int | None:
    """Give the minutes by which `other` is ahead of `clock`, None where that changes within three years of `start`.

    Seconds in an offset, which no zone has today, count as a change.
    """
    found = set()
    moment = start.astimezone(datetime.UTC).replace(minute=0, second=0, microsecond=0)
    for hour in range(_YEARS * 366 * 24):
        at = moment + datetime.timedelta(hours=hour)
        found.add(_offset(other, at) - _offset(clock, at))
        if len(found) > 1:
            return None
    seconds = found.pop()
    return None if seconds % 60 else round(seconds / 60)


def _offset(clock: datetime.tzinfo, at: datetime.datetime) -> float:
    offset = at.astimezone(clock).utcoffset()
    return offset.total_seconds() if offset is not None else 0.0


def first_skipped(cron: Cron, clock: datetime.tzinfo, start: datetime.datetime) -> datetime.datetime | None:
    """Give the first time to fire that the clock leaves out or shows twice, as where summer time begins and ends."""
    day = start.astimezone(clock).date()
    for number in range(_YEARS * 366):
        date = day + datetime.timedelta(days=number)
        noon = datetime.datetime.combine(date, datetime.time(12), clock)
        if noon.utcoffset() == (noon - datetime.timedelta(days=1)).utcoffset():
            continue
        for hour, minute in product(cron.hours, cron.minutes):
            at = datetime.datetime.combine(date, datetime.time(hour, minute), clock)
            if at.utcoffset() != at.replace(fold=1).utcoffset() and cron.fires_at(at):
                return at
    return None


def shifted(cron: Cron, minutes: int) -> list[Cron] | None:
    """Write a schedule for a clock that is `minutes` ahead; None where cron has no lines for that.

    Times that get to another day are lines of their own. Days of the month move only where every month has them all.
    """
    if minutes == 0:
        return [cron]
    lines: dict[tuple[int, tuple[int, ...]], set[int]] = {}
    for hour in cron.hours:
        by_day: dict[tuple[int, int], set[int]] = {}
        for minute in cron.minutes:
            days, rest = divmod(hour * 60 + minute + minutes, _DAY_MINUTES)
            by_day.setdefault((days, rest // 60), set()).add(rest % 60)
        for (days, new_hour), new_minutes in by_day.items():
            lines.setdefault((days, tuple(sorted(new_minutes))), set()).add(new_hour)
    made = []
    for (days, at), hours in sorted(lines.items()):
        moved = _moved(cron, days, at, tuple(sorted(hours)))
        if moved is None:
            return None
        made.append(moved)
    return made


def _moved(cron: Cron, days: int, minutes: tuple[int, ...], hours: tuple[int, ...]) -> Cron | None:
    """Move a schedule by whole days (-1, 0 or 1) and give it these times."""
    if days and not _can_move(cron, days):
        return None
    words = [
        "*" if len(minutes) == 60 else listed(minutes),
        "*" if len(hours) == 24 else listed(hours),
        *cron.text.split()[2:],
    ]
    if days:
        words[2] = _moved_field(cron.days, full=cron.every_day, by=days, both=cron.both_days)
        words[4] = _moved_field(
            tuple((day + days) % 7 for day in cron.weekdays), full=cron.every_weekday, by=0, both=cron.both_days
        )
    return parse(" ".join(words))


def _moved_field(numbers: tuple[int, ...], *, full: bool, by: int, both: bool) -> str:
    """Write days; all of them as a star where that is what makes both fields count."""
    if full:
        return "*" if both else listed(tuple(sorted(numbers)))
    return listed(tuple(sorted(number + by for number in numbers)))


def _can_move(cron: Cron, days: int) -> bool:
    """Tell whether all days that fire can be written one earlier or later, in fields that keep their meaning."""
    if not cron.every_day:
        if min(cron.days) + min(days, 0) < 1 or max(cron.days) + max(days, 0) > 28:
            return False
        if not cron.every_weekday and cron.both_days:
            return False  # the star that says "both" would be lost
    return cron.every_month or (cron.both_days and cron.every_weekday and not cron.every_day)


def listed(numbers: tuple[int, ...]) -> str:
    """Write sorted numbers as cron does: 1-5,9."""
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs(numbers))


def runs(numbers: tuple[int, ...]) -> list[tuple[int, int]]:
    """Give the runs of consecutive numbers, first and last of each; two in a row are no run."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    pairs = []
    for first, last in found:
        pairs += [(first, first), (last, last)] if last - first == 1 else [(first, last)]
    return pairs
