"""A finished answer, before any dialect gives it a shape."""

from __future__ import annotations

from dataclasses import dataclass

from batchrun.simulator.tokens import weight, whole_tokens


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer text with its finish reason; `tool` names the function whose arguments the text is.

    `reasoning` is what was thought before, None where nothing was. `logprobs` is how many alternatives of each
    token are to be told, None where no probabilities are.
    """

    text: str
    finish_reason: str | None
    tool: str | None = None
    is_json: bool = False
    reasoning: str | None = None
    logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer with its choices, and the estimated tokens of the prompt; `id` is 32 hexadecimal digits."""

    id: str
    model: str
    choices: tuple[Choice, ...]
    prompt_tokens: int
    cached_tokens: int = 0

    @property
    def thinking(self) -> bool:
        """Tell whether there was any thinking."""
        return any(choice.reasoning is not None for choice in self.choices)

    @property
    def reasoning_tokens(self) -> int:
        """Estimate the tokens of the thinking of all choices."""
        return sum(whole_tokens(weight(choice.reasoning or "")) for choice in self.choices)

    @property
    def completion_tokens(self) -> int:
        """Estimate the tokens of all choices, thinking included."""
        return self.reasoning_tokens + sum(whole_tokens(weight(choice.text)) for choice in self.choices)
