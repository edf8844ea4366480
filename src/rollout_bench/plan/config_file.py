"""Validate the config that Snakemake merged from files and command line, or raise a two-line error."""

import copy
import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rollout_bench.contracts.axes import DEFAULT_SETTING
from rollout_bench.contracts.fields import LONGEST_NAME, name_made_of, typed
from rollout_bench.contracts.load import DISTRIBUTIONS, LENGTHS
from rollout_bench.contracts.lora import LAYER_NAME
from rollout_bench.contracts.modes import MODES
from rollout_bench.core.errors import UserError, did_you_mean, near_miss, value_text
from rollout_bench.core.model_keys import keys_of
from rollout_bench.core.options import PLATFORMS
from rollout_bench.core.places import CONFIG
from rollout_bench.core.secrets import looks_secret, may_be_secret, of_config, secret_words, without_secrets
from rollout_bench.core.yaml_files import SPACE_AFTER_COLON, flow, read_mapping
from rollout_bench.llmd.profiled import with_profiles
from rollout_bench.plan.checks import ONE_NODE, OTHER_QUANTS, SHORT, check_no_secret, quant_meant
from rollout_bench.plan.config import SECTIONS, Baseline, Config, WorkloadSettings
from rollout_bench.plan.meant import BOUNDS, KEY_OF, hub_name, model_of_the_hub, values_meant
from rollout_bench.plan.quants import known_quants
from rollout_bench.plan.serving import PACING, OnlineLoad

_OTHER_NAMES = {
    **PLATFORMS,
    "e2e": "e2el_s",
    "float8": "float8_e4m3fn",
    "fp8": "float8_e4m3fn",
    "int4": "int32",  # eight of which are packed in one
    "latency": "e2el_s",
    "throughput": "output_tokens_per_s",
    "tok/s": "output_tokens_per_s",
    "tok_per_s": "output_tokens_per_s",
    "tokens/s": "output_tokens_per_s",
    "tokens_per_second": "output_tokens_per_s",
    "tokens_per_s": "output_tokens_per_s",
    "safetensors": "auto",
}
"""Common names of platforms, metrics, data types and formats for which the nearest spelling misleads."""

ENGINE_ARGS = (
    "additional_config",
    "async_scheduling",
    "block_size",
    "compilation_config",
    "cudagraph_capture_sizes",
    "disable_log_stats",
    "distributed_executor_backend",
    "enable_chunked_prefill",
    "enable_expert_parallel",
    "hf_overrides",
    "logprobs_mode",
    "max_cudagraph_capture_size",
    "speculative_config",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "gpu_memory_utilization",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "enforce_eager",
    "enable_prefix_caching",
    "kv_cache_dtype",
    "kv_cache_memory_bytes",
    "load_format",
    "dtype",
    "seed",
    "trust_remote_code",
    "quantization",
)
"""Arguments of vLLM's that are often written where none of ours is known."""

OTHER_KEYS = {
    "api_base": "url",
    "base_url": "url",
    "batch_size": "prompts",
    "best_of": "samples_per_prompt",
    "device": "platform",
    "engines": "replicas",
    "env": "environment",
    **dict.fromkeys(("enable_lora", "lora_modules", "lora_path", "max_loras"), "lora"),
    "goodput": "slo",
    "gpu": "platform",
    **dict.fromkeys(("gpu_count", "gpus", "n_gpus", "ngpus"), "devices"),
    **dict.fromkeys(("group_size", "num_generations", "num_return_sequences", "rollout_n"), "samples_per_prompt"),
    **dict.fromkeys(("input_len", "input_length", "input_tokens", "isl", "prompt_len"), "prompt_tokens"),
    **dict.fromkeys(("max_prompt_length", "random_input_len", "synthetic_input_tokens_mean"), "prompt_tokens"),
    "lora_alpha": "alpha",
    **dict.fromkeys(("dim", "lora_dim", "lora_r", "lora_rank", "max_lora_rank"), "rank"),
    **dict.fromkeys(("max_concurrency", "users"), "concurrency"),
    **dict.fromkeys(("max_response_length", "output_tokens_mean", "random_output_len"), "output_tokens"),
    "max_requests": "requests",
    **dict.fromkeys(("duration", "max_seconds"), "duration_s"),
    **dict.fromkeys(("max_new_tokens", "max_tokens", "osl", "output_len", "output_length"), "output_tokens"),
    **dict.fromkeys(("itl", "itl_ms", "tpot"), "tpot_ms"),
    "ttft": "ttft_ms",
    **dict.fromkeys(("e2e", "e2e_ms", "e2el", "latency_ms"), "e2el_ms"),
    **dict.fromkeys(("max_completion_length", "response_length"), "output_tokens"),
    "prompt_length": "prompt_tokens",
    "max_model_length": "max_model_len",
    "n": "samples_per_prompt",
    "npus": "devices",
    "num_gpus": "devices",
    **dict.fromkeys(("num_iterations", "num_iters"), "iterations"),
    "num_iters_warmup": "warmup_iterations",
    **dict.fromkeys(("batch", "num_prompts"), "prompts"),
    **dict.fromkeys(("num_requests", "request_count"), "requests"),
    "percentile": "attainment",
    **dict.fromkeys(("qps", "rates"), "request_rate"),
    "r": "rank",
    "rate": "request_rate",
    "rps": "request_rate",
    **dict.fromkeys(("repeat", "repetitions", "runs"), "launches"),
    "samples": "samples_per_prompt",
    "target": "url",
    "target_modules": "targets",
    "train_batch_size": "prompts",
    "vllm_args": "engine_args",
    **{f"vllm_{name}": name for name in ENGINE_ARGS},  # as TRL names them
    "vllm_max_model_length": "max_model_len",
    **dict.fromkeys(("num_warmups", "warmup"), "warmup_iterations"),
    **BOUNDS,
    **SHORT,
}
"""Common names of keys whose nearest spelling misleads."""

