"""The client: one attempt at a time for a request, every ending an answer or an `EndpointError`."""

from __future__ import annotations

import asyncio
import resource
import ssl
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Self

import aiohttp
from aiohttp.hdrs import CONTENT_ENCODING, CONTENT_LENGTH
from yarl import URL

from batchrun.endpoint.answers import error_of, keep, kept_headers, partial, understand, understand_stream
from batchrun.endpoint.deadlines import AbandonedError, Attempt, Deadlines, IdleTimeoutError
from batchrun.endpoint.discreet import without_echo, without_ids
from batchrun.endpoint.secret import Secret
from batchrun.endpoint.streams import Stream, begins_like_a_stream
from batchrun.endpoint.target import hint
from batchrun.endpoint.unpack import ACCEPTED, Unpacker, UnpackError
from batchrun.endpoint.watch import Watch
from batchrun.endpoint.wire import CONNECT_TIMEOUT_S, Wire
from batchrun.job import ATTEMPT_TIMEOUT_S
from batchrun.records import EndpointError, ErrorKind
from batchrun.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from batchrun.endpoint.dialect import Dialect
    from batchrun.endpoint.target import Target
    from batchrun.endpoint.wire import Reply
    from batchrun.records import Provider, Request, Response

#: An answer with more bytes than this, as sent or unpacked, is cut off and counts as no answer.
MAX_BODY_BYTES = 16 * 1024 * 1024
#: An error is read so far, which is enough to know what it is.
_MAX_ERROR_BYTES = 1024 * 1024
#: Of answers that are longer than this one at a time is read on; the others wait, so that memory has a bound.
_LARGE_BYTES = 2 * 1024 * 1024
#: What a run has open beside its connections.
_OTHER_FILES = 32
#: After a stream's `[DONE]` its connection has this long to come to the answer's end, or it is closed.
_LINGER_S = 0.5
#: So much of an answer's beginning shows whether it is a stream.
_SNIFFED_BYTES = 64
_LONGEST_BEGINNING = 512


