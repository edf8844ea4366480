"""The record of one launch: its measurements, with everything needed to judge them later.

It has raw values only; derived values are computed when they are needed.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

from pydantic import Field, create_model

from rollout_bench.contracts.fields import Strict, UtcTime, absent
from rollout_bench.contracts.load import LoadPoint
from rollout_bench.contracts.mode import Lazy, Mode
from rollout_bench.contracts.mode_parts import ModePart
from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.spec import Isolation, Spec
from rollout_bench.contracts.weights import WeightProof

_Part = TypeVar("_Part", bound=ModePart)
_Fields = Lazy[Mapping[str, tuple[type[ModePart], str]]]


def _with_fields_of_modes(base: type[Strict], fields_of: Callable[[Mode], _Fields | None]) -> type[Strict]:
    """Return `base` with the fields that modes that generate have of their own.

    No type checker follows a registry: a mode's code gets its own field by `of`.
    """
    parts = [section.get() for mode in MODES.values() if mode.generates and (section := fields_of(mode))]
    fields: dict[str, Any] = {
        name: (model | None, absent(text)) for part in parts for name, (model, text) in part.items()
    }
    name = base.__name__.removeprefix("_")
    return create_model(name, __base__=base, __module__=__name__, __doc__=base.__doc__, **fields)


class _WithParts(Strict):
    """What modes add fields to."""

    def of(self, part: type[_Part]) -> _Part | None:
        """Return what only its mode adds, a `part`; None without it."""
        return next((fields for fields in self.parts() if isinstance(fields, part)), None)

    def parts(self) -> list[ModePart]:
        """Return what only its mode adds."""
        return [value for _, value in self if isinstance(value, ModePart)]


class Served(Strict):
    """A server's description of itself."""

    model: str = Field(description="The model's name in /v1/models.")
    version: str | None = Field(description="Version from /version. Null if the server has no such endpoint.")
    max_model_len: int | None = Field(description="Value from /v1/models. Null if missing.")
    owned_by: str | None = Field(None, description="The model's owner in /v1/models: vllm, llamacpp, ...")
    token_ids: bool = Field(True, description="Whether it accepts prompts as token ids.")
    counts_tokens: bool = Field(True, description="Whether every token of its answers can be counted.")


class ClientUse(Strict):
    """Cost of sending the requests of one iteration and of receiving the answers."""

    cpu_share: float = Field(
        ge=0,
        description=(
            "CPU time of the sending process over the iteration's time: 1 is a core. The busiest of several processes."
        ),
    )
    loop_delay_median_s: float | None = Field(None, ge=0, description="Median delay of the event loop, in seconds.")
    loop_delay_p99_s: float | None = Field(
        None, ge=0, description="99th percentile of the event loop's delay, in seconds."
    )
    ran_late_share: float | None = absent(
        "Share of these delays in which the process itself ran. Null if unknown.", ge=0
    )
    seen_late_median_s: float | None = absent(
        "Median delay until a piece of an answer was seen, at most, in seconds: of first pieces or of all, the longer.",
        ge=0,
    )
    seen_late_p99_s: float | None = absent("The same at the 99th percentile.", ge=0)
    ttft_added_median_s: float | None = absent(
        "What these delays add to the median TTFT, in seconds: at most, unless the process is busy.", ge=0
    )
    ttft_added_p99_s: float | None = absent("The same at the 99th percentile.", ge=0)

    @classmethod
    def of(cls, cpu_share: float, late_s: Sequence[float], every_s: float) -> "ClientUse":
        """Return the cost of an event loop that was `late_s` [n] at each check, with `every_s` between checks.

        Percentiles are weighted by time: a delay counts for as long as it lasted.
        """
        if not late_s:
            return cls(cpu_share=cpu_share)
        ordered = sorted(late_s)
        until_s = list(accumulate(every_s + late for late in ordered))

        def at(share: float) -> float:
            return ordered[min(bisect_left(until_s, share * until_s[-1]), len(ordered) - 1)]

        return cls(
            cpu_share=cpu_share,
            loop_delay_median_s=at(0.5),
            loop_delay_p99_s=at(0.99),
        )


