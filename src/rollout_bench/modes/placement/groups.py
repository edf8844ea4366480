"""Groups of ranks that communicate, separate from torch's default group, which vLLM uses.

On cpu all data goes through gloo. On cuda, device tensors go through NCCL; barriers and token ids are on the host and
go through gloo.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from math import prod
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from rollout_bench.contracts.failures import CRASH_FIX
from rollout_bench.core.errors import MeasuringFailed
from rollout_bench.measure.engine.buckets import buckets
from rollout_bench.measure.launch.protocol import PEER_LOST
from rollout_bench.modes.placement.hooks import MEETING

Part = tuple[str, str, Sequence[int]]
"""Name of a transferred tensor, torch's name of its data type, and its shape, in a form for other processes."""


def meeting() -> Path:
    """Return the file at which the ranks of this process's world meet."""
    return Path(os.environ[MEETING])


def join_world(backend: str) -> None:
    """Join the torch.distributed world of this rank; `backend` is torch's name for its communication."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group(backend, init_method=f"file://{meeting()}", rank=rank, world_size=size)


@contextmanager
def communicating() -> Iterator[None]:
    """Raise `MeasuringFailed` if ranks that communicate in the context lose one."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise MeasuringFailed(PEER_LOST, f"another rank was lost: {error}", CRASH_FIX) from error


class RankGroup:
    """A group of ranks. Every member creates it, and calls its methods in the same order.

    Args:
        name: name of the group, unique in the launch.
        ranks: its members.
        rank: the rank of this process, a member.
        folder: folder that all ranks share; the group's members find each other through a file in it.
        device: device of the tensors: cpu or cuda.
        timeout_s: time limit for missing members; the launch's own limit is shorter.
    """

    def __init__(
        self, name: str, ranks: Sequence[int], rank: int, folder: Path, device: torch.device, timeout_s: float
    ) -> None:
        self.size = len(ranks)
        self._place = list(ranks).index(rank)
        self._device = device
        store = dist.FileStore(str(folder / name), self.size)
        timeout = timedelta(seconds=timeout_s)
        with communicating():
            self._host: Any = dist.ProcessGroupGloo(dist.PrefixStore("gloo", store), self._place, self.size, timeout)
            self._data: Any = self._host
            if device.type == "cuda":
                options = dist.ProcessGroupNCCL.Options()
                options._timeout = timeout
                prefixed = dist.PrefixStore("nccl", store)
                self._data = dist.ProcessGroupNCCL(prefixed, self._place, self.size, options)

    def barrier(self) -> None:
        """Wait until all members have arrived."""
        with communicating():
            self._host.barrier().wait()

    def gather(self, numbers: Sequence[int]) -> list[list[int]]:
        """Return the numbers of each member, in the order of members; numbers are below 2^31."""
        sent = torch.tensor(numbers, dtype=torch.int32)
        length = torch.tensor([len(sent)], dtype=torch.int32)
        lengths = [torch.empty_like(length) for _ in range(self.size)]
        with communicating():
            self._host.allgather([lengths], [length]).wait()
            longest = max(int(one) for one in lengths)  # gloo requires equal shapes
            padded = torch.zeros(longest, dtype=torch.int32)
            padded[: len(sent)] = sent
            received = [torch.empty_like(padded) for _ in range(self.size)]
            self._host.allgather([received], [padded]).wait()
        return [one[: int(count)].tolist() for one, count in zip(received, lengths, strict=True)]

    def add_up(self, tensors: Sequence[torch.Tensor], most_bytes: int) -> None:
        """Replace each tensor by the sum of all members' tensors, in buckets of `most_bytes`."""
        for bucket in buckets(sizes(tensors), most_bytes):
            flat = torch.cat([tensors[number].reshape(-1) for number in bucket])
            with communicating():
                self._data.allreduce([flat]).wait()
            place = 0
            for number in bucket:
                tensor = tensors[number]
                tensor.copy_(flat[place : place + tensor.numel()].view_as(tensor))
                place += tensor.numel()

    def say(self, text: str | None) -> str:
        """Return the first member's text; the other members pass None."""
        content = torch.frombuffer(bytearray((text or "").encode() or b" "), dtype=torch.uint8)
        length = torch.tensor([len(content)], dtype=torch.int64)
        with communicating():
            self._broadcast(self._host, length)
            content = content if self._place == 0 else torch.empty(int(length), dtype=torch.uint8)
            self._broadcast(self._host, content)
        return bytes(content.tolist()).decode()

    def send(self, tensors: Iterable[torch.Tensor], parts: Sequence[Part], most_bytes: int) -> None:
        """Send tensors, whose descriptions are `parts`, to all other members, in buckets; only the first calls this."""
        each = iter(tensors)
        for bucket in buckets(sizes_of_parts(parts), most_bytes):
            flat = torch.cat([next(each).reshape(-1) for _ in bucket])
            with communicating():
                self._broadcast(self._data, flat.view(torch.uint8))

    def receive(self, parts: Sequence[Part], most_bytes: int) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the tensors from the first member, as the buckets arrive."""
        each = sizes_of_parts(parts)
        for bucket in buckets(each, most_bytes):
            flat = torch.empty(sum(each[number][1] for number in bucket), dtype=torch.uint8, device=self._device)
            with communicating():
                self._broadcast(self._data, flat)
            place = 0
            for number in bucket:
                name, dtype, shape = parts[number]
                size = each[number][1]
                yield name, flat[place : place + size].view(getattr(torch, dtype)).view(tuple(shape))
                place += size

    def _broadcast(self, group: Any, tensor: torch.Tensor) -> None:
        options = dist.BroadcastOptions()
        options.rootRank = 0
        group.broadcast([tensor], options).wait()


def sizes(tensors: Sequence[torch.Tensor]) -> list[tuple[str, int]]:
    """Return data type and bytes of each tensor."""
    return [(str(tensor.dtype), tensor.numel() * tensor.element_size()) for tensor in tensors]


def sizes_of_parts(parts: Sequence[Part]) -> list[tuple[str, int]]:
    """Return data type and bytes of each described tensor."""
    return [(dtype, prod(shape) * getattr(torch, dtype).itemsize) for _, dtype, shape in parts]
