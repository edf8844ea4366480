"""A tokenizer for synthetic checkpoints: any text becomes token ids, and nearly all ids come back from their text.

Byte-level BPE without merges, as tokenizer.json describes it: https://huggingface.co/docs/tokenizers. Ids 0 to 255 are
the bytes, all further ones a word each, a space and letters, all as long. `ignore_merges` takes a word that is in the
vocabulary whole and splits any other into its bytes. So ids of words, put into text, come back as the same ids. Those
of bytes need not: two of them may be half a character, or begin a word.
"""

from __future__ import annotations

from typing import Any

BYTES = 256
SMALLEST_VOCABULARY = BYTES
"""Ids that it takes to write any text; a smaller model has no tokenizer."""

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def tokenizer_files(vocabulary: int, longest: int) -> dict[str, dict[str, Any]]:
    """File name -> content of a tokenizer with `vocabulary` ids, none of them special, in the form of transformers'.

    Args:
        vocabulary: number of ids; below `SMALLEST_VOCABULARY` there are no files.
        longest: tokens in the longest sequence that the model takes.
    """
    if vocabulary < SMALLEST_VOCABULARY:
        return {}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokens = [*_byte_letters(), *_words(vocabulary - BYTES)]
    return {
        "tokenizer.json": {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": None,
            "pre_tokenizer": byte_level,
            "post_processor": None,
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": True,
                "vocab": {token: number for number, token in enumerate(tokens)},
                "merges": [],
            },
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "model_max_length": longest,
        },
    }


def _words(count: int) -> list[str]:
    """`count` different words with the space before them, which byte-level BPE writes as a G with a dot."""
    length = next(length for length in range(1, 10) if len(LETTERS) ** length >= count)
    return ["\u0120" + _word(number, length) for number in range(count)]


def _word(number: int, length: int) -> str:
    letters = []
    for _ in range(length):
        number, letter = divmod(number, len(LETTERS))
        letters.append(LETTERS[letter])
    return "".join(reversed(letters))


def _byte_letters() -> list[str]:
    """The character that stands for each byte in byte-level BPE.

    GPT-2's: printable ones for themselves, the others from U+0100 on
    (https://github.com/openai/gpt-2/blob/master/src/encoder.py, `bytes_to_unicode`).
    """
    own = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in own else next(others)) for byte in range(BYTES)]
