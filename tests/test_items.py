"""Input files to items: every form, every damage; a bad line is a failure of its own, the rest is read."""

from __future__ import annotations

import base64
import gzip
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from backports import zstd
from conftest import environment, measured, records, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrun.items import ItemReader, parse_line
from batchrun.job import Job, JobError
from batchrun.lines import MAX_LINE_BYTES, InputError, expand_inputs
from batchrun.prompts import RequestBuilder
from batchrun.records import FAILURE_KEYS, Failure, Item

MESSAGES = [{"role": "user", "content": "你好"}]
BODY = {"model": "m", "messages": MESSAGES}


def read(*paths: Path | str, **options):
    reader = ItemReader(expand_inputs([str(path) for path in paths]), **options)
    return list(reader)


def read_bytes(folder: Path, data: bytes, **options):
    path = folder / "input.jsonl"
    path.write_bytes(data)
    return read(path, **options)


def parse(line: bytes | dict, **options):
    return parse_line(line if isinstance(line, bytes) else json.dumps(line).encode(), 7, **options)


def refused(line: bytes | dict, item_id: str = "line:7", **options) -> str:
    """Parse a line that must be refused; give the message."""
    failure = parse(line, **options)
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.line, failure.id) == ("invalid_input", 7, item_id)
    assert held(failure) == line if isinstance(line, dict) else held(failure).keys() <= {"raw", "raw_base64"}
    assert failure.message.startswith("line 7: ")
    return failure.message


def held(failure: Failure) -> dict:
    return json.loads(failure.to_json())["input"]


# --- forms ---


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "a", "prompt": "你好"},
        {"id": "a", "prompt": ""},
        {"id": "a", "messages": MESSAGES},
        {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": BODY},
        {"custom_id": "a", "body": BODY},
        {"id": "a", "prompt": "x", "unknown": {"kept": [1, None]}},
    ],
)
def test_every_form_of_item_is_read_as_it_is(fields):
    raw = json.dumps(fields, ensure_ascii=False).encode()
    item = parse(b"  " + raw + b" \r")
    assert isinstance(item, Item)
    assert (item.id, item.line, item.raw, item.fields) == ("a", 7, raw, fields)


@pytest.mark.parametrize("fields", [{"id": "a"}, {"id": "a", "text": "x"}, {"id": "a", "messages": "no", "prompt": 3}])
def test_any_object_is_an_item_for_a_template(fields):
    item = parse(fields, templated=True)
    assert isinstance(item, Item)
    assert item.fields == fields


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"id": "a"}, '"prompt", "messages"'),
        ({"id": "a", "prompt": 3}, "prompt: expected a string, got a number"),
        ({"id": "a", "prompt": None}, "prompt: expected a string, got null"),
        ({"id": "a", "messages": "hi"}, "messages: expected a list"),
        ({"id": "a", "messages": []}, "messages: expected a list of messages that is not empty"),
        ({"id": "a", "messages": ["hi"]}, "messages[0]: expected an object"),
        ({"id": "a", "messages": [*MESSAGES, {"content": "x"}]}, "messages[1]: expected an object"),
        ({"custom_id": "a", "body": "hi"}, "body: expected an object, got a string"),
        ({"custom_id": "a", "body": {}}, "body.messages is missing"),
        ({"custom_id": "a", "body": {"messages": []}}, "body.messages: expected a list"),
        ({"custom_id": "a", "url": "/v1/embeddings", "body": BODY}, "url: only /v1/chat/completions"),
        ({"custom_id": "a", "url": 3, "body": BODY}, "url: only /v1/chat/completions"),
        ({"custom_id": "a", "method": "GET", "body": BODY}, "method: expected POST"),
    ],
)
def test_an_object_of_no_known_form_is_refused_with_what_was_expected(fields, expected):
    assert expected in refused(fields, "a")


@pytest.mark.parametrize("line", [b"[1]", b'"text"', b"3", b"true", b"null"])
def test_a_line_that_is_no_object_is_refused_and_kept_raw(line):
    assert "expected a JSON object, got " in refused(line, templated=True)
    assert held(parse(line)) == {"raw": line.decode()}


# --- ids ---


