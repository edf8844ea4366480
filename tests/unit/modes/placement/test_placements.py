"""Placements: what ranks share out and exchange, what a step is told as, and what is refused or flagged."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
import synthetic_records
import torch
from launching import tiny_spec

from rollout_bench.contracts.record import ReplicaPass, SequenceRow
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.weights import WeightProof
from rollout_bench.core.errors import MeasuringFailed
from rollout_bench.measure.launch.protocol import IterationDone
from rollout_bench.measure.launch.replicas import merged_iteration
from rollout_bench.modes.placement.collector import placement_flags
from rollout_bench.modes.placement.events import StepOver
from rollout_bench.modes.placement.groups import RankGroup
from rollout_bench.modes.placement.hooks import MEETING, joint_pass, surroundings
from rollout_bench.modes.placement.record import RankStep, Span
from rollout_bench.modes.placement.settings import PlacementSpec
from rollout_bench.modes.placement.shares import share
from rollout_bench.modes.placement.sleep import EngineSleep


@pytest.mark.parametrize(("count", "parts"), [(8, 2), (7, 3), (2, 4), (0, 2), (64, 5)])
def test_shares_are_disjoint_complete_and_as_large_as_each_other(count: int, parts: int):
    shares = [share(count, part, parts) for part in range(parts)]
    assert [number for one in shares for number in one] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def placed_spec(placement: dict[str, object] | None = None, **changes: dict[str, object]) -> Spec:
    settings = {"where": "colocated", "devices": 2, **(placement or {})}
    return tiny_spec(**changes).model_copy(
        update={"mode": "placement", "placement": PlacementSpec.model_validate(settings)}
    )


FOLDER = Path("/tmp/ranks-abc")


SERVER = {"where": "server", "devices": 5, "generators": 4}
TWO_SHARDS = {"engine": {"args": {"tensor_parallel_size": 2}}}


@pytest.mark.parametrize(
    ("spec", "visible", "devices"),
    [
        (placed_spec(), None, ["0", "1"]),
        (placed_spec(), "3,GPU-a", ["3", "GPU-a"]),
        (placed_spec(SERVER, **TWO_SHARDS), "4,5,6,7,8", ["4,5", "4,5", "6,7", "6,7", "8"]),
    ],
)
def test_each_rank_sees_the_devices_of_its_engine(
    monkeypatch: pytest.MonkeyPatch, spec: Spec, visible: str | None, devices: list[str]
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    spec = spec.model_copy(update={"platform": "cuda"})
    found = [surroundings(spec, rank, FOLDER)[0]["CUDA_VISIBLE_DEVICES"] for rank in range(len(devices))]
    assert found == devices


def test_ranks_that_generate_meet_and_those_that_train():
    spec = placed_spec(SERVER, **TWO_SHARDS).model_copy(update={"platform": "cuda"})
    found = [surroundings(spec, rank, FOLDER)[0] for rank in range(5)]
    assert [each["LOCAL_RANK"] for each in found] == ["0", "1", "0", "1", "0"]
    assert [each["RANK"] for each in found] == ["0", "1", "2", "3", "0"]
    assert [each["WORLD_SIZE"] for each in found] == ["4", "4", "4", "4", "1"]
    meetings = [each[MEETING] for each in found]
    assert len(set(meetings[:4])) == 1
    assert meetings[4] not in meetings[:4]
    assert all(meeting.rpartition("/")[2].startswith("ranks-abc-world-") for meeting in meetings)


def over(rank: int, released: float, spans: list[tuple[str, float, float]], tokens: int = 0) -> StepOver:
    part = ReplicaPass(start_offset_s=0, elapsed_s=2.0 + rank, requests=1, sequences=1, prompt_tokens=3,
                       cached_prompt_tokens=0, output_tokens=tokens)  # fmt: skip
    done = IterationDone(iteration=merged_iteration(4, False, [part]), sequences=[], flags=[], began=released)
    step = RankStep(
        rank=rank,
        spans=[Span.model_validate({"activity": a, "began_s": b, "elapsed_s": e}) for a, b, e in spans],
        sequences=1 if tokens else 0,
        output_tokens=tokens,
        trained_sequences=1,
        trained_tokens=7,
    )
    return StepOver(
        released=released,
        step=step,
        done=done if tokens else None,
        gathered_bytes=10,
        update_bytes=20 if tokens else 0,
    )


def test_a_step_lasts_from_first_release_to_last_rank():
    done = joint_pass([over(0, 100.0, [("generate", 100.0, 2.0), ("train", 103.0, 4.0)], 5),
                     over(1, 100.5, [("generate", 100.5, 3.0), ("reset", 110.0, 1.0)], 6)], placed_spec())  # fmt: skip
    placed = done.iteration.placed
    assert placed.elapsed_s == 11.0
    assert [[span.began_s for span in rank.spans] for rank in placed.ranks] == [[0.0, 3.0], [0.5, 10.0]]
    assert done.iteration.elapsed_s == 3.5  # the second engine began half a second later, and took 3 s
    assert (done.iteration.output_tokens, done.iteration.index) == (11, 4)
    assert (placed.gathered_bytes, placed.update_bytes) == (20, 20)


def told_by_all(*digests: str) -> list[StepOver]:
    """Return the steps of ranks, each of which generated two sequences with all others of its engine."""
    found = []
    for rank, digest in enumerate(digests):
        one = over(rank, 100.0, [("generate", 100.0, 2.0 + rank)], 6)
        rows = [
            SequenceRow(
                iteration=4,
                prompt=0,
                sample=sample,
                prompt_tokens=3,
                output_tokens=3,
                finish_reason="length",
                digest=f"{digest}{sample}" * 4,
            )
            for sample in range(2)
        ]
        found.append(one.model_copy(update={"done": one.done.model_copy(update={"sequences": rows})}))
    return found


def test_an_engines_tokens_count_once_until_its_last_rank_ends():
    spec = placed_spec({"devices": 4}, engine={"args": {"tensor_parallel_size": 2}})
    done = joint_pass(told_by_all("a", "a", "b", "b"), spec)
    assert (done.iteration.sequences, done.iteration.output_tokens, len(done.sequences)) == (2, 12, 4)
    assert [part.elapsed_s for part in done.iteration.replicas or []] == [3.0, 5.0]
    assert ([row.replica for row in done.sequences], len(done.iteration.placed.ranks)) == ([0, 0, 1, 1], 4)


def test_an_engine_whose_ranks_generate_different_sequences_is_no_measurement():
    spec = placed_spec({"devices": 4}, engine={"args": {"tensor_parallel_size": 2}})
    with pytest.raises(MeasuringFailed, match=r"^iteration 4: ranks 2 to 3 are one engine") as refused:
        joint_pass(told_by_all("a", "a", "b", "c"), spec)
    assert refused.value.category == "ranks_disagree"


def proof(checksum: str = "a", tokens: str = "b", **more: Any) -> WeightProof:
    found = synthetic_records.proof("second", changed=True, lost=0)
    return found.model_copy(update={"checksum": checksum * 16, "tokens": tokens * 16, **more})


BOTH = [proof(checksum="a"), proof(checksum="c")]
"""Of an engine with two shards."""


ALIKE = [proof()] * 4
"""Of the start: all ranks generate the same tokens."""

OTHER = [proof(tokens=each) for each in "bbcc"]
"""Of the start: two engines of two shards each, on devices that choose other tokens with the same weights."""


@pytest.mark.parametrize(
    ("proofs", "shards", "trained", "flagged"),
    [
        ([proof(), proof()], 1, True, False),
        ([proof(), proof(checksum="c")], 1, True, True),
        ([proof(), proof(tokens="c")], 1, True, True),
        ([*BOTH, *BOTH], 2, True, False),
        ([*BOTH, *reversed(BOTH)], 2, True, True),
        ([*BOTH, proof(checksum="a"), proof(checksum="c", tokens="d")], 2, True, True),
        ([proof(), proof(checksum="c", changed_trained=47)], 2, True, True),
        ([proof(changed_trained=47)], 1, True, True),
        ([proof(changed_trained=0)], 1, False, False),
    ],
)
def test_engines_unlike_each_other_or_unchanged_are_flagged(
    proofs: list[WeightProof], shards: int, trained: bool, flagged: bool
):
    codes = [flag.code for flag in placement_flags(ALIKE[: len(proofs)], proofs, shards, trained=trained)]
    assert codes == ["update_without_effect"] * flagged


@pytest.mark.parametrize(("tokens", "flagged"), [("ddee", False), ("ddef", True)])
def test_engines_unlike_from_the_start_may_choose_other_tokens(tokens: str, flagged: bool):
    after = [proof(tokens=each) for each in tokens]
    assert bool(placement_flags(OTHER, after, 2, trained=True)) == flagged


def test_an_engine_with_other_weights_than_the_trainer_is_flagged():
    after = [proof(), proof(lost=3, first_lost="model.norm.weight")]
    (flag,) = placement_flags(ALIKE[:2], after, 1, trained=True)
    assert (flag.code, flag.severity) == ("weights_differ", "invalid")
    assert flag.sentence == (
        "After the last step, 3 of the trainer's tensors had not reached an engine as they are; the first is "
        "model.norm.weight."
    )


VLLM_SAYS = "CUDA Error: out of memory at /workspace/csrc/cumem_allocator.cpp:119"
"""As vLLM's allocator raises it, in a RuntimeError."""


