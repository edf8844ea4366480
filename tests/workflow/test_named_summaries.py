"""Each config has a summary of its own: a run with another one replaces what lies in results/, and nothing else."""

import csv
import re
from pathlib import Path

import pytest
import stand_in
from comparing import BF16, NEW, OLD, W8A8, launches, summarised
from synthetic_records import make_plan, save
from workspace import Workspace, with_stand_in

from rollout_bench.plan.planfile import write_plan
from rollout_bench.report.state import SUMMARIES

BOTH, ALONE = ("--configfile", "both.yaml"), ("--configfile", "alone.yaml")
"""Two configs in one folder: two quants, and one of them."""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Have a launch of each quant measured with both configs, one after the other."""
    space = with_stand_in(tmp_path_factory.mktemp("named"), **{**stand_in.IN_BLOCKS, "launches": 1})
    (space.path / "both.yaml").write_text("quants: [bf16, w8a8]\n")
    (space.path / "alone.yaml").write_text("quants: [bf16]\n")
    for config in (BOTH, ALONE):
        space.ran(*config)
    return space


def kept(space: Workspace, name: str) -> Path:
    """Return the folder in which the summary of a config is kept."""
    return space.path / "results" / "summaries" / name


def quants(folder: Path) -> list[str]:
    """Return what a summary is about."""
    with (folder / "summary.csv").open() as file:
        return [row["quant"] for row in csv.DictReader(file)]


def test_each_config_keeps_its_summary_and_the_latest_leads(measured: Workspace):
    results = measured.path / "results"
    assert quants(results) == quants(kept(measured, "alone")) == ["bf16"]
    measured.ran(*BOTH)
    assert quants(results) == quants(kept(measured, "both")) == ["bf16", "w8a8"]
    assert quants(kept(measured, "alone")) == ["bf16"]
    assert "Nothing to be done" in measured.ran("results/summary.md", *BOTH)
    assert len(stand_in.starts(measured.path)) == 2, "a summary of something else measured it again"


def test_figures_resolve_and_are_those_of_their_own_config(measured: Workspace):
    (kept(measured, "both") / "summary.txt").unlink()
    measured.ran(*BOTH)
    assert (kept(measured, "both") / "summary.txt").is_file(), "made again where a file of it was gone"
    own = set((kept(measured, "both") / "figures").glob("*.svg"))
    assert len(own) == 3
    for folder in (measured.path / "results", kept(measured, "both")):
        links = re.findall(r"!\[[^]]*\]\(([^)]+)\)", (folder / "summary.md").read_text())
        assert links
        assert {(folder / link).resolve() for link in links} <= {path.resolve() for path in own}
        assert (folder / "summary.html").read_text().count('<img alt="') == 3


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Return a folder with results of two quants, of which a summary that is kept has one."""
    save(tmp_path / "new" / "results", *launches(BF16, OLD), *launches(W8A8, NEW))
    write_plan(tmp_path / "plan.json", make_plan([BF16], launches=4))
    summarised(tmp_path, "new/results", "--plan", "plan.json", "--also", f"new/results/{SUMMARIES}/one")
    summarised(tmp_path, "new/results", "--all")
    return tmp_path


@pytest.mark.parametrize("inside", [False, True])
def test_a_kept_summary_is_made_again_with_its_own_selection(two: Path, inside: bool):
    folder, results = two / "new" / "results" / SUMMARIES / "one", two / "new" / "results"
    before, last = (folder / "summary.csv").read_bytes(), (results / "summary.csv").read_bytes()
    (folder / "summary.csv").unlink()
    summarised(folder if inside else two, "." if inside else f"new/results/{SUMMARIES}/one")
    assert (folder / "summary.csv").read_bytes() == before != last
    assert (results / "summary.csv").read_bytes() == last
