"""Notes around the tables: completeness, missing launches with reasons, and machines."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rollout_bench.analysis.stats.percentiles import CONFIDENCE, samples_needed
from rollout_bench.analysis.timed.experiments import (
    ExperimentResults,
    ResultSet,
    TimedExperiment,
    ValidExperiment,
    invalid_codes,
    launched,
)
from rollout_bench.analysis.timed.facts import environment_facts, short_commit
from rollout_bench.analysis.timed.latencies import PERCENTILES, Distribution
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.axes import UNKNOWN, label_of, title_of, with_setting
from rollout_bench.contracts.failures import SERVER_GONE, deciding_codes
from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.record import Environment, Flag, Launched
from rollout_bench.contracts.spec import WorkloadSpec
from rollout_bench.core.errors import UserError, printable
from rollout_bench.core.mappings import grouped
from rollout_bench.core.numbers import plain_percent, sentence, several
from rollout_bench.report.conclusions import conclusions
from rollout_bench.report.headings import TITLES
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import few_names, sections
from rollout_bench.report.verdicts import verdict_values

TOLD_SHARE = 0.005
"""Share of the time of launches from which a line has that of their passes."""


def left_out_alarm(left_out: Sequence[ValidExperiment], mode: str) -> str:
    """Return the warning of a figure about experiments of `mode` without a valid launch; empty if there are none."""
    mode_experiments = [each for each in left_out if each.experiment.mode == mode]
    names = [f"{_name(each.experiment, each.label)}, {each.reason}" for each in mode_experiments]
    return f"Left out: {few_names(names)}." if names else ""


def _name(experiment: ExperimentResults[Launched], label: str = "") -> str:
    return f"{title_of(experiment, label or label_of(experiment))} ({experiment.mode})"


def machine_lines(experiments: Sequence[TimedExperiment]) -> Iterator[str]:
    """Yield for each mode and platform a line on the most common environment, then a line per differing fact."""
    experiments = launched(experiments)
    for mode, platform in dict.fromkeys((e.mode, e.platform) for e in experiments):
        records = [r for e in experiments if (e.mode, e.platform) == (mode, platform) for r in e.records]
        environments = [record.environment for record in records]
        if environments:
            place = f"{mode}, {platform}".removesuffix(f", {UNKNOWN}")
            ((commonest, _),) = Counter(map(str, map(environment_facts, environments))).most_common(1)
            usual = next(each for each in environments if str(environment_facts(each)) == commonest)
            began = [record.started_at[:16].replace("T", " ") for record in records]
            when = " to ".join(dict.fromkeys((min(began), max(began))))
            yield f"{place}: {_describe(usual)} Started {when}."
            share = sum(record.counted_s for record in records) / sum(record.held_s for record in records)
            if share >= TOLD_SHARE:  # the passes of a start are its first token
                yield f"{place}: passes that count took {100 * share:.0f} % of the time that launches took."
            for text in differences(environments):
                yield f"{place}: launches differ in {text}"


def workload_lines(experiments: Sequence[TimedExperiment]) -> Iterator[str]:
    """Yield each workload in words: its prompts, samples and lengths; by mode where a mode takes only a part of it."""
    modes: dict[tuple[str, str], list[str]] = {}
    for e in launched(experiments):
        if e.records:
            modes.setdefault((e.whole.workload, _load(e.records[0].spec.workload)), []).append(e.mode)
    names = Counter(name for name, _ in modes)
    for (name, load), of in modes.items():
        yield f"workload {name}{' in ' + ', '.join(dict.fromkeys(of)) if names[name] > 1 else ''}: {load}"


def _load(workload: WorkloadSpec) -> str:
    caveat = workload.caveat
    return load_of(workload) if caveat is None else f"{load_of(workload)}; {printable(caveat)}"


def load_of(workload: WorkloadSpec) -> str:
    """Return the prompts, samples and lengths of a load in words."""
    lengths = [workload.prompt_tokens, workload.output_tokens, workload.turns.count if workload.turns else 1]
    prompt, output, count = (str(n) if isinstance(n, int) else f"{n.low} to {n.high}" for n in lengths)
    samples, turns = several(workload.samples_per_prompt, "sample"), f", {count} turns" if workload.turns else ""
    return f"{several(workload.prompts, 'prompt')} x {samples}, {prompt} -> {output} tokens{turns}"


def lines_of_side(experiments: Sequence[TimedExperiment], unread: int = 0) -> Iterator[str]:
    """Yield lines on one side of a comparison: its launches, experiments and start times; then the machines.

    No line is yielded if nothing was measured. `unread` counts the further records that `--all` would read.
    """
    measured = launched(e for e in experiments if e.records)
    records = [record for experiment in measured for record in experiment.records]
    if not records:
        return
    began = sorted(record.started_at for record in records)
    invalid = sum(not record.valid for record in records)
    unused = f" {several(invalid, 'launch')} flagged invalid and not used." if invalid else ""
    beyond = f" {several(unread, 'record')} that its summary does not select not read; --all takes all."
    yield (
        f"{several(len(began), 'launch')} of {several(len(measured), 'experiment')}, started {began[0]} to {began[-1]}."
        + unused
        + (beyond if unread else "")
    )
    yield from machine_lines(measured)


def hardware(experiments: Sequence[ExperimentResults[Launched]]) -> str:
    """Return the engines and devices in a few words, for a figure: `vllm 0.23.0 on 8 x NVIDIA H200`."""
    environments = [record.environment for experiment in experiments for record in experiment.records]
    names = [
        f"Measured on {engine_of(environment)}."
        if environment.engine_name == UNKNOWN
        else f"{engine_of(environment)} on {device_of(environment)}"
        for environment in environments
    ]
    return "; ".join(dict.fromkeys(names))


def differences(environments: Sequence[Environment]) -> list[str]:
    """Return each fact in which `environments` differ, with its values and the number of launches for each."""
    flat = [environment_facts(environment) for environment in environments]
    names = dict.fromkeys(name for facts in flat for name in facts)
    counts = {name: Counter(facts.get(name, "not set") for facts in flat).most_common() for name in names}
    values_of = {name: [f"{value} ({several(n, 'launch')})" for value, n in values] for name, values in counts.items()}
    return [f"{name}: {'; '.join(values)}" for name, values in values_of.items() if len(values) > 1]


def device_of(environment: Environment) -> str:
    """Return the number and name of the devices."""
    times = "" if environment.device_count == 1 else f"{environment.device_count} x "
    return times + environment.device_model


def engine_of(environment: Environment) -> str:
    """Return the engine's name and version; for a server that somebody else started, the version that it reports."""
    version = environment.engine_version
    if environment.engine_name != UNKNOWN:
        return f"{environment.engine_name} {version}"
    return "a running server" + ("" if version == UNKNOWN else f" of version {version}")


