"""What proofs of engines say."""

from __future__ import annotations

import pytest

from rollout_bench.contracts.cycles import Agreement, WeightProof
from rollout_bench.contracts.placed_steps import PlacedStep, RankStep, Span
from rollout_bench.contracts.record import Flag, Iteration
from rollout_bench.measure.launch.flags import placement_flags

AGREES = Agreement(tensors=25, not_received=0, found=20, not_loaded=0)


def proof(
    checksum: str = "a",
    tokens: str = "b",
    changed_trained: int = 9,
    not_finite: int = 0,
    trainer: Agreement | None = AGREES,
) -> WeightProof:
    return WeightProof(
        weights="second",
        tensors=20,
        trained=9,
        changed=changed_trained,
        changed_trained=changed_trained,
        not_finite=not_finite,
        checksum=checksum * 16,
        tokens=tokens * 16,
        trainer=trainer,
    )


def flags(*proofs: WeightProof, loss: float | None = 0.5, shards: int = 1) -> list[Flag]:
    span = Span(activity="update", began_s=0, elapsed_s=1)
    steps = [
        RankStep(rank=n, spans=[span], sequences=1, output_tokens=1, trained_sequences=1, trained_tokens=2, loss=loss)
        for n in range(2)
    ]
    placed = PlacedStep(elapsed_s=1, ranks=steps, gathered_bytes=1, update_bytes=1, proofs=list(proofs))
    iteration = Iteration(
        index=0, warmup=False, elapsed_s=1, requests=1, sequences=1, prompt_tokens=1, output_tokens=1, placed=placed
    )
    return placement_flags([iteration], shards)


def codes(*proofs: WeightProof, loss: float | None = 0.5, shards: int = 1) -> list[str]:
    return [flag.code for flag in flags(*proofs, loss=loss, shards=shards)]


@pytest.mark.parametrize("other", [proof(checksum="c"), proof(tokens="c")])
def test_engines_that_are_unlike_each_other_are_flagged(other: WeightProof):
    assert codes(proof(), other) == ["update_without_effect"]


def test_shards_differ_within_an_engine_and_agree_across_engines():
    both = [proof(checksum="a"), proof(checksum="c")]
    assert codes(*both, *both, shards=2) == []
    assert codes(*both, *reversed(both), shards=2) == ["update_without_effect"]
    assert codes(*both, proof(checksum="a"), proof(checksum="c", tokens="d"), shards=2) == ["update_without_effect"]
    assert codes(proof(), proof(checksum="c", changed_trained=8), shards=2) == ["update_without_effect"]


def test_weights_that_stayed_are_flagged_but_where_nothing_was_trained():
    assert codes(proof(changed_trained=8)) == ["update_without_effect"]
    assert codes(proof(changed_trained=0), loss=None) == []


def test_weights_that_are_no_numbers_are_flagged():
    assert codes(proof(), proof(not_finite=1)) == ["output_changed"]


def test_an_engine_with_other_weights_than_the_trainer_is_flagged():
    lost = AGREES.model_copy(update={"not_received": 3, "not_loaded": 2, "first": "model.norm.weight"})
    (flag,) = flags(proof(), proof(trainer=lost))
    assert (flag.code, flag.severity) == ("weights_differ", "invalid")
    assert flag.sentence == (
        "After step 0, 3 of the trainer's 25 tensors had not reached an engine as they are, and 2 of 20 were others "
        "where it keeps them; the first is model.norm.weight."
    )
