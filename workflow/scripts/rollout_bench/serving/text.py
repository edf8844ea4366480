"""Prompts as text, for servers that take no token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_COMMON = """
the of and to in is that it was for on are as with his they at be this from have or by one had not but what
all were when we there can an your which their said if do will each about how up out them then she many some
so these would other into has more her two like him see time could no make than first been its who now
people my made over did down only way find use may water long little very after words called just where most
know get through back
"""
WORDS = tuple(_COMMON.split())
"""Words that most vocabularies hold as one token each."""


class PromptText:
    """Turns token ids into text.

    Args:
        model: folder or hub id of the model, whose own tokenizer decodes; None where nobody has it: each id then
            becomes a word, and a prompt of n ids has about n tokens.
        trust_remote_code: whether the tokenizer may be code that comes with the model.
    """

    def __init__(self, model: str | None, trust_remote_code: bool = False) -> None:
        self._tokenizer: Any = None
        if model is not None:
            from transformers import AutoTokenizer

            self._tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=trust_remote_code)

    def of(self, token_ids: Sequence[int]) -> str:
        """The text of some ids."""
        if self._tokenizer is not None:
            return str(self._tokenizer.decode(list(token_ids)))
        return " ".join(WORDS[number % len(WORDS)] for number in token_ids)
