"""Schedules: what is printed is what cron and systemd do, and what runs then is what is new."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import zoneinfo
from functools import cache
from pathlib import Path

import pytest
from conftest import environment, records, write_lines
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from kills import until

from batchrun.cron import parse
from batchrun.job import Job, JobError, Schedule
from batchrun.scheduling import crontab, plan, service, timer
from batchrun.scheduling.calendar import on_calendar
from batchrun.scheduling.clocks import difference, first_skipped, machine_clock, shifted

UTC = zoneinfo.ZoneInfo("UTC")
SHANGHAI = zoneinfo.ZoneInfo("Asia/Shanghai")
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
START = datetime.datetime(2026, 11, 28, 11, 0, tzinfo=UTC)
#: Every character that a shell, cron or systemd reads as more than itself, and some that only look odd.
ODD = "日报 100% 'a' \"b\" $HOME `c` *; -&#~"

SYSTEMD = Path("/lib/systemd/systemd")
needs_analyze = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
crontab_help = subprocess.run(["sh", "-c", "crontab -h"], capture_output=True, check=False).stderr
needs_crontab = pytest.mark.skipif(
    b"\t-n" not in crontab_help,
    reason="Debian's crontab, which can check a file, is not installed",
)  # fmt: skip


# --- cron expressions ---

GOOD = [
    "0 2 * * *", "*/5 * * * *", "30 1,13 * * *", "0 9-17 * * mon-fri", "0 9-17/2 * * 1-5", "15 3 1 * *",
    "0 0 1,15 * 1", "0 0 13 * fri", "0 0 */2 * 1", "0 0 1-7 * */2", "0 4 * jan-mar,dec *", "59 23 31 12 *",
    "0 0 29 2 *", "0 12 * * 0", "0 12 * * 7", "0 12 * * 5-7", "0 12 * * sun,wed", "07 02 * * *", "0-59/7 0-23/5 * * *",
    "*/59 */23 */30 */11 *", "0 0 * * */7", "1 2 31 1-12/2 *", "0 6 10-20/3 * 6,7", "50-50/6 1 * * *", "0 0 1-31 * 2",
    "0 0 5 * 0-7", "@daily", "@weekly", "@monthly", "@yearly", "@hourly", "0 0 * FEB Tue",
]  # fmt: skip

BAD = [
    ("", "five fields"),
    ("0 2 * *", "five fields"),
    ("0 2 * * * *", "five fields"),
    ("@reboot", "five fields"),
    ("@often", "five fields"),
    ("60 2 * * *", "minute a number from 0 to 59"),
    ("-1 2 * * *", "minute"),
    ("+5 2 * * *", "minute"),
    ("a 2 * * *", "minute"),
    ("１ 2 * * *", "minute"),
    ("0 24 * * *", "hour a number from 0 to 23"),
    ("0 2 0 * *", "day of month a number from 1 to 31"),
    ("0 2 32 * *", "day of month"),
    ("0 2 L * *", "day of month"),
    ("0 2 ? * 1", "day of month"),
    ("0 2 1-mar * *", "day of month"),
    ("0 2 * 13 *", "month a number from 1 to 12 or a name from jan to dec"),
    ("0 2 * january *", "month"),
    ("0 2 * * 8", "day of week a number from 0 to 7 or a name from sun to sat"),
    ("0 2 * * 1#2", "day of week"),
    ("5/10 * * * *", "minute a range before the step, such as 5-59/10"),
    ("*/0 * * * *", "minute a step from 1 to 59"),
    ("*/60 * * * *", "minute a step from 1 to 59"),
    ("0 */24 * * *", "hour a step from 1 to 23"),
    ("10-5 * * * *", "minute a range from the smaller to the greater number"),
    ("0 2 * * fri-sun", "day of week a range from the smaller"),
    ("1,,2 * * * *", "minute"),
    ("1- * * * *", "minute"),
    ("*,5 * * * *", "minute * or */n alone"),
    ("5,* * * * *", "minute * or */n alone"),
    ("0 0 30 2 *", "day of month a day that one of the months has"),
    ("0 0 31 4,6,9,11 *", "day of month a day that one of the months has"),
]


@pytest.mark.parametrize(("text", "expected"), BAD, ids=[repr(text) for text, _ in BAD])
def test_what_is_no_expression_is_refused_by_field_and_what_was_expected(tmp_path, text, expected):
    path = write_job(tmp_path, schedule=f'cron = "{text}"')
    with pytest.raises(JobError) as refused:
        Job.load(path)
    (problem,) = refused.value.problems
    assert problem.startswith(f"{path}:9: schedule.cron: expected ")
    assert expected in problem


@needs_crontab
def test_crontab_takes_every_expression_that_is_taken_here(tmp_path):
    lines = "".join(f"{parse(text).text} true\n" for text in GOOD)
    assert_crontab_takes(tmp_path, lines)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("cron = 5", "schedule.cron: expected five fields"),
        ('timezone = "UTC"', "schedule.cron is missing"),
        ('cron = "0 2 * * *"\ntimezone = "Peking"', "schedule.timezone: expected the name of a time zone such as"),
        ('cron = "0 2 * * *"\ntimezone = "/etc/localtime"', "schedule.timezone: expected"),
        ('cron = "0 2 * * *"\ntimezone = "America"', "schedule.timezone: expected"),
        ('cron = "0 2 * * *"\ntimezone = 8', "schedule.timezone: expected"),
        ('cron = "0 2 * * *"\nwindow = "six hours"', "schedule.window: expected a duration"),
        ('cron = "0 2 * * *"\nwhen = 1', "schedule.when: unknown key"),
    ],
)  # fmt: skip
def test_a_wrong_schedule_is_refused_with_its_line(tmp_path, schedule, expected):
    path = write_job(tmp_path, schedule=schedule)
    with pytest.raises(JobError) as refused:
        Job.load(path)
    (problem,) = refused.value.problems
    assert re.match(rf"{path}:\d+: ", problem)
    assert expected in problem


def test_a_schedule_made_in_python_is_checked_too():
    job = Job(input=("in.jsonl",), output=Path("out"), schedule=Schedule(cron="0 25 * * *"))
    with pytest.raises(JobError, match=r"schedule\.cron: expected in the field hour a number from 0 to 23"):
        job.check()


def test_a_job_without_a_schedule_has_nothing_to_print(tmp_path, batchrun):
    ended = batchrun("schedule", write_job(tmp_path, schedule=None))
    assert (ended.code, ended.out) == (2, "")
    assert "no [schedule]" in ended.err


# --- the same times as cron ---

SHORT = {
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}  # fmt: skip


def oracle(text: str, moment: datetime.datetime) -> bool:
    """Tell whether Debian's cron fires at a minute; written after its entry.c and cron.c, not after ours."""
    minute, hour, dom, month, dow, has_star = oracle_bits(text)
    if moment.minute not in minute or moment.hour not in hour or moment.month not in month:
        return False
    on_day, on_weekday = moment.day in dom, (moment.weekday() + 1) % 7 in dow
    return on_day and on_weekday if has_star else on_day or on_weekday


