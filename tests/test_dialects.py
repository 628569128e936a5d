"""Dialects as data: which one it is, what its rows do, and files of one's own."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson
import pytest
from conftest import QUICK, Ended, Ran, records, write_lines
from scripted import Scripted, Wait, completion, http, ok

from batchrun import JobError
from batchrun.endpoint.adapt import Adapter, thinks
from batchrun.endpoint.dialect_files import load, load_file, names
from batchrun.endpoint.errors import classify
from batchrun.endpoint.recognise import choose, recognise
from batchrun.endpoint.watch import Watch
from batchrun.records import Provider, Response

FOLDER = files("batchrun.endpoint").joinpath("dialects")


def tables(name: str) -> dict[str, Any]:
    return tomllib.loads(FOLDER.joinpath(f"{name}.toml").read_text("utf-8"))


@pytest.mark.parametrize("name", names())
def test_every_row_says_where_its_fact_is_from_and_when_it_was_read(name: str) -> None:
    rows = [row for table in tables(name).values() if isinstance(table, list) for row in table]
    assert rows
    for row in rows:
        assert row.get("source"), row
        assert row.get("date", "")[:2] == "20", row


@pytest.mark.parametrize("name", names())
def test_every_dialect_says_what_a_client_must_know(name: str) -> None:
    dialect = load(name)
    assert dialect.title
    assert {"stop", "length", "content_filter"} <= set(dialect.finish_kinds)
    assert dialect.usage_at
    assert dialect.reasoning_fields
    assert any(row.by_status_alone and 429 in row.status for row in dialect.error)
    for row in dialect.base_url:
        if not any(where in row.url for where in ("//host", "//127.", "//localhost")):
            assert recognise(row.url) == name, row.url


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://api.deepseek.com", "deepseek"),
        ("https://api.deepseek.com/v1", "deepseek"),
        ("https://dashscope.aliyuncs.com/compatible-mode/v1", "dashscope"),
        ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "dashscope"),
        ("https://ws-1.ap-southeast-1.maas.aliyuncs.com/compatible-mode/v1", "dashscope"),
        ("https://batch.dashscope.aliyuncs.com/compatible-mode/v1", "dashscope"),
        ("https://api.example.com/v1", "generic"),
        ("https://api.deepseek.com.example.com/v1", "generic"),
        ("https://example.com/api.deepseek.com/v1", "generic"),
        ("http://127.0.0.1:8000/v1", "generic"),
    ],
)
def test_the_base_url_shows_whose_it_is(url: str, name: str) -> None:
    assert choose("auto", url).name == name


def test_what_is_set_wins_and_a_simulated_provider_is_known() -> None:
    assert choose("dashscope", "https://api.deepseek.com").name == "dashscope"
    assert choose("auto", None, "deepseek").name == "deepseek"
    with pytest.raises(JobError, match=r"did you mean deepseek\?"):
        choose("deepsek", None)


# --- a file of one's own ----------------------------------------------------------------------------------------

OWN = """
title = "My gateway"
extends = "dashscope"

[[error]]
kind = "quota"
status = 429
code = "^insufficient_quota$"
source = "seen on the wire"
date = "2026-11"

[[error]]
kind = "content_filter"
message = "禁语"