@pytest.mark.parametrize("key", ["id", "custom_id"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [("r-17", "r-17"), (17, "17"), (0, "0"), (-3, "-3"), (2**70, str(2**70)), ("读者", "读者"), (" a ", " a ")],
)
def test_an_id_is_a_string_or_an_integer_and_becomes_a_string(key, value, expected):
    assert parse({key: value, "prompt": "x"}).id == expected


@pytest.mark.parametrize("value", [1.5, 1.0, True, False, None, {"a": 1}, [], ""])
@pytest.mark.parametrize("key", ["id", "custom_id"])
def test_an_id_of_another_type_is_refused(key, value):
    assert f"{key}" in refused({key: value, "prompt": "x"})


def test_a_missing_id_is_the_line_number(tmp_path):
    entries = read(write_lines(tmp_path / "a", {"prompt": "x"}, b"", {"prompt": "y"}))
    assert [(entry.id, entry.line) for entry in entries] == [("line:1", 1), ("line:3", 3)]


@pytest.mark.parametrize("value", ["../../etc/passwd", "\x1b[31mred", "a\u202eb", "\0", "x" * 5000, "a\nb"])
def test_a_hostile_id_is_data(value):
    assert parse({"id": value, "prompt": "x"}).id == value


def test_the_second_use_of_an_id_is_a_failure_that_names_both_lines(tmp_path):
    first, second = {"id": "a", "prompt": "x"}, {"id": "a", "prompt": "y"}
    entries = read(write_lines(tmp_path / "a", first, {"id": "b", "prompt": "x"}, second))
    assert [type(entry) for entry in entries] == [Item, Item, Failure]
    assert (entries[2].kind, entries[2].id, entries[2].line) == ("duplicate_id", "a", 3)
    assert "line 3" in entries[2].message
    assert "line 1" in entries[2].message
    assert held(entries[2]) == second


def test_the_integer_1_and_the_string_1_are_one_id(tmp_path):
    entries = read(write_lines(tmp_path / "a", {"id": 1, "prompt": "x"}, {"id": "1", "prompt": "y"}))
    assert [entry.id for entry in entries] == ["1", "1"]
    assert entries[1].kind == "duplicate_id"


def test_an_id_is_not_used_twice_over_several_files(tmp_path):
    one = write_lines(tmp_path / "a", {"id": "x", "prompt": "1"})
    two = write_lines(tmp_path / "b", {"id": "y", "prompt": "1"}, {"id": "x", "prompt": "1"})
    assert [entry.line for entry in read(one, two)] == [1, 2, 3]
    assert read(one, two)[2].kind == "duplicate_id"


def test_no_two_records_of_a_run_share_an_id_but_as_duplicates(tmp_path):
    entries = read(write_lines(tmp_path / "a", {"id": "line:2", "prompt": "x"}, b"garbage"))
    assert [(entry.id, entry.line) for entry in entries] == [("line:2", 1), ("line:2", 2)]
    assert entries[1].kind == "duplicate_id"
    assert "not valid JSON" in entries[1].message


# --- bytes to lines ---


def zstd_checked(data: bytes) -> bytes:
    """Pack as the zstd command does, with a checksum."""
    return zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1})


TWO = b'{"id":"a","prompt":"x"}\n{"id":"b","prompt":"y"}\n'


@pytest.mark.parametrize(
    "data",
    [
        TWO,
        TWO.rstrip(),
        TWO.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + TWO,
        b"\n \t\r\n\n" + TWO + b"\n\r\n  ",
        gzip.compress(TWO),
        zstd.compress(TWO),
        b"".join(gzip.compress(line) for line in TWO.splitlines(keepends=True)),
        b"".join(zstd.compress(line) for line in TWO.splitlines(keepends=True)),
        gzip.compress(b"\xef\xbb\xbf" + TWO),
    ],
    ids=["plain", "no-final-newline", "crlf", "bom", "blank-lines", "gzip", "zstd", "gzip-members", "zstd-frames",
         "gzip-bom"],
)  # fmt: skip
def test_two_items_are_read_from_every_packing(tmp_path, data):
    entries = read_bytes(tmp_path, data)
    assert [(entry.id, entry.fields["prompt"]) for entry in entries] == [("a", "x"), ("b", "y")]


@pytest.mark.parametrize(
    "data", [b"", b"\n", b" \r\n\n\t\n", b"\xef\xbb\xbf", gzip.compress(b"", mtime=0), b"\xef\xbb\xbf\r\n"]
)
def test_an_empty_input_has_no_items(tmp_path, data):
    assert read_bytes(tmp_path, data) == []


