"""What a run may spend: never more, whatever is in flight."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import KEY, Ended, records, write_lines
from scripted import Act, Call, Scripted, Wait, completion, http

JOB = """
input = "in.jsonl"
output = "out"
[endpoint]
base_url = "URL"
model = "m-1"
stream = false
[params]
PARAMS
[limits]
concurrency = 8
[retry]
max_attempts = 2
wait_initial = "10ms"
attempt_timeout = "500ms"
[budget]
max_cost = MOST
[price]
currency = "CNY"
input = IN
output = 500000.0
"""


class Bench:
    """Each token of an answer costs half a CNY, each of a prompt what the test says."""

    def __init__(self, folder: Path, batchrun: Callable[..., Ended]) -> None:
        self.folder, self._command = folder, batchrun

    def run(
        self, server: Scripted, most: float, *, items: int = 40, params: str = "max_tokens = 2", price: float = 0.0
    ) -> Ended:
        write_lines(
            self.folder / "in.jsonl", *({"id": f"r-{number}", "prompt": f"p{number}"} for number in range(items))
        )
        text = JOB.replace("URL", server.base_url).replace("PARAMS", params).replace("MOST", str(most))
        (self.folder / "job.toml").write_text(text.replace("IN", str(price)))
        return self._command("run", self.folder / "job.toml", "--json", OPENAI_API_KEY=KEY)

    def count(self, name: str = "results.jsonl") -> int:
        return len(records(self.folder / "out" / name))


@pytest.fixture
def bench(tmp_path: Path, batchrun: Callable[..., Ended]) -> Bench:
    return Bench(tmp_path, batchrun)


def slow(call: Call) -> list[Any]:
    return [Wait(0.03), http(200, completion())]


def test_a_run_spends_what_it_may_and_no_more_and_the_next_one_goes_on(
    bench: Bench, serve: Callable[..., Scripted]
) -> None:
    server = serve(slow)
    ended = bench.run(server, 10.5)
    summary = ended.json()
    assert (ended.code, summary["stopped"]["cause"]) == (5, "max_cost")
    assert summary["cost"] == {"amount": 10.0, "currency": "CNY"}
    assert (len(server.calls), bench.count(), summary["counts"]["pending"]) == (10, 10, 30)
    assert "the next request may cost 1 CNY, and 10 of 10.5 CNY are spent (budget.max_cost)" in ended.err
    assert bench.run(server, 100.0).code == 0
    assert (len(server.calls), bench.count()) == (40, 40)


def test_where_no_request_says_how_long_its_answer_may_be_the_longest_one_tells(
    bench: Bench, serve: Callable[..., Scripted]
) -> None:
    server = serve(slow)
    # Before anything is known an answer is reserved 8,192 tokens, which two answers at a time fit into.
    summary = bench.run(server, 8200.0, params="temperature = 0.5").json()
    assert (summary["exit_code"], bench.count()) == (0, 40)
    assert max(call.together for call in server.calls[:2]) <= 2
    other = Scripted(slow)
    with other:
        (bench.folder / "out").rename(bench.folder / "before")
        refused = bench.run(other, 100.0, params="temperature = 0.5")
    assert refused.code == 5
    assert len(other.calls) == 0
    assert "the next request may cost 4096 CNY, and 0 of 100 CNY are spent" in refused.err
    assert "no run can send anything so: raise it, or bound the answers by max_tokens" in refused.err


def test_reasoning_that_is_counted_beside_the_answer_is_paid_for(bench: Bench, serve: Callable[..., Scripted]) -> None:
    details = {"reasoning_tokens": 4}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 9, "completion_tokens_details": details}
    summary = bench.run(serve(lambda call: [http(200, completion() | {"usage": usage})]), 100.0, items=2).json()
    assert (summary["cost"]["amount"], summary["tokens"]["completion"], summary["tokens"]["reasoning"]) == (6.0, 12, 8)
    (one, _) = records(bench.folder / "out" / "results.jsonl")
    assert one["usage"] == {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9}
    assert one["provider"]["body"]["usage"] == usage


def test_answers_that_are_no_output_and_failed_attempts_count(bench: Bench, serve: Callable[..., Scripted]) -> None:
    server = serve(lambda call: [http(200, completion("", finish="length" if call.number % 2 else "stop"))])
    summary = bench.run(server, 10.5).json()
    assert (summary["exit_code"], summary["cost"]["amount"]) == (5, 10.0)
    assert len(server.calls) == 10


def test_what_ends_without_a_word_of_its_usage_is_taken_for_billed(
    bench: Bench, serve: Callable[..., Scripted]
) -> None:
    server = serve(lambda call: [Act.HANG] if call.number > 4 else slow(call))
    ended = bench.run(server, 8.5)
    summary = ended.json()
    assert summary["exit_code"] == 5
    assert len(server.calls) <= 9
    assert summary["cost"]["amount"] == 4.0
    assert any("calls ended without a word of what they took" in warning for warning in summary["warnings"])


def test_prompts_cost_too_and_their_tokens_are_bounded_before_anything_is_known(
    bench: Bench, serve: Callable[..., Scripted]
) -> None:
    server = serve(slow)
    summary = bench.run(server, 150.0, price=1_000_000.0).json()  # 3 CNY a prompt, 1 CNY an answer
    assert summary["exit_code"] == 5
    assert 140.0 <= summary["cost"]["amount"] <= 150.0


@pytest.mark.parametrize("prices", ["", "[price]\ncurrency = 'CNY'"])
def test_a_bound_without_prices_is_refused(prices: str, bench: Bench, batchrun: Callable[..., Ended]) -> None:
    text = (
        JOB.partition("[price]")[0].replace("PARAMS", "").replace("MOST", "1").replace("URL", "http://127.0.0.1:9/v1")
    )
    (bench.folder / "job.toml").write_text(text + prices)
    ended = batchrun("run", bench.folder / "job.toml")
    assert ended.code == 2
    assert "budget.max_cost (--max-cost) needs the prices of your account" in ended.err
