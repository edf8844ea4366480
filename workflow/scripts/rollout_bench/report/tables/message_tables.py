"""The table of messages mode: what each link carries in a step, and what that takes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rollout_bench.analysis.inside.message_links import LinkUse, MessagesRun, link_uses
from rollout_bench.analysis.timed.experiments import Chosen
from rollout_bench.contracts.modes import MESSAGES
from rollout_bench.core.numbers import MISSING, count, number
from rollout_bench.report.headings import Column, Line, View, view
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import definitions


def _of(header: str, definition: str, cell: Callable[[LinkUse], str], words: bool = False) -> Column:
    return Column(header, definition, lambda line: cell(line["use"]), words)


def _whole(value: float | None) -> str:
    return MISSING if value is None else count(round(value))


LINK = (
    _of("batch", "Sequences of the pass.", lambda use: str(use.batch)),
    _of("phase", "What the steps computed.", lambda use: use.phase, words=True),
    _of("link", "Who sends to whom.", lambda use: use.link.replace("_", " "), words=True),
    _of("messages a step", "Median over steps.", lambda use: _whole(use.messages)),
    _of("bytes a step", "Median over steps of the bytes of all its messages.", lambda use: _whole(use.size_bytes)),
    _of(
        "distance",
        "The same of the distances to the messages before, in bytes.",
        lambda use: _whole(use.distance),
    ),
    _of(
        "us a step",
        "Encoding, transport and decoding of a step's messages, in microseconds: median over steps. Without the time "
        "that a reader was busy.",
        lambda use: number(1e6 * use.busy_s, 3),
    ),
    _of("share %", "The same over the step: median over steps.", lambda use: number(100 * use.share, 2)),
)
"""What a link carries."""


def messages_part(findings: Findings) -> SummaryPart:
    """Return the table of each platform, and what its columns mean."""
    inside = findings.inside
    tables = messages_views(inside.messages, inside.left_out)
    return SummaryPart(tables=tables, definitions=definitions("Messages", LINK) if tables else ())


def messages_views(runs: Sequence[MessagesRun], left_out: Sequence[Chosen] = ()) -> list[View]:
    """Return the table of each platform.

    Args:
        runs: from `message_runs`.
        left_out: experiments, of any mode, without a valid launch.
    """
    tables = []
    for platform in dict.fromkeys(run.chosen.experiment.platform for run in runs):
        lines = [
            {**_names(run.chosen), "use": use}
            for run in runs
            if run.chosen.experiment.platform == platform
            for use in link_uses(run)
        ]
        without = [
            {**_names(each), "empty_because": each.reason}
            for each in left_out
            if each.experiment.mode == MESSAGES.name and each.experiment.platform == platform
        ]
        tables.append(view("Messages: ", f"messages, {platform}", LINK, lines, without))
    return tables


def _names(each: Chosen) -> Line:
    _, model, workload = each.table
    return {"model": model, "workload": workload, "quant": each.label}
