"""A stand-in for the trainer inside vLLM's worker: it holds the trainer's weights, and hands them over there."""

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file

from rollout_bench.checkpoints.shapes import ResolvedShape
from rollout_bench.contracts.weights import Weights
from rollout_bench.measure.probes.weight_proofs import WeightProofs
from rollout_bench.modes.cycle.trainer import (
    Named,
    TrainerWeights,
    WeightTransfer,
    nothing_taken,
    shifted_rows,
    synchronize,
)


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
        if shape is None:
            first = self._read()
            second = [(name, shifted_rows(tensor)) for name, tensor in first]
            self._trainer = TrainerWeights(first, second, weights_format)
        else:
            self._trainer = TrainerWeights.drawn(ResolvedShape(**shape), weights_format)
        return self._trainer.held_bytes

    def rollout_bench_update(self, weights: Weights) -> WeightTransfer:
        """Transfer the trainer's weights to vLLM; return times and sizes."""
        took = nothing_taken()
        self._reload(weights_iterator=self._trainer.handed_over(weights, self.device, took))
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

    def _read(self) -> Named:
        """Return the tensors of the loaded checkpoint, read by vLLM's own loader."""
        return [(name, tensor.cpu().clone()) for name, tensor in self.checkpoint()]

    def rollout_bench_device_free(self) -> int | None:
        """Return the free memory of this rank's device, in bytes; None on cpu."""
        if self.device.type == "cpu":
            return None
        synchronize(self.device)
        return int(getattr(torch, self.device.type).mem_get_info(self.device)[0])
