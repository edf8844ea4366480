"""All figures of a results folder, as SVG and PNG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from rollout_bench.analysis.inside.overview import Looked, look
from rollout_bench.analysis.timed.collection import read_servers
from rollout_bench.analysis.timed.experiments import Collection
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.contracts.modes import MESSAGES, OPERATORS, PROFILE
from rollout_bench.core.files import write_whole
from rollout_bench.report.figure_names import figure_names
from rollout_bench.report.figures.message_figures import messages_figure
from rollout_bench.report.figures.online_figures import (
    Samples,
    goodput_figure,
    latency_figure,
    server_figure,
    sweep_figure,
)
from rollout_bench.report.figures.operator_figures import operators_figure
from rollout_bench.report.figures.profile_figures import roles_figure, steps_figure, timeline_figure
from rollout_bench.report.figures.roofline import profile_roofline
from rollout_bench.report.figures.style import image, settings
from rollout_bench.report.figures.timed_figures import (
    iterations_figure,
    replicas_figure,
    speedup_figure,
    throughput_figure,
)
from rollout_bench.report.notes import completeness, hardware, left_out, left_out_alarm


def figure_files(
    collection: Collection,
    names: Sequence[str] = (),
    samples: Samples | None = None,
    looked: Looked | None = None,
) -> dict[str, bytes]:
    """File name -> content of the figures with these names, of those that `collection` has data for where there are
    none; the same bytes for the same records. `samples` are those of servers, `looked` what was found inside the
    engine.
    """
    rows = rows_of(collection)
    inside = looked or Looked()
    profiles = inside.profiles
    names = names or figure_names(rows, collection)
    compared = collection.comparison
    incomplete = "" if collection.complete else completeness(collection)
    alarm = " ".join(filter(None, (incomplete, left_out(rows))))
    where = hardware(collection.launched)
    of_profiles, of_operators, of_messages = (
        " ".join(filter(None, (incomplete, left_out_alarm(inside.left_out, mode.name))))
        for mode in (PROFILE, OPERATORS, MESSAGES)
    )
    files = {}
    with settings():
        figures: dict[str, Callable[[], Figure]] = {
            "throughput": lambda: throughput_figure(rows, where, alarm),
            "speedup": lambda: speedup_figure(rows, collection.baseline, compared, where, alarm),
            "iterations": lambda: iterations_figure(rows, where, alarm),
            "latency": lambda: latency_figure(rows, where, alarm),
            "server": lambda: server_figure(rows, samples or {}, where, alarm),
            "sweep": lambda: sweep_figure(rows, compared, where, alarm),
            "replicas": lambda: replicas_figure(rows, where, alarm),
            "steps": lambda: steps_figure(profiles, where, of_profiles),
            "roles": lambda: roles_figure(profiles, where, of_profiles),
            "timeline": lambda: timeline_figure(profiles, where, of_profiles),
            "roofline": lambda: profile_roofline(inside, where, of_profiles),
            "operators": lambda: operators_figure(inside.runs, where, of_operators),
            "messages": lambda: messages_figure(inside.messages, where, of_messages),
            "goodput": lambda: goodput_figure(rows, collection.slo, compared, where, alarm),
        }
        for name in names:
            figure = figures[name]()
            for kind in ("svg", "png"):
                files[f"{name}.{kind}"] = image(figure, kind)
    return files


def save_figures(results: Path, collection: Collection, folder: Path, names: Sequence[str] = ()) -> list[str]:
    """Writes `figure_files` of `collection`, read from `results`, into `folder`, and gives the names of the figures.

    Nothing is written where one can't be drawn.

    Raises:
        UserError: a side file is damaged; the message names file and line.
    """
    looked = look(results, collection, rows_of(collection))
    files = figure_files(collection, names, read_servers(results, collection), looked)
    for name, content in files.items():
        write_whole(folder / name, content)
    return list(dict.fromkeys(name.rpartition(".")[0] for name in files))
