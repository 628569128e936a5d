"""The provider families that can be simulated: one module each."""

from __future__ import annotations

from collections.abc import Mapping

from batchrun.simulator.dialects.base import COMMON_FACTS, Dialect, ErrorRow, Facts
from batchrun.simulator.dialects.dashscope import DASHSCOPE
from batchrun.simulator.dialects.deepseek import DEEPSEEK
from batchrun.simulator.dialects.hunyuan import HUNYUAN
from batchrun.simulator.dialects.llamacpp import LLAMACPP
from batchrun.simulator.dialects.minimax import MINIMAX
from batchrun.simulator.dialects.moonshot import MOONSHOT
from batchrun.simulator.dialects.ollama import OLLAMA
from batchrun.simulator.dialects.oneapi import ONEAPI
from batchrun.simulator.dialects.openai import OPENAI
from batchrun.simulator.dialects.openrouter import OPENROUTER
from batchrun.simulator.dialects.qianfan import QIANFAN
from batchrun.simulator.dialects.rules import Rules
from batchrun.simulator.dialects.sglang import SGLANG
from batchrun.simulator.dialects.shapes import Body
from batchrun.simulator.dialects.siliconflow import SILICONFLOW
from batchrun.simulator.dialects.stepfun import STEPFUN
from batchrun.simulator.dialects.vllm import VLLM
from batchrun.simulator.dialects.volcengine import VOLCENGINE
from batchrun.simulator.dialects.zhipu import ZHIPU

#: Every dialect by name.
DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        OPENAI,
        DEEPSEEK,
        DASHSCOPE,
        MOONSHOT,
        ZHIPU,
        MINIMAX,
        VOLCENGINE,
        SILICONFLOW,
        STEPFUN,
        QIANFAN,
        HUNYUAN,
        OPENROUTER,
        ONEAPI,
        VLLM,
        SGLANG,
        LLAMACPP,
        OLLAMA,
    )
}

__all__ = ["COMMON_FACTS", "DIALECTS", "Body", "Dialect", "ErrorRow", "Facts", "Rules"]
