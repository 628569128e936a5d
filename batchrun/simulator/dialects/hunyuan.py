"""Hunyuan: OpenAI's shapes; its own table of errors is not known."""

from __future__ import annotations

from batchrun.simulator.dialects import openai
from batchrun.simulator.dialects.base import Dialect
from batchrun.simulator.dialects.rules import Rules, by_flag
from batchrun.simulator.dialects.shapes import Shape

HUNYUAN = Dialect(
    name="hunyuan",
    base_path="/v1",
    errors=openai.ERRORS,
    error=openai.error,
    shape=Shape(),
    rules=Rules(switches=(by_flag,)),
)
