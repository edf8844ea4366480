"""Experiments that are interleaved: their engines are alive simultaneously and alternate their iterations."""

from dataclasses import dataclass, field

from rollout_bench.contracts.axes import DEFAULT_SETTING
from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.spec import Platform, Spec, devices_per_replica, replicas
from rollout_bench.core.errors import UserError
from rollout_bench.core.mappings import grouped
from rollout_bench.plan.config import Config
from rollout_bench.plan.fit.architecture import MemoryUnknownError
from rollout_bench.plan.fit.memory import MachineMemory
from rollout_bench.plan.matrix import Experiment, Matrix

OFF = "set interleave: false, or auto"

TOGETHER_AT_LEAST = 2
"""Minimum number of engines that must fit simultaneously: the baseline and one other."""


@dataclass(frozen=True)
class ComparedGroup:
    """Experiments that are compared with one another; if interleaved, their launches of one index are one block.

    Attributes:
        members: experiments, the baseline first if there is one.
        has_baseline: whether one of them is the baseline.
    """

    members: tuple[Experiment, ...]
    has_baseline: bool

    @property
    def name(self) -> str:
        """Common and differing names of its experiments, in words."""
        every = [_names(experiment.spec) for experiment in self.members]
        differing = [axis for axis in every[0] if len({names[axis] for names in every}) > 1]
        shared = [name for axis, name in every[0].items() if axis not in differing and name != DEFAULT_SETTING]
        differing_names = [" ".join(names[axis] for axis in differing) for names in every]
        return f"{' '.join(shared)}: {', '.join(differing_names)}"


@dataclass(frozen=True)
class Interleaving:
    """Interleaved groups, and the reasons for comparisons without interleaving.

    Attributes:
        groups: the interleaved groups.
        reasons: reasons why the others are not interleaved, one line each.
    """

    groups: tuple[ComparedGroup, ...] = ()
    reasons: tuple[str, ...] = field(default=())


def comparisons(config: Config, matrix: Matrix) -> list[ComparedGroup]:
    """Return the groups of two or more compared experiments in modes that can interleave, in the matrix's order.

    Members of a group agree on all axes except the baseline's.
    """
    baseline = config.baseline.axes
    cells = grouped(
        (tuple(name for of, name in _names(experiment.spec).items() if of not in baseline), experiment)
        for experiment in matrix.experiments
        if mode_of(experiment.spec.mode).interleaves
    )
    found = []
    for members in cells.values():
        first = [e for e in members if all(e.spec.axes[axis] == value for axis, value in baseline.items())]
        others = [experiment for experiment in members if experiment not in first]
        if len(members) >= TOGETHER_AT_LEAST:
            found.append(ComparedGroup((*first, *others), bool(first)))
    return found


def _names(spec: Spec) -> dict[str, str]:
    return {"mode": spec.mode, **spec.axes}


def interleaving(config: Config, matrix: Matrix, memory: MachineMemory, *, on_cluster: bool) -> Interleaving:
    """Return the interleaving under a config.

    Args:
        config: the config with `interleave`.
        matrix: its experiments.
        memory: memory of the engines and of the machine.
        on_cluster: whether launches run elsewhere, where the memory cannot be read now.

    Raises:
        UserError: `interleave: true`, and compared engines cannot be alive simultaneously.
    """
    if config.interleave is False:
        return Interleaving()
    asked, compared = config.interleave is True, comparisons(config, matrix)
    if compared and not asked and (on_cluster or matrix.platform != "cpu"):
        where = "on cpu only" if matrix.platform != "cpu" else "only where launches run on this machine"
        to_do_it = "to do it here" if matrix.platform != "cpu" else "to do it"
        return Interleaving(reasons=(f"interleave: auto interleaves {where}; set interleave: true {to_do_it}",))
    groups, reasons = [], []
    for comparison in compared:
        obstacle = _obstacle(comparison) or too_large(comparison, matrix.platform, memory)
        if obstacle is None:
            groups.append(comparison)
            continue
        problem, remedy = obstacle
        if asked:
            raise UserError(f"config: interleave: {comparison.name}: {problem}", f"{remedy}, or {OFF}")
        reasons.append(f"{comparison.name}: {problem}; to interleave, {remedy}")
    return Interleaving(tuple(groups), tuple(dict.fromkeys(reasons)))


def too_large(comparison: ComparedGroup, platform: Platform, memory: MachineMemory) -> tuple[str, str] | None:
    """Return the problem and remedy if the engines of a comparison do not fit the memory together; None if they do."""
    try:
        taken = sum(memory.taken(experiment) for experiment in comparison.members)
    except MemoryUnknownError as error:
        return f"the memory that its engines take is not known, since {error}", error.remedy
    available = memory.available(platform)
    if taken <= available:
        return None
    engines = len(comparison.members)
    used = f"{engines} engines take {memory.words(platform, taken)}"
    return f"{used}, and there is {memory.words(platform, available)}", memory.remedy(platform, engines)


def _obstacle(comparison: ComparedGroup) -> tuple[str, str] | None:
    """Return the problem and remedy that prevent interleaving, apart from memory; None if there is none."""
    specs = [experiment.spec for experiment in comparison.members]
    if not comparison.has_baseline:
        return "the baseline is not among them", "select it too"
    if any(spec.endpoint is not None for spec in specs):
        return "somebody else's server can't be told to wait for its turn", "leave endpoints out"
    if any(replicas(spec) > 1 for spec in specs):
        return "an engine of several replicas takes no turns", f"leave {specs[0].mode_spec.replicas_key} out"
    if len({devices_per_replica(spec) for spec in specs}) > 1:
        return "they need different numbers of devices", "give all of them the same tensor_parallel_size"
    return None
