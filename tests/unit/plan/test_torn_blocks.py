"""The plan says of which missing launches no verdict can come, since their baseline was measured without them."""

from pathlib import Path

import pytest
from rooms import Rooms, matrix_of
from synthetic_records import make_record

from rollout_bench.commands.plan import show, torn_lines
from rollout_bench.contracts.store import write_launched
from rollout_bench.plan.interleaving import interleaving
from rollout_bench.plan.planfile import PlanFile
from rollout_bench.plan.schedule import schedule


def plan_of(tmp_path: Path, overlay: str, *measured: tuple[str, int]) -> PlanFile:
    """Return a plan of which these launches, quant and index, are measured."""
    config, matrix = matrix_of(overlay)
    plan = schedule(config, matrix, 7, interleaving(config, matrix, Rooms(), on_cluster=False))
    for launch in plan.launches:
        if (launch.experiment.spec.quant.name, launch.index) in measured:
            write_launched(tmp_path / launch.record, make_record(launch.experiment.spec, launch.index))
    return plan.plan_file(estimate=False)


def test_a_launch_missing_beside_its_baseline_comes_with_a_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    done = [(quant, index) for quant in ("bf16", "w8a16") for index in (0, 2)]
    plan = plan_of(tmp_path, "", *done, ("w8a8", 2))
    (line,) = torn_lines(plan, tmp_path / "results")
    assert line.startswith("no pair: offline/qwen3-90m_w8a8_demo-")
    assert ": launch 0: missing, and the baseline's is there" in line
    assert line.endswith(
        "; raising launches adds whole blocks, and rollout-bench discard --invalid has it measured whole afterwards"
    )
    show(plan, tmp_path / "results")
    assert line in capsys.readouterr().out


def test_whole_and_future_blocks_need_no_line(tmp_path: Path):
    plan = plan_of(tmp_path, "", *[(quant, 0) for quant in ("bf16", "w8a16", "w8a8")])
    assert torn_lines(plan, tmp_path / "results") == []
    assert torn_lines(plan_of(tmp_path, "interleave: false", ("bf16", 1)), tmp_path / "results") == []


def test_with_launches_auto_the_limit_is_to_be_raised(tmp_path: Path):
    (line,) = torn_lines(plan_of(tmp_path, "launches: auto\nquants: [bf16, w8a8]", ("bf16", 1)), tmp_path / "results")
    assert line.endswith("has it measured whole afterwards")
    assert "; raising precision.max_launches adds whole blocks, and " in line
