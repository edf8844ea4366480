"""Which safetensors file holds which tensor, and how long each file is. No torch: planning may ask."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .formats import StoredTensor, WeightsFormat, stored_tensors
from .layout import TensorSpec, layer_tensors, outer_tensors, tensors
from .shapes import ResolvedShape

SHARD_BYTES = 4 << 30
"""A file is closed before it grows past this."""


@dataclass(frozen=True)
class Shard:
    """One safetensors file: its name and the tensors of the model that it holds, in order."""

    name: str
    specs: tuple[TensorSpec, ...]


def plan_shards(shape: ResolvedShape, weights_format: WeightsFormat) -> list[Shard]:
    """Divide a model over files of at most SHARD_BYTES, unless a single tensor is larger.

    A weight and its scales stay in one file. One file has no number in its name, as transformers writes it.
    """
    groups: list[list[TensorSpec]] = [[]]
    filled = 0
    for spec in tensors(shape):
        size = stored_bytes([spec], weights_format)
        if groups[-1] and filled + size > SHARD_BYTES:
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


def shard_index(shards: Sequence[Shard], weights_format: WeightsFormat) -> tuple[str, dict[str, object]]:
    """Return the index of a sharded checkpoint, its file name and its content: which file holds which tensor."""
    name = f"{shards[0].name.rsplit('-', 3)[0]}.safetensors.index.json"
    weight_map = {
        stored.name: shard.name
        for shard in shards
        for spec in shard.specs
        for stored in stored_tensors(spec, weights_format)
    }
    total = sum(stored_bytes(shard.specs, weights_format) for shard in shards)
    return name, {"metadata": {"total_size": total}, "weight_map": weight_map}


def file_header(stored: Sequence[StoredTensor]) -> bytes:
    """Return the JSON header of a safetensors file, padded so that the values after it are aligned."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for item in stored:
        end = offset + item.size_bytes
        entries[item.name] = {"dtype": item.dtype, "shape": list(item.shape), "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    return header + b" " * (-len(header) % 8)
