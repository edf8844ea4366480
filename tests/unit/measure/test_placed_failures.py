"""What proofs of engines say."""

from typing import Any

import pytest
import synthetic_cycles

from rollout_bench.contracts.weights import WeightProof
from rollout_bench.measure.launch.flags import not_finite_flags
from rollout_bench.modes.placement.collector import placement_flags


def proof(checksum: str = "a", tokens: str = "b", **more: Any) -> WeightProof:
    found = synthetic_cycles.proof("second", changed=True, lost=0)
    return found.model_copy(update={"checksum": checksum * 16, "tokens": tokens * 16, **more})


def codes(*proofs: WeightProof, trained: bool = True, shards: int = 1) -> list[str]:
    return [flag.code for flag in placement_flags(proofs, shards, trained=trained)]


@pytest.mark.parametrize("other", [proof(checksum="c"), proof(tokens="c")])
def test_engines_that_are_unlike_each_other_are_flagged(other: WeightProof):
    assert codes(proof(), other) == ["update_without_effect"]


def test_shards_differ_within_an_engine_and_agree_across_engines():
    both = [proof(checksum="a"), proof(checksum="c")]
    assert codes(*both, *both, shards=2) == []
    assert codes(*both, *reversed(both), shards=2) == ["update_without_effect"]
    assert codes(*both, proof(checksum="a"), proof(checksum="c", tokens="d"), shards=2) == ["update_without_effect"]
    assert codes(proof(), proof(checksum="c", changed_trained=47), shards=2) == ["update_without_effect"]


def test_weights_that_stayed_are_flagged_but_where_nothing_was_trained():
    assert codes(proof(changed_trained=47)) == ["update_without_effect"]
    assert codes(proof(changed_trained=0), trained=False) == []


def test_weights_that_are_no_numbers_are_flagged():
    (flag,) = not_finite_flags([proof(), proof(not_finite=1)])
    assert flag.code == "output_changed"


def test_an_engine_with_other_weights_than_the_trainer_is_flagged():
    (flag,) = placement_flags([proof(), proof(lost=3, first_lost="model.norm.weight")], 1, trained=True)
    assert (flag.code, flag.severity) == ("weights_differ", "invalid")
    assert flag.sentence == (
        "After the last step, 3 of the trainer's tensors had not reached an engine as they are; the first is "
        "model.norm.weight."
    )
