"""Which dialect an endpoint speaks: the one that is set, the one that its base URL shows, or an answer."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from batchrun import expect
from batchrun.endpoint.dialect_files import load, load_file, names, unknown
from batchrun.job import JobError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrun.endpoint.dialect import Dialect, RecogniseRow


def choose(setting: str, base_url: str | None, simulated: str | None = None) -> Dialect:
    """Give the dialect of an endpoint: the one that is set, else the one that its base URL shows, else `generic`.

    `setting` is "auto", a name, or the path of a file that ends in .toml. Raises `JobError`.
    """
    if setting != "auto":
        if setting.endswith(".toml"):
            return load_file(Path(setting))
        if setting in names():
            return load(setting)
        known = ", ".join(names())
        hint = expect.meant(setting, list(names()))
        raise JobError(
            f"endpoint.dialect: expected auto, one of {known}, or a path that ends in .toml; got {setting!r}{hint}"
        )
    if simulated in names():
        return load(str(simulated))
    name = recognise(base_url) if base_url else None
    return load(name) if name else unknown()


def address_of(base_url: str) -> str:
    """Give host and path of a base URL: what the rows of a dialect look at."""
    return base_url.partition("://")[2].rpartition("@")[2]


def recognise(base_url: str) -> str | None:
    """Give the family whose base URL this is, None if it is nobody's that is known."""
    address = address_of(base_url)
    for name in names():
        for row in load(name).recognise:
            if row.base_url and row.base_url.search(address):
                return name
    return None


def recognise_answer(headers: Mapping[str, str], value: object, codes: tuple[str, ...], message: str) -> Dialect | None:
    """Give the family that an error answer shows, by a row of which everything fits; None if it shows none."""
    for name, row in _marks():
        if _shows(row, headers, value, codes, message):
            return load(name)
    return None


@cache
def _marks() -> tuple[tuple[str, RecogniseRow], ...]:
    rows = [(name, row) for name in names() for row in load(name).recognise if not row.base_url]
    return tuple(sorted(rows, key=lambda one: not one[1].wins))


def _shows(row: RecogniseRow, headers: Mapping[str, str], value: object, codes: tuple[str, ...], message: str) -> bool:
    if row.header is not None and row.header not in headers:
        return False
    if row.key is not None and not (isinstance(value, dict) and row.key in value):
        return False
    if row.code and not any(row.code.search(code) for code in codes):
        return False
    return not row.message or bool(row.message.search(message))
