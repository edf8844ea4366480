"""Proves which weights a worker holds: a checksum of every tensor.

oneDNN does not expose packed weights, so on CPU the checksum of a weight is taken when it is packed. This costs time,
so it is switched off during timed updates.
"""

import os
import re
import sys
from collections import Counter
from typing import Any, NamedTuple

import torch
from blake3 import blake3

from rollout_bench.measure.probes.loaded_weights import (
    Packed,
    WeightCensus,
    adapter_tensors_of,
    all_tensors,
    is_linear_module,
    note_packed_weights,
    own_tensors,
)

NO_WEIGHT = re.compile(r"scale|zero|offset|shape|g_idx|azp|workspace|sort_ind|strides|_map")
"""Tensors that may stay the same when weights change: a kernel's workspace, and scales, which may round alike."""


class TensorProof(NamedTuple):
    """Checksum and facts of one tensor.

    Attributes:
        checksum: 16 hex digits over its values in order, its data type and its shape.
        finite: whether all values are finite.
    """

    checksum: str
    finite: bool


UNNOTED = TensorProof("", True)
"""Proof of a packed weight that an update did not reach while checksums were taken: its values are unknown."""


def proof_of(tensor: torch.Tensor) -> TensorProof:
    """Return the proof of `tensor` [any shape]."""
    values = tensor.detach().reshape(-1)
    checksum = blake3(f"{tensor.dtype}{tuple(tensor.shape)}".encode(), max_threads=blake3.AUTO)
    data = values.view(torch.uint8)
    if data.device.type == "cuda":  # to copy and hash 16 GB takes the host many seconds
        whole = len(data) // WORD * WORD
        checksum.update(str(mixed(data[:whole])).encode())
        data = data[whole:]
    checksum.update(data.cpu().numpy())
    return TensorProof(checksum.hexdigest(8), _finite(values))


WORD, WORDS_AT_ONCE = 8, 1 << 20
"""Bytes of a word, and words that are mixed at once, for which four times their bytes are allocated."""

SPREAD, FIRST, SECOND = (odd - (1 << 64) for odd in (0x9E3779B97F4A7C15, 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53))
"""Odd factors: 2^64 over the golden ratio, and those of MurmurHash3's finalizer, as signed numbers."""

LOW = (1 << 31) - 1
"""Bits that remain after a shift by 33."""


def mixed(data: torch.Tensor) -> int:
    """Return a checksum of bytes that is made on their device, modulo 2^64.

    It is the sum of m(w_i ^ i `SPREAD`) over all words w_i, with m the finalizer of MurmurHash3 (A. Appleby, fmix64).
    m is a bijection, so a change of one word changes the sum.

    Args:
        data: [8 n], uint8.
    """
    aligned = data if data.storage_offset() % WORD == 0 else data.clone()
    total = torch.zeros((), dtype=torch.int64, device=data.device)
    for number, words in enumerate(aligned.view(torch.int64).split(WORDS_AT_ONCE)):
        first = number * WORDS_AT_ONCE
        mix = torch.arange(first, first + len(words), device=data.device).mul_(SPREAD).bitwise_xor_(words)
        for factor in (FIRST, SECOND, 1):
            mix.bitwise_xor_((mix >> 33).bitwise_and_(LOW)).mul_(factor)  # the shift alone copies the sign
        total += mix.sum()
    return int(total)


def _finite(values: torch.Tensor) -> bool:
    if not values.is_floating_point() or not len(values):
        return True
    comparable = values if values.element_size() > 1 else values.float()  # torch cannot compare 8-bit floats
    # NaN if any value is NaN; testing each value takes many times as long
    return bool(torch.stack(torch.aminmax(comparable)).isfinite().all())


_noting = True


def is_noting() -> bool:
    """Return whether checksums are taken while weights are loaded in this process."""
    return _noting


def noted_packed(weight: torch.Tensor) -> TensorProof | None:
    """Return the proof of a weight that oneDNN is about to pack [in, out]; None while nothing is noted."""
    return proof_of(weight) if _noting else None


class WeightProofs(WeightCensus):
    """Worker extension of vLLM: the census, and proofs of the weights."""

    def rollout_bench_proofs(self, norms: bool, adapter: bool = False) -> dict[str, tuple[str, bool, bool]]:
        """Return name -> checksum, finite, and whether an update must change the tensor, for every tensor of this rank.

        Args:
            norms: whether updates must also change the weights of norms.
            adapter: whether updates must change an adapter's tensors, and no others.
        """
        model = self.get_model()
        proofs = {name: (proof, trained and not adapter) for name, (proof, trained) in proofs_of(model, norms).items()}
        if adapter:
            held = adapter_tensors_of(model)
            proofs |= {name: (proof_of(tensor), bool(tensor.count_nonzero())) for name, tensor in held}
        return {name: (proof.checksum, proof.finite, trained) for name, (proof, trained) in proofs.items()}

    def rollout_bench_noting(self, on: bool) -> None:
        """Take checksums while weights are loaded, or stop it: timed updates must not pay for it."""
        global _noting
        _noting = on


def proofs_of(model: Any, norms: bool) -> dict[str, tuple[TensorProof, bool]]:
    """Return name -> proof, and whether an update must change it, for parameters, buffers and packed weights.

    An update has to change weights and biases of linear layers, the embedding and the output head. This includes a
    head that shares the embedding's values, because it then has separate packed weights.

    With `norms`, an update also has to change the weights of norms and a rank's share of the embedding. A training step
    may leave both unchanged. Near one, bf16 has no values closer than 0.004. Tokens that do not occur have no gradient.
    Workspaces are not weights and are left out.
    """
    proofs: dict[str, tuple[TensorProof, bool]] = {}
    named: Counter[str] = Counter()  # parts of a list have the same name
    seen: set[int] = set()
    for path, module in model.named_modules():
        bases = " ".join(base.__name__ for base in type(module).__mro__)
        is_share = type(module).__name__ == "VocabParallelEmbedding" and getattr(module, "tp_size", 1) > 1
        wraps = hasattr(module, "lora_a_stacked")  # has its layer below it, and states of vLLM's kernels
        deep = is_linear_module(module) or (hasattr(module, "num_embeddings_per_partition") and not wraps)
        for label, held in all_tensors(module, seen) if deep else own_tensors(module, seen):
            if "workspace" in label:
                continue
            proof = held.fact or UNNOTED if isinstance(held, Packed) else proof_of(held)
            if deep:
                trained = not NO_WEIGHT.search(label) and (norms or not is_share)
            else:
                trained = norms and label == "weight" and "Norm" in bases
            name = f"{path}.{label}"
            named[name] += 1
            proofs[f"{name}#{named[name]}" if named[name] > 1 else name] = (proof, trained)
    return proofs


# A worker imports this module by name before it loads weights.
if os.environ.get("VLLM_TARGET_DEVICE") == "cpu" and "vllm" in sys.modules:
    note_packed_weights(noted_packed)
