"""Each category of failure is in the failure file of its launch, at the phase in which it happened."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from launching import tiny_spec

from rollout_bench.contracts.failure_kinds import FAILURES
from rollout_bench.contracts.failures import NODE_STATUS, Cause
from rollout_bench.contracts.record import Failure
from rollout_bench.contracts.store import failure_path, read_failure, record_path
from rollout_bench.core.errors import MeasuringFailed, UserError
from rollout_bench.core.processes import Interrupted
from rollout_bench.measure.engine.worker import failure_event
from rollout_bench.measure.launch.outcome import LaunchOutcome, recording_failure
from rollout_bench.measure.launch.processes import LaunchFailed
from rollout_bench.measure.machine.device import DeviceError


def outcome(folder: Path) -> LaunchOutcome:
    spec = tiny_spec()
    log = folder / "launch.log"
    log.write_text("of the engine\n")
    return LaunchOutcome(spec, 0, record_path(folder, spec.mode, spec.experiment(), 0), log)


def recorded(folder: Path, error: Exception, phase: str, of_job: Callable[[], Cause | None] = lambda: None) -> Failure:
    """Return the failure of a launch whose supervisor raises `error` while its engine is in `phase`."""
    launch = outcome(folder)
    with pytest.raises(UserError) as raised, recording_failure(launch, lambda: phase, of_job):
        raise error
    failure = read_failure(failure_path(launch.out))
    assert str(raised.value).startswith(f"{launch.spec.title} launch 0: {failure.phase}: {failure.cause}\n  -> ")
    assert raised.value.status == (NODE_STATUS if FAILURES[failure.category].of_node else 1)
    return failure


@pytest.mark.parametrize("phase", ["starting", "measuring"])
@pytest.mark.parametrize("category", FAILURES)
def test_a_category_is_recorded_at_the_phase_of_the_launch(tmp_path: Path, category: str, phase: str):
    failure = recorded(tmp_path, MeasuringFailed(category, "it broke", "mend it"), phase)
    assert (failure.category, failure.phase, failure.cause, failure.fix) == (category, phase, "it broke", "mend it")
    assert (tmp_path / "launch.log").read_text() == "of the engine\nit broke\n  -> mend it\n"


@pytest.mark.parametrize("category", FAILURES)
def test_a_category_of_one_process_is_recorded_at_the_phase_and_with_the_log_of_that_process(
    tmp_path: Path, category: str
):
    error = LaunchFailed("warmup", Cause(category, "it broke", "mend it"), tmp_path / "launch.replica-1.log")
    failure = recorded(tmp_path, error, "measuring")
    assert (failure.category, failure.phase, failure.log) == (category, "warmup", str(error.log))
    assert (tmp_path / "launch.log").read_text() == "of the engine\n"


@pytest.mark.parametrize(
    ("error", "phase", "category", "words"),
    [
        (UserError("there is no room", "make some"), "writing", "not_written", "-> make some"),
        (UserError("m: has no tokenizer that works", "add one"), "initializing", "no_tokenizer", "-> add one"),
        (UserError("unheard of", "ask"), "warmup", "crash", "-> ask"),
        (DeviceError("too_few_devices", "2 of 4 are there", "add some"), "starting", "too_few_devices", "-> add some"),
        (OSError(errno.ENOSPC, "is full", "a.json"), "measuring", "disk_full", "a.json"),
        (OSError(errno.EACCES, "not allowed", "a.json"), "stopping", "not_written", "a.json"),
        (KeyError("x"), "measuring", "crash", "Traceback"),
    ],
)  # fmt: skip
def test_other_errors_have_a_category_and_keep_their_phase_and_the_engines_log(
    tmp_path: Path, error: Exception, phase: str, category: str, words: str
):
    failure = recorded(tmp_path, error, phase)
    assert (failure.category, failure.phase) == (category, phase)
    log = (tmp_path / "launch.log").read_text()
    assert log.startswith("of the engine\n")
    assert words in log


NO_TEMPLATE = UserError("m: its tokenizer has no chat template", "name another model")


@pytest.mark.parametrize(
    ("error", "category", "cause", "fix"),
    [
        (NO_TEMPLATE, "crash", NO_TEMPLATE.problem, NO_TEMPLATE.remedy),
        (UserError("m: has no tokenizer that works", "add"), "no_tokenizer", "m: has no tokenizer that works", "add"),
        (MeasuringFailed("wrong_key", "it is refused", "set it"), "wrong_key", "it is refused", "set it"),
        (ValueError("x"), "", "ValueError: x", ""),
    ],
)  # fmt: skip
def test_an_engine_process_tells_what_the_user_can_do(error: Exception, category: str, cause: str, fix: str):
    event = failure_event(error)
    assert (event.category, event.exception, event.fix) == (category, cause, fix)


def test_the_scheduler_knows_better_why_an_engine_crashed(tmp_path: Path):
    error = LaunchFailed("measuring", Cause("crash", "signal 9", "read the log"))
    failure = recorded(tmp_path, error, "measuring", lambda: Cause("preempted", "Slurm took the node", "submit again"))
    assert (failure.category, failure.phase) == ("preempted", "measuring")


def test_an_interrupted_launch_has_no_failure(tmp_path: Path):
    launch = outcome(tmp_path)
    with pytest.raises(Interrupted), recording_failure(launch, lambda: "measuring", lambda: None):
        raise Interrupted(2)
    assert not failure_path(launch.out).exists()
