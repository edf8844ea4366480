"""Warm compile caches, which starts share."""

import os
from collections.abc import Mapping
from pathlib import Path

from rollout_bench.contracts.failures import Cause
from rollout_bench.contracts.spec import Spec
from rollout_bench.core.installed import version
from rollout_bench.measure.launch.hooks import Hooks
from rollout_bench.measure.launch.preflight import VARIABLES, root_of_caches
from rollout_bench.modes.startup.settings import StartupSpec

FILLED = ".filled"
"""Marker file in a folder of warm caches: a start has filled them."""


def with_caches(environment: Mapping[str, str], spec: Spec) -> dict[str, str]:
    """Return `environment` with cache folders for warm starts.

    All launches with the same load format share the folder, whatever their launcher and setting. For cold caches the
    engine's process makes its own. The folder ignores the shell's `VARIABLES`, so that launches started elsewhere find
    it.
    """
    root = root_of_caches(environment, spec, version("torch"))
    if spec.of(StartupSpec).caches == "cold" or root is None:  # `obstacle` reports this
        return dict(environment)
    # vLLM compiles different code for different load formats
    start = StartupSpec(caches="warm", load_format=spec.of(StartupSpec).load_format)
    alike = spec.model_copy(update={"startup": start, "setting": None})
    folder = root / f"start-{alike.key()}"
    return {**environment, **{variable: str(folder / part) for variable, part in VARIABLES.items()}}


def warm_folder(spec: Spec, environment: Mapping[str, str]) -> Path | None:
    """Return the folder of the caches that a start must find warm; None if warm caches are not required.

    Args:
        spec: the spec of the launch.
        environment: from `engine_environment`.
    """
    if spec.of(StartupSpec).caches == "cold":
        return None
    folder = Path(environment["VLLM_CACHE_ROOT"]).parent
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def filling(spec: Spec, environment: Mapping[str, str]) -> Path | None:
    """Return the marker of a start that fills warm caches, if no start has filled them; None if none is needed."""
    folder = warm_folder(spec, environment)
    return None if folder is None or is_filled(folder) else folder / FILLED


def is_filled(folder: Path) -> bool:
    """Return whether a start has filled the caches in `folder` and they still exist."""
    files = (name for part in VARIABLES.values() for _, _, names in os.walk(folder / part) for name in names)
    return (folder / FILLED).exists() and next(files, None) is not None


def obstacle(spec: Spec, record: Path) -> Cause | None:
    """Return a cause if warm caches are required and no cache folder can be written; else None."""
    if spec.of(StartupSpec).caches == "cold":
        return None
    if root_of_caches({**os.environ, **spec.engine.environment}, spec, version("torch")) is not None:
        return None
    return Cause(
        "no_room_for_caches",
        "startup.caches: warm was asked for, and neither XDG_CACHE_HOME, ~/.cache nor the temporary folder can be "
        "written, so no start can leave caches to the next",
        "set XDG_CACHE_HOME to a folder that can be written, or set startup.caches: cold",
    )


HOOKS = Hooks(obstacle=obstacle, environment=with_caches, filling=filling)
