"""What vLLM mixes into its worker where a trainer's process gives it weights: calls of its own weight transfer.

vLLM's `LLM` has the same calls. These also take handles of CUDA IPC without VLLM_ALLOW_INSECURE_SERIALIZATION, which
would be a difference between settings that are compared, and return once the device is done.
"""

from __future__ import annotations

import base64
import dataclasses
import importlib
import pickle
import sys
from types import ModuleType
from typing import Any, TypedDict

from rollout_bench.measure.probes.trainer_stand_in import TrainerStandIn
from rollout_bench.measure.transfer.weight_sets import synchronize


class ReceivingRank(TypedDict):
    """A rank that gets weights: its device's number, and which fields its engine's two messages have."""

    device: int
    init_fields: list[str]
    update_fields: list[str]


class TransferTarget(TrainerStandIn):
    """Takes weights from a trainer's process through vLLM's weight transfer engine."""

    weight_transfer_engine: Any  # these five are the worker's own
    init_weight_transfer_engine: Any
    start_weight_update: Any
    update_weights: Any
    finish_weight_update: Any

    def rollout_bench_target(self) -> ReceivingRank:
        """Return what a trainer has to know of this rank."""
        engine = self.weight_transfer_engine
        init, update = (dataclasses.fields(of) for of in (engine.init_info_cls, engine.update_info_cls))
        return ReceivingRank(
            device=self.device.index or 0,
            init_fields=[field.name for field in init],
            update_fields=[field.name for field in update],
        )

    def rollout_bench_meet(self, info: dict[str, Any]) -> None:
        """Prepare the transfer; with NCCL, join the trainer's group."""
        self._named(self.init_weight_transfer_engine, info)

    def rollout_bench_begin_transfer(self) -> None:
        """Make the model ready for new weights."""
        self._named(self.start_weight_update)

    def rollout_bench_receive(self, info: dict[str, Any], handles: str | None = None) -> None:
        """Take weights; `handles` are those of a buffer that the trainer's process filled."""
        # the pickle is our own trainer's, which this launch started
        more = {} if handles is None else {"ipc_handles": pickle.loads(base64.b64decode(handles))}
        self._named(self.update_weights, {**info, **more})

    def rollout_bench_end_transfer(self) -> None:
        """Put all weights into their places, and wait until the device is done."""
        self._named(self.finish_weight_update)
        synchronize(self.device)

    @staticmethod
    def _named(call: Any, *arguments: Any) -> None:
        """Call; the type of an exception is lost between processes, so name it."""
        try:
            call(*arguments)
        except Exception as error:
            raise RuntimeError(f"{type(error).__name__}: {error}") from error


IPC_ENGINE = "vllm.distributed.weight_transfer.ipc_engine"


def import_without_ray(name: str) -> None:
    """Import a module for whose import alone ray is needed, where ray is not installed.

    The IPC engine of vLLM 0.23 imports ray for a way of sending that nothing here takes, and vLLM does not install it.
    """
    try:
        importlib.import_module(name)
    except ImportError as error:
        if error.name != "ray":
            return  # vLLM says so itself once it makes the engine
        sys.modules["ray"] = ModuleType("ray")
        try:
            importlib.import_module(name)
        finally:
            del sys.modules["ray"]


# A worker imports this by its name, and has vLLM by then.
if "vllm" in sys.modules:
    import_without_ray(IPC_ENGINE)
