"""Lines to items: a stream of lines in, a stream of items or failures out, in bounded memory."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from batchrun.ids import IdIndex, digest, repeated
from batchrun.lines import KEPT_OF_LONG_LINE, MAX_LINE_BYTES, HashedFile, open_input, read_chunks, split_lines
from batchrun.records import FAILURE_KEYS, ErrorKind, Failure, Item

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: The last key of a record, as records are spelled.
_LAST_KEY = b',"provider":'
#: A line that is not blank: its number, its bytes (the first ones, if it is too long), its whole length.
Line = tuple[int, bytes, int]


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input file, as `run.json` describes it. `blake2b` is of the bytes on disk; None if not read to its end."""

    path: str
    size: int | None
    lines: int
    blake2b: str | None


class Known(Protocol):
    """Tells which lines need not be looked at, because their items are finished."""

    def unfinished(self, lines: list[Line]) -> list[Line]:
        """Give the lines that must be looked at."""

    def line_skipped(self, key: bytes) -> int | None:
        """Give the line of an item (by its digest) that `unfinished` left out, None if it left out none."""


class ItemReader:
    """Reads items from files in order: `next_lines` in any thread, one call at a time, `parse` in one thread.

    `templated` says that the job's prompt template makes the messages, so that any object will do. Line numbers
    count on from file to file, so that they are unique within a run. Lines that `known` leaves out are not given.
    `limit` ends the input after so many entries, those left out included.
    """

    def __init__(
        self, paths: Sequence[str], *, encoding: str = "utf-8", templated: bool = False, known: Known | None = None,
        limit: int | None = None,
    ) -> None:  # fmt: skip
        self.files: list[InputFile] = []
        self.lines = 0
        self.skipped = 0
        self._known = known
        self._left = limit
        self._paths = list(paths)
        self._encoding = encoding
        self._templated = templated
        self._seen = IdIndex()
        self._uses: dict[bytes, int] = {}
        self._batches = self._read()

    def next_lines(self) -> list[Line]:
        """Give the next lines that are not blank, as many as came in one piece; an empty list at the end.

        Raises `InputError`.
        """
        while self._left != 0:  # looked at before more is read: standard input may have no more for a long time
            batch = next(self._batches, None)
            if batch is None:
                break
            if self._left is not None:
                batch = batch[: self._left]
                self._left -= len(batch)
            lines = batch if self._known is None else self._known.unfinished(batch)
            self.skipped += len(batch) - len(lines)
            if lines:
                return lines
        return []

    @property
    def is_stream(self) -> bool:
        """Tell whether the input may keep its readers waiting: standard input or a pipe."""
        return any(path == "-" or not Path(path).is_file() for path in self._paths)

    def __iter__(self) -> Iterator[Item | Failure]:
        """Read everything, one entry after the other. Raises `InputError`."""
        while batch := self.next_lines():
            yield from map(self.parse, batch)

    def parse(self, line: Line) -> Item | Failure:
        """Make an item of a line, or the failure that says what is wrong with it."""
        number, text, length = line
        if length > MAX_LINE_BYTES:
            kept = f"its first {len(text)} are kept here"
            message = f"line {number}: has {length} bytes; at most {MAX_LINE_BYTES} are read ({kept})"
            read: Item | Failure = _unusable(number, message, text)
        else:
            read = parse_line(text, number, encoding=self._encoding, templated=self._templated)
        read.crc = zlib.crc32(text)
        read.key = key = digest(read.id)
        first = self._first_use(key, number)
        if first is None:
            return read
        message = f"line {number}: the id {read.id!r} was used before, on line {first}"
        if isinstance(read, Item):
            again = Failure(read.id, number, ErrorKind.DUPLICATE_ID, message, read.raw)
        else:
            # A record of its own all the same: an unusable line that shared an item's id would stand for the item.
            again = Failure(read.id, number, ErrorKind.DUPLICATE_ID, f"{message}; {read.message}", read.input)
        again.key, again.crc = self._next_use(read.id, key), read.crc
        return again

    def _first_use(self, key: bytes, number: int) -> int | None:
        """Give the line on which an id was used before; None if this is its first use."""
        skipped = None if self._known is None else self._known.line_skipped(key)
        return self._seen.add(key, number) if skipped is None else skipped

    def _next_use(self, item_id: str, key: bytes) -> bytes:
        """Give the digest of one more use of an id, the second or a later one."""
        use = self._uses.get(key, 1) + 1
        while self._known is not None and self._known.line_skipped(repeated(item_id, use)) is not None:
            use += 1
        self._uses[key] = use
        return repeated(item_id, use)

    def _read(self) -> Iterator[list[Line]]:
        for path in self._paths:
            digest = blake2b(digest_size=16)
            first_line = self.lines
            with open_input(path) as file:
                raw = HashedFile(file, digest)
                for lines in split_lines(read_chunks(raw, path)):
                    start = self.lines + 1
                    self.lines += len(lines)
                    yield [
                        (number, text, length)
                        for number, (text, length) in enumerate(lines, start)
                        if text and not text.isspace()
                    ]
            size = None if path == "-" else raw.size
            self.files.append(InputFile(path, size, self.lines - first_line, digest.hexdigest()))


