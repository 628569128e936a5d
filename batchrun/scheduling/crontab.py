"""A plan as lines of a crontab."""

from __future__ import annotations

import datetime
import re
import shlex
import textwrap
import zoneinfo
from typing import TYPE_CHECKING

from batchrun.scheduling.clocks import difference, first_skipped, machine_clock, name_of, shifted

if TYPE_CHECKING:
    from batchrun.scheduling.plan import Plan

#: Bytes of a command that Debian's `crontab` takes, as found by trying.
_LONGEST_COMMAND = 998
_MAIL = (
    "cron mails what a command prints: here that is what stops a run (exit codes 1, 2, 4, and 5: the window is over, "
    "the rest waits for the next run), and that an earlier one was ended by force. A run that ends (0), leaves "
    "failures (3) or finds another one at work (75) prints nothing; `batchrun status` tells."
)


def crontab(plan: Plan, machine: zoneinfo.ZoneInfo | None = None, now: datetime.datetime | None = None) -> list[str]:
    """Give the lines, comments included. `machine` is the zone that cron goes by, found out if not given.

    Where no line would fire at the right time with every cron, the lines are comments and say why.
    """
    machine = machine or machine_clock()
    now = now or datetime.datetime.now(datetime.UTC)
    about = [f"For `crontab -e` of {plan.user}.", _MAIL]
    command = _command(plan)
    if command is None:
        why = "No line: cron keeps no command that holds a backslash or is this long; use the timer."
        return _comments([*about, why])
    if plan.env_file:
        about.append(f"cron has an empty environment; the run reads {plan.env_file} itself.")
    if plan.credential:
        about.append("No line: the key is a credential of systemd, which cron has no counterpart for; use the timer.")
        return _comments(about)
    return [*_comments(about), *_timed(plan, command, machine, now)]


def _timed(plan: Plan, command: str, machine: zoneinfo.ZoneInfo, now: datetime.datetime) -> list[str]:
    """Give the lines with their times, on the clock of the machine."""
    if plan.zone is None:
        return [*_summer_time(plan, machine, now), f"{plan.cron.text} {command}"]
    zone = zoneinfo.ZoneInfo(plan.zone)
    minutes = difference(zone, machine, now)
    lines = None if minutes is None else shifted(plan.cron, minutes)
    if lines is None:
        return _only_cron_tz(plan, command, machine, constant=minutes is not None)
    comments = _summer_time(plan, zone, now)
    if minutes:
        words = f'"{plan.cron.text}" of {plan.zone}, on the clock of this machine ({name_of(machine)})'
        comments += _comments([f"{words}: most crons, Debian's among them, go by that alone. Not for another machine."])
    return [*comments, *(f"{line.text} {command}" for line in lines)]


def _only_cron_tz(plan: Plan, command: str, machine: zoneinfo.ZoneInfo, *, constant: bool) -> list[str]:
    why = "these days cannot be written on its clock" if constant else "the two clocks differ by more at times"
    trap = (
        f"No line that is right with every cron: this machine's goes by {name_of(machine)}, and {why}. Use the timer. "
        "cronie (Fedora, RHEL, Arch) heeds CRON_TZ: there, uncomment these lines. Debian's and Ubuntu's cron takes "
        f"CRON_TZ without a word and would start the job by {name_of(machine)}."
    )
    return [*_comments([trap]), f"# CRON_TZ={plan.zone}", f"# {plan.cron.text} {command}"]


def _summer_time(plan: Plan, clock: zoneinfo.ZoneInfo, now: datetime.datetime) -> list[str]:
    at = first_skipped(plan.cron, clock, now)
    if at is None:
        return []
    return _comments(
        [f"{at:%Y-%m-%d %H:%M} does not exist or comes twice in {name_of(clock)}: crons differ in what they do then."]
    )


def _command(plan: Plan) -> str | None:
    """Give the shell command in cron's spelling, None where cron has no way to spell it.

    An unescaped % is a line end for cron. What a backslash before anything else means differs between crons.
    """
    variables = "".join(f"{name}={shlex.quote(value)} " for name, value in plan.variables.items())
    words = " ".join(shlex.quote(word) for word in plan.command)
    command = f"cd {shlex.quote(str(plan.folder))} && {variables}{words}"
    if "\\" in command:
        return None
    command = command.replace("%", "\\%")
    return command if len(command.encode("utf-8", "surrogateescape")) <= _LONGEST_COMMAND else None


def _comments(sentences: list[str]) -> list[str]:
    """Write sentences as comments; what a file name may hold cannot end one."""
    clean = [re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", "?", sentence) for sentence in sentences]
    return [
        f"# {line}" for one in clean for line in textwrap.wrap(one, 116, break_long_words=False, break_on_hyphens=False)
    ]
