"""The layout of answers: what the families do alike, and as data what they do differently."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from batchrun.simulator.completion import Choice, Completion
from batchrun.simulator.dialects.logprobs import logprobs_of

Body = dict[str, Any]

#: A fixed time, so that the same prompt gives the same body; 2024-01-01 in seconds since the epoch.
CREATED = 1_704_067_200
#: Characters of content in one stream chunk.
DELTA_CHARACTERS = 4


class UsageAt(StrEnum):
    """Where the token counts stand in a stream."""

    REQUESTED = "requested"  # on a chunk of their own without choices, and only for include_usage
    APART = "apart"  # the same, while the other chunks do not have the key
    FINISH = "finish"  # on the finish chunk, asked for or not
    CHOICE = "choice"  # in the choice that finishes; for include_usage on a chunk of their own as well


def chatcmpl(digits: str) -> str:
    """Give an id such as OpenAI's."""
    return f"chatcmpl-{digits}"


def as_uuid(digits: str) -> str:
    """Give 32 hexadecimal digits the form of a UUID."""
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:32]))


def call_id(digits: str, index: int, _name: str) -> str:
    """Give the id of a tool call such as OpenAI's."""
    return f"call_{digits[:20]}{index}"


def plain_usage(answer: Completion) -> Body:
    """Shape the token counts: three numbers."""
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
    }


def detailed_usage(answer: Completion) -> Body:
    """Shape the token counts with cached tokens, and with reasoning tokens where there was thinking."""
    usage = {**plain_usage(answer), "prompt_tokens_details": {"cached_tokens": answer.cached_tokens}}
    if answer.thinking:
        usage["completion_tokens_details"] = {"reasoning_tokens": answer.reasoning_tokens}
    return usage


