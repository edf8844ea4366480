"""What stands around the tables: how complete they are, what is missing and why, where launches ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rollout_bench.analysis.stats.percentiles import CONFIDENCE, samples_needed
from rollout_bench.analysis.timed.experiments import (
    Chosen,
    Collection,
    Selected,
    TimedExperiment,
    invalid_codes,
    launched,
)
from rollout_bench.analysis.timed.latencies import PERCENTILES, Distribution, PooledSequences
from rollout_bench.analysis.timed.partners import environment_facts
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.record import Environment, Failure, Launched
from rollout_bench.core.errors import UserError
from rollout_bench.core.numbers import first_few, plain_percent, sentence, several
from rollout_bench.report.headings import COST, ENGINE, FLAGS, PER_LAUNCH, THROUGHPUT, latency_columns, speedup_columns
from rollout_bench.report.online_tables import shown_columns
from rollout_bench.report.verdicts import verdict_notes

"""Experiments that a figure names as left out."""


def failure_line(name: str, failure: Failure) -> str:
    """What is said of a failed launch of the experiment that is called `name`."""
    return (
        f"{name}, launch {failure.launch} ({failure.category} while {failure.phase}): "
        f"{sentence(failure.cause)} Fix: {sentence(failure.fix)} Log: {failure.log}"
    )


def failed_others(collection: Collection) -> Iterator[str]:
    """A line for each failed launch."""
    for experiment in collection.others:
        for failure in experiment.failures:
            yield failure_line(_name(experiment), failure)


def missing_others(collection: Collection) -> Iterator[str]:
    """A line for each experiment that lacks launches."""
    for experiment in collection.others:
        if experiment.missing:
            yield f"{_name(experiment)}: {len(experiment.missing)} of {experiment.planned} launches"


def flags_of_others(collection: Collection) -> Iterator[str]:
    """A line for each doubt."""
    for experiment in collection.others:
        for record in experiment.records:
            for flag in record.validity:
                where = f"{_name(experiment)}, launch {record.launch}"
                yield f"{where}: {flag.code} ({flag.severity}): {sentence(flag.sentence)}"


def left_out_notes(left_out: Sequence[Chosen]) -> tuple[str, ...]:
    """A line for each experiment without a valid launch, and what that means; none where all have one."""
    if not left_out:
        return ()
    lines = [f"{_name(each.experiment, each.label)}: {each.reason}." for each in left_out]
    meaning = (
        "Nothing that these launches measured is in a table, a prediction or a figure; docs/how-to/troubleshoot.md "
        "says what to do about each flag."
    )
    return (*lines, meaning)


def left_out_alarm(left_out: Sequence[Chosen], mode: str) -> str:
    """The same of one mode in a line for its figures; empty where all have a valid launch."""
    own = [each for each in left_out if each.experiment.mode == mode]
    names = [f"{_name(each.experiment, each.label)}, {each.reason}" for each in own]
    return f"Left out: {_some(names)}." if names else ""


def _name(experiment: Selected[Launched], label: str = "") -> str:
    return f"{experiment.model} {label or experiment.quant} {experiment.workload} ({experiment.mode})"


def machine_lines(experiments: Sequence[TimedExperiment]) -> Iterator[str]:
    """For each mode and platform a line on the commonest environment, then one for each fact that differs."""
    experiments = launched(experiments)
    for mode, platform in dict.fromkeys((e.mode, e.platform) for e in experiments):
        environments = [
            record.environment
            for experiment in experiments
            if (experiment.mode, experiment.platform) == (mode, platform)
            for record in experiment.records
        ]
        if environments:
            yield f"{mode}, {platform}: {_describe(_commonest(environments))}"
            for text in differences(environments):
                yield f"{mode}, {platform}: launches differ in {text}"


def side_lines(experiments: Sequence[TimedExperiment], unread: int = 0) -> Iterator[str]:
    """One side of a comparison: how many launches of how many experiments and when they started; then the machines.

    Where nothing is measured there is no line. `unread` is how many records `--all` would take besides.
    """
    measured = launched(e for e in experiments if e.records)
    records = [record for experiment in measured for record in experiment.records]
    if not records:
        return
    began = sorted(record.started_at for record in records)
    text = f"{several(len(began), 'launch')} of {several(len(measured), 'experiment')}, "
    text += f"started {began[0]} to {began[-1]}."
    invalid = sum(not record.valid for record in records)
    text += f" {several(invalid, 'launch')} flagged invalid and not used." if invalid else ""
    text += (
        f" {several(unread, 'record')} that its summary does not select not read; --all takes all." if unread else ""
    )
    yield text
    yield from machine_lines(measured)


def hardware(experiments: Sequence[Selected[Launched]]) -> str:
    """The engines and devices in a few words, for a figure: `vllm 0.23.0 on 8 x NVIDIA H200`."""
    names: dict[str, None] = {}
    for experiment in experiments:
        for environment in (record.environment for record in experiment.records):
            names[f"{environment.engine_name} {environment.engine_version} on {_device(environment)}"] = None
    return "; ".join(names)


def differences(environments: Sequence[Environment]) -> list[str]:
    """Each fact in which `environments` differ, with its values and how many launches have each."""
    flat = [environment_facts(environment) for environment in environments]
    texts = []
    for name in dict.fromkeys(name for facts in flat for name in facts):
        values = Counter(facts.get(name, "not set") for facts in flat)
        if len(values) > 1:
            shown = "; ".join(f"{value} ({several(n, 'launch')})" for value, n in values.most_common())
            texts.append(f"{name}: {shown}")
    return texts


def _commonest(environments: Sequence[Environment]) -> Environment:
    counts = Counter(str(environment_facts(environment)) for environment in environments)
    commonest = counts.most_common(1)[0][0]
    return next(e for e in environments if str(environment_facts(e)) == commonest)


def _device(environment: Environment) -> str:
    times = "" if environment.device_count == 1 else f"{environment.device_count} x "
    return times + environment.device_model


def _describe(environment: Environment) -> str:
    plugins = "".join(f", {name} {version}" for name, version in sorted(environment.plugins.items()))
    device = _device(environment)
    if environment.cpu_model != environment.device_model:
        device += f"; {environment.cpu_model}"
    commit = ""
    if environment.git_commit:
        digits, dirty, _ = environment.git_commit.partition("-dirty")
        commit = f", rollout-bench {digits[:12]}{dirty}"
    return (
        f"{environment.engine_name} {environment.engine_version}{plugins}, "
        f"torch {environment.torch_version}, Python {environment.python_version}; "
        f"{device}, {several(environment.cpu_cores, 'core')}, "
        f"{environment.memory_bytes / 2**30:.0f} GiB memory, {environment.kernel}, "
        f"host {environment.hostname}{commit}."
    )


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
    return first_few(names, _NAMED, "; ")


def notes(
    collection: Collection,
    rows: Sequence[Row],
    footnotes: Sequence[str],
    percentiles: Sequence[str] = (),
    online: Sequence[str] = (),
) -> list[Section]:
    """The sections below the tables, without those that have nothing to say; the last two are the items of one each."""
    apart = collection.earlier is not None
    has_loads = {mode_of(row.experiment.mode).has_loads for row in rows}
    columns = [*THROUGHPUT, *speedup_columns(collection.comparison, apart=apart), *ENGINE, *COST, FLAGS]
    if has_loads == {True}:
        columns = [column for column in columns if column in (*THROUGHPUT[:2], *PER_LAUNCH, *COST, FLAGS)]
    elif percentiles:
        columns += latency_columns("e2el_s")
    online_columns = shown_columns(collection.comparison, apart) if True in has_loads else ()
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
    if earlier := collection.earlier:
        for line in side_lines(earlier.experiments):
            yield f"{earlier.name}: {line}"


def damage(errors: Iterable[UserError]) -> tuple[str, ...]:
    """A line for each file that can't be used."""
    return tuple(f"{sentence(error.problem)} Fix: {sentence(error.remedy)}" for error in errors)


