"""From a trainer's settings to a plan, command by command as the pages of verl and TRL have them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from bad_trainers import ROLLOUT, VERL
from docs_pages import REPOSITORY, blocks, commands
from workspace import Workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("workspace"))


def printed(workspace: Workspace, *words: str) -> str:
    """Return what `rollout-bench` prints in the workspace."""
    command = [sys.executable, "-m", "rollout_bench", *words]
    done = subprocess.run(command, cwd=workspace.path, env=workspace.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("page", "engines"), [("train-with-verl", "8 replicas"), ("train-with-trl", "7 replicas")], ids=lambda name: name
)
def test_the_commands_of_a_page_lead_from_its_files_to_a_plan(workspace: Workspace, page: str, engines: str):
    path = REPOSITORY / "docs" / "how-to" / f"{page}.md"
    for block in blocks(path, "text"):
        (workspace.path / block.text.partition("\n")[0].removeprefix("# ")).write_text(block.text)
    made = [command.words for command in commands(path, "rollout-bench") if "--lengths" not in command.words]
    assert [words[-1] for words in made] == ["mine.yaml", "one.yaml"]
    for _, *words, _, file in made:
        (workspace.path / file).write_text(printed(workspace, *words))
        plan = workspace.snakemake("plan", "--configfile", file)
        assert plan.returncode == 0, plan.stdout
        assert workspace.measurements("--configfile", file) == 3
    first, *others = [command.words for command in commands(path, "snakemake")]
    assert first == ("snakemake", "plan", "--configfile", "mine.yaml")
    assert others[0] == ("snakemake", "--configfile", "mine.yaml")
    assert [workspace.measurements(*words[1:]) for words in others[1:]] == [6] * len(others[1:])


def test_a_machine_with_too_few_devices_leads_to_one_engine_s_part(workspace: Workspace):
    (workspace.path / "large.yaml").write_text(VERL)
    overrides = ["+trainer.device=cpu", f"trainer.nnodes={len(os.sched_getaffinity(0))}"]
    overrides += [f"{ROLLOUT}.gpu_memory_utilization=0.0001", "actor_rollout_ref.model.path=nobody/of-unknown-size"]
    mine: Path = workspace.path / "large-step.yaml"
    mine.write_text(printed(workspace, "from-verl", "large.yaml", *overrides))
    done = workspace.snakemake("-n", "--configfile", mine.name)
    assert done.returncode == 1
    assert "config: rollout.replicas: a launch of of-unknown-size needs " in done.stdout
    assert "-> make one engine's part of the step (from-verl, from-trl: --one-engine)" in done.stdout
    mine.write_text(printed(workspace, "from-verl", "large.yaml", *overrides, "--one-engine"))
    assert workspace.measurements("--configfile", mine.name) == 3
