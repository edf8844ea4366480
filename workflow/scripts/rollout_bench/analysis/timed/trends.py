"""How a comparison changes with a number that settings go through: output tokens, sequences at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.axes import with_setting
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.swept import differing, number_of, set_in, swept_number


@dataclass(frozen=True)
class Line:
    """Rows that differ in the number alone, by its value.

    `label` tells the line from the others: the quant, and what else its settings set that others don't.
    """

    mode: str
    platform: str
    model: str
    workload: str
    label: str
    rows: tuple[tuple[float, Row], ...]


def lines_over(rows: Sequence[Row]) -> tuple[str, list[Line]]:
    """Return the number that the settings of `rows` go through, and the lines over it; empty where there is none."""
    measured = [row for row in rows if row.used and row.experiment.part is None]
    specs = {row.experiment.place: row.experiment.records[0].spec for row in measured}
    name = swept_number(list(specs.values()))
    if name is None:
        return "", []
    others = [other for other in differing(specs.values()) if other != name]
    found: dict[tuple[str, ...], list[tuple[float, Row]]] = {}
    for row in measured:
        spec = specs[row.experiment.place]
        value = number_of(spec, name)
        if value is not None:
            own = row.experiment
            label = with_setting(row.quant_label, " ".join(_others(spec, others)) or "default")
            found.setdefault((own.mode, own.platform, own.model, own.workload, label), []).append((value, row))
    lines = [Line(*names, tuple(sorted(there, key=lambda each: each[0]))) for names, there in found.items()]
    return name, [line for line in lines if len({value for value, _ in line.rows}) > 1]


def _others(spec: Spec, names: Sequence[str]) -> list[str]:
    """Return what else a setting sets, in words, where settings differ in more than the number."""
    settings = set_in(spec)
    return [f"{name}={settings[name]}" for name in names if name in settings]


@dataclass(frozen=True)
class Trend:
    """The speed-up of one line over its baseline, at the least and at the largest number at which there is one.

    `sure` says whether the two intervals have nothing in common.
    """

    line: Line
    ends: tuple[tuple[float, Row], tuple[float, Row]]
    sure: bool


def trends(lines: Sequence[Line]) -> list[Trend]:
    """Return how speed-ups change over the number, for each line that has some with intervals."""
    found = []
    for line in lines:
        known = [(value, row) for value, row in line.rows if row.comparison.low and row.comparison.high]
        if len(known) < 2:
            continue
        first, last = known[0], known[-1]
        one, other = first[1].comparison, last[1].comparison
        assert one.low is not None
        assert one.high is not None
        assert other.low is not None
        assert other.high is not None
        found.append(Trend(line, (first, last), one.high < other.low or other.high < one.low))
    return found
