"""Samples for the page: a few results and a few failures of each kind, what went in beside what came out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchrun.items import parse_line
from batchrun.job import JobError
from batchrun.lines import HashedFile, InputError, expand_inputs, open_input, read_chunks, split_lines
from batchrun.records import Item

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from batchrun.job import Job
    from batchrun.report.visible import Veil


@dataclass(frozen=True, slots=True)
class Passage:
    """A text as it is shown; `length` is how many characters it has where it was cut, else 0."""

    text: str
    length: int = 0


@dataclass(slots=True)
class Sample:
    """One record as it is shown. None for `input` and `output`: there is none, or it is not to be had."""

    id: str
    line: int
    attempts: int
    input: Passage | None
    output: Passage | None
    message: str = ""
    status: int | None = None
    code: str = ""
    duration_s: float | None = None
    tokens: int | None = None
    method: str = ""
    repairs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    #: By which its line in the input is known again.
    raw_id: str = ""


def result_sample(record: Mapping[str, Any], veil: Veil) -> Sample:
    """Make a sample of a result, still without its input."""
    extraction = record.get("extraction") if isinstance(record.get("extraction"), dict) else {}
    output = record.get("output")
    return Sample(
        veil.cut(str(record["id"]))[0], _whole(record.get("line")) or 0, _whole(record.get("attempts")) or 0, None,
        Passage(*veil.cut(_in_words(_answer(record) if output is None else output))),
        duration_s=_number(record.get("duration_s")), tokens=_tokens(record),
        method=str((extraction or {}).get("method") or ""),
        repairs=tuple(str(one)[:60] for one in (extraction or {}).get("repairs") or ())[:6],
        warnings=tuple(veil.cut(str(one))[0] for one in record.get("warnings") or ())[:6], raw_id=str(record["id"]),
    )  # fmt: skip


def failure_sample(record: Mapping[str, Any], veil: Veil) -> Sample:
    """Make a sample of a failure. What was not sent because of what it holds is not shown either."""
    error = record["error"]
    kept_back = error.get("kind") == "data_boundary"
    given = None if kept_back or record.get("input") is None else Passage(*veil.cut(_given(record["input"])))
    output = _answer(record)
    return Sample(
        veil.cut(str(record["id"]))[0], _whole(record.get("line")) or 0, _whole(record.get("attempts")) or 0, given,
        None if output is None else Passage(*veil.cut(_in_words(output))), message=veil.cut(str(error["message"]))[0],
        status=_whole(error.get("http_status")), code=veil.cut(str(error.get("code") or ""))[0],
        tokens=_tokens(record),
    )  # fmt: skip


def add_inputs(samples: list[Sample], job: Job, veil: Veil) -> None:
    """Look up what went in for these results, where the input files are still there and hold their items."""
    wanted = {sample.line: sample for sample in samples}
    if not wanted or "-" in job.input:
        return
    try:
        for number, text in _lines(job, set(wanted)):
            item = parse_line(text, number, encoding=job.encoding, templated=job.prompt is not None)
            sample = wanted[number]
            if isinstance(item, Item) and item.id == sample.raw_id:
                sample.input = Passage(*veil.cut(_given(item.fields)))
    except (InputError, JobError, OSError):
        return  # the page can be made without the input


def _lines(job: Job, wanted: set[int]) -> Iterator[tuple[int, bytes]]:
    number = 0
    for path in expand_inputs(job.input):
        with open_input(path) as file:
            for lines in split_lines(read_chunks(HashedFile(file), path)):
                start, number = number + 1, number + len(lines)
                found = sorted(one for one in wanted if start <= one <= number)
                yield from ((one, lines[one - start][0]) for one in found)
                wanted.difference_update(found)
                if not wanted:
                    return


# --- in words -----------------------------------------------------------------------------------------------------


def _given(value: Any) -> str:
    """Show an item: its prompt or its messages where it is no more than that, else its fields."""
    if not isinstance(value, dict):
        return _in_words(value)
    fields = {key: one for key, one in value.items() if key not in ("id", "custom_id")}
    body = fields.get("body")
    if isinstance(body, dict) and isinstance(body.get("messages"), list):
        fields = {"messages": body["messages"]}
    if len(fields) == 1:
        name, only = next(iter(fields.items()))
        if name == "messages" and isinstance(only, list):
            return "\n\n".join(_message(one) for one in only)
        if isinstance(only, str):
            return only
    return _in_words(fields)


def _message(message: Any) -> str:
    if not isinstance(message, dict):
        return _in_words(message)
    return f"[{message.get('role')}]\n{_in_words(message.get('content'))}"


def _answer(record: Mapping[str, Any]) -> Any:
    """Give what came back: the answer's text or its calls, else the body; None if there was nothing."""
    provider = record.get("provider")
    if not isinstance(provider, dict):
        return None
    body: Any = provider.get("body")
    try:
        message = body["choices"][0]["message"]
        content, calls = message.get("content"), message.get("tool_calls")
    except (AttributeError, IndexError, KeyError, TypeError):
        return body
    return calls if calls and not content else body if content is None else content


def _in_words(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, indent=2)
    except (RecursionError, ValueError):
        return "…"


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _tokens(record: Mapping[str, Any]) -> int | None:
    usage = record.get("usage")
    return _whole(usage.get("total_tokens")) if isinstance(usage, dict) else None
