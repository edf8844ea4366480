"""What a profile adds to the plan: a key of its own, one launch, an engine that can be stepped."""

from __future__ import annotations

import pytest
from planned import planned

from rollout_bench.contracts.spec import Spec
from rollout_bench.core.errors import UserError
from rollout_bench.plan.schedule import schedule


def specs(overlay: str) -> list[Spec]:
    return [experiment.spec for experiment in planned(overlay).experiments]


def test_a_profile_has_a_key_of_its_own_and_leaves_that_of_the_timed_experiment_alone():
    timed, profile = specs("{quants: [bf16], modes: [offline, profile]}")
    (alone,) = specs("{quants: [bf16], modes: [offline]}")
    assert (timed.mode, profile.mode) == ("offline", "profile")
    assert timed.key() == alone.key() != profile.key()


def test_how_often_the_timed_experiment_is_iterated_does_not_matter_to_a_profile():
    (few,) = specs("{quants: [bf16], modes: [profile], iterations: 2}")
    (many,) = specs("{quants: [bf16], modes: [profile], iterations: 9}")
    assert few == many


def test_what_is_traced_is_part_of_the_key():
    (default,) = specs("{quants: [bf16], modes: [profile]}")
    (other,) = specs("{quants: [bf16], modes: [profile], profile: {steps: 9}}")
    assert default.key() != other.key()


def test_the_engine_core_is_where_offline_mode_has_it_and_a_servers_is_its_own():
    (engine,) = specs("{quants: [bf16], modes: [profile], platform: cpu}")
    (elsewhere,) = specs("{quants: [bf16], modes: [profile], platform: cuda}")
    assert elsewhere.engine.multiprocess
    (server,) = specs("{quants: [bf16], modes: [profile], profile: {through: server}}")
    assert (engine.engine.multiprocess, engine.load) == (False, None)
    assert server.engine.multiprocess
    assert server.load is not None
    assert [point.label for point in server.load.points] == ["all at once"]


@pytest.mark.parametrize("launches", ["4", "auto"])
def test_an_experiment_is_profiled_once_however_often_it_is_launched(launches: str):
    from planned import merged_with

    from rollout_bench.plan.config_file import read_config
    from rollout_bench.plan.engine import probe_engine
    from rollout_bench.plan.matrix import expand

    config = read_config(merged_with(f"{{quants: [bf16], modes: [offline, profile], launches: {launches}}}"))
    plan = schedule(config, expand(config, probe_engine(None)))
    by_mode = [launch.experiment.spec.mode for launch in plan.launches]
    assert by_mode.count("profile") == 1
    assert by_mode.count("offline") == (4 if launches == "4" else 12)
    assert {e.mode: e.launches for e in plan.experiments}["profile"] == 1


@pytest.mark.parametrize(
    ("overlay", "problem", "remedy"),
    [
        ("{modes: [profil]}", "mode 'profil' is not defined", "did you mean 'profile'?"),
        ("{modes: [profile], profile: {step: 4}}", "profile.step", "did you mean 'steps'?"),
        ("{modes: [profile], profile: {steps: 0}}", "profile.steps", ""),
        (
            "{modes: [profile], workload_settings: {demo: {output_tokens: 1}}}",
            "no decode steps",
            "ask for more output_tokens",
        ),
    ],
)
def test_a_profile_that_cannot_be_had_is_told_in_two_lines(overlay: str, problem: str, remedy: str):
    with pytest.raises(UserError) as raised:
        planned(overlay)
    first, second = str(raised.value).split("\n")
    assert problem in first
    assert remedy in second
