"""An independent mock provider, llmock from PyPI, as a process: it watches every attempt and judges the client.

It takes requests with the same body for attempts of one call, so every prompt is its own, and it judges all that it
saw, so every test has a server of its own.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import records, write_lines
from servers import ask, free_port, need, running, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.timeout(180)

ITEMS = 40
#: With six attempts that each fail with 0.3 some run would lose an item; more than ten are a storm to llmock.
PATIENT = '[retry]\nmax_attempts = 10\nwait_initial = "100ms"'


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    need("llmock")


@pytest.fixture
def llmock(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Start the mock with flags; gives its address."""
    with ExitStack() as stack:

        def start(*flags: str) -> str:
            port, log = free_port(), tmp_path / "llmock.log"
            program = str(Path(sys.executable).with_name("llmock"))
            serve = ["serve", "--host", "127.0.0.1", "--port", str(port), "--log-level", "error"]
            process = stack.enter_context(running([program, *serve, *flags], log))
            url = f"http://127.0.0.1:{port}"
            wait_for(process, f"{url}/health", log)
            return url

        yield start


@pytest.fixture
def job(tmp_path):
    """Write items with prompts that differ and a job for a server; give the arguments that run it."""

    def make(url: str, items: int = ITEMS, extra: str = "") -> list[str]:
        write_lines(tmp_path / "input.jsonl", *({"id": f"n-{n}", "prompt": f"第 {n} 条"} for n in range(items)))
        (tmp_path / "job.toml").write_text(
            f'input = "input.jsonl"\noutput = "out"\n[endpoint]\nbase_url = "{url}/v1"\nmodel = "m"\n{extra}\n'
        )
        return ["run", "job.toml", "--json"]

    return make


def verdict(url: str) -> dict[str, Any]:
    """Give what llmock thinks of its client; that must be good."""
    status, text = ask(f"{url}/_llmock/verdict?format=text")
    assert status == 200
    found = json.loads(ask(f"{url}/_llmock/verdict")[1])
    assert "  PASS  " in text.decode(), text.decode()
    assert (found["passed"], found["findings"]) == (True, [])
    return found


def statuses(url: str) -> Counter[int]:
    return Counter(request["status"] for request in json.loads(ask(f"{url}/_llmock/requests")[1])["requests"])


def test_every_item_gets_its_own_answer_with_one_request(batchrun, llmock, job, tmp_path):
    url = llmock("--response-style", "echo")
    ended = batchrun(*job(url))
    assert ended.code == 0, ended.err
    results = {result["id"]: result["output"] for result in records(tmp_path / "out/results.jsonl")}
    assert results.keys() == {f"n-{n}" for n in range(ITEMS)}
    assert all(f"第 {n} 条" in results[f"n-{n}"] for n in range(ITEMS))
    seen = verdict(url)
    assert (seen["calls"], seen["attempts"], seen["faults_injected"]) == (ITEMS, ITEMS, 0)


def test_refusals_that_pass_are_retried_as_the_server_asks(batchrun, llmock, job, tmp_path):
    url = llmock("--error-rate", "429=0.2", "--error-rate", "503=0.1")
    ended = batchrun(*job(url, extra=PATIENT))
    assert ended.code == 0, ended.err
    requests = ended.json()["requests"]
    seen = verdict(url)
    # Both sides counted the same.
    assert (seen["calls"], seen["attempts"]) == (ITEMS, requests["attempts"])
    refused = Counter(requests["failed_attempts_by_kind"])
    assert refused.total() == seen["faults_injected"] > 0
    assert statuses(url) == {200: ITEMS, 429: refused["rate_limited"], 503: refused["server_error"]}
    attempts = sum(result["attempts"] for result in records(tmp_path / "out/results.jsonl"))
    assert attempts == requests["attempts"]


