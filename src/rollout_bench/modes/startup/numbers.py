"""Numbers of a start: the seconds of each phase, the rest, and what it found."""

from collections.abc import Callable, Mapping
from functools import partial

from rollout_bench.contracts.record import Record
from rollout_bench.modes.startup.record import PhaseName, StartCourse, start_phases
from rollout_bench.numbers.launch import START
from rollout_bench.numbers.number import Number

PHASES = "Phases of a start"
FOUND = "What a start found"

PHASE: Mapping[PhaseName, tuple[str, str]] = {
    "process": ("process", "Starting the engine's process, until it imports the engine, in seconds."),
    "import": ("import", "Importing torch and vLLM."),
    "platform": ("platform", "Detecting the device."),
    "config": ("config", "Building the engine's configuration, including inspection of the model's class."),
    "worker_start": (
        "worker start",
        "Time until a worker begins to load the model: starting its processes, and their imports.",
    ),
    "model_build": ("model build", "Building the model's modules, without weights."),
    "weights": ("weights", "Loading weights, and converting them to the kernels' format."),
    "dynamo": ("Dynamo", "torch.compile's tracing of the model."),
    "inductor": ("Inductor", "torch.compile's generation of kernels."),
    "cached_graphs": ("graphs loaded", "Loading compiled graphs from the caches instead of Inductor."),
    "memory_profiling": (
        "memory profiling",
        "The first pass, without its compilation; it measures the free memory.",
    ),
    "kv_cache": ("KV cache", "Allocating the KV cache."),
    "graph_capture": ("graph capture", "Capturing device graphs."),
    "engine_ready": ("engine ready", "Time from the end of the engine's own start-up until it accepts requests."),
    "first_token": ("first token", "Time from the request until its only token."),
}
"""Phase -> its display name, and its definition."""


def _of(value: Callable[[StartCourse], float | None]) -> Callable[[Record], float | None]:
    return lambda record: None if (course := start_phases(record)) is None else value(course)


def _own_s(name: PhaseName, course: StartCourse) -> float | None:
    return course.phase_s(name)


def _load_rate(course: StartCourse) -> float | None:
    """Return bytes of weight files per second of the phase that loads them; all loaders have it."""
    seconds = course.phase_s("weights")
    return course.weights_bytes / seconds if course.weights_bytes and seconds else None


def _start(name: str, unit: str, header: str, definition: str, read: Callable[[Record], float | None], table: str,
           factor: float = 1) -> Number:  # fmt: skip
    return Number(name, unit, header, definition, read=read, mode="startup", table=table, factor=factor, digits=3)


NUMBERS = (
    _start(
        "until_token_s",
        "s",
        "until a token s",
        "Time from the beginning of the launch until the first token: all phases and the rest.",
        _of(lambda course: course.until_token_s),
        START,
    ),
    *(
        _start(f"phase_{name}_s", "s", f"{label} phase s", text, _of(partial(_own_s, name)), PHASES)
        for name, (label, text) in PHASE.items()
    ),
    _start("rest_s", "s", "rest s", "Time outside all phases.", _of(lambda course: course.rest_s), PHASES),
    _start(
        "rest_share",
        "share",
        "rest %",
        "Rest as a share of until a token s.",
        _of(lambda course: course.rest_s / course.until_token_s),
        PHASES,
        100,
    ),
    _start(
        "weight_files_bytes",
        "bytes",
        "weights MB",
        "Size of the weight files, in megabytes (10^6 bytes).",
        _of(lambda course: course.weights_bytes),
        FOUND,
        1e-6,
    ),
    _start(
        "loading_bytes_per_s",
        "bytes/s",
        "weights GB/s",
        "Size of the weight files / seconds of the phase weights: loading them, and converting them.",
        _of(_load_rate),
        FOUND,
        1e-9,
    ),
    _start(
        "cache_files",
        "files",
        "cache files",
        "Files in the compile caches when the engine's process started.",
        _of(lambda course: course.cache_files),
        FOUND,
    ),
)
