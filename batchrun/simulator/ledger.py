"""The ledger: what was answered, as the provider saw it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import orjson


class Ledger:
    """A file with one JSON line per answered call, appended with one unbuffered write each.

    Lines are complete even if this process is killed, and several processes may append. Raises `OSError`.
    """

    __slots__ = ("_descriptor",)

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def record(self, key: str | None, attempt: int, status: int, fault: str | None) -> None:
        """Append a line; `key` is the hash of the messages, None when there were none to hash."""
        line = {"time": time.time(), "key": key, "attempt": attempt, "status": status, "fault": fault}
        os.write(self._descriptor, orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
