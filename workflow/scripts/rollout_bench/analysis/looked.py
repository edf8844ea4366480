"""Everything that a summary says of what goes on inside the engine: profiles, linear layers alone, limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rollout_bench.analysis.chosen import Chosen, chosen
from rollout_bench.analysis.experiments import Collection
from rollout_bench.analysis.operators.passes import Pass, passes_of
from rollout_bench.analysis.operators.runs import Run, runs_of
from rollout_bench.analysis.operators.steps import Profiled as ProfiledLinears
from rollout_bench.analysis.operators.steps import Step, steps_of
from rollout_bench.analysis.profiles.profiled import LINEAR, QUANTIZE
from rollout_bench.analysis.profiles.reading import read_profiled
from rollout_bench.analysis.profiles.report import ProfileReport, profile_report
from rollout_bench.analysis.reaches import Reach, architecture_in, machine_limits, reaches_of
from rollout_bench.analysis.rows import Row
from rollout_bench.bounds.architecture import Architecture
from rollout_bench.plan.comparing import ComparisonSettings
from rollout_bench.records.limits import MachineLimits


@dataclass(frozen=True)
class Looked:
    """What was found inside the engine; all empty where nothing of the kind was measured.

    `architectures` are those of the profiles by their place, as far as they are known. `problems` say of profiles that
    can't be read why, and what to do. `left_out` are the experiments without a valid launch, of which nothing else is
    made from anything that they measured.
    """

    profiles: ProfileReport = field(default_factory=lambda: profile_report((), ComparisonSettings()))
    runs: tuple[Run, ...] = ()
    steps: tuple[Step, ...] = ()
    passes: tuple[Pass, ...] = ()
    reaches: tuple[Reach, ...] = ()
    limits: tuple[MachineLimits, ...] = ()
    architectures: Mapping[str, Architecture] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    left_out: tuple[Chosen, ...] = ()


def look(results: Path, collection: Collection, rows: Sequence[Row]) -> Looked:
    """Reads and analyses what `collection`, which was read from `results`, has of modes that look into the engine."""
    if not collection.others:
        return Looked()
    settings = collection.comparison
    inside = chosen(collection.others)
    read = read_profiled(results, inside, collection, rows)
    profiles = profile_report(read.profiled, settings, read.left_out)
    runs = runs_of(inside, collection.baseline, settings.confidence)
    steps = steps_of(runs, _decode_linears(profiles))
    limits = machine_limits(inside)
    return Looked(
        profiles=profiles,
        runs=tuple(runs),
        steps=tuple(steps),
        passes=tuple(passes_of(steps, rows)),
        reaches=tuple(reaches_of(results, inside, limits, collection, rows)),
        limits=tuple(limits),
        architectures=dict(_architectures(inside, collection)),
        problems=read.problems,
        left_out=tuple(each for each in inside if each.reason),
    )


def _architectures(inside: Sequence[Chosen], collection: Collection) -> Iterator[tuple[str, Architecture]]:
    for each in inside:
        if each.experiment.mode == "profile" and not each.reason:
            found = architecture_in(collection, each.experiment)
            if not isinstance(found, str):
                yield each.place, found


def _decode_linears(report: ProfileReport) -> dict[tuple[str, str, str, str], ProfiledLinears | str]:
    """Of each profile that has decode steps: how long they are, and their linear layers with what quantizing costs.

    Of a profile without a valid launch instead why.
    """
    found: dict[tuple[str, str, str, str], ProfiledLinears | str] = {
        (each.platform, each.model, each.workload, each.quant): each.reason for each in report.left_out
    }
    for each in report.profiled:
        breakdown = report.of(each).get("decode")
        if breakdown is not None:
            linear_us = breakdown.of_category(LINEAR) + breakdown.of_category(QUANTIZE)
            place = (each.platform, each.model, each.workload, each.quant)
            found[place] = ProfiledLinears(breakdown.step_us / 1e6, linear_us / 1e6)
    return found
