"""Collects what is to be summarised: the selected experiments, their records and failures, checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rollout_bench.analysis.experiments import Collection, Experiment, Selected
from rollout_bench.analysis.found import FAILURES, Found, FoundFile, find_results
from rollout_bench.analysis.points import split
from rollout_bench.analysis.read_requests import with_requests
from rollout_bench.errors import UserError
from rollout_bench.plan.comparing import ComparisonSettings
from rollout_bench.plan.planfile import PlanFile, PlannedExperiment
from rollout_bench.plan.spec import read_spec
from rollout_bench.records.record import Failure, Launched, Record
from rollout_bench.records.store import LOOKING, read_failure, read_launched, read_record

_Launched = TypeVar("_Launched", bound=Launched)

DEFAULT_BASELINE = {"quant": "bf16"}
"""What speed-ups refer to where no plan says it."""


def collect(results: Path, plan: PlanFile | None) -> Collection:
    """Reads the records and failures that `plan` selects, or all there are where it is None.

    Raises:
        UserError: `results` is no folder, or a file does not validate or lies where it does not
            belong; the message names file and field.
    """
    if not results.is_dir():
        problem = "is not a folder" if results.exists() else "does not exist"
        raise UserError(f"{results}: {problem}", "give the results folder, the one that holds offline/ or online/")
    found = find_results(results)
    if plan is None:
        return _collect_all(results, found)
    records, failures = _by_experiment(found.records.values()), _by_experiment(found.failures.values())
    generating = [planned for planned in plan.experiments if planned.mode not in LOOKING]
    experiments = with_requests(
        results, [Experiment(**_became(results, planned, records, failures, _read_records)) for planned in generating]
    )
    others: tuple[Selected[Launched], ...] = tuple(
        Selected(**_became(results, planned, records, failures, _read_others))
        for planned in plan.experiments
        if planned.mode in LOOKING
    )
    if plan.precision is not None:
        # Not at the top: a plan with a fixed number of launches is read without numpy.
        from rollout_bench.analysis.enough import with_enough

        experiments = with_enough(experiments, plan.baseline, plan.comparison, plan.precision)
    selected = {(e.mode, e.experiment): e.planned for e in (*experiments, *others)}
    places = [(file.launch, selected.get((file.mode, file.experiment))) for file in found.records.values()]
    return Collection(
        experiments=split(experiments),
        baseline=dict(plan.baseline),
        comparison=plan.comparison,
        precision=plan.precision,
        slo=plan.slo,
        skipped=tuple(plan.skipped),
        planned=True,
        beyond_planned=sum(wanted is not None and launch >= wanted for launch, wanted in places),
        not_selected=sum(wanted is None for _, wanted in places),
        others=others,
        operator_rules=tuple(plan.operator_rules),
        weights={planned.experiment: planned.weights for planned in plan.experiments if planned.weights},
    )


def _became(
    results: Path,
    planned: PlannedExperiment,
    records: dict[tuple[str, str], list[FoundFile]],
    failures: dict[tuple[str, str], list[FoundFile]],
    read_all: Callable[[Path, Sequence[FoundFile]], tuple[Launched, ...]],
) -> dict[str, Any]:
    """The fields of a planned experiment: what became of its launches."""
    place = (planned.mode, planned.experiment)
    wanted = range(planned.launches)
    read = read_all(results, [file for file in records.get(place, []) if file.launch in wanted])
    done = {record.launch for record in read}
    open_failures = [
        _checked_failure(results, file)
        for file in failures.get(place, [])
        if file.launch in wanted and file.launch not in done
    ]
    failed = {failure.launch for failure in open_failures}
    return {
        "mode": planned.mode,
        "experiment": planned.experiment,
        "key": planned.key,
        "platform": planned.platform,
        "model": planned.model,
        "quant": planned.quant,
        "workload": planned.workload,
        "planned": planned.launches,
        "records": read,
        "failures": tuple(open_failures),
        "missing": tuple(launch for launch in wanted if launch not in done | failed),
    }


def _collect_all(results: Path, found: Found) -> Collection:
    records, failures = _by_experiment(found.records.values()), _by_experiment(found.failures.values())
    experiments: list[Experiment] = []
    others: list[Selected[Launched]] = []
    for place in sorted(records.keys() | failures.keys()):
        looking = place[0] in LOOKING
        read = (_read_others if looking else _read_records)(results, records.get(place, []))
        done = {record.launch for record in read}
        open_failures = tuple(
            _checked_failure(results, file) for file in failures.get(place, []) if file.launch not in done
        )
        if read or open_failures:
            fields = _found(results, place, read, open_failures)
            others.append(Selected(*fields)) if looking else experiments.append(Experiment(*fields))
    for each in (experiments, others):
        each.sort(key=lambda e: (e.mode, e.platform, e.model, e.workload, e.quant, e.experiment))
    return Collection(
        split(with_requests(results, experiments)),
        dict(DEFAULT_BASELINE),
        ComparisonSettings(),
        None,
        (),
        False,
        0,
        0,
        others=tuple(others),
    )


def _found(
    results: Path, place: tuple[str, str], records: tuple[Launched, ...], failures: tuple[Failure, ...]
) -> tuple[Any, ...]:
    """The fields of an experiment that was found, with no plan that says how many launches are wanted."""
    mode, experiment = place
    spec_path = results / mode / experiment / "spec.json"
    platform, model, quant, workload, key = "?", experiment, "?", "?", experiment.rpartition("-")[2]
    if records or spec_path.is_file():
        spec = records[0].spec if records else read_spec(spec_path)
        platform, model, quant = spec.platform, spec.model.name, spec.quant.name
        workload, key = spec.workload.name, spec.key()
    return mode, experiment, key, platform, model, quant, workload, None, records, failures, ()


def _by_experiment(files: Iterable[FoundFile]) -> dict[tuple[str, str], list[FoundFile]]:
    grouped: dict[tuple[str, str], list[FoundFile]] = {}
    for file in files:
        grouped.setdefault((file.mode, file.experiment), []).append(file)
    return grouped


def _checked_failure(results: Path, file: FoundFile) -> Failure:
    path = results / FAILURES / file.path
    failure = read_failure(path)
    _must_match(path, "experiment", failure.experiment, file.experiment)
    _must_match(path, "launch", failure.launch, file.launch)
    return failure


def _read_records(results: Path, files: Sequence[FoundFile]) -> tuple[Record, ...]:
    """The records in `files`, which lie in one experiment's folder."""
    records = tuple(_checked_record(results, file) for file in files)
    if records:
        # Specs with one key are equal, so the first one's names are those of all; hashing each again is slow.
        _must_match(results / files[0].path, "spec", records[0].spec.experiment(), files[0].experiment)
    return records


