"""Cycles are planned with what a platform's engines can do; levels of sleep and ways of updates are settings."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from planned import REPOSITORY, planned

from rollout_bench.contracts.axes import DEFAULT_SETTING
from rollout_bench.contracts.modes import CYCLE
from rollout_bench.contracts.spec import Spec
from rollout_bench.plan.matrix import Matrix

BASE = "modes: [cycle], quants: [bf16], platform: cuda"
LISTS = "cycle: {sleep: [1, 2], update: [reload, in_process]}"
EACH = [f"sleep-{level}+update-{update}" for level in (1, 2) for update in ("reload", "in-process")]
"""What `LISTS` makes."""


def specs(overlay: str) -> list[Spec]:
    return [experiment.spec for experiment in planned(f"{{{BASE}, {overlay}}}").experiments]


def only(overlay: str) -> Spec:
    (spec,) = specs(overlay)
    return spec


def cycle_of(spec: Spec) -> dict[str, Any]:
    assert spec.cycle is not None
    return spec.cycle.model_dump(mode="json")


def settings(matrix: Matrix, mode: str = "cycle") -> list[str]:
    return [e.spec.setting or DEFAULT_SETTING for e in matrix.experiments if e.spec.mode == mode]


@pytest.mark.parametrize(("platform", "sleep"), [("cuda", "2"), ("ascend", "1"), ("cpu", "none")])
def test_engines_sleep_as_those_of_verl_do_and_not_at_all_on_cpu(platform: str, sleep: str) -> None:
    assert cycle_of(only(f"platform: {platform}"))["sleep"] == sleep


def test_the_number_of_cycles_is_the_modes_own() -> None:
    both = planned(f"{{{BASE}, modes: [offline, cycle], iterations: 5, warmup_iterations: 2}}").experiments
    assert [e.spec.measuring.iterations for e in both] == [5, 10]
    assert [e.spec.measuring.warmup_iterations for e in both] == [2, 2]
    assert only("cycle: {repeats: 6}").measuring.iterations == 6


def test_a_cycle_without_warm_up_needs_no_number_of_iterations() -> None:
    assert only("warmup_iterations: 0").measuring.warmup_iterations == 0


def test_other_modes_have_no_cycle_and_keep_their_keys() -> None:
    offline, _ = planned(f"{{{BASE}, modes: [offline, cycle]}}").experiments
    assert "cycle" not in json.loads(offline.spec.canonical_json())
    assert offline.name == planned("{quants: [bf16], platform: cuda}").experiments[0].name


def test_one_value_of_each_list_is_the_default() -> None:
    spec = only("cycle: {sleep: [1], update: [reload]}")
    assert (spec.setting, cycle_of(spec)) == (None, {"sleep": "1", "update": "reload"})


def test_several_values_are_settings_in_place_of_the_default() -> None:
    found = specs(LISTS)
    assert [spec.setting for spec in found] == EACH
    assert [(cycle_of(spec)["sleep"], cycle_of(spec)["update"]) for spec in found] == [
        ("1", "reload"),
        ("1", "in_process"),
        ("2", "reload"),
        ("2", "in_process"),
    ]
    assert [spec.setting for spec in specs("cycle: {update: [in_process, reload]}")] == [
        "update-in-process",
        "update-reload",
    ]


def test_lists_make_what_a_sweep_over_them_makes() -> None:
    listed = specs(LISTS)
    swept = specs("sweep: {cycle.sleep: [1, 2], cycle.update: [reload, in_process]}")
    # but for the last: a sweep's default is measured too, and has the usual sleep and update
    assert swept[1:] == listed[:-1]
    assert cycle_of(swept[0]) == cycle_of(listed[-1])


def test_lists_are_of_no_other_mode() -> None:
    matrix = planned(f"{{{BASE}, modes: [offline, rollout, cycle], {LISTS}}}")
    assert settings(matrix) == EACH
    assert settings(matrix, "offline") == settings(matrix, "rollout") == [DEFAULT_SETTING]
    assert matrix.skipped == []


def test_lists_without_their_mode_change_nothing() -> None:
    matrix = planned(f"{{{BASE}, modes: [offline], {LISTS}}}")
    assert (settings(matrix, "offline"), matrix.skipped) == ([DEFAULT_SETTING], [])


def test_lists_are_crossed_with_a_sweep_in_their_mode_alone() -> None:
    overlay = "sweep: {max_num_seqs: [8, 16]}, cycle: {sleep: [1, 2]}"
    matrix = planned(f"{{{BASE}, modes: [offline, cycle], {overlay}}}")
    assert settings(matrix) == [f"max-num-seqs-{n}+sleep-{level}" for n in (8, 16) for level in (1, 2)]
    assert settings(matrix, "offline") == [DEFAULT_SETTING, "max-num-seqs-8", "max-num-seqs-16"]
    assert matrix.skipped == []


def test_a_setting_that_names_no_value_has_the_first_of_each_list() -> None:
    few = "setting_settings: {few: {engine_args: {max_num_seqs: 8}}}"
    found = specs(f"{LISTS}, settings: [default, few, sleep-2+update-reload], {few}")
    assert [(spec.setting, cycle_of(spec)["sleep"], cycle_of(spec)["update"]) for spec in found] == [
        (None, "1", "reload"),
        ("few", "1", "reload"),
        ("sleep-2+update-reload", "2", "reload"),
    ]


def test_names_that_lists_make_are_the_default_in_other_modes_where_they_are_selected() -> None:
    matrix = planned(f"{{{BASE}, modes: [offline, cycle], {LISTS}, settings: [{EACH[3]}, {EACH[0]}]}}")
    assert settings(matrix) == [EACH[3], EACH[0]]
    assert (settings(matrix, "offline"), matrix.skipped) == ([DEFAULT_SETTING], [])


def test_the_default_is_measured_where_it_is_the_baseline() -> None:
    matrix = planned(f"{{{BASE}, cycle: {{sleep: [1, 2]}}, baseline: {{quant: null, setting: default}}}}")
    assert settings(matrix) == [DEFAULT_SETTING, "sleep-2"]
    assert [(one.setting, one.reason) for one in matrix.skipped] == [("sleep-1", "it is the same as under default")]


def test_a_setting_may_change_any_key_of_a_cycle() -> None:
    read = "settings: [default, read], setting_settings: {read: {cycle: {update: [reload]}}}"
    assert [cycle_of(spec)["update"] for spec in specs(read)] == ["in_process", "reload"]
    asked = "settings: [default, as-usual], setting_settings: {as-usual: {cycle: {sleep: null}}}"
    assert [cycle_of(spec)["sleep"] for spec in specs(asked)] == ["2"]
    repeats = specs("sweep: {cycle.repeats: [3]}")
    assert [spec.measuring.iterations for spec in repeats] == [10, 3]


def test_of_named_weights_only_what_nobody_has_the_weights_for_is_left_out() -> None:
    named = "models: [m], quants: [bf16, fp8, w8a8], model_settings: {m: {weights: {bf16: a, w8a8: b}}}"
    matrix = planned(f"{{{BASE}, {named}, cycle: {{update: [in_process, reload]}}}}")
    assert [(e.spec.quant.name, e.spec.setting) for e in matrix.experiments] == [
        ("bf16", "update-in-process"),
        ("fp8", "update-in-process"),
    ]
    assert {(one.quant, one.setting): one.reason.split(" ", 1)[1][:24] for one in matrix.skipped} == {
        ("bf16", "update-reload"): "has no second checkpoint",
        ("fp8", "update-reload"): "has no second checkpoint",
        ("w8a8", "update-in-process"): "has its w8a8 weights in ",
        ("w8a8", "update-reload"): "has no second checkpoint",
    }


def test_drafts_without_weights_may_speculate() -> None:
    assert only("engine_args: {speculative_config: {method: ngram, num_speculative_tokens: 2}}").cycle is not None


def test_sleep_mode_may_be_an_argument_of_other_modes() -> None:
    (offline,) = specs("modes: [offline], engine_args: {enable_sleep_mode: true}")
    assert offline.engine.args["enable_sleep_mode"] is True


def test_its_config_updates_every_quantization_in_both_ways_and_as_often_as_it_says() -> None:
    text = (REPOSITORY / CYCLE.example).read_text()
    experiments = planned(text).experiments
    assert [(e.spec.quant.name, e.spec.setting) for e in experiments] == [
        (quant, f"update-{update}") for quant in ("bf16", "w8a16", "w8a8") for update in ("in-process", "reload")
    ]
    assert f"{len(experiments) * yaml.safe_load(text)['launches']} launches," in text


def test_its_config_has_a_model_whose_weights_all_can_be_updated_on_a_cpu() -> None:
    for experiment in planned((REPOSITORY / CYCLE.example).read_text()).experiments:
        assert experiment.spec.model.synthetic is not None
        assert not experiment.spec.model.synthetic["tie_word_embeddings"]
