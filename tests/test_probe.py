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
from conftest import KEY, environment
from scripted import Act, completion, http, ok

from batchrun.endpoint.client import Client
from batchrun.endpoint.dialect_files import load
from batchrun.endpoint.profile import load_profile, profile_path
from batchrun.endpoint.target import Target
from batchrun.job import Endpoint, Job, Retry
from batchrun.measure import probe
from batchrun.probe import MAX_CALLS, ROWS, Measured, Probe, ProbeError, most_tokens
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
            one = Probe(client, target.dialect, server.base_url, "m-1", max_tokens=max_tokens, rng=random.Random(1))
            one._retries._settings = times
            return await one.measure()

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
    assert f"{most_tokens(100):,} tokens at most" in told.out
    assert batchrun("probe", "--base-url", "https://api.example.com/v1", "-m", "m", "--dry-run").code == 0
    value = batchrun("probe", "--base-url", server.base_url, "-m", "m", "--dry-run", "--json").json()
    assert sum(value["calls"].values()) <= value["max_calls"] == MAX_CALLS


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
    (["missing.toml"], "does not exist"),
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
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
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
