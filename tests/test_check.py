"""`batchrun check` and `batchrun models`, as real processes against real sockets."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import KEY, environment, hearing_sigint
from scripted import Act, Call, Scripted, Wait, always, completion, http, ok
from servers import free_port, until

from batchrun.check import check as check_endpoint
from batchrun.diagnose import candidates
from batchrun.models import list_models, near, read_list
from batchrun.simulator.dialects import DIALECTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

STEPS = ["settings", "name", "tcp", "tls", "http", "key", "models", "model", "chat"]
LIST = {"object": "list", "data": [{"id": "m-1", "object": "model", "created": 1_704_067_200, "owned_by": "us"}]}
NO_MODEL = {"error": {"message": "you must provide a model parameter", "type": "invalid_request_error"}}
WRONG_KEY = {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}
NO_PATH = http(404, {"error": {"message": "Invalid URL"}})
PAGE = http(200, b"<html><title>Our gateway</title></html>", "Content-Type: text/html")


def api(
    *, models: Any = LIST, chat: Any = None, empty: Any = None, root: str = "/v1", elsewhere: bytes = NO_PATH,
    open_list: bool = False,
) -> Callable[[Call], Iterable[Any]]:  # fmt: skip
    """Give the script of an API: its list, its answer to a chat and to an empty request, and to other paths."""

    def script(call: Call) -> Iterable[Any]:
        if call.target == f"{root}/models" and call.method == "GET":
            if not call.values("authorization") and not open_list:
                return [http(401, WRONG_KEY)]
            return [models if isinstance(models, bytes) else http(200, models)]
        if call.target == f"{root}/chat/completions" and call.method == "POST":
            said = (empty or http(400, NO_MODEL)) if call.raw == b"{}" else (chat or ok())
            return said(call) if callable(said) else [said]
        return [elsewhere]

    return script


class Found:
    """What `check --json` printed."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        self.value = json.loads(out)
        self.steps = {step["name"]: step for step in self.value["steps"]}
        assert list(self.steps) == STEPS
        assert self.value["exit_code"] == code
        assert self.value["ok"] is (code == 0)

    @property
    def failed(self) -> str | None:
        """Name the step that failed; all after it must be skipped."""
        states = [step["status"] for step in self.value["steps"]]
        if "failed" not in states:
            return None
        at = states.index("failed")
        assert set(states[at + 1 :]) <= {"skipped"}
        return STEPS[at]

    def says(self, *words: str) -> None:
        """Demand words in the diagnosis of the step that failed."""
        assert self.failed is not None
        said = self.steps[self.failed]["diagnosis"]
        for word in words:
            assert word in said, said


@pytest.fixture
def check(batchrun: Callable[..., Any]) -> Callable[..., Found]:
    """Check a server, or a base URL, with a key and the model m-1 unless told otherwise."""

    def call(
        server: Scripted | str, *flags: object, key: str | None = KEY, model: str | None = "m-1", **more: Any
    ) -> Found:
        base_url = server if isinstance(server, str) else server.base_url
        variables = {**({} if key is None else {"OPENAI_API_KEY": key}), **more}
        named = () if model is None else ("-m", model)
        ended = batchrun("check", "--base-url", base_url, *named, "--json", *flags, **variables)
        assert ended.err == ""
        for secret in (KEY, key):
            assert not secret or len(secret) < 6 or secret not in ended.out
        return Found(ended.code, ended.out, ended.err)

    return call


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Found]:
    """Check a server as `check` does, in this process: a start of Python less."""

    def call(server: Scripted | str, *, key: str | None = KEY, model: str = "m-1") -> Found:
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        if key is not None:
            monkeypatch.setenv("OPENAI_API_KEY", key)
        base_url = server if isinstance(server, str) else server.base_url
        value = check_endpoint(base_url=base_url, model=model).as_dict()
        return Found(value["exit_code"], json.dumps(value), "")

    return call


# --- what works -------------------------------------------------------------------------------------------------


def test_a_check_that_goes_well_says_each_step_and_ends_with_0(serve, check):
    server = serve(api())
    found = check(server)
    assert (found.code, found.failed) == (0, None)
    assert [step["status"] for step in found.value["steps"]] == ["ok"] * 3 + ["skipped"] + ["ok"] * 5
    assert "accepted" in found.steps["key"]["detail"]
    assert found.steps["models"]["detail"] == "1 listed"
    assert found.value["answer"]["text"] == "ok"
    assert found.value["settings"]["key"] == {
        "value": f"present, ends in {KEY[-4:]}", "from": "variable OPENAI_API_KEY",
    }  # fmt: skip
    (chat,) = [call.body for call in server.calls if call.prompt]
    assert list(chat) == ["model", "messages", "stream"]
    assert chat["stream"] is False


