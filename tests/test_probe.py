"""The capability matrix: of every simulated family, of servers that say one thing and do another, and as shown."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import KEY, environment, hearing_sigint
from scripted import Act, completion, http, ok

from batchrun.endpoint.client import Client
from batchrun.endpoint.dialect_files import load
from batchrun.endpoint.profile import load_profile, profile_path
from batchrun.endpoint.target import Target
from batchrun.job import Endpoint, Job, Retry
from batchrun.measure import probe
from batchrun.probe import Measured, Probe, ProbeError
from batchrun.probing.questions import MAX_CALLS, MAX_CALLS_WITH_REPEATS, ROWS, most_tokens
from batchrun.records import ErrorKind
from batchrun.simulator.dialects import DIALECTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from scripted import Action, Call, Scripted

#: By family and kind of model, the rows that are not "supported".
MATRICES = json.loads((Path(__file__).parent / "dialects/matrices.json").read_text())


def verdicts(measured: Measured) -> dict[str, str]:
    return {row.name: measured.profile.cells[row.name].verdict.value for row in ROWS}


@pytest.mark.parametrize("model", ["chat", "thinking"])
@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_the_matrix_of_every_simulated_family(dialect, model):
    job = Job((), Path(), endpoint=Endpoint(simulate=dialect, model=f"simulated-{model}"))
    probed = asyncio.run(probe(job))
    assert verdicts(probed.measured) == {row.name: "supported" for row in ROWS} | MATRICES[f"{dialect} {model}"]
    assert 0 < probed.measured.calls <= MAX_CALLS
    assert probed.measured.usage.total_tokens <= most_tokens(1024)
    saved = load_profile(probed.path)
    assert saved is not None
    assert (saved.cells, saved.simulated) == (probed.measured.profile.cells, True)
    assert all(cell.words for cell in saved.cells.values())


def test_every_family_has_a_matrix():
    assert {name.split()[0] for name in MATRICES} == set(DIALECTS)


# --- servers that say one thing and do another ---------------------------------------------------------------------


def measured(server: Scripted, *, dialect: str = "generic", max_tokens: int = 64, **retry: Any) -> Measured:
    """Probe a scripted server, in this process."""
    times = Retry(wait_initial=0.01, wait_max=0.02, attempt_timeout=retry.pop("attempt_timeout", 5.0))
    target = Target(load(dialect), "/chat/completions", False, times)

    async def main() -> Measured:
        async with Client(server.base_url, KEY, target, lambda _words: None) as client:
            return await Probe(
                client, target.dialect, server.base_url, "m-1", max_tokens=max_tokens, retry=times, rng=random.Random(1)
            ).measure()

    return asyncio.run(main())


def refuses(*names: str, status: int = 400) -> Callable[[Call], Any]:
    """Refuse what has one of these parameters, answer everything else alike."""

    def script(call: Call) -> list[Action]:
        if call.raw == b"":
            return [http(404, {"error": {"message": "no such path"}})]
        found = next((name for name in names if name in call.body), None)
        if found:
            return [http(status, {"error": {"message": f"unsupported parameter: {found}", "param": found}})]
        return [ok("好的")]

    return script


def test_what_is_taken_without_effect_is_not_called_supported(serve):
    """A server that takes everything and heeds nothing: no row may say that it works."""
    matrix = verdicts(measured(serve(refuses())))
    taken = {name for name, verdict in matrix.items() if verdict == "supported"}
    assert taken == {"plain_chat", "model_echo", "long_output"}
    ignored = {name for name, verdict in matrix.items() if verdict == "accepted but ignored"}
    assert ignored >= {
        "json_object", "json_schema", "tool", "tool_required", "stream", "stream_usage", "n", "logprobs",
        "system_role", "developer_role", "thinking_on", "unknown_parameter",
    }  # fmt: skip
    assert matrix["model_list"] == "rejected"


@pytest.mark.parametrize(
    "name", ["temperature", "top_p", "seed", "stop", "n", "logprobs", "presence_penalty", "frequency_penalty",
             "response_format", "tools", "stream", "stream_options", "max_completion_tokens",
             "batchrun_unknown_parameter"],
)  # fmt: skip
def test_a_refusal_keeps_the_words_of_the_provider(serve, name):
    rows = {
        "response_format": "json_schema", "tools": "tool", "stream_options": "stream_usage",
        "batchrun_unknown_parameter": "unknown_parameter",
    }  # fmt: skip
    found = measured(serve(refuses(name))).profile.cells[rows.get(name, name)]
    assert found.verdict.value == "rejected"
    assert f"unsupported parameter: {name}" in found.words
    assert found.evidence[0]["status"] == 400
    assert name in found.evidence[0]["sent"]


def test_a_bound_on_tokens_that_is_refused_is_asked_for_by_its_other_name(serve):
    server = serve(refuses("max_tokens"))
    found = measured(server)
    assert found.profile.cells["max_tokens"].verdict.value == "rejected"
    plain = [call.body for call in server.calls if call.raw and len(call.body) == 3]
    assert all("max_completion_tokens" in body or "max_tokens" in body for body in plain)


def test_that_no_bound_is_taken_is_said(serve):
    found = measured(serve(refuses("max_tokens", "max_completion_tokens")))
    assert "no bound on its tokens" in found.profile.cells["plain_chat"].words


def test_a_model_that_only_streams_is_measured_in_streams(simulator):
    url = simulator("--dialect", "dashscope")
    job = Job((), Path(), endpoint=Endpoint(url, model="stream-only", dialect="dashscope"))
    found = asyncio.run(probe(job)).measured
    matrix = verdicts(found)
    assert (matrix["plain_chat"], matrix["long_output"], matrix["json_schema"]) == (
        "supported",
        "rejected",
        "supported",
    )
    assert "streams alone" in found.profile.cells["plain_chat"].words
    fact = found.profile.fact("stream", False, thinking=None)
    assert fact is not None
    assert fact.verdict.value == "rejected"
    assert found.calls <= MAX_CALLS


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, {"error": {"message": "bad key"}}, ErrorKind.AUTH),
        (402, {"error": {"message": "Insufficient Balance"}}, ErrorKind.QUOTA),
        (404, {"error": {"message": "The model `m-1` does not exist", "code": "model_not_found"}},
         ErrorKind.MODEL_NOT_FOUND),
        (200, b"<html><title>Login</title></html>", ErrorKind.NOT_AN_API),
    ],
)  # fmt: skip
def test_an_endpoint_that_says_stop_ends_the_probe_at_once(serve, status, body, kind):
    server = serve(lambda call: [http(status, body)])
    with pytest.raises(ProbeError) as caught:
        measured(server)
    assert caught.value.error.kind is kind
    assert len(server.calls) == 1


def test_a_balance_that_ends_in_the_middle_ends_the_probe(serve):
    server = serve(lambda call: [ok("好") if call.number < 8 else http(402, {"error": {"message": "no money"}})])
    with pytest.raises(ProbeError):
        measured(server)
    assert len(server.calls) < 20


def test_what_fails_for_a_passing_reason_is_tried_again_and_is_unclear_if_that_goes_on(serve):
    def script(call: Call) -> list[Action]:
        if call.raw and "n" in call.body:
            return [http(503, {"error": {"message": "overloaded"}})]
        return [http(429, {"error": {"message": "slow down"}})] if call.number in (3, 5) else [ok("好")]

    server = serve(script)
    found = measured(server)
    cell = found.profile.cells["n"]
    assert (cell.verdict.value, sum("n" in call.body for call in server.calls if call.raw)) == ("unclear", 3)
    assert "overloaded" in cell.words
    assert found.profile.cells["plain_chat"].verdict.value == "supported"
    assert found.profile.fact("n", 2, thinking=False) is None


@pytest.mark.parametrize(
    "answer",
    [
        http(200, b"[]"), http(200, b"null"), http(200, b'"text"'), http(200, {"choices": None}),
        http(200, {"choices": []}), http(200, {"choices": [None]}), http(200, {"choices": [{"message": None}]}),
        http(200, {"choices": [{"message": {"content": None, "tool_calls": [None, {"function": []}]}}]}),
        http(200, b"data: {broken\n\ndata: [DONE]\n\n"), http(200, b'data: {"choices":[{"delta":{"content":""}}]}\n\n'),
        http(200, b'{"choices":[{"message":{"content":' + b"[" * 5000 + b"]" * 5000 + b"}}]}"), http(204),
        http(200, completion({"parts": 1})), http(200, completion([{"type": "text", "text": "好"}])),
        http(200, completion("x", usage={"prompt_tokens": -1, "completion_tokens": "many"})), http(500, b"\x00\xff"),
    ],
)  # fmt: skip
def test_odd_answers_end_in_words_and_never_in_a_traceback(serve, answer):
    """The first answer is good, the others are odd."""
    server = serve(lambda call: [ok("好") if call.number == 1 else answer])
    found = measured(server)
    assert set(found.profile.cells) == {row.name for row in ROWS}
    assert all(cell.words for cell in found.profile.cells.values())
    assert not {"json_schema", "tool", "n", "logprobs"} & {
        name for name, cell in found.profile.cells.items() if cell.verdict.value == "supported"
    }
    json.dumps(found.as_dict())


def test_a_server_that_breaks_off_leaves_rows_unclear(serve):
    server = serve(lambda call: [ok("好") if call.number == 1 else Act.RESET])
    found = measured(server)
    assert {cell.verdict.value for name, cell in found.profile.cells.items() if name.startswith("json")} == {"unclear"}


# --- trouble ----------------------------------------------------------------------------------------------------------


def chats(answer: Callable[[Call], Any]) -> Callable[[Call], Any]:
    """Answer chats in this way, and list the model."""
    return lambda call: [answer(call) if call.raw else http(200, {"data": [{"id": "m-1"}]})]


def refusal(status: int, words: str, *headers: str) -> bytes:
    return http(status, {"error": {"message": words}}, *headers)


def test_a_prompt_that_a_filter_refuses_says_nothing_of_parameters(serve):
    server = serve(chats(lambda call: refusal(400, "Content Exists Risk") if "随机" in call.prompt else ok("好的")))
    found = measured(server, dialect="deepseek")
    for name in ("temperature", "top_p", "seed"):
        assert found.profile.cells[name].verdict.value == "unclear"
        assert "Content Exists Risk" in found.profile.cells[name].words
        assert not [fact for fact in found.profile.facts if fact.name == name]
    assert found.unmeasured >= {"temperature", "top_p", "seed"}
    assert found.is_usable


def test_an_outage_refuses_nothing_and_the_probe_is_not_worth_keeping(serve):
    server = serve(chats(lambda call: ok("好的") if call.number < 12 else refusal(500, "internal server error")))
    found = measured(server)
    assert "rejected" not in verdicts(found).values()
    assert not found.is_usable
    assert found.calls <= MAX_CALLS_WITH_REPEATS
    assert found.calls - found.repeats <= MAX_CALLS
    assert {fact.verdict.value for fact in found.profile.facts} <= {"accepted", "accepted but ignored"}


@pytest.mark.parametrize(("words", "verdict"), [
    ("Internal error: response_format type 'json_schema' is not known", "rejected"), ("internal error", "unclear"),
])  # fmt: skip
def test_a_500_is_a_refusal_where_it_names_what_was_asked(serve, words, verdict):
    server = serve(chats(lambda call: refusal(500, words) if "response_format" in call.body else ok("好的")))
    matrix = verdicts(measured(server))
    rows = ("json_object", "json_schema", "json_object_without_word")
    assert [matrix[name] for name in rows] == [verdict] * 3
    tries = [call for call in server.calls if call.raw and "response_format" in call.body]
    assert len(tries) == 3 * 3


def test_a_500_that_names_a_parameter_one_time_in_three_is_no_refusal(serve):
    def answer(call: Call) -> bytes:
        if "logprobs" in call.body:
            refused = sum("logprobs" in one.body for one in server.calls if one.raw)
            return refusal(500, "logprobs are not there" if refused == 3 else "internal error")
        return ok("好的")

    server = serve(chats(answer))
    assert verdicts(measured(server))["logprobs"] == "unclear"


def test_switches_that_fail_for_now_are_not_called_without_effect(serve):
    names = ("enable_thinking", "thinking", "chat_template_kwargs", "reasoning_effort")
    server = serve(chats(lambda call: refusal(429, "slow") if any(one in call.body for one in names) else ok("好的")))
    found = measured(server)
    assert found.profile.cells["thinking_on"].verdict.value == "unclear"
    assert found.given_up == {"thinking_on"}
    assert found.unmeasured >= {"json_object_switched", "tool_switched"}


def test_whether_a_model_thinks_is_not_known_where_it_could_not_be_asked(serve):
    server = serve(chats(lambda call: refusal(429, "slow") if "9.11" in call.prompt else ok("好的")))
    found = measured(server)
    assert found.profile.thinks is None
    assert found.profile.cells["reasoning"].verdict.value == "unclear"
    assert "slow" in found.profile.cells["reasoning"].words
    assert {fact.thinking for fact in found.profile.facts} == {None}
    assert found.profile.cells["thinking_on"].words.startswith("not asked")
    assert found.given_up == {"reasoning"}


def test_words_that_refuse_also_what_asks_for_nothing_are_about_the_moment(serve):
    def answer(call: Call) -> bytes:
        return ok("好的") if call.number == 1 else refusal(400, "come back at another time, please")

    found = measured(serve(chats(answer)))
    assert "rejected" not in verdicts(found).values()
    assert "rejected" not in {fact.verdict.value for fact in found.profile.facts}
    assert not found.is_usable


def test_a_web_page_in_the_middle_leaves_its_row_unclear(serve):
    page = http(200, b"<html><title>Back soon</title></html>", "Content-Type: text/html")
    server = serve(chats(lambda call: page if "logprobs" in call.body else ok("好的")))
    found = measured(server)
    assert found.profile.cells["logprobs"].verdict.value == "unclear"
    assert "Back soon" in found.profile.cells["logprobs"].words
    assert found.given_up == {"logprobs"}


@pytest.mark.parametrize("status", [401, 402])
def test_a_key_or_a_balance_that_ends_in_the_middle_is_told_with_exit_code_4(batchrun, serve, data_home, status):
    server = serve(chats(lambda call: ok("好的") if call.number < 20 else refusal(status, "no more")))
    ended = batchrun("probe", "--base-url", server.base_url, "-m", "m")
    assert (ended.code, ended.out) == (4, "")
    assert "no more" in ended.err
    assert not list(data_home.rglob("*.json"))


def test_a_probe_in_trouble_is_shown_and_does_not_replace_a_good_profile(batchrun, serve, data_home, tmp_path):
    trouble: list[int] = []

    def answer(call: Call) -> bytes:
        return refusal(503, "overloaded") if trouble and len(call.body) > 3 else ok("好的")

    server = serve(chats(answer))
    (tmp_path / "job.toml").write_text(
        f'input = "in.jsonl"\noutput = "out"\n[endpoint]\nbase_url = "{server.base_url}"\nmodel = "m"\n'
        '[retry]\nwait_initial = "10ms"\n'
    )
    assert batchrun("probe", "job.toml").code == 0
    (path,) = data_home.rglob("*.json")
    before = path.read_bytes()
    trouble.append(1)
    for flags in ([], ["--json"]):
        ended = batchrun("probe", "job.toml", *flags)
        assert ended.code == 4
        assert "nothing was saved" in ended.err
        assert "overloaded" in ended.out
        assert path.read_bytes() == before
    assert ended.json()["profile"] is None
    assert ended.json()["given_up"]


def test_a_row_that_could_not_be_measured_stays_as_it_was(serve, tmp_path, monkeypatch):
    """Twice the same endpoint: the second time the riddle and one parameter fail for passing reasons."""
    trouble: list[int] = []

    def answer(call: Call) -> bytes:
        if trouble and ("logprobs" in call.body or ("9.11" in call.prompt and len(call.body) == 3)):
            return refusal(503, "overloaded")
        if "logprobs" in call.body or "seed" in call.body:
            return refusal(400, f"no {'logprobs' if 'logprobs' in call.body else 'seed'} here")
        thought = {"reasoning_content": "嗯"} if call.body.get("enable_thinking") is not False else {}
        choice = {"index": 0, "message": {"content": "好的", **thought}, "finish_reason": "stop"}
        return http(200, completion() | {"choices": [choice] if "9.11" in call.prompt else completion("好")["choices"]})

    server = serve(chats(answer))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    job = Job((), Path(), endpoint=Endpoint(server.base_url, model="m-1"), retry=Retry(wait_initial=0.01))
    first = asyncio.run(probe(job))
    trouble.append(1)
    second = asyncio.run(probe(job))
    assert second.measured.profile.cells["logprobs"].verdict.value == "unclear"
    assert second.trouble is None
    assert {"logprobs", "reasoning", "thinking_off"} <= set(second.kept)
    before, after = load_profile(first.path), load_profile(second.path)
    assert before is not None
    assert after is not None
    for name in second.kept:
        assert after.cells[name] == before.cells[name]
    assert (after.thinks, after.switches) == (True, before.switches)
    for name, value in (("logprobs", True), ("seed", 7)):
        fact = after.fact(name, value, thinking=True)
        assert fact is not None
        assert (fact.verdict.value, fact.thinking) == ("rejected", True)


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_a_server_that_wants_streams_for_every_parameter_is_not_asked_everything_twice(serve):
    event = json.dumps({"choices": [{"index": 0, "delta": {"content": "好"}, "finish_reason": "stop"}]})
    stream = http(200, f"data: {event}\n\ndata: [DONE]\n\n".encode(), "Content-Type: text/event-stream")

    def answer(call: Call) -> bytes:
        if call.body.get("stream"):
            return stream
        if set(call.body) <= {"model", "messages", "max_tokens"}:
            return ok("好")
        return refusal(400, "This model only support stream mode, please enable the stream parameter")

    server = serve(chats(answer))
    found = measured(server, dialect="dashscope")
    assert found.calls == len(server.calls) <= MAX_CALLS
    again = [call for call in server.calls if call.raw and not call.body.get("stream") and len(call.body) > 3]
    assert len(again) <= 7
    assert found.profile.cells["long_output"].verdict.value == "rejected"
    assert found.repeats == 0


def greedy(call: Call) -> bytes:
    """Use as many tokens as it may; without a bound, many."""
    most = call.body.get("max_tokens") or call.body.get("max_completion_tokens") or 4000
    tokens = most * call.body.get("n", 1)
    choice = completion("x " * min(60, most), finish="length")["choices"][0]
    return http(200, completion() | {
        "choices": [choice] * call.body.get("n", 1),
        "usage": {"prompt_tokens": 90, "completion_tokens": tokens, "total_tokens": tokens + 90},
    })  # fmt: skip


@pytest.mark.parametrize("max_tokens", [16, 1024])
def test_an_endpoint_that_uses_all_it_may_stays_within_what_is_stated(serve, max_tokens):
    found = measured(serve(chats(greedy)), max_tokens=max_tokens)
    assert found.usage.total_tokens <= most_tokens(max_tokens)
    assert found.usage.completion_tokens > 32_768
    assert found.is_bounded


def test_where_no_bound_on_tokens_is_taken_nothing_is_asked_that_runs_long(batchrun, serve, data_home):
    names = ("max_tokens", "max_completion_tokens")
    server = serve(
        chats(lambda call: refusal(400, f"unknown: {names}") if set(names) & set(call.body) else greedy(call))
    )
    ended = batchrun("probe", "--base-url", server.base_url, "-m", "m", "--max-tokens", "100")
    assert ended.code == 0, ended.err
    assert "no bound on tokens is taken or heeded" in ended.err
    (path,) = data_home.rglob("*.json")
    cells = load_profile(path).cells
    for name in ("long_output", "presence_penalty", "frequency_penalty"):
        assert cells[name].verdict.value == "unclear"
        assert "not asked" in cells[name].words
    assert not [call for call in server.calls if call.raw and "presence_penalty" in call.body]
    assert "used up" in ended.out  # 4,000 tokens a call are more than was stated
    assert len(server.calls) < 30


def test_a_bound_that_is_heeded_by_its_other_name_alone_is_used_from_then_on(serve):
    def answer(call: Call) -> bytes:
        body = {name: value for name, value in call.body.items() if name != "max_tokens"}
        few = body.get("max_completion_tokens", 999) < 10
        text = "1,2,3" if few else "1,2,3," * 50
        usage = {"prompt_tokens": 9, "completion_tokens": 5 if few else 150, "total_tokens": 159}
        return http(200, completion(text, finish="length" if few else "stop", usage=usage))

    server = serve(chats(answer))
    found = measured(server)
    assert found.profile.max_tokens == "max_completion_tokens"
    assert found.is_bounded
    assert [call for call in server.calls if call.raw and call.body.get("max_completion_tokens") == 32_768]


@pytest.mark.parametrize(("status", "asked", "verdict"), [(429, 2, "supported"), (503, 1, "unclear")])
def test_the_long_answer_is_asked_for_again_only_where_that_cannot_be_paid_twice(serve, status, asked, verdict):
    long_ones: list[Call] = []

    def answer(call: Call) -> bytes:
        if call.body.get("max_tokens") == 32_768:
            long_ones.append(call)
            if len(long_ones) == 1:
                return refusal(status, "slow down")
        return ok("好")

    found = measured(serve(chats(answer)))
    assert len(long_ones) == asked
    assert found.profile.cells["long_output"].verdict.value == verdict


def test_an_endpoint_that_asks_to_wait_an_hour_is_left_alone(batchrun, serve):
    def answer(call: Call) -> bytes:
        return ok("好的") if call.number == 1 else refusal(429, "slow down", "Retry-After: 3600")

    server = serve(chats(answer))
    ended = batchrun("probe", "--base-url", server.base_url, "-m", "m")
    assert ended.code == 4
    assert "asks to wait" in ended.out
    assert "nothing was saved" in ended.err
    assert len(server.calls) == 2


def test_repeats_for_passing_trouble_are_bounded_in_all(serve):
    server = serve(chats(lambda call: ok("好的") if call.number == 1 else refusal(503, "overloaded")))
    found = measured(server)
    assert found.calls == len(server.calls) <= MAX_CALLS_WITH_REPEATS
    assert (found.repeats, found.is_usable) == (30, False)


# --- answers that show nothing ----------------------------------------------------------------------------------------


def answers(text: str, *, finish: str = "stop", usage: Any = None, **message: Any) -> bytes:
    """Give an answer with this text; without a usage unless one is given."""
    value = completion(text, finish=finish)
    value["choices"][0]["message"].update(message)
    if usage is None:
        del value["usage"]
    else:
        value["usage"] = usage
    return http(200, value)


def cell(server: Scripted, name: str) -> tuple[str, str]:
    found = measured(server).profile.cells[name]
    return found.verdict.value, found.words


@pytest.mark.parametrize("finish", ["stop", "length"])
@pytest.mark.parametrize("text", ["", "对不起"])
def test_a_penalty_is_not_seen_in_an_answer_that_has_nothing_to_count(serve, finish, text):
    server = serve(chats(lambda call: answers(text, finish=finish) if "presence_penalty" in call.body
                         else answers("哈" * 40)))  # fmt: skip
    assert cell(server, "presence_penalty")[0] == "unclear"


def test_a_penalty_is_seen_in_fewer_repetitions(serve):
    server = serve(chats(lambda call: answers("哈" * (4 if "presence_penalty" in call.body else 40))))
    assert cell(server, "presence_penalty") == ("supported", "4 repetitions in place of 40")


def test_a_bound_on_tokens_is_judged_by_the_text_where_nobody_counts(serve):
    long = serve(chats(lambda call: answers("1,2,3," * 50, finish="length")))
    assert cell(long, "max_tokens") == ("accepted but ignored", "300 characters came for max_tokens = 5")
    short = serve(chats(lambda call: answers("1,2" if call.body.get("max_tokens") == 5 else "好的", finish="length")))
    assert cell(short, "max_tokens")[0] == "supported"
    alike = serve(chats(lambda call: answers("hi", finish="length")))
    assert cell(alike, "max_tokens")[0] == "unclear"


@pytest.mark.parametrize("counted", [True, False])
def test_a_bound_that_leaves_reasoning_alone_is_a_bound(serve, counted):
    def answer(call: Call) -> bytes:
        few = call.body.get("max_tokens") == 5
        usage = {"prompt_tokens": 9, "completion_tokens": 305, "total_tokens": 314}
        if counted:
            usage["completion_tokens_details"] = {"reasoning_tokens": 300}
        return answers(
            "1,2,3" if few else "好的", finish="length" if few else "stop", usage=usage, reasoning_content="嗯"
        )

    verdict, words = cell(serve(chats(answer)), "max_tokens")
    assert verdict == "supported"
    assert "reasoning, which it does not bound" in words


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (answers('{"x":1}'), ("json_object", "json_object_without_word")),
        (answers('{"zeta":"k7-north","open":true}'), ("json_object", "json_schema")),
        (answers("", finish="tool_calls", tool_calls=[{"function": {"name": "set_alarm"}}]), ("tool", "tool_required")),
        (answers("", finish="tool_calls", tool_calls=[{"function": {"name": "get_weather"}}]), ("tools",)),
        (answers("甲乙丙"), ("stop",)),
        (answers("哈" * 40), ("presence_penalty",)),
        (answers("vkqzpwmx"), ("temperature", "top_p", "seed")),
        (answers("蓝鲸4172"), ("system_role", "developer_role")),
    ],
)
def test_what_a_model_says_to_everything_shows_no_parameter(serve, answer, names):
    matrix = verdicts(measured(serve(chats(lambda call: answer))))
    assert {matrix[name] for name in names} <= {"unclear", "accepted but ignored"}


def test_what_comes_unasked_shows_no_parameter(serve):
    choice = completion("好")["choices"][0] | {"logprobs": {"content": [{"token": "好", "logprob": -0.1}]}}
    found = measured(serve(chats(lambda call: http(200, completion() | {"choices": [choice, choice]}))))
    for name in ("n", "logprobs"):
        assert found.profile.cells[name].verdict.value == "unclear"
        assert "as without it" in found.profile.cells[name].words


def test_choices_that_are_none_are_not_counted(serve):
    one = completion("好")["choices"][0]
    server = serve(
        chats(lambda call: http(200, completion() | {"choices": [one, None] if "n" in call.body else [one]}))
    )
    assert cell(server, "n") == ("accepted but ignored", "1 choice for n = 2")


def test_an_echo_of_everything_obeys_no_order(serve):
    server = serve(chats(lambda call: answers(json.dumps(call.body["messages"], ensure_ascii=False))))
    matrix = verdicts(measured(server))
    assert {matrix[name] for name in ("system_role", "developer_role")} == {"unclear"}


def test_json_between_fences_is_neither_obeyed_nor_ignored(serve):
    server = serve(chats(lambda call: answers('```json\n{"x": 1}\n```' if "response_format" in call.body else "好的")))
    assert cell(server, "json_object")[0] == "unclear"


@pytest.mark.parametrize(("text", "verdict"), [
    ("甲乙丙", "supported"), ("甲乙丙丁", "supported"), ("对不起", "unclear"),
    ("甲乙丙丁戊己庚", "accepted but ignored"),
])  # fmt: skip
def test_stop_is_judged_beside_a_copy_without_it(serve, text, verdict):
    def answer(call: Call) -> bytes:
        return answers(text if "stop" in call.body else "甲乙丙丁戊己庚" if "甲" in call.prompt else "好的")

    assert cell(serve(chats(answer)), "stop")[0] == verdict


@pytest.mark.parametrize("text", ["<think>\n嗯\n</think>\n9.9", "嗯\n</think>\n9.9", "好。<think>嗯</think>9.9"])
def test_thoughts_in_the_text_are_seen(serve, text):
    found = measured(serve(chats(lambda call: answers(text if "9.11" in call.prompt else "好的"))))
    assert found.profile.thinks is True
    assert "in the text" in found.profile.cells["reasoning"].words


def test_a_text_with_empty_thoughts_is_of_a_model_that_does_not_think(serve):
    found = measured(serve(chats(lambda call: answers("<think>\n\n</think>\n\n9.9"))))
    assert found.profile.thinks is False


def test_an_answer_that_was_cut_before_it_began_does_not_tell_whether_the_model_thinks(serve):
    found = measured(serve(chats(lambda call: answers("", finish="length") if "9.11" in call.prompt else ok("好"))))
    assert found.profile.thinks is None


def test_an_answer_that_ended_at_a_filter_is_not_judged(serve):
    server = serve(chats(lambda call: answers("我不", finish="content_filter") if "response_format" in call.body
                         else ok("好的")))  # fmt: skip
    assert cell(server, "json_schema")[0] == "unclear"


@pytest.mark.parametrize(
    "odd", ["1" + "0" * 400, str(2**70), "[" * 500 + "]" * 500, "[" * 900 + "]" * 900, '"\\ud800"']
)
@pytest.mark.parametrize("where", ["message", "finish", "model", "name"])
def test_what_no_file_can_hold_is_kept_as_words(batchrun, serve, data_home, odd, where):
    """Numbers, nesting and halves of characters that JSON has and the profile's writer has not."""
    spot = dict.fromkeys(("message", "finish", "model", "name"), "null") | {where: odd}
    body = (
        f'{{"model":{spot["model"]},"choices":[{{"message":{{"content":"","x":{spot["message"]},"tool_calls":'
        f'[{{"function":{{"name":{spot["name"]}}}}}]}},"finish_reason":{spot["finish"]}}}]}}'
    )
    server = serve(lambda call: [http(200, body.encode(), "Content-Type: application/json")])
    ended = batchrun("probe", "--base-url", server.base_url, "-m", "m", "--json")
    assert "Traceback" not in ended.err
    assert ended.code in (0, 4)
    if ended.code == 0:
        (path,) = data_home.rglob("*.json")
        assert load_profile(path) is not None


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_the_matrix_and_saves_the_profile(batchrun, simulator, data_home):
    url = simulator("--dialect", "deepseek")
    ended = batchrun("probe", "--base-url", url, "-m", "simulated-chat")
    assert ended.code == 0, ended.err
    assert "This response_format type is unavailable now" in ended.out
    assert [line for line in ended.out.split("\n") if line.startswith("max_completion_tokens ") and "ignored" in line]
    path = profile_path(url, "simulated-chat", {"XDG_DATA_HOME": str(data_home)})
    assert path is not None
    assert str(path) in ended.err
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert load_profile(path).versions["batchrun"]
    assert "simulated" in ended.err


