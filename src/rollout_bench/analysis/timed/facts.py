"""Facts of launches, engines and machines, and how those of two sides differ."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rollout_bench.contracts.fields import flat
from rollout_bench.contracts.record import Environment, Record
from rollout_bench.contracts.spec import Spec
from rollout_bench.plan.quants import NOT_SET

Group = Literal["engine", "machine", "circumstance"]


ENGINE = ("engine_name", "engine_version", "plugins", "torch_version", "python_version", "packages")
"""Facts that define the engine."""

MACHINE = (
    "platform",
    "device_model",
    "device_memory_bytes",
    "device_count",
    "cpu_model",
    "cpu_cores",
    "memory_bytes",
)
"""Facts that define the machine; its name and its kernel are circumstances."""

IN_PAIRS = ("device_model", "cpu_model", "cpu_cores", "device_count", "torch_version")
"""Facts that both launches of a pair must share; the number of devices only if both requested the same number."""

_PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")


ABOUT = {"device_memory_bytes": 0.01, "memory_bytes": 0.01, "resolved.num_gpu_blocks": 0.01}
"""Measured facts -> relative difference up to which they agree, since kernels keep some memory for themselves."""

CACHES = {f"variables.{name}" for name in ("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")}
"""Folders of compiled code, one per engine below a user's home: not a difference."""

EXECUTOR = "distributed_executor_backend"
"""Not compared: it follows from the mode and from `multiprocess`; in mode placement it is our own class."""

DEALT_OUT = {f"variables.{name}" for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "ASCEND_RT_VISIBLE_DEVICES")}
"""Facts that a lease sets anew for each launch; its placement records the devices."""


SENDER = {"harness", "harness_version"}
"""Fields of a load that identify its sender; they do not change the load."""


def arrivals(spec: Spec) -> dict[str, Any]:
    """Return the arrival of a load's requests; empty if the engine is no server."""
    # A point is compared with the same point; the other measured points do not matter.
    return {} if spec.load is None else spec.load.model_dump(exclude={"points", *SENDER})


@dataclass(frozen=True)
class Difference:
    """A fact that differs between an experiment's launches, `own`, and their counterparts, `other`."""

    fact: str
    own: str
    other: str

    @property
    def group(self) -> Group:
        """The group of the fact: engine, machine or circumstance."""
        name = self.fact.partition(".")[0]
        return "engine" if name in ENGINE else "machine" if name in MACHINE else "circumstance"

    def __str__(self) -> str:
        return f"{self.fact} {self.other} -> {self.own}"


def environment_facts(environment: Environment) -> dict[str, str]:
    """Return every field of `environment` as text; fields of mappings are named `<field>.<name>`."""
    return {name: value for name, value in flat(environment.model_dump()) if name not in CACHES | DEALT_OUT}


def load_facts(record: Record) -> dict[str, str]:
    """Return the facts that two compared experiments must share: work, iterations, and the model's shape."""
    spec = record.spec
    load = {
        "measurement_version": spec.measurement_version,
        "workload": spec.workload.model_dump(exclude={"name"}),
        "measuring": spec.measuring,
        "synthetic": spec.model.synthetic or {},
        "arrivals": arrivals(spec),
    }
    return dict(flat(load))


def launch_facts(record: Record) -> dict[str, str]:
    """Return the facts that may differ between two launches of one load and are then reported: machine and settings."""
    spec, environment = record.spec, record.environment
    settings: dict[str, Any] = {
        "measuring.iterations": spec.measuring.iterations,
        "platform": spec.platform,
        "weights": spec.model.weights,
        "quant": spec.quant.model_dump(exclude={"name"}),
        "multiprocess": spec.engine.multiprocess,
        "args": spec.engine.args,
        "resolved": {key: value for key, value in record.engine.resolved.items() if key != EXECUTOR},
    }
    if spec.load is not None:
        settings |= spec.load.model_dump(include=SENDER)
    known = {
        "endpoint": spec.endpoint,
        "devices": ", ".join(sorted(record.placement.devices if record.placement else ())),
        "engines_alive": record.block and len(record.block.members),
    }
    settings |= {name: value for name, value in known.items() if value}
    variables = {f"variables.{name}": value for name, value in spec.engine.environment.items()}
    return variables | environment_facts(environment) | dict(flat(settings))


def differences(own: Sequence[Mapping[str, str]], other: Sequence[Mapping[str, str]]) -> list[Difference]:
    """Return the facts whose values differ between both sides; each side has the facts of its launches.

    Values that the engine reports (`resolved`) count only if both sides have them, because versions report different
    ones.
    """
    names = dict.fromkeys(name for facts in (*other, *own) for name in facts)
    differing = []
    for name in names:
        mine, theirs = ({facts.get(name, NOT_SET): None for facts in side} for side in (own, other))
        if set(mine) == set(theirs) or _about_the_same(name, [*mine, *theirs]):
            continue
        if name.startswith("resolved.") and NOT_SET in {**mine, **theirs}:
            continue
        differing.append(
            Difference(name, *(", ".join(_readable(name, value) for value in side) for side in (mine, theirs)))
        )
    return differing


def pair_differences(own: Sequence[Record], other: Sequence[Record]) -> list[tuple[int, Difference]]:
    """Return launch index and differing fact for the launches that both sides have: `IN_PAIRS` and the host's name."""
    partners = {record.launch: record for record in other}
    differing = []
    for record in own:
        partner = partners.get(record.launch)
        if partner is None:
            continue
        for fact in (*IN_PAIRS, "hostname"):
            own_value, other_value = _pair_value(fact, record), _pair_value(fact, partner)
            was_asked = fact == "device_count" and _asked(record) != _asked(partner)
            if own_value != other_value and not was_asked:
                differing.append((record.launch, Difference(fact, str(own_value), str(other_value))))
    return differing


def _pair_value(fact: str, record: Record) -> object:
    """Return the value of a fact. For `hostname` it is the node if the placement is known."""
    placement = record.placement
    return placement.node if fact == "hostname" and placement is not None else getattr(record.environment, fact)


def _asked(record: Record) -> list[int | None]:
    return [record.spec.mode_spec.devices_shared, *(record.spec.engine.args.get(name, 1) for name in _PARALLEL)]


def _about_the_same(name: str, values: Sequence[str]) -> bool:
    numbers = [int(value) for value in values if value.isdecimal()]
    return name in ABOUT and len(numbers) == len(values) and max(numbers) <= (1 + ABOUT[name]) * min(numbers)


def _readable(name: str, value: str) -> str:
    if name in ("device_memory_bytes", "memory_bytes") and value.isdecimal():
        return f"{int(value) / 2**30:.1f} GiB"
    return short_commit(value) if name == "git_commit" else value or "(empty)"


def short_commit(commit: str) -> str:
    """Return a commit with its first 12 digits only, and with `-dirty` if it has that."""
    return re.sub("^(.{12})[^-]*", r"\1", commit)
