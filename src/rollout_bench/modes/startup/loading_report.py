"""The loading-time report of llm-d-benchmark's harness `nop` for one of our launches: same keys and categories.

Written from workload/harnesses/nop_functions.py, as of July 2026: `BenchmarkResult`, and the log lines that begin and
end a category. Values that the harness reads from a pod or a server are empty here.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, Final

import yaml

from rollout_bench.contracts.record import Record
from rollout_bench.contracts.spec import FOLLOWS_LENGTHS
from rollout_bench.modes.startup.record import PhaseName, StartCourse, start_phases

VERSION: Final = "0.1"
"""Version of the report's keys in the harness."""

CATEGORIES: tuple[tuple[str, tuple[PhaseName, ...]], ...] = (
    ("Detect Platform", ("platform",)),
    ("LLM Imports", ("import",)),
    ("Get Model Info", ("config",)),
    ("Worker Initialization", ("worker_start",)),
    ("Model Loading", ("model_build", "weights")),
    ("Pytorch Compilation", ("dynamo", "inductor", "cached_graphs")),
    ("CUDA Graph Capture", ("memory_profiling", "kv_cache", "graph_capture")),
    ("API Server Starts", ()),
)
"""Category -> our phases within it. Graph capture begins at the end of compilation, and no server is started."""

COMPILATION: tuple[tuple[str, tuple[PhaseName, ...]], ...] = (
    ("Dynamo", ("dynamo",)),
    ("Inductor", ("inductor", "cached_graphs")),
)
"""The categories within `Pytorch Compilation`."""


def loading_report(record: Record, others: Iterable[Record] = ()) -> str:
    """Return the report of a launch in mode startup, as YAML.

    Args:
        record: the launch.
        others: valid launches of any mode; those of the same engine that slept give `sleep_wake`.

    Raises:
        ValueError: the record has no course of its start.
    """
    course = start_phases(record)
    if course is None:
        raise ValueError("a record of mode startup has the course of its start")
    launched = datetime.fromisoformat(record.started_at).timestamp()
    began = launched + (course.after_s or 0.0)
    spec, environment = record.spec, record.environment
    graphs = {
        "load_cached_compiled_graph": course.phase_s("cached_graphs"),
        "compile_graph": course.phase_s("inductor"),
    }
    slept = [look for other in others if _engine(other) == _engine(record) for look in _sleep_wake(other)]
    imports, ready = course.phase("import"), course.phase("engine_ready")
    report = {
        "version": VERSION,
        "scenario": {
            "deploy_methods": "rollout-bench",
            "load_format": spec.load_format,
            "sleep_mode": bool(spec.engine.args.get("enable_sleep_mode") or slept),
            "max_instances": 0,
            "model": {"name": spec.model.name},
            "platform": {
                "engines": [
                    {
                        "name": environment.engine_name,
                        "image": "",
                        "version": environment.engine_version,
                        "args": dict(spec.engine.args),
                    }
                ]
            },
            "gpus": [],
        },
        "vllm_metrics": [
            {
                "name": f"{record.experiment} launch-{record.launch}",
                "pod_start": 0.0,
                "vllm_start_timestamp": began + (imports.began_s if imports else 0.0),
                "vllm_ready_timestamp": began + (ready.ended_s if ready else course.until_token_s),
                "load": _load(record, course),
                "size": 0.0,
                "dynamo_bytecode_transform": course.phase_s("dynamo") or 0.0,
                **{key: seconds for key, seconds in graphs.items() if seconds},
                "torch_compile": _own_s(course, ("dynamo", "inductor", "cached_graphs")),
                "memory_profiling": {"available_kv_cache": record.startup.reported.get("kv_cache_memory_gib", 0.0)},
                "sleep_wake": slept,
                "categories": [_category(course, title, phases) for title, phases in CATEGORIES],
            }
        ],
        "extra_metrics": [],
        "time": {"start": launched, "stop": launched + record.wall_s, "duration": record.wall_s},
    }
    return yaml.safe_dump(report, sort_keys=False, indent=2)


def _load(record: Record, course: StartCourse) -> dict[str, float]:
    """Return seconds, GiB and GiB/s of loading the model: modules and weights, as in vLLM's log line."""
    seconds = _own_s(course, ("model_build", "weights"))
    size = record.startup.reported.get("model_memory_gib", (course.weights_bytes or 0) / 2**30)
    return {"time": seconds, "size": size, "transfer_rate": size / seconds if seconds else 0.0}


OF_MODE = ("enable_sleep_mode", FOLLOWS_LENGTHS)
"""Arguments of an engine that follow from its mode."""


def _engine(record: Record) -> tuple[Any, ...]:
    """Return what launches of the same engine have in common, in any mode."""
    spec = record.spec
    args = {name: value for name, value in spec.engine.args.items() if name not in OF_MODE}
    return spec.platform, spec.model, spec.quant, spec.engine.name, spec.engine.version, args


def _sleep_wake(record: Record) -> Iterator[dict[str, Any]]:
    """Yield the sleeps and wake-ups of a launch; a record has no time of day of its iterations, so its own is given."""
    began = datetime.fromisoformat(record.started_at).timestamp()
    device = record.environment.device_memory_bytes or 0
    for slept in (part.slept() for iteration in record.iterations for part in iteration.parts()):
        if slept:
            free = slept.get("asleep")
            memory = {
                "gpu_freed": 0.0 if free is None else (free - slept.get("before", free)) / 2**30,
                "gpu_in_use": 0.0 if free is None else (device - free) / 2**30,
            }
            yield {"timestamp": began, "type": "sleep", "time": slept["sleep_s"], **memory}
            yield {"timestamp": began, "type": "wake", "time": slept["wake_s"]}


def _category(course: StartCourse, title: str, phases: Iterable[PhaseName]) -> dict[str, Any]:
    category: dict[str, Any] = {"title": title, "elapsed": _own_s(course, phases)}
    if title == "Pytorch Compilation":
        category["categories"] = [_category(course, inner, inner_phases) for inner, inner_phases in COMPILATION]
    return category


def _own_s(course: StartCourse, phases: Iterable[PhaseName]) -> float:
    return sum((course.phase_s(name) or 0.0 for name in phases), 0.0)