@cache
def oracle_bits(text: str) -> tuple[set[int], set[int], set[int], set[int], set[int], bool]:
    names = ["sun mon tue wed thu fri sat".split(), "- jan feb mar apr may jun jul aug sep oct nov dec".split()]  # noqa: SIM905
    words = SHORT.get(text, text).split()
    bits = []
    for word, low, high in zip(words, (0, 0, 1, 1, 0), (59, 23, 31, 12, 7), strict=True):
        field = set()
        for entry in word.lower().split(","):
            span, _, step = entry.partition("/")
            ends = [str(low), str(high)] if span == "*" else span.split("-")
            numbers = [int(next((given.index(end) for given in names if end in given), end)) for end in ends]
            field |= set(range(numbers[0], numbers[-1] + 1, int(step or 1)))
        bits.append(field)
    if 7 in bits[4]:
        bits[4].add(0)
    return (*bits, words[2][0] == "*" or words[4][0] == "*")


def firing_times(text: str, clock: datetime.tzinfo, days: int, count: int = 20) -> list[datetime.datetime]:
    """Give the next times in UTC after `START` by trying every minute of these days, on a clock without summer time."""
    found = []
    first = START.astimezone(clock).replace(tzinfo=None)
    any_time = "* * " + " ".join(SHORT.get(text, text).split()[2:])  # spares trying 1,440 minutes of most days
    for day in range(days):
        date = first.date() + datetime.timedelta(days=day)
        midnight = datetime.datetime.combine(date, datetime.time())
        times = (midnight.replace(hour=h, minute=m) for h, m in itertools.product(range(24), range(60)))
        hits = [at for at in times if oracle(text, at) and at > first] if oracle(any_time, midnight) else []
        found += [at.replace(tzinfo=clock).astimezone(UTC) for at in hits]
        if len(found) >= count:
            break
    return found[:count]


