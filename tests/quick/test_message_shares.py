"""What messages take of a decode step, at which batch that is 5 %, and the law of their bytes: numbers known before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from synthetic_messages import make_messages, make_messages_spec

from rollout_bench.analysis.inside.message_laws import StepBytes, fit_law
from rollout_bench.analysis.inside.message_links import MessagesRun, link_uses, message_runs
from rollout_bench.analysis.inside.message_shares import LaunchShare, StepShare, crossing, run_shares
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


def test_a_step_waits_for_the_worker_that_answers_and_not_for_the_front_end(tmp_path: Path):
    (shares,) = run_shares([run_of(tmp_path, make_messages_spec(workers=2), 1e-3)], 0.95)
    launch = shares.steps[0].launches[0]
    assert launch.engine_s == pytest.approx(2 * 6e-6)  # there and back, each 1 + (52 - 50) + 3 us
    assert launch.slowest_s == pytest.approx(2 * 6e-6 + 10e-6)  # the second worker gets it 10 us later
    assert launch.front_end_s == pytest.approx(6e-6)  # outputs; requests come before the first step only
    assert (launch.engine, launch.slowest, launch.front_end) == pytest.approx((0.012, 0.022, 0.006))


def test_steps_that_decode_fewer_sequences_than_the_pass_has_do_not_count(tmp_path: Path):
    run = run_of(tmp_path, make_messages_spec(), 1e-3)
    (launch,) = run.launches
    fewer = [
        step.model_copy(update={"sequences": 1, "elapsed_s": 1e-6}) if step.index > 1 else step
        for step in launch.record.steps
    ]
    uneven = replace(launch, record=launch.record.model_copy(update={"steps": fewer}))
    (shares,) = run_shares([replace(run, launches=(uneven,))], 0.95)
    assert [step.launches[0].step_s for step in shares.steps] == [1e-3, 1e-3]
    assert {use.steps for use in link_uses(replace(run, launches=(uneven,))) if use.phase == "decode"} == {1}


def test_an_argument_without_a_value_is_one_worker(tmp_path: Path):
    spec = make_messages_spec()
    args = {**spec.engine.args, "tensor_parallel_size": None}
    spec = spec.model_copy(update={"engine": spec.engine.model_copy(update={"args": args})})
    run = run_of(tmp_path, make_messages_spec(), 1e-3)
    record = run.launches[0].record.model_copy(update={"spec": spec})
    assert replace(run, launches=(replace(run.launches[0], record=record),)).workers == 1


def test_the_interval_is_student_s_over_launches(tmp_path: Path):
    spec = make_messages_spec()
    (shares,) = run_shares([run_of(tmp_path, spec, 1e-3, 1.1e-3, 1.2e-3)], 0.9)
    found = shares.steps[0].estimated("engine")
    values = [0.012, 0.012 / 1.1, 0.012 / 1.2]
    low, high = stats.t.interval(0.9, 2, np.mean(values), stats.sem(values))
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(values), low, high))
    (single,) = run_shares([run_of(tmp_path / "one", spec, 1e-3)], 0.9)
    assert single.steps[0].estimated("engine").low is None


@pytest.mark.parametrize(
    ("steps_s", "matters"), [((1e-3, 1.01e-3), "no"), ((1e-4, 1.001e-4), "yes"), ((1e-3,), "open")]
)
def test_messages_matter_where_the_whole_interval_is_above_the_limit(
    tmp_path: Path, steps_s: tuple[float, ...], matters: str
):
    (shares,) = run_shares([run_of(tmp_path, make_messages_spec(), *steps_s)], 0.95)
    assert shares.matters == matters


def steps_of(
    *launches: tuple[float, float, float, float], batches: tuple[int, ...] = (4, 32, 256), noise: float = 0.0
) -> list[StepShare]:
    """Return steps whose messages take a + b x batch of c + d x batch, in each of `launches` (a, b, c, d)."""
    found = []
    for place, batch in enumerate(batches):
        shares = {}
        for number, (a, b, c, d) in enumerate(launches):
            messages_s, step_s = (a + b * batch) * (1 + noise * (place % 2)), c + d * batch
            share = messages_s / step_s
            shares[number] = LaunchShare(messages_s, messages_s, 0.0, step_s, share, share, 0.0)
        found.append(StepShare(batch, shares, 0.95))
    return found


def test_the_batch_of_five_per_cent_is_where_the_laws_of_both_times_meet():
    rises = crossing(steps_of((10e-6, 5e-6, 7e-3, 10e-6)))  # (10 + 5 b) = 0.05 (7000 + 10 b)
    assert (rises.kind, rises.batch) == ("rises", pytest.approx(340 / 4.5))
    assert rises.low is None
    falls = crossing(steps_of((500e-6, 1e-6, 5e-3, 100e-6), (500e-6, 1e-6, 5.2e-3, 100e-6)))
    first, second = 250 / 4, 240 / 4
    assert (falls.kind, falls.batch) == ("falls", pytest.approx((first * second) ** 0.5))
    assert falls.low is not None
    assert falls.high is not None
    assert falls.low < second < first < falls.high


def test_no_batch_is_named_where_there_is_none_within_reach_or_the_law_is_rough():
    assert crossing(steps_of((10e-6, 1e-7, 7e-3, 10e-6))).kind == "below"
    assert crossing(steps_of((900e-6, 2e-6, 7e-3, 10e-6))).kind == "above"
    late = (10e-6, 0.6e-6, 50e-3, 10e-6)  # would be at 24,900
    assert (crossing(steps_of(late)).kind, crossing(steps_of(late)).until) == ("below", 1024)
    assert crossing(steps_of((10e-6, 5e-6, 7e-3, 10e-6), noise=1.0)).kind == "rough"
    assert crossing(steps_of((10e-6, 5e-6, 7e-3, 10e-6), (10e-6, 1e-7, 7e-3, 10e-6))).kind == "unclear"
    assert crossing(steps_of((10e-6, 5e-6, 7e-3, 10e-6), batches=(4, 32))).kind == "few"


def steps_by(fixed: float, per_sequence: float, per_token: float, noise: np.ndarray | None = None) -> list[StepBytes]:
    steps = [
        (batch, index, 64 * batch if index == 0 else 0) for batch in (4, 8, 32) for index in range(16)
    ]  # as the ready config has them
    extra = np.zeros(len(steps)) if noise is None else noise
    return [
        StepBytes(batch, index, batch, new, fixed + per_sequence * batch + per_token * new + more)  # type: ignore[arg-type]
        for (batch, index, new), more in zip(steps, extra, strict=True)
    ]


@given(st.floats(-1e4, 1e4), st.floats(-100, 100), st.floats(-100, 100))
def test_a_law_recovers_the_coefficients_that_bytes_were_made_of(fixed: float, per_sequence: float, per_token: float):
    law = fit_law(steps_by(fixed, per_sequence, per_token), 0.95)
    assert law is not None
    found = (law.fixed.value, law.per_sequence.value, law.per_prompt_token.value)
    assert found == pytest.approx((fixed, per_sequence, per_token), abs=1e-6)
    assert (law.rms_bytes, law.steps) == (pytest.approx(0, abs=1e-6), 48)


def test_an_interval_of_a_law_holds_the_truth_as_often_as_it_promises():
    random = np.random.default_rng(0)
    truth, held = (900.0, 29.0, 5.7), np.zeros(3)
    for _ in range(400):
        law = fit_law(steps_by(*truth, random.normal(0, 20, 48)), 0.9)
        assert law is not None
        found = (law.fixed, law.per_sequence, law.per_prompt_token)
        held += [each.low <= true <= each.high for each, true in zip(found, truth, strict=True)]
    assert np.all(np.abs(held / 400 - 0.9) < 0.05)


def test_a_law_tells_where_it_misses_most_and_is_none_where_a_batch_is_alone():
    noise = np.zeros(48)
    noise[16 + 3] = -500
    law = fit_law(steps_by(900, 29, 5.7, noise), 0.95)
    assert law is not None
    assert (law.worst.batch, law.worst.index) == (8, 3)
    assert law.worst_bytes == pytest.approx(-500, rel=0.1)
    assert fit_law([step for step in steps_by(900, 29, 5.7) if step.batch == 8], 0.95) is None
    assert fit_law([], 0.95) is None
