"""A plan as a service and a timer of systemd. Sources: systemd.service(5), .timer(5), .exec(5), .syntax(7), of 252."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from batchrun.scheduling.calendar import on_calendar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchrun.scheduling.plan import Plan

#: Seconds that a stop may take: the calls in flight have 30 s to end, and then files are synced.
_STOP_S = 60
#: What systemd does not take in the path of a program.
_ODD_IN_PROGRAM = re.compile(r"[\"'\\$]")
_PRIVATE = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - hidden from a service with PrivateTmp, which is the point


def service(plan: Plan) -> list[str]:
    """Give the lines of the service."""
    return [
        "[Unit]",
        _description(plan),
        "Wants=network-online.target",
        "After=network-online.target",
        "",
        "[Service]",
        "Type=oneshot",
        *([] if plan.user == "root" else [f"User={plan.user}"]),
        f"WorkingDirectory={_raw(str(plan.folder))}/",
        *(f"Environment={_quoted(f'{name}={value}')}" for name, value in plan.variables.items()),
        *([f"# The run reads {plan.env_file} itself; EnvironmentFile= is not needed."] if plan.env_file else []),
        *([f"LoadCredential={plan.credential}:/etc/credstore/{plan.credential}"] if plan.credential else []),
        f"ExecStart={' '.join(_argument(word) for word in _program(plan.command))}",
        "# No failures of the service: 3 items failed, 5 the window is over, 75 another run is at it, 143 stopped.",
        "SuccessExitStatus=3 5 75 143",
        "# A stop lets the calls in flight end, for 30 s at most.",
        f"TimeoutStopSec={_STOP_S}",
        "Nice=10",
        "UMask=0077",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "# A --metrics-file, and what a command of [notify] writes, need one of these of their own.",
        *(f"ReadWritePaths={_quoted(str(folder))}" for folder in plan.writable),
        *_private_tmp(plan),
    ]


def timer(plan: Plan) -> list[str]:
    """Give the lines of the timer."""
    late = (
        ["# With a window no run is made up for: it would go on beyond the window.", "Persistent=false"]
        if plan.window is not None
        else ["# A run that was missed while the machine was off starts when it is on again.", "Persistent=true"]
    )
    either = [] if plan.cron.both_days else ["# Either day of month or day of week, as cron has it."]
    return [
        "[Unit]",
        _description(plan),
        "",
        "[Timer]",
        *either,
        *(f"OnCalendar={one}" for one in on_calendar(plan.cron, plan.zone)),
        *late,
        "AccuracySec=1s",
        "RandomizedDelaySec=0",
        "",
        "[Install]",
        "WantedBy=timers.target",
    ]


def _description(plan: Plan) -> str:
    return _raw(f"Description=batchrun run '{plan.job}'")


def _private_tmp(plan: Plan) -> list[str]:
    places = [*plan.writable, plan.folder, Path(plan.command[0]), *([plan.env_file] if plan.env_file else [])]
    if any(place.is_relative_to(tmp) for place in places for tmp in _PRIVATE):
        return ["# PrivateTmp=yes would hide what this job has in /tmp."]
    return ["PrivateTmp=yes"]


def _program(command: Iterable[str]) -> list[str]:
    """Give the command; through a shell, as its arguments, where systemd would not take the program's path."""
    words = list(command)
    return ["/bin/sh", "-c", 'exec "$0" "$@"', *words] if _ODD_IN_PROGRAM.search(words[0]) else words


def _argument(word: str) -> str:
    """Quote a word of a command line, in which $ begins a variable."""
    return _quoted(word.replace("$", "$$"))


def _quoted(word: str) -> str:
    """Quote a word if it needs it; % begins a specifier everywhere."""
    text = _raw(word)
    if re.fullmatch(r"[A-Za-z0-9_/.,:=@$%+-]+", text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _raw(text: str) -> str:
    """Write text for a setting that takes the whole line as it is; blanks and a backslash at its end would be lost."""
    return text.replace("%", "%%")
