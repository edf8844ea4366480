"""The numbers of a summary as JSON, for the explorer in summary.html."""

from __future__ import annotations

import json

from rollout_bench.analysis.timed.rows import Row
from rollout_bench.numbers.registry import NUMBERS
from rollout_bench.report.figures.drawings import row_colours
from rollout_bench.report.parts import Findings


def explorer_data(findings: Findings) -> str:
    """Return the rows with the numbers of their launches, in plain units; safe inside of a script element.

    Ratios, intervals and verdicts are those of the summary. An unknown number is missing.
    """
    rows = findings.drawn
    known = {name for row in rows for launch in row.launches for name in launch.values}
    numbers = [
        {"name": name, "header": of.header, "factor": of.factor, "digits": of.digits}
        for name, of in NUMBERS.items()
        if name in known
    ]
    colour = row_colours(findings)
    content = {"numbers": numbers, "rows": [_row(row, colour[row.label]) for row in rows if row.launches]}
    return json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")


def _row(row: Row, colour: str) -> dict[str, object]:
    own = row.experiment
    other = row.against.other
    return {
        "mode": own.mode,
        "platform": own.platform,
        "model": own.model,
        "workload": own.workload,
        "label": row.label,
        "colour": colour,
        "baseline": "" if other is None else f"{other.quant} {other.setting}".removesuffix(" default"),
        "means": row.values,
        "launches": [
            {"launch": each.launch, "valid": each.valid, "flags": [f.code for f in each.flags], "values": each.values}
            for each in row.launches
        ],
        "compared": {
            metric: {"ratio": found.speedup, "low": found.low, "high": found.high, "verdict": found.verdict}
            for metric, found in row.comparisons.items()
            if found.verdict is not None
        },
    }
