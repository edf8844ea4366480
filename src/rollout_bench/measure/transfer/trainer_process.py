"""The trainer's process: holds its weights and sends them on order. Started by the engine's process, never by hand.

Both sets of weights lie in the host's memory, and one of them on each device of the trainer's. Orders come on stdin;
its end is the end of the process, as the engine's is.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import IO, NoReturn

import torch

from rollout_bench.checkpoints.shapes import ResolvedShape
from rollout_bench.contracts.cycles import Weights
from rollout_bench.core.processes import die_with_parent
from rollout_bench.measure.server.stream import ServingFailed
from rollout_bench.measure.transfer.senders import IpcSender, NcclSender, Sender
from rollout_bench.measure.transfer.transfer_words import (
    Bucket,
    Made,
    Meet,
    Met,
    Next,
    Order,
    Send,
    Stage,
    Staged,
    TrainerFailed,
    TrainerJob,
    TrainerWord,
    order_of,
    tell_engine,
)
from rollout_bench.measure.transfer.weight_sets import (
    Encoder,
    Named,
    drawn,
    largest_stored_bytes,
    specs_of,
    synchronize,
)

TellEngine = Callable[[TrainerWord], None]
Listen = Callable[[], Order | None]


class TrainerWeights:
    """Both sets of a model's weights on the host, and one of them on each device.

    Args:
        model: the model.
        second: whether there is a second set.
        devices: the trainer's.
    """

    def __init__(self, model: ResolvedShape, second: bool, devices: list[torch.device]) -> None:
        self._devices = devices
        self.specs = specs_of(model)
        sets: dict[Weights, ResolvedShape] = {"first": model, **({"second": model.other_weights()} if second else {})}
        self._sets: dict[Weights, Named] = {weights: drawn(self.specs, of) for weights, of in sets.items()}
        self.staged: list[Named] = []

    def stage(self, weights: Weights) -> None:
        """Bring a set to the devices, in the place of the one that is there."""
        if not self.staged:
            self.staged = [
                [(name, torch.empty_like(tensor, device=device)) for name, tensor in self._sets[weights]]
                for device in self._devices
            ]
        for named in self.staged:
            for (_, there), (_, tensor) in zip(named, self._sets[weights], strict=True):
                there.copy_(tensor)
        for device in self._devices:
            synchronize(device)


def work(job: TrainerJob, tell: TellEngine, listen: Listen) -> None:
    """Make the weights, and follow orders until there are no more.

    Raises:
        ServingFailed: it can't have the devices that it is to have, or their memory.
    """
    devices = [torch.device(name) for name in job.devices]
    check_devices(devices)
    model = ResolvedShape(**job.shape)
    weights = TrainerWeights(model, job.second, devices)
    sender: Sender | None = None
    tell(Made())
    while (order := listen()) is not None:
        try:
            if isinstance(order, Stage):
                weights.stage(order.weights)
                # with the first weights, so that all memory that it will ever take is taken
                sender = sender or sender_of(job, weights, devices, tell, listen)
                tell(Staged())
            elif isinstance(order, Meet):
                sender = sender or sender_of(job, weights, devices, tell, listen)
                sender.meet(order)
                tell(Met())
            elif isinstance(order, Send) and sender is not None:
                tell(sender.send(weights.staged))
            else:
                raise RuntimeError(f"nobody can do this now: {order!r}")
        except RuntimeError as error:  # torch's own type, or CUDA's where not even its context has room
            if "out of memory" not in str(error).lower():
                raise
            raise out_of_memory(job, error) from error


def check_devices(devices: list[torch.device]) -> None:
    """Raise `ServingFailed` where a device is not there."""
    needed = max((device.index or 0) + 1 for device in devices)
    there = torch.cuda.device_count() if devices[0].type == "cuda" else needed
    if there < needed:
        raise ServingFailed(
            "too_few_devices",
            f"its process wants the device number {needed} of the launch, and {there} are visible",
            f"make {needed} visible (CUDA_VISIBLE_DEVICES), or take another cycle.update",
        )


def sender_of(
    job: TrainerJob, weights: TrainerWeights, devices: list[torch.device], tell: TellEngine, listen: Listen
) -> Sender:
    """Return what sends the weights as the job says."""
    if job.method == "nccl":
        # the stream's work alone: that of the bucket before is under way on another one
        encoder = Encoder(weights.specs, job.weights_format, lambda: torch.cuda.current_stream().synchronize())
        return NcclSender(devices[0], encoder, job.bucket_bytes)

    def hand_over(bucket: Bucket) -> None:
        tell(bucket)
        order = listen()
        if order is None:
            raise EOFError("the engine's process ended")
        assert isinstance(order, Next), "an engine that was handed a bucket asks for the next one"

    encoders = [
        Encoder(weights.specs, job.weights_format, lambda device=device: synchronize(device))  # type: ignore[misc]
        for device in devices
    ]
    largest = largest_stored_bytes(ResolvedShape(**job.shape), job.weights_format)
    return IpcSender(devices, encoders, job.bucket_bytes, largest, hand_over)


def out_of_memory(job: TrainerJob, error: Exception) -> ServingFailed:
    """Return why the trainer does not fit, in two lines."""
    beside = "beside the engine on its device" if job.method == "ipc" else "on its device"
    return ServingFailed(
        "trainer_out_of_memory",
        f"its weights and its bucket do not fit {beside}: {str(error).splitlines()[0]}",
        "lower gpu_memory_utilization in engine_args, or bucket_mb"
        + (", or take update: nccl, whose trainer has a device of its own" if job.method == "ipc" else ""),
    )


def main() -> None:
    """Read the job from stdin and do it until stdin ends."""
    die_with_parent(signal.SIGKILL)
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    orders = os.fdopen(os.dup(0), "rb")
    with open(os.devnull) as nothing:  # noqa: PTH123 (nobody else is to read what comes on stdin)
        os.dup2(nothing.fileno(), 0)
    text = orders.readline()
    if not text:
        return
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    serve(text, orders, lambda word: tell_engine(descriptor, word))


def serve(text: bytes, orders: IO[bytes], tell: TellEngine) -> NoReturn:
    """Do the job in `text` and end; tell why where it fails."""

    def listen() -> Order | None:
        line = orders.readline()
        return order_of(line) if line else None

    status = 1
    try:
        work(TrainerJob.model_validate_json(text), tell, listen)
        status = 0
    except ServingFailed as error:
        print(error.cause, file=sys.stderr)
        tell(TrainerFailed(exception=error.cause, category=error.category, fix=error.fix))
    except (EOFError, BrokenPipeError):
        pass  # the engine's process ended
    except Exception as error:
        traceback.print_exc()
        tell(TrainerFailed(exception=f"{type(error).__name__}: {error}"))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # the shutdown of NCCL could hang where the engine's ranks are gone


if __name__ == "__main__":
    main()
