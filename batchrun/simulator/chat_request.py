"""A chat request as a provider reads it: checked, or refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Any

import orjson

from batchrun.simulator.dialects import Rules
from batchrun.simulator.dialects.rules import NO_JSON, NO_TOOLS
from batchrun.simulator.problems import Problem, Refused
from batchrun.simulator.tools import fitting

_MAX_CHOICES = 8
_KEY_BYTES = 16
#: Models with these in their names do not exist, or answer in streams only.
MISSING = "missing"
STREAM_ONLY = "stream-only"


class Form(StrEnum):
    """What kind of answer is wanted."""

    TEXT = "text"
    JSON_OBJECT = "json_object"
    SCHEMA = "schema"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The form of the answer, its schema as JSON text, and the name of the function to call."""

    form: Form
    schema: bytes | None = None
    tool: str | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn, as far as the family heeds it: `greedy` ones are always the most likely.

    `logprobs` is how many alternatives of each token are told, None where no probabilities are.
    """

    greedy: bool = False
    seed: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logprobs: int | None = None


_USUAL = Sampling()


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked request. `key` is the hash of its messages; `texts` and `roles` are theirs, one each.

    The answer to a `thinking` request begins with thinking, in the content itself with `inline_thinking`.
    """

    key: bytes
    model: str
    texts: tuple[str, ...]
    roles: tuple[str, ...]
    wanted: Wanted
    max_tokens: int | None
    stops: tuple[str, ...]
    choices: int
    stream: bool
    include_usage: bool
    thinking: bool = False
    inline_thinking: bool = False
    sampling: Sampling = _USUAL


_PLAIN = Wanted(Form.TEXT)
_PLAIN_RULES = Rules()


def parse(body: bytes, rules: Rules = _PLAIN_RULES) -> ChatRequest:
    """Read and check a request body. Raises `Refused`."""
    return check(load(body), rules)


def load(body: bytes) -> dict[str, Any]:
    """Read a request body. Raises `Refused`."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(Problem.BAD_JSON, error=error) from None
    if not isinstance(data, dict):
        raise Refused(Problem.BAD_REQUEST, detail="The JSON body of your request must be an object.")
    return data


def check(data: dict[str, Any], rules: Rules) -> ChatRequest:
    """Check a request, first by the family's own rules. Raises `Refused`."""
    try:
        for own in rules.checks:
            own(data)
        return _check({name: value for name, value in data.items() if name not in rules.ignored}, rules)
    except orjson.JSONEncodeError:  # what can be read is not always shallow enough to be written
        raise Refused(Problem.BAD_REQUEST, detail="The JSON body of your request is nested too deeply.") from None


def _check(data: dict[str, Any], rules: Rules) -> ChatRequest:
    if data.get("model") is None:
        raise Refused(Problem.BAD_REQUEST, "model", detail="you must provide a model parameter")
    for name, value in data.items():
        if value is not None and name in _FIELDS:
            accepts, problem, expected = _FIELDS[name]
            if not accepts(value):
                raise Refused(problem, name, detail=f"Invalid '{name}': expected {expected}.")
    texts, roles = _read_messages(data)
    _check_model(data, rules)
    stream = data.get("stream") is True
    options = data.get("stream_options")
    if options is not None and not stream:
        detail = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise Refused(Problem.INVALID_VALUE, "stream_options", detail=detail)
    unheeded = rules.without_effect(data)
    heeded = {name: value for name, value in data.items() if name not in unheeded}
    return ChatRequest(
        key=blake2b(orjson.dumps(data["messages"], option=orjson.OPT_SORT_KEYS), digest_size=_KEY_BYTES).digest(),
        model=data["model"],
        texts=texts,
        roles=roles,
        wanted=_wanted(data, texts, roles, rules),
        max_tokens=data.get("max_completion_tokens") or data.get("max_tokens"),
        stops=_stops(data, rules),
        choices=heeded.get("n") or 1,
        stream=stream,
        include_usage=bool(options and options.get("include_usage")),
        thinking=rules.thinks(data),
        inline_thinking=rules.thinks_in_content(data),
        sampling=_sampling(heeded),
    )


