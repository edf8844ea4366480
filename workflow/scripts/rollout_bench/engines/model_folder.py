"""What can be said of a model before the engine starts, so that a wrong path does not cost an import."""

from __future__ import annotations

from pathlib import Path

from rollout_bench.engines.failures import Cause
from rollout_bench.plan.spec import NO_WEIGHTS_NEEDED, is_local

WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.gguf")


def missing(model: str, load_format: str) -> Cause | None:
    """Why the folder `model` cannot be loaded; None if nothing speaks against it or it is a hub id."""
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
