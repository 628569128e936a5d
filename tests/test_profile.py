"""Runs compiled from what is known of an endpoint, and what a run finds out by itself."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import KEY, records, write_lines
from scripted import Act, Wait, completion, http, ok

from batchrun.endpoint.profile import (
    Cell,
    Fact,
    Profile,
    ProfileError,
    Verdict,
    load_profile,
    profile_path,
    save_profile,
    update_profile,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Ended
    from scripted import Action, Call, Scripted

SCHEMA = {
    "type": "object",
    "properties": {"分": {"type": "integer"}},
    "required": ["分"],
    "additionalProperties": False,
}
GOOD = '{"分": 1}'


class Bench:
    """A job against a server, run by the command."""

    def __init__(self, batchrun: Callable[..., Ended], folder: Path, data_home: Path) -> None:
        self._batchrun, self.folder, self.data_home = batchrun, folder, data_home

    def job(
        self, server: Scripted | str, items: Any = 3, *, endpoint: str = "", params: str = "", schema: Any = SCHEMA,
        mode: str = "auto", concurrency: int = 8, model: str = "m-1",
    ) -> None:  # fmt: skip
        url = server if isinstance(server, str) else server.base_url
        self.url, self.model = url, model
        if isinstance(items, int):
            items = [{"id": f"r-{number}", "prompt": f"p{number}"} for number in range(items)]
        write_lines(self.folder / "in.jsonl", *items)
        structured = ""
        if schema is not None:
            (self.folder / "schema.json").write_text(json.dumps(schema))
            structured = f'[structured]\nschema = "schema.json"\nmode = "{mode}"\n'
        (self.folder / "job.toml").write_text(
            f'input = "in.jsonl"\noutput = "out"\n[endpoint]\nbase_url = "{url}"\nmodel = "{model}"\n{endpoint}\n'
            f"[params]\n{params}\n{structured}[limits]\nconcurrency = {concurrency}\n"
            '[retry]\nwait_initial = "20ms"\nwait_max = "50ms"\n'
        )

    def run(self, *flags: str, **variables: str) -> Ended:
        return self._batchrun("run", "job.toml", *flags, **variables)

    def again(self, *flags: str) -> Ended:
        """Run the same job into another folder, so that everything is asked again."""
        return self.run("-o", "again", *flags)

    def results(self, folder: str = "out") -> list[dict[str, Any]]:
        return records(self.folder / folder / "results.jsonl")

    def failures(self) -> list[dict[str, Any]]:
        return records(self.folder / "out" / "failures.jsonl")

    def manifest(self, folder: str = "out") -> dict[str, Any]:
        return json.loads((self.folder / folder / "run.json").read_text())

    @property
    def path(self) -> Path:
        path = profile_path(self.url, self.model, {"XDG_DATA_HOME": str(self.data_home)})
        assert path is not None
        return path

    @property
    def profile(self) -> Profile:
        profile = load_profile(self.path)
        assert profile is not None
        return profile

    def know(self, *facts: Fact, **more: Any) -> None:
        """Save a profile of the job's endpoint."""
        profile = Profile(self.url, self.model, probed_at="2026-11-01T00:00:00.000Z", facts=facts, **more)
        save_profile(profile, self.path)


@pytest.fixture
def bench(batchrun, tmp_path, data_home) -> Bench:
    return Bench(batchrun, tmp_path, data_home)


def rung(call: Call) -> str:
    """Tell how a request asks for JSON."""
    body = call.body
    if "tools" in body:
        return "tool_required" if body["tool_choice"] == "required" else "tool"
    return body.get("response_format", {}).get("type", "prompt")


def refusing(*rungs: str, words: str = "This response_format type is unavailable now", status: int = 400) -> Any:
    """Refuse these ways to ask for JSON, and answer well to the others."""

    def script(call: Call) -> list[Action]:
        way = rung(call)
        if way in rungs:
            return [http(status, {"error": {"message": words, "type": "invalid_request_error"}})]
        if way in ("tool", "tool_required"):
            calls = [{"id": "c", "type": "function", "function": {"name": "output", "arguments": GOOD}}]
            message = {"role": "assistant", "content": None, "tool_calls": calls}
            return [http(200, completion(finish="tool_calls") | {
                "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]
            })]  # fmt: skip
        return [ok(GOOD)]

    return script


# --- the ladder -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refused", "taken", "mode"),
    [
        ([], "json_schema", "json_schema"),
        (["json_schema"], "tool", "tool"),
        (["json_schema", "tool"], "tool_required", "tool"),
        (["json_schema", "tool", "tool_required"], "json_object", "json_object"),
        (["json_schema", "tool", "tool_required", "json_object"], "prompt", "prompt"),
    ],
)
def test_a_refusal_moves_the_run_down_once_and_costs_no_attempt(bench, serve, refused, taken, mode):
    server = serve(refusing(*refused))
    bench.job(server, 40)
    ended = bench.run("--json")
    assert ended.code == 0, ended.err
    results = bench.results()
    assert len(results) == 40
    assert {(one["attempts"], one["extraction"]["mode"], one["output"]["分"]) for one in results} == {(1, mode, 1)}
    assert [rung(call) for call in server.calls] == [*refused, *[taken] * 40]
    assert ended.err.count("is refused") == (2 if refused else 0)  # said once as it happens, once at the end
    summary = ended.json()
    assert summary["requests"]["retries"] == 0
    assert bool(refused) is any("is unavailable now" in warning for warning in summary["warnings"])
    assert bench.manifest()["profile"]["structured_mode"] == mode
    # The next run knows it.
    before = len(server.calls)
    assert bench.again().code == 0
    assert [rung(call) for call in server.calls[before:]] == [taken] * 40


