"""Whether an endpoint can be reached, below HTTP: name, TCP, TLS. Nothing of the user's is sent, no key either."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Bounds in seconds for a name, for a connection, for a handshake or a word in plain text.
LOOKUP_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 10.0
HANDSHAKE_TIMEOUT_S = 10.0
#: After so long a handshake that stands still is looked into; a port that is asked what it speaks has so long.
_SUSPICIOUS_S = 1.0
_ASKED_S = 3.0
#: A name may have many addresses; so many are tried.
MAX_ADDRESSES = 16
#: OpenSSL's X509_V_ERR_* numbers (openssl/x509_vfy.h), each in words.
_NOT_YET_VALID, _EXPIRED, _SELF_SIGNED, _SELF_SIGNED_IN_CHAIN = 9, 10, 18, 19
_UNKNOWN_ISSUERS = (2, 20, 21, 27)
_WRONG_NAMES = (62, 64)
#: X509_V_FLAG_PARTIAL_CHAIN and X509_V_FLAG_NO_CHECK_TIME: a certificate can be its own anchor, also when it is old.
_ANY_ANCHOR, _ANY_TIME = 0x80000, 0x200000
_NAMES_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Place:
    """Where a base URL leads: host as the wire spells it (ASCII), port, and whether it is TLS."""

    host: str
    port: int
    tls: bool

    @property
    def is_address(self) -> bool:
        """Tell whether the host is an address, so that there is no name to look up."""
        return any(_is_address(family, self.host) for family in (socket.AF_INET, socket.AF_INET6))


@dataclass(frozen=True, slots=True)
class Attempt:
    """A TCP connection that was tried; `problem` says why there was none: refused, timeout, unreachable, other."""

    address: str
    seconds: float
    problem: str | None = None
    words: str = ""


@dataclass(frozen=True, slots=True)
class Certificate:
    """Whom a certificate is for, who issued it, and for how many days more it is valid (negative: it was)."""

    names: tuple[str, ...]
    issuer: str
    days_left: int

    @property
    def names_in_words(self) -> str:
        """Give the first names, and how many more there are."""
        more = f" and {len(self.names) - _NAMES_SHOWN} more" if len(self.names) > _NAMES_SHOWN else ""
        return (", ".join(self.names[:_NAMES_SHOWN]) or "nobody by name") + more


@dataclass(frozen=True, slots=True)
class Handshake:
    """A TLS handshake that succeeded."""

    version: str
    certificate: Certificate


class TlsError(Exception):
    """A TLS handshake failed.

    `problem` is one of expired, not_yet_valid, self_signed, wrong_host, unknown_authority, untrusted, plain_http,
    closed, timeout, protocol; `certificate` is what the other side showed, if that could be read.
    """

    def __init__(self, problem: str, message: str, certificate: Certificate | None = None) -> None:
        super().__init__(message)
        self.problem = problem
        self.message = message
        self.certificate = certificate


def place_of(base_url: str) -> Place:
    """Find host and port of a base URL. Raises `ValueError` if there is none, or a name that no resolver can take."""
    url = URL(base_url)
    if not url.raw_host or url.port is None:
        raise ValueError("no host")
    place = Place(url.raw_host, url.port, url.scheme == "https")
    if not place.host.strip("0123456789.") and not place.is_address:
        raise ValueError(f"{place.host} is not an IPv4 address of four numbers")
    return place


def wire_url(base_url: str, path: str) -> str:
    """Give the URL of a path below a base URL as it is requested: ASCII, host in Punycode. Raises `ValueError`."""
    return str(URL(base_url.rstrip("/") + path))


def origin_of(base_url: str) -> str:
    """Give scheme, host and port of a base URL."""
    return str(URL(base_url).origin())


async def look_up(place: Place) -> list[str]:
    """Give the addresses of a host, of every family. Raises `OSError`, or `TimeoutError` if no resolver answers."""
    if place.is_address:
        return [place.host]
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(LOOKUP_TIMEOUT_S):
            found = await loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label that is empty or longer than 63 characters
        raise OSError(str(error)) from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def connect(place: Place, addresses: list[str]) -> list[Attempt]:
    """Try a TCP connection to each address, all at the same time."""
    return list(await asyncio.gather(*(_connect(one, place.port) for one in addresses[:MAX_ADDRESSES])))


async def _connect(address: str, port: int) -> Attempt:
    begun = time.monotonic()

    def made(problem: str | None = None, words: str = "") -> Attempt:
        return Attempt(address, time.monotonic() - begun, problem, words)

    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, writer = await asyncio.open_connection(address, port)
    except TimeoutError:
        return made("timeout", f"no answer within {CONNECT_TIMEOUT_S:g} s")
    except OSError as error:
        if error.errno == errno.ECONNREFUSED:
            return made("refused", "refused")
        gone = error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL)
        words = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        return made("unreachable" if gone else "other", words)
    await _close(writer)
    return made()


async def handshake(place: Place, address: str, tls: ssl.SSLContext | None = None) -> Handshake:
    """Make a TLS handshake as a run does. Raises `TlsError`.

    `tls` says whose certificates count; without it the system's authorities (or SSL_CERT_FILE) do.
    """
    try:
        version, shown = await _shake_or_notice(place, address, tls or ssl.create_default_context())
    except ssl.SSLCertVerificationError as error:
        certificate = await _shown(place, address)
        problem = _certificate_problem(error.verify_code)
        raise TlsError(problem, error.verify_message or str(error), certificate) from error
    except ssl.SSLError as error:
        if await speaks_http(place, address):
            raise TlsError("plain_http", "the port speaks plain http, not TLS") from error
        raise TlsError("protocol", error.reason or str(error)) from error
    except TimeoutError as error:
        raise TlsError("timeout", f"no handshake within {HANDSHAKE_TIMEOUT_S:g} s") from error
    except OSError as error:
        plain = await speaks_http(place, address)
        words = "the port speaks plain http, not TLS" if plain else "the connection was closed during the handshake"
        raise TlsError("plain_http" if plain else "closed", words) from error
    return Handshake(version, _read(shown))


async def _shake_or_notice(place: Place, address: str, context: ssl.SSLContext) -> tuple[str, Mapping[str, Any]]:
    """Make a handshake; if it stands still, look whether the port waits for the end of a line, as plain http does."""
    shaking = asyncio.ensure_future(_shake(place, address, context))
    try:
        done, _ = await asyncio.wait({shaking}, timeout=_SUSPICIOUS_S)
        if not done and await speaks_http(place, address):
            raise TlsError("plain_http", "the port speaks plain http, not TLS")
        return await shaking
    finally:
        shaking.cancel()


async def speaks_tls(place: Place, address: str) -> bool:
    """Tell whether a port answers a TLS handshake, whatever its certificate."""
    try:
        async with asyncio.timeout(_ASKED_S):
            await _shake(place, address, _trusting())
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")  # an alert is TLS too: it wants a client certificate, another version
    except OSError:
        return False
    return True


async def speaks_http(place: Place, address: str) -> bool:
    """Tell whether a port answers plain http. It is asked for its root, without a key."""
    try:
        async with asyncio.timeout(_ASKED_S):
            reader, writer = await asyncio.open_connection(address, place.port)
            try:
                writer.write(f"GET / HTTP/1.1\r\nHost: {place.host}\r\nConnection: close\r\n\r\n".encode("ascii"))
                await writer.drain()
                said = await reader.read(5)
            finally:
                await _close(writer)
    except OSError:
        return False
    return said.startswith(b"HTTP/")


async def _shake(place: Place, address: str, context: ssl.SSLContext) -> tuple[str, Mapping[str, Any]]:
    """Make a handshake; give the version and the certificate as Python decodes it (empty if it was not verified)."""
    async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
        _, writer = await asyncio.open_connection(address, place.port, ssl=context, server_hostname=place.host)
    tls = writer.get_extra_info("ssl_object")
    found = (str(tls.version()), tls.getpeercert() or {"der": tls.getpeercert(binary_form=True)})
    await _close(writer)
    return found


async def _shown(place: Place, address: str) -> Certificate | None:
    """Read a certificate that was refused.

    Python decodes verified certificates only: so it is fetched, and in a second handshake serves as its own anchor.
    """
    try:
        _, shown = await _shake(place, address, _trusting())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_flags = ssl.VerifyFlags(_ANY_ANCHOR | _ANY_TIME)
        context.load_verify_locations(cadata=shown["der"])
        _, decoded = await _shake(place, address, context)
    except (OSError, ValueError, TypeError):
        return None
    return _read(decoded)


def _trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _read(shown: Mapping[str, Any]) -> Certificate:
    names = [str(name) for kind, name in shown.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
    ends = ssl.cert_time_to_seconds(shown["notAfter"]) if "notAfter" in shown else time.time()
    return Certificate(
        tuple(names or _common(shown.get("subject", ()), "commonName")),
        next(iter(_common(shown.get("issuer", ()), "organizationName", "commonName")), "unknown"),
        int((ends - time.time()) // 86400),
    )


def _common(name: Any, *keys: str) -> list[str]:
    pairs = [pair for part in name for pair in part]
    return [str(value) for wanted in keys for key, value in pairs if key == wanted]


def _certificate_problem(code: int) -> str:
    if code in _WRONG_NAMES:
        return "wrong_host"
    if code in _UNKNOWN_ISSUERS:
        return "unknown_authority"
    known = {_EXPIRED: "expired", _NOT_YET_VALID: "not_yet_valid", _SELF_SIGNED: "self_signed"}
    known[_SELF_SIGNED_IN_CHAIN] = "unknown_authority"
    return known.get(code, "untrusted")


def _is_address(family: socket.AddressFamily, host: str) -> bool:
    try:
        socket.inet_pton(family, host.partition("%")[0])
    except (OSError, UnicodeError):
        return False
    return True


async def _close(writer: asyncio.StreamWriter) -> None:
    """Close a connection without waiting for the other side's farewell."""
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()
