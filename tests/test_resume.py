"""Going on: what is finished is left alone, what changed is noticed, what is new is done, in any order of lines."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended, records, write_lines
from scripted import Call, Scripted, http, ok

ITEMS = [{"id": f"r-{number}", "text": f"第 {number} 条", "note": number} for number in range(12)]
JOB = """
input = "in.jsonl"
output = "out"
[prompt]
system = "你是标注员。"
user = "评论：{{ text }}"
[endpoint]
base_url = "URL"
model = "m-1"
[params]
temperature = 0.5
"""


class Bench:
    """A job, its input, and an endpoint that keeps its calls; prompts with 坏 in them are refused."""

    def __init__(self, folder: Path, server: Scripted, batchrun: Callable[..., Ended]) -> None:
        self.folder, self.server, self._batchrun = folder, server, batchrun
        self.out = folder / "out"
        self.job = JOB.replace("URL", server.base_url)
        self.write(*ITEMS)

    def write(self, *items: Any, name: str = "in.jsonl") -> None:
        write_lines(self.folder / name, *items)

    def run(self, *flags: object) -> Ended:
        (self.folder / "job.toml").write_text(self.job)
        self._before = len(self.server.calls)
        return self._batchrun("run", "job.toml", *flags)

    def asked(self) -> list[str]:
        """Give the prompts of the last run, without the words that all have."""
        return sorted(call.prompt.removeprefix("评论：") for call in self.server.calls[self._before :])

    def verify(self) -> Ended:
        return self._batchrun("verify", "job.toml")

    def results(self) -> dict[str, Any]:
        found = records(self.out / "results.jsonl")
        assert len({one["id"] for one in found}) == len(found)
        return {one["id"]: one for one in found}

    def failures(self) -> list[tuple[str, str]]:
        return sorted((one["id"], one["error"]["kind"]) for one in records(self.out / "failures.jsonl"))

    def contents(self) -> dict[str, tuple[bytes, int]]:
        return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in self.out.iterdir()}


def answer(call: Call) -> list[bytes]:
    return [http(400, {"error": {"message": "no"}}) if "坏" in call.prompt else ok(f"答 {call.prompt}")]


@pytest.fixture
def bench(tmp_path: Path, batchrun: Callable[..., Ended]) -> Iterator[Bench]:
    with Scripted(answer) as server:
        yield Bench(tmp_path, server, batchrun)


# --- lines --------------------------------------------------------------------------------------------------------


def test_a_second_run_makes_no_call_and_changes_no_byte(bench: Bench) -> None:
    assert bench.run().code == 0
    before = bench.contents()
    assert (bench.run().code, bench.asked(), bench.contents()) == (0, [], before)


def test_lines_appended_are_new_work_and_nothing_else_is_asked(bench: Bench) -> None:
    bench.run()
    written = (bench.out / "results.jsonl").read_bytes()
    bench.write(*ITEMS, {"id": "new", "text": "新"})
    assert (bench.run().code, bench.asked()) == (0, ["新"])
    assert (bench.out / "results.jsonl").read_bytes().startswith(written)


def test_lines_moved_are_no_work(bench: Bench) -> None:
    bench.run()
    before = bench.contents()
    shuffled = ITEMS.copy()
    random.Random(1).shuffle(shuffled)
    bench.write(*shuffled)
    assert (bench.run().code, bench.asked(), bench.contents()) == (0, [], before)
    assert bench.verify().code == 0


def test_lines_removed_leave_their_records_and_the_run_says_so(bench: Bench) -> None:
    bench.run()
    before = bench.contents()
    bench.write(*ITEMS[3:])
    ended = bench.run("--json")
    assert (ended.code, bench.asked(), bench.contents()) == (0, [], before)
    assert any(warning.startswith("3 records") for warning in ended.json()["warnings"])


def test_blank_lines_other_line_ends_and_other_spacing_are_no_change(bench: Bench) -> None:
    bench.run()
    lines = [json.dumps(item, ensure_ascii=True, separators=(" ,", " : ")).encode() for item in ITEMS]
    (bench.folder / "in.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\r\n\r\n".join(lines))
    results = (bench.out / "results.jsonl").read_bytes()
    assert (bench.run().code, bench.asked()) == (0, [])
    assert (bench.out / "results.jsonl").read_bytes() == results


def test_another_file_with_the_same_ids_is_the_same_work(bench: Bench) -> None:
    bench.run()
    bench.write(*reversed(ITEMS), name="other.jsonl")
    assert (bench.run("-i", "other.jsonl").code, bench.asked()) == (0, [])


def test_a_file_more_under_a_glob_is_new_work(bench: Bench) -> None:
    bench.job = bench.job.replace('"in.jsonl"', '"in*.jsonl"')
    bench.run()
    bench.write({"id": "x", "text": "又"}, name="in-2.jsonl")
    assert (bench.run().code, bench.asked()) == (0, ["又"])
    bench.write({"id": "y", "text": "先"}, name="in-1.jsonl")  # it moves the lines of the other one
    assert (bench.run().code, bench.asked()) == (0, ["先"])


def test_limit_grows_from_run_to_run(bench: Bench) -> None:
    for limit in (3, 3, 7):
        assert bench.run("--limit", limit).code == 0
    assert len(bench.asked()) == 4
    assert (bench.run().code, len(bench.asked()), len(bench.results())) == (0, 5, 12)


# --- changes ------------------------------------------------------------------------------------------------------


def edited() -> list[Any]:
    return [*ITEMS[:4], {**ITEMS[4], "text": "改过"}, *ITEMS[5:]]


def test_an_edited_prompt_is_refused_by_id_and_line_and_nothing_is_sent(bench: Bench) -> None:
    bench.run()
    bench.write(*edited(), {"id": "new", "text": "新"})
    before = bench.contents()
    ended = bench.run()
    assert (ended.code, bench.asked(), bench.contents()) == (2, [], before)
    assert "line 5" in ended.err
    assert "'r-4'" in ended.err
    assert "--on-change" in ended.err
    assert bench.verify().code == 3


def test_keep_leaves_the_answer_to_the_old_prompt_and_goes_on_with_the_rest(bench: Bench) -> None:
    bench.run()
    bench.write(*edited(), {"id": "new", "text": "新"})
    assert (bench.run("--on-change", "keep").code, bench.asked()) == (0, ["新"])
    assert "第 4 条" in bench.results()["r-4"]["output"]


def test_rerun_asks_what_changed_and_sets_the_old_answer_aside(bench: Bench) -> None:
    bench.run()
    old = bench.results()
    bench.write(*edited())
    assert (bench.run("--on-change", "rerun").code, bench.asked()) == (0, ["改过"])
    new = bench.results()
    assert "改过" in new.pop("r-4")["output"]
    assert records(bench.out / "outdated.jsonl") == [old.pop("r-4")]
    assert new == old
    assert (bench.run().code, bench.asked(), bench.verify().code) == (0, [], 0)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("temperature = 0.5", "temperature = 0.7", ["params.temperature", "0.5", "0.7"]),
        ("temperature = 0.5", "temperature = 0.5\ntop_p = 0.9", ["params.top_p", "0.9"]),
        ('model = "m-1"', 'model = "m-2"', ["endpoint.model", "m-1", "m-2"]),
        ("评论：", "这条：", ["prompt.user"]),
        ("你是标注员。", "你是严谨的标注员。", ["prompt.system"]),
        ("[params]", '[structured]\nschema = "s.json"\n[params]', ["structured.schema"]),
    ],
)
def test_a_changed_job_is_refused_with_the_key_that_changed(old: str, new: str, named: list[str], bench: Bench) -> None:
    (bench.folder / "s.json").write_text('{"type": "object"}')
    bench.run()
    before = bench.contents()
    bench.job = bench.job.replace(old, new)
    ended = bench.run()
    assert (ended.code, bench.asked(), bench.contents()) == (2, [], before)
    assert all(word in ended.err for word in named), ended.err


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[params]", "[limits]\nconcurrency = 3\n[retry]\nmax_attempts = 2\n[params]"),
        ("[params]", "[price]\ninput = 1.0\noutput = 2.0\n[params]"),
        ('base_url = "http://127.0.0.1:', 'base_url = "http://localhost:'),
    ],
)
def test_what_changes_no_request_is_no_change(old: str, new: str, bench: Bench) -> None:
    bench.run()
    bench.job = bench.job.replace(old, new)
    bench.write(*({**item, "note": "another, which the template does not use"} for item in ITEMS))
    assert (bench.run().code, bench.asked()) == (0, [])


def test_a_failed_item_that_was_changed_is_new_work(bench: Bench) -> None:
    bench.write(*ITEMS, {"id": "f", "text": "坏"}, {"id": "g", "text": "也坏"})
    assert bench.run().code == 3
    bench.write(*ITEMS, {"id": "f", "text": "好"}, {"id": "g", "text": "也坏"})
    assert (bench.run().code, bench.asked(), bench.failures()) == (3, ["好"], [("g", "bad_request")])
    assert bench.verify().code == 0


def test_items_without_an_id_never_get_the_answer_of_their_neighbour(bench: Bench) -> None:
    plain = [{"text": item["text"]} for item in ITEMS]
    bench.write(*plain)
    bench.run()
    bench.write(*plain[1:])
    ended = bench.run()
    assert (ended.code, bench.asked()) == (2, [])
    assert "line:1" in ended.err


def test_standard_input_goes_on_by_id_and_a_change_stops_it(bench: Bench, batchrun: Callable[..., Ended]) -> None:
    def run(*items: Any) -> Ended:
        data = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items).encode()
        url = bench.server.base_url
        return batchrun(
            "run", "-i", "-", "-o", "out", "--base-url", url, "-m", "m", "--prompt", "{{ text }}", stdin=data
        )

    assert run(*ITEMS).code == 0
    assert run(*reversed(ITEMS), {"id": "new", "text": "新"}).code == 0
    assert len(bench.server.calls) == 13
    ended = run(*edited())
    assert ended.code == 2
    assert "r-4" in ended.err
    assert len(bench.server.calls) == 13


# --- lines that are no items --------------------------------------------------------------------------------------


def test_a_line_that_was_no_item_and_is_one_now_leaves_the_queue(bench: Bench) -> None:
    bench.write(*ITEMS, b"{broken")
    assert bench.run().code == 3
    bench.write(*ITEMS, {"id": "mended", "text": "修好"})
    assert (bench.run().code, bench.asked(), bench.failures()) == (0, ["修好"], [])
    assert bench.verify().code == 0


def test_a_line_that_was_no_item_leaves_the_queue_when_a_finished_item_takes_its_place(bench: Bench) -> None:
    bench.write(*ITEMS[:2], b"{broken", *ITEMS[2:])
    assert bench.run().code == 3
    bench.write(*ITEMS)
    assert (bench.run().code, bench.asked(), bench.failures()) == (0, [], [])
    assert bench.verify().code == 0


def test_repeated_ids_have_one_failure_each_over_all_runs(bench: Bench) -> None:
    again = {"id": "r-1", "text": "重复"}
    bench.write(*ITEMS, again, again)
    assert bench.run().code == 3
    assert bench.failures() == [("r-1", "duplicate_id")] * 2
    before = bench.contents()
    bench.write(*ITEMS[2:], ITEMS[1], again, again)  # the lines move
    assert (bench.run().code, bench.asked(), bench.contents()) == (3, [], before)
    bench.write(*ITEMS, again, again, {**again, "note": "a third"})
    bench.run()
    assert bench.failures() == [("r-1", "duplicate_id")] * 3
    assert (bench.asked(), bench.verify().code) == ([], 0)


# --- lost files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [["journal"], ["index"], ["journal", "index"], ["journal", "index", "run.json"]])
def test_a_lost_journal_or_index_is_made_anew_with_a_word(names: list[str], bench: Bench) -> None:
    bench.write(*ITEMS, {"id": "f", "text": "坏"}, b"{broken", ITEMS[0])
    bench.run()
    before = [(bench.out / name).read_bytes() for name in ("results.jsonl", "failures.jsonl")]
    for name in names:
        (bench.out / name).unlink()
    ended = bench.run()
    assert (ended.code, bench.asked()) == (3, [])
    assert "rebuilt" in ended.err
    assert [(bench.out / name).read_bytes() for name in ("results.jsonl", "failures.jsonl")] == before
    settled = bench.contents()
    assert (bench.run().code, bench.asked(), bench.contents()) == (3, [], settled)
    bench.write(*edited())
    assert (bench.run().code, bench.asked()) == (2, [])


def test_a_run_directory_of_an_older_version_goes_on(bench: Bench) -> None:
    bench.run("--limit", 8)
    for name in ("index", "journal"):
        (bench.out / name).unlink()
    manifest = json.loads((bench.out / "run.json").read_text())
    for key in ("made_from", "accepted", "working_directory", "last_crash", "retry"):
        del manifest[key]
    (bench.out / "run.json").write_text(json.dumps(manifest))
    assert (bench.run().code, len(bench.asked()), len(bench.results())) == (0, 4, 12)


@pytest.mark.parametrize("lose", [Path.unlink, lambda path: path.write_bytes(b"")], ids=["deleted", "emptied"])
def test_results_that_are_gone_are_not_paid_for_again_without_a_word(
    lose: Callable[[Path], object], bench: Bench
) -> None:
    bench.run()
    path = bench.out / "results.jsonl"
    shutil.copy2(path, bench.folder / "kept")
    lose(path)
    ended = bench.run()
    assert (ended.code, bench.asked()) == (2, [])
    assert "results.jsonl" in ended.err
    assert "journal" in ended.err
    assert bench.verify().code == 3
    shutil.copy2(bench.folder / "kept", path)
    assert (bench.run().code, bench.asked()) == (0, [])
    lose(path)
    (bench.out / "journal").unlink()
    assert (bench.run().code, len(bench.asked())) == (0, 12)


def test_an_old_copy_of_the_results_has_only_the_missing_ones_redone(bench: Bench) -> None:
    bench.run()
    path = bench.out / "results.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:9]))
    ended = bench.run()
    assert (ended.code, len(bench.asked()), len(bench.results())) == (0, 3, 12)
    assert "3 results" in ended.err
    assert bench.verify().code == 0