def test_json_and_markdown_say_the_same(batchrun, simulator):
    url = simulator("--dialect", "moonshot", "--api-key", KEY)
    flags = ["--base-url", url, "-m", "simulated-chat"]
    value = batchrun("probe", *flags, "--json", OPENAI_API_KEY=KEY).json()
    assert (value["model"], value["simulated"], value["max_calls"]) == ("simulated-chat", True, MAX_CALLS)
    assert value["calls"] <= MAX_CALLS
    assert set(value["matrix"]) == {row.name for row in ROWS}
    assert value["matrix"]["temperature"]["evidence"]
    assert KEY not in json.dumps(value)
    table = batchrun("probe", *flags, "--markdown", OPENAI_API_KEY=KEY).out.split("\n")
    rows = [line for line in table if line.startswith("| ") and not line.startswith("| capability")]
    assert len(rows) == len(ROWS)
    for row, line in zip(ROWS, rows, strict=True):
        assert value["matrix"][row.name]["verdict"] in line
        assert line.count("|") - line.count("\\|") == 4


def test_a_dry_run_tells_the_cost_and_sends_nothing(batchrun, serve):
    server = serve(refuses())
    told = batchrun("probe", "--base-url", server.base_url, "-m", "m", "--dry-run", "--max-tokens", "100")
    assert (told.code, server.calls) == (0, [])
    assert f"{MAX_CALLS} calls at most" in told.out
    assert f"{MAX_CALLS_WITH_REPEATS} with those made again" in told.out
    assert f"{most_tokens(100):,} tokens at most; {most_tokens(100, repeats=True):,} with" in told.out
    assert batchrun("probe", "--base-url", "https://api.example.com/v1", "-m", "m", "--dry-run").code == 0
    value = batchrun("probe", "--base-url", server.base_url, "-m", "m", "--dry-run", "--json").json()
    assert sum(value["calls"].values()) <= value["max_calls"] == MAX_CALLS
    assert (value["max_tokens"], value["max_calls_with_repeats"]) == (most_tokens(1024), MAX_CALLS_WITH_REPEATS)