def systemd_times(calendars: list[str], count: int = 20) -> list[datetime.datetime]:
    """Ask systemd for the next times in UTC after `START` of several calendar events together."""
    base = f"--base-time={START:%Y-%m-%d %H:%M:%S} UTC"
    done = subprocess.run(
        ["systemd-analyze", "calendar", base, f"--iterations={count}", *calendars], capture_output=True, text=True,
        env={**os.environ, "TZ": "UTC", "LC_ALL": "C", "SYSTEMD_COLORS": "0"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (calendars, done.stderr)
    times = re.findall(r"(?:Next elapse|Iter\. #\d+): \w+ (\S+ \S+) UTC", done.stdout)
    return sorted({datetime.datetime.fromisoformat(at).replace(tzinfo=UTC) for at in times})[:count]


@needs_analyze
@pytest.mark.parametrize("text", GOOD)
@pytest.mark.parametrize("zone", ["Asia/Shanghai", "Asia/Kolkata", None])
def test_the_timer_fires_when_cron_does(text, zone):
    clock = zoneinfo.ZoneInfo(zone) if zone else UTC
    expected = firing_times(text, clock, days=8000 if "29 2" in text else 800)
    assert expected
    assert systemd_times(on_calendar(parse(text), zone))[: len(expected)] == expected


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    step = st.integers(1, high - low).map(str)
    entry = st.one_of(number.map(str), span, st.tuples(span, step).map("/".join))
    return st.one_of(st.just("*"), step.map("*/{}".format), st.lists(entry, min_size=1, max_size=3).map(",".join))


expressions = st.tuples(field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 7)).map(" ".join)


@needs_analyze
@settings(max_examples=25, deadline=None)
@given(expressions)
def test_any_expression_becomes_a_timer_that_fires_when_cron_does(text):
    try:
        made = parse(text)
    except ValueError:
        assume(False)
    expected = firing_times(text, SHANGHAI, days=500)
    assert systemd_times(on_calendar(made, "Asia/Shanghai"))[: len(expected)] == expected


# --- another clock ---


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@example("0 0 1-31 * */2", 480)
@example("* * 1 */2 0-6", 30)
@example("0 20 * * mon-fri", 480)
@example("*/25 * 2-27 * *", -330)
@given(expressions, st.integers(-56, 56).map(lambda quarter: quarter * 15))
def test_lines_for_another_clock_fire_at_the_same_moments(text, minutes):
    try:
        lines = shifted(parse(text), minutes)
    except ValueError:
        assume(False)
    assume(lines is not None)
    moments = [
        datetime.datetime(2028, month, day, hour, minute)  # noqa: DTZ001 - on the schedule's clock, whichever it is
        for month, day in ((2, 28), (2, 29), (3, 1), (5, 14), (5, 31), (12, 31))
        for hour in range(24)
        for minute in range(60)
    ]
    for moment in moments:
        there = moment + datetime.timedelta(minutes=minutes)
        assert any(oracle(line.text, there) for line in lines) == oracle(text, moment), (
            moment,
            [x.text for x in lines],
        )


@pytest.mark.parametrize(
    ("text", "clock", "machine", "expected"),
    [
        ("0 2 * * *", SHANGHAI, UTC, ["0 18 * * *"]),
        ("30 9 * * mon-fri", SHANGHAI, UTC, ["30 1 * * mon-fri"]),
        ("0 2 * * mon-fri", SHANGHAI, UTC, ["0 18 * * 0-4"]),
        ("0 6,10 * * 1", SHANGHAI, UTC, ["0 22 * * 0", "0 2 * * 1"]),
        ("*/30 2 * * *", SHANGHAI, zoneinfo.ZoneInfo("Asia/Kolkata"), ["30 23 * * *", "0 0 * * *"]),
        ("0 2 15 * *", SHANGHAI, UTC, ["0 18 14 * *"]),
        ("0 2 1 * *", SHANGHAI, UTC, None),
        ("0 2 * 3 *", SHANGHAI, UTC, None),
        ("0 12 1 3 *", SHANGHAI, UTC, ["0 4 1 3 *"]),
    ],
)
def test_a_schedule_is_written_for_the_clock_of_the_machine(text, clock, machine, expected):
    lines = shifted(parse(text), difference(clock, machine, START))
    assert (lines and [line.text for line in lines]) == expected


def test_clocks_that_differ_by_more_at_times_are_not_translated():
    assert difference(BERLIN, SHANGHAI, START) is None
    assert difference(BERLIN, zoneinfo.ZoneInfo("Europe/Paris"), START) == 0
    assert difference(zoneinfo.ZoneInfo("Asia/Kolkata"), UTC, START) == -330


def test_a_time_that_summer_time_leaves_out_or_doubles_is_found():
    assert first_skipped(parse("30 2 * * *"), BERLIN, START) == datetime.datetime(2027, 3, 28, 2, 30, tzinfo=BERLIN)
    assert first_skipped(parse("30 4 * * *"), BERLIN, START) is None
    assert first_skipped(parse("30 2 * * *"), SHANGHAI, START) is None


def test_the_clock_of_the_machine_is_that_of_etc_localtime(tmp_path):
    (tmp_path / "zoneinfo/Asia").mkdir(parents=True)
    link, copy = tmp_path / "zoneinfo/Asia/Shanghai", tmp_path / "copy"
    link.write_bytes(tzif("Asia/Shanghai"))
    copy.write_bytes(tzif("Asia/Shanghai"))
    (tmp_path / "localtime").symlink_to(link)
    assert machine_clock(tmp_path / "localtime").key == "Asia/Shanghai"
    assert difference(machine_clock(copy), SHANGHAI, START) == 0
    assert machine_clock(tmp_path / "missing").key == "UTC"


def tzif(name: str) -> bytes:
    return next(path for root in zoneinfo.TZPATH if (path := Path(root) / name).is_file()).read_bytes()


# --- what is printed ---


def write_job(
    folder: Path, schedule: str | None = 'cron = "0 2 * * *"\ntimezone = "Asia/Shanghai"', *, name: str = "daily.toml",
    source: str = "in.jsonl", output: str = "runs/{date}", extra: str = "", top: str = "",
) -> Path:  # fmt: skip
    text = f'input = "{source}"\noutput = "{output}"\n{top}\n'
    text += '[prompt]\nuser = "{{ text }}"\n[endpoint]\nsimulate = "openai"\n'
    text += "" if schedule is None else f"[schedule]\n{schedule}\n"
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + extra, "utf-8")
    return path


def active(lines: list[str]) -> list[str]:
    return [line for line in lines if not line.startswith("#")]


