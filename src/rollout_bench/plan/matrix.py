"""The matrix: models x quants x modes x workloads, expanded into experiments and skipped combinations."""

import hashlib
import itertools
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rollout_bench.checkpoints.formats import BUILDER_VERSION, check_format
from rollout_bench.contracts.axes import DEFAULT_SETTING, with_setting
from rollout_bench.contracts.fields import AUTO, flat
from rollout_bench.contracts.load import ENDPOINT_VOCABULARY, longest
from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.spec import (
    MEASUREMENT_VERSION,
    EngineSpec,
    ModelSpec,
    Platform,
    QuantSpec,
    Spec,
    replicas,
    uncompared,
)
from rollout_bench.core.errors import UnmeasurableError, UserError, printable
from rollout_bench.core.mappings import grouped
from rollout_bench.core.numbers import first_few
from rollout_bench.core.processor import emulates_bf16
from rollout_bench.plan.checks import (
    GRAPH_SIZES,
    SIZE,
    check_data_parallel,
    check_effects,
    check_engine_args,
    check_experts,
    check_heads,
    check_lengths,
    check_lora,
    check_model_base,
    check_model_base_can_be_written,
    check_names,
    check_no_secrets,
    check_variables,
    check_weights_format,
    engine_args_in,
)
from rollout_bench.plan.config import Config, ModelSettings
from rollout_bench.plan.engine import InstalledEngine
from rollout_bench.plan.load_checks import CheckedLoad, check_tokenizer, checked_load
from rollout_bench.plan.planfile import Skipped
from rollout_bench.plan.planning import planning_of
from rollout_bench.plan.quants import (
    NOT_SET,
    Quant,
    check_cache,
    check_dtype,
    confounders,
    confounders_text,
    resolve_quant,
    sizes_set,
    unknown_quant,
)
from rollout_bench.plan.serving import Endpoint
from rollout_bench.plan.serving_checks import (
    check_can_be_sent,
    check_online,
    endpoint_cells,
    endpoint_parts,
    load_spec,
    measuring_of,
    with_loads,
)
from rollout_bench.plan.settings import idle_lines, resolved, under_setting

DEFAULT_ARGS: dict[str, Any] = {"enable_prefix_caching": True, "seed": 0}
"""Set explicitly although vLLM's defaults are the same, since results depend on them."""


