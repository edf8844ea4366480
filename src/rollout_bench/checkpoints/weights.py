"""The values of weights: seeded random numbers, rounded to 8 and 4 bits, written one tensor at a time.

safetensors' own save_file needs a whole file in memory. The format is a length, a JSON header and the raw values
(https://huggingface.co/docs/safetensors#format).
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from rollout_bench.checkpoints.formats import (
    GROUP,
    WORD_BITS,
    Role,
    Shard,
    StoredTensor,
    TensorSpec,
    WeightsFormat,
    file_header,
    stored_tensors,
)
from rollout_bench.checkpoints.shapes import ResolvedShape

CHUNK_ELEMENTS = 1 << 22
"""Number of float32 values in one draw (16 MiB), to avoid a float32 copy of a large embedding."""
TORCH_DTYPES = {
    "I8": torch.int8,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "F32": torch.float32,
    "I64": torch.int64,
}


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
    bound = math.sqrt(3.0) * _standard_deviation(spec, shape.num_hidden_layers)
    digest = hashlib.sha256(f"{shape.seed}/{spec.name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    weight = torch.empty(spec.elements, dtype=torch.bfloat16)
    for chunk in torch.split(weight, CHUNK_ELEMENTS):
        chunk.copy_(torch.empty(len(chunk), dtype=torch.float32).uniform_(-bound, bound, generator=generator))
    return weight.view(spec.shape)


def random_weights(specs: Iterable[TensorSpec], shape: ResolvedShape) -> Iterator[torch.Tensor]:
    """Yield `random_weight` for each of `specs` in order; all cores draw tensors in advance.

    One core draws about 10^8 numbers a second, so a model of 8 billion parameters would take more than a minute.
    """
    cores = len(os.sched_getaffinity(0))
    if cores == 1:
        yield from (random_weight(spec, shape) for spec in specs)
        return
    threads = torch.get_num_threads()
    try:
        # torch draws on one thread, but would round on all its threads in each thread of the pool
        with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            drawn: deque[Future[torch.Tensor]] = deque()
            for spec in specs:
                drawn.append(pool.submit(random_weight, spec, shape))
                if len(drawn) > cores:
                    yield drawn.popleft().result()
            while drawn:
                yield drawn.popleft().result()
    finally:
        torch.set_num_threads(threads)


def encode(
    spec: TensorSpec, weight: torch.Tensor, weights_format: WeightsFormat
) -> list[tuple[StoredTensor, torch.Tensor]]:
    """Return the stored tensors of a format for one bf16 weight, in the order of `formats.stored_tensors`."""
    return list(zip(stored_tensors(spec, weights_format), _values(spec, weight, weights_format), strict=True))


def round_to_int8(weight: torch.Tensor, scale_dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Round a weight to int8, symmetric, with one scale per output channel.

    Args:
        weight: [out, in], any float dtype.
        scale_dtype: dtype of the stored scale; rounding uses the stored scale, not the exact one.

    Returns:
        int8 values [out, in] in -127..127 and scales [out, 1]; weight is approximately values * scales.
    """
    # a tensor: on a GPU torch would multiply by the reciprocal of a number, which may change the last bit of scales
    most = torch.tensor(127.0, device=weight.device)
    exact = weight.float().abs().amax(dim=1, keepdim=True) / most
    scale = exact.clamp_min(torch.finfo(torch.float32).tiny).to(scale_dtype)
    values = (weight.float() / scale.float()).round_().clamp_(-127, 127).to(torch.int8)
    return values, scale


def round_to_int4(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Round a weight to 4 bits, symmetric, with one scale for each `GROUP` inputs of an output channel.

    Scales are as in compressed-tensors (`calculate_qparams`): 15 steps from the smallest to the largest value. They are
    stored in bf16, and rounding uses the stored scales.

    Args:
        weight: [out, in], any float dtype; in is a multiple of `GROUP`.

    Returns:
        int8 values [out, in] in -8..7 and scales [out, in / GROUP]; weight is approximately values * scales of their
        group.
    """
    rows, columns = weight.shape
    groups = weight.float().view(rows, columns // GROUP, GROUP)
    half = torch.tensor(7.5, device=weight.device)
    exact = groups.abs().amax(dim=2, keepdim=True) / half
    scale = exact.clamp_min(torch.finfo(torch.float32).tiny).to(torch.bfloat16)
    values = (groups / scale.float()).round_().clamp_(-8, 7).to(torch.int8)
    return values.view(rows, columns), scale.squeeze(2)


def pack(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack whole numbers of 8 or 4 bits, as in compressed-tensors' pack-quantized format.

    Args:
        values: int8 [out, in], signed.
        bits: bits of each number.

    Returns:
        int32 [out, in * bits / 32]: each value plus 2^(bits - 1), the first in the lowest bits.
    """
    unsigned = (values.to(torch.int16) + (1 << (bits - 1))).to(torch.uint8)
    if bits == 4:
        unsigned = unsigned[:, 0::2] | (unsigned[:, 1::2] << 4)
    rows, columns = unsigned.shape
    return unsigned.view(rows, columns * 8 // WORD_BITS, WORD_BITS // 8).view(torch.int32).squeeze(-1)


def _values(spec: TensorSpec, weight: torch.Tensor, weights_format: WeightsFormat) -> tuple[torch.Tensor, ...]:
    if weights_format == "bf16" or not spec.quantizable:
        return (weight,)
    if weights_format == "compressed-tensors-w8a8":
        return round_to_int8(weight, torch.bfloat16)
    if weights_format == "compressed-tensors-w8a16":
        values, scale = round_to_int8(weight, torch.bfloat16)
        return pack(values, 8), scale, torch.tensor(spec.shape, dtype=torch.int64)
    if weights_format == "compressed-tensors-w4a16":
        values, scale = round_to_int4(weight)
        return pack(values, 4), scale, torch.tensor(spec.shape, dtype=torch.int64)
    values, scale = round_to_int8(weight, torch.float32)
    return values, scale, torch.zeros_like(scale)


def _standard_deviation(spec: TensorSpec, num_hidden_layers: int) -> float:
    if spec.role is Role.BIAS:
        return 0.02
    deviation = 1.0 / math.sqrt(spec.shape[-1])
    if spec.role is Role.RESIDUAL_LINEAR:
        deviation /= math.sqrt(2.0 * num_hidden_layers)
    return deviation


def write_shards(
    directory: Path,
    shape: ResolvedShape,
    weights_format: WeightsFormat,
    shards: Sequence[Shard],
) -> None:
    """Write the safetensors files of a checkpoint and fsync them.

    Args:
        directory: destination.
        shape: the model.
        weights_format: format of the weights.
        shards: the files and their tensors.

    Raises:
        OSError: if a file cannot be written, for instance because the disk is full.
    """
    for shard in shards:
        stored = [item for spec in shard.specs for item in stored_tensors(spec, weights_format)]
        _write_file(directory / shard.name, stored, _shard_values(shard, shape, weights_format))


def _shard_values(
    shard: Shard,
    shape: ResolvedShape,
    weights_format: WeightsFormat,
) -> Iterator[tuple[StoredTensor, torch.Tensor]]:
    for spec, tensor in zip(shard.specs, random_weights(shard.specs, shape), strict=True):
        yield from encode(spec, tensor, weights_format)


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
            # numpy has no bfloat16, so the bytes are passed as uint8.
            file.write(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
        file.flush()
        os.fsync(file.fileno())
