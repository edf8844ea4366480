"""The tokenizer of a synthetic model: byte-level BPE without merges.

The first 256 ids are the bytes. Each further id is a word of a space and letters, and all words have the same length.
`ignore_merges` keeps a word in the vocabulary whole and splits other words into bytes. So the ids of words, decoded to
text, are encoded to the same ids. The ids of bytes may not be: two bytes may form half a character, or begin a word.
"""

import json
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase

from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from rollout_bench.checkpoints.formats import SMALLEST_VOCABULARY


def write_tokenizer(folder: Path, vocabulary: int, longest: int) -> None:
    """Write a tokenizer with `vocabulary` ids and no special ids, in transformers' form.

    Args:
        folder: the model's folder.
        vocabulary: number of ids; below `SMALLEST_VOCABULARY` nothing is written.
        longest: largest number of tokens in a sequence for the model.
    """
    if vocabulary < SMALLEST_VOCABULARY:
        return
    count = vocabulary - SMALLEST_VOCABULARY
    length = next(length for length in range(1, 10) if len(ascii_lowercase) ** length >= count)
    words = ("\u0120" + "".join(letters) for letters in product(ascii_lowercase, repeat=length))
    tokens = [*sorted(ByteLevel.alphabet()), *islice(words, count)]
    numbers = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(BPE(vocab=numbers, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": longest}))
