"""How long a launch is expected to take: as its own did, as one of the same model and quant did, as any did."""

from __future__ import annotations

from pathlib import Path

import pytest
from rooms import matrix_of
from synthetic_records import make_record

from rollout_bench.contracts.cycles import Transition
from rollout_bench.contracts.store import write_launched
from rollout_bench.plan.checks import FIRST_GUESS_S
from rollout_bench.plan.planfile import TimeCost
from rollout_bench.plan.schedule import Schedule, schedule

PASS_S = 10.24
"""1,024 tokens at 100 a second."""

START_S = 30.0
"""Of the records here."""


PROOF = {"weights": "second", "tensors": 9, "trained": 4, "changed": 9, "changed_trained": 4, "not_finite": 0}
TRANSITION = Transition.model_validate(
    {
        "elapsed_s": 5.0,
        "parts": [{"name": "update", "began_s": 0.0, "elapsed_s": 5.0}],
        "update": {"weights": "second", "load_s": 5.0},
        "memory": [{"when": "after", "host_bytes": 1}],
        "proof": {**PROOF, "checksum": "0" * 16, "tokens": "0" * 16},
    }
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def plan_of(overlay: str, quants: str = "[bf16]") -> Schedule:
    return schedule(*matrix_of(f"interleave: false\nquants: {quants}\n{overlay}"))


def measure() -> None:
    """Leave a launch of the default workload with four passes that count."""
    first = plan_of("iterations: 4").launches[0]
    write_launched(Path(first.record), make_record(first.experiment.spec, 0, [100.0] * 4, warmup_rates=[100.0]))


def expected_s(overlay: str) -> float:
    (seconds,) = plan_of(overlay).expected_s.values()
    return seconds


def test_without_any_record_it_is_a_guess_for_the_platform() -> None:
    assert expected_s("") == FIRST_GUESS_S["cpu"]


def test_a_launch_takes_as_long_as_its_own_experiment_did() -> None:
    measure()
    assert expected_s("iterations: 4") == pytest.approx(START_S + 5 * PASS_S, abs=0.1)


def test_more_prompts_take_as_long_as_their_tokens_do_and_the_start_stays() -> None:
    measure()
    twice = "workload_settings: {demo: {prompts: 16}}"
    assert expected_s(f"iterations: 4\n{twice}") == pytest.approx(START_S + 5 * 2 * PASS_S, abs=0.1)
    assert expected_s(f"iterations: 9\n{twice}") == pytest.approx(START_S + 10 * 2 * PASS_S, abs=0.1)


def test_auto_makes_eight_passes_at_the_least() -> None:
    measure()
    twice = "workload_settings: {demo: {prompts: 16}}"
    assert expected_s(f"iterations: auto\n{twice}") == pytest.approx(START_S + 9 * 2 * PASS_S, abs=0.1)


def test_lengths_that_must_be_drawn_say_nothing() -> None:
    measure()
    drawn = "workload_settings: {demo: {output_tokens: {distribution: uniform, low: 1, high: 32}}}"
    assert expected_s(f"iterations: 4\n{drawn}") == FIRST_GUESS_S["cpu"]


def test_a_cycle_takes_its_transitions_besides() -> None:
    cycles = "modes: [cycle]\ncycle: {repeats: 4}"
    first = plan_of(cycles).launches[0]
    record = make_record(first.experiment.spec, 0, [100.0] * 4, warmup_rates=[100.0])
    cycled = [one.model_copy(update={"transition": TRANSITION}) for one in record.iterations]
    taken_s = record.wall_s + 5 * TRANSITION.elapsed_s
    write_launched(Path(first.record), record.model_copy(update={"iterations": cycled, "wall_s": taken_s}))
    more = expected_s("modes: [cycle]\ncycle: {repeats: 9}")
    assert more == pytest.approx(START_S + 10 * (PASS_S + TRANSITION.elapsed_s), abs=0.1)


def test_loads_by_time_take_their_time_in_every_pass() -> None:
    load = "concurrency: 2, duration_s: 30"
    timed = f"modes: [online]\niterations: 4\nworkload_settings: {{demo: {{online: {{{load}}}}}}}"
    assert expected_s(timed) == FIRST_GUESS_S["cpu"] + 5 * 30
    stages = timed.replace(load, "cool_down_s: 3, stages: [{concurrency: 2, duration_s: 30}, {request_rate: 4}]")
    assert expected_s(stages) == FIRST_GUESS_S["cpu"] + 5 * 30 + 3
    measure()  # of another mode: it says nothing of a load that is held
    assert expected_s(timed) == FIRST_GUESS_S["cpu"] + 5 * 30


def test_another_model_takes_as_long_as_those_that_are_known() -> None:
    measure()
    both = list(plan_of("iterations: 4", "[bf16, w8a8]").expected_s.values())
    assert both == pytest.approx([START_S + 5 * PASS_S] * 2, abs=0.1)


def test_a_cost_is_told_with_device_hours_where_devices_are_held() -> None:
    assert str(TimeCost(seconds=720.0, device_seconds=720.0)) == "about 12 min; 0.20 device hours"
    assert str(TimeCost(seconds=90.0, device_seconds=1.0, guessed=True)) == "about 2 min; 0.010 device hours; a guess"
    assert str(TimeCost(seconds=720.0, device_seconds=0.0, least=True)) == "at least 12 min"
    assert str(TimeCost(33000.0, 264000.0, guessed=True, least=True)) == "at least 9.2 h; 73 device hours; a guess"


def test_the_cost_of_launches_counts_the_devices_of_each() -> None:
    plan = plan_of("launches: 2\nengine_args: {data_parallel_size: 2}")
    cost = plan.cost_of([launch.record for launch in plan.launches])
    assert cost == TimeCost(seconds=2 * FIRST_GUESS_S["cpu"], device_seconds=4 * FIRST_GUESS_S["cpu"], guessed=True)
    assert {e.devices for e in plan.plan_file().experiments} == {2}
