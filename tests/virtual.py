"""Virtual time: an event loop in which hours of sleep pass at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import looptime

T = TypeVar("T")


def in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine; the loop's clock starts at 0 and jumps over every wait.

    Nothing here comes from outside the loop, so that it need not look for that dozens of times before each jump.
    """
    with asyncio.Runner(loop_factory=lambda: looptime.new_event_loop(start=0, noop_cycles=0)) as runner:
        return runner.run(main)
