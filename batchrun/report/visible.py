"""What others wrote, made harmless and visible for a page: no markup, no invisible or turning characters, no key."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seen as it is though Unicode calls it a control or a format: line ends, tabs, and what joins letters and emoji.
_FINE = frozenset("\n\t\u200c\u200d")
_SUSPECT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\xa0\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890-\u08e2\u180e\u2000-\u200b\u200e-\u200f"
    "\u2028-\u202f\u205f-\u206f\u3164\ud800-\udfff\ufdd0-\ufdef\ufeff\uffa0\ufff0-\uffff\U000110bd-\U000110cd"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U0010ffff]"
)
_UNSEEN = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
#: These are letters to Unicode, and blank to people.
_BLANK = frozenset("\u3164\uffa0")


def _is_unseen(char: str) -> bool:
    return char not in _FINE and (unicodedata.category(char) in _UNSEEN or char in _BLANK)


def marked(text: str) -> Markup:
    """Escape a text for HTML; each character that nobody would see is named in a mark of its own."""
    if not _SUSPECT.search(text):
        return escape(text)
    parts: list[str] = []
    at = 0
    for found in _SUSPECT.finditer(text):
        if _is_unseen(found.group()):
            parts += escape(text[at : found.start()]), f'<span class="unseen">U+{ord(found.group()):04X}</span>'
            at = found.end()
    return Markup("".join([*parts, escape(text[at:])]))  # noqa: S704 - each part was escaped


def plain(text: str) -> str:
    """Give a text in which such characters are named, for places where no markup can stand."""
    return _SUSPECT.sub(
        lambda found: f"<U+{ord(found.group()):04X}>" if _is_unseen(found.group()) else found.group(), text
    )


class Veil:
    """Takes out of a text what must not be on a page that is shown around, and cuts it to what is shown.

    `masks` change a text: the scan of the data boundary, and one that takes out the key. They look further than the
    cut, so that no half of what they would find is left at it.
    """

    _AHEAD = 4000

    def __init__(self, *masks: Callable[[str], str], limit: int = 900) -> None:
        self._masks = masks
        self._limit = limit

    def whole(self, text: str) -> str:
        """Mask a text that is short by itself."""
        for mask in self._masks:
            text = mask(text)
        return text

    def cut(self, text: str) -> tuple[str, int]:
        """Mask a text and cut it; gives it with the number of its characters where it was cut, else 0."""
        head = text[: self._limit + self._AHEAD]
        masked = self.whole(head)
        end = self._limit if len(head) == len(text) else min(self._limit, max(0, len(masked) - self._AHEAD))
        return (masked, 0) if len(head) == len(text) and len(masked) <= end else (masked[:end], len(text))
