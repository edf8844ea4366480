"""Rollout experiments are planned with one number of engines, and with routers as settings."""

from __future__ import annotations

from typing import Any

import pytest
from planned import planned

from rollout_bench.contracts.spec import Spec, devices_needed, replicas
from rollout_bench.core.errors import UserError

BASE = "modes: [rollout], quants: [bf16], workloads: [demo]"


def specs(overlay: str) -> list[Spec]:
    return [experiment.spec for experiment in planned(f"{{{BASE}, {overlay}}}").experiments]


def only(overlay: str) -> Spec:
    (spec,) = specs(overlay)
    return spec


def rollout_of(spec: Spec) -> dict[str, Any]:
    assert spec.rollout is not None
    return spec.rollout.model_dump(mode="json")


def test_replicas_are_the_engine_argument_that_everything_else_asks_for() -> None:
    said, argued = only("rollout: {replicas: 2}"), only("engine_args: {data_parallel_size: 2}")
    assert said == argued
    assert (replicas(said), devices_needed(said), said.engine.args["data_parallel_size"]) == (2, 2, 2)
    assert rollout_of(said) == {"router": "least_in_flight"}


def test_one_engine_is_what_an_experiment_without_replicas_has() -> None:
    assert only("rollout: {replicas: 1}") == only("engine_args: {}")
    assert rollout_of(only("rollout: {replicas: 1, router: sticky}")) == {}


def test_what_several_engines_share_is_no_load_of_one() -> None:
    both = "{modes: [offline, rollout], quants: [bf16], rollout: {replicas: %s}}"
    with pytest.raises(UserError, match="workload demo is a step that 2 engines share, and in offline mode one engine"):
        planned(both % 2)
    for alone in ("1", "null"):
        assert [(e.spec.mode, replicas(e.spec)) for e in planned(both % alone).experiments] == [
            ("offline", 1),
            ("rollout", 1),
        ]


def test_log_probabilities_are_asked_for_in_the_workload() -> None:
    assert only("rollout: {}").workload.logprobs == 0
    assert only("workload_settings: {demo: {logprobs: 3}}").workload.logprobs == 3


def test_the_engine_core_is_a_process_of_its_own() -> None:
    assert only("rollout: {}").engine.multiprocess


@pytest.mark.parametrize(
    "arms",
    [
        "sweep: {rollout.router: [least_in_flight, sticky]}",
        "settings: [default, router-sticky], setting_settings: {router-sticky: {rollout: {router: sticky}}}",
    ],
)
def test_routers_are_settings(arms: str) -> None:
    found = specs(f"rollout: {{replicas: 2}}, {arms}")
    assert [spec.setting for spec in found] == [None, "router-sticky"]
    assert [rollout_of(spec)["router"] for spec in found] == ["least_in_flight", "sticky"]
    assert len({spec.key() for spec in found}) == 2


def test_routers_of_one_engine_are_one_setting() -> None:
    matrix = planned(f"{{{BASE}, sweep: {{rollout.router: [sticky, round_robin]}}}}")
    assert [e.spec.setting for e in matrix.experiments] == [None]
    assert {one.setting: one.reason for one in matrix.skipped} == {
        "router-sticky": "it is the same as under default",
        "router-round-robin": "it is the same as under default",
    }


def test_numbers_of_engines_can_be_swept() -> None:
    assert [replicas(spec) for spec in specs("sweep: {rollout.replicas: [2, 4]}")] == [1, 2, 4]
