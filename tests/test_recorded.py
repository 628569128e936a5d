"""Recorded answers of every provider family, each to its kind: the data are in `dialects/`, with their sources."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from conftest import records

from batchrun.endpoint.answers import understand
from batchrun.endpoint.dialect_files import load, names, unknown
from batchrun.job import Price
from batchrun.records import EndpointError, Response
from batchrun.summary import cost_of

FOLDER = Path(__file__).parent / "dialects"
KEYS = {
    "row", "signal", "status", "headers", "body", "stream", "kind", "cause", "wait_s", "code", "source", "date",
    "trust",
}  # fmt: skip
RECORDED = [
    pytest.param(path.stem, one, id=f"{path.stem}:{number}:{one['signal']}")
    for path in sorted(FOLDER.glob("*.jsonl"))
    for number, one in enumerate(records(path), 1)
]
TABLES: dict[str, dict[str, list[str]]] = json.loads((FOLDER / "tables.json").read_text("utf-8"))


def outcome(family: str, one: dict[str, Any]) -> Response | EndpointError:
    dialect = unknown() if family == "generic" else load(family)
    try:
        return understand(one["status"], one["headers"], one["body"].encode(), dialect)
    except EndpointError as error:
        return error


@pytest.mark.parametrize(("family", "one"), RECORDED)
def test_a_recorded_answer_is_what_it_is(family: str, one: dict[str, Any]) -> None:
    assert set(one) >= KEYS
    found = outcome(family, one)
    if one["kind"] is not None:
        assert isinstance(found, EndpointError), found
        assert found.kind == one["kind"], found.message
        assert found.cause == one["cause"]
        if one["wait_s"] is not None:
            assert found.retry_after_s == one["wait_s"]
        if one["code"] is not None:
            assert found.code == one["code"]
        return
    assert isinstance(found, Response), found
    expected = one["expect"]
    assert {name: getattr(found, name) for name in ("text", "reasoning", "finish_reason", "model")} == {
        name: expected[name] for name in ("text", "reasoning", "finish_reason", "model")
    }
    assert list(found.warnings) == expected["warnings"]
    if expected["usage"] is None:
        assert found.usage is None
    else:
        assert found.usage is not None
        assert {name: getattr(found.usage, name) for name in expected["usage"]} == expected["usage"]


PRICE = Price(input=1_000_000.0, cached_input=0.0, output=1_000_000.0)


@pytest.mark.parametrize(("family", "one"), [one for one in RECORDED if '"usage"' in str(one.values[1]["body"])])  # type: ignore[index]
def test_every_token_of_a_recorded_answer_is_paid_for_once(family: str, one: dict[str, Any]) -> None:
    usage = outcome(family, one).usage
    if usage is not None:
        assert usage.prompt_tokens + usage.completion_tokens == usage.total_tokens
        assert cost_of(usage, PRICE) == usage.total_tokens - usage.cached_tokens


def test_every_signal_of_the_decision_tables_is_recorded() -> None:
    recorded = defaultdict(set)
    for parameters in RECORDED:
        one: Any = parameters.values[1]
        recorded[one["row"]].add(one["signal"])
    for table, providers in TABLES.items():
        for provider, signals in providers.items():
            assert signals
            assert set(signals) <= recorded[f"{table}:{provider}"], (table, provider)


def test_every_family_is_recorded() -> None:
    assert {path.stem for path in FOLDER.glob("*.jsonl")} == set(names())
