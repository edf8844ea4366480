"""The columns of the tables of profile mode."""

from __future__ import annotations

from collections.abc import Callable

from rollout_bench.analysis.profiles.changes import Change
from rollout_bench.analysis.profiles.checks import DEVICE_BOUND, HOST_BOUND, TRACE_OFF, UNKNOWN
from rollout_bench.analysis.profiles.profiled import HOST_GAP
from rollout_bench.analysis.profiles.reconciliation import Reconciliation
from rollout_bench.records.profile import Phase
from rollout_bench.reporting.columns import Column, Line, interval_text
from rollout_bench.reporting.numbers import MISSING, number, plain_percent, ratio
from rollout_bench.reporting.profile_words import REST, category_word

PHASE = Column(
    "phase",
    "What the engine's steps computed: prefill prompts, decode one token of each sequence, mixed both.",
    lambda line: line["phase"],
    words=True,
)


_NO_DIFFERENCE = 1e-6
"""Of a part: less is rounding."""


def _text(field: str) -> Callable[[Line], str]:
    return lambda line: line[field] or MISSING


def _number(field: str, digits: int = 3, factor: float = 1) -> Callable[[Line], str]:
    return lambda line: number(None if line[field] is None else factor * line[field], digits)


def _tokens(line: Line) -> str:
    return MISSING if line["tokens"] is None else f"{line['tokens']:,.0f}"


STEP = (
    PHASE,
    Column(
        "step ms",
        "A step of the engine without the profiler, mean over those that the profile's launch timed. The columns after "
        "it add up to it.",
        _number("step_us", 4, 1e-3),
    ),
)
"""The columns of categories follow."""

_CATEGORY = {
    "linear": "Matrix multiplications of linear layers.",
    "quantize": "Quantizing activations and dequantizing, where that is an operator of its own.",
    HOST_GAP: "No operator runs on the device. On a CPU: what the engine's own process does between operators.",
    "other": "Operators that no rule knows; the notes list them.",
    REST: "All categories together that are too small for a column.",
}

SHARES = (
    "Columns of categories: milliseconds of a step without the profiler, in brackets percent of it. On a CPU, where "
    "the profiler slows every operator, each keeps its share of the traced step; on a device operators keep their "
    "traced duration, and the device waits for what is left of the step."
)
"""How those columns are computed."""


def category_column(category: str) -> Column:
    """The time in one category, or in the rest."""

    def cell(line: Line) -> str:
        us = line["parts"][category]
        if us <= 0:
            return MISSING
        return f"{number(us / 1000, 3)} ({100 * us / line['step_us']:.0f})"

    return Column(category_word(category), _CATEGORY.get(category, ""), cell)


TIMED = (
    PHASE,
    Column("traced", "Steps in the traces, of all ranks.", lambda line: f"{line['steps']:,d}"),
    Column("tokens", "Tokens computed in a step, mean over the timed ones.", _tokens),
    Column("step ms", "Mean time of a step without the profiler.", _number("unprofiled_s", 4, 1000)),
    Column("profiled ms", "Mean time of a step with the profiler.", _number("profiled_s", 4, 1000)),
    Column(
        "profiler overhead",
        "Profiled ms / step ms: how much the profiler slows steps down.",
        lambda line: MISSING if line["overhead"] is None else f"{ratio(line['overhead'])}x",
    ),
    Column(
        "in trace %",
        "Duration of a step in the trace, from its begin to the begin of the next, over profiled ms. Off by more than "
        f"{plain_percent(TRACE_OFF)}: flag trace_time.",
        _number("agreement", 3, 100),
    ),
    Column(
        "device waits %",
        "Share of a step, without the profiler, in which no operator runs on the device.",
        _number("waits", 3, 100),
    ),
    Column(
        "bound by",
        f"device: it waits for less than {plain_percent(DEVICE_BOUND)} of the step; host: for more than "
        f"{plain_percent(HOST_BOUND)}; else both.",
        _text("bound"),
        words=True,
    ),
    Column(
        "other %",
        f"Share of the traced step of operators that no rule knows. Above {plain_percent(UNKNOWN)}: flag other.",
        _number("other", 2, 100),
    ),
    Column(
        "flags",
        "trace_time and other: see their columns. untimed: no step without the profiler was timed. unsteady: steps "
        "scatter widely.",
        _text("flags"),
        words=True,
    ),
)

