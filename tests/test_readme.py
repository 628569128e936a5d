"""What the README shows is run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from conftest import ROOT, Ended, environment, records

from batchrun.cli import main
from batchrun.endpoint.dialect_files import load_file
from batchrun.job import Job
from batchrun.records import ErrorKind
from batchrun.report.words import MESSAGES

README = (ROOT / "README.md").read_text("utf-8")
CHINESE = (ROOT / "README.zh.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


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


def test_every_command_has_help_and_stands_in_the_readme() -> None:
    for name, command in main.commands.items():
        assert command.help
        assert f"`batchrun {name}`" in README or f"batchrun {name} " in README


def test_every_error_kind_stands_in_the_readme() -> None:
    for kind in ErrorKind:
        assert f"`{kind}`" in README


def without_comments(readme: str) -> list[tuple[str, str]]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    return [(language, re.sub(r"\s+# .*", "", block)) for language, block in found]


def test_the_chinese_readme_has_what_the_english_one_has() -> None:
    for name in main.commands:
        assert f"`batchrun {name}`" in CHINESE or f"batchrun {name} " in CHINESE, name
    for kind in ErrorKind:
        assert f"`{kind}`" in CHINESE, kind
    # Exit codes and sections, settings that are shown as comments, links and pictures: as many, in the same order.
    for same in (r"^\| (\d[\d, ]*) \|", r"^(##) ", r"^# (\w+) = ", r"\]\((\w.*?)\)", r'src="(.*?)"'):
        found = re.findall(same, README.replace("README.zh.md", "README.md"), re.MULTILINE)
        assert found
        assert re.findall(same, CHINESE, re.MULTILINE) == found
    assert without_comments(CHINESE) == without_comments(README)
    assert "test command" not in CHINESE


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