def test_requests_that_are_refused_together_move_the_run_once(bench, serve):
    """A profile that is wrong sends many requests at once to their refusal."""
    barrier = threading.Barrier(8, timeout=10)
    inner = refusing("json_schema")

    def script(call: Call) -> Any:
        if rung(call) == "json_schema":
            return [Wait(0.3), *inner(call)]
        return inner(call)

    server = serve(script)
    bench.job(server, 30, concurrency=8)
    bench.know(Fact("json_schema", None, Verdict.SUPPORTED, thinking=None, by="probe"))
    ended = bench.run("--json")
    assert ended.code == 0, ended.err
    assert sum(rung(call) == "json_schema" for call in server.calls) == 8
    assert {one["attempts"] for one in bench.results()} == {1}
    assert len([one for one in ended.json()["warnings"] if "is refused" in one]) == 1
    assert "contradicts the profile of" in ended.err
    assert bench.profile.fact("json_schema", None, thinking=None).verdict is Verdict.REJECTED
    barrier.abort()


def test_an_item_that_is_bad_by_itself_does_not_move_the_run(bench, serve):
    inner = refusing("json_schema")

    def script(call: Call) -> Any:
        if call.prompt == "p0":
            return [http(400, {"error": {"message": "messages: content is not acceptable"}})]
        return inner(call)

    server = serve(script)
    bench.job(server, 5)
    assert bench.run().code == 3
    assert [(one["id"], one["error"]["kind"], one["attempts"]) for one in bench.failures()] == [
        ("r-0", "bad_request", 1)
    ]
    assert {rung(call) for call in server.calls if call.prompt in ("p2", "p3", "p4")} == {"tool"}
    # Behind one that was taken it is not tried another way at all.
    bench.job(server, [{"id": f"r-{number}", "prompt": f"p{number}"} for number in (1, 2, 0)], concurrency=1)
    before = len(server.calls)
    assert bench.again().code == 3
    assert [rung(call) for call in server.calls[before:] if call.prompt == "p0"] == ["tool"]


def test_a_500_that_speaks_of_the_response_format_is_a_refusal(bench, serve):
    server = serve(
        refusing("json_schema", words="response_format: Input should be 'text' or 'json_object'", status=500)
    )
    bench.job(server, 3)
    assert bench.run().code == 0
    assert [rung(call) for call in server.calls] == ["json_schema", "tool", "tool", "tool"]


def test_trouble_on_a_lower_rung_does_not_climb_again(bench, serve):
    """The retry of an item that was on its way down goes on where it was."""
    inner = refusing("json_schema", "tool")

    def script(call: Call) -> Any:
        if rung(call) == "tool_required" and call.attempt == 3:
            return [http(503, {"error": {"message": "busy"}})]
        return inner(call)

    server = serve(script)
    bench.job(server, 1)
    assert bench.run().code == 0
    assert [rung(call) for call in server.calls] == ["json_schema", "tool", "tool_required", "tool_required"]
    assert bench.results()[0]["attempts"] == 2


def test_what_is_accepted_and_ignored_is_not_asked_for(bench, serve):
    server = serve(refusing())
    bench.job(server, 2)
    bench.know(
        Fact("json_schema", None, Verdict.IGNORED, by="probe"), Fact("tool", None, Verdict.IGNORED, by="probe"),
        Fact("tool_required", None, Verdict.REJECTED, by="probe"),
        Fact("json_object", None, Verdict.SUPPORTED, by="probe"),
    )  # fmt: skip
    assert bench.run().code == 0
    assert {rung(call) for call in server.calls} == {"json_object"}


@pytest.mark.parametrize("schema", [{"type": "array", "items": {"type": "integer"}}, {"type": "integer"}, True])
def test_what_is_no_object_is_not_asked_for_by_a_tool_or_an_object(bench, serve, schema):
    answer = "[1]" if schema is not True and schema["type"] == "array" else "1"
    refused = http(400, {"error": {"message": "no response_format"}})
    server = serve(lambda call: [ok(answer) if rung(call) == "prompt" else refused])
    bench.job(server, 2, schema=schema)
    assert bench.run().code == 0
    assert [rung(call) for call in server.calls] == ["json_schema", "prompt", "prompt"]


def test_a_batch_line_that_says_how_it_is_answered_is_left_alone(bench, serve):
    server = serve(refusing("json_schema"))
    own = {"response_format": {"type": "json_object"}, "messages": [{"role": "user", "content": "own"}]}
    line = {"custom_id": "own", "method": "POST", "url": "/v1/chat/completions", "body": own}
    bench.job(server, [line, {"id": "a", "prompt": "p"}])
    assert bench.run().code == 0
    assert [rung(call) for call in server.calls if call.prompt == "own"] == ["json_object"]


def test_tools_can_be_asked_for_and_their_arguments_are_the_output(bench, serve):
    server = serve(refusing())
    bench.job(server, 2, mode="tool")
    assert bench.run().code == 0
    assert {rung(call) for call in server.calls} == {"tool"}
    assert server.calls[0].body["tools"][0]["function"]["parameters"] == SCHEMA
    assert {(one["extraction"]["mode"], one["extraction"]["method"]) for one in bench.results()} == {
        ("tool", "tool_call")
    }
    before = len(server.calls)
    assert bench._batchrun("reparse", "job.toml", "--json").json()["counts"]["outputs_changed"] == 0
    assert bench._batchrun("verify", "job.toml").code == 0
    assert bench.run().code == 0
    assert len(server.calls) == before