def test_steps_are_data_for_people_too(serve, batchrun):
    ended = batchrun("check", "--base-url", serve(api()).base_url, "-m", "m-1", OPENAI_API_KEY=KEY)
    assert (ended.code, ended.err) == (0, "")
    assert KEY not in ended.out
    for name in STEPS:
        assert f" {name} " in ended.out
    assert "The endpoint works." in ended.out
    assert ended.out.splitlines()[-1].startswith("curl -sS ")


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_every_simulated_family_passes_and_lists_its_models(dialect, batchrun, tmp_path):
    (tmp_path / "job.toml").write_text(f'[endpoint]\nsimulate = "{dialect}"\n')
    ended = batchrun("check", "job.toml", "--json")
    found = Found(ended.code, ended.out, ended.err)
    assert found.code == 0, ended.out
    assert found.value["simulated"] is True
    assert found.value["settings"]["dialect"]["value"] == dialect
    assert found.steps["http"]["status"] == "ok"
    listed = batchrun("models", "job.toml")
    assert (listed.code, listed.err) == (0, "")
    assert [line.split("\t")[0] for line in listed.out.splitlines()] == [
        "simulated-chat",
        "simulated-mini",
        "simulated-thinking",
    ]


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_every_simulated_family_as_a_server_with_a_key(dialect, simulator, here):
    url = simulator("--dialect", dialect, "--api-key", KEY)
    assert here(url).code == 0
    wrong = here(url, key="sk-another-key-altogether")
    assert (wrong.code, wrong.failed) == (4, "key")
    assert here(url, key=None).failed == "key"


def test_no_data_boundary_is_needed_and_no_input_nor_output(serve, batchrun, tmp_path):
    server = serve(api())
    (tmp_path / "job.toml").write_text(f'[endpoint]\nbase_url = "{server.base_url}"\nmodel = "m-1"\n')
    assert batchrun("check", "job.toml").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job.toml"]
    remote = batchrun("check", "--base-url", "https://nowhere.invalid/v1", "-m", "m-1", OPENAI_API_KEY=KEY)
    assert remote.code == 4
    assert "nowhere.invalid" in remote.out


def test_where_settings_came_from(serve, batchrun, tmp_path):
    server = serve(api())
    (tmp_path / "env").write_text(f"OPENAI_MODEL=m-1\nexport MY_KEY='{KEY}' # mine\n")
    (tmp_path / "job.toml").write_text('env_file = "env"\n[endpoint]\napi_key_env = "MY_KEY"\n')
    ended = batchrun("check", "job.toml", "--json", OPENAI_BASE_URL=server.base_url, HTTPS_PROXY="http://u:p@proxy")
    settings = ended.json()["settings"]
    assert settings["base_url"]["from"] == "variable OPENAI_BASE_URL"
    assert settings["model"]["from"] == "variable OPENAI_MODEL in env_file env"
    assert settings["key"] == {"value": f"present, ends in {KEY[-4:]}", "from": "variable MY_KEY in env_file env"}
    assert settings["proxy"]["value"] == "HTTPS_PROXY set"
    assert "u:p" not in ended.out
    assert KEY not in ended.out
    assert ended.code == 0


@pytest.mark.parametrize("key", ["EMPTY", "sk-12345678"])
def test_of_a_short_key_nothing_is_shown(key, serve, check):
    found = check(serve(api()), key=key)
    assert found.value["settings"]["key"]["value"] == "present"
    assert found.code == 0


def test_answers_that_only_stream_are_a_note(serve, check):
    def chat(call: Call) -> Iterable[bytes]:
        if not call.body["stream"]:
            return [http(400, {"error": {"message": "This model only supports streaming"}})]
        delta = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "好"}, "finish_reason": "stop"}]}
        return [http(200, f"data: {json.dumps(delta)}\n\ndata: [DONE]\n\n".encode(), "Content-Type: text/event-stream")]

    found = check(serve(api(chat=chat)))
    assert found.code == 0
    assert found.steps["chat"]["status"] == "note"
    assert found.value["answer"] | {"usage": None} == found.value["answer"]
    assert found.value["answer"]["text"] == "好"
    assert found.value["answer"]["streamed"] is True
    assert '"stream": true' in found.value["curl"]


def test_an_answer_that_is_cut_off_and_another_model_are_told(serve, check):
    cut = check(serve(api(chat=http(200, completion("o", finish="length")))))
    assert (cut.code, cut.steps["chat"]["status"]) == (0, "note")
    other = completion("ok", model="m-2")
    other["choices"][0]["message"]["reasoning_content"] = "hm"
    detail = check(serve(api(chat=http(200, other)))).steps["chat"]["detail"]
    assert "answered by m-2" in detail
    assert "with reasoning" in detail


