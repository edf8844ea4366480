"""The config: every key that a user can write, with its meaning and its default.

The JSON schema in workflow/schemas/config.schema.json and the reference in docs/ are generated from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from rollout_bench.checkpoints.shapes import SyntheticModel
from rollout_bench.contracts.cycles import CycleSettings
from rollout_bench.contracts.fields import (
    Args,
    AutoCount,
    Count,
    Folder,
    Launches,
    MaybeAuto,
    MaybeNames,
    Name,
    Names,
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
)
from rollout_bench.contracts.load import DriftSettings, Harness
from rollout_bench.contracts.metrics import COMPARED, METRICS, MetricName, Metrics
from rollout_bench.contracts.modes import MODES, OFFLINE, mode_of, only_mode
from rollout_bench.contracts.placed_steps import PlacementSettings
from rollout_bench.contracts.spec import (
    Isolation,
    Iterations,
    MessagesSettings,
    ProfileSettings,
    RolloutSettings,
    WarmupIterations,
    Workload,
)
from rollout_bench.contracts.starts import StartupSettings
from rollout_bench.llmd.profiled import WorkloadProfile
from rollout_bench.plan.pods import KubernetesSettings
from rollout_bench.plan.serving import Dataset, Endpoint, OnlineLoad, Slo


class ClusterSettings(Strict):
    """What each launch asks a cluster for. Its devices follow from the engine arguments."""

    cpus_per_device: Count = Field(8, description="Cores for each device of a launch.")
    device_resource: Text | None = Field(
        None,
        description=(
            "What the cluster calls a device: gpu or npu, or with a type gpu:h200, for Slurm; nvidia.com/gpu or "
            "huawei.com/Ascend910 for Kubernetes. Null: what is usual on the platform; none on cpu."
        ),
    )


DEFAULT_LAUNCHES = 3
"""Of an experiment of which the config does not say how many, and the least of `launches: auto`."""


class Baseline(Strict):
    """What all is compared with, by its name on one axis or several.

    Of what is not named here, both sides have the same: {quant: bf16} compares under each setting apart, {quant: bf16,
    setting: default} compares every quant under every setting with bf16 under none. Mappings are merged, so null takes
    back an axis that a config below names.
    """

    quant: Name | None = Field(None, description="This quant of the same model under the same workload.")
    model: Name | None = Field(None, description="This model.")
    workload: Name | None = Field(None, description="This workload.")
    setting: Name | None = Field(None, description="This setting; default is what no setting changes.")

    @property
    def named(self) -> dict[str, str]:
        """Its axes with their values."""
        return self.model_dump(exclude_none=True)

    @model_validator(mode="before")
    @classmethod
    def _null(cls, values: Any) -> Any:
        # The command line delivers all as text.
        return {axis: None if v == "null" else v for axis, v in values.items()} if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _some_axis(self) -> Baseline:
        if not self.named:
            raise ValueError("names no axis, but takes at least one: write {quant: bf16}")
        return self


if TYPE_CHECKING:
    ComparedMode = str
else:
    ComparedMode = Literal[tuple(mode.name for mode in MODES.values() if mode.metrics)]
    """A mode whose experiments are compared by metrics; no type checker follows a registry."""


class ComparisonSettings(Strict):
    """When a difference from the baseline is called one."""

    confidence: Annotated[Number, Field(ge=0.5, le=0.9999)] = Field(
        0.95,
        description=(
            "Confidence of the intervals, together for all that has the same baseline. 1 - confidence is the chance "
            "that a metric's column without any true difference shows even one ^ or v."
        ),
    )
    relevant_difference: Annotated[Number, Field(ge=0, le=1)] = Field(
        0.01, description="Speed-ups closer to 1 than this fraction are never called ^ or v, however sure they are."
    )
    metrics: dict[ComparedMode, Metrics] = Field(
        {mode.name: list(mode.metrics) for mode in MODES.values() if mode.metrics},
        description=(
            "Mode -> what its experiments are compared by, each in a column of its own, of: "
            f"{', '.join(f'`{name}`' for name in COMPARED)}; "
            "modes that are left out keep their default. The figure shows the first, which decides. Where less is "
            "better, as with times, the speed-up is the inverse ratio: above 1 is always better. Only online has the "
            "metrics of requests (goodput_requests_per_s needs a limit in slo), only cycle whole_step_s and cycle_s, "
            "only placement placed_step_s. Where requests arrive at a rate that the server keeps up with, "
            "output_tokens_per_s and step_time_s are set by the load and get no verdict."
        ),
    )

    @field_validator("metrics")
    @classmethod
    def _of_their_modes(cls, metrics: dict[str, list[MetricName]]) -> dict[str, list[MetricName]]:
        for mode, names in metrics.items():
            for name in names:
                if (own := only_mode(METRICS[name])) not in ("", mode):
                    raise ValueError(f"{mode}: {name!r} is of mode {own} alone: name it there")
        return metrics

    def metrics_of(self, mode: str) -> list[MetricName]:
        """Return what is compared of the experiments of `mode`."""
        known = mode_of(mode)
        return self.metrics.get(known.name, list(known.metrics))


class Precision(Strict):
    """When `launches: auto` has launched enough."""

    half_width: Annotated[Number, Field(ge=0.0001, le=1)] = Field(
        0.01,
        description=(
            "An experiment is launched as often as it takes for the interval of its speed-up (the first metric's) to "
            "reach no further than this fraction off the speed-up."
        ),
    )
    max_launches: Annotated[AutoCount, Field(ge=DEFAULT_LAUNCHES)] = Field(
        12,
        description=(
            "Launches of each experiment at most, invalid ones included. The spread of the first 3 says how many there "
            "are to be, of the first 4 where only one experiment is compared with the baseline."
        ),
    )


EngineArgs = Annotated[
    Args,
    Field(
        description=(
            "Arguments of vLLM's EngineArgs by their Python names: tensor_parallel_size, max_model_len, "
            "max_num_seqs, gpu_memory_utilization, dtype, trust_remote_code, enforce_eager, load_format, "
            "kv_cache_memory_bytes, ... Checked against the vLLM that is installed."
        )
    ),
]


class EngineSettings(Strict):
    """How the engine is run."""

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
            "Environment variables set for the engine, as text. No secrets: those are inherited from where snakemake "
            "runs."
        ),
    )


class ModelSettings(Strict):
    """A model: where its weights are for each quant, or how to build them."""

    weights: dict[Name, Weights] = Field(
        {},
        description=(
            "Quant -> where its weights are: a folder below model_base, an absolute path, or hub:<owner>/<name>."
        ),
    )
    synthetic: SyntheticModel | None = Field(
        None, description="Build the weights instead: random values in a real architecture, in every quant."
    )
    engine_args: EngineArgs = Field(
        {}, description="This model's own arguments; they win over all others but a setting's."
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
    "int8_per_token_head",
    "int4_per_token_head",
    "nvfp4",
]
"""What vLLM calls the data types of a KV cache."""


class QuantSettings(Strict):
    """Changes to a known quant, or a new one. What is left out comes from the built-in table."""

    weights_format: (
        Literal[
            "bf16",
            "compressed-tensors-w8a8",
            "compressed-tensors-w8a16",
            "compressed-tensors-w4a16",
            "modelslim-w8a8",
            "modelslim-w8a16",
            "own",
        ]
        | None
    ) = Field(
        None,
        description=(
            "Layout of the checkpoint to load: bf16 for quants that the engine makes while loading; own"
            " for one that only this quant's weights have."
        ),
    )
    linear_dtypes: list[Text] | None = Field(
        None,
        description=("Proof: data types, any of which the linear layers must have once loaded (int8, bfloat16, ...)."),
    )
    linear_method: Pattern | None = Field(
        None,
        description="Proof: regular expression that the engine's name of each linear layer's method must match.",
    )
    kv_cache_dtype: CacheDtype | None = Field(
        None,
        description=(
            "Proof: data type that the KV cache of each layer must have; null: that of engine_args, or of the quant "
            "that is known."
        ),
    )
    engine_args: EngineArgs = Field({}, description="Arguments for this quant, for instance quantization.")


class WorkloadSettings(Workload):
    """The load that one iteration puts on the engine, offline and online."""

    profile: WorkloadProfile | None = Field(
        None,
        description=(
            "A workload profile of llm-d-benchmark: {harness: guidellm, path: sanity_concurrent, overrides: {...}}. It "
            "sets the keys of this workload that it says anything of."
        ),
    )
    dataset: Dataset | None = Field(None, description="A file that lengths or prompts come from.")
    online: OnlineLoad = Field(OnlineLoad(), description="How requests arrive where the engine is a server.")
    engine_args: EngineArgs = Field(
        {}, description="Arguments that belong to the load; engine_args, quant and model win over them."
    )


Partial = dict[str, Any]
"""A part of a config: what a setting changes, which wins over all else."""


class Config(Strict):
    """A whole config, all overlays merged."""

    platform: Literal["auto", "cpu", "cuda", "ascend"] = Field(
        "auto", description="Kind of device. auto: told from the vLLM that is installed."
    )
    models: MaybeNames = Field(
        description="Models to measure: names in model_settings. Empty where endpoints alone are measured."
    )
    quants: Names = Field(
        description=(
            "Quantizations to measure: bf16, w8a16, w8a8, w4a16, fp8, fp8-block, fp8-channel, bf16-kv8, w8a8-kv8, "
            "fp8-kv8, or names in quant_settings."
        )
    )
    modes: Names = Field(
        [OFFLINE.name],
        description=f"What to measure: {'; '.join(f'{mode.name}, {mode.title}' for mode in MODES.values())}.",
    )
    workloads: Names = Field(description="Loads to measure under: names in workload_settings.")
    settings: Names | None = Field(
        None,
        description=(
            "Settings to measure with: default, which changes nothing, names in setting_settings, or names that sweep "
            "makes. Null: default and all that sweep makes; in mode cycle, what its lists make in place of default."
        ),
    )
    sweep: Sweep = Field(
        {},
        description=(
            "Engine argument or key of a workload -> its values: each combination is a setting, named after them: "
            "{max_num_seqs: [8, 32]} makes max-num-seqs-8 and max-num-seqs-32. Where both have a key: workload.seed, "
            "engine_args.seed. Keys of rollout and cycle: rollout.router, cycle.update."
        ),
    )
    launches: Launches = Field(
        DEFAULT_LAUNCHES,
        description=(
            "Engine starts for each experiment: more launches, surer differences. auto: as many as precision asks for. "
            "Or a number for each mode, {offline: 5, online: 2}; a mode that is not named has the default."
        ),
    )
    precision: Precision = Field(
        Precision(),
        description=(
            "What launches: auto goes on to. Raised later, it adds to the launches that are there. Choose it before "
            "you look at the result: to ask for more because of what a difference looked like finds false ones."
        ),
    )
    warmup_iterations: WarmupIterations = 1
    iterations: Iterations = "auto"
    interleave: MaybeAuto = Field(
        "auto",
        description=(
            "true: the engines of one comparison are alive at the same time and make their passes in turn, so that a "
            "machine that drifts hits all alike; with less memory than all of them need, the baseline and as many "
            "others as fit. false: one engine after the other. auto: true on cpu where the memory is enough. No part "
            "of an experiment's key."
        ),
    )
    timeout_s: Annotated[Seconds, Field(ge=1)] | None = Field(
        None,
        description=(
            "Seconds after which a launch that has not finished is ended and counted as failed. Null: 1800, or more "
            "where loads are held for longer."
        ),
    )
    harness: Harness = "rollout-bench"
    profile: ProfileSettings = Field(
        ProfileSettings(),
        description=(
            "What launches in mode profile trace. On the command line also HARNESS/NAME, with overrides={...}: a "
            "workload profile of llm-d-benchmark, measured alone."
        ),
    )
    messages: MessagesSettings = Field(
        MessagesSettings(), description="What launches in mode messages look at: what engine and workers send."
    )
    drift: DriftSettings = Field(
        DriftSettings(), description="What launches in mode drift score: tokens that a reference sampled."
    )
    rollout: RolloutSettings = Field(
        RolloutSettings(), description="How launches in mode rollout generate a step: engines and router."
    )
    cycle: CycleSettings = Field(
        CycleSettings(), description="What launches in mode cycle do between two generations: sleep, wake-up, update."
    )
    placement: PlacementSettings = Field(
        PlacementSettings(), description="Where launches in mode placement have their engines and their trainer."
    )
    startup: StartupSettings = Field(
        StartupSettings(), description="What engines find that launches in mode startup start: caches, weights."
    )
    slo: Slo = Field(Slo(), description="What counts as good service: goodput is what met it. Measures nothing anew.")
    endpoints: dict[Name, Endpoint] = Field(
        {},
        description=(
            "Servers that are up already: each is measured under every workload where modes has online. models may be "
            "empty then."
        ),
    )
    baseline: Baseline = Field(
        Baseline(quant="bf16"),
        description=(
            "What speed-ups are relative to: one quant, model, workload or setting. null takes "
            "back an axis that a config below this one names: {quant: null, model: qwen3-8b}."
        ),
        json_schema_extra={"default": {"quant": "bf16"}},
    )
    comparison: ComparisonSettings = Field(
        ComparisonSettings(), description="When a difference from the baseline is called one. Measures nothing anew."
    )
    model_base: Folder = Field(
        "models", description="Folder that weights are found below, and synthetic ones built in."
    )
    isolation: Isolation | None = Field(
        None,
        description=(
            "exclusive: a launch has the machine for itself. per_device: launches run side by side, each on devices of "
            "its own. Null: exclusive on cpu and of endpoints, where they would slow each other, else per_device."
        ),
    )
    devices: Count | None = Field(
        None,
        description=(
            "Devices of a machine that launches may hold at the same time; on cpu the cores are divided into so many "
            "blocks. Null: all visible ones; on cpu one block for each replica."
        ),
    )
    cluster: ClusterSettings = Field(ClusterSettings(), description="What each launch asks a cluster for.")
    kubernetes: KubernetesSettings = Field(KubernetesSettings(), description="How launches run on Kubernetes.")
    engine: EngineSettings = Field(EngineSettings(), description="How the engine is run.")
    engine_args: EngineArgs = Field(
        {},
        description="Arguments for every experiment. Later ones win: rollout-bench's own (enable_prefix_caching: true, "
        "seed: 0, max_model_len: prompt + output tokens, the longest there are), the workload's, these, the quant's, "
        "the model's, the setting's.",
    )
    model_settings: dict[Name, ModelSettings] = Field(
        {}, description="Model -> where its weights are and its own settings."
    )
    quant_settings: dict[Name, QuantSettings] = Field(
        {}, description="Quant -> changes to the built-in table, or a new quant."
    )
    workload_settings: dict[Name, WorkloadSettings] = Field({}, description="Workload -> its load.")
    setting_settings: dict[Name, Partial] = Field(
        {},
        description=(
            "Setting -> what is something else under it, laid over this config: engine_args (they win over all), "
            "engine: {environment: ...}, harness, rollout, cycle, placement, startup; workload: keys of "
            "workload_settings, of every workload."
        ),
    )

    def launches_of(self, mode: str) -> int:
        """Return the maximum number of launches of an experiment in `mode`.

        A profile has one launch and is compared step by step.

        `launches: auto` aims at a precision of timed generation; modes that look inside get the default number.
        """
        wanted = MODES[mode].launches
        if wanted == "one":
            return 1
        if isinstance(self.launches, dict):
            return self.launches.get(mode, DEFAULT_LAUNCHES)
        if self.launches != "auto":
            return self.launches
        return DEFAULT_LAUNCHES if wanted == "least" else self.precision.max_launches

    @property
    def most_launches(self) -> int:
        """How often any of the experiments is launched at most."""
        return max(self.launches_of(mode) for mode in self.modes)
