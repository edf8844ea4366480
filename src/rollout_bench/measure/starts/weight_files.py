"""The files that hold a model's weights: read before an engine starts, so that each start finds them alike."""

from __future__ import annotations

import contextlib
from pathlib import Path

from rollout_bench.contracts.spec import NO_WEIGHTS_NEEDED, Spec, is_local

WEIGHT_FILES = ("*.safetensors", "*.bin", "*.pt", "*.gguf")
"""As vLLM looks for them: of those that there are, it reads the first kind."""

CHUNK = 1 << 24
"""Bytes that are read at once."""


def read_weights(spec: Spec, model: str) -> int | None:
    """Read the weight files of `model`, so that every start finds them in the machine's memory; return their bytes.

    None where a start of `spec` reads no weights, or nobody knows where the files are.
    """
    if spec.startup is None or spec.startup.load_formats in NO_WEIGHTS_NEEDED:
        return None
    files = weight_files(model)
    for file in files:
        with contextlib.suppress(OSError), file.open("rb", buffering=0) as content:
            while content.read(CHUNK):
                pass
    return sum(file.stat().st_size for file in files) or None


def weight_files(model: str) -> list[Path]:
    """Return the files that hold the weights of a folder or, where it is in the cache of the hub's client, of an id."""
    folder = Path(model).expanduser() if is_local(model) else _in_hub_cache(model)
    if folder is None:
        return []
    found = ([file for file in sorted(folder.glob(pattern)) if file.is_file()] for pattern in WEIGHT_FILES)
    return next(filter(None, found), [])


def _in_hub_cache(model: str) -> Path | None:
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(model, local_files_only=True))
    except Exception:  # not installed, or not there yet: then nobody knows the files
        return None
