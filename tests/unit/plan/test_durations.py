"""How long a launch takes is known from a record of the same engine at another load."""

from pathlib import Path

import pytest
from samples.online import make_online, make_online_spec
from synthetic_records import save

from rollout_bench.contracts.load import LoadPoint
from rollout_bench.plan.durations import Cost, cost_at_another_load, first_record


def test_other_rates_take_the_time_in_which_their_requests_arrive_warm_up_included(tmp_path: Path) -> None:
    measured = make_online(make_online_spec(points=[LoadPoint(request_rate=4.0)]))
    save(tmp_path, measured)
    spec = make_online_spec(points=[LoadPoint(request_rate=0.5), LoadPoint(request_rate=0.25)], pause_s=5.0)
    requests = spec.workload.prompts * spec.workload.samples_per_prompt
    warmup, iterations = spec.measuring.warmup_iterations, spec.measuring.iterations
    assert warmup > 0
    passes_s = (requests - 1) / 0.5 + (requests - 1) / 0.25
    found, known = cost_at_another_load(tmp_path, spec, first_record), Cost.of(measured[0])
    assert found is not None
    beside_s = known.rest_s - sum(one.elapsed_s for one in measured[0].iterations)
    assert found.counted_s == pytest.approx(iterations * passes_s)
    assert found.rest_s == pytest.approx(beside_s + (warmup + iterations) * passes_s + 5.0)