class ServerUse(Strict):
    """Increase of the server's counters and histograms in one iteration; means are sums over counts."""

    requests: int | None = Field(None, ge=0, description="Successful requests.")
    prompt_tokens: int | None = Field(None, ge=0, description="Prompt tokens.")
    output_tokens: int | None = Field(None, ge=0, description="Generated tokens.")
    ttft_mean_s: float | None = Field(None, ge=0, description="Mean time to first token, measured at the server.")
    itl_mean_s: float | None = Field(None, ge=0, description="Mean time between two tokens.")
    e2el_mean_s: float | None = Field(None, ge=0, description="Mean end-to-end latency.")
    queue_mean_s: float | None = Field(
        None, ge=0, description="Mean waiting time of a request before it was scheduled."
    )
    preemptions: int | None = Field(None, ge=0, description="Preemptions.")
    prefix_cache_queries: int | None = Field(None, ge=0, description="Prompt tokens looked up in the prefix cache.")
    prefix_cache_hits: int | None = Field(None, ge=0, description="Prompt tokens that were found in the prefix cache.")


class Placement(Strict):
    """Node and devices of a launch while its engine was alive, and its neighbours."""

    node: str = Field(description="Name of the machine.")
    devices: list[str] = Field(
        description=(
            "Devices of the launch, replica after replica, by names that are unique on the machine: a GPU's "
            "UUID, npu-0, or on cpu the cores of a block: cores-0-3."
        )
    )
    visible: list[str] = Field(
        description="The same devices in the form given to the engine: CUDA_VISIBLE_DEVICES, or cores."
    )
    isolation: Isolation = Field(description="Permitted neighbours.")
    waited_s: float = Field(ge=0, description="Waiting for free devices, in seconds.")
    neighbours: list[str] = Field(
        description=(
            "Launches on other devices of the same node during a measured iteration, as "
            "<mode>/<experiment>/launch-<i>, or of another workflow."
        )
    )
    job: str | None = absent("Id of the scheduler's job: Slurm's, or the pod's name. Null outside of a scheduler.")


class Block(Strict):
    """The engines that a launch was interleaved with; all are alive simultaneously."""

    id: str = Field(pattern="^[0-9a-f]{16}$", description="Random id of the block; the same in all of its records.")
    members: list[str] = Field(
        min_length=1,
        description="Initial engines, as <mode>/<experiment>, the baseline first.",
    )
    order: list[list[int]] = Field(
        description=(
            "For each round, from 0, the engines that made an iteration, in that order, as positions in members."
            " An engine that failed is missing from then on."
        )
    )
    waited_s: float = Field(
        ge=0,
        description=(
            "Total waiting of the launch for its turn, in seconds; a part of wall_s. Both end with its last "
            "iteration, so later waiting for the others is in neither."
        ),
    )


class _ReplicaPass(_WithParts):
    """One replica's part of an iteration."""

    start_offset_s: float = Field(
        ge=0, description="Beginning, in seconds after the release, which is the beginning of the first replica."
    )
    elapsed_s: float = Field(
        gt=0,
        description=(
            "From handing over its first request until its last token was back, in seconds; in a rollout from "
            "the step's beginning, at most until the step had enough sequences."
        ),
    )
    requests: int = Field(ge=0, description="Requests handed to it; in a rollout only those that the step needed.")
    sequences: int = Field(
        ge=0,
        description=(
            "Completed sequences; in a rollout only those that the step needed, or all if unfinished ones go on."
        ),
    )
    prompt_tokens: int = Field(ge=0, description="Prompt tokens of all its sequences.")
    cached_prompt_tokens: int | None = Field(
        None, ge=0, description="Prompt tokens from its prefix cache. Null if unknown."
    )
    output_tokens: int = Field(ge=0, description="Generated tokens; in a rollout only those that the step needed.")
    prompts: int | None = absent(
        "Distinct prompts among its sequences. Null if each replica has separate prompts.", ge=0
    )
    preemptions: int | None = absent("Preemptions. Null if unknown, or if recorded elsewhere.", ge=0)
    peak_running: int | None = absent(
        "Maximum number of sequences that its engine ran simultaneously. Null if unknown.", ge=0
    )
    kv_cache_peak: float | None = absent("Largest used share of its KV cache. Null if unknown.", ge=0)

    @property
    def end_s(self) -> float:
        """End, in seconds after the release."""
        return self.start_offset_s + self.elapsed_s


