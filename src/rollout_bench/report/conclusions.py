"""First sections of a summary: of each comparison a headline, at most four lines, and the next step."""

import math
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from operator import itemgetter
from pathlib import Path

import yaml

from rollout_bench.analysis.timed.answers import best_and_ties, compared_rows, lines_over
from rollout_bench.analysis.timed.baselines import why_not_measured
from rollout_bench.analysis.timed.columns import shared_flags
from rollout_bench.analysis.timed.comparison import BOUND, MIN_PAIRS, Comparison
from rollout_bench.analysis.timed.experiments import ResultSet, invalid_codes
from rollout_bench.analysis.timed.launches import LaunchMeasures
from rollout_bench.analysis.timed.precision import stop_of
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.axes import AXES, DEFAULT_SETTING, UNKNOWN, names_of, with_setting
from rollout_bench.contracts.failures import LASTING, SERVER_GONE, fix_of, kind_of
from rollout_bench.contracts.flags import DISTURBED, FLAGS, MEANINGS
from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.spec import uncompared
from rollout_bench.core.mappings import grouped, laid_over
from rollout_bench.core.numbers import first_few, number, percent, plain_percent, ratio, several
from rollout_bench.core.places import shipped
from rollout_bench.core.yaml_files import flow
from rollout_bench.numbers.registry import NUMBERS
from rollout_bench.plan.quants import confounders_text
from rollout_bench.report.drafting import pays_sentences
from rollout_bench.report.prose import Section, few_names
from rollout_bench.report.service import Latencies, next_rates, service_lines

MOST = 6
"""Maximum number of comparisons with a conclusion, and of configurations without one; the tables have all."""


def conclusions(rows: Sequence[Row], collection: ResultSet, latencies: Latencies) -> list[Section]:
    """Return a section for each comparison with a common baseline, one on servers, and one for trends over a number.

    The loads of a sweep, which are measured in the same launches, share a section. If nothing can be compared, the
    section has the value of each configuration, or what a server sustains. `latencies` has the distributions of the
    requests of `rows`.
    """
    groups = compared_rows(rows)
    lacking = [row for row in rows if why_not_measured(row.experiment) or _is_refused(row)]
    beside = [[row for row in lacking if _would_be_beside(row, base, collection)] for base, _ in groups]
    sweeps = grouped(
        ((base.experiment.mode, base.experiment.experiment), (base, _judged_metric_first(others), rows_beside))
        for (base, others), rows_beside in zip(groups[:MOST], beside, strict=False)
    )
    sections = [_conclusion(loads, collection) for loads in sweeps.values()]
    compared = [row for base, others in groups for row in (base, *others)]
    concluded = {row.experiment.place for row in (*compared, *(row for rows_beside in beside for row in rows_beside))}
    without_conclusion = [row for row in rows if row.experiment.place not in concluded]
    refused = _listed("No verdict", [f"{row.label} ({_reason(row)})" for row in without_conclusion if _is_refused(row)])
    if not groups and not refused:
        measured = {row.experiment.experiment for row in rows if row.used}
        sections = _values([row for row in rows if row.experiment.experiment in measured], collection, latencies)
        without_conclusion = [row for row in without_conclusion if row.experiment.experiment not in measured]
    elif lines := service_lines(rows, latencies, collection.slo)[:MOST]:
        sections.append(
            Section("Conclusion: what a server sustains", tuple(lines[1:]), lead=lines[0], kind="conclusion")
        )
    if any(row in lacking and (row.launches or row.experiment.failures) for row in without_conclusion):
        step, command = _next(without_conclusion, [], collection)
        lead, *items = _items(refused, *_doubts(without_conclusion), step)
        lead = lead if refused else f"No result: {lead}"
        sections.append(Section("Conclusion: the others", tuple(items), lead=lead, command=command, kind="conclusion"))
    if len(sections) == 1:
        sections = [replace(sections[0], heading="Conclusion")]
    if sections:
        alone = _uncompared(rows, collection) if groups else ()
        loads = len(next(iter(sweeps.values()))) if sweeps else 1  # the first one's headline is the lead
        answers, others = sections[0].items[: loads - 1], sections[0].items[loads - 1 :]
        sections[0] = replace(
            sections[0], items=(*answers, *_shared_warnings(rows), *_skipped_combinations(collection), *alone, *others)
        )
    if len(groups) > MOST:
        more = f"{several(len(groups) - MOST, 'more comparison')}: see the tables."
        sections[-1] = replace(sections[-1], items=(*sections[-1].items, more))
    return [*sections, *_trends(rows, collection)]


