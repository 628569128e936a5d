"""What a job takes from its surroundings: environment, dotenv file, key. The key stays out of every message."""

from __future__ import annotations

import dataclasses
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from batchrun.job import CREDENTIALS, Endpoint, Job, JobError, is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_KEY_VARIABLE = "OPENAI_API_KEY"

_ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")

BOUNDARY_REFUSAL = (
    "this endpoint is not on this machine, and the job does not say that its data may leave it.",
    "Never send: sensitive personal data, confidential customer data, regulated data, residency-bound data.",
    'If the data is none of these: classification = "non-sensitive" under [data_boundary], or --confirm-non-sensitive.',
)


def environment(job: Job, own: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give the variables that count for a job: `own` over those of `env_file`. Raises `JobError`.

    `own` are those of this process unless others are given.
    """
    return {**(_read_env_file(job.env_file) if job.env_file else {}), **(os.environ if own is None else own)}


def fill(job: Job, variables: Mapping[str, str]) -> Job:
    """Fill base URL and model from the environment where flag and job file are silent."""
    endpoint = job.endpoint
    if endpoint.simulate:
        return dataclasses.replace(job, endpoint=dataclasses.replace(endpoint, model=endpoint.model or "simulated"))
    endpoint = dataclasses.replace(
        endpoint,
        base_url=endpoint.base_url or variables.get("OPENAI_BASE_URL") or None,
        model=endpoint.model or variables.get("OPENAI_MODEL") or None,
    )
    return dataclasses.replace(job, endpoint=endpoint)


def resolve(job: Job, variables: Mapping[str, str], *, sends_data: bool = True) -> Job:
    """Fill what is missing and check that requests may be sent. Raises `JobError`.

    A remote endpoint is refused unless the job states that its data is non-sensitive, or none of it is sent.
    """
    job = fill(job, variables)
    endpoint = job.endpoint
    if endpoint.simulate:
        return job
    if not endpoint.base_url:
        raise JobError(
            "endpoint.base_url is missing: name it in the job file, give --base-url or set OPENAI_BASE_URL "
            '(or simulate = "openai" for a rehearsal without key and network)'
        )
    job.check()
    is_here = endpoint.stays_here
    problems = []
    if sends_data and not is_here and job.data_boundary.classification != "non-sensitive":
        problems.append(f"{endpoint.base_url}: " + "\n".join(BOUNDARY_REFUSAL))
    if endpoint.base_url.lower().startswith("http:") and not is_here and not endpoint.allow_http:
        problems.append(
            f"{endpoint.base_url}: key and prompts would leave this machine in clear text: write https://, or "
            "allow_http = true under [endpoint] if the network between is yours"
        )
    if problems:
        raise JobError(problems)
    return job


def key_path(file: Path, variables: Mapping[str, str]) -> Path:
    """Give the file that holds the key, where systemd put it for this run. Raises `JobError`."""
    if not str(file).startswith(CREDENTIALS):
        return file
    folder = variables.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise JobError(
            f"no key: endpoint.api_key_file is {file}, and CREDENTIALS_DIRECTORY is not set: systemd sets it for a "
            "service with LoadCredential= (batchrun schedule prints one)"
        )
    return Path(folder) / str(file).removeprefix(CREDENTIALS)


def read_key(endpoint: Endpoint, variables: Mapping[str, str]) -> str | None:
    """Give the endpoint's key, or None for one that needs none. Raises `JobError`; its value is in no message."""
    if endpoint.simulate or endpoint.base_url is None:
        return None
    if endpoint.api_key_file:
        where = f"the file {endpoint.api_key_file} (endpoint.api_key_file)"
        try:
            key = key_path(endpoint.api_key_file, variables).read_text("utf-8").removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise JobError(f"{where} cannot be read: {getattr(error, 'strerror', 'not UTF-8')}") from error
    else:
        name = endpoint.api_key_env or DEFAULT_KEY_VARIABLE
        where = f"the variable {name}"
        if name not in variables and is_loopback(endpoint.base_url):
            return None
        if name not in variables:
            raise JobError(f"no key: {where} is not set (see endpoint.api_key_env, endpoint.api_key_file, env_file)")
        key = variables[name]
    if not key:
        raise JobError(f"no key: {where} is empty")
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise JobError(f"the key in {where} holds a space, a line end or another character that no key has")
    return key


def exposed(job: Job) -> list[str]:
    """Say which files with the key are open to others on this machine."""
    found = []
    places = {} if job.endpoint.simulate else {"env_file": job.env_file, "api_key_file": job.endpoint.api_key_file}
    for name, path in places.items():
        try:
            mode = path.stat().st_mode if path else 0
        except OSError:  # whoever reads it says so
            continue
        if stat.S_ISREG(mode) and mode & (stat.S_IRWXG | stat.S_IRWXO):
            found.append(f"{path} ({name}) with the key is open to others on this machine: chmod 600 {path}")
    return found


def _read_env_file(path: Path) -> dict[str, str]:
    """Read NAME=VALUE lines; blank lines, # comments, a leading `export` and quotes around the value are fine."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"env_file: {path}: cannot be read: {getattr(error, 'strerror', 'not UTF-8')}") from error
    values = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        found = _ASSIGNMENT.fullmatch(text)
        if not found:
            raise JobError(f"{path}:{number}: expected NAME=VALUE")
        values[found.group(1)] = _unquoted(found.group(2))
    return values


def _unquoted(value: str) -> str:
    quoted = re.fullmatch(r"""(["'])(.*)\1(?:\s+#.*)?""", value)
    return quoted.group(2) if quoted else re.sub(r"\s+#.*\Z", "", value)
