"""Results as Benchmark Reports: one file for each launch and each experiment under each load, and an index."""

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import yaml

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.experiments import Collection, TimedExperiment, invalid_codes
from rollout_bench.analysis.timed.service import Requests
from rollout_bench.contracts.axes import name_of
from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.record import Record
from rollout_bench.core.errors import UserError
from rollout_bench.core.files import write_whole
from rollout_bench.core.mappings import grouped
from rollout_bench.core.numbers import several
from rollout_bench.exchange.performance import mean_lengths, results_of
from rollout_bench.exchange.scenario import scenario_of
from rollout_bench.plan.planfile import PlanFile

VERSION: Final = "0.2.1"
"""Version of llm-d's Benchmark Report that is written.

Source: `llmdbenchmark/analysis/benchmark_report/schema_v0_2*.py` of github.com/llm-d/llm-d-benchmark.
"""

FORMAT: Final = "benchmark-report"
"""Name of the format for `--format`."""

INDEX: Final = "index.json"
"""File that lists the reports, and the launches that were left out with reasons. It is beside the modes' folders."""

NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/rollout-bench/benchmark-report")
"""Namespace of the UUIDs of our runs and experiments."""


@dataclass(frozen=True)
class Exported:
    """Reports of a results folder.

    Attributes:
        reports: path below the output folder -> report.
        left_out: a line for each launch without a report, with the reason.
        unread: errors of records and side files that can't be read.
    """

    reports: dict[str, dict[str, Any]]
    left_out: tuple[str, ...]
    unread: tuple[UserError, ...]


def export(results: Path, plan: PlanFile | None = None) -> Exported:
    """Return reports of every valid launch in `results` of a mode that generates.

    Args:
        results: the results folder.
        plan: plan that selects launches; None for all launches.

    Raises:
        UserError: if `results` is no folder.
    """
    collection = collect(results, plan)
    reports: dict[str, dict[str, Any]] = {}
    unread = list(collection.damaged)
    for parts in grouped((part.whole.place, part) for part in collection.experiments).values():
        whole = parts[0].whole
        folder = f"{whole.mode}/{whole.experiment}"
        valid = [record.launch for record in whole.records if record.valid]
        read = [whole.side_files[launch].content for launch in valid]
        unread += [error for error in read if isinstance(error, UserError)]
        for part in parts:
            records = [record for record in part.records if record.valid]
            requests = [part.measured_requests(record) for record in records]
            ending = "" if part.part is None else f".stage-{_stage(part)}"
            for record, own in zip(records, requests, strict=True):
                name = f"{folder}/launch-{record.launch}{ending}.yaml"
                reports[name] = report_of_launches([record], [own], part, str(record.launch))
            if records:
                reports[f"{folder}/experiment{ending}.yaml"] = report_of_launches(records, requests, part, "all")
    return Exported(reports, tuple(_left_out(collection)), tuple(unread))


def report_of_launches(
    records: Sequence[Record], requests: Sequence[Requests | None], part: TimedExperiment, scope: str
) -> dict[str, Any]:
    """Return the report of launches [n >= 1] of `part`: `scope` is the number of a single launch, or "all".

    A launch under a load always has the same uid, which does not depend on the measured values. `requests` are as in
    `results_of`.
    """
    first = records[0]
    names = [first.key, scope] if part.part is None else [first.key, scope, part.part.point.model_dump_json()]
    measured = "launch " + scope if scope != "all" else several(len(records), "launch")
    spans = [
        (datetime.fromisoformat(each.started_at).astimezone(UTC), timedelta(seconds=each.wall_s)) for each in records
    ]
    ends = {"start": min(begin for begin, _ in spans), "end": max(begin + wall for begin, wall in spans)}
    times = {name: moment.isoformat().replace("+00:00", "Z") for name, moment in ends.items()}
    if len(records) == 1 and part.part is None:  # interleaved launches, and loads that share a launch, have no duration
        times["duration"] = f"PT{first.wall_s}S"
    passes = [iteration for record in records for iteration in record.iterations if not iteration.warmup]
    return {
        "version": VERSION,
        "run": {
            "uid": str(uuid.uuid5(NAMESPACE, " ".join(names))),
            "eid": str(uuid.uuid5(NAMESPACE, first.key)),
            "time": times,
            "description": f"{name_of(part)} ({part.mode}), {measured}",
        },
        "scenario": scenario_of(first, part.point, _stage(part), mean_lengths(passes)),
        "results": results_of(records, requests),
    }


def _stage(part: TimedExperiment) -> int:
    """Return the index of a load from 0: its stage in a profile, else its rank from the lightest load."""
    if part.part is None:
        return 0
    return part.part.number if part.part.point.stage is None else part.part.point.stage - 1


def write(exported: Exported, out: Path) -> None:
    """Write all reports and the index into the folder `out`, which must be new or empty.

    An earlier export is not written over: a report of it whose record is gone would stay among the new ones.

    Raises:
        UserError: if there is something at `out`.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is there already, and not empty", "name another folder with --out, or remove it")
    for name, report in exported.reports.items():
        write_whole(out / name, yaml_text(report).encode())
    content = {
        "format": FORMAT,
        "version": VERSION,
        "reports": {name: report["run"]["uid"] for name, report in exported.reports.items()},
        "left_out": list(exported.left_out),
        "unread": [error.problem for error in exported.unread],
    }
    write_whole(out / INDEX, (json.dumps(content, indent=1) + "\n").encode())


def yaml_text(report: dict[str, Any]) -> str:
    """Return a report as YAML."""
    return yaml.safe_dump(_known(report), sort_keys=False, allow_unicode=True, width=120)


def _known(content: Any) -> Any:
    """Return nested `content` without unknown values, except below `native`, where null is a value."""
    if not isinstance(content, Mapping):
        return [_known(each) for each in content] if isinstance(content, list) else content
    return {name: v if name == "native" else _known(v) for name, v in content.items() if v is not None}


def _left_out(collection: Collection) -> Iterator[str]:
    for experiment in collection.launched:
        place = f"{experiment.mode}/{experiment.experiment}"
        if not mode_of(experiment.mode).generates:
            amount = several(len(experiment.records), "launch")
            yield f"{place}: {amount} not exported: a Benchmark Report has no place for mode {experiment.mode}"
            continue
        for record in experiment.records:
            if not record.valid:
                codes = ", ".join(invalid_codes(record.validity))
                yield f"{place} launch {record.launch}: not exported: invalid ({codes})"
        for failure in experiment.failures:
            why = f"{failure.category}: {failure.cause}"
            yield f"{place} launch {failure.launch}: not exported: failed ({why})"