def assert_crontab_takes(tmp_path: Path, text: str) -> None:
    (tmp_path / "crontab").write_text(text)
    done = subprocess.run(["crontab", "-n", tmp_path / "crontab"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stderr, text)


def as_cron_runs(line: str) -> str:
    """Give the command of a line as Debian's cron hands it to the shell."""
    command = re.sub(r"^(\S+\s+){5}", "", line)
    assert not re.search(r"(?<!\\)%", command)
    return command.replace("\\%", "%")


@pytest.fixture
def stand_in(tmp_path):
    """A program that writes down how it was called: folder, arguments, XDG_DATA_HOME; its folder has an odd name."""
    folder = tmp_path / f"venv {ODD}" / "bin"
    folder.mkdir(parents=True)
    program = folder / "batchrun"
    record = tmp_path / "called"
    program.write_text(
        f'#!/bin/sh\n{{ pwd; printf "%s\\n" "$XDG_DATA_HOME" "$@"; }} >{shlex.quote(str(record))}.part\n'
        f"mv {shlex.quote(str(record))}.part {shlex.quote(str(record))}\n"
    )
    program.chmod(0o755)
    return program, record


@pytest.fixture
def odd_plan(tmp_path, stand_in, monkeypatch):
    """A plan all of whose paths have odd characters, and whose program is the stand-in."""
    home = tmp_path / f"data {ODD}"
    monkeypatch.setenv("XDG_DATA_HOME", str(home))
    path = write_job(tmp_path / f"job {ODD}", 'cron = "0 2 * * *"\nwindow = "90m"', name=f"{ODD}.toml")
    made = plan(path)
    command = made.command[made.command.index("run") :]
    for folder in made.writable:
        folder.mkdir(parents=True, exist_ok=True)
    return dataclasses.replace(made, command=(str(stand_in[0]), *command))


def expected_call(made) -> list[str]:
    return [str(made.folder), made.variables["XDG_DATA_HOME"], "run", "-q", "--deadline", "1h30m", str(made.job)]


@needs_crontab
def test_crontab_takes_what_is_printed_and_the_shell_runs_it(tmp_path, odd_plan, stand_in):
    lines = crontab(odd_plan, UTC, START)
    assert_crontab_takes(tmp_path, "\n".join(lines) + "\n")
    (line,) = active(lines)
    done = subprocess.run(["/bin/sh", "-c", as_cron_runs(line)], env={}, capture_output=True, cwd="/", check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert stand_in[1].read_text().splitlines() == expected_call(odd_plan)


def write_units(folder: Path, made) -> tuple[Path, Path]:
    paths = (folder / f"{made.name}.service", folder / f"{made.name}.timer")
    for path, lines in zip(paths, (service(made), timer(made)), strict=True):
        path.write_text("\n".join(lines) + "\n", "utf-8")
    return paths


@needs_analyze
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path, odd_plan):
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *write_units(tmp_path, odd_plan)],
        capture_output=True, text=True, env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}, check=False,
    )  # fmt: skip
    found = [line for line in verified.stderr.splitlines() if odd_plan.name in line]
    assert (verified.returncode, found) == (0, [])


@pytest.mark.skipif(not SYSTEMD.exists() or not shutil.which("setpriv"), reason="systemd is not installed")
def test_systemd_reads_the_paths_of_the_service_as_they_are_meant(odd_plan):
    with tempfile.TemporaryDirectory() as folder:  # one that who must not be root can look into
        Path(folder).chmod(0o755)
        (unit, _) = write_units(Path(folder), odd_plan)
        unit.chmod(0o644)
        runtime = Path(folder) / "run"
        runtime.mkdir()
        runtime.chmod(0o777)
        run = ["setpriv", "--reuid=65534", "--clear-groups"] if os.geteuid() == 0 else []
        done = subprocess.run(
            [*run, str(SYSTEMD), "--test", "--user", f"--unit={unit.name}"], capture_output=True, text=True,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "XDG_RUNTIME_DIR": str(runtime),
                 "HOME": str(runtime), "SYSTEMD_UNIT_PATH": f"{folder}:"}, check=False,
        )  # fmt: skip
    _, _, dump = done.stdout.partition(f"Unit {unit.name}")
    dump = dump.partition("\t-> Unit ")[0]
    assert dump, done.stderr
    words = re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', re.search(r"Command Line: (.*)", dump)[1])
    command = [re.sub(r"\\(.)", r"\1", quoted or bare).replace("$$", "$") for quoted, bare in words]
    assert command == ["/bin/sh", "-c", 'exec "$0" "$@"', *odd_plan.command]
    assert re.search(r"WorkingDirectory: (.*)", dump)[1] == str(odd_plan.folder)
    assert re.findall(r"Environment: (.*)", dump) == [f"XDG_DATA_HOME={odd_plan.variables['XDG_DATA_HOME']}"]
    assert all(str(folder) in re.search(r"ReadWritePaths: (.*)", dump)[1] for folder in odd_plan.writable)


