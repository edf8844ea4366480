"""Print the state of a plan: launches done, failed and missing, skipped combinations with reasons, and time left."""

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.experiments import ExperimentResults
from rollout_bench.cluster.claims import running_launches
from rollout_bench.contracts.axes import (
    AXES,
    DEFAULT_SETTING,
    UNKNOWN,
    first_of_several,
    label_of,
    names_of,
    with_setting,
)
from rollout_bench.contracts.failures import error_of, state_of
from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.record import Launched
from rollout_bench.contracts.store import failure_path, read_failure, record_path
from rollout_bench.core.errors import UserError
from rollout_bench.core.numbers import MISSING, first_few, several
from rollout_bench.core.yaml_files import flow
from rollout_bench.llmd.profiled import profile_lines
from rollout_bench.plan.config import DEFAULT_LAUNCHES
from rollout_bench.plan.lines import cost_in_words
from rollout_bench.plan.matrix import (
    adapter_lines,
    caveat_lines,
    conversation_lines,
    differing_lines,
    graph_lines,
    load_lines,
    mode_lines,
    update_lines,
)
from rollout_bench.plan.planfile import PlanFile, PlannedExperiment, Span
from rollout_bench.plan.results_state import ResultsState

NONE_SHARED = "no shared starts: workloads need different engines; give them the same max_model_len"


def shown_file(state: ResultsState) -> PlanFile:
    """Return the plan to print, with records to measure again and the interpretation of profiles."""
    plan = state.schedule
    differing = [
        *caveat_lines(plan.matrix),
        *load_lines(plan.matrix),
        *conversation_lines(plan.matrix),
        *adapter_lines(plan.matrix),
        *graph_lines(plan.matrix),
        *update_lines(plan.matrix),
        *mode_lines(plan.matrix),
        *plan.limit_lines(),
        *differing_lines(plan.matrix, plan.config.baseline.axes),
        *plan.matrix.remarks,
    ]
    shown = {
        "again": sorted(state.again),
        "changed": list(state.changed),
        "profiles": profile_lines(plan.config.model_dump(exclude_unset=True)),
        "differing": [*filter(None, [plan.choice]), *differing, *plan.fits, *start_lines(state)],
    }
    return state.plan_file().model_copy(update=shown)


def start_lines(state: ResultsState) -> list[str]:
    """Return a line on the starts that serve several launches; empty without any."""
    plan = state.schedule
    starts = several(len(plan.starting), "start")
    shared = f"shared starts: {several(len(plan.launches), 'launch')} in {starts} of an engine"
    if len(plan.starting) == len(plan.launches):
        shared = NONE_SHARED if plan.could_share else ""
    costs = [cost for launch in plan.launches if (cost := state.costs[launch.experiment.name])]
    if not costs:
        return [shared] if shared else []
    own_s = sum(cost.start_s + cost.rest_s for cost in costs)
    with_s = sum(filter(None, map(state.expected_s, plan.launches)))
    saves = f", about {with_s / 60:.0f} min instead of {own_s / 60:.0f}" if with_s < own_s - 1 else ""
    return [shared + saves] if shared else []


def still_wanted(plan: PlanFile, results: Path) -> PlanFile:
    """Return `plan` with only the launches that the results need so far, if the plan has a target precision."""
    if plan.precision is None:
        return plan
    wanted = {(e.mode, e.experiment): e.planned or 0 for e in collect(results, plan, warned=False).launched}
    records = {
        str(record_path(Path(plan.results), *place, index)) for place, most in wanted.items() for index in range(most)
    }
    experiments = [e.model_copy(update={"launches": wanted[e.mode, e.experiment]}) for e in plan.experiments]
    launches = [launch for launch in plan.launches if launch.record in records]
    return plan.model_copy(update={"experiments": experiments, "launches": launches})


