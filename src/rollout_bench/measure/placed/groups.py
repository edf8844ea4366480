"""Groups of ranks that speak to one another, beside torch's default group, which vLLM makes for itself.

On cpu all goes through gloo. On cuda tensors that a device holds go through NCCL, and barriers and token ids through
gloo, as those are the host's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from rollout_bench.measure.placed.shares import buckets
from rollout_bench.measure.placed.words import LOCALHOST


class PeerLostError(Exception):
    """A collective failed: another rank is gone, or has given up."""


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise PeerLostError(str(error)) from error


class RankGroup:
    """Some of the ranks. Every one of them makes it, and calls its methods in the same order.

    Args:
        name: its name, which no other group of the launch has.
        ranks: its members.
        rank: this process's; one of them.
        folder: a folder that all ranks share: each group has a file in it, by which its members find each other.
        device: where tensors are: cpu or cuda.
        timeout_s: after which a member is given up that does not come; the launch's own limit comes before.
    """

    def __init__(
        self, name: str, ranks: Sequence[int], rank: int, folder: Path, device: torch.device, timeout_s: float
    ) -> None:
        self.size = len(ranks)
        self._place = list(ranks).index(rank)
        self._device = device
        store = dist.FileStore(str(folder / name), self.size)
        timeout = timedelta(seconds=timeout_s)
        with _together():
            self._host: Any = _gloo(dist.PrefixStore("gloo", store), self._place, self.size, timeout)
            self._data: Any = self._host
            if device.type == "cuda":
                options = dist.ProcessGroupNCCL.Options()
                options._timeout = timeout
                prefixed = dist.PrefixStore("nccl", store)
                self._data = dist.ProcessGroupNCCL(prefixed, self._place, self.size, options)

    def barrier(self) -> None:
        """Wait until all have come."""
        with _together():
            self._host.barrier().wait()

    def gather(self, numbers: Sequence[int]) -> list[list[int]]:
        """Return what each member handed over, in their order; numbers are below 2^31."""
        own = torch.tensor(numbers, dtype=torch.int32)
        length = torch.tensor([len(own)], dtype=torch.int32)
        lengths = [torch.empty_like(length) for _ in range(self.size)]
        with _together():
            self._host.allgather([lengths], [length]).wait()
            longest = max(int(one) for one in lengths)  # gloo takes tensors of one shape alone
            padded = torch.zeros(longest, dtype=torch.int32)
            padded[: len(own)] = own
            found = [torch.empty_like(padded) for _ in range(self.size)]
            self._host.allgather([found], [padded]).wait()
        return [one[: int(count)].tolist() for one, count in zip(found, lengths, strict=True)]

    def add_up(self, tensors: Sequence[torch.Tensor], most_bytes: int) -> None:
        """Make each tensor the sum of all members' in its place, in buckets of `most_bytes`."""
        for bucket in buckets(sizes(tensors), most_bytes):
            flat = torch.cat([tensors[number].reshape(-1) for number in bucket])
            with _together():
                self._data.allreduce([flat]).wait()
            place = 0
            for number in bucket:
                tensor = tensors[number]
                tensor.copy_(flat[place : place + tensor.numel()].view_as(tensor))
                place += tensor.numel()

    def say(self, text: str | None) -> str:
        """Return what the first member says; the others say None."""
        content = torch.frombuffer(bytearray((text or "").encode() or b" "), dtype=torch.uint8)
        length = torch.tensor([len(content)], dtype=torch.int64)
        with _together():
            self._broadcast(self._host, length)
            content = content if self._place == 0 else torch.empty(int(length), dtype=torch.uint8)
            self._broadcast(self._host, content)
        return bytes(content.tolist()).decode()

    def send(self, tensors: Sequence[torch.Tensor], most_bytes: int) -> None:
        """Send tensors to all others, in buckets; to be called by the first member."""
        for bucket in buckets(sizes(tensors), most_bytes):
            flat = torch.cat([tensors[number].detach().reshape(-1) for number in bucket])
            with _together():
                self._broadcast(self._data, flat.view(torch.uint8))

    def receive(
        self, parts: Sequence[tuple[str, torch.dtype, torch.Size]], most_bytes: int
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield what the first member sends: tensors of these names, types and shapes, as the buckets come."""
        each = sizes_of_parts(parts)
        for bucket in buckets(each, most_bytes):
            flat = torch.empty(sum(each[number][1] for number in bucket), dtype=torch.uint8, device=self._device)
            with _together():
                self._broadcast(self._data, flat)
            place = 0
            for number in bucket:
                name, dtype, shape = parts[number]
                size = each[number][1]
                yield name, flat[place : place + size].view(dtype).view(shape)
                place += size

    def _broadcast(self, group: Any, tensor: torch.Tensor) -> None:
        options = dist.BroadcastOptions()
        options.rootRank = 0
        group.broadcast([tensor], options).wait()


def sizes(tensors: Sequence[torch.Tensor]) -> list[tuple[str, int]]:
    """Return data type and bytes of each tensor."""
    return [(str(tensor.dtype), tensor.numel() * tensor.element_size()) for tensor in tensors]


def sizes_of_parts(parts: Sequence[tuple[str, torch.dtype, torch.Size]]) -> list[tuple[str, int]]:
    """Return the same of tensors of which names, types and shapes are known."""
    return [(str(dtype), shape.numel() * dtype.itemsize) for _, dtype, shape in parts]


def _gloo(store: dist.Store, place: int, size: int, timeout: timedelta) -> Any:
    options: Any = dist.ProcessGroupGloo._Options()
    create: Callable[..., Any] = dist.ProcessGroupGloo.create_device
    options._devices = [create(hostname=LOCALHOST)]  # the host's name may not be an address that it listens on
    options._timeout = timeout
    return dist.ProcessGroupGloo(store, place, size, options)
