"""The engine loads synthetic checkpoints and generates from them what the same weights say in every format."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rollout_bench.checkpoints.build import build_checkpoint
from rollout_bench.checkpoints.shapes import SyntheticModel
from rollout_bench.plan.quants import BUILT_IN

# One process starts every engine in turn: importing vLLM costs more than all of the tiny engines.
PROGRAM = """
import gc, json, sys
from vllm import LLM, SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.model_executor.models import registry

# vLLM imports itself once more for each architecture that it looks at, to keep CUDA out of this process.
registry._run_in_subprocess = lambda look: look()

def methods(model):
    return sorted({type(m.quant_method).__name__ for m in model.modules() if getattr(m, "quant_method", None)})

results = {}
for name, arguments in json.loads(sys.argv[1]).items():
    gc.freeze()  # or collecting garbage, as a start does twice, goes through all that is imported
    fixed = {"dtype": "bfloat16", "max_model_len": 128, "max_num_seqs": 4, "enforce_eager": True}
    fixed["kv_cache_memory_bytes"] = 1 << 26
    census = "rollout_bench.measure.probes.loaded_weights.WeightCensus"
    llm = LLM(skip_tokenizer_init=True, worker_extension_cls=census, **fixed, **arguments)
    sampling = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True, logprobs=1, detokenize=False)
    prompts = [{"prompt_token_ids": [7 * i + 1, 2, 3]} for i in range(4)]
    outputs = [request.outputs[0] for request in llm.generate(prompts, sampling, use_tqdm=False)]
    results[name] = {
        "model_class": type(llm.apply_model(lambda model: model)[0]).__name__,
        "methods": llm.apply_model(methods)[0],
        "census": llm.collective_rpc("rollout_bench_census")[0],
        "tokens": [list(output.token_ids) for output in outputs],
        "logprobs": [[max(t.logprob for t in step.values()) for step in output.logprobs] for output in outputs],
    }
    del llm
    cleanup_dist_env_and_memory()
