"""Draw all figures of a results folder, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from rollout_bench.analysis.inside.overview import Looked, look
from rollout_bench.analysis.timed.experiments import Collection
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.contracts.modes import MODES, named
from rollout_bench.core.files import write_whole
from rollout_bench.report.figure_names import DRAWINGS, figure_names
from rollout_bench.report.figures.charts import Chart, draw, draw_reason, has_panels, image, settings
from rollout_bench.report.notes import completeness, hardware, left_out, left_out_alarm
from rollout_bench.report.page import with_pictures
from rollout_bench.report.parts import Findings


def figure_files(
    collection: Collection,
    names: Sequence[str] = (),
    looked: Looked | None = None,
    results: Path | None = None,
) -> dict[str, bytes]:
    """Return file name -> content of figures; the same bytes for the same records.

    Args:
        collection: the experiments to draw.
        names: names of the figures; empty: all figures with data.
        looked: findings inside the engine.
        results: the folder that all of it was read from.
    """
    findings = Findings(collection, inside=looked or Looked(), results=results)
    files = {}
    with settings():
        for name in names or figure_names(findings.rows, collection):
            files[f"{name}.svg"] = image(_drawn(name, findings))
    return files


def _drawn(name: str, findings: Findings) -> Figure:
    drawing = DRAWINGS[name]
    chart: Chart | str = named(drawing.function)(findings)
    alarm = _alarm(name, findings)
    if isinstance(chart, str):
        return draw_reason(drawing.title or name.capitalize(), chart, alarm)
    return draw(chart, alarm, hardware(findings.collection.launched))


def _alarm(name: str, findings: Findings) -> str:
    """Return the warning of a figure: launches that are missing, and launches that it leaves out."""
    collection = findings.collection
    modes = [mode for mode in MODES.values() if name in mode.figures]
    incomplete = "" if collection.complete else completeness(collection)
    if any(mode.generates for mode in modes):
        return " ".join(filter(None, (incomplete, left_out(findings.rows))))
    alarms = (left_out_alarm(findings.inside.left_out, mode.name) for mode in modes)
    return " ".join(filter(None, (incomplete, *alarms)))


def save_figures(
    results: Path,
    collection: Collection,
    folder: Path,
    names: Sequence[str] = (),
    page: Path | None = None,
    also: Path | None = None,
) -> list[str]:
    """Write `figure_files` of `collection`, read from `results`, into `folder`; return the names of the figures.

    Figures with data are also inserted into `page`, summary.html, if it exists. If `also` is the folder of a kept
    summary, the figures are written into its folder figures/ and inserted into its page as well. No file is written if
    a figure cannot be drawn.

    Raises:
        UserError: a side file is damaged; the message names file and line.
    """
    looked = look(results, collection, rows_of(collection))
    files = figure_files(collection, names, looked, results)
    # a figure without data is written as a file, since it was requested, but is left out of the page
    drawn = {name.removesuffix(".svg"): content if has_panels(content) else b"" for name, content in files.items()}
    places = [(folder, page)]
    if also is not None:
        places.append((also / "figures", also / "summary.html"))
    for place, shown_in in places:
        for name, content in files.items():
            write_whole(place / name, content)
        if shown_in is not None and shown_in.is_file():
            write_whole(shown_in, with_pictures(shown_in.read_text(), drawn).encode())
    return list(drawn)
