"""How far apart two launches of one round may start and still be a pair."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.pairs import SLACK_S, round_s
from rollout_bench.analysis.timed.rows import rows_of

SPECS = [make_spec(quant=quant) for quant in ("bf16", "w8a8", "w8a16")]
LAUNCH_S = 1800.0
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def in_turn(results: Path, starts_s: dict[str, float]) -> list[bool]:
    """Return which launches of the other quants make pairs with the baseline's, by when each starts."""
    for spec in SPECS:
        at = f"{BEGAN + timedelta(seconds=starts_s[spec.quant.name]):%Y-%m-%dT%H:%M:%SZ}"
        save(results, make_record(spec).model_copy(update={"started_at": at, "wall_s": LAUNCH_S}))
    rows = rows_of(collect(results, make_plan(SPECS, 1)))
    return [launch.paired for row in rows[1:] for launch in row.launches]


@pytest.mark.parametrize("order", [("bf16", "w8a8", "w8a16"), ("w8a16", "w8a8", "bf16"), ("w8a8", "bf16", "w8a16")])
def test_launches_of_a_round_are_pairs_whatever_its_order(tmp_path: Path, order: tuple[str, ...]) -> None:
    assert in_turn(tmp_path, {quant: place * LAUNCH_S for place, quant in enumerate(order)}) == [True, True]


def test_they_are_pairs_where_each_launch_between_them_failed_once(tmp_path: Path) -> None:
    assert in_turn(tmp_path, {"bf16": 0.0, "w8a8": 3 * LAUNCH_S, "w8a16": 5 * LAUNCH_S}) == [True, True]


def test_they_are_none_where_more_lies_between_them_than_two_rounds_and_the_slack(tmp_path: Path) -> None:
    limit_s = 2 * len(SPECS) * LAUNCH_S + SLACK_S
    assert in_turn(tmp_path, {"bf16": 0.0, "w8a8": limit_s, "w8a16": -limit_s - 1}) == [True, False]
    assert round_s(collect(tmp_path, None).experiments) == limit_s