[[wait]]
message = "请 (\\\\d+) 秒后"
"""


def own(tmp_path: Path, text: str = OWN) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text, "utf-8")
    return path


def test_a_file_of_ones_own_adds_and_overrides(
    serve: Callable[..., Scripted], go: Callable[..., Ran], tmp_path: Path
) -> None:
    path = own(tmp_path)
    assert load_file(path).title == "My gateway"
    words = {"error": {"message": "含有禁语", "code": "x"}}
    ran = go(serve(lambda call: [http(400, words)]), 1, dialect=str(path))
    assert ran.failures[0]["error"]["kind"] == "content_filter"
    money = {"error": {"message": "no", "code": "insufficient_quota"}}
    server = serve(lambda call: [http(429, money)])
    assert go(server, ["q"], dialect=str(path)).summary.exit_code == 4
    throttled = {"error": {"message": "请 1 秒后再试", "code": "Throttling.AllocationQuota"}}
    server = serve(lambda call: [http(429, throttled)] if call.attempt == 1 else [ok()])
    ran = go(server, ["t"], dialect=str(path))
    assert ran.summary.as_dict()["requests"]["rate_limited_by_cause"] == {"tokens": 1}
    (first, second) = server.calls
    assert first.answered_at is not None
    assert second.at - first.answered_at >= 1.0


def test_a_job_names_its_dialect_file_relative_to_itself(
    batchrun: Callable[..., Ended], simulator: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "jobs").mkdir()
    own(tmp_path / "jobs")
    write_lines(tmp_path / "jobs" / "in.jsonl", {"prompt": "x"})
    job = tmp_path / "jobs" / "job.toml"
    base_url = simulator()
    text = f'input = "in.jsonl"\noutput = "out"\n[endpoint]\nbase_url = "{base_url}"\nmodel = "m"\ndialect = "%s"\n'
    job.write_text(text % "mine.toml")
    assert batchrun("run", job).code == 0
    assert batchrun("verify", tmp_path / "jobs" / "out", cwd=tmp_path / "jobs").code == 0
    job.write_text(text % "other.toml")
    ended = batchrun("run", job)
    assert ended.code == 2
    assert str(tmp_path / "jobs" / "other.toml") in ended.err
    job.write_text(text % "dashscop")
    ended = batchrun("run", job, "--dry-run")
    assert (ended.code, "did you mean dashscope" in ended.err) == (2, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("title = 3", "title: expected a text"),
        ("[[eror]]\nkind = 'quota'", "did you mean error?"),
        ("[error]\nkind = 'quota'", "error: expected rows, [[error]]"),
        ("error = [3]", "[[error]] 1: expected a table"),
        ("[[error]]\nkind = 'money'", 'expected one of "invalid_input"'),
        ("[[error]]\nstatus = 429", "'kind' missing"),
        ("[[error]]\nkind = 'quota'\nstatus = 'x'", "an HTTP status"),
        ("[[error]]\nkind = 'quota'\ncode = '('", "a regular expression ("),
        ("[[error]]\nkind = 'quota'\ncause = 'speed'", '"concurrency"'),
        ("[[error]]\nkind = 'quota'\nmesage = 'x'", "did you mean message?"),
        ("[[wait]]\nunit = 'h'", '"duration"'),
        ("[[parameter]]\nname = 'n'\nrule = 'rename'\nto = 'stream'", "made by batchrun itself"),
        ("[[lane]]\nbase_url = 'x'\nexpected = 'x'\npath = '.evil.example/x'", "begins with /"),
        ("[[wait]]\nmessage = 'in 5 s'", "with a group for the number"),
        ("[[limit]]\nwhat = 'requests'\nmessage = 'RPM'", "with a group for the number"),
        ("[[parameter]]\nname = 'n'\nrule = 'eat'", '"clamp"'),
        ("extends = 'nobody'", "extends: expected one of"),
        ("title = ", "not valid TOML"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(JobError) as caught:
        load_file(own(tmp_path, text))
    assert str(tmp_path / "mine.toml") in str(caught.value)
    assert words in str(caught.value)


def test_a_file_may_be_called_generic_and_a_group_may_be_empty(tmp_path: Path) -> None:
    path = tmp_path / "generic.toml"
    path.write_text("[[limit]]\nwhat = 'concurrency'\nmessage = 'limit( \\d+)?'\n[[wait]]\nmessage = 'limit( x)?'\n")
    dialect = load_file(path)
    assert dialect.finish_kinds["length"] == "truncated"
    provider = Provider(429, {}, b'{"error":{"message":"concurrency limit"}}')
    error = classify(provider, orjson.loads(provider.body), dialect)
    assert (error.kind, error.cause, error.limit, error.retry_after_s) == ("rate_limited", "concurrency", None, None)


def test_a_renamed_parameter_is_bounded_under_its_new_name() -> None:
    body = {"model": "m", "max_completion_tokens": 10**9}
    assert Adapter(load("deepseek"), change=True)(body)[0] is True
    assert body == {"model": "m", "max_tokens": 393216}


def test_all_problems_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(JobError) as caught:
        load_file(own(tmp_path, "[[error]]\nkind = 'x'\n[[error]]\nkind = 'quota'\nstatus = 1\n[[finish]]\n"))
    assert len(caught.value.problems) == 3


# --- what its rows do -------------------------------------------------------------------------------------------


def test_thinking_is_seen_by_the_switches_and_by_the_model() -> None:
    deepseek, dashscope = load("deepseek"), load("dashscope")
    assert thinks(deepseek, "m", {}) is True
    assert thinks(deepseek, "m", {"thinking": {"type": "disabled", "more": 1}}) is False
    assert thinks(deepseek, "m", {"thinking": "disabled"}) is True
    assert thinks(dashscope, "m", {}) is None
    assert thinks(dashscope, "m", {"enable_thinking": False}) is False
    assert thinks(dashscope, "qwq-plus", {}) is True


def test_a_parameter_goes_out_as_it_is_with_a_warning_unless_it_may_be_changed() -> None:
    body = {"model": "m", "max_completion_tokens": 5, "temperature": 3, "presence_penalty": 1, "n": 2}
    asked = dict(body)
    kept = Adapter(load("deepseek"), change=False)
    assert kept(body)[0] is False
    assert body == asked
    assert set(kept.warnings) == {"max_completion_tokens", "temperature", "presence_penalty"}
    assert "drop_unsupported = true" in kept.warnings["max_completion_tokens"]
    changed = Adapter(load("deepseek"), change=True)
    body["thinking"] = {"type": "disabled"}
    assert changed(body)[0] is True
    assert body == {"model": "m", "max_tokens": 5, "temperature": 2, "presence_penalty": 1, "n": 2,
                    "thinking": {"type": "disabled"}}  # fmt: skip
    assert "sent as max_tokens" in changed.warnings["max_completion_tokens"]
    assert "sent as 2" in changed.warnings["temperature"]


def test_fixed_and_refused_parameters(tmp_path: Path) -> None:
    text = """
