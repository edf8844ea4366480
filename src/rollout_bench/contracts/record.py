"""The record: what one launch measured, with everything needed to judge it later.

Raw values only; whatever can be derived from them is derived when it is needed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final, Literal

from pydantic import Field

from rollout_bench.contracts.cycles import Transition
from rollout_bench.contracts.fields import Strict, UtcTime, absent
from rollout_bench.contracts.load import LoadPoint
from rollout_bench.contracts.placed_steps import PlacedStep
from rollout_bench.contracts.spec import Isolation, Spec
from rollout_bench.contracts.starts import StartCourse


class Served(Strict):
    """What a server said of itself."""

    model: str = Field(description="The model's name in /v1/models.")
    version: str | None = Field(description="What /version says. Null where there is no such thing.")
    max_model_len: int | None = Field(description="What /v1/models says. Null where it does not.")
    owned_by: str | None = Field(None, description="What /v1/models says of the model's owner: vllm, llamacpp, ...")
    token_ids: bool = Field(True, description="Whether it takes prompts as token ids.")
    counts_tokens: bool = Field(True, description="Whether its answers let every token be counted.")


class ClientUse(Strict):
    """What it cost to send the requests of one pass and to receive the answers."""

    cpu_share: float = Field(
        ge=0, description="CPU time of the process that sends, over the pass's: 1 is a core. The busiest of several."
    )
    loop_delay_median_s: float | None = Field(
        None, ge=0, description="By how much the event loop was late, in seconds, half of the time."
    )
    loop_delay_p99_s: float | None = Field(None, ge=0, description="As above, 99 % of the time.")
    loop_delay_max_s: float | None = Field(None, ge=0, description="As above, at worst.")

    @classmethod
    def of(cls, cpu_share: float, late_s: Sequence[float], every_s: float) -> ClientUse:
        """Return what sending cost, of an event loop that was `late_s` [n] each time it had looked for `every_s`.

        A moment at which the loop was late counts for as long as it was.
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
            loop_delay_max_s=ordered[-1],
        )


class RouterUse(Strict):
    """What it took to hand a step's sequences out to its engines."""

    decisions: int = Field(ge=0, description="Sequences that were handed out.")
    decide_s: float = Field(ge=0, description="Time that choosing their engines took, all together, in seconds.")
    decide_max_s: float = Field(ge=0, description="The longest of these choices, in seconds.")
    handing_out_s: float = Field(
        ge=0, description="From the step's beginning until the last sequence was handed out, in seconds."
    )


class ServerUse(Strict):
    """What the server's counters and histograms rose by in one pass; means are sums over counts."""

    round_trip_s: float | None = Field(None, ge=0, description="Median time of a request that does nothing, before it.")
    requests: int | None = Field(None, ge=0, description="Requests that ended well.")
    prompt_tokens: int | None = Field(None, ge=0, description="Prompt tokens it counted.")
    output_tokens: int | None = Field(None, ge=0, description="Tokens it generated.")
    ttft_mean_s: float | None = Field(None, ge=0, description="Mean time to first token, as the server sees it.")
    itl_mean_s: float | None = Field(None, ge=0, description="Mean time between two tokens.")
    e2el_mean_s: float | None = Field(None, ge=0, description="Mean end-to-end latency.")
    queue_mean_s: float | None = Field(None, ge=0, description="Mean time a request waited to be scheduled.")
    preemptions: int | None = Field(None, ge=0, description="Preemptions.")
    prefix_cache_queries: int | None = Field(None, ge=0, description="Prompt tokens looked up in the prefix cache.")
    prefix_cache_hits: int | None = Field(None, ge=0, description="Of these, found.")


