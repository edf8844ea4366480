"""What vLLM itself says, outside any launch: of synthetic checkpoints, of what it refuses, of latencies of requests."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from launching import TINY_MODEL
from needing_vllm import run_program
from samples.online import Server, make_online, make_online_spec

from rollout_bench.analysis.timed.service import requests_of, service_of
from rollout_bench.checkpoints.build import build_checkpoint
from rollout_bench.checkpoints.shapes import SyntheticModel
from rollout_bench.contracts.load import LoadPoint
from rollout_bench.contracts.record import Iteration, SequenceRow
from rollout_bench.measure.launch.failures import diagnose
from rollout_bench.plan.quants import BUILT_IN, REFUSED
from rollout_bench.plan.serving import Slo

pytestmark = pytest.mark.engine

# One process says all: a start costs more than many tiny engines.
PROGRAM = """
import gc, json
from vllm import LLM, SamplingParams
from vllm.benchmarks.lib.endpoint_request_func import RequestFuncOutput
from vllm.benchmarks.serve import calculate_metrics
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.model_executor.models import registry

# vLLM imports itself once more for each architecture that it looks at, to keep CUDA out of this process.
registry._run_in_subprocess = lambda look: look()

def methods(model):
    return sorted({type(m.quant_method).__name__ for m in model.modules() if getattr(m, "quant_method", None)})

def generated(arguments):
    fixed = {"dtype": "bfloat16", "max_model_len": 128, "max_num_seqs": 4, "enforce_eager": True}
    fixed["kv_cache_memory_bytes"] = 1 << 26
    census = "rollout_bench.measure.probes.loaded_weights.WeightCensus"
    llm = LLM(skip_tokenizer_init=True, worker_extension_cls=census, **fixed, **arguments)
    sampling = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True, logprobs=1, detokenize=False)
    prompts = [{"prompt_token_ids": [7 * i + 1, 2, 3]} for i in range(4)]
    outputs = [request.outputs[0] for request in llm.generate(prompts, sampling, use_tqdm=False)]
    return {
        "model_class": type(llm.apply_model(lambda model: model)[0]).__name__,
        "methods": llm.apply_model(methods)[0],
        "census": llm.collective_rpc("rollout_bench_census")[0],
        "tokens": [list(output.token_ids) for output in outputs],
        "logprobs": [[max(t.logprob for t in step.values()) for step in output.logprobs] for output in outputs],
    }

def refused(arguments):
    fixed = {"model": "tiny", "load_format": "dummy", "skip_tokenizer_init": True, "enforce_eager": True}
    try:
        LLM(**{**fixed, "kv_cache_memory_bytes": 1 << 28, **arguments})
    except Exception as error:
        return f"{type(error).__name__}: {error}"

def metrics(outputs, elapsed_s, slos):
    names = ["completed", "failed", "request_throughput", "request_goodput", "output_throughput"]
    names += [f"{kind}_{name}_ms" for kind in ("mean", "median") for name in ("ttft", "tpot", "itl", "e2el")]
    outputs = [RequestFuncOutput(**each) for each in outputs]
    found = [calculate_metrics([], outputs, elapsed_s, None, [50, 99], slo)[0] for slo in slos]
    return [{name: float(getattr(each, name)) for name in names} for each in found]

asked, answers = json.load(open("asked.json")), {}
answers["metrics"] = metrics(**asked["metrics"])
for question in (generated, refused):
    found = answers[question.__name__] = {}
    for name, arguments in asked[question.__name__].items():
        gc.freeze()  # or collecting garbage, as a start does twice, goes through all that is imported
        found[name] = question(arguments)
        cleanup_dist_env_and_memory()