[[parameter]]
name = "top_k"
rule = "drop"
model = "^picky"
[[parameter]]
name = "temperature"
rule = "fix"
value = 1
[[parameter]]
name = "seed"
rule = "fix"
"""
    adapter = Adapter(load_file(own(tmp_path, text)), change=True)
    body: dict[str, Any] = {"model": "picky-1", "top_k": 3, "temperature": 0.2, "seed": 4}
    assert adapter(body) == (True, False)
    assert body == {"model": "picky-1", "temperature": 1}
    body = {"model": "other", "top_k": 3, "temperature": 1}
    assert adapter(body) == (False, False)


def test_when_answers_are_better_streamed() -> None:
    adapter = Adapter(load("dashscope"), change=False)
    assert adapter({"model": "qwq-32b"}) == (False, True)
    assert adapter({"model": "m", "enable_thinking": True}) == (False, True)
    assert adapter({"model": "m", "max_tokens": 8192}) == (False, True)
    assert adapter({"model": "m", "max_completion_tokens": 100_000}) == (False, True)
    assert adapter({"model": "m", "max_tokens": 8191}) == (False, False)
    assert adapter({"model": "m", "max_tokens": "9000"}) == (False, False)


def test_changed_parameters_are_in_the_summary_and_change_no_fingerprint(
    serve: Callable[..., Scripted], go: Callable[..., Ran], tmp_path: Path
) -> None:
    path = own(
        tmp_path, '[[parameter]]\nname = "temperature"\nrule = "ignored"\n[[parameter]]\nname = "n"\nrule = "drop"\n'
    )
    server = serve(lambda call: [ok()])
    ran = go(server, 2, dialect=str(path), drop_unsupported=True, params={"temperature": 1, "n": 2})
    assert {"temperature", "n"} == {word for warning in ran.summary.warnings for word in ("temperature", "n")
                                    if f" {word};" in warning}  # fmt: skip
    assert all("n" not in call.body and call.body["temperature"] == 1 for call in server.calls)
    assert go(server, 2, dialect="auto", params={"temperature": 1, "n": 2}).summary.tally.attempts == 0


def test_a_usual_mistake_is_named(serve: Callable[..., Scripted], go: Callable[..., Ran]) -> None:
    server = serve(lambda call: [http(200, b"<!doctype html><title>One API</title>")])
    ran = go(server.base_url.removesuffix("/v1"), 1)
    assert ran.summary.stop is not None
    assert ran.summary.exit_code == 4
    assert "base_url has no path; most providers want /v1" in ran.summary.stop.message


# --- causes and waits -------------------------------------------------------------------------------------------


def test_a_limit_on_concurrency_that_the_endpoint_names_is_kept(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    words = (
        "Your current concurrency is 9, which exceeds your concurrency limit of 3 based on your remaining balance. "
        "Please top up your balance to restore your concurrency."
    )
    refusal = http(429, {"error": {"message": words, "type": "x", "code": "invalid_request_error"}})
    server = serve(lambda call: [refusal] if call.together > 3 else [Wait(0.03), ok()])
    ran = go(server, 60, concurrency=9, dialect="deepseek", retry=replace(QUICK, max_attempts=4))
    assert (ran.summary.results, ran.summary.failures) == (60, 0)
    assert max(call.together for call in server.calls[20:]) <= 3
    assert any("no more than 3 requests at a time" in warning for warning in ran.summary.warnings)
    causes = ran.summary.as_dict()["requests"]["rate_limited_by_cause"]
    assert set(causes) == {"concurrency"}


def test_what_may_be_tried_a_few_times_stops_the_run_in_the_end(
    serve: Callable[..., Scripted], go: Callable[..., Ran], tmp_path: Path
) -> None:
    rule = 'kind = "server_error"\nstatus = 503\nmessage = "无可用渠道"\nattempts = 3\nthen = "model_not_found"\n'
    path = own(tmp_path, f"[[error]]\n{rule}")
    body = {"error": {"message": "当前分组 default 下对于模型 m-1 无可用渠道", "type": "one_api_error"}}
    server = serve(lambda call: [http(503, body)])
    ran = go(server, 1, dialect=str(path))
    assert (ran.summary.exit_code, ran.summary.failures, ran.summary.pending) == (4, 0, 1)
    assert ran.summary.stop is not None
    assert ran.summary.stop.kind == "model_not_found"
    assert len(server.calls) == 3
    few = go(serve(lambda call: [http(503, body)]), 4, dialect=str(path), retry=replace(QUICK, max_attempts=2))
    assert (few.summary.exit_code, few.summary.failures) == (4, 0), "also where fewer attempts are allowed"
    server = serve(lambda call: [http(503, body)] if call.attempt < 3 else [ok()])
    assert go(server, 1, dialect=str(path)).summary.exit_code == 0


def test_an_unknown_endpoint_is_read_by_what_its_answers_show(
    serve: Callable[..., Scripted], go: Callable[..., Ran]
) -> None:
    body = {"error": {"message": "You exceeded your current quota, please check your plan and billing details.",
                      "type": "insufficient_quota", "code": "insufficient_quota"}}  # fmt: skip
    openai = serve(lambda call: [http(429, body)])
    assert go(openai, ["a"]).summary.exit_code == 4, "money, at OpenAI"
    unknown = serve(lambda call: [http(429, body | {"request_id": "r-1"})])
    assert go(unknown, ["b"]).summary.exit_code == 4, "money as well, for all that anybody can tell"
    throttled = {"error": {"code": "Throttling.AllocationQuota", "message": "exceeded"}, "request_id": "r-1"}
    alibaba = serve(lambda call: [http(429, throttled)] if call.attempt == 1 else [ok()])
    ran = go(alibaba, ["c"], retry=replace(QUICK, wait_initial=0.02))
    assert ran.failed_attempts == {"rate_limited": 1}
    assert ran.summary.tally.causes == {"tokens": 1}, "this code is nobody else's"


# --- watching ---------------------------------------------------------------------------------------------------


def response(model: str | None, reasoning: str | None = None) -> Response:
    return Response("x", reasoning, "stop", model, None, Provider(200, {}, b"{}"))


@pytest.mark.parametrize(
    ("asked", "answered", "same"),
    [
        ("m", "m", True),
        ("m", None, True),
        ("gpt-x", "gpt-x-2026-08-06", True),
        ("llama3", "llama3:latest", True),
        ("llama3:latest", "llama3", True),
        ("deepseek/deepseek-v9", "deepseek-v9", True),
        ("DeepSeek-V9", "deepseek-v9", True),
        ("deepseek-v9", "deepseek-v8", False),
        ("m", "m2", False),
        ("qwen-max", "qwen-plus", False),
        ("", "m", False),
    ],
)
def test_which_model_names_are_the_same(asked: str, answered: str | None, same: bool) -> None:
    found = Watch(load("generic")).warnings(asked, response(answered))
    assert found == (() if same else (f"other_model:{answered}",))


def test_a_model_that_thinks_at_times_is_not_warned_about() -> None:
    watch = Watch(load("generic"))
    assert [watch.warnings("m", response("m", "r" if number % 2 else None)) for number in range(20)] == [()] * 20
    assert [watch.warnings("n", response("n", "r")) for _ in range(5)] == [()] * 5
    assert watch.warnings("n", response("n")) == ("no_reasoning",)


def test_the_dialect_is_in_the_manifest(serve: Callable[..., Scripted], go: Callable[..., Ran], tmp_path: Path) -> None:
    go(serve(lambda call: [http(200, completion())]), 1, dialect="dashscope")
    assert orjson.loads((tmp_path / "out" / "run.json").read_bytes())["dialect"] == "dashscope"
    assert records(tmp_path / "out" / "results.jsonl")
