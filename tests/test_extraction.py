"""The extraction: hand-made cases, generated damages, cuts at every place, exactness, hostile inputs, the command."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from extraction.damage import generate
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrun import ErrorKind, JobError, Schema, extract

CASES = [
    json.loads(line)
    for path in sorted((Path(__file__).parent / "extraction" / "cases").glob("*.jsonl"))
    for line in path.read_bytes().splitlines()
]


def same(one: Any, other: Any) -> bool:
    """Compare JSON values: 1 is not true, "1" is not 1; 1 and 1.0 are the same number."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return one == other


# --- cases --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_a_hand_made_answer(case: dict[str, Any]) -> None:
    found = extract(case["text"], case["schema"], finish_reason=case["finish_reason"])
    if "error" in case:
        assert found.error is not None, f"{case['why']}: gave {found.output!r}"
        assert (found.output, found.error.kind) == (None, case["error"]), found.error.message
    else:
        assert found.error is None, f"{case['why']}: {found.error.message}"
        assert same(found.output, case["output"]), case["why"]


def test_the_cases_are_many_and_of_every_kind() -> None:
    tags = Counter(tag for case in CASES for tag in case["tags"])
    assert len(CASES) >= 400
    assert tags["chinese"] >= len(CASES) / 3
    assert sum("error" in case for case in CASES) >= len(CASES) / 6
    assert tags["trap"] >= len(CASES) / 6


@pytest.mark.parametrize("seed", range(1, 7))
def test_generated_damages_are_read_as_they_were_before(seed: int) -> None:
    wrong = []
    for case in generate(seed, 500):
        found = extract(case.text, case.schema, finish_reason=case.finish_reason)
        if case.error is not None:
            is_right = found.error is not None and (found.error.kind == "truncated") == (case.error == "truncated")
        else:
            is_right = found.ok and same(found.output, case.output)
        if not is_right:
            wrong.append((case, found))
    assert len(wrong) <= 1, wrong


# --- cut off ------------------------------------------------------------------------------------------------------

DOCUMENTS = [
    json.dumps({"标题": '关于"双减"政策', "评分": 4.5, "标签": ["快", "好"], "作者": {"姓名": "张三", "年龄": 30}}),
    '{"标题": "关于"双减"政策", "正文": "第一段\n第二段：\\"好\\"", "数": [1, -2.5e3, null, true], "空": {}}',
    "{'名': 'it\\'s', '真': True, '表': ['甲', '乙',], }",
    "｛“键”：“他说“好””，“数”：１２，“表”：［“甲”，“乙”］｝",
    '[{"a": "x", "b": [1, 2]}, {"a": "y", "b": []}]',
]


@pytest.mark.parametrize("lead", ["", "结果如下：\n", "```json\n", "<think>先想{想}</think>\n"])
@pytest.mark.parametrize("document", DOCUMENTS, ids=range(len(DOCUMENTS)))
def test_an_answer_cut_at_any_place_is_truncated_and_never_a_shorter_value(document: str, lead: str) -> None:
    assert extract(lead + document).ok
    for end in range(2, len(document)):
        found = extract(lead + document[:end])
        assert found.error is not None, document[:end]
        assert found.error.kind == "truncated", (document[:end], found.error.message)


def test_a_finish_reason_of_length_outweighs_a_whole_value() -> None:
    found = extract('{"a": 1}', finish_reason="length")
    assert (found.ok, found.error and found.error.kind) == (False, ErrorKind.TRUNCATED)


# --- exactness ----------------------------------------------------------------------------------------------------

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4), max_leaves=30,
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    value=JSON_VALUES, ascii_only=st.booleans(), indent=st.sampled_from([None, 2]), space=st.sampled_from(["", "\n"])
)
def test_what_is_valid_json_is_returned_exactly(value: Any, ascii_only: bool, indent: int | None, space: str) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    try:
        expected = json.loads(text.encode("utf-8", "surrogatepass").decode())
    except UnicodeDecodeError:
        return
    found = extract(space + text + space)
    assert found.error is None, found.error
    assert json.dumps(found.output) == json.dumps(expected)
    assert found.extraction is not None
    assert (found.extraction.method, found.extraction.repairs) == ("as_is", ())
    assert json.dumps(json.loads(found.to_json())["output"]) == json.dumps(expected)