@pytest.mark.parametrize("status", [404, 405, 501])
def test_no_model_list_is_fine(status, serve, check):
    found = check(serve(api(models=http(status, b"nothing here"))))
    assert found.code == 0
    assert found.steps["models"]["status"] == "ok"
    assert "fine" in found.steps["models"]["detail"]
    assert check(serve(api(models=PAGE))).steps["models"]["status"] == "ok"


def test_a_list_that_answers_everybody_proves_no_key(serve, check):
    found = check(serve(api(open_list=True)))
    assert "not proven" in found.steps["key"]["detail"]
    assert "without a key too" in found.steps["models"]["detail"]
    assert found.code == 0


def test_a_list_that_refuses_the_key_is_a_note_if_the_chat_answers(serve, check):
    found = check(serve(api(models=http(403, {"error": {"message": "no"}}))))
    assert (found.code, found.steps["key"]["status"]) == (0, "note")


def test_ipv6_idn_and_slashes(serve, batchrun, tmp_path):
    server = serve(api())
    for base_url in (f"{server.base_url}///", f"http://LOCALHOST:{server.port}/v1"):
        assert batchrun("check", "--base-url", base_url, "-m", "m-1").code == 0
    code = """
import asyncio, sys
from batchrun.simulator import Simulator, SimulatorSettings
async def main():
    async with Simulator(SimulatorSettings(), host="::1") as it:
        print(it.base_url, flush=True)
        await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
        pytest.skip("there is no IPv6 here")
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        base_url = process.stdout.readline().strip()
        if base_url:
            found = batchrun("check", "--base-url", base_url, "-m", "m", "--json")
            assert found.code == 0, found.out
            assert "--globoff" in found.json()["curl"]
        process.stdin.close()
    idn = batchrun("check", "--base-url", "https://bücher.invalid/v1", "-m", "m", "--json", OPENAI_API_KEY=KEY)
    assert idn.code == 4
    assert "xn--bcher-kva.invalid" in idn.json()["curl"]


# --- settings that are wrong (2) --------------------------------------------------------------------------------


def test_settings_that_cannot_work_end_with_2_before_anything_is_sent(serve, check):
    server = serve(api())
    whole = check(f"{server.base_url}/chat/completions")
    assert (whole.code, whole.failed) == (2, "settings")
    assert "leave out /chat/completions" in whole.steps["settings"]["detail"]
    for key, word in (
        (f"Bearer {KEY}", "Bearer"), (f"{KEY}\r", "line end"), (f'"{KEY} "', "quotes"), ("密钥" * 8, "character"),
    ):  # fmt: skip
        found = check(server, key=key)
        assert (found.code, found.failed) == (2, "settings")
        assert word in found.steps["settings"]["detail"] + (found.steps["settings"]["diagnosis"] or "")
    assert check(server, model="YOUR_MODEL_ID").code == 2
    assert check("ftp://127.0.0.1/v1").code == 2
    assert check("http://127.1:9/v1").code == 2
    assert check("http://[::1/v1").code == 2
    assert check("https://example.invalid/v1", key=None).code == 2
    assert server.calls == []


def test_a_job_file_that_is_none_is_a_failed_step(batchrun, tmp_path):
    (tmp_path / "job.toml").write_text("[endpoint]\nbase_ur = 1\n")
    for name in ("job.toml", "missing.toml"):
        ended = batchrun("check", name, "--json")
        assert Found(ended.code, ended.out, ended.err).failed == "settings"
        assert ended.code == 2
        assert ended.json()["curl"] is None
        assert batchrun("check", name).code == 2
        listing = batchrun("models", name)
        assert (listing.code, listing.out) == (2, "")
        assert name in listing.err


def test_no_model_ends_with_2_and_ids_to_choose_from(serve, check):
    server = serve(api())
    found = check(server, model=None)
    assert (found.code, found.failed) == (2, "model")
    found.says("-m ID", "m-1")
    assert not any(call.prompt for call in server.calls)


def test_a_key_in_quotes_is_remarked_and_named_when_it_is_refused(serve, check):
    found = check(serve(always(http(401, WRONG_KEY))), key=f'"{KEY}"')
    assert found.steps["settings"]["status"] == "note"
    assert found.failed == "key"
    found.says("quotes")


# --- below HTTP (4) ---------------------------------------------------------------------------------------------


def test_a_name_that_nobody_knows(check):
    found = check("https://nobody.invalid/v1", HTTPS_PROXY="http://proxy")
    assert (found.code, found.failed) == (4, "name")
    found.says("spelling", "HTTPS_PROXY", "directly")


@pytest.mark.parametrize("host", ["a..b", "a" * 70 + ".example"])
def test_a_name_that_can_be_none(host, check, batchrun):
    assert check(f"https://{host}/v1").failed == "name"
    listed = batchrun("models", "--base-url", f"https://{host}/v1", OPENAI_API_KEY=KEY)
    assert listed.code == 4
    assert "Traceback" not in listed.err


def test_a_port_at_which_nobody_listens(check):
    port = free_port()
    found = check(f"http://localhost:{port}/v1")
    assert (found.code, found.failed) == (4, "tcp")
    assert "127.0.0.1: refused" in found.steps["tcp"]["detail"]
    found.says(f"port {port}", "is the server running")


def test_a_server_that_closes_at_once_or_hangs(serve, check, tmp_path):
    closing = check(serve(always(Act.CLOSE)))
    assert (closing.code, closing.failed) == (4, "http")
    closing.says("cut before an answer")
    (tmp_path / "job.toml").write_text('[retry]\nattempt_timeout = "300ms"\n')
    hanging = check(serve(always(Act.HANG)), "job.toml")
    assert (hanging.code, hanging.failed) == (4, "http")
    hanging.says("Look at its log")


def test_tls_that_is_good(authority, serve, check):
    found = check(serve(api(), tls=authority.tls("IP:127.0.0.1")), SSL_CERT_FILE=str(authority.pem))
    assert found.code == 0, found.out
    assert "TLSv1.3, certificate for 127.0.0.1, 59 days left, issued by Test Authority" in found.steps["tls"]["detail"]
    soon = check(serve(api(), tls=authority.tls("IP:127.0.0.1", days=5)), SSL_CERT_FILE=str(authority.pem))
    assert (soon.code, soon.steps["tls"]["status"]) == (0, "note")


@pytest.mark.parametrize(
    ("names", "options", "trusted", "words"),
    [
        ("IP:127.0.0.1", {}, False, ["authority is not known", "SSL_CERT_FILE"]),
        ("IP:127.0.0.1", {"signed": False}, False, ["self-signed"]),
        ("IP:127.0.0.1", {"days": -1}, True, ["expired", "days over"]),
        ("DNS:api.example.com,DNS:b.example", {}, True, ["not for 127.0.0.1", "api.example.com, b.example"]),
    ],
)
def test_certificates_that_are_refused(names, options, trusted, words, authority, serve, check):
    variables = {"SSL_CERT_FILE": str(authority.pem)} if trusted else {}
    server = serve(api(), tls=authority.tls(names, **options))
    found = check(server, **variables)
    assert (found.code, found.failed) == (4, "tls")
    found.says(*words)
    assert server.calls == []


def test_tls_and_plain_http_taken_for_each_other(authority, serve, check):
    plain = serve(api())
    found = check(plain.base_url.replace("http:", "https:"))
    assert (found.code, found.failed) == (4, "tls")
    found.says("http://127.0.0.1")
    assert not any(call.values("authorization") for call in plain.calls)
    server = serve(api(), tls=authority.tls("IP:127.0.0.1"))
    found = check(server.base_url.replace("https:", "http:"))
    assert (found.code, found.failed) == (4, "http")
    found.says("https://127.0.0.1")


def test_a_port_that_speaks_neither(check):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve_nonsense() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    connection.sendall(b"220 mail.example ESMTP\r\n")
                    connection.recv(1000)

        thread = threading.Thread(target=serve_nonsense, daemon=True)
        thread.start()
        port = listening.getsockname()[1]
        assert check(f"https://127.0.0.1:{port}/v1").failed == "tls"
        assert check(f"http://127.0.0.1:{port}/v1").failed == "http"
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(10)


# --- HTTP and the base URL --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root", "given"),
    [
        ("/v1", ""), ("/api/v1", ""), ("/v1", "/v1/v1"), ("/api/v3", "/v1"), ("/v1", "/v1/models"), ("", "/v1"),
        ("/v1", "/v1/completions"), ("/v1", "/anthropic"), ("/v1", "/v1/messages"), ("/gate/v1", "/gate"),
        ("/api/paas/v4", "/api/paas"), ("/v2", "/v1"), ("/v1", "/v1/responses"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("elsewhere", [NO_PATH, PAGE, http(405), http(200), http(200, {}), http(301)])
def test_the_root_is_found_elsewhere_on_the_same_server(root, given, elsewhere, serve, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = serve(api(root=root, elsewhere=elsewhere))
    origin = server.base_url.removesuffix("/v1")
    found = check_endpoint(base_url=origin + given, model="m-1")
    assert found.exit_code == 4
    assert found.base_url_found == origin + root
    (failed,) = [step for step in found.steps if step.status == "failed"]
    assert failed.name == "http"
    assert f"{origin}{root} answers as an API" in str(failed.diagnosis)
    assert {call.raw for call in server.calls} == {b"{}"}


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (NO_PATH, "HTTP 404"), (PAGE, "a web page titled 'Our gateway'"), (http(405, {}), "HTTP 405"),
        (http(200), "empty body"), (http(200, {}), "neither an error nor an answer"), (http(200, []), "neither"),
        (http(502, b"<html>Bad gateway</html>"), "HTTP 502"), (http(200, b"null"), "neither"),
        (http(302, b"", "Location: https://login.example/"), "redirect to https://login.example/"),
        (http(403, b"<html>Blocked"), "HTTP 403 with a web page"),
        (http(400, b"<html>Bad"), "HTTP 400 with a web page"),
    ],
)  # fmt: skip
def test_what_is_no_api(answer, word, serve, here):
    server = serve(always(answer))
    found = here(server)
    assert (found.code, found.failed) == (4, "http")
    assert word in found.steps["http"]["detail"]
    assert found.steps["http"]["diagnosis"]
    assert not any(call.prompt for call in server.calls)


@pytest.mark.parametrize(
    "answer",
    [
        http(400, NO_MODEL), http(422, {"detail": [{"msg": "Field required"}]}), http(500, {"error": {"message": "x"}}),
        http(200, {"error": "no model"}), http(200, {"base_resp": {"status_code": 2013, "status_msg": "no"}}),
        http(200, {"code": 1, "message": "no model"}), http(404, {"error": {"message": "The model does not exist"}}),
        http(200, completion()), http(429, {"error": {"message": "slow down"}}), http(400, b"no model"),
    ],
)  # fmt: skip
def test_what_is_an_api(answer, serve, here):
    assert here(serve(api(empty=answer))).failed is None


def test_http_that_wants_to_be_https(serve, check):
    found = check(serve(always(http(301, b"", "Location: https://127.0.0.1/v1/chat/completions"))))
    assert found.failed == "http"
    found.says("The server wants https")


def test_the_documented_roots_of_a_provider_are_named(serve, check, tmp_path):
    (tmp_path / "job.toml").write_text('[endpoint]\ndialect = "moonshot"\n')
    found = check(serve(always(NO_PATH)), "job.toml")
    found.says("https://api.moonshot.cn/v1", "https://api.moonshot.ai/v1")
    refused = check(serve(always(http(401, WRONG_KEY))), "job.toml")
    assert refused.failed == "key"
    refused.says("https://api.moonshot.ai/v1", "another region")


def test_candidates_stay_on_the_server_and_are_few():
    for base_url in ("http://h:1", "http://h:1/v1/v1", "http://h:1/a/b/c/v1/messages", "http://h:1/api/generate"):
        found = candidates(base_url, ["http://h:1/doc/v9", "https://other/z"])
        assert 1 < len(found) <= 16
        assert len(set(found)) == len(found)
        assert all(path == "" or (path.startswith("/") and not path.endswith("/")) for path in found)
        assert "/z" not in found
        assert "/doc/v9" in found


# --- key, model, chat -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "word"),
    [
        (401, WRONG_KEY, "Check the key"),
        (403, {"error": {"message": "not allowed"}}, "may not use"),
        (402, {"error": {"message": "Insufficient Balance"}}, "Top up"),
        (429, {"error": {"message": "no money", "code": "insufficient_quota"}}, "Top up"),
    ],
)
def test_a_refused_key_and_an_empty_account(status, body, word, serve, here):
    at_once = here(serve(always(http(status, body))))
    assert (at_once.code, at_once.failed) == (4, "key")
    at_once.says(word)
    late = here(serve(api(open_list=True, chat=http(status, body))))
    assert (late.code, late.failed) == (4, "chat")
    late.says(word)


def test_no_key_where_one_is_wanted(serve, check):
    found = check(serve(always(http(401, WRONG_KEY))), key=None)
    assert (found.code, found.failed) == (4, "key")
    found.says("OPENAI_API_KEY")


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (404, {"error": {"message": "The model `M-1` does not exist"}}, ["near: m-1", "Use a model id"]),
        (400, {"error": {"message": "bad model"}}, ["near: m-1"]),
        (429, {"error": {"message": "slow down"}}, ["Wait, and check again"]),
        (400, {"error": {"message": "Content Exists Risk"}}, ["moderation"]),
        (500, {"error": {"message": "boom"}}, ["had trouble"]),
        (200, completion(""), ["said nothing"]),
        (200, {"choices": []}, ["No chat completion"]),
        (200, {}, ["No chat completion"]),
    ],
)
def test_a_chat_that_fails(status, body, words, serve, here):
    found = here(serve(api(chat=http(status, body))), model="M-1")
    assert (found.code, found.failed) == (4, "chat")
    assert found.steps["model"]["status"] == "note"
    assert "near: m-1" in found.steps["model"]["detail"]
    found.says(*words)


def test_a_chat_that_does_not_end_or_breaks_off(serve, check, tmp_path):
    (tmp_path / "job.toml").write_text('[retry]\nattempt_timeout = "500ms"\n')
    slow = check(serve(api(chat=lambda _: [Wait(30), ok()])), "job.toml")
    assert (slow.code, slow.failed) == (4, "chat")
    slow.says("slow")
    cut = check(serve(api(chat=lambda _: [http(200, b"{", length=100), Act.CLOSE])))
    assert (cut.code, cut.failed) == (4, "chat")


def test_near_ids():
    ids = ["deepseek-ai/DeepSeek-V3", "deepseek-chat", "qwen-max", "qwen-max-latest", "GLM-4.6", "moonshotai/kimi-k2"]
    assert near("deepseek-v3", ids)[0] == "deepseek-ai/DeepSeek-V3"
    assert near("deepseek/deepseek-chat", ids)[0] == "deepseek-chat"
    assert near("glm-4.6", ids)[0] == "GLM-4.6"
    assert near("qwen-mx", ids)[0] == "qwen-max"
    assert near("kimi-k2", ids) == ["moonshotai/kimi-k2"]
    assert near("zzz", ids) == []
    assert near("m", []) == []


# --- the curl command -------------------------------------------------------------------------------------------

#: A model id on which careless quoting breaks.
AWKWARD = """it's "a" $HOME `x` \\ 模型!"""


