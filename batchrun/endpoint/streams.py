"""Server-sent events → one `chat.completion`, as if the answer had come in one piece.

Written for what providers really send: comments, blank lines, events cut anywhere, chunks without choices, choices
without a finish reason, ids that are empty from the second chunk on, a whole message at the end, an error in the
middle. Fields that nobody knows stay. Format: https://html.spec.whatwg.org/multipage/server-sent-events.html.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from batchrun.endpoint.errors import SUCCESS, says_error

#: Texts of a delta that are pieces of a whole. Of any other text nobody knows: it is one if its pieces differ.
_PIECES = ("content", "reasoning_content", "reasoning", "refusal")
#: One event may be so long, in bytes, and one answer may have so many choices, tool calls and fields that nobody knows:
#: enough for any provider, and a bound to the memory that a few bytes can come to.
MAX_EVENT_BYTES = 24 * 1024 * 1024
_MAX_CHOICES = 256
_MAX_CALLS = 1024
_MAX_FIELDS = 1024
_FEW_PIECES = 64
#: JSON with more values than this is not read.
MAX_VALUES = 1_000_000
_LINE_END = re.compile(rb"\r\n|\n|\r")
#: How a body begins that is a stream of events.
_BEGINNING = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*(?:data|event|id|retry|error)?:")


def begins_like_a_stream(body: bytes) -> bool:
    """Tell whether a body is events: its first line that is not blank has a field's name, or is a comment."""
    return bool(_BEGINNING.match(body))


