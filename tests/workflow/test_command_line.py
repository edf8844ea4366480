"""The command lines that users type: each is planned as they expect, each wrong one told in two lines."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bad_configs import BAD_OVERLAYS, Bad
from workspace import Workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("workspace"))


def experiments(workspace: Workspace, *arguments: str) -> list[str]:
    """Return names, keys in them, of the experiments that these arguments select."""
    done = workspace.snakemake("plan", *arguments)
    assert done.returncode == 0, done.stdout
    plan = json.loads((workspace.path / "results/plan.json").read_text())
    return [experiment["experiment"] for experiment in plan["experiments"]]


def test_a_dry_run_of_the_default_config_measures_each_quant_in_each_launch(workspace: Workspace):
    jobs = workspace.planned()
    assert jobs["block"] == 3
    assert "launch" not in jobs
    assert workspace.measurements() == 9
    assert jobs["checkpoint"] == 2


def test_quants_can_be_chosen_on_the_command_line_after_the_target(workspace: Workspace):
    assert workspace.measurements("results/summary.md", "--config", "quants=[bf16,w8a8]") == 6


def test_the_order_of_lists_and_keys_changes_no_experiment(workspace: Workspace):
    before = experiments(workspace)
    reordered = experiments(workspace, "--config", "quants=[w8a8,bf16,w8a16]")
    assert reordered != before
    assert sorted(reordered) == sorted(before)


def test_a_plan_goes_on_with_the_order_that_was_drawn_for_its_results(workspace: Workspace):
    def launches() -> list[str]:
        experiments(workspace, "--config", "launches=12")
        plan = json.loads((workspace.path / "results/plan.json").read_text())
        return [launch["record"] for launch in plan["launches"]]

    drawn = launches()
    assert launches() == drawn
    (workspace.path / "results/plan.json").unlink()
    assert launches() != drawn


def test_a_plan_shows_what_a_profile_is_read_as_before_anything_is_measured(workspace: Workspace):
    done = workspace.snakemake("plan", "--config", "profile=guidellm/sanity_concurrent", "overrides=seconds=7")
    read = [line for line in done.stdout.splitlines() if line.startswith("profile: sanity-concurrent is ")]
    assert len(read) == 1, done.stdout
    assert "with {seconds: 7}, read as {" in read[0]
    assert "online: {concurrency: 2, duration_s: 7}" in read[0]


def test_planning_leaves_no_folders_of_what_was_not_measured(workspace: Workspace):
    experiments(workspace)
    assert not (workspace.path / "results/offline").exists()


def test_the_diagnostic_config_measures_one_quant_once(workspace: Workspace):
    (name,) = experiments(workspace, "--configfile", "configs/diagnostic.yaml")
    assert name.startswith("qwen3-90m_bf16_diagnostic-")
    assert workspace.measurements("--configfile", "configs/diagnostic.yaml") == 1


@pytest.mark.parametrize("config", ["cuda", "ascend"])
def test_the_full_matrix_lists_what_it_skips(workspace: Workspace, config: str):
    done = workspace.snakemake("plan", "--configfile", f"configs/{config}.yaml")
    assert "8 combinations" not in done.stdout
    assert "skipped: offline qwen3-30b-a3b w8a16 verl-default: qwen3-30b-a3b has no weights for w8a16" in done.stdout
    assert "0 of 24 launches done" in done.stdout


def test_every_rule_says_what_it_does(workspace: Workspace):
    listed = workspace.snakemake("--list-rules", "--quiet").stdout
    lines = [line for line in listed.splitlines() if " (" in line]
    assert {"all", "launch", "summary", "plan", "check"} <= {line.split()[0] for line in lines}


# A sample, as each costs a start of snakemake: tests/unit/plan/test_bad_configs.py has the words of all.
@pytest.mark.parametrize("bad", BAD_OVERLAYS[::12], ids=lambda bad: bad.name)
def test_a_wrong_config_file_stops_snakemake_in_two_lines(workspace: Workspace, tmp_path: Path, bad: Bad):
    overlay = tmp_path / "bad.yaml"
    overlay.write_text(bad.overlay)
    done = workspace.snakemake("-n", "--configfile", str(overlay))
    assert_two_lines(done.stdout, done.returncode, bad.problem, bad.remedy)


BAD_COMMAND_LINES = [
    (["--config", "quants=bf16"], "write [bf16]", "docs/reference"),
    (["--config", "quants=[w8a9]"], "quant 'w8a9' is not defined", "did you mean 'w8a8'?"),
    (["--config", "quants=[]"], "quants: is an empty list", "docs/reference"),
    (["--config", "qunats=[bf16]"], "qunats: there is no such key", "'quants'"),
    (["--config", "launches=-3"], "launches", "docs/reference"),
    (["--config", "launches=x"], "launches: 'x'", "docs/reference"),
    (["--config", "models=[../x]"], "can't be a name", "letters, digits"),
    (["--config", "engine={python: /nowhere}"], "/nowhere does not run", "engine.python"),
    (["--config", "engine_args={gpu_memory_utilization: 1.5}"], "gpu_memory_utilization: 1.5", "up to 1"),
    (["--config", "profile=nop/nop", "modes=[online]"], "modes: ['online'] stands beside profile", "leave modes out"),
    (["--config", "workload_settings={demo: {prompts: none}}"], "prompts: 'none'", "docs/reference"),
]


@pytest.mark.parametrize(("arguments", "problem", "remedy"), BAD_COMMAND_LINES, ids=lambda x: str(x)[:40])
def test_a_wrong_command_line_stops_snakemake_in_two_lines(
    workspace: Workspace, arguments: list[str], problem: str, remedy: str
):
    done = workspace.snakemake("-n", *arguments)
    assert_two_lines(done.stdout, done.returncode, problem, remedy)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xff\xfe", "is not UTF-8"),
        (b"models: [a", "no valid YAML"),
        (b"- a", "must have keys"),
        (None, "cannot be read"),
    ],
    ids=["not_utf8", "syntax", "a_list", "missing"],
)
def test_an_unreadable_default_config_stops_snakemake_in_two_lines(tmp_path: Path, content: bytes | None, problem: str):
    workspace = Workspace(tmp_path / "workspace")
    path = workspace.path / "config.yaml"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    done = workspace.snakemake("-n")
    assert_two_lines(done.stdout, done.returncode, problem, "docs/reference/config.md")


@pytest.mark.parametrize(
    "target", ["results/offline/qwen3-90m_bf16_demo-00000000/launch-0.json", "models/synthetic/qwen3-00000000-bf16"]
)
def test_a_target_that_the_config_does_not_select_is_told_in_two_lines(workspace: Workspace, target: str):
    done = workspace.snakemake("-n", target)
    assert_two_lines(done.stdout, done.returncode, target, "snakemake plan")


@pytest.mark.parametrize("folder", ["results", "logs"])
def test_a_link_to_nowhere_in_place_of_a_folder_is_told_in_two_lines(tmp_path: Path, folder: str):
    workspace = Workspace(tmp_path / "workspace")
    (workspace.path / folder).symlink_to("nowhere")
    done = workspace.snakemake("-n")
    assert_two_lines(done.stdout, done.returncode, f"{folder}: is a link to nowhere, which", "make that folder")


def test_damaged_metadata_of_snakemake_is_told_in_two_lines(tmp_path: Path):
    workspace = Workspace(tmp_path / "workspace")
    damaged = workspace.path / ".snakemake/metadata/cmVzdWx0cw=="
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"\xff\x00\x80")
    done = workspace.snakemake("-n")
    assert_two_lines(done.stdout, done.returncode, "cmVzdWx0cw==: is damaged", "rm -r .snakemake/metadata")


@pytest.mark.parametrize("folder", ["results", "logs"])
def test_a_file_in_place_of_a_folder_is_told_in_two_lines(tmp_path: Path, folder: str):
    workspace = Workspace(tmp_path / "workspace")
    (workspace.path / folder).write_text("")
    done = workspace.snakemake("-n")
    assert_two_lines(done.stdout, done.returncode, f"{folder}: is a file", "move it away")


def test_a_clone_whose_path_holds_spaces_and_umlauts_is_planned(tmp_path: Path):
    assert Workspace(tmp_path / "a bü c").measurements() == 9


def test_two_configs_can_be_planned_at_the_same_time(workspace: Workspace):
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda _: workspace.by_itself("--quiet", "host", "reason", "-n"), range(2)))
    counts = [len(re.findall(r"^    results/\S+/launch-\d+\.json$", run.stdout, re.MULTILINE)) for run in runs]
    assert counts == [9, 9]


@pytest.mark.parametrize("arguments", [(), ("--config", "quants=[w8a9]")], ids=["planned", "refused"])
def test_a_fork_as_tests_use_it_prints_what_a_process_of_its_own_does(workspace: Workspace, arguments: tuple[str, ...]):
    forked, own = workspace.snakemake("-n", *arguments), workspace.by_itself("-n", *arguments)
    assert (forked.returncode, forked.stdout) == (own.returncode, own.stdout)


def assert_two_lines(output: str, status: int, problem: str, remedy: str) -> None:
    """Assert exit status 1, no traceback, and that the two lines are told once, one after the other."""
    assert status == 1, output
    assert "Traceback" not in output
    chatter = ("Using workflow", "Config file", "Assuming unrestricted", "Building DAG")
    lines = [line for line in output.splitlines() if not line.startswith(chatter)]
    assert len(lines) == 2, output
    assert problem in lines[0]
    assert lines[1].startswith("  -> ")
    assert remedy in lines[1]
