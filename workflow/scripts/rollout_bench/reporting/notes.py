"""What stands around the tables: how complete they are, what is missing and why, what each number means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rollout_bench.analysis.experiments import Collection, launched
from rollout_bench.analysis.rows import Row
from rollout_bench.analysis.validity import invalid_codes
from rollout_bench.errors import UserError
from rollout_bench.reporting.columns import ENGINE, FLAGS, THROUGHPUT, speedup_columns
from rollout_bench.reporting.cost_columns import COST
from rollout_bench.reporting.latency_columns import latency_columns
from rollout_bench.reporting.machines import extent, machine_lines
from rollout_bench.reporting.numbers import sentence, several
from rollout_bench.reporting.online_columns import shown_columns
from rollout_bench.reporting.online_views import PER_LAUNCH
from rollout_bench.reporting.other_notes import failed_others, failure_line, flags_of_others, missing_others
from rollout_bench.reporting.verdicts import verdict_notes

_NAMED = 3
"""Experiments that a line below a figure names before it counts."""


@dataclass(frozen=True)
class Section:
    """A heading with its items, each a sentence or a few, and links as (text, path relative to the summary)."""

    heading: str
    items: tuple[str, ...]
    links: tuple[tuple[str, str], ...] = ()


def completeness(collection: Collection) -> str:
    """The line at the top: how many launches are measured, and INCOMPLETE first where one is not."""
    experiments = collection.launched
    measured = sum(len(e.records) for e in experiments)
    failed = sum(len(e.failures) for e in experiments)
    missing = sum(len(e.missing) for e in experiments)
    damaged = sum(len(e.damaged) for e in experiments)
    wanted = measured + failed + missing + damaged
    if collection.planned:
        text = f"{measured:,d} of {several(wanted, 'planned launch')} measured"
    else:
        text = f"{several(measured, 'launch')} measured"
    invalid = sum(not record.valid for e in experiments for record in e.records)
    text += f" ({invalid:,d} invalid)" if invalid else ""
    text += f", {several(len(experiments), 'experiment')}"
    if collection.complete:
        return text + "."
    text += f"; {failed:,d} failed" if failed else ""
    text += f"; {missing:,d} missing" if missing else ""
    text += f"; {damaged:,d} damaged" if damaged else ""
    return f"INCOMPLETE: {text}."


def left_out(rows: Sequence[Row]) -> str:
    """What to say beside a figure of experiments without a valid launch, of which it shows no number; mostly empty."""
    names: dict[str, dict[str, None]] = {}
    for row in rows:
        if row.empty_because:
            names.setdefault(row.empty_because, {})[row.whole_name] = None
    return " ".join(f"Left out: {_some(list(those))} ({reason})." for reason, those in names.items())


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{'; '.join(names[:_NAMED])}{more}"


def notes(
    collection: Collection,
    rows: Sequence[Row],
    footnotes: Sequence[str],
    percentiles: Sequence[str] = (),
    online: Sequence[str] = (),
) -> list[Section]:
    """The sections below the tables, without those that have nothing to say; the last two are the items of one each."""
    apart = collection.earlier is not None
    modes = {row.experiment.mode for row in rows}
    columns = [*THROUGHPUT, *speedup_columns(collection.comparison, apart=apart), *ENGINE, *COST, FLAGS]
    if modes == {"online"}:
        columns = [column for column in columns if column in (*THROUGHPUT[:2], *PER_LAUNCH, *COST, FLAGS)]
    elif percentiles:
        columns += latency_columns("e2el_s")
    online_columns = shown_columns(collection.comparison, apart) if "online" in modes else ()
    definitions, of_requests = (
        [f"{column.header}: {column.definition}" for column in shown] for shown in (columns, online_columns)
    )
    sections = [
        Section("No verdict", tuple(footnotes)),
        Section("Damaged", damage([*collection.damaged, *collection.damaged_earlier])),
        Section("Failed", (*_failed(rows), *failed_others(collection))),
        Section("Missing", (*_missing(rows), *missing_others(collection))),
        Section("Flags", (*_flags(rows), *flags_of_others(collection))),
        Section("Skipped", tuple(_skipped(collection))),
        Section("Left out", tuple(_left_out(collection, rows))),
        Section("Measured with", (*machine_lines(collection.experiments), *_unprotected(collection))),
        Section("Compared with", tuple(_earlier(collection))),
        Section("Verdicts", verdict_notes(rows, collection.comparison, collection.precision, apart=apart)),
        Section("Percentiles", tuple(percentiles)),
        Section("Online", tuple(online)),
        Section("Definitions", tuple(definitions)),
        Section("Definitions, online", tuple(text for text in of_requests if text not in definitions)),
    ]
    return [section for section in sections if section.items]


def _earlier(collection: Collection) -> Iterator[str]:
    measured = [e for e in collection.earlier.experiments if e.records] if collection.earlier else []
    if collection.earlier and measured:
        yield f"{collection.earlier.name}: {extent(measured)}."
        for line in machine_lines(measured):
            yield f"{collection.earlier.name}: {line}"


def damage(errors: Iterable[UserError]) -> tuple[str, ...]:
    """A line for each file that can't be used."""
    return tuple(f"{sentence(error.problem)} Fix: {sentence(error.remedy)}" for error in errors)


