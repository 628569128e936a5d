"""Cron expressions: five fields, as Debian's cron and cronie both read them.

Strict on purpose: what one cron reads and another refuses, and what never fires, is refused here. Sources: crontab(5)
of Debian's cron 3.0pl1 and of cronie 1.7; where the page is silent, what `crontab -n` of Debian 12 takes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

FIELDS = 'five fields (minute, hour, day of month, month, day of week), such as "0 2 * * *"'
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
#: Short forms that every cron knows, and the fields that they stand for.
_SHORT = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
#: Days of the longest February, and of the other months.
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True, slots=True)
class _Field:
    """A field: its name for messages, its least and greatest number, names for numbers from `first_named` on."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    first_named: int = 0

    def refusal(self, part: str, why: str = "") -> ValueError:
        names = f" or a name from {self.names[0]} to {self.names[-1]}" if self.names else ""
        form = why or f"a number from {self.low} to {self.high}{names}, a range (a-b), a step (*/n, a-b/n) or a list"
        return ValueError(f"in the field {self.name} {form} (not {part!r})")

    def number(self, word: str, part: str) -> int:
        if re.fullmatch(r"[0-9]{1,3}", word) and self.low <= int(word) <= self.high:
            return int(word)
        if word.lower() in self.names:
            return self.names.index(word.lower()) + self.first_named
        raise self.refusal(part)


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS, 1),
    _Field("day of week", 0, 7, _WEEKDAYS),
)


@dataclass(frozen=True, slots=True)
class Cron:
    """When to fire: sorted numbers for each field; days of the week from 0, Sunday, to 6.

    `both_days`: a day counts if day of month and day of week allow it; otherwise one of the two is enough. That is
    cron's rule: either will do, unless one of the two fields begins with `*`.
    """

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    both_days: bool

    @property
    def every_day(self) -> bool:
        """Tell whether the day of the month does not matter."""
        return len(self.days) == 31

    @property
    def every_month(self) -> bool:
        """Tell whether the month does not matter."""
        return len(self.months) == 12

    @property
    def every_weekday(self) -> bool:
        """Tell whether the day of the week does not matter."""
        return len(self.weekdays) == 7

    def fires_at(self, moment: datetime) -> bool:
        """Tell whether a minute, on the clock of the schedule, is one to fire at."""
        if moment.minute not in self.minutes or moment.hour not in self.hours or moment.month not in self.months:
            return False
        on_day, on_weekday = moment.day in self.days, moment.isoweekday() % 7 in self.weekdays
        return on_day and on_weekday if self.both_days else on_day or on_weekday


def parse(text: str) -> Cron:
    """Read an expression. Raises `ValueError` with what was expected, in which field."""
    words = _SHORT.get(text.strip().lower(), text).split()
    if words == ["@reboot"]:
        raise ValueError(f"{FIELDS}; @reboot is no time")
    if len(words) != len(_FIELDS):
        raise ValueError(f"{FIELDS} or one of {', '.join(_SHORT)}")
    minutes, hours, days, months, weekdays = (_numbers(field, word) for field, word in zip(_FIELDS, words, strict=True))
    either = not words[2].startswith("*") and not words[4].startswith("*")
    made = Cron(" ".join(words), minutes, hours, days, months, tuple(sorted({day % 7 for day in weekdays})), not either)
    if made.both_days and min(days) > max(_LONGEST[month - 1] for month in months):
        raise _FIELDS[2].refusal(words[2], "a day that one of the months has")
    return made


def _numbers(field: _Field, text: str) -> tuple[int, ...]:
    found: set[int] = set()
    for part in text.split(","):
        found.update(_part(field, part, text))
    return tuple(sorted(found))


def _part(field: _Field, part: str, text: str) -> range:
    """Read one entry of a list: `*`, `*/n`, `a`, `a-b` or `a-b/n`."""
    span, slash, step = part.partition("/")
    if span == "*":
        if part != text:
            raise field.refusal(text, "* or */n alone, or a list without *")
        first, last = field.low, field.high
    else:
        start, dash, end = span.partition("-")
        first = field.number(start, part)
        last = field.number(end, part) if dash else first
        if slash and not dash:
            raise field.refusal(part, f"a range before the step, such as {span}-{field.high}/{step or 2}")
        if last < first:
            raise field.refusal(part, "a range from the smaller to the greater number (Sunday is 0 and 7)")
    if not slash:
        return range(first, last + 1)
    if not re.fullmatch(r"[0-9]{1,3}", step) or not 1 <= int(step) <= field.high - field.low:
        raise field.refusal(part, f"a step from 1 to {field.high - field.low}")
    return range(first, last + 1, int(step))
