"""A model: its graph, and what a language model needs in addition (context, stop tokens, tokenizer, chat template)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from unitp.errors import ModelError
from unitp.graph.graph import Graph

if TYPE_CHECKING:
    from unitp.frontends.tokenizer import IdStreams, Tokenizer, TokenizerSource


@dataclass(frozen=True)
class Decoder:
    """What generation needs to know of a language model. `chat_template`: jinja2 source, or empty."""

    max_context: int
    vocab: int
    stop_ids: tuple[int, ...]
    tokenizer: TokenizerSource | None = None
    chat_template: str = ""
    bos_token: str = ""
    eos_token: str = ""


@dataclass(frozen=True)
class Model:
    """A graph with its `decoder`, which is None if the graph is not a language model."""

    name: str
    graph: Graph
    decoder: Decoder | None = None

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, loaded on first use. Raises ModelError if the model has none that unitp knows."""
        from unitp.frontends.tokenizer import load_tokenizer

        if self.decoder is None or self.decoder.tokenizer is None:
            raise ModelError(f"model {self.name} has no tokenizer", hint="Give token ids (--prompt-ids).")
        return load_tokenizer(self.decoder.tokenizer)

    @cached_property
    def speller(self) -> Tokenizer | IdStreams:
        """The object that turns generated tokens into text: the tokenizer, or token numbers if it is missing or of an unknown kind."""
        from unitp.frontends.tokenizer import IdStreams, UnknownTokenizer

        source = None if self.decoder is None else self.decoder.tokenizer
        return IdStreams() if source is None or isinstance(source, UnknownTokenizer) else self.tokenizer