_IS_MERGED = "leave it out, or measure the model without lora, whose speed merged weights have"

OF_PEFT = {
    **dict.fromkeys(
        ("adapter_type", "lora_type", "peft_type", "type", "use_dora"),
        ("only plain LoRA is measured: vLLM loads no DoRA and no other kind of adapter", _IS_MERGED),
    ),
    **dict.fromkeys(
        ("bias", "lora_bias", "modules_to_save", "trainable_token_indices"),
        ("vLLM loads no adapter with biases or whole layers", _IS_MERGED),
    ),
    **dict.fromkeys(
        ("alpha_pattern", "exclude_modules", "layers_to_transform", "rank_pattern", "target_parameters"),
        ("an adapter here has one rank, for all layers of a name", "write those names in targets"),
    ),
    **dict.fromkeys(
        ("dropout", "init_lora_weights", "lora_dropout", "task_type", "use_rslora"),
        ("changes no work of an engine", "leave it out"),
    ),
}
"""PEFT's names of an adapter's settings that `lora` lacks -> problem, and remedy."""


_NAMES = re.compile(r"""[^][()'",; ]+""")
"""Names in a text that should be a list of them."""

NAMED = {
    "endpoints": "",
    "model_settings": "models",
    "quant_settings": "quants",
    "setting_settings": "settings",
    "workload_settings": "workloads",
}
"""Mappings with names of the user's -> the key that selects some."""

_PLACES = ("checkpoint", "folder", "hub", "model", "path", "repo")
"""What others call the place of a model's weights."""

_PARAMETERS = ("data", "sampling", "sampling_params")
"""What others call a mapping with the lengths of a workload, or how its tokens are sampled."""

PROFILES: dict[str, dict[str, Any]] = {
    "async": {"request_rate": [1, 2, 4, 8]},
    "concurrent": {"concurrency": [1, 2, 4, 8]},
    "constant": {"request_rate": [1, 2, 4, 8]},
    "poisson": {"request_rate": [1, 2, 4, 8]},
    "sweep": {"request_rate": [1, 2, 4, 8]},
    "synchronous": {"concurrency": 1},
    "throughput": {"request_rate": "inf"},
}
"""Profiles of guidellm -> loads as they are written here."""

RESULTS_FOLDERS = ("out", "output", "output_dir", "result", "results", "results_dir")
_FILES = ("base", "configfile", "configfiles", "defaults", "extends", "import", "imports", "include", "includes")
"""Keys and options of other programs that name the folder of the results; keys that name more files."""

OF_TRAINERS = {
    **dict.fromkeys(("actor_rollout_ref", "algorithm", "critic", "reward_model", "trainer"), "verl"),
    **dict.fromkeys(("model_name_or_path", "per_device_train_batch_size", "use_vllm"), "trl"),
}
"""Keys at the top of a trainer's file -> the trainer."""

RESULTS_ELSEWHERE = (
    "leave it out: results lie in results/ beside config.yaml; for others work in another folder, with a config.yaml"
)
"""Remedy for a name of the folder of the results."""

_AT_THE_TOP = {
    "api_key": "name its variable: endpoints: {<name>: {api_key_env: ...}}; a config must not contain keys",
    **dict.fromkeys(("env", "environment"), "write it below engine: engine: {environment: {NAME: value}}"),
    **dict.fromkeys(("dir", "directory", "folder", *RESULTS_FOLDERS), RESULTS_ELSEWHERE),
    **dict.fromkeys(_FILES, "leave it out, and name the files in the call: --configfile FIRST.yaml SECOND.yaml"),
    **{
        key: f"a file of a trainer's: `rollout-bench from-{trainer} FILE` makes a config of it"
        for key, trainer in OF_TRAINERS.items()
    },
}
"""Unknown keys at the top of a config -> the remedy, whatever their value."""

_SAMPLING = "leave it out: of sampling, temperature, top_p and top_k are measured"
_ENDS = "leave it out: an answer ends after output_tokens, since ignore_eos is true"

NOT_MEASURED = {
    **dict.fromkeys(("frequency_penalty", "logit_bias", "min_p", "presence_penalty", "repetition_penalty"), _SAMPLING),
    **dict.fromkeys(("guided_decoding", "structured_outputs"), "leave it out: free text is measured"),
    **dict.fromkeys(("min_tokens", "stop", "stop_token_ids"), _ENDS),
    **dict.fromkeys(("nnodes", "nodes", "num_nodes"), ONE_NODE),
}
"""Keys of others that no config has -> the remedy."""