open("answers.json", "w").write(json.dumps(answers))
"""

AVX512 = "avx512f" in Path("/proc/cpuinfo").read_text()

LOADABLE = (
    ("qwen3-tiny", "bf16"),
    ("qwen3-tiny", "compressed-tensors-w8a8"),
    ("qwen3-moe-tiny", "bf16"),
    ("llama-tiny", "bf16"),
    ("qwen2-tiny", "bf16"),
    ("opt-125m", "bf16"),
    ("openpangu-tiny", "bf16"),
    ("openpangu-tiny", "compressed-tensors-w8a8"),
)


CACHES = ("fp8", "fp8_e5m2") if AVX512 else ()
"""Data types of a KV cache of one byte a value, where vLLM has them."""

ATTEMPTS: dict[str, dict[str, Any]] = {
    "max_model_len_too_large": {"max_model_len": 1 << 20},
    "kv_cache_too_small": {"max_model_len": 2048, "kv_cache_memory_bytes": 1 << 18},
    "no_kv_cache_memory": {"kv_cache_memory_bytes": 1 << 50},
    "unsupported_quantization": {"quantization": "awq"},
    "missing_weights": {"load_format": "auto"},
    "damaged_weights": {"load_format": "auto", "model": "damaged"},
    "unknown_architecture": {"model": "unknown"},
    "unsupported_kv_cache_dtype": {"model": "heads-of-80", "kv_cache_dtype": "fp8"},
    "sleep_mode_unsupported": {"enable_sleep_mode": True},
    "unsupported_dtype": {"dtype": "float8"},
    "tensor_parallel_size": {"tensor_parallel_size": 3},
    "bad_engine_argument": {"max_num_sekvs": 4},
}
"""What the table is to say -> an engine that gives that reason to fail."""

REFUSED_HERE = {
    name: refusal
    for name, refusal in REFUSED["cpu"].items()
    if not (" AMX " in refusal.message and "amx_tile" in Path("/proc/cpuinfo").read_text())
}
"""Quants that the plan leaves out with the engine's words, but for those that this processor could have."""

LIMITS: list[dict[str, float]] = [{"ttft_ms": 52}, {"ttft_ms": 400, "tpot_ms": 10.1}, {"e2el_ms": 500}]


@pytest.fixture(scope="module")
def requests() -> tuple[list[SequenceRow], Iteration]:
    """Return the rows of an iteration, and the iteration."""
    spec = make_online_spec(points=[LoadPoint(request_rate=30.0)])
    record, rows = make_online(spec, server=Server(failing=9), iterations=1)
    (measured,) = [iteration for iteration in record.iterations if not iteration.warmup]
    rows = [row for row in rows if row.iteration == measured.index]
    # One of a single token, which has no TPOT and keeps its limit; one that came in pieces of several.
    rows[1] = rows[1].model_copy(update={"output_tokens": 1, "gaps_us": [], "last_token_s": rows[1].first_token_s})
    rows[2] = rows[2].model_copy(update={"gaps_us": [10_000] * 15 + [160_000]})
    rows[2] = rows[2].model_copy(update={"last_token_s": (rows[2].first_token_s or 0) + 0.31})
    return rows, measured


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory, requests: tuple[list[SequenceRow], Iteration]) -> dict[str, Any]:
    """Return what vLLM says to each question, all in one process."""
    directory = tmp_path_factory.mktemp("vllm")
    asked = {"generated": engines(directory), "refused": attempts(directory), "metrics": measurable(*requests)}
    (directory / "asked.json").write_text(json.dumps(asked))
    run_program(PROGRAM, folder=directory)
    found: dict[str, Any] = json.loads((directory / "answers.json").read_text())
    return found


