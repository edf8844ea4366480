"""The ranks of a placement as one engine: where each runs, and one start and one step from those of all ranks.

A launch starts a process for each rank, as for replicas; the ranks also communicate directly: gloo, NCCL.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from rollout_bench.contracts.record import Environment, WeightBytes
from rollout_bench.contracts.spec import Platform, Spec
from rollout_bench.core.errors import MeasuringFailed
from rollout_bench.measure.launch.hooks import Hooks
from rollout_bench.measure.launch.protocol import Event, IterationDone, ProofsTaken, Ready
from rollout_bench.measure.launch.replicas import done_together, ready_together
from rollout_bench.measure.machine import inventory
from rollout_bench.modes.placement.events import RankReady, StepOver
from rollout_bench.modes.placement.record import PlacedStep, RankStep, placed_engines
from rollout_bench.modes.placement.settings import PlacementSpec

MEETING = "ROLLOUT_BENCH_MEETING"
"""Variable with the file at which ranks meet; its name is unique on the machine."""

DEVICES_OF: Mapping[Platform, str] = {"cuda": "CUDA_VISIBLE_DEVICES"}
"""Platform -> variable with the devices that a process sees."""


def roles(spec: Spec) -> list[str]:
    """Return the work of each rank, for messages."""
    placement = spec.of(PlacementSpec)
    works = {"generates": placement.generating, "trains": placement.training}
    return [" and ".join(work for work, ranks in works.items() if rank in ranks) for rank in range(placement.devices)]


def surroundings(spec: Spec, number: int, folder: Path) -> tuple[dict[str, str], list[int] | None]:
    """Return the variables of rank `number`, and the cores that it may use; None for all of its process.

    The ranks of an engine see the devices of all its ranks, which vLLM needs for transfers outside NCCL. All engines
    are one torch.distributed world, as in TRL and verl, and so is a trainer apart from them. The ranks find each other
    in `folder`, whose name is unique on the machine.
    """
    placement = spec.of(PlacementSpec)
    devices = placement.devices
    world = placement.generating if number in placement.generating else placement.training
    shards = next((ranks for ranks in placed_engines(spec) if number in ranks), range(number, number + 1))
    environment = {
        # a server's engine is always in another process
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1" if spec.engine.multiprocess or placement.through else "0",
        # in torchrun's convention
        "RANK": str(world.index(number)),
        "LOCAL_RANK": str(shards.index(number)),
        "WORLD_SIZE": str(len(world)),
        MEETING: f"{folder}/{folder.name}-world-{world[0]}",
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),  # the host's name may lead nowhere
    }
    if spec.platform in DEVICES_OF:
        variable = DEVICES_OF[spec.platform]
        visible = os.environ.get(variable)
        visible_devices = [str(rank) for rank in range(devices)] if visible is None else visible.split(",")
        if len(visible_devices) < devices or not all(visible_devices):
            raise MeasuringFailed(
                "too_few_devices",
                f"{variable} is {visible!r}, and a placement needs {devices} devices",
                f"let the launch see {devices} devices, or lower placement.devices",
            )
        return {**environment, variable: ",".join(visible_devices[rank] for rank in shards)}, None
    cores = list(inventory.core_blocks(devices)[number].cores)[: placement.cores_per_device]
    threads = int(os.environ.get("OMP_NUM_THREADS") or len(cores))
    environment[inventory.MEMORY_NODES] = inventory.memory_nodes(cores)
    return {**environment, "OMP_NUM_THREADS": str(min(threads, len(cores)))}, cores


def join(spec: Spec, events: Sequence[Event]) -> Event:
    """Return one event from the n-th events of all ranks, by number."""
    if steps := [event for event in events if isinstance(event, StepOver)]:
        return joint_pass(steps, spec)
    if loaded := [event for event in events if isinstance(event, RankReady)]:
        return ready([rank.ready for rank in loaded], spec)
    if taken := [event for event in events if isinstance(event, ProofsTaken)]:
        proofs = zip_longest(*(event.proofs for event in taken))
        return ProofsTaken(proofs=[proof for each in proofs for proof in each if proof])
    return events[0]


def ready(readies: Sequence[Ready | None], spec: Spec) -> Ready:
    """Return the start of the launch: the start of its engines, on the devices of all ranks.

    Args:
        readies: the start of each rank's engine, by number; None for ranks without an engine.
        spec: the spec of the launch.
    """
    engines = [engine_ready([one for rank in shards if (one := readies[rank])]) for shards in placed_engines(spec)]
    one = engines[0] if len(engines) == 1 else ready_together(engines, spec.platform)
    changes: dict[str, int] = {"cpu_cores": len(os.sched_getaffinity(0))}
    if spec.platform != "cpu":
        changes["device_count"] = spec.of(PlacementSpec).devices
    environment: Environment = one.environment.model_copy(update=changes)
    processes = {pid: name for each in readies if each for pid, name in each.processes.items()}
    return one.model_copy(update={"environment": environment, "processes": processes})


def engine_ready(shards: Sequence[Ready]) -> Ready:
    """Return the start of an engine from the starts of its ranks: the times of the slowest, the weights of all."""
    slowest = max(shards, key=lambda rank: rank.import_s + rank.init_s)
    weights = [each for rank in shards if (each := rank.engine.weights_bytes_by_dtype) is not None]
    linear = sum((Counter(each.linear) for each in weights), Counter[str]())
    other = sum((Counter(each.other) for each in weights), Counter[str]())
    of_all = WeightBytes(linear=dict(linear), other=dict(other))
    engine = shards[0].engine.model_copy(update={"weights_bytes_by_dtype": of_all})
    return shards[0].model_copy(update={"import_s": slowest.import_s, "init_s": slowest.init_s, "engine": engine})


def joint_pass(over: Sequence[StepOver], spec: Spec) -> IterationDone:
    """Return the joint pass of all ranks, which were released together.

    Args:
        over: the steps of all ranks, by number.
        spec: the spec of the launch.

    Raises:
        MeasuringFailed: if ranks of one engine generated different sequences.
    """
    release = min(one.released for one in over)
    passes = [engine_pass([over[rank] for rank in shards], release) for shards in placed_engines(spec)]
    done = passes[0] if len(passes) == 1 else done_together(passes)
    ranks = [_since_release(one.step, release) for one in over]
    placed = PlacedStep(
        elapsed_s=max(span.began_s + span.elapsed_s for rank in ranks for span in rank.spans),
        ranks=ranks,
        gathered_bytes=sum(one.gathered_bytes for one in over),
        update_bytes=max(one.update_bytes for one in over),
    )
    parts = done.iteration.replicas if len(passes) > 1 else None
    iteration = done.iteration.model_copy(update={"placed": placed, "replicas": parts})
    return done.model_copy(update={"iteration": iteration, "began": release})


def engine_pass(shards: Sequence[StepOver], release: float) -> IterationDone:
    """Return the pass of an engine from the steps of its ranks; it ends with the last rank.

    Args:
        shards: the steps of its ranks.
        release: time at which the first rank of the launch was released, on the monotonic clock, in seconds.

    Raises:
        MeasuringFailed: if its ranks generated different sequences, so that one must be wrong.
    """
    iterations = [one.done for one in shards if one.done is not None]
    first, *others = iterations
    generated = [(row.prompt, row.sample, row.digest) for row in first.sequences]
    if any(generated != [(row.prompt, row.sample, row.digest) for row in other.sequences] for other in others):
        raise MeasuringFailed(
            "ranks_disagree",
            f"iteration {first.iteration.index}: ranks {shards[0].step.rank} to {shards[-1].step.rank} are one engine, "
            "and generated different sequences",
            "measure with tensor_parallel_size 1, and report it to vLLM: ranks with the same requests must agree",
        )
    offset_s = shards[0].released - release
    end_s = max(one.released + done.iteration.elapsed_s for one, done in zip(shards, iterations, strict=True)) - release
    parts = [
        part.model_copy(update={"start_offset_s": offset_s, "elapsed_s": end_s - offset_s})
        for part in first.iteration.replicas or []
    ]
    iteration = first.iteration.model_copy(update={"replicas": parts, "elapsed_s": end_s - offset_s})
    return first.model_copy(update={"iteration": iteration})


def _since_release(step: RankStep, release: float) -> RankStep:
    """Return `step` with the beginnings of its spans in seconds after `release`."""
    spans = [span.model_copy(update={"began_s": span.began_s - release}) for span in step.spans]
    return step.model_copy(update={"spans": spans})


HOOKS = Hooks(roles=roles, join=join)