def _read_others(results: Path, files: Sequence[FoundFile]) -> tuple[Launched, ...]:
    """The records in `files`, which lie in one experiment's folder, of a mode that looks into the engine."""
    records = []
    for file in files:
        path = results / file.path
        records.append(_in_place(path, file, read_launched(path, file.mode)))
        _must_match(path, "spec", records[-1].spec.experiment(), file.experiment)
    return tuple(records)


def _checked_record(results: Path, file: FoundFile) -> Record:
    """The record in `file`: in its place, with measured iterations and finite times, or a `UserError`."""
    path = results / file.path
    record = _in_place(path, file, read_record(path))
    if all(iteration.warmup for iteration in record.iterations):
        raise UserError(f"{path}: iterations: all are warm-up, none was measured", _REMEDY)
    return record


def _in_place(path: Path, file: FoundFile, record: _Launched) -> _Launched:
    _must_match(path, "spec.mode", record.spec.mode, file.mode)
    _must_match(path, "key", record.key, file.experiment.rpartition("-")[2])
    _must_match(path, "launch", record.launch, file.launch)
    return record


def _must_match(path: Path, field: str, inside: str | int, place: str | int) -> None:
    if inside != place:
        raise UserError(f"{path}: {field}: says {inside} but the file lies where {place} belongs", _REMEDY)


_REMEDY = "restore the file, or delete it to measure that launch again"