@contextlib.contextmanager
def key_in(place: str, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Put the key somewhere; give what the job says of it, and the variables of the process."""
    awkward = folder / "it's a $folder"
    awkward.mkdir()
    if place == "variable":
        yield "", {"OPENAI_API_KEY": KEY}
    elif place == "own variable":
        yield 'api_key_env = "MY_KEY"', {"MY_KEY": KEY}
    elif place == "file":
        (awkward / "key").write_text(KEY + "\n")
        yield """api_key_file = "it's a $folder/key\"""", {}
    else:
        lines = {
            "env_file": f"OTHER=1\nOPENAI_API_KEY={KEY}\n",
            "quoted env_file": f'export OPENAI_API_KEY="{KEY}" # k\n',
        }
        (awkward / "env").write_text(lines[place])
        yield "", {}


@pytest.mark.parametrize("place", ["variable", "own variable", "file", "env_file", "quoted env_file"])
@pytest.mark.skipif(shutil.which("curl") is None or shutil.which("bash") is None, reason="no curl or bash here")
def test_the_curl_command_sends_the_same_chat(place, serve, batchrun, tmp_path):
    server = serve(api())
    with key_in(place, tmp_path) as (line, variables):
        file = """env_file = "it's a $folder/env"\n""" if "env_file" in place else ""
        (tmp_path / "job.toml").write_text(f'{file}[endpoint]\nbase_url = "{server.base_url}"\n{line}\n')
        variables |= {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
        ended = batchrun("check", "job.toml", "-m", AWKWARD, **variables)
        assert ended.code == 0, ended.out
        command = ended.out.splitlines()[-1]
        assert command.startswith("curl ")
        assert KEY not in ended.out
        before = len(server.calls)
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment(**variables), capture_output=True, check=False
        )
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["choices"][0]["message"]["content"] == "ok"
    (sent,) = server.calls[before:]
    (checked,) = [call for call in server.calls[:before] if call.prompt]
    assert sent.body == checked.body
    assert sent.body["model"] == AWKWARD
    assert sent.values("authorization") == checked.values("authorization") == [f"Bearer {KEY}"]


# --- models -----------------------------------------------------------------------------------------------------


def test_models_prints_ids_and_what_is_said_of_them(serve, batchrun):
    entry = {
        "id": "a/b", "object": "model", "owned_by": "us", "created": 1_704_067_200, "context_length": 131_072,
        "pricing": {"prompt": "0.1"}, "note": "x" * 200, "parent": None,
    }  # fmt: skip
    server = serve(api(models={"data": [entry, "plain"], "has_more": True}))
    ended = batchrun("models", "--base-url", server.base_url, "-m", "A/B", OPENAI_API_KEY=KEY)
    assert ended.code == 0
    first, second = ended.out.splitlines()
    assert first.startswith('a/b\towner us, created 2024-01-01, context 131072, pricing={"prompt":"0.1"}, note=xxx')
    assert len(first) < 200
    assert second == "plain"
    assert "there are more" in ended.err
    assert "A/B is not listed; near: a/b" in ended.err
    raw = batchrun("models", "--base-url", server.base_url, "--json", OPENAI_API_KEY=KEY).json()
    assert raw["models"] == [entry, "plain"]
    assert (raw["count"], raw["ids"], raw["has_more"]) == (2, ["a/b", "plain"], True)


@pytest.mark.parametrize(
    ("value", "ids"),
    [
        ({"data": [{"id": "a"}]}, ["a"]),
        ([{"id": "a"}, {"id": "b"}], ["a", "b"]),
        (["a", "b"], ["a", "b"]),
        ({"models": [{"name": "a"}, {"model": "b"}]}, ["a", "b"]),
        ({"models": [{"name": "a", "id": "i"}]}, ["i"]),
        ({"data": None}, []),
        ({"data": []}, []),
        ([], []),
        ({"data": {"models": ["a"]}}, ["a"]),
        ({"data": {"a": {"owner": "x"}, "b": {}}}, ["a", "b"]),
        ({"object": "list", "data": None, "models": [{"name": "a"}]}, ["a"]),
        ({"data": [{"id": 1}, {"id": "a"}, None, 3, ""]}, ["a"]),
        ({"data": [1, 2]}, None),
        ({"error": "no"}, None),
        ({}, None),
        ("data", None),
        (None, None),
        (3, None),
    ],
)
def test_odd_shapes_of_a_list(value, ids):
    found = read_list(value)
    assert (None if found is None else found.ids) == ids


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (http(401, WRONG_KEY), ["refused", "Check the key"]),
        (http(403, {"error": {"message": "no"}}), ["refused", "may not use"]),
        (NO_PATH, ["no model list", "check -m ID"]),
        (http(405), ["no model list"]),
        (PAGE, ["no model list", "a web page"]),
        (http(200, {"hello": 1}), ["no list of models"]),
        (http(500, {"error": {"message": "boom"}}), ["boom"]),
        (Act.CLOSE, ["batchrun check says where"]),
    ],
)
def test_a_list_that_is_not_to_be_had(answer, words, serve, batchrun):
    ended = batchrun("models", "--base-url", serve(always(answer)).base_url, OPENAI_API_KEY=KEY)
    assert (ended.code, ended.out) == (4, "")
    for word in words:
        assert word in ended.err
    assert "Traceback" not in ended.err


