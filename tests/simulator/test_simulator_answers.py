from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import jsonschema_rs
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchrun.simulator import DIALECTS
from batchrun.simulator.answers import compose, study
from batchrun.simulator.chat_request import parse
from batchrun.simulator.problems import Refused
from batchrun.simulator.reading import Task, read
from batchrun.simulator.tokens import cut, weight, whole_tokens

#: Busy machines are no failures.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

SCHEMA = {
    "type": "object",
    "properties": {
        "实体": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "类别": {"enum": ["新闻", "评论"]},
        "日期": {"type": "string", "format": "date"},
    },
    "required": ["实体", "类别"],
    "additionalProperties": False,
}
SCHEMA_TEXT = orjson.dumps(SCHEMA, option=orjson.OPT_INDENT_2).decode()
TOOLS = [
    {"type": "function", "function": {"name": "first", "parameters": {"type": "object"}}},
    {"type": "function", "function": {"name": "extract", "parameters": SCHEMA}},
]


def unfenced(text: str) -> str:
    return text.removeprefix("```json\n").removesuffix("\n```")


@pytest.mark.parametrize(
    ("prompt", "task", "quote"),
    [
        ("请为下文写摘要：中国经济增长放缓。专家认为……", Task.SUMMARY, "中国经济增长放缓"),
        (
            "概括这段话\n机器学习正在改变行业，尤其是制造业！",
            Task.SUMMARY,
            "机器学习正在改变行业，尤其是制造业",
        ),
        ("Translate into Chinese: Good morning, everyone! Bye.", Task.TRANSLATION, "Good morning, everyone"),
        ("请分析这条评论：“太差了，不会再买。”", Task.SENTIMENT, "太差了，不会再买"),
        ("抽取下面的实体：马云在杭州创立阿里巴巴。", Task.ENTITIES, "马云在杭州创立阿里巴巴"),
        ("Write a docstring:\ndef add(a, b):\n    return a + b", Task.CODE, "def add(a, b)"),
        ("今天吃什么？", Task.GENERAL, "今天吃什么"),
        ("", Task.GENERAL, ""),
        ("好" * 100, Task.GENERAL, "好" * 40),
        (f"按这个 JSON Schema 输出：\n{SCHEMA_TEXT}\n\n评论：物流很快。", Task.SENTIMENT, "评论：物流很快"),
        (f"请分析这条评论：物流很快。\n\n只输出 JSON，遵守：{SCHEMA_TEXT}", Task.SENTIMENT, "物流很快"),
    ],
)
def test_prompts_are_understood(prompt: str, task: Task, quote: str) -> None:
    reading = read(prompt)
    assert (reading.task or Task.GENERAL) is task
    assert reading.quote() == quote


async def test_answers_quote_the_last_user_message(provider: Callable[..., Any]) -> None:
    messages = [
        {"role": "system", "content": "你负责翻译。"},
        {"role": "user", "content": "早上好。"},
        {"role": "assistant", "content": "Good morning."},
        {"role": "user", "content": "晚安。"},
    ]
    async with provider() as sim:
        got = await sim.chat(messages=messages)
    assert "“晚安”" in got.content
    assert "译" in got.content


async def test_the_same_prompt_gets_the_same_answer(provider: Callable[..., Any]) -> None:
    prompts = [f"请分析这条评论：第{number}件商品很好。" for number in range(20)]
    answers = []
    for seed in (0, 0, 1):
        async with provider(seed=seed) as sim:
            got = [await sim.chat(prompt) for prompt in prompts]
            again = [await sim.chat(prompt) for prompt in prompts]
        assert [one.raw for one in got] == [one.raw for one in again]
        assert len({one.body["id"] for one in got}) == len({one.content for one in got}) == 20
        assert len({one.headers["x-request-id"] for one in (*got, *again)}) == 40
        answers.append([one.raw for one in got])
    assert answers[0] == answers[1]
    assert answers[0] != answers[2]


async def test_prompts_with_the_same_beginning_get_different_answers(provider: Callable[..., Any]) -> None:
    async with provider() as sim:
        texts = {(await sim.chat(f"你好。第{number}次")).content for number in range(30)}
    assert len(texts) == 30


