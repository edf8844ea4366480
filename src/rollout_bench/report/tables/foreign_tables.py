"""Results of which some are foreign, side by side: values and ratios, and never a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rollout_bench.contracts.axes import name_of
from rollout_bench.contracts.metrics import METRICS, MetricName
from rollout_bench.core.errors import UserError
from rollout_bench.core.numbers import MISSING, first_few, number, ratio, several
from rollout_bench.exchange.foreign import (
    FOLDER,
    REPORTED,
    Entrant,
    entrants,
    has_foreign,
    load_differences,
    told_differences,
    without_launches,
)
from rollout_bench.exchange.report_files import experiment_reports
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.differences import Compared
from rollout_bench.report.earlier import collect_side
from rollout_bench.report.headings import Column, Line, View, Views
from rollout_bench.report.prose import Section
from rollout_bench.report.rendering import csv_text, markdown, terminal
from rollout_bench.report.state import results_of

SHOWN: tuple[MetricName, ...] = ("output_tokens_per_s", "ttft_s", "tpot_s", "e2el_s")
"""Metrics that are shown where none is asked for."""

NO_VERDICT = (
    "A foreign result is one value of a launch that nobody here saw: another tool may have measured it, by other "
    "definitions, at another time and place. So it is unpaired, and no verdict is given on it, however large the ratio."
)


@dataclass(frozen=True)
class Couple:
    """Two results of one model under one load; or one, where the other side has none of its model and load."""

    a: Entrant | None
    b: Entrant | None

    @property
    def sides(self) -> tuple[Entrant | None, Entrant | None]:
        """Both sides, A first."""
        return self.a, self.b

    @property
    def foreign(self) -> str:
        """Which of the sides are foreign."""
        return ", ".join(name for name, side in zip("AB", self.sides, strict=True) if side is not None and side.foreign)

    def value(self, side: int, metric: MetricName) -> float | None:
        """Return the value of A (0) or B (1); None where there is none."""
        entrant = self.sides[side]
        return None if entrant is None else entrant.value(metric)

    def speedup(self, metric: MetricName) -> float | None:
        """Return by how much B is better than A, above 1; None where `why_without` says why."""
        if self.why_without(metric):
            return None
        a, b = self.value(0, metric), self.value(1, metric)
        assert a is not None
        assert b is not None
        return b / a if METRICS[metric].better == "higher" else a / b

    def why_without(self, metric: MetricName) -> str:
        """Return why there is no ratio; empty where there is one."""
        header = METRICS[metric].header.removesuffix(" ms")
        if self.a is None or self.b is None:
            return f"{'A' if self.a is None else 'B'} has no result of this model and load"
        runs = [(side.report.run.uid, side.report.run.time) for side in (self.a, self.b)]
        if runs[0] == runs[1]:  # a uid of ours is that of the same experiment anywhere
            return "A and B are the same run, with the same uid and time"
        values = [self.value(side, metric) for side in (0, 1)]
        missing = [name for name, value in zip("AB", values, strict=True) if value is None or value <= 0]
        if missing:
            return f"no {header} in {' and '.join(missing)}"
        rates = [side.load.rate_qps for side in (self.a, self.b)]
        if METRICS[metric].set_by_load and any(rate is not None and math.isfinite(rate) for rate in rates):
            return f"{header} is set by the load, since requests arrive at a rate"
        return ""


def compare_foreign(a: Path, b: Path, metrics: Sequence[MetricName], everything: bool = False) -> Compared:
    """Set side by side what two folders, at least one of which holds foreign results, have of one model and load.

    Args:
        a: the earlier results, or foreign ones.
        b: those whose speed-ups are shown.
        metrics: what is shown; empty: `SHOWN`.
        everything: take all of our own records, whatever the summaries in the folders select.

    Raises:
        UserError: a folder holds nothing that can be compared, or a metric is asked for that no report has.
    """
    strange = next((metric for metric in metrics if metric not in REPORTED), None)
    if strange is not None:
        raise UserError(
            f"--metric {strange}: a Benchmark Report has no such number",
            f"beside foreign results: {', '.join(REPORTED)}",
        )
    if a.resolve() == b.resolve():
        raise UserError(f"{a} and {b} are the same folder", "name two folders, the earlier one first")
    (of_a, damaged_a), (of_b, damaged_b) = (_side(folder, everything) for folder in (a, b))
    couples = [Couple(one, other) for other in of_b for one in of_a if not load_differences(one, other)]
    alone_a, alone_b = ([e for e in side if all(e not in c.sides for c in couples)] for side in (of_a, of_b))
    # What was imported is always shown; ours, which may be many, beside something or where there is nothing to show.
    lines = [
        *couples,
        *(Couple(None, entrant) for entrant in alone_b if entrant.foreign or not couples),
        *(Couple(entrant, None) for entrant in alone_a if entrant.foreign or not couples),
    ]
    footnotes: dict[str, int] = {}
    tables = tuple(
        table for metric in metrics or SHOWN if (table := _table(metric, lines, footnotes, bool(metrics))) is not None
    )
    views = Views(tables, tuple(f"[{place}] {text}." for text, place in footnotes.items()))
    only_in_a = tuple(_only(entrant, of_b, "B") for entrant in alone_a)
    only_in_b = tuple(_only(entrant, of_a, "A") for entrant in alone_b)
    differing = dict.fromkeys(line for couple in couples for line in _differing(couple))
    found = [
        Section("A and B", (_described("A", a, of_a), _described("B", b, of_b))),
        Section("No verdict", (NO_VERDICT, *views.footnotes)),
        Section("What differs, as far as the reports say (A -> B)", tuple(differing)),
        Section("Only in A, not compared", only_in_a),
        Section("Only in B, not compared", only_in_b),
        Section("Definitions", _definitions(metrics or SHOWN)),
    ]
    found = [section for section in found if section.items]
    status = (
        f"{several(len(couples), 'pair')} of one model and load, of {several(len(of_a), 'result')} in A and "
        f"{len(of_b)} in B. Foreign results are unpaired: no verdict."
    )
    damaged = (*damaged_a, *damaged_b)
    return Compared(
        text=terminal(status, views, found),
        markdown=markdown(status, views, found, figures=(), title="Results beside foreign ones"),
        csv=_csv(lines, metrics or SHOWN),
        damaged=damaged,
    )


def _side(folder: Path, everything: bool) -> tuple[list[Entrant], list[UserError]]:
    """Return the results in `folder`, and what is wrong with files that can't be used."""
    if has_foreign(folder):
        return without_launches(entrants(folder)), []
    collection = collect_side(folder, ComparisonSettings(), everything)
    measured = [e for e in collection.experiments if any(record.valid for record in e.records)]
    if not measured:
        if collection.damaged:
            raise collection.damaged[0]
        raise UserError(f"{folder}: holds no valid launch", "rollout-bench summarise says what became of each")
    reports = experiment_reports(results_of(folder), measured)
    found = [
        Entrant(f"{name_of(e)} ({e.mode})", e.model, report, sum(record.valid for record in e.records))
        for e, report in zip(measured, reports, strict=True)
    ]
    return found, collection.damaged


