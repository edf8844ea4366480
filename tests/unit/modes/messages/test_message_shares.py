"""What messages take of a decode step: numbers known before."""

from pathlib import Path

import numpy as np
import pytest
from samples.messages import make_messages, make_messages_spec
from scipy import stats

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.experiments import measured_experiments
from rollout_bench.contracts.store import record_path, write_launched
from rollout_bench.modes.messages.links import MessagesRun, message_runs, step_shares


def run_of(results: Path, *steps_s: float) -> MessagesRun:
    """Return the run of launches with steps of `steps_s`."""
    spec = make_messages_spec()
    for launch, step_s in enumerate(steps_s):
        path = record_path(results, "messages", spec.experiment(), launch)
        write_launched(path, make_messages(spec, launch, step_s=step_s))
    (run,) = message_runs(measured_experiments(collect(results, None).others))
    return run


def test_the_interval_is_student_s_over_launches(tmp_path: Path):
    found = step_shares(run_of(tmp_path, 1e-3, 1.1e-3, 1.2e-3), 0.9)[0]
    values = [0.01, 0.01 / 1.1, 0.01 / 1.2]  # two messages of 2 + 3 us
    ends = stats.t.interval(0.9, 2, np.mean(values), stats.sem(values))
    assert (found.launches, found.value, found.ends) == (
        pytest.approx(tuple(values)),
        pytest.approx(np.mean(values)),
        pytest.approx(ends),
    )
    assert step_shares(run_of(tmp_path / "one", 1e-3), 0.9)[0].ends == ()
