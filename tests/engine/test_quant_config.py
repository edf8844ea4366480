"""Quantizations of the built-in table as a config names them, on the real engine: each is proven by what it loaded."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from launching import own_flags
from workspace import TINY, Workspace

from rollout_bench.contracts.record import CacheFacts, EngineFacts
from rollout_bench.contracts.store import read_record

AVX512 = "avx512f" in Path("/proc/cpuinfo").read_text()
pytestmark = [
    pytest.mark.engine,
    pytest.mark.untimed,
    pytest.mark.skipif(not AVX512, reason="vLLM has no KV cache of 8 bits on this processor"),
]

QUANTS = ("w8a8-kv8", "w4a16")
TOKEN = 4 * 2 * 2 * 64
"""Values of a token in the KV cache: layers, keys and values, heads, width of a head."""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    overlay = {**TINY, "quants": list(QUANTS), "baseline": {"quant": "w8a8-kv8"}}
    overlay["engine"] = {"environment": {**TINY["engine"]["environment"], "VLLM_CPU_INT4_W4A8": "0"}}  # without AMX too
    workspace = Workspace(tmp_path_factory.mktemp("quants") / "workspace", overlay)
    done = workspace.snakemake()
    assert done.returncode == 0, done.stdout
    return workspace


def engine_of(workspace: Workspace, quant: str) -> EngineFacts:
    (path,) = workspace.path.glob(f"results/offline/tiny_{quant}_short-*/launch-0.json")
    record = read_record(path)
    assert own_flags(record) == []
    return record.engine


def test_a_cache_in_8_bits_is_proven_from_its_tensors(measured: Workspace) -> None:
    engine = engine_of(measured, "w8a8-kv8")
    assert engine.kv_cache == CacheFacts(layers={"fp8": 4}, bytes_per_token=TOKEN)
    assert engine.weights_bytes_by_dtype is not None
    assert set(engine.weights_bytes_by_dtype.linear) == {"int8"}


def test_4_bits_a_weight_are_proven_from_the_packed_words(measured: Workspace) -> None:
    packed, whole = engine_of(measured, "w4a16"), engine_of(measured, "w8a8-kv8")
    assert packed.weights_bytes_by_dtype is not None
    assert whole.weights_bytes_by_dtype is not None
    assert packed.weights_bytes_by_dtype.linear == {"int32": whole.weights_bytes_by_dtype.linear["int8"] // 2}
    assert packed.linear_kernels == {"CPUWNA16LinearKernel": 16}
    assert packed.kv_cache == CacheFacts(layers={"bfloat16": 4}, bytes_per_token=2 * TOKEN)


def test_the_summary_says_what_a_token_takes_in_the_cache(measured: Workspace) -> None:
    with (measured.path / "results/summary.csv").open() as file:
        lines = {line["quant"]: line for line in csv.DictReader(file)}
    shown = {quant: (line.get("kv_cache_dtype"), line.get("kv_cache_bytes_per_token")) for quant, line in lines.items()}
    tokens = {"w8a8-kv8": ("fp8", TOKEN), "w4a16": ("bfloat16", 2 * TOKEN)}
    for quant, (dtype, size) in tokens.items():
        if lines[quant]["launches_valid"] == "1":  # on a machine that does something else it has no number
            assert shown[quant] == (dtype, str(size))
