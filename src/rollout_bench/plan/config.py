"""The config: every key, with its meaning and its default.

The reference in docs/ is generated from here.
"""

import inspect
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, create_model, field_validator, model_validator

from rollout_bench.checkpoints.shapes import SyntheticModel
from rollout_bench.contracts.fields import (
    Args,
    AutoCount,
    Count,
    Folder,
    Launches,
    MaybeAuto,
    Name,
    Names,
    NamesOrAuto,
    Number,
    Pattern,
    Program,
    Seconds,
    Strict,
    Sweep,
    Text,
    Variable,
    VariableText,
    Weights,
    brackets,
    typed,
)
from rollout_bench.contracts.load import Harness
from rollout_bench.contracts.lora import Lora
from rollout_bench.contracts.modes import DEFAULT_MODE, MODES, mode_of
from rollout_bench.contracts.spec import Isolation, Iterations, WarmupIterations, Workload
from rollout_bench.llmd.profiled import WorkloadProfile
from rollout_bench.numbers.registry import COMPARED, NUMBERS, MetricName, Metrics
from rollout_bench.plan.pods import KubernetesSettings
from rollout_bench.plan.serving import Dataset, Endpoint, OnlineLoad, Slo


class ClusterSettings(Strict):
    """Resources of each launch on a cluster. Its devices follow from the engine arguments."""

    cpus_per_device: Count = Field(8, description="Cores for each device of a launch.")
    device_resource: Text | None = Field(
        None,
        description=(
            "The cluster's name for a device: gpu or npu, or with a type gpu:h200, for Slurm; nvidia.com/gpu or "
            "huawei.com/Ascend910 for Kubernetes. Null: the usual name on the platform; none on cpu."
        ),
    )


DEFAULT_LAUNCHES = 3
"""Default number of launches of an experiment, and the minimum of `launches: auto`."""


class Baseline(Strict):
    """The baseline of all comparisons, by its name on one or more axes.

    Both sides have the same name on all other axes. {quant: bf16} compares within each setting; {quant: bf16, setting:
    default} compares every quantization under every setting with bf16 under the default. Mappings are merged, so null
    removes an axis that a config below names.
    """

    quant: Name | None = Field(None, description="The baseline's quantization.")
    model: Name | None = Field(None, description="The baseline's model.")
    workload: Name | None = Field(None, description="The baseline's workload.")
    setting: Name | None = Field(None, description="The baseline's setting; default is the setting without changes.")

    @property
    def axes(self) -> dict[str, str]:
        """Its axes with their values."""
        return self.model_dump(exclude_none=True)

    @model_validator(mode="after")
    def _some_axis(self) -> "Baseline":
        if not self.axes:
            raise ValueError("names no axis, but needs at least one: write {quant: bf16}")
        return self


if TYPE_CHECKING:
    ComparedMode = str
else:
    ComparedMode = Literal[tuple(mode.name for mode in MODES.values() if mode.metrics)]
    """A mode whose experiments are compared by metrics; no type checker follows a registry."""


class ComparisonSettings(Strict):
    """Rules for reporting a difference from the baseline."""

    confidence: Annotated[Number, Field(ge=0.5, le=0.9999)] = Field(
        0.95,
        description=(
            "Confidence of the intervals, simultaneous for all experiments with the same baseline. 1 - "
            "confidence is the chance of any ^ or v in a metric's column without any true difference."
        ),
    )
    relevant_difference: Annotated[Number, Field(ge=0, le=1)] = Field(
        0.01, description="Speed-ups closer to 1 than this fraction never get ^ or v, even if they are significant."
    )
    metrics: dict[ComparedMode, Metrics] = Field(
        {mode.name: list(mode.metrics) for mode in MODES.values() if mode.metrics},
        description=(
            "Mode -> metrics of its comparisons, each in a separate column, from: "
            f"{', '.join(f'`{name}`' for name in COMPARED)}; "
            "other modes keep their default. The figure shows the first metric, which is decisive. If less is "
            "better, as with times, the speed-up is the inverse ratio, so above 1 is always better. Only online has "
            "metrics of requests other than e2el (goodput_requests_per_s needs a limit in slo), only cycle "
            "whole_step_s and cycle_s, only placement placed_step_s. If requests arrive at a rate "
            "and the server keeps up, the load determines output_tokens_per_s and step_time_s, and these get no "
            "verdict."
        ),
    )

    @field_validator("metrics")
    @classmethod
    def _of_their_modes(cls, metrics: dict[str, list[MetricName]]) -> dict[str, list[MetricName]]:
        for mode, names in metrics.items():
            for name in names:
                if (number_mode := NUMBERS[name].mode) not in ("", mode):
                    raise ValueError(f"{mode}: {name!r} is of mode {number_mode} alone: name it there")
        return metrics

    def metrics_of(self, mode: str) -> list[MetricName]:
        """Return the compared metrics of `mode`."""
        known = mode_of(mode)
        return self.metrics.get(known.name, list(known.metrics))


