"""What drift mode adds to the plan: a reference that comes first, and specs that name it."""

from __future__ import annotations

from pathlib import Path

import pytest
from planned import merged_with, planned

from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import reference_path
from rollout_bench.core.errors import UserError
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.matrix import expand
from rollout_bench.plan.schedule import schedule

SMALL = "modes: [drift], drift: {prompts: 8, tokens: 4, batch_sizes: [8, 1]}"


def specs(overlay: str) -> dict[str, Spec]:
    return {
        f"{e.spec.quant.name} {e.spec.axes['setting']}": e.spec for e in planned(f"{{{SMALL}, {overlay}}}").experiments
    }


def test_all_but_the_reference_name_its_folder():
    found = specs("quants: [w8a8, bf16]")
    reference, other = found["bf16 default"], found["w8a8 default"]
    assert reference.drift is not None
    assert other.drift is not None
    assert reference.drift.reference is None
    assert other.drift.reference == reference.experiment()
    assert reference.drift.batch_sizes == (1, 8)  # their order is no setting


def test_another_reference_is_another_experiment_of_what_scores_its_tokens_alone():
    few, many = specs("quants: [bf16, w8a8]"), specs("quants: [bf16, w8a8], drift: {tokens: 5}")
    assert few["w8a8 default"].key() != many["w8a8 default"].key()
    turned = specs("quants: [bf16, w8a8], drift: {reference: w8a8}")
    assert turned["bf16 default"].drift is not None
    assert turned["bf16 default"].drift.reference == turned["w8a8 default"].experiment()


def test_other_modes_keep_their_keys():
    (offline,) = planned("{quants: [bf16]}").experiments
    beside = planned(f"{{quants: [bf16], {SMALL.replace('[drift]', '[offline, drift]')}}}").experiments
    assert offline.name == beside[0].name


def test_settings_are_held_against_the_default_one():
    cached = "settings: [default, cached], setting_settings: {cached: {engine_args: {kv_cache_dtype: fp8}}}"
    found = specs(f"quants: [bf16], {cached}")
    assert found["bf16 cached"].drift is not None
    assert found["bf16 cached"].drift.reference == found["bf16 default"].experiment()


def test_what_has_no_reference_is_skipped_and_says_what_it_lacks():
    cached = "settings: [cached], setting_settings: {cached: {engine_args: {kv_cache_dtype: fp8}}}"
    with pytest.raises(UserError, match="the reference of drift, bf16 under the default setting, is not measured"):
        planned(f"{{{SMALL}, {cached}}}")


def test_there_is_room_for_what_is_sampled_and_one_token_more():
    found = specs("quants: [bf16], workload_settings: {demo: {prompt_tokens: 20, output_tokens: 2}}")
    assert found["bf16 default"].engine.args["max_model_len"] == 20 + 4 + 1


def test_every_launch_needs_the_one_that_samples():
    config = read_config(merged_with(f"{{{SMALL}, quants: [bf16, w8a8], launches: 2}}"))
    plan = schedule(config, expand(config, probe_engine(None)))
    needed = {launch.record: launch.needed for launch in plan.launches}
    (first,) = [record for record, others in needed.items() if not others]
    assert "_bf16_" in first
    assert first.endswith("launch-0.json")
    assert [others for record, others in needed.items() if record != first] == [[first]] * 3
    assert all(path is None or str(path) == first for path in map(_reference, plan.launches))


def _reference(launch) -> Path | None:
    return reference_path(Path(launch.record), launch.experiment.spec)
