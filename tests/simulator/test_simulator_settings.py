from __future__ import annotations

from pathlib import Path

import pytest

from batchrun.simulator import DIALECTS, FAULTS, SettingsError, Simulator, SimulatorSettings
from batchrun.simulator.effects import EFFECTS
from batchrun.simulator.faults import SCOPES, Scope


def test_defaults_work_and_are_frozen() -> None:
    settings = SimulatorSettings()
    assert settings.dialect == "openai"
    assert "openai" in DIALECTS
    with pytest.raises(AttributeError):
        settings.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"faults": {"htp_500": 0.1}}, ["faults.htp_500", "0.1", "did you mean 'http_500'?"]),
        ({"faults": {"reset": 1.5}}, ["faults.reset", "1.5", "0 to 1"]),
        ({"faults": {"reset": True}}, ["faults.reset", "True"]),
        ({"faults": {"reset": 0.6, "hang": 0.6}}, ["transient", "1.2"]),
        ({"faults": ["reset"]}, ["faults", "table"]),
        ({"dialect": "opnai"}, ["dialect", "did you mean 'openai'?"]),
        ({"dialect": 3}, ["dialect", "3"]),
        ({"latency_s": -1}, ["latency_s", "-1", "0 or more"]),
        ({"jitter_s": float("nan")}, ["jitter_s", "nan"]),
        ({"requests_per_minute": 0}, ["requests_per_minute", "0", "1 or more"]),
        ({"tokens_per_minute": 1.5}, ["tokens_per_minute", "1.5"]),
        ({"max_concurrency": True}, ["max_concurrency", "True"]),
        ({"seed": "x"}, ["seed", "'x'", "whole number"]),
        ({"ledger": "somewhere"}, ["ledger", "path"]),
    ],
)
def test_bad_values_are_named(values: dict[str, object], words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        SimulatorSettings(**values)  # type: ignore[arg-type]
    for word in words:
        assert word in str(caught.value)


def test_a_bad_key_is_not_told() -> None:
    with pytest.raises(SettingsError) as caught:
        SimulatorSettings(api_key="geheim\n")
    assert "geheim" not in str(caught.value)
    assert "sk-secret" not in repr(SimulatorSettings(api_key="sk-secret"))


def test_from_mapping_reads_a_table() -> None:
    settings = SimulatorSettings.from_mapping({"seed": 3, "ledger": "a/b.jsonl", "faults": {"reset": 0.5}})
    assert settings.ledger == Path("a/b.jsonl")
    with pytest.raises(SettingsError, match="did you mean 'latency_s'"):
        SimulatorSettings.from_mapping({"latency": 1})


def test_rates_may_add_up_to_one_per_scope() -> None:
    names = ["http_500", "http_502", "http_503", "length", "bad_request", "forbidden"]
    rates = dict.fromkeys(names, 1 / 3)
    assert SimulatorSettings(faults=rates).faults == rates


def test_settings_do_not_follow_the_callers_mapping() -> None:
    rates = {"reset": 0.5}
    settings = SimulatorSettings(faults=rates)
    rates["reset"] = 2.0
    assert settings.faults == {"reset": 0.5}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.com", "", "169.254.169.254"])
def test_only_loopback_is_served(host: str) -> None:
    with pytest.raises(SettingsError, match="loopback"):
        Simulator(SimulatorSettings(), host=host)


@pytest.mark.parametrize("port", [-1, 65_536, "80", True])
def test_bad_ports(port: int) -> None:
    with pytest.raises(SettingsError, match="port"):
        Simulator(SimulatorSettings(), port=port)


def test_every_fault_has_an_effect_a_scope_and_a_description() -> None:
    assert list(FAULTS) == list(EFFECTS)
    assert set(SCOPES.values()) == set(Scope)
    assert all(description and "\n" not in description for description in FAULTS.values())
