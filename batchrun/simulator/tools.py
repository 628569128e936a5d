"""Whether what a user says asks for one of the tools: by its name, or by what it is there for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

#: What a text says stands at its beginning.
_ASKED_CHARACTERS = 2_000
_ASKS = re.compile(
    r"调用|(?:使用|用|借助)[^。\n]{0,12}(?:工具|函数)|\b(?:call|use|invoke)\b[^.\n]{0,30}\b(?:tool|function)",
    re.IGNORECASE,
)
_NEVER = re.compile(
    r"(?:不要|别|不得|无需|不用|不能|禁止)[^。\n]{0,6}(?:调用|使用|用)"
    r"|\b(?:do not|don't|without|never)\b[^.\n]{0,20}\b(?:call|us|invok|tool)",
    re.IGNORECASE,
)
_PARTS = re.compile(r"[A-Za-z][a-z]+|[A-Z]+|[a-z]+")
_IDEOGRAPHS = re.compile("[\u4e00-\u9fff]+")
_WORDS = re.compile(r"[a-z]{4,}")
#: Words of many descriptions, which say nothing about what a tool is there for.
_COMMON_PAIRS = frozenset({
    "查询", "获取", "得到", "返回", "指定", "给定", "一个", "根据", "进行", "使用", "用于", "当前", "信息", "数据",
    "结果", "工具", "函数", "调用", "用户", "内容", "文本", "处理", "执行", "输入", "输出", "中的", "可以",
})  # fmt: skip
_COMMON_WORDS = frozenset({
    "query", "fetch", "find", "from", "given", "return", "returns", "with", "this", "that", "tool", "tools",
    "function", "call", "calls", "user", "users", "current", "data", "information", "info", "result", "results",
    "text", "value", "values", "string", "name", "names", "make", "list", "show", "tell", "about", "into", "what",
    "when", "which", "first", "last", "some", "test", "input", "output", "execute", "specified",
})  # fmt: skip


def fitting(functions: Sequence[dict[str, Any]], text: str) -> dict[str, Any] | None:
    """Give the function that a text asks for, None where it asks for none."""
    text = text[:_ASKED_CHARACTERS]
    if _NEVER.search(text):
        return None
    named = next((one for one in functions if _names(one["name"], text)), None)
    if named is not None:
        return named
    small = text.lower()
    meant = next((one for one in functions if _is_about(one, small)), None)
    return functions[0] if meant is None and _ASKS.search(text) else meant


def _names(name: str, text: str) -> bool:
    # A name that is an everyday word names nothing.
    if name.isalpha() and name.islower():
        return False
    return re.search(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])", text) is not None


def _is_about(function: dict[str, Any], text: str) -> bool:
    described = function.get("description")
    said = described.lower() if isinstance(described, str) else ""
    parts = {part.lower() for part in _PARTS.findall(function["name"])}
    words = {word for word in {*parts, *_WORDS.findall(said)} if len(word) > 3} - _COMMON_WORDS
    if words & set(_WORDS.findall(text)):
        return True
    return any(
        pair in text
        for run in _IDEOGRAPHS.findall(said)
        for pair in (run[at : at + 2] for at in range(len(run) - 1))
        if pair not in _COMMON_PAIRS
    )
