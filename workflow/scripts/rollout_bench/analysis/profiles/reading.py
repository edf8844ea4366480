"""Reads the profiles of a collection: records, traces, and the timed experiments that belong to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rollout_bench.analysis.chosen import Chosen
from rollout_bench.analysis.experiments import Collection, Selected
from rollout_bench.analysis.profiles.passes import measured_pass
from rollout_bench.analysis.profiles.profiled import LeftOut, MeasuredPass, Profiled
from rollout_bench.analysis.rows import Row
from rollout_bench.analysis.validity import no_valid_launch
from rollout_bench.errors import UserError
from rollout_bench.files import write_whole
from rollout_bench.plan.fields import Metric
from rollout_bench.records.profile import Profile
from rollout_bench.records.record import Launched, Record
from rollout_bench.records.side_files import known_sequences
from rollout_bench.records.store import operators_path, record_path, sequences_path, traces_path
from rollout_bench.traces.categories import categorise
from rollout_bench.traces.events import read_events, write_events
from rollout_bench.traces.reading import read_traces
from rollout_bench.traces.times import step_times

READER = "read by version 1"
"""Raised when traces are read in another way; tables of earlier versions are then made again."""

THROUGHPUT: Metric = "output_tokens_per_s"


@dataclass(frozen=True)
class Read:
    """The profiles whose traces can be read, those without a valid launch, and of each other one why and what to do.

    A profile that can't be read is no reason to keep back what was timed.
    """

    profiled: tuple[Profiled, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    problems: tuple[str, ...] = ()


def read_profiled(results: Path, inside: Sequence[Chosen], collection: Collection, rows: Sequence[Row]) -> Read:
    """The profiles among `inside`, which are those of `collection`, read from `results` and summarised in `rows`."""
    of_profiles = [each for each in inside if each.experiment.mode == "profile"]
    named = Counter(_names(each.experiment, {}) for each in of_profiles)
    places = {names: each.place for each in of_profiles if named[names := _names(each.experiment, {})] == 1}
    found, problems = [], []
    for each in of_profiles:
        if not each.reason:
            try:
                found.append(_profiled(results, each, places, collection, rows))
            except UserError as error:
                problems.append(f"{error.problem}; {error.remedy}")
    left_out = [
        LeftOut(e.platform, e.model, each.label, e.workload, each.place, _baseline(e, places, collection), each.reason)
        for each in of_profiles
        for e in [each.experiment]
        if each.reason
    ]
    return Read(tuple(found), tuple(left_out), tuple(problems))


def _baseline(
    experiment: Selected[Launched], places: Mapping[tuple[str, ...], str], collection: Collection
) -> str | None:
    """The place of what it is compared with; None where it is a baseline itself or has none."""
    own, baseline = _names(experiment, {}), _names(experiment, collection.baseline)
    return places.get(baseline) if baseline != own else None


def _profiled(
    results: Path,
    each: Chosen,
    places: Mapping[tuple[str, ...], str],
    collection: Collection,
    rows: Sequence[Row],
) -> Profiled:
    experiment = each.experiment
    record = experiment.records[0]
    assert isinstance(record, Profile), "the records of profile mode are profiles"
    path = record_path(results, experiment.mode, experiment.experiment, record.launch)
    raw, warnings = events_of(path, record)
    platform = record.spec.platform
    rules = [rule.model_dump(exclude_none=True) for rule in collection.operator_rules]
    raw = of_their_windows(raw, record)
    events = categorise(
        raw,
        record.linears,
        rules,
        platform=None if platform == "unknown" else platform,
        quantized=_is_quantized(record),
    )
    row, unmeasured = _timed(experiment, rows)
    return Profiled(
        platform=experiment.platform,
        model=experiment.model,
        quant=each.label,
        workload=experiment.workload,
        place=each.place,
        record=record,
        events=events,
        times=step_times(events),
        baseline=_baseline(experiment, places, collection),
        measured=None if row is None else _measured(results, row),
        comparison=None if row is None else row.comparisons.get(THROUGHPUT),
        unmeasured=unmeasured,
        traces=str(traces_path(path).relative_to(results)),
        warnings=tuple(warnings),
    )


def _is_quantized(record: Profile) -> bool:
    """Whether weights of its linear layers are held in another type than they are computed in."""
    held = record.engine.weights_bytes_by_dtype
    return held is not None and any(dtype not in ("bfloat16", "float16", "float32") for dtype in held.linear)


def of_their_windows(events: pd.DataFrame, record: Profile) -> pd.DataFrame:
    """`events` without the steps that are not of the phase that their trace is of.

    A window lets the engine go on for a step or two before it closes, and between the passes of a window the engine
    waits for the next one: a decode step in the trace of prefill is none that was looked for, and lasts too long.
    """
    decodes = {trace.name for trace in record.traces if trace.phase == "decode"}
    others = {trace.name for trace in record.traces if trace.phase == "prefill"}
    if not decodes or not others:
        return events
    strays = (events["trace"].isin(others) & (events["phase"] == "decode")) | (
        events["trace"].isin(decodes) & events["phase"].isin(["prefill", "mixed"])
    )
    return events[~strays]


def events_of(path: Path, record: Profile) -> tuple[pd.DataFrame, list[str]]:
    """The events of the traces of `record`, which lies at `path`, and what reading them had to say.

    They are read once and kept in a table beside the record, where that can be written.

    Raises:
        UserError: a trace is missing or damaged.
    """
    table, folder, said = operators_path(path), traces_path(path), operators_path(path).with_suffix(".txt")
    kept = said.read_text().splitlines() if said.is_file() else []
    if (
        kept[:1] == [READER]
        and table.is_file()
        and not (folder.is_dir() and folder.stat().st_mtime_ns > table.stat().st_mtime_ns)
    ):
        return read_events(table), kept[1:]
    events, warnings = read_traces(folder, record.traces, record.linears)
    try:
        write_events(table, events)
        write_whole(said, "".join(f"{line}\n" for line in (READER, *warnings)).encode())
    except UserError as error:
        warnings.append(f"the table of operators is not kept: {error.problem}")
    return events, warnings


def _names(experiment: Selected[Launched], changes: dict[str, str]) -> tuple[str, ...]:
    return tuple(changes.get(axis, getattr(experiment, axis)) for axis in ("platform", "model", "quant", "workload"))


def _timed(experiment: Selected[Launched], rows: Sequence[Row]) -> tuple[Row | None, str]:
    """The experiment that was timed of the same names: offline, or else online with all requests at once.

    Where it has no valid launch, instead of it why: a pass of another mode beside the other side's would not compare.
    """
    named = [row for row in rows if _names(row.experiment, {}) == _names(experiment, {}) and row.launches]
    offline = [row for row in named if row.experiment.mode == "offline"]
    online = [row for row in named if row.experiment.mode == "online" and _at_once(row.experiment.records[0])]
    found = offline or online
    if len(found) != 1:  # of several nobody can say which the profile belongs to
        return None, ""
    (row,) = found
    return (row, "") if row.valid else (None, f"{row.experiment.mode}: {no_valid_launch(row.experiment.records)}")


def _at_once(record: Record) -> bool:
    point = record.iterations[0].point
    return point is not None and point.concurrency is None and point.request_rate == "inf"


def _measured(results: Path, row: Row) -> MeasuredPass | None:
    """The pass of a timed experiment: how long it took, and the steps that its sequences make."""
    experiment = row.experiment.whole
    valid = [record for record in row.experiment.records if record.valid]
    path = record_path(results, experiment.mode, experiment.experiment, valid[0].launch)
    first = next(iteration.index for iteration in valid[0].iterations if not iteration.warmup)
    whole = next(record for record in experiment.records if record.launch == valid[0].launch)
    sequences = known_sequences(sequences_path(path), whole)
    return measured_pass(valid, [row for row in sequences if row.iteration == first and not row.failed])