def most_connections() -> int:
    """Give how many connections this process may have open at a time, beside its files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 100_000 if soft == resource.RLIM_INFINITY else max(1, soft - _OTHER_FILES)


class Client:
    """Sends requests to one endpoint. An async context manager; its connections close with it.

    `target.retry.attempt_timeout` bounds one whole attempt, from its start to the last byte of the answer,
    `idle_timeout` the time between two pieces of an answer that has begun. `notice` is told in words when the client
    changes over to streaming, or back, because the endpoint wants it. `streams` tells by model what it is known to
    want. `before` is called before requests leave; if it raises an exception they do not, and `chat` raises it.
    """

    def __init__(
        self, base_url: str, key: str | None, target: Target, notice: Callable[[str], None],
        streams: Mapping[str, bool] | None = None, before: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._base_url = base_url.rstrip("/")
        self._url = URL(self._base_url + target.path)
        self._key = key
        self._route = target.route
        self._secret = Secret(key)
        #: The endpoint does not know it, and it may be a word: it is kept out of what this machine says alone.
        self._proxy_secret = Secret(*target.route.secrets)
        self._dialect = target.dialect
        self._retry = target.retry
        self._stream = target.stream
        #: By model: whether its answers are streamed, as the endpoint wants it.
        self._learned = dict(streams or {})
        #: Models that are streamed on trial, and those of which that was refused.
        self._on_trial: set[str] = set()
        self._unstreamable: set[str] = set()
        self._refused: dict[str, tuple[bool, str]] = {}
        self._stream_suffix = _stream_suffix(target.dialect)
        self._watch = Watch(target.dialect)
        self._notice = notice
        self._before = before
        self._wire: Wire | None = None

    async def __aenter__(self) -> Self:
        self._deadlines = Deadlines(self._retry.attempt_timeout or ATTEMPT_TIMEOUT_S, self._retry.idle_timeout)
        self._turn_of_large = asyncio.Lock()
        headers = {
            "Content-Type": "application/json", "User-Agent": f"batchrun/{__version__}", "Accept-Encoding": ACCEPTED,
        }  # fmt: skip
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._wire = Wire(headers, self._route, self._before)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines.close()
        if self._wire is not None:
            await self._wire.close()

    async def chat(
        self, request: Request, idempotency_key: str | None = None, refusal: EndpointError | None = None
    ) -> Response:
        """Send one chat completion request and read its whole answer. Raises `EndpointError`.

        If its `other_way` is set, the endpoint refused the way in which the answer was to come: called again with it
        as the `refusal`, the request goes out the other way. If that succeeds, the model is asked so from then on.
        """
        model = request.model
        streamed = self._streams(request) if refusal is None else refusal.remedy == "stream"
        body = request.body[:-1] + self._stream_suffix if streamed else request.body
        answer = _Answer()
        try:
            await self._converse(answer, "POST", self._url, body, idempotency_key, streamed=streamed)
            response = self._understand(answer)
        except EndpointError as error:
            error.message = self._secret.hide(error.message)
            if refusal is None:
                self._look_for_the_other_way(model, error, streamed=streamed)
            self._add_hint(error, streamed=streamed)
            error.message = without_echo(error.message, request.messages)
            # An item's last error is kept as long as the item waits, and not the whole answer with it.
            answer.body, answer.stream = b"", None
            raise error.with_traceback(None) from None
        if streamed:
            self._on_trial.discard(model)
        if refusal is not None and self._learned.get(model) is not streamed:
            self._learn(model, refusal, streamed=streamed)
        found = self._watch.warnings(model, response)
        if found:
            response.warnings = (*response.warnings, *found)
        return response

    def _add_hint(self, error: EndpointError, *, streamed: bool) -> None:
        words = hint(self._dialect, error, self._base_url, streamed=streamed)
        if words:
            error.message = f"{error.message} ({words})"

    def _streams(self, request: Request) -> bool:
        if self._stream != "auto":
            return self._stream
        return self._learned.get(request.model, request.stream)

    def _look_for_the_other_way(self, model: str, error: EndpointError, *, streamed: bool) -> None:
        """Tell by `error.other_way` whether the request is to be sent again at once, streamed or not as it was not.

        A gateway's timeout puts streaming on trial for the model: if it is refused, it is never tried again.
        """
        if self._stream != "auto":
            return
        refused = error.kind is ErrorKind.BAD_REQUEST
        if refused and streamed and (model in self._on_trial or model in self._unstreamable):
            error.remedy = "no_stream"
            self._on_trial.discard(model)
            self._unstreamable.add(model)
            self._learned[model] = False
        if error.remedy is None or (error.remedy == "stream") is streamed:
            return
        if refused:
            error.other_way = True
        elif not streamed and model not in self._unstreamable and not self._learned.get(model):
            self._on_trial.add(model)
            self._learn(model, error, streamed=True)

    def _learn(self, model: str, error: EndpointError, *, streamed: bool) -> None:
        self._learned[model] = streamed
        if error.kind is ErrorKind.BAD_REQUEST:
            self._refused[model] = (not streamed, error.message)
        how = "are streamed" if streamed else "are not streamed"
        self._notice(f"answers of {model} {how} from now on, because the endpoint said: {error.message}")

    @property
    def refused_transports(self) -> dict[str, tuple[bool, str]]:
        """Give by model which transport the endpoint refused (True: a stream), and its words."""
        return dict(self._refused)

    async def fetch(self, method: str, path: str, body: bytes | None = None) -> Provider:
        """Send any request below the base URL and give the answer as it came, whatever its status.

        The body is one line of JSON text; what is no JSON, a stream too, is a JSON string. Raises `EndpointError` where
        no answer came.
        """
        answer = _Answer()
        await self._converse(answer, method, URL(self._base_url + path), body, None, streamed=False)
        return keep(answer.status, answer.headers, answer.body, self._secret.scrub)

    def abandon(self, started_before: float) -> int:
        """Give up the calls that were sent before a time, of whose answers nothing came at all; tell how many."""
        return self._deadlines.abandon(started_before)

    @property
    def heard_at(self) -> float:
        """When something of an answer came last, in the loop's time, be it a sign of life alone."""
        return self._deadlines.heard_at

    def error_of(self, provider: Provider) -> EndpointError | None:
        """Read an answer of `fetch` as an error, with the hint that fits it; None if it is none."""
        error = error_of(provider, self._dialect)
        if error is not None:
            self._add_hint(error, streamed=False)
            error.message = self._secret.hide(error.message)
        return error

    async def _converse(
        self, answer: _Answer, method: str, url: URL, body: bytes | None, idempotency_key: str | None, *, streamed: bool
    ) -> None:
        """Send a request and read its answer, in the time that there is. Raises `EndpointError` if that fails."""
        try:
            attempt = self._deadlines.start()
            try:
                await self._exchange(attempt, answer, method, url, body, idempotency_key, streamed=streamed)
            except asyncio.CancelledError:
                attempt.check()
                raise
            finally:
                self._deadlines.end(attempt)
        except TimeoutError as error:
            if not self._is_whole(answer):
                broken = self._broken(answer, ErrorKind.TIMEOUT, self._timeout_message(error))
                broken.unreachable = isinstance(error, aiohttp.ConnectionTimeoutError)
                broken.abandoned = isinstance(error, AbandonedError)
                raise broken from error
        except aiohttp.ClientHttpProxyError as error:
            raise self._refused_by_proxy(error) from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise EndpointError(ErrorKind.NOT_AN_API, self._words("TLS certificate refused", error)) from error
        except aiohttp.ClientSSLError as error:
            raise EndpointError(ErrorKind.NETWORK, self._words("TLS failed", error)) from error
        except (aiohttp.ClientError, ssl.SSLError, OSError, UnicodeError) as error:  # UnicodeError: no host name
            if not self._is_whole(answer):
                broke_off = isinstance(error, aiohttp.ClientPayloadError)
                words = self._words("the answer broke off" if broke_off else type(error).__name__, error)
                broken = self._broken(answer, ErrorKind.NETWORK, words)
                broken.unreachable = isinstance(error, aiohttp.ClientConnectorError)
                raise broken from error

    def _refused_by_proxy(self, error: aiohttp.ClientHttpProxyError) -> EndpointError:
        """Tell what a proxy says that leads nowhere: that it wants a password, or may not lead there, is for good."""
        words = f"HTTP {error.status} of the proxy {self._route.proxy_shown}, not of the endpoint (endpoint.proxy)"
        for_good = error.status in (401, 403, 405, 407)
        return EndpointError(ErrorKind.PERMISSION if for_good else ErrorKind.NETWORK, words)

    def _understand(self, answer: _Answer) -> Response:
        stream, scrub = answer.stream, self._secret.scrub
        if stream is None:
            response = understand(answer.status, answer.headers, answer.body, self._dialect, scrub)
        else:
            stream.end()
            response = understand_stream(answer.status, answer.headers, stream, self._dialect, scrub)
        # The key may have come in pieces, in a stream or escaped.
        if response.text:
            response.text = self._secret.hide(response.text)
        if response.reasoning:
            response.reasoning = self._secret.hide(response.reasoning)
        return response

    async def _exchange(
        self,
        attempt: Attempt,
        answer: _Answer,
        method: str,
        url: URL,
        body: bytes | None,
        idempotency_key: str | None,
        *,
        streamed: bool,
    ) -> None:
        if self._wire is None:
            raise RuntimeError("Client is used outside of its context")
        own = b"Idempotency-Key: %s\r\n" % idempotency_key.encode() if idempotency_key else b""
        reply = await self._wire.send(method, url, body, own)
        try:
            self._deadlines.hear(attempt)
            answer.status = reply.status
            answer.headers = kept_headers(reply.headers)
            joined = "\n".join(answer.headers.values())
            if self._secret.hide(joined) != joined:
                answer.headers = {name: self._secret.hide(value) for name, value in answer.headers.items()}
            await self._read(attempt, reply, answer, streamed=streamed)
        except UnpackError as error:
            reply.close()
            if answer.status // 100 == 2:
                raise self._broken(answer, ErrorKind.NETWORK, f"HTTP {answer.status}: {error}") from error
            # That it is an error, and mostly which, the status says alone.
        except BaseException:
            reply.close()  # an answer that was not read to its end leaves its connection unusable
            raise
        else:
            reply.release()

    async def _read(self, attempt: Attempt, reply: Reply, answer: _Answer, *, streamed: bool) -> None:
        """Read an answer to its end: as events if it is a stream that was asked for, else as a whole.

        Only content counts as progress: neither blank lines before JSON nor comments between events do.
        """
        said = reply.headers.get(CONTENT_LENGTH)
        length = int(said) if said is not None and said.isdecimal() and len(said) < 20 else None
        if length is not None and length > MAX_BODY_BYTES and answer.status // 100 == 2:
            raise self._too_long(answer)
        packing = reply.headers.get(CONTENT_ENCODING, "identity").strip().lower()
        is_plain = packing in ("", "identity")
        if is_plain and not streamed and length is not None and length <= _LARGE_BYTES:
            if not reply.is_whole:
                self._deadlines.progress(attempt)
            answer.body = await reply.read()
            return
        await self._take_pieces(attempt, reply, answer, None if is_plain else Unpacker(packing), is_sniffing=streamed)

    async def _take_pieces(
        self, attempt: Attempt, reply: Reply, answer: _Answer, unpacker: Unpacker | None, *, is_sniffing: bool
    ) -> None:
        taking = _Taking(answer, is_sniffing)
        taking.is_error = answer.status // 100 != 2
        async with AsyncExitStack() as turn:
            async for chunk in reply.content.iter_any():
                self._deadlines.hear(attempt)
                taking.sent += len(chunk)
                for piece in (chunk,) if unpacker is None else unpacker.feed(chunk):
                    if taking.take(piece):
                        self._deadlines.progress(attempt)
                    if taking.is_error and taking.size > _MAX_ERROR_BYTES:
                        answer.body = taking.body.getvalue()[:_MAX_ERROR_BYTES]
                        reply.close()
                        return
                    self._check_length(taking, answer)
                self._check_length(taking, answer)  # also where nothing came of what was sent
                if answer.stream is not None and answer.stream.done:
                    await _read_out(reply)
                    return
                if taking.size > _LARGE_BYTES and not taking.has_turn:
                    taking.has_turn = True
                    self._deadlines.wait(attempt)
                    await turn.enter_async_context(self._turn_of_large)
        if unpacker is not None and not unpacker.is_whole:
            raise self._broken(answer, ErrorKind.INVALID_RESPONSE, "the packed answer is cut off")
        answer.body = taking.body.getvalue()  # without a copy

    def _check_length(self, taking: _Taking, answer: _Answer) -> None:
        if max(taking.size, taking.sent) > MAX_BODY_BYTES:
            taking.body = BytesIO()
            raise self._too_long(answer)
        if answer.stream is not None and answer.stream.excess is not None:
            raise self._broken(answer, ErrorKind.INVALID_RESPONSE, answer.stream.excess)

    def _too_long(self, answer: _Answer) -> EndpointError:
        answer.stream = None  # what there is of it is too much to be kept
        message = f"HTTP {answer.status}: the answer is longer than {MAX_BODY_BYTES >> 20} MB"
        return self._broken(answer, ErrorKind.INVALID_RESPONSE, message)

    def _is_whole(self, answer: _Answer) -> bool:
        """Tell whether a stream said all that it had to say, before it broke off or stood still."""
        stream = answer.stream
        return stream is not None and stream.is_whole and (stream.done or not self._dialect.done)

    def _broken(self, answer: _Answer, kind: ErrorKind, message: str) -> EndpointError:
        """Make the error of an answer that broke off; what came of a stream is kept with it."""
        if answer.stream is None:
            return EndpointError(kind, message)
        answer.stream.break_off()
        provider, usage = partial(answer.status, answer.headers, answer.stream, self._dialect, self._secret.scrub)
        return EndpointError(kind, message, provider=provider, usage=usage)

    def _timeout_message(self, error: TimeoutError) -> str:
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return f"no connection within {CONNECT_TIMEOUT_S:g} s"
        if isinstance(error, AbandonedError):
            return "no answer, while the endpoint answered others"
        if isinstance(error, IdleTimeoutError):
            return f"the answer stood still for {self._retry.idle_timeout:g} s"
        return f"no complete answer within {self._retry.attempt_timeout:g} s"

    def _words(self, what: str, error: Exception) -> str:
        """Describe an exception without its repr, which can hold the request's headers."""
        said = str(error)
        if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ClientResponseError):
            said = without_ids(said)  # it quotes what came
        text = f"{what}: {said}" if said else what
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return self._secret.hide(self._proxy_secret.hide(text))


