"""Input of a summary and its figures, and the contribution of each part of the summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from rollout_bench.analysis.inside.overview import Looked
from rollout_bench.analysis.timed.answers import shortly_named
from rollout_bench.analysis.timed.columns import table
from rollout_bench.analysis.timed.experiments import Collection
from rollout_bench.analysis.timed.latencies import Distribution, PooledSequences, distributions
from rollout_bench.analysis.timed.rows import Row, rows_of
from rollout_bench.contracts.modes import Mode, mode_of
from rollout_bench.numbers.registry import MetricName
from rollout_bench.report.headings import Line, View, launch_counts, lines_of, tables_of
from rollout_bench.report.prose import Section


@dataclass(frozen=True)
class Findings:
    """All data of a report. Derived values are computed once, at their first use.

    Attributes:
        collection: the experiments with their records.
        sequences: of each timed experiment, in its order; without them there are no percentiles.
        inside: findings inside the engine.
        results: the folder that all of it was read from, for modes that read further files; None if there is none.
    """

    collection: Collection
    sequences: Sequence[PooledSequences] = ()
    inside: Looked = field(default_factory=Looked)
    results: Path | None = None

    @cached_property
    def rows(self) -> list[Row]:
        """The timed experiments with their numbers, taken from `inside` if it has them."""
        return list(self.inside.rows) or rows_of(self.collection)

    @cached_property
    def latencies(self) -> list[Mapping[str, Distribution]]:
        """The distributions of each row's sequences, by measure; empty without `sequences`."""
        return [distributions(pooled) for pooled in self.sequences]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A line for each of `rows`, as in summary.csv."""
        return table(self.rows, self.latencies)

    @cached_property
    def drawn(self) -> list[Row]:
        """The rows with short names for figures."""
        return self._shortly[0]

    @property
    def values_of(self) -> str:
        """Names of the settings whose values name the rows in figures; empty if the rows have the settings' names."""
        return self._shortly[1]

    @cached_property
    def _shortly(self) -> tuple[list[Row], str]:
        return shortly_named(self.rows)

    @cached_property
    def launches(self) -> dict[str, Line]:
        """Values for `headings.LAUNCHES` of each profile, messages and drift experiment, by its place."""
        return {f"{other.mode}/{other.experiment}": launch_counts(other) for other in self.collection.others}

    def typical(self, mode: Mode) -> frozenset[MetricName]:
        """Return the metrics in which experiments of `mode` are compared by iterations instead of launches' values."""
        rows = [row for row in self.rows if mode_of(row.experiment.mode) is mode]
        return frozenset(metric for row in rows for metric, found in row.comparisons.items() if found.of_passes)

    @property
    def footnotes(self) -> tuple[str, ...]:
        """Footnotes to which cells of tables refer as [1], [2], ..."""
        return self._lines[1]

    def tables_of(self, mode: Mode) -> list[tuple[str, list[Line], list[Row]]]:
        """Return a title for each platform of a timed mode, with the lines of its table and their rows."""
        pairs = [
            (line, row) for line, row in zip(self._lines[0], self.rows, strict=True) if mode_of(line["mode"]) is mode
        ]
        rows = {id(line): row for line, row in pairs}
        return [
            (title, lines, [rows[id(line)] for line in lines])
            for title, lines in tables_of([line for line, _ in pairs])
        ]

    @cached_property
    def _lines(self) -> tuple[list[Line], tuple[str, ...]]:
        return lines_of(self.frame, self.rows, self.latencies)


@dataclass(frozen=True)
class SummaryPart:
    """Contribution of one mode, or of one topic of several modes, to a summary.

    Attributes:
        answers: findings in sentences, above all tables.
        tables: in their order.
        sections: notes below all tables.
        definitions: sections that define columns or explain missing ones; not on the terminal. The definitions of all
            timed modes follow their notes.
        warnings: sections above all others.
        files: further tables for programs, by file name.
        texts: further text files, by file name.
    """

    answers: Sequence[Section] = ()
    tables: Sequence[View] = ()
    sections: Sequence[Section] = ()
    definitions: Sequence[Section] = ()
    warnings: Sequence[Section] = ()
    files: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
