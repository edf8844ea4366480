"""The tables of operators mode: where a quant overtakes, linear layers at the batch in use, and all of a step's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rollout_bench.analysis.chosen import Chosen
from rollout_bench.analysis.operators.break_even import BreakEven, ranges
from rollout_bench.analysis.operators.curves import Estimate
from rollout_bench.analysis.operators.passes import Pass
from rollout_bench.analysis.operators.runs import Run
from rollout_bench.analysis.operators.steps import Phase, Step, Value, at
from rollout_bench.reporting.columns import Column, Line
from rollout_bench.reporting.numbers import MISSING, number, ratio
from rollout_bench.reporting.operators_columns import BATCH, BREAK_EVEN, OPTIONAL, PASS, STEP
from rollout_bench.reporting.view import View, view


def operators_views(steps: Sequence[Step], passes: Sequence[Pass] = (), left_out: Sequence[Chosen] = ()) -> list[View]:
    """The tables of each platform.

    Args:
        steps: from `analysis.operators.steps.steps_of`, one for each run.
        passes: from `analysis.operators.passes.passes_of`, of those that were measured offline too.
        left_out: experiments, of any mode, without a valid launch.
    """
    tables = []
    for platform in dict.fromkeys(step.run.experiment.platform for step in steps):
        own = [step for step in steps if step.run.experiment.platform == platform]
        runs = [step.run for step in own]
        title = f"operators, {platform}"
        without = [
            {"model": model, "workload": workload, "quant": each.label, "empty_because": each.reason}
            for each in left_out
            for own_platform, model, workload in [each.table]
            if each.experiment.mode == "operators" and own_platform == platform
        ]
        compared = list(_break_even_lines(runs))
        if compared:
            tables.append(view("Linear layers, break-even: ", title, BREAK_EVEN, compared, without))
        tables.append(view("Linear layers, at the batch in use: ", title, BATCH, list(_batch_lines(runs)), without))
        lines = list(map(_step_line, own))
        shown = [
            column for column in STEP if column.header not in OPTIONAL or any(_has(column, line) for line in lines)
        ]
        tables.append(view("Linear layers of a step: ", title, shown, lines, without))
        here = [each for each in passes if each.step.run.experiment.platform == platform]
        if here:
            tables.append(view("Linear layers and the whole pass: ", title, PASS, list(map(_pass_line, here)), without))
    return tables


def break_even_text(found: BreakEven, tokens: Sequence[int]) -> str:
    """`>= 70 [40, 130]`, `<= 12 [8, >1024]`, `always`, `never in 1..1024`, `not clear`."""
    first, last = tokens[0], tokens[-1]
    if found.kind == "unclear":
        return "not clear"
    if found.kind in ("always", "never"):
        return f"{found.kind} in {first}..{last}"
    assert found.at is not None
    if found.kind == "between":
        assert found.until is not None
        return f"{number(found.at, 3)} to {number(found.until, 3)}"
    ends = ""
    if found.low is not None and found.high is not None:
        ends = f" [{_end(found.low, first, last)}, {_end(found.high, first, last)}]"
    return f"{'>=' if found.kind == 'from' else '<='} {number(found.at, 3)}{ends}"


def _end(tokens: float, first: int, last: int) -> str:
    if tokens == 0:
        return f"<{first}"
    return f">{last}" if math.isinf(tokens) else number(tokens, 3)


def ranges_text(tokens: Sequence[int], chosen: Sequence[int]) -> str:
    """`1..8, 64`; `-` where none is chosen."""
    return ", ".join(f"{a}" if a == b else f"{a}..{b}" for a, b in ranges(tokens, chosen)) or MISSING


def interval_text(value: Value, factor: float = 1, digits: int = 3) -> str:
    """`12.3 [11.9, 12.8]`, or without the interval where there is none."""
    text = number(factor * value.value, digits)
    if value.over == "nothing":
        return text
    return f"{text} [{number(factor * max(0.0, value.low), digits)}, {number(factor * value.high, digits)}]"


def ratio_text(value: Value | None) -> str:
    """`1.234x [1.200, 1.270]`; `-` where there is none."""
    if value is None:
        return MISSING
    ends = "" if value.over == "nothing" else f" [{ratio(value.low)}, {ratio(value.high)}]"
    return f"{ratio(value.value)}x{ends}"


def _value_at(estimate: Estimate, tokens: Sequence[int], wanted: int) -> Value | None:
    """What `estimate` says at `wanted` tokens; None where that was not measured."""
    return at(estimate, tokens.index(wanted)) if wanted in tokens else None


def _names(run: Run) -> Line:
    e = run.experiment
    return {"model": e.model, "workload": e.workload, "quant": run.label, "empty_because": run.reason}


def _layer(run: Run, name: str) -> Line:
    shape = run.linears[name]
    return {"layer": shape.role, "shape": f"{shape.in_features} x {shape.out_features}", "layers": str(shape.layers)}


def _break_even_lines(runs: Sequence[Run]) -> Iterator[Line]:
    for run in runs:
        for name, against in (run.against or {}).items():
            found, tokens = against.break_even, against.tokens
            yield {
                **_names(run),
                **_layer(run, name),
                "break_even": break_even_text(found, tokens),
                "faster": ranges_text(tokens, found.faster),
                "slower": ranges_text(tokens, found.slower),
                "ends": " / ".join(ratio(float(against.speedup.value[place])) for place in (0, -1)),
            }


def _batch_lines(runs: Sequence[Run]) -> Iterator[Line]:
    for run in runs:
        times = run.seconds
        for name, curve in run.curves.items():
            here = _value_at(times[name], curve.tokens, run.decode_batch)
            against = (run.against or {}).get(name)
            faster = None if against is None else _value_at(against.speedup, against.tokens, run.decode_batch)
            yield {
                **_names(run),
                **_layer(run, name),
                "batch": str(run.decode_batch),
                "us": MISSING if here is None else interval_text(here, 1e6),
                "speedup": "(baseline)" if run.is_baseline else ratio_text(faster),
            }


def _pass_line(found: Pass) -> Line:
    reasons = filter(None, (found.step.run.reason, found.reason))
    return {
        **_names(found.step.run),
        "empty_because": "; ".join(reasons),
        "linear": number(found.linear_s, 3),
        "of_pass": number(None if found.share is None else 100 * found.share, 3),
        "predicted": "(baseline)" if found.step.run.is_baseline else ratio_text(found.predicted),
        "measured": "(baseline)" if found.step.run.is_baseline else ratio_text(found.measured),
    }


def _step_line(step: Step) -> Line:
    profiled, run = step.profiled, step.run
    return {
        **_names(run),
        "empty_because": "; ".join(filter(None, (run.reason, step.reason))),
        "decode": MISSING if step.decode is None else f"{interval_text(step.decode.seconds, 1e3)}",
        "decode_speedup": _phase_speedup(run, step.decode),
        "prefill": MISSING if step.prefill is None else interval_text(step.prefill.seconds, 1e6),
        "prefill_speedup": _phase_speedup(run, step.prefill),
        "profiled": MISSING if profiled is None else number(1e3 * profiled.linear_s, 3),
        "share": MISSING if profiled is None else number(100 * profiled.linear_s / profiled.step_s, 3),
        "end_to_end": ratio_text(step.end_to_end),
    }


def _phase_speedup(run: Run, phase: Phase | None) -> str:
    return "(baseline)" if run.is_baseline else ratio_text(None if phase is None else phase.speedup)


def _has(column: Column, line: Line) -> bool:
    return column.cell(line) != MISSING


def operators_notes(runs: Sequence[Run], confidence: float) -> tuple[str, ...]:
    """The items of the section on operators mode; none where nothing was measured in it."""
    if not runs:
        return ()
    few = [run for run in runs if len(run.launches) == 1]
    over = f"{100 * confidence:g} % over launches" + (
        "" if not few else "; with a single launch over its rounds, which says nothing of what differs between launches"
    )
    evicted = max(record.evicted_bytes for run in runs for record in run.launches)
    reasons = dict.fromkeys(
        f"{run.experiment.model} {run.label} {run.experiment.workload}: not compared, {run.reason}."
        for run in runs
        if run.reason
    )
    through = {point.through for run in runs for record in run.launches for point in record.points}
    how = {"calls": "called from Python", "graph": "replayed as a captured graph"}
    return (
        "Each layer's own kernel, called as the model calls it, alone: all layers of a shape one after the other, "
        f"after up to {number(evicted / 2**20, 3)} MiB of something else went through the caches; "
        f"{' or '.join(how[each] for each in sorted(through))}.",
        f"Intervals: {over}; each taken alone.",
        *reasons,
    )
