"""The client: one HTTP session, one attempt at a time for a request, every ending an answer or an `EndpointError`."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Self

import aiohttp
from yarl import URL

from batchrun.endpoint.answers import kept_headers, understand
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


class Client:
    """Sends requests to one endpoint. An async context manager; the session closes with it.

    `attempt_timeout_s` bounds one whole attempt, from its start to the last byte of the answer.
    """

    def __init__(self, base_url: str, key: str | None, *, attempt_timeout_s: float) -> None:
        self._url = URL(base_url.rstrip("/") + "/chat/completions")
        self._key = key
        self._key_bytes = key.encode() if key else None
        self._timeout = aiohttp.ClientTimeout(total=attempt_timeout_s, sock_connect=_CONNECT_TIMEOUT_S)
        self._timeout_s = attempt_timeout_s
        self._rules = load_rules()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        headers = {"Content-Type": "application/json", "User-Agent": f"batchrun/{__version__}"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._session = aiohttp.ClientSession(
            # The pacer bounds the concurrency; a limit here would only make requests wait unseen.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S, ttl_dns_cache=300),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            timeout=self._timeout,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def chat(self, body: bytes, idempotency_key: str | None = None) -> Response:
        """Send one chat completion request and read its whole answer. Raises `EndpointError`."""
        try:
            status, headers, answer = await self._exchange(body, idempotency_key)
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
        async with self._session.post(self._url, data=body, headers=own, allow_redirects=False) as response:
            answer = await _read(response)
            headers = kept_headers(response.headers)
        if self._key and self._key_bytes:
            # A provider may echo the key, in an error mostly; it must not reach a file or a message.
            if self._key_bytes in answer:
                answer = answer.replace(self._key_bytes, _HIDDEN_KEY.encode())
            for name, value in headers.items():
                if self._key in value:
                    headers[name] = value.replace(self._key, _HIDDEN_KEY)
        return response.status, headers, answer

    def _timeout_message(self, error: TimeoutError) -> str:
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return f"no connection within {_CONNECT_TIMEOUT_S:g} s"
        return f"no complete answer within {self._timeout_s:g} s"

    def _words(self, what: str, error: Exception) -> str:
        """Describe an exception without its repr, which can hold the request's headers."""
        text = f"{what}: {error}" if str(error) else what
        return text.replace(self._key, _HIDDEN_KEY) if self._key else text


async def _read(response: aiohttp.ClientResponse) -> bytes:
    length = response.content_length
    if length is not None and length <= MAX_BODY_BYTES and "content-encoding" not in response.headers:
        return await response.read()
    parts: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            response.close()
            message = f"the answer is longer than {MAX_BODY_BYTES} bytes"
            raise EndpointError(ErrorKind.INVALID_RESPONSE, message)
        parts.append(chunk)
    return b"".join(parts)