class Placement(Strict):
    """The node and devices that a launch held while its engine lived, and its neighbours."""

    node: str = Field(description="Name of the machine.")
    devices: list[str] = Field(
        description=(
            "Devices that the launch held, replica after replica, by names that hold on the whole machine: a GPU's "
            "UUID, npu-0, or on cpu the cores of a block: cores-0-3."
        )
    )
    visible: list[str] = Field(description="The same as the engine was told them: CUDA_VISIBLE_DEVICES, or cores.")
    isolation: Isolation = Field(description="What was allowed to run beside it.")
    waited_s: float = Field(ge=0, description="Time until the devices were free, in seconds.")
    neighbours: list[str] = Field(
        description=(
            "Launches on other devices of the same node during some pass that counts, as "
            "<mode>/<experiment>/launch-<i>, or of another workflow."
        )
    )
    job: str | None = absent("Id of the scheduler's job: Slurm's, or the pod's name. Null outside of a scheduler.")


class Block(Strict):
    """The engines that a launch was measured among, making their passes in turn.

    They are alive at the same time, or the baseline and some of the others at a time.
    """

    id: str = Field(pattern="^[0-9a-f]{16}$", description="Drawn for the block; the same in the records of all of it.")
    members: list[str] = Field(
        min_length=1,
        description=(
            "What it was begun with, as <mode>/<experiment>, the baseline first: alive at the same time, or the "
            "baseline and some of the others at a time."
        ),
    )
    at_once: int = Field(ge=1, description="How many of their engines were alive at the same time, at most.")
    order: list[list[int]] = Field(
        description=(
            "For each round, from 0, who made a pass, in that order, as positions in members. One that failed "
            "is missing from then on."
        )
    )
    started: Literal["in_turn", "together"] = Field(
        description="in_turn: no engine started while another did or made a pass; together: all at once."
    )
    waited_s: float = Field(
        ge=0,
        description=(
            "For how long the launch waited for its turn, all together, in seconds; a part of wall_s. Both end with "
            "its last pass: that it waits then until the others have made theirs is in neither."
        ),
    )


class ReplicaPass(Strict):
    """One replica's part of an iteration."""

    start_offset_s: float = Field(
        ge=0, description="When it began, in seconds after the release, which is when the first of them began."
    )
    elapsed_s: float = Field(
        gt=0,
        description=(
            "From handing over its first request until its last token was back, in seconds; in a rollout from the "
            "step's beginning, at most until the step had enough."
        ),
    )
    requests: int = Field(ge=0, description="Requests handed to it; in a rollout those that the step needed.")
    sequences: int = Field(ge=0, description="Sequences that came back; in a rollout those that the step needed.")
    prompt_tokens: int = Field(ge=0, description="Prompt tokens of all its sequences.")
    cached_prompt_tokens: int | None = Field(
        None, ge=0, description="Prompt tokens that it took from its prefix cache. Null where it does not say."
    )
    output_tokens: int = Field(ge=0, description="Tokens that it generated; in a rollout those that the step needed.")
    prompts: int | None = absent("Distinct prompts among its sequences. Null where each has prompts of its own.", ge=0)
    preemptions: int | None = absent("Preemptions. Null where the record has them otherwise, or nobody knows.", ge=0)
    peak_running: int | None = absent("Most sequences that its engine ran at once. Null where it does not say.", ge=0)
    kv_cache_peak: float | None = absent("Largest share of its KV cache in use. Null where it does not say.", ge=0)

    @property
    def end_s(self) -> float:
        """When it was done, in seconds after the release."""
        return self.start_offset_s + self.elapsed_s


class ReplicaStart(Strict):
    """What one replica's start took; they start side by side."""

    import_s: float = Field(ge=0, description="As in `startup`.")
    init_s: float = Field(ge=0, description="As in `startup`.")
    kv_cache_tokens: int | None = Field(None, description="Tokens that fit into its KV cache. Null where unknown.")