def test_the_printed_service_and_line_name_this_installation_and_absolute_paths(tmp_path, batchrun):
    write_lines(tmp_path / "in.jsonl", {"id": "a", "text": "x"})
    job = write_job(tmp_path, extra='[budget]\ndeadline = "2h"\n', top='env_file = ".env"')
    (tmp_path / ".env").write_text("A=b\n")
    ended = batchrun("schedule", job.name)
    program = Path(sys.executable).parent / "batchrun"
    command = f"{program} run -q {job}" if program.exists() else f"{sys.executable} -P -m batchrun run -q {job}"
    assert ended.code == 0, ended.err
    assert f"cd {tmp_path} && " in ended.out
    assert f"ExecStart={command}\n" in ended.out
    for line in (
        "Type=oneshot", f"WorkingDirectory={tmp_path}/", "SuccessExitStatus=3 5 75 143", "NoNewPrivileges=yes",
        "ProtectSystem=strict", f"ReadWritePaths={tmp_path}/runs", "OnCalendar=*-*-* 02:00:00 Asia/Shanghai",
        "Persistent=true", "RandomizedDelaySec=0",
    ):  # fmt: skip
        assert f"\n{line}\n" in ended.out, ended.out
    assert "/etc/systemd/system/batchrun-daily.service" in ended.out
    assert ended.out.count(f"{tmp_path}/.env") == 2
    only = {flag: batchrun("schedule", job.name, flag).out for flag in ("--cron", "--systemd")}
    assert "[Timer]" not in only["--cron"]
    assert "crontab -e" in only["--cron"]
    assert "crontab -e" not in only["--systemd"]
    assert "[Timer]" in only["--systemd"]


@pytest.mark.parametrize(
    ("window", "deadline", "flags"),
    [("6h", None, ["--deadline", "6h"]), ("6h", "2h", []), ("90m", "2h", ["--deadline", "1h30m"]), (None, "2h", []),
     ("100.5s", None, ["--deadline", "1m40.5s"])],
)  # fmt: skip
def test_a_window_is_a_deadline_unless_the_jobs_own_comes_first(tmp_path, window, deadline, flags):
    schedule = 'cron = "0 2 * * *"' + (f'\nwindow = "{window}"' if window else "")
    job = write_job(tmp_path, schedule, extra=f'[budget]\ndeadline = "{deadline}"\n' if deadline else "")
    made = plan(job)
    assert list(made.command[made.command.index("-q") + 1 : -1]) == flags
    assert ("Persistent=false" in timer(made)) == (window is not None)


def test_where_no_line_is_right_the_crontab_has_none_and_says_why(tmp_path):
    made = plan(write_job(tmp_path, 'cron = "0 2 * * *"\ntimezone = "Europe/Berlin"'))
    lines = crontab(made, SHANGHAI, START)
    assert active(lines) == []
    assert "# CRON_TZ=Europe/Berlin" in lines
    assert "Debian's" in " ".join(lines)
    assert active(crontab(made, zoneinfo.ZoneInfo("Europe/Paris"), START))
    assert "02:30 does not exist" in " ".join(
        crontab(plan(write_job(tmp_path, 'cron = "30 2 * * *"\ntimezone = "Europe/Berlin"')), BERLIN, START)
    )


@needs_crontab
def test_a_command_that_cron_cannot_hold_is_none(tmp_path):
    made = plan(write_job(tmp_path))
    longest = 998 - len(active(crontab(made, UTC, START))[0].split(" ", 5)[5])
    for more, taken in ((longest, True), (longest + 1, False)):
        grown = dataclasses.replace(made, command=(*made.command[:-1], made.command[-1] + "x" * more))
        lines = crontab(grown, UTC, START)
        assert bool(active(lines)) == taken
        assert_crontab_takes(tmp_path, "\n".join(lines) + "\n")
    odd = dataclasses.replace(made, command=(*made.command[:-1], "/a\\%b"))
    assert active(crontab(odd, UTC, START)) == []


def test_control_characters_in_a_path_are_refused(tmp_path, batchrun):
    job = write_job(tmp_path / "a\nb")
    ended = batchrun("schedule", job)
    assert (ended.code, ended.out) == (2, "")
    assert "control characters" in ended.err


def test_units_are_named_after_the_job_or_its_folder(tmp_path):
    names = [plan(write_job(tmp_path / folder, name=name)).name for folder, name in
             (("a", "daily.toml"), ("labels", "job.toml"), ("日报", "job.toml"), ("周报", "job.toml"))]  # fmt: skip
    assert names[:2] == ["batchrun-daily", "batchrun-labels"]
    assert names[2] != names[3]
    assert all(re.fullmatch(r"batchrun-job-[0-9a-f]{8}", name) for name in names[2:])


# --- warnings ---

