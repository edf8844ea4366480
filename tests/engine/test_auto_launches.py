"""`launches: auto` on the real engine: rounds inside one run, a failure beside them, more precision later."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from workspace import TINY, Workspace

pytestmark = [pytest.mark.engine, pytest.mark.untimed]

NEVER_NARROW = {
    "launches": "auto",
    "precision": {"half_width": 0.0001, "min_launches": 2, "max_launches": 3},
    "quants": ["bf16", "w8a8", "w8a16"],
    # no block fits into so little
    "quant_settings": {"w8a8": {"engine_args": {"kv_cache_memory_bytes": 1}}},
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, str, int]:
    """Return a workspace after one run in which w8a8 can't start and no interval gets narrow.

    What it said, its status.
    """
    workspace = Workspace(tmp_path_factory.mktemp("auto") / "workspace", {**TINY, **NEVER_NARROW})
    done = workspace.snakemake()
    return workspace, done.stdout, done.returncode


def launches(workspace: Workspace) -> dict[str, list[int]]:
    """Quant -> indices of the launches that are measured."""
    found: dict[str, list[int]] = {}
    for record in sorted(workspace.records):
        name = Path(record).parent.name
        found.setdefault(name.split("_")[1], []).append(int(Path(record).stem.removeprefix("launch-")))
    return found


def test_one_run_launches_up_to_the_limit_and_a_failing_quant_keeps_no_other_from_it(
    measured: tuple[Workspace, str, int],
):
    workspace, said, status = measured
    assert launches(workspace) == {"bf16": [0, 1, 2], "w8a16": [0, 1, 2]}, said
    assert sorted(Path(f).stem for f in workspace.failures) == ["launch-0", "launch-1"]
    assert status != 0
    assert (workspace.path / "results/summary.txt").read_text().startswith("INCOMPLETE: 6 of 8 planned launches")


def test_quants_take_turns_in_later_rounds_too(measured: tuple[Workspace, str, int]):
    workspace, _, _ = measured
    started = [
        (record["started_at"], record["launch"])
        for path in workspace.records
        for record in [json.loads((workspace.path / "results" / path).read_text())]
    ]
    assert [launch for _, launch in sorted(started)] == [0, 0, 1, 1, 2, 2]


def test_more_precision_reuses_what_is_there(measured: tuple[Workspace, str, int]):
    workspace, _, _ = measured
    both = ["quants=[bf16,w8a16]"]
    assert workspace.measurements("--config", *both) == 0
    # four pairs are the first stage: launch 3 of both, and launch 4 of both where one that is there was disturbed
    disturbed = any(
        flag["severity"] == "invalid"
        for path in workspace.records
        for flag in json.loads((workspace.path / "results" / path).read_text())["validity"]
    )
    wanted = 4 if disturbed else 2
    assert workspace.measurements("--config", *both, "precision={max_launches: 5}") == wanted
    assert workspace.measurements("--config", *both, "launches=3") == 0


def test_nothing_is_left_of_the_rounds(measured: tuple[Workspace, str, int]):
    workspace, _, _ = measured
    assert not (workspace.path / "results/rounds").exists()
    assert not (workspace.path / "logs/rounds").exists()
    with (workspace.path / "results/summary.csv").open() as file:
        planned = {row["quant"]: row["launches_planned"] for row in csv.DictReader(file)}
    assert planned == {"bf16": "3", "w8a8": "2", "w8a16": "3"}
