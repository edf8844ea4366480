"""A trainer's weights: what a synthetic model has in bf16, and what the engine's format stores for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import cast

import torch

from rollout_bench.checkpoints.formats import TensorSpec, WeightsFormat, tensors
from rollout_bench.checkpoints.shapes import ResolvedShape
from rollout_bench.checkpoints.weights import encode, random_weights

Named = list[tuple[str, torch.Tensor]]
"""Tensors by their names in a checkpoint, in its order."""


def specs_of(model: ResolvedShape) -> dict[str, TensorSpec]:
    """Return the tensors of a model by their names, in the order of a checkpoint."""
    return {spec.name: spec for spec in tensors(model)}


def drawn(specs: Mapping[str, TensorSpec], model: ResolvedShape) -> Named:
    """Return the bf16 weights of a model on the host; `specs` are its tensors by their names."""
    return list(zip(specs, random_weights(specs.values(), model), strict=True))


class Encoder:
    """Makes of bf16 tensors what the engine's format stores, and notes how long that took.

    Args:
        specs: the model's tensors by their names; of those that are not among them nothing is quantized.
        weights_format: the engine's.
        wait: returns once the device has done all that it was given, so that a time is that of the work.
    """

    def __init__(self, specs: Mapping[str, TensorSpec], weights_format: str, wait: Callable[[], None]) -> None:
        self._specs, self._wait = specs, wait
        self._format = cast("WeightsFormat", weights_format)
        self.elapsed_s = 0.0

    @property
    def quantizes(self) -> bool:
        """Whether it makes anything else of a tensor than the tensor itself."""
        return self._format != "bf16"

    def stored(self, name: str, tensor: torch.Tensor) -> Iterable[tuple[str, torch.Tensor]]:
        """Return what is stored for one bf16 tensor."""
        spec = self._specs.get(name)
        if spec is None or not self.quantizes:
            return [(name, tensor)]
        self._wait()
        began = time.monotonic()
        stored = [(item.name, values) for item, values in encode(spec, tensor, self._format)]
        self._wait()
        self.elapsed_s += time.monotonic() - began
        return stored


def synchronize(device: torch.device) -> None:
    """Return once a device has done all that it was given; a CPU has, always."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize(device)
