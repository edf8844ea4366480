"""Whatever stands in a config or in the environment: no shell runs it, and no secret of it stays in a file."""

import json
import shlex
import sys
from pathlib import Path

import pytest
from workspace import Workspace

HOSTILE = "o'd\"d $(touch PWNED-a) `touch PWNED-b`; touch PWNED-c & > PWNED-d | $HOME \\ *"
"""What a shell would take for commands."""

WORKLOAD = {"prompts": 8, "samples_per_prompt": 4, "prompt_tokens": 64, "output_tokens": 32}
"""That of the made engine's record."""

SETTINGS = {
    "platform": "cpu",
    "models": ["tiny"],
    "quants": ["bf16"],
    "workloads": ["small"],
    "launches": 1,
    "warmup_iterations": 1,
    "iterations": 3,
    "model_settings": {"tiny": {"weights": {"bf16": "tiny"}}},
    "workload_settings": {"small": WORKLOAD},
    "engine_args": {"load_format": "dummy", "gpu_memory_utilization": 0.5},
}


def test_no_shell_of_a_rule_runs_a_config_value(tmp_path: Path):
    workspace = Workspace(tmp_path / "workspace", SETTINGS).with_made_engine()
    name = HOSTILE.replace("/", "")
    python = workspace.path / f"python {name}"
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    weights = f"{name} {{wildcards.launch}} {{output}}"
    model = workspace.path / f"models {name}" / weights
    model.mkdir(parents=True)
    config = '{"model_type": "llama", "num_hidden_layers": 2}'  # as far as it is looked at in front of the engine
    (model / "config.json").write_text(config)
    (model / "model.safetensors").touch()
    trace = workspace.path / f"{name}.jsonl"
    trace.write_text('{"prompt_tokens": 64, "output_tokens": 32}\n' * 8)
    workspace.overlay(
        {
            "model_base": f"models {name}",
            "models": ["tiny", "built"],
            "model_settings": {
                "tiny": {"weights": {"bf16": weights}},
                "built": {"synthetic": {"preset": "qwen3-tiny"}},
            },
            "workloads": ["traced"],
            "workload_settings": {
                "traced": {"dataset": {"path": trace.name, "format": "trace"}, "prompts": 8, "samples_per_prompt": 4}
            },
            "engine": {"python": str(python), "environment": {"NOTE": HOSTILE}},
            "engine_args": {"hf_overrides": {"note": HOSTILE, HOSTILE: 1}},
        }
    )
    workspace.ran()
    assert len(workspace.records) == 2
    for path in workspace.records:
        engine = json.loads((workspace.path / "results" / path).read_text())["spec"]["engine"]
        assert engine["environment"]["NOTE"] == engine["args"]["hf_overrides"]["note"] == HOSTILE
    workspace.overlay({"kubernetes": {"image": "b:1", "models_claim": "w"}, "launches": 2})
    for command in ("plan", "check", "kubernetes"):
        done = workspace.bench(command)
        assert done.returncode == 0, done.stdout
    assert not [str(found) for found in tmp_path.rglob("*PWNED-[a-d]")]


SECRETS = {
    "HF_TOKEN": "hush-hf",
    "HF_HUB_TOKEN": "hush-hub",
    "AWS_SECRET_ACCESS_KEY": "hush-aws",
    "OPENAI_API_KEY": "hush-openai",
    "VLLM_HUSH_API_KEY": "hush-vllm",
    "NCCL_PROXY": "http://me:hush-proxy@host",
}


def test_the_engine_inherits_secrets_and_none_is_in_any_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for variable, secret in (SECRETS | {"NCCL_DEBUG": "WARN"}).items():
        monkeypatch.setenv(variable, secret)
    settings = {**SETTINGS, "launches": 2, "kubernetes": {"image": "bench:1", "secrets": ["hub"], "models_claim": "w"}}
    workspace = Workspace(tmp_path / "workspace", settings).with_made_engine({1: "no memory for kv"})
    done = workspace.snakemake("--cores", "1")
    assert (len(workspace.records), len(workspace.failures)) == (1, 1), done.stdout
    assert workspace.bench("kubernetes").returncode == 0
    (record,) = workspace.records
    variables = json.loads((workspace.path / "results" / record).read_text())["environment"]["variables"]
    assert variables["NCCL_DEBUG"] == "WARN"
    assert not set(SECRETS) & set(variables)
    for log in workspace.path.glob("logs/offline/*/launch-*.log"):
        (seen,) = [line for line in log.read_text().splitlines() if line.startswith("it sees ")]
        assert set(SECRETS) <= set(seen.split())
    assert "hush" not in done.stdout
    files = [path for path in workspace.path.rglob("*") if path.is_file()]
    assert {"spec.json", "plan.json", "kubernetes.yaml", "summary.md"} <= {path.name for path in files}
    assert not [str(path) for path in files if b"hush-" in path.read_bytes()]
