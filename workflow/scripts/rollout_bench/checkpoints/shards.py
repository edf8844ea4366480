"""Safetensors files written one tensor at a time, so that memory stays at one tensor whatever the model's size.

safetensors' own save_file needs a whole file in memory; the format is a length, a JSON header and the raw values
(https://huggingface.co/docs/safetensors#format).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .formats import StoredTensor, WeightsFormat, stored_tensors
from .layout import TensorSpec, layer_tensors, outer_tensors, tensors
from .shapes import ResolvedShape
from .weights import TORCH_DTYPES, encode, random_weight

SHARD_BYTES = 4 << 30
"""A file is closed before it grows past this."""


@dataclass(frozen=True)
class Shard:
    """One safetensors file: its name and the tensors of the model that it holds, in order."""

    name: str
    specs: tuple[TensorSpec, ...]


def plan_shards(shape: ResolvedShape, weights_format: WeightsFormat, shard_bytes: int = SHARD_BYTES) -> list[Shard]:
    """Divide a model over files of at most `shard_bytes`, unless a single tensor is larger.

    A weight and its scales stay in one file. One file has no number in its name, as transformers writes it.
    """
    groups: list[list[TensorSpec]] = [[]]
    filled = 0
    for spec in tensors(shape):
        size = stored_bytes([spec], weights_format)
        if groups[-1] and filled + size > shard_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(spec)
        filled += size
    stem = "quant_model_weights" if weights_format.startswith("modelslim") else "model"
    if len(groups) == 1:
        return [Shard(f"{stem}.safetensors", tuple(groups[0]))]
    count = len(groups)
    return [Shard(f"{stem}-{i:05}-of-{count:05}.safetensors", tuple(group)) for i, group in enumerate(groups, start=1)]


def checkpoint_bytes(shape: ResolvedShape, weights_format: WeightsFormat) -> int:
    """Bytes that all weights of a model take in a format, without walking every layer; file headers not counted."""
    layers = shape.num_hidden_layers * stored_bytes(layer_tensors(shape, 0), weights_format)
    return stored_bytes(outer_tensors(shape), weights_format) + layers


def stored_bytes(specs: Iterable[TensorSpec], weights_format: WeightsFormat) -> int:
    """Bytes that the tensors take in a format, headers not counted."""
    return sum(stored.size_bytes for spec in specs for stored in stored_tensors(spec, weights_format))


def write_shards(directory: Path, shape: ResolvedShape, weights_format: WeightsFormat, shards: Sequence[Shard]) -> None:
    """Write all files of a checkpoint, and the index when there is more than one.

    Raises:
        OSError: a file could not be written, for instance because the disk is full.
    """
    for shard in shards:
        stored = [item for spec in shard.specs for item in stored_tensors(spec, weights_format)]
        _write_file(directory / shard.name, stored, _shard_values(shard, shape, weights_format))
    if len(shards) > 1:
        write_json(directory / f"{_index_stem(shards)}.safetensors.index.json", shard_index(shards, weights_format))


def shard_index(shards: Sequence[Shard], weights_format: WeightsFormat) -> dict[str, object]:
    """Return the index of a sharded checkpoint: which file holds which tensor."""
    weight_map = {
        stored.name: shard.name
        for shard in shards
        for spec in shard.specs
        for stored in stored_tensors(spec, weights_format)
    }
    total = sum(stored_bytes(shard.specs, weights_format) for shard in shards)
    return {"metadata": {"total_size": total}, "weight_map": weight_map}


def write_json(path: Path, content: object) -> None:
    """Write JSON and fsync it."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def _index_stem(shards: Sequence[Shard]) -> str:
    return shards[0].name.rsplit("-", 3)[0]


def _shard_values(
    shard: Shard, shape: ResolvedShape, weights_format: WeightsFormat
) -> Iterator[tuple[StoredTensor, torch.Tensor]]:
    for spec in shard.specs:
        weight = random_weight(spec, shape.seed, shape.num_hidden_layers)
        yield from encode(spec, weight, weights_format)


def _write_file(
    path: Path, stored: Sequence[StoredTensor], values: Iterator[tuple[StoredTensor, torch.Tensor]]
) -> None:
    header = _header(stored)
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


def _header(stored: Sequence[StoredTensor]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for item in stored:
        end = offset + item.size_bytes
        entries[item.name] = {"dtype": item.dtype, "shape": list(item.shape), "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    return header + b" " * (-len(header) % 8)