def test_a_new_profile_asks_nothing_again_and_changes_no_fingerprint(bench, serve):
    server = serve(refusing())
    bench.job(server, 4)
    assert bench.run().code == 0
    before = (bench.folder / "out/results.jsonl").read_bytes()
    asked = len(server.calls)
    bench.know(Fact("json_schema", None, Verdict.REJECTED), Fact("tool", None, Verdict.SUPPORTED))
    assert bench.run().code == 0
    assert (len(server.calls), (bench.folder / "out/results.jsonl").read_bytes()) == (asked, before)
    assert bench._batchrun("verify", "job.toml").code == 0


@pytest.mark.parametrize("mode", ["json_schema", "tool", "json_object"])
def test_a_mode_that_was_asked_for_by_name_stops_the_run_with_the_words(bench, serve, mode):
    server = serve(refusing("json_schema", "tool", "json_object", words="No response_format or tools here"))
    bench.job(server, 5, mode=mode)
    ended = bench.run("--json")
    assert ended.code == 4
    assert "No response_format or tools here" in ended.err
    assert f'structured.mode = "{mode}"' in ended.err
    assert (ended.json()["counts"]["pending"], ended.json()["stopped"]["kind"]) == (5, "bad_request")
    assert len(server.calls) == 2


@pytest.mark.parametrize("mode", ["json_schema", "tool", "json_object"])
def test_a_mode_that_may_be_dropped_is_asked_for_in_words(bench, serve, mode):
    server = serve(refusing("json_schema", "tool", "json_object"))
    bench.job(server, 5, mode=mode, endpoint="drop_unsupported = true")
    ended = bench.run("--json")
    assert ended.code == 0, ended.err
    assert [rung(call) for call in server.calls] == [mode, *["prompt"] * 5]
    assert all("JSON Schema" in call.body["messages"][0]["content"] for call in server.calls[1:])
    assert {(one["extraction"]["mode"], one["attempts"]) for one in bench.results()} == {("prompt", 1)}
    assert any("is unavailable now" in one for one in ended.json()["warnings"])


# --- one item first -------------------------------------------------------------------------------------------------


def test_without_a_profile_one_item_goes_before_the_others(bench, serve):
    server = serve(lambda call: [Wait(0.2), ok(GOOD)])
    bench.job(server, 20, concurrency=10)
    assert bench.run().code == 0
    first = server.calls[0]
    assert all(call.at >= first.answered_at for call in server.calls[1:])
    assert max(call.together for call in server.calls[1:]) > 1
    # With what that run learned all go at once.
    before = len(server.calls)
    assert bench.again().code == 0
    assert max(call.together for call in server.calls[before : before + 10]) > 1
    assert server.calls[before + 1].at < server.calls[before].answered_at


def test_an_item_that_hangs_does_not_hold_the_others_for_ever(bench, serve):
    server = serve(lambda call: [Act.HANG] if call.prompt == "p0" and call.attempt == 1 else [ok(GOOD)])
    bench.job(server, 5, endpoint="")
    text = (bench.folder / "job.toml").read_text().replace("[retry]", '[retry]\nattempt_timeout = "1s"')
    (bench.folder / "job.toml").write_text(text)
    assert bench.run().code == 0
    assert len(bench.results()) == 5


def test_items_that_fail_by_themselves_open_the_way_in_the_end(bench, serve):
    server = serve(lambda call: [http(400, {"error": {"message": "Content Exists Risk"}})])
    bench.job(server, 30, schema=None, endpoint='dialect = "deepseek"')
    assert bench.run().code == 3
    assert {one["error"]["kind"] for one in bench.failures()} == {"content_filter"}
    assert len(server.calls) == 30


# --- parameters -------------------------------------------------------------------------------------------------------


def strict(name: str, taken: Any = None, words: str = "invalid {name}: only {taken} is allowed for this model") -> Any:
    """Refuse a parameter unless it has the one value that is taken."""

    def script(call: Call) -> list[Action]:
        if name in call.body and call.body[name] != taken:
            return [http(400, {"error": {"message": words.format(name=name, taken=taken)}})]
        return [ok()]

    return script


@pytest.mark.parametrize(("name", "value"), [("temperature", "0.2"), ("n", "2"), ("top_k", "5"), ("seed", "7")])
def test_a_parameter_that_is_refused_stops_the_run_with_the_words(bench, serve, name, value):
    server = serve(strict(name, 1))
    bench.job(server, 50, schema=None, params=f"{name} = {value}")
    ended = bench.run("--json")
    assert ended.code == 4
    assert f"invalid {name}: only 1 is allowed" in ended.err
    assert f"params.{name} = {value}" in ended.err
    summary = ended.json()
    # Beside the item that was refused one greeting was, with the same parameters: so it is not the item's affair.
    assert (summary["counts"]["pending"], summary["counts"]["failures"], len(server.calls)) == (50, 0, 2)
    assert name in bench.manifest()["summary"]["stopped"]["message"]
    # The next time it is known before anything is sent; changed, it runs.
    again = bench.run()
    assert (again.code, len(server.calls)) == (2, 2)
    assert f"invalid {name}: only 1 is allowed" in again.err
    bench.job(server, 50, schema=None, params=f"{name} = 1")
    assert bench.run().code == 0


