"""How long a launch is expected to take: as its own did, else as those that were measured."""

from pathlib import Path

import pytest
from rooms import matrix_of
from synthetic_records import make_record

from rollout_bench.contracts.store import write_launched
from rollout_bench.plan.planfile import cost_in_words
from rollout_bench.plan.schedule import Schedule, schedule

LAUNCH_S = 30 + 5 * 10.24
"""Of the records here."""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def plan_of(overlay: str, quants: str = "[bf16]") -> Schedule:
    return schedule(*matrix_of(f"interleave: false\nquants: {quants}\n{overlay}"))


def test_the_expected_time_comes_from_launches_already_measured() -> None:
    assert set(plan_of("iterations: 4", "[bf16, w8a8]").expected_s.values()) == {None}
    first = plan_of("iterations: 4").launches[0]
    write_launched(Path(first.record), make_record(first.experiment.spec, 0, [100.0] * 4, warmup_rates=[100.0]))
    both = list(plan_of("iterations: 4", "[bf16, w8a8]").expected_s.values())
    assert both == pytest.approx([LAUNCH_S] * 2, abs=0.1)


def test_a_cost_includes_device_hours_where_devices_are_held() -> None:
    assert cost_in_words([(240.0, 1)] * 3) == "about 12 min; 0.20 device hours"
    assert cost_in_words([(720.0, 0)], least=True) == "at least 12 min"
    assert cost_in_words([(33000.0, 8)], least=True) == "at least 9.2 h; 73 device hours"
    assert cost_in_words([(33000.0, 8), (None, 8)]) == "time unknown, since nothing was measured yet"


def test_the_devices_of_a_launch_stand_in_the_plan() -> None:
    plan = plan_of("launches: 2\nengine_args: {data_parallel_size: 2}")
    assert {e.devices for e in plan.plan_file().experiments} == {2}
