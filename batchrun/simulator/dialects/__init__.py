"""The provider families that can be simulated: one module each."""

from __future__ import annotations

from collections.abc import Mapping

from batchrun.simulator.dialects.base import Body, Dialect, ErrorRow, Problem
from batchrun.simulator.dialects.openai import OPENAI

#: Every dialect by name.
DIALECTS: Mapping[str, Dialect] = {dialect.name: dialect for dialect in (OPENAI,)}

__all__ = ["DIALECTS", "Body", "Dialect", "ErrorRow", "Problem"]
