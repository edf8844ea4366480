"""`check` tells what this machine has, even where a part of it is broken."""

from pathlib import Path

import pytest

from rollout_bench.commands import check
from rollout_bench.core import installed
from rollout_bench.core.errors import UserError


def script(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def test_a_driver_that_hangs_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    script(tmp_path, "nvidia-smi", "#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(check, "ANSWERS_S", 0.2)
    problems: list[UserError] = []
    assert list(check.device_facts("cuda", problems)) == []
    assert [str(problem) for problem in problems] == ["nvidia-smi gives no answer in 0.2 s\n  -> check the driver"]


def test_a_harness_without_its_interpreter_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    script(tmp_path, "inference-perf", f"#!{tmp_path}/gone/python3\n")
    monkeypatch.setattr(installed.sys, "executable", str(tmp_path / "python3"))  # its folder comes before PATH
    assert installed.python_of("inference-perf") == f"{tmp_path}/gone/python3"
    assert "inference-perf" not in installed.installed_engine()["harnesses"]


def test_gpus_whose_memory_others_hold_are_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    script(tmp_path, "nvidia-smi", "#!/bin/sh\necho 'NVIDIA H100, 81559 MiB, 79000 MiB'\necho 'A, 100 MiB, 15 MiB'\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    facts = list(check.device_facts("cuda", []))
    assert list(check.without_room(facts, 0.8)) == []
    (problem,) = check.without_room(facts, 0.9)
    assert problem.problem == "no GPU has 0.9 of its memory free, as an engine needs: 15 % or more is in use"


def test_a_model_whose_type_the_engine_does_not_know_is_a_problem(tmp_path: Path):
    found = {name: tmp_path / name for name in ("known", "vllms", "unknown", "own")}
    for name, config in {
        "known": '{"model_type": "qwen3"}',
        "vllms": '{"model_type": "medusa"}',  # of vLLM's own list
        "unknown": '{"model_type": "qwenn3"}',
        "own": '{"model_type": "qwenn3", "auto_map": {"AutoConfig": "mine.Config"}}',
    }.items():
        found[name].mkdir()
        (found[name] / "config.json").write_text(config)
    (problem,) = check.unread_models([*found.values()])
    assert problem.problem.startswith(f"{found['unknown']}/config.json: the engine cannot read it: ")
    assert "qwenn3" in problem.problem


def test_an_engine_that_reads_no_model_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen3"}')
    (tmp_path / "transformers.py").write_text("raise ImportError('libtorch.so is missing')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    (broken,) = check.unread_models([folder])
    assert broken.problem == f"{folder}/config.json: the engine cannot read it: ImportError: libtorch.so is missing"
    (tmp_path / "transformers.py").write_text("import no_such_module")
    (absent,) = check.unread_models([folder])
    assert absent.remedy == "name in engine.python the Python that has vLLM", "the model is not at fault"
