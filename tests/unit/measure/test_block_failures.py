"""A launch of a block that fails is left out whole, and the others go on."""

from pathlib import Path

import pytest
from running_blocks import block, check_all_over

from rollout_bench.contracts.store import failure_path, read_failure

pytestmark = pytest.mark.usefixtures("leases")


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("fails", "there is no such thing"),
        ("dies", "signal 9"),
        ("hangs", "hung in phase measuring"),
    ],
)
def test_a_failed_launch_is_left_out_and_others_go_on(tmp_path: Path, leases: Path, how: str, cause: str) -> None:
    made = block(tmp_path, 4, b=how).start("--timeout-s", "8")
    assert made.finish() == 1
    assert set(made.records()) == {"a", "c"}
    assert [len(record.iterations) for record in made.records().values()] == [5, 5]
    first = made.records()["a"].block
    assert first is not None
    assert [sorted(order) for order in first.order[-2:]] == [[0, 2]] * 2
    assert cause in read_failure(failure_path(made.outs["b"])).cause
    assert len([line for line in made.said.splitlines() if line.startswith("  -> ")]) == 1
    assert [name for name in made.left_behind() if made.specs["b"].experiment() in name] == [
        f"failures/offline/{made.specs['b'].experiment()}/launch-0.json"
    ]
    check_all_over(made, leases)