async def test_max_tokens_cuts(provider: Callable[..., Any]) -> None:
    async with provider() as sim:
        whole = await sim.chat()
        for name in ("max_tokens", "max_completion_tokens"):
            got = await sim.chat(**{name: 10})
            assert got.body["choices"][0]["finish_reason"] == "length"
            assert whole.content.startswith(got.content)
            assert 0 < len(got.content) < len(whole.content)
            assert 9 <= got.body["usage"]["completion_tokens"] <= 10
        enough = await sim.chat(max_tokens=whole.body["usage"]["completion_tokens"])
    assert enough.raw == whole.raw


async def test_stop_ends(provider: Callable[..., Any]) -> None:
    async with provider() as sim:
        whole = (await sim.chat()).content
        for stop in ("】", ["没有", "】", "（"]):
            got = await sim.chat(stop=stop)
            assert got.content == whole[: whole.index("】")]
            assert got.body["choices"][0]["finish_reason"] == "stop"
        assert (await sim.chat(stop="没有这个词")).content == whole


async def test_n_choices(provider: Callable[..., Any]) -> None:
    async with provider() as sim:
        one = await sim.chat()
        many = await sim.chat(n=8)
    choices = many.body["choices"]
    assert [choice["index"] for choice in choices] == list(range(8))
    assert choices[0] == one.body["choices"][0]
    assert len({choice["message"]["content"] for choice in choices}) == 8
    assert many.body["usage"]["completion_tokens"] > 5 * one.body["usage"]["completion_tokens"]


async def test_json_object(provider: Callable[..., Any]) -> None:
    async with provider() as sim:
        got = await sim.chat("用 Json 回答：天气如何？", response_format={"type": "json_object"})
        value = orjson.loads(got.content)
        assert value["模拟"] is True
        assert "天气如何" in value["回答"]
        for number in range(12):
            prompt = f"第{number}条：{SCHEMA_TEXT} 输出 JSON"
            got = await sim.chat(prompt, response_format={"type": "json_object"})
            assert jsonschema_rs.is_valid(SCHEMA, orjson.loads(got.content))


async def test_json_schema(provider: Callable[..., Any]) -> None:
    response_format = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}
    async with provider() as sim:
        for number in range(10):
            got = await sim.chat(f"抽取实体：第{number}届运动会在广州举行。", response_format=response_format)
            value = orjson.loads(got.content)
            assert list(value) == ["实体", "类别", "日期"]
            assert jsonschema_rs.is_valid(SCHEMA, value)
            assert all(text.startswith("模拟") for text in value["实体"])
        text = await sim.chat(response_format={"type": "text"})
        assert text.content.startswith("【模拟回答】")


@pytest.mark.parametrize("role", ["system", "developer", "user"])
async def test_a_schema_in_the_prompt(provider: Callable[..., Any], role: str) -> None:
    async with provider() as sim:
        fenced = 0
        for number in range(40):
            messages = [
                {"role": role, "content": f"只输出 JSON，遵守这个 Schema：\n```json\n{SCHEMA_TEXT}\n```"},
                {"role": "user", "content": f"第{number}条：杭州明天有雨。"},
            ]
            text = (await sim.chat(messages=messages)).content
            fenced += text.startswith("```json\n")
            assert jsonschema_rs.is_valid(SCHEMA, orjson.loads(unfenced(text)))
    assert 3 <= fenced <= 20


async def test_a_schema_in_an_answer_is_not_followed(provider: Callable[..., Any]) -> None:
    messages = [
        {"role": "user", "content": "给我一个 schema"},
        {"role": "assistant", "content": SCHEMA_TEXT},
        {"role": "user", "content": "谢谢"},
    ]
    async with provider() as sim:
        assert (await sim.chat(messages=messages)).content.startswith("【模拟回答】")


