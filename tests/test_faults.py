from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import records, write_lines

ITEMS = 2000
#: Faults that pass, with their rates; the slowest ones are rare, for they take their time.
TRANSIENT = {
    "http_500": 0.01, "http_502": 0.01, "http_503": 0.01, "http_408": 0.005, "http_409": 0.005, "http_425": 0.005,
    "http_429": 0.0005, "http_429_date": 0.0005, "retry_after_garbage": 0.01, "reset": 0.01, "reset_mid_body": 0.01,
    "truncated": 0.01, "hang": 0.002, "empty_200": 0.01, "blank_lines_200": 0.01, "blank_lines_then_json": 0.002,
    "choices_null": 0.01, "choices_empty": 0.01, "bad_json": 0.01, "error_in_200": 0.01, "html_502": 0.01,
    "octet_stream_500": 0.005, "whitespace_content": 0.005, "wrong_content_type": 0.01, "pretty_json": 0.01,
    "fenced_json": 0.01,
}  # fmt: skip
#: Faults that stay, and the kind of the failure that each must become.
PERMANENT = {
    "content_filter_400": "content_filter", "content_filter_finish": "content_filter",
    "context_length": "context_length", "length": "truncated", "empty_content": "empty_output",
    "bad_request": "bad_request", "invalid_json_output": "invalid_output", "missing_field": "invalid_output",
}  # fmt: skip

JOB = """
input = "in.jsonl"
output = "out"
[prompt]
user = "请评价：{{ text }}"
[endpoint]
model = "m-1"
base_url = "%s"
[structured]
schema = "schema.json"
mode = "json_object"
[limits]
concurrency = 64
[retry]
wait_initial = "50ms"
wait_max = "200ms"
attempt_timeout = "2s"
"""
SCHEMA = {
    "type": "object",
    "properties": {"情感": {"enum": ["正面", "负面"]}, "理由": {"type": "string"}},
    "required": ["情感", "理由"],
    "additionalProperties": False,
}


def test_every_item_of_a_troubled_run_ends_exactly_once(
    tmp_path: Path, simulator: Callable[..., str], batchrun: Callable[..., Any]
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    rates = {**TRANSIENT, **dict.fromkeys(PERMANENT, 0.005)}
    faults = [part for name, rate in rates.items() for part in ("--fault", f"{name}={rate}")]
    base_url = simulator("--seed", 7, "--ledger", ledger, *faults)
    names = [f"item-{number}" for number in range(ITEMS)]
    write_lines(tmp_path / "in.jsonl", *({"id": name, "text": f"第 {name} 条评论"} for name in names))
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "job.toml").write_text(JOB % base_url)

    ended = batchrun("run", "job.toml", "--json")
    assert ended.code == 3, ended.err
    results, failures = (records(tmp_path / "out" / f"{name}.jsonl") for name in ("results", "failures"))
    assert sorted(record["id"] for record in [*results, *failures]) == sorted(names)
    for record in results:
        assert set(record["output"]) == {"情感", "理由"}
        assert record["provider"]["status"] == 200

    summary = ended.json()
    counts = summary["counts"]
    assert (counts["items"], counts["results"], counts["failures"], counts["pending"]) == (
        ITEMS, len(results), len(failures), 0,
    )  # fmt: skip
    assert counts["failures_by_kind"] == Counter(record["error"]["kind"] for record in failures)

    # Against what the provider says that it did.
    calls = records(ledger)
    met = {(call["key"], call["fault"]) for call in calls if call["fault"] in PERMANENT}
    expected = Counter(PERMANENT[fault] for _, fault in met)
    kinds = Counter(record["error"]["kind"] for record in failures)
    # An invalid output can be a good one after the re-ask, which is another prompt to the provider.
    for kind in set(PERMANENT.values()) - {"invalid_output"}:
        assert kinds[kind] >= 1
        assert abs(kinds[kind] - expected[kind]) <= expected["invalid_output"] // 4
    assert set(kinds) <= set(PERMANENT.values())
    # Calls that were reset or hung are not in the ledger, for they were not answered.
    failed = summary["requests"]["failed_attempts_by_kind"]
    assert 0 <= summary["requests"]["attempts"] - len(calls) <= failed["timeout"] + failed["network"]
    seen = {call["fault"] for call in calls if call["fault"]}
    assert set(rates) - seen <= {"reset", "hang", "http_429", "http_429_date"}

    again = batchrun("run", "job.toml", "--json")
    assert (again.code, again.json()["requests"]["attempts"]) == (3, 0)