REMOTE = 'base_url = "https://api.example.com/v1"\nmodel = "m"'


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"source": "-"}, "standard input, which is empty"),
        ({"source": "missing.jsonl"}, "would end with exit code 2: input: "),
        ({"source": "inbox/*.jsonl"}, "no file matches"),
        ({"source": "{date}.jsonl", "output": "runs/fixed"}, "put {date} into output too"),
        (
            {"source": "{date}.jsonl", "output": "runs/{date}/{time}"},
            "such as the one after a kill, sends everything again",
        ),
        ({"output": "runs/fixed"}, "only lines that are new"),
        ({"output": "runs/{date}"}, "sends the whole input again"),
        ({"source": "ids-*.jsonl", "output": "runs/fixed"}, None),
        ({"source": "bare-*.jsonl", "output": "runs/fixed"}, "give the items ids"),
        ({"endpoint": REMOTE}, "have no variable OPENAI_API_KEY with the key: name a file"),
        ({"endpoint": REMOTE, "top": 'env_file = ".env"'}, "OPENAI_API_KEY with the key: put it into "),
        ({"endpoint": REMOTE + '\napi_key_env = "K"', "top": 'env_file = ".env"'}, "does not say classification"),
        ({"endpoint": REMOTE, "top": 'env_file = ".gone"'}, "exit code 2: env_file: "),
        ({"endpoint": REMOTE + '\napi_key_file = "gone"'}, "gone cannot be read"),
        ({"endpoint": 'base_url = "https://api.example.com/v1"'}, "endpoint.model is missing in the job"),
        ({"endpoint": 'model = "m"'}, "endpoint.base_url is missing in the job"),
        (
            {"extra": '[notify]\nwebhook_env = "HOOK"'},
            "no variable HOOK with the URL of notify.webhook_env: name a file",
        ),
        (
            {
                "extra": '[notify]\nwebhook_env = "K"',
                "top": 'env_file = ".env"',
                "output": "runs/fixed",
                "source": "ids-*.jsonl",
            },
            None,
        ),
    ],
)
def test_what_would_go_wrong_at_night_is_said_by_day(tmp_path, monkeypatch, change, expected):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-in-the-shell-of-whoever-asks")
    monkeypatch.setenv("OPENAI_MODEL", "m")
    monkeypatch.setenv("HOOK", "https://of.the.shell/")
    write_lines(tmp_path / "in.jsonl", {"id": "a", "text": "x"})
    write_lines(tmp_path / "ids-1.jsonl", {"id": "a", "text": "x"})
    write_lines(tmp_path / "bare-1.jsonl", {"text": "x"})
    (tmp_path / ".env").write_text("K=key\n")
    endpoint = change.pop("endpoint", None)
    job = write_job(tmp_path, **change)
    if endpoint:
        job.write_text(job.read_text("utf-8").replace('simulate = "openai"', endpoint), "utf-8")
    found = plan(job).warnings
    if expected is None:
        assert found == ()
    else:
        assert any(expected in one for one in found), found
    assert not any("have no variable K" in one for one in found)


# --- the key as a credential ---


def test_the_key_may_be_a_credential_of_systemd(tmp_path, batchrun, endpoint):
    url, asked = endpoint
    write_lines(tmp_path / "in.jsonl", {"id": "a", "text": "x"})
    job = write_job(tmp_path, output="out")
    keyed = f'base_url = "{url}"\nmodel = "m"\napi_key_file = "${{CREDENTIALS_DIRECTORY}}/api-key"'
    job.write_text(job.read_text("utf-8").replace('simulate = "openai"', keyed), "utf-8")
    without = batchrun("run", job)
    assert without.code == 2
    assert "CREDENTIALS_DIRECTORY is not set" in without.err
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials/api-key").write_text("sk-from-systemd\n")
    ran = batchrun("run", job, "-q", CREDENTIALS_DIRECTORY=str(tmp_path / "credentials"))
    assert (ran.code, ran.err) == (0, "")
    assert {key for key, _ in asked} == {"Bearer sk-from-systemd"}
    again = batchrun("retry", tmp_path / "out", "-q", CREDENTIALS_DIRECTORY=str(tmp_path / "credentials"))
    assert (again.code, again.err) == (0, "")
    made = plan(job)
    assert "LoadCredential=api-key:/etc/credstore/api-key" in service(made)
    assert active(crontab(made, UTC, START)) == []
    job.write_text(job.read_text("utf-8").replace("/api-key", "/../x y"), "utf-8")
    with pytest.raises(JobError, match="expected a name"):
        plan(job)


# --- the runs themselves ---


def test_a_job_with_a_schedule_runs_and_is_verified_as_any_other(tmp_path, batchrun):
    write_lines(tmp_path / "in.jsonl", {"id": "a", "text": "x"})
    job = write_job(tmp_path, 'cron = "0 2 * * *"\ntimezone = "Asia/Shanghai"\nwindow = "6h"', output="out")
    assert batchrun("run", job, "-q").code == 0
    assert batchrun("verify", job).code == 0
    assert batchrun("verify", tmp_path / "out").code == 0
    job.write_text(job.read_text("utf-8").replace("0 2", "0 3"), "utf-8")
    assert batchrun("run", job, "-q").code == 0
    assert len(records(tmp_path / "out/results.jsonl")) == 1


def test_the_date_is_that_of_the_schedules_time_zone(tmp_path):
    for zone in ("Pacific/Kiritimati", "Etc/GMT+12"):
        before = datetime.datetime.now(zoneinfo.ZoneInfo(zone)).date()
        output = Job.load(write_job(tmp_path, f'cron = "0 2 * * *"\ntimezone = "{zone}"')).output
        assert output.name in {str(before), str(datetime.datetime.now(zoneinfo.ZoneInfo(zone)).date())}


def test_a_start_beside_another_run_ends_with_75_and_is_quiet_when_asked(tmp_path, batchrun, simulator):
    ledger = tmp_path / "ledger"
    url = simulator("--latency", "10s", "--ledger", ledger)
    write_lines(tmp_path / "in.jsonl", *({"id": str(n), "text": "x"} for n in range(4)))
    job = write_job(tmp_path, output="out")
    flags = ("run", job, "--base-url", url, "-m", "m")
    first = subprocess.Popen(
        [sys.executable, "-m", "batchrun", *map(str, flags), "-q"], env=environment(), stderr=subprocess.PIPE
    )
    try:
        while not (tmp_path / "out/lock").exists() or not (tmp_path / "out/lock").read_text():
            assert first.poll() is None
            time.sleep(0.02)
        for quiet in (("-q",), ("-q", "--json"), ("-q", "--log-format", "json")):
            second = batchrun(*flags, *quiet)
            assert (second.code, second.out, second.err) == (75, "", "")
        loud = batchrun(*flags)
        assert loud.code == 75
        assert f"pid {first.pid}" in loud.err
    finally:
        _, err = first.communicate(timeout=30)
    assert (first.returncode, err) == (0, b"")


