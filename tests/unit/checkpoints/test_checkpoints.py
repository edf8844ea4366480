"""Synthetic checkpoints: shapes that fit together, bytes that are right, and a destination that is whole or absent."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rollout_bench.checkpoints import weights
from rollout_bench.checkpoints.build import build_checkpoint
from rollout_bench.checkpoints.formats import FORMATS, tensors
from rollout_bench.checkpoints.shapes import ResolvedShape, SyntheticModel
from rollout_bench.checkpoints.weights import checkpoint_bytes
from rollout_bench.core.errors import UserError

COMMAND = Path(__file__).parents[3] / "workflow" / "scripts" / "build_checkpoint.py"
TINY = ("qwen2-tiny", "qwen3-tiny", "qwen3-moe-tiny", "openpangu-tiny")
BUILDABLE = [(p, f) for p in TINY for f in FORMATS if (p, f) != ("qwen3-moe-tiny", "modelslim-w8a16")]


def shape_of(preset: str, seed: int = 0, **sizes: int) -> ResolvedShape:
    return SyntheticModel(preset=preset, shape=sizes, seed=seed).resolve()


def digest(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


def run_command(*arguments: str, ulimit_blocks: int | None = None) -> subprocess.CompletedProcess[str]:
    limit = f"ulimit -f {ulimit_blocks};" if ulimit_blocks is not None else ""
    line = ["bash", "-c", f'{limit} exec "$@"', "bash", sys.executable, str(COMMAND), *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)


# Format -> what follows the name of a linear layer's weight, and the dtype.
STORED = {
    "bf16": {"": "bfloat16"},
    "compressed-tensors-w8a8": {"": "int8", "_scale": "bfloat16"},
    "compressed-tensors-w8a16": {"_packed": "int32", "_scale": "bfloat16", "_shape": "int64"},
    "compressed-tensors-w4a16": {"_packed": "int32", "_scale": "bfloat16", "_shape": "int64"},
    "modelslim-w8a8": {"": "int8", "_scale": "float32", "_offset": "float32"},
    "modelslim-w8a16": {"": "int8", "_scale": "float32", "_offset": "float32"},
}


@pytest.mark.parametrize(("preset", "weights_format"), BUILDABLE)
def test_safetensors_reads_what_was_written(preset: str, weights_format: str, tmp_path: Path) -> None:
    shape = shape_of(preset=preset)
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
    index = json.loads((tmp_path / "several" / "model.safetensors.index.json").read_text())
    whole = load_file(tmp_path / "one" / "model.safetensors")
    parts = {name: load_file(tmp_path / "several" / name) for name in set(index["weight_map"].values())}
    assert len(parts) == 3
    assert index["weight_map"].keys() == whole.keys()
    assert all(torch.equal(parts[file][name], whole[name]) for name, file in index["weight_map"].items())


@pytest.mark.parametrize("weights_format", ["compressed-tensors-w8a8", "modelslim-w8a8", "modelslim-w8a16"])
def test_every_format_holds_the_same_model(weights_format: str, tmp_path: Path) -> None:
    shape = shape_of(preset="openpangu-tiny")
    build_checkpoint(shape, "bf16", tmp_path / "bf16")
    build_checkpoint(shape, weights_format, tmp_path / "int8")
    exact = load_file(tmp_path / "bf16" / "model.safetensors")
    (path,) = (tmp_path / "int8").glob("*.safetensors")
    rounded = load_file(path)
    for name, weight in exact.items():
        if (scale := rounded.get(f"{name}_scale")) is None:
            assert torch.equal(weight, rounded[name])
        else:
            assert bool(((rounded[name] * scale.float() - weight.float()).abs() <= 0.505 * scale.float()).all())


def test_only_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        build_checkpoint(shape_of(preset="qwen3-moe-tiny", seed=seed), "compressed-tensors-w8a8", tmp_path / name)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert digest(tmp_path / "a")["model.safetensors"] != digest(tmp_path / "c")["model.safetensors"]


def test_another_model_at_the_destination_is_kept_and_named(tmp_path: Path) -> None:
    build_checkpoint(shape_of(preset="qwen3-moe-tiny", seed=3), "bf16", tmp_path / "m")
    with pytest.raises(UserError, match="its seed is 3, not 0"):
        build_checkpoint(shape_of(preset="qwen3-moe-tiny"), "bf16", tmp_path / "m")


def test_a_truncated_checkpoint_is_an_error_not_a_result(tmp_path: Path) -> None:
    build_checkpoint(shape_of(preset="qwen3-moe-tiny"), "bf16", tmp_path / "m")
    os.truncate(tmp_path / "m" / "model.safetensors", 1000)
    with pytest.raises(UserError, match=r"damaged: model\.safetensors"):
        build_checkpoint(shape_of(preset="qwen3-moe-tiny"), "bf16", tmp_path / "m")


def test_a_killed_build_leaves_no_checkpoint_and_can_be_repeated(tmp_path: Path) -> None:
    shape = {"preset": "qwen3-90m", "shape": {"num_hidden_layers": 48}}
    line = [
        sys.executable,
        str(COMMAND),
        "--shape",
        json.dumps(shape),
        "--format",
        "bf16",
        "--out",
        str(tmp_path / "m"),
    ]
    partial = tmp_path / ".m.partial" / "model.safetensors"
    with subprocess.Popen(line) as process:
        deadline = time.monotonic() + 60
        while not partial.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
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
        ["--format", "bf16"],
    ],
)
def test_a_mistake_gives_two_lines_and_exit_status_1(arguments: list[str], tmp_path: Path) -> None:
    result = run_command(*arguments, "--out", str(tmp_path / "m"))
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 2
    assert not (tmp_path / "m").exists()


def test_a_full_disk_gives_two_lines_and_leaves_nothing(tmp_path: Path) -> None:
    arguments = ("--shape", "qwen3-tiny", "--format", "bf16", "--out", str(tmp_path / "m"))
    result = run_command(*arguments, ulimit_blocks=100)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 2
    assert "could not be written" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [".m.lock"]
    assert run_command(*arguments).returncode == 0