def test_parameters_that_may_be_dropped_are_dropped_and_said(bench, serve):
    def script(call: Call) -> list[Action]:
        for name in ("temperature", "top_k"):
            if name in call.body:
                return [http(400, {"error": {"message": f"Unrecognized request argument supplied: {name}"}})]
        return [ok()]

    server = serve(script)
    bench.job(server, 20, schema=None, params="temperature = 0.2\ntop_k = 5\nmax_tokens = 9",
              endpoint="drop_unsupported = true")  # fmt: skip
    ended = bench.run("--json")
    assert ended.code == 0, ended.err
    assert len(server.calls) == 22
    assert all(call.body["max_tokens"] == 9 for call in server.calls)
    for warnings in (ended.json()["warnings"], bench.manifest()["summary"]["warnings"]):
        for name in ("temperature", "top_k"):
            assert any(name in one and "Unrecognized request argument" in one for one in warnings)
    assert {one["attempts"] for one in bench.results()} == {1}
    # The next run leaves them out from the start, and says so.
    before = len(server.calls)
    again = bench.again("--json")
    assert again.code == 0
    assert len(server.calls) == before + 20
    assert any("temperature" in one for one in again.json()["warnings"])
    # Asked for without leave to drop them, they stop the run before anything is sent.
    bench.job(server, 20, schema=None, params="temperature = 0.2\ntop_k = 5\nmax_tokens = 9")
    refused = bench.again("--on-change", "rerun")
    assert (refused.code, len(server.calls)) == (2, before + 20)
    assert "params.temperature = 0.2" in refused.err
    assert "params.top_k = 5" in refused.err


def test_a_value_that_was_refused_says_nothing_of_another(bench, serve):
    server = serve(strict("temperature", 1))
    bench.job(server, 3, schema=None, params="temperature = 1.0")
    bench.know(Fact("temperature", 0, Verdict.REJECTED, "only 1 is allowed", by="probe"))
    assert bench.run().code == 0
    bench.job(server, 3, schema=None, params="temperature = 0")
    before = len(server.calls)
    ended = bench.again()
    assert (ended.code, len(server.calls)) == (2, before)
    assert "only 1 is allowed" in ended.err
    assert bench.again("--dry-run").code == 2


def test_an_item_s_own_parameter_that_is_forbidden_is_its_failure_unsent(bench, serve):
    server = serve(lambda call: [ok()])
    body = {"messages": [{"role": "user", "content": "own"}], "temperature": 0}
    bench.job(server, [{"custom_id": "own", "method": "POST", "url": "/v1/chat/completions", "body": body},
                       {"id": "a", "prompt": "p"}], schema=None)  # fmt: skip
    bench.know(Fact("temperature", 0, Verdict.REJECTED, "only 1 is allowed", by="probe"))
    assert bench.run().code == 3
    (failure,) = bench.failures()
    assert (failure["id"], failure["error"]["kind"], failure["attempts"]) == ("own", "bad_request", 0)
    assert "only 1 is allowed" in failure["error"]["message"]
    assert [call.prompt for call in server.calls] == ["p"]


def test_a_refusal_in_the_middle_is_the_item_s_own(bench, serve):
    """What was taken before is not unsupported: max_tokens may be too much for one long item."""
    server = serve(lambda call: [
        http(400, {"error": {"message": "max_tokens is too large for this input"}}) if call.prompt == "p7" else ok()
    ])  # fmt: skip
    bench.job(server, 20, schema=None, params="max_tokens = 500")
    assert bench.run().code == 3
    assert [one["id"] for one in bench.failures()] == ["r-7"]


def test_a_bound_on_tokens_goes_under_the_name_that_is_obeyed(bench, serve):
    server = serve(lambda call: [ok()])
    bench.job(server, 2, schema=None, params="max_completion_tokens = 50")
    bench.know(max_tokens="max_tokens")
    ended = bench.run("--json")
    assert ended.code == 0
    assert {call.body.get("max_tokens") for call in server.calls} == {50}
    assert not any("max_completion_tokens" in call.body for call in server.calls)
    assert any("sent as max_tokens" in one for one in ended.json()["warnings"])


def test_what_has_no_effect_is_said(bench, serve):
    bench.job(serve(lambda call: [ok()]), 2, schema=None, params="seed = 3")
    bench.know(cells={"seed": Cell(Verdict.IGNORED, "two answers differ in spite of seed = 7")})
    ended = bench.run("--json")
    assert ended.code == 0
    assert any("seed is taken here and has no effect" in one for one in ended.json()["warnings"])


def test_one_bad_item_does_not_stop_a_run_by_a_word_of_its_own(bench, serve):
    """The words of a refusal may hold the name of a parameter by chance; a greeting tells whose affair it is."""

    def script(call: Call) -> list[Action]:
        if call.prompt == "p0":
            words = "max_tokens: conversation roles must alternate user/assistant/user/assistant"
            return [http(400, {"error": {"message": words}})]
        return [ok()]

    server = serve(script)
    bench.job(server, 10, schema=None, params='user = "batch-1"\nmax_tokens = 50')
    assert bench.run().code == 3
    assert [one["id"] for one in bench.failures()] == ["r-0"]
    assert bench._batchrun("retry", "job.toml").code == 3
    assert [one["error"]["kind"] for one in bench.failures()] == ["bad_request"]


