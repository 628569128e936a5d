"""The likely cause of what failed, and what to do about it, in words; and what else a base URL may have meant."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from batchrun.endpoint.answers import parsed
from batchrun.endpoint.errors import describe, says_error, shown_place
from batchrun.job import is_loopback
from batchrun.records import ADVICE, ErrorKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchrun.endpoint.dialect import Dialect
    from batchrun.endpoint.reach import Attempt, Certificate, Place, TlsError
    from batchrun.origins import KeySource
    from batchrun.records import EndpointError, Provider

#: Ends of a base URL that are paths below an API's root, or another protocol's.
_BELOW_THE_ROOT = (
    "chat", "completions", "models", "responses", "messages", "embeddings", "generate", "anthropic", "tags",
    "generation", "text-generation", "aigc", "services",
)  # fmt: skip
_VERSION = re.compile(r"/v\d+\Z")
_TWICE = re.compile(r"(/v\d+)(?:/v\d+)+")
#: Roots that providers and servers document, the usual ones first (dialect files, section `base_url`).
_ROOTS = ("/v1", "/api/v1", "", "/v2", "/v3", "/v4", "/api/v3", "/api/paas/v4", "/compatible-mode/v1", "/openai/v1")
_MOST_TRIED = 16
_SOON_DAYS = 14
_ACCOUNT_KINDS = (ErrorKind.AUTH, ErrorKind.PERMISSION, ErrorKind.QUOTA)


# --- the settings -----------------------------------------------------------------------------------------------


def key_trouble(key: str | None) -> str | None:
    """Say what of a key is surely not part of it: quotes, the word Bearer; or that it is a placeholder."""
    if not key:
        return None
    if key.strip()[:1] in "\"'“‘" or key.strip()[-1:] in "\"'”’":
        return "The key stands in quotes: write it without them."
    if key.lower().startswith(("bearer", "authorization:")):
        return "The key has Bearer in front: write the key alone, batchrun adds that word."
    if key != key.strip() or "\r" in key:
        return "The key has a space or a line end at one side: write it without."
    if re.search(r"your[-_]|<|>|x{6}|\*{3}|\.\.\.|placeholder", key, re.IGNORECASE):
        return "The key looks like a placeholder: put your own in its place."
    return None


def below_the_root(base_url: str) -> str | None:
    """Name the end of a base URL that is a path below the root; None if it has none."""
    last = urlsplit(base_url).path.rstrip("/").rpartition("/")[2]
    return last if last in _BELOW_THE_ROOT else None


# --- below HTTP -------------------------------------------------------------------------------------------------


def no_name(proxies: Sequence[str]) -> str:
    """Say what to do where a host name has no address."""
    spelled = "Check the spelling of the host in base_url, and the network and its DNS (a VPN, an intranet name?)."
    return " ".join([spelled, *_proxy_words(proxies)])


def no_connection(place: Place, base_url: str, attempts: Sequence[Attempt], proxies: Sequence[str]) -> str:
    """Say what to do where no address of a host takes a connection."""
    problems = {one.problem for one in attempts}
    if "refused" in problems and is_loopback(base_url):
        words = (
            f"Nothing listens on port {place.port} of this machine: is the server running, and which port does it say? "
            "(In a container, this machine is the container.)"
        )
    elif "refused" in problems:
        words = f"{place.host} refuses port {place.port}: wrong port in base_url, server not running, or a firewall."
    elif "timeout" in problems:
        words = f"Nobody answers on port {place.port}: wrong host or port, the server is down, or a firewall drops it."
    else:
        words = "This machine has no way to that address: check the network, VPN and routes."
    return " ".join([words, *_proxy_words(proxies)])


def _proxy_words(proxies: Sequence[str]) -> list[str]:
    if not proxies:
        return []
    names, verb = ", ".join(proxies), "is" if len(proxies) == 1 else "are"
    words = f"{names} {verb} set, and batchrun ignores proxies and connects directly: where only a proxy leads out, "
    return [words + 'name it under [endpoint], proxy = "http://host:port", or run where there is direct access.']


def no_tls(error: TlsError, place: Place, base_url: str) -> str:
    """Say what to do where a TLS handshake failed."""
    shown = error.certificate
    words = {
        "expired": (
            f"The certificate has expired{f' ({-shown.days_left} days over)' if shown else ''}: the server's owner "
            "must renew it. Check this machine's clock too."
        ),
        "untrusted": "The certificate breaks a rule for certificates: its owner must make a new one.",
        "not_yet_valid": "The certificate is not valid yet: check this machine's clock.",
        "self_signed": (
            "The certificate is self-signed. If the server is yours, name the certificate as ca_file under "
            "[endpoint], or in the variable SSL_CERT_FILE; else something stands between you and the provider."
        ),
        "wrong_host": _wrong_host(shown, place),
        "unknown_authority": (
            "The certificate's authority is not known to this machine: a company's own, or a proxy that looks into "
            "TLS. Name its certificates (PEM) as ca_file under [endpoint], or in the variable SSL_CERT_FILE; or the "
            "server leaves out an intermediate certificate, or ca-certificates are not installed here."
        ),
        "plain_http": f"Write http:// in place of https:// ({_with_scheme(base_url, 'http')}), or take its TLS port.",
        "timeout": "Something takes the connection and says nothing: wrong port, or a firewall or proxy in the way.",
        "closed": "Wrong port, or a firewall or proxy that cuts TLS; some do so by host name.",
    }
    return words.get(error.problem, "The port may speak something else than TLS, or a version that is too old.")


def _wrong_host(shown: Certificate | None, place: Place) -> str:
    names = f" It is for {shown.names_in_words}." if shown else ""
    return f"The certificate is not for {place.host}.{names} Use the name that it is for in base_url."


def is_soon(certificate: Certificate) -> bool:
    """Tell whether a certificate ends within two weeks."""
    return certificate.days_left < _SOON_DAYS


def _with_scheme(base_url: str, scheme: str) -> str:
    return scheme + "://" + base_url.partition("://")[2]


def speaks_tls(base_url: str) -> str:
    """Say what to do where a port that is asked in plain http speaks TLS."""
    return f"The port speaks TLS: write https:// in place of http:// ({_with_scheme(base_url, 'https')})."


def no_answer(error: EndpointError, base_url: str, proxies: Sequence[str]) -> str:
    """Say what to do where a connection was made and no HTTP answer came."""
    if error.kind is ErrorKind.TIMEOUT:
        words = (
            "The connection stands, the answer does not come: the server hangs or still loads, or is no HTTP server."
        )
        if is_loopback(base_url):
            words += " Look at its log."
        return words
    words = "The connection was cut before an answer: no HTTP server on that port, or a firewall or proxy in the way."
    return " ".join([words, *_proxy_words(proxies)])


# --- HTTP -------------------------------------------------------------------------------------------------------


def not_an_api(provider: Provider, error: EndpointError | None) -> str | None:
    """Say why the answer to an empty chat request shows no API there; None if it shows one.

    An API answers in JSON that the request is wrong, or the key, or that it has no time. What speaks neither for nor
    against (a refusal in plain words) counts as one.
    """
    status, value = provider.status, parsed(provider)
    is_text = isinstance(value, str)
    what = describe(provider.body) if is_text else "JSON"
    if status // 100 == 3:
        return f"HTTP {status}, a redirect to {shown_place(provider.headers.get('location', 'elsewhere'))}"
    if status == 405:
        return "HTTP 405: this path takes no POST"
    if status == 404 and (error is None or error.kind is not ErrorKind.MODEL_NOT_FOUND):
        return f"HTTP 404: no such path ({what})" if is_text else "HTTP 404: no such path"
    if status // 100 == 2:
        if isinstance(value, dict) and ("choices" in value or says_error(value) or _says_code(value)):
            return None
        if is_text and value.lstrip().startswith(("data:", "event:")):
            return None
        return f"HTTP {status} with {what if is_text else 'JSON that is neither an error nor an answer'}"
    if is_text and (status // 100 == 5 or what.startswith("a web page")):
        return f"HTTP {status} with {what}"
    return None


def is_proven(provider: Provider) -> bool:
    """Tell whether an answer that may be an API's is in JSON, or a stream."""
    value = parsed(provider)
    return isinstance(value, dict | list) or provider.status // 100 == 2


