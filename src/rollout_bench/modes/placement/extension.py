"""Loads new weights in a worker, in its rank's process or behind an AsyncLLM in a separate process.

This worker extension of vLLM receives weights directly, without another process between.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from rollout_bench.measure.probes.weight_proofs import WeightProofs, is_noting, proof_of
from rollout_bench.modes.placement.groups import Part, RankGroup

Tensors = Iterable[tuple[str, torch.Tensor]]


class WeightTaker(WeightProofs):
    """Worker extension of vLLM: proofs, and loading of new weights."""

    def rollout_bench_join(self, name: str, ranks: list[int], rank: int, folder: str, timeout_s: float) -> None:
        """Join the group that transfers weights, as member `rank`: see `RankGroup`."""
        device: torch.device = self.device  # type: ignore[attr-defined]
        self._rollout_bench_group = RankGroup(name, ranks, rank, Path(folder), device, timeout_s)

    def rollout_bench_receive(self, parts: list[Part], most_bytes: int) -> dict[str, str]:
        """Load the weights from the group's first member; see `rollout_bench_take`."""
        return self.rollout_bench_take(self._rollout_bench_group.receive(parts, most_bytes))

    def rollout_bench_take(self, weights: Tensors) -> dict[str, str]:
        """Load `weights` through vLLM's own worker; return name -> checksum of each, if checksums are taken now."""
        received: dict[str, str] = {}
        self.reload_weights(weights_iterator=_noted(weights, received))
        return received


def _noted(weights: Tensors, received: dict[str, str]) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in weights:
        if is_noting():
            received[name] = proof_of(tensor).checksum
        yield name, tensor
