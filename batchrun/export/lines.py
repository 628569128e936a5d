"""The text formats: rows to lines of JSON, of CSV, and of the files that OpenAI's Batch API gives."""

from __future__ import annotations

import csv
import io
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import orjson

from batchrun.export.cells import MOST_CHARS, cell
from batchrun.export.columns import as_json
from batchrun.export.rows import FAILURE, PENDING, JsonText

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from batchrun.export.columns import Column
    from batchrun.export.rows import Row

_BOM = b"\xef\xbb\xbf"
#: About so much is given at a time.
_CHUNK = 64 * 1024


def gathered(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Give lines some together, so that each writing is worth its while."""
    held, size = [], 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size >= _CHUNK:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join(held)


def json_lines(columns: Sequence[Column], rows: Iterable[Row]) -> Iterator[bytes]:
    """Give one JSON object a row, with the columns' names as its keys, all always there."""
    for row in rows:
        values = {one.name: one.value(row) for one in columns}
        for name, value in values.items():
            if isinstance(value, JsonText):
                values[name] = orjson.Fragment(value.text)
        try:
            yield orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE)
        except TypeError:  # whole numbers over 64 bits, which the fast writer refuses
            exact = {one.name: orjson.Fragment(as_json(one.value(row))) for one in columns}
            yield orjson.dumps(exact, option=orjson.OPT_APPEND_NEWLINE)


def csv_lines(columns: Sequence[Column], rows: Iterable[Row], too_long: Callable[[], None]) -> Iterator[bytes]:
    """Give a CSV file as Excel reads it: UTF-8 with a byte-order mark, CRLF, quoting by RFC 4180.

    `too_long` is called for each cell that is longer than Excel keeps.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([cell(one.name) for one in columns])
    yield _BOM
    for row in rows:
        cells = [cell(one.value(row)) for one in columns]
        for one in cells:
            if len(one) > MOST_CHARS:
                too_long()
        writer.writerow(cells)
        if text.tell() > _CHUNK:
            yield _taken(text)
    yield _taken(text)


def _taken(text: io.StringIO) -> bytes:
    data = text.getvalue().encode("utf-8", "replace")
    text.seek(0)
    text.truncate()
    return data


def batch_lines(rows: Iterable[Row], run_id: str) -> Iterator[bytes]:
    """Give lines as OpenAI's Batch API writes them: results as in its output file, failures as in its error file.

    As there, an answer with an HTTP error is a `response`; what failed otherwise (no answer, no valid output, never
    sent) has an `error` with batchrun's kind as its code, and no response, so that nobody takes it for an answer.
    `id` is made from run and item, the same each time.
    """
    for row in rows:
        response = _response(row)
        line = {
            "id": f"batch_req_{blake2b(f'{run_id} {row.line} {row.id}'.encode(), digest_size=12).hexdigest()}",
            "custom_id": row.id,
            "response": response,
            "error": None if response else _error(row),
        }
        yield orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _response(row: Row) -> dict[str, Any] | None:
    if row.record is None:
        return None
    provider, body = row.record.sent()
    is_answer = row.status != FAILURE or provider["status"] // 100 != 2
    if not is_answer or not body.startswith(b"{"):
        return None
    return {
        "status_code": provider["status"],
        "request_id": _request_id(provider["headers"]),
        "body": orjson.Fragment(body),
    }


def _request_id(headers: dict[str, str]) -> str:
    """Give the id that the provider gave the request, whatever it calls the header; "" if it gave none."""
    named = [name for name in headers if name.endswith(("request-id", "trace-id"))]
    return str(headers[min(named, key=lambda name: (name != "x-request-id", name))]) if named else ""


def _error(row: Row) -> dict[str, Any]:
    error = row.values.get("error") or {}
    if row.status == PENDING:
        error = {"kind": PENDING, "message": "The item has not been run yet."}
    return {"code": error.get("kind"), "message": error.get("message")}
