"""Updates the engine's weights, or its adapter, by each `UpdateMethod`, through vLLM's own functions."""

import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rollout_bench.checkpoints.build import build_checkpoint
from rollout_bench.checkpoints.shapes import ResolvedShape
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.weights import Weights
from rollout_bench.core.errors import MeasuringFailed, UserError
from rollout_bench.measure.engine.lora import adapter_request
from rollout_bench.measure.engine.vllm import LoadedEngine
from rollout_bench.modes.cycle.settings import CycleSpec, UpdateMethod

REFUSALS = re.compile(
    r"NotImplementedError|\bnot (?:yet )?support|\bunsupported\b|can ?not be (?:reloaded|updated)|Model reloading with",
    re.IGNORECASE,
)
"""Texts of vLLM exceptions that reject the checkpoint's format."""


DEVICE_ERROR = "CUDA error"
"""Text of exceptions from the device, which are never rejections of a format."""


class WeightUpdates(ABC):
    """A method of bringing new weights to the engine.

    Args:
        engine: the engine.
        spec: the spec of the launch.
        model: folder of the first weights, or hub id.
    """

    clears_prefix_cache = True
    """Whether the trainer clears the prefix cache after the update."""

    def __init__(self, engine: LoadedEngine, spec: Spec, model: str) -> None:
        self._engine, self._llm, self._spec, self._model = engine, engine.llm, spec, model
        self.held_bytes = 0
        """Bytes of the trainer's tensors in host memory, in the engine processes of all ranks."""

    @abstractmethod
    def prepare(self) -> None:
        """Make both sets of weights; not timed.

        Raises:
            MeasuringFailed: if they cannot be made.
        """

    @abstractmethod
    def apply(self, weights: Weights) -> dict[str, Any]:
        """Give the engine these weights; return the known fields of `WeightUpdate`, without load_s.

        Raises:
            MeasuringFailed: if vLLM cannot update this format.
        """

    def _call_ranks(self, method: str, **arguments: Any) -> list[Any]:
        """Return the result of each rank; raise `MeasuringFailed` if vLLM cannot update this format."""
        try:
            answers: list[Any] = self._llm.collective_rpc(method, kwargs=arguments)
        except Exception as error:  # from the worker through vLLM, of any type
            quant, message = self._spec.quant, f"{type(error).__name__}: {error}"
            if not REFUSALS.search(message) or DEVICE_ERROR in message:
                raise
            raise MeasuringFailed(
                "not_updatable",
                f"vLLM can't update the weights of {quant.name} (format {quant.weights_format}): {message}",
                "measure another quantization in mode cycle, or another version of vLLM; a rollout engine can't be "
                "trained with this one",
            ) from error
        return answers


class Reload(WeightUpdates):
    """vLLM reads a checkpoint in its own format from disk; the second checkpoint lies beside the first."""

    def _folder(self, weights: Weights) -> str:
        return self._model if weights == "first" else f"{self._model.rstrip('/')}-other"

    def prepare(self) -> None:
        """Build the second checkpoint, with the shape and format of the first and different weights."""
        shape = self._spec.model.synthetic
        if shape is None:
            raise MeasuringFailed(
                "no_second_checkpoint",
                f"model {self._spec.model.name} has named weights, and update: reload needs a second checkpoint",
                "take update: in_process",
            )
        try:
            build_checkpoint(
                ResolvedShape(**shape).other_weights(), self._spec.quant.weights_format, Path(self._folder("second"))
            )
        except UserError as error:
            raise MeasuringFailed("no_second_checkpoint", error.problem, error.remedy) from error

    def apply(self, weights: Weights) -> dict[str, Any]:
        """Let vLLM read the checkpoint of these weights."""
        self._call_ranks("rollout_bench_reload", folder=self._folder(weights))
        return {}


class InProcess(WeightUpdates):
    """The trainer's bf16 tensors are passed on and quantized in the worker's process; see `TrainerStandIn`."""

    def prepare(self) -> None:
        """Make the trainer's tensors on each rank."""
        spec = self._spec
        if spec.model.synthetic is None and spec.quant.weights_format != "bf16":
            raise MeasuringFailed(
                "not_updatable",
                f"model {spec.model.name} has named weights of format {spec.quant.weights_format}, and nobody has the "
                "bf16 weights that they were made from",
                "measure a quantization that the engine makes of bf16 weights itself",
            )
        what = {"shape": spec.model.synthetic, "weights_format": spec.quant.weights_format}
        self.held_bytes = sum(self._llm.collective_rpc("rollout_bench_trainer", kwargs=what))

    def apply(self, weights: Weights) -> dict[str, Any]:
        """Pass the trainer's tensors on; return the times of the slowest rank."""
        ranks = self._call_ranks("rollout_bench_update", weights=weights)
        slowest: dict[str, Any] = max(ranks, key=lambda rank: rank["transfer_s"] + rank["quantize_s"])
        quantizes = self._spec.quant.weights_format != "bf16"
        return slowest if quantizes else {**slowest, "quantize_s": None}


class NewAdapter(WeightUpdates):
    """vLLM reads an adapter from its folder under a name that it never had, as TRL's AsyncGRPO has it do."""

    clears_prefix_cache = False  # its keys have the adapter's name

    def prepare(self) -> None:
        """Write the second adapter; the engine has the first."""
        first = self._engine.adapter
        second, sizes = adapter_request(self._spec, self._model, "second")
        self._given = {"first": first, "second": second}
        self._bytes, self._names = sizes["bytes"], itertools.count(first.lora_int_id + 1)

    def apply(self, weights: Weights) -> dict[str, Any]:
        """Let vLLM read the adapter, and forget the one before."""
        number, before = next(self._names), self._engine.adapter
        given = type(before)(f"{before.lora_name}-{number}", number, self._given[weights].lora_path)
        self._llm.llm_engine.remove_lora(before.lora_int_id)
        self._llm.llm_engine.add_lora(given)
        self._engine.adapter = given
        return {"size_bytes": self._bytes}


class AdapterInMemory(NewAdapter):
    """Each worker exchanges the adapter of one name for tensors in its memory, as verl does."""

    clears_prefix_cache = True

    def prepare(self) -> None:
        """Read both adapters on each rank."""
        super().prepare()
        folders = {weights: given.lora_path for weights, given in self._given.items()}
        self.held_bytes = sum(self._llm.collective_rpc("rollout_bench_adapters", kwargs={"folders": folders}))

    def apply(self, weights: Weights) -> dict[str, Any]:
        """Hand the tensors over."""
        given = self._given[weights]
        named = {"name": self._engine.adapter.lora_name, "number": self._engine.adapter.lora_int_id}
        self._call_ranks("rollout_bench_new_adapter", weights=weights, folder=given.lora_path, **named)
        return {"size_bytes": self._bytes}


METHODS: Mapping[UpdateMethod, tuple[type[WeightUpdates], type[WeightUpdates]]] = {
    "reload": (Reload, NewAdapter),
    "in_process": (InProcess, AdapterInMemory),
}
"""Value of `CycleSpec.update` -> class of an update of all weights, and of one of an adapter."""


def updates_of(engine: LoadedEngine, spec: Spec, model: str) -> WeightUpdates:
    """Return what brings new weights to an engine, or a new adapter if it has one."""
    return METHODS[spec.of(CycleSpec).update][spec.lora is not None](engine, spec, model)