if TYPE_CHECKING:
    ReplicaPass = _ReplicaPass
else:
    ReplicaPass = _with_fields_of_modes(_ReplicaPass, lambda mode: mode.replica_fields)


class ReplicaStart(Strict):
    """Duration of one replica's start; replicas start simultaneously."""

    import_s: float = Field(ge=0, description="As in `startup`.")
    init_s: float = Field(ge=0, description="As in `startup`.")
    kv_cache_tokens: int | None = Field(None, description="Tokens that fit into its KV cache. Null if unknown.")


class _Startup(Strict):
    """Parts of the time before the first iteration."""

    process_s: float | None = Field(
        None,
        ge=0,
        description="From the launch's beginning until the engine process ran, in seconds. Null in earlier records.",
    )
    import_s: float = Field(
        ge=0,
        description=("Importing the engine, in seconds. 0 for a server, which imports it within init_s."),
    )
    init_s: float = Field(
        ge=0,
        description=(
            "Constructing the engine until it accepts requests, in seconds. For a server: from its start until it "
            "has answered."
        ),
    )
    forked: bool | None = absent(
        "True if the engine's process was forked from one that had imported the engine for all launches of the call; "
        "import_s is the time of that import. Null otherwise."
    )
    reported: dict[str, float] = Field(
        {},
        description=(
            "Values from the engine's log: model_build_s, weights_load_s, online_quantization_s, model_load_s, "
            "model_memory_gib, compile_s (on cpu to whole seconds), compile_cache_loads (graphs from the compile"
            " cache), profile_run_s, graph_capture_s, graph_capture_gib, engine_init_s, kv_cache_memory_gib."
        ),
    )
    replicas: list[ReplicaStart] | None = absent("The start of each replica; import_s and init_s are the slowest's.")


if TYPE_CHECKING:
    Startup = _Startup
else:
    Startup = _with_fields_of_modes(_Startup, lambda mode: mode.start_fields)


SCHEMA_VERSION: Final = 1
"""Increased when earlier records become unreadable: a field is removed, has a new meaning, or lacks a default."""


class Environment(Strict):
    """Software and hardware of the launch."""

    engine_name: str = Field(description="Distribution that provides the engine.")
    engine_version: str = Field(description="Version of the engine as found where it ran.")
    plugins: dict[str, str] = Field({}, description="Platform plugins with their versions.")
    torch_version: str = Field(description="Version of torch.")
    python_version: str = Field(description="Version of the Python that ran the engine.")
    packages: dict[str, str] = Field(
        {},
        description=(
            "Versions of other packages that influence speed: transformers, torchao, triton, compressed-tensors, ..."
        ),
    )
    hostname: str = Field(description="Name of the machine.")
    kernel: str = Field(description="Operating system and kernel release.")
    device_model: str = Field(description="Name of the device; on cpu the processor.")
    device_memory_bytes: int | None = Field(None, description="Memory of one device; on cpu the machine's memory.")
    device_count: int = Field(ge=0, description="Devices of the launch, over all replicas; 1 on cpu.")
    cpu_model: str = Field(description="Name of the processor.")
    cpu_cores: int = Field(ge=1, description="Cores that the launch may run on.")
    memory_bytes: int = Field(ge=1, description="Memory of the machine.")
    variables: dict[str, str] = Field(
        {},
        description=(
            "Environment variables that the engine received and that influence it: VLLM_*, OMP_*, CUDA_*, "
            "ASCEND_*, PYTORCH_*, ...; values of secrets are left out."
        ),
    )
    git_commit: str | None = Field(
        None,
        description=("Commit of rollout-bench; ends in -dirty if files differ from it. Null outside a checkout."),
    )


class WeightBytes(Strict):
    """Bytes of the loaded weights by data type, read from the model in the worker."""

    linear: dict[str, int] = Field(description="Weights of linear layers and experts, as data type -> bytes.")
    other: dict[str, int] = Field(
        description="Everything else (embeddings, output head, norms, scales, router), as data type -> bytes."
    )


