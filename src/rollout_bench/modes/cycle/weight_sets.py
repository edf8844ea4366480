"""A trainer's weights: the bf16 tensors of a synthetic model, and their form in the engine's format."""

import time
from collections.abc import Callable, Iterable, Mapping

import torch

from rollout_bench.checkpoints.formats import TensorSpec, tensors
from rollout_bench.checkpoints.shapes import ResolvedShape
from rollout_bench.checkpoints.weights import encode, random_weights

Named = list[tuple[str, torch.Tensor]]
"""Names and tensors, in the order of a checkpoint."""


def specs_of(model: ResolvedShape) -> dict[str, TensorSpec]:
    """Return the tensor specs of a model by name, in the order of a checkpoint."""
    return {spec.name: spec for spec in tensors(model)}


def drawn(specs: Mapping[str, TensorSpec], model: ResolvedShape) -> Named:
    """Return the bf16 weights of a model on the host; `specs` are its tensor specs by name."""
    return list(zip(specs, random_weights(specs.values(), model), strict=True))


class Encoder:
    """Converts bf16 tensors to the engine's format, and measures the time.

    Args:
        specs: the model's tensor specs by name; unknown tensors are not quantized.
        weights_format: the engine's format.
        wait: waits until the device has finished, so that times cover the work.
    """

    def __init__(self, specs: Mapping[str, TensorSpec], weights_format: str, wait: Callable[[], None]) -> None:
        self._specs, self._wait = specs, wait
        self._format = weights_format
        self.elapsed_s = 0.0

    @property
    def quantizes(self) -> bool:
        """Whether the format changes any tensor."""
        return self._format != "bf16"

    def stored(self, name: str, tensor: torch.Tensor) -> Iterable[tuple[str, torch.Tensor]]:
        """Return the stored tensors, with names, for one bf16 tensor."""
        spec = self._specs.get(name)
        if spec is None or not self.quantizes:
            return [(name, tensor)]
        self._wait()
        began = time.monotonic()
        stored = encode(spec, tensor, self._format).items()
        self._wait()
        self.elapsed_s += time.monotonic() - began
        return stored


def synchronize(device: torch.device) -> None:
    """Wait until a device has finished its work; a CPU has nothing to wait for."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize(device)
