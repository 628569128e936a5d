"""Detectors of secrets: keys and tokens by the forms that providers give them, and private keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from re import Match

from batchrun.boundary.detector import Detector, Span, accepted, matched

#: No key looked for here has fewer letters and digits in a row.
_TOKEN = re.compile(r"[A-Za-z0-9_\-][A-Za-z0-9_\-]{15}")
_FEWEST_DIFFERENT = 8
#: Keys of model providers, clouds, code hosts, chats, payment, package registries. Each form begins with a letter.
_FORMS = (
    r"sk-(?:(?:proj|ant|or-v1|svcacct|admin)-)?[A-Za-z0-9_\-]{20,256}",
    r"A(?:KIA|SIA|BIA|CCA)[A-Z0-9]{16}",
    r"LTAI[A-Za-z0-9]{12,26}",
    r"AKID[A-Za-z0-9]{32}",
    r"AKLT[A-Za-z0-9_\-]{20,64}",
    r"ALTAK-?[A-Za-z0-9]{16,32}(?:/[0-9a-f]{40})?",
    r"JDC_[A-Z0-9]{24,40}",
    r"gh[pousr]_[A-Za-z0-9]{36,255}",
    r"github_pat_[A-Za-z0-9_]{22,255}",
    r"gl(?:pat|dt|rt|cbt|ptt|ft|soat)-[A-Za-z0-9_\-.]{20,128}",
    r"xox[abeoprs]-[A-Za-z0-9\-]{10,250}",
    r"xapp-[0-9]-[A-Za-z0-9\-]{16,250}",
    r"AIza[A-Za-z0-9_\-]{35}",
    r"ya29\.[A-Za-z0-9_\-]{20,500}",
    r"GOCSPX-[A-Za-z0-9_\-]{28}",
    r"hf_[A-Za-z0-9]{30,64}",
    r"gsk_[A-Za-z0-9]{32,128}",
    r"xai-[A-Za-z0-9]{32,128}",
    r"pplx-[A-Za-z0-9]{32,128}",
    r"nvapi-[A-Za-z0-9_\-]{32,128}",
    r"r8_[A-Za-z0-9]{32,64}",
    r"sk_(?:live_|test_)[A-Za-z0-9]{16,255}",
    r"rk_(?:live_|test_)[A-Za-z0-9]{16,255}",
    r"SG\.[A-Za-z0-9_\-]{22}\.[A-Za-z0-9_\-]{43}",
    r"npm_[A-Za-z0-9]{36}",
    r"pypi-AgE[A-Za-z0-9_\-]{50,500}",
    r"dckr_pat_[A-Za-z0-9_\-]{24,64}",
    r"shp(?:at|ca|pa|ss)_[A-Fa-f0-9]{32}",
)
# The first letters stand as a set before everything else, because the search for a character of a set is fast.
_PREFIXED = re.compile(
    f"[{''.join(sorted({form[0] for form in _FORMS}))}](?<![A-Za-z0-9_].)"
    f"(?:{'|'.join(f'(?<={form[0]}){form[1:]}' for form in _FORMS)})(?![A-Za-z0-9])"
)
_LONG_PART = re.compile(r"[A-Za-z0-9]{12,}")
_ZHIPU = re.compile(r"[0-9a-f](?<![0-9A-Za-z].)[0-9a-f]{31}\.[A-Za-z0-9]{16}(?![A-Za-z0-9])")
#: A value that is called a key where it is set.
_ASSIGNED = re.compile(
    r"[aAcCsS密](?i:(?<=a)(?:pi[_-]?key|ccess[_-]?(?:key|token)|pp[_-]?secret|uth[_-]?token)"
    r"|(?<=c)lient[_-]?secret|(?<=s)ecret[_-]?(?:access[_-]?)?key|(?<=密)钥)"
    r"[\\\"']{0,3} {0,3}[:=：是] {0,3}[\\\"']{0,3}(?P<key>[A-Za-z0-9_\-/+]{16,256}={0,2})(?![A-Za-z0-9])"
)
_JWT = re.compile(
    r"e(?<![A-Za-z0-9_\-].)yJ[A-Za-z0-9_\-]{8,4096}\.eyJ[A-Za-z0-9_\-]{2,8192}\.(?:[A-Za-z0-9_\-]{16,2048})?"
)
_BEARER = re.compile(
    r"[Bb](?<![A-Za-z0-9_].)(?:earer|EARER)[ :=]{1,4}(?P<key>[A-Za-z0-9._~+/\-]{16,4096}={0,2})(?![A-Za-z0-9])"
)
#: The password of an account at the beginning of a link.
_URL_PASSWORD = re.compile(r"://[A-Za-z0-9._%+\-]{0,64}:(?P<key>[^\s/<>{}*]{1,128})@[A-Za-z0-9\[]")
_VARIABLE = re.compile(r"\$\w+")
_NO_PASSWORD = frozenset(("password", "passwd", "pass", "pwd", "your_password", "xxx", "xxxx", "密码"))
_PRIVATE_KEY = re.compile(r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----|PuTTY-User-Key-File-[0-9]")
_PRIVATE_KEY_END = re.compile(r"-----END (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----|Private-MAC: ?[0-9a-f]*")
#: What may follow a private key's first line where its last one is missing.
_KEY_LINES = re.compile(r"[A-Za-z0-9+/=:,\-\s\\>|]*")


def is_random(key: str) -> bool:
    """Tell whether a key looks as if it had been drawn, not written: letters, digits, and many different ones."""
    has_digit = any("0" <= one <= "9" for one in key)
    return has_digit and any(one.isalpha() for one in key) and len(set(key)) >= _FEWEST_DIFFERENT


def _accept_random(_view: str, found: Match[str]) -> Span | None:
    return found.span() if is_random(found[0]) else None


def _accept_prefixed(_view: str, found: Match[str]) -> Span | None:
    """Only sk- is written before words too; for the other prefixes it is enough that nobody wrote XXXX behind them."""
    if found[0].startswith("sk-"):
        return found.span() if any(map(is_random, _LONG_PART.findall(found[0]))) else None
    return found.span() if len(set(found[0])) >= _FEWEST_DIFFERENT else None


def _accept_key(_view: str, found: Match[str]) -> Span | None:
    return found.span("key") if is_random(found["key"]) else None


def _accept_password(_view: str, found: Match[str]) -> Span | None:
    return None if found["key"].lower() in _NO_PASSWORD or _VARIABLE.fullmatch(found["key"]) else found.span("key")


def _api_keys(view: str) -> Iterator[Span]:
    yield from accepted(_PREFIXED, _accept_prefixed, view)
    yield from accepted(_ZHIPU, _accept_random, view)
    yield from accepted(_ASSIGNED, _accept_key, view)


def _private_keys(view: str) -> Iterator[Span]:
    position = 0
    ends = True  # whether a last line may still come: looked for once after the last one, not once for every first line
    while begin := _PRIVATE_KEY.search(view, position):
        end = _PRIVATE_KEY_END.search(view, begin.end()) if ends else None
        ends = end is not None
        lines = end or _KEY_LINES.match(view, begin.end())
        position = lines.end() if lines else begin.end()
        yield begin.start(), position


def _has_bearer(view: str) -> bool:
    return "earer" in view or "BEARER" in view


def _has_account(view: str) -> bool:
    return "@" in view and "://" in view


def _has_private_key(view: str) -> bool:
    return "PRIVATE KEY" in view or "PuTTY-" in view


KEYS = (
    Detector("private_key", _has_private_key, _private_keys),
    Detector("jwt", _TOKEN.search, partial(accepted, _JWT, matched)),
    Detector("api_key", _TOKEN.search, _api_keys),
    Detector("bearer_token", _has_bearer, partial(accepted, _BEARER, _accept_key)),
    Detector("url_password", _has_account, partial(accepted, _URL_PASSWORD, _accept_password)),
)