def _table(metric: MetricName, couples: Sequence[Couple], footnotes: dict[str, int], asked: bool) -> View | None:
    of = METRICS[metric]
    columns = [
        *(Column(header, "", _unused, words=True) for header in ("A", "B", "foreign")),
        *(Column(header, "", _unused) for header in ("launches", f"{of.header} A", f"{of.header} B")),
        Column("ratio", "", _unused, words=True),
    ]
    cells = []
    for couple in couples:
        values = [couple.value(side, metric) for side in (0, 1)]
        if values == [None, None] and not asked:
            continue
        cells.append(
            (
                *(MISSING if side is None else side.name for side in couple.sides),
                couple.foreign or MISSING,
                " / ".join(_launches(side) for side in couple.sides),
                *(number(None if value is None else of.factor * value, of.digits) for value in values),
                _ratio(couple, metric, footnotes),
            )
        )
    return View(f"B over A, {of.header}", tuple(columns), tuple(cells)) if cells else None


def _unused(line: Line) -> str:
    """Stand in for what makes a cell of a line: these tables have their cells made."""
    return MISSING


def _launches(side: Entrant | None) -> str:
    return MISSING if side is None or side.launches is None else str(side.launches)


def _ratio(couple: Couple, metric: MetricName, footnotes: dict[str, int]) -> str:
    why = couple.why_without(metric)
    if why:
        return f"{MISSING} [{footnotes.setdefault(why, len(footnotes) + 1)}]"
    speedup = couple.speedup(metric)
    assert speedup is not None
    return f"{ratio(speedup)}x, no verdict"


