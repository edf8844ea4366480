"""`rollout-bench run`, `plan` and `check` are the workflow's; `plan` and `check` hold up nothing that runs."""

import json
import os
import socket
from pathlib import Path

import filelock
from workspace import Workspace, with_stand_in

from rollout_bench.cluster.ownership import Owner
from rollout_bench.contracts.store import claim_path, word_path
from rollout_bench.core.processes import group_of


def test_plan_prints_the_table_of_what_arguments_select(tmp_path: Path) -> None:
    space = with_stand_in(tmp_path)
    done = space.bench("plan")
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert ["mode", "model", "quant"] in [line.split()[:3] for line in lines]
    assert any(line.startswith("0 of 12 launches done, 12 to run, time unknown") for line in lines)
    (space.path / "mine.yaml").write_text("quants: [bf16]\n")
    fewer = space.bench("plan", "--configfile", "mine.yaml", "--config", "launches={offline: 5}")
    assert "0 of 5 launches done" in fewer.stdout


def test_run_measures_and_says_where_nothing_is_to_be_done(tmp_path: Path) -> None:
    space = with_stand_in(tmp_path, launches=1)
    done = space.bench("run", "--cores", "1")
    assert done.returncode == 0, done.stdout
    assert len(space.records) == 2
    assert "2 launches to run: time unknown, since nothing was measured yet" in done.stdout.splitlines()
    assert "results/summary.md (.html, .csv, .txt): " in done.stdout
    assert "\nConclusion\n  " in done.stdout
    # what Snakemake says of each job, with its indentation: "Finished jobid: 3" is progress, which stays
    shown = ("localrule", "    wildcards:", "    resources:", "    jobid:")
    assert [words for words in shown if words in done.stdout] == []
    again = space.bench("run", "--cores", "1")
    assert again.returncode == 0
    assert "Nothing to be done" in again.stdout


def test_what_is_wrong_is_told_in_full(tmp_path: Path) -> None:
    space = with_stand_in(tmp_path)
    wrong = space.bench("plan", "--config", "qunats=[bf16]")
    assert wrong.returncode == 1
    assert "did you mean 'quants'?" in wrong.stdout
    option = space.bench("run", "--no-such-option")
    assert option.returncode == 2
    assert "--no-such-option" in option.stdout


def test_plan_shows_how_far_a_run_is_and_touches_nothing(tmp_path: Path) -> None:
    space = with_stand_in(tmp_path)
    assert space.bench("plan").returncode == 0
    results = space.path / "results"
    plan = results / "plan.json"
    record = space.path / json.loads(plan.read_text())["launches"][0]["record"]
    owner = Owner(
        host=socket.gethostname(),
        node="n1",
        pid=os.getpid(),
        started_ticks=group_of(os.getpid()).started,
        job=None,
        until_s=1e12,
        log="l.log",
    )
    claim_path(record).parent.mkdir(parents=True)
    claim_path(record).write_text(owner.model_dump_json())
    word_path(record).write_text("iteration 3/8, 87 tok/s\n")
    mark = results / "blocks" / "offline" / "mark"
    mark.parent.mkdir(parents=True)
    mark.touch()
    before = plan.read_bytes(), plan.stat().st_mtime_ns
    with filelock.FileLock(results / ".lock"):  # as a run holds it
        done = space.bench("plan", "--config", "launches=7")
    assert done.returncode == 0, done.stdout
    assert f"launch 0: iteration 3/8, 87 tok/s (process {os.getpid()} on n1)" in done.stdout
    assert "0 of 14 launches done" in done.stdout, "of this call, not of the run"
    assert (plan.read_bytes(), plan.stat().st_mtime_ns) == before
    assert mark.exists(), "the run's"
    assert claim_path(record).exists()


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


def test_check_that_finds_none_ends_with_status_0(tmp_path: Path) -> None:
    done = Workspace(tmp_path / "workspace").bench("check")
    assert done.returncode == 0, done.stdout
    assert "no problem found" in done.stdout.splitlines()


def test_plan_names_settings_whose_mode_is_not_measured(tmp_path: Path) -> None:
    settings = {"served": {"placement": {"where": "server"}, "engine_args": {"max_num_seqs": 8}}}
    space = with_stand_in(tmp_path, settings=["default", "served"], setting_settings=settings)
    said = space.bench("plan").stdout
    assert "setting served: its keys of placement change nothing, since mode placement is not measured" in said