async def test_tool_calls(provider: Callable[..., Any]) -> None:
    async with provider() as sim:
        required = await sim.chat(tools=TOOLS[1:], tool_choice="required")
        named = await sim.chat(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "extract"}})
        auto = [await sim.chat(tools=TOOLS, tool_choice=choice) for choice in ("auto", "none", None)]
    for got in (required, named):
        choice = got.body["choices"][0]
        assert choice["finish_reason"] == "tool_calls"
        assert choice["message"]["content"] is None
        (call,) = choice["message"]["tool_calls"]
        assert call["type"] == "function"
        assert call["id"].startswith("call_")
        assert call["function"]["name"] == "extract"
        assert jsonschema_rs.is_valid(SCHEMA, orjson.loads(call["function"]["arguments"]))
    assert all(got.content.startswith("【模拟回答】") for got in auto)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**25) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
ORDERS = st.sampled_from(
    [SCHEMA_TEXT, "随机说一个9到3的数字", "把“好”重复9遍", "从3数到1", "请调用 extract", "只回答“”"]
)
FIELDS = {
    "model": st.just("m") | JSON,
    "messages": st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["user", "system", "assistant", "tool"]) | JSON},
            optional={"content": st.text() | st.lists(JSON, max_size=2) | ORDERS | JSON},
        )
        | JSON,
        max_size=3,
    ),
    "response_format": st.fixed_dictionaries(
        {"type": st.sampled_from(["json_schema", "json_object", "text"]) | JSON},
        optional={"json_schema": st.fixed_dictionaries({"name": JSON, "schema": JSON | st.just(SCHEMA)})},
    )
    | JSON,
    "tools": st.just(TOOLS) | JSON,
    "tool_choice": st.sampled_from(["required", "auto"]) | JSON,
    "stop": JSON,
    "n": st.integers(1, 3) | JSON,
    "max_tokens": st.integers(1, 30) | JSON,
    "temperature": st.floats(0, 2) | JSON,
    "top_p": st.floats(0, 1) | JSON,
    "seed": st.integers(-(2**63), 2**63) | JSON,
    "logprobs": st.booleans() | JSON,
    "top_logprobs": st.integers(0, 20) | JSON,
    "frequency_penalty": st.floats(-2, 2) | JSON,
    "stream": st.booleans() | JSON,
    "stream_options": JSON,
}


@PATIENT
@given(st.fixed_dictionaries({}, optional=FIELDS))
def test_any_body_is_answered_or_refused(body: dict[str, Any]) -> None:
    try:
        request = parse(json.dumps(body, ensure_ascii=False).encode(errors="surrogatepass"))
        completion = compose(request, study(request), 0).completion
    except Refused as refused:
        status, error = DIALECTS["openai"].refuse(refused.problem, refused.param, refused.facts)
        assert status == 400
        assert orjson.dumps(error)
    else:
        assert orjson.loads(orjson.dumps(DIALECTS["openai"].completion(completion)))["model"] == body["model"]
        assert [orjson.dumps(chunk) for chunk in DIALECTS["openai"].chunks(completion, True)]


@pytest.mark.parametrize("depth", [200, 300, 1000, 5000])
async def test_deep_bodies(provider: Callable[..., Any], depth: int) -> None:
    deep = b"[" * depth + b"]" * depth
    raw = b'{"model": "m", "messages": [{"role": "user", "content": "x", "extra": %b}]}' % deep
    async with provider() as sim:
        got = await sim.call("POST", "/v1/chat/completions", data=raw)
    assert got.status == (200 if depth == 200 else 400)