@settings(max_examples=200, deadline=None)
@given(value=JSON_VALUES.filter(lambda value: isinstance(value, dict | list) and len(value) > 1), fenced=st.booleans())
def test_valid_json_inside_of_words_is_returned_exactly(value: Any, fenced: bool) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=1)
    found = extract(f"好的：\n```json\n{text}\n```\n以上。" if fenced else f"好的，结果如下：\n{text}\n以上。", {})
    assert found.error is None, found.error
    assert json.dumps(found.output) == json.dumps(value)


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ('{"n": 123456789012345678901234567890}', {"n": 123456789012345678901234567890}),
        ('{"n": 123456789012345678901234567890,}', {"n": 123456789012345678901234567890}),
        ('{"a": 1, "a": 1}', {"a": 1}),
        ('{"s": "\\ud83d\\ude00"}', {"s": "😀"}),
        ('{"s": "x\\ud800y"}', {"s": "x\ufffdy"}),
        ("﻿[1]", [1]),
        ("-0.0", -0.0),
        ("null", None),
    ],
)
def test_what_has_its_own_rule(text: str, output: Any) -> None:
    found = extract(text)
    assert found.ok, found.error
    assert json.dumps(found.output) == json.dumps(output)
    assert json.loads(found.to_json())["output"] == output


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "a": 2}', "'a' comes twice"),
        ('{"a": 1, "b": [1, 2,], "a": 2}', "'a' comes twice"),
        ('{"a": 1, "a": true}', "comes twice"),
        ('{"n": 1e400}', "out of the range"),
        ('{"n": -1e400,}', "out of the range"),
        ('{"n": NaN}', "NaN"),
        ("[Infinity,]", "Infinity"),
        ("9" * 5000, "thousands of digits"),
        ("[" * 300 + "]" * 300, "levels deep"),
        ('{"a":' * 300 + "1,]" + "}" * 300, "levels deep"),
    ],
)
def test_what_has_two_readings_or_no_place_in_a_record_fails(text: str, words: str) -> None:
    found = extract(text)
    assert found.error is not None
    assert found.error.kind == "invalid_output"
    assert words in found.error.message


# --- how it was found ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "method", "repairs"),
    [
        ('{"a": 1}', "as_is", ()),
        ('```json\n{"a": 1}\n```', "fence", ()),
        ('结果：{"a": 1}', "embedded", ()),
        ('"{\\"a\\": 1}"', "json_string", ()),
        ('<tool_call>\n{"name": "output", "arguments": {"a": 1}}\n</tool_call>', "tool_call", ()),
        ('{"a": 1,}', "embedded", ("trailing_comma",)),
        ("{a: 1, 'b': True}", "embedded", ("bare_key", "single_quotes", "python_literal")),
        ('{"a"： 1，"b"："关于"双减"的"}', "embedded", ("full_width_punctuation", "unescaped_quote")),
        ('{"a": 1 /* 一 */, "b": 10:30}', "embedded", ("comment", "bare_value")),
        ("{&quot;a&quot;: 1}", "embedded", ("html_entities",)),
        ('{\\"a\\": 1}', "embedded", ("escaped_document",)),
        ('{"a": "C:\\Users\\李", "b": １２}', "embedded", ("bad_escape", "full_width_digits")),
        ('{"a": 1,\u00a0"b": "x\ny"}', "embedded", ("unicode_space", "raw_newline")),
        ('{"a": [1, 2}', "embedded", ("missing_bracket",)),
    ],
)
def test_the_method_and_every_repair_are_named(text: str, method: str, repairs: tuple[str, ...]) -> None:
    found = extract(text, {"type": "object", "required": ["a"]})
    assert found.extraction is not None, found.error
    assert (found.extraction.method, found.extraction.repairs) == (method, repairs)


def test_much_space_after_a_value_is_no_trouble() -> None:
    assert extract('{"a": 1}' + " " * 200_000 + "完" + "\n" * 200_000).output == {"a": 1}


def test_json_lines_are_one_array_where_the_schema_wants_one() -> None:
    lines = '{"a": 1}\n{"a": 2}\n'
    assert extract(lines, {"type": "array"}).output == [{"a": 1}, {"a": 2}]
    assert extract(lines, {"type": "array"}).extraction.method == "json_lines"
    assert extract(lines, {"type": "object"}).error.kind == "invalid_output"


# --- never an exception -------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    ["{", "}", "[", "]", '"', "“", "”", "'", ":", "：", ",", "，", "\\", "\n", " ", "```", "json", "<think>",
     "</think>", "//", "/*", "*/", "#", "a", "键", "1", "1.5", "true", "None", "...", "&quot;", "示例：", "最终：",
     "\u200b", "\x00", "\ud800", "\\u12", "\\ud800", "｛", "｝", "【", "「", "」", "(", ")", "=", "～", "+", "-", "e9",
     "\u202e"]
)  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(
    pieces=st.lists(PIECES, max_size=40), schema=st.sampled_from([None, True, {"type": "object"}, {"type": "array"}])
)
def test_no_text_is_too_strange(pieces: list[str], schema: Any) -> None:
    found = extract("".join(pieces), schema)
    assert found.ok == (found.error is None) == (found.extraction is not None)
    record = json.loads(found.to_json())
    assert record["output"] == found.output