def test_words_that_name_what_is_allowed_too_find_the_one_that_is_not(bench, serve):
    words = "Extra inputs are not permitted. Allowed: temperature, max_tokens, top_p. Got foo_mode"
    server = serve(lambda call: [http(400, {"error": {"message": words}}) if "foo_mode" in call.body else ok()])
    bench.job(server, 3, schema=None, params="temperature = 0.1\nmax_tokens = 50\nfoo_mode = 1",
              endpoint="drop_unsupported = true")  # fmt: skip
    assert bench.run().code == 0
    assert {"temperature", "max_tokens"} <= set(server.calls[-1].body)
    assert "foo_mode" not in server.calls[-1].body


def test_a_parameter_that_was_left_out_in_vain_is_put_back(bench, serve):
    """Two are named and the second one is at fault: the first goes out again."""
    words = "temperature and top_k are mutually exclusive here"
    server = serve(lambda call: [http(400, {"error": {"message": words}}) if "top_k" in call.body else ok()])
    bench.job(server, 3, schema=None, params="temperature = 0.1\ntop_k = 5", endpoint="drop_unsupported = true")
    assert bench.run().code == 0
    assert server.calls[-1].body["temperature"] == 0.1
    assert "top_k" not in server.calls[-1].body


def test_one_item_s_bound_on_tokens_is_not_everybody_s(bench, serve):
    words = "max_tokens is too large: 4000 for this input"
    server = serve(lambda call: [
        http(400, {"error": {"message": words}}) if call.prompt == "p3" and "max_tokens" in call.body else ok()
    ])  # fmt: skip
    bench.job(server, 20, schema=None, params="max_tokens = 4000", endpoint="drop_unsupported = true", concurrency=1)
    ended = bench.run("--json")
    assert ended.code == 0
    assert sum("max_tokens" not in call.body for call in server.calls) == 1
    assert any("max_tokens was left out of items" in one for one in ended.json()["warnings"])
    assert bench.profile.fact("max_tokens", 4000, thinking=None).verdict is Verdict.ACCEPTED


def test_parameters_that_exclude_each_other_are_not_refused_alone(bench, serve):
    words = "temperature and top_p cannot both be specified"
    server = serve(lambda call: [
        http(400, {"error": {"message": words}}) if {"temperature", "top_p"} <= set(call.body) else ok()
    ])  # fmt: skip
    bench.job(server, 3, schema=None, params="temperature = 0.5\ntop_p = 0.5", endpoint="drop_unsupported = true")
    assert bench.run().code == 0
    bench.job(server, 3, schema=None, params="temperature = 0.5")
    assert bench.again().code == 0


def test_a_bound_that_goes_by_its_other_name_is_renamed_and_remembered(bench, serve):
    words = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    server = serve(lambda call: [http(400, {"error": {"message": words}}) if "max_tokens" in call.body else ok()])
    bench.job(server, 10, schema=None, params="max_tokens = 50")
    ended = bench.run("--json")
    assert ended.code == 0, ended.err
    assert [call.body.get("max_completion_tokens") for call in server.calls] == [None, *[50] * 10]
    assert any("max_tokens is sent as max_completion_tokens" in one for one in ended.json()["warnings"])
    before = len(server.calls)
    assert bench.again().code == 0
    assert len(server.calls) == before + 10


def test_a_schema_that_is_refused_says_nothing_of_other_schemas(bench, serve):
    def script(call: Call) -> list[Action]:
        schema = call.body.get("response_format", {}).get("json_schema", {}).get("schema", {})
        if schema and "additionalProperties" not in schema:
            words = "Invalid schema for response_format 'output': 'additionalProperties' is required to be supplied"
            return [http(400, {"error": {"message": words}})]
        return refusing("tool", "tool_required")(call)

    server = serve(script)
    loose = {"type": "object", "properties": {"分": {"type": "integer"}}}
    bench.job(server, 3, schema=loose)
    assert bench.run().code == 0
    assert {one["extraction"]["mode"] for one in bench.results()} == {"json_object"}
    before = len(server.calls)
    assert bench.again().code == 0
    assert {rung(call) for call in server.calls[before:]} == {"json_object"}  # of this schema it is known
    bench.job(server, 3)
    assert bench.run("-o", "other").code == 0
    assert {one["extraction"]["mode"] for one in bench.results("other")} == {"json_schema"}


def test_one_upstream_of_several_does_not_move_the_run(bench, serve):
    """Of thirty items one is refused the way that the others are asked: it alone goes another way."""
    inner = refusing()
    words = "upstream B: response_format is not supported"

    def script(call: Call) -> Any:
        if call.prompt == "p20" and rung(call) == "json_schema":
            return [http(400, {"error": {"message": words}})]
        return inner(call)

    server = serve(script)
    bench.job(server, 30, concurrency=1)
    ended = bench.run("--json")
    assert ended.code == 0
    modes = [one["extraction"]["mode"] for one in bench.results()]
    assert (modes.count("json_schema"), modes.count("tool")) == (29, 1)
    assert any("refused for some items" in one for one in ended.json()["warnings"])
    assert bench.profile.fact("json_schema", None, thinking=None).verdict is Verdict.ACCEPTED


def test_a_way_that_is_refused_again_and_again_is_left(bench, serve):
    inner = refusing("json_schema")
    server = serve(lambda call: [ok(GOOD)] if call.prompt == "p0" else inner(call))
    bench.job(server, 30, concurrency=1)
    assert bench.run().code == 0
    assert sum(rung(call) == "json_schema" for call in server.calls) == 1 + 3