def automatic_model(platform: Platform) -> str:
    """Return the model of `models: auto`: one that two cores of this machine measure in minutes."""
    return "qwen3-12m" if platform == "cpu" and emulates_bf16() else "qwen3-90m"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint to build.

    Attributes:
        shape: the full shape of the model.
        weights_format: its layout.
        config_only: whether only the config is needed, because dummy weights are loaded.
        folder: folder of the checkpoint, below model_base.
    """

    shape: dict[str, Any]
    weights_format: str
    config_only: bool
    folder: str

    @property
    def arguments(self) -> list[str]:
        """Arguments of `rollout-bench build` for this checkpoint."""
        config_only = ["--config-only"] if self.config_only else []
        return ["--shape", json.dumps(self.shape), "--format", self.weights_format, *config_only]


@dataclass(frozen=True)
class Experiment:
    """One cell of the matrix.

    Attributes:
        spec: its settings.
        name: folder name, `<model>_<quant>_<workload>-<key>`.
        model_path: path of the weights on this machine (beginning with `/` or `./`), or a hub id.
        checkpoint: the checkpoint to build first, or None.
        dataset_path: path of the workload's data set on this machine, or None.
    """

    spec: Spec
    name: str
    model_path: str
    checkpoint: Checkpoint | None
    dataset_path: str | None = None


@dataclass(frozen=True)
class Matrix:
    """All experiments of a config in the order of its tables, and the skipped combinations."""

    platform: Platform
    experiments: list[Experiment]
    skipped: list[Skipped]
    remarks: list[str]
    """Lines on what of the config changes nothing, or is not compared."""


def expand(config: Config, engine: InstalledEngine) -> Matrix:
    """Expand a config for an engine.

    Raises:
        UserError: a name is undefined, the engine lacks an argument, lengths exceed max_model_len, or nothing is left
            to measure.
    """
    platform = engine.platform() if config.platform == "auto" else config.platform
    if config.models == [AUTO]:
        config = config.model_copy(update={"models": [automatic_model(platform)]})
    check_names(config)
    idle = idle_lines(config)
    config, names = resolved(config, engine)
    idle += check_variables(config, engine, platform)
    check_model_base(Path(config.model_base))
    check_engine_args(config, engine)
    check_no_secrets(config)
    if config.endpoints:
        check_online(config, engine)
    settings = {
        name: _at_setting(config, name, engine) for name in dict.fromkeys(itertools.chain.from_iterable(names.values()))
    }
    for mode in config.modes:
        planning_of(mode).check_all([settings[name] for name in names[mode]])
    experiments: list[Experiment] = []
    skipped: list[Skipped] = []
    for cell in itertools.product(config.modes, config.models, config.workloads, config.quants):
        in_mode, first = names[cell[0]], config.baseline.setting or DEFAULT_SETTING
        if DEFAULT_SETTING not in in_mode:
            _cell(config, DEFAULT_SETTING, engine, platform, cell)  # problems without any setting are errors
        found: dict[str, Experiment | Skipped] = {}
        same: dict[str, str] = {}
        for setting in sorted(in_mode, key=lambda name: name != first):  # of duplicates the baseline is kept
            one = found[setting] = _cell(settings[setting], setting, engine, platform, cell)
            defaults = engine.defaults | ALWAYS.get(platform, {})
            key = _measured_key(one.spec, defaults) if isinstance(one, Experiment) else setting
            if same.setdefault(key, setting) != setting:
                reason = f"it is the same as under {same[key]}"
                found[setting] = _skipped(cell, setting, reason, f"leave {setting} out of settings")
        experiments += [one for setting in in_mode if isinstance(one := found[setting], Experiment)]
        skipped += [one for setting in in_mode if isinstance(one := found[setting], Skipped)]
    experiments = _with_references(experiments, skipped, config)
    experiments += [_on_endpoint(config, engine, *cell) for cell in endpoint_cells(config)]
    if any(experiment.checkpoint for experiment in experiments):
        check_model_base_can_be_written(Path(config.model_base))
    _check_something(experiments, skipped)
    _check_one_model(config, experiments)
    alone = uncompared((experiment.spec for experiment in experiments), config.baseline.axes)
    return Matrix(platform, experiments, skipped, [*idle, alone] if alone else idle)


ALWAYS: dict[Platform, dict[str, Any]] = {"cpu": {"async_scheduling": False}}
"""Platform -> values that vLLM 0.32 gives to arguments there, whatever is asked for."""

SET_AT_START = ("cudagraph_metrics",)
"""Arguments that a launch sets in place of vLLM's default, unless the config sets them."""


def _measured_key(spec: Spec, defaults: Mapping[str, Any]) -> str:
    """Return a key that is the same for experiments that measure the same, whatever their settings are called.

    vLLM cannot tell an argument with its default's value from one that is left out.
    """
    args = {
        name: value
        for name, value in spec.engine.args.items()
        if name in SET_AT_START or (value, type(value)) != (defaults.get(name, NOT_SET), type(defaults.get(name)))
    }
    engine = spec.engine.model_copy(update={"args": args})
    return spec.model_copy(update={"setting": None, "engine": engine}).key()


def _at_setting(config: Config, setting: str, engine: InstalledEngine) -> Config:
    """Return the config under a setting, checked for every mode.

    Raises:
        UserError: a mode cannot be measured so; the message names the setting.
    """
    try:
        changed = under_setting(config, setting)
        check_online(changed, engine)
        for mode in config.modes:
            planning_of(mode).check(changed, engine)
    except UserError as error:
        if setting == DEFAULT_SETTING:
            raise
        raise UserError(f"{error.problem}, under setting {setting}", error.remedy) from None
    return changed


def _check_something(experiments: list[Experiment], skipped: list[Skipped]) -> None:
    """Check that there is an experiment."""
    if experiments:
        return
    if skipped:
        first = skipped[0]
        raise UserError(
            f"config: nothing to measure: all combinations are skipped, the first ({first.model}, {first.quant}) "
            f"because {first.reason}",
            first.remedy,
        )
    raise UserError(
        "config: models: is an empty list: name at least one",
        "`rollout-bench keys models` says more: endpoints alone need none, in modes: [online]",
    )


