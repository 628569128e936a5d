"""JSON values to cells of a CSV file that a spreadsheet opens without running, rounding or losing anything.

A CSV file cannot say what is text, so a cell that a spreadsheet would take for more than text begins with an
apostrophe, as OWASP advises ("CSV Injection", with the full-width forms that some spreadsheets read alike):
formulas, and digits that it would change (more than the 15 that it keeps, or zeros in front). A text that begins
with an apostrophe itself gets one more, so that whoever takes one off each cell that has it gets all back as it was.
"""

from __future__ import annotations

import re
from typing import Any

from batchrun.export.columns import as_text

#: More characters than Excel keeps in one cell.
MOST_CHARS = 32_767
#: Whole numbers up to here have no more digits than a spreadsheet keeps.
_SAFE = 10**15
#: Blanks and what cannot be seen may stand before the mark that makes a formula.
_FORMULA = re.compile("['\0\t\r\n=+\\-@＝＋－﹣−＠]|[\\s\0\ufeff\u200b]+[=+\\-@＝＋－﹣−＠]")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_LONG_OR_PADDED = re.compile(r"-?(?:0[0-9]+|[0-9]{16,})(?:\.[0-9]*)?")
#: Characters that no spreadsheet and few readers take, as the pictures that Unicode has of them (␀ for NUL).
_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n\r"} | {0x7F: 0x2421}
_CONTROL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f]")


def cell(value: Any) -> str:
    """Give the cell of a JSON value: text as it is, numbers as numbers, other values as JSON text, "" for null."""
    if value is None:
        return ""
    if type(value) is int and abs(value) < _SAFE:
        return str(value)
    text = as_text(value) or ""
    mark = "'" if _is_more_than_text(text) else ""
    return mark + (text.translate(_PICTURES) if _CONTROL.search(text) else text)


def _is_more_than_text(text: str) -> bool:
    if _LONG_OR_PADDED.fullmatch(text):
        return True
    return _FORMULA.match(text) is not None and _NUMBER.fullmatch(text) is None
