"""configs/profile.yaml as a user runs it, made tiny: timed and looked into on the real engine, up to the summary."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from workspace import REPOSITORY, TINY, Workspace

from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import checksum

pytestmark = pytest.mark.engine

SUMMARISE = str(REPOSITORY / "workflow" / "scripts" / "summarise.py")
CALL = ("--configfile", "configs/profile.yaml", "tiny.yaml")
TINY_PROFILE = {**TINY, "iterations": 4, "profile": {"steps": 3}}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace in which two quants were timed and profiled."""
    workspace = Workspace(tmp_path_factory.mktemp("profile") / "workspace")
    (workspace.path / "tiny.yaml").write_text(yaml.safe_dump(TINY_PROFILE))
    done = workspace.snakemake(*CALL)
    assert done.returncode == 0, done.stdout
    return workspace


def section(workspace: Workspace, heading: str) -> str:
    """Return what stands below a heading that begins so, down to the next one."""
    _, found, rest = (workspace.path / "results/summary.md").read_text().partition(f"## {heading}")
    assert found, heading
    return rest.partition("\n## ")[0]


def test_the_summary_says_where_the_time_of_a_step_goes(measured: Workspace):
    table = section(measured, "Where a step's time goes")
    assert re.findall(r"^\| (\w+) \| [\w/]+ \| (\w+) \|", table, re.MULTILINE)[1:] == [
        (quant, phase) for phase in ("prefill", "decode") for quant in ("bf16", "w8a8")
    ]
    with (measured.path / "results/profile.csv").open() as file:
        rows = list(csv.DictReader(file))
    for quant in ("bf16", "w8a8"):
        for phase in ("prefill", "decode"):
            own = [row for row in rows if (row["quant"], row["phase"]) == (quant, phase)]
            assert sum(float(row["share"]) for row in own) == pytest.approx(1)
            known = sum(float(row["share"]) for row in own if row["category"] != "other")
            assert known >= 0.9
            assert {row["role"] for row in own if row["category"] == "linear"} >= {"qkv", "o", "gate_up", "down"}
    assert any(row["category"] == "quantize" for row in rows if row["quant"] == "w8a8")
    assert not any(row["category"] == "quantize" and float(row["us"]) for row in rows if row["quant"] == "bf16")


def test_steps_in_the_trace_last_as_long_as_they_were_timed(measured: Workspace):
    table = section(measured, "Steps, timed and traced")
    header, _, *rows = [line for line in table.splitlines() if line.startswith("|")]
    column = [cell.strip() for cell in header.split("|")].index("in trace %")
    assert len(rows) == 4
    assert all(90 <= float(row.split("|")[column]) <= 110 for row in rows), table


def test_figures_and_links_to_the_traces_are_there(measured: Workspace):
    drawn = {path.stem for path in (measured.path / "results/figures").glob("*.svg")}
    assert drawn == {"throughput", "speedup", "iterations", "steps"}
    links = re.findall(r"\]\((profile/[^)]+)\)", (measured.path / "results/summary.md").read_text())
    assert len(links) == 2
    assert all((measured.path / "results" / link).is_dir() for link in links)


def test_a_second_call_measures_nothing_and_reads_no_trace_again(measured: Workspace):
    assert measured.planned(*CALL) == {}
    tables = list(measured.path.glob("results/profile/*/launch-0.operators.csv.gz"))
    assert len(tables) == 2


def test_a_torn_trace_keeps_back_nothing_but_its_own_profile(measured: Workspace, tmp_path: Path):
    results = shutil.copytree(measured.path / "results", tmp_path / "results")
    (folder,) = results.glob("profile/*_w8a8_*")
    for table in folder.glob("launch-0.operators.*"):
        table.unlink()
    trace = folder / "launch-0.traces" / "decode.rank0.trace.json.gz"
    trace.write_bytes(trace.read_bytes()[:1000])
    command = [sys.executable, SUMMARISE, str(results), "--plan", str(results / "plan.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    text = (results / "summary.md").read_text()
    assert "## Profiles that can't be read" in text
    assert "decode.rank0.trace.json.gz" in text.partition("## Profiles that can't be read")[2].partition("## ")[0]
    assert "## Where a step's time goes" in text
    assert "## Throughput" in text


def test_a_profile_under_an_earlier_setting_is_told_apart(measured: Workspace, tmp_path: Path):
    results = shutil.copytree(measured.path / "results", tmp_path / "results")
    (folder,) = results.glob("profile/*_w8a8_*")
    record = json.loads((folder / "launch-0.json").read_text())
    record["spec"]["profile"]["steps"] = 2
    spec = Spec.model_validate(record["spec"])
    earlier = shutil.copytree(folder, folder.with_name(spec.experiment()))
    record |= {"key": spec.key()}
    (earlier / "launch-0.json").write_text(json.dumps(record | {"sha256": checksum(record)}))
    done = subprocess.run(
        [sys.executable, SUMMARISE, str(results), "--all"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"w8a8 ({spec.key()})" in (results / "summary.md").read_text()
