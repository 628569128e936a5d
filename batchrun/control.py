"""Steering a live run: a socket without a file, named after its run directory, which heeds its own user alone."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from batchrun import expect
from batchrun.expect import as_toml

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from batchrun.pace import Pacer
    from batchrun.spending import Spending

_MOST_BYTES = 10_000
_CREDENTIALS = struct.Struct("3i")  # process, user, group
_PATIENCE_S = 5.0
#: What can be set on a live run: the names of the flags and of the job file, and what makes a value of a text.
SETTABLE: dict[str, tuple[str, Callable[[object], Any]]] = {
    "rpm": ("requests_per_minute", expect.positive),
    "tpm": ("tokens_per_minute", expect.positive),
    "requests_per_minute": ("requests_per_minute", expect.positive),
    "tokens_per_minute": ("tokens_per_minute", expect.positive),
    "concurrency": ("concurrency", expect.concurrency),
    "max_cost": ("max_cost", expect.positive),
}


class ControlError(Exception):
    """There is no run to steer, or it cannot do what was asked; in words."""


class Control:
    """Takes commands for a run while it is open. `tell` is told in words what was done.

    A command is a line of JSON, `{"do": "pause"}`, `{"do": "resume"}` or `{"do": "set", "values": {"rpm": 300}}`; the
    answer is one too, `{"done": "…"}` or `{"error": "…"}`.
    """

    def __init__(
        self, folder: Path, pacer: Pacer, spending: Spending | None, tell: Callable[[str], None]
    ) -> None:  # fmt: skip
        self._folder, self._pacer, self._spending, self._tell = folder, pacer, spending, tell
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen. Where the system has no such sockets the run goes on without, and says so."""
        try:
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(_address(self._folder))
                listening.setblocking(False)
                self._server = await asyncio.start_unix_server(self._serve, sock=listening.dup(), limit=_MOST_BYTES)
        except OSError as error:
            self._tell(f"this run cannot be steered by `batchrun ctl`: {error.strerror or error}")

    async def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                try:
                    command = json.loads(await reader.readline())
                    if _user_of(writer.get_extra_info("socket")) not in (os.getuid(), 0):
                        raise ControlError("this run is somebody else's")  # noqa: TRY301
                    answer = {"done": self._do(command)}
                except (ValueError, ControlError) as error:
                    answer = {"error": str(error)}
                writer.write(json.dumps(answer, ensure_ascii=False).encode() + b"\n")
                await writer.drain()
        except (OSError, TimeoutError):
            return  # whoever asked is gone
        finally:
            writer.close()

    def _do(self, command: Any) -> str:
        what = command.get("do") if isinstance(command, dict) else None
        if what == "pause":
            self._pacer.hold()
            words = "paused: nothing more is sent until `batchrun ctl … resume`; calls in flight end"
        elif what == "resume":
            self._pacer.let_go()
            words = "resumed"
        elif what == "set" and isinstance(command.get("values"), dict):
            words = self._set(command["values"])
        else:
            raise ControlError("expected pause, resume or set")
        self._tell(words)
        return words

    def _set(self, values: dict[str, Any]) -> str:
        read = {name: _read(name, value) for name, value in values.items()}
        if "max_cost" in read:
            if self._spending is None:  # what is in flight already was not reserved for
                raise ControlError("max_cost: this run was begun without budget.max_cost, so it cannot have one now")
            self._spending.tell_most(read["max_cost"])
        for name, value in read.items():
            if SETTABLE[name][0] == "concurrency":
                self._pacer.tell_concurrency(None if value == "auto" else value)
            elif SETTABLE[name][0] != "max_cost":
                self._pacer.tell_limit(SETTABLE[name][0].partition("_")[0], value)
        return "set " + ", ".join(f"{name} = {as_toml(value)}" for name, value in read.items())


def ask(folder: Path, command: dict[str, Any]) -> str:
    """Give a command to the run that is going in a folder; give what it did. Raises `ControlError`."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_PATIENCE_S)
            connection.connect(_address(folder))
            if os.getuid() not in (_user_of(connection), 0):
                raise ControlError(f"{folder}: the run there is somebody else's")
            connection.sendall(json.dumps(command).encode() + b"\n")
            with connection.makefile("rb") as lines:
                answer = json.loads(lines.readline() or b"{}")
    except ConnectionRefusedError as error:
        raise ControlError(f"{folder}: no run is going there that could be steered") from error
    except (OSError, ValueError) as error:
        raise ControlError(f"{folder}: the run does not answer: {error}") from error
    if "done" not in answer:
        raise ControlError(str(answer.get("error", "the run gave no answer")))
    return str(answer["done"])


def _read(name: str, value: object) -> Any:
    if name not in SETTABLE:
        raise ControlError(f"{name}: cannot be set on a live run; {', '.join(sorted(SETTABLE))} can")
    number: object = value
    if isinstance(value, str):
        with suppress(ValueError):
            number = float(value) if SETTABLE[name][0] != "concurrency" else int(value)
    try:
        return SETTABLE[name][1](number)
    except ValueError as error:
        raise ControlError(f"{name}: expected {error}, got {value!r}") from error


def _address(folder: Path) -> str:
    """Give the name of the socket of a run directory, the same by whatever path it is named. Raises `OSError`."""
    status = folder.stat()
    return f"\0batchrun-{status.st_dev:x}-{status.st_ino:x}"


def _user_of(connection: socket.socket) -> int:
    """Give the number of the user at the other end."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    user: int = _CREDENTIALS.unpack(found)[1]
    return user