print("RESULTS" + json.dumps(results))
"""
pytestmark = pytest.mark.engine

AVX512 = "avx512f" in Path("/proc/cpuinfo").read_text()

LOADABLE = (
    ("qwen3-tiny", "bf16"),
    ("qwen3-tiny", "compressed-tensors-w8a8"),
    ("qwen3-moe-tiny", "bf16"),
    ("llama-tiny", "bf16"),
    ("qwen2-tiny", "bf16"),
    ("openpangu-tiny", "bf16"),
    ("openpangu-tiny", "compressed-tensors-w8a8"),
)


CACHES = ("fp8", "fp8_e5m2") if AVX512 else ()
"""Data types of a KV cache of one byte a value, where vLLM has them."""


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    directory = tmp_path_factory.mktemp("checkpoints")
    engines: dict[str, dict[str, object]] = {}
    for preset, weights_format in LOADABLE:
        destination = directory / preset / weights_format
        build_checkpoint(SyntheticModel(preset=preset).resolve(), weights_format, destination)
        engines[f"{preset} {weights_format}"] = {"model": str(destination)}
    dummy = directory / "dummy"
    shape = SyntheticModel(preset="qwen3-tiny").resolve()
    build_checkpoint(shape, "compressed-tensors-w8a8", dummy, config_only=True)
    engines["dummy"] = {"model": str(dummy), "load_format": "dummy"}
    channels = BUILT_IN["cpu"]["fp8-channel"].engine_args
    engines["fp8-channel"] = {"model": str(directory / "qwen3-tiny" / "bf16"), **channels}
    for dtype in CACHES:
        engines[dtype] = {"model": str(directory / "qwen3-tiny" / "bf16"), "kv_cache_dtype": dtype}
    return run_engines(engines, directory)


def run_engines(engines: dict[str, dict[str, object]], directory: Path) -> dict[str, dict[str, Any]]:
    environment = {
        **os.environ,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "OMP_NUM_THREADS": "1",
        "TORCHDYNAMO_DISABLE": "1",  # or the first log-probability compiles for 8 s what counts ranks
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "HF_HUB_OFFLINE": "1",
    }
    line = [sys.executable, "-c", PROGRAM, json.dumps(engines)]
    run = subprocess.run(line, env=environment, cwd=directory, capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 0, run.stderr[-4000:]
    (found,) = (part for part in run.stdout.splitlines() if part.startswith("RESULTS"))
    results: dict[str, dict[str, Any]] = json.loads(found.removeprefix("RESULTS"))
    return results


@pytest.mark.parametrize("name", [f"{preset} {weights_format}" for preset, weights_format in LOADABLE])
def test_what_the_engine_generates_is_finite_and_not_flat(name: str, generated: dict[str, dict[str, Any]]) -> None:
    logprobs = [value for sequence in generated[name]["logprobs"] for value in sequence]
    assert len(logprobs) == 4 * 8
    assert all(math.isfinite(value) for value in logprobs)
    assert max(logprobs) > -math.log(2048) + 1


def test_fp8_with_channel_scales_halves_the_bytes_of_the_model(generated: dict[str, dict[str, Any]]) -> None:
    bf16, rounded = generated["qwen3-tiny bf16"], generated["fp8-channel"]
    assert rounded["census"]["linear"] == {"float8_e4m3fn": bf16["census"]["linear"]["bfloat16"] // 2}
    assert list(rounded["census"]["linear_methods"]) == ["Fp8PtpcOnlineLinearMethod"]


@pytest.mark.parametrize("dtype", CACHES)
def test_an_8_bit_cache_has_half_the_bytes(dtype: str, generated: dict[str, dict[str, Any]]) -> None:
    bf16, small = generated["qwen3-tiny bf16"], generated[dtype]
    token = 4 * 2 * 2 * 64  # layers, keys and values, heads, width of a head
    assert bf16["census"]["kv_cache"] == {"layers": {"bfloat16": 4}, "bytes_per_token": 2 * token}
    assert small["census"]["kv_cache"] == {"layers": {dtype: 4}, "bytes_per_token": token}
    assert small["census"]["attention_backends"] == ["CPU_ATTN"]
    assert small["census"]["linear"] == bf16["census"]["linear"]


VNNI = re.search(r"\bavx(512)?_vnni\b", Path("/proc/cpuinfo").read_text()) is not None


W8A8 = pytest.mark.xfail(not VNNI, reason="seen without VNNI: int8 layers on a CPU generate other text")


@pytest.mark.parametrize(
    ("exact", "rounded"),
    [
        *(("qwen3-tiny bf16", name) for name in ("fp8-channel", *CACHES)),
        pytest.param("qwen3-tiny bf16", "qwen3-tiny compressed-tensors-w8a8", marks=W8A8),
        pytest.param("openpangu-tiny bf16", "openpangu-tiny compressed-tensors-w8a8", marks=W8A8),
    ],
)
def test_rounded_weights_or_caches_say_what_bf16_says(
    exact: str, rounded: str, generated: dict[str, dict[str, Any]]
) -> None:
    one, other = generated[exact], generated[rounded]
    assert other["logprobs"] != one["logprobs"]
    for a, b in zip(one["logprobs"], other["logprobs"], strict=True):
        assert a[0] == pytest.approx(b[0], abs=0.3)


@pytest.mark.parametrize("name", ["qwen3-tiny compressed-tensors-w8a8", "dummy"])
def test_int8_checkpoints_run_int8_linear_layers(name: str, generated: dict[str, dict[str, Any]]) -> None:
    assert "CompressedTensorsLinearMethod" in generated[name]["methods"]
    assert "UnquantizedLinearMethod" not in generated[name]["methods"]


@pytest.mark.parametrize(
    ("name", "model_class"),
    [
        ("llama-tiny bf16", "LlamaForCausalLM"),
        ("qwen2-tiny bf16", "Qwen2ForCausalLM"),
        ("qwen3-tiny bf16", "Qwen3ForCausalLM"),
        ("qwen3-moe-tiny bf16", "Qwen3MoeForCausalLM"),
        ("openpangu-tiny bf16", "PanguEmbeddedForCausalLM"),
    ],
)
def test_the_engine_picks_the_real_architecture(
    name: str, model_class: str, generated: dict[str, dict[str, Any]]
) -> None:
    assert generated[name]["model_class"] == model_class
