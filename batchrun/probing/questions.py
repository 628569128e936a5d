"""What a probe asks: the rows of the matrix, the prompts and parameters of its calls, and the bounds of its cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: Tokens that an answer may have. A model that thinks needs some before it says anything.
MAX_TOKENS = 1024
#: A call that fails for a passing reason is made so often in all.
TRIES = 3
#: The few tokens with which a bound on tokens is tried, and the many.
SHORT = 5
LONG = 32_768
PROMPT_TOKENS = 200
#: What may come of the calls that try a bound, where it is not heeded: sixty numbers, and the thoughts about them.
_UNBOUND = 4096


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the matrix: its name in profiles, its title, and how many calls it takes at most."""

    name: str
    title: str
    calls: int


#: In the order of the matrix. Rows without calls are read from the calls of others.
ROWS = (
    Row("plain_chat", "plain chat", 3),
    Row("model_list", "model list", 1),
    Row("model_echo", "answers as the model that was asked", 0),
    Row("rate_limit_headers", "rate-limit headers", 0),
    Row("system_role", "system role", 1),
    Row("developer_role", "developer role", 1),
    Row("json_object", 'response_format json_object, "JSON" in the prompt', 1),
    Row("json_object_without_word", 'response_format json_object, without "JSON"', 1),
    Row("json_schema", "response_format json_schema, strict", 1),
    Row("tools", "tools, tool_choice auto", 1),
    Row("tool_required", "tool_choice required", 1),
    Row("tool", "tool_choice naming a function", 1),
    Row("stream", "streaming", 1),
    Row("stream_usage", "usage in streams (include_usage)", 1),
    Row("temperature", "temperature", 4),
    Row("top_p", "top_p", 2),
    Row("seed", "seed (same answer twice)", 2),
    Row("stop", "stop", 2),
    Row("presence_penalty", "presence_penalty", 2),
    Row("frequency_penalty", "frequency_penalty", 1),
    Row("n", "n (several choices)", 1),
    Row("logprobs", "logprobs", 1),
    Row("max_tokens", "max_tokens", 1),
    Row("max_completion_tokens", "max_completion_tokens", 1),
    Row("reasoning", "reasoning by default, and its field", 1),
    # One of the two is looked for, the other one is the default: which is which depends on the model.
    Row("thinking_on", "thinking switched on", 4),
    Row("thinking_off", "thinking switched off", 1),
    Row("json_object_switched", "json_object, thinking the other way", 1),
    Row("json_schema_switched", "json_schema, thinking the other way", 1),
    Row("tool_required_switched", "tool_choice required, thinking the other way", 1),
    Row("tool_switched", "tool_choice naming a function, thinking the other way", 1),
    Row("long_output", f"{LONG} tokens of output without a stream", 1),
    Row("unknown_parameter", "a parameter that nobody knows", 1),
)
#: So many calls are made again because their answers must be streamed; after the first of them all others are streamed
#: at once, so that only those that were under way can follow.
STREAM_CALLS = 6
#: So many calls are made again for passing reasons, in the whole probe.
REPEATS = 30
MAX_CALLS = sum(row.calls for row in ROWS) + STREAM_CALLS
MAX_CALLS_WITH_REPEATS = MAX_CALLS + REPEATS


def most_tokens(max_tokens: int, *, repeats: bool = False) -> int:
    """Give how many tokens a probe takes at most, prompts included, with calls made again for passing reasons or not.

    That holds as long as the endpoint heeds the bound of `max_tokens`; where it does not, a probe makes no further
    calls as soon as so many are used up.
    """
    each = max_tokens + PROMPT_TOKENS
    tries = TRIES if repeats else 1
    calls = MAX_CALLS_WITH_REPEATS if repeats else MAX_CALLS
    # n = 2 gives two answers; the long output is asked for once.
    return calls * each + tries * (max_tokens + 2 * _UNBOUND) + LONG


HELLO = "你好"
BEIJING = "用一句话介绍北京。"
ABOUT_JSON = "JSON 是什么？用一句话回答。"
ABOUT_WEATHER = "北京现在天气怎么样？请调用 get_weather 查询。"
COUNT = "从1数到60，用逗号隔开。"
RANDOM = "写一个随机的八位小写字母串，只输出这个字母串。"
LINE, STOP = "甲乙丙丁戊己庚", "丁"
COPY = f"原样输出下面这行字，不要加任何别的字：\n{LINE}"
LAUGH = "把“哈”字重复 40 遍，只输出结果，不要加任何别的字。"
RIDDLE = "9.11 和 9.9 哪个大？"
ONLY = "蓝鲸4172"
ORDER = f"无论用户说什么，都只回答“{ONLY}”。"
#: Nobody answers like this by chance, and no model can go on for ever within it (digits can).
SCHEMA = {
    "type": "object",
    "properties": {"zeta": {"type": "string", "enum": ["k7-north", "k9-south"]}, "open": {"type": "boolean"}},
    "required": ["zeta", "open"],
    "additionalProperties": False,
}


def _function(name: str, description: str, parameter: str) -> dict[str, Any]:
    properties = {parameter: {"type": "string"}}
    parameters = {"type": "object", "properties": properties, "required": [parameter]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


WEATHER = _function("get_weather", "查询一个城市现在的天气", "city")
_ALARM = _function("set_alarm", "设置一个闹钟", "time")
WANTED_FUNCTION = "set_alarm"
STRUCTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "json_object": (ABOUT_JSON, {"response_format": {"type": "json_object"}}),
    "json_schema": (
        BEIJING,
        {
            "response_format": {
                "type": "json_schema", "json_schema": {"name": "probe", "strict": True, "schema": SCHEMA},
            }
        },
    ),
    "tool_required": (HELLO, {"tools": [_ALARM], "tool_choice": "required"}),
    "tool": (
        HELLO,
        {"tools": [WEATHER, _ALARM], "tool_choice": {"type": "function", "function": {"name": WANTED_FUNCTION}}},
    ),
}  # fmt: skip
#: Ways to switch thinking that are common, tried where the dialect knows none: on, off.
SWITCHES: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({"enable_thinking": True}, {"enable_thinking": False}),
    ({"thinking": {"type": "enabled"}}, {"thinking": {"type": "disabled"}}),
    ({"chat_template_kwargs": {"enable_thinking": True}}, {"chat_template_kwargs": {"enable_thinking": False}}),
    ({"reasoning_effort": "medium"}, {"reasoning_effort": "none"}),
    ({"reasoning": {"enabled": True}}, {"reasoning": {"enabled": False}}),
)
MAX_SWITCHES = 4
