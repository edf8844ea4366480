"""Checks of a config that pydantic cannot make: names, engine arguments, lengths, devices."""

import json
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from rollout_bench.checkpoints.formats import layer_tensors
from rollout_bench.checkpoints.shapes import PRESETS, ResolvedShape
from rollout_bench.contracts.axes import UNKNOWN
from rollout_bench.contracts.drafts import ARGUMENT as DRAFTS
from rollout_bench.contracts.engine_memory import USUAL_UTILIZATION
from rollout_bench.contracts.fields import HUB_ID, flat, without_variable
from rollout_bench.contracts.lora import ENGINE_ARGS, Lora
from rollout_bench.contracts.mode import Mode
from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.spec import (
    ModelSpec,
    Platform,
    Spec,
    WorkloadSpec,
    devices_needed,
    devices_per_replica,
    replicas,
    tensor_parallel_size,
)
from rollout_bench.core.errors import UnmeasurableError, UserError, closest, did_you_mean, near_miss, value_text
from rollout_bench.core.files import did_you_mean_folder
from rollout_bench.core.model_files import config_in, is_whole, tensor_names
from rollout_bench.core.numbers import first_few
from rollout_bench.core.secrets import may_be_secret, without_secrets
from rollout_bench.core.yaml_files import SPACE_AFTER_COLON, flow
from rollout_bench.plan.config import Config
from rollout_bench.plan.draft_checks import check_draft_args, check_synthetic
from rollout_bench.plan.engine import ASCEND_VARIABLES, ASCEND_VERSION, OF_ASCEND, InstalledEngine
from rollout_bench.plan.meant import count_meant
from rollout_bench.plan.planning import planning_of
from rollout_bench.plan.quants import Quant, known_quants

OWN_ARGS = frozenset(
    {"model", "worker_extension_cls", "disable_log_stats", "served_model_name", "host", "port", "api_key"}
)
"""Engine arguments that the measuring command sets itself, including those of a server's front end."""


ONE_NODE = "leave it out: an engine has all its devices on one node; docs/clusters.md runs launches on several"
"""Remedy for a number of nodes."""

PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
"""Engine arguments whose product is the number of a launch's devices."""

MOST = {
    **dict.fromkeys(PARALLEL, 1024),
    **dict.fromkeys(("max_num_seqs", "block_size"), 1_000_000),
    **dict.fromkeys(("max_model_len", "max_num_batched_tokens"), 1_000_000_000),
    "kv_cache_memory_bytes": 1 << 60,
    "max_cudagraph_capture_size": 1_000_000,
    "num_speculative_tokens": 1_000,
}
"""Engine arguments, and keys in them, that are counts, with limits far beyond any possible engine."""

GRAPH_SIZES = "cudagraph_capture_sizes"
"""vLLM's argument, and key of `compilation_config`, for the tokens of each graph that it captures."""

BLOCK, SMALL_BLOCKS = 16, (1, 8)
"""Block sizes of the KV cache must be multiples of the first; some kernels accept the others (vLLM 0.32, read)."""

MOST_OF_ANY = (1 << 63) - 1
"""Limit of all integer arguments: 64 bits."""

DEEPEST_ARG = 32
"""Maximum nesting of lists and mappings in an engine argument: specs with much deeper nesting cannot be written."""

OWN_VARIABLES = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "leave it out: mode and platform decide",
    "VLLM_TARGET_DEVICE": "set platform instead",
    "PYTHONPATH": "install what the engine needs into its Python, or set engine.python",
    "VLLM_API_KEY": "leave it out: each server gets a key of its own",
    "VLLM_SERVER_DEV_MODE": "leave it out: the server is asked for its weights through it, and needs a key for that",
    "TMPDIR": "leave it out: the engine gets a temporary folder of its own, below the TMPDIR of the workflow",
    **dict.fromkeys(
        ("CUDA_VISIBLE_DEVICES", "ASCEND_RT_VISIBLE_DEVICES", "CPU_VISIBLE_MEMORY_NODES"),
        "leave it out: each launch gets devices of its own, of those that are visible where you run snakemake",
    ),
}
"""Environment variables that the measuring command sets itself, with the alternative."""

INHERITED_VARIABLES = ("PATH", "PYTHONHOME")
"""Environment variables with which an engine finds programs (lscpu, a compiler) and its Python's modules."""


THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip
"""Variables that Snakemake sets to the threads of each job; rules that launch an engine remove them."""


def dropped_variables(config: Config, shell: Mapping[str, str]) -> Iterator[str]:
    """Yield two lines on variables of the shell that no engine receives; none if there are no such variables."""
    names = [name for name in THREAD_VARIABLES if name in shell and name not in config.engine.environment]
    if names:
        yield f"{', '.join(names)} of your shell: given to no engine, since Snakemake sets it anew for each job"
        yield f"  -> engine: {{environment: {{{names[0]}: '{shell[names[0]]}'}}}} gives it to all of them"