def test_what_a_provider_says_reaches_neither_terminal_nor_wiki_raw(batchrun, serve):
    hostile = "\x1b]52;c;eA==\x07\u202e|<script>alert(1)</script>|[x](javascript:1)`"

    def script(call: Call) -> list[Action]:
        if not call.raw or set(call.body) - {"model", "messages", "max_tokens"}:
            return [http(400, {"error": {"message": hostile}})]
        return [http(200, completion("好") | {"model": hostile})]

    server = serve(script)
    for flags in ([], ["--markdown"], ["--json"]):
        ended = batchrun("probe", "--base-url", server.base_url, "-m", "m", *flags)
        assert ended.code == 0, ended.err
        assert not set("\x1b\x07\u202e") & set(ended.out + ended.err)
        if flags == ["--markdown"]:
            assert "<script>" not in ended.out
            assert "[x](" not in ended.out.replace("\\[x](", "")


@pytest.mark.parametrize(("flags", "words"), [
    (["--base-url", "http://127.0.0.1:9/v1"], "no model"),
    (["-m", "m"], "endpoint.base_url is missing"),
    (["--base-url", "https://api.example.com/v1", "-m", "m"], "Never send"),
    (["missing.toml"], "cannot be read"),
])  # fmt: skip
def test_without_what_it_needs_nothing_is_sent(batchrun, flags, words):
    ended = batchrun("probe", *flags, OPENAI_API_KEY=KEY)
    assert ended.code == 2
    assert words in ended.err