def test_blank_lines_count_as_lines_but_are_no_items(tmp_path):
    assert [entry.line for entry in read_bytes(tmp_path, b"\n\n" + TWO + b"\n")] == [3, 4]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\r"])
def test_only_a_newline_byte_ends_a_line(tmp_path, mark):
    escaped = mark if mark in "\u2028\u2029\x85" else json.dumps(mark)[1:-1]
    line = f'{{"id":"a","prompt":"x{escaped}y"}}'.encode()
    entries = read_bytes(tmp_path, line + b"\n")
    assert [entry.fields["prompt"] for entry in entries] == [f"x{mark}y"]


def test_a_raw_vertical_tab_in_a_line_makes_one_failure_not_two_items(tmp_path):
    entries = read_bytes(tmp_path, b'{"id":"a",\x0b"prompt":"x"}\n' + TWO)
    assert [entry.line for entry in entries] == [1, 2, 3]
    assert isinstance(entries[0], Failure)


@pytest.mark.parametrize("encoding", ["gb18030", "big5", "gbk", "latin-1"])
def test_another_encoding_is_read_as_the_job_says(tmp_path, encoding):
    text = "ünïcode" if encoding == "latin-1" else "中文許功蓋"
    if encoding == "gb18030":
        text += "𠮷🙂"
    line = json.dumps({"id": "a", "prompt": text}, ensure_ascii=False)
    (item,) = read_bytes(tmp_path, line.encode(encoding) + b"\r\n", encoding=encoding)
    assert item.fields["prompt"] == text
    assert item.raw == line.encode()


def test_a_line_that_is_not_in_the_encoding_of_the_job_is_refused(tmp_path):
    entries = read_bytes(tmp_path, b'{"id":"a","prompt":"\xff"}\n' + TWO, encoding="gb18030")
    assert [type(entry) for entry in entries] == [Failure, Item, Item]
    assert "not valid gb18030: byte FF at offset 20" in entries[0].message


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_refused_by_name_before_anything_is_read(tmp_path, encoding):
    path = tmp_path / "input.jsonl"
    path.write_bytes('{"prompt": "x"}\n'.encode(encoding))
    with pytest.raises(JobError, match="is UTF-16; convert it first: iconv"):
        expand_inputs([str(path)])


def test_utf_16_within_gzip_is_refused_by_name(tmp_path):
    with pytest.raises((InputError, JobError), match="UTF-16"):
        read_bytes(tmp_path, gzip.compress('{"prompt": "x"}\n'.encode("utf-16")))


@pytest.mark.parametrize("blanks", [b"", b"  \t"])
def test_invalid_utf_8_is_named_by_byte_and_offset_and_its_bytes_are_kept(tmp_path, blanks):
    line = blanks + b'{"id":"a","prompt":"\xe4\xbd\xa0\xff"}'
    entries = read_bytes(tmp_path, line + b"\n" + TWO)
    assert [type(entry) for entry in entries] == [Failure, Item, Item]
    assert entries[0].message == f"line 1: not valid utf-8: byte FF at offset {len(blanks) + 23}"
    assert base64.b64decode(held(entries[0])["raw_base64"]) == line
    assert "\ufffd" in held(entries[0])["raw"]


@pytest.mark.parametrize("line", [b"\0\0\0", b'{"id":"a","prompt":"x\0"}', b'{"id":"c","prom', b"{'id': 1}", b"{}{}"])
def test_a_damaged_line_is_one_failure_and_the_rest_is_read(tmp_path, line):
    entries = read_bytes(tmp_path, TWO + line)
    assert [type(entry) for entry in entries] == [Item, Item, Failure]
    assert (entries[2].line, entries[2].kind) == (3, "invalid_input")
    assert held(entries[2]) == {"raw": line.decode()}


# --- JSON of the hostile kind ---


@pytest.mark.parametrize("shape", [b'{"a":' * 100_000, b'{"prompt":"x","a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"])
def test_deep_nesting_is_refused_without_a_crash(shape):
    assert refused(shape)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "9" * 5000])
def test_a_number_that_json_or_a_double_cannot_hold_is_refused(number):
    assert refused(b'{"id":"a","prompt":"x","n":%s}' % number.encode())