class CacheFacts(Strict):
    """The engine's KV cache, read from its tensors in the worker."""

    layers: dict[str, int] = Field(
        description=(
            "Data type -> layers whose keys and values have it. Several types use one byte per value; for these "
            "vLLM's name is given: fp8_e5m2."
        )
    )
    bytes_per_token: int = Field(ge=0, description="Bytes of one token in all layers, on all devices of an engine.")


def one_cache_name(dtype: str) -> str:
    """Return a unique name for a data type of the KV cache that has two names in vLLM."""
    return {"fp8": "fp8_e4m3"}.get(dtype, dtype)


RUNNER = "use_v2_model_runner"
"""Resolved setting: which of its two model runners vLLM chose, by the model, its weights' format and what is set."""


class AdapterFacts(Strict):
    """An adapter, and what shows that requests use it."""

    tensors: int = Field(ge=1, description="Number of its tensors.")
    values: int = Field(ge=1, description="Number of all values in them.")
    bytes: int = Field(ge=1, description="Their size.")
    held_values: int = Field(
        ge=0, description="Values other than zero that the layers of all workers hold for it, or that were merged."
    )
    room_bytes: int | None = absent(
        "Memory that the layers of all workers keep for an adapter of max_rank. Null if unknown.", ge=0
    )
    logprob_difference: float = Field(
        ge=0, description="Largest difference of a prompt token's log probability with and without it, in nats."
    )


class EngineFacts(Strict):
    """Values that the engine reported after loading."""

    resolved: dict[str, Any] = Field(
        {},
        description=(
            "Relevant settings as resolved by the engine: max_model_len, max_num_seqs, enable_prefix_caching, "
            "block_size, ..."
        ),
    )
    kv_cache_tokens: int | None = Field(None, description="Tokens that fit into the KV cache. Null if unknown.")
    weights_bytes_by_dtype: WeightBytes | None = Field(description="Null if unknown, for example for an endpoint.")
    linear_methods: dict[str, int] = Field(
        description=("The engine's name of each linear layer's quantization method or scheme -> number of layers.")
    )
    served: Served | None = absent("The server's description of itself. Null offline.")
    linear_kernels: dict[str, int] | None = absent(
        "Kernel chosen by the method of a linear layer -> number of layers. Null if the methods name none."
    )
    kv_cache: CacheFacts | None = absent("Its KV cache. Null if it could not be inspected.")
    adapter: AdapterFacts | None = absent("Its adapter. Null without one.")
    overruled: dict[str, Any] | None = absent(
        "Engine argument, or `<argument>.<key>` -> the engine's value, if it differs from the requested one."
        " Null if no reported value differs."
    )


class HostUse(Strict):
    """Other activity of the machine during one iteration, read by the supervisor immediately before and after it.

    Cores are the cores that the launch may run on. Values are null if the system does not provide them.
    """

    window_s: float = Field(gt=0, description="Time between the two readings, in seconds.")
    cores: int = Field(ge=1, description="Cores that the shares refer to.")
    steal_share: float | None = Field(
        None, ge=0, description="Share of the cores' time that the hypervisor gave to other machines."
    )
    other_cpu_share: float | None = Field(
        None, ge=0, description="Share of the cores' time used by processes outside of this launch."
    )
    busiest_other: str | None = Field(
        None,
        description="Name, pid and user of the process outside this launch with the highest use. Null: there was none.",
    )
    memory_pressure_share: float | None = Field(
        None, ge=0, description="Share of the time during which some process waited for memory (/proc/pressure/memory)."
    )
    swap_bytes: int | None = Field(None, ge=0, description="Bytes swapped in and out.")


