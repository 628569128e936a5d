"""Extraction and validation again over the stored answers, when schema or parser changed; nothing is sent.

New versions of the files are written beside the old ones and put in place together, so that a crash leaves either all
of the old or all of the new.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from batchrun.endpoint.answers import understand
from batchrun.endpoint.recognise import choose
from batchrun.guard import comparing
from batchrun.items import ItemReader, parse_line
from batchrun.job import JobError, as_plain
from batchrun.lines import expand_inputs
from batchrun.output import Judge, Schema
from batchrun.prompts import RequestBuilder, accepted_builders, effective_mode, made_from, recipe_of
from batchrun.records import RESTORED, EndpointError, ErrorKind, Failure, Item, Provider, Request, Result, Usage
from batchrun.store import RunDirectory, StoreError
from batchrun.store.files import last_value, read_lines
from batchrun.store.index import PENDING, RESULT, state_of
from batchrun.store.queue import Keys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchrun.locate import Located
    from batchrun.records import Extraction, Response
    from batchrun.store.index import Row

#: On the record of an item whose output was found again from its stored answer.
WARNING = "reparsed"
#: What is stored of these failures may be the beginning of an answer, however whole it looks.
_BROKEN_OFF = (ErrorKind.TIMEOUT, ErrorKind.NETWORK, ErrorKind.INVALID_RESPONSE)


@dataclass(slots=True)
class Reparsed:
    """What reparsing did: results looked at, outputs that are new, results that failed, failures that are results."""

    output: str
    results: int = 0
    failures: int = 0
    changed: int = 0
    failed: int = 0
    cured: int = 0
    failures_by_kind: dict[str, int] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """Give 0 if there is no failure now, else 3."""
        return 3 if self.failures else 0

    def as_dict(self) -> dict[str, Any]:
        """Give it as JSON values."""
        return {
            "output": self.output,
            "exit_code": self.exit_code,
            "counts": {
                "results": self.results, "failures": self.failures, "outputs_changed": self.changed,
                "results_that_failed": self.failed, "failures_cured": self.cured,
                "failures_by_kind": self.failures_by_kind,
            },
        }  # fmt: skip


def reparse(located: Located) -> Reparsed:
    """Judge every stored answer again by the job as it is now.

    Raises `JobError` where an item that would fail is not in the input (a failure keeps its input), `LockedError` or
    `StoreError`; nothing is changed then.
    """
    store = RunDirectory(located.folder)
    try:
        return _Reparser(located, store).run()
    finally:
        store.close()


class _Reparser:
    def __init__(self, located: Located, store: RunDirectory) -> None:
        self._job, self._store, self._manifest = located.job, store, located.manifest
        if self._job.data_boundary.restore:
            raise JobError("data_boundary.restore: the stored answers hold placeholders, which reparse cannot put back")
        schema = Schema.of(self._job.structured)
        text = schema.text if schema else None
        self._judge = Judge(schema)
        endpoint = self._job.endpoint
        self._dialect = choose(endpoint.dialect, endpoint.base_url, endpoint.simulate)
        self._made = made_from(self._job, text)
        self._recipe = recipe_of(self._made)
        self._accepted = list(self._manifest.get("accepted") or [])
        self._old_recipe = self._accept_old_schema()
        #: Make the requests that the stored answers may be answers to.
        guard = comparing(self._job)
        accepted = accepted_builders(self._job, text, self._accepted, guard)
        self._builders = [RequestBuilder(self._job, text, guard=guard), *accepted]
        self._failing: dict[bytes, EndpointError] = {}
        self._cured: set[bytes] = set()
        self._done = Reparsed(str(located.folder))

    def run(self) -> Reparsed:
        """Look at everything, then write, and only if something changes."""
        self._look()
        inputs = self._inputs() if self._failing else {}
        done, store = self._done, self._store
        done.failed, done.cured = len(self._failing), len(self._cured)
        if done.changed or done.failed or done.cured or self._old_recipe != self._recipe:
            store.begin(self._recipe, self._manifest)
            store.replace_records(self._results(), self._failures(inputs), self._rows())
            store.settle()
        done.results, done.failures = store.results, store.failures
        done.failures_by_kind = dict(sorted((+store.failure_kinds).items()))
        if self._manifest:
            store.save_manifest({**self._manifest, **self._news()})
        return done

    def _news(self) -> dict[str, Any]:
        """Give what is new in the manifest."""
        done, summary = self._done.as_dict(), self._manifest.get("summary")
        if summary:
            now = {key: done["counts"][key] for key in ("results", "failures", "failures_by_kind")}
            summary = {**summary, "exit_code": done["exit_code"], "counts": {**(summary.get("counts") or {}), **now}}
        return {
            "job": as_plain(replace(self._job, path=None)),
            "working_directory": str(Path.cwd()),
            "made_from": self._made,
            "accepted": self._accepted,
            "reparsed": done,
            "summary": summary,
        }

    def _accept_old_schema(self) -> int:
        """Let answers to the schema that the job had count as answers to the one it has; give the old recipe.

        If more than the schema changed, the next run will say so, and nothing is accepted.
        """
        before = self._manifest.get("made_from")
        if not isinstance(before, dict):
            return self._recipe
        mine = {"structured.schema": None, "structured.mode": None}
        if {**before, **mine} != {**self._made, **mine} or recipe_of(before) == self._recipe:
            return self._recipe
        old = {"schema": before.get("structured.schema"), "mode": before.get("structured.mode") or "auto"}
        self._accepted = [one for one in self._accepted if one != old] + [old]
        return recipe_of(before)

    # --- judging ---

    def _look(self) -> None:
        for line, record, key in self._records(self._store.results_path):
            judged = self._judged(line, record)
            if isinstance(judged, EndpointError):
                self._failing[key] = judged
            elif judged is not None and self._differs(record, judged):
                self._done.changed += 1
        for line, record, key in self._records(self._store.failures_path):
            if record["error"]["kind"] not in _BROKEN_OFF and isinstance(self._judged(line, record), _Judged):
                self._cured.add(key)

    def _judged(self, line: bytes, record: dict[str, Any]) -> _Judged | EndpointError | None:
        """Judge the stored answer of a record; None if it has none that could be an output.

        Where values were put back into the output, its answer holds placeholders, and nobody knows for what.
        """
        provider = _provider(line, record)
        if provider is None or provider.status // 100 != 2 or RESTORED in record.get("warnings", ()):
            return None
        try:
            response = understand(provider.status, provider.headers, provider.body, self._dialect)
        except EndpointError as error:
            return error
        response.provider = provider
        extraction = record.get("extraction")
        asked = "tool" if response.arguments is not None else effective_mode(self._job)
        mode = extraction["mode"] if isinstance(extraction, dict) else asked
        verdict = self._judge.judge(response.text, mode, response.arguments)
        if verdict.problem is not None:
            return EndpointError(verdict.kind, verdict.problem, provider=provider)
        return _Judged(response, verdict.value, verdict.extraction)

    def _differs(self, record: dict[str, Any], judged: _Judged) -> bool:
        extraction = judged.extraction and judged.extraction.as_record()
        return bool(record["output"] != judged.output or record["extraction"] != extraction)

    # --- the new files ---

    def _results(self) -> Iterator[bytes]:
        for line, record, key in self._records(self._store.results_path):
            if key in self._failing:
                continue
            judged = self._judged(line, record)
            if isinstance(judged, _Judged) and self._differs(record, judged):
                yield self._result(record, judged, record["fingerprint"], Item(record["id"], record["line"], b"", {}))
            else:
                yield line
        for line, record, key in self._records(self._store.failures_path):
            if key in self._cured and isinstance(judged := self._judged(line, record), _Judged):
                item = parse_line(orjson.dumps(record["input"]), record["line"], templated=True)
                yield self._result(record, judged, self._fingerprint(item, key), replace(item, id=record["id"]))

    def _result(self, record: dict[str, Any], judged: _Judged, fingerprint: str, item: Any) -> bytes:
        warnings = [one for one in record.get("warnings", ()) if one not in (WARNING, *judged.response.warnings)]
        result = Result(
            item, judged.output, judged.response, _usage(record["usage"]), record["attempts"],
            record.get("duration_s"), judged.extraction, fingerprint, (*warnings, WARNING), record["finished_at"],
        )  # fmt: skip
        return result.to_json()

    def _failures(self, inputs: dict[bytes, bytes]) -> Iterator[bytes]:
        for line, _, key in self._records(self._store.failures_path):
            if key not in self._cured:
                yield line
        for _, record, key in self._records(self._store.results_path):
            if (error := self._failing.get(key)) is not None:
                provider = error.provider
                yield Failure(
                    record["id"], record["line"], error.kind, error.message, inputs[key], record["attempts"],
                    provider.status if provider else None, error.code, _usage(record["usage"]), provider,
                ).to_json()  # fmt: skip

    def _rows(self) -> Iterator[Row]:
        index = self._store.index
        for number, row in enumerate(index.rows(), 1):
            state = index.state[number]
            if state == RESULT and (error := self._failing.get(row.key)) is not None:
                state = state_of(error.kind.value)
            elif state != PENDING and row.key in self._cured:
                state = RESULT
            recipe = self._recipe if row.recipe == self._old_recipe else row.recipe
            yield row._replace(state=state, recipe=recipe)

    def _fingerprint(self, item: Item | Failure, key: bytes) -> str:
        """Give the fingerprint of the request that an answer is to, of those that it may be to."""
        before = self._store.index.fingerprint(self._store.index.find(key))
        made = [builder.build(item) for builder in self._builders if isinstance(item, Item)]
        requests = [one.fingerprint for one in made if isinstance(one, Request)]
        same = [one for one in requests if bytes.fromhex(one)[:8] == before]
        return (same or requests or [before.hex()])[0]

    # --- reading ---

    def _records(self, path: Path) -> Iterator[tuple[bytes, dict[str, Any], bytes]]:
        keys = Keys()
        for number, (line, record) in enumerate(read_lines(path), 1):
            if record is None:
                raise StoreError(f"{path}:{number}: not a record of batchrun")
            yield line, record, keys.of(record)

    def _inputs(self) -> dict[bytes, bytes]:
        """Find the items of results that would fail: a failure keeps its item as read."""
        job = self._job
        found: dict[bytes, bytes] = {}
        templated = bool(job.prompt and job.prompt.user)
        reader = ItemReader(expand_inputs(job.input), encoding=job.encoding, templated=templated)
        if not reader.is_stream:
            for entry in reader:
                if entry.key in self._failing:
                    found[entry.key] = entry.raw if isinstance(entry, Item) else entry.input
        missing = len(self._failing) - len(found)
        if missing:
            raise JobError(
                f"{self._store.path}: {missing} results would fail now, and their items are not in the input, so that "
                "they could not be kept in the failure queue; nothing was changed"
            )
        return found


@dataclass(slots=True)
class _Judged:
    """An output that was found again, and in what."""

    response: Response
    output: Any
    extraction: Extraction | None


def _provider(line: bytes, record: dict[str, Any]) -> Provider | None:
    """Take what the provider sent out of a record's line, the body as it stands there, byte for byte."""
    sent = record.get("provider")
    if not isinstance(sent, dict):
        return None
    whole = last_value(line.rstrip(b"\n"), b"provider")
    body = last_value(whole, b"body") if whole else None
    return Provider(sent["status"], sent["headers"], body or orjson.dumps(sent["body"]))


def _usage(value: dict[str, int] | None) -> Usage | None:
    return Usage(**value) if value else None
