"""Telling somebody how a run ended: a command, or a message to a webhook."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from http import HTTPStatus
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError

from batchrun.job import JobError
from batchrun.settings import DEFAULT_KEY_VARIABLE, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchrun.job import Job, Notify
    from batchrun.summary import Summary

_COMMAND_PATIENCE_S = 60.0
_WEBHOOK_PATIENCE_S = 20.0
#: Where a message was not taken for a reason that may pass, it is sent again after so long.
_PAUSES_S = (1.0, 4.0)
_MOST_BYTES = 10_000
_FORMATS: dict[str, Callable[[str, dict[str, Any]], dict[str, Any]]] = {
    "json": lambda _text, facts: facts,
    # open.dingtalk.com, developer.work.weixin.qq.com, open.feishu.cn: messages of robots in a group
    "dingtalk": lambda text, _facts: {"msgtype": "text", "text": {"content": text}},
    "wecom": lambda text, _facts: {"msgtype": "text", "text": {"content": text}},
    "feishu": lambda text, _facts: {"msg_type": "text", "content": {"text": text}},
}


def tell(job: Job, summary: Summary) -> list[str]:
    """Tell whom the job names how its run ended; give what went wrong with that, in words, a line each.

    A command gets the facts on standard input as JSON, without the key in its environment.
    """
    return _tell(job, in_words(job, summary), summary.as_dict())


def tell_refusal(job: Job, message: str, exit_code: int) -> list[str]:
    """Tell of a run that ended without a summary: refused before anything was sent (2), or its folder failed (1)."""
    stopped = {"cause": "refused" if exit_code == 2 else "output", "kind": None, "message": message}
    text = f"{_name(job)}: exit code {exit_code}\nstopped: {message[:500]}\n{job.output}"
    return _tell(job, text, {"exit_code": exit_code, "stopped": stopped})


def _tell(job: Job, text: str, summary: dict[str, Any]) -> list[str]:
    settings = job.notify
    if settings is None or (settings.on == "trouble" and summary["exit_code"] == 0):
        return []
    try:
        variables = environment(job)
    except JobError:  # what a run is refused for, and all the more to be told
        variables = dict(os.environ)
    facts = {"text": text, "job": str(job.path or ""), "host": socket.gethostname(), "summary": summary}
    problems = []
    if settings.command:
        problems += _run(settings, job, variables, facts)
    if settings.webhook_env:
        problems += _post(settings, variables, facts)
    return problems


def in_words(job: Job, summary: Summary) -> str:
    """Say in a few lines how a run ended: no prompt, no answer."""
    pending = "?" if summary.pending is None else f"{summary.pending:,}"
    lines = [
        f"{_name(job)}: exit code {summary.exit_code}",
        f"{summary.results:,} results, {summary.failures:,} failures, {pending} pending",
    ]
    if summary.stop is not None:
        lines.append(f"stopped: {summary.stop.message[:500]}")
    if summary.cost is not None:
        lines.append(f"cost {summary.cost:.4f} {summary.currency}")
    lines.append(str(summary.output))
    return "\n".join(lines)


def _name(job: Job) -> str:
    return f"batchrun {job.path.name}" if job.path else "batchrun"


def _run(settings: Notify, job: Job, variables: Mapping[str, str], facts: dict[str, Any]) -> list[str]:
    key = job.endpoint.api_key_env or DEFAULT_KEY_VARIABLE
    own = {name: value for name, value in variables.items() if name not in (key, settings.webhook_env)}
    try:
        # A group of its own, so that what the shell started ends with it.
        process = subprocess.Popen(  # noqa: S603 - the command of the job itself
            ["/bin/sh", "-c", str(settings.command)], env={**own, "PATH": own.get("PATH", os.defpath)},
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, process_group=0,
            cwd=job.path.absolute().parent if job.path else None,
        )  # fmt: skip
    except OSError as error:
        return [f"notify.command cannot be run: {error.strerror}"]
    with process:
        try:
            _, said = process.communicate(_bytes(facts), _COMMAND_PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return [f"notify.command did not end within {_COMMAND_PATIENCE_S:.0f} s, and was killed"]
    if process.returncode:
        words = said.decode("utf-8", "replace").strip()[:300]
        return [f"notify.command ended with {process.returncode}{f': {words}' if words else ''}"]
    return []


def _post(settings: Notify, variables: Mapping[str, str], facts: dict[str, Any]) -> list[str]:
    """Post the message; the URL, which may hold a token, is in no message."""
    url = variables.get(str(settings.webhook_env), "")
    if not url.lower().startswith(("http://", "https://")):
        return [f"notify.webhook_env: {settings.webhook_env} holds no URL"]
    body = _bytes(_FORMATS[settings.webhook_format](str(facts["text"]), facts))
    problems: list[str] = []
    # A thread that may be left behind: a timeout of a socket is one of each of its bytes.
    posting = threading.Thread(target=lambda: problems.extend(_sent(url, body)), daemon=True)
    posting.start()
    posting.join(_WEBHOOK_PATIENCE_S)
    if posting.is_alive():
        problems = [f"no answer within {_WEBHOOK_PATIENCE_S:.0f} s"]
    return [f"notify.webhook_env: the message was not taken: {problem}" for problem in problems]


def _sent(url: str, body: bytes) -> list[str]:
    """Send a message, again if what is wrong may pass; give what is wrong in the end, if anything is."""
    trouble, may_pass = _attempt(url, body)
    for pause_s in _PAUSES_S:
        if may_pass:
            time.sleep(pause_s)
            trouble, may_pass = _attempt(url, body)
    return [trouble] if trouble else []


def _attempt(url: str, body: bytes) -> tuple[str | None, bool]:
    """Send a message once; give what is wrong, and whether that may pass."""
    # Neither proxies of the environment nor redirects are followed.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())
    try:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - looked at before
        with opener.open(request) as answer:
            return _trouble(answer.read(_MOST_BYTES)), False
    except HTTPError as error:
        code = error.code
        return f"HTTP {code}", code == HTTPStatus.TOO_MANY_REQUESTS or code >= HTTPStatus.INTERNAL_SERVER_ERROR
    except (OSError, ValueError, HTTPException) as error:
        return _why(error), isinstance(error, OSError)


def _why(error: OSError | ValueError | HTTPException) -> str:
    """Say why a message did not get there, in words that cannot hold the URL."""
    cause = error.reason if isinstance(error, URLError) else error
    return (isinstance(cause, OSError) and cause.strerror) or type(cause).__name__


def _trouble(said: bytes) -> str | None:
    """Read what a group robot answers: a code other than 0, in a 200, says that it did not take a message."""
    try:
        answer = json.loads(said)
    except ValueError:
        return None
    if not isinstance(answer, dict):
        return None
    code = answer.get("errcode", answer.get("code", 0))
    return None if code in (0, 200, "0") else f"code {str(code)[:20]}"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow none."""


def _bytes(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")
