"""Builds a checkpoint directory, complete or not at all."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from rollout_bench.checkpoints.formats import BUILDER_VERSION, check_format, hf_config, modelslim_description
from rollout_bench.checkpoints.shapes import ResolvedShape
from rollout_bench.checkpoints.tokenizer import write_tokenizer
from rollout_bench.core.errors import UserError

MANIFEST = "synthetic.json"
"""File with the directory's shape and format and the size of each file; written last."""


def build_checkpoint(
    shape: ResolvedShape,
    weights_format: str,
    destination: Path,
    *,
    config_only: bool = False,
) -> bool:
    """Build a checkpoint directory that vLLM loads.

    The same shape, seed and format give the same bytes on the same torch version. All formats round the same bf16
    weights. Memory use is about two of its files. The directory is built beside its destination and renamed, so
    the destination is always complete. A complete checkpoint is not built again. Builders of the same destination wait
    for each other.

    Args:
        shape: the model.
        weights_format: one of `formats.FORMATS`.
        destination: the directory to make; its parents are made too.
        config_only: leave the weights out, for `load_format: dummy`.

    Returns:
        Whether it was built; False if the same checkpoint already exists.

    Raises:
        UserError: if the format does not suit the shape, the destination is something else, or the disk is full or not
            writable.
    """
    try:
        check_format(shape, weights_format)
    except ValueError as error:
        raise UserError(str(error), "choose another format for this model, or another model") from error
    identity = {
        "builder_version": BUILDER_VERSION,
        "shape": shape.model_dump(),
        "weights_format": weights_format,
        "config_only": config_only,
    }
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with _lock(destination):
            if _is_whole(destination, identity):
                return False
            _build(shape, weights_format, destination, identity, config_only)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{destination} could not be written: {getattr(error, 'strerror', None) or error}",
            "free some space, or name a directory that you may write to; what was written so far is removed",
        ) from error
    return True


def _build(
    shape: ResolvedShape, weights_format: str, destination: Path, identity: dict[str, Any], config_only: bool
) -> None:
    # The lock makes a fixed name safe, so the remains of a killed build are found and removed.
    partial = destination.with_name(f".{destination.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        _write_json(partial / "config.json", hf_config(shape, weights_format))
        description = modelslim_description(shape, weights_format)
        if description is not None:
            _write_json(partial / "quant_model_description.json", description)
        write_tokenizer(partial, shape.vocab_size, shape.max_position_embeddings)
        if not config_only:
            # Importing torch takes seconds, and a checkpoint without weights does not need it.
            from rollout_bench.checkpoints.weights import checkpoint_bytes, write_weights

            _check_space(checkpoint_bytes(shape, weights_format), partial)
            write_weights(partial, shape, weights_format)
        sizes = {path.name: path.stat().st_size for path in sorted(partial.iterdir())}
        _write_json(partial / MANIFEST, {**identity, "file_bytes": sizes})
        for path in (*partial.iterdir(), partial):
            _fsync(path)
        partial.rename(destination)
        _fsync(destination.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _is_whole(destination: Path, identity: dict[str, Any]) -> bool:
    """Return whether the same checkpoint exists there; False if nothing or an empty directory does.

    Raises:
        UserError: if something else exists there, or the checkpoint is damaged.
    """
    if not destination.exists() or (destination.is_dir() and not any(destination.iterdir())):
        return False
    try:
        manifest = json.loads((destination / MANIFEST).read_text(encoding="utf-8"))
        sizes = {path.name: path.stat().st_size for path in destination.iterdir()}
        damaged = [name for name, size in manifest.pop("file_bytes").items() if sizes.get(name) != size]
    except (OSError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{destination} exists, but this command did not build it",
            "name another directory, or move it away",
        ) from error
    if manifest != identity:
        raise UserError(
            f"{destination} contains another checkpoint: {_difference(manifest, identity)}",
            "name another directory, or move it away and run this again",
        )
    if damaged:
        raise UserError(
            f"{destination} is damaged: {damaged[0]} is missing or has another size",
            "move the directory away and run this again",
        )
    return True


def _difference(manifest: dict[str, Any], identity: dict[str, Any]) -> str:
    existing = {**manifest, **(manifest.get("shape") or {})}
    wanted = {**identity, **identity["shape"]}
    name = next((name for name, value in wanted.items() if name != "shape" and existing.get(name) != value), None)
    return f"its {name} is {existing.get(name)}, not {wanted[name]}" if name else "its description differs"


def _check_space(needed: int, directory: Path) -> None:
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise UserError(
            f"{directory} has {free / 1e6:,.0f} MB free, and the checkpoint needs {needed / 1e6:,.0f} MB",
            "free some space, or name a directory on another disk",
        )


@contextmanager
def _lock(destination: Path) -> Iterator[None]:
    # The lock ends with its process. The file stays: if it were removed, two builders could lock two different files.
    with destination.with_name(f".{destination.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
