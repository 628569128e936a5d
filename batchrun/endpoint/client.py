"""The client: one HTTP session, one attempt at a time for a request, every ending an answer or an `EndpointError`."""

from __future__ import annotations

import asyncio
import re
import ssl
from typing import TYPE_CHECKING, Any, Self

import aiohttp
from yarl import URL

from batchrun.endpoint.answers import kept_headers, understand
from batchrun.endpoint.deadlines import Deadlines
from batchrun.endpoint.errors import load_rules
from batchrun.records import EndpointError, ErrorKind
from batchrun.version import __version__

if TYPE_CHECKING:
    from types import TracebackType

    from batchrun.records import Response

#: An answer with more bytes than this is cut off and counts as no answer.
MAX_BODY_BYTES = 64 * 1024 * 1024
_CONNECT_TIMEOUT_S = 10.0
#: Below the shortest keep-alive of common servers (uvicorn's 5 s), so that a closing connection is seldom reused.
_KEEP_ALIVE_S = 4.5
_HIDDEN_KEY = "[key]"
#: A shorter key is a placeholder, as local servers want one ("EMPTY", "x"); taking it out would spoil good answers.
_SHORTEST_SECRET = 6


class Client:
    """Sends requests to one endpoint. An async context manager; the session closes with it.

    `attempt_timeout_s` bounds one whole attempt, from its start to the last byte of the answer.
    """

    def __init__(self, base_url: str, key: str | None, *, attempt_timeout_s: float) -> None:
        self._url = URL(base_url.rstrip("/") + "/chat/completions")
        self._key = key
        self._secret = key.encode() if key and len(key) >= _SHORTEST_SECRET else None
        self._spelled = _spellings(self._secret) if self._secret else None
        self._timeout_s = attempt_timeout_s
        self._rules = load_rules()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._deadlines = Deadlines(self._timeout_s)
        headers = {"Content-Type": "application/json", "User-Agent": f"batchrun/{__version__}"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._session = aiohttp.ClientSession(
            # The pacer bounds the concurrency; a limit here would only make requests wait unseen.
            connector=_Connector(limit=0, keepalive_timeout=_KEEP_ALIVE_S, ttl_dns_cache=300),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            # `Deadlines` times the whole attempt; aiohttp's own timers for it take a sixth of a request's time.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S),
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines.close()
        if self._session is not None:
            await self._session.close()

    async def chat(self, body: bytes, idempotency_key: str | None = None) -> Response:
        """Send one chat completion request and read its whole answer. Raises `EndpointError`."""
        try:
            self._deadlines.start()
            try:
                status, headers, answer = await self._exchange(body, idempotency_key)
            except asyncio.CancelledError:
                self._deadlines.check()
                raise
            finally:
                self._deadlines.end()
        except TimeoutError as error:
            raise EndpointError(ErrorKind.TIMEOUT, self._timeout_message(error)) from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise EndpointError(ErrorKind.NOT_AN_API, self._words("TLS certificate refused", error)) from error
        except aiohttp.ClientSSLError as error:
            raise EndpointError(ErrorKind.NETWORK, self._words("TLS failed", error)) from error
        except aiohttp.ClientPayloadError as error:
            raise EndpointError(ErrorKind.NETWORK, self._words("the answer broke off", error)) from error
        except (aiohttp.ClientError, ssl.SSLError, OSError) as error:
            raise EndpointError(ErrorKind.NETWORK, self._words(type(error).__name__, error)) from error
        return understand(status, headers, answer, self._rules)

    async def _exchange(self, body: bytes, idempotency_key: str | None) -> tuple[int, dict[str, str], bytes]:
        if self._session is None:
            raise RuntimeError("Client is used outside of its context")
        own = {"Idempotency-Key": idempotency_key} if idempotency_key else None
        response = await self._session.post(self._url, data=body, headers=own, allow_redirects=False)
        try:
            answer = await _read(response)
        except BaseException:
            response.close()  # an answer that was not read to its end leaves its connection unusable
            raise
        headers = kept_headers(response.headers)
        if self._secret and self._spelled:
            # A provider may echo the key, in an error mostly; it must not reach a file or a message.
            if self._secret in answer or b"\\u00" in answer or b"\\/" in answer:
                answer = self._spelled.sub(_HIDDEN_KEY.encode(), answer)
            if self._key and self._key in "".join(headers.values()):
                headers = {name: self._hide(value) for name, value in headers.items()}
        return response.status, headers, answer

    def _timeout_message(self, error: TimeoutError) -> str:
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return f"no connection within {_CONNECT_TIMEOUT_S:g} s"
        return f"no complete answer within {self._timeout_s:g} s"

    def _words(self, what: str, error: Exception) -> str:
        """Describe an exception without its repr, which can hold the request's headers."""
        text = f"{what}: {error}" if str(error) else what
        return self._hide(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))

    def _hide(self, text: str) -> str:
        return text.replace(self._key, _HIDDEN_KEY) if self._secret and self._key else text


def _spellings(secret: bytes) -> re.Pattern[bytes]:
    """Match a key in JSON text, each of its characters as it is or escaped."""
    one = (rb"(?:\\?%s|\\u00(?i:%02x))" % (re.escape(bytes([char])), char) for char in secret)
    return re.compile(b"".join(one))


class _Connector(aiohttp.TCPConnector):
    """Gives out no idle connection on which bytes came that nobody asked for: they would answer the next request."""

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - not ours
    ) -> aiohttp.connector.Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            if connection.protocol is None or not connection.protocol.should_close:
                return connection
            connection.close()


async def _read(response: aiohttp.ClientResponse) -> bytes:
    length = response.content_length
    if length is not None and length <= MAX_BODY_BYTES and "content-encoding" not in response.headers:
        return await response.read()
    parts: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            message = f"the answer is longer than {MAX_BODY_BYTES} bytes"
            raise EndpointError(ErrorKind.INVALID_RESPONSE, message)
        parts.append(chunk)
    return b"".join(parts)