def check_folder(folder: Path) -> None:
    """Check that a folder of the workflow is a folder, if it exists.

    Raises:
        UserError: it is a file or a broken link.
    """
    if folder.is_symlink() and not folder.exists():
        raise UserError(
            f"{folder}: is a link to {folder.readlink()}, which does not exist",
            "make that folder (is its disk mounted?), or move the link away",
        )
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file, but the workflow needs a folder with this name", "move it away")


def check_metadata(folder: Path) -> None:
    """Check for damaged files on which Snakemake would end with a traceback.

    Raises:
        UserError: a file is damaged.
    """
    for path in folder.glob("*"):
        try:
            if path.is_file():
                path.read_bytes().decode()
        except OSError:  # removed meanwhile by another run
            continue
        except UnicodeDecodeError:
            remedy = (
                f"move {folder} away: Snakemake's notes on how files were made; results stay, nothing is measured again"
            )
            raise UserError(f"{path}: is damaged", remedy) from None


def check_config_file(path: Path) -> None:
    """Check that `path` is YAML with keys at its top, so that Snakemake can read it.

    Raises:
        UserError: it is not such YAML; the message names the file and, for a syntax error, line and column.
    """
    if path.suffix in (".sh", ".bash", ".slurm"):
        remedy = f"make a config of it: rollout-bench from-verl {path} > mine.yaml, or from-trl"
        raise UserError(f"{path}: is a script, not a config", remedy)
    if path.is_file() and not path.stat().st_size:  # as `COMMAND > FILE` leaves it
        problem = f"{path}: is empty: the command that should have written it failed"
        raise UserError(problem, "run that command again without `>` to see its message")
    others = (path.with_suffix(".yml"), Path("config") / path) if path == CONFIG else ()
    elsewhere = [other for other in others if other.exists()]
    content = read_mapping(
        path,
        "config",
        "mend the file: keys of one level start in one column, and a colon with a space follows each; `rollout-bench "
        "keys` lists them",
        f"write --configfile {elsewhere[0]}"
        if elsewhere
        else "`rollout-bench init` writes one; or name another with --configfile. `rollout-bench keys` lists the keys",
        " (models: ..., quants: ...)",
    )
    if "__use_yte__" in content:  # Snakemake would run Python code in such a file
        raise UserError(
            f"{path}: __use_yte__: a config contains only values, no code",
            "leave __use_yte__ out, and write the values",
        )
    for name, value in content.items():
        check_selection(f"{path}: ", name, value)


def check_selection(where: str, name: str, value: Any) -> None:
    """Refuse an empty mapping as a selection: Snakemake merges it over the default's list by keeping the list.

    Raises:
        UserError: `value` of the key `name` is one; the message begins with `where`.
    """
    if value == {} and name in ("models", "quants", "modes", "workloads"):
        raise UserError(f"{where}{name}: is empty", f"leave it out, or name what to measure: {name}: [...]")
    if value == {} and name == "sweep" and where == "--config ":  # Snakemake merges it into that of the files
        raise UserError("--config sweep: is empty, and changes nothing", "write sweep=null for no sweep")