def test_a_json_log_may_be_moved_away_and_cut_during_a_run(tmp_path, batchrun, simulator):
    url = simulator("--latency", "50ms")
    write_lines(tmp_path / "in.jsonl", *({"id": str(n), "text": "x"} for n in range(40)))
    job = write_job(tmp_path, output="out")
    flags = f"run {job} -q --base-url {url} -m m --concurrency 1 --log-format json"
    command = f"exec {sys.executable} -m batchrun {flags} 2>> log"  # as it stands in a crontab
    log, moved, copied = (tmp_path / name for name in ("log", "log.1", "log.2"))
    with subprocess.Popen(["/bin/sh", "-c", command], cwd=tmp_path, env=environment()) as run:
        until(lambda: (tmp_path / "out/results.jsonl").exists() and (tmp_path / "out/results.jsonl").stat().st_size)
        assert batchrun("ctl", job, "pause").code == 0
        log.rename(moved)
        log.touch()
        assert batchrun("ctl", job, "set", "rpm=100000").code == 0
        copied.write_bytes(moved.read_bytes())
        os.truncate(moved, 0)
        assert batchrun("ctl", job, "resume").code == 0
    assert run.returncode == 0
    events = [(one["event"], one["message"].split(":")[0]) for path in (copied, moved) for one in records(path)]
    told = [message for event, message in events if event == "control"]
    assert told == ["paused", "set rpm = 100000.0", "resumed"]
    assert (events[0][0], events[-1]) == ("data_boundary", ("finished", "40 results, 0 failures"))
    assert log.read_bytes() == b""


#: Runs a job whose log goes to a disk that is full until the run was paused, and keeps exit code and log.
WITH_A_FULL_DISK = """
mount -t tmpfs -o size=16k tmpfs small || exit 77
head -c 100000 /dev/zero > small/full
"$@" run job.toml -q --concurrency 1 --log-format json 2>> small/log & run=$!
until test -s out/results.jsonl; do kill -0 $run || exit 1; sleep 0.1; done
"$@" ctl job.toml pause > /dev/null
test -s small/log && exit 1
test -n "$AGAIN" && rm small/full
"$@" ctl job.toml resume > /dev/null
wait $run; echo $? > code; cat small/log > log
"""


@pytest.mark.parametrize("again", ["", "yes"])
def test_a_full_disk_behind_a_log_stops_no_run_and_what_it_held_up_is_written_when_there_is_room(
    tmp_path, simulator, again
):
    if not shutil.which("unshare"):
        pytest.skip("unshare is missing: no file system of the test's own")
    write_lines(tmp_path / "in.jsonl", *({"id": str(n), "text": "x"} for n in range(40)))
    job = write_job(tmp_path, output="out", name="job.toml")
    endpoint = f'base_url = "{simulator("--latency", "50ms")}"\nmodel = "m"'
    job.write_text(job.read_text("utf-8").replace('simulate = "openai"', endpoint), "utf-8")
    (tmp_path / "small").mkdir()
    command = ["unshare", "-m", "sh", "-c", WITH_A_FULL_DISK, "sh", sys.executable, "-m", "batchrun"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment(AGAIN=again), capture_output=True, check=False)
    if ended.returncode == 77 or b"unshare:" in ended.stderr:
        pytest.skip(f"no file system could be mounted: {ended.stderr.decode().strip()[:200]}")
    assert (ended.returncode, (tmp_path / "code").read_text()) == (0, "0\n"), ended.stderr
    events = [one["message"].split(":")[0] for one in records(tmp_path / "log") if one["event"] != "data_boundary"]
    assert events == (["paused", "resumed", "40 results, 0 failures"] if again else [])


@pytest.mark.parametrize(
    ("items", "flags", "code", "said"),
    [
        ([{"id": "a", "text": "x"}], [], 0, ""),
        ([{"id": "a", "text": "x"}, b"{"], [], 3, ""),
        ([{"id": "a", "text": "x"}], ["-m", "missing"], 4, "batchrun: stopping: "),
        ([{"id": "a", "text": "x"}], ["--deadline", "100ms"], 5, "batchrun: stopping: the deadline"),
        ([{"id": "a", "text": "x"}], ["-i", "gone"], 2, "batchrun: input: gone: no such file"),
    ],
)
def test_cron_has_something_to_mail_when_a_run_was_stopped_and_only_then(
    tmp_path, batchrun, simulator, items, flags, code, said
):
    write_lines(tmp_path / "in.jsonl", *items)
    url = simulator(*(["--latency", "1s"] if code == 5 else []))
    ended = batchrun("run", write_job(tmp_path, output="out"), "-q", "--base-url", url, *(flags or ["-m", "m"]),
                     *(["-m", "m"] if code in (2, 5) else []))  # fmt: skip
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.startswith(said)
    assert bool(ended.err) == bool(said)


