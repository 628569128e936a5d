"""What the README shows is run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from conftest import ROOT, Ended, environment, records

from batchrun.endpoint.dialect_files import load_file
from batchrun.job import Job
from batchrun.records import ErrorKind
from batchrun.report.words import MESSAGES

#: The pages in English, each with the same in Chinese.
PAGES = {"README.md": "README.zh.md", "docs/reference.md": "docs/reference.zh.md"}
README = (ROOT / "README.md").read_text("utf-8")
CHINESE = "\n".join((ROOT / page).read_text("utf-8") for page in PAGES.values())


def blocks(language: str) -> list[str]:
    english = "".join((ROOT / page).read_text("utf-8") for page in PAGES)
    return re.findall(rf"```{language}\n(.*?)```", english, re.DOTALL)


def marked(name: str) -> str:
    """Give what stands between two marks of the README."""
    return README.split(f"<!-- {name} -->\n")[1].split(f"<!-- /{name} -->")[0]


def test_the_python_example_runs(tmp_path: Path) -> None:
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    (example,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "0 130 0"
    assert len(lines) == 131
    assert all("【模拟回答】" in line for line in lines[1:])


def test_the_job_file_shown_is_valid(tmp_path: Path) -> None:
    shown, dialect = blocks("toml")
    (tmp_path / "gateway.toml").write_text(dialect, "utf-8")
    assert load_file(tmp_path / "gateway.toml").title == "Our gateway"
    path = tmp_path / "job.toml"
    path.write_text(shown.replace("YOUR_MODEL_ID", "some-model"), "utf-8")
    job = Job.load(path)
    assert job.endpoint.base_url == "https://api.example.com/v1"
    assert job.retry.attempt_timeout == 600


def test_every_shipped_job_runs_against_the_simulated_provider(tmp_path: Path, batchrun, simulator) -> None:
    url = simulator()
    jobs = sorted((ROOT / "jobs").glob("*.toml"))
    assert len(jobs) >= 6
    for job in jobs:
        output = tmp_path / job.stem
        ended: Ended = batchrun("run", job, "--base-url", url, "-m", "any", "-o", output, "-q", "--json")
        assert ended.code == 0, (job.name, ended.err, ended.json())
        assert ended.json()["counts"]["results"] == len(records(output / "results.jsonl")) >= 12


def test_the_checklist_is_right_at_every_step_for_the_starter_job(tmp_path: Path) -> None:
    steps = marked("checklist").removeprefix("```sh\n").removesuffix("```\n").splitlines()
    assert len(steps) == 9
    for step in steps:
        name, *arguments = step.split()
        assert name == "batchrun"
        done = subprocess.run(
            [sys.executable, "-m", "batchrun", *arguments], cwd=tmp_path, env=environment(), capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (step, done.stderr)
        said = {"check": "The endpoint works.", "--dry-run": "8 ready to send", "verify": "nothing found"}
        for word, what in said.items():
            assert word not in step or what in done.stdout + done.stderr
    assert (tmp_path / "my-job/runs/first/report.html").exists()


def test_the_schedule_shown_gives_the_line_that_is_shown(tmp_path: Path, batchrun) -> None:
    (schedule,) = re.findall(r"```\n(\[schedule\]\n.*?)```", README, re.DOTALL)
    (line,) = re.findall(r"^(0 2 .*)$", README, re.MULTILINE)
    assert batchrun("init", "my-job").code == 0
    job = tmp_path / "my-job/job.toml"
    job.write_text(job.read_text("utf-8") + schedule, "utf-8")
    printed = batchrun("schedule", job, "--cron").out.splitlines()[-1]
    command = re.escape(line).replace("/srv/my\\-job", re.escape(str(job.parent)))
    assert re.fullmatch(command.replace("/opt/batchrun/bin/batchrun", "(XDG_DATA_HOME=.+? )?.+"), printed), printed


def test_the_records_shown_have_the_fields_of_real_ones(tmp_path: Path, batchrun, simulator) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "好"}\n{"prompt": 1}\n', "utf-8")
    ended = batchrun("run", "-i", "in.jsonl", "-o", "out", "--base-url", simulator(), "-m", "m", "--json")
    assert ended.code == 3
    (result,), (failure,) = records(tmp_path / "out/results.jsonl"), records(tmp_path / "out/failures.jsonl")
    shown_result, shown_failure, shown_summary = (
        json.loads(block) for block in re.findall(r"```json\n(.*?)```", README, re.DOTALL) if "\n{" not in block
    )
    assert list(shown_result) == list(result)
    assert list(shown_failure) == list(failure)
    assert list(shown_failure["error"]) == list(failure["error"])
    summary = ended.json() | {"cost": {"amount": 1.0, "currency": "CNY"}}  # this job has no prices
    for key, value in shown_summary.items():
        assert set(value) <= set(summary[key]) if isinstance(value, dict) else key in summary


def test_the_commands_are_shown_as_the_help_shows_them(batchrun) -> None:
    assert marked("help").replace("```\n", "").rstrip() in batchrun("--help").out


def test_the_figures_are_those_of_the_benchmarks() -> None:
    measured = (ROOT / "tests/bench/README.md").read_text("utf-8")
    figures = re.findall(r"\d[\d,.]*\d(?: %)?|\d+", marked("figures"))
    assert len(figures) > 30
    for figure in figures:
        assert re.search(rf"(?<!\d)(?<!\d[,.]){re.escape(figure)}(?![,.]?\d)", measured), figure


def slugs(page: str) -> list[str]:
    """Give the anchors of a page's sections, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles]


