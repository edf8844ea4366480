"""Where a launch runs: versions, machine, variables."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import psutil

from rollout_bench.plan.secrets import may_be_secret
from rollout_bench.plan.spec import EngineSpec, Platform
from rollout_bench.records.record import Environment

PACKAGES = (
    "transformers", "torchao", "triton", "triton-ascend", "compressed-tensors", "safetensors", "numpy",
    "flashinfer-python", "torch-npu", "nvidia-nccl-cu12", "nvidia-nccl-cu13", "ray",
)  # fmt: skip
"""Distributions whose version influences speed."""

VARIABLES = re.compile(
    r"^(VLLM|OMP|KMP|MKL|GOMP|DNNL|ONEDNN|CUDA|NVIDIA|NCCL|ASCEND|HCCL|CANN|NPU|PYTORCH|TORCH|TORCHINDUCTOR|TRITON|HF_HUB"
    r"|MALLOC|NUMA)_|^(LD_PRELOAD|TORCHDYNAMO_DISABLE)$"
)
"""Environment variables that influence the engine."""


def read_environment(
    engine: EngineSpec, kind: Platform, device: dict[str, Any], device_count: int, variables: dict[str, str]
) -> Environment:
    """The facts of this process's machine and Python.

    Args:
        engine: the engine that the spec names.
        kind: platform of the spec.
        device: `device_model` and `device_memory_bytes` as a worker saw them; None on cpu.
        device_count: devices that the engine uses; 1 on cpu.
        variables: the environment as it was before vLLM was imported and added to it.
    """
    processor, memory = cpu_model(), psutil.virtual_memory().total
    return Environment(
        engine_name=engine.name,
        engine_version=version(engine.name) or "unknown",
        plugins={name: version(name) or "unknown" for name in engine.plugins},
        torch_version=version("torch") or "unknown",
        python_version=platform.python_version(),
        packages={name: found for name in PACKAGES if (found := version(name)) is not None},
        hostname=socket.gethostname(),
        kernel=f"{platform.system()} {platform.release()}",
        device_model=device.get("device_model") or (processor if kind == "cpu" else "unknown"),
        device_memory_bytes=memory if kind == "cpu" else device.get("device_memory_bytes"),
        device_count=1 if kind == "cpu" else device_count,
        cpu_model=processor,
        cpu_cores=len(os.sched_getaffinity(0)),
        memory_bytes=memory,
        variables=relevant_variables(variables),
        git_commit=git_commit(),
    )


def version(distribution: str) -> str | None:
    """The installed version of `distribution`; None if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def relevant_variables(environment: dict[str, str]) -> dict[str, str]:
    """The variables that influence the engine, without any that may be a secret."""
    return {
        name: value
        for name, value in sorted(environment.items())
        if VARIABLES.search(name) and not may_be_secret(name, value)
    }


def cpu_model() -> str:
    """Name of the processor as the kernel gives it."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match.group(1).strip() if match else platform.processor() or platform.machine()


def git_commit() -> str | None:
    """Commit of the checkout that this file lies in, `-dirty` added when tracked files differ; None outside one."""
    head = _git("rev-parse", "HEAD")
    if not head:
        return None
    return f"{head}-dirty" if _git("status", "--porcelain", "--untracked-files=no") else head


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
