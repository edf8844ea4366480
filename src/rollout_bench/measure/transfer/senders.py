"""How a trainer sends its weights, by each way of vLLM's weight transfer; only that of NCCL needs vLLM here.

Both send what the engine's format stores, in the order of a checkpoint.
"""

from __future__ import annotations

import base64
import pickle
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from rollout_bench.measure.transfer.transfer_words import Bucket, Meet, Sent
from rollout_bench.measure.transfer.weight_sets import Encoder, Named, synchronize, type_name

PackedTensors = list[tuple[str, torch.Tensor]]


class Sender(ABC):
    """Sends the weights that lie on a trainer's devices."""

    @abstractmethod
    def meet(self, order: Meet) -> None:
        """Join the engine's ranks."""

    @abstractmethod
    def send(self, staged: Sequence[Named]) -> Sent:
        """Send; return what that took.

        Args:
            staged: the bf16 tensors on each device, all the same.
        """


class IpcSender(Sender):
    """Fills one buffer on each device, again and again, which the engine's rank on that device maps by CUDA IPC.

    The buffers live as long as the trainer. vLLM's own sender makes new ones for each update, which its 0.23 never gets
    back: each bucket lowers their count of readers, and only one handle had raised it.

    Args:
        devices: the trainer's.
        encoders: what makes the engine's format of tensors, on each device.
        bucket_bytes: bytes in a bucket, at most, but of one tensor at the least.
        largest_bytes: bytes of the largest tensor that is sent.
        hand_over: has the engine read a bucket, and returns once it has.
    """

    def __init__(
        self,
        devices: Sequence[torch.device],
        encoders: Sequence[Encoder],
        bucket_bytes: int,
        largest_bytes: int,
        hand_over: Callable[[Bucket], None],
    ) -> None:
        self._devices, self._encoders = devices, encoders
        self._bucket_bytes, self._hand_over = bucket_bytes, hand_over
        size = max(bucket_bytes, largest_bytes)
        self.buffers = [torch.empty(size, dtype=torch.uint8, device=device) for device in devices]
        self._handles = handles_of(self.buffers)

    def meet(self, order: Meet) -> None:
        """Do nothing: handles are all that the engine needs."""

    def send(self, staged: Sequence[Named]) -> Sent:
        """Fill buckets and have the engine read each."""
        transfer_s, quantize_s, count = 0.0, 0.0, 0
        for encoder in self._encoders:
            encoder.elapsed_s = 0.0
        # in step, as the ranks of a trainer are: each bucket has the same tensors on every device
        per_device = [self._stored(encoder, named) for encoder, named in zip(self._encoders, staged, strict=True)]
        tensors = zip(*per_device, strict=True)
        began, quantized_s = time.monotonic(), 0.0
        for bucket in filled(self.buffers, tensors, self._bucket_bytes):
            for device in self._devices:
                synchronize(device)
            quantize_s = sum(encoder.elapsed_s for encoder in self._encoders)
            transfer_s += time.monotonic() - began - (quantize_s - quantized_s)
            count += 1
            self._hand_over(bucket.model_copy(update={"handles": self._handles}))
            began, quantized_s = time.monotonic(), quantize_s
        return Sent(
            transfer_s=max(0.0, transfer_s),
            quantize_s=quantize_s if self._encoders[0].quantizes else None,
            size_bytes=sum(tensor.nbytes for _, tensor in staged[0]),
            buckets=count,
        )

    @staticmethod
    def _stored(encoder: Encoder, named: Named) -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in named:
            yield from encoder.stored(name, tensor)


def filled(
    buffers: Sequence[torch.Tensor], tensors: Iterable[tuple[tuple[str, torch.Tensor], ...]], limit: int
) -> Iterator[Bucket]:
    """Copy tensors into the buffers, one after the other, and yield each bucket of at most `limit` bytes.

    A bucket has one tensor at the least. The buffers must not be read before their devices are done.

    Args:
        buffers: bytes, one on each device.
        tensors: name and values of a tensor, for each device.
        limit: bytes of a bucket.
    """
    bucket, held = _empty(), 0
    for each in tensors:
        name, first = each[0]
        if bucket.names and held + first.nbytes > limit:
            yield bucket
            bucket, held = _empty(), 0
        for buffer, (_, tensor) in zip(buffers, each, strict=True):
            buffer[held : held + tensor.nbytes].copy_(tensor.contiguous().view(-1).view(torch.uint8))
        bucket.names.append(name)
        bucket.dtype_names.append(type_name(first.dtype))
        bucket.shapes.append(list(first.shape))
        bucket.tensor_sizes.append(first.nbytes)
        held += first.nbytes
    if bucket.names:
        yield bucket


