"""The job file: every key, every way to get one wrong, and what comes from flags and environment instead."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest
from conftest import write_lines
from hypothesis import given
from hypothesis import strategies as st

from batchrun.expect import Percent, duration
from batchrun.job import Job, JobError, load_job
from batchrun.settings import resolve

REMOTE = "https://api.example.com/v1"
KEY = "sk-0123456789abcdefSECRET"

FULL = """
input  = "../samples/reviews.jsonl"
output = "../runs/reviews"
env_file = "../.env"
encoding = "gb18030"

[prompt]
system = "你是一名严谨的数据标注员。"
user   = "请分析这条评论：{{ text }}"

[endpoint]
base_url = "https://api.example.com/v1"
model = "m-1"
api_key_env = "MY_KEY"
api_key_file = "key.txt"
dialect = "auto"
stream = "auto"
lane = "standard"
drop_unsupported = false
allow_http = true
ca_file = "ca.pem"
proxy = "http://user:password@proxy.example:3128"

[params]
temperature = 0.2
extra_body = { top_k = 5, stop = ["a"] }

[structured]
schema = "../samples/review.schema.json"
mode = "json_schema"
reask = 2

[limits]
concurrency = 7
requests_per_minute = 600

[retry]
max_attempts = 3
attempt_timeout = "10m"

[budget]
deadline = "1h30m"
max_failures = "5%"

[price]
currency = "EUR"
input = 2.0
cached_input = 0.5
output = 8

