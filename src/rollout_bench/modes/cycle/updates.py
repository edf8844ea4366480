"""Updates the engine's weights, or its adapter, by each `UpdateMethod`, through vLLM's own functions."""

import base64
import itertools
import pickle
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch

from rollout_bench.checkpoints.build import build_checkpoint
from rollout_bench.checkpoints.shapes import ResolvedShape
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.weights import Weights
from rollout_bench.core.errors import MeasuringFailed, UserError
from rollout_bench.measure.engine.buckets import BUCKET_BYTES
from rollout_bench.measure.engine.lora import adapter_request
from rollout_bench.measure.engine.vllm import LoadedEngine
from rollout_bench.modes.cycle.settings import CycleSpec, UpdateMethod
from rollout_bench.modes.cycle.trainer import TrainerWeights, nothing_taken

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

    arguments: ClassVar[Mapping[str, Any]] = {}
    """Arguments that the engine needs for it."""

    environment: ClassVar[Mapping[str, str]] = {}
    """Variables that the engine needs for it."""

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
        with self._refusals_told():
            answers: list[Any] = self._llm.collective_rpc(method, kwargs=arguments)
        return answers

    @contextmanager
    def _refusals_told(self) -> Iterator[None]:
        try:
            yield
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
        return self._known(slowest)

    def _known(self, took: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of `WeightUpdate` for a transfer; only other formats than bf16 are quantized."""
        return {**took, **({"quantize_s": None} if self._spec.quant.weights_format == "bf16" else {})}


class Ipc(InProcess):
    """vLLM's own weight transfer, in its four phases: CUDA IPC from a trainer in this process, beside the engine's."""

    arguments: ClassVar = {"weight_transfer_config": {"backend": "ipc"}}
    environment: ClassVar = {"VLLM_ALLOW_INSECURE_SERIALIZATION": "1"}  # vLLM pickles the handles

    def prepare(self) -> None:
        """Make the trainer's tensors in this process, and connect it to the engine."""
        try:
            from vllm.distributed.weight_transfer import ipc_engine
        except ImportError as error:
            lacks = error.name if error.name and not error.name.startswith("vllm") else ""  # 0.23 imports ray
            raise MeasuringFailed(
                "engine_lacks_cycle",
                f"{self._spec.engine.name} {self._spec.engine.version} lacks the trainer's side of weight transfer: "
                f"{error}",
                f"set cycle.update: in_process, or {f'install {lacks}' if lacks else 'measure with a newer vLLM'}",
            ) from error
        shape = self._spec.model.synthetic
        assert shape is not None, "planning sees to it"
        held = TrainerWeights.drawn(ResolvedShape(**shape), self._spec.quant.weights_format)
        self.held_bytes = held.held_bytes
        self._weights: Weights = "first"
        self._took = nothing_taken()
        device = torch.device("cuda", torch.accelerator.current_device_index())
        self._send = sender(
            ipc_engine,
            WeightSyncClient(self._llm),
            lambda: held.handed_over(self._weights, device, self._took),
        )

    def apply(self, weights: Weights) -> dict[str, Any]:
        """Let vLLM's sender do the update; return the times."""
        self._weights, self._took = weights, nothing_taken()
        with self._refusals_told():
            self._send()
        torch.accelerator.empty_cache()  # as verl: the engine shares the device
        return self._known(self._took)


def sender(
    ipc_engine: Any, client: "WeightSyncClient", handed_over: Callable[[], Iterator[tuple[str, torch.Tensor]]]
) -> Callable[[], None]:
    """Connect the engine to vLLM's sender over CUDA IPC; return a function that sends all tensors, in buckets.

    Args:
        ipc_engine: vLLM's module.
        client: reaches the engine.
        handed_over: begins to hand the tensors over.
    """
    how = {"packed": True, "packed_buffer_size_bytes": BUCKET_BYTES}
    if hasattr(ipc_engine, "IPCTrainerInitInfo"):
        from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource
        from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory

        class Source(WeightSource):  # type: ignore[misc]
            def metadata(self) -> Any:
                return [ParamMeta(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in self]

            def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
                return handed_over()

        trainer = WeightTransferTrainerFactory.trainer_init(
            ipc_engine.IPCTrainerInitInfo(rank=0, **how), client=client, source=Source()
        )
        send: Callable[[], None] = trainer.send_weights
        return send
    client.init_weight_transfer_engine({})

    def send_between() -> None:  # vLLM 0.23, whose sender does only the third phase
        client.start_weight_update()
        given = {**how, "send_mode": lambda info: client.update_weights(dict(vars(info)))}
        ipc_engine.IPCWeightTransferEngine.trainer_send_weights(handed_over(), given)
        client.finish_weight_update()

    return send_between


class WeightSyncClient:
    """The four phases of vLLM's weight transfer through an `LLM`; vLLM has clients over HTTP and Ray.

    Args:
        llm: vLLM's `LLM`.
    """

    def __init__(self, llm: Any) -> None:
        self._llm = llm

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Connect the engine to the trainer."""
        self._llm.init_weight_transfer_engine({"init_info": init_info})

    def start_weight_update(self) -> None:
        """Begin an update."""
        self._llm.start_weight_update()

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Let the engine take a bucket; a handle goes to its process as over HTTP."""
        handles = base64.b64encode(pickle.dumps(update_info["ipc_handles"])).decode()
        self._llm.update_weights({"update_info": {**update_info, "ipc_handles": None, "ipc_handles_pickled": handles}})

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """End an update."""
        self._llm.finish_weight_update()


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


METHODS: Mapping[tuple[UpdateMethod, bool], type[WeightUpdates]] = {
    ("reload", False): Reload,
    ("reload", True): NewAdapter,
    ("in_process", False): InProcess,
    ("in_process", True): AdapterInMemory,
    ("ipc", False): Ipc,
}
"""Value of `CycleSpec.update`, and whether the engine has an adapter -> class of the update."""


def updates_of(spec: Spec) -> type[WeightUpdates]:
    """Return what brings new weights to an engine, or a new adapter if it has one."""
    return METHODS[spec.of(CycleSpec).update, spec.lora is not None]