def links(page: str) -> list[tuple[str, int]]:
    """Give the English file and the number of the section that each link of a page leads to; all must be there."""
    english = {chinese: page for page, chinese in PAGES.items()}
    found = []
    for link in re.findall(r'\]\(([^)\s]+)\)|src="(.*?)"', (ROOT / page).read_text("utf-8")):
        path, _, anchor = "".join(link).partition("#")
        target = (ROOT / page).parent.joinpath(path).resolve() if path else ROOT / page
        assert target.exists(), (page, link)
        section = slugs(target.read_text("utf-8")).index(anchor) if anchor else -1
        name = target.relative_to(ROOT).as_posix()
        found.append((english.get(name, name), section))
    return found


def test_every_link_leads_somewhere_and_to_the_same_place_in_both_languages() -> None:
    for page, chinese in PAGES.items():
        there = links(page)
        assert len(there) > 5
        switch = [link for link in there if link != (page, -1)]
        assert [link for link in links(chinese) if link != (page, -1)] == switch


def test_every_error_kind_stands_in_the_readme() -> None:
    for kind in ErrorKind:
        assert f"`{kind}`" in README


def without_comments(readme: str) -> list[tuple[str, str]]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    return [(language, re.sub(r"\s+# .*", "", block)) for language, block in found]


def test_the_chinese_pages_have_what_the_english_ones_have() -> None:
    for page, chinese in PAGES.items():
        ours, theirs = ((ROOT / name).read_text("utf-8") for name in (page, chinese))
        # Exit codes and sections, settings that are shown as comments, rows of tables: as many, in the same order.
        for same in (r"^\| (\d[\d, ]*) \|", r"^(##) ", r"^# (\w+) = ", r"^(\|)", r"^(- |\d\. )"):
            assert re.findall(same, theirs, re.MULTILINE) == re.findall(same, ours, re.MULTILINE), (page, same)
        assert without_comments(theirs) == without_comments(ours)
        assert "<!--" not in theirs
    for kind in ErrorKind:
        assert f"`{kind}`" in CHINESE, kind


def test_the_chinese_texts_have_one_word_for_one_thing() -> None:
    """On the left the word that is used, on the right what others say for it."""
    words = {
        "端点": "接口", "重问": "再问", "模拟服务商": r"模拟服务(?!商)|模拟器|模拟端点", "token": "Token",
        "强杀": "强行结束|强制结束", "在途": "尚未返回", "你的": "您", "服务商": "供应商|提供商",
    }  # fmt: skip
    report = "\n".join(chinese for _, chinese in MESSAGES.values())
    for word, others in words.items():
        for text in (CHINESE, report):
            assert word in text
            assert not re.findall(f".*(?:{others}).*", text)
    commented = [*(ROOT / "jobs").glob("*.toml"), *(ROOT / "batchrun" / "starter").glob("*.toml")]
    assert len(commented) >= 7
    for path in commented:
        for word, others in words.items():
            assert not re.findall(f".*(?:{others}).*", path.read_text("utf-8")), (path.name, word)
