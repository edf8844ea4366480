"""What pydantic can't see: names that must be defined, arguments the engine must know, lengths that must fit."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, get_args

from rollout_bench.errors import UserError, did_you_mean
from rollout_bench.files import did_you_mean_folder
from rollout_bench.plan.comparing import EARLIER_AXES
from rollout_bench.plan.config import Config
from rollout_bench.plan.engine_probe import Engine
from rollout_bench.plan.quants import known_quants
from rollout_bench.plan.secrets import secrets_in
from rollout_bench.plan.spec import ModelSpec, Platform

MODES = ("offline", "online", "profile", "operators")

OWN_ARGS = frozenset(
    {"model", "worker_extension_cls", "disable_log_stats", "served_model_name", "host", "port", "api_key"}
)
"""Engine arguments that the measuring command sets itself, those of a server's front end too."""


OWN_VARIABLES = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "set engine.multiprocess instead",
    "VLLM_TARGET_DEVICE": "set platform instead",
    "PYTHONPATH": "install what the engine needs into its Python, or set engine.python",
    "VLLM_API_KEY": "leave it out: each server gets a key of its own",
    "VLLM_SERVER_DEV_MODE": "leave it out: the server is asked for its weights through it, and needs a key for that",
    "TMPDIR": "leave it out: the engine gets a temporary folder of its own, below the TMPDIR of the workflow",
}
"""Environment variables that the measuring command sets itself, and what to do instead."""


def check_model_base(folder: Path) -> None:
    """Raises `UserError` where `folder` can't be a folder."""
    try:
        if folder.exists() and not folder.is_dir():
            raise UserError(f"config: model_base: {folder}: is a file", "set model_base to a folder")
    except OSError as error:
        raise UserError(f"config: model_base: {folder}: {error.strerror}", "set model_base to a folder") from None


def check_model_base_can_be_written(folder: Path) -> None:
    """Raises `UserError` where no synthetic checkpoint can be built below `folder`."""
    there = next((path for path in (folder, *folder.absolute().parents) if os.path.lexists(path)), Path("/"))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK) or there.absolute().is_relative_to("/proc"):
        raise UserError(
            f"config: model_base: {folder}: synthetic models can't be built there: {there} can't be written",
            "set model_base to a folder that you may write",
        )


def check_variables(config: Config) -> None:
    """Raises `UserError` for an environment variable that the measuring command sets itself."""
    for name in config.engine.environment:
        if name in OWN_VARIABLES:
            raise UserError(f"config: engine.environment.{name}: is set by rollout-bench itself", OWN_VARIABLES[name])


def check_no_secrets(config: Config) -> None:
    """Raises `UserError` for a setting that may be a secret: all of them end in specs, records and manifests."""
    for place, settings in (("engine.environment", config.engine.environment), *_engine_args(config)):
        name = next(secrets_in(settings), None)
        if name is not None:
            raise UserError(
                f"config: {place}.{name}: may be a secret, and would stand in spec.json, records and manifests",
                "take it out and export it as an environment variable where you run snakemake: the engine inherits it"
                " (on Kubernetes: kubernetes.secrets)",
            )


def check_names(config: Config) -> None:
    """Raises `UserError` for a model, quant, mode or workload that is selected and not defined, and the like."""
    for key, names, known in (
        ("modes", config.modes, set(MODES)),
        ("models", config.models, set(config.model_settings)),
        ("quants", config.quants, known_quants(config.quant_settings)),
        ("workloads", config.workloads, set(config.workload_settings)),
    ):
        for name in names:
            if name not in known:
                raise UserError(f"config: {key}: {key[:-1]} '{name}' is not defined", did_you_mean(name, known))
    quants = known_quants(config.quant_settings)
    for model, settings in config.model_settings.items():
        for quant in settings.weights:
            if quant not in quants:
                raise UserError(
                    f"config: model_settings.{model}.weights: quant '{quant}' is not defined",
                    did_you_mean(quant, quants),
                )
        if settings.synthetic is not None and settings.weights:
            raise UserError(
                f"config: model_settings.{model}: has both weights and synthetic",
                "keep one: weights that exist, or a shape to build",
            )
    values: dict[str, Collection[str]] = {
        "quant": quants,
        "model": {*config.model_settings, *(e.model_name or name for name, e in config.endpoints.items())},
        "workload": config.workload_settings,
        "platform": get_args(Platform),
    }
    for axis, value in config.baseline.named.items():
        if axis in values and value not in values[axis]:
            raise UserError(
                f"config: baseline.{axis}: {axis} '{value}' is not defined", did_you_mean(value, values[axis])
            )


