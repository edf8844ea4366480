"""The tables of bounds: of experiments not measured yet, and of what was reached."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rollout_bench.analysis.bounds.bound import ExperimentBound, experiment_bound, most_gain
from rollout_bench.analysis.bounds.limits import DeviceLimits
from rollout_bench.analysis.bounds.memory import set_cache_bytes, utilization
from rollout_bench.analysis.inside.overview import Reach
from rollout_bench.contracts.axes import title_of
from rollout_bench.core.numbers import MISSING, number
from rollout_bench.plan.matrix import Experiment, Matrix
from rollout_bench.report.headings import Column, Line, View, view
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import definitions, sections

_ORDER = ("pass", "prefill", "mixed", "decode", "step")

COLUMNS = (
    Column(
        "pass or step",
        "What is compared with the limit: a whole pass of the workload, or a step of one phase.",
        lambda line: line["what"],
        words=True,
    ),
    Column(
        "takes ms",
        "Its time: of a pass the mean over launches, of a step the mean over steps without the profiler.",
        lambda line: number(1000 * line["reach"].seconds, 4) if line["reach"].known else MISSING,
    ),
    Column(
        "bound ms",
        "The minimum time that the machine allows: the larger of bytes / memory bandwidth (weights and KV cache, each "
        "once a step) and operations / peak rate, summed over steps; docs/explanation/bounds.md has the formulas.",
        lambda line: number(1000 * line["reach"].bound_s, 4) if line["reach"].known else MISSING,
    ),
    Column(
        "x of the limit",
        "bound / takes: 1 is the most that the machine can do.",
        lambda line: number(line["reach"].share, 2) if line["reach"].known else MISSING,
    ),
    Column(
        "limited by",
        "What sets most of the bound: memory bandwidth or computing.",
        lambda line: line["reach"].limited_by or MISSING,
        words=True,
    ),
)


def reach_part(findings: Findings) -> SummaryPart:
    """Return a table for each platform with a valid launch, the limits, and why some bounds are not known."""
    reaches = findings.inside.reaches
    valid = [reach for reach in reaches if not reach.left_out]
    if not valid:
        return SummaryPart()
    tables = [_view(platform, reaches) for platform in dict.fromkeys(reach.platform for reach in valid)]
    return SummaryPart(
        tables=tables,
        sections=sections(
            "limits",
            limits=findings.inside.limits,
            unknown=sorted({dtype for reach in reaches for dtype in reach.unknown}),
            unbounded=sorted({(title_of(reach, reach.quant), reach.reason) for reach in reaches if reach.reason}),
        ),
        definitions=definitions("Definitions, limits", tables),
    )


def _view(platform: str, reaches: Sequence[Reach]) -> View:
    lines: list[Line] = [
        {
            "model": reach.model,
            "workload": reach.workload,
            "quant": reach.quant,
            "what": _what(reach),
            "reach": reach,
            "empty_because": reach.left_out,
        }
        for reach in sorted((r for r in reaches if r.platform == platform), key=lambda r: _ORDER.index(r.what))
    ]
    return view("How far from the machine's limit: ", platform, COLUMNS, lines)


def _what(reach: Reach) -> str:
    if reach.what in ("pass", "step"):
        return f"{reach.mode} {reach.what}"
    return f"{reach.what} step"


HEADINGS = ("weights GB", "KV GB", "decode ms", "limit", "prefill ms", "limit", "pass s", "tok/s", "at most")


def show(matrix: Matrix, limits: DeviceLimits, baseline: Mapping[str, str]) -> None:
    """Print a line for each experiment, then what the columns are and what is left out.

    Args:
        matrix: the experiments.
        limits: of one device.
        baseline: what speed-ups refer to, as axis -> value.

    Raises:
        UserError: a data set can't be read.
    """
    bounds = {e.name: experiment_bound(e.spec, e.model_path, e.dataset_path, limits) for e in matrix.experiments}
    quant = baseline.get("quant", "bf16")
    width = None if sys.stdout.isatty() else 120
    console = Console(width=width, soft_wrap=True, highlight=False)
    console.print(escape(limits_line(limits)))
    table = Table(box=None, pad_edge=False, header_style="bold")
    modes = len({experiment.spec.mode for experiment in matrix.experiments})
    for heading in ("mode", "model", "quant", "workload")[modes == 1 :]:
        table.add_column(heading, overflow="fold")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "limit" else "right", no_wrap=True)
    for experiment in matrix.experiments:
        partner = _partner(experiment, matrix.experiments, bounds, quant)
        table.add_row(*cells(experiment, bounds[experiment.name], partner)[modes == 1 :])
    console.print(table)
    for line in notes(matrix.experiments, bounds, limits, quant):
        console.print(escape(line))


def cells(experiment: Experiment, bound: ExperimentBound | str, baseline: ExperimentBound | str | None) -> list[str]:
    """One line of the table."""
    spec = experiment.spec
    names = [spec.mode, spec.model.name, spec.quant.name, spec.workload.name]
    if isinstance(bound, str):
        return [*names, *[MISSING] * len(HEADINGS)]
    gain = most_gain(bound, baseline)
    decode = bound.decode
    return [
        *names,
        number(bound.weight_bytes / 1e9, 3) if decode else MISSING,
        number(bound.cache_bytes / 1e9, 3) if decode else MISSING,
        number(1e3 * decode.seconds, 3) if decode else MISSING,
        decode.limited_by if decode else MISSING,
        number(1e3 * bound.prefill.seconds, 3),
        bound.prefill.limited_by,
        number(bound.pass_s, 3),
        number(bound.most_tokens_per_s, 3),
        MISSING if gain is None else f"{gain:.2f}x",
    ]


def limits_line(limits: DeviceLimits) -> str:
    """Of what device the limits are, how they are known, and what they are."""
    unit, name = (1e12, "TFLOP/s") if max(limits.flops_per_s.values(), default=0.0) >= 1e12 else (1e9, "GFLOP/s")
    rates = ", ".join(f"{dtype} {number(rate / unit, 3)} {name}" for dtype, rate in limits.flops_per_s.items())
    return f"Limits of one {limits.device}, {limits.source}: memory {number(limits.bytes_per_s / 1e9, 3)} GB/s; {rates}"


def notes(
    experiments: Sequence[Experiment], bounds: Mapping[str, ExperimentBound | str], limits: DeviceLimits, quant: str
) -> list[str]:
    """Return what stands below the table."""
    lines = [
        "weights, KV, decode: what an average decode step reads for each device, and its least time; prefill: all of a"
        " pass.",
        f"tok/s: output of a whole pass at its limit. at most: the limit's ratio to {quant}'s, if both reached theirs.",
    ]
    known = [bound for bound in bounds.values() if not isinstance(bound, str)]
    for dtype in sorted(set().union(*(bound.unknown for bound in known)) if known else ()):
        lines.append(f"No rate of {dtype} is known for {limits.device}: its operations are not in the bound.")
    if limits.cache_bytes and any(bound.decode and bound.weight_bytes < limits.cache_bytes for bound in known):
        lines.append(
            f"Weights below {number(limits.cache_bytes / 1e9, 3)} GB may stay in the last-level cache, which is faster"
            " than the memory: such a bound can be beaten."
        )
    lines += _too_large_caches(experiments, bounds, limits)
    missing = {
        (e.spec.model.name, e.spec.quant.name, e.spec.workload.name): why
        for e in experiments
        if isinstance(why := bounds[e.name], str)
    }
    return lines + [f"no bound: {' '.join(names)}, since {why}" for names, why in missing.items()]


def _too_large_caches(
    experiments: Sequence[Experiment], bounds: Mapping[str, ExperimentBound | str], limits: DeviceLimits
) -> Iterator[str]:
    """Yield a line for each experiment whose decode steps read more KV cache than its engine can have."""
    for e in experiments:
        bound = bounds[e.name]
        if isinstance(bound, str) or limits.memory_bytes is None:
            continue
        room = set_cache_bytes(e.spec) or utilization(e.spec) * limits.memory_bytes - bound.weight_bytes
        if bound.cache_bytes > room > 0:  # without any room the engine does not fit, which is said of it
            most, read = number(room / 1e9, 3), number(bound.cache_bytes / 1e9, 3)
            yield (
                f"{e.spec.title}: its share of a device has room for {most} GB of KV cache, not {read}: fewer sequences"
                " decode at once, and a pass takes longer."
            )


def _partner(
    experiment: Experiment,
    experiments: Sequence[Experiment],
    bounds: Mapping[str, ExperimentBound | str],
    quant: str,
) -> ExperimentBound | str | None:
    mine = experiment.spec
    return next(
        (
            bounds[other.name]
            for other in experiments
            if other.spec.quant.name == quant
            and (other.spec.mode, other.spec.model.name, other.spec.workload.name)
            == (mine.mode, mine.model.name, mine.workload.name)
        ),
        None,
    )
