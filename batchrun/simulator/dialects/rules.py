"""What a family checks in a request before the checks that all of them make, in its own words."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from batchrun.simulator.problems import Problem, Refused

Params = Mapping[str, Any]
#: Raises `Refused`. Values can be anything: what has the wrong type is left to the general checks.
Check = Callable[[Params], None]
#: Tells whether a request asks for thinking; None where it says nothing about it.
Switch = Callable[[Params], bool | None]

#: A model whose name has this thinks, whatever the family.
THINKING = "thinking"
#: Models with these in their names cannot call tools on their own, or do not heed the format of the response.
NO_TOOLS = "no-tools"
NO_JSON = "no-json"
#: Parameters of sampling that only some know.
_UNKNOWN_SAMPLING = frozenset({"top_k"})
NO_JSON_WORD = "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."


def by_type(params: Params) -> bool | None:
    """Read `"thinking": {"type": "enabled"}`."""
    value = params.get("thinking")
    kind = value.get("type") if isinstance(value, Mapping) else None
    return None if kind not in ("enabled", "disabled", "auto") else kind != "disabled"


def by_flag(params: Params) -> bool | None:
    """Read `"enable_thinking": true`."""
    value = params.get("enable_thinking")
    return value if isinstance(value, bool) else None


def by_template(params: Params) -> bool | None:
    """Read `"chat_template_kwargs": {"enable_thinking": true}`."""
    value = params.get("chat_template_kwargs")
    return by_flag(value) if isinstance(value, Mapping) else None


def by_effort(params: Params) -> bool | None:
    """Read `"reasoning_effort": "high"`."""
    value = params.get("reasoning_effort")
    return value != "none" if isinstance(value, str) else None


def by_reasoning(params: Params) -> bool | None:
    """Read `"reasoning": {…}`, whose `enabled` and effort may say no."""
    value = params.get("reasoning")
    if not isinstance(value, Mapping):
        return None
    return value.get("enabled") is not False and value.get("effort") != "none"


def none_of(*names: str) -> Callable[[Params], Collection[str]]:
    """Name parameters that are without effect in every request."""
    return lambda _: names


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a family checks and reads.

    `ignored` parameters are dropped unread. `json_word` is the refusal of json_object without that word, None
    where the word is not needed. `switches` are the ways to turn thinking on and off, the first that says anything
    decides; without a word a model thinks when its name says so. `thinks_in_content` tells whether the
    thinking of this request goes into the content. With `any_model`, no model is missing. `without_effect` gives the
    parameters that are checked and then change nothing. Where a family `constrains` its models, one that cannot call
    tools does so when it must.
    """

    checks: tuple[Check, ...] = ()
    ignored: frozenset[str] = frozenset()
    json_word: str | None = NO_JSON_WORD
    max_stops: int = 4
    switches: tuple[Switch, ...] = (by_effort,)
    thinks_in_content: Callable[[Params], bool] = lambda _: False
    any_model: bool = False
    without_effect: Callable[[Params], Collection[str]] = lambda _: _UNKNOWN_SAMPLING
    constrains: bool = False

    def thinks(self, params: Params) -> bool:
        """Tell whether the answer to this request begins with thinking."""
        asked = next((said for switch in self.switches if (said := switch(params)) is not None), None)
        return named_thinking(params) if asked is None else asked


def lacks_tools(params: Params) -> bool:
    """Tell whether tools are offered to a model that cannot call them."""
    return bool(params.get("tools")) and NO_TOOLS in str(params.get("model"))


def named_thinking(params: Params) -> bool:
    """Tell whether the model thinks by its name."""
    return THINKING in str(params.get("model"))


def number(name: str, accepts: Callable[[float], bool], detail: str, problem: Problem = Problem.INVALID_VALUE) -> Check:
    """Check a parameter that is a number."""

    def check(params: Params) -> None:
        value = params.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and not accepts(value):
            raise Refused(problem, name, detail=detail)

    return check


def when(condition: Callable[[Params], bool], param: str, detail: str) -> Check:
    """Refuse what a condition is true for."""

    def check(params: Params) -> None:
        if condition(params):
            raise Refused(Problem.INVALID_VALUE, param, detail=detail)

    return check


def format_type(params: Params) -> object:
    """Give the type of the response format, None where there is none."""
    value = params.get("response_format")
    return value.get("type") if isinstance(value, Mapping) else None


def formats_known(known: Collection[str], detail: str) -> Check:
    """Check the type of the response format; `detail` may name it as {type}."""

    def check(params: Params) -> None:
        kind = format_type(params)
        if isinstance(kind, str) and kind not in known:
            raise Refused(Problem.INVALID_VALUE, "response_format", detail=detail.replace("{type}", kind))

    return check


def forces_tool(params: Params) -> bool:
    """Tell whether a tool must be called."""
    choice = params.get("tool_choice")
    return choice == "required" or isinstance(choice, Mapping)


def messages_of(params: Params) -> list[Mapping[str, Any]]:
    """Give the messages that are objects."""
    messages = params.get("messages")
    return [one for one in messages if isinstance(one, Mapping)] if isinstance(messages, list) else []


def streams(params: Params) -> bool:
    """Tell whether a stream is wanted."""
    return params.get("stream") is True
