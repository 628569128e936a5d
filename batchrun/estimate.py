"""How many tokens a request will take, from what those before it took: Chinese, English and JSON differ by a factor."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchrun.records import Request, Usage

#: Tokens a byte of a request before anything is known, on the safe side: Chinese has about 0.2, English about 0.25.
_PER_BYTE = 0.35
#: Tokens of an answer before anything is known.
_ANSWER = 500.0
#: Answers after which what was seen outweighs what was assumed.
_SURE = 3
_MAX_TOKENS = re.compile(rb'"max_(?:completion_)?tokens":\s*(\d{1,9})')


class TokenEstimate:
    """Estimates tokens for one job. `reserved` says that the endpoint charges the answer's bound, not its length."""

    def __init__(self, *, reserved: bool = False) -> None:
        self._reserved = reserved
        self._answers = self._bytes = self._prompt_tokens = self._answer_tokens = 0

    def of(self, request: Request) -> float:
        """Give the tokens of a request and its answer."""
        most = _bound(request)
        answer = self._answer_tokens / self._answers if self._answers else _ANSWER
        if most is not None:
            answer = most if self._reserved else min(answer, most)
        return self.prompt(request) + answer

    def prompt(self, request: Request) -> float:
        """Give the tokens of a request without its answer."""
        per_byte = self._prompt_tokens / self._bytes if self._bytes else _PER_BYTE
        return len(request.body) * per_byte

    @property
    def is_sure(self) -> bool:
        """Tell whether enough answers were seen to rely on it."""
        return self._answers >= _SURE

    def used(self, request: Request, usage: Usage) -> float | None:
        """Give the tokens that an answer took of the limit; None where its bound is charged and stays reserved."""
        if self._reserved and _bound(request) is not None:
            return None
        return float(usage.total_tokens)

    def learn(self, request: Request, usage: Usage) -> None:
        """Take what an answer really took."""
        self._answers += 1
        self._bytes += len(request.body)
        self._prompt_tokens += usage.prompt_tokens
        self._answer_tokens += usage.completion_tokens


def _bound(request: Request) -> float | None:
    """Give the most tokens that a request lets its answer have; None if it does not say."""
    found = _MAX_TOKENS.search(request.body) if b'"max_' in request.body else None
    return float(found.group(1)) if found else None
