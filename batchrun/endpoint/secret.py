"""The key, and how to take it out of what a provider sent, in every spelling in which it may come back."""

from __future__ import annotations

import html
import re
from base64 import b64encode
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable

HIDDEN = "[key]"
#: A shorter key is a placeholder, as local servers want one ("EMPTY", "x"); taking it out would spoil good answers.
_SHORTEST = 6
#: Below so many characters an encoded key could stand in a text by chance.
_SHORTEST_ENCODED = 8


class Secret:
    """What is to be seen nowhere. Found as it is, escaped as in JSON (also in JSON within JSON), URLs and HTML, and in
    base64, alone or within a longer text; a provider that wants to can still spell it in ways of its own.
    """

    def __init__(self, *texts: str | None) -> None:
        secrets = [text for text in texts if text and len(text) >= _SHORTEST]
        self._plain = [text.encode() for text in secrets]
        encoded = {spelled for text in secrets for spelled in _encoded(text.encode())}
        #: The longest first, for one spelling may be the beginning of another.
        self._encoded = sorted(encoded - set(self._plain), key=len, reverse=True)
        self._texts = [one.decode() for one in (*self._plain, *self._encoded)]
        self._escaped = [_escaped(secret) for secret in self._plain]
        self._needs_escapes = any(char in secret for secret in self._plain for char in b'"\\')

    def __repr__(self) -> str:
        return "Secret()"

    def scrub(self, text: bytes) -> bytes:
        """Take it out of bytes."""
        for secret in self._plain:
            if secret in text:
                text = text.replace(secret, HIDDEN.encode())
        for secret in self._encoded:
            if secret in text:
                text = text.replace(secret, HIDDEN.encode())
        if b"\\u00" in text or b"\\/" in text or self._needs_escapes:
            for pattern in self._escaped:
                text = pattern.sub(HIDDEN.encode(), text)
        return text

    def hide(self, text: str) -> str:
        """Take it out of a text."""
        if "\\" not in text:
            for one in self._texts:
                if one in text:
                    break
            else:
                return text  # nearly always, and so without a copy
        data = text.encode("utf-8", "surrogatepass")
        clean = self.scrub(data)
        return text if clean is data else clean.decode("utf-8", "surrogatepass")


def _escaped(secret: bytes) -> re.Pattern[bytes]:
    """Match a key in JSON text, each of its characters as it is or escaped, also in JSON within a string of JSON."""
    one = (rb"(?:\\{0,4}%s|\\{1,4}u00(?i:%02x))" % (re.escape(bytes([char])), char) for char in secret)
    return re.compile(b"".join(one))


def _encoded(secret: bytes) -> Iterable[bytes]:
    """Spell a key as URLs and HTML have it, and in base64 at each of the three places where it may begin there."""
    text = secret.decode()
    for whole in (quote(text, safe=""), quote(text), html.escape(text), html.escape(text).replace("&#x27;", "&#39;")):
        yield whole.encode()
        yield re.sub("%[0-9A-F]{2}", lambda found: found.group().lower(), whole).encode()
    if len(secret) < _SHORTEST_ENCODED:
        return
    for before in range(3):
        spelled = b64encode(bytes(before) + secret)
        # Six bits a character: those at both ends that share bits with what stands beside the key are not its own.
        own = spelled[-(-before * 8 // 6) : (before + len(secret)) * 8 // 6]
        yield own
        yield own.translate(bytes.maketrans(b"+/", b"-_"))
