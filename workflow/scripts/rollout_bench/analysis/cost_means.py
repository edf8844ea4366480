"""What a launch of an experiment costs: means over its launches."""

from __future__ import annotations

from rollout_bench.analysis.launch_cost import parts_of
from rollout_bench.analysis.rows import Row
from rollout_bench.analysis.statistics import mean
from rollout_bench.records.record import Record

PARTS = ("process_s", "import_s", "init_s", "warmup_s", "measured_s", "other_s")
"""In the order of time; `other_s` is what no other part explains. They add up to `launch_s`."""

REPORTED = ("weights_load_s", "compile_s", "graph_capture_s")
"""Parts of `init_s`, as the engine's log tells them."""

COST_COLUMNS: dict[str, str] = dict.fromkeys(("launch_s", *PARTS, *REPORTED, "measured_share"), "Float64")
"""Columns of the table, with their types."""


def cost_line(row: Row) -> dict[str, object]:
    """The values of `COST_COLUMNS` for a row with valid launches: seconds, and the share of them that was measured.

    Of a load of a sweep they are those of the whole launch.
    """
    used = {launch.launch for launch in row.used}
    records = [record for record in row.experiment.whole.records if record.launch in used]
    costs = [parts_of(record) for record in records]
    launch_s = mean([cost.wall_s for cost in costs])
    parts = {part: mean([getattr(cost, part) for cost in costs]) for part in PARTS}
    return {
        "launch_s": launch_s,
        **parts,
        **{part: _reported(records, part) for part in REPORTED},
        "measured_share": parts["measured_s"] / launch_s,
    }


def _reported(records: list[Record], part: str) -> float | None:
    """Mean over the launches whose log had it."""
    told = [record.startup.reported[part] for record in records if part in record.startup.reported]
    return mean(told) if told else None
