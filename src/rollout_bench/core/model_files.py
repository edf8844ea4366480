"""Fingerprints of a model's files: names, sizes and hashes of samples, without reading all weights.

Needs only the standard library, and the hub's client for models on the hub.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf", "*.index.json")
"""Files with weights, and their indexes."""

SETTINGS = ("config.json", "params.json", "generation_config.json", "*quant*.json", "*.py")
"""Files with the model's architecture, quantization, generation defaults and code."""

TOKENIZER = ("tokenizer*", "*token*.json", "vocab.*", "merges.txt", "chat_template*", "*.model", "*.tiktoken")
"""Files of the model's tokenizer."""

NAMING = ("revision", "download_dir", "speculative_config", "tokenizer", "hf_config_path")
"""Arguments of the engine that choose the files that it loads."""

REVISION = "revision"
"""Name of the only entry for a model from the hub. The entry's value is the commit of the repository."""

WHOLE = 1 << 20
"""A file of up to this many bytes is hashed completely."""

SAMPLE = 1 << 12
"""Bytes that are hashed at the beginning, in the middle and at the end of a larger file."""

LONGEST_HEADER = 100_000_000
"""Maximum bytes of the header of a safetensors file, as in the safetensors library."""


def model_files(model: str, args: Mapping[str, Any], *, weights: bool = True) -> dict[str, str]:
    """Return a fingerprint of each file that an engine loads: name -> size and first half of a SHA-256.

    The hash of a large file covers its header and a few samples, so that 140 GB take milliseconds. The files of a draft
    model, a separate tokenizer or a separate config have the engine's argument as a prefix of their names.

    Args:
        model: folder, file of weights, or id on the hub.
        args: the engine's arguments.
        weights: whether the engine reads weights.
    """
    drafts = args.get("speculative_config")
    others = {
        "speculative_config.model": drafts.get("model") if isinstance(drafts, Mapping) else None,
        "tokenizer": args.get("tokenizer"),
        "hf_config_path": args.get("hf_config_path"),
    }
    fingerprints = _files(model, str(args.get("revision") or "main"), args.get("download_dir"), weights)
    for argument, other in others.items():
        if fingerprints and isinstance(other, str) and other != model:
            files = _files(other, "main", args.get("download_dir"), weights)
            fingerprints |= {f"{argument}/{name}": word for name, word in files.items()}
    return fingerprints


def differing_files(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Return the sorted names of files that differ between the two, or are missing in one of them."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def _files(model: str, revision: str, cache: str | None, weights: bool) -> dict[str, str]:
    path = Path(model).expanduser()
    if path.is_file():
        return {path.name: _fingerprint(path)} if weights else {}
    if not path.is_dir():
        config = cached_config(model, revision, cache)
        return {} if config is None else {REVISION: config.parent.name}
    patterns = (*SETTINGS, *TOKENIZER, *(WEIGHTS if weights else ()))
    try:
        files = sorted(file for file in path.iterdir() if any(fnmatch(file.name, wanted) for wanted in patterns))
    except OSError:  # the engine reports the error
        return {}
    return {
        file.name: _fingerprint(file)
        for file in files
        if file.is_file() and (weights or not fnmatch(file.name, WEIGHTS[-1]))
    }


def _fingerprint(path: Path) -> str:
    """Return the size of a file and the first half of its hash. The hash of a large file covers only samples."""
    digest = hashlib.sha256()
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little") + 8 if path.suffix == ".safetensors" else 0
            head = size if size <= WHOLE else min(max(header, SAMPLE), LONGEST_HEADER)
            for place, amount in ((0, head), (size // 2, SAMPLE), (size - SAMPLE, SAMPLE))[: 1 if size <= WHOLE else 3]:
                file.seek(place)
                digest.update(file.read(amount))
    except OSError as error:  # the engine reports it in detail; the other fingerprints remain useful
        return error.strerror or "unreadable"
    return f"{size} {digest.hexdigest()[:32]}"


def is_whole(file: Path) -> bool:
    """Return whether a safetensors file has the bytes that its header promises; a download that was cut is shorter.

    The file is the header's length (8 bytes, little-endian), the header as JSON, and the tensors' bytes, whose places
    the header names (the format's own page).
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(size - 8, LONGEST_HEADER):
            return False
        try:
            tensors = json.loads(stream.read(length))
            ends = [tensor["data_offsets"][1] for name, tensor in tensors.items() if name != "__metadata__"]
        except (ValueError, LookupError, TypeError, AttributeError):
            return False
    return 8 + length + max(ends, default=0) == size


def tensor_names(folder: Path) -> set[str]:
    """Return the names of the tensors that a model's index lists; empty without one."""
    try:
        return set(json.loads((folder / "model.safetensors.index.json").read_bytes())["weight_map"])
    except (OSError, ValueError, LookupError, TypeError):
        return set()


def config_in(folder: Path) -> dict[str, Any] | None:
    """Return the content of a model's config.json; None if it cannot be read, which loading it will report."""
    try:
        content = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def cached_config(model: str, revision: str = "main", cache: str | None = None) -> Path | None:
    """Return the config.json of a hub model's commit in the client's cache, or None if it is not there."""
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", model):
        return None
    try:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(model, "config.json", cache_dir=cache, revision=revision)
    except Exception:  # client not installed, or unknown name: the engine reports it
        return None
    return Path(found) if isinstance(found, str) else None
