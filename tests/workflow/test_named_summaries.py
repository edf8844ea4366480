"""Each config has a summary of its own: a run with another one replaces what lies in results/, and nothing else."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import comparing
import pytest
import stand_in
from comparing import BF16, NEW, OLD, W8A8, launches
from synthetic_records import make_plan, save
from workspace import Workspace

from rollout_bench.commands import summarise
from rollout_bench.plan.config_file import name_after
from rollout_bench.plan.planfile import write_plan
from rollout_bench.report.state import SUMMARIES, results_of

BOTH, ALONE = ("--configfile", "both.yaml"), ("--configfile", "alone.yaml")
"""Two configs in one folder: two quants, and one of them."""


def workspace(folder: Path) -> Workspace:
    """Return a workspace in which the stand-in measures a launch of each quant, and two configs select them."""
    engine = {"python": stand_in.install(folder / "engine")}
    space = Workspace(folder / "workspace", {**stand_in.IN_BLOCKS, "launches": 1, "engine": engine})
    (space.path / "both.yaml").write_text("quants: [bf16, w8a8]\n")
    (space.path / "alone.yaml").write_text("quants: [bf16]\n")
    return space


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Both configs, one after the other."""
    space = workspace(tmp_path_factory.mktemp("named"))
    for config in (BOTH, ALONE):
        ran(space, *config)
    return space


def ran(space: Workspace, *arguments: str) -> str:
    """Return what a run printed that ended well."""
    done = space.snakemake("--cores", "1", *arguments)
    assert done.returncode == 0, done.stdout
    return done.stdout


def kept(space: Workspace, name: str) -> Path:
    """Return the folder in which the summary of a config is kept."""
    return space.path / "results" / "summaries" / name


def quants(folder: Path) -> list[str]:
    """Return what a summary is about."""
    with (folder / "summary.csv").open() as file:
        return [row["quant"] for row in csv.DictReader(file)]


def test_two_configs_in_one_folder_keep_their_summaries_and_the_last_one_is_in_front(measured: Workspace):
    results, started = measured.path / "results", len(stand_in.starts(measured.path))
    ran(measured, *BOTH)
    assert quants(results) == quants(kept(measured, "both")) == ["bf16", "w8a8"]
    ran(measured, *ALONE)
    assert quants(results) == quants(kept(measured, "alone")) == ["bf16"]
    assert quants(kept(measured, "both")) == ["bf16", "w8a8"]
    assert len(stand_in.starts(measured.path)) == started, "a summary of something else measured it again"


def test_the_design_card_s_target_works_with_any_config_and_does_nothing_twice(measured: Workspace):
    results = measured.path / "results"
    for config, selected in ((BOTH, ["bf16", "w8a8"]), (ALONE, ["bf16"]), ((), ["bf16", "w8a8"])):
        ran(measured, "results/summary.md", *config)
        assert quants(results) == selected
        assert "Nothing to be done" in ran(measured, "results/summary.md", *config)


def test_the_kept_summary_is_a_target_too_and_is_made_again_where_a_file_of_it_is_gone(measured: Workspace):
    target = "results/summaries/both/summary.txt"
    ran(measured, target, *BOTH)
    (measured.path / target).unlink()
    ran(measured, "results/summary.md", *BOTH)
    assert (measured.path / target).is_file()


def test_figures_resolve_from_where_a_summary_lies_and_are_those_of_its_own_config(measured: Workspace):
    ran(measured, *BOTH)
    own = sorted((kept(measured, "both") / "figures").glob("*.svg"))
    assert len(own) == 3
    assert sorted(path.name for path in (measured.path / "results" / "figures").glob("*.svg")) == [p.name for p in own]
    for folder in (measured.path / "results", kept(measured, "both")):
        links = re.findall(r"!\[[^]]*\]\(([^)]+)\)", (folder / "summary.md").read_text())
        assert links
        assert {(folder / link).resolve() for link in links} <= {path.resolve() for path in own}
        assert (folder / "summary.html").read_text().count('<img alt="') == 3
    # With the tables alone nothing is drawn, and what another config drew last is not shown.
    ran(measured, "results/summary.md", *ALONE)
    text = (measured.path / "results" / "summary.md").read_text()
    assert "](summaries/alone/figures/" in text
    assert "](figures/" not in text