class PredictionSettings(Strict):
    """Settings of `rollout-bench predict` and `recommend`. A change needs no new measurement."""

    extrapolate: bool = Field(
        False, description="Whether to predict work beyond the calibration, such as longer contexts, and mark it."
    )
    t90_s: Annotated[Seconds, Field(gt=0)] | None = Field(
        None, description="Recommend only settings with 90 % of the sequences complete within these seconds."
    )
    drift_nats: Annotated[Number, Field(gt=0)] | None = Field(
        None,
        description=(
            "Recommend only quantizations whose mean |d| in mode drift, in nats per token, is at most this, at the "
            "upper end of its interval."
        ),
    )


class Precision(Strict):
    """Stopping rule of `launches: auto`."""

    half_width: Annotated[Number, Field(ge=0.0001, le=1)] = Field(
        0.01,
        description=(
            "Launches are added until the interval of the speed-up (in the first metric) reaches at most this "
            "fraction from the speed-up."
        ),
    )
    max_launches: Annotated[AutoCount, Field(ge=DEFAULT_LAUNCHES)] = Field(
        12,
        description=(
            "Maximum launches of each experiment, invalid ones included. The spread of the first 3 determines "
            "the number, or of the first 4 if only one experiment is compared with the baseline."
        ),
    )


EngineArgs = Annotated[
    Args,
    Field(
        description=(
            "Arguments of vLLM's EngineArgs by their Python names: tensor_parallel_size, max_model_len, "
            "max_num_seqs, gpu_memory_utilization, dtype, trust_remote_code, enforce_eager, load_format, "
            "kv_cache_memory_bytes, ... Checked against the installed vLLM."
        )
    ),
]


class EngineSettings(Strict):
    """Interpreter and environment of the engine."""

    python: Program | None = Field(
        None,
        description=(
            "Python interpreter that has vLLM (a container's, a conda environment's). Null: the one "
            "that runs Snakemake."
        ),
    )
    environment: dict[Variable, VariableText] = Field(
        {},
        description=(
            "Environment variables set for the engine, as text. No secrets: the engine inherits those from "
            "snakemake's environment."
        ),
    )
    before: Annotated[list[Text], BeforeValidator(brackets)] | None = Field(
        None,
        description=(
            "Command that runs before each start of an engine, as a list of program and arguments. Its output is in "
            "the launch's log, and its failure fails the launch. Without a shell: [bash, -c, COMMAND] has one."
        ),
    )


class ModelSettings(Strict):
    """A model: its weights for each quantization, or how to build them."""

    weights: Annotated[dict[Name, Weights], BeforeValidator(lambda value: {} if value is None else value)] = Field(
        {},
        description="Quant -> place of its weights: a folder below model_base, an absolute path, or "
        "hub:<owner>/<name>. null: none, where a file below names some.",
    )
    synthetic: SyntheticModel | None = Field(
        None, description="Build the weights instead: random values in a real architecture, in every quant."
    )
    engine_args: EngineArgs = Field(
        {}, description="This model's arguments; they take precedence over all others except a setting's."
    )


CacheDtype = Literal[
    "bfloat16",
    "float16",
    "float32",
    "fp8",
    "fp8_e4m3",
    "fp8_e5m2",
    "fp8_ds_mla",
    "fp8_per_token_head",
    "int8",
    "int8_per_token_head",
    "int4_per_token_head",
    "nvfp4",
]
"""vLLM's names of the data types of a KV cache."""


LinearDtype = Literal[
    "bfloat16",
    "float16",
    "float32",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float4_e2m1fn_x2",
    "int8",
    "uint8",
    "int32",
]
"""torch's names of the data types in which vLLM keeps the weights of a linear layer; packed ones are int32 or uint8."""


class QuantSettings(Strict):
    """Changes to a known quantization, or a new one. Missing values come from the built-in table."""

    weights_format: (
        Literal[
            "bf16",
            "compressed-tensors-w8a8",
            "compressed-tensors-w8a16",
            "compressed-tensors-w4a16",
            "modelslim-w8a8",
            "modelslim-w8a8-static",
            "modelslim-w8a8-kv8",
            "modelslim-w8a16",
            "modelslim-w4a8",
            "own",
        ]
        | None
    ) = Field(
        None,
        description=(
            "Layout of the checkpoint to load: bf16 for quantizations that the engine makes during loading; own "
            "for a layout that only this quantization's weights have."
        ),
    )
    linear_dtypes: list[LinearDtype] | None = Field(
        None,
        description=("Proof: each loaded linear layer must have one of these data types (int8, bfloat16, ...)."),
    )
    linear_method: Pattern | None = Field(
        None,
        description="Proof: regular expression that the engine's name of each linear layer's method must match.",
    )
    kv_cache_dtype: CacheDtype | None = Field(
        None,
        description=(
            "Proof: data type that the KV cache of each layer must have; null: as in engine_args, or in the "
            "known quantization."
        ),
    )
    engine_args: EngineArgs = Field({}, description="Arguments for this quant, for instance quantization.")