def check_earlier_baseline(config: Config) -> None:
    """Raises `UserError` where the baseline is of earlier results that are not there, or that can take no turns."""
    axis = next(iter(config.baseline.named))
    if config.launches == "auto" and axis in EARLIER_AXES:
        raise UserError(
            f"config: launches: auto can't know when it is enough against a baseline that takes no turns ({axis})",
            "give launches a number",
        )
    folder = config.baseline.results
    if folder is not None and not Path(folder).is_dir():
        problem = "is not a folder" if Path(folder).exists() else "does not exist"
        raise UserError(
            f"config: baseline.results: {folder}: {problem}",
            did_you_mean_folder(Path(folder)) or "name a results folder, the one that holds offline/",
        )


def check_engine_args(config: Config, engine: Engine) -> None:
    """Raises `UserError` for an argument that the engine does not know, or whose value it could never take."""
    for place, args in _engine_args(config):
        for name, value in args.items():
            if name in OWN_ARGS:
                raise UserError(f"config: {place}.{name}: is set by rollout-bench itself", "leave it out")
            if engine.arguments and name not in engine.arguments:
                raise UserError(
                    f"config: {place}.{name}: {engine.name} {engine.version} has no such engine argument",
                    did_you_mean(name.replace("-", "_"), engine.arguments) if name else "leave it out",
                )
            _check_engine_arg(f"{place}.{name}", name, value)


def _engine_args(config: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each place where a config has engine arguments, and what stands there."""
    yield "engine_args", config.engine_args
    yield from ((f"model_settings.{n}.engine_args", s.engine_args) for n, s in config.model_settings.items())
    yield from ((f"quant_settings.{n}.engine_args", s.engine_args) for n, s in config.quant_settings.items())
    yield from ((f"workload_settings.{n}.engine_args", s.engine_args) for n, s in config.workload_settings.items())


def _check_engine_arg(where: str, name: str, value: Any) -> None:
    counts = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "max_model_len", "max_num_seqs",
              "max_num_batched_tokens", "block_size", "kv_cache_memory_bytes")  # fmt: skip
    if value is None:
        return
    if name in counts and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise UserError(f"config: {where}: {value!r} is no count", "give a whole number from 1 up")
    if name == "gpu_memory_utilization" and (
        isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1
    ):
        raise UserError(f"config: {where}: {value!r} is no share of the memory", "give a number above 0 and up to 1")
    if name in ("trust_remote_code", "enforce_eager", "enable_prefix_caching") and not isinstance(value, bool):
        raise UserError(f"config: {where}: {value!r} is neither true nor false", "write true or false")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise UserError(
            f"config: {where}: {value!r} can't be written as JSON",
            "put a text in quotes, dates and times too",
        ) from None


def check_lengths(model: str, workload: str, longest: tuple[int, int], args: dict[str, Any], source: ModelSpec) -> None:
    """Raises `UserError` where a workload's `longest` sequence is longer than the engine or the model takes."""
    prompt_tokens, output_tokens = longest
    wanted = prompt_tokens + output_tokens
    limit = args["max_model_len"]
    if isinstance(limit, int) and wanted > limit:
        raise UserError(
            f"config: workload_settings.{workload}: {prompt_tokens} prompt + {output_tokens} output tokens"
            f" = {wanted} are more than max_model_len {limit} of {model}",
            f"raise max_model_len to {wanted}, or shorten the workload",
        )
    positions = (source.synthetic or {}).get("max_position_embeddings")
    if positions is not None and wanted > positions:
        raise UserError(
            f"config: model_settings.{model}.synthetic: workload {workload} needs {wanted} positions,"
            f" the model has {positions}",
            f"set max_position_embeddings to {wanted} or more, or shorten the workload",
        )