def _check_one_model(config: Config, experiments: list[Experiment]) -> None:
    """Reject engine arguments that make two models under one name, which could not be compared."""
    first: dict[str, Spec] = {}
    for spec in (experiment.spec for experiment in experiments):
        other = first.setdefault(spec.model.name, spec)
        mine, theirs = sizes_set(spec), sizes_set(other)
        written = [(place, dict(flat(args))) for place, args in engine_args_in(config)]
        places = {name: place for place, args in reversed(written) for name in args}
        for name in {**mine, **theirs}:
            if mine.get(name) != theirs.get(name):
                raise UserError(
                    f"config: {places.get(name, 'engine_args')}.{name}: is {mine.get(name, NOT_SET)} for "
                    f"{spec.title} and {theirs.get(name, NOT_SET)} for {other.title}: two different models cannot "
                    "be compared",
                    f"set {name} for all of them, in model_settings.{spec.model.name}.engine_args, or leave it out",
                )


def differing_lines(matrix: Matrix, baseline: Mapping[str, str]) -> list[str]:
    """Return the arguments that differ from the baseline's besides the compared ones, a line per kind."""
    index = {(e.spec.mode, *e.spec.axes.values()): e.spec for e in matrix.experiments}
    found: dict[str, list[str]] = {}
    for spec in index.values():
        other = index.get((spec.mode, *{**spec.axes, **baseline}.values()), spec)
        as_set = {**spec.axes, "setting": other.axes["setting"]}
        also = confounders_text(confounders(spec, other, index.get((spec.mode, *as_set.values()))))
        if also:
            label, theirs = (with_setting(side.quant.name, side.axes["setting"]) for side in (spec, other))
            against = theirs if label != theirs else other.title
            found.setdefault(f"{label} differs from {against} also in: {also}", []).append(spec.title)
    return [f"{line} ({first_few(titles)})" for line, titles in found.items()]


def caveat_lines(matrix: Matrix) -> list[str]:
    """Return a line for each workload with a caveat."""
    loads = {one.spec.workload.name: one.spec.workload.caveat for one in matrix.experiments}
    return [f"workload {name}: {printable(caveat)}" for name, caveat in loads.items() if caveat]


def load_lines(matrix: Matrix) -> list[str]:
    """Return a line for each workload that a server gets, with its loads."""
    loads = {one.spec.workload.name: one.spec.load for one in matrix.experiments if one.spec.load is not None}
    return [f"loads of {name}: {', '.join(point.asked for point in load.points)}" for name, load in loads.items()]


def conversation_lines(matrix: Matrix) -> list[str]:
    """Return a line for each workload whose sequences are conversations with a server."""
    loads = {one.spec.workload.name: one.spec.workload for one in matrix.experiments if one.spec.load is not None}
    turns = {name: load.turns.count for name, load in loads.items() if load.turns is not None}
    counts = {name: str(of) if isinstance(of, int) else f"{of.low} to {of.high}" for name, of in turns.items()}
    rotating = {one.spec.workload.name for one in matrix.experiments if one.spec.load and one.spec.load.rotates}
    how = "each a request that repeats the last one and its answer; a load counts"
    return [
        f"workload {name}: conversations of {count} turns, {how} "
        + ("turns, and all conversations are open" if name in rotating else "conversations")
        for name, count in counts.items()
    ]


def adapter_lines(matrix: Matrix) -> list[str]:
    """Return a line on adapters that no comparison on a CPU gives a verdict on."""
    slow = [
        spec.title
        for spec in (experiment.spec for experiment in matrix.experiments)
        if spec.engine.args.get("enable_lora") and spec.platform == "cpu" and not spec.engine.args.get("enforce_eager")
    ]
    why = "vLLM on a CPU compiles no model with an adapter: ratios get verdicts only with enforce_eager on both sides"
    return [f"lora: {why} -> engine_args: {{enforce_eager: true}} ({first_few(slow)})"] if slow else []


UPDATED = ("cycle", "placement")
"""Modes whose launches prove that an update reached all weights."""


def update_lines(matrix: Matrix) -> list[str]:
    """Return a line on built models whose launches will be invalid, since an update does not reach all their weights.

    vLLM 0.32 on a CPU packs an output head that shares the embedding's weights once (tried).
    """
    models: dict[str, list[str]] = {}
    for spec in (experiment.spec for experiment in matrix.experiments):
        is_shared = (spec.model.synthetic or {}).get("tie_word_embeddings")
        if spec.mode in UPDATED and spec.platform == "cpu" and is_shared and not spec.engine.args.get("enable_lora"):
            models.setdefault(spec.model.name, []).append(spec.title)
    return [
        f"updates: vLLM on a CPU keeps an old copy of an output head that shares the embedding's weights, so launches "
        f"would be invalid -> model_settings: {{{name}: {{synthetic: {{shape: {{tie_word_embeddings: false}}}}}}}} "
        f"({first_few(titles)})"
        for name, titles in models.items()
    ]