def assembled(streamed: list[Any]) -> dict[int, dict[str, Any]]:
    choices: dict[int, dict[str, Any]] = {}
    for event in streamed:
        for choice in event["choices"]:
            one = choices.setdefault(choice["index"], {"content": "", "arguments": "", "name": None, "finish": None})
            delta = choice["delta"]
            one["content"] += delta.get("content") or ""
            for call in delta.get("tool_calls", ()):
                one["arguments"] += call["function"]["arguments"]
                one["name"] = one["name"] or call["function"].get("name")
            one["finish"] = one["finish"] or choice["finish_reason"]
    return choices


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"max_tokens": 7},
        {"stop": "】"},
        {"n": 3},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
        {"tools": TOOLS[1:], "tool_choice": "required"},
        {"n": 2, "tools": TOOLS[1:], "tool_choice": "required"},
    ],
)
async def test_a_stream_adds_up_to_the_plain_answer(
    provider: Callable[..., Any], events: Callable[[bytes], list[Any]], fields: dict[str, Any]
) -> None:
    async with provider() as sim:
        plain = await sim.chat(**fields)
        got = await sim.chat(**fields, stream=True, stream_options={"include_usage": True})
        bare = await sim.chat(**fields, stream=True)
    assert got.headers["Content-Type"].startswith("text/event-stream")
    assert got.headers["x-simulated"] == "true"
    streamed = events(got.raw)
    *chunks, last = streamed
    assert last["choices"] == []
    assert last["usage"] == plain.body["usage"]
    assert all(chunk["usage"] is None for chunk in chunks)
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert all(event["simulated"] is True for event in streamed)
    assert all(event["id"] == plain.body["id"] for event in streamed)
    assert all(event["object"] == "chat.completion.chunk" for event in streamed)
    choices = assembled(streamed)
    assert assembled(events(bare.raw)) == choices
    assert not any("usage" in event for event in events(bare.raw))
    for choice in plain.body["choices"]:
        one = choices[choice["index"]]
        message = choice["message"]
        assert one["content"] == (message["content"] or "")
        assert one["finish"] == choice["finish_reason"]
        for call in message.get("tool_calls", ()):
            assert (one["name"], one["arguments"]) == (
                call["function"]["name"],
                call["function"]["arguments"],
            )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"前言 {SCHEMA_TEXT} 后语", SCHEMA),
        (f'例子：{{"a": 1}} 与 {{ "b": {{}} }}，Schema：{SCHEMA_TEXT}', SCHEMA),
        (f'坏的：{{"a": }} {{"b" {SCHEMA_TEXT}', SCHEMA),
        (
            orjson.dumps({"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}).decode(),
            SCHEMA,
        ),
        ('{"$defs": {"a": {}}, "$ref": "#/$defs/a"}', {"$defs": {"a": {}}, "$ref": "#/$defs/a"}),
        ('{"enum": ["是", "否"]}', {"enum": ["是", "否"]}),
        ('{"type": ["string", "null"]}', {"type": ["string", "null"]}),
        ('{"anyOf": [{"type": "null"}]}', {"anyOf": [{"type": "null"}]}),
        ('{"type": "news", "text": "…"}', None),
        ('{"type": [], "enum": []}', None),
        ('[{"id": 3}]', None),
        ("没有 JSON", None),
        ("{{ text }}", None),
        ('{"type": "object"', None),
        ('{"type": "string", "const": "\\ud83d"}', None),
    ],
)
def test_schemas_are_found(text: str, found: object) -> None:
    schema = read(text).schema
    assert (None if schema is None else orjson.loads(schema)) == found


@pytest.mark.parametrize("text", ['{"a":' * 60_000, '{"' * 200_000, "{" * 400_000, '{"a": 1} ' * 60_000])
def test_hostile_texts_are_read_in_bounded_time(text: str) -> None:
    began = time.perf_counter()
    assert read(text).schema is None
    assert time.perf_counter() - began < 1


@PATIENT
@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    reading = read(text)
    assert len(reading.quote()) <= 40
    assert reading.weight == weight(text)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("a", 1), ("abc", 2), ("中文", 2), ("中" * 10, 7), ("中文ab", 3), ("，。！", 3), ("é" * 20, 7)],
)
def test_token_estimates(text: str, tokens: int) -> None:
    assert whole_tokens(weight(text)) == tokens


@PATIENT
@given(st.text(alphabet="ab中文，😀"), st.integers(0, 20))
def test_cut_is_the_longest_beginning_that_fits(text: str, tokens: int) -> None:
    short = cut(text, tokens)
    assert text.startswith(short)
    assert whole_tokens(weight(short)) <= tokens
    if short != text:
        assert whole_tokens(weight(text[: len(short) + 1])) > tokens