@pytest.fixture(scope="module")
def generated(answers: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = answers["generated"]
    return found


def engines(directory: Path) -> dict[str, dict[str, Any]]:
    """Write checkpoints; return the arguments of an engine for each, and of others."""
    found: dict[str, dict[str, Any]] = {}
    for preset, weights_format in LOADABLE:
        destination = directory / preset / weights_format
        build_checkpoint(SyntheticModel(preset=preset).resolve(), weights_format, destination)
        found[f"{preset} {weights_format}"] = {"model": str(destination)}
    dummy = directory / "dummy"
    shape = SyntheticModel(preset="qwen3-tiny").resolve()
    build_checkpoint(shape, "compressed-tensors-w8a8", dummy, config_only=True)
    found["dummy"] = {"model": str(dummy), "load_format": "dummy"}
    channels = BUILT_IN["cpu"]["fp8-channel"].engine_args
    found["fp8-channel"] = {"model": str(directory / "qwen3-tiny" / "bf16"), **channels}
    for dtype in CACHES:
        found[dtype] = {"model": str(directory / "qwen3-tiny" / "bf16"), "kv_cache_dtype": dtype}
    return found


def attempts(directory: Path) -> dict[str, dict[str, Any]]:
    """Write folders of models; return the arguments of each engine that is to be refused."""
    configs = {
        "tiny": {},
        "damaged": {},
        "unknown": {"architectures": ["GuessWhoForCausalLM"]},
        "heads-of-80": {"head_dim": 80},
    }
    for name, config in configs.items():
        (directory / name).mkdir()
        (directory / name / "config.json").write_text(json.dumps({**TINY_MODEL, **config}))
    (directory / "damaged" / "model.safetensors").write_bytes(b"\0\1")
    return {**ATTEMPTS, **{name: refusal.engine_args for name, refusal in REFUSED_HERE.items()}}


def measurable(rows: list[SequenceRow], measured: Iteration) -> dict[str, Any]:
    """Return the arguments of vLLM's own measures of these requests under each of `LIMITS`."""
    outputs = [
        {
            "success": not row.failed,
            "start_time": row.sent_s,
            "output_tokens": row.output_tokens,
            "prompt_len": row.prompt_tokens,
            "ttft": 0.0 if row.failed else row.first_token_s - row.sent_s,
            "latency": 0.0 if row.failed else row.last_token_s - row.sent_s,
            "itl": [gap / 1e6 for gap in row.gaps_us or []],
            "error": row.error or "",
        }
        for row in rows
    ]
    slos = [{name.removesuffix("_ms"): value for name, value in limits.items()} for limits in LIMITS]
    return {"outputs": outputs, "elapsed_s": measured.elapsed_s, "slos": slos}


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
        ("opt-125m bf16", "OPTForCausalLM"),
        ("qwen3-tiny bf16", "Qwen3ForCausalLM"),
        ("qwen3-moe-tiny bf16", "Qwen3MoeForCausalLM"),
        ("openpangu-tiny bf16", "PanguEmbeddedForCausalLM"),
    ],
)
def test_the_engine_picks_the_real_architecture(
    name: str, model_class: str, generated: dict[str, dict[str, Any]]
) -> None:
    assert generated[name]["model_class"] == model_class


@pytest.mark.parametrize("category", ATTEMPTS)
def test_the_real_engine_s_words_are_known(category: str, answers: dict[str, Any]) -> None:
    said = answers["refused"][category]
    assert said is not None, "the engine took it"
    assert diagnose(said, "").category == category, said


@pytest.mark.parametrize("name", REFUSED_HERE)
def test_the_engine_refuses_a_quant_in_the_words_planned(name: str, answers: dict[str, Any]) -> None:
    said = answers["refused"][name]
    assert said is not None, "the engine took it"
    assert REFUSED_HERE[name].message in said
    assert diagnose(said, "").category == "unsupported_quantization"


@pytest.mark.parametrize("place", range(len(LIMITS)), ids=map(str, LIMITS))
def test_means_medians_rates_and_goodput_agree(
    answers: dict[str, Any], requests: tuple[list[SequenceRow], Iteration], place: int
) -> None:
    rows, measured = requests
    own, theirs = requests_of(rows), answers["metrics"][place]
    ours = service_of(own, [measured], Slo.model_validate(LIMITS[place])).values
    assert ours["failed_share"] == theirs["failed"] / (theirs["completed"] + theirs["failed"])
    assert ours["completed_requests_per_s"] == pytest.approx(theirs["request_throughput"])
    assert ours["goodput_requests_per_s"] == pytest.approx(theirs["request_goodput"])
    assert 0 < theirs["request_goodput"] < theirs["request_throughput"]
    assert int(own.output_tokens.sum()) / measured.elapsed_s == pytest.approx(theirs["output_throughput"])
    for name in ("ttft", "tpot", "itl", "e2el"):
        assert 1000 * ours[f"{name}_s"] == pytest.approx(theirs[f"mean_{name}_ms"]), name
        assert 1000 * np.median(own.known(f"{name}_s")) == pytest.approx(theirs[f"median_{name}_ms"]), name
