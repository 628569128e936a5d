"""The way to an endpoint: whose certificates count, and the proxy that leads out. Certificates are always checked."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from batchrun.job import JobError, without_password

if TYPE_CHECKING:
    from pathlib import Path

    from batchrun.job import Endpoint


@dataclass(frozen=True, slots=True)
class Route:
    """`tls` checks certificates, None as the system does; `proxy` is its URL, with its password if it wants one."""

    tls: ssl.SSLContext | None = None
    proxy: str | None = field(default=None, repr=False)

    @property
    def proxy_shown(self) -> str | None:
        """Give the proxy as it may be shown."""
        return self.proxy and without_password(self.proxy)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Give what must not be seen of the proxy: its password, as the URL spells it and as it is."""
        password = urlsplit(self.proxy).password if self.proxy else None
        return (password, unquote(password)) if password else ()


def route_of(endpoint: Endpoint) -> Route:
    """Find the way to an endpoint. Raises `JobError` for a CA file that cannot be used."""
    if endpoint.simulate:
        return Route()
    return Route(_trusting(endpoint.ca_file) if endpoint.ca_file else None, endpoint.proxy)


def _trusting(ca_file: Path) -> ssl.SSLContext:
    """Trust the authorities of a file, and nobody else."""
    where = f"endpoint.ca_file: {ca_file}"
    try:
        text = ca_file.read_bytes().decode("ascii", "replace")
    except OSError as error:
        raise JobError(f"{where} cannot be read: {error.strerror}") from error
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise JobError(f"{where} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)")
    try:
        return ssl.create_default_context(cadata=text)
    except ssl.SSLError as error:
        raise JobError(f"{where} holds a certificate that cannot be read: {error.reason or error}") from error