def check_model_base(folder: Path) -> None:
    """Check that `folder` can be a folder.

    Raises:
        UserError: it is a file, or not accessible.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise UserError(f"config: model_base: {folder}: is a file", "set model_base to a folder")
    except OSError as error:
        raise UserError(f"config: model_base: {folder}: {error.strerror}", "set model_base to a folder") from None


def check_model_base_can_be_written(folder: Path) -> None:
    """Check that synthetic checkpoints can be built below `folder`.

    Raises:
        UserError: it is not writable.
    """
    parent = next((path for path in (folder, *folder.absolute().parents) if os.path.lexists(path)), Path("/"))
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK) or parent.absolute().is_relative_to("/proc"):
        raise UserError(
            f"config: model_base: {folder}: synthetic models can't be built there: {parent} can't be written",
            "set model_base to a folder that you may write",
        )


def absent_model(folder: Path, written: str = "") -> UserError | None:
    """Return the error of a model folder without a model; None if it has one.

    `written` is the folder as the config names it, which may be a model of the hub without its `hub:`.
    """
    if (folder / "config.json").is_file():
        return None
    is_absolute = Path(written).expanduser().is_absolute()
    remedy = "correct the model's weights" if is_absolute else "set model_base, or the model's weights"
    if folder.is_dir():
        return UserError(f"{folder}: no model there: it has no config.json", remedy)
    hub_id = re.sub("^((hf|huggingface):/*|https?://[^/]+/)", "", written)
    on_hub = f"did you mean 'hub:{hub_id}'?" if re.fullmatch(HUB_ID, hub_id) else ""
    is_here = bool(written) and (Path(written) / "config.json").is_file()
    here = f"names are below model_base: write '{os.path.normpath(Path(written).absolute())}'" if is_here else ""
    return UserError(
        f"{folder}: no model there: no such folder",
        here or did_you_mean_folder(folder) or on_hub or remedy,
    )


WEIGHT_FILES = (".safetensors", ".bin", ".pt")
"""Suffixes of the files from which vLLM loads weights by default."""

FROM_FILES = ("auto", "hf", "safetensors", "pt", "mistral")
"""Values of `load_format` that read such files."""


def unusable_model(folder: Path, load_format: str, written: str = "") -> UserError | None:
    """Return the error of a model folder that the engine can't load by `load_format`; None if it can.

    It is that of `absent_model`, or of a model whose weights are not there, or not whole.
    """
    if absent := absent_model(folder, written):
        return absent
    if load_format not in FROM_FILES:
        return None
    files = {each.name: each for each in folder.iterdir() if each.suffix in WEIGHT_FILES and each.is_file()}
    cut = [each.name for each in files.values() if each.suffix == ".safetensors" and not is_whole(each)]
    index, parts = folder / "model.safetensors.index.json", set[str]()
    if index.is_file():
        try:
            parts = set(json.loads(index.read_bytes())["weight_map"].values())
        except (ValueError, LookupError, TypeError, AttributeError):
            cut.append(index.name)
    lacking = sorted(parts - files.keys())
    whole = "finish its download, or load random weights: engine_args: {load_format: dummy}"
    if not files:
        return UserError(f"{folder}: no weights there: no file ends in {' or '.join(WEIGHT_FILES)}", whole)
    if lacking:
        return UserError(f"{folder}: weights are missing: {first_few(lacking)}, which {index.name} names", whole)
    if cut:
        return UserError(f"{folder}: weights are not whole: {first_few(cut)}", whole)
    return None


def check_weights(config: Config, models: Iterable[tuple[ModelSpec, str, str]]) -> None:
    """Check that named weights exist on this machine, which will measure them.

    If even the parent folder is missing, the config may be meant for another machine, so it is not checked. Neither are
    pods, which mount their own weights, and synthetic models, which the workflow builds.

    Args:
        config: the config.
        models: each loaded model with the path of its weights, and how they are loaded (`load_format`).

    Raises:
        UserError: weights are missing.
    """
    if config.kubernetes.image is not None:
        return
    for model, path, load_format in models:
        if model.weights is None or model.is_on_hub:
            continue
        folder = Path(path)
        below = folder.parent if Path(model.weights).expanduser().is_absolute() else Path(config.model_base)
        absent = unusable_model(folder, load_format, model.weights) if below.is_dir() else None
        if absent is not None:
            raise UserError(f"config: model_settings.{model.name}.weights: {absent.problem}", absent.remedy)


READ_ON: dict[str, Platform] = {OF_ASCEND: "ascend", "HCCL_": "ascend", "NCCL_": "cuda", "VLLM_CPU_": "cpu"}
"""Beginning of environment variables -> the only platform on which something reads them."""


def check_variables(config: Config, engine: InstalledEngine, platform: Platform) -> list[str]:
    """Check the environment variables of the config; return a line for each that nothing reads on `platform`.

    Where vllm-ascend is not installed, its variables are judged by one version of it, and none is refused, since
    another version may read it.

    Raises:
        UserError: rollout-bench sets a variable itself, each launch must inherit it, it is misspelt, the engine does
            not accept its value, or a setting has one that nothing reads.
    """
    unread, is_elsewhere = list[str](), platform == "ascend" and not engine.lists_ascend
    named = [
        (f"{place}.{name}", name, value) for place, given in _environments(config) for name, value in given.items()
    ]
    for where, name, value in named:
        if name in OWN_VARIABLES:
            raise UserError(f"config: {where}: is set by rollout-bench itself", OWN_VARIABLES[name])
        if name in INHERITED_VARIABLES:
            raise UserError(
                f"config: {where}: each launch needs the value that snakemake itself has",
                f"leave it out, and export {name} before you run snakemake: the engine inherits it",
            )
        if is_elsewhere and name.startswith(OF_ASCEND):
            unread += _unread_by_ascend(where, name)
            continue
        is_unread = name.startswith("VLLM_") and not engine.reads(name)
        is_known = name.startswith("VLLM_") and not is_unread
        problem = f"{engine.name} {engine.version} reads no such variable"
        if close := None if is_known else near_miss(name, engine.variables, MISSPELT):
            raise UserError(f"config: {where}: {problem}", f"did you mean '{close}'?")
        if instead := engine.instead_of(name, str(value)):
            problem = f"{engine.name} {engine.version} does not accept {value_text(value)}"
            raise UserError(f"config: {where}: {problem}", instead)
        other = next((one for start, one in READ_ON.items() if name.startswith(start)), platform)
        argument = name.removeprefix("VLLM_").lower()  # vLLM has made arguments of some, as of VLLM_ATTENTION_BACKEND
        remedy = "leave it out"
        if other != platform:
            problem = f"it is for {other}, and the platform is {platform}"
        elif not is_unread:
            continue
        elif argument in engine.arguments:
            remedy = f"set the engine argument {argument} in its place"
        if where.startswith("setting_settings."):
            raise UserError(f"config: {where}: {problem}", f"{remedy}: the setting would change nothing by it")
        unread.append(f"{where}: changes nothing: {problem} -> {remedy}")
    return unread


def _unread_by_ascend(where: str, name: str) -> Iterator[str]:
    """Yield a line if the version of vllm-ascend whose variables are listed here does not read the one at `where`."""
    if name not in ASCEND_VARIABLES:
        close = near_miss(name, ASCEND_VARIABLES, MISSPELT)
        problem = f"vllm-ascend {ASCEND_VERSION} reads no such variable, and none is installed here"
        remedy = f"did you mean '{close}'?" if close else "leave it out, unless your vllm-ascend reads it"
        yield f"{where}: probably changes nothing: {problem} -> {remedy}"


def check_no_secrets(config: Config) -> None:
    """Check that no setting may be a secret, since all settings end up in specs, records and manifests.

    Raises:
        UserError: a setting may be a secret.
    """
    for place, settings in (*_environments(config), *engine_args_in(config)):
        check_no_secret(place, settings)


def check_no_secret(
    place: str, settings: Mapping[str, Any], is_secret: Callable[[str, str], bool] = may_be_secret
) -> None:
    """Check that none of the `settings` at `place`, at any depth, may be a secret.

    Raises:
        UserError: a setting may be a secret.
    """
    for name in without_secrets(settings, is_secret, place)[1]:
        raise UserError(
            f"config: {name}: may be a secret, and would be written to spec.json, records and manifests",
            "take it out and export it as an environment variable where you run snakemake: the engine inherits it"
            " (on Kubernetes: kubernetes.secrets)",
        )


def check_names(config: Config) -> None:
    """Check that selected names and other references of the config are defined and consistent.

    Raises:
        UserError: a model, quantization, mode or workload is undefined, or a model has both weights and synthetic.
    """
    quants, settings = known_quants(config.quant_settings), config.model_settings
    models = {*settings, *(e.model_name or name for name, e in config.endpoints.items())}
    launches = config.launches if isinstance(config.launches, dict) else {}
    axes: dict[str, Collection[str]] = {"quant": quants, "model": models, "workload": config.workload_settings}
    named: list[tuple[str, str, str, Collection[str]]] = [
        *(("modes", "mode", name, MODES) for name in config.modes),
        *(("models", "model", name, settings) for name in config.models),
        *(("quants", "quant", name, quants) for name in config.quants),
        *(("workloads", "workload", name, config.workload_settings) for name in config.workloads),
        *(("launches", "mode", name, MODES) for name in launches),
        *(
            (f"model_settings.{m}.weights", "quant", name, quants)
            for m, one in settings.items()
            for name in one.weights
        ),
        *((f"baseline.{a}", a, name, axes[a]) for a, name in config.baseline.axes.items() if a in axes),
        *((f"endpoints.{e}.quant", "quant", one.quant, {*quants, UNKNOWN}) for e, one in config.endpoints.items()),
    ]
    for where, kind, name, known in named:
        if name not in known:
            raise UserError(
                f"config: {where}: {kind} '{name}' is not defined",
                _known_or_defined(kind, name, set(known) - {UNKNOWN}),
            )
    for mode, count in launches.items():
        if mode in MODES and count > 1 and MODES[mode].launches == "one":
            raise UserError(
                f"config: launches.{mode}: is {count}, but mode {mode} needs only one launch",
                "set it to 1, or leave it out",
            )
    for model, one in settings.items():
        if one.weights and one.synthetic is not None:
            raise UserError(
                f"config: model_settings.{model}: has both weights and synthetic",
                "keep one: weights that exist, or a shape to build; config.yaml may have one, --configfile the other",
            )


_DEFINED: dict[str, str] = {
    "quant": "or define it in quant_settings: docs/models-and-quantizations.md",
    "model": "or write its place: model_settings: {NAME: {weights: {bf16: 'hub:<owner>/<name>'}}}",
}
"""What is named -> how to define one."""


OTHER_QUANTS = {
    "int8": "'w8a8' (int8 weights and activations) or 'w8a16' (int8 weights)",
    **dict.fromkeys(("awq", "gptq", "int4"), "'w4a16' (int4 weights)"),
    **dict.fromkeys(("e4m3", "float8", "fp8-e4m3", "fp8_e4m3"), "'fp8'"),
    **dict.fromkeys(("auto", "bfloat16", "none"), "'bf16'"),
    **dict.fromkeys(("float16", "half"), "'fp16'"),
}
"""Data types and methods by which a quantization is called -> those that have it."""


_OTHER_MODES = {
    **dict.fromkeys(("server", "serve", "serving", "latency"), "online"),
    **dict.fromkeys(("batch", "generate", "generation", "throughput"), "offline"),
}
"""Names of others for what a mode measures."""


def quants_meant(name: str) -> list[str]:
    """Return the quantizations that a name, a data type or a method stands for."""
    return re.findall(r"'([\w-]+)'", OTHER_QUANTS.get(name.lower(), f"'{name}'"))


def quant_meant(name: str) -> str:
    """Return the remedy for a quantization of an unknown name."""
    return f"did you mean {OTHER_QUANTS[name]}?" if name in OTHER_QUANTS else did_you_mean(name, known_quants({}))


def _known_or_defined(kind: str, name: str, known: Collection[str]) -> str:
    """Return the remedy for an undefined name: the closest known one, and how to define one."""
    if kind == "quant" and name in OTHER_QUANTS:
        return quant_meant(name)
    if kind == "mode" and name in _OTHER_MODES:
        return f"did you mean '{_OTHER_MODES[name]}'?"
    define, close = _DEFINED.get(kind, "").replace("NAME", name), near_miss(name, known)
    if kind == "model" and name in PRESETS:
        built = flow({name: {"synthetic": {"preset": name}}})
        return f"for random weights of that shape write model_settings: {built}; {define}"
    if kind == "model" and close and not alike(name, close) and near_miss(name, known, MISSPELT) is None:
        return define.removeprefix("or ")
    remedy = did_you_mean(name, known)
    return f"{remedy}; {define}" if define and (kind == "model" or close is None) else remedy


def alike(name: str, other: str) -> bool:
    """Return whether two similar names may be one misspelt: with other numbers they are others, as 8b and 90m."""
    return re.findall(r"\d+", name) == re.findall(r"\d+", other)


def check_engine_args(config: Config, engine: InstalledEngine) -> None:
    """Check that the engine has all arguments and that their values are possible.

    Raises:
        UserError: an argument is unknown, or its value is impossible.
    """
    for place, args in engine_args_in(config):
        for name, value in args.items():
            check_engine_arg(engine, f"{place}.{name}", name, value)


def engine_args_in(config: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each place of engine arguments in a config, with the arguments."""
    # settings first: under a setting its arguments are also among the model's, where the user did not write them
    yield from (
        (f"setting_settings.{n}.engine_args", s.get("engine_args", {})) for n, s in config.setting_settings.items()
    )
    yield "engine_args", config.engine_args
    yield from ((f"model_settings.{n}.engine_args", s.engine_args) for n, s in config.model_settings.items())
    yield from ((f"quant_settings.{n}.engine_args", s.engine_args) for n, s in config.quant_settings.items())
    yield from ((f"workload_settings.{n}.engine_args", s.engine_args) for n, s in config.workload_settings.items())