OPERATORS = (
    PHASE,
    Column("operator", "Name of the operator on a CPU, of the kernel on a device.", _text("operator"), words=True),
    Column("part", "Its category, and the role of a linear layer.", _text("part"), words=True),
    Column("shapes", "Shapes of its inputs, as far as they are traced.", _text("shapes"), words=True),
    Column("calls", "Calls in a step, mean.", _number("calls", 3)),
    Column(
        "us/step",
        "Microseconds in a traced step, mean, without operators that it calls.",
        _number("us", 3),
    ),
    Column("share %", "Of the traced step.", _number("share", 2, 100)),
)

PART = Column(
    "part",
    "Category of operators; below linear its roles. Linear + quantize is what the quantization changes in all. Parts "
    "that take less than 1 % of a step are in the rest.",
    lambda line: line["part"],
    words=True,
)


def saved(change: Change) -> float:
    """What a part saves, with a difference that is none but for rounding as 0."""
    return 0.0 if abs(change.saved) < _NO_DIFFERENCE * max(change.baseline, change.own) else change.saved


def change_columns(phase: Phase) -> tuple[Column, Column, Column]:
    """Its own time, the speed-up and the difference in one phase."""

    def of(line: Line) -> Change | None:
        found: Change | None = line["changes"].get(phase)
        return found

    def own(line: Line) -> str:
        change = of(line)
        return MISSING if change is None or not (change.own or change.baseline) else number(change.own / 1000, 3)

    def faster(line: Line) -> str:
        change = of(line)
        return MISSING if change is None or change.speedup is None else f"{ratio(change.speedup)}x"

    def saves(line: Line) -> str:
        change = of(line)
        return MISSING if change is None or not (change.own or change.baseline) else number(saved(change) / 1000, 3)

    return (
        Column(f"{phase} ms", "Its time in a step of that phase without the profiler.", own),
        Column(f"{phase} speed-up", "The baseline's time of the part / its own.", faster),
        Column(
            f"{phase} saves ms",
            "The baseline's time less its own, negative where it costs. Add up to the whole step's.",
            saves,
        ),
    )


def _pair(cell: Callable[[Reconciliation], str]) -> Callable[[Line], str]:
    return lambda line: cell(line["pair"])


def _with_ends(value: float, low: float | None, high: float | None) -> str:
    ends = "" if low is None or high is None else f" [{ratio(low)}, {ratio(high)}]"
    return f"{ratio(value)}x{ends}"


def _predicted(pair: Reconciliation) -> str:
    found = pair.prediction
    return MISSING if found is None else _with_ends(found.speedup, found.low, found.high)


def _measured(pair: Reconciliation) -> str:
    found = pair.own.comparison
    return MISSING if found is None or found.speedup is None else f"{ratio(found.speedup)}x{interval_text(found)}"


def _verdict(pair: Reconciliation) -> str:
    if pair.verdict == "unknown":
        return MISSING
    return "agree" if pair.verdict == "agree" else "APART"


RECONCILED = (
    Column(
        "traces alone",
        "The speed-up of a pass from the traced durations of steps, profiler overhead included: not to be relied on.",
        _pair(lambda pair: MISSING if pair.prediction is None else f"{ratio(pair.prediction.traces_alone)}x"),
    ),
    Column(
        "predicted",
        "The speed-up of a pass that the parts of its steps add up to (Amdahl's law), each at its time without the "
        "profiler, times the steps of a pass; in brackets the interval from the scatter of the timed steps, "
        "which knows of one launch; none where a phase has a single one.",
        _pair(_predicted),
        words=True,
    ),
    Column(
        "measured",
        "The speed-up in output tok/s end to end, as in the table of throughput.",
        _pair(_measured),
        words=True,
    ),
    Column(
        "predicted / measured",
        "Their ratio, in brackets its interval from both (Zou and Donner, 2008), or from the measured one alone.",
        _pair(lambda pair: MISSING if pair.ratio is None else _with_ends(pair.ratio, pair.low, pair.high)),
        words=True,
    ),
    Column(
        "verdict",
        "APART: that interval does not hold 1, and they differ by more than the relevant difference; the notes say "
        "why, if anything tells. A wide interval agrees with much.",
        _pair(_verdict),
        words=True,
    ),
)