def show(plan: PlanFile, results: Path) -> None:
    """Print the state of the plan, given the records in `results`."""
    width = None if sys.stdout.isatty() else 120
    console = Console(width=width, soft_wrap=True, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("mode", "model", "quant", "workload", "key"):
        table.add_column(heading, overflow="fold")
    for heading in ("done", "failed", "missing", "minutes left"):
        table.add_column(heading, justify="right")
    left: dict[str, list[tuple[Span | None, int]]] = defaultdict(list)
    failures: list[str] = []
    done_total = 0
    launches = {launch.record: launch for launch in plan.launches}
    again = set(plan.again)
    for experiment in plan.experiments:
        name = experiment.experiment
        done = failed = 0
        for index in range(experiment.launches):
            record = record_path(results, experiment.mode, name, index)
            planned = str(record_path(Path(plan.results), experiment.mode, name, index))
            state = "missing" if planned in again else state_of(record)
            if state == "measured":
                done += 1
                continue
            if planned in launches:
                left[name].append((launches[planned].span, experiment.devices))
            if state == "failed":
                failed += 1
                failures.append(_failure(record))
        done_total += done
        table.add_row(
            experiment.mode,
            experiment.model,
            MISSING if (label := label_of(experiment)) == UNKNOWN else label,
            experiment.workload,
            experiment.key,
            f"{done}/{experiment.launches}",
            str(failed),
            str(experiment.launches - done - failed),
            _minutes(left[name]),
        )
    console.print(table)
    collection = collect(results, plan, warned=False) if results.is_dir() else None
    invalid = invalid_launches(plan, collection.launched if collection else ())
    for line in (*_remarks(plan, results, collection.damaged if collection else (), invalid), *failures):
        console.print(escape(line))
    if plan.precision is not None:
        wanted = plan.precision
        console.print(
            f"launches: auto: shown is what is wanted so far; more follow until each interval is within"
            f" {100 * wanted.half_width:g} %, {DEFAULT_LAUNCHES} to {wanted.max_launches} launches of each"
        )
    missing = len(plan.launches) - done_total
    every = [launch for launches_left in left.values() for launch in launches_left]
    skipped = f"; {several(len(plan.skipped), 'combination')} skipped" if plan.skipped else ""
    devices = max((experiment.devices for experiment in plan.experiments), default=1)
    console.print(
        f"{done_total} of {len(plan.launches)} launches done{f' ({invalid} invalid)' if invalid else ''},"
        f" {missing} to run{f', on up to {devices} devices' if devices > 1 else ''},"
        f" {cost_in_words(every, least=plan.precision is not None)}{skipped}"
    )


def _remarks(plan: PlanFile, results: Path, damaged: Sequence[UserError], invalid: int) -> Iterator[str]:
    """Yield a line for each thing to know of the plan and of what is measured."""
    for skipped in plan.skipped:
        label = with_setting(skipped.quant, skipped.setting)
        combination = f"{skipped.mode} {skipped.model} {label} {skipped.workload}"
        yield f"skipped: {combination}: {skipped.reason}; {skipped.remedy}"
    yield from (*plan.profiles, *plan.differing, *interleaved_lines(plan))
    yield from (*compared_lines(plan), *compared_with_nothing(plan), *plan.changed)
    if damaged:
        yield (
            f"damaged: {several(len(damaged), 'record')} of those done: restore them, or move them away to measure"
            " their blocks again"
        )
        yield from (f"damaged: {error.problem}" for error in damaged)
    if invalid:
        yield f"invalid: {several(invalid, 'launch')} of those done, in no number; the next run does not repeat them"
    yield from under_way_lines(plan, results)


def _minutes(left: Iterable[tuple[Span | None, int]]) -> str:
    spans = [span for span, _ in left]
    known = [span for span in spans if span is not None]
    if len(known) < len(spans):
        return MISSING
    low, high = (sum(end or 0.0 for end in ends) / 60 for ends in zip(*known, strict=True)) if known else (0.0, 0.0)
    if any(longest is None for _, longest in known):
        return f"{low:.1f} or more"
    return f"{high:.1f}" if low == high else f"{low:.0f} to {high:.0f}"


def invalid_launches(plan: PlanFile, launched: Iterable[ExperimentResults[Launched]]) -> int:
    """Return the number of finished launches that are invalid and will not be measured again."""
    again = set(plan.again)
    return sum(
        not record.valid and str(record_path(Path(plan.results), e.mode, e.experiment, record.launch)) not in again
        for e in launched
        for record in e.records
    )


def under_way_lines(plan: PlanFile, results: Path) -> list[str]:
    """Return a line for each launch that is running now, and one line for all running launches outside the plan."""
    running = running_launches(results)
    lines = []
    for experiment in plan.experiments:
        for index in range(experiment.launches):
            launch = running.pop(str(record_path(Path(), experiment.mode, experiment.experiment, index)), None)
            if launch is not None:
                name = f"{experiment.mode} {experiment.model} {label_of(experiment)} {experiment.workload}"
                lines.append(f"under way: {name}, launch {index}: {launch[0].text} ({launch[1].holder()})")
    if running:
        lines.append(f"under way besides: {several(len(running), 'launch')} that this config does not select")
    return lines


def interleaved_lines(plan: PlanFile) -> list[str]:
    """Return a line for each interleaved comparison, and a line with the reason for each other comparison."""
    lines = []
    for group in plan.interleaved:
        size = len(group.experiments)
        engines = "both engines" if size == 2 else f"all {size} engines"
        lines.append(f"interleaved: {group.name}: {engines} alive at once")
    return lines + [f"not interleaved: {reason}" for reason in plan.not_interleaved]


def compared_lines(plan: PlanFile) -> list[str]:
    """Return a line with what is compared with the baseline, by its names on the baseline's axes."""
    selected = {(e.mode, *names_of(e)): e for e in plan.experiments if MODES[e.mode].metrics}
    compared: dict[str, list[str]] = defaultdict(list)
    for e in selected.values():
        other = selected.get((e.mode, *names_of(e, plan.baseline)), e)
        own, theirs = (" ".join(_names_on(plan.baseline, each)) for each in (e, other))
        if own not in compared[theirs] and other is not e:
            compared[theirs].append(own)
    return [f"compared: {first_few(names)} with {theirs}" for theirs, names in compared.items() if names]


def _names_on(axes: Iterable[str], e: PlannedExperiment) -> list[str]:
    names = [getattr(e, axis) for axis in axes]
    return [name for name in names if name != DEFAULT_SETTING] or names


def compared_with_nothing(plan: PlanFile) -> list[str]:
    """Return a line with what to write if no selected experiment is the baseline of another selected experiment.

    There is none if nothing is selected besides the baseline, or what is selected can't be compared.
    """
    is_compared = any(MODES[e.mode].metrics for e in plan.experiments)
    if not is_compared or set(plan.baseline).isdisjoint(AXES):
        return []
    selected = {(e.mode, *names_of(e)) for e in plan.experiments}
    wanted = {(e.mode, *names_of(e)): (e.mode, *names_of(e, plan.baseline)) for e in plan.experiments}
    if any(other != own and other in selected for own, other in wanted.items()):
        return []
    remedies = filter(None, (" and ".join(_selecting_it(plan)), _comparing_what_is_there(plan)))
    advice = ", or ".join(remedies)
    return [f"nothing is compared with {flow(plan.baseline)} -> {advice}"] if advice else []


def _selecting_it(plan: PlanFile) -> Iterator[str]:
    """Yield what selects the baseline too; nothing if it is selected, if it is skipped, or beside servers alone."""
    for axis, name in plan.baseline.items():
        names = list(dict.fromkeys(getattr(e, axis) for e in plan.experiments if e.platform != UNKNOWN))
        if names and name not in (*names, *(getattr(skipped, axis) for skipped in plan.skipped)):
            yield f"{axis}s: {flow([name, *names])}"


def _comparing_what_is_there(plan: PlanFile) -> str:
    """Return the baseline with which the selected experiments can be compared; empty if `uncompared` has said it."""
    cells = [(e.mode, dict(zip(AXES, names_of(e), strict=True))) for e in plan.experiments if MODES[e.mode].metrics]
    for axis in ("quant", "model", "setting", "workload"):
        if (first := first_of_several(cells, axis)) in ("", UNKNOWN):
            continue
        if axis in ("quant", "setting") and axis not in plan.baseline:
            return ""
        return f"baseline: {flow({**dict.fromkeys(plan.baseline), axis: first})}"
    servers = list(dict.fromkeys(e.model for e in plan.experiments if e.platform == UNKNOWN))
    return f"model_name: {servers[0]} in each of the endpoints, which have other names now" if servers[1:] else ""


def _failure(record: Path) -> str:
    try:
        return f"failed: {error_of(read_failure(failure_path(record)))}"
    except UserError as error:
        return f"failed: {error}"