def _environments(config: Config) -> Iterator[tuple[str, dict[str, str]]]:
    yield "engine.environment", config.engine.environment
    for name, setting in config.setting_settings.items():
        yield f"setting_settings.{name}.engine.environment", setting.get("engine", {}).get("environment", {})


MISSPELT = 0.85
"""Similarity to a listed value from which on another value is a misspelling, although a plugin may add values."""


SHORT = {
    "dp": "data_parallel_size",
    "pp": "pipeline_parallel_size",
    "pipeline_model_parallel_size": "pipeline_parallel_size",
    "tensor_model_parallel_size": "tensor_parallel_size",
    "tp": "tensor_parallel_size",
}
"""vLLM's short options, and names of trainers -> its arguments."""


_KINDS = {"bool": "true or false", "int": "a whole number", "float": "a number"}
"""Type of an argument of vLLM -> what a config has there."""


def check_path(where: str, value: str) -> None:
    """Check that the path at `where` has no variable.

    Raises:
        UserError: it has one.
    """
    try:
        without_variable(value)
    except ValueError as error:
        problem, _, remedy = str(error).rpartition(": ")
        raise UserError(f"config: {where}: {problem}", remedy) from None


def check_engine_arg(engine: InstalledEngine, where: str, name: str, value: Any) -> None:
    """Check the value of the argument `name` at `where`.

    Raises:
        UserError: the argument is unknown or reserved, or its value is impossible.
    """
    if name in OWN_ARGS:
        raise UserError(f"config: {where}: is set by rollout-bench itself", "leave it out")
    if name == "nnodes" and value not in (1, None):
        raise UserError(f"config: {where}: no engine over several nodes is started", ONE_NODE)
    if name == "quantization" and not where.startswith("quant_settings."):
        raise UserError(
            f"config: {where}: a quantization is named in quants, whose weights are then proven",
            "leave it out: quants: [bf16, fp8]; or define your own: quant_settings: {mine: {engine_args: "
            "{quantization: ...}}}",
        )
    if engine.arguments and name not in engine.arguments:
        problem = f"config: {where}: {engine.name} {engine.version} has no such engine argument"
        raise UserError(problem, _instead_of_arg(name, engine))
    if value is None:
        return
    if isinstance(value, list) and (name in MOST or engine.kind(name)):
        raise UserError(
            f"config: {where}: is a list, but takes a single value",
            f"leave it out, and write sweep: {{{name}: {json.dumps(value)}}}",
        )
    if name == "hf_token" and not isinstance(value, bool | str):
        raise UserError(
            f"config: {where}: is a secret", "export HF_TOKEN where you run snakemake: the engine inherits it"
        )
    if isinstance(value, str):
        check_path(where, value)
    _check_counts(where, name, value)
    _check_accepted(engine, where, name, value)
    _check_mapping(engine, where, name, value)
    if _deeper_than(DEEPEST_ARG, value):
        raise UserError(f"config: {where}: is nested deeper than {DEEPEST_ARG} levels", "write it flatter")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise UserError(
            f"config: {where}: {value!r} can't be written as JSON",
            "put a text in quotes, dates and times too",
        ) from None