def _says_code(value: dict[str, object]) -> bool:
    """Tell whether it is the error in a 200 of gateways: a code and a message, without data."""
    return any(key in value for key in ("code", "status")) and any(key in value for key in ("message", "msg"))


def wrong_path(provider: Provider, base_url: str) -> list[str]:
    """Say what an answer that is no API's hints at."""
    location = provider.headers.get("location", "")
    if provider.status // 100 == 3 and base_url.startswith("http://") and location.startswith("https://"):
        return [f"The server wants https: try {_with_scheme(base_url, 'https')} as base_url."]
    if provider.status // 100 == 3:
        return [
            "batchrun follows no redirects, which would carry the key elsewhere: put the right address in base_url."
        ]
    if provider.status in (401, 403):
        return ["Something in front refuses, not the API: a firewall, a login page, a block by region or address."]
    if provider.status // 100 == 5:
        return ["A server in front answers, the API behind it does not: it is down, or still starts."]
    return []


def candidates(base_url: str, documented: Sequence[str]) -> list[str]:
    """List other paths of the same server at which the API's root may be, likely ones first; none ends in a slash."""
    here = urlsplit(base_url)
    path = here.path.rstrip("/")
    bare = path
    while bare.rpartition("/")[2] in _BELOW_THE_ROOT:
        bare = bare.rpartition("/")[0]
    once = _TWICE.sub(r"\1", bare)
    parent = _VERSION.sub("", once)
    known = [there.path.rstrip("/") for one in documented if (there := urlsplit(one)).netloc == here.netloc]
    likely = [bare, once, *known, *(parent + root for root in _ROOTS)]
    while parent:
        parent = parent.rpartition("/")[0]
        likely += [parent + "/v1", parent]
    likely += _ROOTS
    return [one for one in dict.fromkeys(likely) if one != path][:_MOST_TRIED]


