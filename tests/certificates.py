"""Certificates of an authority of the test's own, made by openssl."""

from __future__ import annotations

import os
import ssl
import subprocess
from pathlib import Path

import pytest


class Authority:
    """A certificate authority of the test, and servers with certificates of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pem = folder / "ca.pem"
        self._run(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/O=Test Authority/CN=Test CA",
            "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign",
            "-keyout", folder / "ca.key", "-out", self.pem,
        )  # fmt: skip

    def _run(self, *arguments: object) -> None:
        made = subprocess.run(
            ["openssl", *map(str, arguments)],
            capture_output=True,
            check=False,
            env={"PATH": os.environ["PATH"]},
            cwd=self.folder,
        )
        if made.returncode:
            pytest.skip(f"openssl cannot make a certificate here: {made.stderr.decode()[-200:]}")

    def tls(self, names: str, *, days: int = 60, signed: bool = True) -> ssl.SSLContext:
        """Give the TLS settings of a server whose certificate is for these names."""
        key, request, pem = (self.folder / f"leaf.{end}" for end in ("key", "csr", "pem"))
        issuer = "authorityKeyIdentifier=keyid:always\n" if signed else ""  # newer Pythons want it
        (self.folder / "ext").write_text(f"subjectAltName={names}\nsubjectKeyIdentifier=hash\n{issuer}")
        self._run("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=leaf", "-keyout", key, "-out", request)
        by = ["-CA", self.pem, "-CAkey", self.folder / "ca.key", "-CAcreateserial"] if signed else ["-signkey", key]
        self._run("x509", "-req", "-in", request, *by, "-days", days, "-extfile", self.folder / "ext", "-out", pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem, key)
        return context