class DeviceUse(Strict):
    """Readings of a device for one iteration, immediately before and after it."""

    device: str = Field(description="UUID of the device; for a CPU the counters that are summed for its energy.")
    thermal_share: float | None = Field(
        None, ge=0, description="Share of the time during which its clock was lowered because of heat."
    )
    power_share: float | None = Field(
        None, ge=0, description="Share of the time during which its clock was lowered to stay within the power limit."
    )
    power_limit_w: float | None = Field(None, description="Power limit in force, in watts.")
    power_limit_default_w: float | None = Field(None, description="Default power limit, in watts.")
    temperature_c: int | None = Field(None, description="Temperature afterwards, in degrees Celsius.")
    window_s: float | None = absent(
        "Time between the two readings, in seconds. Null if energy_j is null.",
        gt=0,
    )
    energy_j: float | None = absent(
        ("Energy between the readings by its own counter, memory included, in joules. Null if it has no counter."),
        ge=0,
    )
    other_processes: int | None = Field(
        None, description="Processes outside this launch that held memory on it. Null if unknown."
    )
    other_memory_bytes: int | None = Field(
        None, description="Memory of the device that processes outside this launch held."
    )


class Drafting(Strict):
    """Speculative decoding in one iteration, from the engine's counters."""

    drafts: int = Field(ge=0, description="Number of drafts, one per proposal for a sequence.")
    draft_tokens: int = Field(ge=0, description="Proposed tokens.")
    accepted_tokens: int = Field(ge=0, description="Accepted draft tokens: the model would have generated them itself.")
    accepted_by_position: list[int] = Field(
        description="Accepted draft tokens at each position of their drafts, from the first. Empty if unknown."
    )

    @classmethod
    def together(cls, parts: Sequence["Drafting | None"]) -> "Drafting | None":
        """Return the sums of `parts`; None if any of them is unknown."""
        known = [part for part in parts if part is not None]
        if not known or len(known) < len(parts):
            return None
        positions = max(len(part.accepted_by_position) for part in known)
        return cls(
            drafts=sum(part.drafts for part in known),
            draft_tokens=sum(part.draft_tokens for part in known),
            accepted_tokens=sum(part.accepted_tokens for part in known),
            accepted_by_position=[
                sum(part.accepted_by_position[place] for part in known if place < len(part.accepted_by_position))
                for place in range(positions)
            ],
        )


class GraphUse(Strict):
    """Steps of one iteration that only decode, and those in a captured graph, from the engine's own statistics."""

    decode_steps: int = Field(ge=0, description="Steps that only decode: in which no prompt is computed.")
    in_graphs: int = Field(ge=0, description="Those of them that ran in a captured graph.")
    tokens: int = Field(ge=0, description="Tokens of the steps in graphs.")
    padded_tokens: int = Field(ge=0, description="Tokens that these graphs are made for.")
    most_outside: int = Field(ge=0, description="Most tokens of a decode step outside of graphs; 0 without such steps.")
    largest: int = Field(ge=0, description="Tokens of the largest captured graph; 0 if the engine captures none.")

    @classmethod
    def together(cls, parts: Sequence["GraphUse | None"]) -> "GraphUse | None":
        """Return the sums of the counts of `parts`, and their largest sizes; None if any of them is unknown."""
        known = [part for part in parts if part is not None]
        if not known or len(known) < len(parts):
            return None
        sums = {name: sum(getattr(part, name) for part in known) for name in cls.model_fields}
        return cls(**sums | {size: max(getattr(part, size) for part in known) for size in ("most_outside", "largest")})


MOST_TOKENS = 10**12
"""Bound of the tokens of an iteration: no engine generates as many in a year."""


class Witness(Strict):
    """What others than our own count and clock say of an iteration."""

    prompt_tokens: int = Field(ge=0, description="Prompt tokens: increase of the engine's own counter.")
    output_tokens: int = Field(ge=0, description="Generated tokens: increase of the engine's own counter.")
    raw_s: float = Field(
        gt=0, description="Seconds on the clock that nothing adjusts (CLOCK_MONOTONIC_RAW), read around elapsed_s."
    )