def with_null(merged: Mapping[str, Any], command_line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the merged config with None where the command line has null, which Snakemake leaves as text.

    A variable of the environment keeps it, as any text.
    """
    found = dict(merged)
    for key, value in command_line.items():
        if isinstance(value, Mapping) and isinstance(found.get(key), Mapping) and key != "environment":
            found[key] = with_null(found[key], value)
        elif isinstance(value, list):
            found[key] = [None if one == "null" else one for one in value]
        elif value == "null":
            found[key] = None
    return found


def read_config(merged: Mapping[str, Any], command_line: Mapping[str, Any] | None = None) -> Config:
    """Validate the merged config.

    Args:
        merged: the config.
        command_line: the part of it from the command line.

    Raises:
        UserError: a value is invalid; the message has the key's dotted path, and a suggestion for an unknown key.
    """
    # before any other check, so that no message repeats a secret; endpoints have a separate check
    elsewhere = {key: value for key, value in merged.items() if key != "endpoints"}
    check_no_secret("", elsewhere, lambda _, value: looks_secret(value))
    read = with_profiles(with_null(merged, command_line or {}), command_line)
    if "sweep" in read and read["sweep"] is None:
        read["sweep"] = {}
    try:
        config = Config.model_validate(read)
    except ValidationError as error:
        found = _most_telling(error.errors())
        raise _of_profile(found, read, merged) or _as_user_error(found, read) from None
    # One quantization has no other to be compared with, so its settings are, unless they change the load.
    selected = [DEFAULT_SETTING, *config.sweep] if config.settings is None else config.settings
    changes_load = WorkloadSettings.model_fields.keys() & {key.removeprefix("workload.") for key in config.sweep}
    if len(config.quants) == 1 and len(selected) > 1 and DEFAULT_SETTING in selected and not changes_load:
        named = {**config.baseline.axes, "quant": None}
        config = config.model_copy(update={"baseline": Baseline(**{"setting": DEFAULT_SETTING, **named})})
    return config


def _of_profile(error: ErrorDetails, read: Mapping[str, Any], written: Mapping[str, Any]) -> UserError | None:
    """Return the error for a value that a profile sets and the user did not write; None for other values."""
    place = _without_tags(error["loc"])
    profile = at_place(read, (*place[:2], "profile"))
    is_written = at_place(written, place) is not None or place[2:3] == ("profile",)
    if place[:1] != ("workload_settings",) or not isinstance(profile, Mapping) or is_written:
        return None
    problem = f"{_as_user_error(error).problem}, from profile {profile['path']}"
    return UserError(problem, "correct what it comes from, there or in overrides (prompts may be rate x duration)")


def at_place(content: Any, place: Sequence[Any]) -> Any:
    """Return what `content` has at a path of keys; None if there is nothing."""
    for part in place:
        content = content.get(part) if isinstance(content, Mapping) else None
    return content


def name_after(files: Sequence[Path]) -> str:
    """Return the name of a config from `files`, which are merged over the default one.

    The name does not depend on the folders of the files; without files it is `default`.
    """
    joined = re.sub(r"[^\w.+-]+", "-", "+".join(file.stem for file in files))
    return joined.lstrip("+.-")[:60] or "default"


def as_user_error(errors: list[ErrorDetails], place: tuple[str, ...] = ()) -> UserError:
    """Return the error for a part of a config that does not validate; `place` is its path in the config."""
    found = _most_telling(errors)
    return _as_user_error({**found, "loc": (*place, *found["loc"])})


def _most_telling(errors: list[ErrorDetails]) -> ErrorDetails:
    # an unknown key explains a missing one, so it is reported first; before it, one that says what the file is
    unknown = [e for e in errors if e["type"] == "extra_forbidden"]
    of_trainers = [e for e in unknown if e["loc"][:1] == e["loc"] and e["loc"][0] in OF_TRAINERS]
    return (of_trainers or unknown or errors)[0]


def _is_accepted(read: Mapping[str, Any], place: tuple[int | str, ...], value: Any) -> bool:
    """Return whether the config `read` has no error at `place` if `value` stands there."""
    changed = copy.deepcopy(dict(read))
    inner: Any = changed
    for part in place[:-1]:
        inner = inner[part]
    inner[place[-1]] = value
    try:
        Config.model_validate(changed)
    except ValidationError as error:
        return all(_without_tags(found["loc"])[: len(place)] != place for found in error.errors())
    return True


def _meant(error: ErrorDetails, read: Mapping[str, Any]) -> str | None:
    """Return the remedy that names the value that is meant; None if no accepted one is known."""
    place = _without_tags(error["loc"])
    if place[:1] in (("launches",), ("iterations",)):
        place = place[:1]
    value, holder = at_place(read, place), at_place(read, place[:-1])
    if not place or "[key]" in place or isinstance(place[-1], int) or not isinstance(holder, Mapping):
        return None
    if {"headers", "environment", "secrets", "api_key_env"} & set(place):  # where a secret may stand
        return None
    for meant in values_meant(place[-1], value, read):
        if meant != value and not without_secrets(meant, of_config)[1] and _is_accepted(read, place, meant):
            shown = json.dumps(meant, ensure_ascii=False) if isinstance(meant, str | None) else flow(meant)
            which = "; CUDA_VISIBLE_DEVICES of your shell says which" if place[-1] == "devices" and meant else ""
            return f"write {place[-1]}: {shown}{which}"
    return None


def _as_user_error(error: ErrorDetails, read: Mapping[str, Any] | None = None) -> UserError:
    found = _of_error(error)
    if read is not None and isinstance(names := read.get("workloads"), list) and names:
        named_load = found.remedy.replace("workload_settings: {<name>:", f"workload_settings: {{{names[0]}:")
        found = UserError(found.problem, named_load)
    if read is not None and (named := _of_unnamed(error, read) or _of_a_name(error, read) or _of_mean(error, read)):
        return UserError(found.problem, named)
    # a remedy that says no more than what the key takes
    is_vague = "takes: " in found.remedy or "baseline" in error["loc"] or error["type"] == "union_tag_invalid"
    meant = _meant(error, read) if read is not None and is_vague else None
    return UserError(found.problem, meant) if meant else found


def _of_mean(error: ErrorDetails, read: Mapping[str, Any]) -> str | None:
    """Return the remedy for log-normal lengths that are given by their mean; None for other errors.

    With s^2 = ln(1 + (std / mean)^2) the median is mean * exp(-s^2 / 2): Johnson, Kotz, Balakrishnan, Continuous
    Univariate Distributions 1, chapter 14.
    """
    place = _without_tags(error["loc"])
    held = at_place(read, place[:-1])
    if not isinstance(held, Mapping) or held.get("distribution") != "lognormal" or "mean" not in held:
        return None
    mean, std, sigma = (typed(held.get(key)) for key in ("mean", "std", "sigma"))
    if isinstance(std, int | float) and isinstance(mean, int | float) and mean > 0:
        sigma = math.sqrt(math.log1p((std / mean) ** 2))
    if not isinstance(sigma, int | float) or not isinstance(mean, int | float):
        return "add std, the standard deviation, so that median and sigma can be computed"
    others = {key: value for key, value in held.items() if key not in ("mean", "std")}
    found = {"median": round(mean * math.exp(-(sigma**2) / 2), 1), "sigma": round(sigma, 4)}
    return f"write {place[-2]}: {flow({**others, **found})}"


def _of_unnamed(error: ErrorDetails, read: Mapping[str, Any]) -> str | None:
    """Return the remedy for keys that lack the name above them, as in endpoints: {url: ...}; None for other errors."""
    section, *below = map(str, _without_tags(error["loc"]))
    held = read.get(section)
    if section not in NAMED:
        return None
    selected, known = read.get(NAMED[section]), _keys_below(section)
    name = str(selected[0]) if isinstance(selected, list) and selected else "mine"
    if isinstance(held, list):
        return _of_listed(section, held, name)
    if not below or not isinstance(held, Mapping):
        return None
    inner = {key: value for key, value in held.items() if key in known}
    if below[0] not in inner or not _is_accepted(
        {**read, section: {key: value for key, value in held.items() if key not in known}}, (section, name), inner
    ):
        return None
    return f"a name stands above them: write {section}: {flow({name: _shown(inner)})}"


def _keys_below(section: str) -> set[str]:
    """Return the keys of an entry of `section`, which has names of the user's."""
    return {*Config.model_fields, "workload"} if section == "setting_settings" else {*_known_keys((section,))}


def _shown(content: Mapping[str, Any]) -> Mapping[str, Any]:
    return dict.fromkeys(content, "...") if without_secrets(content, of_config)[1] else content


def _of_listed(section: str, held: list[Any], name: str) -> str | None:
    """Return the remedy for a list where the mapping `section` belongs; `name` is one that the user may have meant."""
    if all(isinstance(one, Mapping) for one in held):
        merged = _shown({key: value for one in held for key, value in one.items()})
        return f"write {section}: {flow({name: merged} if merged.keys() <= _keys_below(section) else merged)}"
    if section == "endpoints":
        return f"write endpoints: {{mine: {{url: '{held[0]}', model: ...}}}}"
    return f"names are selected by {NAMED[section]}: {flow(held)}; here write {section}: {{{held[0]}: {{KEY: VALUE}}}}"


def _of_a_name(error: ErrorDetails, read: Mapping[str, Any]) -> str | None:
    """Return the remedy for a number, true or false in a selection; None for other errors."""
    place, value = _without_tags(error["loc"]), error.get("input")
    if error["type"] != "string_type" or len(place) != 2 or not isinstance(place[1], int):
        return None
    sections = {selection: section for section, selection in NAMED.items()}
    defined = read.get(sections.get(str(place[0]), ""))
    known = {*(defined if isinstance(defined, Mapping) else ()), *(known_quants({}) if place[0] == "quants" else ())}
    if place[0] == "modes":
        known = {*MODES}
    return f"quote it: '{value}'" if str(value) in known or not known else did_you_mean(str(value), map(str, known))


def _of_sweep(place: tuple[int | str, ...], where: str, value: Any) -> tuple[str, str] | None:
    """Return problem and remedy of a mapping or a list in a sweep where the other belongs; None if it is neither."""
    if isinstance(value, dict) and len(place) == 2:
        lists = {f"{place[1]}.{key}": inner if isinstance(inner, list) else [inner] for key, inner in value.items()}
        below = f"below workload_settings.<name>: online: {flow(value)}" if place[1] == "online" else ""
        return f"{where}: is a mapping, but a list of values is needed", f"write {below or f'sweep: {flow(lists)}'}"
    if isinstance(value, list) and value and len(place) == 1:
        lists = {key: inner for one in value if isinstance(one, dict) for key, inner in one.items()}
        names = [str(one) for one in value if isinstance(typed(one), str)]
        numbers = [one for one in map(typed, value) if isinstance(one, int | float)]
        lists |= dict.fromkeys(names, numbers if numbers and len(names) == 1 else ["VALUE", "VALUE"])
        return f"{where}: is a list, but the values of each key are needed", f"write sweep: {flow(lists)}"
    return None


def _of_error(error: ErrorDetails) -> UserError:
    place, kind, value = error["loc"], error["type"], error.get("input")
    # Without the alternatives of the value's type.
    parts = place[:1] if place[:1] in (("launches",), ("iterations",)) else _without_tags(place)
    where = ".".join(str(part) for part in parts if part != "[key]") or "config"
    reference = _accepted_values_text(parts)
    if glued := re.match(r"[^,=\[{]*,\s*([a-z_]+)=", value) if isinstance(value, str) else None:
        apart = str(value).replace(",", " ") if glued[1] in Config.model_fields else ""
        reference = f"write keys apart: --config {parts[0]}={apart}" if apart else reference
    problem, remedy = (
        _of_key(error, where, reference)
        or _of_choice(error, where, parts)
        or (_of_mapping(error, where, reference) if kind in ("model_type", "dict_type", "list_type") else None)
        or _of_value(error, where, parts, reference)
    )
    return UserError(f"config: {problem}", remedy)


def _of_key(error: ErrorDetails, where: str, reference: str) -> tuple[str, str] | None:
    """Return problem and remedy of a key or name that can't be one; None if another thing is wrong."""
    place, kind, value = error["loc"], error["type"], error.get("input")
    if kind == "extra_forbidden" and place[-2:-1] == ("lora",) and place[-1] in OF_PEFT:
        problem, remedy = OF_PEFT[str(place[-1])]
        return f"{where}: {problem}", remedy
    if kind == "extra_forbidden":
        return f"{where}: there is no such key", _instead(place, value)
    if kind == "missing":
        needed = "set it in config.yaml, or in another --configfile"
        shown = f"write it: {reference}" if reference.startswith(f"{where} ") else f"write {place[-1]}: VALUE"
        return f"{where}: is missing", needed if len(place) == 1 else shown
    if kind == "union_tag_invalid":
        tag = error.get("ctx", {}).get("tag")
        problem = f"{value_text(tag)} is not known" if tag else "is missing"
        return f"{where}.distribution: {problem}", did_you_mean(str(tag), DISTRIBUTIONS)
    if place[-1:] == ("api_key_env",):
        return (
            f"{where}: is not the name of an environment variable",
            "put the key into a variable and write the variable's name: a config must not contain keys",
        )
    if kind == "string_pattern_mismatch" and place[-1:] == ("[key]",) and "environment" in place:
        return f"{where} is not a variable name", "use letters, digits and '_', no digit first"
    if kind == "string_pattern_mismatch" and "targets" in place:
        last = str(value).rpartition(".")[2]
        meant = f"write '{last}'" if re.fullmatch(LAYER_NAME, last) else "write names such as q_proj"
        return f"{where}: {value_text(value)} is not the last part of a layer's name", meant
    if kind in ("string_pattern_mismatch", "string_too_long"):
        return f"{where}: {value_text(value)} can't be a name", _name_instead(place, str(value))
    return None


def _of_choice(error: ErrorDetails, where: str, parts: Sequence[int | str]) -> tuple[str, str] | None:
    """Return problem and remedy of a list where one value belongs, or of an unknown choice; None if it is neither."""
    kind, value = error["type"], error.get("input")
    is_workload = parts[:1] == ("workload_settings",) and len(parts) == 3
    is_swept = is_workload or set(parts[-2:-1]) & {"lora", *SECTIONS}
    takes_one = kind.endswith(("_type", "literal_error")) and is_swept
    if parts in [(name,) for name in ("lora", *SECTIONS)] and kind == "model_type":
        parts, takes_one = (*parts, KEY_OF.get(str(parts[0]), "KEY")), True
    if takes_one and isinstance(value, list) and value and not any(isinstance(one, list | dict) for one in value):
        key = parts[-1] if is_workload else ".".join(map(str, parts[-2:]))
        return f"{where}: is a list, but takes a single value", f"write sweep: {flow({key: value})}"
    if kind == "literal_error":
        meant = _OTHER_NAMES.get(str(value), str(value))
        return f"{where}: {value_text(value)} is not known", did_you_mean(meant, _choices(error))
    return None


def _of_mapping(error: ErrorDetails, where: str, reference: str) -> tuple[str, str] | None:
    """Return problem and remedy of a value that should be a mapping, or a list of names; None if it is another one."""
    place, kind, value = error["loc"], error["type"], error.get("input")
    problem = f"{where}: {'null' if value is None else value_text(value)} is no mapping"
    if place[:1] == ("sweep",):
        return _of_sweep(place, where, value)
    if kind == "dict_type" and {"environment", "headers"} & set(place):
        return f"{where}: is no mapping", f"write {place[-1]}: {{NAME: 'value'}}"
    if named := _of_one_word(place, value):
        return problem, named
    if kind == "list_type":
        if not isinstance(value, dict) or place[0] not in NAMED.values():
            return None
        names = ", ".join([*([DEFAULT_SETTING] if place[0] == "settings" else []), *map(str, value)])
        return (
            f"{where}: is a list of names",
            f"write their values below {str(place[0])[:-1]}_settings, and their names here: {where}: [{names}]",
        )
    if str(value).startswith(("http://", "https://")):
        return problem, f"write {{url: '{value}', model: ...}}"
    if re.match(r"[\w.-]+:\S", str(value)):
        return problem, SPACE_AFTER_COLON
    if kind == "dict_type":
        return None
    short = "write HARNESS/NAME of a profile of llm-d-benchmark, or " if place == ("profile",) else ""
    return problem, f"{short}write keys below it, or leave it out: {reference}"


def _of_one_word(place: tuple[int | str, ...], value: Any) -> str:
    """Return the remedy for a text where an entry of models, quantizations or the baseline belongs; else nothing."""
    if place[:-1] == ("quant_settings",) and isinstance(value, str) and value in known_quants({}):
        return f"a known quantization needs none: write quants: {flow(list(dict.fromkeys(['bf16', value])))}"
    if place[:-1] == ("model_settings",) and isinstance(value, str):
        return f"write {place[-1]}: {{{_weights(value)}}}"
    if place[-1:] == ("weights",) and isinstance(value, str):
        return f"name the quantization that they are: weights: {{bf16: '{value}'}}"
    if place[:1] == ("workload_settings",) and place[-1] == "profile" and str(value) in PROFILES:
        return f"write online: {flow(PROFILES[str(value)])}"
    if place == ("baseline",) and isinstance(value, str | None):
        return "leave it out for bf16, or name what is measured: baseline: {quant: ...}, or model, workload, setting"
    return ""


def _of_value(error: ErrorDetails, where: str, parts: Sequence[int | str], reference: str) -> tuple[str, str]:
    """Return problem and remedy of any other value."""
    kind, value = error["type"], error.get("input")
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if kind == "string_type" and isinstance(value, int | float):
        kind = "true or false to YAML" if isinstance(value, bool) else "a number"
        problem = f"{where}: {value_text(value)} is {kind}, but text is needed"
        return problem, f"quote it: '{value}'" if isinstance(parts[-1], int) else f"quote it: {parts[-1]}: '{value}'"
    if kind == "string_too_short":
        return f"{where}: is empty", reference
    if kind == "value_error" and message.startswith("is the single value"):
        names = (name.lstrip("-") for name in _NAMES.findall(str(value)))  # "-bf16" is an item without its space
        return f"{where}: {message}", f"write {parts[-1]}: [{','.join(names)}]"
    if kind == "value_error" and (
        sentence := re.fullmatch(r"(.+?)[:;] ((?:did you mean|end|keep|known:|put|set|use|write) .+)", message)
    ):
        return f"{where}: {sentence[1]}", sentence[2]
    if kind == "value_error":
        auto = where in ("launches", "interleave") and near_miss(str(value), ["auto"])
        return f"{where}: {message}", did_you_mean(str(value), ["auto"]) if auto else reference
    is_secret = "headers" in parts or (parts[:2] == ("engine", "environment") and secret_words(str(parts[-1])))
    shown = "what stands there" if is_secret or without_secrets(value, of_config)[1] else value_text(value)
    return f"{where}: {shown} {message}", reference


def _accepted_values_text(parts: Sequence[int | str]) -> str:
    """Return what the key at `parts`, or the nearest documented key above it, takes."""
    documented = [(key.path.replace("[]", "").split("."), key) for key in keys_of(Config)]
    for end in range(len(parts), 0, -1):
        for path, key in documented:
            if len(path) == end and all(has in (part, "<name>") for has, part in zip(path, parts, strict=False)):
                default = f"; default: {key.default}" if 0 < len(key.default) < 40 and key.default != "required" else ""
                return f"{'.'.join(map(str, parts[:end]))} takes: {key.takes}{default}"
    return "`rollout-bench keys` lists the keys"


def _name_instead(place: tuple[int | str, ...], value: str) -> str:
    """Return the remedy for `value` that can't be a name."""
    if isinstance(place[-1], int) and re.search(r"[;|]", value):
        return f"separate names by commas: {', '.join(re.split(r'[;|, ]+', value))}"
    if isinstance(place[-1], int) and " -" in value:  # "- bf16" and "-w8a8" below it are one item to YAML
        return f"write a space after the dash: - {value.rpartition(' -')[2]}"
    if isinstance(place[-1], int) and re.fullmatch(r"[\w.+-]+( [\w.+-]+)+", value):
        return f"a comma is missing: write {', '.join(value.split())}"
    if not isinstance(place[-1], int) and re.match(r"[\w.-]+:\S", value):
        return SPACE_AFTER_COLON
    if place[:1] == ("quants",) and value in OTHER_QUANTS:
        return quant_meant(value)
    name = name_made_of(value)
    form = "letters, digits, '.', '+' and '-', the first a letter or digit: it becomes part of a path"
    if not name:
        return f"use up to {LONGEST_NAME} {form}"
    on_hub = model_of_the_hub(value)
    if on_hub and place[:1] in (("models",), ("model_settings",), ("quants",)):
        return f"{'a quantization is no model: ' if place[0] == 'quants' else ''}{on_hub}"
    if value.startswith(("/", "~")) and place[:1] in (("models",), ("model_settings",)):
        return f"write models: [{name}] and model_settings: {{{name}: {{weights: {{bf16: '{value}'}}}}}}"
    return f"write '{name}': a name has up to {LONGEST_NAME} {form}"


def _weights(text: str, is_on_hub: bool = False) -> str:
    """Return the weights of a model as a config has them; `text` is their folder, or on the hub."""
    on_hub = hub_name(text) if is_on_hub or text.startswith(("hf:", "http", "hub:", "huggingface:")) else None
    return f"weights: {flow({'bf16': f'hub:{on_hub}' if on_hub else text})}"


def _at_the_top(key: str, value: Any) -> str:
    """Return the remedy for an unknown key at the top of a config, if it is none of a workload; else nothing."""
    is_secret = secret_words(key) and may_be_secret(key, str(value))
    if remedy := _AT_THE_TOP.get("api_key" if is_secret else key):
        return remedy
    if key in _PARAMETERS and (load := load_in(value)):
        return f"write it below workload_settings: workload_settings: {{<name>: {flow(load)}}}"
    if key in ("model", "mode", "setting", "workload") and isinstance(value, str):
        return f"write {key}s: [{value}]"
    if key in ("quantization", "quant") and isinstance(value, str):
        return f"write quants: [{', '.join(dict.fromkeys(['bf16', value]))}]"
    if OTHER_KEYS.get(key) in Config.model_fields:
        return f"did you mean '{OTHER_KEYS[key]}'?"
    if isinstance(value, Mapping) and value:
        if value.keys() & {"models", "modes", "platform", "quants", "workloads"}:  # which no section has
            return f"put its keys at the top level: leave the line {key}: out, and begin each key in the first column"
        for section in ("workload_settings", "model_settings", "endpoints", "quant_settings", "setting_settings"):
            if value.keys() <= _keys_below(section):
                return f"write it below {section}: {section}: {flow({key: _shown(value)})}"
    key = OTHER_KEYS.get(key, key)
    named = [one.path for one in keys_of(Config) if one.path.rpartition(".")[2] == key and "[]" not in one.path]
    paths = [path for path in named if path.partition(".")[0] not in ("model_settings", "setting_settings")] or named
    if len(paths) != 1 or paths[0].startswith("workload_settings"):
        return ""
    above = paths[0].split(".")[:-1]
    return f"write it below {'.'.join(above)}: {': {'.join([*above, key])}: ...{'}' * len(above)}"


def _instead(location: tuple[int | str, ...], value: Any) -> str:
    """Return the remedy for an unknown key at `location`, which has `value`."""
    if location[:-1] == () and (remedy := _at_the_top(str(location[0]), value)):
        return remedy
    key = str(location[-1])
    known = _known_keys(location[:-1])
    other = OTHER_KEYS.get(key.replace("-", "_"), key)
    is_load = location[0] == "workload_settings" and other in OnlineLoad.model_fields
    key = other if location[:-1] == () or other in known or is_load else key
    if ":" in key:
        return SPACE_AFTER_COLON
    if "=" in key:
        return f"write {key.replace('=', ': ', 1)}"
    if remedy := _of_others(location[:-1], key, value):
        return remedy
    if location[0] == "endpoints" and secret_words(key):
        return "did you mean 'api_key_env'? It names an environment variable: a config must not contain keys"
    if location[-2:-1] != ("online",) and key in ("online", *OnlineLoad.model_fields):
        inner = {key: typed(value)} if key == "online" else {"online": {key: typed(value)}}
        return f"write it below workload_settings: workload_settings: {{<name>: {flow(inner)}}}"
    if key in ENGINE_ARGS and key not in known:
        return f"it is an argument of vLLM: write it below engine_args: engine_args: {{{key}: ...}}"
    if (location[0] == "rollout" or len(location) == 1) and other in WorkloadSettings.model_fields:
        return f"write it below workload_settings: workload_settings: {{<name>: {flow({other: typed(value)})}}}"
    sections = [one.settings for one in MODES.values() if one.settings and key in _known_keys((one.settings,))]
    if location[:-1] == () and sections:
        return f"write it below {' or '.join(sections)}{', or did you mean iterations?' if key == 'repeats' else ''}"
    if location[-2:-1] and str(location[-2]) in DISTRIBUTIONS:
        return did_you_mean(key, LENGTHS[str(location[-2])].model_fields)
    # overrides are at the top beside profile: HARNESS/NAME, and are removed before validation
    return did_you_mean(key, [*known, *(["overrides"] if len(location) == 1 else [])])


def _of_others(place: tuple[int | str, ...], key: str, value: Any) -> str:
    """Return the remedy for a `key` at `place` whose nearest spelling misleads; nothing for others."""
    if key in NOT_MEASURED or key in OF_TRAINERS:
        return NOT_MEASURED.get(key) or _AT_THE_TOP[key]
    if place[:-1] == ("model_settings",) and key in _PLACES and isinstance(value, str):
        return f"write {_weights(value, is_on_hub=key in ('hub', 'repo'))}"
    if place[:1] == ("workload_settings",) and len(place) == 2 and key in _PARAMETERS and (load := load_in(value)):
        return f"write {place[-1]}: {flow(load)}"
    if place == ("comparison",) and key in MODES:
        return f"write comparison: {{metrics: {flow({key: value})}}}"
    return "did you mean 'quant'?" if place == ("baseline",) and key == "quantization" else ""


def load_in(value: Any) -> Mapping[str, Any]:
    """Return the keys of a workload that `value` has by the names of others, as a mapping or name=number,...."""
    if isinstance(value, str) and value.startswith("{"):
        with suppress(yaml.YAMLError):
            value = yaml.safe_load(value)
    if isinstance(value, str):
        value = {name: int(number) for name, number in re.findall(r"(\w+)[=:](\d+)(?![^,; ])", value)}
    found = value.items() if isinstance(value, Mapping) else ()
    named = {OTHER_KEYS.get(str(key), str(key)): inner for key, inner in found}
    return {key: typed(inner) for key, inner in named.items() if key in WorkloadSettings.model_fields}


def _without_tags(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Return `location` without pydantic's tags: the kind of a length, and the tried type of a union."""
    return tuple(
        part
        for place, part in enumerate(location)
        if part != "constrained-float"
        and not (part in ("one", "several") and location[place - 1] in (*PACING, "targets"))
        and not (
            part in ("fixed", *DISTRIBUTIONS)
            and place
            and str(location[place - 1]).endswith(("_tokens", "_ms", "count"))
        )
    )


def _choices(error: ErrorDetails) -> list[str]:
    expected = str(error.get("ctx", {}).get("expected", ""))
    return [word.strip("' ") for word in expected.replace(" or ", ", ").split(",") if word.strip()]


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """Return the keys of the model at `location`, from `Config` down; names of mappings and indices are passed over."""
    models: list[type[BaseModel]] = [Config]
    for part in location:
        fields = [model.model_fields[str(part)] for model in models if part in model.model_fields]
        models = [found for field in fields for found in models_in(field.annotation)] or models
    return [key for model in models for key in model.model_fields]


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the models in the type of a field."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in get_args(annotation) for found in models_in(inner)]
