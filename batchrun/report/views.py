"""What stands on the page, section by section, as values for the template."""

from __future__ import annotations

import datetime
import json
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchrun.endpoint.profile import ProfileError, load_profile
from batchrun.job import Job, as_plain
from batchrun.records import ADVICE, ErrorKind
from batchrun.report.charts import Chart, Column, course_chart, size_chart
from batchrun.report.words import Words, amount, axis, count, money
from batchrun.summary import cost_of
from batchrun.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from batchrun.locate import Located
    from batchrun.report.counting import Course, Names, Sizes, Slot
    from batchrun.report.gather import Facts
    from batchrun.report.samples import Sample
    from batchrun.report.visible import Veil
    from batchrun.status import Status

#: Bars over time and by size; as many as a phone can show.
_SLOTS, _BARS = 80, 30
_MOST_ROWS = 12
#: Kinds that are mended in the input, and not by sending again.
_OF_INPUT = frozenset({"invalid_input", "duplicate_id", "data_boundary", "context_length"})
_MOST_WORDS = 1500
_MOST_STEPS = 3
#: Settings whose values name what must not be seen: only their number is shown.
_COUNTED = frozenset({"data_boundary.words", "data_boundary.patterns"})


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table with a bar: what, how often, and the bar's length in percent."""

    name: str
    count: str
    share: float


