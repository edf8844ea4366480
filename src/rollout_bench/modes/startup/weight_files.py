"""The files of a model's weights, read before an engine starts so that each start finds them in memory."""

import contextlib
import json
from operator import itemgetter
from pathlib import Path

from rollout_bench.contracts.spec import NO_WEIGHTS_NEEDED, Spec, is_local
from rollout_bench.measure.launch.preflight import WEIGHTS
from rollout_bench.modes.startup.settings import StartFormat, StartupSpec

MISTRAL = "consolidated*.safetensors"
"""Weights in Mistral's own format, often beside the same ones in the usual format."""

INDEXES = {MISTRAL: "consolidated.safetensors.index.json", "*.safetensors": "model.safetensors.index.json"}
"""Pattern of weight files -> the index in which vLLM looks for those to load."""

CHUNK = 1 << 24
"""Number of bytes in one read."""


def read_weights(spec: Spec, model: str) -> int | None:
    """Read the weight files of `model` into the machine's page cache; return their size in bytes.

    Return None if a start of `spec` reads no weights, or the files are unknown.
    """
    load_format = spec.of(StartupSpec).load_format
    if load_format in NO_WEIGHTS_NEEDED:
        return None
    files = weight_files(model, load_format)
    for file in files:
        with contextlib.suppress(OSError), file.open("rb", buffering=0) as content:
            while content.read(CHUNK):
                pass
    return sum(file.stat().st_size for file in files) or None


def weight_files(model: str, load_format: StartFormat) -> list[Path]:
    """Return the weight files of a folder, or of a hub id that is in the local hub cache, that vLLM loads.

    Folders may hold the same weights twice: in vLLM `auto` prefers Mistral's files, and of others those in the index.
    """
    folder = Path(model).expanduser() if is_local(model) else _in_hub_cache(model)
    if folder is None:
        return []
    patterns = (MISTRAL, *WEIGHTS) if load_format == "auto" else WEIGHTS
    files_of = ([file for file in sorted(folder.glob(pattern)) if file.is_file()] for pattern in patterns)
    pattern, files = next(filter(itemgetter(1), zip(patterns, files_of, strict=True)), ("", []))
    # there may be no index, or one that vLLM refuses
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        named = set(json.loads((folder / INDEXES[pattern]).read_bytes())["weight_map"].values())
        files = [file for file in files if file.name in named]
    return files


def _in_hub_cache(model: str) -> Path | None:
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(model, local_files_only=True))
    except Exception:  # not installed, or not downloaded yet
        return None
