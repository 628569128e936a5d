"""The data boundary in a run: what is found does not leave, and who stated what about the data is kept."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import KEY, Ended, records, write_lines
from scripted import Call, Scripted, always, completion, http, ok

MOBILE, WIDE, EMAIL = "13800138000", "１３８ ００１３-８０００", "zhang.san@example.com.cn"
ITEMS = [
    {"id": "clean", "text": "物流很快，包装完好，订单号 13912345678"},
    {"id": "wide", "text": f"请打电话{WIDE}给我"},
    {"id": "two", "text": f"写信到{EMAIL}", "more": {"contact": MOBILE}},
]
JOB = """
input = "in.jsonl"
output = "out"
[endpoint]
base_url = "URL"
model = "m-1"
stream = false
[prompt]
user = "{{ text }} {{ more.contact if more is defined else '' }}"
[retry]
wait_initial = "10ms"
[data_boundary]
"""


class Bench:
    def __init__(self, folder: Path, batchrun: Callable[..., Ended], server: Scripted) -> None:
        self.folder, self.out, self.command, self.server = folder, folder / "out", batchrun, server

    def run(self, boundary: str, *flags: str, items: list[Any] = ITEMS, job: str = JOB) -> Ended:
        write_lines(self.folder / "in.jsonl", *items)
        (self.folder / "job.toml").write_text(job.replace("URL", self.server.base_url) + boundary)
        return self.command("run", self.folder / "job.toml", *flags, OPENAI_API_KEY=KEY)

    @property
    def sent(self) -> str:
        return "\n".join(call.raw.decode() for call in self.server.calls)

    def results(self) -> dict[str, Any]:
        return {one["id"]: one for one in records(self.out / "results.jsonl")}

    def failures(self) -> dict[str, Any]:
        return {one["id"]: one for one in records(self.out / "failures.jsonl")}


@pytest.fixture
def bench(tmp_path: Path, batchrun: Callable[..., Ended], serve: Callable[..., Scripted]) -> Bench:
    return Bench(tmp_path, batchrun, serve(lambda call: [ok(f"回答：{call.prompt}")]))


def test_what_is_found_is_not_sent_and_its_failure_names_detector_and_field(bench: Bench) -> None:
    ended = bench.run("")
    assert ended.code == 3
    assert set(bench.results()) == {"clean"}
    failures = bench.failures()
    messages = {key: one["error"]["message"] for key, one in failures.items()}
    assert {one["error"]["kind"] for one in failures.values()} == {"data_boundary"}
    assert "line 2: holds what must not leave: mobile in text" in messages["wide"]
    assert "email in text, mobile in more.contact" in messages["two"]
    assert len(bench.server.calls) == 1
    for value in (MOBILE, "８０００", EMAIL):
        assert value not in bench.sent
        assert value not in ended.err + ended.out
        assert all(value not in message for message in messages.values())
    assert failures["wide"]["input"] == ITEMS[1]
    assert "x-simulated" not in bench.sent


def test_warn_sends_it_and_says_so(bench: Bench) -> None:
    ended = bench.run('scan = "warn"')
    assert ended.code == 0
    warnings = {key: one["warnings"] for key, one in bench.results().items()}
    assert warnings == {
        "clean": [],
        "wide": ["data_boundary:mobile"],
        "two": ["data_boundary:email", "data_boundary:mobile"],
    }
    assert "data_boundary:mobile (2 items)" in ended.err
    assert EMAIL in bench.sent


def test_off_looks_at_nothing(bench: Bench) -> None:
    assert bench.run('scan = "off"').code == 0
    assert {one["warnings"] == [] for one in bench.results().values()} == {True}


def test_redact_sends_placeholders_and_leaves_them_in_the_output(bench: Bench) -> None:
    assert bench.run('scan = "redact"').code == 0
    for value in (MOBILE, "８０００", EMAIL):
        assert value not in bench.sent
    results = bench.results()
    assert results["wide"]["output"].strip() == "回答：请打电话[[MOBILE_1]]给我"
    assert results["two"]["output"] == "回答：写信到[[EMAIL_1]] [[MOBILE_1]]"
    assert results["wide"]["warnings"] == ["data_boundary:redacted"]
    assert results["clean"]["warnings"] == []
    calls = len(bench.server.calls)
    assert bench.run('scan = "redact"').code == 0
    assert len(bench.server.calls) == calls
    assert bench.command("verify", bench.folder / "job.toml").code == 0


def test_redact_restores_outputs_where_it_is_wanted_and_the_answer_stays_as_it_came(bench: Bench) -> None:
    assert bench.run('scan = "redact"\nrestore = true').code == 0
    wide = bench.results()["wide"]
    assert wide["output"].strip() == f"回答：请打电话{WIDE}给我"
    assert wide["warnings"] == ["data_boundary:redacted", "data_boundary:restored"]
    assert "[[MOBILE_1]]" in wide["provider"]["body"]["choices"][0]["message"]["content"]
    assert "８０００" not in json.dumps(wide["provider"], ensure_ascii=False)
    ended = bench.command("reparse", bench.folder / "job.toml")
    assert ended.code == 2
    assert "data_boundary.restore" in ended.err


def test_a_schema_is_for_the_restored_values_and_a_reask_repeats_none(
    serve: Callable[..., Scripted], tmp_path: Path, batchrun: Callable[..., Ended]
) -> None:
    def answer(call: Call) -> list[Any]:
        number = "[[MOBILE_1]]" if "不能使用" in call.raw.decode() else "[[MOBILE_1]]0"
        return [http(200, completion(json.dumps({"电话": number}, ensure_ascii=False)))]

    server = serve(answer)
    schema = {"type": "object", "properties": {"电话": {"type": "string", "pattern": "^1[0-9]{10}$"}}}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    bench = Bench(tmp_path, batchrun, server)
    boundary = 'scan = "redact"\nrestore = true\n[structured]\nschema = "schema.json"\nmode = "prompt"\nreask = 1'
    assert bench.run(boundary, items=[{"id": "a", "text": f"电话 {MOBILE}"}]).code == 0
    assert bench.results()["a"]["output"] == {"电话": MOBILE}
    assert len(server.calls) == 2
    assert MOBILE not in bench.sent


@pytest.mark.parametrize(
    ("boundary", "failing"),
    [
        ('skip = ["more"]', {"wide": "mobile in text", "two": "email in text"}),
        ('skip = ["text", "more.contact"]', {}),
        ('include = ["more"]', {"wide": "mobile in text", "two": "mobile in more.contact"}),
        ('include = ["Text"]', {"wide": "mobile in text", "two": "email in text"}),
        ('detectors = ["email"]', {"two": "email in text"}),
        ('detectors = []\nwords = ["包装"]', {"clean": "word in text"}),
        ("detectors = []\npatterns = { call = '请打电话' }", {"wide": "call in text"}),
        ('detectors = []\nwords_file = "words.txt"', {"clean": "word in text", "two": "word in text"}),
    ],
)
def test_the_job_says_what_is_looked_for_and_where(boundary: str, failing: dict[str, str], bench: Bench) -> None:
    (bench.folder / "words.txt").write_text("包装\n\n 写信\n", encoding="utf-8")
    assert bench.run(boundary).code == (3 if failing else 0)
    failures = bench.failures() if failing else {}
    assert set(failures) == set(failing)
    for key, words in failing.items():
        assert words in failures[key]["error"]["message"]


@pytest.mark.parametrize(
    ("boundary", "words"),
    [
        ('detectors = ["phone"]', "data_boundary.detectors: there is no 'phone'; there are private_key"),
        ("patterns = { case = '(' }", "data_boundary.patterns.case: "),
        ('words_file = "none.txt"', "data_boundary.words_file: "),
        ("restore = true", 'data_boundary.restore needs data_boundary.scan = "redact"'),
        ("words = [1]", "data_boundary.words: expected a list of texts that are not empty"),
        ("patterns = ['x']", "data_boundary.patterns: expected a table of names and texts"),
    ],
)
def test_what_cannot_be_looked_for_is_refused_before_anything_is_sent(boundary: str, words: str, bench: Bench) -> None:
    ended = bench.run(boundary)
    assert ended.code == 2
    assert words in ended.err
    assert not bench.server.calls


def test_what_stands_in_the_job_s_own_prompt_stops_the_run(bench: Bench) -> None:
    ended = bench.run("", job=JOB.replace('user = "', f'user = "问 {MOBILE}：'))
    assert ended.code == 2
    assert "prompt.user holds what must not leave with every request: mobile" in ended.err
    assert MOBILE not in ended.err
    assert not bench.server.calls


def test_all_of_a_request_is_looked_at(bench: Bench) -> None:
    job = JOB.replace("[prompt]\nuser = \"{{ text }} {{ more.contact if more is defined else '' }}\"\n", "")
    message = {"role": "user", "content": "你好"}
    parts = [
        {"type": "text", "text": "看"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,MTM4MDA="}},
    ]
    arguments = {"function": {"name": "f", "arguments": json.dumps({"to": EMAIL})}}
    bodies: dict[str, dict[str, Any]] = {
        "clean": {"messages": [{"role": "user", "content": parts}], "seed": 1},
        "message": {"messages": [message, {"role": "user", "content": f"我是 {MOBILE}"}]},
        "part": {"messages": [{"role": "user", "content": [{"type": "text", "text": MOBILE}]}]},
        "call": {"messages": [message, {"role": "assistant", "content": "", "tool_calls": [arguments]}]},
        "tool": {
            "messages": [message],
            "tools": [{"type": "function", "function": {"name": "g", "description": EMAIL}}],
        },
        "key": {"messages": [message], "metadata": {MOBILE: "x"}},
        "number": {"messages": [message], "seed": int(MOBILE)},
        "user": {"messages": [message], "user": EMAIL},
    }
    lines = [
        {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}
        for key, body in bodies.items()
    ]
    bench.run("", items=lines, job=job)
    assert set(bench.failures()) == set(bodies) - {"clean"}
    assert "email in body.messages[1].tool_calls[0].function.arguments" in bench.failures()["call"]["error"]["message"]
    assert "mobile in body.metadata.<mobile>" in bench.failures()["key"]["error"]["message"]
    assert MOBILE not in bench.sent
    assert EMAIL not in bench.sent


def test_a_dry_run_scans_the_whole_file_and_counts_by_detector(bench: Bench) -> None:
    items = [{"id": f"r-{number}", "text": ITEMS[number % 3]["text"]} for number in range(3000)]
    ended = bench.run("", "--dry-run", "--json", items=items)
    assert ended.code == 3
    found = json.loads(ended.out)
    assert found["data_boundary"] == {"scan": "block", "items_by_detector": {"email": 1000, "mobile": 1000}}
    assert "scan      block: email in 1,000, mobile in 1,000 items" in ended.err
    assert not bench.server.calls
    assert MOBILE not in ended.out + ended.err


def test_a_dry_run_forecasts_cost_and_time_as_far_as_the_job_says(bench: Bench) -> None:
    more = """scan = "off"