class Views:
    """Makes the values of each section. `named` is what the run directory or job is called in commands."""

    def __init__(
        self, located: Located, status: Status, facts: Facts, words: Words, veil: Veil, *, named: str, problem: str
    ) -> None:
        self._located, self._status, self._facts, self._words = located, status, facts, words
        self._veil, self._named, self._problem = veil, named, problem
        self._manifest = located.manifest
        self._now = datetime.datetime.now().astimezone()
        # Bars of few items each would show chance alone.
        self._course = facts.timeline.course(max(_SLOTS // 4, min(_SLOTS, (status.results + status.failures) // 4)))

    def all(self) -> dict[str, Any]:
        """Give the values of all sections by name."""
        return {
            "head": self._head(), "verdict": self._verdict(), "glance": self._glance(),
            "throughput": self._throughput(), "latency": self._latency(), "tokens": self._tokens(),
            "cost": self._cost(), "errors": self._errors(), "attempts": self._attempts(),
            "extraction": self._extraction(), "answers": self._answers(), "warnings": self._warnings(),
            "samples": self._samples(), "endpoint": self._endpoint(), "boundary": self._boundary(),
            "job": self._job(), "files": self._files(),
        }  # fmt: skip

    # --- parts of the manifest, whatever stands there ---

    def _part(self, *names: str) -> dict[str, Any]:
        value: Any = self._manifest
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        return value if isinstance(value, dict) else {}

    @property
    def _stop(self) -> dict[str, Any]:
        return self._part("summary", "stopped") if self._state not in ("running", "killed") else {}

    @property
    def _state(self) -> str:
        status = self._status
        if status.holder:
            return "running"
        if status.state == "ended by force":
            return "killed"
        if status.state == "new" and not status.results and not status.failures:
            return "new"
        if self._part("summary", "stopped") or self._pending:
            return "stopped"
        return "failures" if status.failures else "done"

    @property
    def _pending(self) -> int | None:
        """How many items are pending; where the input cannot be counted now, as the run counted them at its end."""
        if self._status.pending is not None or self._status.holder or self._status.state == "ended by force":
            return self._status.pending
        return _int_or_none(self._part("summary", "counts").get("pending"))

    def _time(self, ms: int, form: str = "%Y-%m-%d %H:%M:%S") -> str:
        return datetime.datetime.fromtimestamp(ms / 1000, self._now.tzinfo).strftime(form)

    @property
    def _offset(self) -> str:
        offset = self._now.strftime("%z")
        return "" if offset == "+0000" else f"{offset[:3]}:{offset[3:5]}"

    # --- the top ---

    def _head(self) -> dict[str, Any]:
        job_file = self._manifest.get("job_file") or self._located.job.path
        folder = Path(self._status.output)
        return {
            "name": Path(str(job_file)).stem if job_file else folder.name or str(folder),
            "folder": self._status.output,
            "as_of": self._words("as_of", time=self._now.strftime("%Y-%m-%d %H:%M:%S"), offset=self._offset),
            "version": __version__,
            "simulated": self._status.simulated,
        }

    def _verdict(self) -> dict[str, Any]:
        status, words, pending = self._status, self._words, self._pending
        known = pending is not None
        items = status.results + status.failures + (pending or 0)
        outcome = (
            words("outcome", results=count(status.results), items=count(items))
            if known
            else words("outcome_unknown", results=count(status.results))
        )
        return {
            "state": self._state,
            "outcome": outcome,
            "parts": [
                {"kind": kind, "count": words("unknown") if number is None else count(number),
                 "share": 100 * (number or 0) / max(items, 1), "percent": _percent(number, items)}
                for kind, number in (
                    ("results", status.results), ("failures", status.failures), ("pending", pending)
                )
            ],
            "why": self._veil.cut(str(self._stop.get("message") or ""))[0],
            "kind": str(self._stop.get("kind") or ""),
            "in_flight": words("interrupted", count=count(status.in_flight))
            if status.in_flight and not status.holder else "",
            "next": self._next(),
        }  # fmt: skip

    def _next(self) -> list[tuple[str, str]]:
        """Give what to do next: words, and the command for it."""
        status, words, named = self._status, self._words, shlex.quote(self._named)
        if self._state == "running":
            return [(words("next_live"), f"batchrun report {named}")]
        steps: list[tuple[str, str]] = []
        kind = self._stop.get("kind")
        if kind in ADVICE:
            steps.append((words(f"advice_{kind}"), ""))
        if self._pending or self._state in ("stopped", "killed"):
            job_file = self._manifest.get("job_file")
            steps.append((words("next_resume"), f"batchrun run {shlex.quote(str(job_file))}" if job_file else ""))
        kinds = _by_count(status.failures_by_kind)
        for kind, number in kinds[:_MOST_STEPS]:
            if kind in _OF_INPUT:
                steps.append((words("next_input", count=count(number), kind=kind), ""))
            else:
                more = " --set max_tokens=8192" if kind == "truncated" else ""
                command = f"batchrun retry {named} --kind {kind}{more}"
                steps.append((words("next_retry", count=count(number), kind=kind), command))
        if len(kinds) > _MOST_STEPS:
            steps.append((words("next_rest"), f"batchrun retry {named}"))
        return steps or [(words("next_verify"), f"batchrun verify {named}")]

    def _glance(self) -> list[dict[str, str]]:
        words, facts, usage = self._words, self._facts, self._status.usage
        ended = self._status.results + self._status.failures
        rows = []
        active = self._active_s
        if active >= 1 and ended:
            rate = words("rate_unit", rate=amount(ended / active * 60))
            rows.append((words("rate"), rate, words("rate_note", active=words.duration(active))))
        if facts.durations_s.count:
            median, p95 = (words.duration(facts.durations_s.quantile(share)) for share in (0.5, 0.95))
            rows.append((words("median"), median, words("median_note", p95=p95)))
        total = usage.prompt_tokens + usage.completion_tokens
        if total:
            spent = words("tokens_note", input=amount(usage.prompt_tokens), output=amount(usage.completion_tokens))
            rows.append((words("tokens"), amount(total), spent))
        if self._status.cost is not None:
            each = f"{money(self._status.cost / max(self._status.results, 1) * 1000)} {self._status.currency}"
            cost = f"{money(self._status.cost)} {self._status.currency}"
            rows.append((words("cost"), cost, words("cost_note", each=each)))
        return [{"name": name, "value": value, "note": note} for name, value, note in rows]

    @property
    def _active_s(self) -> float:
        """How long work went on, in seconds: from the first end of an item to the last, without long silences."""
        course = self._course
        if len(course.stretches) == 1 and not course.left_out:
            line = self._facts.timeline
            return ((line.last_ms or 0) - (line.first_ms or 0)) / 1000
        return sum(len(one.slots) for one in course.stretches) * course.width_ms / 1000 if not course.left_out else 0.0

    # --- charts ---

    def _throughput(self) -> dict[str, Any]:
        course, words = self._course, self._words
        slots = sum(len(one.slots) for one in course.stretches)
        if slots < 4:
            return {"charts": [], "note": words("short_span", span=words.duration(self._active_s)) if slots else ""}
        minutes = course.width_ms / 60_000

        def items(at_ms: int, slot: Slot) -> Column:
            done = slot.results + slot.failures
            title = words("bar_items", time=self._time(at_ms), results=count(slot.results),
                          failures=count(slot.failures), rate=amount(done / minutes)) if done else ""  # fmt: skip
            return Column((("results", slot.results / minutes), ("failures", slot.failures / minutes)), title)

        def tokens(at_ms: int, slot: Slot) -> Column:
            title = words("bar_tokens", time=self._time(at_ms), tokens=count(slot.tokens),
                          rate=amount(slot.tokens / minutes)) if slot.tokens else ""  # fmt: skip
            return Column((("tokens", slot.tokens / minutes),), title)

        charts = [self._over_time("items_chart", course, items)]
        if any(slot.tokens for one in course.stretches for slot in one.slots):
            charts.append(self._over_time("tokens_chart", course, tokens))
        notes = [words("slot_note", width=words.duration(course.width_ms / 1000), offset=self._offset)]
        if len(course.stretches) > 1:
            notes.append(words("gaps"))
        if course.left_out:
            notes.append(words("left_out", count=count(course.left_out)))
        return {"charts": charts, "note": " ".join(notes), "legend": self._status.failures > 0}

    def _over_time(self, key: str, course: Course, column: Any) -> Chart:
        words = self._words
        days = {self._time(one.start_ms, "%j") for one in course.stretches}
        days.add(self._time(self._facts.timeline.last_ms or 0, "%j"))
        form = ("%m-%d " if len(days) > 1 else "") + ("%H:%M:%S" if course.width_ms < 30_000 else "%H:%M")
        return course_chart(
            words(key), course, column, lambda ms: self._time(ms, form),
            lambda ms: words.duration(ms / 1000), axis,
        )  # fmt: skip

    def _by_size(self, key: str, sizes: Sizes, *, whole: bool) -> dict[str, Any] | None:
        if not sizes.count:
            return None
        words = self._words
        written = count if whole else words.duration
        rules = [(sizes.quantile(share), f"p{share * 100:.0f}") for share in (0.5, 0.95)]
        made = size_chart(
            words(key), sizes.bars(_BARS, grain=1.0 if whole else 0.0), [one for one in rules if one[0] > 0],
            axis if whole else words.duration,
            axis,
            lambda bar: words("bar_sizes", low=written(bar.low), high=written(bar.high), count=count(bar.count)),
        )  # fmt: skip
        numbers = [
            (words("median_short"), written(sizes.quantile(0.5))), (words("p90"), written(sizes.quantile(0.9))),
            (words("p99"), written(sizes.quantile(0.99))),
            (words("max" if whole else "longest"), written(sizes.most)),
        ]  # fmt: skip
        return {"chart": made, "numbers": numbers}

    def _latency(self) -> dict[str, Any] | None:
        return self._by_size("latency_chart", self._facts.durations_s, whole=False)

    def _tokens(self) -> dict[str, Any]:
        usage, words, facts = self._status.usage, self._words, self._facts
        rows = [
            (words("token_input"), count(usage.prompt_tokens), False),
            (words("token_cached"), count(usage.cached_tokens), True),
            (words("token_output"), count(usage.completion_tokens), False),
            (words("token_reasoning"), count(usage.reasoning_tokens), True),
        ]
        charts = [
            self._by_size("prompt_chart", facts.prompt_tokens, whole=True),
            self._by_size("completion_chart", facts.completion_tokens, whole=True),
        ]
        return {"charts": [one for one in charts if one], "rows": rows if usage.total_tokens else []}

    def _cost(self) -> dict[str, Any] | None:
        price, usage, words = self._located.job.price, self._status.usage, self._words
        if price is None:
            return None
        fresh = max(0, usage.prompt_tokens - usage.cached_tokens)
        cached = price.input if price.cached_input is None else price.cached_input
        parts = (
            ("cost_fresh", fresh, price.input), ("cost_cached", usage.cached_tokens, cached),
            ("cost_output", usage.completion_tokens, price.output),
        )  # fmt: skip
        total = cost_of(usage, price)
        places = 2 if total >= 100 else 4
        return {
            "currency": price.currency,
            "rows": [
                (words(key), count(tokens), f"{each:,.10g}", f"{tokens * each / 1e6:,.{places}f}")
                for key, tokens, each in parts
            ],
            "total": f"{total:,.{places}f}",
        }

    # --- counts ---

    def _errors(self) -> list[dict[str, Any]]:
        words = self._words
        rows = _by_count(self._status.failures_by_kind)
        most = max((number for _, number in rows), default=1)
        return [
            {
                "kind": kind,
                "title": words(f"kind_{kind}"),
                "count": count(number),
                "percent": _percent(number, self._status.failures),
                "share": 100 * number / most,
                "advice": words(f"advice_{kind}"),
                "causes": self._causes(kind),
            }
            for kind, number in rows
        ]

    def _causes(self, kind: str) -> list[tuple[str, str]]:
        """Give what the provider called a kind, HTTP status and code, the most frequent first."""
        causes = self._facts.causes.get(kind)
        pairs = [(name, times) for name, times in (causes.items() if causes else ()) if name != "200"]
        return [(self._veil.whole(name), count(times)) for name, times in pairs[:5]]

    def _attempts(self) -> dict[str, Any]:
        words, counted = self._words, self._facts.attempts
        most = max((number for _, number in counted), default=0)
        columns = []
        for number in range(0 if any(number == 0 for _, number in counted) else 1, most + 1):
            name = words("attempts_more", count=number) if number == 10 else str(number)
            columns.append((name, counted[True, number], counted[False, number]))
        requests = self._part("summary", "requests")
        names = ("attempts", "retries", "reasks", "hedges", "trials")
        rows = [(words(f"req_{name}"), count(_int(requests.get(name))), name != "attempts") for name in names]
        return {
            "rows": _stacked(columns),
            "requests": [row for row in rows if row[1] != "0" or not row[2]] if requests else [],
            "failed": _rows(_ints(requests.get("failed_attempts_by_kind"))),
            "limited": _rows(_ints(requests.get("rate_limited_by_cause"))),
        }

    def _extraction(self) -> dict[str, Any] | None:
        facts, words = self._facts, self._words
        if not facts.extracted:
            return None
        return {
            "methods": self._named_rows(facts.methods),
            "repairs": self._named_rows(facts.repairs),
            "modes": self._named_rows(facts.modes),
            "repaired": words(
                "extraction_repaired", count=count(facts.repaired), total=count(facts.extracted),
                share=_percent(facts.repaired, facts.extracted),
            ),
        }  # fmt: skip

    def _answers(self) -> dict[str, Any]:
        return {
            "finish": self._named_rows(self._facts.finish_reasons), "models": self._named_rows(self._facts.models),
        }  # fmt: skip

    def _named_rows(self, names: Names) -> list[Row]:
        counts: Counter[str] = Counter()
        for name, number in names.items():
            counts[self._words("nothing_said") if name == "None" else self._veil.whole(name)] += number
        rows = _rows(counts)
        rest = sum(sorted(counts.values(), reverse=True)[_MOST_ROWS:]) + names.others
        if rest:
            rows = [*rows, Row(self._words("others"), count(rest), 0.0)]
        return rows

    def _warnings(self) -> dict[str, Any]:
        run = self._part("summary").get("warnings")
        return {
            "run": [self._veil.cut(str(one))[0] for one in (run if isinstance(run, list) else [])[:50]],
            "records": self._named_rows(self._facts.warnings),
            "notes": [*self._status.notes, *self._odd()],
        }

    def _odd(self) -> list[str]:
        return [self._words("odd", count=count(self._facts.odd))] if self._facts.odd else []

    # --- samples ---

    def _samples(self) -> dict[str, Any]:
        words, facts = self._words, self._facts
        is_masked = self._located.job.data_boundary.scan != "off"
        note = words("samples_note" if is_masked else "samples_note_off")
        if self._problem:
            note = words("samples_hidden", reason=self._problem)
        groups = [("results", "", facts.results)] if facts.results else []
        groups += [("failures", kind, facts.failures[kind]) for kind, _ in _by_count(facts.kinds)
                   if facts.failures.get(kind)]  # fmt: skip
        if not groups and not self._problem:
            note = words("samples_none")
        return {"note": note, "groups": [self._group(*group) for group in groups]}

    def _group(self, kind: str, error: str, samples: list[Sample]) -> dict[str, Any]:
        words = self._words
        title = words("sample_results") if kind == "results" else words("sample_failures", kind=words(f"kind_{error}"))
        return {
            "kind": kind,
            "error": error,
            "title": title,
            "samples": [{"sample": one, "facts": self._sample_facts(one)} for one in samples],
        }

    def _sample_facts(self, one: Sample) -> list[str]:
        words = self._words
        facts = [words("sample_head", line=count(one.line))]
        if one.attempts > 1:
            facts.append(words("sample_attempts", count=one.attempts))
        if one.duration_s is not None:
            facts.append(words.duration(one.duration_s))
        if one.tokens:
            facts.append(words("sample_tokens", count=count(one.tokens)))
        if one.status is not None and one.status != 200:
            facts.append(f"HTTP {one.status}")
        facts += [text for text in (one.code, one.method, *one.repairs) if text]
        return facts

    # --- where and under which terms ---

    def _endpoint(self) -> dict[str, Any]:
        words, job = self._words, self._located.job
        kept = self._part("profile")
        profile = None
        if kept.get("path"):
            try:
                profile = load_profile(Path(str(kept["path"])))
            except ProfileError:
                profile = None
        simulate = job.endpoint.simulate
        place = words("endpoint_simulated", name=simulate) if simulate else str(job.endpoint.base_url or "")
        rows = [
            (words("endpoint_url"), place), (words("endpoint_model"), job.endpoint.model or ""),
            (words("endpoint_dialect"), str(self._manifest.get("dialect") or "")),
            (words("endpoint_mode"), str(kept.get("structured_mode") or "")),
        ]  # fmt: skip
        title = words("profile_none")
        if kept.get("path"):
            title = words("profile_used", date=str(kept.get("measured_at"))) if profile else words("profile_gone")
        learned = kept.get("learned")
        return {
            "rows": [row for row in rows if row[1]],
            "profile": title,
            "cells": [
                (name, words(f"verdict_{cell.verdict.value}"), _clip(cell.words, 300))
                for name, cell in (profile.cells if profile else {}).items()
            ],
            "learned": [self._fact(one) for one in learned if isinstance(one, dict)][:40]
            if isinstance(learned, list) else [],
        }  # fmt: skip

    def _fact(self, fact: Mapping[str, Any]) -> tuple[str, str, str]:
        verdict = str(fact.get("verdict"))
        key = f"verdict_{verdict}"
        value = fact.get("value")
        name = str(fact.get("name")) + ("" if value is None else f" = {_json(value)}")
        known = verdict in ("supported", "accepted but ignored", "rejected", "unclear", "accepted")
        return _clip(name, 120), self._words(key) if known else verdict, _clip(str(fact.get("words") or ""), 300)

    def _boundary(self) -> dict[str, Any]:
        words, kept = self._words, self._part("data_boundary")
        statements = kept.get("statements")
        made = [
            words("boundary_by", by=str(one.get("by")), how=str(one.get("how")), at=str(one.get("at")),
                  url=str(one.get("base_url")))
            for one in (statements if isinstance(statements, list) else []) if isinstance(one, dict)
        ]  # fmt: skip
        endpoint = self._located.job.endpoint
        scan = str(kept.get("scan") or self._located.job.data_boundary.scan)
        held = self._status.failures_by_kind.get("data_boundary", 0)
        return {
            "statements": made,
            "none": "" if made else words("boundary_local" if endpoint.stays_here else "boundary_missing"),
            "scan": words(f"scan_{scan}") if scan in ("block", "redact", "warn", "off") else scan,
            "held": words("scan_found", count=count(held)) if held else "",
        }

    def _job(self) -> list[dict[str, Any]]:
        """Give the settings that are not the defaults, section by section; texts of several lines stand apart."""
        job = self._part("job") or as_plain(self._located.job)
        usual = as_plain(Job(input=(), output=Path()))
        plain: list[tuple[str, str, bool]] = []
        for key, value in job.items():
            if key in ("output", "path"):
                continue
            if isinstance(value, dict) and key != "params":
                before = usual.get(key) if isinstance(usual.get(key), dict) else {}
                plain += [
                    self._setting(f"{key}.{name}", one)
                    for name, one in value.items()
                    if one != (before or {}).get(name) and one is not None
                ]
            elif key == "params":
                plain += [self._setting(f"params.{name}", one) for name, one in (value or {}).items()]
            elif value != usual.get(key) and value is not None:
                plain.append(self._setting(key, value))
        return [{"name": name, "value": value, "is_long": is_long} for name, value, is_long in plain]

    def _setting(self, name: str, value: Any) -> tuple[str, str, bool]:
        if isinstance(value, float):
            value = f"{value:g}"
        elif isinstance(value, list) and all(isinstance(one, str) for one in value) and name not in _COUNTED:
            value = "\n".join(value)
        if name in _COUNTED and isinstance(value, list | dict):
            return name, self._words("job_counted", count=len(value)), False
        text = value if isinstance(value, str) else _json(value)
        return name, _clip(text.strip("\n"), _MOST_WORDS), "\n" in text.strip() or len(text) > 160

    def _files(self) -> dict[str, Any]:
        words = self._words
        inputs = self._manifest.get("input")
        rows = [
            (words("file_input"), str(one.get("path")),
             words("file_lines", lines=count(_int(one.get("lines"))), size=count(_int(one.get("size"))),
                   hash=str(one.get("blake2b"))))
            for one in (inputs if isinstance(inputs, list) else [])[:20] if isinstance(one, dict)
        ]  # fmt: skip
        versions = self._part("versions")
        rows += [
            (words("file_folder"), self._status.output, ""),
            (words("run_id"), str(self._manifest.get("run_id") or ""), ""),
            (words("versions"), ", ".join(f"{name} {one}" for name, one in versions.items()), ""),
        ]
        return {"rows": [row for row in rows if row[1]]}


# --- small things -------------------------------------------------------------------------------------------------


def _percent(number: int | None, whole: int) -> str:
    if number is None or whole <= 0:
        return ""
    share = 100 * number / whole
    if 0 < share < 0.1:
        return "< 0.1%"
    if 99.9 < share < 100:
        return "> 99.9%"
    return f"{share:.0f}%" if share in (0, 100) else f"{share:.1f}%"


def _by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    known = {kind.value for kind in ErrorKind}
    pairs = [(str(kind), number) for kind, number in counts.items() if kind in known]
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))


def _rows(counts: Mapping[str, int]) -> list[Row]:
    pairs = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:_MOST_ROWS]
    most = max((number for _, number in pairs), default=1)
    return [Row(_clip(name, 160), count(number), 100 * number / max(most, 1)) for name, number in pairs]


def _stacked(columns: Iterable[tuple[str, int, int]]) -> list[dict[str, Any]]:
    columns = list(columns)
    most = max((good + bad for _, good, bad in columns), default=1)
    return [
        {"name": name, "count": count(good + bad), "good": 100 * good / max(most, 1), "bad": 100 * bad / max(most, 1)}
        for name, good, bad in columns
    ]


def _int_or_none(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _int(value: Any) -> int:
    return _int_or_none(value) or 0


def _ints(value: Any) -> dict[str, int]:
    return {str(name): _int(one) for name, one in value.items()} if isinstance(value, dict) else {}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _clip(text: str, most: int = 400) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