def test_an_endpoint_that_says_stop_is_told_with_exit_code_4(batchrun, serve, data_home):
    server = serve(lambda call: [http(401, {"error": {"message": f"bad key {KEY}"}})])
    ended = batchrun("probe", "--base-url", server.base_url, "-m", "m", OPENAI_API_KEY=KEY)
    assert ended.code == 4
    assert "auth" in ended.err
    assert KEY not in ended.err
    assert not list(data_home.rglob("*.json"))


def test_nobody_at_home_is_told_with_exit_code_4(batchrun):
    ended = batchrun("probe", "--base-url", "http://127.0.0.1:9/v1", "-m", "m")
    assert ended.code == 4
    assert "network" in ended.err
    assert "Traceback" not in ended.err


def test_a_probe_is_interrupted_at_once(serve, tmp_path):
    server = serve(lambda call: [Act.HANG])
    process = subprocess.Popen(
        [sys.executable, "-m", "batchrun", "probe", "--base-url", server.base_url, "-m", "m"],
        cwd=tmp_path, env=environment(), preexec_fn=hearing_sigint, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not server.calls:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "nothing was saved" in err
    assert "Traceback" not in err


def test_a_profile_that_cannot_be_saved_is_said_and_the_matrix_printed(batchrun, simulator, tmp_path):
    (tmp_path / "file").write_text("")
    ended = batchrun("probe", "--base-url", simulator(), "-m", "m", XDG_DATA_HOME=str(tmp_path / "file"))
    assert ended.code == 0
    assert "cannot be saved" in ended.err
    assert "plain chat" in ended.out


def test_what_runs_learned_stays_with_a_new_probe(batchrun, simulator, data_home, tmp_path):
    url = simulator("--dialect", "deepseek")
    (tmp_path / "in.jsonl").write_text('{"prompt": "x"}\n')
    (tmp_path / "job.toml").write_text(
        f'input = "in.jsonl"\noutput = "out"\n[endpoint]\nbase_url = "{url}"\nmodel = "m"\n[params]\ntop_k = 5\n'
    )
    assert batchrun("run", "job.toml").code == 0
    assert batchrun("probe", "job.toml").code == 0
    (path,) = data_home.rglob("*.json")
    profile = load_profile(path)
    assert profile.fact("top_k", 5, thinking=False).by == "run"
    assert profile.fact("n", 2, thinking=False).by == "probe"
