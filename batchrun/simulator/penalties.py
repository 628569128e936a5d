"""What penalties on repetition do to a text: it ends before the words in it come too often."""

from __future__ import annotations

import re
from collections import Counter

#: A word of letters, or one ideograph.
_WORD = re.compile(r"[A-Za-z0-9_'-]+|[^\W_]")
#: How often a word may come at a penalty of 1.
_OCCURRENCES = 10
#: Weaker penalties show no effect.
_LEAST = 0.5
#: A penalty on presence grows no more after the first time.
_PRESENCE_SHARE = 0.5


def shortened(text: str, frequency: float, presence: float) -> str:
    """Give the beginning of a text in which no word comes more often than the penalties allow."""
    strength = max(frequency, 0.0) + _PRESENCE_SHARE * max(presence, 0.0)
    if strength < _LEAST:
        return text
    most = max(1, int(_OCCURRENCES / strength))
    seen: Counter[str] = Counter()
    for word in _WORD.finditer(text):
        seen[word[0]] += 1
        if seen[word[0]] > most:
            return text[: word.start()].rstrip()
    return text