def test_an_items_own_function_is_not_the_output(bench, serve):
    calls = [{"id": "c", "type": "function", "function": {"name": "look_up", "arguments": GOOD}}]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    answer = completion() | {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    server = serve(lambda call: [http(200, answer)])
    function = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
    body = {"messages": [{"role": "user", "content": "own"}], "tools": [function]}
    bench.job(server, [{"custom_id": "own", "method": "POST", "url": "/v1/chat/completions", "body": body}])
    assert bench.run().code == 3
    assert [one["error"]["kind"] for one in bench.failures()] == ["invalid_output"]


def test_a_users_own_tools_survive_a_mode_that_is_dropped(bench, serve):
    server = serve(refusing("json_schema"))
    tools = '[{ type = "function", function = { name = "look_up", parameters = { type = "object" } } }]'
    bench.job(server, 3, mode="json_schema", endpoint="drop_unsupported = true", params=f"tools = {tools}")
    server._script = lambda call: [
        http(400, {"error": {"message": "response_format is not supported"}})
        if "response_format" in call.body else ok(GOOD)
    ]  # fmt: skip
    assert bench.run().code == 0
    assert all("tools" in call.body for call in server.calls)


def test_a_request_asked_another_way_has_another_idempotency_key(bench, serve):
    server = serve(refusing("json_schema", "tool"))
    bench.job(server, 1)
    assert bench.run().code == 0
    keys = [call.values("idempotency-key")[0] for call in server.calls]
    assert len(set(keys)) == len(keys) == 3


def test_numbers_of_any_length_go_through(bench, serve):
    number = 10**40
    body = b'{"messages": [{"role": "user", "content": "own"}], "seed": %d, "top_k": 7}' % number
    server = serve(lambda call: [
        http(400, {"error": {"message": "Unrecognized request argument supplied: top_k"}}) if "top_k" in call.body
        else ok("no JSON") if call.number == 2 else ok(GOOD)
    ])  # fmt: skip
    line = b'{"custom_id": "own", "method": "POST", "url": "/v1/chat/completions", "body": %s}' % body
    bench.job(server, [line], endpoint="drop_unsupported = true", mode="prompt")
    ended = bench.run()
    assert ended.code == 0, ended.err
    assert [call.body["seed"] for call in server.calls] == [number] * 3  # refused, answered, asked again


# --- thinking and streams -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "wanted", "sent"),
    [
        ("deepseek", "false", {"thinking": {"type": "disabled"}}),
        ("deepseek", "true", {"thinking": {"type": "enabled"}}),
        ("dashscope", "false", {"enable_thinking": False}), ("zhipu", "true", {"thinking": {"type": "enabled"}}),
        ("vllm", "false", {"chat_template_kwargs": {"enable_thinking": False}}),
    ],
)  # fmt: skip
def test_thinking_is_switched_in_the_words_of_the_family(bench, serve, dialect, wanted, sent):
    server = serve(lambda call: [ok()])
    bench.job(server, 1, schema=None, endpoint=f'dialect = "{dialect}"\nthinking = {wanted}', params='stop = ["x"]')
    assert bench.run().code == 0
    assert sent.items() <= server.calls[0].body.items()
    # It belongs to what the results are made from.
    bench.job(server, 1, schema=None, endpoint=f'dialect = "{dialect}"', params='stop = ["x"]')
    ended = bench.run()
    assert ended.code == 2
    assert "endpoint.thinking" in ended.err


def test_thinking_that_nobody_knows_how_to_switch_is_refused(bench, serve):
    server = serve(lambda call: [ok()])
    bench.job(server, 1, schema=None, endpoint="thinking = false")
    ended = bench.run()
    assert (ended.code, server.calls) == (2, [])
    assert "batchrun probe" in ended.err
    bench.know(thinks=True, switches={"off": {"reasoning": {"enabled": False}}})
    assert bench.run().code == 0
    assert server.calls[0].body["reasoning"] == {"enabled": False}
    bench.know(thinks=True, cells={"thinking_off": Cell(Verdict.REJECTED, "该模型始终思考")})
    ended = bench.again()
    assert ended.code == 2
    assert "该模型始终思考" in ended.err


def test_a_switch_that_is_refused_stops_the_run_or_is_left_out(bench, serve):
    words = "parameter enable_thinking is not supported"
    server = serve(lambda call: [http(400, {"error": {"message": words}}) if "enable_thinking" in call.body else ok()])
    bench.job(server, 20, schema=None, endpoint='dialect = "dashscope"\nthinking = false')
    ended = bench.run()
    assert ended.code == 4
    assert "endpoint.thinking = false" in ended.err
    assert words in ended.err
    assert len(server.calls) == 2
    assert bench.run().code == 2
    bench.job(server, 20, schema=None, endpoint='dialect = "dashscope"\nthinking = false\ndrop_unsupported = true')
    ended = bench.run("--json")
    assert ended.code == 0, ended.err
    assert any(words in one for one in ended.json()["warnings"])