class _Iteration(_WithParts):
    """One iteration of the workload."""

    index: int = Field(ge=0, description="Number of the iteration in the launch, warm-up included, from 0.")
    warmup: bool = Field(description="True: recorded but not counted.")
    elapsed_s: float = Field(
        gt=0,
        description=(
            "From handing over the first request until the last token was back, in seconds; with several "
            "replicas, from the first one's beginning until the slowest one's end."
        ),
    )
    requests: int = Field(
        ge=0, description="Requests handed to the engine; in a rollout only those that the step needed."
    )
    sequences: int = Field(
        ge=0,
        description=(
            "Completed sequences; in a rollout only those that the step needed, or all if unfinished ones go on."
        ),
    )
    prompt_tokens: int = Field(
        ge=0,
        le=MOST_TOKENS,
        description=(
            "Prompt tokens of all sequences, counted from the engine's answers (n sequences of one prompt count "
            "n times)."
        ),
    )
    cached_prompt_tokens: int | None = Field(
        None, ge=0, description="Prompt tokens from the engine's prefix cache. Null if unknown."
    )
    output_tokens: int = Field(ge=0, le=MOST_TOKENS, description="Generated tokens, counted from the engine's answers.")
    host: HostUse | None = Field(
        None, description="Other activity of the machine. Null in records of earlier versions."
    )
    devices: list[DeviceUse] | None = Field(None, description="Readings of each device. Null if no device can be read.")
    round: int | None = absent(
        "Round of the iteration in its block, from 0. Null for warm-up and outside of a block.", ge=0
    )
    point: LoadPoint | None = absent("Arrival of the requests. Null offline.")
    failed: int | None = absent("Requests that failed; their tokens are not counted. Null offline.", ge=0)
    incomplete: int | None = absent(
        (
            "Requests that were cut because the duration of the load was over. Their tokens until then are "
            "counted. Null unless the load has a duration_s."
        ),
        ge=0,
    )
    client: ClientUse | None = absent("Cost of sending the requests. Null offline.")
    server: ServerUse | None = absent("The server's own metrics for the iteration. Null if it has none.")
    replicas: list[ReplicaPass] | None = absent(
        "The part of each replica. Null for a single replica, except in rollouts."
    )
    drafting: Drafting | None = absent(
        "Speculative decoding. Null if the engine has none or its counters were not read, as in placements; "
        "behind a server the values are the server's counters."
    )
    graphs: GraphUse | None = absent(
        "Decode steps in captured graphs. Null where the engine does not say it, as on a CPU and behind a server."
    )
    routed_bytes: int | None = absent(
        "Bytes of the ids of experts that came back with the sequences, for a trainer that replays the router. Null if "
        "none were asked for.",
        ge=0,
    )
    witness: Witness | None = absent(
        "Tokens and time from other sources, which `rollout-bench check --deep` compares. Null in earlier records, "
        "behind a server, in rollouts and with several replicas."
    )

    @property
    def whole_s(self) -> float:
        """Seconds of the whole iteration, with all that its mode does besides generation."""
        return next((part.whole_s(self.elapsed_s) for part in self.parts()), self.elapsed_s)

    @property
    def judged_s(self) -> float | None:
        """Seconds in which its mode compares iterations; None if it compares the seconds of generation."""
        return next((part.judged_s for part in self.parts()), None)


if TYPE_CHECKING:
    Iteration = _Iteration
else:
    Iteration = _with_fields_of_modes(_Iteration, lambda mode: mode.iteration_fields)


class Flag(Strict):
    """A problem of the launch."""

    code: str = Field(description="Short name: quant_not_proven, token_count, cross_iteration_prefix_hits, ...")
    severity: Literal["invalid", "warning"] = Field(
        description="invalid: the launch is left out of comparisons; warning: it is included and marked."
    )
    sentence: str = Field(description="The observation, with its numbers.")
    load: str | None = absent(
        "Label of the one load of a sweep that has the problem; its other loads count. Null for the whole launch."
    )


def codes_against(flags: Iterable[Flag]) -> list[str]:
    """Return the codes of `flags` that keep a whole launch out of comparisons, not only one of its loads."""
    return [flag.code for flag in flags if flag.severity == "invalid" and flag.load is None]