def _empty() -> Bucket:
    return Bucket(names=[], dtype_names=[], shapes=[], tensor_sizes=[], handles=None)


def handles_of(buffers: Sequence[torch.Tensor]) -> str | None:
    """Return the handles of buffers on GPUs as vLLM's IPC engine wants them: by UUID, pickled, in base64."""
    from torch.multiprocessing.reductions import reduce_tensor

    if any(buffer.device.type != "cuda" for buffer in buffers):
        return None
    handles: dict[str, Any] = {}
    for buffer in buffers:
        with torch.cuda.device(buffer.device):
            _, arguments = reduce_tensor(buffer)
        handles[str(torch.cuda.get_device_properties(buffer.device).uuid)] = arguments
    return base64.b64encode(pickle.dumps(handles)).decode()


class NcclSender(Sender):
    """Broadcasts from the trainer's device to all ranks of the engine, with vLLM's own sender.

    Args:
        device: the trainer's.
        encoder: what makes the engine's format of tensors.
        bucket_bytes: a bucket is full once it has more bytes than that.
    """

    def __init__(self, device: torch.device, encoder: Encoder, bucket_bytes: int) -> None:
        self._device, self._encoder, self._bucket_bytes = device, encoder, bucket_bytes
        self._group: Any = None

    def meet(self, order: Meet) -> None:
        """Join the group of NCCL's, as its first rank."""
        torch.cuda.set_device(self._device)
        where = {"master_address": order.address, "master_port": order.port, "world_size": order.members}
        self._group = _trainer_init()(where)
        if getattr(self._group, "disabled", False):  # vLLM would then send nothing, and say nothing
            raise RuntimeError("vLLM's NCCL communicator is disabled: no NCCL library, or VLLM_DISABLE_PYNCCL is set")

    def send(self, staged: Sequence[Named]) -> Sent:
        """Broadcast; while one bucket is loaded, the next is on its way."""
        from vllm.distributed.weight_transfer.packed_tensor import packed_nccl_broadcast_producer

        self._encoder.elapsed_s = 0.0
        sizes: list[int] = []
        packed_nccl_broadcast_producer(
            iterator=self._stored(staged[0], sizes),
            group=self._group,
            src=0,
            post_iter_func=lambda item: item[1],
            buffer_size_bytes=self._bucket_bytes,
            num_buffers=BUFFERS,
        )
        synchronize(self._device)
        return Sent(
            transfer_s=None,
            quantize_s=self._encoder.elapsed_s if self._encoder.quantizes else None,
            size_bytes=sum(tensor.nbytes for _, tensor in staged[0]),
            buckets=broadcasts(sizes, self._bucket_bytes),
        )

    def _stored(self, named: Named, sizes: list[int]) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield what is stored, on the device, and note its bytes."""
        for name, tensor in named:
            for stored, values in self._encoder.stored(name, tensor):
                sizes.append(values.nbytes)
                yield stored, values.to(self._device)


BUFFERS = 2
"""Buckets that are under way at once: vLLM's own number."""


def broadcasts(sizes: Iterable[int], limit: int) -> int:
    """Return in how many buckets vLLM broadcasts tensors of these sizes: each is full once it exceeds the limit."""
    count, held = 0, 0
    for size in sizes:
        count += held == 0
        held += size
        if held > limit:
            held = 0
    return count


def _trainer_init() -> Callable[[dict[str, Any]], Any]:
    """Return what joins the group for a trainer; it moved between vLLM 0.23 and 0.32."""
    try:
        from vllm.distributed.weight_transfer.nccl_common import trainer_init
    except ImportError:
        from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine

        return NCCLWeightTransferEngine.trainer_init  # type: ignore[no-any-return]
    return trainer_init  # type: ignore[no-any-return]
