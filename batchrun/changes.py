"""What changed since records were made: an answer to another prompt must never stand for this one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchrun.records import Failure, Request
from batchrun.store.index import RESULT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from batchrun.items import ItemReader
    from batchrun.prompts import RequestBuilder
    from batchrun.records import Item
    from batchrun.store.index import Index

_SHOWN_CHARS = 60
_NOTHING = bytes(8)


class Changes:
    """Compares items with the records that a run directory has of them.

    `recipe` is of what the requests are made from beside the items, now; `builders` make the requests that count as
    the same: those of the job first, then those of jobs whose results were accepted for it.
    """

    def __init__(self, index: Index, recipe: int, builders: list[RequestBuilder]) -> None:
        self._index = index
        self._recipe = recipe
        self._builders = builders

    def is_changed(self, entry: Item | Failure, row: int) -> bool:
        """Tell whether an entry of the input would now make another request than the one its record is of.

        What is found out the long way is kept in the index, so that the next pass finds it the short way.
        """
        index = self._index
        crc = index.crc(row)
        if crc == entry.crc and index.recipe(row) == self._recipe:
            index.confirm(row, entry.line, entry.crc, self._recipe)
            return False
        before = index.fingerprint(row)
        if before == _NOTHING and (crc is None or index.state[row] == RESULT):
            return False  # nothing is known that could differ
        if isinstance(entry, Failure):
            return before != _NOTHING
        if all(_fingerprint(builder.build(entry)) != before for builder in self._builders):
            return True
        index.confirm(row, entry.line, entry.crc, self._recipe)
        return False

    def all_met(self, reader: ItemReader, stopped: Callable[[], bool]) -> tuple[bool, bool]:
        """Read an input unparsed: tell whether it has every result's item unchanged, and whether it has nothing else.

        Ends early when `stopped` says so. Raises `InputError`.
        """
        self._index.prepare(self._recipe)
        nothing_else = True
        while reader.next_lines() and not stopped():
            nothing_else = False
        return self._index.met(RESULT) == self._index.results, nothing_else

    def changed_results(self, reader: ItemReader, stopped: Callable[[], bool]) -> Iterator[tuple[int, Item | Failure]]:
        """Give the results (row, and item as it is now) whose items are in the input and changed.

        Ends early when `stopped` says so. Raises `InputError`.
        """
        index = self._index
        index.prepare(self._recipe)
        for entry in reader:
            if stopped():
                return
            row = index.find(entry.key)
            if index.state[row] == RESULT and self.is_changed(entry, row):
                yield row, entry


def _fingerprint(made: Request | Failure) -> bytes:
    return bytes.fromhex(made.fingerprint)[:8] if isinstance(made, Request) else _NOTHING


def describe(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> list[str]:
    """Name what changed in a job, a line each; `before` is None where it is not known."""
    if before is None:
        return ["something of: prompt, model, parameters, schema"]
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return [
        f"{key} is not the same"
        if isinstance(before.get(key), dict | list) or isinstance(now.get(key), dict | list)
        else f"{key} was {_short(before.get(key))} and is {_short(now.get(key))}"
        for key in keys
    ]


def _short(value: object) -> str:
    text = "not set" if value is None else repr(value)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"


def refusal(
    output: object, job_changes: list[str], items: Iterable[Item | Failure], count: int, known: int
) -> list[str]:
    """Say that results are not of this job any more, what changed, and what can be done."""
    lines = [f"{output}: {count} of {known} results were made from something else; nothing was sent"]
    lines += [f"the job changed: {one}" for one in job_changes]
    if not job_changes:
        lines += [f"the item changed: line {item.line}, id {item.id!r}" for item in items]
    if job_changes and all(one.startswith("structured.") for one in job_changes):
        lines.append(
            "Only the schema changed: `batchrun reparse JOB` judges the answers by the new one, sending nothing"
        )
    lines.append(
        "Choose: --on-change keep (leave the results as they are), --on-change rerun (set them aside in "
        "outdated.jsonl and pay for new ones), or another output"
    )
    return lines
