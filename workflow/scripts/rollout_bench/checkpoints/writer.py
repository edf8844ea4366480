"""Safetensors files written one tensor at a time, so that memory stays at one tensor whatever the model's size.

safetensors' own save_file needs a whole file in memory; the format is a length, a JSON header and the raw values
(https://huggingface.co/docs/safetensors#format).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from .formats import StoredTensor, WeightsFormat, stored_tensors
from .shapes import ResolvedShape
from .shards import Shard, file_header
from .weights import TORCH_DTYPES, encode, random_weight


def write_shards(directory: Path, shape: ResolvedShape, weights_format: WeightsFormat, shards: Sequence[Shard]) -> None:
    """Write the safetensors files of a checkpoint and fsync them.

    Raises:
        OSError: a file could not be written, for instance because the disk is full.
    """
    for shard in shards:
        stored = [item for spec in shard.specs for item in stored_tensors(spec, weights_format)]
        _write_file(directory / shard.name, stored, _shard_values(shard, shape, weights_format))


def _shard_values(
    shard: Shard, shape: ResolvedShape, weights_format: WeightsFormat
) -> Iterator[tuple[StoredTensor, torch.Tensor]]:
    for spec in shard.specs:
        weight = random_weight(spec, shape.seed, shape.num_hidden_layers)
        yield from encode(spec, weight, weights_format)


def _write_file(
    path: Path, stored: Sequence[StoredTensor], values: Iterator[tuple[StoredTensor, torch.Tensor]]
) -> None:
    header = file_header(stored)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        for item, tensor in values:
            if tensor.dtype is not TORCH_DTYPES[item.dtype] or tuple(tensor.shape) != item.shape:
                raise AssertionError(f"{item.name} was announced as {item} and made as {tensor.dtype} {tensor.shape}")
            # numpy has no bfloat16, so the bytes travel as uint8.
            file.write(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
        file.flush()
        os.fsync(file.fileno())
