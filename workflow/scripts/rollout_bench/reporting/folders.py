"""Two results folders that are to be compared: what each selects, what they have in common, and whether they may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rollout_bench.analysis.apart import counterparts, in_common, refusals
from rollout_bench.analysis.collection import collect
from rollout_bench.analysis.experiments import Collection, Earlier, Experiment
from rollout_bench.analysis.found import check_results_folder
from rollout_bench.errors import UserError, near_miss
from rollout_bench.plan.comparing import ComparisonSettings
from rollout_bench.reporting.state import plan_of_summary

_SHOWN = 5
"""Names that a message lists before it counts."""


@dataclass(frozen=True)
class TwoFolders:
    """What each folder selects, `of_a` and `of_b`; `collection` has those of B that A has too, and A's as earlier.

    `damaged` says what is wrong with each file of either that can't be used.
    """

    a: Path
    b: Path
    of_a: Collection
    of_b: Collection
    collection: Collection
    damaged: tuple[UserError, ...]

    @property
    def only_in_a(self) -> tuple[Experiment, ...]:
        """What B has no counterpart for."""
        return _without(self.of_a.experiments, in_common(self.of_a.experiments, self.of_b.experiments))

    @property
    def only_in_b(self) -> tuple[Experiment, ...]:
        """What A has no counterpart for."""
        return _without(self.of_b.experiments, self.collection.experiments)


def read_two(
    a: Path, b: Path, settings: ComparisonSettings, differ: Sequence[str] = (), everything: bool = False
) -> TwoFolders:
    """Reads two results folders, each as its summary selects, or all there is with `everything`.

    Raises:
        UserError: a folder holds no records or none that can be used, both are the same, they have nothing in common,
            or they differ in more than may differ: `differ` names what may, of engine and machine; empty: one of them.
    """
    for folder in (a, b):
        check_results_folder(folder)
    if a.resolve() == b.resolve():
        raise UserError(f"{a} and {b} are the same folder", "name two results folders, the earlier one first")
    all_of_a, all_of_b = (collect(f, None if everything else plan_of_summary(f)) for f in (a, b))
    of_a, of_b = _measured(a, all_of_a), _measured(b, all_of_b)
    common = in_common(of_b.experiments, of_a.experiments)
    if not common:
        raise _nothing_in_common(a, of_a, b, of_b)
    earlier = Earlier(str(a), of_a.experiments, of=str(b), differ=tuple(differ))
    refused = refusals(common, counterparts(common, earlier), earlier)
    if refused:
        raise refused[0].error()
    baseline = {"results": str(a)}
    # How many launches B was to have is over: all that it has are compared, by a test that looks once.
    collection = replace(
        of_b, experiments=common, baseline=baseline, comparison=settings, precision=None, earlier=earlier
    )
    return TwoFolders(a, b, of_a, of_b, collection, (*all_of_a.damaged, *all_of_b.damaged))


def told(experiment: Experiment) -> str:
    """What a message calls it: model, quant and workload."""
    return f"{experiment.model} {experiment.quant} {experiment.workload}"


def _measured(folder: Path, collection: Collection) -> Collection:
    """Those of `collection`, which was read from `folder`, that there are records of."""
    experiments = tuple(e for e in collection.experiments if e.records)
    if not experiments and collection.damaged:
        raise collection.damaged[0]
    if not experiments:
        raise UserError(
            f"{folder}: nothing of what its summary selects is measured", "add --all to take every record that is there"
        )
    return replace(collection, experiments=experiments)


def _nothing_in_common(a: Path, of_a: Collection, b: Path, of_b: Collection) -> UserError:
    names_a, names_b = ([_with_platform(e) for e in side.experiments] for side in (of_a, of_b))
    near = next(((name, close) for name in names_b if (close := near_miss(name, names_a))), None)
    remedy = "measure the same model, quant and workload under the same names in both"
    if near:
        remedy = f"nearest are '{near[1]}' and '{near[0]}': {remedy}"
    return UserError(f"no experiment in common: {a} has {_listed(names_a)}; {b} has {_listed(names_b)}", remedy)


def _with_platform(experiment: Experiment) -> str:
    return f"{told(experiment)} ({experiment.mode}, {experiment.platform})"


def _listed(names: Sequence[str]) -> str:
    unique = list(dict.fromkeys(names))
    more = f" and {len(unique) - _SHOWN} more" if len(unique) > _SHOWN else ""
    return ", ".join(unique[:_SHOWN]) + more


def _without(experiments: Sequence[Experiment], common: Sequence[Experiment]) -> tuple[Experiment, ...]:
    places = {(e.mode, e.experiment) for e in common}
    return tuple(e for e in experiments if (e.mode, e.experiment) not in places)
