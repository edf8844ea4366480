"""What a launch costs, as the summary shows it."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.launches import parts_of
from rollout_bench.contracts.record import Flag, Record
from rollout_bench.report.headings import COST
from rollout_bench.report.summary import Summary, summarise

INVALID = Flag(code="quant_not_proven", severity="invalid", sentence="linear weights are bfloat16.")
SPEC = make_spec()


def record(launch: int, wall_s: float, *, flags: list[Flag] | None = None, **reported: float) -> Record:
    """8 s import, 3 s init, 5.12 s warm-up, 3 x 2.56 s measured, the rest other."""
    made = make_record(SPEC, launch, [400.0] * 3, flags=flags or [])
    startup = made.startup.model_copy(update={"reported": reported})
    return made.model_copy(update={"wall_s": wall_s, "startup": startup})


def summary(results: Path, *records: Record) -> Summary:
    save(results, *records)
    return summarise(collect(results, make_plan([SPEC], launches=3)))


def test_the_parts_are_means_over_valid_launches_and_add_up(tmp_path: Path) -> None:
    made = summary(tmp_path, record(0, 28.0), record(1, 32.0), record(2, 99.0, flags=[INVALID]))
    row = next(csv.DictReader(io.StringIO(made.csv)))
    seconds = {part: float(row[part]) for part in ("import_s", "init_s", "warmup_s", "measured_s", "other_s")}
    assert seconds == pytest.approx(
        {"import_s": 8, "init_s": 3, "warmup_s": 5.12, "measured_s": 7.68, "other_s": 30 - 23.8}
    )
    assert float(row["launch_s"]) == pytest.approx(30)
    assert float(row["measured_share"]) == pytest.approx(7.68 / 30)


def test_the_table_has_what_the_log_told_and_a_dash_for_the_rest(tmp_path: Path) -> None:
    made = summary(tmp_path, record(0, 28.0, weights_load_s=1.0), record(1, 32.0, weights_load_s=2.0, compile_s=4.0))
    table = made.markdown.split("## What a launch costs: ")[1].split("## ")[0]
    assert "| bf16 | 8.00 | 3.00 | 1.5 / 4.0 / - | 5.12 | 7.68 | 6.20 | 30.0 | 26 |" in table
    for column in COST:
        defined = f"- {column.header}: {column.definition.split()[0]}" in made.markdown
        # These records do not say how long the process took; only launches of a block wait; no server was started.
        assert defined == (column.header not in ("process s", "waiting s", "server start s"))


def test_no_part_is_negative_where_clocks_disagree() -> None:
    cost = parts_of(record(0, 1.0))
    assert cost.other_s == 0
    assert cost.wall_s == pytest.approx(23.8)


def test_an_experiment_without_launches_has_dashes_and_no_table_of_its_own(tmp_path: Path) -> None:
    assert "What a launch costs" not in summary(tmp_path).markdown
    save(tmp_path, record(0, 28.0, weights_load_s=1.0))
    made = summarise(collect(tmp_path, make_plan([SPEC, make_spec(quant="w8a8")], launches=1)))
    assert "| w8a8 | - | - | - | - | - | - | - | - |" in made.markdown
