"""What came back of one call of a probe."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from batchrun.endpoint.blame import blamed, blames_structure
from batchrun.records import TRANSIENT_KINDS, ErrorKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrun.records import EndpointError, Usage

_EVIDENCE_CHARS = 240
#: A thought in the middle of a text; those at its beginning are taken off it.
_THOUGHT = re.compile(r"<think>\s*[^\s<]")
#: Kinds of error that are about a request where they name a part of it. llama-cpp-python answers with status 500 to a
#: response_format that it does not know; gateways say with 403 that a key may not use tools.
_MAY_BLAME = frozenset({ErrorKind.PERMISSION, ErrorKind.CONTEXT_LENGTH, ErrorKind.MODEL_NOT_FOUND})
_OWN_FAULTS = (500, 501)
_OF_STREAMS = re.compile("stream|流式", re.IGNORECASE)


@dataclass(slots=True)
class Said:
    """What came back of a call: the completion (a stream put together), or the errors, one of each try.

    `sent` is the body, `asked` what of it the call is about.
    """

    sent: dict[str, Any]
    asked: Mapping[str, Any]
    status: int = 0
    value: dict[str, Any] = field(default_factory=dict)
    errors: list[EndpointError] = field(default_factory=list)
    text: str = ""
    reasoning: str | None = None
    usage: Usage | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    is_cut: bool = False

    @property
    def error(self) -> EndpointError | None:
        """The error that it ended with, None for an answer."""
        return self.errors[-1] if self.errors else None

    @property
    def streamed(self) -> bool:
        """Whether a stream was asked for."""
        return self.sent.get("stream") is True

    @property
    def choices(self) -> list[dict[str, Any]]:
        """The choices that are some."""
        choices = self.value.get("choices")
        return [one for one in choices if isinstance(one, dict)] if isinstance(choices, list) else []

    @property
    def choice(self) -> dict[str, Any]:
        """The first choice."""
        return next(iter(self.choices), {})

    @property
    def message(self) -> dict[str, Any]:
        """The message of the first choice."""
        message = self.choice.get("message")
        return message if isinstance(message, dict) else {}

    @property
    def finish_reason(self) -> str | None:
        """Why the answer ended, as the provider spells it."""
        reason = self.choice.get("finish_reason")
        return reason if isinstance(reason, str) else None

    @property
    def called(self) -> list[str]:
        """The names of the functions that the answer calls."""
        calls = self.message.get("tool_calls")
        functions = [one.get("function") for one in calls if isinstance(one, dict)] if isinstance(calls, list) else []
        names = [one.get("name") for one in functions if isinstance(one, dict)]
        return [name for name in names if isinstance(name, str)]

    @property
    def logprobs(self) -> list[Any]:
        """The logprobs of the first choice, empty if there are none."""
        found = self.choice.get("logprobs")
        inner = found.get("content") if isinstance(found, dict) else None
        return inner if isinstance(inner, list) else []

    @property
    def thought(self) -> bool:
        """Whether the model thought: it is shown in a field or in the text, or counted."""
        counted = bool(self.usage and self.usage.reasoning_tokens)
        return bool(self.reasoning) or counted or bool(_THOUGHT.search(self.text))

    @property
    def pieces(self) -> int:
        """How many events of a stream brought some of the answer."""
        return sum(bool(_delta(event)) for event in self.events)

    @property
    def is_refused(self) -> bool:
        """Whether the endpoint refused what was asked. Trouble, filters and refusals of other things are no refusal."""
        error = self.error
        if error is None:
            return False
        if error.kind is ErrorKind.BAD_REQUEST:
            # How answers are to come is not what most calls ask.
            return error.remedy not in ("stream", "no_stream") or "stream" in self.asked
        if error.kind in _MAY_BLAME:
            return self._blames(error)
        return all(_is_own_fault(one) and self._blames(one) for one in self.errors)

    @property
    def is_passing(self) -> bool:
        """Whether it failed for a reason that may be gone the next time, a web page in place of an answer too."""
        error = self.error
        is_trouble = error is not None and (error.kind in TRANSIENT_KINDS or error.kind is ErrorKind.NOT_AN_API)
        return is_trouble and not self.is_refused

    def _blames(self, error: EndpointError) -> bool:
        asked = self.asked
        return (
            bool(blamed(error, asked))
            or (("response_format" in asked or "tools" in asked) and blames_structure(error))
            or ("stream" in asked and bool(_OF_STREAMS.search(error.message)))
        )

    def evidence(self) -> dict[str, Any]:
        """Give what a profile keeps of the call."""
        sent = {name: value for name, value in self.sent.items() if name not in ("model", "messages")}
        said = self.error.message if self.error else self.text or in_json(self.message)
        return {
            "sent": sent,
            "prompt": str(self.sent["messages"][-1]["content"])[:_EVIDENCE_CHARS],
            "status": self.status,
            "said": clean(said[:_EVIDENCE_CHARS]),
            "finish_reason": clean(self.finish_reason[:_EVIDENCE_CHARS]) if self.finish_reason else None,
            "completion_tokens": self.usage.completion_tokens if self.usage else None,
        }


def clean(text: str) -> str:
    """Replace halves of characters, which no file can hold."""
    return text.encode("utf-8", "replace").decode()


def in_json(value: Any) -> str:
    """Write a value of a provider's as JSON, whatever numbers and nesting it has."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # whole numbers beyond 64 bits, halves of characters, deep nesting
        try:
            return json.dumps(value)
        except (ValueError, RecursionError):
            return "what cannot be shown: it is nested too deeply, or has numbers too large"


def _is_own_fault(error: EndpointError) -> bool:
    status = error.provider.status if error.provider else None
    return error.kind is ErrorKind.SERVER_ERROR and status in _OWN_FAULTS


def _delta(event: Mapping[str, Any]) -> object:
    choices = event.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    delta = first.get("delta") if isinstance(first, dict) else None
    return delta.get("content") if isinstance(delta, dict) else None
