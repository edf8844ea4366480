"""Weights that a config names: a folder that is not there is told when it is planned, where it could be seen."""

from pathlib import Path
from types import SimpleNamespace

import planned
import pytest

from rollout_bench import snakefile
from rollout_bench.plan.checks import absent_model

NAMED = "models: [own], quants: [bf16], model_settings: {own: {weights: {bf16: tiny-lama}}}"


@pytest.fixture(autouse=True)
def _models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "tiny-llama").mkdir(parents=True)
    (tmp_path / "models" / "tiny-llama" / "config.json").write_text("{}")


def plan(more: str = "", *, on_cluster: bool = False, is_main: bool = True) -> None:
    merged = planned.merged_with(f"{{{NAMED}{more}}}")
    snakefile.plan_workflow(merged, SimpleNamespace(configfiles=[], config={}), on_cluster, is_main=is_main)


def test_an_error_for_a_misspelt_folder_names_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        plan()
    assert end.value.code == 1
    problem, remedy = capsys.readouterr().err.splitlines()
    assert problem == "config: model_settings.own.weights: models/tiny-lama: no model there: no such folder"
    assert remedy == "  -> did you mean 'models/tiny-llama'?"


def test_a_folder_without_a_model_in_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("models/tiny-lama").mkdir()
    with pytest.raises(SystemExit):
        plan()
    assert "models/tiny-lama: no model there: it has no config.json" in capsys.readouterr().err


def test_a_folder_with_a_model_is_none_to_speak_of() -> None:
    Path("models/tiny-llama").rename("models/tiny-lama")
    assert absent_model(Path("models/tiny-lama")) is None
    plan()


@pytest.mark.parametrize(
    "more", [", model_base: elsewhere", ", platform: cuda", ", kubernetes: {image: 'bench:1', models_claim: w}"]
)
def test_what_another_machine_may_have_is_planned(more: str) -> None:
    plan(more)


def test_neither_cluster_plans_nor_jobs_look_for_weights() -> None:
    plan(on_cluster=True)
    plan(is_main=False)