def test_a_rate_limit_is_kept_to_without_being_told_of_it(batchrun, llmock, job):
    # It tells its limit with every answer: ten a second, which the calls after the first keep to.
    url = llmock("--rpm", "600")
    ended = batchrun(*job(url, items=132, extra=PATIENT))
    assert ended.code == 0, ended.err
    assert ended.json()["counts"]["results"] == 132
    assert ended.json()["requests"]["failed_attempts_by_kind"].keys() <= {"rate_limited"}
    assert ended.json()["timing"]["duration_s"] >= 10.0
    assert verdict(url)["calls"] == 132


def test_what_no_retry_can_cure_is_not_retried(batchrun, llmock, job, tmp_path):
    url = llmock("--error-rate", "400=0.3")
    ended = batchrun(*job(url))
    assert ended.code == 3
    failures = records(tmp_path / "out/failures.jsonl")
    assert {(failure["error"]["kind"], failure["attempts"]) for failure in failures} == {("bad_request", 1)}
    seen = verdict(url)
    assert (seen["attempts"], seen["faults_injected"]) == (ITEMS, len(failures))


def test_a_strict_schema_holds_for_every_output(batchrun, llmock, job, tmp_path):
    schema = {
        "type": "object",
        "properties": {
            "label": {"type": "string", "enum": ["正面", "负面"]},
            "score": {"type": "integer", "minimum": 1, "maximum": 5},
            "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        },
        "required": ["label", "score", "tags"],
        "additionalProperties": False,
    }
    (tmp_path / "schema.json").write_text(json.dumps(schema, ensure_ascii=False), "utf-8")
    url = llmock()
    ended = batchrun(*job(url, extra='[structured]\nschema = "schema.json"\nmode = "json_schema"\nreask = 0'))
    assert ended.code == 0, ended.err
    outputs = [result["output"] for result in records(tmp_path / "out/results.jsonl")]
    assert len(outputs) == ITEMS
    for output in outputs:
        assert output.keys() == {"label", "score", "tags"}
        assert output["label"] in {"正面", "负面"}
        assert 1 <= output["score"] <= 5
        assert output["tags"]
    assert verdict(url)["attempts"] == ITEMS


def test_a_prompt_longer_than_the_context_fails_alone(batchrun, llmock, job, tmp_path):
    url = llmock("--context-window", "500")
    run = job(url, items=10)
    write_lines(tmp_path / "more.jsonl", {"id": "long", "prompt": "word " * 1000})
    ended = batchrun(*run, "-i", "input.jsonl", "-i", "more.jsonl")
    assert ended.code == 3
    assert len(records(tmp_path / "out/results.jsonl")) == 10
    (failure,) = records(tmp_path / "out/failures.jsonl")
    assert (failure["id"], failure["error"]["kind"], failure["attempts"]) == ("long", "context_length", 1)
    assert verdict(url)["attempts"] == 11


def test_check_and_models_find_it(batchrun, llmock):
    url = llmock()
    listed = batchrun("models", "--base-url", f"{url}/v1")
    assert listed.code == 0, listed.err
    model = listed.out.split("\n")[0].split("\t")[0]
    ended = batchrun("check", "--base-url", f"{url}/v1", "-m", model)
    assert ended.code == 0, ended.out + ended.err
    verdict(url)


@pytest.mark.parametrize("flags", [(), ("--error-rate", "429=0.1")])
def test_a_probe_keeps_to_what_it_states_and_to_what_it_is_told(batchrun, llmock, flags):
    url = llmock(*flags)
    ended = batchrun("probe", "--base-url", f"{url}/v1", "-m", "m", "--max-tokens", 48, "--json")
    assert ended.code in ((0, 4) if flags else (0,)), ended.err
    found = ended.json()
    assert found["matrix"]["plain_chat"]["verdict"] == "supported"
    assert found["calls"] <= found["max_calls_with_repeats"]
    assert found["calls"] - found["repeats"] <= found["max_calls"]
    assert sum(found["tokens"].values()) <= found["max_tokens_with_repeats"]
    verdict(url)