class Startup(Strict):
    """What the time before the first iteration went to."""

    process_s: float | None = Field(
        None,
        ge=0,
        description="From the launch's beginning until the engine process ran, in seconds. Null in earlier records.",
    )
    import_s: float = Field(
        ge=0,
        description="Importing the engine, in seconds. Of a server, in mode online and behind entry server of a "
        "rollout: importing what sends the requests, while it starts, so that only the sum with init_s tells of it.",
    )
    init_s: float = Field(
        ge=0,
        description="Constructing the engine until it takes requests, in seconds. Of a server: from then on, until it "
        "has answered.",
    )
    forked: bool | None = absent(
        "True where the engine's process was forked from the block's, which had imported the engine; import_s is of "
        "that import. Null otherwise."
    )
    reported: dict[str, float] = Field(
        {},
        description=(
            "What the engine logged: model_build_s, weights_load_s, online_quantization_s, model_load_s, "
            "model_memory_gib, compile_s (on cpu to whole seconds), compile_cache_loads (graphs that came from the "
            "compile cache), profile_run_s, graph_capture_s, graph_capture_gib, engine_init_s, kv_cache_memory_gib."
        ),
    )
    replicas: list[ReplicaStart] | None = absent("The start of each replica; import_s and init_s are the slowest's.")
    course: StartCourse | None = absent("What each second of it went to. Null but in mode startup.")


SCHEMA_VERSION: Final = 1
"""Raised when earlier records can no longer be read: a field goes, changes its meaning, or comes without default."""


class Environment(Strict):
    """Where the launch ran."""

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
    device_model: str = Field(description="Name of the device; on cpu the processor's.")
    device_memory_bytes: int | None = Field(None, description="Memory of one device; on cpu the machine's.")
    device_count: int = Field(description="Devices that the launch used, all replicas together; 1 on cpu.")
    cpu_model: str = Field(description="Name of the processor.")
    cpu_cores: int = Field(description="Cores that the launch may run on.")
    memory_bytes: int = Field(description="Memory of the machine.")
    variables: dict[str, str] = Field(
        {},
        description=(
            "Environment variables that the engine saw and that influence it: VLLM_*, OMP_*, CUDA_*, "
            "ASCEND_*, PYTORCH_*, ...; values of secrets are left out."
        ),
    )
    git_commit: str | None = Field(
        None,
        description=("Commit of rollout-bench; ends in -dirty when files differ from it. Null outside a checkout."),
    )


class WeightBytes(Strict):
    """Bytes of the loaded weights by data type, read from the model in the worker."""

    linear: dict[str, int] = Field(description="Weights of linear layers and experts, as data type -> bytes.")
    other: dict[str, int] = Field(
        description="Everything else (embeddings, output head, norms, scales, router), as data type -> bytes."
    )


class CacheFacts(Strict):
    """The KV cache as the engine holds it, read from its tensors in the worker."""

    layers: dict[str, int] = Field(
        description=(
            "Data type -> layers whose keys and values have it. One byte a value may be of several types, of which "
            "vLLM's name is given: fp8_e5m2."
        )
    )
    bytes_per_token: int = Field(
        ge=0, description="Bytes that one token takes in all layers, on all devices of an engine."
    )


def one_cache_name(dtype: str) -> str:
    """Return our one name for a data type of the KV cache that has two names in vLLM."""
    return {"fp8": "fp8_e4m3"}.get(dtype, dtype)


class EngineFacts(Strict):
    """What the engine said of itself once loaded."""

    resolved: dict[str, Any] = Field(
        {},
        description=(
            "Settings that matter as the engine resolved them: max_model_len, max_num_seqs, "
            "enable_prefix_caching, block_size, ..."
        ),
    )
    kv_cache_tokens: int | None = Field(None, description="Tokens that fit into the KV cache. Null where unknown.")
    weights_bytes_by_dtype: WeightBytes | None = Field(description="Null where nobody can know: another's server.")
    linear_methods: dict[str, int] = Field(
        description=("The engine's name of each linear layer's quantization method or scheme -> number of layers.")
    )
    served: Served | None = absent("What a server said of itself. Null offline.")
    linear_kernels: dict[str, int] | None = absent(
        "Kernel that the method of a linear layer chose -> number of layers. Null where the methods name none."
    )
    kv_cache: CacheFacts | None = absent("Its KV cache. Null where nobody can look into it.")
    overruled: dict[str, Any] | None = absent(
        "Engine argument, or `<argument>.<key>` -> what the engine uses in place of what was asked. Null where it "
        "follows all that it says something of."
    )


