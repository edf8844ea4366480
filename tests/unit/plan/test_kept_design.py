"""`interleave: auto` decides once: what has records stays as it was measured, whatever the memory is now."""

from __future__ import annotations

from pathlib import Path

import pytest
from rooms import Rooms, matrix_of, two_lines
from synthetic_records import make_record

from rollout_bench import snakefile
from rollout_bench.contracts.record import Block
from rollout_bench.contracts.store import write_launched
from rollout_bench.core.errors import UserError
from rollout_bench.plan.interleaving import Interleaving, interleaving
from rollout_bench.plan.planfile import write_plan
from rollout_bench.plan.schedule import RESULTS, Schedule, kept_design, schedule

PLAN = RESULTS / "plan.json"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def decided(memory: Rooms | None = None, overlay: str = "", on_cluster: bool = False) -> Interleaving:
    config, matrix = matrix_of(overlay)
    return interleaving(config, matrix, memory or Rooms(), on_cluster=on_cluster, design=kept_design(PLAN))


def planned(memory: Rooms | None = None, overlay: str = "") -> Schedule:
    config, matrix = matrix_of(overlay)
    return schedule(config, matrix, 7, decided(memory, overlay))


def measured(*quants: str, together: int) -> None:
    """Write launch 0 of `quants`, of a block of so many; 0: by themselves."""
    for launch in planned().launches:
        if launch.experiment.spec.quant.name in quants and launch.index == 0:
            names = [f"offline/{number}" for number in range(together)]
            parts = {"members": names, "at_once": together, "order": [], "started": "in_turn", "waited_s": 0.0}
            block = Block.model_validate({"id": "0" * 16, **parts}) if together else None
            record = make_record(launch.experiment.spec, 0).model_copy(update={"block": block})
            write_launched(Path(launch.record), record)


def test_without_records_each_call_decides_anew():
    write_plan(PLAN, planned().plan_file())
    assert decided(Rooms(2.5)).groups == ()
    write_plan(PLAN, planned(Rooms(2.5)).plan_file())
    assert len(decided().groups) == 1


def test_an_interleaved_group_that_no_longer_fits_is_an_error():
    write_plan(PLAN, planned().plan_file())
    measured("bf16", together=3)
    plan = planned(Rooms(2.5))
    assert [group.at_once for group in plan.interleaving.groups] == [3]
    ((_, error),) = plan.interleaving.unfit
    assert error.problem == (
        "config: interleave: auto: offline cpu qwen3-90m demo: bf16, w8a16, w8a8: its earlier launches were"
        " interleaved, 3 engines alive simultaneously; now 3 engines take 3 boxes, and there is 2.5 boxes"
    )
    assert error.remedy == "free memory, or set interleave: true (with fewer engines alive at once) or false"
    snakefile.begin(plan, ["results/summary.md"])  # nothing is measured, so nothing is wrong
    snakefile._held.pop().release()
    with pytest.raises(SystemExit):
        snakefile.begin(plan, [next(iter(plan.blocks))])
    snakefile._held.pop().release()
    assert decided(Rooms(3.0)).unfit == ()
    assert decided(Rooms(2.5), "interleave: true").groups[0].at_once == 2
    assert decided(Rooms(2.5), "interleave: false") == Interleaving()


def test_launches_measured_one_after_another_stay_so():
    measured("w8a8", together=0)
    (reason,) = decided().reasons
    assert "its launches were measured one after the other so far, and stay so" in reason
    assert decided().groups == ()
    assert len(decided(overlay="interleave: true").groups) == 1


def test_a_model_of_once_unknown_memory_stays_as_decided():
    assert "download" not in str(decided().reasons)
    assert decided(Rooms(unknown="w8a8")).reasons[0].endswith("; to interleave, download the model first")
    measured("bf16", together=0)
    assert decided().groups == ()


def test_records_win_over_a_plan_file_that_another_config_wrote():
    measured("bf16", together=3)
    write_plan(PLAN, planned(overlay="interleave: false").plan_file())
    assert len(decided(Rooms(2.5)).groups) == 1


def test_a_launch_measured_alone_later_does_not_change_the_decision():
    measured("bf16", "w8a8", together=3)
    measured("w8a8", together=0)
    assert len(decided(Rooms(2.5)).groups) == 1


def test_as_many_at_once_as_before():
    write_plan(PLAN, planned(Rooms(2.5), "interleave: true").plan_file())
    measured("bf16", together=3)
    for there in (2.5, 100.0):
        assert [(g.at_once, len(g.members)) for g in decided(Rooms(there)).groups] == [(2, 3)]
        assert decided(Rooms(there)).unfit == ()


def test_what_was_interleaved_here_stays_so_on_a_cluster():
    assert decided(on_cluster=True).groups == ()
    measured("bf16", together=3)
    assert len(decided(on_cluster=True).groups) == 1


def test_the_remedy_for_unknown_memory_is_to_download_the_model():
    _, remedy = two_lines("interleave: true", Rooms(unknown="w8a8"))
    assert remedy == "download the model first, or set interleave: false, or auto"


def test_an_unfit_group_is_an_error_of_a_user():
    measured("bf16", together=3)
    ((_, error),) = decided(Rooms(unknown="bf16")).unfit
    assert isinstance(error, UserError)
    assert error.remedy.startswith("download the model first, or set interleave")
