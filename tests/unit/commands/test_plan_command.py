"""The command plan: what it prints of launches that are done, failed or missing, in every mode."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from samples.profile import BF16, make_profile, make_steps
from synthetic_records import INVALID, make_failure, make_plan, make_record, make_spec, save

from rollout_bench.commands import plan as command
from rollout_bench.contracts.record import Flag
from rollout_bench.contracts.store import record_path, write_launched
from rollout_bench.plan.planfile import PlanFile

SPEC = make_spec()


@pytest.fixture
def said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[PlanFile], str]:
    """Return a function that shows a plan and returns what it printed."""

    def show(plan: PlanFile) -> str:
        command.show(plan, tmp_path)
        return capsys.readouterr().out

    return show


def test_complete_records_of_every_mode_are_done(tmp_path: Path, said: Callable[[PlanFile], str]) -> None:
    profile = make_profile(steps=make_steps(BF16))
    save(tmp_path, make_record(SPEC))
    write_launched(record_path(tmp_path, profile.spec.mode, profile.spec.experiment(), profile.launch), profile)
    told = said(make_plan([SPEC, profile.spec], launches=1))
    assert "2 of 2 launches done, 0 to run" in told
    assert "failed:" not in told


def test_a_failure_names_phase_and_log_of_its_launch(tmp_path: Path, said: Callable[[PlanFile], str]) -> None:
    failure = make_failure(SPEC)
    save(tmp_path, failure)
    assert (
        f"failed: {failure.experiment} launch 0: initializing: {failure.cause}\n  -> {failure.fix} (log: {failure.log})"
    ) in said(make_plan([SPEC], launches=1))


def test_invalid_launches_are_counted(tmp_path: Path, said: Callable[[PlanFile], str]) -> None:
    flags = {1: [INVALID], 2: [Flag(code="not_steady", severity="warning", sentence="Slower.")]}
    save(tmp_path, *(make_record(SPEC, launch, flags=flags.get(launch, ())) for launch in range(3)))
    plan = make_plan([SPEC], launches=4)
    told = said(plan)
    for words in ("invalid: 1 launch of those done", "3 of 4 launches done (1 invalid), 1 to run"):
        assert words in told
    record = str(record_path(Path(plan.results), "offline", SPEC.experiment(), 1))
    again = said(plan.model_copy(update={"again": [record]}))
    assert ("invalid:" in again, "2 of 4 launches done, 2 to run" in again) == (False, True)


def test_a_damaged_record_is_told_of_with_what_to_do(tmp_path: Path, said: Callable[[PlanFile], str]) -> None:
    save(tmp_path, make_record(SPEC, 0, [400.0]))
    path = record_path(tmp_path, "offline", SPEC.experiment(), 0)
    path.write_text(path.read_text()[:100])
    told = said(make_plan([SPEC], launches=1))
    assert re.search(r"^damaged: 1 record of those done.*move them away", told, re.MULTILINE)
    assert f"\ndamaged: {path}: is not whole JSON" in told