@pytest.mark.parametrize(
    "text",
    [
        r'{\"a\": 是\ud83d}', r'{\"a\ud83d\": 1, }', "['\ud83d']", "{'a\ud83d': 1}", '{"a\ud83d": 1 "b": "c"}',
        "[" * 600 + '"\\u00e9"' + "]" * 600, "{&quot;a&quot;: 1, &#" + "9" * 5000 + "; }", '{"n": "\\ud83d"}',
    ],
    ids=range(8),
)  # fmt: skip
def test_what_no_file_can_hold_is_replaced_or_refused(text: str) -> None:
    found = extract(text)
    record = json.loads(found.to_json())
    assert record["output"] == found.output
    assert found.ok or found.error.kind == "invalid_output"


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000, "{" * 100_000, '{"a":' * 100_000, "[{" * 50_000, '"' * 1_000_000, '{"a": "' + '"' * 1_000_000,
        '["' * 500_000, '{"a":"' * 160_000, '{"a": "' + "\\" * 1_000_000, "```json\n" * 120_000, "<think>" * 140_000,
        "</think>" * 120_000, "[" + "," * 1_000_000, "{" + ":" * 1_000_000, "｛" + "“" * 300_000, "[[1," * 250_000,
        "{" + "//x\n" * 250_000, "{/*" * 330_000, ("{" + " " * 1000) * 1000, "{&quot;a&quot;: " * 70_000,
        "[]" * 500_000,
        "集合{1,2}中的[3]与{姓名}。" * 50_000, "示例：" * 110_000 + '{"a"', "x{" * 500_000,
        "[1 " * 330_000, "(" * 100_000,
        "`" * 20_000 + "x", "&quot;: " + "[a " * 33_000, "```json\n" + "[a " * 333_000 + "\n```",
    ],
    ids=range(29),
)  # fmt: skip
def test_hostile_megabytes_are_failures(text: str) -> None:
    found = extract(text)
    assert found.error is not None
    assert found.error.kind in ("invalid_output", "truncated", "empty_output")


# --- the function and the command ---------------------------------------------------------------------------------


def test_a_schema_that_is_none_is_refused() -> None:
    with pytest.raises(JobError, match="not a valid JSON Schema"):
        extract("{}", {"type": "objekt"})


def test_a_compiled_schema_serves_many_times() -> None:
    schema = Schema(b'{"type": "object", "required": ["a"]}')
    assert extract('{"a": 1}', schema).ok
    assert "required" in extract('{"b": 1}', schema).error.message


SCHEMA = {"type": "object", "required": ["情感"], "properties": {"情感": {"enum": ["正面", "负面"]}}}


def test_the_command_is_a_filter(batchrun: Any, tmp_path: Path) -> None:
    schema, answer = tmp_path / "schema.json", tmp_path / "answer.txt"
    schema.write_text(json.dumps(SCHEMA))
    answer.write_text('好的：\n```json\n{"情感"："正面"，}\n```')
    ended = batchrun("extract", "--schema", schema, answer)
    assert (ended.code, ended.err) == (0, "")
    assert ended.json() == {
        "output": {"情感": "正面"},
        "extraction": {"mode": None, "method": "fence", "repairs": ["full_width_punctuation", "trailing_comma"]},
        "error": None,
    }
    from_pipe = batchrun("extract", "--schema", schema, stdin=answer.read_bytes())
    assert (from_pipe.code, from_pipe.out) == (0, ended.out)


def test_the_command_says_why_there_is_no_value(batchrun: Any, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA))
    ended = batchrun("extract", "--schema", schema, "-", stdin='{"情感": "中性"}'.encode())
    assert ended.code == 3
    record = ended.json()
    assert (record["output"], record["extraction"]) == (None, None)
    assert record["error"]["kind"] == "invalid_output"
    assert "情感" in record["error"]["message"]
    assert "中性" in record["error"]["message"]
    assert record["error"]["advice"]
    cut = batchrun("extract", "--finish-reason", "length", stdin='{"情感": "正面"}'.encode())
    assert (cut.code, cut.json()["error"]["kind"]) == (3, "truncated")


def test_the_command_refuses_what_it_cannot_use(batchrun: Any, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text('{"type": 1}')
    assert batchrun("extract", "--schema", bad, stdin=b"{}").code == 2
    missing = batchrun("extract", tmp_path / "missing.txt")
    assert missing.code == 2
    assert "missing.txt" in missing.err
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b'{"a": "\xe9"}')
    ended = batchrun("extract", latin)
    assert ended.code == 2
    assert "byte 7 is no UTF-8" in ended.err
