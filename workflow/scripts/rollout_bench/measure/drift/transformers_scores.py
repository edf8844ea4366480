"""What transformers gives tokens, in float32 on the CPU: another implementation than the engine's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rollout_bench.contracts.inside import ScoredRow
from rollout_bench.measure.server.stream import ServingFailed

BY = "transformers"
"""What rows call it."""

PASSED_ON = ("revision", "trust_remote_code")
"""Arguments of the engine's that say which weights and which code they are."""


def scored_by_transformers(
    model: str, arguments: Mapping[str, Any], sequences: Sequence[tuple[list[int], list[int]]]
) -> list[ScoredRow]:
    """Return a row for each of `sequences`, computed one by one, in float32, with transformers' own attention.

    It runs on the CPU, so that all of the device's memory stays the engine's.

    Args:
        model: local folder or hub id of weights that are not quantized.
        arguments: of the engine.
        sequences: token ids of a prompt, and those after it.

    Raises:
        ServingFailed: it can't load the model, or a value is no number.
    """
    import torch
    from transformers import AutoModelForCausalLM

    more = {name: arguments[name] for name in PASSED_ON if name in arguments}
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            model, dtype=torch.float32, attn_implementation="eager", device_map=None, **more
        )
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        cause = f"transformers can't load {model}: {' '.join(str(error).split())[:300]}"
        raise ServingFailed("not_scored", cause, "leave drift.reference.also_by out") from error
    loaded = loaded.to("cpu").eval()
    rows = []
    for number, (prompt, tokens) in enumerate(sequences):
        with torch.inference_mode():
            ids = torch.tensor([prompt + tokens], device="cpu")
            logits = loaded(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
            chosen = torch.log_softmax(logits.double(), dim=-1).gather(1, torch.tensor(tokens)[:, None])[:, 0]
            first = logits.argmax(dim=-1)
        logprobs = [float(value) for value in chosen.tolist()]
        if not all(map(math.isfinite, logprobs)):
            cause = f"transformers gives tokens of sequence {number} log probabilities that are no numbers"
            raise ServingFailed("not_finite", cause, "look at the weights: this model does not compute numbers")
        rows.append(ScoredRow(sequence=number, by=BY, logprobs=logprobs, first=[int(one) for one in first.tolist()]))
    return rows
