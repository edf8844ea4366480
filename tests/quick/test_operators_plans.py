"""What operators mode adds to the plan: a key of its own, the batch in use among the tokens, and few launches."""

from __future__ import annotations

import pytest
from planned import merged_with, planned

from rollout_bench.contracts.spec import OperatorsSettings, Spec, decode_batch
from rollout_bench.core.errors import UserError
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.matrix import expand
from rollout_bench.plan.schedule import schedule


def specs(overlay: str) -> list[Spec]:
    return [experiment.spec for experiment in planned(overlay).experiments]


def tokens_of(overlay: str) -> list[int]:
    (spec,) = specs(f"{{quants: [bf16], modes: [operators], {overlay}}}")
    assert spec.operators is not None
    return spec.operators.tokens


def test_operators_have_a_key_of_their_own_and_leave_that_of_the_timed_experiment_alone():
    timed, operators = specs("{quants: [bf16], modes: [offline, operators]}")
    (alone,) = specs("{quants: [bf16], modes: [offline]}")
    assert timed.key() == alone.key() != operators.key()
    assert "operators" not in alone.canonical_json()


def test_how_often_a_workload_is_iterated_does_not_matter_to_linear_layers():
    (few,) = specs("{quants: [bf16], modes: [operators], iterations: 2, warmup_iterations: 3}")
    (many,) = specs("{quants: [bf16], modes: [operators], iterations: 9}")
    assert few == many


def test_the_batch_in_use_is_among_the_tokens_once():
    assert tokens_of("workload_settings: {demo: {prompts: 9}}") == [1, 2, 4, 8, 16, 32, 36, 64, 128, 256, 512, 1024]
    assert tokens_of("operators: {tokens: [8, 1, 8]}, workload_settings: {demo: {prompts: 2}}") == [1, 8]
    assert tokens_of("operators: {tokens: [1]}, workload_settings: {demo: {prompts: 500}}") == [1, 64]  # max_num_seqs


def test_the_batch_is_what_the_engine_runs_at_once():
    assert decode_batch(8, 4, {}) == 32
    assert decode_batch(32, 8, {"max_num_seqs": 100}) == 100
    assert decode_batch(5000, 8, {}) == 1024


def test_the_order_of_the_tokens_is_no_setting():
    assert OperatorsSettings(tokens=[4, 1, 2]) == OperatorsSettings(tokens=[1, 2, 4])


@pytest.mark.parametrize(("launches", "wanted"), [("4", 4), ("auto", 3)])
def test_linear_layers_are_launched_as_often_as_said_and_the_least_times_where_precision_says(
    launches: str, wanted: int
):
    config = read_config(merged_with(f"{{quants: [bf16], modes: [offline, operators], launches: {launches}}}"))
    plan = schedule(config, expand(config, probe_engine(None)))
    by_mode = [launch.experiment.spec.mode for launch in plan.launches]
    assert by_mode.count("operators") == wanted
    assert {e.mode: e.launches for e in plan.experiments}["operators"] == wanted


@pytest.mark.parametrize(
    ("overlay", "problem", "remedy"),
    [
        ("{modes: [operator]}", "mode 'operator' is not defined", "did you mean 'operators'?"),
        ("{modes: [operators], operators: {token: [4]}}", "operators.token", "did you mean 'tokens'?"),
        ("{modes: [operators], operators: {tokens: []}}", "operators.tokens", ""),
        ("{modes: [operators], operators: {tokens: [0]}}", "operators.tokens", ""),
        ("{modes: [operators], operators: {repeats: 1}}", "operators.repeats", ""),
    ],
)
def test_a_sweep_that_cannot_be_had_is_told_in_two_lines(overlay: str, problem: str, remedy: str):
    with pytest.raises(UserError) as raised:
        planned(overlay)
    first, second = str(raised.value).split("\n")
    assert problem in first
    assert remedy in second