def _instead_of_arg(name: str, engine: InstalledEngine) -> str:
    """Return the remedy for an argument that the engine lacks."""
    if name in SHORT:
        return f"did you mean '{SHORT[name]}'?"
    if name == "disable_mm_preprocessor_cache" and "mm_processor_cache_gb" in engine.arguments:
        return "write mm_processor_cache_gb: 0"
    if ":" in name:
        return SPACE_AFTER_COLON
    close = closest(name.replace("-", "_"), engine.arguments) if name else None
    return f"did you mean '{close}'?" if close else "leave it out; `vllm serve --help=all` lists the arguments"


def _check_counts(where: str, name: str, value: Any) -> None:
    """Check the number, or the sizes of graphs, that the argument `name` takes, and those in its mapping."""
    _check_number(where, name, value)
    if name == GRAPH_SIZES and not (isinstance(value, list) and value and all(map(_is_count, value))):
        raise UserError(
            f"config: {where}: {value_text(value)} is no list of counts", f"write {name}: [1, 2, 4, 8], or leave it out"
        )
    for key, inner in value.items() if isinstance(value, Mapping) else ():
        known = str(key).replace("-", "_")
        if inner is not None and (known in MOST or known == GRAPH_SIZES):
            _check_counts(f"{where}.{key}", known, inner)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _check_number(where: str, name: str, value: Any) -> None:
    count, most = isinstance(value, int) and not isinstance(value, bool), MOST.get(name, MOST_OF_ANY)
    if name in MOST and (not count or value < 1):
        remedy = _written_as_number(name, value) or "give a whole number from 1 up"
        raise UserError(f"config: {where}: {value!r} is not a count", remedy)
    if count and abs(value) > most:
        raise UserError(f"config: {where}: is larger than any engine accepts", f"give a whole number up to {most:,}")
    if name == "block_size" and count and value not in SMALL_BLOCKS and value % BLOCK:
        raise UserError(
            f"config: {where}: no attention backend supports blocks of {value} tokens", f"give a multiple of {BLOCK}"
        )
    if name == "gpu_memory_utilization" and not ((count or isinstance(value, float)) and 0 < value <= 1):
        raise UserError(f"config: {where}: {value!r} is not a share of the memory", "give a number above 0 and up to 1")


