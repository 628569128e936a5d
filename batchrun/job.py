"""The job: what to run, as one immutable typed value. Every default stands here.

A job comes from a TOML file (`Job.load`) or is made in Python; either way the same checks apply, and all problems
are reported at once, each with file, line, key and what was expected.
"""

from __future__ import annotations

import dataclasses
import datetime
import glob
import math
import os
import re
import tomllib
import types
import typing
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from batchrun import cron, expect
from batchrun.expect import LARGEST, Percent, as_toml

if typing.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

PLACEHOLDER_MODEL = "YOUR_MODEL_ID"
#: What `api_key_file` may begin with: the folder where systemd puts what a service loads with `LoadCredential=`.
CREDENTIALS = "${CREDENTIALS_DIRECTORY}/"
#: Seconds that count where a job names none; a batch lane has times of its own.
ATTEMPT_TIMEOUT_S = 600.0
ITEM_TIMEOUT_S = 3600.0


class JobError(Exception):
    """The job, its input or its schema cannot be used; nothing was sent. `problems` has one line for each."""

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class Prompt:
    """Jinja templates that make the messages from an item's fields."""

    system: str | None = None
    user: str | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go. The key is read from `api_key_file`, else from the variable named by `api_key_env`.

    Certificates count that the authorities in `ca_file` signed, else those of the system. `proxy` leads out where it is
    named; variables that name one are ignored. `allow_http` lets key and prompts go to another machine in clear text.

    `thinking` switches a model's thinking in the provider's own way; "auto" leaves it as it is. `profile_max_age` is
    the age in seconds from which on a profile is said to be old.
    """

    base_url: str | None = None
    model: str | None = None
    api_key_env: str | None = None
    api_key_file: Path | None = None
    simulate: str | None = None
    dialect: str = "auto"
    stream: Literal["auto"] | bool = "auto"
    lane: Literal["standard", "batch"] = "standard"
    drop_unsupported: bool = False
    thinking: Literal["auto"] | bool = "auto"
    profile: Literal["auto", "off"] = "auto"
    profile_max_age: float = 90 * 86400.0
    idempotency_key: bool = True
    allow_http: bool = False
    ca_file: Path | None = None
    proxy: str | None = field(default=None, repr=False)

    @property
    def stays_here(self) -> bool:
        """Tell whether nothing that is sent to it leaves this machine."""
        return bool(self.simulate) or is_loopback(self.base_url or "")


@dataclass(frozen=True, slots=True)
class Structured:
    """JSON output: the schema it must obey, how it is asked for, how often an invalid one is sent back.

    Without a schema the modes `json_object` and `prompt` ask for any object, and for any object or array.
    """

    schema: Path | None = None
    mode: Literal["auto", "json_schema", "tool", "json_object", "prompt"] = "auto"
    reask: int = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """How fast requests may leave. Runs of one `scope` share their limits, on one machine."""

    concurrency: Literal["auto"] | int = "auto"
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    requests_per_second: float | None = None
    tokens_per_second: float | None = None
    requests_per_day: float | None = None
    tokens_per_day: float | None = None
    scope: str | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how long an item is tried; times in seconds.

    `attempt_timeout` is for one whole attempt, `idle_timeout` for a pause in an answer that has begun. Where the first
    and `item_timeout` are not set they are 10 minutes and an hour, in a batch lane what the lane takes. An endpoint
    that is down for longer than `max_outage` ends the run. `hedge` is the share of requests that may be sent a second
    time because they take much longer than the others.
    """

    max_attempts: int = 6
    attempt_timeout: float | None = None
    idle_timeout: float = 180.0
    item_timeout: float | None = None
    wait_initial: float = 1.0
    wait_max: float = 60.0
    max_outage: float = 900.0
    hedge: float = 0.0


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of the user's own; reaching one ends the run with exit code 5. `deadline` in seconds."""

    deadline: float | None = None
    max_cost: float | None = None
    max_failures: int | Percent | None = None


@dataclass(frozen=True, slots=True)
class Canary:
    """The first items of a run go alone. Rates are shares, 0 to 1, of them that may fail, and be `truncated`."""

    items: int = 20
    max_failure_rate: float | None = None
    max_truncated: float | None = None