@pytest.mark.parametrize("text", ['"\\ud83d"', '"\\ude00\\ud83d"', '{"\\udfff": 1}'])
def test_a_lone_surrogate_is_refused_in_any_place(text):
    failure = parse(b'{"id":"a","prompt":"x","n":%s}' % text.encode())
    assert isinstance(failure, Failure)
    assert held(failure)["raw"].count("\\u")


@pytest.mark.parametrize("number", [2**53 + 1, 2**63, 2**64 - 1, 2**64, -(2**63) - 1, -(2**64), 10**40 + 1, 10**400])
def test_a_whole_number_stays_exact_on_its_way_to_the_wire(number):
    body = {**BODY, "seed": number, "deep": [{"n": [number]}]}
    item = parse({"id": number, "body": body})
    assert item.id == str(number)
    job = Job(input=("-",), output=Path("out"))
    assert json.loads(RequestBuilder(job, None).build(item).body) == body


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=50)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), json_values), st.booleans())
def test_any_json_object_round_trips(fields, ascii_only):
    fields = {**fields, "id": "a"}
    if fields.keys() == FAILURE_KEYS:
        return
    raw = json.dumps(fields, ensure_ascii=ascii_only).encode()
    item = parse(raw, templated=True)
    assert isinstance(item, Item)
    assert (item.fields, item.raw) == (fields, raw)
    assert repr(item.fields) == repr(fields)  # 1 is not 1.0, nor True


@given(
    st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass"))
    | json_values.map(lambda value: json.dumps(value).encode()),
    st.booleans(),
    st.sampled_from(["utf-8", "gb18030", "big5"]),
)  # fmt: skip
def test_no_line_whatever_raises(data, templated, encoding):
    entry = parse_line(data, 1, encoding=encoding, templated=templated)
    assert isinstance(entry, Item | Failure)
    if isinstance(entry, Failure):
        assert json.loads(entry.to_json())["line"] == 1


@settings(max_examples=50)
@given(st.fixed_dictionaries(dict.fromkeys(sorted(FAILURE_KEYS), json_values)), st.booleans())
def test_no_line_with_the_keys_of_a_failure_raises(record, templated):
    entry = parse_line(json.dumps(record).encode(), 1, templated=templated)
    assert isinstance(entry, Item | Failure)


# --- files ---


def test_a_glob_gives_its_files_in_order_and_each_once(tmp_path):
    for name in ("b.jsonl", "a.jsonl", "c.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.jsonl").mkdir()
    a, b = str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")
    assert expand_inputs([str(tmp_path / "*.jsonl"), a]) == [a, b]
    assert expand_inputs([b, str(tmp_path / "*.jsonl")]) == [b, a]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path):
    path = tmp_path / "a[1].jsonl"
    path.write_bytes(TWO)
    assert expand_inputs([str(path)]) == [str(path)]