def test_models_of_a_starter_job_whose_model_is_a_placeholder(serve, batchrun, tmp_path):
    (tmp_path / "job.toml").write_text(f'[endpoint]\nbase_url = "{serve(api()).base_url}"\nmodel = "YOUR_MODEL_ID"\n')
    assert batchrun("models", "job.toml", OPENAI_API_KEY=KEY).out.startswith("m-1\t")
    assert "`batchrun models`" in batchrun("check", "job.toml", OPENAI_API_KEY=KEY).out


def test_from_python(serve, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = serve(api())
    assert list_models(base_url=server.base_url).ids == ["m-1"]
    names = []
    found = check_endpoint(base_url=server.base_url, model="m-1", report=lambda step: names.append(step.name))
    assert found.ok
    assert names == STEPS


# --- strangers --------------------------------------------------------------------------------------------------


def test_a_key_that_the_server_echoes_appears_nowhere(serve, batchrun):
    def echo(call: Call) -> Iterable[bytes]:
        said = " ".join(call.values("authorization"))
        if call.target.endswith("/models"):
            return [http(200, {"data": [{"id": "m-1", "said": said}, {"id": said}]}, f"X-Said: {said}")]
        if call.raw == b"{}":
            return [http(400, {"error": {"message": said, "code": said}}, f"X-Said: {said}")]
        return [http(200, completion(said, model=said))]

    server = serve(echo)
    for command in (("check", "-m", "m-1"), ("check", "-m", "m-1", "--json"), ("models",), ("models", "--json")):
        ended = batchrun(*command, "--base-url", server.base_url, OPENAI_API_KEY=KEY)
        assert ended.code == 0
        assert KEY not in ended.out + ended.err
        assert json.dumps(KEY)[1:-1] not in ended.out + ended.err
    refusing = serve(lambda call: [http(401, " ".join(call.values("authorization")).encode())])
    for command in ("check", "models"):
        ended = batchrun(command, "--base-url", refusing.base_url, OPENAI_API_KEY=KEY)
        assert ended.code == 4
        assert KEY not in ended.out + ended.err


def test_what_others_wrote_is_harmless_on_a_terminal(serve, batchrun):
    evil = "\x1b[2J\x1b]0;x\x07\u202e\r\n\tm"
    server = serve(api(models={"data": [{"id": evil, "by": evil}]}, chat=http(200, completion(evil, model=evil))))
    for command in (("check", "-m", "x"), ("check", "-m", "x", "--json"), ("models", "-m", "y"), ("models", "--json")):
        ended = batchrun(*command, "--base-url", server.base_url, OPENAI_API_KEY=KEY)
        assert ended.code == 0
        assert not set(ended.out + ended.err) & {"\x1b", "\x07", "\u202e", "\r"}
    assert batchrun("models", "--base-url", server.base_url, "--json", OPENAI_API_KEY=KEY).json()["ids"] == [evil]
    failing = serve(always(http(400, {"error": {"message": evil}})))
    ended = batchrun("check", "-m", evil.replace("\r\n", ""), "--base-url", failing.base_url, OPENAI_API_KEY=KEY)
    assert ended.code == 4
    assert not set(ended.out + ended.err) & {"\x1b", "\x07", "\u202e", "\r"}


def test_a_hundred_thousand_models_and_a_reader_that_leaves(serve, batchrun, check):
    server = serve(api(models={"data": [{"id": f"vendor/model-{number}"} for number in range(100_000)]}))
    listed = batchrun("models", "--base-url", server.base_url, OPENAI_API_KEY=KEY)
    assert len(listed.out.splitlines()) == 100_000
    found = check(server, model="model-4711")
    assert found.code == 0
    assert "near: vendor/model-4711" in found.steps["model"]["detail"]
    for command in ("models", "check -m m-1"):
        line = f"{sys.executable} -m batchrun {command} --base-url {server.base_url} | head -n 1"
        piped = subprocess.run(
            ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"], env=environment(OPENAI_API_KEY=KEY),
            capture_output=True, check=False,
        )  # fmt: skip
        assert (piped.returncode, piped.stderr) == (0, b"")
        assert piped.stdout.count(b"\n") == 1


def test_answers_that_are_huge_or_deep(serve, check, batchrun):
    found = check(serve(api(chat=http(200, completion("x" * 5_000_000)))))
    assert found.code == 0
    assert len(found.steps["chat"]["detail"]) < 200
    deep = b"[" * 100_000 + b"]" * 100_000
    assert check(serve(api(models=http(200, deep)))).code == 0
    assert check(serve(always(http(200, deep)))).failed == "http"
    assert check(serve(always(http(400, b"x" * 3_000_000)))).code == 4
    assert batchrun("models", "--base-url", serve(always(http(200, deep))).base_url).code == 4


def test_closed_streams_are_no_trouble(serve, tmp_path):
    server = serve(api())
    for closed in (">&-", "2>&-", "<&-"):
        line = f"{sys.executable} -m batchrun check -m m-1 --base-url {server.base_url} {closed}"
        done = subprocess.run(["bash", "-c", line], env=environment(), cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr


def test_an_interrupt_ends_with_130(serve, tmp_path):
    server = serve(always(Act.HANG))
    with subprocess.Popen(
        [sys.executable, "-m", "batchrun", "check", "-m", "m-1", "--base-url", server.base_url],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), cwd=tmp_path,
        preexec_fn=hearing_sigint,
    ) as process:  # fmt: skip
        until(lambda: server.calls)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, b"")


def test_a_placeholder_of_a_key_is_a_word_like_others(serve, batchrun, tmp_path):
    (tmp_path / "job.toml").write_text('[endpoint]\ndialect = "ollama"\n')
    ended = batchrun("check", "job.toml", "--base-url", serve(api()).base_url, "-m", "m-1", OPENAI_API_KEY="ollama")
    assert ended.code == 0
    assert "dialect ollama (job.toml)" in ended.out


def test_a_key_in_the_base_url_is_hidden(serve, batchrun):
    key = "abcdefghijklmnop"
    server = serve(api(root=f"/{key}/v1"))
    base_url = f"http://127.0.0.1:{server.port}/{key}/v1"
    for flags in ((), ("--json",)):
        ended = batchrun("check", "--base-url", base_url, "-m", "m-1", *flags, OPENAI_API_KEY=key)
        assert ended.code == 0
        assert key not in ended.out


def test_nothing_goes_to_another_host(serve, check):
    other = serve(api())
    server = serve(always(http(307, b"", f"Location: {other.base_url}/chat/completions")))
    assert check(server).failed == "http"
    assert other.connections == 0
