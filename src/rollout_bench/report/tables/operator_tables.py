"""The tables of operators mode: where a quant overtakes, linear layers at the batch in use, and all of a step's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rollout_bench.analysis.inside.curves import BreakEven, Estimate, OperatorsRun, ShapeComparison, ranges
from rollout_bench.analysis.inside.expert_curves import ExpertsRun, expert_runs, least_of
from rollout_bench.analysis.inside.predictions import Phase, PredictedPass, PredictedStep, Value, at
from rollout_bench.analysis.timed.experiments import Chosen, Selected
from rollout_bench.contracts.axes import title_of
from rollout_bench.contracts.inside import MachineLimits
from rollout_bench.contracts.modes import OPERATORS
from rollout_bench.contracts.record import Launched
from rollout_bench.core.numbers import MISSING, number, ratio
from rollout_bench.report.headings import LAUNCHES, Column, Line, View, view
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import Section, definitions, sections


def _cell(header: str, field: str, definition: str, words: bool = False) -> Column:
    return Column(header, definition, lambda line: line[field], words)


_LAYER = (
    _cell("layer", "layer", "", words=True),
    _cell("K x N", "shape", "Features in and out of each layer, fused and cut by tensor parallelism as it runs."),
    _cell("layers", "layers", "How many layers have that shape."),
)

_CROSSED = (
    _cell(
        "break-even M",
        "break_even",
        "Numbers of tokens in a call from which on (>=) or up to which (<=) the quant is faster than the baseline, "
        "interpolated between those measured; in brackets the numbers at which the bands of the speed-up cross 1. "
        "Not clear: no speed-up has an interval without 1.",
        words=True,
    ),
    _cell("faster at M", "faster", "Measured numbers of tokens at which the interval lies above 1.", words=True),
    _cell("slower at M", "slower", "The same below 1.", words=True),
    _cell("least / most M", "ends", "Speed-ups at the smallest and at the largest number of tokens."),
)
"""Where it overtakes the baseline."""

BREAK_EVEN = (*_LAYER, *_CROSSED)
"""Where a quant overtakes the baseline."""

BATCH = (
    *_LAYER,
    _cell("M", "batch", "The batch in use: sequences that decode at once under the workload, if all do."),
    _cell(
        "us per call",
        "us",
        "Time of one call at that batch, activation quantization included, in microseconds: median over rounds, mean "
        "over launches.",
    ),
    _cell("speed-up", "speedup", "The baseline's time over its own."),
)
"""Each layer at the batch in use."""

STEP = (
    _cell("decode ms", "decode", "All linear layers of a decode step at the batch in use, each times its number."),
    _cell("decode speed-up", "decode_speedup", "The baseline's over its own: the most that a decode step can gain."),
    _cell(
        "prefill us/token",
        "prefill",
        "All linear layers but lm_head at the largest number of tokens measured, over that number.",
    ),
    _cell("prefill speed-up", "prefill_speedup", "The baseline's over its own."),
    _cell("profiled ms", "profiled", "Linear layers of a decode step in the profile."),
    _cell("share %", "share", "Their share of the profile's step."),
    _cell(
        "predicted decode step",
        "end_to_end",
        "Speed-up of the whole decode step if only its linear layers change, by Amdahl's law from the baseline's "
        "share.",
    ),
)
"""The linear layers of a whole step."""

_EXPERTS = (
    _cell(
        "routing",
        "routing",
        "How tokens choose experts. uniform: each expert gets as many, as evenly as whole tokens allow. recorded: as "
        "the model's own routers chose for tokens of the workload's prompts. skewed: a seeded draw in which the n-th "
        "most popular expert has a weight of 1/n, where no choices could be recorded.",
        words=True,
    ),
    _cell("experts", "experts", "Experts in a layer, and in brackets how many of them see each token.", words=True),
    _cell("H x I", "shape", "Features of a token, and the width of an expert as it runs."),
    _cell("layers", "layers", "How many layers have that shape."),
)

EXPERTS_BREAK_EVEN = (*_EXPERTS, *_CROSSED)
"""Where a quant's experts overtake the baseline's; M are tokens in a call, before each goes to its experts."""

EXPERTS_BATCH = (
    *_EXPERTS,
    _cell("M", "batch", "The batch in use: sequences that decode at once under the workload, if all do."),
    _cell("rows per expert", "rows", "M x experts of a token / experts: rows of each GEMM if all get as many."),
    _cell("hit", "hit", "Experts of a layer that get a token: only their weights are read. Mean over layers."),
    _cell("busiest", "busiest", "Rows of the expert that gets most. Mean over layers."),
    _cell(
        "us per layer",
        "us",
        "Time of one layer's experts at that batch: sorting the tokens, both grouped GEMMs with the activation between "
        "them, and the sum, without the router; in microseconds: median over rounds, mean over launches.",
    ),
    _cell("weights MiB", "weights", "Weights of the experts that are hit, of one layer."),
    _cell("GB/s", "rate", "These weights over the time of a call."),
    _cell("MFLOP", "mflop", "Operations of a call: 2 for each weight that a row meets."),
    Column(
        "bound us",
        "The least time of a call on this machine, as a profile measured it: weights over memory bandwidth, or "
        "operations over their rate, whichever is longer.",
        lambda line: line["bound"] or MISSING,
        known="bound",
    ),
    _cell(
        "speed-up",
        "speedup",
        "The baseline's time over its own, with the same routing, where both hit as many experts to a tenth.",
    ),
)
"""The experts of a layer at the batch in use."""

PASS = (
    _cell(
        "linear s",
        "linear",
        "All linear layers of a pass of the workload, only from their own times: its decode steps at the batch in use, "
        "and prefill of the prompt tokens that no cache held.",
    ),
    _cell("of the pass %", "of_pass", "Their share of the pass that offline mode measured."),
    _cell(
        "predicted",
        "predicted",
        "Speed-up of the baseline's pass with these linear layers and all else as it is: by Amdahl's law. The interval "
        "is that of the linear layers' times.",
    ),
    _cell("measured", "measured", "Speed-up of output tok/s in offline mode."),
)
"""Predicted against measured end to end."""


def operators_part(findings: Findings) -> SummaryPart:
    """Return the tables of each platform, and how their numbers were measured."""
    inside = findings.inside
    tables = operators_views(inside.steps, inside.passes, inside.left_out, findings.launches)
    tables += expert_views(inside.runs, inside.limits, findings.launches)
    return SummaryPart(
        tables=tables,
        sections=operators_notes(inside.runs, findings.collection.comparison.confidence),
        definitions=definitions("Definitions, operators", tables),
    )


def operators_views(
    steps: Sequence[PredictedStep],
    passes: Sequence[PredictedPass] = (),
    left_out: Sequence[Chosen] = (),
    launches: Mapping[str, Line] | None = None,
) -> list[View]:
    """Return the tables of each platform.

    Args:
        steps: from `analysis.operators.steps.steps_of`, one for each run.
        passes: from `analysis.operators.passes.passes_of`, of those that were measured offline too.
        left_out: experiments, of any mode, without a valid launch.
        launches: how many each experiment has, by its place.
    """
    counts: Mapping[str, Line] = launches or {}

    def counted(lines: Iterable[Line]) -> list[Line]:
        return [line | counts.get(line["place"], {}) for line in lines]

    tables = []
    for platform in dict.fromkeys(step.run.experiment.platform for step in steps):
        own = [step for step in steps if step.run.experiment.platform == platform]
        runs = [step.run for step in own]
        title = f"operators, {platform}"
        without = counted(
            _of_experiment(each.experiment, each.label, each.reason)
            for each in left_out
            if each.experiment.mode == OPERATORS.name and each.experiment.platform == platform
        )
        compared, batch = counted(_break_even_lines(runs)), list(_batch_lines(runs))
        if compared:
            tables.append(view("Linear layers, break-even: ", title, (LAUNCHES, *BREAK_EVEN), compared, without))
        first = () if compared else (LAUNCHES,)
        tables.append(view("Linear layers, at the batch in use: ", title, (*first, *BATCH), counted(batch), without))
        lines = counted(map(_step_line, own))  # of the baseline too, which breaks even with nothing
        tables.append(view("Linear layers of a step: ", title, (LAUNCHES, *STEP), lines, without))
        here = [each for each in passes if each.step.run.experiment.platform == platform]
        if here:
            tables.append(view("Linear layers and the whole pass: ", title, PASS, list(map(_pass_line, here)), without))
    return tables


def expert_views(
    runs: Sequence[OperatorsRun],
    limits: Sequence[MachineLimits] = (),
    launches: Mapping[str, Line] | None = None,
) -> list[View]:
    """Return the tables of experts, of each platform that timed some.

    Args:
        runs: the experiments of operators mode.
        limits: of the machines that are known.
        launches: how many each experiment has, by its place.
    """
    counts: Mapping[str, Line] = launches or {}
    found = expert_runs(runs)
    tables = []
    for platform in dict.fromkeys(each.run.experiment.platform for each in found):
        own = [each for each in found if each.run.experiment.platform == platform]
        title = f"operators, {platform}"
        crossed = [{**_experts(each), **_crossed(each.against)} for each in own if each.against is not None]
        batch = [_experts_line(each, limits) for each in own]
        for kind, columns, lines in (
            ("Experts, break-even: ", EXPERTS_BREAK_EVEN, crossed),
            ("Experts, at the batch in use: ", EXPERTS_BATCH, batch),
        ):
            if lines:
                known = [line | counts.get(line["place"], {}) for line in lines]
                tables.append(view(kind, title, (LAUNCHES, *columns), known))
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
    return at(estimate, tokens.index(wanted)) if wanted in tokens else None


def _names(run: OperatorsRun) -> Line:
    return _of_experiment(run.experiment, run.label, run.reason)


def _of_experiment(experiment: Selected[Launched], label: str, reason: str) -> Line:
    return {
        "model": experiment.model,
        "workload": experiment.workload,
        "quant": label,
        "place": f"{experiment.mode}/{experiment.experiment}",
        "empty_because": reason,
    }


def _layer(run: OperatorsRun, name: str) -> Line:
    shape = run.linears[name]
    return {"layer": shape.role, "shape": f"{shape.in_features} x {shape.out_features}", "layers": str(shape.layers)}


def _break_even_lines(runs: Sequence[OperatorsRun]) -> Iterator[Line]:
    for run in runs:
        for name, against in (run.against or {}).items():
            yield {**_names(run), **_layer(run, name), **_crossed(against)}


def _crossed(against: ShapeComparison) -> Line:
    found, tokens = against.break_even, against.tokens
    return {
        "break_even": break_even_text(found, tokens),
        "faster": ranges_text(tokens, found.faster),
        "slower": ranges_text(tokens, found.slower),
        "ends": " / ".join(ratio(float(against.speedup.value[place])) for place in (0, -1)),
    }


def _experts(each: ExpertsRun) -> Line:
    point = next(iter(each.points.values()))
    return {
        **_names(each.run),
        "routing": point.routing,
        "experts": f"{point.experts} ({point.per_token})",
        "shape": f"{point.hidden_size} x {point.intermediate_size}",
        "layers": str(point.layers),
    }


def _experts_line(each: ExpertsRun, limits: Sequence[MachineLimits]) -> Line:
    point = each.here
    missing = dict.fromkeys(("rows", "hit", "busiest", "us", "weights", "rate", "mflop", "speedup"), MISSING)
    line = {**_experts(each), **missing, "batch": str(each.run.decode_batch), "bound": None}
    if point is None:
        return line
    here = _value_at(each.seconds, each.curve.tokens, point.tokens)
    against, bound = each.against, least_of(each, point, limits)
    faster = None if against is None else _value_at(against.speedup, against.tokens, point.tokens)
    return {
        **line,
        "rows": number(point.tokens * point.per_token / point.experts, 3),
        "hit": number(point.hit, 3),
        "busiest": number(point.busiest, 3),
        "us": MISSING if here is None else interval_text(here, 1e6),
        "weights": number(point.weight_bytes / 2**20, 3),
        "rate": MISSING if here is None else number(point.weight_bytes / here.value / 1e9, 3),
        "mflop": number(point.tokens * point.token_flops / 1e6, 3),
        "bound": None if bound is None else number(1e6 * bound.seconds, 3),
        "speedup": "(baseline)" if each.run.is_baseline else ratio_text(faster),
    }


def _batch_lines(runs: Sequence[OperatorsRun]) -> Iterator[Line]:
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


def _pass_line(found: PredictedPass) -> Line:
    reasons = filter(None, (found.step.run.reason, found.reason))
    return {
        **_names(found.step.run),
        "empty_because": "; ".join(reasons),
        "linear": number(found.linear_s, 3),
        "of_pass": number(None if found.share is None else 100 * found.share, 3),
        "predicted": "(baseline)" if found.step.run.is_baseline else ratio_text(found.predicted),
        "measured": "(baseline)" if found.step.run.is_baseline else ratio_text(found.measured),
    }


def _step_line(step: PredictedStep) -> Line:
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


def _phase_speedup(run: OperatorsRun, phase: Phase | None) -> str:
    return "(baseline)" if run.is_baseline else ratio_text(None if phase is None else phase.speedup)


def operators_notes(runs: Sequence[OperatorsRun], confidence: float) -> list[Section]:
    """Return the section on operators mode; none where nothing was measured in it."""
    records = [record for run in runs for record in run.launches]
    return sections(
        OPERATORS.name,
        measured=bool(runs),
        evicted_bytes=max((record.evicted_bytes for record in records), default=0),
        through=sorted({point.through for record in records for point in record.points}),
        confidence=f"{100 * confidence:g} %",
        single_launch=any(len(run.launches) == 1 for run in runs),
        experts=_experts_told(runs),
        uncompared=list(dict.fromkeys((title_of(run.experiment, run.label), run.reason) for run in runs if run.reason)),
    )


def _experts_told(runs: Sequence[OperatorsRun]) -> list[Line]:
    """Return what the sentences on experts say: a line for each experiment and routing, at the batch in use."""
    return [
        {
            **_experts_line(each, ()),
            "name": title_of(each.run.experiment, each.run.label),
            "of": str(each.here.experts),
            "unlike": None if each.baseline_hit is None else number(each.baseline_hit, 3),
            "one_choice": each.here.tokens > 1 and each.here.hit == each.here.per_token,
        }
        for each in expert_runs(runs)
        if each.here is not None
    ]
