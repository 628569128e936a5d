"""Which parameter of a request an error is about, by its own words."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrun.records import EndpointError

#: What batchrun sets itself, or what is no parameter.
_NOT_BLAMED = frozenset({"model", "messages", "stream", "stream_options"})
#: How refusals speak of the ways to ask for JSON, beside the names of the parameters.
_STRUCTURE = re.compile(
    r"response[_ ]?format|json[_ -]?schema|json[_ -]?object|json[_ -]mode|structured[_ -]output|guided[_ -]|grammar"
    r"|tool[_ -]?choice|\btools?\b|\bfunctions?[_ -]?call|工具|函数调用",
    re.IGNORECASE,
)
_MAX_NAMES = 200


def blames_structure(error: EndpointError) -> bool:
    """Tell whether an error is about `response_format`, tools, or what they hold."""
    return bool(_STRUCTURE.search(error.message)) or _pointed_at(error) in ("response_format", "tools", "tool_choice")


def blamed(error: EndpointError, body: Mapping[str, Any]) -> str | None:
    """Give the parameter of a request's body that an error names, the first that it names; None if it names none.

    A name inside of a parameter (`chat_template_kwargs.enable_thinking`) stands for that parameter.
    """
    names = _names(body)
    pointed = _pointed_at(error)
    if pointed in names:
        return names[pointed]
    found = [(at, names[name]) for name in names if (at := _place(name, error.message)) >= 0]
    return min(found)[1] if found else None


def _names(body: Mapping[str, Any]) -> dict[str, str]:
    names: dict[str, str] = {}
    for name, value in body.items():
        if name not in _NOT_BLAMED:
            names[name] = name
            if isinstance(value, dict) and name not in ("response_format", "tools", "tool_choice"):
                for inner in value:
                    names.setdefault(inner, name)
    return dict(list(names.items())[:_MAX_NAMES])


def _place(name: str, message: str) -> int:
    found = _spelled(name).search(message)
    return found.start() if found else -1


@lru_cache(maxsize=512)
def _spelled(name: str) -> re.Pattern[str]:
    one = re.escape(name)
    if len(name) < 3:  # `n` is a word of its own only where it is quoted or called a parameter
        return re.compile(
            rf"['\"`‘“]{one}['\"`’”]|\b(?:invalid|range of|parameter|argument|value for|field)\s{one}(?![a-z0-9_])"
            rf"|(?<![a-z0-9_]){one}(?:参数|\s?=)",
            re.IGNORECASE,
        )
    return re.compile(rf"(?<![a-z0-9_]){one}(?![a-z0-9_])", re.IGNORECASE)


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
