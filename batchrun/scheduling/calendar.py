"""Cron expressions as systemd's calendar events. Source: systemd.time(7), of version 252."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchrun.scheduling.clocks import runs

if TYPE_CHECKING:
    from batchrun.cron import Cron

_WEEKDAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")


def on_calendar(cron: Cron, zone: str | None) -> list[str]:
    """Give the values of `OnCalendar=` that together fire as an expression does; `zone` None is the machine's.

    Where either of day of month and day of week is enough there are two: in a calendar event both must hold.
    """
    days = _field(cron.days, full=cron.every_day)
    weekdays = "" if cron.every_weekday else _weekdays(cron.weekdays) + " "
    month = _field(cron.months, full=cron.every_month)
    time = f"{_field(cron.hours, full=len(cron.hours) == 24)}:{_field(cron.minutes, full=len(cron.minutes) == 60)}:00"
    end = f"{time} {zone}" if zone else time
    if cron.both_days:
        return [f"{weekdays}*-{month}-{days} {end}"]
    return [f"*-{month}-{days} {end}", f"{weekdays}*-{month}-* {end}"]


def _field(numbers: tuple[int, ...], *, full: bool) -> str:
    if full:
        return "*"
    return ",".join(f"{a:02}" if a == b else f"{a:02}..{b:02}" for a, b in runs(numbers))


def _weekdays(days: tuple[int, ...]) -> str:
    """Name days of the week from Monday on, as systemd counts them."""
    ordered = tuple(sorted((day + 6) % 7 for day in days))
    names = [*_WEEKDAYS[1:], _WEEKDAYS[0]]
    return ",".join(names[a] if a == b else f"{names[a]}..{names[b]}" for a, b in runs(ordered))
