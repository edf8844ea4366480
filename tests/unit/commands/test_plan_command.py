"""The command plan: what it prints of launches that are done, failed or missing, in every mode."""

from pathlib import Path

import pytest
from synthetic_profiles import BF16, make_profile, make_steps
from synthetic_records import make_failure, make_plan, make_record, make_spec, save

from rollout_bench.commands import plan as command
from rollout_bench.contracts.record import Flag
from rollout_bench.contracts.store import record_path, write_launched


def test_complete_records_of_every_mode_are_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    offline, profile = make_record(make_spec()), make_profile(steps=make_steps(BF16))
    save(tmp_path, offline)
    write_launched(record_path(tmp_path, profile.spec.mode, profile.spec.experiment(), profile.launch), profile)
    command.show(make_plan([offline.spec, profile.spec], launches=1), tmp_path)
    said = capsys.readouterr().out
    assert "2 of 2 launches done, 0 to run" in said
    assert "failed:" not in said


def test_a_failure_names_phase_and_log_of_its_launch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failure = make_failure(make_spec())
    save(tmp_path, failure)
    command.show(make_plan([make_spec()], launches=1), tmp_path)
    lines = capsys.readouterr().out.splitlines()
    (first,) = (number for number, line in enumerate(lines) if line.startswith("failed: "))
    assert lines[first] == f"failed: {failure.experiment} launch 0: initializing: {failure.cause}"
    assert lines[first + 1] == f"  -> {failure.fix} (log: {failure.log})"


def test_invalid_launches_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    invalid = Flag(code="cpu_shared", severity="invalid", sentence="Busy.")
    flags = {1: [invalid], 2: [Flag(code="not_steady", severity="warning", sentence="Slower.")]}
    save(tmp_path, *(make_record(make_spec(), launch, flags=flags.get(launch, ())) for launch in range(3)))
    plan = make_plan([make_spec()], launches=4)
    command.show(plan, tmp_path)
    said = capsys.readouterr().out
    assert "invalid: 1 launch of those done" in said
    assert "3 of 4 launches done (1 invalid), 1 to run" in said
    record = str(record_path(Path(plan.results), "offline", make_spec().experiment(), 1))
    command.show(plan.model_copy(update={"again": [record]}), tmp_path)
    said = capsys.readouterr().out
    assert "invalid:" not in said
    assert "2 of 4 launches done, 2 to run" in said


def test_a_damaged_record_is_told_of_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, make_record(make_spec(), 0, [400.0]))
    path = record_path(tmp_path, "offline", make_spec().experiment(), 0)
    path.write_text(path.read_text()[:100])
    command.show(make_plan([make_spec()], launches=1), tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("damaged: 1 record of those done") and "delete them" in line for line in lines)
    assert any(line.startswith(f"damaged: {path}: is not whole JSON") for line in lines)
