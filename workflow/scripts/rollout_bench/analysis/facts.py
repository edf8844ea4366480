"""The facts of a launch that may make it incomparable with another, and in which of them launches differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from rollout_bench.records.record import Environment, Record

Group = Literal["engine", "machine", "circumstance"]

ENGINE = ("engine_name", "engine_version", "plugins", "torch_version", "python_version", "packages")
"""Facts that make the engine."""

MACHINE = (
    "platform",
    "device_model",
    "device_memory_bytes",
    "device_count",
    "cpu_model",
    "cpu_cores",
    "memory_bytes",
)
"""Facts that make the machine; its name and its kernel are circumstances."""

IN_PAIRS = ("device_model", "cpu_model", "cpu_cores", "device_count", "torch_version")
"""Facts that the two launches of a pair must share; the number of devices only where both were to use as many."""

_PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")

ABOUT = {"device_memory_bytes": 0.01, "memory_bytes": 0.01, "resolved.num_gpu_blocks": 0.01}
"""Facts that are measured -> how far they may be apart and still agree: kernels keep some memory for themselves."""

CACHES = {f"variables.{name}" for name in ("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")}
"""Facts that say where compiled code is kept, in a folder for each engine below a user's home: no difference."""

DEALT_OUT = {f"variables.{name}" for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "ASCEND_RT_VISIBLE_DEVICES")}
"""Facts that a lease sets for each launch anew; which devices it had, its placement says."""

_NOT_SET = "not set"


@dataclass(frozen=True)
class Difference:
    """A fact in which an experiment's launches, `own`, differ from those it is compared with, `other`."""

    fact: str
    own: str
    other: str

    @property
    def group(self) -> Group:
        """What the fact belongs to."""
        name = self.fact.partition(".")[0]
        return "engine" if name in ENGINE else "machine" if name in MACHINE else "circumstance"

    def __str__(self) -> str:
        return f"{self.fact} {self.other} -> {self.own}"


def environment_facts(environment: Environment) -> dict[str, str]:
    """Every field of `environment` as text, those of mappings as `<field>.<name>`."""
    return {name: value for name, value in _flat(environment.model_dump()) if name not in CACHES | DEALT_OUT}


def load_facts(record: Record) -> dict[str, str]:
    """What must be the same for two experiments to be compared at all: work, passes, and the model's shape."""
    spec = record.spec
    load: dict[str, Any] = {
        "measurement_version": spec.measurement_version,
        "workload": spec.workload.model_dump(exclude={"name"}),
        "measuring": spec.measuring,
        "synthetic": spec.model.synthetic or {},
    }
    if spec.load is not None:
        # A point is compared with the same point; which others were measured besides does not matter.
        load["arrivals"] = spec.load.model_dump(exclude={"points", "saturation", "cool_down_s", "harness_version"})
    return dict(_flat(load))


def launch_facts(record: Record) -> dict[str, str]:
    """What may differ between two launches of one load, and is then told: where they ran and how they were set."""
    spec, environment = record.spec, record.environment
    settings: dict[str, Any] = {
        "platform": spec.platform,
        "weights": spec.model.weights,
        "quant": spec.quant.model_dump(exclude={"name"}),
        "multiprocess": spec.engine.multiprocess,
        "args": spec.engine.args,
        "resolved": record.engine.resolved,
    }
    if spec.load is not None:
        settings["harness_version"] = spec.load.harness_version
    if spec.endpoint is not None:
        settings["endpoint"] = spec.endpoint
    variables = {f"variables.{name}": value for name, value in spec.engine.environment.items()}
    return variables | environment_facts(environment) | dict(_flat(settings))


def differences(own: Sequence[Mapping[str, str]], other: Sequence[Mapping[str, str]]) -> list[Difference]:
    """The facts whose values are not the same on both sides, each side being the facts of its launches.

    What the engine says of itself (`resolved`) counts only where both sides say it: versions tell of different things.
    """
    names = dict.fromkeys(name for facts in (*other, *own) for name in facts)
    found = []
    for name in names:
        mine, theirs = ({facts.get(name, _NOT_SET): None for facts in side} for side in (own, other))
        if set(mine) == set(theirs) or _about_the_same(name, [*mine, *theirs]):
            continue
        if name.startswith("resolved.") and _NOT_SET in {**mine, **theirs}:
            continue
        found.append(
            Difference(name, *(", ".join(_readable(name, value) for value in side) for side in (mine, theirs)))
        )
    return found


def pair_differences(own: Sequence[Record], other: Sequence[Record]) -> list[tuple[int, Difference]]:
    """Launch index and fact, for the launches that both sides have: those of `IN_PAIRS` and the host's name."""
    partners = {record.launch: record for record in other}
    return [
        (record.launch, Difference(fact, str(own_value), str(other_value)))
        for record in own
        if (partner := partners.get(record.launch)) is not None
        for fact in (*IN_PAIRS, "hostname")
        for own_value, other_value in [(_of_pair(fact, side) for side in (record, partner))]
        if own_value != other_value and not (fact == "device_count" and _asked(record) != _asked(partner))
    ]


def _of_pair(fact: str, record: Record) -> object:
    """A fact of `IN_PAIRS`, or the host's name: the node's, where the host is a container on it."""
    placement = record.placement
    return placement.node if fact == "hostname" and placement is not None else getattr(record.environment, fact)


def _asked(record: Record) -> list[int]:
    """How the launch was to be spread over devices."""
    return [record.spec.engine.args.get(name, 1) for name in _PARALLEL]


def _flat(content: Mapping[str, Any] | BaseModel, prefix: str = "") -> Iterator[tuple[str, str]]:
    items = content.model_dump() if isinstance(content, BaseModel) else content
    for name, value in items.items():
        if isinstance(value, Mapping | BaseModel):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", "unknown" if value is None else str(value)


def _about_the_same(name: str, values: Sequence[str]) -> bool:
    if name not in ABOUT or not all(value.isdecimal() for value in values):
        return False
    numbers = [int(value) for value in values]
    return max(numbers) <= (1 + ABOUT[name]) * min(numbers)


def _readable(name: str, value: str) -> str:
    if name in ("device_memory_bytes", "memory_bytes") and value.isdecimal():
        return f"{int(value) / 2**30:.1f} GiB"
    if name == "git_commit":
        digits, dirty, _ = value.partition("-dirty")
        return digits[:12] + dirty
    return value or "(empty)"
