"""Flags of transitions: the same weights must be the same, and others must be others."""

from __future__ import annotations

from typing import Any

import pytest

from rollout_bench.contracts.cycles import MemoryLook, Transition, TransitionPart, WeightProof, Weights, WeightUpdate
from rollout_bench.contracts.record import Flag, Iteration
from rollout_bench.measure.launch.flags import cycle_flags

FIRST, SECOND = "1" * 16, "2" * 16


def proof(weights: Weights = "first", **changes: Any) -> WeightProof:
    digest = FIRST if weights == "first" else SECOND
    known = {"tensors": 50, "trained": 17, "changed": 18, "changed_trained": 17, "not_finite": 0}
    return WeightProof(**{"weights": weights, **known, "checksum": digest, "tokens": digest, **changes})


def flags_of(*after: WeightProof) -> list[Flag]:
    """Return the flags of passes whose updates have these proofs, each taken in the next pass."""
    loaded = (proof("first", changed=0, changed_trained=0), *after[:-1])
    passes = []
    for number, before in enumerate(loaded):
        transition = Transition(
            elapsed_s=1,
            parts=[TransitionPart(name="update", began_s=0, elapsed_s=1)],
            update=WeightUpdate(weights="second", load_s=1),
            memory=[MemoryLook(when="asleep", host_bytes=1, device_free_bytes=None)],
            proof=after[-1] if number == len(after) - 1 else None,
            loaded=before,
        )
        counts = {"requests": 1, "sequences": 1, "prompt_tokens": 1, "output_tokens": 1}
        passes.append(Iteration(index=number, warmup=False, elapsed_s=1, transition=transition, **counts))
    return cycle_flags(passes)


@pytest.mark.parametrize(
    ("after", "code", "words"),
    [
        ([proof("second"), proof("first"), proof("second"), proof("first")], None, ""),
        (
            [proof("second"), proof("first", tokens="3" * 16), proof("second")],
            "output_changed",
            "After update 2 of 3, the first weights had other greedy tokens than as loaded",
        ),
        (
            [proof("second"), proof("first", checksum="3" * 16), proof("second")],
            "output_changed",
            "the first weights had other checksum than as loaded",
        ),
        (
            [proof("second"), proof("first"), proof("second", tokens="3" * 16)],
            "output_changed",
            "After update 3 of 3, the second weights had other greedy tokens than after update 1 of 3",
        ),
        ([proof("second", not_finite=2)], "output_changed", "2 of 50 tensors had values that are no finite numbers"),
        ([proof("second", changed_trained=16)], "update_without_effect", "1 of 17 weights that had to change"),
        ([proof("second", tokens=FIRST)], "update_without_effect", "the same greedy tokens as with the first weights"),
    ],
    ids=["as it should be", "tokens", "checksum", "second", "no numbers", "a weight stays", "tokens stay"],
)
def test_an_update_that_is_none_makes_a_launch_invalid(after: list[WeightProof], code: str | None, words: str):
    found = flags_of(*after)
    assert [(flag.code, flag.severity) for flag in found] == ([(code, "invalid")] if code else [])
    assert all(words in flag.sentence for flag in found)