def reasoning_content(text: str | None) -> Body:
    """Shape thinking in the most common way."""
    return {"reasoning_content": text}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How a family lays out an answer.

    `extras`, `choice` and `message` are keys that the body, each choice and each whole message have besides;
    `order` puts the body's keys in order. `reasoning` gives the fields of thinking in a message or a delta.
    In a stream, `first` and `last` are the deltas of the first and of the finish chunk; with `null_usage` every
    chunk has a usage key, and with `null_other` a delta of thinking or text has the other one as null.
    A call of a tool has `tool_content` for content, `tool_index` says whether it has an index outside streams
    too, and its later chunks have `tool_more` besides. With `bare_tool_chunk` one chunk has a choice of delta and
    index alone. With `tells_logprobs`, choices have the probabilities that were asked for.
    """

    identify: Callable[[str], str] = chatcmpl
    identify_call: Callable[[str, int, str], str] = call_id
    usage: Callable[[Completion], Body] = detailed_usage
    usage_at: UsageAt = UsageAt.REQUESTED
    extras: Mapping[str, Any] = field(default_factory=dict)
    stream_extras: Mapping[str, Any] | None = None
    order: tuple[str, ...] = ()
    choice: Callable[[str | None], Body] = lambda _finish: {"logprobs": None}
    message: Mapping[str, Any] = field(default_factory=dict)
    reasoning: Callable[[str | None], Body] = reasoning_content
    first: Mapping[str, Any] = field(default_factory=lambda: {"role": "assistant", "content": ""})
    last: Mapping[str, Any] = field(default_factory=dict)
    null_usage: bool = False
    null_other: bool = False
    tool_content: str | None = None
    tool_index: bool = False
    tool_more: Mapping[str, Any] = field(default_factory=dict)
    bare_tool_chunk: bool = False
    tells_logprobs: bool = False

    def completion(self, answer: Completion) -> Body:
        """Shape a whole answer."""
        body = {
            "id": self.identify(answer.id),
            "object": "chat.completion",
            "created": CREATED,
            "model": answer.model,
            "choices": [self._whole(answer, index) for index in range(len(answer.choices))],
            "usage": self.usage(answer),
            **self.extras,
            "simulated": True,
        }
        return self._ordered(body)

    def chunks(self, answer: Completion, include_usage: bool) -> Iterator[Body]:
        """Shape an answer as stream chunks: role, thinking, content, finish, and usage where it belongs."""
        usage = self.usage(answer)
        null: Body = {"usage": None} if self._has_null_usage(include_usage) else {}
        last = len(answer.choices) - 1
        for index, choice in enumerate(answer.choices):
            for delta in self._deltas(answer, index, choice):
                part = self._part(index, delta, None)
                self._tell_logprobs(part, choice, delta.get("content"))
                yield self._chunk(answer, [part], null)
            if self.bare_tool_chunk and choice.tool is not None:
                delta = {"tool_calls": [self._more(0, "")]}
                yield self._chunk(answer, [{"delta": delta, "index": index}], null)
            end = self._part(index, self._last(choice), choice.finish_reason)
            if self.usage_at is UsageAt.CHOICE and index == last:
                end["usage"] = usage
            merged = self.usage_at is UsageAt.FINISH and index == last
            yield self._chunk(answer, [end], {"usage": usage} if merged else null)
        if include_usage and self.usage_at is not UsageAt.FINISH:
            yield self._chunk(answer, [], {"usage": usage})

    def _has_null_usage(self, include_usage: bool) -> bool:
        return self.null_usage or (include_usage and self.usage_at is UsageAt.REQUESTED)

    def _chunk(self, answer: Completion, choices: list[Body], usage: Body) -> Body:
        body = {
            "id": self.identify(answer.id),
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": answer.model,
            **(self.extras if self.stream_extras is None else self.stream_extras),
            "choices": choices,
            **usage,
            "simulated": True,
        }
        return self._ordered(body)

    def _ordered(self, body: Body) -> Body:
        return {**{key: body[key] for key in self.order if key in body}, **body} if self.order else body

    def _whole(self, answer: Completion, index: int) -> Body:
        choice = answer.choices[index]
        message: Body = {"role": "assistant", "content": choice.text, **self.message}
        if choice.reasoning is not None:
            message.update(self.reasoning(choice.reasoning))
        if choice.tool is not None:
            message["content"] = self.tool_content
            call = self._tool_call(answer, index, choice.tool, choice.text)
            message["tool_calls"] = [{"index": 0, **call} if self.tool_index else call]
        finish = choice.finish_reason
        part = {"index": index, "message": message, **self.choice(finish), "finish_reason": finish}
        self._tell_logprobs(part, choice, choice.text)
        return part

    def _tell_logprobs(self, part: Body, choice: Choice, text: str | None) -> None:
        if self.tells_logprobs and choice.logprobs is not None and text:
            part["logprobs"] = {"content": logprobs_of(text, choice.logprobs)}

    def _part(self, index: int, delta: Body, finish: str | None) -> Body:
        return {"index": index, "delta": delta, **self.choice(finish), "finish_reason": finish}

    def _last(self, choice: Choice) -> Body:
        if choice.tool is not None:
            return {}
        return {**self.last, **(self.reasoning(None) if self.null_other and choice.reasoning is not None else {})}

    def _deltas(self, answer: Completion, index: int, choice: Choice) -> Iterator[Body]:
        thinking = choice.reasoning is not None and self.reasoning("") != {}
        if thinking:
            yield {**self.first, **({"content": None} if self.null_other else {}), **self.reasoning("")}
            for piece in _cut(choice.reasoning or ""):
                yield {**({"content": None} if self.null_other else {}), **self.reasoning(piece)}
        if choice.tool is not None:
            call = {"index": 0, **self._tool_call(answer, index, choice.tool, "")}
            role = {} if thinking else {**self.first, "content": self.tool_content}
            yield {**role, "tool_calls": [call]}
            for piece in _cut(choice.text):
                yield {"tool_calls": [self._more(0, piece)]}
            return
        if not thinking:
            yield dict(self.first)
        null = self.reasoning(None) if thinking and self.null_other else {}
        for piece in _cut(choice.text):
            yield {"content": piece, **null}

    def _more(self, index: int, arguments: str) -> Body:
        return {"index": index, **self.tool_more, "function": {"arguments": arguments}}

    def _tool_call(self, answer: Completion, index: int, name: str, arguments: str) -> Body:
        identifier = self.identify_call(answer.id, index, name)
        return {"id": identifier, "type": "function", "function": {"name": name, "arguments": arguments}}


def _cut(text: str) -> list[str]:
    return [text[start : start + DELTA_CHARACTERS] for start in range(0, len(text), DELTA_CHARACTERS)]
