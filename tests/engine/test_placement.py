"""Placements on real engines: ranks that generate and train in turn or do one of both, and one that is killed."""

import functools
import itertools
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import SETTINGS, TINY_MODEL, Launching, own_flags, tiny_spec
from safetensors.torch import save_file

from rollout_bench.contracts.record import Iteration
from rollout_bench.contracts.side_files import read_sequences
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import sequences_path
from rollout_bench.modes.placement.settings import PlacementSpec
from rollout_bench.modes.placement.trainer import model_of

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a core for each rank"),
]

WAYS: dict[str, dict[str, Any]] = {
    "colocated": {"where": "colocated"},
    "ahead": {"where": "server", "generators": 1, "overlap": 1},
    "sharded": {"where": "colocated", "strategy": "fsdp2"},
    "over HTTP": {"where": "server", "generators": 1, "through": "server", "waves": 2},
}
SERVER = {"where": "server", "generators": 1}
SHARDED = {"tensor_parallel_size": 2}
"""Engine arguments of that way, whose two ranks are one engine and one sharded trainer."""
SEQUENCES, TOKENS = 4 * 2, 4 * 2 * (130 + 16)
"""Of a step: with the load of `launching.SETTINGS`."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint with real weights: engine and trainer must begin with the same."""
    folder = tmp_path_factory.mktemp("checkpoint")
    (folder / "config.json").write_text(json.dumps(TINY_MODEL))
    drawn = model_of(str(folder), has_weights=False, trust_remote_code=False, device=torch.device("cpu"))
    save_file({name: tensor.detach() for name, tensor in drawn.named_parameters()}, folder / "model.safetensors")
    return folder


def placed_spec(way: str, measuring: dict[str, int] | None = None, **placement: Any) -> Spec:
    args = {name: value for name, value in SETTINGS["engine"]["args"].items() if name != "load_format"}
    args |= SHARDED if way == "sharded" else {}
    # greedy: what is generated first says whether the same work is done, wherever engines and trainer live
    spec = tiny_spec(engine={"args": args}, workload={"temperature": 0.0}, measuring=measuring or {})
    settings = {"devices": 2, **WAYS.get(way, SERVER), **placement}
    return spec.model_copy(update={"mode": "placement", "placement": PlacementSpec.model_validate(settings)})


@pytest.fixture(scope="module")
def placed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Launching]:
    """Return the launch of a way, made once."""

    @functools.cache
    def launch(way: str) -> Launching:
        launch = Launching(tmp_path_factory.mktemp(way), placed_spec(way), model=model)
        assert launch.finish() == 0, launch.said + launch.log_text()[-4000:]
        return launch

    return launch


@pytest.mark.parametrize("way", WAYS)
def test_every_placement_of_engines_and_trainer_does_the_same_work(way: str, placed: Callable[[str], Launching]):
    record = placed(way).record()
    linears = 2 * (128 * 256 + 128 * 128 + 3 * 128 * 256)  # query, key and value; output; MLP
    for iteration in record.iterations:
        step = iteration.placed
        assert (iteration.sequences, iteration.output_tokens) == (SEQUENCES, SEQUENCES * 16)
        assert sum(rank.sequences for rank in step.ranks) == SEQUENCES
        assert sum(rank.output_tokens for rank in step.ranks) == iteration.output_tokens
        waits = way == "ahead" and iteration.index == 0  # there is no step before the first
        trained = [(rank.trained_sequences, rank.trained_tokens) for rank in step.ranks]
        assert tuple(map(sum, zip(*trained, strict=True))) == ((0, 0) if waits else (SEQUENCES, TOKENS))
        losses = [rank.loss for rank in step.ranks if rank.loss is not None]
        assert len(losses) == (0 if waits else 2 if WAYS[way]["where"] == "colocated" else 1)
        assert all(math.isfinite(loss) for loss in losses)
        assert step.gathered_bytes == 4 * (TOKENS + 4 * SEQUENCES)
        assert step.update_bytes == 2 * (2 * 2048 * 128 + linears + 2 * (2 * 128 + 2 * 32) + 128)
    rows = read_sequences(sequences_path(placed(way).out), record)
    assert [(r.iteration, r.prompt, r.sample) for r in rows] == list(itertools.product(range(3), range(4), range(2)))
    # how far apart engines begin depends on what else the processor does
    assert {flag.code for flag in own_flags(record)} <= {"replicas_apart"}


