"""configs/online.yaml as a user runs it, made tiny: both modes on the real engine, up to summary and figures."""

from __future__ import annotations

import csv
import re

import pytest
import yaml
from workspace import TINY, Workspace

pytestmark = [pytest.mark.engine, pytest.mark.untimed]

SMALL = {**TINY["workload_settings"]["short"], "prompts": 4}
CALL = ("--configfile", "configs/online.yaml", "tiny.yaml")
OVERLAY = {
    **{key: TINY[key] for key in ("models", "model_settings", "launches", "warmup_iterations")},
    "quants": ["bf16"],
    "iterations": 2,
    "workloads": ["served"],  # all at once, as `demo`, is in tests/unit/report/test_online_summary.py
    "workload_settings": {
        "served": {**SMALL, "samples_per_prompt": 1, "online": {"concurrency": [1, 4]}},
    },
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace in which everything that the config names was measured."""
    workspace = Workspace(tmp_path_factory.mktemp("online") / "workspace")
    (workspace.path / "tiny.yaml").write_text(yaml.safe_dump(OVERLAY))
    done = workspace.snakemake(*CALL)
    assert done.returncode == 0, done.stdout
    return workspace


def summary(workspace: Workspace) -> str:
    return (workspace.path / "results/summary.md").read_text()


def section(workspace: Workspace, heading: str) -> str:
    """Return what stands below a heading that begins so, down to the next one."""
    _, found, rest = summary(workspace).partition(f"# {heading}")
    assert found, summary(workspace)
    return rest.partition("\n#")[0]


def test_each_mode_has_a_record_and_a_server_its_side_files(measured: Workspace):
    found = sorted(path.relative_to(measured.path / "results") for path in measured.path.glob("results/*/*/launch-0*"))
    names: dict[str, list[str]] = {}
    for path in found:
        names.setdefault(f"{path.parts[0]} {path.parts[1].split('_')[2].split('-')[0]}", []).append(path.name)
    offline = ["launch-0.json", "launch-0.sequences.jsonl.gz"]
    assert names == {"offline served": offline, "online served": offline}


def test_the_summary_has_a_row_for_each_load_of_the_sweep(measured: Workspace):
    loads = re.findall(r"^\| bf16 \| (.+?) \|", section(measured, "Latency over the sweep"), re.MULTILINE)
    assert loads == ["1 at once", "4 at once"]
    with (measured.path / "results/summary.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["mode"] == "online"]
    assert sorted(row["concurrency"] for row in rows) == ["1", "4"]
    numbers = [row[name] for row in rows for name in ("ttft_mean_s", "tpot_mean_s") if row["launches_valid"] != "0"]
    assert all(float(number) > 0 for number in numbers)


def test_the_figures_of_both_modes_are_drawn(measured: Workspace):
    drawn = {path.stem for path in (measured.path / "results/figures").glob("*.svg")}
    assert drawn == {"throughput", "speedup", "iterations", "latency", "sweep", "goodput"}


def test_a_second_call_measures_nothing(measured: Workspace):
    assert measured.planned(*CALL) == {}


def test_another_limit_of_good_service_measures_nothing(measured: Workspace):
    jobs = measured.planned(*CALL, "--config", "slo={ttft_ms: 100}")
    assert "launch" not in jobs
    assert {"summary", "figures"} <= set(jobs)


def test_no_process_is_left(measured: Workspace):
    assert measured.processes() == []
