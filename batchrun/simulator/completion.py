"""A finished answer, before any dialect gives it a shape."""

from __future__ import annotations

from dataclasses import dataclass

from batchrun.simulator.tokens import weight, whole_tokens


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer text with its finish reason; `tool` names the function whose arguments the text is."""

    text: str
    finish_reason: str
    tool: str | None = None
    is_json: bool = False


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer with its choices, and the estimated tokens of the prompt."""

    id: str
    model: str
    choices: tuple[Choice, ...]
    prompt_tokens: int

    @property
    def completion_tokens(self) -> int:
        """Estimate the tokens of all choices."""
        return sum(whole_tokens(weight(choice.text)) for choice in self.choices)
