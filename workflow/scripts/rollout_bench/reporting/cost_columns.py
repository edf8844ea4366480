"""The columns of the table that says what a launch costs."""

from __future__ import annotations

from collections.abc import Callable

from rollout_bench.reporting.columns import Column, Line
from rollout_bench.reporting.numbers import MISSING, number


def _seconds(field: str) -> Callable[[Line], str]:
    return lambda line: number(line[field], 3)


def _process(line: Line) -> str:
    return number(line["process_s"] or None, 3)


def _reported(line: Line) -> str:
    parts = [number(line[field], 2) for field in ("weights_load_s", "compile_s", "graph_capture_s")]
    return MISSING if set(parts) == {MISSING} else " / ".join(parts)


def _share(line: Line) -> str:
    return MISSING if line["measured_share"] is None else number(100 * line["measured_share"], 2)


COST = (
    Column("process s", "Starting the engine's process, in seconds; where unknown it is part of other s.", _process),
    Column("import s", "Importing the engine, in seconds.", _seconds("import_s")),
    Column("init s", "Constructing the engine until it takes requests, in seconds.", _seconds("init_s")),
    Column(
        "of it weights / compile / graphs",
        "Of init s, loading weights, compiling and capturing graphs, in seconds, as the engine's log tells them; - for "
        "what it does not tell.",
        _reported,
    ),
    Column("warm-up s", "All warm-up iterations of a launch, in seconds.", _seconds("warmup_s")),
    Column("measured s", "All measured iterations of a launch, in seconds.", _seconds("measured_s")),
    Column("other s", "The launch's time that no other column holds, in seconds.", _seconds("other_s")),
    Column(
        "launch s",
        "A whole launch, from starting the engine's process to its last iteration, in seconds. Like its parts a mean "
        "over launches.",
        _seconds("launch_s"),
    ),
    Column("measured %", "Measured s as a share of launch s: what of a launch's time gives numbers.", _share),
)
"""The parts of a launch in the order of time."""