class Launched(Strict):
    """Fields of every record, whatever its mode: identity of the launch, its spec, machine and start."""

    schema_version: Literal[1] = Field(description="Version of this schema.")
    measurement_version: int = Field(description="Version of the meaning of the measurements.")
    key: str = Field(
        pattern="^[0-9a-f]{8}$", description="First 8 hex digits of sha256 over the spec's canonical JSON."
    )
    launch: int = Field(ge=0, description="Index of the launch.")
    started_at: UtcTime = Field(description="When the launch started, UTC, ISO 8601.")
    wall_s: float = Field(
        gt=0, description="The whole launch, from starting the engine's process to its last event, in seconds."
    )
    spec: Spec
    environment: Environment
    engine: EngineFacts
    startup: Startup
    placement: Placement | None = absent("Node and devices of the launch, and its neighbours. Null in earlier records.")
    block: Block | None = absent("The block of the launch. Null if it was measured alone.")
    after: list[str] | None = absent(
        "Experiments that the same engine measured before, in this order, as <mode>/<experiment>; startup is the start "
        "of that engine. Null if the launch started it."
    )
    model_files: dict[str, str] | None = absent(
        "Files to load: file -> its size and the first half of a SHA-256, for weights over header and "
        "samples; revision -> commit of a model from the hub. Null in earlier records, or if unknown."
    )
    validity: list[Flag] = Field(description="Flags of the launch; empty if there are none.")
    side_files_sha256: dict[Annotated[str, Field(pattern=r"^launch-[\w.-]+$")], str] | None = absent(
        "SHA-256 of each side file by its name."
    )
    sha256: str | None = absent(
        "SHA-256 over all other fields, as JSON with sorted keys and no spaces. Null before writing.",
        pattern="^[0-9a-f]{64}$",
    )

    @property
    def valid(self) -> bool:
        """Whether no flag keeps the whole launch out of comparisons; loads of a sweep may be out by themselves."""
        return not codes_against(self.validity)

    @property
    def folders(self) -> list[str]:
        """Files in folders beside the record that it names, as `<folder>/<file>`."""
        return []

    @property
    def experiment(self) -> str:
        """Folder name of its experiment, with the record's key."""
        return f"{self.spec.names}-{self.key}"

    @property
    def timed_s(self) -> dict[str, float]:
        """All times measured during the launch, in seconds, by field name."""
        imported = {} if self.startup.forked else {"startup.import_s": self.startup.import_s}
        return {**imported, "startup.init_s": self.startup.init_s}

    @property
    def held_s(self) -> float:
        """Time for which this launch held its devices, without the turns of others, in seconds."""
        return self.wall_s - (0.0 if self.block is None else self.block.waited_s)

    @property
    def start_s(self) -> float:
        """Time of the engine's start, in seconds; `held_s` has it unless another launch started the engine."""
        imported_s = 0.0 if self.startup.forked else self.startup.import_s
        return (self.startup.process_s or 0.0) + imported_s + self.startup.init_s

    @property
    def counted_s(self) -> float:
        """Time of all passes that count, in seconds; 0 for modes without such passes."""
        return 0.0

    @property
    def origin(self) -> tuple[str | float, ...]:
        """Its start and all measured times with all digits: equal only for copies of one record."""
        return (self.started_at, *self.timed_s.values())


class Record(Launched):
    """The record of one launch that generates: offline or online."""

    iterations: list[Iteration] = Field(min_length=1, description="Every iteration in order, warm-up first.")
    sequences_file: str = Field(description="Name of the side file beside this one: a row per sequence.")
    no_energy: str | None = absent(
        "Reason for an unknown energy of a measured iteration. Null if it is known, and in earlier records."
    )
    weight_proofs: list[WeightProof] | None = absent(
        "Proofs of the engine's weights, in modes that update them. Cycle: as loaded, after an update to the second "
        "weights, after an update back to the first. Placement: of each generating rank as loaded, then of each after "
        "an update that follows the last step. These updates are not timed."
    )

    @property
    def timed_s(self) -> dict[str, float]:
        """Times of start-up and of every iteration."""
        passes = {f"iterations.{number}.elapsed_s": each.elapsed_s for number, each in enumerate(self.iterations)}
        return super().timed_s | passes

    @property
    def counted_s(self) -> float:
        """Time of all iterations that count, in seconds."""
        return sum(iteration.whole_s for iteration in self.iterations if not iteration.warmup)


class TurnRow(Strict):
    """One turn of a sequence; times are seconds after the iteration began."""

    sent_s: float = Field(description="Request handed to the engine.")
    back_s: float = Field(description="Answer back; the tool takes from here to sent_s of the next turn.")
    prompt_tokens: int = Field(ge=0, description="Tokens of the request: prompt, earlier answers, results of tools.")
    cached_prompt_tokens: int | None = Field(None, ge=0, description="Those from the prefix cache.")
    output_tokens: int = Field(ge=0, description="Generated tokens.")


