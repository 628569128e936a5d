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
#: The most tokens of an answer that nothing bounds, before enough is known, and as a multiple of the longest one then.
_LONGEST_ANSWER, _LONGER = 8192.0, 2.0
#: Tokens a byte at most: no tokenizer makes more of them than there are bytes.
_MOST_PER_BYTE, _DENSER = 1.0, 1.5
_CHOICES = re.compile(rb'"n":\s*(\d{1,3})')
_MAX_TOKENS = re.compile(rb'"max_(?:completion_)?tokens":\s*(\d{1,9})')


class TokenEstimate:
    """Estimates tokens for one job. `reserved` says that the endpoint charges the answer's bound, not its length."""

    def __init__(self, *, reserved: bool = False) -> None:
        self._reserved = reserved
        self._answers = self._bytes = self._prompt_tokens = self._answer_tokens = 0
        self._longest_answer = 0
        self._most_per_byte = 0.0

    def of(self, request: Request) -> float:
        """Give the tokens of a request and its answer."""
        return self.prompt(request) + self.answer(request)

    def answer(self, request: Request) -> float:
        """Give the tokens of the answer to a request, as the endpoint charges them against a limit."""
        most = _bound(request)
        answer = self._answer_tokens / self._answers if self._answers else _ANSWER
        if most is None:
            return answer
        return most if self._reserved else min(answer, most)

    def most(self, request: Request) -> tuple[float, float]:
        """Give the tokens of a request and of its answer at most, as far as that is known."""
        size = len(request.body)
        answer = _bound(request)
        if answer is None:
            answer = max(_LONGER * self._longest_answer, 0.0 if self.is_sure else _LONGEST_ANSWER)
        per_byte = min(_DENSER * self._most_per_byte, _MOST_PER_BYTE) if self.is_sure else _MOST_PER_BYTE
        return size * per_byte, answer * _choices(request)

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
        self._longest_answer = max(self._longest_answer, usage.completion_tokens)
        if usage.prompt_tokens > self._most_per_byte * len(request.body):
            self._most_per_byte = usage.prompt_tokens / len(request.body)


def _bound(request: Request) -> float | None:
    """Give the most tokens that a request lets its answer have; None if it does not say."""
    found = _MAX_TOKENS.search(request.body) if b'"max_' in request.body else None
    return float(found.group(1)) if found else None


def _choices(request: Request) -> int:
    found = _CHOICES.search(request.body) if b'"n":' in request.body else None
    return max(1, int(found.group(1))) if found else 1
