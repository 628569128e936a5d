"""Prompt → answer: the same for the same messages and seed, and plainly a simulation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from batchrun.simulator.chance import hash64
from batchrun.simulator.chat_request import ChatRequest, Form, Wanted
from batchrun.simulator.completion import Choice, Completion
from batchrun.simulator.orders import Order, Random, Thing, ordered, said_only
from batchrun.simulator.penalties import shortened
from batchrun.simulator.problems import Problem, Refused
from batchrun.simulator.reading import Task, read
from batchrun.simulator.schema import compile_schema
from batchrun.simulator.tokens import TOKENS_PER_MESSAGE, cut, weight, whole_tokens

#: How every answer in prose begins.
MARK = "【模拟回答】"
#: Longer prompts are refused; in estimated tokens.
MAX_PROMPT_TOKENS = 128_000

#: Models put JSON into a fence when nothing but the prompt asks for JSON; here one answer in so many.
_FENCED_ONE_IN = 4
#: Whose orders stand above those of the user.
_ABOVE = ("system", "developer")
_NO_SUBJECT = "这段内容"
#: Prompts are cached in units of so many tokens.
_CACHE_UNIT_TOKENS = 64

_THOUGHTS = f"{MARK}用户提到“{{quote}}”。先理解要求，再组织答案，最后核对格式。"
_TEXTS: Mapping[Task, tuple[str, ...]] = {
    Task.SUMMARY: (
        "本文围绕“{quote}”展开，说明了主要背景和结论。整体信息清楚，细节从略。",
        "要点如下：文章从“{quote}”说起，随后交代经过与影响，最后给出简短结论。",
        "概括来说，“{quote}”是全文的核心，其余内容是对它的补充。",
    ),
    Task.TRANSLATION: (
        "“{quote}”的译文如下：此处为示意译文，意思与原文对应。",
        "译文（示意）：原句“{quote}”已按通顺的书面语译出。",
        "以下是对“{quote}”的翻译示意，语气与原文一致。",
    ),
    Task.SENTIMENT: (
        "这条评论的情感为正面。依据是“{quote}”一句语气积极。",
        "这条评论的情感为负面。“{quote}”流露出不满。",
        "这条评论的情感为中性。“{quote}”以陈述事实为主。",
    ),
    Task.ENTITIES: (
        "从“{quote}”中可以抽取出人物、机构和地点等实体，此处为示意。",
        "抽取结果（示意）：“{quote}”里出现的专有名词即为实体。",
        "“{quote}”包含若干实体，类型以机构和地点为主，此处为示意。",
    ),
    Task.CODE: (
        "这段代码从“{quote}”开始，先检查输入，再计算并返回结果。",
        "函数说明（示意）：“{quote}”接收参数，返回处理后的值，不改动外部状态。",
        "“{quote}”的逻辑较直接：读入参数、逐项处理、返回结果。",
    ),
    Task.GENERAL: (
        "关于“{quote}”，这里给出一个示意性的回答。具体内容请以真实模型的输出为准。",
        "已收到“{quote}”。简要地说，可以分背景、方法和结果三步来看。",
        "针对“{quote}”，建议先明确目标，再逐步核对细节。",
    ),
}


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the messages say together: tokens, task, a schema found in them, and the words of the subject.

    The messages before the last one count as cached, in whole units. `order` is what is to be answered word for word.
    """

    tokens: int
    cached_tokens: int
    task: Task
    schema: bytes | None
    subject: str
    quote: str
    order: Order | None = None

    @property
    def leaves_to_chance(self) -> bool:
        """Tell whether something random is asked for."""
        return isinstance(self.order, Random)


@dataclass(frozen=True, slots=True)
class Answer:
    """A completion, and whether a required property was left out of it on demand."""

    completion: Completion
    omitted: bool


def study(request: ChatRequest) -> Prompt:
    """Read the messages of a request. Raises `Refused` for a prompt that is too long."""
    readings = [read(text) for text in request.texts]
    tokens = whole_tokens(sum(one.weight for one in readings)) + TOKENS_PER_MESSAGE * len(readings)
    if tokens > MAX_PROMPT_TOKENS:
        raise Refused(Problem.CONTEXT_LENGTH, "messages", limit=MAX_PROMPT_TOKENS, tokens=tokens)
    asked = [one for one, role in zip(readings, request.roles, strict=True) if role == "user"] or readings
    earlier = whole_tokens(sum(one.weight for one in readings[:-1]))
    return Prompt(
        tokens=tokens,
        cached_tokens=earlier - earlier % _CACHE_UNIT_TOKENS,
        task=next((one.task for one in readings if one.task is not None), Task.GENERAL),
        schema=next(
            (
                one.schema
                for one, role in zip(readings, request.roles, strict=True)
                if one.schema is not None and role != "assistant"
            ),
            None,
        ),
        subject=asked[-1].subject,
        quote=asked[-1].quote(),
        order=_order(request),
    )


