"""What the block's command says and refuses before any engine starts."""

from pathlib import Path

import pytest
from running_blocks import STAND_IN, RunningBlock

from rollout_bench.measure.machine.leases import VARIABLE


@pytest.fixture(autouse=True)
def leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "leases"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


@pytest.mark.parametrize(("there", "pairs"), [("a", ["ba", "ca"]), ("b", ["ab"]), ("", [])])
def test_a_launch_measured_without_its_partner_is_announced_as_unpaired(
    tmp_path: Path, there: str, pairs: list[str]
) -> None:
    made = RunningBlock(tmp_path / "block", command=STAND_IN, changes={"measuring": {"iterations": 1}})
    for name in there:
        made.outs[name].parent.mkdir(parents=True)
        made.outs[name].write_text("measured")
    made.start("--attempt", "1")
    assert made.finish() == 0, made.said
    names = {name: f"offline/{spec.experiment()}" for name, spec in made.specs.items()}
    lines = made.said.splitlines()
    said = [line for line in lines if "no pair" in line]
    assert len(said) == len(pairs)
    for line, (now, before) in zip(said, pairs, strict=True):
        assert line.startswith(f"{names[now]} launch 0 is measured without its partner {names[before]}, whose record")
        assert line.endswith("rollout-bench discard --invalid has the block measured whole.")
        assert lines.index(line) < next(number for number, line in enumerate(lines) if ": initializing" in line)
    assert all(out.exists() for out in made.outs.values())