def _definitions(metrics: Sequence[MetricName]) -> tuple[str, ...]:
    return (
        "foreign: which side was imported with rollout-bench import; the other side was measured by rollout-bench. An "
        "imported launch of ours whose experiment was imported, too, is left out.",
        "launches: valid launches that the value is of, A / B. A report does not say it, so foreign results have none.",
        "ratio: B over A where more is better, A over B where less is; above 1 is better.",
        "the same load: mean tokens of prompts and of answers within 5 %, the same shared prefixes, the same requests "
        "per second and at once; of two results of ours the same setting, too.",
        *(f"{METRICS[metric].header}: {METRICS[metric].definition}" for metric in metrics),
        "Of a foreign result a value is the mean that its report has; how it was measured, its tool knows.",
    )


def _described(side: str, folder: Path, found: Sequence[Entrant]) -> str:
    foreign = sum(entrant.foreign for entrant in found)
    kind = f"{several(foreign, 'foreign result')} from {FOLDER}/" if foreign else several(len(found), "experiment")
    return f"{side}: {folder}: {kind}"


def _told(entrant: Entrant) -> str:
    return f"{entrant.name}{' (foreign)' if entrant.foreign else ''}"


def _only(entrant: Entrant, others: Sequence[Entrant], side: str) -> str:
    nearest = min((load_differences(entrant, other) for other in others), key=len)
    remedy = "; import with --model where only the names differ" if nearest[0].startswith("model ") else ""
    return f"{_told(entrant)}: the nearest in {side} differs in {first_few(nearest)}{remedy}"


def _differing(couple: Couple) -> list[str]:
    if couple.a is None or couple.b is None:
        return []
    pair = f"{couple.a.name} / {couple.b.name}"
    lines = [f"{fact} ({pair})" for fact in told_differences(couple.a, couple.b)]
    for side in (couple.a, couple.b):
        requests = side.performance.requests
        if requests is not None and requests.failures:
            lines.append(f"{requests.failures} of {requests.total} requests failed: {_told(side)}")
    return lines


def _csv(couples: Sequence[Couple], metrics: Sequence[MetricName]) -> str:
    lines = []
    for couple in couples:
        sides: dict[str, object] = {}
        for name, side in zip("ab", couple.sides, strict=True):
            sides |= {
                name: side and side.name,
                f"uid_{name}": side and side.report.run.uid,
                f"foreign_{name}": side and side.foreign,
                f"model_{name}": side and side.model,
                f"stage_{name}": side and side.load.stage,
                f"launches_{name}": side and side.launches,
            }
        told = told_differences(couple.a, couple.b) if couple.a is not None and couple.b is not None else []
        lines += [
            {
                **sides,
                "metric": metric,
                "unit": METRICS[metric].unit,
                "value_a": couple.value(0, metric),
                "value_b": couple.value(1, metric),
                "ratio": couple.speedup(metric),
                "verdict": None,
                "reason": couple.why_without(metric) or None,
                "differences": "; ".join(told) or None,
            }
            for metric in metrics
        ]
    whole = {f"{field}_{side}": "Int64" for field in ("stage", "launches") for side in "ab"}
    return csv_text(pd.DataFrame(lines).astype(whole))
