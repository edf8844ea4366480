"""Proves which weights a worker holds: a checksum of every tensor, computed on the tensor's device.

oneDNN does not expose packed weights, so on CPU a weight's checksum is recorded when it is packed. The time for this is
summed up and subtracted from an update's time. Checksums are built from row sums, so that a tensor can be found among
the rows of a fused tensor.
"""

from __future__ import annotations

import itertools
import math
import os
import re
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from rollout_bench.measure.probes.census import (
    Packed,
    WeightCensus,
    all_tensors,
    is_linear_module,
    note_packed_weights,
    own_tensors,
)

CHUNK_WORDS = 1 << 18
"""Number of 8-byte words in one sum: 2 MiB, which fits into a core's cache."""

CHUNK_WORDS_CUDA = 1 << 23
"""Number of 8-byte words in one sum on a GPU: 64 MiB, so that starting the kernels takes a small part."""

NO_WEIGHT = re.compile(r"scale|zero|offset|shape|g_idx|azp|workspace|sort_ind|strides|_map")
"""Tensors that may stay the same when weights change: a kernel's workspace, and scales, which may round alike."""

FIRST_MULTIPLIER, SECOND_MULTIPLIER = -7046029254386353131, -4658895280553007687
"""Odd 64-bit constants of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), as signed numbers."""

FIRST_ROW = 1 << 32
"""Offset of the odd numbers for rows, so that a matrix and its transpose have different checksums."""


@dataclass(frozen=True)
class TensorProof:
    """Checksum and facts of one tensor.

    Attributes:
        checksum: 16 hex digits over its values in order, its data type and its shape.
        finite: whether all values are finite.
        dtype, shape: data type and shape of the tensor.
        rows: a sum over each row, int64 [product of all sizes but the last; for a vector: its length].
    """

    checksum: str
    finite: bool
    dtype: torch.dtype
    shape: tuple[int, ...]
    rows: torch.Tensor = field(compare=False, repr=False)

    def part(self, first: int, shape: Sequence[int]) -> str:
        """Return the checksum of a part with `shape`: consecutive entries of the first dimension, from `first` on."""
        each = math.prod(shape[1:-1])
        return _checksum(self.rows[first * each : (first + shape[0]) * each], self.dtype, shape)


