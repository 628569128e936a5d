"""`batchrun report`: what stands on the page, what must not, and what it costs to make."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import resource
import signal
import string
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from browser import look, need_chromium
from conftest import ROOT, Ended, environment, measured, records, write_lines
from hypothesis import given
from hypothesis import strategies as st
from scripted import Scripted, completion, http, ok
from servers import until

from batchrun.records import ErrorKind
from batchrun.report.counting import Names, Reservoir, Sizes, Timeline
from batchrun.report.visible import Veil, marked, plain
from batchrun.report.words import MESSAGES, Words

VOID = {"meta", "br"}
JOB = """
input = "in.jsonl"
output = "out"
[endpoint]
base_url = "URL"
model = "m-1"
[retry]
wait_initial = "10ms"
wait_max = "20ms"
max_attempts = 2
[price]
input = 1000.0
output = 1000.0
"""
FAULTS = """
input = "in.jsonl"
output = "out"
[endpoint]
simulate = "deepseek"
model = "sim-thinking"
[prompt]
user = "分析：{{ text }}"
[structured]
schema = "schema.json"
reask = 0
[retry]
wait_initial = "10ms"
wait_max = "20ms"
[simulator.faults]
http_503 = 0.1
fenced_json = 0.3
length = 0.1
content_filter_400 = 0.1
missing_field = 0.1
other_model = 0.1
"""
SCHEMA = {"type": "object", "properties": {"分": {"type": "integer"}}, "required": ["分"]}


class Parsed(HTMLParser):
    """A page as a parser sees it: every tag closed, the attributes, and the text of each element with an id."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.style = ""
        self.parts: list[str] = []
        self.sections: dict[str, list[str]] = {}
        self._section = ""
        self.feed(page)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "section":
            self._section = dict(attrs).get("id") or ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
            return
        self.parts.append(data)
        self.sections.setdefault(self._section, []).append(data)

    @property
    def text(self) -> str:
        return "".join(self.parts)

    def section(self, name: str) -> str:
        return " ".join(" ".join(self.sections.get(name, [])).split())