def _describe(environment: Environment) -> str:
    plugins = "".join(f", {name} {version}" for name, version in sorted(environment.plugins.items()))
    commit = f", rollout-bench {short_commit(environment.git_commit)}" if environment.git_commit else ""
    cpu = f"; {environment.cpu_model}" if environment.cpu_model != environment.device_model else ""
    engine, device = f"{plugins}, torch {environment.torch_version}, Python", f"{device_of(environment)}{cpu}"
    if environment.engine_name == UNKNOWN:
        engine, device = "; asked by Python", environment.cpu_model
    return (
        f"{engine_of(environment)}{engine} {environment.python_version}; {device}, "
        f"{several(environment.cpu_cores, 'core')}, "
        f"{environment.memory_bytes / 2**30:.0f} GiB memory, {environment.kernel}, "
        f"host {environment.hostname}{commit}."
    )


def completeness(collection: ResultSet) -> str:
    """Return the status line: the number of measured launches, with INCOMPLETE in front if any is missing."""
    experiments = collection.launched
    measured, failed, missing, damaged = (
        sum(len(getattr(experiment, part)) for experiment in experiments)
        for part in ("records", "failures", "missing", "damaged")
    )
    wanted = several(measured + failed + missing + damaged, "planned launch")
    text = f"{measured:,d} of {wanted} measured" if collection.planned else f"{several(measured, 'launch')} measured"
    invalid = sum(not record.valid for e in experiments for record in e.records)
    text += f" ({invalid:,d} invalid)" if invalid else ""
    lost = sum(r.valid and SERVER_GONE in deciding_codes(r.validity) for e in experiments for r in e.records)
    text += f" ({lost:,d} not in full: the server went away, and the next run measures again)" if lost else ""
    text += f", {several(len(experiments), 'experiment')}"
    lacking = {"failed": failed, "missing": missing, "damaged": damaged}
    text += "".join(f"; {amount:,d} {what}" for what, amount in lacking.items() if amount)
    return f"{text}." if collection.complete else f"INCOMPLETE: {text}."