def proof_of(tensor: torch.Tensor) -> TensorProof:
    """Return the proof of `tensor` [any shape], computed on its device.

    The checksum is a sum over 8-byte words modulo 2^64. Each word is multiplied by two odd numbers, which depend on its
    row and on its place in the row; rows are padded with zeros. A single changed word always changes the checksum,
    because odd numbers have inverses. Exchanged rows almost always change it. Data type and shape are included.
    """
    tensor = tensor.detach().contiguous()
    shape = tuple(tensor.shape)
    matrix = tensor.view(-1, shape[-1]) if len(shape) > 1 else tensor.view(-1, 1)
    words = -(-matrix.shape[1] * matrix.element_size() // 8)
    places = _odd(0, words, tensor.device)
    chunks = torch.split(matrix, max(1, _chunk_words(tensor) // words))
    sums = [(_words(chunk, words) * places).sum(1) for chunk in chunks]
    rows = torch.cat(sums)
    return TensorProof(_checksum(rows, tensor.dtype, shape), _finite(tensor.view(-1)), tensor.dtype, shape, rows)


def _chunk_words(tensor: torch.Tensor) -> int:
    return CHUNK_WORDS_CUDA if tensor.is_cuda else CHUNK_WORDS


def _words(rows: torch.Tensor, words: int) -> torch.Tensor:
    """Return `rows` [n, any] as [n, words] 8-byte numbers, padded with zeros."""
    raw = rows.view(torch.uint8)
    if raw.shape[1] % 8 or raw.storage_offset() % 8:
        padded = torch.zeros(len(raw), 8 * words, dtype=torch.uint8, device=raw.device)
        padded[:, : raw.shape[1]] = raw
        raw = padded
    return raw.view(torch.int64)


def _checksum(rows: torch.Tensor, dtype: torch.dtype, shape: Sequence[int]) -> str:
    total = int((rows * _odd(FIRST_ROW, len(rows), rows.device)).sum().item())
    kind = zlib.crc32(f"{dtype}{tuple(shape)}".encode())
    return f"{(total + (kind + 1) * FIRST_MULTIPLIER) % (1 << 64):016x}"


def _finite(flat: torch.Tensor) -> bool:
    if not flat.is_floating_point():
        return True
    bad = torch.zeros((), dtype=torch.bool, device=flat.device)
    for chunk in torch.split(flat, 4 * _chunk_words(flat)):
        values = chunk if chunk.element_size() > 1 else chunk.float()  # torch cannot compare 8-bit floats
        # NaN if any value is NaN; testing each value takes many times as long.
        ends = torch.stack(torch.aminmax(values))
        bad |= ~torch.isfinite(ends).all()
    return not bool(bad.item())


def _odd(first: int, count: int, device: torch.device) -> torch.Tensor:
    """Return an odd number for each of `count` places from `first` on [count], int64."""
    place = torch.arange(first + 1, first + count + 1, dtype=torch.int64, device=device) * FIRST_MULTIPLIER
    return ((place ^ (place >> 29)) * SECOND_MULTIPLIER) | 1


_noting_s = 0.0


def noting_s() -> float:
    """Return the total time of recording weights during updates in this process, in seconds."""
    return _noting_s


def noted(tensor: torch.Tensor) -> TensorProof:
    """Return the proof of a tensor during a timed update, and count the time for it."""
    global _noting_s
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)  # pending work belongs to the update
    began = time.monotonic()
    found = proof_of(tensor)
    _noting_s += time.monotonic() - began
    return found


def noted_packed(weight: torch.Tensor) -> TensorProof:
    """Return the proof of a weight that oneDNN is about to pack [in, out], in a checkpoint's layout [out, in]."""
    return noted(weight.t())


class WeightProofs(WeightCensus):
    """Worker extension of vLLM: the census, and proofs of the weights."""

    def rollout_bench_proofs(self, norms: bool) -> dict[str, tuple[str, bool, bool]]:
        """Return name -> checksum, finite, and whether an update must change the tensor, for every tensor of this rank.

        `norms`: whether updates must also change the weights of norms.
        """
        found = proofs_of(self.get_model(), norms)
        return {name: (proof.checksum, proof.finite, trained) for name, (proof, trained) in found.items()}

    def rollout_bench_loaded(self, parts: Mapping[str, tuple[str, Sequence[int]]], ranks: int) -> dict[str, list[str]]:
        """Return `loaded_of` this rank's model; `parts` has data types as text, such as `torch.bfloat16`."""
        return loaded_of(self.get_model(), parts, ranks)

    def rollout_bench_noting_s(self) -> float:
        """Return the total time of recording weights during updates in this process, in seconds."""
        return noting_s()


def proofs_of(model: Any, norms: bool) -> dict[str, tuple[TensorProof, bool]]:
    """Return name -> proof, and whether an update must change it, for parameters, buffers and packed weights.

    An update has to change weights and biases of linear layers, the embedding and the output head. This includes a
    head that shares the embedding's values, because it then has separate packed weights.

    With `norms`, an update also has to change the weights of norms and a rank's share of the embedding. A training step
    may leave both unchanged. Near one, bf16 has no values closer than 0.004. Tokens that do not occur have no gradient.
    Workspaces are not weights and are left out.
    """
    found: dict[str, tuple[TensorProof, bool]] = {}
    seen: set[int] = set()
    for path, module in model.named_modules():
        deep = is_linear_module(module) or hasattr(module, "num_embeddings_per_partition")
        for label, held in all_tensors(module, seen) if deep else own_tensors(module, seen):
            if "workspace" in label:
                continue
            proof = held.noted if isinstance(held, Packed) else proof_of(held)
            if deep:
                trained = not NO_WEIGHT.search(label) and (norms or not _is_share_of_embedding(module))
            else:
                trained = norms and label == "weight" and _is_norm(module)
            found[_unused(f"{path}.{label}", found)] = (proof, trained)
    return found


def _is_norm(module: Any) -> bool:
    return any("Norm" in base.__name__ for base in type(module).__mro__)


def _is_share_of_embedding(module: Any) -> bool:
    return type(module).__name__ == "VocabParallelEmbedding" and getattr(module, "tp_size", 1) > 1


def shares_of(tensor: torch.Tensor, ranks: int) -> list[list[str]]:
    """Return, for each of the `ranks` of an engine, the checksums of the parts of `tensor` that the rank may hold.

    The parts are the whole tensor, the rank's share of the rows, and its share of the columns, if they divide evenly.
    """
    whole = proof_of(tensor)
    found = [[whole.checksum] for _ in range(ranks)]
    rows, columns = (_share(whole.shape, dim, ranks) for dim in DIVIDED)
    for rank, checksums in enumerate(found if ranks > 1 else ()):
        if rows is not None:
            checksums.append(whole.part(rank * rows[0], rows))
        if columns is not None:
            checksums.append(proof_of(tensor.chunk(ranks, 1)[rank]).checksum)
    return found


DIVIDED = (0, 1)
"""Dimensions of a weight [out, in] that ranks may divide: rows or columns."""


def _share(shape: Sequence[int], dim: int | None, ranks: int) -> tuple[int, ...] | None:
    """Return the shape of a rank's share along `dim`; None if it does not divide evenly. Without `dim`: the whole."""
    if dim is None:
        return tuple(shape)
    if dim >= len(shape) or shape[dim] % ranks:
        return None
    return (*shape[:dim], shape[dim] // ranks, *shape[dim + 1 :])


def loaded_of(model: Any, parts: Mapping[str, tuple[str, Sequence[int]]], ranks: int = 1) -> dict[str, list[str]]:
    """Return name -> checksums of a checkpoint's tensors in `model`, for each place where a tensor is found.

    A tensor, or this rank's share of it, is searched under its own name and among the rows of fused tensors. Not found
    are tensors with another data type, tensors packed for a kernel (except by oneDNN), and uneven shares. Padding rows
    of a vocabulary are ignored.

    Args:
        model: vLLM's model.
        parts: name of each tensor -> data type as text, and shape.
        ranks: number of ranks that share the model.
    """
    found: dict[str, list[str]] = {}
    fused: Mapping[str, Sequence[str]] = getattr(model, "packed_modules_mapping", None) or {}
    for name, (proof, _) in proofs_of(model, norms=False).items():
        module, _, label = name.partition("#")[0].rpartition(".")
        parent, dot, last = module.rpartition(".")
        names = [f"{parent}{dot}{part}.{label}" for part in fused.get(last, [last])]
        if any(each not in parts or parts[each][0] != str(proof.dtype) for each in names):
            continue
        for dim in (None, *(DIVIDED if ranks > 1 else ())):
            shapes = [_share(parts[each][1], dim, ranks) for each in names]
            ends = _ends(shapes, proof.shape, filled_up=dim is None and len(names) == 1)
            for each, shape, end in zip(names, shapes, ends, strict=False):  # `ends` is empty if they do not fit
                assert shape is not None, "what fits is there"
                found.setdefault(each, []).append(proof.part(end - shape[0], shape))
            if ends:
                break
    return found


def _ends(shapes: Sequence[tuple[int, ...] | None], whole: tuple[int, ...], *, filled_up: bool) -> list[int]:
    """Return the last row of each of `shapes` in a fused tensor; empty if the shapes do not fit.

    Args:
        shapes: shapes of successive parts.
        whole: shape of the fused tensor.
        filled_up: whether it may have more rows.
    """
    lengths = [shape[0] for shape in shapes if shape and whole and shape[1:] == whole[1:]]
    ends = list(itertools.accumulate(lengths))
    if len(lengths) < len(shapes) or ends[-1] > whole[0] or (ends[-1] < whole[0] and not filled_up):
        return []
    return ends


def _unused(name: str, taken: Any) -> str:
    """Return `name`, with a number if it is taken: parts of a list have the same name."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}#{number}"
    return free


# A worker imports this module by name before it loads weights.
if os.environ.get("VLLM_TARGET_DEVICE") == "cpu" and "vllm" in sys.modules:
    note_packed_weights(noted_packed)
