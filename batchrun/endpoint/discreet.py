"""Words of a provider → words that may be shown: without ids of accounts, addresses, and what was asked of it.

What a provider says of an error is printed, logged and kept in `run.json`, and travels from there into mails and
tickets. The body stays whole in the record of the item, in the run directory.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

#: A key that the provider masked, or somebody else's: `sk-ab…yz`, `sk-***1234`, `Bearer …`, `****7890`.
_KEYS = re.compile(
    r"\b(?:sk|ak|pk|rk|gsk|xai|nvapi|hf)[-_](?:[\w.-]*[*…•][\w*.…•-]*|[\w-]{12,})"
    r"|(?<=Bearer )[\w*.…•+/=-]{8,}|\w*[*•]{3,}[\w*•-]*"
)
#: Ids as OpenAI, Moonshot, Anthropic and gateways write them: digits or both cases, so that words are left alone.
_MARKED_IDS = re.compile(
    r"\b(?:org|organization|proj|project|user|acct|account|team|ws|workspace|tenant|cus)[-_]"
    r"(?=[A-Za-z0-9]*(?:[0-9]|[a-z][A-Z]))[A-Za-z0-9]{6,}"
)
#: An id behind the word that says of whom it is: digits, or letters with digits among them.
_NAMED_IDS = re.compile(
    r"""(?ix)
    ((?:\b|_)(?:account|acct|uid|user|owner|tenant|organi[sz]ation|org|project|team|workspace|customer|subscription
        |member|aliyun|appid|app)(?:[\s_-]?(?:id|number|no\.?|uid))?
        |账号|账户|用户|租户|主账号|组织|项目|团队)
    ((?:id|ID)?["'\s]*[:：=#<(\[]?["'\s<]*(?:\bis\b\s*)?)
    ((?=[\w-]*\d{3})[A-Za-z0-9][\w-]{5,})
    """
)
_MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_ADDRESS = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\d)|(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:]))"
)
#: So many characters in a row that words share with a message are no chance.
_ECHOED = 16
#: A message of fewer characters may be a word that stands in any error.
_SHORTEST_ECHO = 8


def without_ids(words: str) -> str:
    """Take out of a provider's words what says whose account it is: ids, masked keys, mail and network addresses."""
    words = _KEYS.sub("[key]", words)
    words = _MAIL.sub("[address]", words)
    words = _MARKED_IDS.sub("[id]", words)
    words = _NAMED_IDS.sub(r"\1\2[id]", words)
    return _ADDRESS.sub(_shown_address, words)


def _shown_address(found: re.Match[str]) -> str:
    try:
        address = ip_address(found.group())
    except ValueError:  # a time of day, a version
        return found.group()
    return found.group() if address.is_loopback or address.is_unspecified else "[address]"


def without_echo(words: str, messages: Sequence[Any]) -> str:
    """Take out of a provider's words what they repeat of the messages that were sent."""
    echoed = [False] * len(words)
    for text in _texts(messages):
        for first, last in _common(words, text):
            echoed[first:last] = [True] * (last - first)
    if True not in echoed:
        return words
    parts = []
    for place, (char, is_echo) in enumerate(zip(words, echoed, strict=True)):
        if not is_echo:
            parts.append(char)
        elif place == 0 or not echoed[place - 1]:
            parts.append("[prompt]")
    return "".join(parts)


def _common(words: str, text: str) -> Iterator[tuple[int, int]]:
    """Give from where to where words repeat a text: wholly if it is short, else any piece that is long enough."""
    if _SHORTEST_ECHO <= len(text) < _ECHOED:
        place = words.find(text)
        if place >= 0:
            yield place, place + len(text)
        return
    half = _ECHOED // 2
    # Whatever is common and long enough holds one of these whole; most errors repeat nothing.
    if not any(words[at : at + half] in text for at in range(0, len(words) - half + 1, half)):
        return
    place = 0
    while place + _ECHOED <= len(words):
        if words[place : place + _ECHOED] not in text:
            place += 1
            continue
        last = place + _ECHOED
        while last < len(words) and words[place : last + 1] in text:
            last += 1
        yield place, last
        place = last


def _texts(messages: Sequence[Any]) -> Iterable[str]:
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, str):
            yield content
        elif isinstance(content, list):
            texts = (part.get("text") for part in content if isinstance(part, dict))
            yield from (text for text in texts if isinstance(text, str))
