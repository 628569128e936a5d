"""Detectors of addresses: of mail, and of machines inside a private network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from re import Match

from batchrun.boundary.detector import Detector, Span, accepted

_LOCAL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._%+-"
_LONGEST_LOCAL = 64
_DOMAIN = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?[.。]){1,8}(?P<top>[A-Za-z]{2,24})(?![A-Za-z0-9_\-])"
)
#: The account at the beginning of a link, whose host is no domain of mail.
_ACCOUNT = re.compile(r"://[^\s/@:]*:[^\s/@]*$")
#: Ends of file names, as in logo@2x.png, and of what is no mail address for another reason.
_NO_TOP = frozenset((
    "png", "jpg", "jpeg", "gif", "webp", "svg", "bmp", "ico", "pdf", "css", "js", "ts", "jsx", "tsx", "vue", "py",
    "json", "md", "txt", "html", "xml", "local",
))  # fmt: skip


def _emails(view: str) -> Iterator[Span]:
    at = view.find("@")
    while at >= 0:
        if (span := _email_at(view, at)) is not None:
            yield span
        at = view.find("@", at + 1)


def _email_at(view: str, at: int) -> Span | None:
    before = view[max(0, at - _LONGEST_LOCAL - 1) : at]
    length = len(before) - len(before.rstrip(_LOCAL))
    local = before[len(before) - length :].lstrip(".%+-") if length <= _LONGEST_LOCAL else ""
    domain = _DOMAIN.match(view, at + 1)
    if not local or local.endswith(".") or domain is None or domain["top"].lower() in _NO_TOP:
        return None
    is_path = local == "git" and view[domain.end() : domain.end() + 1] == ":"  # git@host:path
    if is_path or _ACCOUNT.search(before):
        return None
    return at - len(local), domain.end()


def _canonical_email(value: str) -> str:
    return value.lower().replace("。", ".")


_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_PRIVATE_IP = re.compile(
    r"1(?<![0-9A-Za-z._].)(?<![A-Za-z_\-.]-.)"
    rf"(?:0\.{_OCTET}|72\.(?:1[6-9]|2[0-9]|3[01])|92\.168|00\.(?:6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7]))\.{_OCTET}\.{_OCTET}"
    r"(?![0-9A-Za-z_]|\.[0-9]|-[A-Za-z])"
)
_VERSION = re.compile(
    r"(?:版本|固件|补丁|升级[到至]|更新[到至]|version|release|build|ver|v)号?(?:是|为)?[\s:：.=]{0,3}$", re.IGNORECASE
)


def _accept_private_ip(view: str, found: Match[str]) -> Span | None:
    start = found.start()
    return None if _VERSION.search(view, max(0, start - 14), start) else found.span()


def _has_private_ip(view: str) -> bool:
    return "." in view and ("10." in view or "192.168." in view or "172." in view or "100." in view)


def _has_at(view: str) -> bool:
    return "@" in view


ADDRESSES = (
    Detector("email", _has_at, _emails, _canonical_email),
    Detector("private_ip", _has_private_ip, partial(accepted, _PRIVATE_IP, _accept_private_ip)),
)
