"""Export: one row for each item in the order of the input, in the shape that the next tool wants."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended, environment, measured, records, write_lines
from finished import finish
from hypothesis import given
from hypothesis import strategies as st
from scripted import Act, Call, Scripted, Wait, completion, http, ok

from batchrun.export.cells import cell
from batchrun.export.columns import picked

JOB = """
input = INPUT
output = "out"
[prompt]
user = "{{ text }}"
[endpoint]
base_url = "URL"
model = "m-1"
[structured]
mode = "json_object"
reask = 0
[limits]
concurrency = 4
[retry]
max_attempts = 1
"""
OUTPUTS = {
    "好": {"情感": "正面", "分": 5, "more": {"a": [1, 2]}},
    "差": {"分": 1, "情感": "负面", "理由": "慢\r\n很慢"},
    "长": {"分": 12345678901234567890123, "情感": "=1+1"},
}


_RUNS: dict[tuple[str, ...], dict[str, bytes]] = {}


class Bench:
    """A job of items whose text says what is answered, and when."""

    def __init__(self, folder: Path, batchrun: Callable[..., Ended]) -> None:
        self.folder, self.out, self.command = folder, folder / "out", batchrun
        self.server = Scripted(self._answer)
        self.input = '"in.jsonl"'

    def _answer(self, call: Call) -> list[Any]:
        if call.prompt == "坏":
            return [http(400, {"error": {"message": "no", "code": "bad"}}, "x-request-id: q-bad")]
        if call.prompt == "烂":
            return [ok("no JSON at all")]
        wait = [Wait(0.5)] if call.prompt == "慢" else []
        if call.prompt == "久":
            return [Act.HANG]
        body = completion(json.dumps(OUTPUTS.get(call.prompt, OUTPUTS["好"]), ensure_ascii=False), 未知="字段")
        return [*wait, http(200, body, f"X-Request-Id: q-{call.number}")]

    def items(self, *texts: str) -> list[dict[str, Any]]:
        return [{"id": f"r-{number}", "text": text, "n": number} for number, text in enumerate(texts)]

    def run(self, *texts: str) -> None:
        """Run items with these texts, or those that stand in the input; the same texts are run once for all tests."""
        if not texts:
            self.command("run", self.job(), "-q")
            return
        if texts not in _RUNS:
            write_lines(self.folder / "in.jsonl", *self.items(*texts))
            self.command("run", self.job(), "-q")
            _RUNS[texts] = {path.name: path.read_bytes() for path in (*self.out.iterdir(), self.folder / "in.jsonl")}
            _RUNS[texts]["was"] = bytes(self.folder)
            return
        self.out.mkdir()
        self.job()
        for name, data in _RUNS[texts].items():
            path = self.folder / name if name == "in.jsonl" else self.out / name
            if name != "was":
                path.write_bytes(data.replace(_RUNS[texts]["was"], bytes(self.folder)) if name == "run.json" else data)

    def job(self) -> Path:
        path = self.folder / "job.toml"
        path.write_text(JOB.replace("INPUT", self.input).replace("URL", self.server.base_url), "utf-8")
        return path

    def export(self, *flags: object, code: int = 0, place: str = "out") -> Ended:
        ended = self.command("export", place, *flags)
        assert ended.code == code, ended.err
        return ended

    def rows(self, *flags: object, place: str = "out") -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.export(*flags, place=place).out.splitlines()]

    def table(self, *flags: object) -> list[dict[str, str]]:
        text = self.export("--format", "csv", *flags).out
        assert text.startswith("\ufeff")
        assert text.count("\r\n") >= 1
        return list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline="")))


@pytest.fixture
def bench(tmp_path: Path, batchrun: Callable[..., Ended]) -> Iterator[Bench]:
    made = Bench(tmp_path, batchrun)
    with made.server:
        yield made


MIXED = ("好", "慢", "坏", "差", "烂", "长")


# --- which rows, in which order ---------------------------------------------------------------------------------


def test_rows_come_in_the_order_of_the_input_and_say_what_the_records_say(bench: Bench) -> None:
    bench.run(*MIXED)
    assert [record["id"] for record in records(bench.out / "results.jsonl")][-1] == "r-1"  # it was answered last
    rows = bench.rows()
    assert [(row["id"], row["line"], row["status"]) for row in rows] == [
        ("r-0", 1, "result"), ("r-1", 2, "result"), ("r-3", 4, "result"), ("r-5", 6, "result"),
    ]  # fmt: skip
    by_id = {record["id"]: record for record in records(bench.out / "results.jsonl")}
    for row in rows:
        assert {**row, "provider": None, "status": None, "error": None} == {
            **by_id[row["id"]], "provider": None, "status": None, "error": None,
        }  # fmt: skip
    assert rows[3]["output"]["分"] == 12345678901234567890123


def test_results_failures_and_pending_items_have_one_schema(bench: Bench) -> None:
    bench.run(*MIXED)
    with (bench.folder / "in.jsonl").open("a") as file:
        file.write('{"id": "new", "text": "好"}\nno item\n')
    rows = bench.rows("--include", "all")
    assert [row["status"] for row in rows] == [
        "result", "result", "failure", "result", "failure", "result", "pending", "pending",
    ]  # fmt: skip
    assert [row["line"] for row in rows] == list(range(1, 9))
    assert [row["id"] for row in rows[-2:]] == ["new", "line:8"]
    assert len({tuple(row) for row in rows}) == 1
    assert [row["error"]["kind"] for row in rows if row["status"] == "failure"] == ["bad_request", "invalid_output"]
    assert [row["id"] for row in bench.rows("--include", "failures")] == ["r-2", "r-4"]
    assert [row["id"] for row in bench.rows("--include", "all", place="job.toml")] == [row["id"] for row in rows]


def test_items_are_found_by_id_wherever_they_stand_now_and_what_is_gone_comes_last(bench: Bench) -> None:
    bench.run(*MIXED)
    items = bench.items(*MIXED)
    moved = [{"id": "new", "text": "好"}, items[5], items[3], {**items[1], "n": "changed"}]
    write_lines(bench.folder / "in.jsonl", *moved)
    ended = bench.export("--join-input")
    rows = [json.loads(line) for line in ended.out.splitlines()]
    assert [(row["id"], row["line"]) for row in rows] == [("r-5", 2), ("r-3", 3), ("r-1", 4), ("r-0", 1)]
    assert [row["input"] and row["input"]["n"] for row in rows] == [5, 3, "changed", None]
    assert "1 items are not in the input now" in ended.err
    assert "1 items read otherwise in the input now" in ended.err


def test_an_item_that_was_cured_or_failed_again_has_one_row(bench: Bench) -> None:
    bench.run("坏", "烂", "好")
    bench.command("retry", "out", "-q")
    assert [row["id"] for row in bench.rows("--include", "all")] == ["r-0", "r-1", "r-2"]
    # As a crash leaves the queue: a failure twice, and one that has a result by now.
    failures = sorted((bench.out / "failures.jsonl").read_bytes().splitlines(keepends=True))
    assert [json.loads(line)["id"] for line in failures] == ["r-0", "r-1"]
    result = records(bench.out / "results.jsonl")[0]
    cured = json.loads(failures[0])
    for name in ("index", "journal"):
        (bench.out / name).unlink()
    (bench.out / "failures.jsonl").write_bytes(
        b"".join([*failures, failures[1].replace(b"invalid_output", b"timeout")])
    )
    write_lines(
        bench.out / "results.jsonl", result, {**result, "id": cured["id"], "line": cured["line"], "output": {"分": 3}}
    )
    rows = bench.rows("--include", "all")
    assert [(row["id"], row["status"]) for row in rows] == [("r-0", "result"), ("r-1", "failure"), ("r-2", "result")]
    assert rows[1]["error"]["kind"] == "timeout"


def test_second_uses_of_an_id_are_failures_of_their_own(bench: Bench) -> None:
    write_lines(
        bench.folder / "in.jsonl", {"id": "a", "text": "好"}, {"id": "a", "text": "差"}, {"id": "a", "text": "长"}
    )
    bench.run()
    rows = bench.rows("--include", "all", "--join-input")
    assert [(row["line"], row["status"], row["input"]["text"]) for row in rows] == [
        (1, "result", "好"), (2, "failure", "差"), (3, "failure", "长"),
    ]  # fmt: skip
    assert [row["error"]["kind"] for row in rows[1:]] == ["duplicate_id", "duplicate_id"]


def test_reparsed_records_are_those_that_count(bench: Bench) -> None:
    bench.run("好", "差", "坏")
    schema = {"type": "object", "required": ["理由"]}
    (bench.folder / "schema.json").write_text(json.dumps(schema))
    path = bench.job()
    path.write_text(path.read_text("utf-8").replace("[structured]", '[structured]\nschema = "schema.json"'), "utf-8")
    assert bench.command("reparse", "job.toml").code == 3
    rows = bench.rows("--include", "all")
    assert [(row["id"], row["status"]) for row in rows] == [("r-0", "failure"), ("r-1", "result"), ("r-2", "failure")]


# --- the input ----------------------------------------------------------------------------------------------------


def test_packed_inputs_several_files_and_other_encodings_are_joined(bench: Bench) -> None:
    items = bench.items("好", "差", "长")
    (bench.folder / "a.jsonl.gz").write_bytes(gzip.compress(json.dumps(items[0]).encode() + b"\n"))
    (bench.folder / "b.jsonl").write_bytes(json.dumps(items[1], ensure_ascii=False).encode("gb18030") + b"\n")
    (bench.folder / "c.jsonl").write_bytes(json.dumps(items[2], ensure_ascii=False).encode("gb18030") + b"\n")
    bench.input = '["a.jsonl.gz", "[bc].jsonl"]\nencoding = "gb18030"'
    bench.run()
    rows = bench.rows("--fields", "id,line,output.情感,input.text")
    assert [list(row.values()) for row in rows] == [
        ["r-0", 1, "正面", "好"], ["r-1", 2, "负面", "差"], ["r-2", 3, "=1+1", "长"],
    ]  # fmt: skip


def test_what_is_joined_keeps_its_spelling(bench: Bench) -> None:
    line = b'{"id": "a", "text": "\\u597d",  "big": 123456789012345678901234567890, "f": 1.50}'
    write_lines(bench.folder / "in.jsonl", line)
    bench.run()
    assert line in bench.export("--join-input").out.encode()
    assert bench.table("--join-input")[0]["input.big"] == "'123456789012345678901234567890"


def test_without_its_input_a_run_is_exported_by_the_lines_of_its_records(bench: Bench) -> None:
    bench.run(*MIXED)
    (bench.folder / "in.jsonl").unlink()
    ended = bench.export("--include", "all")
    assert [json.loads(line)["line"] for line in ended.out.splitlines()] == [1, 2, 3, 4, 5, 6]
    assert "no such file" in ended.err
    assert "pending items are not known" in ended.err
    ended = bench.export("--join-input", "-o", "x.jsonl", code=2)
    assert "no such file" in ended.err
    assert not (bench.folder / "x.jsonl").exists()


def test_a_run_from_standard_input_is_exported_by_the_lines_of_its_records(bench: Bench) -> None:
    lines = "".join(json.dumps(item) + "\n" for item in bench.items("慢", "好", "坏"))
    bench.command("run", bench.job(), "-i", "-", "-q", stdin=lines.encode())
    ended = bench.export("--include", "all")
    assert [json.loads(line)["id"] for line in ended.out.splitlines()] == ["r-0", "r-1", "r-2"]
    assert "standard input" in ended.err
    assert "nothing can be joined" in bench.export("--join-input", code=2).err
    (failure,) = bench.rows("--include", "failures", "--fields", "id,input.text")
    assert failure == {"id": "r-2", "input.text": "坏"}  # a failure has its item with it


def test_an_input_that_breaks_off_costs_no_row_but_cannot_be_joined(bench: Bench) -> None:
    packed = gzip.compress(b"".join(json.dumps(item).encode() + b"\n" for item in bench.items(*MIXED)))
    path = bench.folder / "in.jsonl.gz"
    path.write_bytes(packed)
    bench.input = '"in.jsonl.gz"'
    bench.run()
    path.write_bytes(packed[:-20])
    ended = bench.export("--include", "all")
    assert sorted(json.loads(line)["line"] for line in ended.out.splitlines()) == [1, 2, 3, 4, 5, 6]
    assert "truncated" in ended.err
    (bench.folder / "x.csv").write_text("as it was")
    assert "truncated" in bench.export("--join-input", "-o", "x.csv", code=2).err
    assert (bench.folder / "x.csv").read_text() == "as it was"
    assert not list(bench.folder.glob(".x.csv*"))


# --- a run directory that is not at rest --------------------------------------------------------------------------


@pytest.mark.parametrize("lose", [[], ["index"], ["index", "journal"]])
def test_a_torn_last_line_is_left_out_and_its_item_is_pending(bench: Bench, lose: list[str]) -> None:
    bench.run("好", "差", "长")
    for name in lose:
        (bench.out / name).unlink()
    results = bench.out / "results.jsonl"
    last = records(results)[-1]["id"]
    results.write_bytes(results.read_bytes()[:-30])
    before = {path.name: path.read_bytes() for path in bench.out.iterdir()}
    ended = bench.export("--include", "all")
    rows = {row["id"]: row["status"] for row in map(json.loads, ended.out.splitlines())}
    assert rows == {**dict.fromkeys(("r-0", "r-1", "r-2"), "result"), last: "pending"}
    assert "unfinished last line" in ended.err
    assert {path.name: path.read_bytes() for path in bench.out.iterdir()} == before


def test_damage_in_the_middle_is_refused_with_its_place(bench: Bench) -> None:
    bench.run("好", "差", "长")
    lines = (bench.out / "results.jsonl").read_bytes().splitlines(keepends=True)
    (bench.out / "results.jsonl").write_bytes(lines[0] + b"{broken\n" + lines[2])
    assert "results.jsonl:2: not a record of batchrun" in bench.export(code=2).err


def test_a_run_that_is_going_is_exported_as_it_stands(bench: Bench) -> None:
    write_lines(bench.folder / "in.jsonl", *bench.items("好", "久", "差", "坏"))
    command = [sys.executable, "-m", "batchrun", "run", str(bench.job()), "-q"]
    with subprocess.Popen(command, cwd=bench.folder, env=environment(), stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + 20
        while not (bench.out / "failures.jsonl").exists() or sum(map(_lines, _files(bench.out))) < 3:
            assert time.monotonic() < end
            time.sleep(0.01)
        ended = bench.export("--include", "all")
        process.kill()
    rows = [json.loads(line) for line in ended.out.splitlines()]
    assert [row["status"] for row in rows] == ["result", "pending", "result", "failure"]
    assert f"pid {process.pid}" in ended.err
    assert "unfinished" not in ended.err


def _files(out: Path) -> list[Path]:
    return [out / "results.jsonl", out / "failures.jsonl"]


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def test_a_folder_that_is_no_run_directory_is_refused(bench: Bench) -> None:
    (bench.folder / "empty").mkdir()
    assert "is it a run directory?" in bench.export(code=2, place="empty").err
    write_lines(bench.folder / "in.jsonl", *bench.items("好"))
    assert "there is no run directory yet" in bench.export(code=2, place=bench.job().name).err


# --- CSV ----------------------------------------------------------------------------------------------------------


def test_objects_become_columns_of_a_table_and_nothing_in_it_is_a_formula(bench: Bench) -> None:
    bench.run(*MIXED)
    rows = bench.table("--include", "all", "--join-input")
    assert [name for name in rows[0] if name.startswith(("output", "input"))] == [
        "output.情感", "output.分", "output.more", "output.理由", "input.id", "input.text", "input.n",
    ]  # fmt: skip
    assert [row["output.情感"] for row in rows] == ["正面", "正面", "", "负面", "", "'=1+1"]
    assert [row["output.分"] for row in rows] == ["5", "5", "", "1", "", "'12345678901234567890123"]
    assert (rows[0]["output.more"], rows[3]["output.理由"]) == ('{"a":[1,2]}', "慢\r\n很慢")
    assert [row["input.n"] for row in rows] == list("012345")
    assert [(row["error.kind"], row["error.http_status"]) for row in rows if row["status"] == "failure"] == [
        ("bad_request", "400"), ("invalid_output", "200"),
    ]  # fmt: skip
    assert {row["usage.total_tokens"] for row in rows if row["status"] == "result"} == {"5"}


def test_texts_and_objects_among_the_outputs_have_columns_beside_each_other(bench: Bench) -> None:
    bench.run("好")
    path = bench.out / "results.jsonl"
    (record,) = records(path)
    outputs = [{"a": 1}, "text", ["list"], None, {"b.c": 2, "": 3}]
    write_lines(path, *({**record, "id": f"x{n}", "line": n, "output": one} for n, one in enumerate(outputs, 1)))
    for name in ("index", "journal"):
        (bench.out / name).unlink()
    rows = bench.table("--fields", "id,output")
    assert list(rows[0]) == ["id", "output", "output.a", "output.b.c", "output."]
    assert [list(row.values())[1:] for row in rows] == [
        ["", "1", "", ""], ["text", "", "", ""], ['["list"]', "", "", ""], ["", "", "", ""], ["", "", "2", "3"],
    ]  # fmt: skip


def test_outputs_with_too_many_keys_for_a_table_stay_json(bench: Bench) -> None:
    bench.run("好")
    path = bench.out / "results.jsonl"
    (record,) = records(path)
    write_lines(path, *({**record, "id": f"x{n}", "output": {f"k{n}": n}} for n in range(1001)))
    for name in ("index", "journal"):
        (bench.out / name).unlink()
    ended = bench.export("--format", "csv", "--fields", "output")
    assert ended.out.splitlines()[:2] == ["\ufeffoutput", '"{""k0"":0}"']
    assert "more than 1000 different keys" in ended.err


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("=1+1", "'=1+1"), ("+86 138", "'+86 138"), ("-x", "'-x"), ("@SUM(A1)", "'@SUM(A1)"), ("\tx", "'\tx"),
        ("\r=1", "'\r=1"), ("\n=1", "'\n=1"), ("＝1+1", "'＝1+1"), ("＋1", "'＋1"), ("－1", "'－1"), ("＠a", "'＠a"),
        ("  =1", "'  =1"), ("\u3000=1", "'\u3000=1"), ("\ufeff=1", "'\ufeff=1"), ("\0=1", "'␀=1"), ("'tis", "''tis"),
        ("-5", "-5"), (-5, "-5"), (-1.5e-7, "-1.5e-7"), ("-1e5", "-1e5"), (0.1, "0.1"), (True, "true"), (None, ""),
        ("", ""), ("110101199003078515", "'110101199003078515"), ("123456789012345", "123456789012345"),
        (1234567890123456, "'1234567890123456"), ("007", "'007"), ("0", "0"), ("a=b", "a=b"), ("好", "好"),
        ("a\0b\x1b[31m\x7f", "a␀b␛[31m␡"), ("a\nb", "a\nb"), ([1, "=x"], '[1,"=x"]'), ({"a": 1}, '{"a":1}'),
        ("=" + "1" * 20, "'=" + "1" * 20),
    ],
)  # fmt: skip
def test_a_cell_is_text_to_a_spreadsheet(value: Any, expected: str) -> None:
    assert cell(value) == expected


@given(st.text())
def test_who_takes_one_apostrophe_off_gets_each_text_back(text: str) -> None:
    found = cell(text)
    assert not found.startswith(("=", "+", "@", "\t", "\r", "\n"))
    pictures = {code: 0x2400 + code for code in range(32) if code not in (9, 10, 13)} | {127: 0x2421}
    assert found.removeprefix("'") == text.translate(pictures)


def test_a_cell_that_excel_would_cut_is_said(bench: Bench) -> None:
    write_lines(bench.folder / "in.jsonl", {"id": "a", "text": "好", "long": "x" * 32768})
    bench.run()
    assert "1 cells are longer" in bench.export("--format", "csv", "--join-input").err


# --- Parquet ------------------------------------------------------------------------------------------------------


def test_parquet_has_one_schema_and_gives_everything_back(bench: Bench) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    bench.run(*MIXED)
    bench.export("-o", "x.parquet", "--include", "all", "--join-input", "--fields", "id,line,output,error,usage,finished_at,extraction,provider,usage.total_tokens,output.情感,input")  # fmt: skip  # noqa: E501
    table = parquet.read_table(bench.folder / "x.parquet")
    assert table.schema.field("output").metadata == {b"batchrun.content": b"json"}
    assert str(table.schema.field("finished_at").type) == "timestamp[ms, tz=UTC]"
    assert (str(table.schema.field("line").type), str(table.schema.field("usage.total_tokens").type)) == ("int64",) * 2
    rows, wanted = table.to_pylist(), bench.rows("--include", "all", "--join-input", "--fields", "id,output,error,provider")  # fmt: skip  # noqa: E501
    for row, want in zip(rows, wanted, strict=True):
        assert (row["id"], row["error"]) == (want["id"], want["error"])
        assert [row[name] and json.loads(row[name]) for name in ("output", "provider", "input")] == [
            want["output"], want["provider"], want["input"],
        ]  # fmt: skip
    bench.export("-o", "few.parquet", "--include", "failures")
    bench.export("-o", "many.parquet")
    few, many = (parquet.read_table(bench.folder / name) for name in ("few.parquet", "many.parquet"))
    assert few.schema == many.schema


def test_text_outputs_are_plain_text_in_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    finish(tmp_path, 50)
    command = [sys.executable, "-m", "batchrun", "export", "job.toml", "-o", "x.parquet"]
    subprocess.run(command, cwd=tmp_path, env=environment(), check=True, capture_output=True)
    assert parquet.read_table(tmp_path / "x.parquet").schema.field("output").metadata == {b"batchrun.content": b"text"}


def test_a_record_that_somebody_changed_is_named_and_no_file_is_left(bench: Bench) -> None:
    pytest.importorskip("pyarrow")
    bench.run("好")
    path = bench.out / "results.jsonl"
    (record,) = records(path)
    write_lines(path, {**record, "attempts": "one"})
    for name in ("index", "journal"):
        (bench.out / name).unlink()
    ended = bench.export("-o", "x.parquet", code=2)
    assert "a record between id 'r-0' and id 'r-0' is not as records are" in ended.err
    assert ended.err.count("\n") == 1
    assert not list(bench.folder.glob("*x.parquet*"))


def test_without_pyarrow_the_extra_is_named(bench: Bench) -> None:
    bench.run("好")
    missing = bench.folder / "missing" / "pyarrow"
    missing.mkdir(parents=True)
    (missing / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'pyarrow'\", name='pyarrow')\n")
    ended = bench.command("export", "out", "-o", "x.parquet", PYTHONPATH=str(missing.parent))
    assert (ended.code, "pip install 'batchrun[parquet]'" in ended.err) == (2, True)
    assert not (bench.folder / "x.parquet").exists()


# --- OpenAI Batch -------------------------------------------------------------------------------------------------


def test_lines_are_as_openais_batch_api_writes_them(bench: Bench) -> None:
    bench.run(*MIXED)
    lines = bench.rows("--format", "openai-batch", "--include", "all")
    assert [line["custom_id"] for line in lines] == [f"r-{number}" for number in range(6)]
    for line in lines:
        assert list(line) == ["id", "custom_id", "response", "error"]
        assert line["id"].startswith("batch_req_")
        assert (line["response"] is None) != (line["error"] is None)
        if line["response"] is not None:
            assert list(line["response"]) == ["status_code", "request_id", "body"]
    assert len({line["id"] for line in lines}) == 6
    bodies = {one["id"]: one["provider"]["body"] for one in records(bench.out / "results.jsonl")}
    for line in (lines[0], lines[1], lines[3], lines[5]):
        assert line["response"]["status_code"] == 200
        assert line["response"]["request_id"].startswith("q-")
        assert line["response"]["body"] == bodies[line["custom_id"]]
    assert lines[2]["response"] == {
        "status_code": 400, "request_id": "q-bad", "body": {"error": {"message": "no", "code": "bad"}},
    }  # fmt: skip
    assert lines[4]["error"]["code"] == "invalid_output"  # nobody must take it for an answer
    assert bench.rows("--format", "openai-batch", "--include", "failures") == [lines[2], lines[4]]
    assert bench.rows("--format", "openai-batch") == [line for line in lines if line["custom_id"] in bodies]


def test_bodies_are_exported_byte_for_byte(bench: Bench) -> None:
    bench.run("好")
    line = (bench.out / "results.jsonl").read_bytes()
    body = line[line.index(b'"body":') :].rstrip(b"}\n")
    assert body in bench.export("--format", "openai-batch").out.encode()
    assert body in bench.export("--fields", "provider").out.encode()


# --- where it goes ------------------------------------------------------------------------------------------------


def test_a_file_is_replaced_in_one_step_and_readable_by_others(bench: Bench) -> None:
    bench.run("好", "差")
    target = bench.folder / "x.csv"
    target.write_text("before")
    link = bench.folder / "link.csv"
    link.symlink_to(target)
    ended = bench.export("-o", "link.csv")
    assert ended.out == ""
    assert "2 rows (2 result) to link.csv" in ended.err
    assert link.is_symlink()
    assert target.read_bytes().startswith(b"\xef\xbb\xbfid,")
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert bench.export("-o", "/dev/null").code == 0
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.parametrize(
    "name", ["out/results.jsonl", "out/run.json", "out/journal", "out/lock", "out/index.new", "in.jsonl", "job.toml",
             "out", "no/x.jsonl"],
)  # fmt: skip
def test_nothing_that_belongs_to_the_run_is_written_to(bench: Bench, name: str) -> None:
    bench.run("好")
    before = {path: path.read_bytes() for path in bench.folder.rglob("*") if path.is_file()}
    bench.export("--format", "jsonl", "-o", name, code=2, place="job.toml")
    assert {path: path.read_bytes() for path in bench.folder.rglob("*") if path.is_file()} == before


def test_a_full_disk_leaves_what_stood_there(bench: Bench) -> None:
    bench.run("好")
    ended = bench.command("export", "out", "-o", "/dev/full")
    assert (ended.code, "No space left" in ended.err) == (1, True)


def test_a_reader_that_leaves_is_no_error(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    finish(tmp_path / "many", 3000)
    command = f"{sys.executable} -m batchrun export many/job.toml | head -n 1"
    done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment(), capture_output=True, check=False)
    assert json.loads(done.stdout)["id"] == "r-0"
    assert b"Traceback" not in done.stderr


def test_an_interrupted_export_leaves_nothing_beside(tmp_path: Path) -> None:
    finish(tmp_path, 100_000)
    command = [sys.executable, "-m", "batchrun", "export", "job.toml", "-o", "x.csv"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE) as process:
        end = time.monotonic() + 20
        while not list(tmp_path.glob(".x.csv*")):
            assert time.monotonic() < end
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
    assert not list(tmp_path.glob("*x.csv*"))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--fields", "id,sentiment"], "expected one of id, line, status, output"),
        (["--fields", "error.nope"], "error.kind"), (["--fields", "id,id"], "'id' twice"), (["--fields", ""], "one of"),
        (["--format", "openai-batch", "--fields", "id"], "leave it out"),
        (["--format", "openai-batch", "--join-input"], "leave it out"),
        (["--format", "parquet"], "name a file with -o"),
    ],
)  # fmt: skip
def test_what_cannot_be_exported_is_said(bench: Bench, flags: list[str], said: str) -> None:
    bench.run("好")
    ended = bench.export(*flags, code=2)
    assert (said in ended.err, ended.out) == (True, "")


@pytest.mark.parametrize(
    ("path", "expected"), [("a", {"b": 1}), ("a.b", 1), ("c.d", 2), ("c.d.e", None), ("x.y.z", 3), ("n", None)]
)
def test_a_dotted_path_leads_through_keys_with_dots(path: str, expected: Any) -> None:
    assert picked({"a": {"b": 1}, "c.d": 2, "x.y": {"z": 3}, "x": {}}, path) == expected


def test_many_items_are_exported_in_bounded_memory(tmp_path: Path) -> None:
    items = 60_000
    (tmp_path / "idle").mkdir()
    finish(tmp_path / "idle", 1)
    finish(tmp_path, items)
    flags = ("--include", "all", "--join-input")
    _, idle = measured(tmp_path / "idle", "export", "job.toml", "-o", "x.jsonl", *flags)
    code, peak = measured(tmp_path, "export", "job.toml", "-o", "x.jsonl", *flags)
    assert code == 0
    assert peak - idle < 100 * items + 12 * 2**20  # what is held for an item is small, and none of its text
    with (tmp_path / "x.jsonl").open("rb") as file:
        numbers = [json.loads(line)["line"] for line in file]
    assert numbers == list(range(1, items + 1))
    shutil.rmtree(tmp_path / "out")
