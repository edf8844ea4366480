"""`rollout-bench run`, `plan` and `check` are the workflow's; `plan` and `check` hold up nothing that runs."""

import json
import os
import shutil
from pathlib import Path
from unittest.mock import Mock

import filelock
import pytest
from workspace import Workspace, with_stand_in

from rollout_bench.plan.results_state import ResultsState
from rollout_bench.plan.schedule import Schedule
from rollout_bench.rules.run import keep_plan


def test_run_measures_and_says_where_nothing_is_to_be_done(tmp_path: Path) -> None:
    space = with_stand_in(tmp_path, launches=1)
    done = space.bench("run", "--cores", "1")
    assert done.returncode == 0, done.stdout
    assert len(space.records) == 2
    assert (
        "2 launches to run: time unknown before one is measured; the run then tells what is left"
        in done.stdout.splitlines()
    )
    assert done.stdout.count("\nConclusion\n  ") == 1
    assert "results/summary.html" in done.stdout
    # what Snakemake says of the run and of each job
    shown = ("localrule", "    wildcards:", "    resources:", "jobid:", "Building DAG", "Execute 1 jobs", "steps (")
    assert [words for words in shown if words in done.stdout] == []
    again = space.bench("run", "--cores", "1")
    assert again.returncode == 0
    assert "Nothing to be done" in again.stdout
    assert again.stdout.count("\nConclusion\n  ") == 1


def test_no_file_of_the_users_folder_is_taken_for_a_module(tmp_path: Path) -> None:
    space = with_stand_in(tmp_path, launches=1, quants=["bf16"])
    for name in ("platform.py", "secrets.py", "vllm/__init__.py", "yaml/__init__.py"):
        path = space.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"open({str(tmp_path / 'executed')!r}, 'a').write({name!r})\nraise SystemExit({name!r})\n")
    done = space.bench("run", "--cores", "1")
    assert not (tmp_path / "executed").exists(), (tmp_path / "executed").read_text()
    assert done.returncode == 0, done.stdout


def test_plan_beside_a_run_touches_nothing(tmp_path: Path) -> None:
    space = with_stand_in(tmp_path)
    assert "\n0 of 12 launches done, 12 to run, time unknown" in space.bench("plan").stdout
    results = space.path / "results"
    mark = results / "blocks" / "offline" / "mark"
    mark.parent.mkdir(parents=True)
    mark.touch()
    plan = results / "plan.json"
    before = plan.read_bytes(), plan.stat().st_mtime_ns
    with filelock.FileLock(results / ".lock"):  # as a run holds it
        done = space.bench("plan", "--config", "launches={offline: 7}")
    assert done.returncode == 0, done.stdout
    assert "0 of 14 launches done" in done.stdout, "of this call, not of the run"
    assert (plan.read_bytes(), plan.stat().st_mtime_ns, mark.exists()) == (*before, True)


