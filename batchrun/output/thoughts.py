"""Thoughts in an answer: what comes after them is the answer, and what does not end is no answer at all."""

from __future__ import annotations

import re

from batchrun.output.signs import starts_line

_NAMES = "think|thinking|thought|thoughts|reasoning|reflection|seed:think|scratchpad|analysis"
_TAG = re.compile(
    rf"(?P<open><(?:{_NAMES})\s{{0,3}}>|◁think▷|\[THINK\]|<\|(?:begin_of_thought|start_thinking)\|>)"
    rf"|(?P<close></(?:{_NAMES})\s{{0,3}}>|◁/think▷|\[/THINK\]|<\|(?:end_of_thought|end_thinking)\|>)",
    re.IGNORECASE,
)
#: The end of a text that breaks off in a tag.
_CUT_TAG = re.compile(r"</?t(?:h(?:i(?:n(?:k(?:i(?:n(?:g)?)?)?)?)?)?)?\Z|</\Z", re.IGNORECASE)
_AFTER_CLOSE = re.compile(r"[ \t]*(?:\n|\r|[{\[`<｛]|\Z)")
#: After the beginning of a tag, what shows that the text speaks of it.
_MENTION = re.compile(r"[^>▷\]]{0,20}[>▷\]]\s*(?:[`”\"'》]|标签|标记|块|段|tag|block)")
_BRACKET = re.compile(r"[{\[｛]")
#: So many tags are looked at closely.
_LOOKS = 50


def after_thoughts(text: str) -> str | None:
    """Give what comes after the thoughts of an answer, None if they do not end. An opening tag may be lost.

    Tags inside of a line, and inside of JSON, are text that speaks of them.
    """
    begin = 0
    opened: int | None = None
    is_mention = False
    for looks, tag in enumerate(_TAG.finditer(text)):
        if tag.lastgroup == "open":
            if opened is None and looks < _LOOKS and _is_in_braces(text, begin, tag.start()):
                is_mention = True
            elif opened is None:
                opened = tag.start()
        elif opened is None and is_mention:
            is_mention = False
        elif _is_end(text, tag, begin, opened, look=looks < _LOOKS):
            begin, opened = tag.end(), None
        else:
            opened = None
    if opened is not None and (starts_line(text, opened, begin) or _holds_draft(text, opened)):
        return None
    if _CUT_TAG.search(text, max(begin, len(text) - 12)) and text.rfind("{", begin) < text.rfind("<", begin):
        return None
    return text[begin:] if begin else text


def _is_end(text: str, tag: re.Match[str], begin: int, opened: int | None, *, look: bool) -> bool:
    """Tell whether a closing tag ends thoughts."""
    if opened is not None:
        return starts_line(text, opened, begin) or not _is_mention(text, opened)
    if begin or not (_AFTER_CLOSE.match(text, tag.end()) or text[tag.start() - 1] in "\n。！？.!?"):
        return False
    # In JSON that is open it is text, unless it is thoughts that have an open brace, and the answer comes after them.
    return not (look and _is_in_braces(text, begin, tag.start()) and _BRACKET.search(text, tag.end()) is None)


def _is_in_braces(text: str, begin: int, at: int) -> bool:
    return text.count("{", begin, at) > text.count("}", begin, at)


def _is_mention(text: str, opened: int) -> bool:
    """Tell whether a text speaks of the tag at a place."""
    return text[opened - 1] in "`“\"'《" or _MENTION.match(text, opened + 1) is not None


def _holds_draft(text: str, opened: int) -> bool:
    """Tell whether JSON follows a tag inside of a line that is never closed, and none stands before it."""
    if _is_mention(text, opened):
        return False
    return _BRACKET.search(text, opened) is not None and _BRACKET.search(text, 0, opened) is None