def _uncompared(rows: Sequence[Row], collection: ResultSet) -> Iterator[str]:
    """Yield a sentence if `rows` differ in an axis in which nothing is compared."""
    specs = {row.experiment.experiment: row.experiment.records[0].spec for row in rows if row.used}
    yield from filter(None, [uncompared(specs.values(), collection.baseline)])


def _shared_warnings(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a sentence on each warning that all launches have, with what follows from it."""
    for code in sorted(shared_flags([row for row in rows if row.used]) - DISTURBED):
        follows = f": {FLAGS[code].if_all}" if code in FLAGS and FLAGS[code].if_all else ""
        yield f"In all launches {MEANINGS.get(code, code)} ({code}){follows}."


def _skipped_combinations(collection: ResultSet) -> Iterator[str]:
    """Yield a sentence on each reason for combinations that are not measured."""
    for reason, names in grouped(
        (one.reason, with_setting(one.quant, one.setting)) for one in collection.skipped
    ).items():
        yield f"Not measured: {few_names(list(dict.fromkeys(names)))} ({reason.rstrip('.')})."


def _is_refused(row: Row) -> bool:
    return row.against.other is None and row.comparison.verdict == "unknown"


def _would_be_beside(row: Row, base: Row, collection: ResultSet) -> bool:
    own, theirs = row.experiment, base.experiment
    return (own.mode, own.platform, names_of(own, collection.baseline)) == (
        theirs.mode,
        theirs.platform,
        names_of(theirs, collection.baseline),
    )


def _values(rows: Sequence[Row], collection: ResultSet, latencies: Latencies) -> list[Section]:
    """Return the section of configurations that are not compared: servers in a sentence, of others the first metric."""
    others = [row for row in rows if not mode_of(row.experiment.mode).has_loads]
    metrics = [NUMBERS[collection.comparison.metrics_of(row.experiment.mode)[0]] for row in others]
    lines = service_lines(rows, latencies, collection.slo) + [
        f"{row.name}: {metric.text(row.values[metric.name])} {metric.header}."
        for row, metric in zip(others, metrics, strict=True)
        if metric.name in row.values
    ]
    more = f"{several(len(lines) - MOST, 'more configuration')}: see the tables." if len(lines) > MOST else ""
    if not lines:
        return []
    step, command = _next(rows, [], collection)
    items = _items(
        *lines[1:MOST],
        more,
        _beside_the_log(others, ()),
        *_uncompared(rows, collection),
        *_doubts(rows),
        step,
    )
    return [Section("Conclusion", items, lead=lines[0], command=command, kind="conclusion")]


def _judged_metric_first(others: Sequence[Row]) -> list[Row]:
    """Return `others`, which share a baseline, with the first metric that has a verdict moved to the front.

    If requests arrive at a rate, the load determines the throughput, so only latencies have a verdict.
    """
    metrics = list(others[0].comparisons)
    judged = next((m for m in metrics if any(row.comparisons[m].verdict is not None for row in others)), metrics[0])
    return [replace(row, comparisons={judged: row.comparisons[judged], **row.comparisons}) for row in others]


def _trends(rows: Sequence[Row], collection: ResultSet) -> list[Section]:
    name, lines = lines_over(rows)
    items = []
    # with a baseline of one setting, the table's column shows the trend
    for line in [] if "setting" in collection.baseline else lines:
        known = [(value, row) for value, row in line.rows if row.comparison.low and row.comparison.high]
        if len(known) > 1:
            of = f"{line.label} ({line.model} {line.workload})"
            highest = max(known, key=lambda each: each[1].comparison.low or 0)
            lowest = min(known, key=lambda each: each[1].comparison.high or 0)
            apart = (highest[1].comparison.low or 0) > (lowest[1].comparison.high or 0)
            ends = sorted((lowest, highest), key=itemgetter(0)) if apart else (known[0], known[-1])
            sure = f"The speed-up of {of} changes with {name} (these intervals have no common value)"
            trend = sure if apart else f"No change of the speed-up of {of} with {name} is shown"
            shown = ", ".join(f"{_ratio(row.comparison)} at {value:,.6g}" for value, row in ends)
            items.append(f"{trend}: {shown}{_turn(line.rows)}.")
    return [Section(f"Trend over {name}", tuple(items[:MOST]))] if items else []


def _beside_the_log(rows: Sequence[Row], axes: Sequence[str]) -> str:
    """Return the time of generation in a trainer's log with what was measured; empty if no load has one."""
    known = [
        (row.used[0].record.spec.workload.logged_generation_s, row)
        for row in rows
        if row.used and "step_time_s" in row.values
    ]
    loads = grouped((logged_s, row) for logged_s, row in known if logged_s is not None)
    sentences = []
    for logged_s, of in loads.items():
        names = [_side(row, axes) if axes else row.name for row in of]
        times = [f"{name} {number(row.values['step_time_s'], 3)} s" for row, name in zip(of, names, strict=True)]
        sentences.append(
            f"In the training's log generation takes {number(logged_s, 3)} s of a step; the engines alone take"
            f" {', '.join(times)}. What differs is the trainer's own work around them, waits, or another load."
        )
    return " ".join(sentences)


def _turn(rows: Sequence[tuple[float, Row]]) -> str:
    """Return where a speed-up turns into a loss over a swept value, or a loss into one; empty if it does not."""
    better, worse = (
        [value for value, row in rows if row.comparison.verdict == verdict] for verdict in ("faster", "slower")
    )
    if better and worse and max(better) < min(worse):
        return f"; it is faster up to {max(better):,.6g}, and slower from {min(worse):,.6g}"
    if better and worse and max(worse) < min(better):
        return f"; it is slower up to {max(worse):,.6g}, and faster from {min(better):,.6g}"
    return ""


def _conclusion(loads: Sequence[tuple[Row, Sequence[Row], Sequence[Row]]], collection: ResultSet) -> Section:
    """Return the conclusion at each of `loads`: its baseline, the others, and its rows without numbers."""
    everyone = [row for base, others, lacking in loads for row in (base, *others, *lacking)]
    compared = tuple(axis for axis in AXES if axis in collection.baseline)
    axes = tuple(a for a in compared if len({getattr(row.experiment.whole, a) for row in everyone}) > 1) or compared
    headlines, lines = list[str](), list[str]()
    for base, others, lacking in loads:
        baseline = _side(base, axes)
        headline, more = _verdicts(others, lacking, axes, baseline)
        if any(row.comparison.verdict in ("faster", "slower") or row.comparison.is_bounded for row in others):
            together = " for these intervals together" if len(others) > 1 else ""
            headline += f" {plain_percent(collection.comparison.confidence)} confidence{together}."
        load = f"{base.experiment.point_label}: " if len(loads) > 1 else ""
        headlines.append(f"{load}{headline}")
        lines += [
            f"{load}{line}" for line in (more, _best_configuration(base, others, lacking, axes, collection)) if line
        ]
        confidence = collection.comparison.confidence
        lines += [_beside_the_log([base, *others], axes)]
        lines += pays_sentences(others, confidence, lambda row: _side(row, axes))
        lines += [
            _by_others(others, axes, baseline),
            _fewer_pairs(others, axes),
            _other_settings(others, axes, baseline),
            _pairs_on_other_devices(others, axes),
        ]
    undetected = [
        row
        for _, others, _ in loads
        for row in others
        if row.comparison.verdict == "undetected" and not row.comparison.is_bounded
    ]
    step, command = _next(everyone, undetected, collection)
    items = _items(*headlines[1:], *_doubts(everyone), *dict.fromkeys(lines), step)
    return Section(
        f"Conclusion: {_common_names(everyone, axes)}", items, lead=headlines[0], command=command, kind="conclusion"
    )


def _fewer_pairs(rows: Sequence[Row], axes: Sequence[str]) -> str:
    """Return whose verdict rests on fewer pairs than it has valid launches; empty if there are none."""
    fewer = [
        f"{_side(row, axes)} on {pairs} of {several(len(row.used), 'pair')} of launches"
        for row in rows
        if MIN_PAIRS <= (pairs := len(row.comparison.pairs)) < len(row.used)
    ]
    return _listed("Verdicts that rest on a part of the launches (see Verdicts)", fewer)


def conclusions_apart(rows: Sequence[Row]) -> list[Section]:
    """Return conclusions of `rows` by mode and number, each against the same experiment in another folder, called A."""
    # loads have the names that they have in tables
    named = [replace(row, experiment=replace(row.experiment, part=None)) for row in rows]
    judged = [row for each in named for row in _judged_metric_first([each])]
    apart = grouped(((row.experiment.mode, next(iter(row.comparisons))), row) for row in judged)
    headings = (f": {mode}, {NUMBERS[metric].header}" if len(apart) > 1 else "" for mode, metric in apart)
    return [
        _conclusion_of(number_rows, f"Conclusion{heading}")
        for heading, number_rows in zip(headings, apart.values(), strict=True)
    ]


def _conclusion_of(rows: Sequence[Row], heading: str) -> Section:
    axes = tuple(axis for axis in AXES if len({getattr(row.experiment, axis) for row in rows}) > 1) or ("quant",)
    compared = [row for row in rows if row.against.other is not None]
    if not compared:
        reasons = grouped((_reason(row), _side(row, axes)) for row in rows)
        lead, *rest = [f"{few_names(names, 5)}: {reason}." for reason, names in reasons.items()]
        return Section(heading, tuple(rest), lead=f"Nothing is compared. {lead}", kind="conclusion")
    lead, more = _verdicts(compared, [], axes, "A")
    return Section(heading, _items(more, _by_others(compared, axes, "A"), *_doubts(rows)), lead=lead, kind="conclusion")


def _by_others(rows: Sequence[Row], axes: Sequence[str], baseline: str) -> str:
    """Return the numbers that differ from the baseline's in rows whose first does not; empty without one."""
    differences = [
        f"{_side(row, axes)} {_ratio(other)} ({NUMBERS[name].header}: "
        f"{NUMBERS[name].words[1 if other.verdict == 'faster' else 2]})"
        for row in rows
        if row.comparison.verdict not in ("faster", "slower")
        for name, other in row.comparisons.items()
        if other.verdict in ("faster", "slower") and not other.only_among_all
    ]
    return _listed(f"By another number different from {baseline}", differences)


def _verdicts(others: Sequence[Row], lacking: Sequence[Row], axes: Sequence[str], baseline: str) -> tuple[str, str]:
    """Return the headline on `others` against `baseline`, and what else was found; `lacking` have no numbers."""
    by_verdict = grouped(
        (_group(row.comparison), row)
        for row in sorted(others, key=lambda row: row.comparison.speedup or 1.0, reverse=True)
    )
    unknown = [f"{_side(row, axes)} ({_reason(row)})" for row in (*by_verdict.pop("unknown", ()), *lacking)]
    shown = {
        verdict: [f"{_side(row, axes)} {_ratio(row.comparison)}" for row in verdict_rows]
        for verdict, verdict_rows in by_verdict.items()
    }
    headline, *rest = _items(
        _headline(
            by_verdict.get("faster", []), by_verdict.get("slower", []), baseline, axes, len(others) + len(lacking)
        ),
        _listed(f"No difference from {baseline} above {plain_percent(BOUND)}", shown.get("bounded", [])),
        _listed(f"No difference from {baseline} shown", shown.get("undetected", [])),
        _listed(
            f"Not yet a difference from {baseline} among all comparisons of the table, though it is one by itself",
            shown.get("only_among_all", []),
        ),
        _listed(f"Too small a difference from {baseline} to matter", shown.get("irrelevant", [])),
        _listed("No verdict", unknown),
    )
    return headline, " ".join(rest)


def _group(comparison: Comparison) -> str:
    if comparison.only_among_all:
        return "only_among_all"
    return "bounded" if comparison.is_bounded else comparison.verdict or "unknown"


def _items(*texts: str) -> tuple[str, ...]:
    return tuple(filter(None, texts))


def _listed(what: str, names: Sequence[str]) -> str:
    return f"{what}: {few_names(names, 5)}." if names else ""


def _headline(better: Sequence[Row], worse: Sequence[Row], baseline: str, axes: Sequence[str], everyone: int) -> str:
    """Return the differences that were found, the best first and the worst last; empty without any.

    `everyone` is the number of configurations beside the baseline, with those whose difference is not known.
    """
    if not better and not worse:
        return ""
    first = [*better, *worse][0]
    of = NUMBERS[next(iter(first.comparisons))]
    if not better and len(worse) > 1:
        slower = few_names([f"{_side(row, axes)} {_ratio(row.comparison)}" for row in worse], 5)
        whose = "" if of.name == "output_tokens_per_s" else f" ({of.header})"
        if len(worse) < everyone:
            return f"{of.words[2].capitalize()} than {baseline}{whose}: {slower}."
        all_of_them = "Both" if everyone == 2 else f"All {everyone}"
        verb = "need" if " " in of.words[2] else "are"  # more power
        return f"{all_of_them} {verb} {of.words[2]} than {baseline}{whose}: {slower}."
    factor, _, ends = _ratio(first.comparison).partition(" ")
    text = f"{_side(first, axes)} is {factor} {of.words[0]} as {baseline} {ends}".rstrip()
    text += "" if of.name == "output_tokens_per_s" else f" ({of.header})"
    also, beside = (
        [f"{_side(row, axes)} {_ratio(row.comparison)}" for row in side if row is not first] for side in (better, worse)
    )
    text += f", {few_names(also, 4)}." if also else "."
    return text + (f" {of.words[2].capitalize()}: {few_names(beside, 5)}." if beside else "")


def _best_configuration(
    base: Row, others: Sequence[Row], lacking: Sequence[Row], axes: Sequence[str], collection: ResultSet
) -> str:
    """Return the best of three or more configurations, with those that may be as good; empty if it is not known."""
    settings, precision = collection.comparison, collection.precision
    stands = best_and_ties(
        base, others, settings, None if precision is None else stop_of(precision, settings.confidence)
    )
    if stands is None:
        return ""
    best = _side(stands.best, axes)
    if stands.ties:
        return f"Best mean: {best}; {first_few([_side(row, axes) for row in stands.ties], 5)} may be as good."
    if stands.complete and not lacking:
        return f"Best: {best}; the others are significantly worse."
    return f"Best of those that have a verdict: {best}; the others of these are significantly worse."


def _other_settings(rows: Sequence[Row], axes: Sequence[str], baseline: str) -> str:
    """Return the other settings in which the engines differ from the baseline's; empty if there are none."""
    others = (
        ({d.fact: (d.own, d.other) for d in row.against.differences if d.fact.startswith(("args.", "variables."))}, row)
        for row in rows
    )
    by_difference = grouped((confounders_text(facts), _side(row, axes)) for facts, row in others if facts)
    return " ".join(
        f"Also different from {baseline} in {few_names(names, 5)}: {words}." for words, names in by_difference.items()
    )


def _pairs_on_other_devices(rows: Sequence[Row], axes: Sequence[str]) -> str:
    """Return whose pairs ran on different devices or nodes; empty if there are none."""
    places = {"other_device", "other_node"}
    apart = [
        _side(row, axes)
        for row in rows
        if row.comparison.pairs
        and any(one.launch in row.comparison.pairs and places & {flag.code for flag in one.flags} for one in row.used)
    ]
    return _listed(
        "The two sides of a pair ran on different devices or nodes, which themselves may differ by some per cent",
        apart,
    )


def _side(row: Row, axes: Sequence[str]) -> str:
    names = {axis: row.quant_label if axis == "quant" else getattr(row.experiment.whole, axis) for axis in axes}
    if len(names) > 1 and names.get("setting") == DEFAULT_SETTING:
        del names["setting"]
    return " ".join(name for name in names.values() if name != UNKNOWN) or _server(row)


def _common_names(rows: Sequence[Row], axes: Sequence[str]) -> str:
    loads = {row.experiment.point_label for row in rows if row.experiment.part}
    first = rows[0].experiment.whole if len(loads) > 1 else rows[0].experiment
    names = [getattr(first, each) for each in ("model", "quant", "workload", "setting") if each not in axes]
    common = " ".join(name for name in names if name not in (DEFAULT_SETTING, UNKNOWN))
    return ", ".join(name for name in (common, first.mode, first.platform) if name != UNKNOWN)


def _ratio(comparison: Comparison) -> str:
    assert comparison.speedup is not None
    ends = [ratio(end) for end in (comparison.low, comparison.high) if end is not None]
    return f"{ratio(comparison.speedup)}x" + (f" [{', '.join(ends)}]" if ends else "")


def _reason(row: Row) -> str:
    comparison = row.comparison
    reason = why_not_measured(row.experiment) or comparison.reason
    if reason:
        return reason
    if comparison.sides:
        return f"needs {several(comparison.launches_missing, 'more launch')} of each side"
    return f"needs {several(comparison.launches_missing, 'more pair')} of launches"  # one side may have enough already


def _launches(rows: Sequence[Row]) -> list[LaunchMeasures]:
    """Return the launches of `rows`, each once: of one in rows of several loads, a valid one if there is any."""
    by_launch = grouped(
        ((row.experiment.mode, row.experiment.experiment, one.launch), one) for row in rows for one in row.launches
    )
    return [next((one for one in loads if one.valid), loads[0]) for loads in by_launch.values()]


def _doubts(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a sentence on each problem of the launches: failed and invalid ones, a disturbed machine, and others."""
    launches = _launches(rows)
    failures = [failure for row in rows for failure in row.experiment.failures]
    causes = list(grouped((kind_of(each), each) for each in failures).values())
    for alike in causes[:CAUSES]:
        cause = alike[0].cause.rstrip(".")
        yield f"{several(len(alike), 'launch')} failed: {cause} -> {fix_of(alike).rstrip('.')}."
    if len(causes) > CAUSES:
        yield f"{several(len(causes) - CAUSES, 'other cause')} of failures: see Failed."
    if invalid := [launch for launch in launches if not launch.valid]:
        counts = Counter(code for launch in invalid for code in invalid_codes(launch.flags))
        why = ", ".join(f"{MEANINGS.get(code, code)} ({code}: {n})" for code, n in counts.most_common())
        yield f"{len(invalid)} of {several(len(launches), 'launch')} {_are(invalid)} invalid and in no number: {why}."
    yield from _invalid_loads(rows)
    yield from _flagged_loads(rows)
    valid = [launch for launch in launches if launch.valid]
    codes = [{flag.code for flag in one.flags} & DISTURBED for one in valid]
    if any(codes):
        why = ", ".join(f"{MEANINGS[code]} ({n})" for code, n in Counter(chain.from_iterable(codes)).most_common())
        yield f"The machine was disturbed in {sum(map(bool, codes))} of {several(len(valid), 'valid launch')}: {why}."
    if damaged := sum(len(row.experiment.damaged) for row in rows):
        yield f"{several(damaged, 'record')} cannot be read: see Damaged."
    few = [(row.label, row.comparison) for row in rows if row.comparison.carried_by_few]
    if by_slow := [
        f"{label} is {ratio(one.speedup)}x by a typical pass and {ratio(one.of_totals)}x by the time of all passes"
        for label, one in few
        if one.of_totals is not None and one.speedup is not None
    ]:
        yield f"A few slow passes make a difference: {few_names(by_slow)}."


def _invalid_loads(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a sentence for each load of a sweep that is invalid in a launch whose other loads are not."""
    for loads in grouped((row.experiment.experiment, row) for row in rows if row.experiment.part).values():
        partly = {one.launch for row in loads for one in row.launches if one.valid}
        for row in loads:
            invalid = [one for one in row.launches if one.launch in partly and not one.valid]
            if invalid:
                flags = {flag.code: flag for one in invalid for flag in one.flags if flag.severity == "invalid"}
                why = "; ".join(f"{code}: {flag.sentence.rstrip('.')}" for code, flag in sorted(flags.items()))
                times = f" in {len(invalid)} of {several(len(row.launches), 'launch')}" if len(row.launches) > 1 else ""
                name = _server(row)
                if flags.keys() == {SERVER_GONE}:
                    at = f"{name} at {row.experiment.point_label}"
                    yield f"{at}{times}: the server went away; the next run measures it again ({why})."
                    continue
                yield f"{name} at {row.experiment.point_label} is invalid{times} and in no number ({why})."


def _flagged_loads(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a sentence on each warning of some loads of a server, with what follows from it."""
    loads = [row for row in rows if mode_of(row.experiment.mode).has_loads and row.used]
    codes = [{flag.code for launch in row.used for flag in launch.flags} for row in loads]
    for code in sorted(set[str]().union(*codes) - shared_flags(loads)):
        if code in FLAGS and FLAGS[code].if_all:
            seen = {flag.sentence for row in loads for one in row.used for flag in one.flags if flag.code == code}
            evidence = f"{code}: {seen.pop().rstrip('.')}" if code in OF_SENDER and len(seen) == 1 else code
            at = dict.fromkeys(
                row.experiment.point_label or _server(row)
                for row, load_codes in zip(loads, codes, strict=True)
                if code in load_codes
            )
            where = f"at {', '.join(at)} " if len(loads) > 1 else ""  # a single load is all that there is
            text = f"{where}{MEANINGS[code]} ({evidence}): {FLAGS[code].if_all}."
            yield text[0].upper() + text[1:]


OF_SENDER = frozenset({"generator_bound", "seen_late"})
"""Flags whose evidence is told in a conclusion: it says by how much the sender's delays change latencies."""


def _server(row: Row) -> str:
    """Return the name of a server, with that of its model if its quantization is unknown."""
    names = [row.experiment.model] if row.experiment.quant == UNKNOWN else []
    return " ".join([*names, *([] if row.label == UNKNOWN else [row.label])])


def _are(things: Sequence[object]) -> str:
    return "is" if len(things) == 1 else "are"


CAUSES = 2
"""Maximum number of causes of failures in a conclusion."""


_AGAIN = "run the same command again, which measures"


def _next(rows: Sequence[Row], undetected: Sequence[Row], collection: ResultSet) -> tuple[str, str]:
    """Return the next step and its command, each empty if there is none."""
    step, command = _next_step(rows, undetected, collection)
    return f"Next: {step}{':' if command else '.'}" if step else "", command


def _next_step(rows: Sequence[Row], undetected: Sequence[Row], collection: ResultSet) -> tuple[str, str]:
    failed = any(failure.category not in LASTING for row in rows for failure in row.experiment.failures)
    mend = "remedy that, then " if failed else ""
    missing = failed or any(row.experiment.missing for row in rows)
    codes = [invalid_codes(launch.flags) for launch in _launches(rows)]
    gone = any(flag.code == SERVER_GONE for row in rows for launch in row.launches for flag in launch.flags)
    disturbed = any(DISTURBED.intersection(row_codes) for row_codes in codes)
    raised = sorted({*chain.from_iterable(codes)} & FLAGS.keys())
    changes = [FLAGS[code].mended_by for code in raised if FLAGS[code].mended_by]
    free = f"{'; '.join(changes)}; then " if changes else "keep others off the machine, then " if disturbed else ""
    steps = (
        (
            any(row.experiment.damaged for row in rows),
            f"move the records that cannot be read away, then {_AGAIN} their blocks",
        ),
        (missing, f"{mend}{_AGAIN} what is missing"),
        (
            gone and not any(codes),
            f"see that the server is up, then {_AGAIN} anew each launch whose server went away, with all its loads",
        ),
        (
            any(row_codes and not LASTING.intersection(row_codes) for row_codes in codes),
            f"{free}{_AGAIN} invalid launches anew, with all of their blocks",
        ),
        (
            any(not launch.paired for row in rows for launch in row.launches),
            f"{_AGAIN} together what was measured at different times or places",
        ),
        (collection.precision is not None, ""),
    )
    for applies, step in steps:
        if applies:
            places = (record.placement for row in rows for record in row.experiment.records)
            is_job = any(place.job for place in places if place)  # whose command has options of its cluster
            return step, "" if is_job or not step else _command([], collection)
    launches = max(len(row.launches) for row in rows)
    lacking = [row for row in rows if row.comparison.verdict == "unknown" and not row.comparison.reason]
    if any(row.comparison.launches_missing for row in lacking):
        command = _command([f"launches={max(launches, MIN_PAIRS) + 1}"], collection)
        return f"measure {MIN_PAIRS + 1} launches or more: {MIN_PAIRS} give an interval, but a wide one", command
    widths = [width for row in undetected if (width := row.comparison.half_width) is not None]
    if not widths:
        step, changed = next_rates(rows, collection.slo)
        words = [f"{key}={flow(value)}" for key, value in changed.items()]
        flags = chain.from_iterable(launch.flags for row in rows for launch in row.used)
        if step and any(flag.code == "generator_bound" for flag in flags):
            step = f"free the sender's cores, or ask from another machine, then {step}"
        return step, _command(words, collection) if step else ""
    half = math.expm1(max(widths) / 2)
    step = (
        f"{4 * launches} launches in place of {launches} would narrow the intervals to about {percent(half)} or less on"
        " each side"
    )
    return step, _command([f"launches={4 * launches}"], collection)


def _command(changes: Sequence[str], collection: ResultSet) -> str:
    return f"rollout-bench {shlex.join(run_arguments(changes, collection))}"


def run_arguments(changes: Sequence[str], collection: ResultSet) -> list[str]:
    """Return the words of the command that measures with `changes`, each KEY=VALUE, and else as the first call."""
    # of a kit the plan has the paths in it, which a reader's folder lacks
    names = [file if shipped(Path(file)).exists() else Path(file).name for file in collection.files]
    files = ["--configfile", *names] if names else []
    changed = dict(change.split("=", 1) for change in changes)
    kept = []
    for word in collection.overrides:
        key, _, value = word.partition("=")
        if key not in changed:
            kept.append(word)
            continue
        before, now = yaml.safe_load(value), yaml.safe_load(changed[key])
        if isinstance(before, dict) and isinstance(now, dict):  # a key may stand only once
            changed[key] = flow(laid_over(before, now))
    entries = [*kept, *map("=".join, changed.items())]
    return ["run", *files, *(["--config"] if entries else []), *entries]