def _check_accepted(engine: InstalledEngine, where: str, name: str, value: Any) -> None:
    """Check that the engine accepts a value, as far as it says what it accepts."""
    choices, is_open = engine.choices(name)
    kind = engine.kind(name) if isinstance(value, str | list | dict) else ""
    is_misspelt = near_miss(str(value), map(str, choices), MISSPELT) is not None
    if choices and _plain(value) not in map(_plain, choices) and (is_misspelt or not is_open):
        raise UserError(
            f"config: {where}: {engine.name} {engine.version} does not accept {value_text(value)}",
            did_you_mean(str(value), map(str, choices)),
        )
    if kind != "":
        raise UserError(
            f"config: {where}: {engine.name} {engine.version} does not accept {value_text(value)}",
            _written_as_number(name, value) or f"write {_KINDS.get(kind)}",
        )


def _written_as_number(name: str, value: Any) -> str:
    """Return the remedy for a count with a unit, as 4k or 256MB; nothing for other values."""
    number = count_meant(value) if isinstance(value, str) else None
    return f"write {name}: {number}" if number else ""


_USUAL_SPECULATION = {"method": "ngram", "num_speculative_tokens": 3}


def _check_mapping(engine: InstalledEngine, where: str, name: str, value: Any) -> None:
    """Check the value of an argument that the engine takes as a mapping, and the keys in it, as far as it says them."""
    known = engine.words_of_additional if name == "additional_config" and isinstance(value, Mapping) else ()
    for key in value if known else ():
        if str(key) not in known:
            close = near_miss(str(key), known, MISSPELT)
            raise UserError(
                f"config: {where}.{key}: vllm-ascend {engine.plugins['vllm-ascend']} reads no such key",
                f"did you mean '{close}'?" if close else "leave it out",
            )
    keys = engine.mapping(name)
    if keys is None or _deeper_than(DEEPEST_ARG, value):
        return
    if not isinstance(value, Mapping):
        raise UserError(
            f"config: {where}: {value_text(value)} is no mapping", f"write {name}: {flow(_as_mapping(name, value))}"
        )
    for key in value if keys else ():
        if str(key).replace("-", "_") not in keys:
            problem = f"config: {where}.{key}: {engine.name} {engine.version} has no such key there"
            raise UserError(problem, did_you_mean(str(key), keys))
    for key, inner in value.items():
        choices = engine.choices_in(name, str(key).replace("-", "_"))
        if choices and isinstance(inner, str) and inner not in choices:
            raise UserError(
                f"config: {where}.{key}: {engine.name} {engine.version} does not accept {value_text(inner)}",
                did_you_mean(inner, map(str, choices)),
            )
    if name == DRAFTS:
        check_draft_args(where, value)


def _as_mapping(name: str, value: Any) -> Mapping[str, Any]:
    """Return the mapping that is meant by the `value` of the argument `name`, which is none."""
    if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        return {key: inner for one in value for key, inner in one.items()}
    if isinstance(value, list) and len(value) == 1:
        return _as_mapping(name, value[0])
    if isinstance(value, str):
        with suppress(yaml.YAMLError):
            if isinstance(read := yaml.safe_load(value), Mapping):
                return read
    is_text, is_number = isinstance(value, str), isinstance(value, int) and not isinstance(value, bool)
    if name == "speculative_config":
        key = "num_speculative_tokens" if is_number else "model" if is_text and "/" in value else "method"
        rest = {"num_speculative_tokens": 3} if key == "model" else _USUAL_SPECULATION
        return {**rest, key: value} if is_text or is_number else rest
    if name == "compilation_config" and (is_text or is_number):
        return {"mode" if is_number else "cudagraph_mode": value}
    if name == "kv_transfer_config" and is_text:
        return {"kv_connector": value, "kv_role": "kv_both"}
    return {"KEY": "VALUE"}


