"""The first items go alone, and tell whether the others may follow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import KEY, Ended, records, write_lines
from scripted import Call, Scripted, Wait, completion, http, ok

JOB = """
input = "in.jsonl"
output = "out"
[endpoint]
base_url = "URL"
model = "m-1"
stream = false
[limits]
concurrency = 5
[canary]
items = 10
"""
PRICES = "[price]\ninput = 1000000.0\noutput = 500000.0\n"  # 4 an item


class Bench:
    def __init__(self, folder: Path, batchrun: Callable[..., Ended]) -> None:
        self.folder, self._command = folder, batchrun

    def run(self, server: Scripted, more: str = "", *flags: str, items: int = 60) -> Ended:
        write_lines(
            self.folder / "in.jsonl", *({"id": f"r-{number}", "prompt": f"p{number}"} for number in range(items))
        )
        (self.folder / "job.toml").write_text(JOB.replace("URL", server.base_url) + more)
        return self._command("run", self.folder / "job.toml", "--json", *flags, OPENAI_API_KEY=KEY)


@pytest.fixture
def bench(tmp_path: Path, batchrun: Callable[..., Ended]) -> Bench:
    return Bench(tmp_path, batchrun)


def slow(call: Call) -> list[Any]:
    return [Wait(0.05), ok()]


def test_the_first_items_go_alone_and_the_forecast_stands_beside_what_came(
    bench: Bench, serve: Callable[..., Scripted]
) -> None:
    server = serve(slow)
    ended = bench.run(server, PRICES)
    canary = ended.json()["canary"]
    assert ended.code == 0
    assert (canary["items"], canary["results"], canary["passed"]) == (10, 10, True)
    first = max(call.answered_at or 0.0 for call in server.calls[:10])
    assert all(call.at >= first for call in server.calls[10:])
    forecast = canary["forecast"]
    assert (forecast["items"], forecast["cost"], forecast["took"]["cost"]) == (50, [200.0, 200.0], 200.0)
    low, high = forecast["seconds"]
    assert 0.3 <= low <= high
    assert "canary: 10 of the first 10 items are results; the other 50 will take" in ended.err
    assert "and cost 200 to 200 CNY" in ended.err


def test_a_canary_that_passes_is_no_news_to_cron(bench: Bench, serve: Callable[..., Scripted]) -> None:
    ended = bench.run(serve(slow), PRICES, "-q")
    assert (ended.code, ended.err) == (0, "")
    assert ended.json()["canary"]["passed"] is True


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ('max_failure_rate = "20%"', "more than canary.max_failure_rate = 20%"),
        ('max_truncated = "20%"', "more than canary.max_truncated = 20%"),
        ('max_truncated = 0\nmax_failure_rate = "90%"', "more than canary.max_truncated = 0%"),
    ],
)
def test_a_canary_that_misses_stops_the_run_with_the_rest_pending(
    bounds: str, words: str, bench: Bench, serve: Callable[..., Scripted]
) -> None:
    server = serve(lambda call: [http(200, completion("x", finish="length" if call.number % 2 else "stop"))])
    ended = bench.run(server, bounds)
    summary = ended.json()
    assert (ended.code, summary["stopped"]["cause"]) == (5, "canary")
    assert f"canary: 5 of the first 10 items are results, 5 truncated; {words}" in summary["stopped"]["message"]
    assert (len(server.calls), summary["counts"]["pending"]) == (10, 50)
    assert summary["canary"]["passed"] is False
    assert len(records(bench.folder / "out/failures.jsonl")) == 5


@pytest.mark.parametrize("bounds", ['max_failure_rate = "50%"', ""])
def test_what_is_within_its_bounds_goes_on(bounds: str, bench: Bench, serve: Callable[..., Scripted]) -> None:
    server = serve(lambda call: [http(200, completion("x", finish="length" if call.number % 2 else "stop"))])
    assert bench.run(server, bounds).code == 3
    assert len(server.calls) == 60


def test_fewer_items_than_a_canary_has_are_simply_run(bench: Bench, serve: Callable[..., Scripted]) -> None:
    ended = bench.run(serve(slow), items=7)
    assert ended.code == 0
    assert ended.json()["canary"] == {
        "items": 7, "results": 7, "failures_by_kind": {}, "passed": None, "forecast": None,
    }  # fmt: skip


def test_lines_that_cannot_be_sent_count_as_failures(bench: Bench, serve: Callable[..., Scripted]) -> None:
    server = serve(slow)
    prompt = "[prompt]\nuser = '{{ none_such }}'\n"
    ended = bench.run(server, 'max_failure_rate = "10%"\n' + prompt)
    assert ended.code == 5
    assert "10 invalid_input" in ended.err
    assert not server.calls