def _sampling(data: Mapping[str, Any]) -> Sampling:
    greedy = any(_is_number(data.get(name)) and data[name] <= most for name, most in _GREEDY.items())
    return Sampling(
        greedy=greedy,
        seed=data.get("seed"),
        frequency_penalty=data.get("frequency_penalty") or 0.0,
        presence_penalty=data.get("presence_penalty") or 0.0,
        logprobs=(data.get("top_logprobs") or 0) if data.get("logprobs") is True else None,
    )


def _check_model(data: dict[str, Any], rules: Rules) -> None:
    model = data["model"]
    if MISSING in model and not rules.any_model:
        raise Refused(Problem.MODEL_NOT_FOUND, "model", model=model)
    if STREAM_ONLY in model and data.get("stream") is not True:
        raise Refused(Problem.STREAM_ONLY, "stream", model=model)


def _stops(data: dict[str, Any], rules: Rules) -> tuple[str, ...]:
    stops = data.get("stop") or ()
    if isinstance(stops, str):
        return (stops,)
    if len(stops) > rules.max_stops:
        detail = f"Invalid 'stop': expected a string, or an array of up to {rules.max_stops} strings."
        raise Refused(Problem.INVALID_VALUE, "stop", detail=detail)
    return tuple(stops)


def _read_messages(data: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    messages = data.get("messages")
    if messages is None:
        raise Refused(Problem.MISSING_PARAMETER, "messages", detail="Missing required parameter: 'messages'.")
    texts, roles = [], []
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, dict):
            raise Refused(Problem.INVALID_TYPE, where, detail=f"Invalid type for '{where}': expected an object.")
        role = message.get("role")
        if role not in _ROLES:
            detail = f"Invalid value: {role!r}. Supported values are: {', '.join(map(repr, _ROLES))}."
            raise Refused(Problem.INVALID_VALUE, f"{where}.role", detail=detail)
        roles.append(role)
        texts.append(_text(message, role, where))
    return tuple(texts), tuple(roles)


def _text(message: dict[str, Any], role: str, where: str) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if content is None and role == "assistant":
        return ""
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        parts = (part.get("text", "") for part in content if part.get("type", "text") == "text")
        return "\n".join(part for part in parts if isinstance(part, str))
    detail = f"Invalid type for '{where}.content': expected a string or an array of objects."
    raise Refused(Problem.INVALID_TYPE, f"{where}.content", detail=detail)


def _wanted(data: dict[str, Any], texts: tuple[str, ...], roles: tuple[str, ...], rules: Rules) -> Wanted:
    functions = _functions(data.get("tools") or [])
    tool = _forced_tool(functions, data.get("tool_choice"))
    if NO_TOOLS in data["model"]:
        tool, functions = (tool if rules.constrains else None), []
    if tool is None and functions and data.get("tool_choice") != "none" and roles[-1] == "user":
        tool = fitting(functions, texts[-1])
    if tool is not None:
        return Wanted(Form.TOOL, orjson.dumps(tool.get("parameters", {"type": "object"})), str(tool.get("name")))
    response_format = data.get("response_format")
    if response_format is None:
        return _PLAIN
    kind = response_format.get("type")
    if not isinstance(kind, str) or kind not in _FORMATS:
        supported = ", ".join(map(repr, _FORMATS))
        detail = f"Invalid value: {kind!r}. Supported values are: {supported}."
        raise Refused(Problem.INVALID_VALUE, "response_format.type", detail=detail)
    wanted = _FORMATS[kind](response_format, texts, rules)
    return _PLAIN if NO_JSON in data["model"] else wanted


def _json_object(_format: dict[str, Any], texts: tuple[str, ...], rules: Rules) -> Wanted:
    if rules.json_word is not None and not any("json" in text.lower() for text in texts):
        raise Refused(Problem.BAD_REQUEST, "messages", detail=rules.json_word)
    return Wanted(Form.JSON_OBJECT)


def _json_schema(response_format: dict[str, Any], _texts: tuple[str, ...], _rules: Rules) -> Wanted:
    described = response_format.get("json_schema")
    if not isinstance(described, dict) or not isinstance(described.get("name"), str):
        param = "response_format.json_schema.name"
        raise Refused(Problem.MISSING_PARAMETER, param, detail=f"Missing required parameter: '{param}'.")
    schema = described.get("schema")
    if not isinstance(schema, dict):
        param = "response_format.json_schema.schema"
        raise Refused(Problem.MISSING_PARAMETER, param, detail=f"Missing required parameter: '{param}'.")
    return Wanted(Form.SCHEMA, orjson.dumps(schema))


