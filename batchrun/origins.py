"""Where each setting of an endpoint came from: flag, job file, variable, dotenv file, default."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from batchrun.job import without_password
from batchrun.settings import DEFAULT_KEY_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from batchrun.endpoint.dialect import Dialect
    from batchrun.job import Endpoint, Job

#: batchrun goes to its endpoint directly; these lead other programs elsewhere (curl, requests, the SDKs).
_PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
#: Of a shorter key nothing is shown.
_SHORTEST_SHOWN = 12
_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting, its value in words, and where it came from."""

    name: str
    value: str
    origin: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.value}" + (f" ({self.origin})" if self.origin else "")


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where the key is read: a `variable` of the environment or of a dotenv `file`, or a `file` that holds it alone."""

    kind: Literal["none", "environment", "env_file", "file"]
    variable: str = DEFAULT_KEY_VARIABLE
    file: Path | None = field(default=None)

    def __str__(self) -> str:
        if self.kind == "file":
            return f"file {self.file}"
        if self.kind == "env_file":
            return f"variable {self.variable} in env_file {self.file}"
        return f"variable {self.variable}"

    def in_shell(self) -> str:
        """Give what stands for the key within double quotes of a shell."""
        if self.kind == "file":
            return f"$(cat {shlex.quote(str(self.file))})"
        if self.kind == "env_file":
            # As the dotenv file is read here: the last assignment counts, quotes and comments do not.
            pattern = rf"s/^[[:space:]]*(export[[:space:]]+)?{self.variable}[[:space:]]*=[[:space:]]*"
            pattern += r"""["'\'']?([^"'\''[:space:]]*).*/\2/p"""
            return f"$(sed -nE '{pattern}' {shlex.quote(str(self.file))} | tail -n 1)"
        return f"${self.variable}"


def key_source(job: Job, variables: Mapping[str, str]) -> KeySource:
    """Find where a job's key is read; kind `none` if no such variable is set (the variable is named all the same)."""
    endpoint = job.endpoint
    if endpoint.simulate:
        return KeySource("none")
    if endpoint.api_key_file:
        return KeySource("file", file=endpoint.api_key_file)
    name = endpoint.api_key_env or DEFAULT_KEY_VARIABLE
    if name in os.environ:
        return KeySource("environment", name)
    return KeySource("env_file", name, job.env_file) if name in variables else KeySource("none", name)


def proxies(variables: Mapping[str, str]) -> list[str]:
    """Name the proxy variables that are set. Their values stay out of sight: they may hold a password."""
    wanted = [spelled for name in _PROXY_VARIABLES for spelled in (name, name.lower())]
    return [name for name in wanted if variables.get(name)]


def route_in_words(job: Job) -> list[Setting]:
    """List what the job says of the way to its endpoint: proxy and authorities. Nothing where it says nothing."""
    endpoint, file = job.endpoint, str(job.path or "the job")
    found = []
    if endpoint.proxy:
        found.append(Setting("through", f"the proxy {without_password(endpoint.proxy)}", file))
    if endpoint.ca_file:
        found.append(Setting("ca_file", f"{endpoint.ca_file}, in place of the system's authorities", file))
    return found


def key_in_words(key: str | None, source: KeySource, endpoint: Endpoint) -> Setting:
    """Say whether there is a key and from where; of a long one its last four characters."""
    if key is None:
        why = "the simulated provider wants none" if endpoint.simulate else f"{source} is not set"
        return Setting("key", "absent", why)
    tail = f", ends in {key[-_SHOWN:]}" if len(key) >= _SHORTEST_SHOWN else ""
    return Setting("key", f"present{tail}", str(source))


def settings_of(
    given: Mapping[str, str | None], written: Job, resolved: Job, variables: Mapping[str, str], dialect: Dialect
) -> list[Setting]:
    """List base URL, model, dialect and lane. `given` holds flags by name, `written` is the job before `resolve`."""
    file = str(written.path or "the job")
    endpoint = resolved.endpoint

    def origin(name: str, flag: str, in_job: str | None, variable: str) -> str:
        if given.get(name) is not None:
            return flag
        if in_job:
            return file
        in_file = variable not in os.environ and variable in variables
        return f"variable {variable}" + (f" in env_file {written.env_file}" if in_file else "")

    if endpoint.simulate:
        found = [Setting("base_url", f"simulated provider ({endpoint.simulate})", file)]
    else:
        where = origin("base_url", "--base-url", written.endpoint.base_url, "OPENAI_BASE_URL")
        found = [Setting("base_url", str(endpoint.base_url), where)]
    if endpoint.model is None:
        found.append(Setting("model", "none", "neither -m nor endpoint.model nor OPENAI_MODEL names one"))
    else:
        simulated = endpoint.simulate and not written.endpoint.model
        where = (
            "of the simulated provider" if simulated else origin("model", "-m", written.endpoint.model, "OPENAI_MODEL")
        )
        found.append(Setting("model", endpoint.model, where))
    if endpoint.dialect != "auto":
        where = file
    elif endpoint.simulate:
        where = "as simulated"
    else:
        where = "the base URL is nobody's that is known" if dialect.guessed else "recognised by the base URL"
    lane = file if endpoint.lane != "standard" else "default"
    return [*found, Setting("dialect", dialect.name, where), Setting("lane", endpoint.lane, lane)]