@dataclass(slots=True)
class _Answer:
    """What has come of an answer so far: its body as a whole, or what its events make up."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    stream: Stream | None = None


@dataclass(slots=True)
class _Taking:
    """Takes the pieces of an answer: `sent` are the bytes that came, `size` those that they were unpacked to."""

    answer: _Answer
    is_sniffing: bool
    body: BytesIO = field(default_factory=BytesIO)
    kept: int = 0
    sent: int = 0
    size: int = 0
    has_turn: bool = False
    is_error: bool = False

    def take(self, piece: bytes) -> bool:
        """Take a piece; tell whether there was content in it."""
        self.size += len(piece)
        stream = self.answer.stream
        if stream is not None:
            return stream.feed(piece)
        if not self.kept and not piece.strip():
            return False  # keep-alive
        self.kept += self.body.write(piece)
        if self.is_sniffing:
            self.is_sniffing = self.kept < _SNIFFED_BYTES
            begun = self.body.getvalue()
            if begins_like_a_stream(begun[:_LONGEST_BEGINNING]):
                self.answer.stream = stream = Stream()
                self.body = BytesIO()
                return stream.feed(begun)
        return bool(piece.strip())


def _stream_suffix(dialect: Dialect) -> bytes:
    """Give what ends a request's body, in place of its last brace, to have the answer streamed."""
    with_usage = not any(row.name == "stream_options" and row.rule == "drop" for row in dialect.parameter)
    options = b',"stream_options":{"include_usage":true}' if with_usage else b""
    return b',"stream":true' + options + b"}"


async def _read_out(reply: Reply) -> None:
    """Read what is left behind a stream's last event, so that the connection can be used again."""
    if reply.content.at_eof():
        return
    try:
        async with asyncio.timeout(_LINGER_S):
            while not reply.content.at_eof():
                await reply.content.readany()
    except (TimeoutError, aiohttp.ClientError, OSError):
        reply.close()  # the answer is complete; how its connection ends is its own affair
