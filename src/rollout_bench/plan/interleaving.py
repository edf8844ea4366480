"""Experiments that are interleaved: their engines are alive simultaneously and alternate their iterations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from rollout_bench.contracts.axes import DEFAULT_SETTING
from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.spec import Platform, Spec, devices_per_replica, replicas, replicas_key
from rollout_bench.core.errors import UserError
from rollout_bench.core.mappings import grouped
from rollout_bench.plan.config import Config
from rollout_bench.plan.matrix import Experiment, Matrix

OFF = "set interleave: false, or auto"

TOGETHER_AT_LEAST = 2
"""Minimum number of engines that must fit simultaneously: the baseline and one other."""


class MemoryUnknownError(Exception):
    """Reason for an unknown memory of an engine.

    Args:
        reason: in words that can follow `since`.
        remedy: how to make it known.
    """

    def __init__(self, reason: str, remedy: str = "download the model first") -> None:
        self.remedy = remedy
        super().__init__(reason)


class Memory(Protocol):
    """Memory of engines and of the machine, in one unit per platform."""

    def taken(self, experiment: Experiment) -> float:
        """Return the memory of an experiment's engine.

        Raises:
            MemoryUnknownError: it is unknown.
        """

    def there(self, platform: Platform) -> float:
        """Return the memory for all engines together; infinity if unknown here."""

    def words(self, platform: Platform, amount: float) -> str:
        """Return an amount in readable form."""

    def remedy(self, platform: Platform, engines: int) -> str:
        """Return the setting with which this number of engines fits."""


@dataclass(frozen=True)
class ComparedGroup:
    """Experiments that are compared with one another.

    Attributes:
        members: experiments, the baseline first if there is one.
        has_baseline: whether one of them is the baseline.
    """

    members: tuple[Experiment, ...]
    has_baseline: bool

    @property
    def name(self) -> str:
        """Common and differing names of its experiments, in words."""
        shared, own = [], []
        every = [_names(experiment.spec) for experiment in self.members]
        for axis in every[0]:
            values = list(dict.fromkeys(names[axis] for names in every))
            if len(values) == 1:
                shared += [name for name in values if name != DEFAULT_SETTING]
            else:
                own = values
        return f"{' '.join(shared)}: {', '.join(own)}"


@dataclass(frozen=True)
class BlockGroup:
    """Experiments whose launches of one index are measured as one block.

    Attributes:
        members: experiments, the baseline first.
        at_once: maximum number of engines that are alive simultaneously, 2 or more.
        started: whether engines start one after the other, or simultaneously.
        name: common and differing names of its experiments, in words.
    """

    members: tuple[Experiment, ...]
    at_once: int
    started: Literal["in_turn", "together"]
    name: str

    @property
    def baseline(self) -> Experiment:
        """The baseline of the group, which also gives the group's name."""
        return self.members[0]


@dataclass(frozen=True)
class Fit:
    """Number of engines of a comparison that fit the memory simultaneously.

    Attributes:
        at_once: engines, including the baseline; 0 or 1 if not even two fit.
        limit: the limiting factor, in words.
        remedy: the remedy, unless `Memory` provides it.
    """

    at_once: int
    limit: str
    remedy: str | None = None


Design = Callable[[ComparedGroup], int | None]
"""Function from a comparison to its previous design: number of simultaneous engines, 1 if not interleaved; None if not
measured before.
"""


def not_measured(comparison: ComparedGroup) -> int | None:
    """Return None: a comparison without measurements has no design."""
    return None


@dataclass(frozen=True)
class Interleaving:
    """Interleaved groups, and the reasons for comparisons without interleaving.

    Attributes:
        groups: the interleaved groups.
        reasons: reasons why the others are not interleaved, one line each.
        unfit: groups that were interleaved before and no longer fit, with the error to raise before measuring one.
    """

    groups: tuple[BlockGroup, ...] = ()
    reasons: tuple[str, ...] = field(default=())
    unfit: tuple[tuple[BlockGroup, UserError], ...] = ()


def comparisons(config: Config, matrix: Matrix) -> list[ComparedGroup]:
    """Return the groups of two or more compared experiments in modes that can interleave, in the matrix's order.

    Members of a group agree on all axes except the baseline's.
    """
    baseline = config.baseline.named
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


