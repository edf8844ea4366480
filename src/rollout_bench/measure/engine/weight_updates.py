"""New weights for the engine, by each `UpdateMethod`: through vLLM's own `reload_weights`, or its weight transfer."""

from __future__ import annotations

import re
import socket
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from rollout_bench.checkpoints.build import build_checkpoint
from rollout_bench.checkpoints.shapes import ResolvedShape
from rollout_bench.contracts.cycles import CycleSpec, UpdateMethod, Weights
from rollout_bench.contracts.spec import Spec
from rollout_bench.core.errors import UserError
from rollout_bench.measure.server.stream import ServingFailed
from rollout_bench.measure.transfer.senders import BUFFERS
from rollout_bench.measure.transfer.trainer_link import TrainerLink
from rollout_bench.measure.transfer.transfer_words import (
    Bucket,
    Made,
    Meet,
    Met,
    Next,
    Send,
    Sent,
    Stage,
    Staged,
    TrainerJob,
)
from rollout_bench.measure.transfer.weight_sets import announced

MEGABYTE = 10**6

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

    @property
    def apart(self) -> Collection[int]:
        """Ids of processes that are the trainer's, and none of the engine's."""

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
        # `-second` was built without other norms by earlier versions
        self.apart: Collection[int] = ()
        self._folders: dict[Weights, str] = {"first": model, "second": f"{model.rstrip('/')}-other"}
        self.held_bytes = 0

    def prepare(self) -> None:
        """Build the second checkpoint: the first one's shape and format, other weights."""
        shape = self._spec.model.synthetic
        if _settings(self._spec).unchanged:
            return
        if shape is None:
            raise ServingFailed(
                "no_second_checkpoint",
                f"model {self._spec.model.name} has named weights, and update: reload needs a second checkpoint",
                "set change: false under cycle, or take update: in_process",
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
        self.apart: Collection[int] = ()

    def prepare(self) -> None:
        """Make the trainer's tensors on each rank."""
        spec = self._spec
        if spec.model.synthetic is None and spec.quant.weights_format != "bf16":
            raise ServingFailed(
                "not_updatable",
                f"model {spec.model.name} has named weights of format {spec.quant.weights_format}, and nobody has the "
                "bf16 weights that they were made from",
                "measure a quantization that the engine makes of bf16 weights itself, or take update: reload with "
                "change: false",
            )
        what = {
            "shape": spec.model.synthetic,
            "weights_format": spec.quant.weights_format,
            "second": not _settings(spec).unchanged,
        }
        self.held_bytes = sum(self._llm.collective_rpc("rollout_bench_trainer", kwargs=what))

    def stage(self, weights: Weights) -> None:
        """Do nothing: they lie in the host's memory."""

    def apply(self, weights: Weights) -> dict[str, Any]:
        """Hand the trainer's tensors over; what the slowest rank needed is what is told."""
        bucket_bytes = (_settings(self._spec).bucket_mb or 1) * MEGABYTE
        how = {"weights": weights, "bucket_bytes": bucket_bytes}
        ranks = _told_refusals(self._llm, self._spec, "rollout_bench_update", how)
        slowest: dict[str, Any] = max(ranks, key=lambda rank: rank["transfer_s"] + rank["quantize_s"])
        quantizes = self._spec.quant.weights_format != "bf16"
        return slowest if quantizes else {**slowest, "quantize_s": None}


LOCALHOST = "127.0.0.1"
"""Where trainer and engine are."""

TARGET = "rollout_bench.measure.probes.transfer_target.TransferTarget"
"""What vLLM mixes into its workers, so that they get weights from a trainer's process."""

TRANSFERS = ("ipc", "nccl")
"""Methods of `CycleSpec.update` that are engines of vLLM's weight transfer."""

CALLS = ("init_weight_transfer_engine", "start_weight_update", "update_weights", "finish_weight_update")
"""Of vLLM's `LLM`: the weight transfer that 0.23 and 0.32 have."""


PACKED = {"packed": True, "packed_num_buffers": BUFFERS}
"""How buckets are made, as engine and trainer both have to know it with nccl."""


class Transfer:
    """The trainer is a process of its own, which gives its weights to the engine through vLLM's weight transfer.

    It starts once the engine is loaded, so that the engine finds its device free. With ipc it has the engine's own
    devices, with nccl the one after them.

    Args:
        llm: vLLM's.
        spec: what is measured.
        model: folder of the first weights, or hub id.
    """

    def __init__(self, llm: Any, spec: Spec, model: str) -> None:
        self._llm, self._spec = llm, spec
        self._trainer: TrainerLink | None = None
        self.held_bytes = 0
        self._info: dict[str, Any] = {}

    @property
    def apart(self) -> Collection[int]:
        """The trainer's process: to walk through all of its memory takes seconds."""
        return () if self._trainer is None else (self._trainer.process.pid,)

    @property
    def trainer(self) -> TrainerLink:
        """The trainer's process."""
        assert self._trainer is not None, "preparing starts it"
        return self._trainer

    def prepare(self) -> None:
        """Start the trainer, which makes both sets of weights, and have engine and trainer meet."""
        spec, settings = self._spec, _settings(self._spec)
        if spec.model.synthetic is None:
            raise ServingFailed(
                "not_updatable",
                f"model {spec.model.name} has named weights, and the trainer's process of update: {settings.update} "
                "makes those of synthetic models alone",
                "take update: in_process",
            )
        shape = ResolvedShape(**spec.model.synthetic)
        targets = self._llm.collective_rpc("rollout_bench_target")
        engines = sorted({int(target["device"]) for target in targets})
        ipc = settings.update == "ipc"
        wire: dict[str, Any] = {"packed": True} if ipc else {**PACKED, "packed_buffer_size_bytes": self._bucket_bytes}
        job = TrainerJob(
            method=cast("Literal['ipc', 'nccl']", settings.update),
            shape=spec.model.synthetic,
            weights_format=spec.quant.weights_format,
            second=not settings.unchanged,
            devices=[f"cuda:{device}" for device in engines] if ipc else [f"cuda:{engines[-1] + 1}"],
            bucket_bytes=self._bucket_bytes,
        )
        self._trainer = TrainerLink(job)
        self._trainer.told(Made)
        self.stage("first")
        # how buckets are made is said beforehand by newer versions of vLLM, in each update by 0.23
        beforehand, each = (
            {name: value for name, value in wire.items() if name in targets[0][fields]}
            for fields in ("init_fields", "update_fields")
        )
        self._info = {**each, **({} if ipc else announced(shape, spec.quant.weights_format))}
        if not ipc:
            port = free_port()
            self.trainer.order(Meet(address=LOCALHOST, port=port, members=len(targets) + 1))
            beforehand |= {
                "master_address": LOCALHOST,
                "master_port": port,
                "rank_offset": 1,
                "world_size": len(targets) + 1,
            }
        self._ask("rollout_bench_meet", {"info": beforehand})
        if not ipc:
            self.trainer.told(Met)

    def stage(self, weights: Weights) -> None:
        """Have the trainer bring these weights to its devices."""
        self.trainer.order(Stage(weights=weights))
        self.trainer.told(Staged)

    def apply(self, weights: Weights) -> dict[str, Any]:
        """Have the trainer send what is staged, and the engine load it."""
        self._ask("rollout_bench_begin_transfer")
        self.trainer.order(Send())
        sent = self._received_in_buckets() if _settings(self._spec).update == "ipc" else self._received()
        self._ask("rollout_bench_end_transfer")
        return sent.model_dump(exclude={"event"})

    def _received_in_buckets(self) -> Sent:
        """Have the engine read bucket by bucket, each while the trainer waits."""
        while True:
            word = self.trainer.told(Bucket, Sent)
            if isinstance(word, Sent):
                return word
            assert isinstance(word, Bucket)
            info = {**self._info, **word.model_dump(exclude={"event", "handles"})}
            self._ask("rollout_bench_receive", {"info": info, "handles": word.handles})
            self.trainer.order(Next())

    def _received(self) -> Sent:
        self._ask("rollout_bench_receive", {"info": self._info})
        return self.trainer.told(Sent)

    def _ask(self, method: str, arguments: dict[str, Any] | None = None) -> None:
        with self.trainer.in_engine():
            _told_refusals(self._llm, self._spec, method, arguments or {})

    @property
    def _bucket_bytes(self) -> int:
        return (_settings(self._spec).bucket_mb or 1) * MEGABYTE


def free_port() -> int:
    """Return a port that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind((LOCALHOST, 0))
        return int(probe.getsockname()[1])


def transfer_arguments(spec: Spec) -> dict[str, Any]:
    """Return the engine arguments that a weight transfer needs; none for other updates.

    Raises:
        ServingFailed: this vLLM has no weight transfer, or another one.
    """
    update = _settings(spec).update
    if update not in TRANSFERS:
        return {}
    try:
        from vllm import LLM
        from vllm.config.weight_transfer import WeightTransferConfig

        lacking = next((name for name in CALLS if not hasattr(LLM, name)), None)
    except ImportError:
        lacking = "weight transfer"
    if lacking is not None:
        raise ServingFailed(
            "engine_lacks_cycle",
            f"{spec.engine.name} {spec.engine.version} has no LLM.{lacking}, which update: {update} needs".replace(
                "LLM.weight transfer", "weight transfer"
            ),
            "use vLLM 0.23, or 0.32, or take update: in_process",
        )
    return {"weight_transfer_config": WeightTransferConfig(backend=update), "worker_extension_cls": TARGET}


METHODS: Mapping[UpdateMethod, type[Reload] | type[InProcess] | type[Transfer]] = {
    "reload": Reload,
    "in_process": InProcess,
    "ipc": Transfer,
    "nccl": Transfer,
}
"""Each method of `CycleSpec.update`."""


def _settings(spec: Spec) -> CycleSpec:
    assert spec.cycle is not None, "specs of this mode have it"
    return spec.cycle


def _told_refusals(llm: Any, spec: Spec, method: str, arguments: dict[str, Any]) -> list[Any]:
    """Return what each rank returned; raise `ServingFailed` where vLLM says that it can't update this format."""
    try:
        answers: list[Any] = llm.collective_rpc(method, kwargs=arguments)
    except ServingFailed:  # of the trainer, which failed meanwhile
        raise
    except Exception as error:  # of the worker, as vLLM hands it on: any type
        if isinstance(error.__cause__, ServingFailed):  # of the trainer, where the engine has no process of its own
            raise error.__cause__ from None
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
