"""An experiment is predicted from a calibration of the engine that it uses, or from none."""

from pathlib import Path

import pytest
from comparing import summarised
from samples.steps import save_steps, steps_spec
from synthetic_records import INVALID, make_spec

from rollout_bench.contracts.forecasts import same_but_engine_version
from rollout_bench.contracts.lora import Lora
from rollout_bench.core.errors import UserError
from rollout_bench.modes.steps.predict.calibrations import calibration_of, calibrations


def test_settings_of_the_scheduler_need_no_other_calibration(tmp_path: Path):
    for launch in range(2):
        save_steps(tmp_path, steps_spec(), launch)
    found = calibration_of(make_spec(args={"max_num_seqs": 4, "max_num_batched_tokens": 64}), calibrations(tmp_path))
    assert [len(steps) for steps in found.steps] == [found.launches[0].steps] * 2


def test_another_engine_says_what_differs(tmp_path: Path):
    save_steps(tmp_path, steps_spec(), 0)
    with pytest.raises(UserError, match=r"another engine: args is .*fp8"):
        calibration_of(make_spec(args={"kv_cache_dtype": "fp8"}), calibrations(tmp_path))


def test_an_adapter_is_predicted_from_a_calibration_with_the_same_one(tmp_path: Path):
    with_adapter = {rank: {"lora": Lora(rank=rank)} for rank in (8, 16)}
    save_steps(tmp_path, steps_spec().model_copy(update=with_adapter[16]), 0)
    made = calibrations(tmp_path)
    assert calibration_of(make_spec().model_copy(update=with_adapter[16]), made).spec.lora == Lora(rank=16)
    for other in (make_spec(), make_spec().model_copy(update=with_adapter[8])):
        with pytest.raises(UserError, match=r"another engine: lora is .*'rank': 16"):
            calibration_of(other, made)


def test_a_calibration_of_another_version_serves_until_there_is_one(tmp_path: Path):
    own = make_spec()
    engine = own.engine.model_copy(update={"version": "9.9.9"})
    newer = own.model_copy(update={"engine": engine})
    save_steps(tmp_path, steps_spec(), 0)
    assert calibration_of(newer, calibrations(tmp_path)).spec.engine.version == own.engine.version
    save_steps(tmp_path, steps_spec().model_copy(update={"engine": engine}), 0)
    assert calibration_of(newer, calibrations(tmp_path)).spec.engine.version == "9.9.9"
    assert calibration_of(own, calibrations(tmp_path)).spec.engine.version == own.engine.version
    assert same_but_engine_version(own, newer)
    assert not same_but_engine_version(own, make_spec(args={"max_num_seqs": 4}))


def test_replicas_divide_the_cores_of_a_cpu(tmp_path: Path):
    save_steps(tmp_path, steps_spec(), 0)
    with pytest.raises(UserError, match="another engine"):
        calibration_of(make_spec(args={"data_parallel_size": 2}), calibrations(tmp_path))


def test_an_invalid_launch_calibrates_nothing(tmp_path: Path):
    save_steps(tmp_path, steps_spec(), 0, flags=[INVALID])
    with pytest.raises(UserError, match="no valid calibration") as caught:
        calibration_of(make_spec(), calibrations(tmp_path))
    assert "modes=[steps]" in str(caught.value)


def test_a_calibration_of_no_single_sequence_is_summarised(tmp_path: Path):
    save_steps(tmp_path / "results", steps_spec(), 0, batches=(2, 3, 4, 6, 8))
    summarised(tmp_path, "results", "--all")
    summary = " ".join((tmp_path / "results" / "summary.txt").read_text().split())
    assert "A decode step takes 2.43 ms with 2 sequences and 3.69 ms with 8." in summary