class HostUse(Strict):
    """What else the machine did during one iteration, read by the supervisor just before and just after it.

    Cores are those that the launch may run on; null where the system does not say.
    """

    window_s: float = Field(gt=0, description="Time between the two readings, in seconds.")
    cores: int = Field(ge=1, description="Cores that the shares refer to.")
    steal_share: float | None = Field(
        None, ge=0, description="Share of the cores' time that the hypervisor gave to other machines."
    )
    other_cpu_share: float | None = Field(
        None, ge=0, description="Share of the cores' time that processes used that are not of this launch."
    )
    busiest_other: str | None = Field(
        None, description="Name, pid and user of the process outside this launch that used most. Null: none was seen."
    )
    memory_available_bytes: int | None = Field(None, ge=0, description="Memory that was available afterwards.")
    memory_pressure_share: float | None = Field(
        None, ge=0, description="Share of the time in which some process waited for memory (/proc/pressure/memory)."
    )
    swap_bytes: int | None = Field(None, ge=0, description="Bytes swapped in and out.")
    load_1m: float | None = Field(None, ge=0, description="Load average of the last minute, afterwards.")


class DeviceUse(Strict):
    """What a device said of itself about one iteration, read just before and just after it."""

    device: str = Field(description="Its UUID; of a CPU the counters that its energy is the sum of.")
    thermal_share: float | None = Field(
        None, ge=0, description="Share of the time in which its clock was lowered because of heat."
    )
    power_share: float | None = Field(
        None, ge=0, description="Share of the time in which its clock was lowered to stay within the power limit."
    )
    power_limit_w: float | None = Field(None, description="Power limit in force, in watts.")
    power_limit_default_w: float | None = Field(None, description="Power limit that it comes with, in watts.")
    temperature_c: int | None = Field(None, description="Temperature afterwards, in degrees Celsius.")
    window_s: float | None = absent(
        "Time between the two readings, in seconds. Null where energy_j is.",
        gt=0,
    )
    energy_j: float | None = absent(
        "Energy that it took between them by its own counter, memory included, in joules. Null where it has none.",
        ge=0,
    )
    other_processes: int | None = Field(
        None, description="Processes outside this launch that held memory of it. Null where that cannot be told."
    )
    other_memory_bytes: int | None = Field(None, description="Memory of it that they held.")


class Drafting(Strict):
    """What speculative decoding did in one pass, by the engine's own counters."""

    drafts: int = Field(ge=0, description="How often tokens were proposed for a sequence.")
    draft_tokens: int = Field(ge=0, description="Tokens that were proposed.")
    accepted_tokens: int = Field(ge=0, description="Of these, accepted: the model would have generated them itself.")
    accepted_by_position: list[int] = Field(
        description="Of these, at each position of their drafts, from the first. Empty where the engine does not say."
    )

    @classmethod
    def together(cls, parts: Sequence[Drafting | None]) -> Drafting | None:
        """Return the sums of `parts`; None where one of them is not known."""
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