def left_out(rows: Sequence[Row]) -> str:
    """Return the warning of a figure about experiments without a valid launch; empty if there are none."""
    names = grouped((row.empty_because, row.whole_name) for row in rows if row.empty_because)
    return " ".join(f"Left out: {few_names(list(dict.fromkeys(those)))} ({reason})." for reason, those in names.items())


def summary_notes(findings: Findings) -> SummaryPart:
    """Return the notes of every summary: missing launches with reasons, machines, and the method of the verdicts."""
    collection, rows = findings.collection, findings.rows
    has_loads = {mode_of(row.experiment.mode).has_loads for row in rows}
    records = (record for experiment in launched(collection.experiments) for record in experiment.records)
    invalid = Counter(", ".join(invalid_codes(record.validity)) for record in records if not record.valid)
    without_percentiles = grouped(
        (reason, row.name)
        for row, pooled, distributions in zip(rows, findings.sequences, findings.latencies, strict=True)
        if mode_of(row.experiment.mode).passes != "none"  # modes without iterations have no percentiles
        for reason in (*pooled.reasons, *_too_few(row, distributions))
    )
    texts = sections(
        "summary",
        without_valid_launch=[(_name(c.experiment, c.label), c.reason) for c in findings.left_out],
        footnotes=findings.footnotes,
        damaged=collection.damaged,
        experiments=[(row.whole_name, row.experiment) for row in rows] + [(_name(e), e) for e in collection.others],
        flags=[
            *_flags(rows),
            *(
                (_name(each), str(record.launch), flag)
                for each in collection.others
                for record in each.records
                for flag in record.validity
            ),
        ],
        skipped=grouped(
            (
                (skip.reason, skip.remedy),
                f"{skip.model} {with_setting(skip.quant, skip.setting)} {skip.workload} ({skip.mode})",
            )
            for skip in collection.skipped
        ),
        invalid=dict(sorted(invalid.items())),
        collection=collection,
        machines=[*machine_lines(collection.experiments), *workload_lines(collection.experiments)],
        has_percentiles=any(findings.latencies),
        has_offline=False in has_loads,
        has_online=True in has_loads,
        certainty=plain_percent(CONFIDENCE),
        samples_needed={percentile: samples_needed(percentile / 100) for percentile in PERCENTILES},
        without_percentiles=[(few_names(names), reason) for reason, names in without_percentiles.items()],
        **verdict_values(rows, collection.comparison, collection.precision),
    )
    return SummaryPart(
        answers=[
            *conclusions(rows, collection, findings.latencies_by_place),
            *sections("measured", designs=list(_designs(collection))),
        ],
        sections=[section for section in texts if section.kind != "method"],
        definitions=[
            *(section for section in texts if section.kind == "method"),
            *sections("energy", unknown=list(_without_energy(rows))),
        ],
    )


