"""Input of a summary and its figures, and the contribution of each part of the summary."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from rollout_bench.analysis.timed.answers import shortly_named
from rollout_bench.analysis.timed.columns import shared_flags, table
from rollout_bench.analysis.timed.experiments import ResultSet, ValidExperiment, measured_experiments
from rollout_bench.analysis.timed.latencies import Distribution, PooledSequences, distributions, pool_sequences
from rollout_bench.analysis.timed.rows import Row, rows_of
from rollout_bench.contracts.axes import UNKNOWN
from rollout_bench.contracts.mode import Mode
from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.spec import differing_values
from rollout_bench.core.mappings import grouped
from rollout_bench.numbers.registry import MetricName
from rollout_bench.report.headings import launches_text, texts_of
from rollout_bench.report.prose import Section
from rollout_bench.report.views import Entry, View

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Findings:
    """All data of a report. Derived values are computed once, at their first use.

    Attributes:
        collection: the experiments with their records.
        results: the folder that all of it was read from, for modes that read further files.
    """

    collection: ResultSet
    results: Path

    @cached_property
    def rows(self) -> list[Row]:
        """The timed experiments with their numbers."""
        return rows_of(self.collection)

    @cached_property
    def probed(self) -> list[ValidExperiment]:
        """The measured experiments of modes without throughput."""
        return measured_experiments(self.collection.others)

    @property
    def left_out(self) -> list[ValidExperiment]:
        """The experiments of modes without throughput that have no valid launch."""
        return [each for each in self.probed if each.reason]

    def results_of_mode(self, mode: str, nothing: _Found) -> _Found:
        """Return what was found inside the engines of `mode`; `nothing` if it was not measured."""
        found: _Found = self.mode_results.get(mode, nothing)
        return found

    @cached_property
    def mode_results(self) -> dict[str, Any]:
        """What was found inside the engines of each measured mode, by its name."""
        return {
            name: analyse.get()(self.results, mode_experiments, self.collection)
            for name, mode_experiments in grouped((each.experiment.mode, each) for each in self.probed).items()
            if (analyse := mode_of(name).analyse)
        }

    @cached_property
    def sequences(self) -> list[PooledSequences]:
        """The sequences of each timed experiment, in the order of `rows`."""
        return pool_sequences(self.collection)

    @cached_property
    def latencies(self) -> list[Mapping[str, Distribution]]:
        """The distributions of each row's sequences, by measure."""
        return [distributions(pooled) for pooled in self.sequences]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A line for each of `rows`, as in summary.csv."""
        return table(self.rows, self.latencies)

    @property
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

    def texts_of(self, valid: ValidExperiment) -> dict[str, str]:
        """Return the texts by header of a profile, messages or drift experiment: names, launches, why it is empty."""
        names = {"model": valid.experiment.model, "workload": valid.experiment.workload, "quant": valid.label}
        return names | {"launches": self.launches.get(valid.place, ""), "empty because": valid.reason}

    @cached_property
    def launches(self) -> dict[str, str]:
        """Counts of launches of each profile, messages and drift experiment, by its place."""
        return {f"{other.mode}/{other.experiment}": launches_text(other) for other in self.collection.others}

    def compared_by_iterations(self, mode: Mode) -> frozenset[MetricName]:
        """Return the metrics in which experiments of `mode` are compared by iterations instead of launches' values."""
        rows = [row for row in self.rows if mode_of(row.experiment.mode) is mode]
        return frozenset(
            metric for row in rows for metric, comparison in row.comparisons.items() if comparison.of_passes
        )

    @cached_property
    def notes(self) -> Mapping[str, int]:
        """Reasons for missing verdicts -> number of the footnote; cells refer to it as [1], [2], ..."""
        # an endpoint without a named quantization has no comparison, and needs no reason
        compared = [each for row in self.rows if not _on_unnamed_endpoint(row) for each in row.comparisons.values()]
        reasons = dict.fromkeys(comparison.reason for comparison in compared if comparison.reason)
        return {reason: place for place, reason in enumerate(reasons, 1)}

    @property
    def footnotes(self) -> tuple[str, ...]:
        """The footnotes in their order."""
        return tuple(f"[{place}] {reason}." for reason, place in self.notes.items())

    def entries(self, mode: Mode) -> list[tuple[str, list[Entry[Row]]]]:
        """Return a title for each platform of a timed mode, with the entries of its rows."""
        by_platform = grouped(
            (
                (row.experiment.mode, row.experiment.platform),
                Entry(
                    texts_of(row, self._shared_flags) | {"sets": self._differing_values.get(row.experiment.place, "")},
                    row,
                ),
            )
            for row in self.rows
            if mode_of(row.experiment.mode) is mode
        )
        return [(f"{name}, {on}".removesuffix(f", {UNKNOWN}"), entries) for (name, on), entries in by_platform.items()]

    @cached_property
    def _shared_flags(self) -> frozenset[str]:
        return shared_flags(self.rows)

    @cached_property
    def _differing_values(self) -> dict[str, str]:
        specs = {row.experiment.place: row.experiment.records[0].spec for row in self.rows if row.experiment.records}
        return dict(zip(specs, differing_values(list(specs.values())), strict=True))

    def latencies_of(self, row: Row) -> Mapping[str, Distribution]:
        """Return the distributions of a row's sequences, by measure."""
        return self.latencies_by_place[row.experiment.place]

    @cached_property
    def latencies_by_place(self) -> dict[str, Mapping[str, Distribution]]:
        """The distributions of each row's sequences, by its place and by measure."""
        return {row.experiment.place: by_measure for row, by_measure in zip(self.rows, self.latencies, strict=True)}


def _on_unnamed_endpoint(row: Row) -> bool:
    """Return whether the row is of an endpoint without a named quantization and has no counterpart."""
    unnamed = [r.spec.endpoint is not None and r.spec.quant.name == UNKNOWN for r in row.experiment.records[:1]]
    return any(unnamed) and row.against.other is None


@dataclass(frozen=True)
class SvgFigure:
    """A figure as SVG; `above` its panels it says its title and these texts, and one `below` them.

    `margins_pt` are the heights of these texts in points.
    """

    svg: bytes
    above: tuple[str, ...]
    below: str
    margins_pt: tuple[float, float]

    @property
    def without_texts(self) -> bytes:
        """The SVG without the texts, for a page that has them in its own type."""
        top, bottom = self.margins_pt
        box = re.search(rb'height="([\d.]+)pt" viewBox="0 0 ([\d.]+) ([\d.]+)"', self.svg)
        assert box is not None, "matplotlib's SVG begins with its size"
        height = float(box[3]) - top - bottom
        cut = b'height="%.6fpt" viewBox="0 %.6f %s %.6f"' % (height, top, box[2], height)
        return self.svg.replace(box[0], cut, 1)


@dataclass(frozen=True)
class Picture:
    """A figure: the `name` of its file without .svg, its conclusion as `title`, and its content."""

    name: str
    title: str
    drawn: SvgFigure


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
