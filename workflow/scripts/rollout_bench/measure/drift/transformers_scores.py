"""What transformers gives tokens, in float32 on the CPU: another implementation than the engine's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rollout_bench.contracts.inside import ScoredRow
from rollout_bench.measure.server.stream import ServingFailed

PASSED_ON = ("revision", "trust_remote_code")
"""Arguments of the engine's that say which weights and which code they are."""


def scored_by_transformers(
    model: str, arguments: Mapping[str, Any], sequences: Sequence[tuple[list[int], list[int]]]
) -> list[ScoredRow]:
    """Return a row for each of `sequences`, computed one by one, in float32, with transformers' plainest attention.

    It runs on the CPU, so that all of the device's memory stays the engine's.

    Args:
        model: local folder or hub id of weights that are not quantized.
        arguments: of the engine.
        sequences: token ids of a prompt, and of what was sampled after it.

    Raises:
        ServingFailed: transformers can't load or compute the model, or a value is no number.
    """
    import torch
    from transformers import AutoModelForCausalLM

    more = {name: arguments[name] for name in PASSED_ON if name in arguments}
    found = []
    try:
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager", **more)
        loaded = loaded.to("cpu").eval()
        for prompt, tokens in sequences:
            ids, sampled = (torch.tensor(each, device="cpu") for each in (prompt + tokens, tokens))
            with torch.inference_mode():
                logits = loaded(input_ids=ids[None], use_cache=False, logits_to_keep=len(tokens) + 1).logits
            before = logits[0, -len(tokens) - 1 : -1].double()  # [tokens, vocabulary], each before its token
            logprobs = before.log_softmax(-1).gather(1, sampled[:, None])[:, 0]
            found.append((logprobs.tolist(), before.argmax(-1).tolist()))
    except Exception as error:  # of the model's own code, too: any type
        cause = f"transformers can't compute {model} in float32: {type(error).__name__}: {str(error)[:300]}"
        raise ServingFailed("not_scored", cause, "leave drift.reference.also_by out") from error
    if not all(math.isfinite(value) for logprobs, _ in found for value in logprobs):
        cause = "transformers gives a token a log probability that is no number"
        raise ServingFailed("not_finite", cause, "look at the weights: this model does not compute numbers")
    return [
        ScoredRow(by="transformers", sequence=number, logprobs=logprobs, first=first)
        for number, (logprobs, first) in enumerate(found)
    ]