@pytest.mark.parametrize("error", [RuntimeError(VLLM_SAYS), torch.OutOfMemoryError("CUDA out of memory. Tried to")])
@pytest.mark.parametrize(("tag", "what"), [("kv_cache", "KV cache"), ("weights", "weights")])
def test_an_engine_without_room_to_wake_fails_by_name(error: Exception, tag: str, what: str):
    def wake_up(tags: list[str]) -> None:
        raise error

    with pytest.raises(MeasuringFailed, match=f"no room for the {what}") as failed:
        EngineSleep(SimpleNamespace(wake_up=wake_up), 1, torch.device("cpu")).wake(tag)
    assert failed.value.category == "waking_out_of_memory"
    assert "lower gpu_memory_utilization" in failed.value.remedy


Found = TypeVar("Found")


def on_each_rank(folder: Path, ranks: int, work: Callable[[RankGroup, int], Found]) -> list[Found]:
    """Return what `work` returns on each rank of a group."""

    def one(rank: int) -> Found:
        return work(RankGroup("group", range(ranks), rank, folder, torch.device("cpu"), 60), rank)

    with ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(one, range(ranks)))


@pytest.mark.parametrize("most_bytes", [1, 20, 1000])
def test_gradients_add_up_in_place_whatever_travels_together(tmp_path: Path, most_bytes: int):
    def work(group: RankGroup, rank: int) -> list[torch.Tensor]:
        own = [torch.full((2, 3), 1.0 + rank), torch.full((4,), 10.0 + rank).bfloat16(), torch.full((1,), 2.0)]
        group.add_up(own, most_bytes)
        return own

    for found in on_each_rank(tmp_path, 2, work):
        assert [tensor.tolist() for tensor in found] == [[[3.0] * 3] * 2, [21.0] * 4, [4.0]]


@pytest.mark.parametrize("most_bytes", [1, 30, 1000])
def test_weights_reach_all_engines_unchanged_however_they_are_bundled(tmp_path: Path, most_bytes: int):
    sent = {
        "a": torch.randn(3, 5).bfloat16(),
        "b": torch.randn(4).bfloat16(),
        "c": torch.randn(2, 2),
        "d": torch.tensor(7.0),
    }
    parts = [(name, str(tensor.dtype).removeprefix("torch."), tensor.shape) for name, tensor in sent.items()]

    def work(group: RankGroup, rank: int) -> dict[str, torch.Tensor]:
        if rank == 0:
            group.send(sent.values(), parts, most_bytes)
            return {}
        return dict(group.receive(parts, most_bytes))

    _, *engines = on_each_rank(tmp_path, 3, work)
    for found in engines:
        assert found.keys() == sent.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in sent.items())


def test_a_member_that_goes_away_is_told_as_lost(tmp_path: Path):
    def work(group: RankGroup, rank: int) -> None:
        if rank == 1:
            return  # its group goes with it
        group.barrier()

    with pytest.raises(MeasuringFailed, match="another rank was lost"):
        on_each_rank(tmp_path, 2, work)