def _plain(value: Any) -> Any:
    """Return a word as vLLM's validators normalise it before they compare it."""
    return value.lower().replace("-", "_") if isinstance(value, str) else value


def _deeper_than(levels: int, value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(_deeper_than(levels - 1, each) for each in inner)


def check_lengths(
    config: Config,
    model: str,
    workload: WorkloadSpec,
    longest: tuple[int, int],
    args: dict[str, Any],
    source: ModelSpec,
) -> None:
    """Check that a workload's `longest` sequence fits the engine and the model.

    Raises:
        UserError: it is longer than max_model_len or the model's positions.
    """
    prompt_tokens, output_tokens = longest
    wanted, put_in = prompt_tokens + output_tokens, "prompt" if workload.turns is None else "prompt and tool"
    limit, positions = args["max_model_len"], (source.synthetic or {}).get("max_position_embeddings")
    if isinstance(limit, int) and wanted > limit:
        places = (place for place, engine_args in engine_args_in(config) if engine_args.get("max_model_len") == limit)
        place = next(places, "engine_args")
        raise UserError(
            f"config: {place}.max_model_len: {prompt_tokens} {put_in} + {output_tokens} output tokens = {wanted} of "
            f"workload {workload.name} are more than max_model_len {limit} of {model}",
            f"raise max_model_len to {wanted}, or shorten the workload",
        )
    if positions is not None and wanted > positions:
        raise UserError(
            f"config: model_settings.{model}.synthetic: workload {workload.name} needs {wanted} positions, the "
            f"model has {positions}",
            f"set max_position_embeddings to {wanted} or more, or shorten the workload",
        )


SIZE = "data_parallel_size"


def check_batch(spec: Spec, key: str, most: int, remedy: str) -> None:
    """Check that an engine may run `most` sequences, which `key` asks for, at once.

    Raises:
        UserError: it may not.
    """
    limit = spec.engine.args.get("max_num_seqs")
    if limit is not None and most > limit:
        raise UserError(
            f"config: {key}: {most} sequences are more than max_num_seqs {limit} of {spec.model.name} under "
            f"{spec.workload.name}",
            f"raise max_num_seqs, or {remedy}",
        )


def check_data_parallel(config: Config, spec: Spec) -> None:
    """Check that the replicas and devices of an experiment are possible.

    Raises:
        UserError: there are too few devices, or the mode or the memory does not allow the replicas.
    """
    count, model, key, args = replicas(spec), spec.model.name, spec.mode_spec.replicas_key, spec.engine.args
    mode, needed = MODES[spec.mode], devices_needed(spec)
    lower = spec.mode_spec.devices_key or (key if count > 1 else "tensor_parallel_size")
    sum_of = f"{count} replicas x {devices_per_replica(spec)} = " if count > 1 else ""
    if config.devices is not None and needed > config.devices:
        raise UserError(
            f"config: devices: a launch of {model} needs {sum_of}{needed} devices simultaneously, more than "
            f"{config.devices}",
            f"raise devices, or lower {lower}",
        )
    if spec.platform == "cpu" and args.get("pipeline_parallel_size", 1) != 1:  # vLLM 0.32, tried
        raise UserError(
            "config: pipeline_parallel_size: vLLM on a CPU loses requests between the stages of a pipeline, and ends "
            "with a KeyError",
            "set tensor_parallel_size instead, or platform to that of a machine with several devices",
        )
    if count == 1:
        return
    if mode.data_parallel == "refused" and not mode.has_loads:
        raise UserError(
            f"config: {SIZE}: {model} has {count} replicas, and {spec.mode} mode measures one engine",
            f"leave {SIZE} out, or leave {spec.mode} out of modes",
        )
    if mode.data_parallel == "refused":
        raise UserError(
            f"config: {SIZE}: {model} has {count} replicas, and {spec.mode} mode measures one engine behind one server",
            f"leave {spec.mode} out of modes, or start the replicas and their router yourself and name that in "
            "endpoints",
        )
    if spec.platform == "cpu" and not memory_is_shared_out(spec, count):
        raise UserError(
            f"config: {key}: {model} has {count} replicas, and each would use "
            f"{args.get('gpu_memory_utilization', USUAL_UTILIZATION)} of the memory they share on cpu",
            f"set kv_cache_memory_bytes in engine_args, or gpu_memory_utilization to less than 1/{count}",
        )
    for name, value in args.items():
        if name.startswith("data_parallel_") and name != SIZE and value is not None:
            raise UserError(
                f"config: {name}: belongs to vLLM's data parallelism, but {model} has {count} separate engines",
                f"leave it out: separate engines need only {key}",
            )


def check_lora(lora: Lora, args: Mapping[str, Any], mode: Mode, platform: Platform, weights_format: str) -> None:
    """Check that a mode and an engine have adapters, and that no argument says what `lora` says.

    Raises:
        UnmeasurableError: the mode does not measure adapters, or not merged ones, or weights of this format have none.
        UserError: an argument follows from `lora`.
    """
    if (platform, weights_format) == ("cpu", "compressed-tensors-w8a8"):  # vLLM 0.32, tried
        raise UnmeasurableError("vLLM on a CPU has no adapters for w8a8 weights", "leave w8a8 or lora out")
    if not mode.loras:
        *first, last = sorted(each.name for each in MODES.values() if each.loras)
        names = f"{', '.join(first)} and {last}"
        why = f": {mode.without_loras}" if mode.without_loras else ""
        problem = f"mode {mode.name} does not measure adapters (lora){why}"
        raise UnmeasurableError(problem, f"measure them in modes {names}, or leave lora out")
    if lora.how == "merged" and not mode.merges:
        problem = f"mode {mode.name} measures no merged adapter, which is as fast as the model without one"
        modes = " or ".join(each.name for each in MODES.values() if each.merges)
        raise UnmeasurableError(problem, f"measure the model without lora, or set modes: [{modes}]")
    if lora.how == "merged" and weights_format != "bf16":
        problem = f"an adapter is merged into bf16 weights, and not into those of a checkpoint in {weights_format}"
        raise UnmeasurableError(problem, "set lora.how: adapter, or leave this quantization out of quants")
    if lora.how == "adapter" and platform == "cuda" and args.get("dtype") in ("float32", "float"):
        problem = "vLLM's kernels of adapters on a GPU take no float32"
        raise UnmeasurableError(problem, "set lora.how: merged, or another dtype")
    for name in ENGINE_ARGS:
        if name in args:
            key = {"max_lora_rank": "max_rank", "fully_sharded_loras": "fully_sharded"}.get(name)
            raise UserError(
                f"config: engine_args.{name}: follows from lora, rank {lora.rank}",
                f"leave it out{f', and set lora.{key}' if key else ''}",
            )


WITHOUT_EFFECT: dict[str, dict[str, str]] = {
    "cpu": {
        "VLLM_BATCH_INVARIANT": "vLLM has no batch-invariant linear layers on cpu",
        "enable_sleep_mode": "vLLM has no sleep mode on cpu",
        "enable_return_routed_experts": "vLLM's model runner on cpu returns no experts",
    },
}
"""Platform -> variables and arguments without their documented effect there (vLLM 0.32, read), with the reason."""


def check_effects(spec: Spec, model: Path) -> None:
    """Check that all settings of `spec` have an effect; its weights are at `model`.

    Raises:
        UserError: a setting has none.
        UnmeasurableError: the platform lacks it.
    """
    args, why = spec.engine.args, WITHOUT_EFFECT.get(spec.platform, {})
    check_synthetic(spec)
    leave = "leave it out: its effect would not be measured"
    if args.get("enable_lora") and spec.lora is None:
        problem = "config: enable_lora: the requests name no adapter, so the engine would not use one"
        raise UserError(problem, f"write 'lora: {{rank: 16}}', or {leave}" if MODES[spec.mode].loras else leave)
    if not args.get("enable_lora") and (unused := [name for name in ENGINE_ARGS if args.get(name)]):
        raise UserError(f"config: {unused[0]}: the engine keeps no adapter apart", leave)
    if spec.lora is not None and not isinstance(spec.lora.targets, str):
        _check_targets(spec.lora.targets, spec.model.name, _layers(spec, model))
    if spec.lora is not None and _has_experts(spec, model):
        problem = f"config: lora: adapters for experts, which {spec.model.name} has, are not made here"
        raise UserError(problem, "leave lora out, or measure a dense model")
    if args.get("enable_return_routed_experts") and _is_dense(spec, model):
        raise UserError(f"config: enable_return_routed_experts: {spec.model.name} has no experts", leave)
    for place, given in (("engine_args", args), ("engine.environment", spec.engine.environment)):
        if name := next((name for name, value in given.items() if name in why and value not in ("", "0", False)), None):
            raise UserError(f"config: {place}.{name}: {why[name]}", leave)


def check_experts(spec: Spec, quant: Quant, model: Path) -> None:
    """Check that the engine has the quantization for the experts, if any, of the model at `model`.

    Raises:
        UnmeasurableError: it has not.
    """
    if not quant.moe and _has_experts(spec, model):
        raise UnmeasurableError(
            f"config: {spec.quant.name} does not exist for mixture-of-experts models here",
            f"leave {spec.quant.name} out of quants for {spec.model.name}",
        )


def check_heads(spec: Spec, model: Path) -> None:
    """Check that the ranks of an engine can share the attention heads of the model at `model`, as vLLM does.

    Raises:
        UserError: they cannot.
    """
    shape, ranks = spec.model.synthetic or config_in(model) or {}, tensor_parallel_size(spec)
    text = shape.get("text_config") or shape
    heads = text.get("num_attention_heads") if isinstance(text, Mapping) else None
    if isinstance(heads, int) and heads % ranks and not spec.engine.args.get("hf_overrides"):
        fitting = [str(count) for count in range(1, min(heads, 16) + 1) if heads % count == 0]
        raise UserError(
            f"config: tensor_parallel_size: {ranks} ranks can't share the {heads} attention heads of {spec.model.name}",
            f"set it to {', '.join(fitting[:-1])} or {fitting[-1]}",
        )


def _layers(spec: Spec, model: Path) -> set[str]:
    """Return the last parts of the names of the model's layers, its linear ones if it is built; empty if unknown."""
    if spec.model.synthetic is None:
        return {name.split(".")[-2] for name in tensor_names(model) if name.endswith(".weight")}
    tensors = layer_tensors(ResolvedShape.model_validate(spec.model.synthetic), 0)
    return {tensor.name.split(".")[-2] for tensor in tensors if tensor.name.endswith("_proj.weight")}


def _check_targets(targets: Iterable[str], model: str, layers: Collection[str]) -> None:
    for target in targets if layers else ():
        if target not in layers:
            raise UserError(
                f"config: lora.targets: no layer of {model} is called {target}", did_you_mean(target, layers)
            )


def check_weights_format(spec: Spec, model: Path) -> None:
    """Check that weights in a folder are quantized beforehand where `spec` wants it, and only there.

    Raises:
        UserError: they are not. Where nothing can be read, the launch will report it.
    """
    config = None if spec.model.weights is None or spec.load_format not in FROM_FILES else config_in(model)
    if config is None:
        return
    layout = modelslim_layout(model)
    is_quantized = bool(config.get("quantization_config")) or layout is not None
    quant, where = spec.quant, f"config: model_settings.{spec.model.name}.weights: {spec.model.weights}"
    if is_quantized and quant.weights_format == "bf16" and set(quant.linear_dtypes) == {"bfloat16"}:
        raise UserError(f"{where}: is quantized, and {quant.name} is not", "name the folder of its weights in bf16")
    if not is_quantized and quant.weights_format.startswith(("compressed-tensors", "modelslim")):
        raise UserError(
            f"{where}: is not quantized, and {quant.name} needs weights in the format {quant.weights_format}",
            f"name their folder in model_settings.{spec.model.name}.weights.{quant.name}, or leave {quant.name} out",
        )
    if layout is not None and quant.weights_format.startswith("modelslim-"):
        fitting = MODELSLIM.get(layout)
        if f"modelslim-{fitting}" != quant.weights_format:
            linear, cache = layout
            raise UserError(
                f"{where}: is {linear}{' with an int8 KV cache (C8)' if cache else ''} by its "
                f"quant_model_description.json, and {quant.name} is {quant.weights_format}",
                f"call it {fitting}: quants, and model_settings.{spec.model.name}.weights.{fitting}"
                if fitting
                else "define a quantization for it: docs/models-and-quantizations.md",
            )


MODELSLIM = {
    ("W8A8_DYNAMIC", False): "w8a8",
    ("W8A8", False): "w8a8-static",
    ("W8A16", False): "w8a16",
    ("W4A8_DYNAMIC", False): "w4a8",
    ("W8A8_DYNAMIC", True): "w8a8-kv8",
    ("W8A8", True): "w8a8-kv8",
}
"""ModelSlim's type of the linear layers, and whether the KV cache is int8 -> the quantization's name."""


def modelslim_layout(model: Path) -> tuple[str, bool] | None:
    """Return ModelSlim's type of the linear layers of the checkpoint in a folder, and whether its KV cache is int8.

    A checkpoint of several types has the one that only it has: W4A8_DYNAMIC has W8A8 in its attention, and
    W8A8_DYNAMIC may have layers that are W8A8. None for another format, or if it is not readable.
    """
    with suppress(OSError, ValueError):
        described = json.loads((model / "quant_model_description.json").read_text())
        types = {kind for name, kind in described.items() if name.endswith(".weight")}
        named = ("W4A8_DYNAMIC", "W8A8_DYNAMIC", "W8A8", "W8A16")
        layout = next((kind for kind in named if kind in types), " ".join(sorted(types - {"FLOAT"})) or "FLOAT")
        return layout, described.get("kv_cache_type") == "C8" or bool(described.get("fa_quant_type"))
    return None


def _is_dense(spec: Spec, model: Path) -> bool:
    """Return whether the model is known to have no experts."""
    return _has_experts(spec, model) is False


def _has_experts(spec: Spec, model: Path) -> bool | None:
    """Return whether the model has experts; None if unknown."""
    shape = spec.model.synthetic or config_in(model)
    return any("expert" in name and value not in ("0", "unknown") for name, value in flat(shape)) if shape else None


def check_devices_here(specs: Iterable[Spec], available: int) -> None:
    """Check that this machine has enough devices for each launch.

    Args:
        specs: the planned experiments.
        there: visible devices; on cpu cores, at least one for each process of an engine.

    Raises:
        UserError: a launch needs more.
    """
    for spec in specs:
        mode_spec, sizes = spec.mode_spec, {name: int(spec.engine.args.get(name) or 1) for name in PARALLEL}
        if mode_spec.devices_shared is not None:
            sizes = {mode_spec.devices_key: mode_spec.devices_shared}
        needed, largest = math.prod(sizes.values()), max(sizes, key=lambda name: sizes[name])
        several = mode_spec.replicas_key != SIZE and replicas(spec) > 1  # with fewer engines, each would have more work
        one = "make one engine's part of the step (from-verl, from-trl: --one-engine)"
        planning_of(spec.mode).check_here(spec)
        if spec.endpoint is None and needed > available:
            raise UserError(
                f"config: {mode_spec.replicas_key if several else largest}: a launch of {spec.model.name} needs "
                f"{needed} {'cores' if spec.platform == 'cpu' else 'devices'}, and there are {available} here",
                f"{one if several else f'lower {largest}'}, or plan for the cluster that has them "
                "(--profile profiles/slurm)",
            )


def memory_is_shared_out(spec: Spec, count: int) -> bool:
    """Return whether the memory is known to be enough for `count` engines."""
    args, variables = spec.engine.args, {*spec.engine.environment, *os.environ}
    if args.get("kv_cache_memory_bytes") is not None or "VLLM_CPU_KVCACHE_SPACE" in variables:
        return True
    return count * float(args.get("gpu_memory_utilization") or USUAL_UTILIZATION) < 1
