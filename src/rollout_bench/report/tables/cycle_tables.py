"""The tables of cycles: costs of a step by part, sequence lengths at which a quantization pays, and memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from rollout_bench.analysis.cycles.net_gains import NetGain, TokenRange, net_gain
from rollout_bench.analysis.cycles.proofs import unfit
from rollout_bench.analysis.cycles.step_costs import StepCosts, cost_table, step_costs
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.axes import AXES
from rollout_bench.contracts.cycles import PartName
from rollout_bench.contracts.modes import CYCLE
from rollout_bench.contracts.spec import Spec
from rollout_bench.core.numbers import MISSING, brief, count, number
from rollout_bench.report.contrasts import Contrast, contrast
from rollout_bench.report.headings import LAUNCHES, Column, Line, metric_columns, view
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import definitions, sections
from rollout_bench.report.tables.offline_tables import compared_columns, throughput_views

MOST = 8
"""Maximum number of experiments with a sentence; the table has all."""

WHOLE_STEP = "whole_step_s"
"""The metric of the sentences, if it is compared."""

PARTS: Mapping[PartName, str] = {
    "drain": "Waiting until the engine was idle, in milliseconds. In this column and the next ones, brackets contain "
    "the time from vLLM's own log, if the log has it.",
    "pause": "Pausing the engine, which keeps its memory.",
    "sleep": "Putting the engine to sleep, which frees memory.",
    "wake_weights": "Waking only the weights.",
    "update": "Loading the new weights.",
    "reset_prefix_cache": "Emptying the prefix cache of the old weights.",
    "wake_kv_cache": "Waking the KV cache.",
    "resume": "Resuming the paused engine.",
}
"""Part of a transition -> definition of its column."""


def _costs(cell: Callable[[StepCosts], str]) -> Callable[[Line], str]:
    return lambda line: MISSING if line["costs"] is None else cell(line["costs"])


def _part(name: PartName) -> Callable[[StepCosts], str]:
    def cell(costs: StepCosts) -> str:
        return _ms(costs.parts.get(name))

    return cell


def _ms(seconds: float | None) -> str:
    return number(None if seconds is None else 1e3 * seconds, 3)


def _gib(size: float | None) -> str:
    return number(None if size is None else size / 2**30, 4)


def _memory(field: str) -> Callable[[Line], str]:
    return _costs(lambda costs: _gib(getattr(costs.memory, field)))


GENERATION = Column(
    "generation s",
    "Time from the first request until the last token, in seconds, without the transition. Mean over "
    "iterations, then over launches, as in all columns here.",
    _costs(lambda costs: number(costs.generation_s)),
)
SHARE = Column(
    "share %",
    "Transition s as a share of the whole step.",
    _costs(lambda costs: number(100 * costs.transition_share, 3)),
)
UPDATES = (
    Column(
        "transfer ms",
        "Time until the trainer's tensors were on the engine's device.",
        _costs(lambda costs: _ms(costs.update.transfer_s)),
    ),
    Column(
        "quantize ms",
        "Quantizing bf16 weights for the engine's format.",
        _costs(lambda costs: _ms(costs.update.quantize_s)),
    ),
    Column(
        "load ms",
        "Rest of the update: vLLM copies weights into place, repacks them, and may quantize them.",
        _costs(lambda costs: _ms(costs.update.load_s)),
    ),
    Column(
        "handed over MB",
        "Size of the trainer's tensors, in megabytes (10^6 bytes); empty if vLLM reads a checkpoint.",
        _costs(lambda costs: number(costs.update.size_bytes and costs.update.size_bytes / 1e6, 4)),
    ),
    Column(
        "buckets",
        "Number of pieces in which the trainer hands over its tensors.",
        _costs(lambda costs: MISSING if costs.update.buckets is None else brief(costs.update.buckets, 3)),
    ),
)
MEMORY = (
    Column(
        "device free GiB",
        "Free memory of the first device at the end of generation.",
        _memory("device_free_before"),
    ),
    Column(
        "device free asleep GiB",
        "Free memory of the first device while the engine slept or paused: the memory available to a trainer.",
        _memory("device_free_asleep"),
    ),
    Column(
        "device free after GiB",
        "Free memory of the first device at the end of the transition.",
        _memory("device_free_after"),
    ),
    Column(
        "host GiB",
        "Host memory of the engine's processes at the end of generation. Shared pages count once.",
        _memory("host_before"),
    ),
    Column(
        "host asleep GiB",
        "Host memory of the engine's processes while the engine slept or paused.",
        _memory("host_asleep"),
    ),
    Column(
        "host after GiB", "Host memory of the engine's processes at the end of the transition.", _memory("host_after")
    ),
)


def _lengths(lengths: TokenRange | None) -> str:
    if lengths is None:
        return MISSING
    if lengths.last is None:
        return "any length" if lengths.first == 1 else f"from {count(lengths.first)} on"
    return f"{'up' if lengths.first == 1 else f'{count(lengths.first)}'} to {count(lengths.last)}"


def _gain(cell: Callable[[NetGain], str]) -> Callable[[Line], str]:
    return lambda line: MISSING if line["gain"] is None else cell(line["gain"])


GAINS = (
    Column(
        "tokens measured",
        "Measured output tokens per sequence.",
        _costs(lambda costs: brief(costs.output_tokens)),
    ),
    Column(
        "break-even at",
        "Estimated output tokens per sequence at which a whole step is as long as the baseline's. The estimate "
        "assumes that generation time is proportional to these tokens, and transition time is independent of "
        "them.",
        _gain(lambda gain: number(gain.at, 3)),
    ),
    Column(
        "pays",
        "Output tokens per sequence at which a whole step is shorter than the baseline's: the range that contains "
        "the measured length, by Fieller's theorem.",
        _gain(lambda gain: _lengths(gain.pays)),
        words=True,
    ),
    Column(
        "does not pay",
        "Output tokens per sequence at which a whole step is longer. Lengths in neither column are inconclusive.",
        _gain(lambda gain: _lengths(gain.loses)),
        words=True,
    ),
)


@dataclass(frozen=True)
class Decision:
    """Result for a quantization or a setting.

    Attributes:
        place: of the experiment.
        verdict: on the whole step.
        costs: costs of its step.
        other: costs of the baseline's step.
        gain: lengths at which it pays; None for too few launches, or if the steps are not the same work.
        unlike: whether the steps of both are not the same work.
    """

    place: str
    verdict: Contrast
    costs: StepCosts
    other: StepCosts
    gain: NetGain | None
    unlike: bool


def cycle_part(findings: Findings) -> SummaryPart:
    """Return the costs of a step and the lengths at which a quantization pays, as text and tables, and cycle.csv."""
    tables, every = [], []
    costs = {row.experiment.place: step_costs(row) for row in findings.rows}
    decided = list(decisions(findings, costs))
    gains = {each.place: each.gain for each in decided}
    columns = compared_columns(findings, CYCLE, of_parts=True)
    for title, lines, rows in findings.tables_of(CYCLE):
        shown = [
            line | {"costs": costs[row.experiment.place], "gain": gains.get(row.experiment.place)}
            for line, row in zip(lines, rows, strict=True)
        ]
        step = (LAUNCHES, GENERATION, *metric_columns("transitions"), *columns)
        tables.append(view("What a step costs: ", title, step, shown))
        if answered := [line for line in shown if line["gain"] and line["gain"].found]:
            tables.append(view("Lengths at which it pays: ", title, GAINS, answered))
        parts = [Column(f"{name.replace('_', ' ')} ms", text, _costs(_part(name))) for name, text in PARTS.items()]
        tables.append(view("Parts of a transition: ", title, (SHARE, *parts), shown))
        tables.append(view("Parts of an update: ", title, UPDATES, shown))
        tables.append(view("Memory: ", title, MEMORY, shown))
        every += rows
    tables += throughput_views(findings, CYCLE)
    return SummaryPart(
        answers=sections(
            CYCLE.name,
            decisions=decided,
            alone=list(alone(every, costs, decided)),
            confidence=findings.collection.comparison.confidence,
            proven=[(_short(row, every), found) for row in every if (found := costs[row.experiment.place])],
            unfit=[(_short(row, every), found) for row in every for found in unfit(row)],
            most=MOST,
        ),
        tables=tables,
        definitions=definitions("Definitions, cycles", tables),
        files={"cycle.csv": _file(every, gains)} if every else {},
    )


def decisions(findings: Findings, costs: Mapping[str, StepCosts | None]) -> Iterator[Decision]:
    """Yield the result of each cycle that is compared with a measured baseline."""
    settings = findings.collection.comparison
    metrics = settings.metrics_of(CYCLE.name)
    metric = WHOLE_STEP if WHOLE_STEP in metrics else metrics[0]
    rows = [row for row in findings.rows if row.experiment.mode == CYCLE.name]
    beside = Counter(row.against.other.place for row in rows if row.against.other is not None)
    several = [axis for axis in AXES if len({getattr(row.experiment, axis) for row in rows}) > 1]
    for row in rows:
        other, own = row.against.other, costs[row.experiment.place]
        if other is None or own is None:
            continue
        theirs = costs.get(other.place)
        if theirs is None:
            continue
        told = [axis for axis in AXES if getattr(row.experiment, axis) != getattr(other, axis)]
        unlike = not _same_work(row.experiment.records[0].spec, other.records[0].spec, own, theirs)
        # simultaneous confidence for all rows with this baseline
        confidence = 1 - (1 - settings.confidence) / beside[other.place]
        yield Decision(
            place=row.experiment.place,
            verdict=contrast(
                row,
                metric,
                group=" ".join(getattr(row.experiment, axis) for axis in several if axis not in told),
                own=" ".join(getattr(row.experiment, axis) for axis in told) or row.label,
                other=" ".join(getattr(other, axis) for axis in told),
                of_time=metric == WHOLE_STEP,
            ),
            costs=own,
            other=theirs,
            gain=None if unlike else net_gain(own, theirs, row.comparisons[metric], confidence),
            unlike=unlike,
        )


SAME_TOKENS = 0.01
"""Maximum relative difference in the output tokens of two steps that count as the same work."""


def _same_work(own: Spec, theirs: Spec, costs: StepCosts, other: StepCosts) -> bool:
    """Return whether both steps generate the same amount: equal requests and nearly equal output."""
    if own.workload.model_dump(exclude={"name"}) != theirs.workload.model_dump(exclude={"name"}):
        return False
    return abs(costs.output_tokens - other.output_tokens) <= SAME_TOKENS * other.output_tokens


def alone(
    rows: Sequence[Row], costs: Mapping[str, StepCosts | None], decided: Sequence[Decision]
) -> Iterator[tuple[str, StepCosts]]:
    """Yield names and costs of measured `rows` that are in no decision."""
    told = {id(side) for each in decided for side in (each.costs, each.other)}
    for row in rows:
        found = costs[row.experiment.place]
        if found is not None and id(found) not in told:
            yield _short(row, rows), found


def _short(row: Row, rows: Sequence[Row]) -> str:
    """Return the name of `row` among `rows`, with model and workload only if there are several."""
    return row.label if len({(each.experiment.model, each.experiment.workload) for each in rows}) == 1 else row.name


def _file(rows: Sequence[Row], gains: Mapping[str, NetGain | None]) -> pd.DataFrame:
    """Return cycle.csv: a line for each of `rows`, in plain units and full precision."""
    lines = []
    for row in rows:
        gain = gains.get(row.experiment.place)
        lines.append(
            {
                "even_at_tokens": gain and gain.at,
                "pays_first_tokens": gain and gain.pays and gain.pays.first,
                "pays_last_tokens": gain and gain.pays and gain.pays.last,
                "loses_first_tokens": gain and gain.loses and gain.loses.first,
                "loses_last_tokens": gain and gain.loses and gain.loses.last,
            }
        )
    return pd.concat([cost_table(rows), pd.DataFrame(lines)], axis=1)