def interleaving(
    config: Config, matrix: Matrix, memory: Memory, *, on_cluster: bool, design: Design = not_measured
) -> Interleaving:
    """Return the interleaving under a config.

    `interleave: auto` decides only once: comparisons with records keep their design, whatever the memory is now. Pairs
    of both designs scatter differently, and the number of launches follows from the scatter of the first ones.

    Args:
        config: the config with `interleave`.
        matrix: its experiments.
        memory: memory of the engines and of the machine.
        on_cluster: whether launches run elsewhere, where the memory cannot be read now.
        design: previous designs of comparisons.

    Raises:
        UserError: `interleave: true`, and compared engines cannot be alive simultaneously.
    """
    if config.interleave is False:
        return Interleaving()
    asked = config.interleave is True
    compared = comparisons(config, matrix)
    refused = None if asked or not compared else _not_by_itself(matrix.platform, on_cluster)
    groups, reasons, unfit = [], [], []
    for comparison in compared:
        so_far = None if asked else design(comparison)
        if refused is not None and (so_far is None or so_far < TOGETHER_AT_LEAST):
            reasons.append(refused)
            continue
        obstacle = _obstacle(comparison)
        if obstacle is None and so_far is not None and so_far < TOGETHER_AT_LEAST:
            obstacle = ("its launches were measured one after the other so far, and stay so", "delete its records")
        if obstacle is None:
            size = len(comparison.members)
            least = TOGETHER_AT_LEAST if asked else min(so_far or size, size)
            fit = fitting(comparison, matrix.platform, memory)
            if fit.at_once >= least or so_far is not None:
                at_once = fit.at_once if asked else least
                group = BlockGroup(comparison.members, at_once, _started(config, comparison), comparison.name)
                groups.append(group)
                if fit.at_once < least:
                    unfit.append((group, _fits_no_more(group, fit)))
                continue
            obstacle = (fit.limit, fit.remedy or memory.remedy(matrix.platform, least))
        problem, remedy = obstacle
        if asked:
            raise UserError(f"config: interleave: {comparison.name}: {problem}", f"{remedy}, or {OFF}")
        reasons.append(f"{comparison.name}: {problem}; to interleave, {remedy}")
    return Interleaving(tuple(groups), tuple(dict.fromkeys(reasons)), tuple(unfit))


def _fits_no_more(group: BlockGroup, fit: Fit) -> UserError:
    return UserError(
        f"config: interleave: auto: {group.name}: its earlier launches were interleaved,"
        f" {group.at_once} engines alive simultaneously; now {fit.limit}",
        f"{fit.remedy or 'free memory'}, or set interleave: true (with fewer engines alive at once) or false",
    )


def fitting(comparison: ComparedGroup, platform: Platform, memory: Memory) -> Fit:
    """Return the number of a comparison's engines that fit the memory, for any choice beside the baseline."""
    try:
        first, *others = [memory.taken(experiment) for experiment in comparison.members]
    except MemoryUnknownError as error:
        return Fit(0, f"the memory that its engines take is not known, since {error}", error.remedy)
    taken, there = [first, *sorted(others, reverse=True)], memory.there(platform)
    at_once = sum(total <= there for total in itertools.accumulate(taken))
    number = min(at_once + 1, len(taken))
    engines = f"{number} engines take" if number > 1 else "one engine takes"
    used = f"{engines} {memory.words(platform, sum(taken[:number]))}"
    if math.isinf(there):
        return Fit(at_once, f"{used}; how much there is, only the machine that measures can tell")
    return Fit(at_once, f"{used}, and there is {memory.words(platform, there)}")


def _not_by_itself(platform: Platform, on_cluster: bool) -> str | None:
    if platform != "cpu":
        return "interleave: auto interleaves on cpu only; set interleave: true to do it here"
    if on_cluster:
        return "interleave: auto interleaves only where launches run on this machine; set interleave: true to do it"
    return None


def _obstacle(comparison: ComparedGroup) -> tuple[str, str] | None:
    """Return the problem and remedy that prevent interleaving, apart from memory; None if there is none."""
    specs = [experiment.spec for experiment in comparison.members]
    if not comparison.has_baseline:
        return "the baseline is not among them", "select it too"
    if any(spec.endpoint is not None for spec in specs):
        return "somebody else's server can't be told to wait for its turn", "leave endpoints out"
    if any(replicas(spec) > 1 for spec in specs):
        return "an engine of several replicas takes no turns", f"leave {replicas_key(specs[0])} out"
    if len({devices_per_replica(spec) for spec in specs}) > 1:
        return "they need different numbers of devices", "give all of them the same tensor_parallel_size"
    return None


def _started(config: Config, comparison: ComparedGroup) -> Literal["in_turn", "together"]:
    """Return how the engines start.

    They start together only if all have a fixed KV cache size and start-up time is not compared. On cpu they never do,
    since they would share the cores.
    """
    spec = comparison.members[0].spec
    sized = all(e.spec.engine.args.get("kv_cache_memory_bytes") is not None for e in comparison.members)
    if spec.platform == "cpu" or not sized or "startup_s" in config.comparison.metrics_of(spec.mode):
        return "in_turn"
    return "together"
