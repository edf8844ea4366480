"""What `plan` says of launches that are being measured: which, how far, by whom."""

import os
import socket
from pathlib import Path

import pytest
from synthetic_records import make_plan, make_spec

from rollout_bench.cluster.ownership import Owner, under_way
from rollout_bench.commands.plan import show
from rollout_bench.contracts.store import claim_path, record_path
from rollout_bench.core.processes import group_of
from rollout_bench.measure.launch.progress import Progress

SPEC = make_spec()


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """Return where the record of launch 1 is to lie."""
    return record_path(tmp_path, SPEC.mode, SPEC.experiment(), 1)


def claim(record: Path, *, ticks: int | None = None, host: str = "", until_s: float = 1e12) -> None:
    """Leave a claim on a launch: of this process, unless it is told otherwise."""
    started = group_of(os.getpid()).started if ticks is None else ticks
    here = socket.gethostname()
    owner = Owner(
        host=host or here, node="n1", pid=os.getpid(), started_ticks=started, job=None, until_s=until_s, log="l.log"
    )
    path = claim_path(record)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(owner.model_dump_json())


def test_a_launch_under_way_is_named_with_its_progress(
    record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    claim(record)
    Progress(SPEC, 1, record, None).phase("iteration 3/8, 87 tok/s")
    capsys.readouterr()
    show(make_plan([SPEC], launches=2), tmp_path)
    name = f"{SPEC.mode} {SPEC.model.name} {SPEC.quant.name} {SPEC.workload.name}"
    line = f"under way: {name}, launch 1: iteration 3/8, 87 tok/s (process {os.getpid()} on n1)"
    assert line in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("dead", "there"),
    [({"ticks": 0}, 0), ({"host": "elsewhere", "until_s": 1.0}, 0), ({"host": "elsewhere"}, 1)],
    ids=["killed", "over", "on another machine"],
)
def test_a_claim_counts_as_long_as_its_process_may_live(record: Path, tmp_path: Path, dead: dict, there: int) -> None:
    claim(record, **dead)
    assert len(under_way(tmp_path)) == there