def parsed(path: Path) -> Parsed:
    """Parse a page, and check that it can neither load nor run anything."""
    page = path.read_text("utf-8")
    found = Parsed(page)
    assert page.startswith("<!doctype html>")
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form", "a", "use", "image"} & set(
        found.tags
    )
    names = {name for _, name, _ in found.attributes}
    assert not names & {"src", "href", "srcset", "action", "style", "xlink:href", "background", "poster", "data"}
    assert not [name for name in names if name.startswith("on")]
    assert not re.search(r"url\(|@import|expression", found.style)
    (policy,) = [
        value for tag, name, value in found.attributes if (tag, name) == ("meta", "content") and "default" in value
    ]
    digest = base64.b64encode(hashlib.sha256(found.style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert found.tags["style"] == 1
    return found


@pytest.fixture
def faulty(tmp_path: Path, batchrun) -> Path:
    """A run against the simulated provider that ended with failures of several kinds."""
    write_lines(tmp_path / "in.jsonl", *({"id": f"r-{n}", "text": f"第 {n} 条，很好"} for n in range(60)), b"{torn")
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "job.toml").write_text(FAULTS)
    assert batchrun("run", "job.toml", "-q").code == 3
    return tmp_path / "out"


# --- what stands on it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_run_with_faults(faulty: Path, batchrun, language: str) -> None:
    before = {path.name: path.read_bytes() for path in faulty.iterdir()}
    ended: Ended = batchrun("report", "out", "--lang", language)
    assert ended.code == 0, ended.err
    page = faulty / "report.html"
    assert page.stat().st_mode & 0o777 == 0o600
    found, words = parsed(page), Words(language)
    assert ("html", "lang", words.tag) in found.attributes
    status = batchrun("status", "out", "--json").json()
    counts = status["counts"]
    verdict = found.section("verdict")
    assert words("state_failures") in verdict
    assert words("outcome", results=str(counts["results"]), items="61") in verdict
    kinds = counts["failures_by_kind"]
    assert len(kinds) >= 4
    for kind, number in kinds.items():
        assert f"{kind} {number} " in found.section("errors"), kind
        assert words(f"advice_{kind}") in found.section("errors")
        assert f"{words('sample_failures', kind=words(f'kind_{kind}'))} {kind}" in found.section("samples")
    assert "batchrun retry out --kind truncated --set max_tokens=8192" in verdict
    assert words("simulated_title") in verdict
    assert f"{status['tokens']['prompt']:,}" in found.section("tokens")
    results = records(faulty / "results.jsonl")
    methods = Counter(record["extraction"]["method"] for record in results)
    for name, number in methods.items():
        assert f"{name} {number}" in found.section("extraction")
    attempts = Counter(r["attempts"] for r in results + records(faulty / "failures.jsonl"))
    assert f"1 {attempts[1]} 2 {attempts[2]}" in found.section("attempts")
    warned = sum("other_model:another-simulated-model" in record["warnings"] for record in results)
    assert f"other_model:another-simulated-model {warned}" in found.section("warnings")
    assert "分析：{{ text }}" in found.section("job")
    assert words("boundary_local") in found.section("boundary")
    assert words("scan_block") in found.section("boundary")
    assert "deepseek" in found.section("endpoint")
    assert {path.name: path.read_bytes() for path in faulty.iterdir() if path.name != "report.html"} == before
    assert batchrun("verify", "out").code == 0


def test_samples_show_what_went_in_beside_what_came_out(faulty: Path, batchrun) -> None:
    assert batchrun("report", "job.toml", "--samples", "50", "--lang", "en").code == 0
    samples = parsed(faulty / "report.html").section("samples")
    for record in records(faulty / "results.jsonl")[:20]:
        number = record["id"].removeprefix("r-")
        assert f"第 {number} 条，很好" in samples
        assert f'"分": {record["output"]["分"]}' in samples
    assert "{torn" in samples
    assert batchrun("report", "out", "--samples", "0").code == 0
    assert "很好" not in parsed(faulty / "report.html").section("samples")


def test_the_same_files_give_the_same_page(faulty: Path, batchrun) -> None:
    pages = [batchrun("report", "out", "-o", "-", "--lang", "en").out for _ in range(2)]
    first, second = (re.sub(r"As of [^<]*", "", page) for page in pages)
    assert first == second
    assert len(first) > 20_000


@pytest.mark.parametrize(
    ("variables", "language"),
    [
        ({}, "en"), ({"LANG": "zh_CN.UTF-8"}, "zh-Hans"), ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LC_ALL": "zh_TW.UTF-8", "LANG": "en_US.UTF-8"}, "zh-Hans"), ({"LANG": "de_DE"}, "en"),
    ],
)  # fmt: skip
def test_the_locale_gives_the_language(tmp_path: Path, batchrun, variables: dict[str, str], language: str) -> None:
    write_lines(tmp_path / "in.jsonl", {"prompt": "一"})
    (tmp_path / "job.toml").write_text('input = "in.jsonl"\noutput = "out"\n[endpoint]\nsimulate = "openai"\n')
    assert batchrun("run", "job.toml", "-q").code == 0
    assert f'<html lang="{language}">' in batchrun("report", "out", "-o", "-", **variables).out


def test_all_done_and_nothing_begun(tmp_path: Path, batchrun) -> None:
    write_lines(tmp_path / "in.jsonl", *({"prompt": str(n)} for n in range(3)))
    (tmp_path / "job.toml").write_text('input = "in.jsonl"\noutput = "out"\n[endpoint]\nsimulate = "openai"\n')
    (tmp_path / "out").mkdir()
    assert batchrun("report", "job.toml", "--lang", "en").code == 0
    assert "Not begun" in parsed(tmp_path / "out/report.html").section("verdict")
    assert batchrun("run", "job.toml", "-q").code == 0
    assert batchrun("report", "job.toml", "--lang", "en").code == 0
    found = parsed(tmp_path / "out/report.html")
    assert "Finished" in found.section("verdict")
    assert "batchrun verify job.toml" in found.section("verdict")
    assert "No item is a failure." in found.section("errors")


def test_a_run_over_standard_input(tmp_path: Path, batchrun) -> None:
    (tmp_path / "job.toml").write_text('input = "-"\noutput = "out"\n[endpoint]\nsimulate = "openai"\n')
    assert batchrun("run", "job.toml", "-q", stdin=b'{"prompt": "a"}\n{"prompt": "b"}\n').code == 0
    assert batchrun("report", "out", "--lang", "en").code == 0
    found = parsed(tmp_path / "out/report.html")
    assert "2 of 2 items have a result." in found.section("verdict")
    assert "Not to be had: the input is gone or was changed." in found.section("samples")


def test_a_run_that_the_endpoint_stopped(tmp_path: Path, batchrun, serve) -> None:
    server = serve(lambda _: [http(401, {"error": {"message": "bad <key> & more", "code": "invalid_api_key"}})])
    write_lines(tmp_path / "in.jsonl", {"prompt": "一"}, {"prompt": "二"})
    (tmp_path / "job.toml").write_text(JOB.replace("URL", server.base_url))
    assert batchrun("run", "job.toml", "-q", OPENAI_API_KEY="sk-0123456789").code == 4
    assert batchrun("report", "out", "--lang", "en").code == 0
    verdict = parsed(tmp_path / "out/report.html").section("verdict")
    assert "Stopped early" in verdict
    assert "bad <key> & more" in verdict
    assert "Check the key" in verdict
    assert "batchrun run job.toml" in verdict


def test_a_run_that_is_going_and_one_that_was_killed(tmp_path: Path, batchrun) -> None:
    write_lines(tmp_path / "in.jsonl", *({"id": str(n), "prompt": str(n)} for n in range(400)))
    (tmp_path / "job.toml").write_text(
        'input = "in.jsonl"\noutput = "out"\n[endpoint]\nsimulate = "openai"\n[limits]\nconcurrency = 4\n'
        '[simulator]\nlatency = "100ms"\n'
    )
    run = subprocess.Popen(
        [sys.executable, "-m", "batchrun", "run", "job.toml", "-q"], cwd=tmp_path, env=environment(),
        stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        results = tmp_path / "out/results.jsonl"
        until(lambda: results.exists() and results.read_bytes().count(b"\n") > 20)
        assert batchrun("report", "out", "--lang", "en").code == 0
        assert run.poll() is None
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    live = parsed(tmp_path / "out/report.html").section("verdict")
    assert "Running" in live
    assert int(re.search(r"(\d+) of 400 items", live)[1]) > 10
    assert batchrun("report", "out", "--lang", "en").code == 0
    killed = parsed(tmp_path / "out/report.html").section("verdict")
    assert "Ended by force" in killed
    assert "calls were in flight" in killed
    assert batchrun("run", "job.toml", "-q", "--limit", "40").code in (0, 3)


def test_what_was_stated_and_what_was_measured(tmp_path: Path, batchrun, simulator) -> None:
    url = simulator("--dialect", "deepseek")
    write_lines(tmp_path / "in.jsonl", *({"id": str(n), "prompt": str(n)} for n in range(3)))
    (tmp_path / "job.toml").write_text(JOB.replace("URL", url).replace('"m-1"', '"thinking-1"'))
    assert batchrun("probe", "job.toml", "--json", OPENAI_API_KEY="k").code == 0
    assert batchrun("run", "job.toml", "-q", OPENAI_API_KEY="k").code == 0
    manifest = tmp_path / "out/run.json"
    value = json.loads(manifest.read_bytes())
    statement = {
        "by": "mia <admin>",
        "how": "job.toml",
        "at": "2026-11-22T03:04:05.678Z",
        "base_url": "https://a.example/v1",
    }
    value["data_boundary"] = {"classification": "non-sensitive", "statements": [statement], "scan": "redact"}
    manifest.write_text(json.dumps(value))
    assert batchrun("report", "out", "--lang", "en").code == 0
    found = parsed(tmp_path / "out/report.html")
    boundary = found.section("boundary")
    assert "Stated by mia <admin> through job.toml on 2026-11-22T03:04:05.678Z, for https://a.example/v1" in boundary
    assert "no residency-bound data" in boundary
    assert "redact: what is found is replaced" in boundary
    endpoint = found.section("endpoint")
    assert "Capability profile of 20" in endpoint
    assert "json_object" in endpoint
    assert "supported" in endpoint
    assert "rejected" in endpoint


@pytest.mark.parametrize("value", [[], "x", 7, None, {"a": [1]}])
def test_a_manifest_with_other_things_in_it(faulty: Path, batchrun, value: Any) -> None:
    manifest = json.loads((faulty / "run.json").read_bytes())
    for name in ("data_boundary", "profile", "input", "versions", "summary", "dialect", "run_id", "started_at"):
        manifest[name] = value if name != "summary" or value is None or isinstance(value, dict) else {}
    (faulty / "run.json").write_text(json.dumps(manifest))
    ended = batchrun("report", "out", "--lang", "en")
    if value is None:
        assert ended.code == 0, ended.err
        parsed(faulty / "report.html")
    else:
        assert (ended.code, "out/run.json: " in ended.err, "expected" in ended.err) == (2, True, True)
        assert not (faulty / "report.html").exists()


# --- where it goes ------------------------------------------------------------------------------------------------


def test_a_page_that_does_not_fit_leaves_no_part_of_it(faulty: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    folder.mkdir()
    command = f"ulimit -f 8; exec {sys.executable} -m batchrun report {faulty} -o page.html"
    ended = subprocess.run(
        ["/bin/sh", "-c", command], cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert ended.returncode != 0
    assert "page.html" in ended.stderr
    assert "File too large" in ended.stderr
    assert list(folder.iterdir()) == []


def test_it_replaces_a_page_and_nothing_else(faulty: Path, batchrun, tmp_path: Path) -> None:
    other = tmp_path / "page.html"
    assert batchrun("report", "out", "-o", other).code == 0
    other.chmod(0o644)
    assert batchrun("report", "out", "-o", other).code == 0
    assert other.stat().st_mode & 0o777 == 0o600
    for name in ("out/results.jsonl", "out/run.json", "in.jsonl", "job.toml", "out", "out/journal"):
        before = None if name == "out" else (tmp_path / name).read_bytes()
        ended = batchrun("report", "out", "-o", name)
        assert (ended.code, name in ended.err) == (2, True)
        assert before is None or (tmp_path / name).read_bytes() == before
    assert batchrun("report", "out", "-o", "/dev/null").code == 0
    assert Path("/dev/null").is_char_device()
    assert batchrun("report", "out", "-o", tmp_path / "no/such.html").code == 2
    assert batchrun("report", "nothing").code == 2
    (tmp_path / "empty").mkdir()
    assert batchrun("report", "empty").code == 2


# --- what must not stand on it ------------------------------------------------------------------------------------

HOSTILE = [
    "</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "javascript:alert(1)", "{{ 7 * 7 }}{% raw %}",
    "a\x00b\x1b[31mc", "\u202egnp.exe\u202c", "</pre></article></section>", "\"'><svg onload=alert(1)>",
    "&lt;b&gt;&#60;",
    "\U000e0041\u200b\ufeffhidden", "<!-- -->]]><style>*{display:none}</style>", "\u2028\u2029\ufffe",
]  # fmt: skip


def test_what_others_wrote_is_shown_and_does_nothing(tmp_path: Path, batchrun, serve) -> None:
    def answer(call: Any) -> list[Any]:
        number = int(call.prompt.split()[0])
        if number % 2:
            return [http(400, {"error": {"message": HOSTILE[number], "code": f"<b>{number}</b>"}})]
        return [ok(HOSTILE[number])]

    server: Scripted = serve(answer)
    items = [{"id": f"<i>{n}", "prompt": f"{n} {text}"} for n, text in enumerate(HOSTILE)]
    write_lines(tmp_path / "in.jsonl", *items, b'{"prompt": "\\ud800 alone"}', b'{"prompt": "\xff"}')
    (tmp_path / "job.toml").write_text(JOB.replace("URL", server.base_url))
    assert batchrun("run", "job.toml", "-q", OPENAI_API_KEY="k").code == 3
    assert batchrun("report", "job.toml", "--samples", "50", "--lang", "en").code == 0
    found = parsed(tmp_path / "out/report.html")
    text = found.text
    for number, hostile in enumerate(HOSTILE):
        readable = re.sub(r"<(U\+[0-9A-F]+)>", r"\1", plain(hostile))
        assert readable in text, hostile
        assert f"<i>{number}" in text
    assert "U+202E" in text
    assert "U+0000" in text
    assert "U+E0041" in text
    assert "49" not in found.section("samples").split()
    page = (tmp_path / "out/report.html").read_text("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\U000e0000-\U000e007f]", page)


def test_long_outputs_are_cut_and_large_numbers_exact(tmp_path: Path, batchrun, serve) -> None:
    deep = "[" * 5000 + "]" * 5000
    answers = {"long": "长" * 1_000_000, "big": '{"n": 12345678901234567890123}', "deep": deep}
    server = serve(lambda call: [ok(answers[call.prompt])])
    write_lines(tmp_path / "in.jsonl", *({"id": name, "prompt": name} for name in answers))
    (tmp_path / "job.toml").write_text(JOB.replace("URL", server.base_url))
    assert batchrun("run", "job.toml", "-q", OPENAI_API_KEY="k").code == 0
    assert batchrun("report", "out", "--samples", "9", "--lang", "en").code == 0
    found = parsed(tmp_path / "out/report.html")
    assert "1,000,000 characters in all" in found.text
    assert "12345678901234567890123" in found.text
    assert (tmp_path / "out/report.html").stat().st_size < 150_000


def test_a_body_that_is_nested_too_deeply(tmp_path: Path, batchrun, serve) -> None:
    body = json.dumps(completion("fine"))[:-1].encode() + b', "more": ' + b"[" * 3000 + b"]" * 3000 + b"}"
    server = serve(lambda _: [http(200, body)])
    write_lines(tmp_path / "in.jsonl", {"prompt": "一"})
    (tmp_path / "job.toml").write_text(JOB.replace("URL", server.base_url))
    batchrun("run", "job.toml", "-q", OPENAI_API_KEY="k")
    ended = batchrun("report", "out", "--lang", "en")
    assert ended.code == 0, ended.err
    parsed(tmp_path / "out/report.html")


def test_neither_the_key_nor_what_the_scan_finds(tmp_path: Path, batchrun, serve) -> None:
    key, phone, word = "sk-Made<Up>&0123456789", "13800138000", "项目天狼"
    server = serve(lambda call: [ok(f"你说：{call.prompt}")])
    write_lines(
        tmp_path / "in.jsonl", {"id": "a", "prompt": f"这里写着 {key}"}, {"id": "b", "prompt": f"打 {phone}"},
        {"id": "c", "prompt": f"关于{word}的事"}, f'{{"id": "d", "prompt": "{phone} 没有结尾'.encode(),
    )  # fmt: skip
    (tmp_path / "job.toml").write_text(
        JOB.replace("URL", server.base_url)
        + f'[data_boundary]\nwords = ["{word}"]\ndetectors = ["mobile"]\n[data_boundary.patterns]\ncode = "ZX[0-9]+"\n'
    )
    assert batchrun("run", "job.toml", "-q", OPENAI_API_KEY=key).code == 3
    assert batchrun("report", "job.toml", "--samples", "9", "--lang", "en", OPENAI_API_KEY=key).code == 0
    found = parsed(tmp_path / "out/report.html")
    page = (tmp_path / "out/report.html").read_text("utf-8")
    for secret in (key, "sk-Made", phone, word, "ZX[0-9]"):
        assert secret not in page + found.text, secret
    assert "[key]" in found.text
    assert "[mobile] 没有结尾" in found.text
    assert "it holds what must not leave" in found.section("samples")
    assert "1 entries, not shown" in found.section("job")
    assert "Kept back by it: 2 items." in found.section("boundary")


# --- the parts ----------------------------------------------------------------------------------------------------


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_both_languages_say_everything() -> None:
    for key, texts in MESSAGES.items():
        assert len(texts) == 2, key
        assert all(texts), key
        assert fields(texts[0]) == fields(texts[1]), key
    for kind in ErrorKind:
        assert {f"advice_{kind}", f"kind_{kind}"} <= MESSAGES.keys()


def test_no_text_is_left_over() -> None:
    folder = ROOT / "batchrun/report"
    used = "".join(path.read_text("utf-8") for path in (folder / "views.py", folder / "page.html", folder / "words.py"))
    made = ("advice_", "kind_", "state_", "verdict_", "unit_", "scan_", "req_")
    left = [key for key in MESSAGES if not key.startswith(made) and used.count(f'"{key}"') < 2]
    assert not left


@given(st.text(max_size=200))
def test_marked_text_is_text(text: str) -> None:
    found = Parsed(f"<p>{marked(text)}</p>")
    assert set(found.tags) <= {"p", "span"}
    assert "".join(found.text.split()) == "".join(re.sub(r"<(U\+[0-9A-F]{4,6})>", r"\1", plain(text)).split()) or (
        "<U+" in text
    )


def test_a_cut_leaves_no_half_of_what_is_masked() -> None:
    secret = "X" * 3000
    veil = Veil(lambda text: text.replace(secret, "[s]"), limit=100)
    for before in (0, 50, 99, 100, 101, 500):
        shown, length = veil.cut("a" * before + secret + "b" * 9000)
        assert "X" not in shown
        assert len(shown) <= 100
        assert length == before + 12_000
    assert veil.cut("short") == ("short", 0)


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=200), st.floats(0.01, 1.0))
def test_quantiles_are_close(values: list[float], share: float) -> None:
    sizes = Sizes()
    for value in values:
        sizes.add(value)
    ordered = sorted(values)
    exact = ordered[max(0, -(-int(share * len(values) * 1e6) // 10**6) - 1)]
    near = {exact, *(v for v in ordered if abs(ordered.index(v) - ordered.index(exact)) <= 1)}
    assert any(abs(sizes.quantile(share) / one - 1) < 0.023 for one in near)
    assert sum(bar.count for bar in sizes.bars(30)) == len(values) == sizes.count
    assert len(sizes.bars(30)) <= 30


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=300), st.integers(10, 90))
def test_a_timeline_loses_nothing(times: list[int], most: int) -> None:
    line = Timeline()
    for at in times:
        line.add(at, is_result=True, tokens=2)
    course = line.course(most, most_stretches=1000)
    slots = [slot for one in course.stretches for slot in one.slots]
    assert sum(slot.results for slot in slots) == len(times)
    assert sum(slot.tokens for slot in slots) == 2 * len(times)
    starts = [one.start_ms for one in course.stretches]
    assert starts == sorted(starts)


def test_a_timeline_of_months_stays_small() -> None:
    line = Timeline()
    for at in range(0, 10**10, 10**5):
        line.add(at, is_result=True, tokens=0)
    assert len(line._slots) <= 4096
    assert 20 <= sum(len(one.slots) for one in line.course(80).stretches) <= 80


def test_a_reservoir_gives_everyone_the_same_chance() -> None:
    import random

    counts: Counter[int] = Counter()
    for seed in range(2000):
        kept: Reservoir[int] = Reservoir(3, random.Random(seed))
        for number in range(12):
            place = kept.place()
            if place is not None:
                kept.put(place, number)
        counts.update(kept.kept)
    assert counts.total() == 6000
    assert all(400 < count < 600 for count in counts.values())


def test_names_are_bounded() -> None:
    names = Names(5)
    for number in range(100):
        names.add(f"n{number}")
    assert (len(list(names.items())), names.others) == (5, 95)


# --- what it costs ------------------------------------------------------------------------------------------------


def synthetic(folder: Path, number: int) -> None:
    """Write a run directory of so many records, as runs write them; index and journal are lost."""
    (folder / "out").mkdir()
    usage = {"prompt_tokens": 300, "completion_tokens": 80, "total_tokens": 380}
    record = {
        "id": "ID", "line": 7, "output": "答案" * 40, "finish_reason": "stop", "model": "m-1", "usage": usage,
        "attempts": 1,
        "duration_s": 1.5, "finished_at": "TIME", "reasoning": None, "extraction": None, "fingerprint": "00" * 16,
        "warnings": [], "provider": {"status": 200, "headers": {}, "body": {"choices": [], "usage": usage}},
    }  # fmt: skip
    line = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
    with (folder / "out/results.jsonl").open("w") as results, (folder / "in.jsonl").open("w") as items:
        for n in range(number):
            at = f"2026-11-20T{n // 36000 % 24:02d}:{n // 600 % 60:02d}:{n // 10 % 60:02d}.{n % 10}00Z"
            results.write(line.replace('"ID"', f'"i{n}"', 1).replace("TIME", at, 1) + "\n")
            items.write(f'{{"id": "i{n}", "prompt": "{n}"}}\n')
    (folder / "job.toml").write_text(JOB.replace("URL", "http://127.0.0.1:9/v1"))


def test_memory_does_not_grow_with_the_records(tmp_path: Path) -> None:
    peaks, before = [], resource.getrusage(resource.RUSAGE_CHILDREN)
    for number in (2_000, 200_000):
        folder = tmp_path / str(number)
        folder.mkdir()
        synthetic(folder, number)
        code, peak = measured(folder, "report", "job.toml", "--lang", "en")
        assert code == 0
        peaks.append(peak)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 20
    found = parsed(folder / "out/report.html")
    assert "200,000 of 200,000 items have a result." in found.section("verdict")
    assert "600 items/min" in found.text
    # The index of the run directory takes about 50 bytes an item; the page itself takes nothing more.
    assert peaks[1] - peaks[0] < 40 * 1024 * 1024


# --- how it looks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_in_a_browser(faulty: Path, batchrun, width: int, dark: bool, language: str) -> None:
    need_chromium()
    assert batchrun("report", "out", "--lang", language).code == 0
    page = faulty / "report.html"
    ask = """(() => {
        const style = getComputedStyle(document.body);
        const cut = [...document.querySelectorAll('main *')].filter(one =>
            one.getBoundingClientRect().right > innerWidth + 0.5 && !one.closest('svg'));
        return {ground: style.backgroundColor, cut: cut.map(one => one.outerHTML.slice(0, 80)),
                bars: document.querySelectorAll('rect').length,
                tall: document.querySelector('.area').getBoundingClientRect().height};
    })()"""
    seen = look(page, width=width, dark=dark, ask=ask, phone=width < 500)
    assert seen.complaints == []
    assert seen.requests == [page.as_uri()]
    assert seen.width == width
    assert seen.scroll_width <= width
    assert seen.value["cut"] == []
    assert seen.value["bars"] > 20
    assert seen.value["tall"] > 100
    red = int(re.findall(r"\d+", seen.value["ground"])[0])
    assert (red < 80) if dark else (red > 200)
    assert seen.png.startswith(b"\x89PNG")
    assert len(seen.png) > 50_000
