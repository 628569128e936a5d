"""What each fault does to a call: a table."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from email.utils import formatdate

from batchrun.simulator import replies
from batchrun.simulator.answers import MARK, fence
from batchrun.simulator.completion import Choice
from batchrun.simulator.dialects import Body, Dialect, Problem

HTML = "text/html; charset=utf-8"
#: The page of a gateway's web interface, as it comes from an address without the API's path.
WEB_PAGE = (
    '<!doctype html>\n<html lang="zh"><head><meta charset="utf-8"><title>Simulated gateway</title></head>'
    '<body><div id="root">模拟网关的网页，不是接口。</div></body></html>\n'
).encode()
_BAD_GATEWAY_PAGE = (
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n"
    b"<center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>simulator</center>\r\n</body>\r\n</html>\r\n"
)
_PROSE = f"{MARK}抱歉，这个问题没有办法按要求的格式回答，下面只做一点文字说明。"


@dataclass(frozen=True, slots=True)
class Effect:
    """What a fault changes on the way of an answer; everything else stays as it is.

    `problem` and `page` (status and web page) stand instead of an answer. `choice`, `bodies` and `data`
    change the choices, the JSON bodies (one, or one per chunk) and their pieces. `headers` and
    `content_type` change the header, `pretty` the JSON layout, `latency_factor` the delay, `deliver` the
    sending. `json_only` effects do nothing to prose; `omit_required` asks for an answer without a property.
    """

    problem: Problem | None = None
    page: tuple[int, bytes] | None = None
    choice: Callable[[Choice], Choice] | None = None
    bodies: Callable[[list[Body], Dialect], list[Body]] | None = None
    data: Callable[[list[bytes]], list[bytes]] | None = None
    headers: Callable[[], dict[str, str]] | None = None
    content_type: str | None = None
    pretty: bool = False
    latency_factor: float = 1.0
    deliver: replies.Deliver = replies.in_order
    json_only: bool = False
    omit_required: bool = False


def _retry_after(value: str) -> Callable[[], dict[str, str]]:
    return lambda: {"Retry-After": value}


def _retry_after_date() -> dict[str, str]:
    # HTTP dates have whole seconds: rounded down, one second ahead could be now.
    return {"Retry-After": formatdate(math.ceil(time.time()) + 1, usegmt=True)}


def _cut_choice(finish_reason: str) -> Callable[[Choice], Choice]:
    return lambda choice: replace(choice, text=choice.text[: len(choice.text) // 2], finish_reason=finish_reason)


def _content(text: str) -> Callable[[Choice], Choice]:
    return lambda _: Choice(text, "stop")


def _fenced(choice: Choice) -> Choice:
    return choice if choice.text.startswith("```") else replace(choice, text=fence(choice.text))


def _prose(choice: Choice) -> Choice:
    return replace(choice, text=_PROSE)


def _without_choices(value: list[Body] | None) -> Callable[[list[Body], Dialect], list[Body]]:
    return lambda bodies, _: [{**body, "choices": value} for body in bodies]


def _error_only(_bodies: list[Body], dialect: Dialect) -> list[Body]:
    return [dialect.refuse(Problem.SERVER, None, {})[1]]


def _cut_data(pieces: list[bytes]) -> list[bytes]:
    """Keep half of the pieces, the last of them cut in the middle."""
    kept = pieces[: len(pieces) // 2 + 1]
    return [*kept[:-1], kept[-1][: len(kept[-1]) // 2]]


def _nothing(_pieces: list[bytes]) -> list[bytes]:
    return [b""]


def _blank_lines(_pieces: list[bytes]) -> list[bytes]:
    return [b"\n" * 12]


#: The effect of every fault.
EFFECTS: Mapping[str, Effect] = {
    "unauthorized": Effect(problem=Problem.WRONG_KEY),
    "payment_required": Effect(problem=Problem.PAYMENT),
    "forbidden": Effect(problem=Problem.FORBIDDEN),
    "model_not_found": Effect(problem=Problem.MODEL_NOT_FOUND),
    "html_200": Effect(page=(200, WEB_PAGE)),
    "http_500": Effect(problem=Problem.SERVER),
    "http_502": Effect(problem=Problem.BAD_GATEWAY),
    "http_503": Effect(problem=Problem.UNAVAILABLE),
    "http_408": Effect(problem=Problem.TIMEOUT),
    "http_409": Effect(problem=Problem.CONFLICT),
    "http_425": Effect(problem=Problem.TOO_EARLY),
    "http_429": Effect(problem=Problem.REQUEST_RATE, headers=_retry_after("1")),
    "http_429_date": Effect(problem=Problem.REQUEST_RATE, headers=_retry_after_date),
    "http_429_absurd": Effect(problem=Problem.REQUEST_RATE, headers=_retry_after("100000")),
    "retry_after_garbage": Effect(problem=Problem.REQUEST_RATE, headers=_retry_after("soon")),
    "reset": Effect(deliver=replies.reset),
    "reset_mid_body": Effect(deliver=replies.reset_mid_body),
    "truncated": Effect(deliver=replies.truncated),
    "hang": Effect(deliver=replies.hang),
    "empty_200": Effect(data=_nothing, deliver=replies.then_close),
    "blank_lines_200": Effect(data=_blank_lines, deliver=replies.then_close),
    "blank_lines_then_json": Effect(deliver=replies.after_keep_alives),
    "choices_null": Effect(bodies=_without_choices(None)),
    "choices_empty": Effect(bodies=_without_choices([])),
    "bad_json": Effect(data=_cut_data),
    "error_in_200": Effect(bodies=_error_only),
    "html_502": Effect(page=(502, _BAD_GATEWAY_PAGE)),
    "octet_stream_500": Effect(problem=Problem.SERVER, content_type="application/octet-stream"),
    "whitespace_content": Effect(choice=_content("   \n ")),
    "wrong_content_type": Effect(content_type=HTML),
    "pretty_json": Effect(pretty=True),
    "slow": Effect(latency_factor=10.0),
    "fenced": Effect(choice=_fenced, json_only=True),
    "content_filter_400": Effect(problem=Problem.CONTENT_FILTER),
    "content_filter_finish": Effect(choice=_cut_choice("content_filter")),
    "context_length": Effect(problem=Problem.CONTEXT_LENGTH),
    "length": Effect(choice=_cut_choice("length")),
    "empty_content": Effect(choice=_content("")),
    "bad_request": Effect(problem=Problem.BAD_REQUEST),
    "invalid_json_output": Effect(choice=_prose, json_only=True),
    "missing_field": Effect(json_only=True, omit_required=True),
}