@pytest.mark.parametrize("way", WAYS)
def test_each_rank_does_one_thing_at_a_time(way: str, placed: Callable[[str], Launching]):
    generates, trains = {"generate", "gather", "update", "reset"}, {"gather", "train", "optimize", "update"}
    both = generates | trains | ({"reduce"} if way != "sharded" else set())  # whose gradients are added up by layer
    for iteration in placed(way).record().iterations[1:]:
        step = iteration.placed
        spans = [[(span.began_s, span.began_s + span.elapsed_s) for span in rank.spans] for rank in step.ranks]
        assert all(a[1] <= b[0] + 1e-6 for of_rank in spans for a, b in itertools.pairwise([(0.0, 0.0), *of_rank]))
        assert max(end for of_rank in spans for _, end in of_rank) == pytest.approx(step.elapsed_s, abs=1e-6)
        activities = [{span.activity for span in rank.spans} for rank in step.ranks]
        assert activities == ([both] * 2 if WAYS[way]["where"] == "colocated" else [generates, trains])
        generated = [span for rank in step.ranks for span in rank.spans if span.activity == "generate"]
        whole_s = max(span.began_s + span.elapsed_s for span in generated)
        if "waves" in WAYS[way]:  # whose training in between is not generation
            first, second = generated
            assert second.began_s > first.began_s + first.elapsed_s
            whole_s = first.elapsed_s + second.elapsed_s
        assert iteration.elapsed_s == pytest.approx(whole_s, abs=0.1)


def test_a_trainer_ahead_trains_while_the_next_step_is_generated(placed: Callable[[str], Launching]):
    def began(iteration: Iteration) -> float:
        return next(span.began_s for span in iteration.placed.ranks[1].spans if span.activity == "train")

    assert all(began(it) < it.elapsed_s / 2 for it in placed("ahead").record().iterations[1:])
    assert all(began(it) >= it.elapsed_s for it in placed("colocated").record().iterations)


@pytest.mark.parametrize("way", WAYS)
def test_after_the_last_step_all_engines_have_the_trainers_weights(way: str, placed: Callable[[str], Launching]):
    proofs = placed(way).record().weight_proofs or []
    loaded, after = proofs[: len(proofs) // 2], proofs[len(proofs) // 2 :]
    assert len(loaded) == len(after) == (2 if WAYS[way]["where"] == "colocated" else 1)
    for found in (loaded, after):
        assert len({proof.tokens for proof in found}) == 1
        assert len({proof.checksum for proof in found}) == (2 if way == "sharded" else 1)
    assert [(proof.not_finite, proof.lost) for proof in proofs] == [(0, 0)] * len(proofs)
    assert [proof.changed_trained for proof in after] == [proof.trained for proof in after]
    assert {proof.stale_prefix_tokens for proof in loaded} == {None}
    assert {proof.stale_prefix_tokens for proof in after} == {0}


def test_lost_weights_are_found(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("UPDATE_THAT_LOSES", "4")  # read by forked/faulty_placements.py
    launch = Launching(tmp_path, placed_spec("server"), model=model)
    assert launch.finish() == 0, launch.said + launch.log_text()[-4000:]
    *_, proof = launch.record().weight_proofs or []
    assert proof.lost == 2 * 11 + 3  # the bucket that got lost had all
    assert not launch.record().valid
    flags = {flag.code: flag.sentence for flag in launch.record().validity if flag.severity == "invalid"}
    assert flags["weights_differ"].startswith("After the last step, 25 of the trainer's tensors had not")


def first_digests(launch: Launching) -> list[str | None]:
    rows = read_sequences(sequences_path(launch.out), launch.record())
    return [row.digest for row in rows if row.iteration == 0]


def test_all_begin_with_the_weights_of_the_checkpoint(placed: Callable[[str], Launching]):
    assert first_digests(placed("colocated")) == first_digests(placed("ahead"))


def test_two_ranks_generate_as_one_whole_engine_does(placed: Callable[[str], Launching]):
    sharded, whole = placed("sharded").record(), placed("colocated").record()
    assert (sharded.startup.replicas, sharded.engine.resolved["tensor_parallel_size"]) == (None, 2)
    assert sharded.engine.weights_bytes_by_dtype.linear == whole.engine.weights_bytes_by_dtype.linear
    for iteration in sharded.iterations:
        assert iteration.replicas is None
        assert [(rank.sequences, rank.output_tokens) for rank in iteration.placed.ranks] == [(4, 64)] * 2
    first = first_digests(placed("colocated"))
    for way in ("sharded", "over HTTP"):
        same = [one == other for one, other in zip(first, first_digests(placed(way)), strict=True)]
        assert sum(same) >= len(same) / 2  # sums over shards or smaller batches are rounded otherwise: a close choice
