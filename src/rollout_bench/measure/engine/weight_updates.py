"""New weights for the engine, by each `UpdateMethod`: through vLLM's own `reload_weights`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from rollout_bench.checkpoints.build import build_checkpoint
from rollout_bench.checkpoints.shapes import ResolvedShape
from rollout_bench.contracts.cycles import UpdateMethod, Weights
from rollout_bench.contracts.spec import Spec
from rollout_bench.core.errors import UserError
from rollout_bench.measure.server.stream import ServingFailed

REFUSALS = re.compile(
    r"NotImplementedError|\bnot (?:yet )?support|\bunsupported\b|can ?not be (?:reloaded|updated)|Model reloading with",
    re.IGNORECASE,
)
"""What exceptions of vLLM's say whose reason is the checkpoint's format."""


DEVICE_ERROR = "CUDA error"
"""Exceptions that have it are of the device, whatever else they say."""


class WeightUpdates(Protocol):
    """A way in which new weights reach the engine."""

    held_bytes: int
    """Bytes of the trainer's tensors in the memory of the engine's processes on the host, of all ranks."""

    def prepare(self) -> None:
        """Make both sets of weights; nobody times it.

        Raises:
            ServingFailed: they can't be made.
        """

    def stage(self, weights: Weights) -> None:
        """Have the trainer hold these weights where it will hand them over from; nobody times it."""

    def apply(self, weights: Weights) -> dict[str, Any]:
        """Give the engine these weights; return the fields of `WeightUpdate` that are known of it, without load_s.

        Raises:
            ServingFailed: vLLM refuses to update this format.
        """


class Reload:
    """vLLM reads a checkpoint of its own format from disk; the second lies beside the first.

    Args:
        llm: vLLM's.
        spec: what is measured.
        model: folder of the first weights, or hub id.
    """

    def __init__(self, llm: Any, spec: Spec, model: str) -> None:
        self._llm, self._spec = llm, spec
        self._folders: dict[Weights, str] = {"first": model, "second": f"{model.rstrip('/')}-other"}
        self.held_bytes = 0

    def prepare(self) -> None:
        """Build the second checkpoint: the first one's shape and format, other weights."""
        shape = self._spec.model.synthetic
        if shape is None:
            raise ServingFailed(
                "no_second_checkpoint",
                f"model {self._spec.model.name} has named weights, and update: reload needs a second checkpoint",
                "take update: in_process",
            )
        try:
            build_checkpoint(
                ResolvedShape(**shape).other_weights(), self._spec.quant.weights_format, Path(self._folders["second"])
            )
        except UserError as error:
            raise ServingFailed("no_second_checkpoint", error.problem, error.remedy) from error

    def stage(self, weights: Weights) -> None:
        """Do nothing: they lie on the disk."""

    def apply(self, weights: Weights) -> dict[str, Any]:
        """Have vLLM read the checkpoint of these weights."""
        _told_refusals(self._llm, self._spec, "rollout_bench_reload", {"folder": self._folders[weights]})
        return {}


class InProcess:
    """The trainer's bf16 tensors are handed over in the worker's process, and quantized there; see `TrainerStandIn`.

    Args:
        llm: vLLM's.
        spec: what is measured.
        model: folder of the first weights, or hub id.
    """

    def __init__(self, llm: Any, spec: Spec, model: str) -> None:
        self._llm, self._spec = llm, spec
        self.held_bytes = 0

    def prepare(self) -> None:
        """Make the trainer's tensors on each rank."""
        spec = self._spec
        if spec.model.synthetic is None and spec.quant.weights_format != "bf16":
            raise ServingFailed(
                "not_updatable",
                f"model {spec.model.name} has named weights of format {spec.quant.weights_format}, and nobody has the "
                "bf16 weights that they were made from",
                "measure a quantization that the engine makes of bf16 weights itself",
            )
        what = {"shape": spec.model.synthetic, "weights_format": spec.quant.weights_format}
        self.held_bytes = sum(self._llm.collective_rpc("rollout_bench_trainer", kwargs=what))

    def stage(self, weights: Weights) -> None:
        """Do nothing: they lie in the host's memory."""

    def apply(self, weights: Weights) -> dict[str, Any]:
        """Hand the trainer's tensors over; what the slowest rank needed is what is told."""
        ranks = _told_refusals(self._llm, self._spec, "rollout_bench_update", {"weights": weights})
        slowest: dict[str, Any] = max(ranks, key=lambda rank: rank["transfer_s"] + rank["quantize_s"])
        quantizes = self._spec.quant.weights_format != "bf16"
        return slowest if quantizes else {**slowest, "quantize_s": None}


METHODS: Mapping[UpdateMethod, type[Reload] | type[InProcess]] = {
    "reload": Reload,
    "in_process": InProcess,
}
"""Each method of `CycleSpec.update`."""


def _told_refusals(llm: Any, spec: Spec, method: str, arguments: dict[str, Any]) -> list[Any]:
    """Return what each rank returned; raise `ServingFailed` where vLLM says that it can't update this format."""
    try:
        answers: list[Any] = llm.collective_rpc(method, kwargs=arguments)
    except Exception as error:  # of the worker, as vLLM hands it on: any type
        said = f"{type(error).__name__}: {error}"
        if not REFUSALS.search(said) or DEVICE_ERROR in said:
            raise
        raise ServingFailed(
            "not_updatable",
            f"vLLM can't update the weights of {spec.quant.name} (format {spec.quant.weights_format}): {said}",
            "measure another quantization in mode cycle, or another version of vLLM; a rollout engine can't be trained "
            "with this one",
        ) from error
    return answers
