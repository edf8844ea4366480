"""Synthetic checkpoints: shapes, tensors in every format, and a tokenizer."""

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from comparing import run
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load_file

from rollout_bench.checkpoints import weights
from rollout_bench.checkpoints.build import build_checkpoint
from rollout_bench.checkpoints.formats import FORMATS, Storage, check_format, tensors
from rollout_bench.checkpoints.shapes import ResolvedShape, SyntheticModel
from rollout_bench.checkpoints.tokenizer import write_tokenizer
from rollout_bench.checkpoints.weights import checkpoint_bytes, pack, rounded
from rollout_bench.commands import build
from rollout_bench.commands.build import read_shape
from rollout_bench.core.errors import UserError

COMMAND = ("-m", "rollout_bench", "build")
TINY = ("llama-tiny", "qwen2-tiny", "qwen3-tiny", "qwen3-moe-tiny", "openpangu-tiny", "opt-125m")
SIZES = {"opt-125m": {"num_hidden_layers": 2, "vocab_size": 2048}}
"""What makes a preset tiny whose name does not say that it is."""

BUILDABLE = [(p, f) for p in TINY for f in FORMATS if (p, f) != ("qwen3-moe-tiny", "modelslim-w8a16")]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Have torch compute on one thread: several wait for each other, and tests share the cores."""
    torch.set_num_threads(1)


def shape_of(preset: str, seed: int = 0, **sizes: int) -> ResolvedShape:
    return SyntheticModel(preset=preset, shape=sizes, seed=seed).resolve()


def digest(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


# Format -> what follows the name of a linear layer's weight, and the dtype.
STORED = {
    "bf16": {"": "bfloat16"},
    "compressed-tensors-w8a8": {"": "int8", "_scale": "bfloat16"},
    "compressed-tensors-w8a16": {"_packed": "int32", "_scale": "bfloat16", "_shape": "int64"},
    "modelslim-w8a8": {"": "int8", "_scale": "float32", "_offset": "float32"},
    "modelslim-w8a16": {"": "int8", "_scale": "float32", "_offset": "float32"},
}


@pytest.mark.parametrize(("preset", "weights_format"), BUILDABLE)
def test_safetensors_reads_what_was_written(preset: str, weights_format: str, tmp_path: Path) -> None:
    shape = shape_of(preset, **SIZES.get(preset, {}))
    build_checkpoint(shape, weights_format, tmp_path / "model")
    (path,) = (tmp_path / "model").glob("*.safetensors")
    found = load_file(path)
    assert {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in found.items()} == {
        f"{spec.name}{suffix}": dtype
        for spec in tensors(shape)
        for suffix, dtype in STORED[weights_format if spec.quantizable else "bf16"].items()
    }
    assert all(bool(torch.isfinite(tensor).all()) for tensor in found.values() if tensor.is_floating_point())
    assert checkpoint_bytes(shape, weights_format) == sum(tensor.nbytes for tensor in found.values())


def test_a_large_model_has_several_files_and_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = shape_of(preset="qwen3-tiny")
    build_checkpoint(shape, "compressed-tensors-w8a8", tmp_path / "one")
    monkeypatch.setattr(weights, "SHARD_BYTES", 1 << 21)
    build_checkpoint(shape, "compressed-tensors-w8a8", tmp_path / "several")
    index = json.loads((tmp_path / "several" / "model.safetensors.index.json").read_text())["weight_map"]
    whole = load_file(tmp_path / "one" / "model.safetensors")
    assert len(set(index.values())) == 3
    assert index.keys() == whole.keys()
    assert all(torch.equal(load_file(tmp_path / "several" / file)[name], whole[name]) for name, file in index.items())


@pytest.mark.parametrize("weights_format", ["compressed-tensors-w8a8", "modelslim-w8a8", "modelslim-w8a16"])
def test_every_format_holds_the_same_model(weights_format: str, tmp_path: Path) -> None:
    for name in ("bf16", weights_format):
        build_checkpoint(shape_of(preset="openpangu-tiny"), name, tmp_path / name)
    exact, rounded = (load_file(*(tmp_path / name).glob("*.safetensors")) for name in ("bf16", weights_format))
    for name, weight in exact.items():
        scale = rounded.get(f"{name}_scale", torch.tensor(1.0)).float()
        most = 0.505 * scale if f"{name}_scale" in rounded else 0.0
        assert bool(((rounded[name] * scale - weight.float()).abs() <= most).all())


def test_only_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        build_checkpoint(shape_of(preset="qwen3-moe-tiny", seed=seed), "compressed-tensors-w8a8", tmp_path / name)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert digest(tmp_path / "a")["model.safetensors"] != digest(tmp_path / "c")["model.safetensors"]


def test_another_or_a_truncated_model_at_the_destination_is_named(tmp_path: Path) -> None:
    build_checkpoint(shape_of(preset="qwen3-moe-tiny", seed=3), "bf16", tmp_path / "m")
    with pytest.raises(UserError, match="its seed is 3, not 0"):
        build_checkpoint(shape_of(preset="qwen3-moe-tiny"), "bf16", tmp_path / "m")
    os.truncate(tmp_path / "m" / "model.safetensors", 1000)
    with pytest.raises(UserError, match=r"damaged: model\.safetensors"):
        build_checkpoint(shape_of(preset="qwen3-moe-tiny", seed=3), "bf16", tmp_path / "m")


def test_a_killed_build_leaves_no_checkpoint_and_can_be_repeated(tmp_path: Path) -> None:
    shape = json.dumps({"preset": "qwen3-90m", "shape": {"num_hidden_layers": 48}})
    partial = tmp_path / ".m.partial" / "model.safetensors"
    arguments = ["--shape", shape, "--format", "bf16", "--out", str(tmp_path / "m")]
    with subprocess.Popen([sys.executable, *COMMAND, *arguments]) as process:
        while not partial.exists() and process.poll() is None:
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert partial.exists()
    assert not (tmp_path / "m").exists()
    assert build_checkpoint(shape_of(preset="qwen3-moe-tiny"), "bf16", tmp_path / "m")
    assert not partial.parent.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--shape", "qwen3-tniy", "--format", "bf16"],
        ["--shape", '{"preset": "qwen3-tiny", "shape": {"hiden_size": 64}}', "--format", "bf16"],
        ["--shape", '{"preset": "qwen3-tiny"', "--format", "bf16"],
        ["--shape", "qwen3-tiny", "--format", "w8a8"],
        ["--shape", '{"preset": "qwen3-30b-a3b", "shape": {"num_hidden_layers": 4096}}', "--format", "bf16"],
    ],
)
def test_a_mistake_gives_two_lines_and_exit_status_1(arguments: list[str], tmp_path: Path) -> None:
    result = run(tmp_path, *arguments, "--out", "m", main=build.main)
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 2)
    assert not (tmp_path / "m").exists()


def test_a_full_disk_gives_two_lines_and_leaves_nothing(tmp_path: Path) -> None:
    arguments = ("--shape", "qwen3-tiny", "--format", "bf16", "--out", str(tmp_path / "m"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100 << 10, limits[1]))
    try:
        result = run(tmp_path, *arguments, main=build.main)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 2)
    assert "could not be written" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [".m.lock"]
    assert run(tmp_path, *arguments, main=build.main).returncode == 0


def test_other_weights_of_a_model_take_the_next_seed() -> None:
    shape = shape_of(preset="qwen3-tiny", seed=(1 << 63) - 1)
    other = shape.other_weights()
    assert (other.model_dump(), ResolvedShape(**other.model_dump())) == (
        {**shape.model_dump(), "seed": 0, "norm": 1.25},
        other,
    )


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "preset"),
        ({"preset": "qwen3-tniy"}, "qwen3-tiny"),
        ({"preset": "qwen3-tiny", "shape": {"architecture": "openpangu"}}, "architecture"),
        ({"preset": "qwen3-tiny", "shape": {"hidden_size": -256}}, "hidden_size"),
        ({"preset": "qwen3-tiny", "shape": {"hidden_size": 250}}, "hidden_size"),
        ({"preset": "qwen3-tiny", "shape": {"hidden_size": 10**12}}, "hidden_size"),
        ({"preset": "qwen3-tiny", "shape": {"intermediate_size": 100}}, "intermediate_size"),
        ({"preset": "qwen3-tiny", "shape": {"num_hidden_layers": 0}}, "num_hidden_layers"),
        ({"preset": "qwen3-tiny", "shape": {"num_key_value_heads": 3}}, "num_key_value_heads"),
        ({"preset": "qwen3-tiny", "shape": {"num_experts": 4}}, "num_experts"),
        ({"preset": "qwen3-tiny", "shape": {"rope_theta": "inf"}}, "rope_theta"),
        ({"preset": "qwen3-tiny", "seed": -1}, "seed"),
        ({"preset": "qwen3-tiny", "shape": {"hiden_size": 256}}, "hiden_size"),
        ({"preset": "qwen2-tiny", "shape": {"head_dim": 32}}, "head_dim"),
        ({"preset": "opt-125m", "shape": {"head_dim": 32}}, "head_dim"),
        ({"preset": "opt-125m", "shape": {"num_key_value_heads": 6}}, "num_key_value_heads"),
        ({"preset": "opt-125m", "shape": {"rope_theta": 1e6}}, "rope_theta"),
        ({"preset": "qwen3-moe-tiny", "shape": {"num_experts_per_tok": 9}}, "num_experts_per_tok"),
        ({"preset": "qwen3-moe-tiny", "shape": {"moe_intermediate_size": 8}}, "moe_intermediate_size"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused_by_name(fields: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SyntheticModel.model_validate(fields)
    error = caught.value.errors(include_url=False)[0]
    assert named in f"{error['loc']} {error['msg']}"


def test_an_unknown_field_of_a_complete_shape_names_its_sizes() -> None:
    fields = shape_of(preset="qwen3-tiny").model_dump()
    with pytest.raises(UserError, match=r"no field 'num_layers': .*num_hidden_layers"):
        read_shape(json.dumps({**fields, "num_layers": 2}))


def test_modelslim_w8a16_is_refused_for_experts() -> None:
    with pytest.raises(ValueError, match="modelslim-w8a16 does not exist for MoE"):
        check_format(shape_of(preset="qwen3-moe-tiny"), "modelslim-w8a16")


matrices = st.builds(
    lambda rows, words, seed, exponent: (
        torch.randn(rows, 4 * words, generator=torch.Generator().manual_seed(seed)) * 2.0**exponent
    ).to(torch.bfloat16),
    st.integers(1, 8),
    st.integers(1, 16),
    st.integers(0, 2**32),
    st.integers(-20, 10),
)


@given(weight=matrices, scale_dtype=st.sampled_from(["bfloat16", "float32"]))
def test_int8_rounding_is_within_half_a_step_of_every_weight(weight: torch.Tensor, scale_dtype: str) -> None:
    values, scale = rounded(weight, Storage("int-quantized", scale_dtype=scale_dtype))
    assert (values.dtype, scale.dtype, scale.shape) == (torch.int8, getattr(torch, scale_dtype), (len(weight), 1))
    error = (values.float() * scale.float() - weight.float()).abs()
    assert bool((error <= 0.505 * scale.float()).all())
    assert int(values.abs().max()) >= 126


@given(values=st.lists(st.integers(-128, 127), min_size=16, max_size=16))
def test_packing_puts_four_values_of_8_bits_into_a_word(values: list[int]) -> None:
    words = pack(torch.tensor([values], dtype=torch.int8))
    unpacked = [((int(words[0, i // 4]) >> (8 * (i % 4))) & 0xFF) - 128 for i in range(16)]
    assert (words.dtype, words.shape, unpacked) == (torch.int32, (1, 4), values)


VOCABULARY = 2048


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("built") / "m"
    build_checkpoint(shape_of("qwen3-tiny", vocab_size=VOCABULARY), "bf16", folder, config_only=True)
    return AutoTokenizer.from_pretrained(folder)


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_becomes_ids_and_comes_back(tokenizer: Any, text: str):
    ids = tokenizer(text)["input_ids"]
    assert all(0 <= i < VOCABULARY for i in ids)
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("vocabulary", [256, 257, 256 + 26, 256 + 27, 153_376])
def test_every_id_has_a_token_of_its_own(vocabulary: int, tmp_path: Path):
    write_tokenizer(tmp_path, vocabulary, 64)
    tokens = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    assert sorted(tokens.values()) == list(range(vocabulary))


def test_a_vocabulary_too_small_for_all_bytes_has_none(tmp_path: Path):
    build_checkpoint(shape_of("qwen3-tiny", vocab_size=255), "bf16", tmp_path / "m", config_only=True)
    assert "tokenizer.json" not in json.loads((tmp_path / "m" / "synthetic.json").read_text())["file_bytes"]
