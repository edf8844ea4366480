"""What tells a model's files from others without reading them all: names, sizes, and hashes of what says most.

Needs only the standard library, and where a model is on the hub its client.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf", "*.index.json")
"""Files that are weights, or say where they are."""

SETTINGS = ("config.json", "params.json", "generation_config.json", "*quant*.json", "*.py")
"""Files that say what the model is, and how it is quantized and generates."""

TOKENIZER = ("tokenizer*", "*token*.json", "vocab.*", "merges.txt", "chat_template*", "*.model", "*.tiktoken")
"""Files of its tokenizer."""

NAMING = ("revision", "download_dir", "speculative_config", "tokenizer", "hf_config_path")
"""Arguments of the engine that say which files it loads."""

REVISION = "revision"
"""What stands for the files of a model from the hub: the commit of its repository."""

WHOLE = 1 << 20
"""Bytes up to which a file is hashed whole."""

SAMPLE = 1 << 12
"""Bytes that are hashed at the beginning, in the middle and at the end of a larger one."""

LONGEST_HEADER = 100_000_000
"""Bytes that the header of a safetensors file has at most, as its own library allows."""


def model_files(model: str, args: Mapping[str, Any], *, weights: bool = True) -> dict[str, str]:
    """Return what each file is that an engine loads: name -> its size and the first half of a SHA-256.

    Of a file of weights that is over its header and a few samples, so that 140 GB take milliseconds. Files of a draft
    model, of a tokenizer and of a config of its own have the argument that names them before theirs.

    Args:
        model: folder, file of weights, or id on the hub.
        args: the engine's arguments.
        weights: whether it reads weights.
    """
    drafts = args.get("speculative_config")
    others = {
        "speculative_config.model": drafts.get("model") if isinstance(drafts, Mapping) else None,
        "tokenizer": args.get("tokenizer"),
        "hf_config_path": args.get("hf_config_path"),
    }
    found = _files(model, str(args.get("revision") or "main"), args.get("download_dir"), weights)
    for argument, other in others.items():
        if found and isinstance(other, str) and other != model:
            own = _files(other, "main", args.get("download_dir"), weights)
            found |= {f"{argument}/{name}": word for name, word in own.items()}
    return found


def differing_files(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Return the names of files that are not the same in both, sorted."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def files_in_record(record: Path) -> dict[str, str]:
    """Return what the model's files were of the launch whose record this is; empty where it does not say.

    A plan asks this of each record that is there, so that nothing else in it is parsed. What can't be read says nothing
    here, and is told of where the record is read.
    """
    try:
        content = record.read_bytes()
        start = content.index(_FIELD) + len(_FIELD)
        found = json.JSONDecoder().raw_decode(content[start : content.index(b"}", start) + 1].decode())[0]
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


_FIELD = b'"model_files": '


def _files(model: str, revision: str, cache: str | None, weights: bool) -> dict[str, str]:
    path = Path(model).expanduser()
    if path.is_file():
        return {path.name: _word(path)} if weights else {}
    if not path.is_dir():
        commit = _commit(model, revision, cache)
        return {} if commit is None else {REVISION: commit}
    patterns = (*SETTINGS, *TOKENIZER, *(WEIGHTS if weights else ()))
    try:
        files = sorted(file for file in path.iterdir() if any(fnmatch(file.name, wanted) for wanted in patterns))
    except OSError:  # the engine says what is wrong with it
        return {}
    return {
        file.name: _word(file) for file in files if file.is_file() and (weights or not fnmatch(file.name, WEIGHTS[-1]))
    }


def _word(path: Path) -> str:
    """Return the size of a file and the first half of a hash over it, or over parts of a large one."""
    digest = hashlib.sha256()
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if size <= WHOLE:
                digest.update(file.read())
            else:
                header = int.from_bytes(file.read(8), "little") + 8 if path.suffix == ".safetensors" else 0
                file.seek(0)
                digest.update(file.read(min(max(header, SAMPLE), LONGEST_HEADER)))
                for place in (size // 2, size - SAMPLE):
                    file.seek(place)
                    digest.update(file.read(SAMPLE))
    except OSError as error:  # the engine says more; what the other files are is still known
        return error.strerror or "unreadable"
    return f"{size} {digest.hexdigest()[:32]}"


def _commit(model: str, revision: str, cache: str | None) -> str | None:
    """Return the commit of a model of the hub that its client has last been given; None where there is none."""
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", model):
        return None
    try:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(model, "config.json", cache_dir=cache, revision=revision)
    except Exception:  # not installed, or no such name: the engine says so
        return None
    return Path(found).parent.name if isinstance(found, str) else None
