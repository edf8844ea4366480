"""Probes of a loaded model: checksums that show every change, and the KV cache as its tensors say."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rollout_bench.measure.probes import loaded_weights, weight_proofs
from rollout_bench.measure.probes.loaded_weights import cache_held, noting
from rollout_bench.measure.probes.weight_proofs import WeightProofs, mixed, noted_packed, proof_of, proofs_of

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


def test_shape_and_data_type_take_part_and_strides_do_not():
    tensor = drawn((6, 4), torch.bfloat16)
    assert proof_of(tensor.t().contiguous().t()).checksum == proof_of(tensor).checksum
    others = [tensor, tensor.view(4, 6), tensor.view(torch.int16), tensor.view(torch.float16)]
    assert len({proof_of(each).checksum for each in others}) == 4


def finalized(key: int) -> int:
    """Return fmix64 of MurmurHash3, step by step."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53, 1):
        key = (key ^ key >> 33) * factor % 2**64
    return key


@given(st.lists(st.binary(min_size=8, max_size=8), max_size=40), st.integers(1, 7))
def test_bytes_on_a_device_are_summed_up_by_place(words: list[bytes], at_once: int):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(weight_proofs, "WORDS_AT_ONCE", at_once)
        found = mixed(torch.tensor([*b"".join(words)], dtype=torch.uint8)) % 2**64
        offset = mixed(torch.tensor([0, *b"".join(words)], dtype=torch.uint8)[1:]) % 2**64
    spread = 0x9E3779B97F4A7C15
    keys = [int.from_bytes(word, "little") ^ place * spread % 2**64 for place, word in enumerate(words)]
    assert found == offset == sum(map(finalized, keys)) % 2**64


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan")])
@pytest.mark.parametrize("where", [0, 77, -1])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_a_non_finite_value_shows_wherever_it_is(dtype: torch.dtype, where: int, value: float):
    tensor = torch.linspace(-1, 1, 9 * 16).to(dtype)
    assert proof_of(tensor).finite
    tensor[where] = value
    assert not proof_of(tensor).finite


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
def create() -> Any:
    """Return what packs a weight, as oneDNN does, with its proof noted."""
    return noting(lambda weight: Handler(), noted_packed)


def test_a_packed_copy_shows_when_an_update_skips_it(create: Any):
    model = torch.nn.Sequential(VocabParallelEmbedding(drawn((4, 8), torch.bfloat16)))
    model[0].pack(create)
    before = proofs_of(model, norms=False)
    assert {name: must_change for name, (_, must_change) in before.items()} == {"0.weight": True, "0.weight#2": True}

    def changed() -> list[str]:
        now = proofs_of(model, norms=False)
        return [name for name in before if before[name] != now[name]]

    model[0].weight.data.copy_(drawn((4, 8), torch.bfloat16, 1))
    assert changed() == ["0.weight"]
    model[0].pack(create)
    assert changed() == ["0.weight", "0.weight#2"]


def test_nothing_is_noted_while_an_update_is_timed(create: Any):
    WeightProofs().rollout_bench_noting(on=False)
    handler = create(drawn((4, 8), torch.bfloat16))
    assert loaded_weights.packed_by(handler).fact is None
    WeightProofs().rollout_bench_noting(on=True)
    assert noted_packed(drawn((2, 2), DTYPES[0])) is not None


TOKENS = 4 * 16  # blocks x tokens in each


class Layer(torch.nn.Module):
    """An attention layer as vLLM has it, whose cache has 8 values for each key and as many for each value."""

    def __init__(self, dtype: torch.dtype, dtype_name: str = "auto") -> None:
        super().__init__()
        self.kv_cache_dtype, self.kv_sharing_target_layer_name = dtype_name, None
        half = torch.zeros(4, 1, 16, 8, dtype=dtype)
        self.kv_cache = torch.cat([half, half], dim=-1)


@pytest.mark.parametrize(
    ("layers", "dtypes", "bytes_per_token"),
    [
        ([Layer(torch.bfloat16), Layer(torch.bfloat16)], {"bfloat16": 2}, 64),
        ([Layer(torch.uint8, "fp8"), Layer(torch.uint8, "fp8_e5m2")], {"fp8": 1, "fp8_e5m2": 1}, 32),
        ([Layer(torch.bfloat16, "fp8")], {"bfloat16": 1}, 32),
    ],
    ids=["bf16", "fp8", "said fp8, but held bf16"],
)
def test_a_cache_is_what_its_layers_hold(layers: list[Layer], dtypes: dict[str, int], bytes_per_token: int) -> None:
    model = torch.nn.Sequential(*layers, torch.nn.Linear(2, 2))
    assert cache_held(model, TOKENS) == {"layers": dtypes, "bytes_per_token": bytes_per_token}