def _order(request: ChatRequest) -> Order | None:
    said = [*zip(request.roles, request.texts, strict=True)]
    above = next((only for role, text in said if role in _ABOVE and (only := said_only(text)) is not None), None)
    if above is not None:
        return above
    # What a task is about may sound like an order to draw lots.
    last = next((text for role, text in reversed(said) if role == "user"), "")
    order = ordered(last)
    return None if isinstance(order, Random) and read(last).task is not None else order


def compose(request: ChatRequest, prompt: Prompt, seed: int, *, turn: int = 0, omit_required: bool = False) -> Answer:
    """Write the answer to a request; with `omit_required`, a JSON answer lacks a required property.

    Only what leaves something to chance is answered in another way at another `turn`.
    """
    wanted = request.wanted
    schema = wanted.schema if wanted.schema is not None else prompt.schema
    numbers = _numbers(request, prompt, seed, turn)
    omitted = False
    choices = []
    for number in numbers:
        if schema is not None:
            made = compile_schema(schema).instance(number, prompt.subject, omit_required=omit_required)
            omitted = omitted or made.omitted
            choice = _json_choice(made.value, wanted, fenced=_is_fenced(number, wanted))
        elif wanted.form is Form.JSON_OBJECT:
            choice = _json_choice({"模拟": True, "回答": _prose(prompt, number)}, wanted, fenced=False)
        else:
            choice = Choice(_said(request, prompt, number), "stop", logprobs=request.sampling.logprobs)
        if request.thinking:
            choice = replace(choice, reasoning=_THOUGHTS.format(quote=prompt.quote or _NO_SUBJECT))
        choice = _limited(choice, request)
        choices.append(think_in_content(choice) if request.inline_thinking else choice)
    identifier = f"{numbers[0]:016x}{request.key[:8].hex()}"
    completion = Completion(identifier, request.model, tuple(choices), prompt.tokens, prompt.cached_tokens)
    return Answer(completion, omitted)


def _numbers(request: ChatRequest, prompt: Prompt, seed: int, turn: int) -> list[int]:
    sampling, indices = request.sampling, range(request.choices)
    if not prompt.leaves_to_chance:
        return [hash64(seed, "answer", request.key, index) for index in indices]
    if sampling.greedy:
        return [hash64(seed, "likely", request.key)] * request.choices
    if sampling.seed is not None:
        return [hash64(sampling.seed, "seeded", request.key, index) for index in indices]
    return [hash64(seed, f"turn {turn}", request.key, index) for index in indices]


def _said(request: ChatRequest, prompt: Prompt, number: int) -> str:
    order = prompt.order
    if order is None:
        return _prose(prompt, number)
    if isinstance(order, Random):
        drawn = order.draw(number)
        return f"{MARK}{drawn}。" if order.thing is Thing.ANYTHING else drawn
    return shortened(order, request.sampling.frequency_penalty, request.sampling.presence_penalty)


def think_in_content(choice: Choice) -> Choice:
    """Put the thinking in front of the content, between tags."""
    if choice.reasoning is None or choice.tool is not None:
        return choice
    return replace(choice, text=f"<think>\n{choice.reasoning}\n</think>\n\n{choice.text}", reasoning=None)


def fence(text: str) -> str:
    """Put a JSON text into a markdown fence."""
    return f"```json\n{text}\n```"


def _is_fenced(number: int, wanted: Wanted) -> bool:
    return wanted.form is Form.TEXT and number % _FENCED_ONE_IN == 0


def _prose(prompt: Prompt, number: int) -> str:
    variants = _TEXTS[prompt.task]
    text = variants[number % len(variants)].format(quote=prompt.quote or _NO_SUBJECT)
    # Prompts that share their first sentence still get answers that tell them apart.
    return f"{MARK}{text}（模拟编号 {number >> 32:08x}）"


def _json_choice(value: Any, wanted: Wanted, *, fenced: bool) -> Choice:
    text = _dump(value)
    finish = "stop" if wanted.tool is None else "tool_calls"
    return Choice(fence(text) if fenced else text, finish, wanted.tool, is_json=True)


def _dump(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # whole numbers beyond 64 bits, very deep nesting
        return json.dumps(value, ensure_ascii=False)


def _limited(choice: Choice, request: ChatRequest) -> Choice:
    text, finish, reasoning = choice.text, choice.finish_reason, choice.reasoning
    if choice.tool is None:
        ends = [end for stop in request.stops if stop and (end := text.find(stop)) >= 0]
        text = text[: min(ends)] if ends else text
    if request.max_tokens is not None:
        left = request.max_tokens
        if reasoning is not None:  # thinking comes first and can use up everything
            shorter = cut(reasoning, left)
            left, finish = (left - whole_tokens(weight(reasoning)), finish) if shorter == reasoning else (0, "length")
            reasoning = shorter
        shorter = cut(text, max(0, left))
        if len(shorter) < len(text):
            text, finish = shorter, "length"
    return replace(choice, text=text, finish_reason=finish, reasoning=reasoning)
