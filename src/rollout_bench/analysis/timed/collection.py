"""Collect the input of a summary: the selected experiments, their records, side files and failures, checked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rollout_bench.analysis.timed.exclusion import is_decided_whole, with_blocks_decided
from rollout_bench.analysis.timed.experiments import (
    Collection,
    Damaged,
    Selected,
    SideFile,
    TimedExperiment,
    with_one_model,
)
from rollout_bench.analysis.timed.points import split
from rollout_bench.contracts.axes import AXES, DEFAULT_SETTING
from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.record import Failure, Launched, Record
from rollout_bench.contracts.spec import Spec, read_spec
from rollout_bench.contracts.store import (
    FAILURES,
    RECORD,
    RECORD_REMEDY,
    FoundFile,
    ResultsListing,
    find_results,
    read_failure,
    read_launched,
    record_path,
    sequences_path,
)
from rollout_bench.core.errors import UserError
from rollout_bench.core.mappings import grouped
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.plan.planfile import PlanFile, PlannedExperiment

DEFAULT_BASELINE = {"quant": "bf16"}
"""Baseline of speed-ups without a plan."""


def collect(results: Path, plan: PlanFile | None, comparison: ComparisonSettings | None = None) -> Collection:
    """Read the records and failures that `plan` selects, or all of them if it is None.

    A record or failure is damaged if it does not validate, was edited, is in the wrong place or is a copy of another.
    It is listed as damaged in its experiment and not used otherwise. `comparison` replaces the plan's, or the default.

    Raises:
        UserError: `results` is not a folder.
    """
    if not results.is_dir():
        problem = "is not a folder" if results.exists() else "does not exist"
        raise UserError(f"{results}: {problem}", "give the results folder, the one that holds offline/ or online/")
    found = find_results(results)
    if plan is None:
        return _collect_all(results, found, comparison or ComparisonSettings())
    comparison = comparison or plan.comparison
    records, failures = _by_experiment(found.records.values()), _by_experiment(found.failures.values())

    def fields(planned: PlannedExperiment) -> dict[str, Any]:
        place = (planned.mode, planned.experiment)
        return _planned(results, planned, records.get(place, []), failures.get(place, []))

    generating = [planned for planned in plan.experiments if mode_of(planned.mode).generates]
    timed = [_timed(results, fields(planned)) for planned in generating]
    experiments = with_blocks_decided(timed, _block_mates(results, timed))
    others: tuple[Selected[Launched], ...] = tuple(
        Selected(**fields(planned)) for planned in plan.experiments if not mode_of(planned.mode).generates
    )
    if plan.precision is not None:
        # Not at the top: a plan with a fixed number of launches is read without numpy.
        from rollout_bench.analysis.timed.precision import with_enough

        experiments = with_enough(experiments, plan.baseline, plan.comparison, plan.precision)
    selected = {(e.mode, e.experiment): e.planned for e in (*experiments, *others)}
    places = [(file.launch, selected.get((file.mode, file.experiment))) for file in found.records.values()]
    return Collection(
        experiments=split(experiments),
        baseline=dict(plan.baseline),
        comparison=comparison,
        precision=plan.precision,
        slo=plan.slo,
        skipped=tuple(plan.skipped),
        planned=True,
        beyond_planned=sum(wanted is not None and launch >= wanted for launch, wanted in places),
        not_selected=sum(wanted is None for _, wanted in places),
        others=others,
        weights={planned.experiment: planned.weights for planned in plan.experiments if planned.weights},
        files=tuple(plan.files),
    )


def _timed(results: Path, fields: Mapping[str, Any]) -> TimedExperiment:
    side_files = {
        record.launch: SideFile(
            sequences_path(record_path(results, fields["mode"], fields["experiment"], record.launch)), record
        )
        for record in fields["records"]
    }
    return TimedExperiment(**fields, side_files=side_files)


def _block_mates(results: Path, experiments: Sequence[TimedExperiment]) -> Iterator[Record]:
    """Yield records of launches outside `experiments` that were measured in one block with launches of them.

    Unusable records are left out.
    """
    there = {(e.mode, e.experiment, record.launch) for e in experiments for record in e.records}
    damaged = {(e.mode, e.experiment, each.launch) for e in experiments for each in e.damaged}
    wanted = dict.fromkeys(
        (experiment.mode, member.partition("/")[2], record.launch)
        for experiment in experiments
        for record in experiment.records
        if record.block is not None and is_decided_whole(record)
        for member in record.block.members
        if member.partition("/")[0] == experiment.mode
    )
    for mate in wanted:
        if mate in there or mate in damaged:
            continue
        mode, name, launch = mate
        path = record_path(results, mode, name, launch)
        # OSError: the file is missing, or its folder is not readable.
        with contextlib.suppress(UserError, OSError):
            stat = path.stat()
            file = FoundFile(mode, name, launch, RECORD, stat.st_size, stat.st_mtime_ns)
            record = _checked(path, file, read_launched(path, mode))
            if isinstance(record, Record):
                yield record


def _planned(
    results: Path, planned: PlannedExperiment, records: Sequence[FoundFile], failures: Sequence[FoundFile]
) -> dict[str, Any]:
    """Return the fields of a planned experiment; only its planned launches are read."""
    wanted = range(planned.launches)
    became = _became(results, *([file for file in files if file.launch in wanted] for files in (records, failures)))
    settled = {each.launch for outcomes in became.values() for each in outcomes}
    names = planned.model_dump(exclude={"launches", "weights", "devices"})
    missing = tuple(launch for launch in wanted if launch not in settled)
    return {**names, **became, "planned": planned.launches, "missing": missing}


def _became(results: Path, records: Iterable[FoundFile], failures: Iterable[FoundFile]) -> dict[str, tuple[Any, ...]]:
    read, damaged = _read(results, records)
    settled = {record.launch for record in read} | {each.launch for each in damaged}
    unsettled, unreadable = _read_failures(results, failures, settled)
    return {"records": with_one_model(read), "failures": unsettled, "damaged": (*damaged, *unreadable)}


def _collect_all(results: Path, found: ResultsListing, comparison: ComparisonSettings) -> Collection:
    records, failures = _by_experiment(found.records.values()), _by_experiment(found.failures.values())
    experiments: list[TimedExperiment] = []
    others: list[Selected[Launched]] = []
    for place in sorted(records.keys() | failures.keys()):
        became = _became(results, records.get(place, []), failures.get(place, []))
        names = _names_found(results, *place, became["records"])
        fields: dict[str, Any] = {**names, **became, "planned": None, "missing": ()}
        if mode_of(place[0]).generates:
            experiments.append(_timed(results, fields))
        else:
            others.append(Selected(**fields))
    for each in (experiments, others):
        each.sort(key=lambda e: (e.mode, e.platform, e.model, e.workload, e.quant, e.setting, e.experiment))
    return Collection(
        split(with_blocks_decided(experiments, _block_mates(results, experiments))),
        dict(DEFAULT_BASELINE),
        comparison,
        None,
        (),
        False,
        0,
        0,
        others=tuple(others),
    )


def _names_found(results: Path, mode: str, experiment: str, records: Sequence[Launched]) -> dict[str, str]:
    """Return the names of an experiment that was found without a plan, from its spec or else from its folder."""
    spec = records[0].spec if records else _spec(results / mode / experiment / "spec.json")
    names = spec.axes if spec else dict.fromkeys(AXES, "?") | {"model": experiment, "setting": DEFAULT_SETTING}
    key = experiment.rpartition("-")[2] if spec is None else spec.key()
    return {"mode": mode, "experiment": experiment, "key": key, **names}


def _spec(path: Path) -> Spec | None:
    """Return the spec at `path`; None without a valid one, so that the folder's name is used."""
    try:
        return read_spec(path)
    except UserError:
        return None