[data_boundary]
classification = "non-sensitive"
scan = "warn"
"""


def load(folder: Path, text: str, **overrides) -> Job:
    path = folder / "job.toml"
    path.write_text(text, encoding="utf-8")
    return load_job(path, {key.replace("__", "."): value for key, value in overrides.items()})


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(JobError) as caught:
        load(folder, text)
    return caught.value.problems


def job_text(extra: str = "", *, top: str = "") -> str:
    return f'input = "input"\noutput = "out"\n{top}\n{extra}\n'


# --- every key ---


def test_every_key_of_a_job_file_gets_where_it_belongs(tmp_path):
    (tmp_path / "jobs").mkdir()
    job = load(tmp_path / "jobs", FULL)
    assert job.input == (str(tmp_path / "samples/reviews.jsonl"),)
    assert job.output == tmp_path / "runs/reviews"
    assert (job.env_file, job.encoding) == (tmp_path / ".env", "gb18030")
    assert (job.prompt.system, job.prompt.user) == ("你是一名严谨的数据标注员。", "请分析这条评论：{{ text }}")
    assert (job.endpoint.base_url, job.endpoint.model, job.endpoint.api_key_env) == (REMOTE, "m-1", "MY_KEY")
    assert job.endpoint.api_key_file == tmp_path / "jobs/key.txt"
    assert (job.endpoint.allow_http, job.endpoint.ca_file) == (True, tmp_path / "jobs/ca.pem")
    assert job.endpoint.proxy == "http://user:password@proxy.example:3128"
    assert "password" not in repr(job)
    assert job.params == {"temperature": 0.2, "extra_body": {"top_k": 5, "stop": ["a"]}}
    assert job.structured.schema == tmp_path / "samples/review.schema.json"
    assert (job.structured.mode, job.structured.reask) == ("json_schema", 2)
    assert (job.limits.concurrency, job.limits.requests_per_minute) == (7, 600.0)
    assert (job.retry.max_attempts, job.retry.attempt_timeout) == (3, 600.0)
    assert (job.budget.deadline, job.budget.max_failures) == (5400.0, Percent(5.0))
    assert (job.price.currency, job.price.input, job.price.cached_input, job.price.output) == ("EUR", 2.0, 0.5, 8.0)
    assert (job.data_boundary.classification, job.data_boundary.scan) == ("non-sensitive", "warn")


def test_a_job_file_may_have_a_byte_order_mark_and_windows_line_ends(tmp_path):
    (tmp_path / "job.toml").write_bytes(b"\xef\xbb\xbf" + job_text().replace("\n", "\r\n").encode())
    assert Job.load(tmp_path / "job.toml").output == tmp_path / "out"


def test_several_inputs_and_standard_input(tmp_path):
    assert load(tmp_path, 'input = ["a", "/b/*.gz"]\noutput = "o"').input == (str(tmp_path / "a"), "/b/*.gz")
    assert load(tmp_path, 'input = "-"\noutput = "o"').input == ("-",)
    assert '"-" (standard input) cannot be combined' in problems(tmp_path, 'input = ["a", "-"]\noutput = "o"')[0]


def test_paths_are_relative_to_the_job_file_wherever_the_command_runs(batchrun, tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "elsewhere").mkdir()
    write_lines(tmp_path / "input.jsonl", {"prompt": "x"})
    text = 'input = "../input.jsonl"\noutput = "../runs/{date}"\n[endpoint]\nsimulate = "openai"\n'
    (tmp_path / "jobs/job.toml").write_text(text)
    before = datetime.date.today()  # noqa: DTZ011 - the user's own date is meant
    assert batchrun("run", "../jobs/job.toml", cwd=tmp_path / "elsewhere").code == 0
    (made,) = (tmp_path / "runs").iterdir()
    assert before.isoformat() <= made.name <= datetime.date.today().isoformat()  # noqa: DTZ011
    assert (made / "results.jsonl").stat().st_size
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_time_stands_for_hours_minutes_and_seconds(tmp_path):
    name = load(tmp_path, 'input = "a"\noutput = "{date}_{time}"').output.name
    datetime.datetime.strptime(name, "%Y-%m-%d_%H%M%S")  # noqa: DTZ007 - raises if it is of another form


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("500ms", 0.5), ("1.5h", 5400), (" 2 d ", 172800), (5, 5), (0.5, 0.5)],
)
def test_a_duration_is_read(text, seconds):
    assert duration(text) == seconds


@given(st.text() | st.integers() | st.floats() | st.none() | st.booleans())
def test_a_duration_is_above_zero_and_finite_or_refused(value):
    seconds, refusal = 1.0, "a duration such as"
    try:
        seconds = duration(value)
    except ValueError as error:
        refusal = str(error)
    assert 0 < seconds < float("inf")
    assert "a duration such as" in refusal


# --- what is wrong with it ---


@pytest.mark.parametrize(
    ("line", "name", "expected"),
    [
        ("[endpoint]\nmodle = 'x'", "endpoint.modle", "did you mean endpoint.model?"),
        ("[limits]\nrequest_per_minute = 1", "limits.request_per_minute", "did you mean limits.requests_per_minute?"),
        ("[retry]\nqqqqqqqq = 1", "retry.qqqqqqqq", "known here: retry.max_attempts"),
        ("[endpoints]\nmodel = 'x'", "endpoints", "did you mean endpoint?"),
        ("[endpoint]\napi_key = 'sk-0123456789abcdefSECRET'", "endpoint.api_key", "did you mean endpoint.api_key_env?"),
    ],
)
def test_an_unknown_key_is_named_with_its_line_and_what_may_be_meant(tmp_path, line, name, expected):
    (problem,) = problems(tmp_path, job_text(line))
    number = 4 if "[" + name + "]" in line else 5
    assert problem.startswith(f"{tmp_path}/job.toml:{number}: {name}: unknown key")
    assert expected in problem
    assert KEY not in problem


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("prompt", "user", "5", "a text that is not empty, got 5"),
        ("prompt", "user", '""', "a text that is not empty"),
        ("endpoint", "model", "true", "a text that is not empty, got true"),
        ("endpoint", "stream", '"yes"', 'one of "auto", true, false, got "yes"'),
        ("endpoint", "stream", "1", 'one of "auto", true, false, got 1'),
        ("endpoint", "lane", '"fast"', 'one of "standard", "batch"'),
        ("endpoint", "drop_unsupported", '"no"', "true or false"),
        ("structured", "mode", '"json"', 'one of "auto", "json_schema"'),
        ("structured", "reask", "-1", "a whole number, 0 or more, got -1"),
        ("limits", "concurrency", "0", '"auto" or a whole number from 1 to 100000, got 0'),
        ("limits", "concurrency", '"many"', '"auto" or a whole number'),
        ("limits", "concurrency", "1.5", '"auto" or a whole number'),
        ("limits", "concurrency", "true", '"auto" or a whole number'),
        ("limits", "requests_per_minute", "-1", "a number above zero, got -1"),
        ("limits", "requests_per_minute", "inf", "a number above zero"),
        ("limits", "requests_per_minute", "1" + "0" * 400, "a number above zero"),
        ("retry", "max_attempts", "0", "a whole number, 1 or more, got 0"),
        ("retry", "max_attempts", "2.5", "a whole number, 1 or more"),
        ("retry", "max_attempts", "1" + "0" * 30, "a whole number, 1 or more"),
        ("retry", "attempt_timeout", '"soon"', 'a duration such as "90s"'),
        ("retry", "attempt_timeout", "0", "above zero"),
        ("retry", "attempt_timeout", "1" + "0" * 400, "a duration such as"),
        ("retry", "attempt_timeout", "1970-01-01", "a duration such as"),
        ("budget", "deadline", '"-5m"', "a duration such as"),
        ("budget", "max_failures", '"101%"', 'a whole number such as 10, or a share such as "5%"'),
        ("budget", "max_failures", "-1", "a whole number such as 10"),
        ("budget", "max_cost", "0", "a number above zero"),
        ("price", "input", "-2.0", "a price per million tokens"),
        ("data_boundary", "scan", '"maybe"', 'one of "block", "redact", "warn", "off"'),
        ("data_boundary", "classification", "false", "a text"),
        ("params", "temperature", "nan", "a value that JSON can hold"),
        ("params", "temperature", "1970-01-01", "a value that JSON can hold"),
        ("params", "seed", "1" + "0" * 30, "a value that JSON can hold"),
    ],
)
def test_a_wrong_type_or_impossible_value_is_named_with_its_line_and_what_was_expected(
    tmp_path, section, key, value, expected
):
    (problem,) = problems(tmp_path, job_text(f"[{section}]\n# comment\n{key} = {value}"))
    assert problem.startswith(f"{tmp_path}/job.toml:6: {section}.{key}: expected ")
    assert expected in problem
    assert len(problem) < 400


@pytest.mark.parametrize(
    ("extra", "name", "expected"),
    [
        ("[endpoint]\nbase_url = 'ftp://x'", "endpoint.base_url", "expected http:// or https://"),
        ("[endpoint]\nbase_url = 'api.example.com/v1'", "endpoint.base_url", "expected http:// or https://"),
        ("[endpoint]\nbase_url = 'http://x:99999'", "endpoint.base_url", "is not a URL"),
        ("[endpoint]\nbase_url = 'http://[::1'", "endpoint.base_url", "is not a URL"),
        ("[endpoint]\nbase_url = 'https://x/v1?a=b'", "endpoint.base_url", "must not have a query"),
        ("[endpoint]\nbase_url = 'https://x/v1/chat/completions'", "endpoint.base_url", "leave out /chat/completions"),
        ("[endpoint]\nbase_url = 'https://x/\\tv1'", "endpoint.base_url", None),
        ("[endpoint]\nbase_url = 'https://x'\nsimulate = 'openai'", "endpoint.simulate", "exclude each other"),
        ("[endpoint]\nbase_url = 'https://x'\nmodel = 'YOUR_MODEL_ID'", "endpoint.model", "still the placeholder"),
        ("[structured]\nmode = 'tool'", "structured.mode", "needs structured.schema"),
        ("[params]\nmessages = []", "params.messages", "set by batchrun"),
        ("[params]\nstream = true", "params.stream", "set by batchrun"),
    ],
)
def test_values_that_cannot_work_are_named_with_file_and_key(tmp_path, extra, name, expected):
    if expected is None:
        extra, expected = extra.replace("'", '"'), "space or control character"
    (problem,) = problems(tmp_path, job_text(extra))
    assert problem.startswith(f"{tmp_path}/job.toml:")
    assert name in problem
    assert expected in problem


@pytest.mark.parametrize("name", ["utf-16", "utf-32", "nonsense", "rot13", "cp037", "hex"])
def test_an_encoding_that_cannot_be_read_line_by_line_is_refused(tmp_path, name):
    (problem,) = problems(tmp_path, job_text(top=f'encoding = "{name}"'))
    assert f"encoding: '{name}' is not usable" in problem


@pytest.mark.parametrize(
    "url",
    [
        "ftp://user:geheim@host/v1",
        "https://user:geheim@host/v1",
        "https://user:geheim@host:99999/v1",
        "user:geheim@host",
    ],
)
def test_a_password_in_a_url_is_never_repeated(tmp_path, url):
    (problem,) = problems(tmp_path, job_text(f'[endpoint]\nbase_url = "{url}"'))
    assert "endpoint.base_url" in problem
    assert "geheim" not in problem


def test_all_problems_are_said_at_once_each_with_its_line(tmp_path):
    text = (
        'output = 5\nimput = "x"\n[endpoint]\nmodel = "YOUR_MODEL_ID"\nbase_url = "https://x"\n'
        "[limits]\nconcurrency = -1\nrpm = 3\n[params]\nstream = true\n[notify]\n"
    )
    found = problems(tmp_path, text)
    lines = sorted(int(problem.removeprefix(f"{tmp_path}/job.toml:").partition(":")[0]) for problem in found if
                   problem.startswith(f"{tmp_path}/job.toml:") and "missing" not in problem)  # fmt: skip
    assert lines == [1, 2, 4, 7, 8, 10, 11]
    assert any("input is missing" in problem for problem in found)


def test_a_command_line_that_names_nothing_is_told_all_that_is_missing(batchrun):
    ended = batchrun("run")
    assert ended.code == 2
    assert "input is missing" in ended.err
    assert "output is missing" in ended.err


def test_a_prompt_that_looks_like_toml_does_not_shift_the_line_of_a_message(tmp_path):
    text = job_text('[prompt]\nuser = """\n[retry]\nmax_attempts = 3\n\u2028\n"""\n[retry]\nmax_attempts = 0')
    (problem,) = problems(tmp_path, text)
    assert problem.startswith(f"{tmp_path}/job.toml:11: retry.max_attempts")


@pytest.mark.parametrize(
    "text",
    ["input = ", "input = 'a'\ninput = 'b'", "[endpoint", "input = 'a\n'", "n = " + "9" * 5000, "a = " + "[" * 5000],
)
def test_a_file_that_is_no_toml_is_said_with_its_place(tmp_path, text):
    (problem,) = problems(tmp_path, text)
    assert problem.startswith(f"{tmp_path}/job.toml: not valid TOML: ")


def test_a_job_file_that_is_not_utf_8_or_not_there_is_said(batchrun, tmp_path):
    (tmp_path / "job.toml").write_bytes("input = '中'".encode("gb18030"))
    assert "job.toml: not UTF-8 at byte 9" in batchrun("run", "job.toml").err
    assert "none.toml: the job file cannot be read" in batchrun("run", "none.toml").err


def test_a_path_that_no_file_can_have_is_refused(batchrun, tmp_path):
    write_lines(tmp_path / "input", {"prompt": "x"})
    (tmp_path / "job.toml").write_text('input = "input"\noutput = "a\\u0000b"\n[endpoint]\nsimulate = "openai"')
    ended = batchrun("run", "job.toml")
    assert ended.code == 2
    assert "output" in ended.err
    assert "Traceback" not in ended.err


def test_a_notify_that_tells_nobody_is_refused(tmp_path):
    (problem,) = problems(tmp_path, job_text("[notify]\non = 'trouble'"))
    assert "[notify] needs command or webhook_env" in problem


# --- precedence ---


def ask(batchrun, tmp_path, endpoint_url: str, *flags: str, model: str | None = None, **variables: str):
    write_lines(tmp_path / "input", {"prompt": "x"})
    inside = f'model = "{model}"' if model else ""
    (tmp_path / "job.toml").write_text(job_text(f'[endpoint]\nbase_url = "{endpoint_url}"\n{inside}'))
    return batchrun("run", "job.toml", *flags, **variables)


def test_a_flag_wins_over_the_job_and_the_job_over_the_environment(batchrun, endpoint, tmp_path):
    url, asked = endpoint
    nowhere = "http://127.0.0.1:9/v1"
    env = {"OPENAI_MODEL": "from-env", "OPENAI_BASE_URL": nowhere}
    for flags, model in ((["-m", "flag", "-o", "o1"], "job"), (["-o", "o2"], "job"), (["-o", "o3"], None)):
        assert ask(batchrun, tmp_path, url, *flags, model=model, **env).code == 0
    flags = ["--base-url", url, "-o", "o4"]
    assert ask(batchrun, tmp_path, nowhere, *flags, model="job", **env).code == 0
    assert [json.loads(body)["model"] for _, body in asked] == ["flag", "job", "from-env", "job"]


def test_the_environment_serves_where_flag_and_job_are_silent(batchrun, endpoint, tmp_path):
    url, asked = endpoint
    write_lines(tmp_path / "input", {"prompt": "x"})
    call = ["run", "-i", "input", "-o", "out"]
    assert "endpoint.base_url is missing" in batchrun(*call).err
    assert batchrun(*call, OPENAI_BASE_URL=url, OPENAI_MODEL="m", OPENAI_API_KEY=KEY).code == 0
    ((key, body),) = asked
    assert key == f"Bearer {KEY}"
    assert json.loads(body) == {"model": "m", "messages": [{"role": "user", "content": "x"}]}


def test_a_base_url_flag_replaces_the_simulated_provider_of_the_job(batchrun, endpoint, tmp_path):
    url, asked = endpoint
    write_lines(tmp_path / "input", {"prompt": "x"})
    (tmp_path / "job.toml").write_text(job_text('[endpoint]\nsimulate = "openai"\nmodel = "m"'))
    assert batchrun("run", "job.toml", "--base-url", url).code == 0
    assert len(asked) == 1


@pytest.mark.parametrize(
    "flag", [["--rpm", "0"], ["--concurrency", "0"], ["--concurrency", "x"], ["--max-failures", "200%"],
             ["--deadline", "never"], ["--limit", "0"], ["--max-attempts", "0"], ["--on-change", "maybe"]],
)  # fmt: skip
def test_an_impossible_flag_ends_with_2_and_names_itself(batchrun, tmp_path, flag):
    ended = batchrun("run", "-i", "x", "-o", "out", *flag)
    assert ended.code == 2
    assert flag[0] in ended.err
    assert not (tmp_path / "out").exists()


# --- the key ---


def run_with_key(batchrun, tmp_path, url: str, endpoint_lines: str = "", *, top: str = "", **variables: str):
    write_lines(tmp_path / "input", {"prompt": "x"})
    text = f'[endpoint]\nmodel = "m"\nbase_url = "{url}"\n{endpoint_lines}\n'
    (tmp_path / "job.toml").write_text(job_text(text, top=top))
    ended = batchrun("run", "job.toml", "--log-format", "json", "--json", **variables)
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.name not in ("key.txt", ".env"):
            assert KEY.encode() not in path.read_bytes()
    assert KEY not in ended.out + ended.err
    return ended


@pytest.mark.parametrize(
    "env_file",
    [f"MY_KEY={KEY}", f"export MY_KEY = '{KEY}'  # comment", f'# c\n\n \ufeffX=1\nMY_KEY="{KEY}"'.replace("\ufeff", ""),
     f"\ufeffMY_KEY={KEY}\r\nOTHER=1\r\n", f"MY_KEY={KEY} # comment"],
)  # fmt: skip
def test_the_key_comes_from_a_dotenv_file_in_each_of_its_forms(batchrun, endpoint, tmp_path, env_file):
    url, asked = endpoint
    (tmp_path / ".env").write_bytes(env_file.encode())
    assert run_with_key(batchrun, tmp_path, url, 'api_key_env = "MY_KEY"', top='env_file = ".env"').code == 0
    assert asked[0][0] == f"Bearer {KEY}"


def test_the_environment_wins_over_the_dotenv_file_and_the_key_file_over_both(batchrun, endpoint, tmp_path):
    url, asked = endpoint
    (tmp_path / ".env").write_text("OPENAI_API_KEY=from-dotenv\n")
    assert run_with_key(batchrun, tmp_path, url, top='env_file = ".env"', OPENAI_API_KEY=KEY).code == 0
    (tmp_path / "key.txt").write_text("from-file\n")
    text = 'api_key_file = "key.txt"'
    (tmp_path / "out").rename(tmp_path / "first")
    assert run_with_key(batchrun, tmp_path, url, text, top='env_file = ".env"', OPENAI_API_KEY=KEY).code == 0
    assert [key for key, _ in asked] == [f"Bearer {KEY}", "Bearer from-file"]


@pytest.mark.parametrize("content", [f"{KEY}\n{KEY}", f" {KEY}", f"{KEY}é", ""])
def test_a_key_that_no_key_can_be_is_refused_by_the_name_of_its_place(batchrun, endpoint, tmp_path, content):
    url, asked = endpoint
    ended = run_with_key(batchrun, tmp_path, url, 'api_key_env = "MY_KEY"', MY_KEY=content)
    assert ended.code == 2
    assert "the variable MY_KEY" in ended.err
    (tmp_path / "key.txt").write_text(content)
    ended = run_with_key(batchrun, tmp_path, url, 'api_key_file = "key.txt"')
    assert ended.code == 2
    assert "key.txt" in ended.err
    assert asked == []
    assert not (tmp_path / "out").exists()


def test_a_missing_key_is_said_for_a_remote_endpoint_with_the_name_of_its_variable(batchrun, tmp_path):
    boundary = '[data_boundary]\nclassification = "non-sensitive"'
    ended = run_with_key(batchrun, tmp_path, "https://host.invalid/v1", f'api_key_env = "MY_KEY"\n{boundary}')
    assert ended.code == 2
    assert "no key: the variable MY_KEY is not set" in ended.err
    ended = run_with_key(batchrun, tmp_path, "https://host.invalid/v1", f'api_key_file = "none"\n{boundary}')
    assert ended.code == 2
    assert "none (endpoint.api_key_file) cannot be read" in ended.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["MY_KEY", f"a line with {KEY}", "1X=3"])
def test_a_dotenv_line_that_is_no_assignment_is_named_by_number_and_not_shown(batchrun, tmp_path, content):
    (tmp_path / ".env").write_text(f"# c\n{content}\n")
    ended = run_with_key(batchrun, tmp_path, "http://127.0.0.1:9/v1", top='env_file = ".env"')
    assert ended.code == 2
    assert ".env:2: expected NAME=VALUE" in ended.err


def test_a_dotenv_file_that_is_not_there_is_said(batchrun, tmp_path):
    ended = run_with_key(batchrun, tmp_path, "http://127.0.0.1:9/v1", top='env_file = "none"')
    assert ended.code == 2
    assert "env_file" in ended.err


@pytest.mark.parametrize("flag", ["--api-key", "--key"])
def test_there_is_no_flag_for_a_key(batchrun, flag):
    ended = batchrun("run", flag, KEY)
    assert ended.code == 2
    assert "No such option" in ended.err
    assert KEY not in ended.err


# --- the data boundary ---


@pytest.mark.parametrize("source", ["job", "flag", "environment"])
def test_a_remote_endpoint_without_confirmation_is_refused_and_nothing_is_made(batchrun, tmp_path, source):
    write_lines(tmp_path / "input", {"prompt": "x"})
    (tmp_path / "job.toml").write_text(
        job_text('[endpoint]\nmodel = "m"' + f'\nbase_url = "{REMOTE}"' * (source == "job"))
    )
    flags = ["--base-url", REMOTE] if source == "flag" else []
    variables = {"OPENAI_BASE_URL": REMOTE} if source == "environment" else {}
    before = sorted(tmp_path.iterdir())
    ended = batchrun("run", "job.toml", *flags, OPENAI_API_KEY=KEY, **variables)
    assert ended.code == 2
    for words in (REMOTE, "Never send:", "sensitive personal data", "--confirm-non-sensitive"):
        assert words in ended.err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.9.9.9"])
def test_an_endpoint_on_this_machine_needs_no_confirmation(tmp_path, host):
    url = f"http://{host}:9/v1"
    assert resolve(load(tmp_path, job_text()), {"OPENAI_BASE_URL": url}).endpoint.base_url == url


@pytest.mark.parametrize("host", ["10.0.0.1", "127.0.0.1.example.com", "localhost.example.com", "0.0.0.0", "[::2]"])
def test_any_other_host_needs_it(tmp_path, host):
    with pytest.raises(JobError, match="Never send:"):
        resolve(load(tmp_path, job_text()), {"OPENAI_BASE_URL": f"http://{host}:9/v1"})
