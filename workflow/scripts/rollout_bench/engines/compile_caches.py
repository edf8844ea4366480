"""Where the engine keeps what it compiles, so that the next launch finds it: a folder for each engine and torch."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rollout_bench.plan.spec import Spec

VARIABLES = {"VLLM_CACHE_ROOT": "vllm", "TORCHINDUCTOR_CACHE_DIR": "torchinductor", "TRITON_CACHE_DIR": "triton"}
"""Environment variable -> subfolder. vLLM's holds its torch.compile cache and what it found out about models."""


def with_compile_caches(environment: Mapping[str, str], spec: Spec, torch: str | None) -> dict[str, str]:
    """`environment` with the caches of this engine; where a variable is set already, it stays.

    Args:
        environment: the engine's, with what the user and the spec set.
        spec: names platform, engine and plugins.
        torch: its version, None where there is none.

    The folders lie below XDG_CACHE_HOME (or ~/.cache), or where that can't be written below the temporary folder, and
    survive the launch. Where nothing can be written, the engine is left to its own defaults.
    """
    if not VARIABLES.keys() - environment.keys():
        return dict(environment)
    name = cache_name(spec, torch)
    for root in (_home(environment), _temporary()):
        if root is not None and _writable(root / name):
            return {**{variable: str(root / name / part) for variable, part in VARIABLES.items()}, **environment}
    return dict(environment)


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
    """A folder below the temporary one that nobody else can have filled with code for us to run."""
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