class Iteration(Strict):
    """One pass of the workload."""

    index: int = Field(ge=0, description="Number of the pass inside the launch, warm-up included, from 0.")
    warmup: bool = Field(description="True: recorded, never counted.")
    elapsed_s: float = Field(
        gt=0,
        description=(
            "From handing over the first request until the last token was back, in seconds; of several replicas, from "
            "when the first began until the slowest was done."
        ),
    )
    requests: int = Field(ge=0, description="Requests handed to the engine; in a rollout those that the step needed.")
    sequences: int = Field(ge=0, description="Sequences that came back; in a rollout those that the step needed.")
    prompt_tokens: int = Field(
        ge=0,
        description=(
            "Prompt tokens of all sequences, counted from what the engine returned (n sequences of one "
            "prompt count n times)."
        ),
    )
    cached_prompt_tokens: int | None = Field(
        None, ge=0, description="Prompt tokens that the engine took from its prefix cache. Null where it does not say."
    )
    output_tokens: int = Field(ge=0, description="Tokens generated, counted from what the engine returned.")
    host: HostUse | None = Field(
        None, description="What else the machine did meanwhile. Null in records of earlier versions."
    )
    devices: list[DeviceUse] | None = Field(
        None, description="What each device said of itself. Null where there is none that can be asked."
    )
    round: int | None = absent(
        "The round of its block that the pass belongs to, from 0. Null in a warm-up pass, and outside of a block.", ge=0
    )
    point: LoadPoint | None = absent("How requests were sent. Null offline.")
    failed: int | None = absent("Requests that failed; their tokens are not counted. Null offline.", ge=0)
    incomplete: int | None = absent(
        "Requests that were under way when the time of the load was over, and were cut. Tokens that had come are "
        "counted. Null where the load has no duration_s.",
        ge=0,
    )
    client: ClientUse | None = absent("What sending the requests cost. Null offline.")
    server: ServerUse | None = absent("What the server's own metrics say of the pass. Null where it has none.")
    replicas: list[ReplicaPass] | None = absent("The part of each replica. Null where there is one, but in rollouts.")
    drafting: Drafting | None = absent(
        "What speculative decoding did. Null where the engine has none, or nobody asks, as in placements; behind a "
        "server it is what the server's own counters say."
    )
    router: RouterUse | None = absent("What handing the sequences out took. Null where no router does it.")
    placed: PlacedStep | None = absent("The whole step, and what each device did of it. Null but in placements.")
    transition: Transition | None = absent("What followed until the next pass could begin. Null but in cycles.")

    @property
    def whole_s(self) -> float:
        """Seconds of the whole pass: with the transition that follows, or all that devices of a placement do."""
        if self.placed is not None:
            return self.placed.elapsed_s
        return self.elapsed_s + (self.transition.elapsed_s if self.transition else 0.0)


class Flag(Strict):
    """A doubt about the launch."""

    code: str = Field(description="Short name: quant_not_proven, token_count, cross_iteration_prefix_hits, ...")
    severity: Literal["invalid", "warning"] = Field(
        description="invalid: the launch takes no part in comparisons; warning: it does, marked."
    )
    sentence: str = Field(description="What was seen, with its numbers.")


class Launched(Strict):
    """What every record has, whatever its mode: which launch it is, of what, where it ran, and how it started."""

    schema_version: Literal[1] = Field(description="Version of this schema.")
    measurement_version: int = Field(description="Version of the meaning of what is measured.")
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
    placement: Placement | None = absent("Where the launch ran, and beside what. Null in earlier records.")
    block: Block | None = absent("The block that it was measured in. Null where it was measured by itself.")
    model_files: dict[str, str] | None = absent(
        "What it was to load: file -> its size and the first half of a SHA-256, of weights over header and samples; "
        "revision -> commit of a model from the hub. Null in earlier records, or where nobody knows."
    )
    validity: list[Flag] = Field(description="Doubts about the launch; empty if there are none.")
    sha256: str | None = absent(
        "SHA-256 over all other fields, as JSON with sorted keys and no spaces. Null until it is written.",
        pattern="^[0-9a-f]{64}$",
    )

    @property
    def valid(self) -> bool:
        """False when a flag keeps the launch out of comparisons."""
        return all(flag.severity != "invalid" for flag in self.validity)

    @property
    def experiment(self) -> str:
        """Folder name of its experiment, by the key that it holds."""
        return f"{self.spec.names}-{self.key}"

    @property
    def timed_s(self) -> dict[str, float]:
        """Everything that was timed while the launch lasted, in seconds, by the name of its field."""
        imported = {} if self.startup.forked else {"startup.import_s": self.startup.import_s}
        return {**imported, "startup.init_s": self.startup.init_s}

    @property
    def origin(self) -> tuple[str | float, ...]:
        """When it began and all that was timed, to the last digit: only copies of one record have it in common."""
        return (self.started_at, *self.timed_s.values())


