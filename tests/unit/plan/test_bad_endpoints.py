"""Every wrong endpoint, arrival, harness or limit is told in two lines before anything runs, and no secret with it."""

from __future__ import annotations

import dataclasses

import pytest
from bad_endpoints import ADDRESS, BAD_ONLINE, Bad
from planned import merged_with, planned

from rollout_bench.core.errors import UserError
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.matrix import expand


def test_no_two_are_alike():
    assert len({bad.name for bad in BAD_ONLINE}) == len({bad.overlay for bad in BAD_ONLINE}) == len(BAD_ONLINE)
    assert len(BAD_ONLINE) >= 30


@pytest.mark.parametrize("bad", BAD_ONLINE, ids=lambda bad: bad.name)
def test_it_is_told_in_two_lines(bad: Bad):
    with pytest.raises(UserError) as raised:
        planned(bad.overlay)
    problem, remedy = str(raised.value).split("\n")
    assert bad.problem in problem
    assert bad.remedy in remedy
    assert "hush" not in str(raised.value)


def test_a_harness_that_is_not_installed_is_told_with_where_its_version_stands():
    config = read_config(merged_with("{modes: [online], harness: guidellm}"))
    engine = dataclasses.replace(probe_engine(None), harnesses={})
    with pytest.raises(UserError) as raised:
        expand(config, engine)
    problem, remedy = str(raised.value).split("\n")
    assert problem.startswith("config: harness: guidellm is not installed in ")
    assert "requirements/guidellm.in" in remedy


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/v1", "http://[::1]:8000/v1/", "https://models.example/team/v1", "HTTP://h/v1"]
)
def test_an_address_up_to_v1_is_good(url: str):
    (experiment,) = planned(
        f"{{modes: [online], models: [], endpoints: {{a: {{url: '{url}', model: m}}}}}}"
    ).experiments
    assert experiment.spec.endpoint is not None
    assert experiment.spec.endpoint.url == url.rstrip("/")


def test_a_header_may_hold_a_variable_among_other_text():
    headers = "headers: {Authorization: 'Basic ${LOGIN}', X-Team: blue}"
    (experiment,) = planned(f"{{modes: [online], models: [], endpoints: {{a: {{{ADDRESS}, {headers}}}}}}}").experiments
    assert experiment.spec.endpoint is not None
    assert experiment.spec.endpoint.headers == {"Authorization": "Basic ${LOGIN}", "X-Team": "blue"}


def test_endpoints_can_be_each_other_s_baseline():
    two = f"endpoints: {{a: {{{ADDRESS}}}, b: {{{ADDRESS}, model_name: other}}}}"
    for name in ("a", "other"):
        found = planned(f"{{modes: [online], models: [], {two}, baseline: {{quant: null, model: {name}}}}}")
        assert [experiment.spec.model.name for experiment in found.experiments] == ["a", "other"]