class Stream:
    """Puts a stream together. `feed` it the bytes as they come, then `end` it; `completion` is what there is so far.

    `done` tells whether `[DONE]` came, `error` is the event that says an error, `malformed` an event that is no JSON,
    `excess` what there is too much of, in words: nothing is taken from then on.
    """

    def __init__(self) -> None:
        self.done = False
        self.excess: str | None = None
        self.error: dict[str, Any] | None = None
        self.malformed: bytes | None = None
        self._rest: list[bytes] = []
        self._data: list[bytes] = []
        #: Bytes of the line and of the lines of the event that are coming.
        self._rest_size = self._data_size = 0
        self._is_error_event = False
        self._whole: dict[str, Any] = {}
        self._choices: dict[int, _Choice] = {}
        self._progress = False

    def feed(self, data: bytes) -> bool:
        """Take bytes; tell whether there was content in them, which keep-alives and empty deltas are not."""
        self._progress = False
        if self.excess is not None:
            return False
        if self._rest and self._rest[-1].endswith(b"\r"):
            data = self._rest.pop() + data
        # A carriage return at the very end may be half of a line's end.
        usable = len(data) - 1 if data.endswith(b"\r") else len(data)
        last = max(data.rfind(b"\n", 0, usable), data.rfind(b"\r", 0, usable)) + 1
        if not last:
            self._rest.append(data)  # joined at a line's end only, for an event may be long
            # A long event that comes on is progress, a comment is none.
            progress = bool(data.strip()) and not self._rest[0].lstrip().startswith(b":")
            self._rest_size += len(data)
            self._check_size()
            return progress
        lines = _LINE_END.split(b"".join((*self._rest, data[:last])))
        self._rest = [data[last:]] if last < len(data) else []
        self._rest_size = len(data) - last
        for line in lines[:-1]:
            self._line(line)
        return self._progress

    def _check_size(self) -> None:
        if self._rest_size + self._data_size > MAX_EVENT_BYTES:
            self._exceed(f"an event of the stream is longer than {MAX_EVENT_BYTES >> 20} MB")

    def _exceed(self, words: str) -> None:
        self.excess = self.excess or words
        self.break_off()

    def break_off(self) -> None:
        """Leave what came last, for the rest of it is missing."""
        self._rest, self._data = [], []
        self._rest_size = self._data_size = 0

    def end(self) -> None:
        """Take what came last, though nothing marks its end."""
        for line in _LINE_END.split(b"".join(self._rest)):
            self._line(line)
        self._rest = []
        self._line(b"")

    def completion(self) -> dict[str, Any]:
        """Give the chat completion that the events make up."""
        whole = {**self._whole, "object": "chat.completion"}
        whole["choices"] = [choice.whole() for _, choice in sorted(self._choices.items())]
        return whole

    @property
    def is_whole(self) -> bool:
        """Tell whether an answer came to its end, as far as the choices say it."""
        ends = [choice.is_finished for choice in self._choices.values()]
        return bool(ends) and all(ends) and self.error is None and self.malformed is None

    def _line(self, line: bytes) -> None:
        if self.done or self.excess is not None:
            return  # what comes after the end is no part of the answer
        if not line:
            self._dispatch()
            return
        name, _, value = line.partition(b":")
        name = name.removeprefix(b"\xef\xbb\xbf").strip()
        value = value.removeprefix(b" ")
        if name == b"data" and value.strip() == b"[DONE]":
            self._dispatch()
            self.done = True
        elif name == b"data":
            # Some servers end an event, which is one line then, with one line end only.
            if len(self._data) == 1 and _parse(self._data[0]) is not None:
                self._dispatch()
            self._data.append(value)
            self._data_size += len(value)
            self._check_size()
        elif name == b"event":
            self._is_error_event = value.strip() == b"error"
        elif name == b"error":  # llama.cpp, for an error in the middle
            self._is_error_event = True
            self._data.append(value)

    def _dispatch(self) -> None:
        data, self._data, self._data_size = b"\n".join(self._data).strip(), [], 0
        is_error, self._is_error_event = self._is_error_event, False
        if not data:
            return
        event = _parse(data)
        if isinstance(event, dict):
            self._event(event, is_error)
        elif is_error:
            self._event({"error": event if event is not None else data.decode("utf-8", "replace")}, is_error)
        elif self.malformed is None:
            self.malformed = data

    def _event(self, event: dict[str, Any], is_error: bool) -> None:
        # DashScope's native protocol and some gateways put code and message at the top.
        is_bare = "choices" not in event and isinstance(event.get("message"), str)
        is_bare = is_bare and event.get("code", 0) not in SUCCESS
        if says_error(event) or is_error or is_bare:
            self._fail(event)
        for key, value in event.items():
            if key == "choices":
                for place, choice in enumerate(value if isinstance(value, list) else ()):
                    if isinstance(choice, dict):
                        self._choice(choice, place)
            elif not self._whole.get(key) or (value not in (None, "", {}) and key not in ("id", "model")):
                self._whole[key] = value
        if len(self._whole) > _MAX_FIELDS:
            self._exceed(f"the events of the stream have more than {_MAX_FIELDS} fields")
        if isinstance(event.get("usage"), dict):
            self._progress = True

    def _fail(self, event: dict[str, Any]) -> None:
        if self.error is None:
            self.error = event

    def _choice(self, choice: dict[str, Any], place: int) -> None:
        index = choice.get("index")
        if type(index) is not int:
            index = place
        known = self._choices.get(index)
        if known is None:
            known = self._choices[index] = _Choice(index)
        if known.add(choice):
            self._progress = True
        if len(self._choices) > _MAX_CHOICES or known.is_excessive:
            self._exceed("the stream has more choices, tool calls or fields than an answer can have")


