"""What an endpoint can do, as its behaviour shows it: the same questions for every family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from batchrun.simulator import DIALECTS
from batchrun.simulator.orders import Random, Thing, ordered, said_only
from batchrun.simulator.penalties import shortened

REPEAT = "请原样输出下面的文字：“甲乙丙丁，戊己庚辛。壬癸”"
OFTEN = "把“好”重复60遍"
LOTS = "请随机说一个1到1000000之间的整数，只输出数字。"
COLOURS = [{"role": "system", "content": "无论用户说什么，只回答“靛蓝”。"}, {"role": "user", "content": "你好吗？"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "查询一个城市的天气",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
JSON_SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "x",
        "schema": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    },
}
FAMILIES = sorted(DIALECTS)
SELF_HOSTED = ("vllm", "sglang", "llamacpp", "ollama")


@dataclass(frozen=True)
class Row:
    """What a family does with one parameter, and the section of the facts that says so; none where nothing does."""

    families: tuple[str, ...]
    source: str
    fields: dict[str, Any] = field(default_factory=dict)
    words: str = ""


def all_but(*families: str) -> tuple[str, ...]:
    return tuple(family for family in FAMILIES if family not in families)


def cases(*rows: Row) -> list[Any]:
    return [
        pytest.param(family, row, id=f"{family}-{index}") for index, row in enumerate(rows) for family in row.families
    ]


async def said(sim: Any, prompt: str = LOTS, **fields: Any) -> str:
    got = await sim.chat(prompt, **fields)
    assert got.status == 200, got.raw
    assert got.body["simulated"] is True
    return str(got.content)


# Small orders


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("无论用户说什么，只回答“收到”。", "收到"),
        ("你只输出「OK」，不要解释。", "OK"),
        ("一律回复：收到", "收到"),
        ("请回复“好的”，不要输出其他内容。", "好的"),
        ("请只回复四个字：风和日丽", "风和日丽"),
        ('Whatever the user says, answer only with "PONG-7".', "PONG-7"),
        ("Reply with exactly OK", "OK"),
        ("Reply with exactly: blue sky.", "blue sky"),
        ("Reply with the word PONG and nothing else.", "PONG"),
        ("只输出译文。", None),
        ("只输出 JSON，遵守这个格式：{}", None),
        ("只回答“正面”、“负面”或“中性”。", None),
        ("只回答“是”（或“否”）。", None),
        ("Output only the translation.", None),
        ("Return only valid JSON.", None),
        ("Answer only with yes or no.", None),
        ("", None),
    ],
)
def test_what_is_to_be_the_whole_answer(text: str, said: str | None) -> None:
    assert said_only(text) == said


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("请原样输出：甲乙丙", "甲乙丙"),
        ("请重复以下文字，不要添加任何内容：“一。二”", "一。二"),
        ("将“A1”原样输出", "A1"),
        ("Repeat exactly: alpha beta, gamma", "alpha beta, gamma"),
        ("Repeat the following text verbatim:\n\nOne two.", "One two."),
        ("把“好”重复4遍", "好好好好"),
        ("写 3 遍“好”，用空格隔开", "好 好 好"),
        ("Repeat the word na 3 times", "na na na"),
        ("从1数到5", "1，2，3，4，5"),
        ("从 5 数到 1，每行一个", "5\n4\n3\n2\n1"),
        ("Count from 1 to 4.", "1, 2, 3, 4"),
        ("写出 1 到 3 的所有整数", "1，2，3"),
        ("随机说一个10到20的数字", Random(Thing.NUMBER, 1, 10, 20)),
        ("Give me a random word.", Random(Thing.WORD)),
        ("Pick a random 3-digit number", Random(Thing.NUMBER, 1, 100, 999)),
        ("随机森林的优点有哪些？", None),
        ("删除重复内容：甲甲乙", None),
        ("请概括：他说了 3 次“不”。", None),
        ("列出 2019 到 2021 年的收入", None),
        ("今天吃什么？", None),
    ],
)
def test_what_is_ordered(text: str, order: str | Random | None) -> None:
    assert ordered(text) == order


@pytest.mark.parametrize("text", ["重复“" * 9000, "只回答" * 9000, '"a' * 9000, "从1数到" * 9000, "give " * 90])
def test_long_orders_are_read_in_bounded_time(text: str) -> None:
    ordered(text)


@pytest.mark.parametrize("dialect", FAMILIES)
async def test_small_orders_are_obeyed(provider: Callable[..., Any], dialect: str) -> None:
    async with provider(dialect=dialect) as sim:
        assert await said(sim, messages=COLOURS) == "靛蓝"
        assert await said(sim, messages=[*COLOURS[:1], {"role": "user", "content": REPEAT}]) == "靛蓝"
        assert await said(sim, REPEAT) == "甲乙丙丁，戊己庚辛。壬癸"
        assert await said(sim, "从1数到12") == "，".join(map(str, range(1, 13)))
        assert await said(sim, REPEAT, stop="。") == "甲乙丙丁，戊己庚辛"
        cut = await sim.chat(REPEAT, max_tokens=3)
        assert (cut.content, cut.body["choices"][0]["finish_reason"]) == ("甲乙丙丁", "length")
        task = [*COLOURS[1:], {"role": "user", "content": "请写一个摘要：作者生成随机数。"}]
        assert await said(sim, messages=task) == await said(sim, messages=task)


@pytest.mark.parametrize("dialect", FAMILIES)
async def test_developer_messages(provider: Callable[..., Any], dialect: str) -> None:
    messages = [{**COLOURS[0], "role": "developer"}, COLOURS[1]]
    async with provider(dialect=dialect) as sim:
        got = await sim.chat(messages=messages)
    if dialect == "deepseek":
        assert got.status == 400
        assert "unknown variant `developer`" in got.body["error"]["message"]
    else:
        assert got.content == "靛蓝"


# Sampling


@pytest.mark.parametrize("dialect", all_but("moonshot"))
async def test_lots_are_drawn_anew(provider: Callable[..., Any], dialect: str) -> None:
    series = []
    for _ in range(2):
        async with provider(dialect=dialect) as sim:
            series.append([await said(sim, temperature=1) for _ in range(5)])
    assert series[0] == series[1]
    assert len(set(series[0])) == 5
    assert all(text.isdecimal() for text in series[0])
    async with provider(dialect=dialect, seed=9) as sim:
        assert await said(sim) != series[0][0]


async def test_only_lots_are_drawn(provider: Callable[..., Any]) -> None:
    async with provider() as sim:
        prompts = ("请写一个摘要：今天天气很好。", REPEAT, "今天吃什么？")
        for prompt in prompts:
            assert len({await said(sim, prompt, temperature=value) for value in (0, 1, 2)}) == 1
        words = await said(sim, "随机写一句话")
        assert words.startswith("【模拟回答】")
        many = await sim.chat(LOTS, n=3)
        assert len({choice["message"]["content"] for choice in many.body["choices"]}) == 3
        greedy = await sim.chat(LOTS, n=3, temperature=0)
        assert len({choice["message"]["content"] for choice in greedy.body["choices"]}) == 1


@pytest.mark.parametrize(
    ("family", "row"),
    cases(
        Row(all_but("moonshot"), "", {"temperature": 0}),
        Row(all_but("moonshot", "deepseek"), "", {"top_p": 0.01}),
        Row(all_but("moonshot", "deepseek"), "", {"seed": 7}),
        Row(("dashscope",), "2.4", {"top_k": 1}),
        Row(("vllm", "sglang", "llamacpp"), "", {"top_k": 1}),
    ),
)
async def test_nothing_is_left_to_chance(provider: Callable[..., Any], family: str, row: Row) -> None:
    async with provider(dialect=family) as sim:
        assert len({await said(sim, **row.fields) for _ in range(3)}) == 1


@pytest.mark.parametrize(
    ("family", "row"),
    cases(
        Row(("deepseek",), "1.5", {"temperature": 0, "thinking": {"type": "enabled"}}),
        Row(("deepseek",), "1.5", {"top_p": 0.01}),
        Row(("deepseek",), "1.5", {"seed": 7}),
        Row(("moonshot",), "3.4", {"seed": 7}),
        Row(("moonshot",), "3.4", {"top_k": 1}),
        Row(("moonshot",), "3.4", {"top_p": 0.95, "temperature": 1}),
    ),
)
async def test_parameters_without_effect(provider: Callable[..., Any], family: str, row: Row) -> None:
    async with provider(dialect=family) as sim:
        assert len({await said(sim, **row.fields) for _ in range(3)}) == 3


async def test_a_seed_decides_alone(provider: Callable[..., Any]) -> None:
    texts = set()
    for seed in (0, 1):
        async with provider(seed=seed) as sim:
            texts.add(await said(sim, seed=7))
            other = await said(sim, seed=8)
    assert len(texts) == 1
    assert other not in texts


async def test_refused_calls_take_no_turn(provider: Callable[..., Any]) -> None:
    async with provider() as sim:
        free = [await said(sim) for _ in range(2)]
    async with provider(requests_per_minute=1) as sim:
        assert await said(sim) == free[0]
        assert (await sim.chat(LOTS)).status == 429


# Penalties


@pytest.mark.parametrize(
    ("frequency", "presence", "length"),
    [(0, 0, 60), (0.4, 0, 60), (-2, -2, 60), (1, 0, 10), (2, 0, 5), (0, 2, 10), (2, 2, 3)],
)
def test_penalties_shorten(frequency: float, presence: float, length: int) -> None:
    assert shortened("好" * 60, frequency, presence) == "好" * length


@pytest.mark.parametrize(
    ("family", "row"),
    cases(
        Row(all_but("moonshot", "deepseek", "dashscope"), "", {"frequency_penalty": 2}),
        Row(("zhipu",), "5.1", {"presence_penalty": 2}),
        Row(("dashscope",), "2.4", {"presence_penalty": 2}),
    ),
)
async def test_penalties_are_honoured(provider: Callable[..., Any], family: str, row: Row) -> None:
    async with provider(dialect=family) as sim:
        assert len(await said(sim, OFTEN)) == 60
        assert len(await said(sim, OFTEN, **row.fields)) < 20


@pytest.mark.parametrize(
    ("family", "row"),
    cases(
        Row(("deepseek",), "1.5", {"frequency_penalty": 2, "presence_penalty": 2}),
        Row(("dashscope",), "2.4", {"frequency_penalty": 2}),
        Row(("moonshot",), "3.2", {"frequency_penalty": 0}),
    ),
)
async def test_penalties_are_ignored(provider: Callable[..., Any], family: str, row: Row) -> None:
    async with provider(dialect=family) as sim:
        assert len(await said(sim, OFTEN, **row.fields)) == 60


# Log probabilities, and several choices

TELL = ("openai", "deepseek", "dashscope", "zhipu", "volcengine", "openrouter", "oneapi", "vllm", "sglang", "llamacpp")


@pytest.mark.parametrize(
    ("family", "row"),
    cases(
        Row(TELL, ""),
        Row(("deepseek",), "1.5", {"thinking": {"type": "enabled"}}),
    ),
)
async def test_logprobs_are_told(
    provider: Callable[..., Any], events: Callable[[bytes], list[Any]], family: str, row: Row
) -> None:
    wish = {"logprobs": True, "top_logprobs": 3, **row.fields}
    async with provider(dialect=family) as sim:
        got = await sim.chat(REPEAT, **wish)
        streamed = events((await sim.chat(REPEAT, stream=True, **wish)).raw)
        bare = await sim.chat(REPEAT, logprobs=True)
        without = await sim.chat(REPEAT)
    content = got.body["choices"][0]["logprobs"]["content"]
    assert "".join(one["token"] for one in content) == got.content
    for one in content:
        assert one["logprob"] <= 0
        assert bytes(one["bytes"]).decode() == one["token"]
        assert one["top_logprobs"][0]["token"] == one["token"]
        assert len(one["top_logprobs"]) == 3
    choices = [event["choices"][0] for event in streamed if event["choices"]]
    assert [one for choice in choices if choice.get("logprobs") for one in choice["logprobs"]["content"]] == content
    assert all(one["top_logprobs"] == [] for one in bare.body["choices"][0]["logprobs"]["content"])
    assert without.body["choices"][0].get("logprobs") is None


@pytest.mark.parametrize(
    ("family", "row"),
    cases(
        Row(("ollama",), "6"),
        Row(("minimax", "siliconflow", "qianfan", "hunyuan", "stepfun"), ""),
    ),
)
async def test_logprobs_are_not_told(provider: Callable[..., Any], family: str, row: Row) -> None:
    async with provider(dialect=family) as sim:
        got = await sim.chat(REPEAT, logprobs=True, top_logprobs=2)
    assert got.status == 200
    assert got.body["choices"][0].get("logprobs") is None


@pytest.mark.parametrize(
    ("family", "row"),
    cases(
        Row(("moonshot",), "3.2", {"logprobs": True}, "invalid logprobs: only false is allowed for this model"),
        Row(("moonshot",), "3.2", {"top_logprobs": 2}, "logprobs must be set to true if top_logprobs is used"),
        Row(("deepseek",), "1.2", {"top_logprobs": 2}, "logprobs must be set to true if top_logprobs is used."),
        Row(("deepseek",), "1.2", {"logprobs": True, "top_logprobs": 21}, "valid range of top_logprobs is [0, 20]."),
        Row(("dashscope",), "2.2", {"logprobs": True, "top_logprobs": 6}, "Range of top_logprobs should be [0, 5]"),
        Row(("moonshot",), "3.2", {"n": 2}, "invalid n: only 1 is allowed for this model"),
        Row(("dashscope",), "2.2", {"n": 5}, "Range of n should be [1, 4]"),
        Row(("dashscope",), "2.4", {"n": 2, "tools": [WEATHER]}, "Range of n"),
        Row(("openai",), "", {"n": 9}, "1 to 8"),
        Row(("moonshot",), "3.2", {"temperature": 0}, "invalid temperature: only 1 is allowed"),
        Row(("moonshot",), "3.2", {"top_p": 0.5}, "invalid top_p: only 0.95 is allowed"),
        Row(("moonshot",), "3.2", {"frequency_penalty": 1}, "invalid frequency_penalty: only 0 is allowed"),
        Row(("dashscope",), "2.2", {"temperature": 2}, "Temperature should be in [0.0, 2.0)"),
        Row(("zhipu",), "5.1", {"temperature": 1.5}, "temperature参数非法：限制数值范围[0,1]"),
        Row(("deepseek",), "1.2", {"temperature": 2.5}, "the valid range of temperature is [0, 2]"),
        Row(("deepseek",), "1.2", {"max_tokens": 393_217}, "the valid range of max_tokens is [1, 393216]"),
        Row(("dashscope",), "2.2", {"max_tokens": 65_537}, "Range of max_tokens should be [1, "),
        Row(("deepseek",), "1.2", {"response_format": JSON_SCHEMA}, "This response_format type is unavailable now"),
        Row(("deepseek",), "1.2", {"response_format": {"type": "json_object"}}, "must contain the word 'json'"),
        Row(("dashscope",), "2.2", {"response_format": {"type": "json_object"}}, "must contain the word 'json'"),
        Row(
            ("dashscope",),
            "2.2",
            {"response_format": {"type": "json_object"}, "enable_thinking": True, "stream": True},
            "Json mode response is not supported when enable_thinking is true",
        ),
        Row(
            ("deepseek",),
            "1.4",
            {"tools": [WEATHER], "tool_choice": "required", "thinking": {"type": "enabled"}},
            "Thinking mode does not support this tool_choice",
        ),
        Row(
            ("dashscope",),
            "2.2",
            {"tools": [WEATHER], "tool_choice": "required", "enable_thinking": True, "stream": True},
            "does not support being set to required or object in thinking mode",
        ),
        Row(
            ("moonshot",),
            "3.2",
            {
                "tools": [WEATHER],
                "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
                "thinking": {"type": "enabled"},
            },
            "tool_choice 'specified' is incompatible with thinking enabled",
        ),
        Row(("dashscope",), "2.2", {"model": "no-tools", "tools": [WEATHER]}, "The tool call is not supported."),
        Row(("vllm",), "", {"model": "no-tools", "tools": [WEATHER]}, "requires --enable-auto-tool-choice"),
        Row(("moonshot",), "3.4", {"model": "kimi-k2.6", "tools": [WEATHER], "tool_choice": "required"}, "required"),
        Row(
            ("moonshot",),
            "3.2",
            {"model": "kimi-k2.7-code", "thinking": {"type": "disabled"}},
            "invalid thinking: only type=enabled is allowed for this model",
        ),
        Row(
            ("dashscope",),
            "2.2",
            {"model": "qwq-plus", "enable_thinking": False},
            "The value of the enable_thinking parameter is restricted to True.",
        ),
        Row(
            ("zhipu",),
            "5.1",
            {"model": "glm-5.3", "thinking": {"type": "disabled"}},
            "该模型始终思考，不支持关闭思考",
        ),
    ),
)
async def test_refusals(provider: Callable[..., Any], family: str, row: Row) -> None:
    async with provider(dialect=family) as sim:
        got = await sim.chat(**row.fields)
    assert got.status == 400
    assert row.words in got.raw.decode()


@pytest.mark.parametrize(
    ("family", "row"),
    cases(
        Row(("deepseek",), "1.5", {"n": 3}, "1"),
        Row(("ollama",), "6", {"n": 3}, "1"),
        Row(("dashscope",), "2.4", {"n": 4}, "4"),
        Row(("zhipu",), "5.1", {"n": 2}, "2"),
        Row(("openai",), "", {"n": 3}, "3"),
        Row(("vllm",), "", {"n": 3}, "3"),
    ),
)
async def test_several_choices(provider: Callable[..., Any], family: str, row: Row) -> None:
    async with provider(dialect=family) as sim:
        got = await sim.chat(**row.fields)
    assert len(got.body["choices"]) == int(row.words)


# Limits of tokens


@pytest.mark.parametrize("family", FAMILIES)
async def test_limits_of_tokens(provider: Callable[..., Any], family: str) -> None:
    async with provider(dialect=family) as sim:
        for name in ("max_tokens", "max_completion_tokens"):
            got = await sim.chat("从1数到100", **{name: 10})
            ignored = name == "max_completion_tokens" and family in ("deepseek", "ollama")
            assert got.body["choices"][0]["finish_reason"] == ("stop" if ignored else "length"), name


# Tools


@pytest.mark.parametrize("family", FAMILIES)
async def test_tools_are_called_when_asked_for(
    provider: Callable[..., Any], events: Callable[[bytes], list[Any]], family: str
) -> None:
    async with provider(dialect=family) as sim:
        for prompt in ("北京的天气怎么样？", "请调用工具。", "Please call get_weather for Beijing."):
            for choice in ({}, {"tool_choice": "auto"}):
                got = await sim.chat(prompt, tools=[WEATHER], **choice)
                answer = got.body["choices"][0]
                assert answer["finish_reason"] == "tool_calls", prompt
                called = answer["message"]["tool_calls"][0]["function"]
                assert called["name"] == "get_weather"
                assert isinstance(orjson.loads(called["arguments"])["city"], str)
        streamed = events((await sim.chat("北京的天气怎么样？", tools=[WEATHER], stream=True)).raw)
        assert any("tool_calls" in part["delta"] for event in streamed for part in event["choices"])
        for prompt in ("你好", "不要调用工具，说说天气。"):
            assert (await said(sim, prompt, tools=[WEATHER])).startswith("【模拟回答】")
        never = await sim.chat("北京的天气怎么样？", tools=[WEATHER], tool_choice="none")
        assert never.body["choices"][0]["finish_reason"] == ("tool_calls" if family == "ollama" else "stop")
        back = [
            {"role": "user", "content": "北京的天气怎么样？"},
            {"role": "assistant", "content": "", "tool_calls": []},
            {"role": "tool", "content": "晴", "tool_call_id": "1"},
        ]
        assert (await said(sim, messages=back, tools=[WEATHER])).startswith("【模拟回答】")


@pytest.mark.parametrize("family", FAMILIES)
async def test_tools_are_called_when_they_must_be(provider: Callable[..., Any], family: str) -> None:
    named = {"type": "function", "function": {"name": "get_weather"}}
    async with provider(dialect=family) as sim:
        for choice in ("required", named):
            got = await sim.chat("你好", tools=[WEATHER], tool_choice=choice)
            finish = got.body["choices"][0]["finish_reason"]
            assert finish == ("stop" if family == "ollama" else "tool_calls"), choice


@pytest.mark.parametrize("family", all_but("dashscope", "vllm"))
async def test_a_model_without_tools(provider: Callable[..., Any], family: str) -> None:
    async with provider(dialect=family) as sim:
        text = await said(sim, "请调用工具。", model="simulated-no-tools", tools=[WEATHER])
        forced = await sim.chat("你好", model="simulated-no-tools", tools=[WEATHER], tool_choice="required")
    assert text.startswith("【模拟回答】")
    finish = forced.body["choices"][0]["finish_reason"]
    assert finish == ("tool_calls" if family == "sglang" else "stop")


# Structured output


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_model_that_does_not_heed_the_format(provider: Callable[..., Any], family: str) -> None:
    kinds = [{"type": "json_object"}, *([] if family == "deepseek" else [JSON_SCHEMA])]
    async with provider(dialect=family) as sim:
        for kind in kinds:
            text = await said(sim, "用 JSON 回答：你好", model="simulated-no-json", response_format=kind)
            assert text.startswith("【模拟回答】")


@pytest.mark.parametrize(
    ("family", "row"),
    cases(
        Row(all_but("deepseek"), "", {"response_format": JSON_SCHEMA}),
        Row(all_but(), "", {"response_format": {"type": "json_object"}}),
    ),
)
async def test_structured_output(provider: Callable[..., Any], family: str, row: Row) -> None:
    async with provider(dialect=family) as sim:
        value = orjson.loads(await said(sim, "用 JSON 回答：你好", **row.fields))
    assert isinstance(value, dict)


@pytest.mark.parametrize("family", ["moonshot", "zhipu", "volcengine", "siliconflow", "openrouter", *SELF_HOSTED])
async def test_json_without_the_word(provider: Callable[..., Any], family: str) -> None:
    async with provider(dialect=family) as sim:
        assert orjson.loads(await said(sim, "你好", response_format={"type": "json_object"}))


# Unknown parameters, thinking, and models


@pytest.mark.parametrize("family", FAMILIES)
async def test_unknown_parameters_pass(provider: Callable[..., Any], family: str) -> None:
    async with provider(dialect=family) as sim:
        assert await said(sim, REPEAT, an_unknown_parameter=1) == await said(sim, REPEAT)


SWITCHES: dict[str, dict[str, Any]] = {
    "openai": {"reasoning_effort": "high"}, "deepseek": {"thinking": {"type": "enabled"}},
    "dashscope": {"enable_thinking": True, "stream": True}, "moonshot": {"thinking": {"type": "enabled"}},
    "zhipu": {"thinking": {"type": "enabled"}}, "minimax": {"thinking": {"type": "enabled"}},
    "volcengine": {"thinking": {"type": "enabled"}}, "siliconflow": {"enable_thinking": True},
    "stepfun": {"reasoning_effort": "high"}, "qianfan": {"enable_thinking": True},
    "hunyuan": {"enable_thinking": True}, "openrouter": {"reasoning": {"effort": "high"}},
    "oneapi": {"enable_thinking": True}, "vllm": {"chat_template_kwargs": {"enable_thinking": True}},
    "sglang": {"chat_template_kwargs": {"enable_thinking": True}},
    "llamacpp": {"chat_template_kwargs": {"enable_thinking": True}}, "ollama": {"reasoning_effort": "high"},
}  # fmt: skip


def thoughts(got: Any) -> str:
    """Give whatever shows that there was thinking: fields, text between tags, or counted tokens."""
    text = got.raw.decode()
    signs = ("reasoning_content", "reasoning", "<think>")
    shown = next((sign for sign in signs if f'"{sign}":"【' in text or (sign == "<think>" and sign in text)), "")
    return shown or ("counted" if '"reasoning_tokens":' in text else "")


SHOWN = {"openai": "counted", "minimax": "<think>", "openrouter": "reasoning", "ollama": "reasoning"}


@pytest.mark.parametrize("family", FAMILIES)
async def test_thinking(provider: Callable[..., Any], family: str) -> None:
    shown = SHOWN.get(family, "reasoning_content")
    async with provider(dialect=family) as sim:
        assert thoughts(await sim.chat(model="simulated-chat")) == ""
        assert thoughts(await sim.chat(model="simulated-chat", **SWITCHES[family])) == shown
        assert thoughts(await sim.chat(model="simulated-thinking")) == shown


@pytest.mark.parametrize(
    ("family", "row"),
    cases(
        Row(("moonshot",), "3.4", {"model": "kimi-k3", "thinking": {"type": "disabled"}}),
        Row(("moonshot",), "3.4", {"model": "kimi-k2.6"}),
        Row(("dashscope",), "2.4", {"model": "qwen3.6-plus"}),
        Row(("dashscope",), "2.4", {"model": "qwq-plus"}),
        Row(("zhipu",), "5.1", {"model": "glm-5.3"}),
        Row(("minimax",), "5.3", {"model": "MiniMax-M2"}),
    ),
)
async def test_models_that_think_unasked(provider: Callable[..., Any], family: str, row: Row) -> None:
    async with provider(dialect=family) as sim:
        assert thoughts(await sim.chat(**row.fields)) == SHOWN.get(family, "reasoning_content")


FIELDS = {
    "deepseek": {"id", "object", "owned_by"},
    "moonshot": {"id", "object", "created", "owned_by", "context_length", "supports_reasoning"},
    "oneapi": {"id", "object", "created", "owned_by", "root", "parent"},
    "vllm": {"id", "object", "created", "owned_by", "root", "parent", "max_model_len"},
    "sglang": {"id", "object", "created", "owned_by", "root", "max_model_len"},
    "llamacpp": {"id", "object", "created", "owned_by", "meta"},
    "openrouter": {"id", "created", "context_length", "pricing", "supported_parameters"},
}


@pytest.mark.parametrize("family", FAMILIES)
async def test_models(provider: Callable[..., Any], family: str) -> None:
    async with provider(dialect=family) as sim:
        path = sim.chat_path.removesuffix("/chat/completions")
        listed = (await sim.call("GET", f"{path}/models")).body["data"]
        one = await sim.call("GET", f"{path}/models/simulated-thinking")
        none = await sim.call("GET", f"{path}/models/a-missing-model")
    assert [model["id"] for model in listed] == ["simulated-chat", "simulated-mini", "simulated-thinking"]
    assert one.body == listed[2]
    assert none.status >= 400 or "base_resp" in none.body
    assert set(listed[0]) >= FIELDS.get(family, {"id", "object", "created", "owned_by"})
    assert ("created" in listed[0]) == (family != "deepseek")
    async with provider(dialect=family, api_key="sk-simulated-key") as sim:
        got = await sim.call("GET", f"{path}/models")
    assert (b'"data":[{' in got.raw) == (family == "openrouter")