class SequenceRow(Strict):
    """One generated sequence: a line of the side file.

    Times are seconds after its iteration began, null if the engine does not report them.
    """

    iteration: int = Field(ge=0, description="Index of the iteration.")
    prompt: int = Field(ge=0, description="Index of the prompt inside the iteration.")
    sample: int = Field(ge=0, description="Index of the sample of that prompt.")
    prompt_tokens: int = Field(ge=0, description="Tokens of the prompt.")
    cached_prompt_tokens: int | None = Field(None, ge=0, description="Prompt tokens from the prefix cache.")
    output_tokens: int = Field(ge=0, description="Generated tokens.")
    finish_reason: str | None = Field(description="Reason for its end: length, stop.")
    queued_s: float | None = Field(None, description="Entered the engine's queue.")
    scheduled_s: float | None = Field(None, description="First scheduled.")
    first_token_s: float | None = Field(None, description="First token generated.")
    last_token_s: float | None = Field(None, description="Last token generated.")
    due_s: float | None = absent("Due time of the request: as the load sets, or else as soon as it was permitted.")
    sent_s: float | None = absent("Time of sending. The following times are measured at the client.")
    gaps_us: list[int] | None = absent("Microseconds from each piece of the answer to the next.")
    gap_tokens: list[int] | None = absent(
        "Tokens in each piece, the first included. Null: one each, or unknown (harness vllm-bench)."
    )
    status: int | None = absent("HTTP status. Null without an answer.")
    error: str | None = absent("Reason for the request's failure. Null if it did not fail.")
    cut_s: float | None = absent(
        "Time of the cut at the end of the load's duration: the request neither failed nor is complete. Null otherwise."
    )
    replica: int | None = absent("The replica that generated it. Null for a single replica.", ge=0)
    turn: int | None = absent(
        "Position of the request in its conversation, from 1. Null without conversations behind a server.", ge=1
    )
    digest: str | None = absent(
        ("First 8 hex digits of SHA-256 over its tokens, as JSON without spaces. Null if the tokens were not kept."),
        pattern="^[0-9a-f]{8}$",
    )

    routed_tokens: int | None = absent("Tokens whose experts the engine named. Null if it named none.", ge=0)
    routed_bytes: int | None = absent("Bytes of these ids. Null if it named none.", ge=0)
    turns: list[TurnRow] | None = absent(
        "Its turns: token counts of the row are sums over them, and its times from the first to the last. Null without "
        "turns."
    )

    @property
    def failed(self) -> bool:
        """Whether the request failed."""
        return self.error is not None

    @property
    def complete(self) -> bool:
        """Whether the request neither failed nor was cut."""
        return self.error is None and self.cut_s is None


def routed_bytes_of(rows: Sequence[SequenceRow]) -> int | None:
    """Return the bytes of all ids of experts that came back; None if none did."""
    sizes = [row.routed_bytes for row in rows if row.routed_bytes is not None]
    return sum(sizes) if sizes else None


class Failure(Strict):
    """Cause of a missing record of a launch: results/failures/<path of the record>.json."""

    schema_version: Literal[1] = Field(description="Version of this schema.")
    experiment: str = Field(description="Folder name of the experiment.")
    launch: int = Field(ge=0, description="Index of the launch.")
    failed_at: UtcTime = Field(description="Time of the failure, UTC, ISO 8601.")
    phase: str = Field(
        description=(
            "Last phase of the launch: starting, importing, initializing, warmup, measuring, stopping, writing; "
            "interrupted by the scheduler; for a killed command its last reported phase, or begun if it reported"
            " none; ended, if its job did not reach the launch."
        )
    )
    category: str = Field(description="Kind of failure: no_kv_cache_memory, missing_weights, timeout, crash, ...")
    cause: str = Field(description="What happened, in one line.")
    fix: str = Field(description="The remedy, in one line.")
    log: str = Field(description="Path of the log.")
    node: str | None = absent("Name of the machine. Null if none was reached.")
    job: str | None = absent("Id of the scheduler's job. Null outside of a scheduler.")