class WorkloadSettings(Workload):
    """The load of one iteration, offline and online."""

    profile: WorkloadProfile | None = Field(
        None,
        description=(
            "A workload profile of llm-d-benchmark: {harness: guidellm, path: sanity_concurrent, overrides: "
            "{...}}. It sets the keys of this workload that it mentions."
        ),
    )
    dataset: Dataset | None = Field(None, description="A file with lengths or prompts.")
    online: OnlineLoad = Field(OnlineLoad(), description="Arrival of requests, if the engine is a server.")
    engine_args: EngineArgs = Field(
        {},
        description="Arguments that belong to the load; engine_args, quantization and model take precedence over them.",
    )


_Section = TypeVar("_Section", bound=Strict)

SECTIONS = tuple(mode.settings for mode in MODES.values() if mode.settings and mode.generates)
"""Keys of the config that belong to one mode and that a setting can change."""

Partial = dict[str, Any]
"""Part of a config with a setting's changes, which take precedence over everything else."""


def _with_typed_arguments(setting: Any) -> Any:
    # what else a setting changes is read when it is laid over the config
    if not isinstance(setting, dict) or "engine_args" not in setting:
        return setting
    return {**setting, "engine_args": typed(setting["engine_args"])}


Setting = Annotated[Partial, BeforeValidator(_with_typed_arguments)]
"""Changes of one setting, its engine arguments read from text like all others."""