def test_a_run_says_so_where_it_replaces_the_summary_of_another_config_of_the_same_file_name(measured: Workspace):
    for folder, selected in (("a", "[bf16]"), ("b", "[bf16, w8a8]")):
        (measured.path / folder).mkdir()
        (measured.path / folder / "mine.yaml").write_text(f"quants: {selected}\n")
    replaced = "results/summaries/mine: is the summary of a/mine.yaml, and this run replaces it\n  -> to keep both,"
    assert "replaces it" not in ran(measured, "results/summary.md", "--configfile", "a/mine.yaml")
    assert "replaces it" not in ran(measured, "plan", "--configfile", "b/mine.yaml")
    assert replaced in ran(measured, "results/summary.md", "--configfile", "b/mine.yaml")
    (measured.path / "results" / "summary.md").unlink()
    again = ran(measured, "results/summary.md", "--configfile", str(measured.path / "b" / "mine.yaml"))
    assert "replaces it" not in again


def test_a_run_in_which_launches_fail_leaves_its_summary_in_both_places(tmp_path: Path):
    space = workspace(tmp_path)
    (space.path / stand_in.FAILING).write_text("w8a8")
    done = space.snakemake("--cores", "1", *BOTH)
    assert done.returncode == 1, done.stdout
    texts = {(folder / "summary.txt").read_text() for folder in (space.path / "results", kept(space, "both"))}
    assert len(texts) == 1
    assert texts.pop().startswith("INCOMPLETE: ")
    assert (kept(space, "both") / "figures" / "throughput.svg").is_file()


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ([], "default"),
        (["/a/online.yaml"], "online"),
        (["configs/cuda.yaml", "configs/online.yaml"], "cuda+online"),
        (["my_own.v2.yml"], "my_own.v2"),
        (["what {is} this?.yaml"], "what-is-this-"),
        ([".yaml"], "yaml"),
        (["-.yaml"], "default"),
        (["x" * 300], "x" * 60),
    ],
)
def test_a_config_is_called_after_its_files(files: list[str], name: str):
    assert name_after([Path(file) for file in files]) == name


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Return a folder with results of two quants, last week's and these, of which a summary that is kept has one."""
    for place, rates in (("old", OLD), ("new", NEW)):
        save(tmp_path / place / "results", *launches(BF16, rates), *launches(W8A8, rates))
    write_plan(tmp_path / "plan.json", make_plan([BF16], launches=4))
    summarised(tmp_path, "new/results", "--plan", "plan.json", "--also", f"new/results/{SUMMARIES}/one")
    summarised(tmp_path, "new/results", "--all")
    return tmp_path


def summarised(folder: Path, *arguments: str) -> None:
    done = comparing.run(folder, *arguments, main=summarise.main)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("inside", [False, True])
def test_a_kept_summary_is_made_again_in_its_place_with_its_own_selection(two: Path, inside: bool):
    folder, results = two / "new" / "results" / SUMMARIES / "one", two / "new" / "results"
    before, last = (folder / "summary.csv").read_bytes(), (results / "summary.csv").read_bytes()
    (folder / "summary.csv").unlink()
    summarised(folder if inside else two, "." if inside else f"new/results/{SUMMARIES}/one")
    assert (folder / "summary.csv").read_bytes() == before != last
    assert (results / "summary.csv").read_bytes() == last


def test_compare_takes_what_a_kept_summary_selects_and_knows_a_misspelt_one(two: Path):
    done = comparing.run(two, "old/results", "new/results")
    assert "2 experiments of B compared with A" in done.flat
    done = comparing.run(two, "old/results", f"new/results/{SUMMARIES}/one")
    assert done.returncode == 0, done.stderr
    assert "1 experiment of B compared with A" in done.flat
    done = comparing.run(two, "old/results", f"new/results/{SUMMARIES}/onne")
    assert done.returncode == 1
    assert f"did you mean 'new/results/{SUMMARIES}/one'?" in done.stderr


def test_a_results_folder_in_a_folder_of_that_name_is_a_results_folder(tmp_path: Path):
    folder = tmp_path / SUMMARIES / "may"
    save(folder, *launches(BF16, OLD))
    summarised(tmp_path, f"{SUMMARIES}/may")
    assert results_of(folder) == folder
    assert results_of(tmp_path / "results") == tmp_path / "results"
