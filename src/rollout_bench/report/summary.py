"""The summary: its tables and notes, and the files with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from rollout_bench.analysis.overview import Looked, look
from rollout_bench.analysis.timed.experiments import Collection
from rollout_bench.analysis.timed.latencies import PooledSequences, pool_sequences
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.contracts.mode import Mode
from rollout_bench.contracts.modes import MODES, mode_of
from rollout_bench.report.notes import FACTS, completeness, foot
from rollout_bench.report.page import page
from rollout_bench.report.parts import Findings, Picture, SummaryPart
from rollout_bench.report.prose import Section
from rollout_bench.report.rendering import csv_text, markdown, terminal
from rollout_bench.report.timed import timed_part
from rollout_bench.report.views import View, told

LEGEND = (
    "launches: valid/measured/planned. ^ faster, v slower, ~ inconclusive or too small to matter, ? no verdict. "
    "summary.html has figures and definitions."
)
"""Text below the first table on the terminal, in place of definitions."""


@dataclass(frozen=True)
class Summary:
    """The content of a summary and its files; each file is made at its first use.

    Attributes:
        status: first line.
        views: its tables.
        sections: all sections below the tables; their links are relative to the summary's folder.
        notes: the sections that a terminal shows as well; definitions of columns and methods are only in files.
        answers: sections above the tables.
        pictures: the figures.
        explored: JSON for the explorer; empty without figures.
        csv: the contents of summary.csv.
        tables: contents of other files for programs, by their names.
        figures: folder of the figures, relative to the summary's folder.
    """

    status: str
    views: Sequence[View]
    sections: Sequence[Section]
    notes: Sequence[Section]
    answers: Sequence[Section]
    pictures: Sequence[Picture]
    explored: str
    csv: str
    tables: Mapping[str, str] = field(default_factory=dict)
    figures: Path = Path("figures")

    @cached_property
    def markdown(self) -> str:
        """The contents of summary.md."""
        titles = {picture.name: picture.title for picture in self.pictures}
        folder = self.figures.as_posix()
        return markdown(self.status, self.views, self.sections, titles, answers=self.answers, folder=folder)

    @cached_property
    def html(self) -> str:
        """The contents of summary.html."""
        return page(self.status, self.views, self.sections, self.answers, self.pictures, self.explored)

    @cached_property
    def text(self) -> str:
        """The contents of summary.txt: the short answer, then everything else that a terminal can show."""
        first = self._first
        rest = [section for section in self.answers if section not in first]
        notes = [section for section in self.notes if section.heading != FACTS]
        more = terminal("", self.views[1:], notes, rest)
        return terminal(self.status, (), ()) + "\n" + self.answer + ("\n" + more if more.strip() else "")

    @cached_property
    def answer(self) -> str:
        """The short answer: the conclusions, the first table, and where it was measured."""
        facts = [section for section in self.notes if section.heading == FACTS]
        return terminal("", self.views[:1], facts, self._first, legend=LEGEND)

    def tables_with(self, words: str) -> str:
        """Return the tables whose titles contain `words`; empty if there is none."""
        found = [view for view in self.views if words.lower() in view.title.lower()]
        return terminal("", found, ()).lstrip("\n")

    @property
    def _first(self) -> list[Section]:
        return [section for section in self.answers if section.heading.startswith("Conclusion")]

    def placed(self, results: Path, figures: Path) -> Summary:
        """Return the summary for another folder, with adapted links.

        Args:
            results: the results folder, relative to the new folder.
            figures: the figures' folder, relative to the new folder.
        """

        def moved(section: Section) -> Section:
            return replace(section, links=tuple((text, (results / path).as_posix()) for text, path in section.links))

        sections, notes, answers = (list(map(moved, found)) for found in (self.sections, self.notes, self.answers))
        return replace(self, sections=sections, notes=notes, answers=answers, figures=figures)


def summary_of(results: Path, collection: Collection, *, drawn: bool = False) -> Summary:
    """Make the summary of `collection`, which was read from `results`, with its side files; `drawn`: with figures."""
    looked = look(results, collection, rows_of(collection))
    return summarise(collection, pool_sequences(collection), drawn=drawn, looked=looked, results=results)


def summarise(
    collection: Collection,
    sequences: Sequence[PooledSequences] = (),
    *,
    drawn: bool = False,
    looked: Looked | None = None,
    results: Path | None = None,
) -> Summary:
    """Make the summary of `collection`.

    Args:
        collection: the launches.
        sequences: of each experiment in its order; without them there are no percentiles.
        drawn: draw the figures.
        looked: findings inside the engine.
        results: the folder that all of it was read from.
    """
    findings = Findings(collection, sequences, looked or Looked(), results=results)
    status = completeness(collection)
    timed, others = _timed_parts(findings), _other_parts(findings)
    parts = [*timed, *others]
    views = told(view for part in parts for view in part.tables)
    answers = [section for part in parts for section in part.answers]
    warnings = [section for part in parts for section in part.warnings]
    pictures, explored = _drawn(findings) if drawn else ([], "")
    defined: set[str] = set()
    sections = list(warnings)
    for block in (timed, *([part] for part in others)):
        sections += [section for part in block for section in part.sections]
        sections += _once((section for part in block for section in part.definitions), defined)
    return Summary(
        status=status,
        views=views,
        sections=sections,
        notes=[*warnings, *(section for part in parts for section in part.sections)],
        answers=answers,
        pictures=pictures,
        explored=explored,
        csv=csv_text(findings.frame),
        tables={name: csv_text(frame) for part in parts for name, frame in part.files.items()}
        | {name: text for part in parts for name, text in part.texts.items()},
    )


def _drawn(findings: Findings) -> tuple[list[Picture], str]:
    # Not at the top: only this needs matplotlib.
    from rollout_bench.report.figures.pictures import explorer_data, pictures_of

    return pictures_of(findings), explorer_data(findings) if any(row.used for row in findings.rows) else ""


def _once(sections: Iterable[Section], defined: set[str]) -> Iterator[Section]:
    for section in sections:
        items = tuple(item for item in section.items if item not in defined)
        defined.update(items)
        if items or section.links:
            yield replace(section, items=items)


def _timed_parts(findings: Findings) -> list[SummaryPart]:
    modes = dict.fromkeys(mode_of(experiment.mode) for experiment in findings.collection.experiments)
    return [foot(findings), *(_part(mode, findings) for mode in modes)]


def _other_parts(findings: Findings) -> list[SummaryPart]:
    """Return the parts of modes without throughput, in the order of the registry."""
    measured = {mode_of(experiment.mode).name for experiment in findings.collection.others}
    return [_part(mode, findings) for name, mode in MODES.items() if name in measured]


def _part(mode: Mode, findings: Findings) -> SummaryPart:
    part: SummaryPart = mode.part("report", "part_of", timed_part)(findings, mode)
    return part