def test_plan_of_results_that_cannot_be_written_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write wherever the file system can
    keep_plan(ResultsState(Mock(spec=Schedule), tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_check_ends_in_the_lines_of_the_problems_it_finds(tmp_path: Path) -> None:
    nowhere = tmp_path / "models" / "tiny-lama"
    nowhere.with_name("tiny-llama").mkdir(parents=True)
    model = {"own": {"weights": {"bf16": str(nowhere)}}}
    space = Workspace(tmp_path / "workspace", {"models": ["own"], "quants": ["bf16"], "model_settings": model})
    done = space.bench("check")
    assert done.returncode == 1
    said = done.stdout.splitlines()
    assert "1 problem found" in said
    assert f"problem: {nowhere}: no model there: no such folder" in said
    assert any(line.startswith("engine: ") for line in said), "all that a bug report needs, not the problem alone"
    assert [words for words in ("RuleException", "CalledProcessError", "Traceback") if words in done.stdout] == []


def test_plan_names_what_run_refuses(tmp_path: Path) -> None:
    nowhere = tmp_path / "downloaded" / "model"
    own = {"own": {"weights": {"bf16": str(nowhere)}}}
    space = with_stand_in(tmp_path, models=["own"], quants=["bf16"], launches=1, model_settings=own)
    problem = f"{nowhere}: no model there: no such folder"
    assert f"problem here: {problem}" in space.bench("plan").stdout.splitlines()
    run = space.bench("run", "--cores", "1")
    assert run.returncode == 1
    assert run.stdout.count(problem) == 1
    assert not any(space.records)


def test_check_that_finds_none_ends_with_status_0(tmp_path: Path) -> None:
    done = Workspace(tmp_path / "workspace").bench("check")
    assert done.returncode == 0, done.stdout
    assert "no problem found" in done.stdout.splitlines()


def test_a_deep_check_that_fails_writes_what_was_said_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hush-4711")
    script = "echo the token is $HF_TOKEN; exit 3"
    space = Workspace(tmp_path / "workspace", {"engine": {"before": ["sh", "-c", script]}})
    space.with_made_engine().with_deep_launches(1)  # no engine starts, so vLLM need not be imported
    done = space.bench("check", "--deep")
    assert done.returncode == 1
    assert any(line.startswith("not ok:     launches:") and "status 3" in line for line in done.stdout.splitlines())
    report = (space.path / "rollout-bench-check.json").read_text()
    assert "hush" not in report
    assert [line for lines in json.loads(report)["logs"].values() for line in lines if "the token is" in line]


def test_a_deep_check_is_not_of_servers(tmp_path: Path) -> None:
    done = Workspace(tmp_path / "workspace").bench("check", "--deep", "--configfile", "config/endpoint.yaml")
    assert (done.returncode, "and all of this config are at endpoints" in done.stdout) == (1, True), done.stdout


def test_plan_names_what_changes_nothing(tmp_path: Path) -> None:
    settings = {"served": {"placement": {"where": "server"}, "engine_args": {"max_num_seqs": 8}}}
    space = with_stand_in(tmp_path, settings=["default", "served"], setting_settings=settings)
    said = space.bench("plan", "--config", "workload_settings={samll: {prompts: 4}, small-2: {prompts: 8}}").stdout
    assert "workload_settings.samll: changes nothing, since samll is not selected; did you mean 'small'?" in said
    assert "workload_settings.small-2: changes nothing, since small-2 is not selected; workloads: [small, small" in said
    assert (
        "The settings are not compared with each other; `--config 'baseline={quant: bf16, setting: default}'` does."
        in said
    )
    assert "setting served: its keys of placement change nothing, since mode placement is not measured" in said


def test_a_whole_config_over_another_one_is_told_what_it_inherits(tmp_path: Path) -> None:
    space = with_stand_in(tmp_path, lora=None)
    (space.path / "mine.yaml").write_text((space.path / "config.yaml").read_text().replace("lora: null", ""))
    said = space.bench("plan", "--configfile", "mine.yaml").stdout
    assert "mine.yaml: the other keys are those of config.yaml: " in said
    assert "lora\n  -> --replace-workflow-config leaves them out\n" in said
    alone = space.bench("plan", "--replace-workflow-config", "--configfile", "mine.yaml").stdout
    assert "those of config.yaml" not in alone
    (space.path / "part.yaml").write_text("launches: 5\n")
    part = space.bench("plan", "--configfile", "part.yaml").stdout
    assert "those of config.yaml" in part
    assert "--replace-workflow-config" not in part, "alone it would be no config"


def test_plan_of_another_folder_is_made_there(tmp_path: Path) -> None:
    space = with_stand_in(tmp_path)
    (space.path / "sub").mkdir()
    shutil.copy(space.path / "config.yaml", space.path / "sub")
    done = space.bench("plan", "--directory", "sub")
    assert "0 of 12 launches done, 12 to run" in done.stdout
    assert (space.path / "sub" / "results" / "plan.json").exists()