def mode_lines(matrix: Matrix) -> list[str]:
    """Return the lines of each mode on its own experiments."""
    of_modes = grouped((experiment.spec.mode, experiment.spec) for experiment in matrix.experiments)
    return [line for mode, specs in of_modes.items() for line in planning_of(mode).lines(specs)]


LARGEST_GRAPH = 512
"""Tokens of the largest graph that vLLM captures if nothing else is set (`VllmConfig._set_cudagraph_sizes`); on a
Blackwell GPU of a data centre it is 1,024."""


LARGEST_KEY = "max_cudagraph_capture_size"

MOST_SEQUENCES = 1024
"""vLLM's default of `max_num_seqs` on an H100 or larger (`EngineArgs.get_batch_defaults`); on other GPUs it is 256."""


def _keys_of(args: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the mapping that is the argument `name`; empty without one, and where no engine says that it is one."""
    value = args.get(name)
    return value if isinstance(value, Mapping) else {}


def _captures_none(args: Mapping[str, Any]) -> bool:
    """Return whether these arguments tell an engine to capture no graphs."""
    mode = _keys_of(args, "compilation_config").get("cudagraph_mode")
    if mode is None:
        return bool(args.get("enforce_eager")) or str(args.get("optimization_level")) == "0"
    return bool(args.get("enforce_eager")) or str(mode).upper() == "NONE"


def graph_lines(matrix: Matrix) -> list[str]:
    """Return a line for each size of decode steps above the largest graph that their engines capture."""
    found: dict[tuple[str, int, str], list[str]] = {}
    for spec in (experiment.spec for experiment in matrix.experiments):
        args, default = spec.engine.args, MOST_SEQUENCES if spec.platform == "cuda" else None
        compilation, sequences = _keys_of(args, "compilation_config"), args.get("max_num_seqs", default)
        if spec.platform == "cpu" or _captures_none(args) or sequences is None or spec.endpoint is not None:
            continue
        # vLLM takes these two at either place, and refuses them at both
        sizes, limit = (args.get(key) or compilation.get(key) for key in (GRAPH_SIZES, LARGEST_KEY))
        largest = max(sizes) if sizes else limit or LARGEST_GRAPH
        most = -(-spec.workload.prompts * spec.workload.samples_per_prompt // replicas(spec))
        drafted = _keys_of(args, "speculative_config").get("num_speculative_tokens") or 0
        tokens = min(sequences, most) * (1 + drafted)
        tokens = min(tokens, args.get("max_num_batched_tokens") or tokens)
        # vLLM's own sizes are multiples of 16 there, and of a draft's length; one between them would be lowered
        step = math.lcm(16, 1 + drafted)
        larger = f"{LARGEST_KEY}: {-(-tokens // step) * step}"
        if sizes:
            remedy = f"add {tokens} to {GRAPH_SIZES}"
        elif LARGEST_KEY in args:
            remedy = f"engine_args: {{{larger}}}"
        elif compilation:  # which a setting may have set, in place of the one of all
            remedy = f"{larger} in the compilation_config that is there"
        else:
            remedy = f"engine_args: {{compilation_config: {{{larger}}}}}"
        up_to = f"{tokens} tokens a step"
        if "max_num_seqs" not in args:
            up_to += f" on an H100 or larger, with vLLM's max_num_seqs of {MOST_SEQUENCES}"
        if tokens > largest:
            found.setdefault((up_to, largest, remedy), []).append(spec.title)
    lines = []
    for (up_to, largest, remedy), titles in found.items():
        lines.append(
            f"graphs: decoding has up to {up_to}, and the largest captured graph {largest}; "
            f"larger steps run without one -> {remedy} ({first_few(titles)})"
        )
    return lines


def _with_references(experiments: list[Experiment], skipped: list[Skipped], config: Config) -> list[Experiment]:
    """Return `experiments` with the reference set of each that refers to one of its mode.

    The reference has the reference's quantization under the default setting, and the same model and workload.
    Experiments without one are added to `skipped`.
    """
    found = []
    for one in experiments:
        spec, quant = one.spec, planning_of(one.spec.mode).reference(config)
        place = spec.mode, spec.model.name, spec.workload.name
        reference = next(
            (
                other
                for other in experiments
                if other.spec.quant.name == quant
                and other.spec.setting is None
                and place == (other.spec.mode, other.spec.model.name, other.spec.workload.name)
            ),
            None,
        )
        if quant is None or one is reference:
            found.append(one)
        elif reference is not None:
            mode_spec = spec.mode_spec.model_copy(update={"reference": reference.name})
            spec = spec.model_copy(update={MODES[spec.mode].settings: mode_spec})
            found.append(replace(one, spec=spec, name=spec.experiment()))
        else:
            reason = f"the reference of {spec.mode}, {quant} under the default setting, is not measured"
            remedy = f"have {spec.model.name} measured with {quant}, and no settings selected without default"
            skipped.append(_skipped((*place, spec.quant.name), spec.axes["setting"], reason, remedy))
    return found


def _skipped(cell: "_Cell", setting: str, reason: str, remedy: str) -> Skipped:
    mode, model, workload, quant = cell
    names = {"mode": mode, "model": model, "quant": quant, "workload": workload, "setting": setting}
    return Skipped(**names, reason=reason, remedy=remedy)


_Cell = tuple[str, str, str, str]
"""Mode, model, workload and quant."""


def _cell(
    config: Config, setting: str, engine: InstalledEngine, platform: Platform, cell: _Cell
) -> Experiment | Skipped:
    """Return the experiment of a cell under a setting, which has changed `config`.

    Problems of one setting only skip it; under the default, which the user wrote, they are errors.
    """
    try:
        return _experiment(config, engine, platform, cell, None if setting == DEFAULT_SETTING else setting)
    except UserError as error:
        if setting == DEFAULT_SETTING and not isinstance(error, UnmeasurableError):
            raise
        return _skipped(cell, setting, error.problem.removeprefix("config: "), error.remedy)


def _experiment(
    config: Config, engine: InstalledEngine, platform: Platform, cell: _Cell, setting: str | None
) -> Experiment:
    mode, model, workload, quant = cell
    planning, of_mode = planning_of(mode), MODES[mode]
    if of_mode.has_loads:
        check_can_be_sent(config, workload)
    settings = config.model_settings[model]
    scheme = resolve_quant(quant, platform, config.quant_settings)
    if scheme is None:
        raise UnmeasurableError(*unknown_quant(quant, platform))
    source = _weights(model, settings, quant, scheme)
    load = checked_load(workload, config.workload_settings[workload])
    most = sum(load.longest) + planning.further_tokens(config, workload) + _as_text(config, mode, workload)
    args: dict[str, Any] = {
        **DEFAULT_ARGS,
        "max_model_len": most,
        **config.workload_settings[workload].engine_args,
        **config.engine_args,
        **scheme.engine_args,
        **settings.engine_args,
    }
    if config.lora is not None:
        check_lora(config.lora, args, of_mode, platform, scheme.weights_format)
        args |= config.lora.engine_args
    check_cache(quant, scheme, args)
    check_dtype(quant, scheme, args)
    check_lengths(config, model, load.spec, load.longest, args, source)
    if of_mode.data_parallel == "one":
        args.pop(SIZE, None)
    args = planning.args(config, args)
    requests = load_spec(config, workload, engine) if of_mode.has_loads else planning.load(config)
    mode_settings = {of_mode.settings: planning.mode_spec(config, args, platform)} if of_mode.settings else {}
    spec = Spec(
        measurement_version=MEASUREMENT_VERSION,
        platform=platform,
        mode=mode,
        model=source,
        quant=scheme.to(QuantSpec, name=quant),
        workload=planning.workload(load.spec),
        engine=EngineSpec(
            name=engine.name,
            version=engine.version,
            plugins=engine.plugins if platform == "ascend" else {},
            multiprocess=planning.separate_core(platform, requests),
            environment=config.engine.environment,
            args=args,
            before=config.engine.before,
        ),
        measuring=measuring_of(config, mode),
        load=requests,
        lora=config.lora,
        setting=setting,
        **mode_settings,
    )
    return _checked_experiment(config, spec, scheme, load)


def _checked_experiment(config: Config, spec: Spec, scheme: Quant, load: CheckedLoad) -> Experiment:
    planning, model = planning_of(spec.mode), spec.model
    check_data_parallel(config, spec)
    for mode in MODES.values():
        planning_of(mode).check_other(config, spec)
    planning.check_spec(config, spec)
    checkpoint = _checkpoint(config, spec)
    path = _explicit(checkpoint.folder) if checkpoint else _weights_path(config, model.weights or "")
    if Path(path).is_file():
        raise UserError(
            f"config: model_settings.{model.name}.weights: {path}: is a file", "name the folder that holds config.json"
        )
    check_tokenizer(spec.workload.name, load, model, path)
    check_experts(spec, scheme, Path(path))
    check_effects(spec, Path(path))
    check_heads(spec, Path(path))
    if (unfit := planning.skip_reason(spec, path, config)) is not None:
        raise UnmeasurableError(*unfit)
    check_weights_format(spec, Path(path))
    return Experiment(spec, spec.experiment(), path, checkpoint, load.dataset_path)


def _as_text(config: Config, mode: str, workload: str) -> int:
    """Return the additional tokens of prompts sent as text, which may become longer than drawn: a quarter and 32."""
    settings = config.workload_settings[workload]
    as_text = MODES[mode].has_loads and settings.online.as_text
    sent = longest(settings.prompt_tokens) if settings.turns is None else sum(settings.longest_pair)
    return sent // 4 + 32 if as_text else 0


def _on_endpoint(config: Config, engine: InstalledEngine, name: str, endpoint: Endpoint, workload: str) -> Experiment:
    model, quant, served_by, spec_of_endpoint = endpoint_parts(name, endpoint)
    load = checked_load(workload, config.workload_settings[workload])
    check_tokenizer(workload, load, model, endpoint.tokenizer, None if endpoint.tokenizer else ENDPOINT_VOCABULARY)
    spec = Spec(
        measurement_version=MEASUREMENT_VERSION,
        platform="unknown",
        mode=with_loads(config),
        model=model,
        quant=quant,
        workload=load.spec,
        engine=served_by,
        measuring=measuring_of(config, with_loads(config)),
        load=load_spec(config, workload, engine),
        endpoint=spec_of_endpoint,
    )
    return Experiment(spec, spec.experiment(), endpoint.url, None, load.dataset_path)


def _weights(model: str, settings: ModelSettings, quant: str, scheme: Quant) -> ModelSpec:
    if settings.synthetic is None:
        # bf16 is quantized by the engine while it loads
        lenders = [quant, scheme.weights_of, "bf16" if scheme.weights_format == "bf16" else None]
        named = next((found for name in lenders if name and (found := settings.weights.get(name))), None)
        remedy = f"name them in model_settings.{model}.weights.{quant}, or leave {quant} out of quants"
        if named is None:
            raise UnmeasurableError(f"config: {model} has no weights for {quant}", remedy)
        return ModelSpec(name=model, weights=named, synthetic=None)
    made = settings.synthetic.resolve()
    shape = made.model_dump(mode="json")
    if scheme.weights_format == "own":
        raise UnmeasurableError(
            f"config: {model} is synthetic and {quant} names no weights_format",
            f"set quant_settings.{quant}.weights_format",
        )
    try:
        check_format(made, scheme.weights_format)
    except ValueError as error:
        naming = f"name its weights: model_settings.{model}.weights.{quant}"
        raise UnmeasurableError(str(error), f"leave {quant} out of quants for {model}, or {naming}") from None
    return ModelSpec(name=model, weights=None, synthetic=shape)


def _checkpoint(config: Config, spec: Spec) -> Checkpoint | None:
    if spec.model.synthetic is None:
        return None
    config_only = spec.load_format == "dummy"
    shape = f"{json.dumps(spec.model.synthetic, sort_keys=True)} {BUILDER_VERSION}"
    digest = hashlib.sha256(shape.encode()).hexdigest()[:8]
    layout = spec.quant.weights_format + ("-dummy" if config_only else "")
    folder = Path(config.model_base) / "synthetic" / f"{spec.model.synthetic['architecture']}-{digest}-{layout}"
    return Checkpoint(spec.model.synthetic, spec.quant.weights_format, config_only, str(folder))


def _weights_path(config: Config, weights: str) -> str:
    if weights.startswith("hub:"):
        return weights.removeprefix("hub:")
    return _explicit(os.path.normpath(Path(config.model_base) / Path(weights).expanduser()))


def _explicit(path: str) -> str:
    """Return `path` in a form that cannot be a hub id, unlike `models/name`."""
    return path if Path(path).is_absolute() else f"./{path}"