class Record(Launched):
    """What one launch measured that generated: offline or online."""

    iterations: list[Iteration] = Field(min_length=1, description="Every pass in order, warm-up first.")
    sequences_file: str = Field(description="Name of the side file beside this one: one row per sequence.")
    no_energy: str | None = absent(
        "Why nobody knows the energy of some measured iteration. Null where it is known, and in earlier records."
    )
    side_files_sha256: dict[str, str] | None = absent("SHA-256 of each side file by its name. Null in earlier records.")

    @property
    def timed_s(self) -> dict[str, float]:
        """Start-up and every pass."""
        passes = {f"iterations.{number}.elapsed_s": each.elapsed_s for number, each in enumerate(self.iterations)}
        return super().timed_s | passes


class SequenceRow(Strict):
    """One generated sequence: a line of the side file.

    Times are seconds after its iteration began, null where the engine does not say.
    """

    iteration: int = Field(ge=0, description="Index of the iteration.")
    prompt: int = Field(ge=0, description="Index of the prompt inside the iteration.")
    sample: int = Field(ge=0, description="Index of the sample of that prompt.")
    prompt_tokens: int = Field(ge=0, description="Tokens of the prompt.")
    cached_prompt_tokens: int | None = Field(None, ge=0, description="Of these, taken from the prefix cache.")
    output_tokens: int = Field(ge=0, description="Tokens generated.")
    finish_reason: str | None = Field(description="Why it ended: length, stop.")
    queued_s: float | None = Field(None, description="Entered the engine's queue.")
    scheduled_s: float | None = Field(None, description="First scheduled.")
    first_token_s: float | None = Field(None, description="First token generated.")
    last_token_s: float | None = Field(None, description="Last token generated.")
    due_s: float | None = absent("When the request was to be sent: when the load says, or else as soon as it was let.")
    sent_s: float | None = absent("When it was sent. What follows from here on is what the client saw.")
    gaps_us: list[int] | None = absent("Microseconds from each piece of the answer to the next.")
    gap_tokens: list[int] | None = absent(
        "Tokens in each piece, the first included. Null: one each, or nobody tells (harness vllm-bench)."
    )
    status: int | None = absent("HTTP status. Null where there was no answer.")
    error: str | None = absent("Why the request failed. Null where it did not.")
    cut_s: float | None = absent(
        "When it was cut, because the time of the load was over: it neither failed nor is complete. Null otherwise."
    )
    replica: int | None = absent("The replica that generated it. Null where there is one.", ge=0)
    digest: str | None = absent(
        "First 8 hex digits of SHA-256 over its tokens, as JSON without spaces. Null where they are not kept.",
        pattern="^[0-9a-f]{8}$",
    )

    @property
    def failed(self) -> bool:
        """Whether it is the row of a request that failed."""
        return self.error is not None

    @property
    def complete(self) -> bool:
        """Whether it came to its end: it did not fail, and was not cut."""
        return self.error is None and self.cut_s is None


class Failure(Strict):
    """Why a launch has no record: results/failures/<path of the record>.json."""

    schema_version: Literal[1] = Field(description="Version of this schema.")
    experiment: str = Field(description="Folder name of the experiment.")
    launch: int = Field(ge=0, description="Index of the launch.")
    failed_at: UtcTime = Field(description="When, UTC, ISO 8601.")
    phase: str = Field(
        description=(
            "What the launch did: starting, importing, initializing, warmup, measuring, stopping, writing; interrupted "
            "by the scheduler; of a command that was killed what it had said last, begun where that is nothing; ended, "
            "where its job came to no launch."
        )
    )
    category: str = Field(description="Kind of failure: no_kv_cache_memory, missing_weights, timeout, crash, ...")
    cause: str = Field(description="What happened, in one line.")
    fix: str = Field(description="What to do about it, in one line.")
    log: str = Field(description="Path of the log.")
    node: str | None = absent("Name of the machine that it failed on. Null where none was reached.")
    job: str | None = absent("Id of the scheduler's job that it failed in. Null outside of a scheduler.")
