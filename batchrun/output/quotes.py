"""Which quotes open a string, and which of them close it."""

from __future__ import annotations

#: What may close a string, by what opened it; the proper one first.
CLOSERS: dict[str, str] = {
    '"': '"”＂“',
    "“": '”"“＂',
    "”": '”"“',
    "＂": '＂"',
    "'": "'’",
    "‘": "’'‘",
    "’": "’'",
    "「": "」",
    "『": "』",
    "`": "`",
}
#: Quotes that come in two shapes, so that those inside a string can be told from its end by counting.
NESTING = {"“": "”", "„": "“", "‘": "’", "「": "」", "『": "』"}
