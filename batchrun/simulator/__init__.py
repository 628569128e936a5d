"""A simulated OpenAI-compatible provider on loopback, for rehearsal and tests."""

from __future__ import annotations

from batchrun.simulator.dialects import DIALECTS
from batchrun.simulator.faults import FAULTS
from batchrun.simulator.server import Simulator
from batchrun.simulator.settings import SettingsError, SimulatorSettings

__all__ = ["DIALECTS", "FAULTS", "SettingsError", "Simulator", "SimulatorSettings"]
