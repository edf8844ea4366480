"""Groups of ranks exchange sequences, gradients and weights: each rank is a thread here."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest
import torch

from rollout_bench.modes.placement.groups import PeerLostError, RankGroup

Found = TypeVar("Found")


def together(folder: Path, ranks: int, work: Callable[[RankGroup, int], Found]) -> list[Found]:
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

    for found in together(tmp_path, 2, work):
        assert [tensor.tolist() for tensor in found] == [[[3.0] * 3] * 2, [21.0] * 4, [4.0]]


@pytest.mark.parametrize("most_bytes", [1, 30, 1000])
def test_weights_reach_all_engines_unchanged_however_they_are_bundled(tmp_path: Path, most_bytes: int):
    sent = {
        "a": torch.randn(3, 5).bfloat16(),
        "b": torch.randn(4).bfloat16(),
        "c": torch.randn(2, 2),
        "d": torch.tensor(7.0),
    }
    parts = [(name, tensor.dtype, tensor.shape) for name, tensor in sent.items()]

    def work(group: RankGroup, rank: int) -> dict[str, torch.Tensor]:
        if rank == 0:
            group.send(list(sent.values()), most_bytes)
            return {}
        return dict(group.receive(parts, most_bytes))

    _, *engines = together(tmp_path, 3, work)
    for found in engines:
        assert found.keys() == sent.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in sent.items())


def test_a_member_that_goes_away_is_told_as_lost(tmp_path: Path):
    def work(group: RankGroup, rank: int) -> None:
        if rank == 1:
            return  # its group goes with it
        group.barrier()

    with pytest.raises(PeerLostError):
        together(tmp_path, 2, work)
