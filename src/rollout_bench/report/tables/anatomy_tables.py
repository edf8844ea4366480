"""The anatomy of a step: completion of its sequences, occupancy of the engine, cost of the last sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields

import pandas as pd

from rollout_bench.analysis.stats.anatomy import VERL, Anatomy
from rollout_bench.analysis.timed.balance import replicated
from rollout_bench.analysis.timed.comparison import Comparison
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.analysis.timed.service import at_a_rate
from rollout_bench.contracts.modes import Mode, mode_of
from rollout_bench.contracts.spec import behind_server, lengths_differ
from rollout_bench.core.numbers import MISSING, number, ratio
from rollout_bench.numbers.registry import NUMBERS, MetricName
from rollout_bench.report.headings import Column, Line, View, view
from rollout_bench.report.parts import Findings
from rollout_bench.report.prose import Section, sections

HEAVY = 0.15
"""Minimum tail, as a share of the step, that is reported. If sequences complete evenly in time, the last tenth
needs 0.1.
"""

TIME: tuple[MetricName, ...] = ("output_tokens_per_s", "step_time_s")
"""Metrics with a verdict on the whole step, tail included."""

FRONT: MetricName = "t90_s"
"""The metric with a verdict on the step without its tail."""

STANDS: Mapping[str, str] = {"faster": "faster", "slower": "slower"}
"""Verdict -> its word in a sentence; for all other verdicts no difference was found."""


def _of(name: str, digits: int = 3, factor: float = 1) -> Callable[[Line], str]:
    def cell(line: Line) -> str:
        found: Anatomy | None = line["anatomy"]
        value: float | None = None if found is None else getattr(found, name)
        return number(None if value is None else factor * value, digits)

    return cell


def _metric(name: MetricName, cell: Callable[[Line], str] | None = None) -> Column:
    return Column(NUMBERS[name].header, NUMBERS[name].definition, cell or _of(name))


def _tail(line: Line) -> str:
    found: Anatomy | None = line["anatomy"]
    share = "" if found is None or found.tail_share is None else f" ({number(100 * found.tail_share, 2)} %)"
    return _of("tail_s")(line) + share


def _longest(line: Line) -> str:
    found: Anatomy | None = line["anatomy"]
    if found is None or found.longest_tokens_per_s is None or found.longest_speed is None:
        return MISSING
    speed = f"{number(found.longest_tokens_per_s, 3)} tok/s, {ratio(found.longest_speed)}x"
    return f"{found.longest_tokens:,.0f} tok at {speed}"


COLUMNS = (
    Column(
        "makespan s",
        "Time until the last sequence of an iteration was complete, in seconds. It excludes the time "
        "to return the answers. The columns of this table exclude failed requests.",
        _of("makespan_s"),
    ),
    Column("t50 s", "Time until half of the sequences were complete.", _of("t50_s")),
    _metric("t90_s"),
    Column(
        "t99 s",
        "Time until 99 % of the sequences were complete; with fewer than 100 sequences, all of them.",
        _of("t99_s"),
    ),
    _metric("tail_s", _tail),
    Column("fill s", "Time until the last sequence was first scheduled (behind a server: sent).", _of("fill_s")),
    Column(
        "drain s",
        "Makespan - the last time at which the maximum number of sequences ran: how long the engine took to empty.",
        _of("drain_s"),
    ),
    Column(
        "occupancy %",
        "Sum of the running times of all sequences / (makespan x maximum number of running sequences): 100 if "
        "this number ran from beginning to end. A sequence runs from its first scheduling (behind a server: its "
        "sending) to its last token.",
        _of("occupancy", 3, 100),
    ),
    Column(
        "group p50 s",
        "Time until half of the groups were complete. A group is all samples of a prompt; it is complete with its "
        "last sample.",
        _of("group_p50_s"),
    ),
    _metric("group_p90_s"),
    Column(
        "straggler s",
        "Time from the completion of half of a group's samples until its last sample, in seconds; mean over groups.",
        _of("straggler_gap_s"),
    ),
    Column(
        "longest sequence",
        "Tokens of the longest sequence, its tokens per second of running time, and this rate / the median rate "
        "of all sequences. Above 1, the sequence became faster as others finished.",
        _longest,
        words=True,
    ),
    Column(
        "imbalance %",
        "Elapsed time of an iteration's slowest replica / mean elapsed time of all replicas, minus 1.",
        lambda line: number(None if line["imbalance"] is None else 100 * line["imbalance"], 2),
        known="imbalance",
    ),
)


def anatomy_views(findings: Findings, title: str, rows: Sequence[Row]) -> Iterator[View]:
    """Yield the table of the steps among `rows` if some step has anything to report."""
    shown = _steps(rows)
    if _tells(findings, shown):
        imbalance = {one.row.experiment.place: one.imbalance for one in replicated(shown)}
        lines: list[Line] = [
            {
                **row.axes,
                "empty_because": row.empty_because,
                "anatomy": findings.anatomies.get(row.experiment.place),
                "imbalance": imbalance.get(row.experiment.place),
            }
            for row in shown
        ]
        yield view("Anatomy of a step: ", title, COLUMNS, lines)


def _steps(rows: Sequence[Row]) -> list[Row]:
    measured = [row for row in rows if row.launches]
    return [row for row in measured if not at_a_rate(row.experiment.records[0].iterations[0].point)]


def _tells(findings: Findings, rows: Sequence[Row]) -> bool:
    """Return whether the sequences of some row differ, or may differ: in length, by a tail, or in a verdict."""
    for row in rows:
        found = findings.anatomies.get(row.experiment.place)
        if found is None:
            told = not row.used and lengths_differ(row.experiment.records[0].spec)
        else:
            differ = found.length_min < found.length_max or (found.tail_share or 0) > HEAVY
            told = differ or any(NUMBERS[metric].of == "sequences" for metric in row.comparisons)
        if told:
            return True
    return False


def anatomy_files(findings: Findings) -> dict[str, pd.DataFrame]:
    """Return anatomy.csv, a line for each step of any mode; no file if no step has anything to report.

    Values are in plain units and full precision; verl's metrics have verl's names.
    """
    rows = _steps(findings.rows)
    if not _tells(findings, rows):
        return {}
    names = [field.name for field in fields(Anatomy)]
    lines = []
    for row in rows:
        found = findings.anatomies.get(row.experiment.place)
        values = {VERL.get(name, name): None if found is None else getattr(found, name) for name in names}
        own = row.experiment
        names_of_row = {"mode": own.mode, "platform": own.platform, **row.axes, "experiment": own.experiment}
        lines.append({**names_of_row, "launches_valid": len(row.used), **values})
    return {"anatomy.csv": pd.DataFrame(lines)}


def anatomy_sections(findings: Findings, mode: Mode) -> list[Section]:
    """Return the notes on the steps of `mode`: verdicts that disagree, and hidden waiting behind a server."""
    rows = [row for row in findings.rows if mode_of(row.experiment.mode) is mode]
    steps = _steps(rows)
    return sections(
        "anatomy",
        disagreeing=list(_disagreeing(rows)),
        waits_unseen=any(behind_server(row.experiment.records[0].spec) for row in steps) and _tells(findings, steps),
    )


def _disagreeing(rows: Sequence[Row]) -> Iterator[tuple[str, str, str, float, str, float]]:
    """Yield rows with different verdicts on the whole step and on its t90.

    Each has its name, the metric of the step, its verdict and ratio, then the verdict and ratio of t90.
    """
    for row in rows:
        whole = next((metric for metric in TIME if metric in row.comparisons), None)
        if whole is None or FRONT not in row.comparisons:
            continue
        one, other = row.comparisons[whole], row.comparisons[FRONT]
        says, says_other = _said(one), _said(other)
        if one.speedup and other.speedup and says and says_other and says != says_other:
            yield row.name, NUMBERS[whole].header, says, one.speedup, says_other, other.speedup


def _said(comparison: Comparison) -> str:
    if comparison.verdict in (None, "unknown"):
        return ""
    return STANDS.get(comparison.verdict or "", "no difference")