def test_what_an_item_says_of_thinking_counts_more(bench, serve):
    server = serve(lambda call: [ok()])
    body = {"messages": [{"role": "user", "content": "own"}], "enable_thinking": True}
    line = {"custom_id": "own", "method": "POST", "url": "/v1/chat/completions", "body": body}
    bench.job(server, [line, {"id": "a", "prompt": "p"}], schema=None,
              endpoint='dialect = "dashscope"\nthinking = false\nstream = false')  # fmt: skip
    assert bench.run().code == 0
    assert {call.prompt: call.body["enable_thinking"] for call in server.calls} == {"own": True, "p": False}
    bench.job(
        server, 1, schema=None, params="enable_thinking = true", endpoint='dialect = "dashscope"\nthinking = false'
    )
    assert "remove one of them" in bench.again().err


def test_an_endpoint_that_changes_its_mind_about_streams_is_followed(bench, serve):
    words = ["This model only supports streaming", "streaming is not supported"]
    events = "".join(f"data: {json.dumps(one)}\n\n" for one in (
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "好"}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    )) + "data: [DONE]\n\n"  # fmt: skip
    wanted = [True]

    def script(call: Call) -> list[Action]:
        streamed = call.body.get("stream") is True
        if streamed is not wanted[0]:
            return [http(400, {"error": {"message": words[streamed]}})]
        return [http(200, events.encode(), "Content-Type: text/event-stream") if streamed else ok()]

    server = serve(script)
    bench.job(server, 3, schema=None)
    for way in (True, False, True):
        wanted[0] = way
        for folder in ("one", "two"):
            before = len(server.calls)
            assert bench.run("-o", f"{way}-{folder}-{before}").code == 0
        assert len(server.calls) == before + 3  # the second run knows
    assert len([fact for fact in bench.profile.facts if fact.name == "stream"]) == 1


def test_ways_that_exclude_thinking_are_not_tried_while_it_is_on(bench, simulator):
    """Measured by the probe, for a model that thinks only when it is asked to."""
    url = simulator("--dialect", "dashscope")
    bench.job(url, 2, endpoint='dialect = "dashscope"\nthinking = true', model="simulated-chat")
    assert bench._batchrun("probe", "job.toml").code == 0
    ended = bench.run("--json")
    assert ended.code == 0, ended.err
    assert ended.json()["requests"] | {"rate_limited_by_cause": {}} == {
        "attempts": 2, "retries": 0, "reasks": 0, "trials": 0, "hedges": 0,
        "failed_attempts_by_kind": {}, "rate_limited_by_cause": {},
    }  # fmt: skip
    assert {one["extraction"]["mode"] for one in bench.results()} == {"json_schema"}
    assert all(one["reasoning"] for one in bench.results())


def test_that_a_model_only_streams_is_remembered(bench, simulator):
    bench.job(simulator("--dialect", "openai"), 3, schema=None, model="stream-only")
    assert bench.run().code == 0
    assert bench.profile.fact("stream", False, thinking=None).verdict is Verdict.REJECTED
    ended = bench.again("--json")
    assert ended.json()["requests"]["attempts"] == 3


@pytest.mark.parametrize(
    "family", ["deepseek", "dashscope", "moonshot", "zhipu", "minimax", "vllm", "ollama", "oneapi"]
)
def test_a_run_with_a_profile_makes_no_call_in_vain(bench, simulator, family):
    url = simulator("--dialect", family)
    bench.job(url, 10, endpoint=f'dialect = "{family}"', model="simulated-thinking")
    without = bench.run("--json").json()["requests"]
    assert bench._batchrun("probe", "job.toml").code == 0
    with_one = bench.again("--json").json()["requests"]
    assert (with_one["attempts"], with_one["failed_attempts_by_kind"]) == (10, {})
    assert without["attempts"] - 10 == without["failed_attempts_by_kind"].get("bad_request", 0) <= 3


# --- the file ---------------------------------------------------------------------------------------------------------


DAMAGED = {
    "format": 1, "base_url": "u", "model": "m-1", "dialect": "generic", "simulated": False, "probed_at": None,
    "learned_at": None, "thinks": None, "switches": {}, "max_tokens": None, "cells": {}, "facts": [], "versions": {},
}  # fmt: skip


def test_a_time_without_a_zone_is_utc(tmp_path):
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(DAMAGED | {"probed_at": "2026-01-02"}))
    profile = load_profile(path)
    assert profile is not None
    assert profile.age_s() > 0
    assert profile.measured_at == "2026-01-02"