def _without_energy(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """Yield the names of experiments without energy, empty if they are all, and the reason."""
    repeated = [row for row in rows if mode_of(row.experiment.mode).passes != "none"]
    reasons = (
        (reason, row.name)
        for row in repeated
        for reason in dict.fromkeys(record.no_energy for record in row.experiment.records if record.no_energy)
    )
    for reason, names in grouped(reasons).items():
        yield "" if len(names) == len(repeated) else few_names(names, 3), reason


def damage_lines(errors: Iterable[UserError]) -> tuple[str, ...]:
    """Return a line for each file that can't be used."""
    return tuple(f"{sentence(error.problem)} Fix: {sentence(error.remedy)}" for error in errors)


def _flags(rows: Sequence[Row]) -> Iterator[tuple[str, str, Flag]]:
    """Yield experiments, their launches with a certain flag, and the flag; those with equal sentences together."""
    alike = grouped(
        ((flag.code, flag.severity, flag.sentence), (name, launches, flag)) for name, launches, flag in _each_flag(rows)
    )
    for equal_flags in alike.values():
        names = dict.fromkeys(name for name, _, _ in equal_flags)
        launches = dict.fromkeys(launch for _, flag_launches, _ in equal_flags for launch in flag_launches.split(", "))
        yield few_names(list(names)), ", ".join(sorted(launches, key=int)), equal_flags[0][2]


def _each_flag(rows: Sequence[Row]) -> Iterator[tuple[str, str, Flag]]:
    """Yield an experiment, its launches with a certain flag, and the flag of the first of them."""
    raised = [(row, launch.launch, flag) for row in rows for launch in row.launches for flag in launch.flags]
    flags: dict[tuple[object, ...], tuple[Row, int, Flag]] = {}  # every load of a sweep has the same flags of a launch
    for row, launch, flag in raised:
        experiment = row.experiment
        flags.setdefault(
            (experiment.mode, experiment.experiment, launch, flag.code, flag.sentence), (row, launch, flag)
        )
    alike = grouped(
        ((row.experiment.place, flag.code, flag.severity), (row, launch, flag)) for row, launch, flag in flags.values()
    )
    for equal_flags in alike.values():
        row, first, flag = equal_flags[0]
        if len({other.sentence for _, _, other in equal_flags}) > 1:
            flag = flag.model_copy(update={"sentence": f"In launch {first}: {flag.sentence}"})
        where = f" at {flag.load}" if flag.load else ""
        yield f"{row.whole_name}{where}", ", ".join(dict.fromkeys(str(launch) for _, launch, _ in equal_flags)), flag


def _too_few(row: Row, distributions: Mapping[str, Distribution]) -> Iterator[str]:
    """Yield the reason why offline measures of sequences have no percentile although they were measured."""
    unproven = [measure for measure, distribution in distributions.items() if not distribution.proven]
    if unproven and not mode_of(row.experiment.mode).has_loads:
        names = ", ".join(TITLES[measure].partition(",")[0] for measure in unproven)
        least = samples_needed(PERCENTILES[0] / 100)
        yield (
            f"{names} not shown, because sequences that run in step resemble each other: they count as fewer than "
            f"the {least} independent values that a median takes"
        )


def _designs(collection: ResultSet) -> Iterator[dict[str, Any]]:
    """Yield for each mode and platform its blocks, and the launches outside of blocks."""
    experiments = launched(collection.experiments)
    for mode, platform in dict.fromkeys((e.mode, e.platform) for e in experiments):
        records = [r for e in experiments if (e.mode, e.platform) == (mode, platform) for r in e.records]
        blocks = list({r.block.id: r.block for r in records if r.block is not None}.values())
        yield {
            "name": f"{mode}, {platform}".removesuffix(f", {UNKNOWN}"),
            "blocks": len(blocks),
            "engines": max((len(block.members) for block in blocks), default=0),
            "rounds": max((len(block.order) for block in blocks), default=0),
            "alone": sum(record.block is None for record in records),
            "beside": sum(r.block is None and bool(r.placement and r.placement.neighbours) for r in records),
        }
