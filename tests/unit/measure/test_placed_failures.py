"""A rank that fails is named with its cause, whoever notices first; and what proofs of engines say."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from rollout_bench.contracts.cycles import Agreement, WeightProof
from rollout_bench.contracts.placed_steps import PlacedStep, RankStep, Span
from rollout_bench.contracts.record import Flag, Iteration
from rollout_bench.measure.launch.flags import placement_flags
from rollout_bench.measure.placed.controller import RankProcess, Ranks
from rollout_bench.measure.placed.words import RankFailed, RankWaits, Word
from rollout_bench.measure.server.stream import ServingFailed


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    found: list[subprocess.Popen[bytes]] = []
    yield found
    for process in found:
        process.kill()
        process.wait()


def rank(processes: list[subprocess.Popen[bytes]], number: int, program: str, *words: Word) -> RankProcess:
    """Return a rank that runs a shell's `program`, in which W<n> writes the n-th of `words`."""
    reading, writing = os.pipe()
    for place, word in enumerate(words):
        program = program.replace(f"W{place}", f"printf '%s\\n' '{word.model_dump_json()}' >&{writing}")
    process = subprocess.Popen(["bash", "-c", program], pass_fds=[writing], stdin=subprocess.DEVNULL)
    os.close(writing)
    processes.append(process)
    return RankProcess(number, f"rank {number}", process, reading)


LOST = RankFailed(exception="PeerLostError: Connection closed by peer", bereft=True)


def failure(ranks: list[RankProcess]) -> ServingFailed:
    with pytest.raises(ServingFailed) as failed:
        Ranks(ranks).told_all(RankWaits)
    return failed.value


def test_the_failed_rank_is_named_not_the_one_losing_it(processes: list[subprocess.Popen[bytes]]):
    out = RankFailed(exception="OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB")
    found = failure([rank(processes, 0, "W0; sleep 60", LOST), rank(processes, 1, "sleep 0.5; W0; sleep 60", out)])
    assert found.category == "out_of_memory"
    assert found.cause.startswith("rank 1: the GPU ran out of memory")


def test_a_rank_that_is_killed_is_named_at_once(processes: list[subprocess.Popen[bytes]]):
    began = time.monotonic()
    found = failure([rank(processes, 0, "sleep 200"), rank(processes, 1, "kill -9 $$")])
    assert (found.category, found.cause) == ("crash", "rank 1: its process was ended by signal 9")
    assert time.monotonic() - began < 60


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
