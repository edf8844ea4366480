"""A stand-in for the trainer inside vLLM's worker: it holds the trainer's weights.

The tensors are bf16, lie in host memory, and have a checkpoint's names. Each rank holds the whole model, like a rank of
verl after gathering all parameters; vLLM's loaders take each rank's part.
"""

import inspect
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypedDict

import torch
from safetensors.torch import load_file

from rollout_bench.checkpoints.formats import tensors
from rollout_bench.checkpoints.shapes import ResolvedShape
from rollout_bench.checkpoints.weights import encode, random_weights
from rollout_bench.contracts.weights import Weights
from rollout_bench.measure.engine.buckets import BUCKET_BYTES, buckets
from rollout_bench.measure.probes.weight_proofs import WeightProofs

Named = list[tuple[str, torch.Tensor]]
"""Names and tensors, in the order of a checkpoint."""


class WeightTransfer(TypedDict):
    """The transfer of an update on one rank: times in seconds, bytes of the trainer's tensors, number of buckets."""

    transfer_s: float
    quantize_s: float
    size_bytes: int
    buckets: int


class TrainerStandIn(WeightProofs):
    """Worker extension of vLLM for a cycle: proofs, and the trainer's weights."""

    add_lora: Any  # the worker's own, as the others here
    remove_lora: Any
    model_runner: Any
    device: Any

    def rollout_bench_trainer(self, shape: dict[str, Any] | None, weights_format: str) -> int:
        """Make both sets of the trainer's weights; return their bytes.

        Args:
            shape: shape of a synthetic model. None: the loaded checkpoint is read, and its tensors are
                `shifted_rows` for the second set.
            weights_format: the engine's format.
        """
        self._format = weights_format
        self._specs = {} if shape is None else {spec.name: spec for spec in tensors(ResolvedShape(**shape))}
        if shape is None:
            first = self._read()
            second = [(name, shifted_rows(tensor)) for name, tensor in first]
        else:
            model = ResolvedShape(**shape)
            first, second = (
                list(zip(self._specs, random_weights(self._specs.values(), each), strict=True))
                for each in (model, model.other_weights())
            )
        self._sets: dict[Weights, Named] = {"first": first, "second": second}
        return sum(tensor.nbytes for of in self._sets.values() for _, tensor in of)

    def rollout_bench_update(self, weights: Weights) -> WeightTransfer:
        """Transfer the trainer's weights to vLLM in buckets of `BUCKET_BYTES`; return times and sizes."""
        took = WeightTransfer(transfer_s=0.0, quantize_s=0.0, size_bytes=0, buckets=0)
        self._reload(weights_iterator=self._handed_over(weights, took))
        return took

    def rollout_bench_reload(self, folder: str) -> None:
        """Let vLLM read the checkpoint in `folder`."""
        self._reload(weights_path=folder)

    def rollout_bench_adapters(self, folders: dict[Weights, str]) -> int:
        """Read both adapters of the trainer, each in PEFT's format in a folder; return their bytes."""
        self._adapters = {
            weights: load_file(Path(folder) / "adapter_model.safetensors") for weights, folder in folders.items()
        }
        return sum(tensor.nbytes for held in self._adapters.values() for tensor in held.values())

    def rollout_bench_new_adapter(self, weights: Weights, name: str, number: int, folder: str) -> None:
        """Exchange the adapter `number` for the trainer's tensors; of `folder`, vLLM reads only the adapter's config.

        verl replaces the same method of vLLM's, which loads an adapter from its files.
        """
        from vllm.lora.request import LoRARequest

        manager, tensors = self.model_runner.lora_manager, self._adapters[weights]
        of_files = manager._lora_model_cls

        def from_memory(*_: Any, **more: Any) -> Any:
            takes = inspect.signature(of_files.from_lora_tensors).parameters
            given = {key: value for key, value in more.items() if key in takes}
            copies = {name: tensor.clone() for name, tensor in tensors.items()}  # vLLM scales them in place
            return of_files.from_lora_tensors(tensors=copies, **given)

        self.remove_lora(number)
        manager._lora_model_cls = SimpleNamespace(from_local_checkpoint=from_memory)
        try:
            self.add_lora(LoRARequest(name, number, folder))
        finally:
            manager._lora_model_cls = of_files
        synchronize(self.device)

    def _reload(self, **what: Any) -> None:
        """Reload, and wait for the device; include an exception's type in its text, because processes lose the type."""
        try:
            self.reload_weights(**what)
        except Exception as error:
            raise RuntimeError(f"{type(error).__name__}: {error}") from error
        synchronize(self.device)

    def _handed_over(self, weights: Weights, took: WeightTransfer) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the tensors in the engine's format, made from copies on the engine's device; fill `took`."""
        named = self._sets[weights]
        # each tensor is copied on its own, so those of a bucket may differ in type
        for places in buckets([("", tensor.nbytes) for _, tensor in named], BUCKET_BYTES):
            bucket = [named[place] for place in places]
            synchronize(self.device)  # vLLM's work on the previous bucket does not count here
            began = time.monotonic()
            copies = [(name, tensor.to(self.device, copy=True)) for name, tensor in bucket]
            synchronize(self.device)
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
        synchronize(self.device)
        began = time.monotonic()
        stored = encode(spec, tensor, self._format).items()
        synchronize(self.device)
        took["quantize_s"] += time.monotonic() - began
        return stored

    def _read(self) -> Named:
        """Return the tensors of the loaded checkpoint, read by vLLM's own loader."""
        return [(name, tensor.cpu().clone()) for name, tensor in self.checkpoint()]

    def rollout_bench_device_free(self) -> int | None:
        """Return the free memory of this rank's device, in bytes; None on cpu."""
        if self.device.type == "cpu":
            return None
        synchronize(self.device)
        return int(getattr(torch, self.device.type).mem_get_info(self.device)[0])


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
