"""What each fault does to a call: a table."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from functools import cache
from itertools import chain

import orjson

from batchrun.simulator import replies
from batchrun.simulator.answers import MARK, fence, think_in_content
from batchrun.simulator.completion import Choice, Completion
from batchrun.simulator.dialects import Body, Dialect, Facts
from batchrun.simulator.problems import Problem

JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8"
OCTETS = "application/octet-stream"
HTML = "text/html; charset=utf-8"
#: The page of a gateway's web interface, as it comes from an address without the API's path.
WEB_PAGE = (
    '<!doctype html>\n<html lang="zh"><head><meta charset="utf-8"><title>Simulated gateway</title></head>'
    '<body><div id="root">模拟网关的网页，不是接口。</div></body></html>\n'
).encode()
_ERROR_PAGE = (
    "<html>\r\n<head><title>{0}</title></head>\r\n<body>\r\n"
    "<center><h1>{0}</h1></center>\r\n<hr><center>simulator</center>\r\n</body>\r\n</html>\r\n"
)
#: As models write it that call a tool in their own words.
_TOOL_MARKUP = (
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>simulated\n"
    '```json\n{"模拟": true}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
)
_OTHER_MODEL = "another-simulated-model"
_ELSEWHERE = "https://elsewhere.invalid/v1/chat/completions"  # a name that nobody can own
_BOMB_MIB = 112
_GZIP = 16 + zlib.MAX_WBITS
_MARKED_THOUGHT = f"{MARK}先想一想，再回答。"
_PROSE = f"{MARK}抱歉，这个问题没有办法按要求的格式回答，下面只做一点文字说明。"


@dataclass(frozen=True, slots=True)
class Scene:
    """What an effect can know: the family, the answer, whether a stream was asked for, and facts for messages."""

    dialect: Dialect
    completion: Completion
    stream: bool
    facts: Facts


@dataclass(frozen=True, slots=True)
class Instead:
    """What is sent instead of an answer."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Effect:
    """What a fault changes on the way of an answer; everything else stays as it is.

    `problem` and `instead` stand instead of an answer. `completion`, `choice`, `bodies` and `data` change the
    answer, its choices, the JSON bodies (one, or one per chunk) and their pieces. `headers` and `content_type`
    change the header, `pretty` the JSON layout, `latency_factor` the delay, `deliver` the sending. `json_only`
    effects do nothing to prose, `stream_only` and `plain_only` ones nothing to the other kind of call,
    `thinking_only` ones nothing where there is no thinking; `omit_required` asks for an answer without a property.
    """

    problem: Problem | None = None
    instead: Callable[[Scene], Instead] | None = None
    completion: Callable[[Completion], Completion] | None = None
    choice: Callable[[Choice], Choice] | None = None
    bodies: Callable[[list[Body], Scene], list[Body]] | None = None
    data: Callable[[list[bytes]], list[bytes]] | None = None
    headers: Callable[[], dict[str, str]] | None = None
    content_type: str | None = None
    pretty: bool = False
    latency_factor: float = 1.0
    deliver: replies.Deliver = replies.in_order
    json_only: bool = False
    stream_only: bool = False
    plain_only: bool = False
    thinking_only: bool = False
    omit_required: bool = False


def event(body: object) -> bytes:
    """Frame a body as an event of a stream."""
    return b"data: %b\n\n" % orjson.dumps(body)


def _page(status: int, page: bytes) -> Callable[[Scene], Instead]:
    return lambda _: Instead(status, page, HTML)


def _error_page(status: int, title: str) -> Callable[[Scene], Instead]:
    return _page(status, _ERROR_PAGE.format(title).encode())


def _bare_string(scene: Scene) -> Instead:
    return Instead(429, orjson.dumps(scene.dialect.message(Problem.REQUEST_RATE, scene.facts)))


def _base_resp(scene: Scene) -> Instead:
    body = {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}, "simulated": True}
    return Instead(200, event(body), EVENTS) if scene.stream else Instead(200, orjson.dumps(body))


def _framed(scene: Scene) -> Instead:
    body = scene.dialect.refuse(Problem.BAD_REQUEST, None, scene.facts)[1]
    return Instead(400, event(body) + b"\n\n", EVENTS)


def _double_encoded(scene: Scene) -> Instead:
    # What an upstream said, told on by two gateways, each of which takes the body for a text.
    message = orjson.dumps(scene.dialect.refuse(Problem.CONTENT_FILTER, None, scene.facts)[1]).decode()
    wrapped = orjson.dumps({"error": {"message": message}}).decode()
    return Instead(400, orjson.dumps(scene.dialect.tell(Problem.BAD_REQUEST, wrapped, None, scene.facts)[1]))


