"""Checksums of weights: whatever changes shows, wherever it lies; packed weights are noted, and not kept alive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rollout_bench.measure.probes import census, weight_proofs
from rollout_bench.measure.probes.census import noting
from rollout_bench.measure.probes.weight_proofs import (
    CHUNK_WORDS,
    loaded_of,
    noted_packed,
    proof_of,
    proofs_of,
    shares_of,
)

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.int8, torch.int32, torch.int64, torch.float8_e4m3fn]


def drawn(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (100 * torch.rand(shape, generator=generator)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(rows=st.integers(1, 9), columns=st.integers(1, 9), seed=st.integers(0, 99), data=st.data())
def test_one_value_that_changed_shows(dtype: torch.dtype, rows: int, columns: int, seed: int, data: st.DataObject):
    tensor = drawn((rows, columns), dtype, seed)
    other = tensor.clone()
    raw = other.view(torch.uint8)
    where = data.draw(st.integers(0, raw.numel() - 1))
    raw.view(-1)[where] ^= data.draw(st.integers(1, 255))
    assert proof_of(tensor.clone()).checksum == proof_of(tensor).checksum != proof_of(other).checksum


WORDS_OF_A_ROW = 8
ROWS_OF_A_CHUNK = CHUNK_WORDS // WORDS_OF_A_ROW


@pytest.mark.parametrize("other", [1, 5, ROWS_OF_A_CHUNK, ROWS_OF_A_CHUNK + 1, -1])
def test_rows_that_changed_places_show_also_across_chunks(other: int):
    tensor = torch.arange(3 * ROWS_OF_A_CHUNK * WORDS_OF_A_ROW).view(-1, WORDS_OF_A_ROW)
    moved = tensor.clone()
    moved[[0, other]] = moved[[other, 0]]
    assert len({proof_of(each).checksum for each in (tensor, moved, tensor.roll(1, 0))}) == 3


def test_shape_and_data_type_take_part_and_strides_do_not():
    tensor = drawn((6, 4), torch.bfloat16)
    assert proof_of(tensor.t().contiguous().t()).checksum == proof_of(tensor).checksum
    others = [tensor, tensor.view(4, 6), tensor.view(torch.int16), tensor.view(torch.float16)]
    assert len({proof_of(each).checksum for each in others}) == 4


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan")])
@pytest.mark.parametrize("where", [0, 77, -1])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_a_non_finite_value_shows_wherever_it_is(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, where: int, value: float
):
    monkeypatch.setattr(weight_proofs, "CHUNK_WORDS", 16)
    tensor = torch.linspace(-1, 1, 9 * 16).to(dtype)
    assert proof_of(tensor).finite
    tensor[where] = value
    assert not proof_of(tensor).finite


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 4, 3), (5, CHUNK_WORDS)], ids=str)
def test_a_part_of_a_tensor_keeps_its_own_checksum(dtype: torch.dtype, shape: tuple[int, ...]):
    tensor = drawn(shape, dtype)
    part = (2, *shape[1:])
    assert proof_of(tensor).part(1, part) == proof_of(tensor[1:3].clone()).checksum
    assert proof_of(tensor).part(2, part) != proof_of(tensor[1:3].clone()).checksum


class Handler:
    """As vLLM's handler of what oneDNN packed."""


class VocabParallelEmbedding(torch.nn.Module):
    """As vLLM's, of a model whose head shares its weights: what multiplies by them may have a packed copy."""

    num_embeddings_per_partition = 4

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight, requires_grad=False)

    def pack(self, create: Any) -> None:
        handler = create(self.weight.t())
        self.cpu_linear = lambda x: (handler, x)


