"""How many devices an experiment takes: tensor and pipeline parallel inside an engine, data parallel beside it."""

from __future__ import annotations

from rollout_bench.plan.spec import Spec


def replicas(spec: Spec) -> int:
    """Engines that a launch starts and releases together: vLLM's `data_parallel_size`, 1 where nothing is said."""
    return _of(spec, "data_parallel_size")


def devices_per_replica(spec: Spec) -> int:
    """Devices of one engine: tensor_parallel_size x pipeline_parallel_size; on cpu one block of cores holds it all."""
    return 1 if spec.platform == "cpu" else _of(spec, "tensor_parallel_size") * _of(spec, "pipeline_parallel_size")


def devices_needed(spec: Spec) -> int:
    """Devices that a launch takes on the machine it runs on; none where the server is another's."""
    return 0 if spec.endpoint is not None else replicas(spec) * devices_per_replica(spec)


def _of(spec: Spec, argument: str) -> int:
    return int(spec.engine.args.get(argument) or 1)
