from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from batchrun.simulator import DIALECTS, FAULTS

ENDLESS = {"hang", "sse_comments_forever", "reset", "reset_mid_body", "truncated", "gzip_bomb"}
SLOW = {"blank_lines_then_json"}


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_every_fault_is_answered(provider: Callable[..., Any], dialect: str) -> None:
    for name in FAULTS:
        if name in ENDLESS | SLOW:
            continue
        count = 0 if name == "quota_after_n" else 1
        async with provider(dialect=dialect, faults={name: {"rate": 1.0, "count": count}}) as sim:
            for stream in (False, True):
                got = await sim.call(
                    "POST",
                    sim.chat_path,
                    allow_redirects=False,
                    json={"model": "m-thinking", "messages": [{"role": "user", "content": "x"}], "stream": stream},
                )
                assert got.headers["x-simulated"] == "true"
                assert got.status != 500 or name in {"http_500", "octet_stream_500"}, name


@pytest.mark.parametrize(
    ("dialect", "status", "words"),
    [
        ("deepseek", 402, "Insufficient Balance"),
        ("dashscope", 400, "Arrearage"),
        ("moonshot", 429, "token quota"),
        ("oneapi", 401, "额度已用尽"),
    ],
)
async def test_money_runs_out_after_n(provider: Callable[..., Any], dialect: str, status: int, words: str) -> None:
    async with provider(dialect=dialect, faults={"quota_after_n": {"rate": 1, "count": 2}}) as sim:
        got = [await sim.chat() for _ in range(4)]
    assert [one.status for one in got] == [200, 200, status, status]
    assert words in got[3].raw.decode()
