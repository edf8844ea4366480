"""The summary: its tables and notes, and the files with them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from rollout_bench.analysis.timed.experiments import ResultSet
from rollout_bench.contracts.axes import UNKNOWN, label_of
from rollout_bench.contracts.modes import MODES, mode_of
from rollout_bench.core.numbers import first_few
from rollout_bench.plan.config_file import name_after
from rollout_bench.report.notes import completeness, summary_notes
from rollout_bench.report.page import page
from rollout_bench.report.parts import Findings, Picture
from rollout_bench.report.prose import Section
from rollout_bench.report.rendering import csv_text, markdown, terminal
from rollout_bench.report.views import View, without_empty

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
        name: what the title names: the config, or the subject of a config without a name (`measured_title`).
        is_complete: whether all planned launches are measured.
        is_empty: whether no launch counts, so that the short answer needs no table.
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
    name: str = ""
    is_empty: bool = False
    is_complete: bool = True

    @cached_property
    def markdown(self) -> str:
        """The contents of summary.md."""
        titles = {picture.name: picture.title for picture in self.pictures}
        folder = self.figures.as_posix()
        return markdown(
            self.status,
            self.views,
            self.sections,
            titles,
            answers=self.answers,
            folder=folder,
            is_complete=self.is_complete,
        )

    @cached_property
    def html(self) -> str:
        """The contents of summary.html."""
        return page(
            self.status,
            self.views,
            self.sections,
            self.answers,
            self.pictures,
            self.explored,
            self.name,
            self.is_complete,
        )

    @cached_property
    def text(self) -> str:
        """The contents of summary.txt: the short answer, then everything else that a terminal can show."""
        first = self._first_sections
        rest = [section for section in self.answers if section not in first]
        notes = [section for section in self.notes if section.kind not in ("footnotes", "facts")]
        more = terminal("", self.views[0 if self.is_empty else 1 :], [*self._footnotes(False), *notes], rest)
        return self.answer + ("\n" + more if more.strip() else "")

    @cached_property
    def answer(self) -> str:
        """The short answer: status, conclusions, modes' answers, the first table, and where it was measured."""
        if self.is_empty:
            return terminal(self.status, [], [], self._first_sections)
        below = [*self._footnotes(True), *(section for section in self.notes if section.kind == "facts")]
        return terminal(self.status, self.views[:1], below, self._first_sections, legend=LEGEND)

    def _footnotes(self, of_first: bool) -> list[Section]:
        """Return the footnotes that the first table has, or those that only others have."""
        cells = " ".join(cell for view in self.views[: not self.is_empty] for line in view.cells for cell in line)
        found = (
            replace(note, items=tuple(item for item in note.items if (item.split()[0] in cells) == of_first))
            for note in self.notes
            if note.kind == "footnotes"
        )
        return [note for note in found if note.items]

    def parts_with(self, words: str) -> str:
        """Return the tables and notes whose titles contain `words`, else tables with such a column; empty if none."""
        wanted = words.lower()
        views = [view for view in self.views if wanted in view.title.lower()]
        notes = [note for note in self.notes if wanted in note.heading.lower()]
        if not views and not notes:
            views = [view for view in self.views if any(wanted in each.header.lower() for each in view.columns)]
        return terminal("", views, notes).lstrip("\n")

    @property
    def titles(self) -> list[str]:
        """The titles of tables and notes, without modes and platforms."""
        views = (view.title.partition(":")[0] for view in self.views)
        return list(dict.fromkeys([*views, *(note.heading for note in self.notes)]))

    @property
    def _first_sections(self) -> list[Section]:
        return [section for section in self.answers if section.kind in ("conclusion", "answer")]

    def placed(self, results: Path, figures: Path) -> "Summary":
        """Return the summary for another folder, with adapted links.

        Args:
            results: the results folder, relative to the new folder.
            figures: the figures' folder, relative to the new folder.
        """

        def moved(section: Section) -> Section:
            return replace(section, links=tuple((text, (results / path).as_posix()) for text, path in section.links))

        sections, notes, answers = (list(map(moved, found)) for found in (self.sections, self.notes, self.answers))
        return replace(self, sections=sections, notes=notes, answers=answers, figures=figures)


def summary_of(results: Path, collection: ResultSet, *, drawn: bool = False) -> Summary:
    """Make the summary of `collection`, which was read from `results`, with its side files; `drawn`: with figures."""
    findings = Findings(collection, results)
    timed = dict.fromkeys(mode_of(experiment.mode) for experiment in collection.experiments)
    measured = {mode_of(experiment.mode) for experiment in collection.others}
    blocks = [
        [summary_notes(findings), *(mode.tables.get()(findings, mode) for mode in timed)],
        *([mode.tables.get()(findings, mode)] for mode in MODES.values() if mode in measured),
    ]
    parts = [part for block in blocks for part in block]
    warnings = [section for part in parts for section in part.warnings]
    pictures: list[Picture] = []
    explored = ""
    if drawn:  # not at the top: only this needs matplotlib
        from rollout_bench.report.figures.pictures import explorer_data, pictures_of

        pictures = pictures_of(findings)
        explored = explorer_data(findings) if any(row.used for row in findings.rows) else ""
    defined: set[str] = set()
    sections = list(warnings)
    for block in blocks:
        sections += [section for part in block for section in part.sections]
        sections += _sections_once((section for part in block for section in part.definitions), defined)
    return Summary(
        status=completeness(collection),
        views=without_empty(view for part in parts for view in part.tables),
        sections=sections,
        notes=[*warnings, *(section for part in parts for section in part.sections)],
        answers=[section for part in parts for section in part.answers],
        pictures=pictures,
        explored=explored,
        csv=csv_text(findings.frame),
        name=_config_name(collection) or measured_title(collection),
        is_complete=collection.complete,
        is_empty=bool(findings.rows) and not any(row.used for row in findings.rows),
        tables={name: csv_text(frame) for part in parts for name, frame in part.files.items()}
        | {name: text for part in parts for name, text in part.texts.items()},
    )


def _config_name(collection: ResultSet) -> str:
    """Return the name of the config; empty if it is unknown, and for a config.yaml, which has none of its own."""
    files = [Path(file) for file in collection.files if Path(file).stem != "config"]
    return name_after(files) if files and collection.planned else ""


def measured_title(collection: ResultSet) -> str:
    """Return what was measured, for a title: `qwen3-90m: bf16, w8a8`, or a server's loads: `mine: 2, 4 req/s`."""
    launched = collection.launched
    models = first_few(dict.fromkeys(each.model for each in launched))
    labels = list(dict.fromkeys(label for each in launched if (label := label_of(each)) != UNKNOWN))
    loads = list(dict.fromkeys(each.point_label for each in collection.experiments if each.part))
    names = labels if len(labels) > 1 or not loads else loads
    for unit in (" req/s", " at once"):
        if all(load.endswith(unit) for load in loads) and names is loads:
            names = [*(load.removesuffix(unit) for load in loads[:-1]), loads[-1]]
    return ": ".join(filter(None, (models, first_few(names, 5))))


def _sections_once(sections: Iterable[Section], defined: set[str]) -> Iterator[Section]:
    for section in sections:
        items = tuple(item for item in section.items if item not in defined)
        defined.update(items)
        if items or section.links:
            yield replace(section, items=items)
