"""The model that a trainer names: the place of its weights, and its name in a config."""

import re
from pathlib import Path
from typing import Any

from rollout_bench.contracts.spec import is_local
from rollout_bench.core.errors import UserError
from rollout_bench.plan.checks import absent_model

LONGEST_NAME = 60
"""Maximum characters of a model's name in a config."""

QUANT_OF_DTYPE = {"bfloat16": "bf16", "bf16": "bf16", "auto": "bf16", "float16": "fp16", "half": "fp16", "fp16": "fp16"}
"""Data type of an engine -> name of its quantization."""


def weights(path: str, key: str) -> str:
    """Return the config's value of `weights` for a trainer's model.

    Args:
        path: a folder, or a name on the hub.
        key: the trainer's key with this value, for messages.

    Raises:
        UserError: if the folder is missing or contains no model, or `path` is neither a folder nor OWNER/NAME.
    """
    remedy = f"give the folder on this machine: {key}=FOLDER, or OWNER/NAME for a model of the hub"
    if "://" in path:
        raise UserError(f"{key}: is an address, not a folder on this machine", remedy)
    if not is_local(path):
        if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", path):
            raise UserError(f"{key}: {path}: is neither a folder nor OWNER/NAME", remedy)
        return f"hub:{path}"
    absent = absent_model(Path(path).expanduser())
    if absent is not None:
        raise UserError(f"{key}: {absent.problem}", absent.remedy if "mean" in absent.remedy else remedy)
    return path if path.startswith("~") else str(Path(path).absolute())


def quant_keys(quant: str) -> dict[str, Any]:
    """Return the config keys for weights that are measured as `quant`, a value of `QUANT_OF_DTYPE`."""
    if quant == "bf16":
        return {}
    return {"baseline": {"quant": quant}, "quant_settings": {quant: {"linear_dtypes": ["float16"]}}}


def model_name(path: str) -> str:
    """Return the config's name of the model at `path`: the last part of the path, without invalid characters."""
    last = re.sub(r"[^a-z0-9.+-]+", "-", path.rstrip("/").rpartition("/")[2].lower())
    return last.strip("-.+")[:LONGEST_NAME].strip("-.+") or "model"
