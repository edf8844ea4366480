"""Settings: what they change, what they are called, and which of them are one and the same."""

import dataclasses
import itertools

import pytest
from planned import merged_with, planned

from rollout_bench.contracts.axes import with_setting
from rollout_bench.contracts.spec import Spec
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import (
    probe_engine,
)
from rollout_bench.plan.interleaving import comparisons
from rollout_bench.plan.matrix import expand

ONE = "quants: [bf16]\n"


def specs(overlay: str) -> dict[str, Spec]:
    """Return the specs of bf16 by the name of their setting."""
    return {e.spec.axes["setting"]: e.spec for e in planned(ONE + overlay).experiments}


def test_default_changes_no_key() -> None:
    (before,) = planned(ONE).experiments
    assert [e.name for e in planned(ONE + "settings: [default]").experiments] == [before.name]
    assert planned(ONE + "sweep: {max_num_seqs: [8]}").experiments[0].name == before.name


def test_a_setting_wins_over_everything_and_names_the_folder() -> None:
    found = specs(
        "engine_args: {max_num_batched_tokens: 2048}\n"
        "settings: [default, few]\n"
        "setting_settings: {few: {engine_args: {max_num_batched_tokens: 1024, max_num_seqs: 8},"
        " engine: {environment: {OMP_WAIT_POLICY: passive}}, workload: {output_tokens: 16}}}"
    )
    default, few = found["default"], found["few"]
    assert (few.engine.args["max_num_batched_tokens"], few.engine.args["max_num_seqs"]) == (1024, 8)
    assert few.engine.environment == {**default.engine.environment, "OMP_WAIT_POLICY": "passive"}
    assert (default.workload.output_tokens, few.workload.output_tokens) == (32, 16)
    assert few.experiment() == f"qwen3-90m_bf16_demo_few-{few.key()}"
    assert default.setting is None
    assert "setting" not in default.canonical_json()


def test_a_sweep_makes_each_combination_and_the_default() -> None:
    found = specs("sweep: {max_num_seqs: [2, 8], kv_cache_dtype: [fp8, fp8_e5m2]}")
    assert list(found) == [
        "default",
        *(f"max-num-seqs-{n}+kv-cache-dtype-{d}" for n, d in itertools.product((2, 8), ("fp8", "fp8-e5m2"))),
    ]
    assert found["max-num-seqs-8+kv-cache-dtype-fp8-e5m2"].engine.args["kv_cache_dtype"] == "fp8_e5m2"


def test_names_of_a_sweep_can_be_selected() -> None:
    assert list(specs("sweep: {max_num_seqs: [2, 8]}\nsettings: [max-num-seqs-8]")) == ["max-num-seqs-8"]


def test_a_setting_equal_to_another_is_not_measured_twice() -> None:
    matrix = planned(ONE + "sweep: {output_tokens: [16, 32]}")
    assert [e.spec.axes["setting"] for e in matrix.experiments] == ["default", "output-tokens-16"]
    assert [(s.setting, s.reason) for s in matrix.skipped] == [("output-tokens-32", "it is the same as under default")]


def test_the_baseline_setting_stays_where_two_are_equal() -> None:
    matrix = planned(ONE + "sweep: {output_tokens: [16, 32]}\nbaseline: {quant: null, setting: output-tokens-32}")
    assert [e.spec.axes["setting"] for e in matrix.experiments] == ["output-tokens-16", "output-tokens-32"]
    assert [s.setting for s in matrix.skipped] == ["default"]


def test_an_impossible_experiment_is_left_out_for_its_setting_alone() -> None:
    matrix = planned(ONE + "sweep: {prompt_tokens: [16, 100000]}")
    assert [e.spec.axes["setting"] for e in matrix.experiments] == ["default", "prompt-tokens-16"]
    (skipped,) = matrix.skipped
    assert skipped.setting == "prompt-tokens-100000"
    assert "needs 100032 positions" in skipped.reason


@pytest.mark.parametrize(
    ("baseline", "groups", "name"),
    [
        (
            "{quant: bf16}",
            [["bf16", "w8a8"], ["bf16 few", "w8a8 few"]],
            "offline cpu qwen3-90m demo: bf16, w8a8",
        ),
        (
            "{quant: null, setting: default}",
            [["bf16", "bf16 few"], ["w8a8", "w8a8 few"]],
            "offline cpu qwen3-90m bf16 demo: default, few",
        ),
    ],
)
def test_what_is_compared_agrees_in_all_axes_but_the_baselines(
    baseline: str, groups: list[list[str]], name: str
) -> None:
    overlay = (
        f"quants: [bf16, w8a8]\nbaseline: {baseline}\nsettings: [default, few]\n"
        "setting_settings: {few: {engine_args: {max_num_seqs: 8}}}"
    )
    config = read_config(merged_with(overlay))
    found = comparisons(config, expand(config, probe_engine(None)))
    assert [
        [with_setting(e.spec.quant.name, e.spec.axes["setting"]) for e in group.members] for group in found
    ] == groups
    assert found[0].name == name


def test_a_setting_leaves_out_loads_its_harness_cannot_send():
    overlay = """
    modes: [online]
    quants: [bf16]
    workloads: [users, timed]
    settings: [default, guidellm, bench]
    setting_settings: {guidellm: {harness: guidellm}, bench: {harness: vllm-bench}}
    baseline: {quant: null, setting: bench}
    workload_settings:
      users: {prompts: 4, online: {prompts_as: text, concurrency: 2}}
      timed: {prompts: 4, online: {prompts_as: text, concurrency: 2, duration_s: 20}}
    """
    engine = dataclasses.replace(probe_engine(None), harnesses={"guidellm": "0.8.1"})
    matrix = expand(read_config(merged_with(overlay)), engine)
    sent = {(e.spec.workload.name, e.spec.load and e.spec.load.harness) for e in matrix.experiments}
    assert sent == {
        ("users", "rollout-bench"),
        ("users", "guidellm"),
        ("users", "vllm-bench"),
        ("timed", "rollout-bench"),
    }
    versions = {e.spec.load.harness: e.spec.load.harness_version for e in matrix.experiments if e.spec.load}
    assert versions == {"rollout-bench": None, "vllm-bench": engine.version, "guidellm": "0.8.1"}
    assert [(left.setting, left.workload) for left in matrix.skipped] == [("guidellm", "timed"), ("bench", "timed")]
    assert all("sends a number of requests" in left.reason for left in matrix.skipped)