@pytest.fixture
def create(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what packs a weight, as oneDNN does, with its proof noted."""
    monkeypatch.setattr(census, "_packed", {})
    monkeypatch.setattr(census, "_look", [noted_packed])
    return noting(lambda weight: Handler())


def test_a_packed_copy_shows_when_an_update_skips_it(create: Any):
    model = torch.nn.Sequential(VocabParallelEmbedding(drawn((4, 8), torch.bfloat16)))
    model[0].pack(create)
    before = proofs_of(model, norms=False)
    assert {name: must_change for name, (_, must_change) in before.items()} == {"0.weight": True, "0.weight#2": True}
    model[0].weight.data.copy_(drawn((4, 8), torch.bfloat16, 1))
    stale = proofs_of(model, norms=False)
    assert [name for name in before if before[name] != stale[name]] == ["0.weight"]
    model[0].pack(create)
    renewed = proofs_of(model, norms=False)
    assert [name for name in before if before[name] != renewed[name]] == ["0.weight", "0.weight#2"]


class LinearBase(torch.nn.Module):
    """As vLLM's base of linear layers."""

    quant_method = None


class QkvProj(LinearBase):
    """As vLLM's, which has the rows of three tensors, and as many biases."""

    def __init__(self, *parts: torch.Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.cat(parts), requires_grad=False)


class Fusing(torch.nn.Module):
    """As a model of vLLM's that fuses query, key and value."""

    packed_modules_mapping: ClassVar = {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}

    def __init__(self, parts: Mapping[str, torch.Tensor], *, padding: int = 0) -> None:
        super().__init__()
        head = parts["head.weight"]
        self.qkv_proj = QkvProj(*(parts[f"{name}.weight"] for name in self.packed_modules_mapping["qkv_proj"]))
        self.head = VocabParallelEmbedding(torch.cat([head, head.new_zeros(padding, head.shape[1])]))
        self.norm = torch.nn.LayerNorm(8, dtype=torch.bfloat16, bias=False)
        self.norm.weight.data = parts["norm.weight"]


@pytest.fixture
def parts() -> dict[str, torch.Tensor]:
    """Return a checkpoint."""
    shapes = {"q_proj": (8, 8), "k_proj": (4, 8), "v_proj": (4, 8), "head": (6, 8), "norm": (8,)}
    return {f"{name}.weight": drawn(shape, torch.bfloat16, seed) for seed, (name, shape) in enumerate(shapes.items())}


def kinds(parts: Mapping[str, torch.Tensor]) -> dict[str, tuple[str, list[int]]]:
    return {name: (str(tensor.dtype), list(tensor.shape)) for name, tensor in parts.items()}


def checksums(parts: Mapping[str, torch.Tensor]) -> dict[str, list[str]]:
    return {name: [proof_of(tensor).checksum] for name, tensor in parts.items()}


@pytest.mark.parametrize("padding", [0, 2])
def test_checkpoint_tensors_are_found_in_fused_and_padded_weights(padding: int, parts: dict[str, torch.Tensor]):
    assert loaded_of(Fusing(parts, padding=padding), kinds(parts)) == checksums(parts)


def test_a_tensor_in_the_place_of_another_shows(parts: dict[str, torch.Tensor]):
    swapped = {**parts, "k_proj.weight": parts["v_proj.weight"], "v_proj.weight": parts["k_proj.weight"]}
    found, right = loaded_of(Fusing(swapped), kinds(parts)), checksums(parts)
    assert [name for name in right if found[name] != right[name]] == ["k_proj.weight", "v_proj.weight"]


def test_a_packed_weight_is_found_as_checkpoints_have_it(create: Any, parts: dict[str, torch.Tensor]):
    model = Fusing(parts)
    model.head.pack(create)
    assert loaded_of(model, kinds(parts)) == checksums(parts) | {"head.weight": 2 * checksums(parts)["head.weight"]}
    model.head.weight.data = drawn((6, 8), torch.bfloat16, 99)  # and what was packed of it stays
    now = proof_of(model.head.weight).checksum
    assert loaded_of(model, kinds(parts))["head.weight"] == [now, *checksums(parts)["head.weight"]]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_ranks_shares_are_among_those_the_trainer_offers(rank: int, parts: dict[str, torch.Tensor]):
    kinds_, whole = kinds(parts), {"norm.weight"}
    shares = {name: t if name in whole else t.chunk(2)[rank] for name, t in parts.items()}
    given = {name: shares_of(tensor, 2) for name, tensor in parts.items()}
    found = loaded_of(Fusing(shares), kinds_, 2)
    assert set(found) == set(parts)
    for name, checksums_ in found.items():
        assert set(checksums_) <= set(given[name][rank])
        assert name in whole or not set(checksums_) & set(given[name][1 - rank])
    columns = Fusing({**shares, "head.weight": parts["head.weight"].chunk(2, 1)[rank]})
    assert set(loaded_of(columns, kinds_, 2)["head.weight"]) <= set(given["head.weight"][rank])