def inbox(tmp_path: Path, **files: list[dict[str, str]]) -> None:
    (tmp_path / "inbox").mkdir(exist_ok=True)
    for name, items in files.items():
        write_lines(tmp_path / "inbox" / f"{name}.jsonl", *items)


def asked_for(ended) -> int:
    assert ended.code == 0, ended.err
    return ended.json()["requests"]["attempts"]


def test_of_an_inbox_only_new_files_and_new_lines_run(tmp_path, batchrun):
    job = write_job(tmp_path, source="inbox/*.jsonl", output="out")
    run = ("run", job, "-q", "--json")
    inbox(tmp_path, b=[{"id": "b1", "text": "1"}, {"id": "b2", "text": "2"}])
    assert asked_for(batchrun(*run)) == 2
    assert asked_for(batchrun(*run)) == 0
    inbox(tmp_path, c=[{"id": "c1", "text": "3"}])  # a new file behind, one before, and a new line in the middle
    assert asked_for(batchrun(*run)) == 1
    inbox(tmp_path, a=[{"id": "a1", "text": "4"}], b=[{"id": "b1", "text": "1"}, {"id": "b2", "text": "2"},
                                                      {"id": "b3", "text": "5"}])  # fmt: skip
    assert asked_for(batchrun(*run)) == 2
    ids = sorted(record["id"] for record in records(tmp_path / "out/results.jsonl"))
    assert ids == ["a1", "b1", "b2", "b3", "c1"]
    assert batchrun("verify", job).code == 0


@pytest.mark.parametrize("source", ["inbox/*.jsonl", "./inbox/[ab].jsonl", "../?2026?*/inbox/*", "inbox/**/a*"])
def test_what_the_folder_of_a_job_is_called_is_no_part_of_its_globs(tmp_path, batchrun, source):
    folder = tmp_path / "[2026] 夜*?"
    folder.mkdir()
    inbox(folder, a=[{"id": "a", "text": "1"}])
    job = write_job(folder, source=source, output="out")
    assert asked_for(batchrun("run", job, "-q", "--json")) == 1
    assert batchrun("verify", folder / "out").code == 0
    assert not plan(job).warnings
    inbox(folder, a2=[{"id": "b", "text": "2"}])
    assert batchrun("run", job.name, "-q", cwd=folder).code == 0
    assert batchrun("status", folder / "out", "--json").json()["counts"]["items"] == (1 if "[ab]" in source else 2)


def test_the_same_id_in_two_files_of_an_inbox_is_named(tmp_path, batchrun):
    job = write_job(tmp_path, source="inbox/*.jsonl", output="out")
    inbox(tmp_path, a=[{"id": "1", "text": "a"}], b=[{"id": "1", "text": "b"}])
    assert batchrun("run", job, "-q").code == 3
    (failure,) = records(tmp_path / "out/failures.jsonl")
    assert failure["error"]["kind"] == "duplicate_id"


def test_items_without_ids_run_as_long_as_new_ones_sort_last_and_stop_the_run_if_they_move(tmp_path, batchrun):
    job = write_job(tmp_path, source="inbox/*.jsonl", output="out")
    run = ("run", job, "-q", "--json")
    inbox(tmp_path, day1=[{"text": "1"}, {"text": "2"}])
    assert asked_for(batchrun(*run)) == 2
    inbox(tmp_path, day2=[{"text": "3"}])
    assert asked_for(batchrun(*run)) == 1
    before = (tmp_path / "out/results.jsonl").read_bytes()
    inbox(tmp_path, day0=[{"text": "0"}])
    moved = batchrun(*run)
    assert moved.code == 2
    assert "the item changed" in moved.err
    assert (tmp_path / "out/results.jsonl").read_bytes() == before


# --- the real daemon ---


def daemon_can_be_tried() -> str:
    """Say why not; nothing where it can."""
    if not shutil.which("cron") or not shutil.which("crontab"):
        return "cron is not installed"
    if os.geteuid() != 0 or (not Path("/.dockerenv").exists() and os.environ.get("BATCHRUN_CRON") != "must"):
        return "cron is started only by root, in a container or with BATCHRUN_CRON=must"
    if subprocess.run(["crontab", "-l"], capture_output=True, check=False).returncode == 0:
        return "root has a crontab, which is left alone"
    return ""


@pytest.mark.long
@pytest.mark.timeout(200)
def test_debians_cron_runs_the_printed_line(tmp_path, odd_plan, stand_in):
    if reason := daemon_can_be_tried():
        pytest.skip(reason)
    made = dataclasses.replace(odd_plan, cron=parse("* * * * *"))
    (tmp_path / "crontab").write_text("\n".join(crontab(made)) + "\n", "utf-8")
    subprocess.run(["crontab", tmp_path / "crontab"], check=True)
    daemon = subprocess.Popen(["cron", "-f"], env={"PATH": os.environ["PATH"]})
    try:
        end = time.monotonic() + 130
        while not stand_in[1].exists():
            assert time.monotonic() < end, "cron did not run it within two minutes"
            assert daemon.poll() is None
            time.sleep(0.2)
    finally:
        daemon.terminate()
        daemon.wait(timeout=10)
        subprocess.run(["crontab", "-r"], check=True)
    assert stand_in[1].read_text().splitlines() == expected_call(made)
