"""The files of a model's weights, read before an engine starts so that each start finds them in memory."""

import contextlib
from pathlib import Path

from rollout_bench.contracts.spec import NO_WEIGHTS_NEEDED, Spec, is_local
from rollout_bench.measure.launch.preflight import WEIGHTS
from rollout_bench.modes.startup.settings import StartupSpec

CHUNK = 1 << 24
"""Number of bytes in one read."""


def read_weights(spec: Spec, model: str) -> int | None:
    """Read the weight files of `model` into the machine's page cache; return their size in bytes.

    Return None if a start of `spec` reads no weights, or the files are unknown.
    """
    if spec.of(StartupSpec).load_format in NO_WEIGHTS_NEEDED:
        return None
    files = weight_files(model)
    for file in files:
        with contextlib.suppress(OSError), file.open("rb", buffering=0) as content:
            while content.read(CHUNK):
                pass
    return sum(file.stat().st_size for file in files) or None


def weight_files(model: str) -> list[Path]:
    """Return the weight files of a folder, or of a hub id that is in the local hub cache."""
    folder = Path(model).expanduser() if is_local(model) else _in_hub_cache(model)
    if folder is None:
        return []
    found = ([file for file in sorted(folder.glob(pattern)) if file.is_file()] for pattern in WEIGHTS)
    return next(filter(None, found), [])


def _in_hub_cache(model: str) -> Path | None:
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(model, local_files_only=True))
    except Exception:  # not installed, or not downloaded yet
        return None