def _unprotected(collection: Collection) -> Iterator[str]:
    records = [record for experiment in collection.launched for record in experiment.records]
    amount = sum(record.sha256 is None for record in records)
    if amount:
        yield (
            f"{amount:,d} of {several(len(records), 'record')} without a checksum, written by an earlier version: "
            "whether a number in them was edited can't be told"
        )


def _failed(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        for failure in row.experiment.failures:
            yield failure_line(row.whole_name, failure)


def _missing(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        if row.experiment.missing:
            yield f"{row.whole_name}: {len(row.experiment.missing)} of {row.experiment.planned} launches"


def _flags(rows: Sequence[Row]) -> Iterator[str]:
    told: set[tuple[object, ...]] = set()  # a launch's doubts are those of every load of its sweep
    for row in rows:
        seen: dict[tuple[str, str], list[tuple[int, str]]] = {}
        for launch in row.launches:
            for flag in launch.flags:
                doubt = (row.experiment.mode, row.experiment.experiment, launch.launch, flag.code, flag.sentence)
                if doubt in told:
                    continue
                told.add(doubt)
                seen.setdefault((flag.code, flag.severity), []).append((launch.launch, flag.sentence))
        for (code, severity), evidence in seen.items():
            launches = ", ".join(dict.fromkeys(str(launch) for launch, _ in evidence))
            yield f"{row.whole_name}, launch {launches}: {code} ({severity}): {sentence(evidence[0][1])}"


def _skipped(collection: Collection) -> Iterator[str]:
    for (reason, remedy), combinations in _grouped_skips(collection).items():
        yield f"{'; '.join(combinations)}: {sentence(reason)} Fix: {sentence(remedy)}"


def _grouped_skips(collection: Collection) -> dict[tuple[str, str], list[str]]:
    grouped: dict[tuple[str, str], list[str]] = {}
    for skip in collection.skipped:
        name = f"{skip.model} {skip.quant} {skip.workload} ({skip.mode})"
        grouped.setdefault((skip.reason, skip.remedy), []).append(name)
    return grouped


def _left_out(collection: Collection, rows: Sequence[Row]) -> Iterator[str]:
    codes = Counter(
        ", ".join(invalid_codes(record.validity))
        for experiment in launched(collection.experiments)
        for record in experiment.records
        if not record.valid
    )
    for code, amount in sorted(codes.items()):
        yield f"{several(amount, 'record')} from all tables and figures, flagged invalid: {code}"
    if collection.beyond_planned:
        yield f"{several(collection.beyond_planned, 'record')} of launches beyond those planned, not read"
    if collection.not_selected:
        yield f"{several(collection.not_selected, 'record')} of experiments that are not selected, not read"