# --- one line ---------------------------------------------------------------------------------------------------


def parse_line(text: bytes, line: int, *, encoding: str = "utf-8", templated: bool = False) -> Item | Failure:
    """Make an item of one line, or the `invalid_input` failure that says what is wrong with it."""
    try:
        if encoding not in ("utf-8", "utf8") and not _is_requeued(text):
            text = text.decode(encoding).encode()
        raw = text.strip(b" \t\r\n")
        value = _loads_line(raw)
        if not isinstance(value, dict):
            raise _LineError(f"expected a JSON object, got {_kind(value)}")  # noqa: TRY301
    except UnicodeDecodeError as error:
        found = error.object[error.start : error.start + 1]
        offset = error.start + text.find(error.object)  # what was decoded may lack the blanks around it
        message = f"line {line}: not valid {encoding}: byte {found.hex().upper()} at offset {offset}"
        return _unusable(line, message, text)
    except (_LineError, ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        return _unusable(line, f"line {line}: {reason}", text)
    return _item(value, raw.replace(b"\n", b" "), line, templated=templated)


def _item(value: dict[str, Any], raw: bytes, line: int, *, templated: bool) -> Item | Failure:
    """Make an item of an object, or the failure that keeps the object and, where it has one, its id."""
    item_id = f"line:{line}"
    try:
        if len(value) == len(FAILURE_KEYS) and value.keys() == FAILURE_KEYS:
            return requeued(value, line, templated=templated)
        item_id = _id_of(value, line)
        if not templated:
            _check_form(value)
    except (ValueError, RecursionError) as error:
        return Failure(item_id, line, ErrorKind.INVALID_INPUT, f"line {line}: {error}", raw)
    return Item(item_id, line, raw, value)


class _LineError(ValueError):
    """What is wrong with a line."""


def _loads_line(raw: bytes) -> Any:
    """Read JSON. Of a record of a failure queue at least what is not the provider's, who may send odd numbers."""
    try:
        return _loads(raw)
    except (ValueError, RecursionError):
        rest = without_provider(raw)
        if rest is None:
            raise
        return _loads(rest)


def without_provider(raw: bytes) -> bytes | None:
    """Give a record of a failure queue with null for what the provider sent; None if it is no such record."""
    at = raw.find(_LAST_KEY) if all(b'"%s"' % key.encode() in raw for key in FAILURE_KEYS) else -1
    while at >= 0:
        rest = raw[:at] + _LAST_KEY + b"null}"
        try:
            orjson.loads(rest)
        except orjson.JSONDecodeError:  # it is a key inside of the item
            at = raw.find(_LAST_KEY, at + 1)
        else:
            return rest
    return None


def _loads(raw: bytes) -> Any:
    """Read JSON. Whole numbers of any length stay exact; what no double can hold is refused."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        value = _loads_exactly(raw.decode())  # raises with a better reason, where there is one
        if _has_lone_surrogate(value):
            raise _LineError(f"not valid JSON: {error}") from error
        return value
    return _loads_exactly(raw.decode()) if has_rounded(value) else value


def _loads_exactly(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise _LineError(f"not valid JSON: {error}") from error


def has_rounded(value: object) -> bool:
    """Tell whether a number in the value may be a whole number that the fast reader rounded to a float."""
    if isinstance(value, float):
        return abs(value) >= 2**63
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:  # noqa: SIM110 - a loop is cheaper, and this is done for every line
        if type(one) is not str and has_rounded(one):
            return True
    return False


def _has_lone_surrogate(value: object) -> bool:
    try:
        _dumps(value)
    except UnicodeEncodeError:
        return True
    return False


def _no_constant(name: str) -> None:
    raise _LineError(f"not valid JSON: {name} is not a JSON value")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise _LineError(f"the number {text[:40]} is too large; write it as a string")
    return number


def _id_of(value: dict[str, Any], line: int) -> str:
    for key in ("id", "custom_id"):
        if key in value:
            found = value[key]
            if isinstance(found, str):
                if not found:
                    raise _LineError(f"{key} is empty; leave it out or give one")
                return found
            if isinstance(found, int) and not isinstance(found, bool):
                return str(found)
            raise _LineError(f"{key}: expected a string or an integer, got {_kind(found)}")
    return f"line:{line}"


def _check_form(value: dict[str, Any]) -> None:
    """Check an item that must carry its own messages: prompt, messages, or an OpenAI Batch line."""
    if "body" in value and "prompt" not in value and "messages" not in value:
        _check_batch_line(value)
    elif "messages" in value:
        _check_messages(value["messages"], "messages")
    elif "prompt" in value:
        if not isinstance(value["prompt"], str):
            raise _LineError(f"prompt: expected a string, got {_kind(value['prompt'])}")
    else:
        keys = ", ".join(list(value)[:8]) or "no keys"
        raise _LineError(
            'expected "prompt", "messages" or an OpenAI Batch line with "body" '
            f"(or a job with a [prompt] template); found {keys}"
        )


def _check_batch_line(value: dict[str, Any]) -> None:
    body = value["body"]
    if not isinstance(body, dict):
        raise _LineError(f"body: expected an object, got {_kind(body)}")
    url = value.get("url", "/v1/chat/completions")
    if not (isinstance(url, str) and url.endswith("/chat/completions")):
        raise _LineError(f"url: only /v1/chat/completions can be run, got {url!r}")
    if value.get("method", "POST") != "POST":
        raise _LineError(f"method: expected POST, got {value['method']!r}")
    if "messages" not in body:
        raise _LineError("body.messages is missing")
    _check_messages(body["messages"], "body.messages")


def _check_messages(messages: object, key: str) -> None:
    if not isinstance(messages, list) or not messages:
        raise _LineError(f"{key}: expected a list of messages that is not empty")
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _LineError(f'{key}[{number}]: expected an object with "role" and "content"')


def _is_requeued(text: bytes) -> bool:
    """Tell whether a line is of a failure queue, which is UTF-8 whatever the encoding of the job is."""
    if not all(b'"%s"' % key.encode() in text for key in FAILURE_KEYS):
        return False
    try:
        value = _loads_line(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and value.keys() == FAILURE_KEYS


def requeued(record: dict[str, Any], line: int, *, templated: bool) -> Item | Failure:
    """Take the item out of a record of a failure queue; it keeps the id that it had there. Raises `ValueError`."""
    item_id = _id_of(record, line)
    held = record["input"]
    if _is_raw(held) and _was_unusable(record):
        in_base64 = held.get("raw_base64")
        text = base64.b64decode(in_base64) if isinstance(in_base64, str) else held["raw"].encode()
    else:
        text = _dumps(held)
    read = parse_line(text, line, templated=templated)
    return replace(read, id=item_id)


def _is_raw(held: object) -> bool:
    return isinstance(held, dict) and held.keys() <= {"raw", "raw_base64"} and isinstance(held.get("raw"), str)


def _was_unusable(record: dict[str, Any]) -> bool:
    """Tell whether a failure is that of a line, not of an item whose own field is called `raw`."""
    error = record["error"]
    kind = error.get("kind") if isinstance(error, dict) else None
    return kind in (ErrorKind.INVALID_INPUT, ErrorKind.DUPLICATE_ID) and record["attempts"] == 0


def _dumps(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _unusable(line: int, message: str, text: bytes) -> Failure:
    """Make the failure of a line that is no item; its bytes are kept, as text and, if they are no text, in base64."""
    kept = text[:KEPT_OF_LONG_LINE] if len(text) > MAX_LINE_BYTES else text
    try:
        held = {"raw": kept.decode()}
    except UnicodeDecodeError:
        held = {"raw": kept.decode("utf-8", "replace"), "raw_base64": base64.b64encode(kept).decode("ascii")}
    return Failure(f"line:{line}", line, ErrorKind.INVALID_INPUT, message, _dumps(held))


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
