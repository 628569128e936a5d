"""Every simulated provider family with every one of its faults, against what the client makes of it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import environment, records, write_lines

from batchrun.endpoint.client import Client
from batchrun.endpoint.dialect_files import load
from batchrun.endpoint.target import Target
from batchrun.job import Retry
from batchrun.records import EndpointError, Request
from batchrun.simulator import FAULTS, Simulator, SimulatorSettings
from batchrun.simulator.dialects import DIALECTS

#: What each fault is to a client: the kind of the error, or the warnings of a good answer.
KINDS: dict[str, str | tuple[str, ...]] = {
    "quota_after_n": (), "moderation_on_keyword": "content_filter", "unauthorized": "auth",
    "payment_required": "quota", "forbidden": "permission", "model_not_found": "model_not_found",
    "daily_limit": "quota", "html_200": "not_an_api", "redirect_elsewhere": "not_an_api",
    "http_500": "server_error", "http_502": "server_error", "http_503": "server_error", "http_408": "timeout",
    "http_409": "server_error", "http_425": "server_error", "http_429": "rate_limited",
    "http_429_date": "rate_limited", "http_429_absurd": "rate_limited", "retry_after_garbage": "rate_limited",
    "empty_429": "rate_limited", "bare_string_error": "rate_limited", "burst_limit": "rate_limited",
    "throttle_quota": "rate_limited", "balance_capped_concurrency": "rate_limited",
    "engine_overloaded": "server_error", "reset": "network", "reset_mid_body": "network", "truncated": "network",
    "hang": "timeout", "empty_200": "invalid_response", "blank_lines_200": "invalid_response",
    "blank_lines_then_json": (), "sse_keepalive": (), "sse_comments_forever": "timeout",
    "choices_null": "invalid_response", "choices_empty": "invalid_response", "bad_json": "invalid_response",
    "error_in_200": "server_error", "base_resp_200": "server_error", "html_502": "server_error",
    "html_504": "timeout", "octet_stream_500": "server_error", "gzip_bomb": "invalid_response", "no_done": (),
    "done_without_finish": (), "stream_cut": (), "error_mid_stream": (), "error_after_text": (),
    "whitespace_content": "empty_output", "tool_markup_in_content": ("tool_markup",),
    "finish_null": "invalid_response", "finish_insufficient_system_resource": "server_error",
    "finish_aborted": "server_error", "finish_network_error": "server_error", "usage_in_choice": (),
    "usage_chunk_empty_choices": (), "usage_merged": (), "no_usage": ("no_usage",), "no_reasoning": (),
    "think_in_content": (), "content_parts": (), "other_model": ("other_model:another-simulated-model",),
    "wrong_content_type": (), "pretty_json": (), "slow": (), "fenced_json": (),
    "content_filter_400": "content_filter", "content_filter_finish": "content_filter",
    "finish_sensitive": "content_filter", "double_encoded_error": "content_filter",
    "context_length": "context_length", "length": "truncated", "empty_content": "empty_output",
    "bad_request": "bad_request", "octet_stream_error": "bad_request", "sse_framed_error": "bad_request",
    "invalid_json_output": (), "missing_field": (),
}  # fmt: skip
#: What is another thing when the answer is streamed.
STREAMED: dict[str, str | tuple[str, ...]] = {
    "no_done": "invalid_response", "done_without_finish": "invalid_response", "stream_cut": "invalid_response",
    "error_mid_stream": "server_error", "error_after_text": "server_error",
}  # fmt: skip
#: Where a family means another thing, or says it so that nobody can tell.
OWN: dict[tuple[str, str], str | tuple[str, ...]] = {
    ("openai", "daily_limit"): "rate_limited",  # it renews all the time, and says how long to wait
    ("oneapi", "forbidden"): "model_not_found",  # the key may not use this model
    ("oneapi", "model_not_found"): "server_error",  # no channel: a few times, then the run stops
    ("minimax", "forbidden"): "auth",  # 1004 is both
    ("minimax", "model_not_found"): "bad_request",  # 2013: some parameter
    ("minimax", "base_resp_200"): "rate_limited",  # its own shape
    ("zhipu", "base_resp_200"): "auth",  # 1002 is about the key here
    ("llamacpp", "other_model"): (),  # it answers under its own name, whatever was asked for
    **{(dialect, "http_408"): "server_error" for dialect in ("zhipu", "volcengine", "qianfan")},  # by their code
    ("qianfan", "daily_limit"): "rate_limited",
    ("siliconflow", "forbidden"): "quota",  # a 403 is about the balance there, if it says nothing else
    ("siliconflow", "error_in_200"): "invalid_response",  # a message without a code
    **{
        (dialect, "engine_overloaded"): "rate_limited"
        for dialect in ("moonshot", "oneapi", "zhipu", "minimax", "volcengine", "qianfan")
    },
    # Moderation is told by the status alone, which JSON in a message does not have.
    **{(dialect, "double_encoded_error"): "bad_request" for dialect in ("stepfun", "openrouter")},
}
#: Nobody pays for these.
SELF_HOSTED = ("vllm", "sglang", "llamacpp", "ollama")
#: Families of which nobody says that their streams end with [DONE].
WITHOUT_DONE = ("minimax", "volcengine", "siliconflow", "stepfun", "qianfan", "hunyuan")
CAUSES = {
    "burst_limit": {"dashscope": "burst", "volcengine": "burst"},
    "throttle_quota": {
        "dashscope": "tokens",
        "moonshot": "tokens",
        "deepseek": "tokens",
        "openai": "tokens",
        "volcengine": "tokens",
        "minimax": "tokens",
        "siliconflow": "tokens",
        "qianfan": "tokens",
    },
    "balance_capped_concurrency": {
        "deepseek": "concurrency",
        "moonshot": "concurrency",
        "minimax": "concurrency",
        "volcengine": "concurrency",
    },
    "engine_overloaded": {"moonshot": "overload", "oneapi": "overload", "zhipu": "overload", "volcengine": "overload"},
}
SLOW = ("blank_lines_then_json", "gzip_bomb")


def request(stream: bool) -> Request:
    messages = [{"role": "user", "content": "请概括：违禁词示例。"}]
    body = {"model": "simulated-chat", "messages": messages}
    return Request(json.dumps(body).encode(), "00", messages, "simulated-chat", stream)


async def met(dialect: str, fault: str, *, stream: bool) -> tuple[str | tuple[str, ...], str | None]:
    """Send one request to a family with one fault; give the kind of the error or the warnings, and the cause."""
    async with Simulator(SimulatorSettings(dialect=dialect, faults={fault: 1.0})) as simulator:
        timeout_s = 10.0 if fault in SLOW else 0.5 if fault in ("hang", "sse_comments_forever") else 5.0
        retry = Retry(attempt_timeout=timeout_s, idle_timeout=timeout_s)
        target = Target(load(dialect), "/chat/completions", stream, retry)
        async with Client(simulator.base_url, "sk-simulated-1", target, lambda _: None) as client:
            try:
                return (await client.chat(request(stream))).warnings, None
            except EndpointError as error:
                return error.kind.value, error.cause and error.cause.value


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_each_fault_of_each_family_is_what_it_is(dialect: str, stream: bool) -> None:
    assert set(KINDS) == set(FAULTS)

    async def all_of_them() -> list[tuple[str | tuple[str, ...], str | None]]:
        return await asyncio.gather(*(met(dialect, fault, stream=stream) for fault in FAULTS))

    found = dict(zip(FAULTS, asyncio.run(all_of_them()), strict=True))
    expected = KINDS | {fault: kind for (family, fault), kind in OWN.items() if family == dialect}
    if stream:
        expected |= STREAMED
        if dialect in WITHOUT_DONE:
            expected["no_done"] = ()
        if dialect == "siliconflow":
            expected["error_after_text"] = expected["error_in_200"]
    assert {fault: kind for fault, (kind, _) in found.items()} == expected
    for fault, families in CAUSES.items():
        if dialect in families:
            assert found[fault][1] == families[dialect], fault


# --- whole runs -------------------------------------------------------------------------------------------------

ITEMS = 150
#: What passes, with rates; what makes everybody wait happens once each.
PASSING = {
    **dict.fromkeys(
        ("http_500", "http_502", "http_503", "http_408", "http_409", "http_425", "reset", "reset_mid_body",
         "truncated", "empty_200", "blank_lines_200", "blank_lines_then_json", "sse_keepalive", "choices_null",
         "choices_empty", "bad_json", "error_in_200", "html_502", "html_504", "octet_stream_500", "no_done",
         "done_without_finish", "stream_cut", "error_mid_stream", "error_after_text", "whitespace_content",
         "tool_markup_in_content", "finish_null", "finish_insufficient_system_resource", "finish_aborted",
         "finish_network_error", "usage_in_choice", "usage_chunk_empty_choices", "usage_merged", "no_usage",
         "think_in_content", "content_parts", "other_model", "wrong_content_type", "pretty_json", "slow"),
        "0.012",
    ),
    **dict.fromkeys(
        ("http_429", "http_429_date", "retry_after_garbage", "empty_429", "burst_limit", "throttle_quota",
         "balance_capped_concurrency", "engine_overloaded", "hang", "gzip_bomb", "sse_comments_forever"),
        "0.02:1",
    ),
}  # fmt: skip
STAYING = {
    "content_filter_400": "content_filter", "content_filter_finish": "content_filter",
    "finish_sensitive": "content_filter", "double_encoded_error": "content_filter",
    "context_length": "context_length", "length": "truncated",
    "bad_request": "bad_request", "octet_stream_error": "bad_request", "sse_framed_error": "bad_request",
}  # fmt: skip
JOB = """
input = "in.jsonl"
output = "{dialect}"
[endpoint]
model = "simulated-chat"
base_url = "{base_url}"
dialect = "{dialect}"
stream = {stream}
[limits]
concurrency = 16
[retry]
max_attempts = 12
wait_initial = "50ms"
wait_max = "200ms"
attempt_timeout = "4s"
"""


def test_a_run_with_all_faults_on_accounts_for_every_item_in_every_family(
    tmp_path: Path, simulator: Callable[..., str], batchrun: Callable[..., Any]
) -> None:
    write_lines(tmp_path / "in.jsonl", *({"id": f"i-{n}", "prompt": f"请概括第 {n} 条评论。"} for n in range(ITEMS)))
    rates = {**PASSING, **dict.fromkeys(STAYING, "0.02"), "moderation_on_keyword": "1"}
    flags = [part for name, rate in rates.items() for part in ("--fault", f"{name}={rate}")]
    running = {}
    for number, dialect in enumerate(DIALECTS):
        base_url = simulator("--dialect", dialect, "--seed", number, "--ledger", tmp_path / f"{dialect}.ledger", *flags)
        job = tmp_path / f"{dialect}.toml"
        stream = "true" if number % 2 else '"auto"'
        job.write_text(JOB.format(dialect=dialect, base_url=base_url, stream=stream))
        command = [sys.executable, "-m", "batchrun", "run", str(job), "--json"]
        running[dialect] = subprocess.Popen(
            command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    ended = {dialect: (*process.communicate(timeout=250), process.returncode) for dialect, process in running.items()}
    for dialect, (out, err, code) in ended.items():
        assert code == 3, (dialect, err[-2000:])
        _check(tmp_path, dialect, json.loads(out))
        assert batchrun("verify", tmp_path / f"{dialect}.toml").code == 0


def _check(folder: Path, dialect: str, summary: dict[str, Any]) -> None:
    results, failures = (records(folder / dialect / f"{name}.jsonl") for name in ("results", "failures"))
    assert sorted(one["id"] for one in [*results, *failures]) == sorted(f"i-{n}" for n in range(ITEMS))
    assert summary["counts"]["pending"] == 0
    calls = records(folder / f"{dialect}.ledger")
    stays = {
        call["key"]: OWN.get((dialect, call["fault"]), STAYING[call["fault"]])
        for call in calls
        if call["fault"] in STAYING
    }
    kinds, expected = Counter(one["error"]["kind"] for one in failures), Counter(stays.values())
    # A trial in a time when everything failed is a call like any other, and no item.
    assert kinds <= expected, dialect
    assert (expected - kinds).total() <= min(1, summary["requests"]["trials"]), dialect
    for one in results:
        assert one["output"].startswith("【模拟回答】") or "tool_markup" in one["warnings"], (dialect, one["output"])
        assert one["provider"]["body"]["simulated"] is True
    passed = {call["fault"] for call in calls if call["fault"] in PASSING}
    assert len(passed) >= len(PASSING) // 2, (dialect, passed)


#: What ends a run at once, and the kind that the run then names; the others are the same to the runner.
STOPS = {"unauthorized": "auth", "model_not_found": "model_not_found", "quota_after_n": "quota"}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_is_about_the_account_stops_the_run_and_blames_no_item(
    dialect: str, tmp_path: Path, batchrun: Callable[..., Any]
) -> None:
    """One family a run, one fault after the other: the next run goes on where the last one was stopped."""
    write_lines(tmp_path / "in.jsonl", *({"id": f"i-{n}", "prompt": f"第 {n} 条评论"} for n in range(40)))
    job = tmp_path / "job.toml"
    text = f'input = "in.jsonl"\noutput = "out"\n[endpoint]\nsimulate = "{dialect}"\n[limits]\nconcurrency = 4\n'
    for fault, kind in STOPS.items():
        if (dialect in SELF_HOSTED and kind == "quota") or (dialect, fault) == ("minimax", "model_not_found"):
            continue
        count = 5 if fault == "quota_after_n" else 1000
        job.write_text(f"{text}[simulator.faults]\n{fault} = {{ rate = 1.0, count = {count} }}\n")
        ended = batchrun("run", job, "--json", "--limit", 20)
        summary = ended.json()
        means = "model_not_found" if fault == "model_not_found" else OWN.get((dialect, fault), kind)
        assert (ended.code, summary["stopped"]["kind"]) == (4, means), (fault, ended.err)
        assert summary["counts"]["failures"] == 0
    assert summary["counts"]["results"] >= (0 if dialect in SELF_HOSTED else 5), "quota_after_n lets some calls through"
    job.write_text(text)
    ended = batchrun("run", job, "--json")
    assert (ended.code, ended.json()["counts"]["results"]) == (0, 40)
