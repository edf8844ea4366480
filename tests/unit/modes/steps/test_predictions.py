"""A prediction counts each sequence of an iteration once, and two calibrations err independently."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from samples.steps import save_steps, steps_spec
from synthetic_records import make_spec

from rollout_bench.checkpoints.shapes import SyntheticModel
from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.spec import ModelSpec, Spec
from rollout_bench.contracts.steps import StepWork
from rollout_bench.core.errors import UserError
from rollout_bench.modes.steps import predict_commands as predict
from rollout_bench.modes.steps.predict import prediction
from rollout_bench.modes.steps.predict.calibrations import calibration_of, calibrations
from rollout_bench.modes.steps.predict.prediction import Predictor
from rollout_bench.modes.steps.predict.replay import Replayed, ReplayJob
from rollout_bench.plan.config import PredictionSettings

needs_rollout = pytest.mark.skipif("rollout" not in MODES, reason="iterations of mode rollout are predicted")

SHAPE = SyntheticModel(preset="qwen3-tiny").resolve().model_dump()


def of_tiny(spec: Spec) -> Spec:
    return spec.model_copy(update={"model": spec.model.model_copy(update={"synthetic": SHAPE}), "platform": "cuda"})


class AllAtOnce:
    """A scheduler that decodes all sequences of an engine together, from the first step on."""

    def answer(self, job: ReplayJob, name: str) -> Replayed:
        tokens, batch = [each.output_tokens for each in job.sequences], len(job.sequences)
        work = {"prefills": 0, "prefill_tokens": 0, "prefill_pairs": 0, "decodes": batch}
        step = StepWork(**work, context_tokens=20 * batch, kv_tokens=20 * batch)
        finished = [amount - 1 for amount in tokens]
        return Replayed(steps=[step] * max(tokens), finished=finished, preemptions=0, kv_peak_blocks=8)


@needs_rollout
def test_engines_without_a_sequence_are_not_waited_for(tmp_path: Path):
    save_steps(tmp_path, of_tiny(steps_spec()), 0)
    more = {"mode": "rollout", "prompts": 4, "iterations": 3, "rollout": {"router": "sticky"}}
    spec = of_tiny(make_spec(args={"data_parallel_size": 8}, **more))  # type: ignore[arg-type]
    calibration = calibration_of(spec, calibrations(tmp_path))
    found = Predictor(AllAtOnce()).predict(spec, calibration, range(2), "", None)  # type: ignore[arg-type]
    assert (found.output_tokens, found.length, found.steps) == (4 * 4 * 32, 32, 32)


@needs_rollout
def test_text_has_the_tokenizer_of_launches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save_steps(tmp_path, of_tiny(steps_spec()), 0)
    spec = of_tiny(make_spec(args={"tokenizer": "other", "trust_remote_code": True}, mode="rollout", rollout={}))
    asked: list[tuple[object, ...]] = []
    made = prediction.Source
    monkeypatch.setattr(prediction, "Source", lambda *words: asked.append(words) or made(*words[:2], ""))
    found = calibration_of(of_tiny(make_spec(mode="rollout", rollout={})), calibrations(tmp_path))
    Predictor(AllAtOnce()).predict(spec, found, range(1), "model", None)  # type: ignore[arg-type]
    assert asked == [(spec.workload, prediction.VOCABULARY, "other", None, True)]


def test_a_hub_models_config_comes_from_the_cache(tmp_path: Path):
    spec = make_spec(args={"download_dir": str(tmp_path), "revision": "a" * 40})
    spec = spec.model_copy(update={"model": ModelSpec(name="m", weights="hub:owner/name")})
    with pytest.raises(UserError, match=r"owner/name: has no config\.json here") as caught:
        prediction.config_folder(spec, "owner/name", tmp_path)
    assert "hf download owner/name" in caught.value.remedy
    kept = tmp_path / "models--owner--name" / "snapshots" / ("a" * 40)
    kept.mkdir(parents=True)
    (kept / "config.json").write_text('{"hidden_size": 64}')
    prediction.config_folder(spec, "owner/name", tmp_path)
    assert (tmp_path / "config.json").read_text() == '{"hidden_size": 64}'


def test_errors_of_two_calibrations_do_not_cancel(tmp_path: Path):
    for quant, slow in (("bf16", 1.0), ("w8a8", 1.05)):
        for launch in range(3):
            save_steps(tmp_path, steps_spec(quant), launch, slow * (1 + 0.1 * launch))
    work = {"prefills": 0, "prefill_tokens": 0, "prefill_pairs": 0, "decodes": 4}
    steps = [StepWork(**work, context_tokens=80, kv_tokens=80)] * 9
    one, other = (np.log(each.model().total_draws(steps, [8])[:, 0]) for each in calibrations(tmp_path))
    assert np.std(one - other) == pytest.approx(np.hypot(np.std(one), np.std(other)), rel=0.2)


def test_a_drift_without_upper_end_breaks_every_bound():
    spec = make_spec()
    made = SimpleNamespace(spec=spec, complete=lambda percent: SimpleNamespace(value=1.0))
    reason = predict.broken_bounds(SimpleNamespace(made=made), PredictionSettings(drift_nats=0.1), [(spec, np.inf)])  # type: ignore[arg-type]
    assert "has no upper end" in reason