[params]
max_tokens = 100
[limits]
requests_per_minute = 60
[price]
input = 2.0
output = 8.0
"""
    items = [{"id": f"r-{number}", "text": "物流很快" * 100} for number in range(600)]
    ended = bench.run(more, "--dry-run", "--json", items=items)
    forecast = json.loads(ended.out)["forecast"]
    assert (forecast["most_output_cost"], forecast["currency"], forecast["least_seconds"]) == (0.48, "CNY", 600.0)
    tokens = json.loads(ended.out)["estimated_prompt_tokens"]
    assert forecast["input_cost"] == pytest.approx(tokens * 2e-6, rel=1e-4)
    assert "for the input, at most 0.48 CNY for answers of max_tokens, at least 10m00s by the limits" in ended.err


def test_what_was_kept_back_is_sent_by_a_retry_once_the_job_allows_it(bench: Bench) -> None:
    assert bench.run("").code == 3
    (bench.folder / "job.toml").write_text(JOB.replace("URL", bench.server.base_url) + 'skip = ["text", "more"]')
    assert bench.command("retry", bench.folder / "job.toml").code == 0
    assert set(bench.results()) == {"clean", "wide", "two"}


# --- the statement ----------------------------------------------------------------------------------------------


def away(bench: Bench) -> str:
    """Give the job with an address that is no loopback by its name, and leads to the same server."""
    url = bench.server.base_url.replace("127.0.0.1", "0.0.0.0")
    return JOB.replace("URL", url).replace("[prompt]", "allow_http = true\n[prompt]")


def boundary_of(folder: Path) -> Any:
    return json.loads((folder / "run.json").read_text())["data_boundary"]


def test_the_statement_is_kept_with_who_made_it_and_when_and_shown(
    bench: Bench, serve: Callable[..., Scripted]
) -> None:
    bench.server = serve(always(ok("好")))
    job = away(bench)
    refused = bench.run("", job=job)
    assert refused.code == 2
    assert len(refused.err.strip().splitlines()) == 3
    assert not bench.server.calls
    me = pwd.getpwuid(os.getuid()).pw_name
    by_flag = bench.run("", "--confirm-non-sensitive", "--limit", "1", job=job)
    assert f"non-sensitive data, says {me} by --confirm-non-sensitive on " in by_flag.err
    ended = bench.run('classification = "non-sensitive"', job=job)
    assert f"says {me} by {bench.folder / 'job.toml'} on " in ended.err
    bench.run('classification = "non-sensitive"', job=job)
    boundary = boundary_of(bench.out)
    assert (boundary["classification"], boundary["scan"]) == ("non-sensitive", "block")
    assert [(one["by"], one["how"]) for one in boundary["statements"]] == [
        (me, "--confirm-non-sensitive"),
        (me, str(bench.folder / "job.toml")),
    ]
    for statement in boundary["statements"]:
        assert "no confidential customer data" in statement["statement"]
        assert statement["at"].endswith("Z")


def test_where_nothing_leaves_the_machine_nothing_is_stated(bench: Bench) -> None:
    ended = bench.run("")
    assert "data_boundary: the endpoint is on this machine, so nothing need be stated; scan: block" in ended.err
    assert boundary_of(bench.out)["statements"] == []


# --- what gets around a first version ---------------------------------------------------------------------------

ROW = "联系人 " + " ".join(f"138 0013 800{number}" for number in range(8))


def plain(bench: Bench, boundary: str, fields: dict[str, Any], user: str = "{{ text }}") -> Ended:
    """Run one item with a template of its own."""
    template = JOB[JOB.index("[prompt]") : JOB.index("[retry]")]
    job = JOB.replace(template, f"[prompt]\nuser = {json.dumps(user)}\n")
    return bench.run(boundary, items=[{"id": "a", **fields}], job=job)


def test_a_row_of_numbers_is_redacted_to_its_end_or_kept_back(bench: Bench) -> None:
    plain(bench, 'scan = "redact"', {"text": ROW})
    assert "0013" not in bench.sent


@pytest.mark.parametrize(
    ("fields", "boundary", "user"),
    [
        ({"text": 13800138000.0}, "", "{{ text }}"),
        ({"text": "a\\u0040qq.com"}, "", "{{ text }}"),
        ({"text": "http://x.com/?e=zhang.san%40example.com"}, "", "{{ text }}"),
        ({"text": json.dumps({"n": "张三"})}, 'words = ["张三"]', "{{ text }}"),
        ({"text": 'he said \\"hi\\" now'}, "words = ['\"hi\" now']", "{{ text }}"),
        ({"text": f"mail {EMAIL.upper()}", "note": EMAIL}, 'skip = ["note"]', "{{ text | lower }}"),
        ({"code": 123456, "note": "see 123456"}, 'skip = ["note"]\nwords = ["123456"]', "{{ code }}"),
        ({"text": "postgres://u:p@ss@host/db"}, "", "{{ text }}"),
    ],
)
def test_no_spelling_gets_around_it(fields: dict[str, Any], boundary: str, user: str, bench: Bench) -> None:
    assert plain(bench, boundary, fields, user).code == 3
    assert not bench.server.calls


@pytest.mark.parametrize("mode", ["block", "redact"])
@pytest.mark.parametrize(
    ("more", "key"),
    [
        (f'[params]\nuser = "{MOBILE}"', "params.user"),
        ('[structured]\nschema = "schema.json"', "structured.schema"),
    ],
)
def test_what_stands_in_parameters_or_the_schema_of_the_job_stops_the_run(
    mode: str, more: str, key: str, bench: Bench
) -> None:
    (bench.folder / "schema.json").write_text(json.dumps({"enum": [MOBILE, "none"]}))
    ended = bench.run(f'scan = "{mode}"\n{more}')
    assert ended.code == 2
    assert f"{key} holds what must not leave with every request: mobile" in ended.err
    assert not bench.server.calls


def test_parameters_of_a_retry_are_looked_at_too(bench: Bench) -> None:
    bench.run("")
    ended = bench.command("retry", bench.folder / "job.toml", "--set", f"user={EMAIL}", OPENAI_API_KEY=KEY)
    assert ended.code == 2
    assert "params.user holds what must not leave" in ended.err


def test_no_failure_repeats_a_value_by_the_name_of_a_field(bench: Bench) -> None:
    plain(bench, "", {f"订单号{MOBILE}": "x", "text": f"tel {MOBILE}"}, "{{ item | tojson }}")
    message = bench.failures()["a"]["error"]["message"]
    assert "mobile in text" in message
    assert MOBILE not in message


def test_text_that_is_no_placeholder_stays_as_it_is(bench: Bench) -> None:
    plain(bench, 'scan = "redact"', {"text": f"see [doc_1] and arr[idx_2], not [[MOBILE_1]]; tel {MOBILE}"})
    assert "see [doc_1] and arr[idx_2], not [[LITERAL_1]]; tel [[MOBILE_1]]" in bench.sent


def test_a_value_that_changed_is_noticed_where_outputs_hold_it(bench: Bench) -> None:
    boundary = 'scan = "redact"\nrestore = true'
    assert plain(bench, boundary, {"text": f"tel {MOBILE}"}).code == 0
    ended = plain(bench, boundary, {"text": "tel 13900139000"})
    assert ended.code == 2
    assert "the item changed: line 1" in ended.err
    assert bench.command("verify", bench.folder / "job.toml").code == 3
    assert plain(bench, 'scan = "redact"', {"text": f"tel {MOBILE}"}).code == 2


def test_reparse_leaves_restored_outputs_alone(bench: Bench) -> None:
    assert plain(bench, 'scan = "redact"\nrestore = true', {"text": f"tel {MOBILE}"}).code == 0
    text = (bench.folder / "job.toml").read_text().replace("restore = true", "restore = false")
    (bench.folder / "job.toml").write_text(text)
    bench.command("reparse", bench.folder / "job.toml")
    assert MOBILE in bench.results()["a"]["output"]


def test_the_schema_chooses_among_restored_values(
    serve: Callable[..., Scripted], tmp_path: Path, batchrun: Callable[..., Ended]
) -> None:
    said = '```json\n{"p": "[[MOBILE_1]]"}\n```\nIf there is no number: {"p": "none"}'
    bench = Bench(tmp_path, batchrun, serve(always(http(200, completion(said)))))
    schema = {"type": "object", "properties": {"p": {"type": "string", "pattern": "^(1[0-9]{10}|none)$"}}}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    boundary = 'scan = "redact"\nrestore = true\n[structured]\nschema = "schema.json"\nmode = "prompt"'
    assert bench.run(boundary, items=[{"id": "a", "text": f"tel {MOBILE}"}]).code == 0
    assert bench.results()["a"]["output"] == {"p": MOBILE}


def test_a_reask_keeps_the_placeholders_that_the_model_knows(
    serve: Callable[..., Scripted], tmp_path: Path, batchrun: Callable[..., Ended]
) -> None:
    long = json.dumps({"p": "[[MOBILE_1]] (his mobile phone)"})
    server = serve(lambda call: [http(200, completion(long if call.number == 1 else '{"p": "[[MOBILE_1]]"}'))])
    bench = Bench(tmp_path, batchrun, server)
    schema = {"type": "object", "properties": {"p": {"type": "string", "maxLength": 14}}}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    boundary = 'scan = "redact"\nrestore = true\n[structured]\nschema = "schema.json"\nmode = "prompt"\nreask = 1'
    assert bench.run(boundary, items=[{"id": "a", "text": f"tel {MOBILE}"}]).code == 0
    assert bench.results()["a"]["output"] == {"p": MOBILE}
    assert "LITERAL" not in bench.sent
    assert MOBILE not in bench.sent


def test_a_name_below_localhost_is_another_machine_s(bench: Bench) -> None:
    ended = bench.run("", job=JOB.replace("URL", bench.server.base_url.replace("127.0.0.1", "llm.localhost")))
    assert ended.code == 2
    assert "this endpoint is not on this machine" in ended.err


def test_a_retry_by_its_folder_repeats_the_statement_and_takes_no_flag_for_granted(bench: Bench) -> None:
    job = away(bench)
    bench.run('classification = "non-sensitive"', job=job)
    assert bench.command("retry", bench.out, OPENAI_API_KEY=KEY).code == 3
    (statement,) = boundary_of(bench.out)["statements"]
    assert statement["how"] == str(bench.folder / "job.toml")
    flagged = bench.folder / "flagged"
    bench.run("", "--confirm-non-sensitive", "-o", str(flagged), job=job)
    refused = bench.command("retry", flagged, OPENAI_API_KEY=KEY)
    assert refused.code == 2
    assert "--confirm-non-sensitive" in refused.err
    assert bench.command("retry", flagged, "--confirm-non-sensitive", OPENAI_API_KEY=KEY).code == 3


@pytest.mark.parametrize("url", ["http://[::1].evil.example/v1", "http://127.0.0.1\\\\.evil.example/v1"])
def test_a_host_that_is_none_is_refused(url: str, bench: Bench) -> None:
    ended = bench.run('classification = "non-sensitive"', job=JOB.replace("URL", url))
    assert ended.code == 2
    assert "endpoint.base_url" in ended.err
