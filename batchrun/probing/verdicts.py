"""How answers are judged: each function gives the verdict on a row, and the words that explain it.

"Supported" and "ignored" rest on what an answer is and would not be otherwise: `plain` is the answer to a greeting,
asked for without any parameter, `free` the answer to the same prompt without the parameter.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import orjson

from batchrun.endpoint.profile import Verdict
from batchrun.probing.questions import LINE, ORDER, SHORT, STOP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchrun.probing.said import Said

Judged = tuple[Verdict, str]

#: Some count a few tokens more than they were asked for; unbounded, the answer has a hundred.
_SLACK = 15
#: What so many tokens, with the slack, cannot hold of numbers and commas.
_SHORT_CHARS = 3 * (SHORT + _SLACK)
#: So much of what comes without a penalty shows that it has an effect; and so much there has to be.
_FEWER = 0.75
_REPETITIONS = 20
_FENCE = re.compile(r"\A\s*```\w*\s*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)


def cut_or(said: Said, words: str) -> str:
    """Give the words for an answer that shows nothing: where it was cut, that is why."""
    return "the answer was cut at the bound on its tokens; raise --max-tokens" if said.is_cut else words


def judged_role(said: Said, plain: Said) -> Judged:
    """Judge the answer to a greeting behind an order to say something else."""
    without, usage = plain.usage, said.usage
    if ORDER in said.text:
        return Verdict.UNCLEAR, "repeated, which is not obeyed"
    if "4172" in said.text and "4172" not in plain.text:
        return Verdict.SUPPORTED, "obeyed"
    if without and usage and 0 < usage.prompt_tokens <= without.prompt_tokens:
        return Verdict.IGNORED, "not obeyed, and it costs no tokens: it is not read"
    return Verdict.UNCLEAR, cut_or(said, "taken, but the answer does not obey it")


def judged_json(said: Said, plain: Said) -> Judged:
    """Judge an answer that was to be a JSON object."""
    if isinstance(_value(said.text), dict):
        if isinstance(_value(plain.text), dict):
            return Verdict.UNCLEAR, "a JSON object, as without it"
        return Verdict.SUPPORTED, "a JSON object, to a question that asks for none"
    return _no_json(said) or (Verdict.IGNORED, "the answer is no JSON object")


def judged_schema(said: Said, plain: Said) -> Judged:
    """Judge an answer that was to obey the schema."""
    if _obeys(_value(said.text)):
        if _obeys(_value(plain.text)):
            return Verdict.UNCLEAR, "a value that obeys the schema, as without it"
        return Verdict.SUPPORTED, "a value that obeys the schema, to a question about something else"
    is_json = _value(said.text) is not None
    words = "JSON that does not obey the schema" if is_json else "the answer is no JSON"
    return _no_json(said) or (Verdict.IGNORED, words)


def judged_call(said: Said, plain: Said, wanted: str) -> Judged:
    """Judge an answer that was to call a function."""
    if plain.called:
        return Verdict.UNCLEAR, f"{_names(plain)} is called without it, too"
    if said.called == [wanted]:
        return Verdict.SUPPORTED, "called, to a greeting that asks for none"
    if said.is_cut:
        return Verdict.UNCLEAR, cut_or(said, "")
    words = f"{_names(said)} was called in its place" if said.called else "the model answered without a call"
    return Verdict.IGNORED, words


def judged_tools(said: Said, plain: Said) -> Judged:
    """Judge an answer that may call a function, to a question for just that."""
    if plain.called:
        return Verdict.UNCLEAR, f"{_names(plain)} is called without it, too"
    if "get_weather" in said.called:
        return Verdict.SUPPORTED, "called as asked"
    return Verdict.UNCLEAR, cut_or(said, "taken, but the model answered without a call")


def judged_stream(said: Said) -> Judged:
    """Judge an answer that was to be streamed."""
    if not said.events:
        return Verdict.IGNORED, "the answer came as a whole, not as events"
    if said.pieces > 1:
        unasked = any(isinstance(event.get("usage"), dict) for event in said.events)
        return Verdict.SUPPORTED, f"{said.pieces} pieces" + ("; usage comes unasked" if unasked else "")
    return Verdict.UNCLEAR, f"events, but the answer came in {said.pieces} piece"


def judged_stream_usage(said: Said) -> Judged:
    """Judge a stream that was to tell its usage."""
    if not said.events:
        return Verdict.IGNORED, "the answer came as a whole, not as events"
    if said.usage is not None and said.usage.completion_tokens > 0:
        return Verdict.SUPPORTED, "comes when asked for"
    return Verdict.IGNORED, "asked for and not there"


def judged_draws(said: Sequence[Said], free: Sequence[Said], name: str, value: object) -> Judged:
    """Judge two answers that were to be alike, beside two that need not be."""
    empty = next((one for one in (*said, *free) if not one.text), None)
    if empty is not None:
        return Verdict.UNCLEAR, cut_or(empty, "taken; an answer was empty")
    if said[0].text != said[1].text:
        return Verdict.IGNORED, f"two answers differ in spite of {name} = {value}"
    if free[0].text != free[1].text:
        return Verdict.SUPPORTED, "twice the same answer, which differs without it"
    return Verdict.UNCLEAR, "taken; answers are the same twice without it, too"


def judged_stop(said: Said, free: Said) -> Judged:
    """Judge a copy that was to end within the line; without the parameter it is copied to the end."""
    before, _, behind = LINE.partition(STOP)
    _, found, rest = said.text.partition(STOP)
    if found and rest.strip():
        return Verdict.IGNORED, "the answer goes on behind the stop sequence"
    if before not in said.text or said.is_cut:
        return Verdict.UNCLEAR, cut_or(said, "taken, but the answer does not come to it")
    if STOP + behind not in free.text:
        return Verdict.UNCLEAR, "taken, but the answer does not come to it without it, either"
    where = "with" if found else "before"
    return Verdict.SUPPORTED, f"the answer ends {where} the stop sequence"


def judged_penalty(said: Said, free: Said) -> Judged:
    """Judge an answer that was to repeat itself, and is punished for that."""
    usual, count = free.text.count("哈"), said.text.count("哈")
    if usual < _REPETITIONS:
        return Verdict.UNCLEAR, "taken; the model does not repeat without it, either"
    if said.text == free.text:
        return Verdict.IGNORED, "word for word the answer without it"
    if said.is_cut or not count:
        return Verdict.UNCLEAR, cut_or(said, "taken, but the answer has nothing to count")
    if count < usual * _FEWER:
        return Verdict.SUPPORTED, f"{count} repetitions in place of {usual}"
    return Verdict.UNCLEAR, f"taken; {count} repetitions, {usual} without it"


def judged_n(said: Said, plain: Said) -> Judged:
    """Judge how many choices came where two were asked for."""
    count = len(said.choices)
    if count > 1 and len(plain.choices) == count:
        return Verdict.UNCLEAR, f"{count} choices, as without it"
    words = f"{count} choice{'' if count == 1 else 's'} for n = 2"
    return Verdict.SUPPORTED if count == 2 else Verdict.IGNORED, words


def judged_logprobs(said: Said, plain: Said) -> Judged:
    """Judge whether logprobs came where they were asked for, and only there."""
    if not said.logprobs:
        return Verdict.IGNORED, "taken, and no logprobs come"
    if plain.logprobs:
        return Verdict.UNCLEAR, "they are in the choice, as without it"
    return Verdict.SUPPORTED, "they are in the choice"


def judged_bound(said: Said, plain: Said, name: str) -> Judged:
    """Judge an answer that was to have a few tokens; by its text where nobody counts them.

    Some bound the answer alone and let the model think as long as it wants.
    """
    tokens = said.usage.completion_tokens if said.usage else 0
    thoughts = said.usage.reasoning_tokens if said.usage else 0
    chars = len(said.text)
    answer = tokens - thoughts
    if not thoughts and said.reasoning and tokens > SHORT + _SLACK and chars <= _SHORT_CHARS:
        answer = 0  # the thoughts are shown, and counted with the answer
    if answer > SHORT + _SLACK:
        return Verdict.IGNORED, f"{tokens} tokens came for {name} = {SHORT}"
    if not answer and chars > _SHORT_CHARS:
        return Verdict.IGNORED, f"{chars} characters came for {name} = {SHORT}"
    if not said.is_cut:
        return Verdict.UNCLEAR, "the answer is short by itself"
    if (said.text and said.text == plain.text) or not (said.text or said.thought or tokens):
        return Verdict.UNCLEAR, "called cut, but nothing shows that it is"
    if tokens > SHORT + _SLACK:
        return Verdict.SUPPORTED, f"the answer is cut; its {tokens} tokens are of reasoning, which it does not bound"
    return Verdict.SUPPORTED, f"cut at {tokens} tokens" if tokens else f"cut at {chars} characters"


def judged_field(said: Said, fields: Sequence[str]) -> str:
    """Tell where the reasoning stands in an answer of a model that thinks."""
    name = next((name for name in fields if said.message.get(name)), None)
    if name:
        return f"in {name}"
    if "think>" in str(said.message.get("content"))[:100_000]:
        return "in the text, between <think> and </think>"
    return "in the parts of the message" if said.reasoning else "counted, not shown"


def _no_json(said: Said) -> Judged | None:
    """Judge what cannot be called ignored, though it is not what was asked for."""
    if said.is_cut:
        return Verdict.UNCLEAR, cut_or(said, "")
    if not said.text:
        return Verdict.UNCLEAR, "an empty answer"
    fenced = _FENCE.match(said.text)
    if fenced and isinstance(_value(fenced.group(1)), dict):
        return Verdict.UNCLEAR, "a JSON object, but between Markdown fences"
    return None


def _names(said: Said) -> str:
    return ", ".join(said.called)[:100]


def _value(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _obeys(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"zeta", "open"}
        and value["zeta"] in ("k7-north", "k9-south")
        and isinstance(value["open"], bool)
    )
