"""Training: the same bytes twice, the model that transformers computes, and formats that hold its weights."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from planned import merged_with, planned
from safetensors.torch import load_file
from train_model import read_training

from rollout_bench.checkpoints.build import build_checkpoint, model_in
from rollout_bench.checkpoints.problems import END, LONG, SHORT, is_right, practice, problems
from rollout_bench.checkpoints.training import TrainedWeights, judged, logits, packed, rate
from rollout_bench.checkpoints.training_settings import TrainedModel
from rollout_bench.checkpoints.weights import StoredWeights
from rollout_bench.core.errors import UserError
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.schedule import schedule

SCRIPTS = Path(__file__).parents[2] / "workflow" / "scripts"
QUICKLY = {"preset": "bytes-tiny", "steps": 12}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Let no thread wait for another one, which shares its core with other tests: that takes longer than all else."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run_command(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(SCRIPTS / script), *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)


def train(folder: Path, **settings: Any) -> Path:
    training = TrainedModel(**{**QUICKLY, **settings}).resolve()
    assert build_checkpoint(training.shape, "bf16", folder, source=TrainedWeights(training, lambda line: None))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "model"
    done = run_command("train_model.py", "--trained", json.dumps(QUICKLY), "--out", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"trained {folder}" in done.stdout
    return folder


@pytest.fixture(scope="module")
def weights(trained: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(trained / "model.safetensors")
    return found


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_same_settings_give_the_same_bytes_and_another_seed_does_not(trained: Path, tmp_path: Path) -> None:
    again, other = train(tmp_path / "again"), train(tmp_path / "other", seed=1)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert digest(trained / name) == digest(again / name)
    assert digest(trained / "model.safetensors") != digest(other / "model.safetensors")


def test_the_folder_says_how_it_was_trained(trained: Path) -> None:
    how = json.loads((trained / "training.json").read_text())
    assert how["steps"] == QUICKLY["steps"]
    assert 0 < how["final_loss"] < how["first_loss"]
    assert set(how["accuracy"]) == {"add", "sort", "copy"}
    assert all(0 <= share <= 1 for share in how["accuracy"].values())


def test_a_model_that_is_there_is_not_trained_again(trained: Path) -> None:
    before = (trained / "model.safetensors").stat().st_mtime_ns
    done = run_command("train_model.py", "--trained", json.dumps(QUICKLY), "--out", str(trained))
    assert (done.returncode, done.stdout) == (0, f"{trained} is already there and whole; left alone\n")
    assert (trained / "model.safetensors").stat().st_mtime_ns == before


def test_the_trained_model_is_the_one_that_transformers_computes(trained: Path, weights: dict[str, Any]) -> None:
    from transformers import Qwen3ForCausalLM  # takes seconds, and not wherever these tests are collected

    shape = TrainedModel(**QUICKLY).resolve().shape
    theirs = Qwen3ForCausalLM.from_pretrained(trained, dtype=torch.float32).eval()
    ids = torch.randint(0, 256, (3, 40), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        ours = logits({name: weight.float() for name, weight in weights.items()}, shape, ids)
        torch.testing.assert_close(ours, theirs(ids).logits, rtol=1e-4, atol=1e-4)


def test_accuracy_is_that_of_decoding_token_by_token(weights: dict[str, torch.Tensor]) -> None:
    shape = TrainedModel(**QUICKLY).resolve().shape
    asked = problems(6, 4)
    exact = {name: weight.float() for name, weight in weights.items()}
    right: dict[str, list[bool]] = {}
    for problem in asked:
        ids = list(problem.prompt_ids)
        with torch.no_grad():
            for _ in range(SHORT.longest_answer):
                ids.append(int(logits(exact, shape, torch.tensor([ids]))[0, -1].argmax()))
        right.setdefault(problem.task, []).append(is_right(problem, ids[len(problem.prompt_ids) :]))
    assert judged(weights, shape, asked) == {task: sum(each) / len(each) for task, each in right.items()}


def test_rows_are_problems_one_after_another_and_only_what_can_be_known_counts_in_full() -> None:
    ids, counts = next(packed(practice(0), 200))
    assert len(ids) == len(counts) == 201
    text = bytes(ids).decode("ascii")
    assert text[0] == chr(END)
    for line in text.strip().split("\n")[:-1]:
        question, _, answer = line.partition("=")
        begin = text.index(f"\n{line}\n") + 1
        assert counts[begin : begin + len(question) + 1] == [0.1] * (len(question) + 1)
        assert counts[begin + len(question) + 1 : begin + len(line) + 1] == [1.0] * (len(answer) + 1)


def test_the_learning_rate_rises_to_the_one_asked_for_and_falls() -> None:
    training = TrainedModel(preset="bytes-tiny", steps=100, learning_rate=0.01).resolve()
    rates = [rate(training, step) for step in range(100)]
    highest = rates.index(max(rates))
    assert max(rates) == pytest.approx(0.01)
    assert rates[: highest + 1] == sorted(rates[: highest + 1])
    assert rates[highest:] == sorted(rates[highest:], reverse=True)
    assert 0 < rates[-1] < 0.001
    assert rate(TrainedModel(preset="bytes-tiny", steps=1).resolve(), 0) > 0


@pytest.mark.parametrize("weights_format", ["compressed-tensors-w8a8", "modelslim-w8a16"])
def test_another_format_holds_the_trained_weights(
    weights_format: str, trained: Path, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    out = tmp_path / "int8"
    shape, how = model_in(trained)
    build_checkpoint(shape, weights_format, out, source=StoredWeights(trained, how))
    assert (out / "training.json").read_text() == (trained / "training.json").read_text()
    (path,) = out.glob("*.safetensors")
    rounded = load_file(path)
    for name, weight in weights.items():
        if (scale := rounded.get(f"{name}_scale")) is None:
            assert torch.equal(weight, rounded[name])
        else:
            assert bool(((rounded[name] * scale.float() - weight.float()).abs() <= 0.505 * scale.float()).all())


def test_what_is_no_trained_model_is_told_in_two_lines(trained: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(trained, damaged)
    (damaged / "model.safetensors").unlink()
    (tmp_path / "empty").mkdir()
    for folder in (damaged, tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(UserError, match="is no whole bf16 checkpoint that"):
            model_in(folder)
    out = tmp_path / "out"
    arguments = ["--source", str(damaged), "--format", "compressed-tensors-w8a8", "--out", str(out)]
    done = run_command("build_checkpoint.py", *arguments)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 2)
    assert not out.exists()
    arguments[1] = str(trained)
    done = run_command("build_checkpoint.py", *arguments)
    assert (done.returncode, done.stdout) == (0, f"built {out}\n")


WRONG = [
    ("bytes-tny", "--trained: preset 'bytes-tny' is unknown; did you mean 'bytes-tiny'?"),
    ('{"step": 3}', "--trained: there is no field 'step': did you mean 'steps'?"),
    ('{"steps": 0}', "--trained: steps: Input should be greater than 0"),
    ("{", "--trained is not valid JSON"),
]


@pytest.mark.parametrize(("settings", "problem"), WRONG)
def test_a_wrong_training_is_told_in_two_lines(settings: str, problem: str) -> None:
    with pytest.raises(UserError) as error:
        read_training(settings)
    assert error.value.problem.startswith(problem)
    assert "bytes-tiny" in error.value.remedy


OVERLAY = "{models: [m], quants: [bf16, w8a8, w8a16], platform: cpu, model_settings: {m: {trained: %s}}}"


def test_every_quant_is_made_of_one_training(tmp_path: Path) -> None:
    matrix = planned(OVERLAY % "{preset: bytes-tiny}")
    by_quant = {e.spec.quant.name: e.checkpoint for e in matrix.experiments}
    bf16, w8a8, w8a16 = (by_quant[quant] for quant in ("bf16", "w8a8", "w8a16"))
    assert bf16 is not None
    assert w8a8 is not None
    assert w8a16 == bf16, "torchao quantizes the bf16 weights while it loads"
    assert w8a8.source == bf16.folder
    assert bf16.arguments[0] == "--trained"
    assert w8a8.arguments == ["--source", bf16.folder, "--format", "compressed-tensors-w8a8"]


@pytest.mark.parametrize(
    "changed", ["{preset: bytes-tiny, seed: 1}", "{preset: bytes-tiny, steps: 7}", "{preset: bytes-small}"]
)
def test_another_training_is_another_model_with_results_of_its_own(changed: str) -> None:
    first, other = planned(OVERLAY % "{preset: bytes-tiny}"), planned(OVERLAY % changed)
    for one, two in zip(first.experiments, other.experiments, strict=True):
        assert one.spec.key() != two.spec.key()
        assert one.model_path != two.model_path


def test_how_long_problems_are_is_part_of_a_training_and_left_out_where_they_are_short() -> None:
    assert "problems" not in TrainedModel(preset="bytes-small").resolve().model_dump(mode="json")
    longer = TrainedModel(preset="bytes-long").resolve()
    assert longer.model_dump(mode="json")["problems"] == "long"
    assert longer.lengths is LONG


def test_the_bf16_weights_are_made_where_only_a_quantization_of_them_is_measured() -> None:
    overlay = (OVERLAY % "{preset: bytes-tiny}").replace("[bf16, w8a8, w8a16]", "[w8a8]")
    plan = schedule(read_config(merged_with(overlay)), planned(overlay))
    (experiment,) = plan.matrix.experiments
    assert experiment.checkpoint is not None
    assert experiment.checkpoint.source is not None
    assert plan.checkpoint_at(experiment.checkpoint.source).arguments[0] == "--trained"
    with pytest.raises(UserError):
        plan.checkpoint_at("models/trained/qwen3-00000000-bf16")