def _functions(tools: list[Any]) -> list[dict[str, Any]]:
    functions = []
    for index, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            param = f"tools[{index}].function.name"
            raise Refused(Problem.MISSING_PARAMETER, param, detail=f"Missing required parameter: '{param}'.")
        functions.append(function)
    return functions


def _forced_tool(functions: list[dict[str, Any]], choice: Any) -> dict[str, Any] | None:
    if choice is None or choice in ("auto", "none"):
        return None
    if not functions:
        detail = "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified."
        raise Refused(Problem.BAD_REQUEST, "tool_choice", detail=detail)
    if choice == "required":
        return functions[0]
    named = choice.get("function") if isinstance(choice, dict) else None
    name = named.get("name") if isinstance(named, dict) else None
    for function in functions:
        if function["name"] == name:
            return function
    detail = "Invalid value for 'tool_choice': expected 'none', 'auto', 'required' or a function named in 'tools'."
    raise Refused(Problem.INVALID_VALUE, "tool_choice", detail=detail)


def _is_int(value: Any) -> bool:
    return type(value) is int


def _between(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_stop(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(stop, str) and stop for stop in value)
    return isinstance(value, str)


def _instance(*types: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, types)


#: Sampling parameters with which nothing is left to chance, up to these values.
_GREEDY: Mapping[str, float] = {"temperature": 0.05, "top_p": 0.05, "top_k": 1}
_MOST_LOGPROBS = 20
_ROLES = ("system", "assistant", "user", "function", "tool", "developer")
_FORMATS: Mapping[str, Callable[[dict[str, Any], tuple[str, ...], Rules], Wanted]] = {
    "text": lambda _format, _texts, _rules: _PLAIN,
    "json_object": _json_object,
    "json_schema": _json_schema,
}
_POSITIVE = (lambda value: _is_int(value) and value >= 1, Problem.INVALID_VALUE, "a whole number, 1 or more")
_PENALTY = (_between(-2, 2), Problem.INVALID_VALUE, "a number from -2 to 2")
#: Parameter → check, problem when it fails, what was expected. None counts as absent; others pass unread.
_FIELDS: Mapping[str, tuple[Callable[[Any], bool], Problem, str]] = {
    "model": (lambda value: isinstance(value, str) and value != "", Problem.INVALID_TYPE, "a string"),
    "messages": (
        lambda value: isinstance(value, list) and value != [],
        Problem.INVALID_TYPE,
        "a non-empty array",
    ),
    "max_tokens": _POSITIVE,
    "max_completion_tokens": _POSITIVE,
    "temperature": (_between(0, 2), Problem.INVALID_VALUE, "a number from 0 to 2"),
    "top_p": (_between(0, 1), Problem.INVALID_VALUE, "a number from 0 to 1"),
    "presence_penalty": _PENALTY,
    "frequency_penalty": _PENALTY,
    "n": (
        lambda value: _is_int(value) and 1 <= value <= _MAX_CHOICES,
        Problem.INVALID_VALUE,
        f"a whole number from 1 to {_MAX_CHOICES}",
    ),
    "seed": (_is_int, Problem.INVALID_TYPE, "a whole number"),
    "logprobs": (_instance(bool), Problem.INVALID_TYPE, "a boolean"),
    "top_logprobs": (
        lambda value: _is_int(value) and 0 <= value <= _MOST_LOGPROBS,
        Problem.INVALID_VALUE,
        f"a whole number from 0 to {_MOST_LOGPROBS}",
    ),
    "stop": (_is_stop, Problem.INVALID_VALUE, "a string, or an array of strings"),
    "stream": (_instance(bool), Problem.INVALID_TYPE, "a boolean"),
    "stream_options": (_instance(dict), Problem.INVALID_TYPE, "an object"),
    "response_format": (_instance(dict), Problem.INVALID_TYPE, "an object"),
    "tools": (_instance(list), Problem.INVALID_TYPE, "an array"),
    "tool_choice": (_instance(str, dict), Problem.INVALID_TYPE, "a string or an object"),
}
