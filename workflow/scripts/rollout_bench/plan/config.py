"""The config: every key that a user can write, with its meaning and its default.

The JSON schema in workflow/schemas/config.schema.json and the reference in docs/ are generated from here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rollout_bench.checkpoints.shapes import SyntheticModel
from rollout_bench.plan.comparing import Baseline, ComparisonSettings, Precision
from rollout_bench.plan.fields import (
    Args,
    Count,
    Folder,
    Index,
    Launches,
    MaybeNames,
    Name,
    Names,
    Number,
    Pattern,
    Program,
    Text,
    Variable,
    VariableText,
    Weights,
)
from rollout_bench.plan.kubernetes import KubernetesSettings
from rollout_bench.plan.loads import Length, SharedPrefix
from rollout_bench.plan.machine import ClusterSettings
from rollout_bench.plan.profiling import OperatorRule, OperatorsSettings, ProfileSettings
from rollout_bench.plan.serving import Dataset, Endpoint, OnlineLoad, Slo, Timeouts
from rollout_bench.plan.spec import Isolation
from rollout_bench.plan.strict import Strict

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
    multiprocess: bool | None = Field(
        None,
        description=(
            "true: the engine core is a process of its own, as verl runs it. false: it runs in the measuring process "
            "and starts faster. null: true on accelerators, false on cpu, where two processes would share the cores."
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
    engine_args: EngineArgs = Field({}, description="This model's own arguments; they win over all others.")


class QuantSettings(Strict):
    """Changes to a known quant, or a new one. What is left out comes from the built-in table."""

    weights_format: (
        Literal[
            "bf16",
            "compressed-tensors-w8a8",
            "compressed-tensors-w8a16",
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
    engine_args: EngineArgs = Field({}, description="Arguments for this quant, for instance quantization.")


class WorkloadSettings(Strict):
    """The load that one iteration puts on the engine, offline and online."""

    prompts: Count = Field(
        32, description="Distinct prompts in one iteration: what one engine gets of train_batch_size."
    )
    samples_per_prompt: Count = Field(8, description="Sequences generated for each prompt: verl's rollout.n.")
    prompt_tokens: Length = Field(
        512,
        description=(
            "Tokens in each prompt: a number, or {distribution: uniform|normal|lognormal|zipf, ...}. With prompts "
            "from a data set: the most of each that count. A trace has its own."
        ),
    )
    output_tokens: Length = Field(
        256,
        description=(
            "Tokens generated for each sequence: a number, or how they are distributed. The samples of one prompt each "
            "have their own. Of a ShareGPT data set: at most these; a trace has its own."
        ),
    )
    shared_prefix: SharedPrefix | None = Field(None, description="Tokens that prompts begin with together.")
    dataset: Dataset | None = Field(None, description="A file that lengths or prompts come from.")
    requests: Literal["per_sequence", "per_prompt"] = Field(
        "per_sequence",
        description=(
            "per_sequence: each sample is a request of its own, as verl sends them; per_prompt: one "
            "request with n samples, which loses most per-sequence times."
        ),
    )
    ignore_eos: bool = Field(True, description="Generate all output tokens even when the model ends the text earlier.")
    temperature: Annotated[Number, Field(ge=0, le=100)] = Field(1.0, description="Sampling temperature.")
    top_p: Annotated[Number, Field(gt=0, le=1)] = Field(1.0, description="Nucleus sampling: probability mass kept.")
    top_k: Annotated[int, Field(ge=-1, le=10_000_000)] = Field(-1, description="Candidates kept; -1 keeps all.")
    logprobs: Index | None = Field(
        None,
        description=(
            "Log probabilities returned for each token; 0 for the sampled token's alone, as verl asks "
            "for; null for none."
        ),
    )
    seed: Index = Field(0, description="Seed of the prompts, of drawn lengths and of arrivals.")
    online: OnlineLoad = Field(OnlineLoad(), description="How requests arrive where the engine is a server.")
    engine_args: EngineArgs = Field(
        {}, description="Arguments that belong to the load; engine_args, quant and model win over them."
    )


class Config(Strict):
    """A whole config, all overlays merged."""

    platform: Literal["auto", "cpu", "cuda", "ascend"] = Field(
        "auto", description="Kind of device. auto: told from the vLLM that is installed."
    )
    models: MaybeNames = Field(
        description="Models to measure: names in model_settings. Empty where endpoints alone are measured."
    )
    quants: Names = Field(description="Quantizations to measure: bf16, w8a16, w8a8, fp8, or names in quant_settings.")
    modes: Names = Field(
        ["offline"],
        description=(
            "What to measure: offline, throughput through LLM.generate(); online, latency through an OpenAI-compatible "
            "server; profile, where the time of a step goes; operators, the linear layers alone."
        ),
    )
    workloads: Names = Field(description="Loads to measure under: names in workload_settings.")
    launches: Launches = Field(
        3,
        description=(
            "Engine starts for each experiment: more launches, surer differences. auto: as many as precision asks for."
        ),
    )
    precision: Precision = Field(
        Precision(), description="What launches: auto goes on to. Raised later, it adds to the launches that are there."
    )
    warmup_iterations: Index = Field(
        1,
        description=(
            "Passes of the workload that are recorded but not counted, in each launch, at least: a launch whose first "
            "measured passes are still slow adds those, and makes up for them."
        ),
    )
    iterations: Count = Field(5, description="Passes of the workload that count, in each launch.")
    timeout_s: Annotated[Number, Field(gt=0, le=1_000_000)] = Field(
        1800, description="Seconds after which a launch that has not finished is ended and counted as failed."
    )
    timeouts: Timeouts = Field(Timeouts(), description="Limits for the parts of a launch.")
    harness: Literal["vllm", "guidellm"] = Field(
        "vllm",
        description=(
            "What sends the requests of online launches: vllm, the Python entry point of `vllm bench serve`; guidellm."
        ),
    )
    profile: ProfileSettings = Field(ProfileSettings(), description="What launches in mode profile trace.")
    operators: OperatorsSettings = Field(
        OperatorsSettings(), description="What launches in mode operators time: the linear layers' own kernels."
    )
    operator_rules: list[OperatorRule] = Field(
        [], description="What operators of profiles are for, tried before the built-in rules. Measures nothing anew."
    )
    slo: Slo = Field(Slo(), description="What counts as good service: goodput is what met it. Measures nothing anew.")
    endpoints: dict[Name, Endpoint] = Field(
        {},
        description=(
            "Servers that are up already: each is measured under every workload where modes has online. models may be "
            "empty then."
        ),
    )
    diagnose: bool = Field(
        False,
        description="After the run, report step by step for each launch: model path, engine, run, record.",
    )
    bounds_device: Text | None = Field(
        None,
        description=(
            "Device whose published limits `snakemake bounds` computes with: H200, A100 80GB, L4, ... Null: this "
            "machine, measured. Measures nothing anew."
        ),
    )
    baseline: Baseline = Field(
        Baseline(quant="bf16"),
        description=(
            "What speed-ups are relative to: one quant, model, workload or platform, or earlier results. null takes "
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
    engine_args: EngineArgs = Field({}, description="Arguments for every experiment; quant and model win over them.")
    model_settings: dict[Name, ModelSettings] = Field(
        {}, description="Model -> where its weights are and its own settings."
    )
    quant_settings: dict[Name, QuantSettings] = Field(
        {}, description="Quant -> changes to the built-in table, or a new quant."
    )
    workload_settings: dict[Name, WorkloadSettings] = Field({}, description="Workload -> its load.")

    def launches_of(self, mode: str) -> int:
        """How often an experiment in `mode` is launched at most; a profile is one look, and compared step by step.

        What precision `launches: auto` goes for is that of generating; linear layers alone get the least launches.
        """
        if mode == "operators" and self.launches == "auto":
            return self.precision.min_launches
        return 1 if mode == "profile" else self.most_launches

    @property
    def most_launches(self) -> int:
        """How often an experiment that is timed is launched at most."""
        return self.precision.max_launches if self.launches == "auto" else self.launches
