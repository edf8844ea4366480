"""The trainer's tensors: what is handed over is what a checkpoint of the engine's format holds, bucket by bucket."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from rollout_bench.checkpoints.build import build_checkpoint
from rollout_bench.checkpoints.formats import tensors
from rollout_bench.checkpoints.shapes import SyntheticModel
from rollout_bench.modes.cycle.extension import TrainerStandIn, buckets, rolled

SHAPE = SyntheticModel(
    preset="qwen3-tiny", shape={"num_hidden_layers": 1, "tie_word_embeddings": False}, seed=7
).resolve()


class Worker(TrainerStandIn):
    """Takes what is handed over, as vLLM's worker does."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.loaded: dict[str, torch.Tensor] = {}

    def reload_weights(self, weights_iterator: Any) -> None:
        self.loaded = dict(weights_iterator)


@pytest.mark.parametrize(
    "weights_format", ["bf16", "compressed-tensors-w8a8", "compressed-tensors-w8a16", "compressed-tensors-w4a16"]
)
def test_the_trainer_hands_over_a_checkpoint_of_that_format(weights_format: str, tmp_path: Path):
    worker = Worker()
    held = worker.rollout_bench_trainer(SHAPE.model_dump(), weights_format)
    one_set = 2 * sum(spec.elements for spec in tensors(SHAPE))
    assert held == 2 * one_set
    for weights, shape in (("first", SHAPE), ("second", SHAPE.other_weights())):
        build_checkpoint(shape, weights_format, tmp_path / weights)
        stored = load_file(tmp_path / weights / "model.safetensors")
        took = worker.rollout_bench_update(weights)  # type: ignore[arg-type]
        assert worker.loaded.keys() == stored.keys()
        assert all(torch.equal(worker.loaded[name], stored[name]) for name in stored)
        assert took["size_bytes"] == one_set
        assert (took["quantize_s"] > 0) == (weights_format != "bf16")
        assert took["transfer_s"] > 0


@given(st.lists(st.integers(0, 50)), st.integers(1, 60))
def test_buckets_keep_the_order_and_exceed_no_limit_needlessly(sizes: list[int], limit: int):
    named = [(str(number), torch.zeros(size, dtype=torch.int8)) for number, size in enumerate(sizes)]
    made = list(buckets(named, limit))
    assert [name for bucket in made for name, _ in bucket] == [name for name, _ in named]
    held = [sum(tensor.nbytes for _, tensor in bucket) for bucket in made]
    assert all(size <= limit or len(bucket) == 1 for size, bucket in zip(held, made, strict=True))
    assert all(size + following[0][1].nbytes > limit for size, following in zip(held, made[1:], strict=False))


def test_the_second_set_of_named_weights_has_all_tensors_rolled():
    matrix, vector = torch.arange(6).view(3, 2), torch.arange(3)
    assert rolled(matrix).tolist() == [[4, 5], [0, 1], [2, 3]]
    assert rolled(vector).tolist() == [2, 0, 1]
    assert rolled(torch.tensor(3)).item() == 3