def _bomb(_scene: Scene) -> Instead:
    return Instead(200, _bomb_body(), JSON, {"Content-Encoding": "gzip"})


@cache
def _bomb_body() -> bytes:
    packer = zlib.compressobj(wbits=_GZIP)
    pieces = [packer.compress(b'{"simulated": true, "padding": "')]
    pieces += [packer.compress(b" " * 2**20) for _ in range(_BOMB_MIB)]
    return b"".join((*pieces, packer.compress(b'"}'), packer.flush()))


def _retry_after(value: str) -> Callable[[], dict[str, str]]:
    return lambda: {"Retry-After": value}


def _retry_after_date() -> dict[str, str]:
    # HTTP dates have whole seconds: rounded down, one second ahead could be now.
    return {"Retry-After": formatdate(math.ceil(time.time()) + 1, usegmt=True)}


def _cut_choice(finish_reason: str) -> Callable[[Choice], Choice]:
    return lambda choice: replace(choice, text=choice.text[: len(choice.text) // 2], finish_reason=finish_reason)


def _content(text: str) -> Callable[[Choice], Choice]:
    return lambda choice: Choice(text, "stop", reasoning=choice.reasoning)


def _fenced(choice: Choice) -> Choice:
    return choice if choice.text.startswith("```") else replace(choice, text=fence(choice.text))


def _prose(choice: Choice) -> Choice:
    return replace(choice, text=_PROSE)


def _thinking_inside(choice: Choice) -> Choice:
    return think_in_content(replace(choice, reasoning=choice.reasoning or _MARKED_THOUGHT))


def _without_choices(value: list[Body] | None) -> Callable[[list[Body], Scene], list[Body]]:
    return lambda bodies, _: [{**body, "choices": value} for body in bodies]


def _error_only(_bodies: list[Body], scene: Scene) -> list[Body]:
    return [scene.dialect.refuse(Problem.SERVER, None, scene.facts)[1]]


def _in_parts(bodies: list[Body], _scene: Scene) -> list[Body]:
    for part in chain.from_iterable(body["choices"] for body in bodies):
        message = part.get("message") or part.get("delta") or {}
        if isinstance(message.get("content"), str):
            message["content"] = [{"type": "text", "text": message["content"]}]
    return bodies


def _without_usage(bodies: list[Body], scene: Scene) -> list[Body]:
    bare = [body for body in bodies if body["choices"]] if scene.stream else bodies
    for body in bare:
        body.pop("usage", None)
        for part in body["choices"]:
            part.pop("usage", None)
    return bare


def _usage_in_choice(bodies: list[Body], scene: Scene) -> list[Body]:
    bare = _without_usage(bodies, scene)
    bare[-1]["choices"][-1]["usage"] = scene.dialect.shape.usage(scene.completion)
    return bare


def _usage_merged(bodies: list[Body], scene: Scene) -> list[Body]:
    bare = _without_usage(bodies, scene)
    bare[-1]["usage"] = scene.dialect.shape.usage(scene.completion)
    return bare


def _usage_chunk(bodies: list[Body], scene: Scene) -> list[Body]:
    bare = _without_usage(bodies, scene)
    return [*bare, {**bare[-1], "choices": [], "usage": scene.dialect.shape.usage(scene.completion)}]


def _half(bodies: list[Body], _scene: Scene) -> list[Body]:
    return bodies[: len(bodies) // 2]


def _half_then_error(bodies: list[Body], scene: Scene) -> list[Body]:
    return [*_half(bodies, scene), *_error_only(bodies, scene)]


def _half_then_error_chunk(bodies: list[Body], scene: Scene) -> list[Body]:
    (error,) = _error_only(bodies, scene)
    kept = _half(bodies, scene)
    part = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
    return [*kept, {**kept[-1], **error, "choices": [part]}]


def _cut_data(pieces: list[bytes]) -> list[bytes]:
    """Keep half of the pieces, the last of them cut in the middle."""
    kept = pieces[: len(pieces) // 2 + 1]
    return [*kept[:-1], kept[-1][: len(kept[-1]) // 2]]


def _without_last(pieces: list[bytes]) -> list[bytes]:
    return pieces[:-1]


def _nothing(_pieces: list[bytes]) -> list[bytes]:
    return [b""]


def _blank_lines(_pieces: list[bytes]) -> list[bytes]:
    return [b"\n" * 12]


#: The effect of every fault.
EFFECTS: Mapping[str, Effect] = {
    "quota_after_n": Effect(problem=Problem.QUOTA),
    "moderation_on_keyword": Effect(problem=Problem.CONTENT_FILTER),
    "unauthorized": Effect(problem=Problem.WRONG_KEY),
    "payment_required": Effect(problem=Problem.PAYMENT),
    "forbidden": Effect(problem=Problem.FORBIDDEN),
    "model_not_found": Effect(problem=Problem.MODEL_NOT_FOUND),
    "daily_limit": Effect(problem=Problem.DAILY_LIMIT),
    "html_200": Effect(instead=_page(200, WEB_PAGE)),
    "redirect_elsewhere": Effect(instead=lambda _: Instead(307, b"", HTML, {"Location": _ELSEWHERE})),
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
    "empty_429": Effect(instead=lambda _: Instead(429, b"")),
    "bare_string_error": Effect(instead=_bare_string),
    "burst_limit": Effect(problem=Problem.BURST),
    "throttle_quota": Effect(problem=Problem.THROTTLED),
    "balance_capped_concurrency": Effect(problem=Problem.BALANCE_CONCURRENCY),
    "engine_overloaded": Effect(problem=Problem.OVERLOADED),
    "reset": Effect(deliver=replies.reset),
    "reset_mid_body": Effect(deliver=replies.reset_mid_body),
    "truncated": Effect(deliver=replies.truncated),
    "hang": Effect(deliver=replies.hang),
    "empty_200": Effect(data=_nothing, deliver=replies.then_close),
    "blank_lines_200": Effect(data=_blank_lines, deliver=replies.then_close),
    "blank_lines_then_json": Effect(deliver=replies.after_keep_alives),
    "sse_keepalive": Effect(deliver=replies.among_keep_alives, stream_only=True),
    "sse_comments_forever": Effect(deliver=replies.keep_alives_forever),
    "choices_null": Effect(bodies=_without_choices(None)),
    "choices_empty": Effect(bodies=_without_choices([])),
    "bad_json": Effect(data=_cut_data),
    "error_in_200": Effect(bodies=_error_only),
    "base_resp_200": Effect(instead=_base_resp),
    "html_502": Effect(instead=_error_page(502, "502 Bad Gateway")),
    "html_504": Effect(instead=_error_page(504, "504 Gateway Time-out")),
    "octet_stream_500": Effect(problem=Problem.SERVER, content_type=OCTETS),
    "gzip_bomb": Effect(instead=_bomb),
    "no_done": Effect(data=_without_last, stream_only=True),
    "done_without_finish": Effect(bodies=_half, stream_only=True),
    "stream_cut": Effect(bodies=_half, data=_without_last, stream_only=True),
    "error_mid_stream": Effect(bodies=_half_then_error_chunk, stream_only=True),
    "error_after_text": Effect(bodies=_half_then_error, data=_without_last, stream_only=True),
    "whitespace_content": Effect(choice=_content("   \n ")),
    "tool_markup_in_content": Effect(choice=_content(_TOOL_MARKUP)),
    "finish_null": Effect(choice=lambda choice: replace(choice, finish_reason=None)),
    "finish_insufficient_system_resource": Effect(choice=_cut_choice("insufficient_system_resource")),
    "finish_aborted": Effect(choice=_cut_choice("aborted")),
    "finish_network_error": Effect(choice=_cut_choice("network_error")),
    "usage_in_choice": Effect(bodies=_usage_in_choice, stream_only=True),
    "usage_chunk_empty_choices": Effect(bodies=_usage_chunk, stream_only=True),
    "usage_merged": Effect(bodies=_usage_merged, stream_only=True),
    "no_usage": Effect(bodies=_without_usage),
    "no_reasoning": Effect(choice=lambda choice: replace(choice, reasoning=None), thinking_only=True),
    "think_in_content": Effect(choice=_thinking_inside),
    "content_parts": Effect(bodies=_in_parts),
    "other_model": Effect(completion=lambda answer: replace(answer, model=_OTHER_MODEL)),
    "wrong_content_type": Effect(content_type=HTML),
    "pretty_json": Effect(pretty=True, plain_only=True),
    "slow": Effect(latency_factor=10.0),
    "fenced_json": Effect(choice=_fenced, json_only=True),
    "content_filter_400": Effect(problem=Problem.CONTENT_FILTER),
    "content_filter_finish": Effect(choice=_cut_choice("content_filter")),
    "finish_sensitive": Effect(choice=_cut_choice("sensitive")),
    "double_encoded_error": Effect(instead=_double_encoded),
    "context_length": Effect(problem=Problem.CONTEXT_LENGTH),
    "length": Effect(choice=_cut_choice("length")),
    "empty_content": Effect(choice=_content("")),
    "bad_request": Effect(problem=Problem.BAD_REQUEST),
    "octet_stream_error": Effect(problem=Problem.BAD_REQUEST, content_type=OCTETS),
    "sse_framed_error": Effect(instead=_framed),
    "invalid_json_output": Effect(choice=_prose, json_only=True),
    "missing_field": Effect(json_only=True, omit_required=True),
}