@pytest.mark.parametrize("name", ["none.jsonl", "none*.jsonl", "x" * 300, "file/inside", "nul\0"])
def test_inputs_that_are_not_there_are_all_named(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(JobError) as caught:
        expand_inputs([str(tmp_path / name), str(tmp_path / "other")])
    assert [f"{tmp_path / name}" in caught.value.problems[0], "other" in caught.value.problems[1]] == [True, True]


def test_a_folder_as_input_is_refused_with_what_to_write(tmp_path):
    with pytest.raises(JobError, match=r"is a folder; name its files"):
        expand_inputs([str(tmp_path)])


def test_files_are_described_by_size_lines_and_hash(tmp_path):
    one, two = tmp_path / "a", tmp_path / "b"
    one.write_bytes(TWO)
    two.write_bytes(gzip.compress(TWO + b"\n"))
    reader = ItemReader([str(one), str(two)])
    assert len(list(reader)) == 4
    described = [(file.path, file.size, file.lines) for file in reader.files]
    assert described == [(str(one), len(TWO), 2), (str(two), two.stat().st_size, 3)]
    assert len({file.blake2b for file in reader.files}) == 2


MANY = b"".join(b'{"id":"%d","prompt":"%s"}\n' % (number, os.urandom(30).hex().encode()) for number in range(20_000))


@pytest.mark.parametrize("pack", [gzip.compress, zstd_checked], ids=["gzip", "zstd"])
def test_a_truncated_archive_gives_what_is_whole_and_then_says_truncated(tmp_path, pack):
    path = tmp_path / "input"
    packed = pack(MANY)
    path.write_bytes(packed[: len(packed) // 2])
    entries = []
    with pytest.raises(InputError, match="truncated"):
        entries.extend(ItemReader([str(path)]))
    assert entries
    assert [(entry.id, type(entry)) for entry in entries] == [(str(number), Item) for number in range(len(entries))]


@pytest.mark.parametrize("pack", [gzip.compress, zstd_checked], ids=["gzip", "zstd"])
def test_a_damaged_archive_is_an_error_of_the_input(tmp_path, pack):
    packed = bytearray(pack(MANY))
    packed[len(packed) // 2 : len(packed) // 2 + 50] = bytes(50)
    path = tmp_path / "input"
    path.write_bytes(packed)
    with pytest.raises(InputError, match="reading failed"):
        list(ItemReader([str(path)]))


@pytest.mark.parametrize(("cut", "code"), [(0.5, 1), (0.0001, 2)], ids=["midway", "at-once"])
def test_a_run_of_a_truncated_archive_is_never_a_success(batchrun, simulator, tmp_path, cut, code):
    packed = gzip.compress(b"".join(MANY.splitlines(keepends=True)[:4000]))
    (tmp_path / "input").write_bytes(packed[: max(20, int(len(packed) * cut))])
    ended = batchrun("run", "-i", "input", "-o", "out", "-m", "m", "--base-url", simulator())
    assert ended.code == code
    assert "truncated" in ended.err
    assert "Traceback" not in ended.err


# --- standard input, FIFOs, length ---


@pytest.mark.parametrize("data", [TWO, gzip.compress(TWO), zstd.compress(TWO)], ids=["plain", "gzip", "zstd"])
def test_standard_input_is_read(batchrun, data):
    ended = batchrun("run", "-i", "-", "-o", "out", "--dry-run", "--json", "-q", stdin=data)
    assert ended.code == 0
    assert ended.json()["counts"]["ready"] == 2


def test_utf_16_on_standard_input_is_refused(batchrun):
    ended = batchrun("run", "-i", "-", "-o", "out", "--dry-run", stdin='{"prompt":"x"}'.encode("utf-16"))
    assert ended.code == 2
    assert "standard input: is UTF-16" in ended.err


def test_standard_input_that_does_not_block_is_read_to_its_end(tmp_path):
    out, into = os.pipe()
    os.set_blocking(out, False)
    process = subprocess.Popen(
        [sys.executable, "-m", "batchrun", "run", "-i", "-", "-o", "out", "--dry-run", "--json", "-q"],
        stdin=out, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, env=environment(),
    )  # fmt: skip
    os.close(out)
    first, second = TWO.splitlines(keepends=True)
    os.write(into, first)
    with pytest.raises(subprocess.TimeoutExpired):  # it must go on waiting for more
        process.wait(1.5)
    os.write(into, second)
    os.close(into)
    answer, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, b"")
    assert json.loads(answer)["counts"]["ready"] == 2


def test_a_fifo_is_read_to_its_end(batchrun, tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(MANY,), daemon=True)
    writer.start()
    ended = batchrun("run", "-i", path, "-o", "out", "--dry-run", "--json", "-q")
    writer.join(10)
    assert ended.json()["counts"]["ready"] == 20_000


def test_a_line_over_the_limit_is_a_failure_that_keeps_its_first_bytes(tmp_path):
    path = tmp_path / "input"
    with path.open("wb") as file:
        file.write(TWO + b'{"prompt":"')
        file.seek(MAX_LINE_BYTES * 3 // 2, os.SEEK_CUR)
        file.write(b'"}\n' + TWO.replace(b'"a"', b'"c"').replace(b'"b"', b'"d"'))
    entries = read(path)
    assert [type(entry) for entry in entries] == [Item, Item, Failure, Item, Item]
    length = len(b'{"prompt":""}') + MAX_LINE_BYTES * 3 // 2
    assert f"has {length} bytes; at most {MAX_LINE_BYTES} are read" in entries[2].message
    assert held(entries[2])["raw"].startswith('{"prompt":"\0\0')
    assert len(held(entries[2])["raw"]) == 64 * 1024


def test_a_very_long_line_without_an_end_takes_bounded_memory(tmp_path):
    packed = gzip.compress(bytes(300 * 1024 * 1024), compresslevel=1)
    (tmp_path / "bomb.gz").write_bytes(packed)
    code, peak = measured(tmp_path, "run", "-i", "bomb.gz", "-o", "out", "--dry-run", "-q")
    assert code == 3
    assert peak < 260 * 1024 * 1024  # the limit of a line is 64 MB, and it is joined once


# --- the failure queue of another run ---


def failure_line(item_id: str, line: int, held: dict, *, kind: str = "invalid_input", attempts: int = 0) -> dict:
    return {
        "id": item_id, "line": line, "error": {"kind": kind, "message": "m", "http_status": None, "code": None,
        "advice": "a"}, "attempts": attempts, "usage": None, "finished_at": "2026-11-22T00:00:00.000Z", "input": held,
        "provider": None,
    }  # fmt: skip


def test_the_failure_queue_of_another_run_is_an_input(batchrun, simulator, tmp_path):
    items = [
        {"id": 5, "prompt": "一"},
        {"prompt": "二"},
        {"custom_id": "c", "body": BODY},
        {"id": "m", "messages": MESSAGES},
    ]
    write_lines(tmp_path / "input", *items, b"{torn", b'{"prompt":"\xff"}')
    bad = simulator("--fault", "bad_request=1")
    assert batchrun("run", "-i", "input", "-o", "one", "-m", "m", "--base-url", bad).code == 3
    queue = records(tmp_path / "one/failures.jsonl")
    assert {record["id"]: record["error"]["kind"] for record in queue} == {
        "5": "bad_request", "line:2": "bad_request", "c": "bad_request", "m": "bad_request",
        "line:5": "invalid_input", "line:6": "invalid_input",
    }  # fmt: skip
    again = batchrun("run", "-i", "one/failures.jsonl", "-o", "two", "-m", "m", "--base-url", simulator())
    assert again.code == 3
    assert {record["id"] for record in records(tmp_path / "two/results.jsonl")} == {"5", "line:2", "c", "m"}
    failed = {record["id"]: record["input"] for record in records(tmp_path / "two/failures.jsonl")}
    assert failed == {record["id"]: record["input"] for record in queue if record["error"]["kind"] == "invalid_input"}


def test_a_requeued_line_that_is_still_unusable_keeps_its_id_apart_from_every_item(tmp_path):
    entries = read(
        write_lines(
            tmp_path / "failures.jsonl",
            failure_line("line:2", 2, {"raw": "{torn"}),
            failure_line("line:1", 1, {"prompt": "x"}, kind="network", attempts=6),
        )
    )
    assert [(type(entry), entry.id) for entry in entries] == [(Failure, "line:2"), (Item, "line:1")]
    assert held(entries[0]) == {"raw": "{torn"}


def test_a_requeued_raw_line_that_can_be_used_now_is_an_item():
    line = {"raw": '{"text": "x"}'}
    item = parse(failure_line("line:3", 3, line), templated=True)
    assert (item.id, item.fields) == ("line:3", {"text": "x"})


def test_a_requeued_raw_line_with_newlines_stays_one_line_in_every_file():
    item = parse(failure_line("line:3", 3, {"raw": '{\n"prompt":\n"x"}'}))
    assert item.fields == {"prompt": "x"}
    assert b"\n" not in item.raw


def test_a_requeued_item_with_a_field_called_raw_is_that_item():
    item = parse(failure_line("line:3", 3, {"raw": "生"}, kind="network", attempts=6), templated=True)
    assert (item.id, item.fields) == ("line:3", {"raw": "生"})


def test_the_failure_queue_is_utf_8_whatever_the_encoding_of_the_job():
    line = json.dumps(failure_line("甲", 3, {"id": "甲", "text": "中文許功蓋"}), ensure_ascii=False).encode()
    for encoding in ("gb18030", "big5", "latin-1"):
        item = parse(line, encoding=encoding, templated=True)
        assert (item.id, item.fields["text"]) == ("甲", "中文許功蓋")


@pytest.mark.parametrize("item_id", [None, "", 1.5, {"a": 1}])
def test_a_line_with_the_keys_of_a_failure_and_an_impossible_id_is_refused(item_id):
    assert "id" in refused({**failure_line("x", 3, {"prompt": "x"}), "id": item_id})