class _Config(Strict):
    """A whole config with all overlays merged."""

    platform: Literal["auto", "cpu", "cuda", "ascend"] = Field(
        "auto", description="Kind of device. auto: determined from the installed vLLM."
    )
    models: NamesOrAuto = Field(
        description=(
            "Models to measure: names in model_settings. Empty if only endpoints are measured. auto: qwen3-90m, or "
            "qwen3-12m on a processor that emulates bf16."
        )
    )
    quants: Names = Field(
        ["bf16"],
        description=(
            "Quantizations to measure: bf16, w8a16, w8a8, w4a16, fp8, fp8-block, fp8-channel, bf16-kv8, w8a8-kv8, "
            "fp8-kv8, or names in quant_settings."
        ),
    )
    modes: Names = Field(
        [DEFAULT_MODE.name],
        description=f"Modes to measure: {'; '.join(f'{mode.name}, {mode.title}' for mode in MODES.values())}.",
    )
    workloads: Names = Field(description="Loads to measure: names in workload_settings.")
    settings: Names | None = Field(
        None,
        description=(
            "Settings to measure: default, which changes nothing, names in setting_settings, or names made by "
            "sweep. Null: default and all settings of sweep."
        ),
    )
    sweep: Sweep = Field(
        {},
        description=(
            "Engine argument or key of a workload -> its values: each combination is a setting, named after "
            "them: {max_num_seqs: [8, 32]} makes max-num-seqs-8 and max-num-seqs-32. If both have a key: "
            "workload.seed, engine_args.seed. lora.rank sweeps adapters; a key of a mode, as cycle.update, makes "
            "settings in this mode only."
        ),
    )
    launches: Launches = Field(
        DEFAULT_LAUNCHES,
        description=(
            "Engine starts for each experiment: more launches give more precise differences. auto: as many as "
            "precision needs. Or a number for each mode, {offline: 5, online: 2}; other modes have the default."
        ),
    )
    precision: Precision = Field(
        Precision(),
        description=(
            "Goal of launches: auto. Raising it later adds to the existing launches. Choose it before you look "
            "at the result: adding launches because of an observed difference finds false ones."
        ),
    )
    warmup_iterations: WarmupIterations = 1
    iterations: Iterations = 8
    interleave: MaybeAuto = Field(
        "auto",
        description=(
            "true: the engines of one comparison are alive simultaneously and alternate their iterations, so "
            "that drift of the machine affects all alike. false: one engine after the other. auto: true on cpu if "
            "the memory is enough for all. Not part of an experiment's key."
        ),
    )
    share_starts: bool = Field(
        True,
        description=(
            "true: experiments whose engines are equal, so that only their workloads differ, are measured one after "
            "the other by the same engine, in another order in each launch. They need the same max_model_len, and "
            "launches as a number. In modes offline, online, rollout and messages; elsewhere each experiment starts "
            "its own engine. Not part of an experiment's key."
        ),
    )
    timeout_s: Annotated[Seconds, Field(ge=1)] | None = Field(
        None,
        description=(
            "Seconds after which an unfinished launch is ended and counted as failed. Null: 1800, or more for "
            "loads with a longer duration."
        ),
    )
    harness: Harness = "rollout-bench"
    slo: Slo = Field(
        Slo(), description="Limits of good requests, which goodput counts. A change needs no new measurement."
    )
    endpoints: dict[Name, Endpoint] = Field(
        {},
        description=(
            "Running servers: each is measured under every workload if modes has online. models may be empty then."
        ),
    )
    baseline: Baseline = Field(
        Baseline(quant="bf16"),
        description=(
            "Baseline of the speed-ups: a quantization, model, workload or setting. null removes an axis that a "
            "config below this one names: {quant: null, model: qwen3-8b}. If settings selects default and others, of "
            "one quantization, it is {setting: default}."
        ),
        json_schema_extra={"default": {"quant": "bf16"}},
    )
    comparison: ComparisonSettings = Field(
        ComparisonSettings(),
        description="Rules for reporting a difference from the baseline. A change needs no new measurement.",
    )
    prediction: PredictionSettings = Field(
        PredictionSettings(), description="Predictions from calibrations by mode steps."
    )
    model_base: Folder = Field("models", description="Folder of weights, in which synthetic ones are built.")
    isolation: Isolation | None = Field(
        None,
        description=(
            "exclusive: a launch has the whole machine. per_device: launches run side by side, each on separate "
            "devices. Null: exclusive on cpu and for endpoints, where they would slow each other, else "
            "per_device."
        ),
    )
    devices: Count | None = Field(
        None,
        description=(
            "Devices of a machine that launches may hold simultaneously; on cpu the cores are divided into this "
            "number of blocks. Null: all visible ones; on cpu one block for each replica."
        ),
    )
    cluster: ClusterSettings = Field(ClusterSettings(), description="Resources of each launch on a cluster.")
    kubernetes: KubernetesSettings = Field(KubernetesSettings(), description="Launches on Kubernetes.")
    engine: EngineSettings = Field(EngineSettings(), description="Interpreter and environment of the engine.")
    engine_args: EngineArgs = Field(
        {},
        description=(
            "Arguments for every experiment. Later ones take precedence: rollout-bench's own "
            "(enable_prefix_caching: true, seed: 0, max_model_len: prompt + output tokens of the longest "
            "sequence), the workload's, these, the quantization's, the model's, the setting's."
        ),
    )
    lora: Lora | None = Field(
        None,
        description=(
            "An adapter of random values that each request names: {rank: 16}. Not in modes placement, startup and "
            "messages. Null: none."
        ),
    )
    model_settings: dict[Name, ModelSettings] = Field({}, description="Model -> place of its weights and its settings.")
    quant_settings: dict[Name, QuantSettings] = Field(
        {}, description="Quant -> changes to the built-in table, or a new quantization."
    )
    workload_settings: dict[Name, WorkloadSettings] = Field({}, description="Workload -> its load.")
    setting_settings: dict[Name, Setting] = Field(
        {},
        description=(
            "Setting -> its changes to this config: engine_args (they take precedence over all), engine: "
            "{environment: ...}, harness, rollout, cycle, placement, startup; workload: keys of "
            "workload_settings, for every workload."
        ),
    )

    def of(self, section: type[_Section]) -> _Section:
        """Return the section of a mode, which is a `section`."""
        return next(value for _, value in self if isinstance(value, section))

    def launches_of(self, mode: str) -> int:
        """Return the maximum number of launches of an experiment in `mode`.

        A profile has one launch and is compared step by step. `launches: auto` aims at a precision of timed
        generation, so messages and drift get the default number.
        """
        wanted = MODES[mode].launches
        if wanted == "one":
            return 1
        if isinstance(self.launches, dict):
            return self.launches.get(mode, DEFAULT_LAUNCHES)
        if self.launches != "auto":
            return self.launches
        return DEFAULT_LAUNCHES if wanted == "least" else self.precision.max_launches


if TYPE_CHECKING:
    Config = _Config
else:
    # Each mode has a section by its own key; no type checker follows a registry.
    _sections = {mode.settings: mode.section.get() for mode in MODES.values() if mode.section}
    Config = create_model(
        "Config",
        __base__=_Config,
        __module__=__name__,
        __doc__=_Config.__doc__,
        **{key: (section, Field(section(), description=inspect.getdoc(section))) for key, section in _sections.items()},
    )