@dataclass(frozen=True, slots=True)
class Notify:
    """Who is told how a run ended: a command of the shell, the webhook whose URL the variable `webhook_env` holds."""

    command: str | None = None
    webhook_env: str | None = None
    webhook_format: Literal["json", "dingtalk", "wecom", "feishu"] = "json"
    on: Literal["always", "trouble"] = "always"


@dataclass(frozen=True, slots=True)
class Price:
    """Prices per million tokens, as the user's account shows them; none are shipped."""

    currency: str = "CNY"
    input: float = 0.0
    cached_input: float | None = None
    output: float = 0.0


@dataclass(frozen=True, slots=True)
class DataBoundary:
    """What the user states about the data, and how it is looked through before it leaves.

    Remote endpoints need `classification = "non-sensitive"`; `by_flag` tells that this was said on the command line.
    `detectors` names those that look, all of them where it is None; `patterns` are regular expressions by name;
    `words_file` has a word a line. `include` and `skip` name fields of the items, dotted where nested. `restore` puts
    what was redacted back into the outputs.
    """

    classification: str | None = None
    scan: Literal["block", "redact", "warn", "off"] = "block"
    detectors: tuple[str, ...] | None = None
    patterns: Mapping[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    words_file: Path | None = None
    include: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    restore: bool = False
    by_flag: bool = False


@dataclass(frozen=True, slots=True)
class SimulatorOptions:
    """How the embedded simulated provider behaves; times in seconds, fault rates 0 to 1.

    A fault can have a table instead of a rate: {"rate": 0.05, "count": 3} comes at most three times.
    """

    latency: float = 0.0
    jitter: float = 0.0
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrency: int | None = None
    faults: Mapping[str, float | Mapping[str, float]] = field(default_factory=dict)
    seed: int = 0
    moderation_keyword: str | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """When the job is to run, for `batchrun schedule`: nothing here makes a run wait.

    `cron` has five fields, on the clock of `timezone` (None: that of the machine). `window` is how long after its start
    in seconds a run may still send. {date} and {time} of the job are of this time zone.
    """

    cron: str = ""
    timezone: str | None = None
    window: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """What to run: input files, output folder, and how.

    `input` holds paths, globs, or "-" for standard input. Paths are used as they are; `Job.load` makes the paths of
    a job file relative to that file. Raises `JobError` from `check` when something cannot work.
    """

    input: tuple[str, ...]
    output: Path
    prompt: Prompt | None = None
    endpoint: Endpoint = field(default_factory=Endpoint)
    params: Mapping[str, Any] = field(default_factory=dict)
    structured: Structured = field(default_factory=Structured)
    limits: Limits = field(default_factory=Limits)
    retry: Retry = field(default_factory=Retry)
    budget: Budget = field(default_factory=Budget)
    canary: Canary | None = None
    notify: Notify | None = None
    price: Price | None = None
    data_boundary: DataBoundary = field(default_factory=DataBoundary)
    simulator: SimulatorOptions = field(default_factory=SimulatorOptions)
    schedule: Schedule | None = None
    encoding: str = "utf-8"
    env_file: Path | None = None
    path: Path | None = None

    @classmethod
    def load(cls, path: str | Path) -> Job:
        """Read a job file. Raises `JobError` with every problem found in it."""
        return load_job(Path(path))

    def check(self) -> None:
        """Raise `JobError` if values are impossible, or contradict each other."""
        problems = _impossible(self)
        if problems:
            raise JobError(message for _, message in problems)


# --- the job file -----------------------------------------------------------------------------------------------


def _cron(value: object) -> str:
    """Give a cron expression, its fields one blank apart."""
    if not isinstance(value, str):
        raise ValueError(cron.FIELDS)  # noqa: TRY004 - one kind of error for a value that cannot be used
    return cron.parse(value).text


#: For every key of the job file, what turns its TOML value into the value of the job, or says what was expected.
_SECTIONS: dict[str, tuple[type[Any], dict[str, Callable[[object], Any]]]] = {
    "prompt": (Prompt, {"system": expect.text, "user": expect.text}),
    "endpoint": (
        Endpoint,
        {
            "base_url": expect.text,
            "model": expect.text,
            "api_key_env": expect.text,
            "api_key_file": expect.path,
            "simulate": expect.text,
            "dialect": expect.text,
            "stream": expect.one_of("auto", True, False),
            "lane": expect.one_of("standard", "batch"),
            "drop_unsupported": expect.flag,
            "thinking": expect.one_of("auto", True, False),
            "profile": expect.one_of("auto", "off"),
            "profile_max_age": expect.duration,
            "idempotency_key": expect.flag,
            "allow_http": expect.flag,
            "ca_file": expect.path,
            "proxy": expect.secret_text,
        },
    ),
    "structured": (
        Structured,
        {
            "schema": expect.path,
            "mode": expect.one_of("auto", "json_schema", "tool", "json_object", "prompt"),
            "reask": expect.whole(0),
        },
    ),
    "limits": (
        Limits,
        {
            "concurrency": expect.concurrency,
            "requests_per_minute": expect.positive,
            "tokens_per_minute": expect.positive,
            "requests_per_second": expect.positive,
            "tokens_per_second": expect.positive,
            "requests_per_day": expect.positive,
            "tokens_per_day": expect.positive,
            "scope": expect.name,
        },
    ),
    "retry": (
        Retry,
        {
            "max_attempts": expect.whole(1),
            "attempt_timeout": expect.duration,
            "idle_timeout": expect.duration,
            "item_timeout": expect.duration,
            "wait_initial": expect.duration,
            "wait_max": expect.duration,
            "max_outage": expect.duration,
            "hedge": expect.share,
        },
    ),
    "budget": (
        Budget,
        {"deadline": expect.duration, "max_cost": expect.positive, "max_failures": expect.max_failures},
    ),
    "canary": (
        Canary,
        {"items": expect.whole(1), "max_failure_rate": expect.share, "max_truncated": expect.share},
    ),
    "notify": (
        Notify,
        {
            "command": expect.text,
            "webhook_env": expect.text,
            "webhook_format": expect.one_of("json", "dingtalk", "wecom", "feishu"),
            "on": expect.one_of("always", "trouble"),
        },
    ),
    "price": (
        Price,
        {"currency": expect.text, "input": expect.price, "cached_input": expect.price, "output": expect.price},
    ),
    "data_boundary": (
        DataBoundary,
        {
            "classification": expect.text,
            "scan": expect.one_of("block", "redact", "warn", "off"),
            "detectors": expect.texts,
            "patterns": expect.named_texts,
            "words": expect.texts,
            "words_file": expect.path,
            "include": expect.texts,
            "skip": expect.texts,
            "restore": expect.flag,
        },
    ),
    "simulator": (
        SimulatorOptions,
        {
            "latency": expect.zero_or_duration,
            "jitter": expect.zero_or_duration,
            "requests_per_minute": expect.whole(1),
            "tokens_per_minute": expect.whole(1),
            "max_concurrency": expect.whole(1),
            "faults": expect.rates,
            "seed": expect.whole(0),
            "moderation_keyword": expect.text,
        },
    ),
    "schedule": (Schedule, {"cron": _cron, "timezone": expect.timezone, "window": expect.duration}),
}
_TOP: dict[str, Callable[[object], Any]] = {
    "input": expect.inputs,
    "output": expect.path,
    "env_file": expect.path,
    "encoding": expect.text,
}


_SCHEDULE_KEYS = {"schedule", "schedule.cron"}


def load_job(path: Path, overrides: Mapping[str, Any] | None = None) -> Job:
    """Read a job file and lay `overrides` over it, such as {"endpoint.model": "…", "input": ("…",)}.

    Overrides are values as `Job` holds them, not as TOML spells them; a None is no override. Raises `JobError`.
    """
    return build_job(_read_toml(path), path, overrides)


def job_from_flags(overrides: Mapping[str, Any]) -> Job:
    """Make a job from overrides alone, for a command line without a job file. Raises `JobError`."""
    return build_job("", None, overrides)


def endpoint_job(path: Path | None, overrides: Mapping[str, Any]) -> Job:
    """Make a job for what is about its endpoint alone: neither input nor output need be named. Raises `JobError`."""
    return build_job(_read_toml(path) if path else "", path, overrides, needed=())


def job_to_notify(path: Path) -> Job | None:
    """Give what of a job file tells whom to notify, whatever else is wrong with it; None if it tells nobody."""
    try:
        reader = _Reader(_read_toml(path), path)
        values = reader.values()
    except JobError:
        return None
    if "notify" not in values or any(key.partition(".")[0] == "notify" for key in reader.wrong):
        return None
    endpoint = Endpoint(api_key_env=values.get("endpoint", {}).get("api_key_env"))
    return Job(
        (), Path(values.get("output", "")), env_file=values.get("env_file"), endpoint=endpoint,
        notify=Notify(**values["notify"]), path=path,
    )  # fmt: skip


def build_job(
    text: str, path: Path | None, overrides: Mapping[str, Any] | None = None,
    needed: tuple[str, ...] = ("input", "output"),
) -> Job:  # fmt: skip
    """Make a job from the text of a job file (with its path, for messages and relative paths) and overrides."""
    reader = _Reader(text, path)
    values = reader.values()
    for key, value in (overrides or {}).items():
        if value is not None:
            section, _, name = key.rpartition(".")
            if section:
                values.setdefault(section, {})[name] = value
            else:
                values[key] = value
    if overrides and overrides.get("endpoint.base_url"):
        values["endpoint"].pop("simulate", None)  # a flag wins over the job file
    for key in needed:
        if key not in values and key not in reader.wrong:
            reader.problem(key, f"{key} is missing: name it in the job file or give --{key}")
    made = {section: kind(**values.pop(section)) for section, (kind, _) in _SECTIONS.items() if section in values}
    job = Job(**{"input": (), "output": Path(), **values}, **made, path=path)
    _look_for_problems(job, reader, overrides or {})
    if reader.problems:
        raise JobError(reader.problems)
    return job


def _look_for_problems(job: Job, reader: _Reader, overrides: Mapping[str, Any]) -> None:
    for key, message in _impossible(job):
        if (key.startswith("params.") and key in reader.wrong) or (key == "schedule" and reader.wrong & _SCHEDULE_KEYS):
            continue  # said already, with its line
        if overrides.get(key) is not None:
            reader.problems.append(f"command line: {message}")
        else:
            reader.problem(key, message)


def _read_toml(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise JobError(f"{path}: not UTF-8 at byte {error.start}; save the job file as UTF-8") from error
    except OSError as error:
        raise JobError(f"{path}: the job file cannot be read: {error.strerror}") from error


class _Reader:
    """Turns the TOML of a job file into values for `Job`, collecting every problem with its place."""

    def __init__(self, text: str, path: Path | None) -> None:
        self._text = text
        self._path = path
        self._base = path.parent if path else Path()
        self._now = datetime.datetime.now().astimezone()
        self.problems: list[str] = []
        self.wrong: set[str] = set()

    def problem(self, key: str, message: str) -> None:
        self.wrong.add(key)
        place = str(self._path) if self._path else "command line"
        line = _line_of(self._text, key)
        self.problems.append(f"{place}:{line}: {message}" if line else f"{place}: {message}")

    def values(self) -> dict[str, Any]:
        try:
            tables = tomllib.loads(self._text)
        except (ValueError, RecursionError) as error:  # ValueError: not TOML, or a number of thousands of digits
            raise JobError(f"{self._path}: not valid TOML: {error}") from error
        values: dict[str, Any] = {}
        for key, value in tables.items():
            if key in _SECTIONS:
                values[key] = self._section(key, value)
            elif key == "params":
                values[key] = self._params(value)
            elif key in _TOP:
                self._convert(values, key, key, value, _TOP[key])
            else:
                self._unknown(key, [*_TOP, *_SECTIONS, "params"])
        self._place_paths(values)
        return values

    def _section(self, section: str, value: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.problem(section, f"{section}: expected a table, [{section}]")
            return {}
        converters = _SECTIONS[section][1]
        made: dict[str, Any] = {}
        for key, one in value.items():
            name = f"{section}.{key}"
            if key in converters:
                self._convert(made, key, name, one, converters[key])
            else:
                self._unknown(name, [f"{section}.{known}" for known in converters])
        return made

    def _params(self, value: object) -> dict[str, Any]:
        if isinstance(value, dict):
            for key, one in value.items():
                if not _is_json(one):
                    name = f"params.{key}"
                    self.problem(name, f"{name}: expected a value that JSON can hold, got {_short(one)}")
            return value
        self.problem("params", "params: expected a table, [params]")
        return {}

    def _convert(
        self, into: dict[str, Any], key: str, name: str, value: object, convert: Callable[[object], Any]
    ) -> None:
        try:
            into[key] = convert(value)
        except ValueError as error:
            self.problem(name, f"{name}: expected {error}, got {_short(value)}")

    def _unknown(self, name: str, known: list[str]) -> None:
        self.problem(name, f"{name}: unknown key{expect.meant_or_known(name, known)}")

    def _place_paths(self, values: dict[str, Any]) -> None:
        """Expand {date} and {time}, and make paths relative to the job file."""
        zone = values.get("schedule", {}).get("timezone")
        if zone is not None:
            import zoneinfo

            self._now = self._now.astimezone(zoneinfo.ZoneInfo(zone))
        if "input" in values:
            values["input"] = tuple(one if one == "-" else self._place_input(one) for one in values["input"])
        if str(values.get("endpoint", {}).get("dialect", "")).endswith(".toml"):
            values["endpoint"]["dialect"] = str(self._place(values["endpoint"]["dialect"]))
        for section, key in (
            (None, "output"),
            (None, "env_file"),
            ("endpoint", "api_key_file"),
            ("endpoint", "ca_file"),
            ("structured", "schema"),
            ("data_boundary", "words_file"),
        ):
            table = values if section is None else values.get(section, {})
            if key in table:
                table[key] = self._place(table[key])

    def _place_input(self, path: str) -> str:
        """Place a path or glob; what the folder of the job is called is no part of the glob."""
        placed = self._place(path)
        if os.path.isabs(path) or not glob.has_magic(path) or os.path.exists(placed):  # noqa: PTH110, PTH117 - as given
            return str(placed)
        own = [part for part in Path(os.path.normpath(path)).parts if part != ".."]
        above = placed.parents[len(own) - 1]
        return str(Path(glob.escape(str(above)), *placed.parts[-len(own) :]))

    def _place(self, path: str) -> Path:
        """Make a path of the job file one that works from here, without needless `..`."""
        if path.startswith(CREDENTIALS):
            return Path(path)  # the service manager says where that is, only when the job runs
        placed = self._base / expand_date(path, self._now)
        shorter = Path(os.path.normpath(placed))
        try:
            return shorter if shorter.resolve() == placed.resolve() else placed  # `..` behind a symbolic link stays
        except (OSError, RuntimeError):  # a loop of symbolic links
            return placed


def expand_date(text: str, now: datetime.datetime | None = None) -> str:
    """Replace {date} and {time} by the local date and time: 2026-11-22 and 030405."""
    now = now or datetime.datetime.now().astimezone()
    return text.replace("{date}", now.strftime("%Y-%m-%d")).replace("{time}", now.strftime("%H%M%S"))


def _is_json(value: object) -> bool:
    if isinstance(value, dict):
        return all(_is_json(one) for one in value.values())
    if isinstance(value, list):
        return all(_is_json(one) for one in value)
    if isinstance(value, int):
        return -LARGEST <= value <= LARGEST
    return isinstance(value, str) or (isinstance(value, float) and math.isfinite(value))


def _short(value: object) -> str:
    text = as_toml(value)
    return text if len(text) <= 60 else text[:57] + "…"


_LONG_STRING = re.compile(r"\"{3}(?:\\.|.)*?\"{3}|'{3}.*?'{3}", re.DOTALL)


def _line_of(text: str, name: str) -> int | None:
    """Find the line where a key (or its section) stands, for messages; None if it does not stand there."""
    section, _, key = name.rpartition(".")
    here = ""
    text = _LONG_STRING.sub(lambda found: "\n" * found.group().count("\n"), text)  # prompts may look like TOML
    for number, line in enumerate(text.split("\n"), 1):
        header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line)
        if header:
            here = header.group(1)
            if here == name:
                return number
        elif here == section and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[.=]", line):
            return number
    return None


# --- checks -----------------------------------------------------------------------------------------------------


def is_loopback(url: str) -> bool:
    """Tell whether a URL's host is this machine: localhost, 127.0.0.0/8 or ::1."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":  # a name below it is looked up like any other
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


#: A key of the job and what is wrong with its value.
_Problem = tuple[str, str]


def _impossible(job: Job) -> list[_Problem]:
    problems: list[_Problem] = []
    endpoint = job.endpoint
    problems += [("schedule", message) for message in _bad_schedule(job.schedule)]
    if endpoint.base_url:
        problems += [("endpoint.base_url", message) for message in _bad_url(endpoint.base_url)]
        if endpoint.simulate:
            words = "endpoint.simulate and endpoint.base_url exclude each other; remove one"
            problems.append(("endpoint.simulate", words))
        if endpoint.model == PLACEHOLDER_MODEL:
            words = "use a model id that your account lists (-m ID)"
            problems.append(("endpoint.model", f"endpoint.model is still the placeholder {PLACEHOLDER_MODEL}; {words}"))
    if len(job.input) > 1 and "-" in job.input:
        problems.append(("input", 'input: "-" (standard input) cannot be combined with files'))
    if endpoint.proxy is not None:
        problems += [("endpoint.proxy", message) for message in _bad_proxy(endpoint.proxy)]
    if job.structured.mode in ("json_schema", "tool") and job.structured.schema is None:
        words = f'structured.mode = "{job.structured.mode}" needs structured.schema'
        problems.append(("structured.mode", words))
    if not _usable_encoding(job.encoding):
        words = (
            f"encoding: {job.encoding!r} is not usable; expected the name of an encoding in which a line ends "
            'with the byte 0A, such as "utf-8", "gb18030" or "big5" (convert UTF-16 with iconv first)'
        )
        problems.append(("encoding", words))
    # The command line and the environment can hold any bytes; neither a request nor `run.json` can.
    prompt = job.prompt or Prompt()
    texts = {
        "job file": job.path, "output": job.output, "prompt.user": prompt.user, "prompt.system": prompt.system,
        "endpoint.base_url": endpoint.base_url, "endpoint.model": endpoint.model,
        "structured.schema": job.structured.schema,
    }  # fmt: skip
    problems += [(key, f"{key}: holds bytes that are not UTF-8") for key, text in texts.items() if not _is_utf8(text)]
    problems += [
        (f"params.{key}", f"params.{key}: expected a value that JSON can hold, got {_short(value)}")
        for key, value in job.params.items()
        if not _is_json(value)
    ]
    problems += _missing_partners(job)
    reserved = {"messages", "stream", "stream_options"} & set(job.params)
    problems += [(f"params.{key}", f"params.{key}: set by batchrun, remove it") for key in sorted(reserved)]
    return problems


def _missing_partners(job: Job) -> list[_Problem]:
    """Name what is of no use without something else."""
    problems: list[_Problem] = []
    if job.budget.max_cost is not None and not (job.price and (job.price.input or job.price.output)):
        words = "budget.max_cost (--max-cost) needs the prices of your account: [price] with input and output"
        problems.append(("budget.max_cost", words))
    if job.notify is not None and not (job.notify.command or job.notify.webhook_env):
        problems.append(("notify", "[notify] needs command or webhook_env"))
    boundary = job.data_boundary
    if boundary.restore and boundary.scan != "redact":
        problems.append(("data_boundary.restore", 'data_boundary.restore needs data_boundary.scan = "redact"'))
    return problems


def _is_utf8(text: object) -> bool:
    return _printable(str(text)) == str(text)


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def without_password(url: str) -> str:
    """Give a URL as it may be shown: what stands before the @ may be a password."""
    return re.sub(r"(://|\A)[^/]*@", rf"\1{_LEFT_OUT}@", url)


_LEFT_OUT = "…"


def _bad_proxy(url: str) -> list[str]:
    shown = without_password(url)
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme == "http" and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_whole = False
        parts = urlsplit("")
    if not is_whole or parts.path not in ("", "/") or parts.query or parts.fragment or not url.isascii():
        if parts.username == _LEFT_OUT:
            return ["endpoint.proxy: its password is not kept in run.json"]
        return [f"endpoint.proxy: expected http://host:port, got {shown!r} (what is sent through it stays TLS)"]
    if re.search(r"[\x00-\x20\x7f]", url):
        return ["endpoint.proxy: holds a space or control character"]
    return []


def _bad_url(url: str) -> list[str]:
    shown = re.sub(r"[^/@]*@", "…@", url)  # what stands before the @ may be a password
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        return [f"endpoint.base_url: {shown!r} is not a URL"]
    has_host = parts.hostname and not re.search(r"\\|\][^:]|[^\[@/]\[", parts.netloc)
    if parts.scheme not in ("http", "https") or not has_host or not port_is_fine:
        return [f"endpoint.base_url: expected http:// or https:// and a host, got {shown!r}"]
    problems = []
    if parts.username or parts.password:
        problems.append("endpoint.base_url: holds a user name or password; keys come from the environment")
    if re.search(r"[\x00-\x20\x7f]", url):
        problems.append("endpoint.base_url: holds a space or control character")
    if parts.path.rstrip("/").endswith("/chat/completions"):
        problems.append("endpoint.base_url: leave out /chat/completions; batchrun appends it")
    if parts.query or parts.fragment:
        problems.append("endpoint.base_url: must not have a query (?) or fragment (#)")
    return problems


def _bad_schedule(schedule: Schedule | None) -> list[str]:
    if schedule is None:
        return []
    if not schedule.cron:
        return [f"schedule.cron is missing: expected {cron.FIELDS}"]
    try:
        cron.parse(schedule.cron)
    except ValueError as error:
        return [f"schedule.cron: expected {error}, got {_short(schedule.cron)}"]
    return []


def _usable_encoding(name: str) -> bool:
    try:
        return '{"a": 1}\n'.encode(name) == b'{"a": 1}\n'
    except (LookupError, ValueError):
        return False


def job_from_manifest(value: Mapping[str, Any], folder: Path) -> Job:
    """Make the job that `as_plain` wrote into `run.json`; relative paths count from `folder`.

    Raises `JobError` if that is none.
    """

    def path(text: object) -> Path | None:
        if text is None:
            return None
        return Path(str(text)) if str(text).startswith(CREDENTIALS) else folder / str(text)

    try:
        top = {name: _value_of(name, convert, value[name]) for name, convert in _TOP.items() if value[name]}
        made = {
            name: kind(**_values_of(name, converters, value[name]))
            for name, (kind, converters) in _SECTIONS.items()
            if value.get(name) is not None
        }
        endpoint, structured = made["endpoint"], made["structured"]
        own_dialect = str(folder / endpoint.dialect) if endpoint.dialect.endswith(".toml") else endpoint.dialect
        key_file = path(endpoint.api_key_file)
        made["endpoint"] = dataclasses.replace(
            endpoint, api_key_file=key_file, ca_file=path(endpoint.ca_file), dialect=own_dialect
        )
        made["structured"] = dataclasses.replace(structured, schema=path(structured.schema))
        boundary = made.get("data_boundary", DataBoundary())
        made["data_boundary"] = dataclasses.replace(boundary, words_file=path(boundary.words_file))
        job = Job(
            input=tuple(one if one == "-" else _under(folder, one) for one in top.get("input", ())),
            output=folder / top["output"], params=_value_of("params", _table, value["params"]),
            encoding=top["encoding"], env_file=path(top.get("env_file")), **made,
        )  # fmt: skip
        job.check()
    except (AttributeError, KeyError, TypeError) as error:
        raise JobError(f"its job cannot be read: {error!r}") from error
    return job


def _under(folder: Path, path: str) -> str:
    """Give a path or glob under a folder, which is no part of the glob whatever it is called."""
    is_glob = not os.path.isabs(path) and glob.has_magic(path) and not os.path.exists(folder / path)  # noqa: PTH110, PTH117
    return str(Path(glob.escape(str(folder)), path)) if is_glob else str(folder / path)


def _values_of(section: str, converters: Mapping[str, Callable[[object], Any]], values: object) -> dict[str, Any]:
    table = _value_of(section, _table, values)
    return {
        key: _value_of(f"{section}.{key}", converters.get(key, expect.flag), one)  # `by_flag` is no key of a job file
        for key, one in table.items()
        if one is not None
    }


def _value_of(key: str, convert: Callable[[object], Any], value: object) -> Any:
    """Read a value of a job as `run.json` has it: a share is a number there."""
    if value == "" or (convert is expect.share and type(value) is float and 0 <= value <= 1):
        return value
    try:
        return convert(value)
    except ValueError as error:
        raise JobError(f"job.{key}: expected {error}, got {_short(value)}") from error


def _table(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("a table")  # noqa: TRY004 - one kind of error for a value that cannot be used
    return value


def as_plain(value: object) -> Any:
    """Turn a job or a part of it into plain JSON values, for `run.json`; it holds no secret."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if isinstance(value, Percent):
            return str(value)
        plain = {one.name: as_plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
        if isinstance(value, Endpoint) and value.proxy:
            plain["proxy"] = without_password(value.proxy)
        return plain
    if isinstance(value, dict | types.MappingProxyType):
        return {str(key): as_plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(one) for one in value]
    return _printable(str(value)) if isinstance(value, Path | str) else value  # file names may be no UTF-8
