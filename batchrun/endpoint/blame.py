"""Which parameter of a request an error is about, by its own words."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrun.records import EndpointError

#: The two names of the bound on an answer's tokens.
MAX_TOKENS = ("max_tokens", "max_completion_tokens")
#: What batchrun sets itself, or what is no parameter.
RESERVED = frozenset({"model", "messages", "stream", "stream_options"})
#: How refusals speak of the ways to ask for JSON, beside the names of the parameters.
_STRUCTURE = re.compile(
    r"response[_ ]?format|json[_ -]?schema|json[_ -]?object|json[_ -]mode|structured[_ -]outputs?"
    r"|guided[_ -](?:json|grammar|decoding)|tool[_ -]?choice|\btools\b|tool use|tool calls?\b|function call"
    r"|requested parameters|工具调用|函数调用",
    re.IGNORECASE,
)
#: How they speak of a schema that is at fault, and not of the way.
_OF_THE_SCHEMA = re.compile(
    r"invalid schema|schema (?:is|was|must|cannot|contains|has)\b|additionalProperties|\$ref|\bkeyword"
    r"|parse (?:the )?grammar|(?:un)?supported (?:schema|type|feature)|did not match|does not match|generate JSON",
    re.IGNORECASE,
)
#: Words before or behind a name that say that it is the one which is refused.
_ACCUSING = (
    r"(?:unsupported|unknown|unrecogni[sz]ed|unexpected|invalid|illegal|not support(?:ed)?|does not support|got|extra"
    r"|不支持|无效|未知|非法)[^.;。；]{0,40}?"
)
_ACCUSED = (
    r"[^.;。；,，]{0,24}?(?:is not|isn't|not supported|not allowed|unsupported|invalid|must|should"
    r"|不支持|无效|非法)"
)
_MAX_NAMES = 200


def blames_structure(error: EndpointError) -> bool:
    """Tell whether an error is about `response_format`, tools, or what they hold."""
    return bool(_STRUCTURE.search(error.message)) or _pointed_at(error) in ("response_format", "tools", "tool_choice")


def is_about_the_schema(words: str) -> bool:
    """Tell whether a refusal is about a schema, so that another one may be taken."""
    return bool(_OF_THE_SCHEMA.search(words))


def blamed(error: EndpointError, body: Mapping[str, Any]) -> list[str]:
    """Give the parameters of a request's body that an error names, the likeliest first.

    A name inside of a parameter (`chat_template_kwargs.enable_thinking`) stands for that parameter.
    """
    names = _names(body)
    pointed = _pointed_at(error)
    found = [
        (not _accused(name, error.message), at, names[name])
        for name in names
        if (at := _place(name, error.message)) >= 0
    ]
    first = [names[pointed]] if pointed in names else []
    return list(dict.fromkeys([*first, *(name for _, _, name in sorted(found))]))


def _names(body: Mapping[str, Any]) -> dict[str, str]:
    names: dict[str, str] = {}
    for name, value in body.items():
        if name not in RESERVED:
            names[name] = name
            if isinstance(value, dict) and name not in ("response_format", "tools", "tool_choice"):
                for inner in value:
                    names.setdefault(inner, name)
    return dict(list(names.items())[:_MAX_NAMES])


def _place(name: str, message: str) -> int:
    found = _spelled(name).search(message)
    return found.start() if found else -1


def _accused(name: str, message: str) -> bool:
    return bool(_accusation(name).search(message))


@lru_cache(maxsize=512)
def _spelled(name: str) -> re.Pattern[str]:
    one = re.escape(name)
    if "_" not in name and len(name) < 5:  # a word like any other (n, user, stop) unless it is called a parameter
        return re.compile(
            rf"['\"`‘“]{one}['\"`’”]|\b(?:invalid|range of|parameter|argument|value for|field|supplied):?\s{one}"
            rf"(?![a-z0-9_])|(?<![a-z0-9_]){one}(?:参数|\s?=)|^(?:HTTP \d+: )?{one}(?![a-z0-9_])",
            re.IGNORECASE,
        )
    return re.compile(rf"(?<![a-z0-9_]){one}(?![a-z0-9_])", re.IGNORECASE)


@lru_cache(maxsize=512)
def _accusation(name: str) -> re.Pattern[str]:
    one = rf"(?<![a-z0-9_]){re.escape(name)}(?![a-z0-9_])"
    return re.compile(rf"{_ACCUSING}{one}|{one}{_ACCUSED}", re.IGNORECASE)


def _pointed_at(error: EndpointError) -> str | None:
    """Give the parameter to which the error's `param` (OpenAI) or `loc` (FastAPI) points."""
    try:
        body = orjson.loads(error.provider.body) if error.provider else None
    except orjson.JSONDecodeError:
        return None
    if not isinstance(body, dict):
        return None
    inner = body.get("error")
    param = inner.get("param") if isinstance(inner, dict) else body.get("param")
    if isinstance(param, str) and param:
        return re.split(r"[.\[]", param, maxsplit=1)[0]
    detail = body.get("detail")
    first = detail[0] if isinstance(detail, list) and detail else None
    where = first.get("loc") if isinstance(first, dict) else None
    if isinstance(where, list):
        return next((one for one in where if isinstance(one, str) and one != "body"), None)
    return None
