"""Numbers of a whole launch, which no load changes: its start, its memory, and the parts of its time."""

from rollout_bench.contracts.record import Record
from rollout_bench.contracts.spec import behind_server
from rollout_bench.numbers.number import Number

START = "Start-up and memory"
COST = "What a launch costs"


def startup_s(record: Record) -> float | None:
    """Return the start-up time."""
    return record.startup.import_s + record.startup.init_s


def parts_of(record: Record) -> dict[str, float]:
    """Return the seconds of each part of a launch, without unknown parts, and the whole; `other_s` is never negative.

    The parts add up to `launch_s`. A server imports and constructs the engine in its own processes, at times that are
    unknown. If it was already there, the time before it answered is other time.
    """
    startup, spec = record.startup, record.spec
    parts = {
        # an engine that was there is part of the launch that started it
        "import_s": 0.0 if record.after else startup.import_s,
        "init_s": 0.0 if record.after else startup.init_s,
        "warmup_s": sum(iteration.whole_s for iteration in record.iterations if iteration.warmup),
        "measured_s": sum(iteration.whole_s for iteration in record.iterations if not iteration.warmup),
    }
    if behind_server(spec):
        started_s = parts.pop("import_s") + parts.pop("init_s")
        parts |= {} if spec.endpoint is not None else {"server_start_s": started_s}
    if startup.process_s:
        parts["process_s"] = startup.process_s
    if record.block is not None:
        parts["waited_s"] = record.block.waited_s
    parts["other_s"] = max(0.0, record.wall_s - sum(parts.values()))
    return parts | {"launch_s": sum(parts.values())}


def _part(name: str, header: str, definition: str) -> Number:
    return Number(name, "s", header, definition, read=lambda record: parts_of(record).get(name), table=COST, digits=3)


def _logged(name: str, header: str, what: str) -> Number:
    definition = f"{what}, from the engine's log, in seconds: part of init s or of server start s."
    return Number(
        name, "s", header, definition, read=lambda record: record.startup.reported.get(name), table=COST, digits=2
    )


def _sequences_at_once(record: Record) -> float | None:
    tokens, longest = record.engine.kv_cache_tokens, sum(record.spec.workload.longest_pair)
    return None if tokens is None or not longest else tokens // longest


def _weights_bytes(record: Record) -> float | None:
    weights = record.engine.weights_bytes_by_dtype
    return None if weights is None else sum(weights.linear.values()) + sum(weights.other.values())


LAUNCH = (
    Number(
        name="startup_s",
        unit="s",
        header="start-up s",
        definition="Importing and constructing the engine until it accepts requests, in seconds; mean over launches.",
        better="lower",
        read=startup_s,
        speedup="start-up speed-up",
        table=START,
        digits=3,
    ),
    Number(
        name="kv_cache_bytes_per_token",
        unit="",
        header="KV bytes per token",
        definition="Bytes per token in the KV cache: keys and values of all layers, on all devices of one engine.",
        read=lambda record: None if (cache := record.engine.kv_cache) is None else cache.bytes_per_token,
        across="max",
        table=START,
        digits=0,
    ),
    Number(
        name="kv_cache_tokens",
        unit="tokens",
        header="KV cache tokens",
        definition="Tokens that fit into the KV cache of an engine; the minimum over launches.",
        read=lambda record: record.engine.kv_cache_tokens,
        across="min",
        table=START,
        digits=0,
    ),
    Number(
        name="kv_cache_sequences",
        unit="sequences",
        header="sequences at once",
        definition="Sequences that the KV cache can hold at once at the workload's full length (prompt + output "
        "tokens), if they share nothing; the minimum over launches.",
        read=_sequences_at_once,
        across="min",
        table=START,
        digits=0,
    ),
    Number(
        name="weights_bytes",
        unit="bytes",
        header="weights GiB",
        definition="Bytes of the loaded weights, read from the model in the worker.",
        read=_weights_bytes,
        across="max",
        table=START,
        factor=1 / 2**30,
        digits=3,
    ),
    Number(
        name="adapter_room_bytes",
        unit="bytes",
        header="adapter GiB",
        definition="Memory that the engine keeps for an adapter of max_rank, which the KV cache lacks.",
        read=lambda record: None if (adapter := record.engine.adapter) is None else adapter.room_bytes,
        across="max",
        table=START,
        factor=1 / 2**30,
        digits=3,
    ),
    _part("process_s", "process s", "Starting the engine's process, in seconds; part of other s if unknown."),
    _part("import_s", "import s", "Importing the engine, in seconds."),
    _part("init_s", "init s", "Constructing the engine until it accepts requests, in seconds."),
    _part(
        "server_start_s",
        "server start s",
        "Starting a server until it answers, in seconds. The server's processes import and construct the engine; "
        "the times of these parts are unknown.",
    ),
    _logged("weights_load_s", "weights s", "Loading weights"),
    _logged("compile_s", "compile s", "Compiling"),
    _logged("graph_capture_s", "graphs s", "Capturing graphs"),
    _part("warmup_s", "warm-up s", "All warm-up iterations of a launch, in seconds."),
    _part("waited_s", "waiting s", "Total time that the engine waited for its turn in its block, in seconds."),
    _part("measured_s", "measured s", "All measured iterations of a launch, in seconds; in cycles, all whole steps."),
    _part("other_s", "other s", "The launch's time outside all other columns, in seconds."),
    _part(
        "launch_s",
        "launch s",
        "A whole launch, from starting the engine's process to its last iteration, in seconds. Like its parts, a "
        "mean over launches.",
    ),
)
