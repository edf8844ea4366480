"""The values of weights: seeded random numbers, rounded to 8 bits, and their safetensors files."""

import hashlib
import json
import math
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, groupby
from pathlib import Path

import torch
from safetensors.torch import save_file

from rollout_bench.checkpoints.formats import (
    FORMATS,
    Role,
    Storage,
    TensorSpec,
    layer_tensors,
    outer_tensors,
    tensors,
)
from rollout_bench.checkpoints.shapes import ResolvedShape

CHUNK_ELEMENTS = 1 << 22
"""Number of float32 values in one draw (16 MiB), to avoid a float32 copy of a large embedding."""
SHARD_BYTES = 2 << 30
"""Bytes of bf16 weights after which a new file begins; a file is made in memory."""


def random_weight(spec: TensorSpec, shape: ResolvedShape) -> torch.Tensor:
    """Return one bf16 tensor of the model, drawn from its own random stream.

    Projections are uniform with variance 1 / in, so a normalised input keeps its scale. Projections into the residual
    stream have an additional factor 1 / (2 * layers), which keeps the stream's variance near 1 through all layers. This
    is the scaling of GPT-2 (Radford et al. 2019, section 2.3). Norms have the value `shape.norm`, usually 1.

    Args:
        spec: the tensor; the result has its shape.
        shape: the model. Streams depend on its seed and the tensor's name, so formats and shards do not change the
            values.
    """
    if spec.role is Role.NORM:
        return torch.full(spec.shape, shape.norm, dtype=torch.bfloat16)
    deviation = 0.02 if spec.role is Role.BIAS else 1.0 / math.sqrt(spec.shape[-1])
    if spec.role is Role.RESIDUAL_LINEAR:
        deviation /= math.sqrt(2.0 * shape.num_hidden_layers)
    bound = math.sqrt(3.0) * deviation
    digest = hashlib.sha256(f"{shape.seed}/{spec.name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    weight = torch.empty(spec.elements, dtype=torch.bfloat16)
    for chunk in torch.split(weight, CHUNK_ELEMENTS):
        chunk.copy_(torch.empty(len(chunk), dtype=torch.float32).uniform_(-bound, bound, generator=generator))
    return weight.view(spec.shape)


def random_weights(specs: Iterable[TensorSpec], shape: ResolvedShape) -> list[torch.Tensor]:
    """Return `random_weight` for each of `specs`, drawn on all cores.

    One core draws about 10^8 numbers a second, so a model of 8 billion parameters would take more than a minute.
    """
    threads = torch.get_num_threads()
    try:
        # torch draws on one thread, but would round on all its threads in each thread of the pool
        with ThreadPoolExecutor(len(os.sched_getaffinity(0)), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(lambda spec: random_weight(spec, shape), specs))
    finally:
        torch.set_num_threads(threads)


def encode(spec: TensorSpec, weight: torch.Tensor, weights_format: str) -> dict[str, torch.Tensor]:
    """Return the stored tensors of a format for one bf16 weight: itself, or integers with their scales."""
    storage = FORMATS[weights_format]
    if storage is None or not spec.quantizable:
        return {spec.name: weight}
    values, scale = rounded(weight, storage)
    if storage.packed:
        return {
            f"{spec.name}_packed": pack(values),
            f"{spec.name}_scale": scale,
            f"{spec.name}_shape": torch.tensor(spec.shape, dtype=torch.int64),
        }
    stored = {spec.name: values, f"{spec.name}_scale": scale}
    return {**stored, f"{spec.name}_offset": torch.zeros_like(scale)} if storage.modelslim else stored


def rounded(weight: torch.Tensor, storage: Storage) -> tuple[torch.Tensor, torch.Tensor]:
    """Round a weight to signed integers, symmetric, with one scale per output channel.

    Rounding uses the stored scale, not the exact one.

    Args:
        weight: [out, in], any float dtype.
        storage: dtype of the scales.

    Returns:
        int8 values [out, in] and scales [out, 1]; weight is approximately values * scales.
    """
    exact_weight = weight.float()
    # a tensor: on a GPU torch would multiply by the reciprocal of a number, which may change the last bit of scales
    exact = exact_weight.abs().amax(dim=1, keepdim=True) / torch.tensor(127.0, device=weight.device)
    scale = exact.clamp_min(torch.finfo(torch.float32).tiny).to(getattr(torch, storage.scale_dtype))
    values = (exact_weight / scale.float()).round_().clamp_(-127, 127).to(torch.int8)
    return values, scale


def pack(values: torch.Tensor) -> torch.Tensor:
    """Pack int8 values [out, in] into int32 words [out, in / 4], as in compressed-tensors' pack-quantized format.

    A word has four values plus 128 each, the first in the lowest bits.
    """
    return (values.to(torch.int16) + 128).to(torch.uint8).contiguous().view(torch.int32)


def checkpoint_bytes(shape: ResolvedShape, weights_format: str) -> int:
    """Return the bytes of all weights of a model in a format, without file headers.

    Tensors without memory are encoded. The size of one layer is multiplied by the number of layers.
    """

    def size(specs: Iterable[TensorSpec]) -> int:
        empty = ((spec, torch.empty(spec.shape, dtype=torch.bfloat16, device="meta")) for spec in specs)
        return sum(part.nbytes for spec, weight in empty for part in encode(spec, weight, weights_format).values())

    return size(outer_tensors(shape)) + shape.num_hidden_layers * size(layer_tensors(shape, 0))


def write_weights(folder: Path, shape: ResolvedShape, weights_format: str) -> None:
    """Write the safetensors files of a checkpoint into `folder`, and an index if there are several.

    A single file has no number in its name, as in transformers. A weight and its scales stay in the same file.

    Raises:
        safetensors.SafetensorError: if a file cannot be written, for instance because the disk is full.
    """
    storage = FORMATS[weights_format]
    stem = "quant_model_weights" if storage and storage.modelslim else "model"
    specs = list(tensors(shape))
    ends = accumulate(2 * spec.elements for spec in specs)
    parts = [
        [spec for spec, _ in part]
        for _, part in groupby(zip(specs, ends, strict=True), key=lambda one: (one[1] - 1) // SHARD_BYTES)
    ]
    names = [f"{stem}-{number + 1:05}-of-{len(parts):05}.safetensors" for number in range(len(parts))]
    files: dict[str, str] = {}
    total = 0
    for name, part in zip(names if len(parts) > 1 else [f"{stem}.safetensors"], parts, strict=True):
        pairs = zip(part, random_weights(part, shape), strict=True)
        stored = {key: tensor for spec, weight in pairs for key, tensor in encode(spec, weight, weights_format).items()}
        save_file(stored, folder / name, {"format": "pt"})
        files |= dict.fromkeys(stored, name)
        total += sum(tensor.nbytes for tensor in stored.values())
    if len(parts) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": files}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2))
