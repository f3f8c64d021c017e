"""What a continuation took: the one thing that sessions and peers answer with."""

from __future__ import annotations

import msgspec


class Took(msgspec.Struct, frozen=True):
    """Seconds from the call to the first token and to the last one, and the text that was made.

    `prompts` were continued at once, each by `new_tokens`.
    """

    text: str
    prompts: int
    prompt_tokens: int
    new_tokens: int
    first_s: float
    total_s: float

    @property
    def prefill_per_s(self) -> float:
        """Tokens of prompts per second until the first token."""
        return self.prompts * self.prompt_tokens / self.first_s

    @property
    def decode_per_s(self) -> float:
        """Tokens per second after the first, of all prompts together."""
        return self.prompts * (self.new_tokens - 1) / (self.total_s - self.first_s)
