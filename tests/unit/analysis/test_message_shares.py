"""What messages take of a decode step: numbers known before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from synthetic_messages import make_messages, make_messages_spec

from rollout_bench.analysis.inside.message_links import MessagesRun, link_uses, message_runs
from rollout_bench.analysis.inside.message_shares import run_shares
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.experiments import chosen
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import record_path, write_messages


def run_of(results: Path, spec: Spec, *steps_s: float) -> MessagesRun:
    """Return the run of launches with steps of `steps_s`."""
    for launch, step_s in enumerate(steps_s):
        record, rows = make_messages(spec, launch, step_s=step_s)
        path = record_path(results, "messages", spec.experiment(), launch)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_messages(path, record, rows)
    ((run,), _) = message_runs(results, chosen(collect(results, None).others))
    return run


def test_a_step_waits_for_the_worker_not_the_front_end(tmp_path: Path):
    (shares,) = run_shares([run_of(tmp_path, make_messages_spec(workers=2), 1e-3)], 0.95)
    launch = shares.steps[0].launches[0]
    assert launch.engine_s == pytest.approx(2 * 6e-6)  # there and back, each 1 + (52 - 50) + 3 us
    assert launch.slowest_s == pytest.approx(2 * 6e-6 + 10e-6)  # the second worker gets it 10 us later
    assert launch.front_end_s == pytest.approx(6e-6)  # outputs; requests come before the first step only
    assert (launch.engine, launch.slowest, launch.front_end) == pytest.approx((0.012, 0.022, 0.006))


def test_the_interval_is_student_s_over_launches(tmp_path: Path):
    spec = make_messages_spec()
    (shares,) = run_shares([run_of(tmp_path, spec, 1e-3, 1.1e-3, 1.2e-3)], 0.9)
    found = shares.steps[0].estimated("engine")
    values = [0.012, 0.012 / 1.1, 0.012 / 1.2]
    low, high = stats.t.interval(0.9, 2, np.mean(values), stats.sem(values))
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(values), low, high))
    (single,) = run_shares([run_of(tmp_path / "one", spec, 1e-3)], 0.9)
    assert single.steps[0].estimated("engine").low is None


def test_a_link_takes_the_sum_of_its_messages(tmp_path: Path):
    found = {
        (use.batch, use.phase, use.link): use for use in link_uses(run_of(tmp_path, make_messages_spec(), 1e-3, 2e-3))
    }
    requests = found[8, "prefill", "front_end_to_core"]
    assert (requests.messages, requests.size_bytes, requests.distance) == (8, 8 * 500, None)
    assert requests.busy_s == pytest.approx(8 * 6e-6)  # 1 + (52 - 50) + 3 us
    decode = found[8, "decode", "core_to_workers"]
    assert (decode.steps, decode.messages, decode.size_bytes, decode.distance) == (6, 1, 1000, 40)
    assert decode.share == pytest.approx((6e-6 / 1e-3 + 6e-6 / 2e-3) / 2)


def test_a_row_of_an_unrecorded_step_costs_its_launch(tmp_path: Path):
    spec = make_messages_spec()
    for launch in (0, 1):
        record, rows = make_messages(spec, launch)
        rows[-1] = rows[-1].model_copy(update={"step": 99 if launch else rows[-1].step})
        write_messages(record_path(tmp_path, "messages", spec.experiment(), launch), record, rows)
    ((run,), problems) = message_runs(tmp_path, chosen(collect(tmp_path, None).others))
    assert [launch.record.launch for launch in run.launches] == [0]
    assert f"line {len(rows)}: is of step 99" in problems[0]
