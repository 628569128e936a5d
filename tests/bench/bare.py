"""The yardstick: a bare aiohttp loop on uvloop that posts prepared bodies and keeps the answers in a list.

    python tests/bench/bare.py URL BODIES CONCURRENCY

BODIES is a file with one request body a line. Prints one JSON line: items, wall and CPU seconds.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from pathlib import Path

import aiohttp
import uvloop


async def main(url: str, bodies: list[bytes], concurrency: int) -> None:
    answers = []
    remaining = iter(bodies)
    headers = {"Content-Type": "application/json", "Authorization": "Bearer sk-bench"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:

        async def worker() -> None:
            for body in remaining:
                async with session.post(url, data=body) as response:
                    answers.append(await response.read())

        start, cpu = time.perf_counter(), sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        await asyncio.gather(*(worker() for _ in range(concurrency)))
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - cpu
    print(json.dumps({"items": len(answers), "wall_s": time.perf_counter() - start, "cpu_s": used}))


if __name__ == "__main__":
    lines = Path(sys.argv[2]).read_bytes().splitlines()
    uvloop.run(main(sys.argv[1] + "/chat/completions", lines, int(sys.argv[3])))