def _unprotected(collection: Collection) -> Iterator[str]:
    records = [(e, record) for e in collection.launched for record in e.records]
    names = [f"{e.mode}/{e.experiment}/launch-{record.launch}" for e, record in records if record.sha256 is None]
    if names:
        yield (
            f"{len(names):,d} of {several(len(records), 'record')} without a checksum, written by an earlier version: "
            f"whether a number in them was edited can't be told ({_some(names)})"
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


Found = Sequence[Mapping[str, Distribution]]
"""The distributions of each row's sequences, by measure."""


OFFLINE = {
    "E2EL": "Time from the beginning of the iteration, when all sequences are submitted at once, until the last token "
    "of a sequence, in seconds. It includes waiting in the engine's queue.",
    "TTFT": "Time from the beginning of the iteration until the first token of a sequence, in seconds. It includes "
    "waiting in the engine's queue.",
}

STEPS = (
    "Online, percentiles are taken of each launch and then averaged; those of all launches pooled, with intervals, are "
    "in summary.csv. Inter-token latencies count, besides, as no more independent values than there are requests, or "
    "steps of the engine, as they resemble each other: whatever is in the batch waits for the same step."
)


def percentile_notes(rows: Sequence[Row], pooled: Sequence[PooledSequences], found: Found) -> tuple[str, ...]:
    """The items of the section, each a sentence or a few; the method only where there is a table."""
    has_loads = {mode_of(row.experiment.mode).has_loads for row in rows}
    offline, online = False in has_loads, True in has_loads
    of_mode = ", offline" if online else ""
    definitions = [f"{name}{of_mode}: {text}" for name, text in OFFLINE.items()] if offline else []
    method = (*rule(), *([STEPS] if online else []), *definitions) if any(found) else ()
    return (*method, *_reasons(rows, pooled))


def _reasons(rows: Sequence[Row], pooled: Sequence[PooledSequences]) -> Iterator[str]:
    """What is missing from the percentiles of each experiment, and why."""
    for row, sequences in zip(rows, pooled, strict=False):
        for reason in sequences.reasons:
            yield f"{row.name}: {sentence(reason)}"


def rule() -> tuple[str, ...]:
    """The method in plain words, every number defined."""
    confidence = plain_percent(CONFIDENCE)
    needed = ", ".join(f"p{p} {samples_needed(p / 100)}" for p in PERCENTILES)
    return (
        f"A percentile is shown where it can be claimed: the second largest value is no less than it with {confidence} "
        f"confidence (MLPerf's early stopping). That takes so many independent values: {needed}.",
        f"In brackets: {confidence} interval from order statistics (binomial ranks), which assumes no distribution, "
        "each taken alone.",
        "Independent: sequences of an iteration resemble each other, and iterations of a launch. A sample counts as so "
        "many independent values as its intraclass correlation leaves (design effect of clusters), by iteration or by "
        "launch, whichever leaves fewer. A batch that runs in step counts as one.",
    )