def _by_experiment(files: Iterable[FoundFile]) -> dict[tuple[str, str], list[FoundFile]]:
    return grouped(((file.mode, file.experiment), file) for file in files)


def _read(results: Path, files: Iterable[FoundFile]) -> tuple[tuple[Launched, ...], tuple[Damaged, ...]]:
    """Return the usable and the damaged records among `files`, which are of one experiment."""
    records: list[Launched] = []
    damaged: list[Damaged] = []
    for file in files:
        path = results / file.path
        try:
            records.append(_checked(path, file, read_launched(path, file.mode)))
        except UserError as error:
            damaged.append(Damaged(file.launch, error))
    copies = list(_copies(results, records))
    refused = {copy.launch for copy in copies}
    damaged = sorted([*damaged, *copies], key=lambda each: each.launch)
    return tuple(record for record in records if record.launch not in refused), tuple(damaged)


def _checked(path: Path, file: FoundFile, record: Launched) -> Launched:
    """Return `record`, read from `path`.

    Raises:
        UserError: the file is in the wrong place, or has no measured iterations.
    """
    _must_match(path, "spec.mode", record.spec.mode, file.mode)
    _must_match(path, "key", record.key, file.experiment.rpartition("-")[2])
    _must_match(path, "launch", record.launch, file.launch)
    _must_match(path, "spec", record.experiment, file.experiment)
    if isinstance(record, Record) and all(iteration.warmup for iteration in record.iterations):
        raise UserError(f"{path}: iterations: all are warm-up, none was measured", RECORD_REMEDY)
    return record


def _copies(results: Path, records: Sequence[Launched]) -> Iterator[Damaged]:
    """Yield the `records` of one experiment that are copies of each other.

    The original is unknown, so none of them counts.
    """
    for same in grouped((record.origin, record) for record in records).values():
        if len(same) == 1:
            continue
        paths = [record_path(results, record.spec.mode, record.experiment, record.launch) for record in same]
        for record, path in zip(same, paths, strict=True):
            others = ", ".join(str(other) for other in paths if other != path)
            problem = f"{path}: holds the same launch as {others}, with all its times"
            yield Damaged(record.launch, UserError(problem, "delete the copy to have that launch measured"))


def _read_failures(
    results: Path, files: Iterable[FoundFile], settled: set[int]
) -> tuple[tuple[Failure, ...], tuple[Damaged, ...]]:
    failures: list[Failure] = []
    damaged: list[Damaged] = []
    for file in files:
        if file.launch in settled:
            continue
        path = results / FAILURES / file.path
        try:
            failure = read_failure(path)
            _must_match(path, "experiment", failure.experiment, file.experiment)
            _must_match(path, "launch", failure.launch, file.launch)
            failures.append(failure)
        except UserError as error:
            damaged.append(Damaged(file.launch, error))
    return tuple(failures), tuple(damaged)


def _must_match(path: Path, field: str, inside: str | int, place: str | int) -> None:
    if inside != place:
        raise UserError(f"{path}: {field}: says {inside} but the file lies where {place} belongs", RECORD_REMEDY)
