"""Collect the input of a summary: the selected experiments, their records, side files and failures, checked."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from rollout_bench.analysis.timed.exclusion import with_blocks_decided
from rollout_bench.analysis.timed.experiments import (
    Damaged,
    ExperimentResults,
    ResultSet,
    SideFile,
    TimedExperiment,
    with_one_model,
)
from rollout_bench.analysis.timed.points import split
from rollout_bench.contracts.axes import AXES, DEFAULT_SETTING
from rollout_bench.contracts.block_flags import is_decided_whole
from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.record import Failure, Launched, Record
from rollout_bench.contracts.spec import read_spec
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
from rollout_bench.plan.planfile import PlanFile

_Content = TypeVar("_Content")

DEFAULT_BASELINE = {"quant": "bf16"}
"""Baseline of speed-ups without a plan."""


def collect(
    results: Path, plan: PlanFile | None, comparison: ComparisonSettings | None = None, *, warned: bool = True
) -> ResultSet:
    """Read the records and failures that `plan` selects, or all of them if it is None.

    A record or failure is damaged if it does not validate, was edited, is in the wrong place or is a copy of another.
    It is listed as damaged in its experiment and not used otherwise. `comparison` replaces the plan's, or the default.
    `warned` records are flagged if their iterations are not steady, which loads numpy and scipy and changes no number.

    Raises:
        UserError: `results` is not a folder.
    """
    if not results.is_dir():
        problem = "is not a folder" if results.exists() else "does not exist"
        raise UserError(f"{results}: {problem}", "give the results folder, the one that holds offline/ or online/")
    listing = find_results(results)
    selected = _selected_experiments(results, listing, plan)
    timed = [each for each in selected if isinstance(each, TimedExperiment)]
    if warned:
        from rollout_bench.analysis.timed.steady import with_steadiness

        timed = [with_steadiness(each) for each in timed]
    others = tuple(each for each in selected if not isinstance(each, TimedExperiment))
    experiments = with_blocks_decided(timed, _block_mates(results, timed))
    if plan is None:
        return ResultSet(
            experiments=split(experiments),
            baseline=dict(DEFAULT_BASELINE),
            comparison=comparison or ComparisonSettings(),
            precision=None,
            skipped=(),
            planned=False,
            beyond_planned=0,
            not_selected=0,
            others=others,
        )
    if plan.precision is not None:
        # Not at the top: a plan with a fixed number of launches is read without numpy.
        from rollout_bench.analysis.timed.precision import with_enough

        experiments = with_enough(experiments, plan.baseline, plan.comparison, plan.precision)
    launches = {(e.mode, e.experiment): e.planned for e in (*experiments, *others)}
    places = [(file.launch, launches.get((file.mode, file.experiment))) for file in listing.records.values()]
    return ResultSet(
        experiments=split(experiments),
        baseline=dict(plan.baseline),
        comparison=comparison or plan.comparison,
        precision=plan.precision,
        slo=plan.slo,
        skipped=tuple(plan.skipped),
        planned=True,
        beyond_planned=sum(wanted is not None and launch >= wanted for launch, wanted in places),
        not_selected=sum(wanted is None for _, wanted in places),
        others=others,
        files=tuple(plan.files),
        overrides=tuple(plan.overrides),
    )


def _selected_experiments(
    results: Path, listing: ResultsListing, plan: PlanFile | None
) -> list[ExperimentResults[Launched]]:
    """Return the experiments that `plan` selects, in its order; without a plan all of them, sorted by their names."""
    records, failures = (
        grouped(((file.mode, file.experiment), file) for file in files.values())
        for files in (listing.records, listing.failures)
    )

    def launches_of(place: tuple[str, str], planned: int | None) -> dict[str, Any]:
        return _launch_fields(results, records.get(place, []), failures.get(place, []), planned)

    if plan is not None:
        return [
            _experiment(
                results,
                planned.model_dump(exclude={"launches", "devices"}),
                launches_of((planned.mode, planned.experiment), planned.launches),
            )
            for planned in plan.experiments
        ]
    every = []
    for place in records.keys() | failures.keys():
        launches = launches_of(place, None)
        every.append(_experiment(results, _names_found(results, *place, launches["records"]), launches))
    return sorted(every, key=lambda e: (e.mode, e.platform, e.model, e.workload, e.quant, e.setting, e.experiment))


def _experiment(results: Path, names: Mapping[str, Any], launches: Mapping[str, Any]) -> ExperimentResults[Launched]:
    if not mode_of(names["mode"]).generates:
        return ExperimentResults(**names, **launches)
    side_files = {
        record.launch: SideFile(
            sequences_path(record_path(results, names["mode"], names["experiment"], record.launch)), record
        )
        for record in launches["records"]
    }
    return TimedExperiment(**names, **launches, side_files=side_files)


def _launch_fields(
    results: Path, records: Sequence[FoundFile], failures: Sequence[FoundFile], planned: int | None
) -> dict[str, Any]:
    """Return the fields of an experiment about its launches; with a plan, only the `planned` launches are read."""
    if planned is not None:
        records, failures = ([file for file in files if file.launch < planned] for files in (records, failures))
    read, damaged = _read_records(results, records)
    settled = {record.launch for record in read} | {each.launch for each in damaged}
    failed, unreadable = _usable([file for file in failures if file.launch not in settled], partial(_failure, results))
    settled |= {failure.launch for failure in failed} | {each.launch for each in unreadable}
    return {
        "planned": planned,
        "records": with_one_model(read),
        "failures": tuple(failed),
        "missing": tuple(launch for launch in range(planned or 0) if launch not in settled),
        "damaged": (*damaged, *unreadable),
    }


def _block_mates(results: Path, experiments: Sequence[TimedExperiment]) -> Iterator[Record]:
    """Yield records of launches outside `experiments` that were measured in one block with launches of them.

    Unusable records are left out.
    """
    collected = {(e.mode, e.experiment, record.launch) for e in experiments for record in e.records}
    collected |= {(e.mode, e.experiment, each.launch) for e in experiments for each in e.damaged}
    wanted = dict.fromkeys(
        (experiment.mode, member.partition("/")[2], record.launch)
        for experiment in experiments
        for record in experiment.records
        if record.block is not None and is_decided_whole(record)
        for member in record.block.members
        if member.partition("/")[0] == experiment.mode
    )
    for mode, name, launch in (mate for mate in wanted if mate not in collected):
        # OSError: the file is missing, or its folder is not readable.
        with contextlib.suppress(UserError, OSError):
            stat = record_path(results, mode, name, launch).stat()
            record = _record(results, FoundFile(mode, name, launch, RECORD, stat.st_size, stat.st_mtime_ns))
            if isinstance(record, Record):
                yield record


def _names_found(results: Path, mode: str, experiment: str, records: Sequence[Launched]) -> dict[str, str]:
    """Return the names of an experiment that was found without a plan, from its spec or else from its folder."""
    spec = records[0].spec if records else None
    with contextlib.suppress(UserError):  # without a valid spec, the folder's name is used
        spec = spec or read_spec(results / mode / experiment / "spec.json")
    names = spec.axes if spec else dict.fromkeys(AXES, "?") | {"model": experiment, "setting": DEFAULT_SETTING}
    key = experiment.rpartition("-")[2] if spec is None else spec.key()
    return {"mode": mode, "experiment": experiment, "key": key, **names}


def _usable(files: Iterable[FoundFile], read: Callable[[FoundFile], _Content]) -> tuple[list[_Content], list[Damaged]]:
    """Return the contents of `files` that `read` accepts, and the others with their errors."""
    usable, damaged = [], []
    for file in files:
        try:
            usable.append(read(file))
        except UserError as error:
            damaged.append(Damaged(file.launch, error))
    return usable, damaged


def _read_records(results: Path, files: Iterable[FoundFile]) -> tuple[list[Launched], list[Damaged]]:
    """Return the usable and the damaged records among `files`, which are of one experiment."""
    records, damaged = _usable(files, partial(_record, results))
    copies = list(_copies(results, records))
    refused = {copy.launch for copy in copies}
    damaged = sorted([*damaged, *copies], key=lambda each: each.launch)
    return [record for record in records if record.launch not in refused], damaged


def _record(results: Path, file: FoundFile) -> Launched:
    """Return the record in `file`.

    Raises:
        UserError: it is damaged, in the wrong place, or has no measured iterations.
    """
    path = results / file.path
    record = read_launched(path, file.mode)
    key = file.experiment.rpartition("-")[2]
    inside = {"spec.mode": record.spec.mode, "key": record.key, "launch": record.launch, "spec": record.experiment}
    _must_match(path, inside, {"spec.mode": file.mode, "key": key, "launch": file.launch, "spec": file.experiment})
    if isinstance(record, Record) and all(iteration.warmup for iteration in record.iterations):
        raise UserError(f"{path}: iterations: all are warm-up, none was measured", RECORD_REMEDY)
    return record


def _failure(results: Path, file: FoundFile) -> Failure:
    path = results / FAILURES / file.path
    failure = read_failure(path)
    inside = {"experiment": failure.experiment, "launch": failure.launch}
    _must_match(path, inside, {"experiment": file.experiment, "launch": file.launch})
    return failure


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
            yield Damaged(record.launch, UserError(problem, "move the copy away to have that launch measured"))


def _must_match(path: Path, inside: Mapping[str, object], places: Mapping[str, object]) -> None:
    for field, value in inside.items():
        if value != places[field]:
            problem = f"{path}: {field}: says {value} but the file lies where {places[field]} belongs"
            raise UserError(problem, RECORD_REMEDY)
