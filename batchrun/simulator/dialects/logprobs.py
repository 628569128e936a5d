"""Probabilities of tokens, made up from the tokens themselves."""

from __future__ import annotations

from typing import Any
from zlib import crc32

#: Characters of one token; the pieces of a stream are whole tokens.
TOKEN_CHARACTERS = 2
_OTHERS = ("的", "是", "了", "一", "在", "有", "和", "不", "这", "我", "他", "人", "中", "上", "大", "为", "以", "会",
           "the", "and", "of")  # fmt: skip
_STEPS = 1_000


def logprobs_of(text: str, alternatives: int) -> list[dict[str, Any]]:
    """Give each token of a text with its log probability, and so many likely tokens, itself the first of them."""
    starts = range(0, len(text), TOKEN_CHARACTERS)
    return [_token(text[start : start + TOKEN_CHARACTERS], alternatives) for start in starts]


def _token(token: str, alternatives: int) -> dict[str, Any]:
    chance = -(1 + crc32(token.encode(errors="surrogatepass")) % _STEPS) / (2 * _STEPS)
    others = [one for one in _OTHERS if one != token][: max(0, alternatives - 1)]
    likely = [_one(token, chance), *(_one(one, chance - 2.0 - rank / 4) for rank, one in enumerate(others))]
    return {**_one(token, chance), "top_logprobs": likely[:alternatives]}


def _one(token: str, chance: float) -> dict[str, Any]:
    return {"token": token, "logprob": round(chance, 6), "bytes": list(token.encode(errors="replace"))}
