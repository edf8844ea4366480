"""Flags of transitions: the same weights must be the same, and others must be others."""

from typing import Any

import pytest
from synthetic_cycles import proof

from rollout_bench.measure.launch.flags import not_finite_flags
from rollout_bench.modes.cycle.collector import cycle_flags

OTHER = "3" * 16


@pytest.mark.parametrize(
    ("second", "first", "code", "words"),
    [
        ({}, {}, None, ""),
        ({}, {"tokens": OTHER}, "output_changed", "the engine had other greedy tokens than as loaded"),
        ({}, {"checksum": OTHER}, "output_changed", "the engine had other checksum than as loaded"),
        (
            {"not_finite": 2},
            {},
            "output_changed",
            "2 of 60 tensors of an engine have values that are",
        ),
        ({"changed_trained": 47}, {}, "update_without_effect", "1 of 48 weights that had to change"),
        ({}, {"changed_trained": 46}, "update_without_effect", "2 of 48 weights that had to change"),
        ({"tokens": "first"}, {}, "update_without_effect", "the same greedy tokens as before"),
    ],
    ids=[
        "as it should be",
        "tokens",
        "checksum",
        "no numbers",
        "a weight stays",
        "stays on the way back",
        "tokens stay",
    ],
)
def test_an_update_that_is_none_makes_a_launch_invalid(
    second: dict[str, Any], first: dict[str, Any], code: str | None, words: str
):
    loaded = proof("first", changed=False)
    second = {**second, **({"tokens": loaded.tokens} if second.get("tokens") else {})}
    after = [proof("second", changed=True), proof("first", changed=True)]
    proofs = [loaded, *(one.model_copy(update=more) for one, more in zip(after, (second, first), strict=True))]
    found = not_finite_flags(proofs) or cycle_flags(*proofs)
    assert [(flag.code, flag.severity) for flag in found] == ([(code, "invalid")] if code else [])
    assert all(words in flag.sentence for flag in found)
