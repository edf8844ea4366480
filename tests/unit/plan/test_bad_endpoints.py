"""Every wrong endpoint, arrival, harness or limit is told in two lines before anything runs, and no secret with it."""

from __future__ import annotations

import pytest
from planned import planned

ADDRESS = "url: 'http://h/v1', model: m"


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