def documented_elsewhere(dialect: Dialect, base_url: str) -> str | None:
    """Name the base URLs that the provider documents, but for this one; None if there are no others."""
    others = [row.url for row in dialect.base_url if row.url.rstrip("/") != base_url.rstrip("/")]
    return f"Documented base URLs of {dialect.title}: {', '.join(others)}." if others else None


# --- the account and the chat -----------------------------------------------------------------------------------


def refused(
    error: EndpointError, key: str | None, source: KeySource, dialect: Dialect, base_url: str, *, beside_file: bool
) -> list[str]:
    """Say what to do where the endpoint refuses key or account. `beside_file`: the job has an env_file too."""
    if error.kind is ErrorKind.AUTH and key is None:
        return [
            f"No key was sent: set the variable {source.variable} (see endpoint.api_key_env, api_key_file, env_file)."
        ]
    words = [key_trouble(key) if error.kind is ErrorKind.AUTH else None, ADVICE[error.kind]]
    if error.kind is ErrorKind.AUTH:
        words.append(f"The key came from {source}.")
        if source.kind == "environment" and beside_file:
            words.append("A variable of the environment wins over the same one in env_file.")
        others = documented_elsewhere(dialect, base_url)
        words.append(others and f"A key of another region or plan is refused like a wrong one. {others}")
    return [one for one in words if one]


def is_about_the_account(error: EndpointError) -> bool:
    """Tell whether an error is about key, permission or balance."""
    return error.kind in _ACCOUNT_KINDS


def no_chat(error: EndpointError, model: str, meant: Sequence[str], *, is_listed: bool | None) -> list[str]:
    """Say what to do where the chat failed for another reason than the account.

    `meant` are ids that the model's may have been; `is_listed` is None where there is no list.
    """
    words = [ADVICE[error.kind]]
    if error.kind is ErrorKind.RATE_LIMITED:
        words = ["Address, key and path are right; the endpoint has no room now. Wait, and check again."]
        if error.retry_after_s:
            words.append(f"It asks to wait {error.retry_after_s:g} s.")
    elif error.kind is ErrorKind.CONTENT_FILTER:
        words = [
            "The provider's moderation refused a harmless sentence: look for a filter in its console, or a gateway's."
        ]
    elif error.kind is ErrorKind.EMPTY_OUTPUT:
        words = ["The endpoint works, and the model said nothing: is it a chat model?"]
    elif error.kind in (ErrorKind.TIMEOUT, ErrorKind.NETWORK):
        words = ["An empty request was answered, the chat was not: the model is slow, loads, or its server is down."]
    may_be_the_model = error.kind in (
        ErrorKind.MODEL_NOT_FOUND, ErrorKind.BAD_REQUEST, ErrorKind.PERMISSION, ErrorKind.SERVER_ERROR,
    )  # fmt: skip
    if may_be_the_model and is_listed is False:
        words.append(not_listed(model, meant))
    elif error.kind is ErrorKind.MODEL_NOT_FOUND:
        words.append("`batchrun models` shows the ids that this key can see.")
    return words


def not_listed(model: str, meant: Sequence[str]) -> str:
    """Say that a model id is not in the list, and which ids are near."""
    return f"{model} is not listed; " + (f"near: {', '.join(meant)}" if meant else "no id in the list is near")