def test_two_runs_that_learn_at_once_lose_nothing(tmp_path):
    path = tmp_path / "profiles" / "one.json"

    def learn(number: int) -> None:
        fact = Fact("top_k", number, Verdict.ACCEPTED)
        update_profile(path, lambda before: (before or Profile("u", "m")).with_facts([fact]))

    threads = [threading.Thread(target=learn, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(load_profile(path).facts) == 12
    assert [one.name for one in path.parent.iterdir()] == ["one.json"]


def test_a_profile_that_refuses_a_job_says_which_it_is_and_how_old(bench, serve):
    bench.job(serve(lambda call: [ok()]), 1, schema=None, params="n = 2")
    facts = (Fact("n", 2, Verdict.REJECTED, "only 1", by="probe"),)
    save_profile(Profile(bench.url, "m-1", probed_at="2020-01-01T00:00:00Z", facts=facts), bench.path)
    ended = bench.run()
    assert ended.code == 2
    assert str(bench.path) in ended.err
    assert "days old" in ended.err


def test_lines_that_are_done_stay_done_whatever_a_profile_forbids_now(bench, serve):
    server = serve(lambda call: [ok()])
    body = {"messages": [{"role": "user", "content": "own"}], "top_k": 5}
    line = {"custom_id": "own", "method": "POST", "url": "/v1/chat/completions", "body": body}
    bench.job(server, [line], schema=None)
    assert bench.run().code == 0
    bench.know(Fact("top_k", 5, Verdict.REJECTED, "no", by="probe"))
    (bench.folder / "in.jsonl").write_text(json.dumps(line, indent=None, separators=(" , ", " : ")) + "\n")
    ended = bench.run()
    assert ended.code == 0, ended.err
    assert len(server.calls) == 1


def test_an_old_profile_is_said_and_one_item_goes_first(bench, serve):
    server = serve(lambda call: [Wait(0.1), ok(GOOD)])
    bench.job(server, 10, endpoint='profile_max_age = "10d"')
    save_profile(
        Profile(
            bench.url,
            "m-1",
            probed_at="2025-01-01T00:00:00.000Z",
            facts=(Fact("json_schema", None, Verdict.SUPPORTED),),
        ),
        bench.path,
    )
    ended = bench.run()
    assert ended.code == 0
    assert re.search(r"the profile is \d+ days old", ended.err)
    assert "batchrun probe" in ended.err
    assert all(call.at >= server.calls[0].answered_at for call in server.calls[1:])


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b'{"format": 0}', b'{"format": 1}', b"\xff\xfe",
        b'{"format": 1, "base_url": 1, "model": null, "cells": [], "facts": {}}',
        *(json.dumps(DAMAGED | change).encode() for change in (
            {"probed_at": "yesterday"}, {"switches": {"on": [1]}}, {"switches": 5}, {"thinks": "yes"},
            {"max_tokens": "foo"}, {"cells": {"n": 1}}, {"facts": [{"name": {}}]}, {"unknown": 1}, {"model": 5},
            {"facts": [{"name": "n", "value": 1, "verdict": "rejected", "words": "", "thinking": None, "at": 5,
                        "by": "run"}]},
        )),
    ],
)  # fmt: skip
def test_a_profile_that_is_none_is_said_and_replaced(bench, serve, content):
    bench.job(serve(lambda call: [ok(GOOD)]), 2)
    bench.path.parent.mkdir(parents=True)
    bench.path.write_bytes(content)
    with pytest.raises(ProfileError):
        load_profile(bench.path)
    ended = bench.run()
    assert ended.code == 0
    assert "is not used" in ended.err
    assert bench.profile.fact("json_schema", None, thinking=None).verdict is Verdict.ACCEPTED


def test_a_profile_of_a_newer_version_is_left_alone(bench, serve):
    bench.job(serve(lambda call: [ok(GOOD)]), 2)
    bench.path.parent.mkdir(parents=True)
    bench.path.write_bytes(b'{"format": 99}')
    ended = bench.run()
    assert ended.code == 0
    assert "newer version" in ended.err
    assert bench.path.read_bytes() == b'{"format": 99}'


def test_a_home_that_cannot_be_written_does_not_stop_a_run(bench, serve):
    bench.job(serve(lambda call: [ok(GOOD)]), 2)
    (bench.folder / "file").write_text("")
    ended = bench.run("--json", XDG_DATA_HOME=str(bench.folder / "file"))
    assert ended.code == 0
    assert "cannot be" in ended.err
    assert len(bench.results()) == 2


def test_a_quiet_run_does_not_speak_of_its_profile(bench, serve):
    """What cron mails is what stopped a run."""
    bench.job(serve(refusing("json_schema")), 2)
    assert bench.run("-q").err == ""
    assert bench.again("-q").err == ""


def test_profiles_can_be_left_out(bench, serve):
    server = serve(refusing("json_schema"))
    bench.job(server, 2, endpoint='profile = "off"')
    bench.know(Fact("json_schema", None, Verdict.REJECTED))
    before = bench.path.read_bytes()
    assert bench.run().code == 0
    assert rung(server.calls[0]) == "json_schema"
    assert bench.path.read_bytes() == before


def test_a_profile_holds_neither_key_nor_prompts_nor_answers(bench, serve):
    def script(call: Call) -> list[Action]:
        if rung(call) == "json_schema":
            return [http(400, {"error": {"message": f"response_format: no, {KEY}, {call.prompt}"}})]
        return [ok(GOOD)]

    server = serve(script)
    bench.job(server, [{"id": "a", "prompt": "一个秘密的问题"}], params='user = "zhang-of-the-team"')
    assert bench.run(OPENAI_API_KEY=KEY).code == 0
    text = bench.path.read_text()
    assert KEY not in text
    assert "秘密" not in text
    assert "zhang" not in text
    assert GOOD not in text
    assert bench.path.stat().st_mode & 0o777 == 0o600


def test_profiles_of_other_models_and_addresses_are_others(tmp_path):
    variables = {"XDG_DATA_HOME": str(tmp_path)}
    urls = ["http://a/v1", "http://a/v2", "http://b/v1", "https://a/v1", "http://a:81/v1"]
    paths = {profile_path(url, model, variables) for url in urls for model in ("m", "M", "m/1", "m_1", "../m", "模型")}
    assert len(paths) == len(urls) * 6
    assert all(path.parent == tmp_path / "batchrun/profiles" for path in paths)
    assert profile_path("http://A/v1/", "m", variables) == profile_path("http://a/v1", "m", variables)


def test_a_data_home_that_is_no_absolute_path_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = profile_path("http://a/v1", "m", {"XDG_DATA_HOME": "relative"})
    assert path.is_relative_to(tmp_path / ".local/share/batchrun/profiles")
