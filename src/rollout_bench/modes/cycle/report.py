"""The tables of cycles: costs of a step by part, sequence lengths at which a quantization pays, and memory."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from rollout_bench.analysis.proofs import failed_proofs, proven, tokens_came_back
from rollout_bench.analysis.timed.comparison import Comparison
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.mode import Mode
from rollout_bench.core.numbers import MISSING, count, in_sentence, number
from rollout_bench.modes.cycle import MODE
from rollout_bench.modes.cycle.gains import NetGain, TokenRange, net_gain
from rollout_bench.modes.cycle.numbers import MEMORY, PARTS, STEP, UPDATE
from rollout_bench.report.headings import names_among
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import definitions, sections
from rollout_bench.report.timed import GENERATED, OF_LAUNCH, number_views
from rollout_bench.report.views import Column, Entry, view

MOST = 8
"""Maximum number of experiments with a sentence; the table has all."""

WHOLE_STEP = "whole_step_s"
"""The metric of the lengths, if it is compared."""


def _lengths(lengths: TokenRange | None) -> str:
    if lengths is None:
        return MISSING
    if lengths.last is None:
        return "any length" if lengths.first == 1 else f"from {count(lengths.first)} on"
    return f"{'up' if lengths.first == 1 else f'{count(lengths.first)}'} to {count(lengths.last)}"


@dataclass(frozen=True)
class Decision:
    """Result for a quantization or a setting.

    Attributes:
        row: its experiment, with the launches that are compared.
        base: the baseline, with its launches of the same pairs.
        gain: lengths at which it pays; None for too few launches, or if the steps are not the same work.
        unlike: whether the steps of both are not the same work.
        in_flight: whether weights of one are updated in the middle of generation, which then has a part of their cost.
    """

    row: Row
    base: Row
    gain: NetGain | None
    unlike: bool
    in_flight: bool

    @property
    def what(self) -> str:
        """What pays or does not: an adapter that the engine keeps apart, against weights it is merged into, or `it`."""
        own, other = (side.experiment.records[0].spec.lora is not None for side in (self.row, self.base))
        return "keeping the adapter apart" if own and not other else "it"


GAINS: tuple[Column[Decision], ...] = (
    Column(
        "tokens measured",
        "Measured output tokens per sequence.",
        lambda decision: in_sentence(decision.row.values["sequence_tokens"]),
    ),
    Column(
        "break-even at",
        "Estimated output tokens per sequence at which a whole step is as long as the baseline's. The estimate "
        "assumes that generation time is proportional to these tokens, and transition time is independent of "
        "them.",
        lambda decision: number(decision.gain.at if decision.gain else None, 3),
    ),
    Column(
        "pays",
        "Output tokens per sequence at which a whole step is shorter than the baseline's: the range that contains "
        "the measured length, by Fieller's theorem.",
        lambda decision: _lengths(decision.gain.pays if decision.gain else None),
        words=True,
    ),
    Column(
        "does not pay",
        "Output tokens per sequence at which a whole step is longer. Lengths in neither column are inconclusive.",
        lambda decision: _lengths(decision.gain.loses if decision.gain else None),
        words=True,
    ),
)


def part_of(findings: Findings, mode: Mode) -> SummaryPart:
    """Return the costs of a step and the lengths at which a quantization pays, as text and tables, and cycle.csv."""
    rows = [row for row in findings.rows if row.experiment.mode == mode.name]
    decided = list(decisions(findings, rows))
    tables = number_views(findings, mode, (STEP, PARTS, UPDATE, MEMORY, *GENERATED, *OF_LAUNCH))
    by_place = {each.row.experiment.place: each for each in decided}
    names = names_among(rows)
    reported = {side.experiment.place for each in decided for side in (each.row, each.base)}
    for title, entries in findings.entries(mode):
        answered = [
            Entry(entry.texts, found)
            for entry in entries
            if entry.of and (found := by_place.get(entry.of.experiment.place)) and found.gain and found.gain.found
        ]
        tables.insert(1, view("Lengths at which it pays: ", title, GAINS, answered))
    return SummaryPart(
        answers=sections(
            f"{mode.name}/report",
            decisions=decided,
            alone=[row for row in rows if row.values and row.experiment.place not in reported],
            names=names,
            in_flight=[(names[row.experiment.place], row.values) for row in rows if "under_way_requests" in row.values][
                :MOST
            ],
            confidence=findings.collection.comparison.confidence,
            proven=[(names[row.experiment.place], proven(row)) for row in rows if proven(row)],
            tokens_came_back=all(map(tokens_came_back, rows)),
            unfit=[(names[row.experiment.place], found) for row in rows for found in failed_proofs(row)],
            most=MOST,
        ),
        tables=tables,
        definitions=definitions("Definitions, cycles", tables),
        files={"cycle.csv": _file(rows, {place: each.gain for place, each in by_place.items()})} if decided else {},
    )


def decisions(findings: Findings, rows: Sequence[Row]) -> Iterator[Decision]:
    """Yield the result of each of `rows` that is compared with a measured baseline."""
    settings = findings.collection.comparison
    metrics = settings.metrics_of(MODE.name)
    metric = WHOLE_STEP if WHOLE_STEP in metrics else metrics[0]
    measured = {row.experiment.place: row for row in rows if row.values}
    beside = Counter(row.against.other.place for row in rows if row.against.other is not None)
    for row in measured.values():
        base = measured.get(row.against.other.place) if row.against.other else None
        if base is not None:
            # simultaneous confidence for all rows with this baseline
            confidence = 1 - (1 - settings.confidence) / beside[base.experiment.place]
            comparison = row.comparisons[metric]
            own, other = (_paired(side, comparison) for side in (row, base))
            unlike = not _same_work(own, other)
            in_flight = any("under_way_requests" in side.values for side in (own, other))
            gain = None if unlike or in_flight else net_gain(own, other, comparison, confidence)
            yield Decision(own, other, gain, unlike, in_flight)


def _paired(row: Row, comparison: Comparison) -> Row:
    """Return `row` with the launches that `comparison` pairs, if any, so that its means agree with the ratio."""
    pairs = comparison.pairs
    return replace(row, launches=tuple(each for each in row.used if each.launch in pairs)) if pairs else row


SAME_TOKENS = 0.01
"""Maximum relative difference in the output tokens of two steps that count as the same work."""


def _same_work(own: Row, other: Row) -> bool:
    """Return whether both steps generate the same amount: equal requests and nearly equal output."""
    loads = [row.experiment.records[0].spec.workload.model_dump(exclude={"name"}) for row in (own, other)]
    tokens, others = (row.values["sequence_tokens"] for row in (own, other))
    return loads[0] == loads[1] and abs(tokens - others) <= SAME_TOKENS * others


def _file(rows: Sequence[Row], gains: Mapping[str, NetGain | None]) -> pd.DataFrame:
    """Return cycle.csv: the lengths at which each of `rows` pays, in tokens of a sequence."""
    return pd.DataFrame(
        {
            "platform": row.experiment.platform,
            **row.axes,
            "experiment": row.experiment.experiment,
            "even_at_tokens": gain and gain.at,
            "pays_first_tokens": gain and gain.pays and gain.pays.first,
            "pays_last_tokens": gain and gain.pays and gain.pays.last,
            "loses_first_tokens": gain and gain.loses and gain.loses.first,
            "loses_last_tokens": gain and gain.loses and gain.loses.last,
        }
        for row, gain in ((row, gains.get(row.experiment.place)) for row in rows)
    )