class _Choice:
    """One choice: the pieces of its message, its tool calls, and what else its chunks say."""

    def __init__(self, index: int) -> None:
        self._fields: dict[str, Any] = {"index": index, "finish_reason": None}
        self._message: dict[str, Any] = {"role": "assistant"}
        self._pieces: dict[str, list[str]] = {}
        self._calls: list[dict[str, Any]] = []
        self._arguments: list[list[str]] = []
        self._places: dict[int, int] = {}

    def add(self, chunk: dict[str, Any]) -> bool:
        """Take a chunk's choice; tell whether it had content."""
        progress = False
        for key, value in sorted(chunk.items(), key=lambda pair: pair[0] == "message"):
            if key == "delta":
                if isinstance(value, dict):
                    progress = self._delta(value) or progress
            elif key == "message":
                if isinstance(value, dict):
                    progress = self._final(value) or progress
            elif key == "logprobs":
                self._logprobs(value)
            elif key != "index" and (value not in (None, "") or key not in self._fields):
                self._fields[key] = value
                progress = progress or key == "finish_reason"
        return progress

    @property
    def is_excessive(self) -> bool:
        """Tell whether it has more tool calls or fields than an answer can have."""
        fields = len(self._fields) + len(self._message) + len(self._pieces)
        return fields > _MAX_FIELDS or len(self._calls) > _MAX_CALLS

    @property
    def is_finished(self) -> bool:
        """Tell whether it said why it ended."""
        return bool(self._fields["finish_reason"])

    def whole(self) -> dict[str, Any]:
        """Give the choice as it would have come in one piece."""
        message = {key: _settled(value) for key, value in self._message.items()}
        for key, pieces in self._pieces.items():
            text = "".join(pieces) if key in _PIECES or len(set(pieces)) > 1 else pieces[0]
            if text or not isinstance(message.get(key), list):
                message[key] = text
        message.setdefault("content", None)
        if self._calls:
            message["tool_calls"] = [
                {**call, "function": {**call["function"], "arguments": "".join(arguments)}}
                for call, arguments in zip(self._calls, self._arguments, strict=True)
            ]
        finish = {key: value for key, value in self._fields.items() if key != "index"}
        return {"index": self._fields["index"], "message": message, **finish}

    def _delta(self, delta: dict[str, Any]) -> bool:
        progress = False
        for key, value in delta.items():
            if key == "function_call" and isinstance(value, dict):
                self._function(value)
                progress = True
            elif isinstance(value, str) and key != "role":
                self._text(key, value)
                progress = progress or bool(value)
            elif key == "tool_calls":
                for call in value if isinstance(value, list) else ():
                    if isinstance(call, dict):
                        self._call(call)
                        progress = True
            elif isinstance(value, list):
                if not isinstance(self._message.get(key), list):
                    self._message[key] = []
                _extend(self._message[key], value)
                progress = progress or bool(value)
            elif not value:
                self._message.setdefault(key, value)
            else:
                self._message[key] = value
        return progress

    def _final(self, message: dict[str, Any]) -> bool:
        """Take a whole message: some servers send one at the end, some a longer one each time.

        Of a text that the pieces so far begin with, only the rest is new.
        """
        new: dict[str, Any] = {}
        for key, value in message.items():
            if key in self._pieces and isinstance(value, str):
                so_far = self._so_far(key)
                if so_far is not None and value.startswith(so_far) and value != so_far:
                    self._pieces[key] = [value]
            elif key != "tool_calls" or not self._calls:
                new[key] = value
        return self._delta(new)

    def _so_far(self, key: str) -> str | None:
        """Give a text as far as it came; None for one that nobody knows, in too many pieces to be looked at again."""
        pieces = self._pieces[key]
        if key not in _PIECES:
            return "".join(pieces) if len(pieces) <= _FEW_PIECES else None
        pieces[:] = ["".join(pieces)]  # once and for all: it may be asked for at every event
        return pieces[0]

    def _call(self, piece: dict[str, Any]) -> None:
        call, arguments = self._call_at(piece)
        for key, value in piece.items():
            if key == "function":
                continue
            if value not in (None, "") or key not in call:
                call[key] = value
        function = piece.get("function")
        for key, value in function.items() if isinstance(function, dict) else ():
            if key == "arguments":
                arguments.append(value if isinstance(value, str) else "" if value is None else _dump(value).decode())
            elif value not in (None, "") or key not in call["function"]:
                call["function"][key] = value

    def _text(self, key: str, piece: str) -> None:
        parts = self._message.get(key)
        if isinstance(parts, list) and piece:
            parts.append({"type": "text", "text": piece})
        else:
            self._pieces.setdefault(key, []).append(piece)

    def _function(self, piece: dict[str, Any]) -> None:
        """Take a piece of a function call, the older form of a tool call."""
        call = self._message.get("function_call")
        if not isinstance(call, dict):
            call = self._message["function_call"] = {"name": "", "arguments": _Pieces()}
        for key, value in piece.items():
            if key == "arguments":
                _append(call, key, value if isinstance(value, str) else "")
            elif value:
                call[key] = value

    def _call_at(self, piece: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Find the call that a piece belongs to: by its index, else by its id, else the last one."""
        index, call_id = piece.get("index"), piece.get("id")
        if type(index) is int:
            place = self._places.get(index)
            known = self._calls[place].get("id") if place is not None else None
            if call_id and known and call_id != known:
                place = None  # some servers count every call as the first
        elif call_id:
            place = next((at for at, call in enumerate(self._calls) if call.get("id") == call_id), None)
        else:
            place = len(self._calls) - 1 if self._calls else None
        if place is None:
            place = len(self._calls)
            self._calls.append({"function": {}})
            self._arguments.append([])
            if type(index) is int:
                self._places[index] = place
        return self._calls[place], self._arguments[place]

    def _logprobs(self, value: Any) -> None:
        known = self._fields.get("logprobs")
        if isinstance(known, dict) and isinstance(value, dict):
            for key, more in value.items():
                if isinstance(known.get(key), list) and isinstance(more, list):
                    known[key].extend(more)
                elif more is not None:
                    known[key] = more
        elif value is not None or "logprobs" not in self._fields:
            self._fields["logprobs"] = value


def _extend(known: list[Any], more: list[Any]) -> None:
    """Add parts to a list; a part of the same index and type goes on where the last one ended (OpenRouter)."""
    for part in more:
        last = known[-1] if known else None
        if isinstance(part, dict) and isinstance(last, dict) and _goes_on(last, part):
            for key, value in part.items():
                is_text = isinstance(value, str) and isinstance(last.get(key), str | _Pieces)
                if is_text and key in ("text", "summary", "data"):
                    _append(last, key, value)
                elif value is not None:
                    last[key] = value
        else:
            known.append(dict(part) if isinstance(part, dict) else part)


class _Pieces(list[str]):
    """A text in pieces: adding to a long text again and again would copy it each time."""


def _append(fields: dict[str, Any], key: str, piece: str) -> None:
    known = fields.get(key)
    if not isinstance(known, _Pieces):
        known = fields[key] = _Pieces([known] if isinstance(known, str) else [])
    known.append(piece)


def _settled(value: Any) -> Any:
    """Join the texts in pieces of a part, or of a list of parts."""
    if isinstance(value, _Pieces):
        return "".join(value)
    if isinstance(value, dict):
        return {key: "".join(one) if isinstance(one, _Pieces) else one for key, one in value.items()}
    return [_settled(one) if isinstance(one, dict) else one for one in value] if isinstance(value, list) else value


def _goes_on(last: dict[str, Any], part: dict[str, Any]) -> bool:
    return "index" in part and (part["index"], part.get("type")) == (last.get("index"), last.get("type"))


def has_too_many_values(text: bytes) -> bool:
    """Tell whether JSON text may have more values than any answer has: each takes far more memory than its bytes."""
    return len(text) > MAX_VALUES and text.count(b",") + text.count(b"[") + text.count(b"{") > MAX_VALUES


def _parse(data: bytes) -> Any:
    if has_too_many_values(data):
        return None
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            return json.loads(data.decode("utf-8", "replace"), parse_constant=_refuse)
        except (ValueError, RecursionError):
            return None


def _refuse(name: str) -> None:
    raise ValueError(name)


def _dump(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value).encode()
