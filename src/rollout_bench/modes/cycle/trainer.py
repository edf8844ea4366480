"""A stand-in for the trainer: both sets of its weights, which it hands over in the engine's format.

The tensors are bf16, lie in host memory, and have a checkpoint's names. Each rank holds the whole model, like a rank of
verl after gathering all parameters; vLLM's loaders take each rank's part.
"""

import time
from collections.abc import Iterable, Iterator
from typing import TypedDict

import torch

from rollout_bench.checkpoints.formats import tensors
from rollout_bench.checkpoints.shapes import ResolvedShape
from rollout_bench.checkpoints.weights import encode, random_weights
from rollout_bench.contracts.weights import Weights
from rollout_bench.measure.engine.buckets import BUCKET_BYTES, buckets

Named = list[tuple[str, torch.Tensor]]
"""Names and tensors, in the order of a checkpoint."""


class WeightTransfer(TypedDict):
    """The transfer of an update on one rank: times in seconds, bytes of the trainer's tensors, number of buckets."""

    transfer_s: float
    quantize_s: float
    size_bytes: int
    buckets: int


class TrainerWeights:
    """Both sets of the trainer's weights.

    Args:
        first: the weights that the engine begins with.
        second: others.
        weights_format: the engine's format.
        shape: shape of a synthetic model; without one, tensors are handed over as they are.
    """

    def __init__(self, first: Named, second: Named, weights_format: str, shape: ResolvedShape | None = None) -> None:
        self._sets: dict[Weights, Named] = {"first": first, "second": second}
        self._format = weights_format
        self._specs = {} if shape is None else {spec.name: spec for spec in tensors(shape)}

    @classmethod
    def drawn(cls, shape: ResolvedShape, weights_format: str) -> "TrainerWeights":
        """Return those of a synthetic model."""
        specs = list(tensors(shape))
        first, second = (
            list(zip([spec.name for spec in specs], random_weights(specs, each), strict=True))
            for each in (shape, shape.other_weights())
        )
        return cls(first, second, weights_format, shape)

    @property
    def held_bytes(self) -> int:
        """Bytes of both sets."""
        return sum(tensor.nbytes for of in self._sets.values() for _, tensor in of)

    def handed_over(
        self, weights: Weights, device: torch.device, took: WeightTransfer
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the tensors in the engine's format, made from copies on a device, in buckets of `BUCKET_BYTES`.

        Args:
            weights: the set.
            device: the engine's device.
            took: is filled.
        """
        named = self._sets[weights]
        # each tensor is copied on its own, so those of a bucket may differ in type
        for places in buckets([("", tensor.nbytes) for _, tensor in named], BUCKET_BYTES):
            bucket = [named[place] for place in places]
            synchronize(device)  # vLLM's work on the previous bucket does not count here
            began = time.monotonic()
            copies = [(name, tensor.to(device, copy=True)) for name, tensor in bucket]
            synchronize(device)
            took["transfer_s"] += time.monotonic() - began
            took["size_bytes"] += sum(tensor.nbytes for _, tensor in bucket)
            took["buckets"] += 1
            while copies:
                yield from self._stored(*copies.pop(0), took)

    def _stored(self, name: str, tensor: torch.Tensor, took: WeightTransfer) -> Iterable[tuple[str, torch.Tensor]]:
        """Return the stored tensors, with names, for one bf16 tensor; unknown tensors are not quantized."""
        spec = self._specs.get(name)
        if spec is None or self._format == "bf16":
            return [(name, tensor)]
        synchronize(tensor.device)
        began = time.monotonic()
        stored = encode(spec, tensor, self._format).items()
        synchronize(tensor.device)
        took["quantize_s"] += time.monotonic() - began
        return stored


def nothing_taken() -> WeightTransfer:
    """Return a transfer that has not begun."""
    return WeightTransfer(transfer_s=0.0, quantize_s=0.0, size_bytes=0, buckets=0)


def shifted_rows(tensor: torch.Tensor) -> torch.Tensor:
    """Return `tensor` with its rows, or values, shifted by one; if this changes nothing, plus 1/4.

    Norms that are all ones and biases that are all zero would not change by a shift. A scalar stays as it is.
    """
    if not tensor.dim():
        return tensor
    moved = tensor.roll(1, 0)
    return moved + 0.25 if moved.is_floating_point() and torch.equal(moved, tensor) else moved


def synchronize(device: torch.device) -> None:
    """Wait until a device has finished its work; a CPU has nothing to wait for."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize(device)
