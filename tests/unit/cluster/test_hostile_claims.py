"""A claim that a hostile pod has written to: nothing leaves the folders at home, no file of the user's comes in."""

import os
import shutil
from pathlib import Path

import pytest
from made_claim import BF16, W8A8, at, bring, command, make_claim
from synthetic_records import make_failure, make_record, save

from rollout_bench.core.errors import UserError


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    return make_claim(tmp_path)


def outside(claim: Path, path: str, target: Path | str) -> Path:
    """Put a link to `target` at `path` on the claim, in place of what is there."""
    link = claim / path
    shutil.rmtree(link) if link.is_dir() else link.unlink(missing_ok=True)
    link.symlink_to(target)
    return link


LAUNCH = f"offline/{BF16.experiment()}/launch-0"


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """Return a file of the user's that no pod may read: a record that would be taken if it lay on the claim."""
    save(tmp_path / "private" / "results", make_record(BF16, 0))
    return at(tmp_path / "private").parent


@pytest.mark.parametrize("path", [f"results/{LAUNCH}.json", f"results/{LAUNCH}.sequences.jsonl.gz"])
def test_a_launch_with_a_link_is_not_taken_home(claim: Path, private: Path, path: str):
    outside(claim, path, private / Path(path).name)
    done = bring(claim)
    assert done.records == [f"offline/{BF16.experiment()}/launch-1.json"]
    assert any("is a link" in line for line in (*done.left_out, *map(str, done.refused)))
    assert not list(at(claim.parent).parent.glob("launch-0*"))


@pytest.mark.parametrize("folder", [f"results/offline/{BF16.experiment()}", "results/offline", "results/failures"])
def test_a_folder_that_is_a_link_is_not_followed(claim: Path, private: Path, folder: str):
    save(private.parents[1], make_failure(W8A8))
    outside(claim, folder, private.parents[1] / Path(folder).relative_to("results"))
    done = bring(claim)
    assert done.refused
    assert all("is a link" in str(refused) for refused in done.refused)
    name = W8A8 if "failures" in folder else BF16
    assert not list((claim.parent / "results").rglob(f"{name.experiment()}/launch-*"))


def test_a_results_folder_that_is_a_link_is_an_error(claim: Path, private: Path):
    outside(claim, "results", private.parents[1])
    with pytest.raises(UserError, match="is a link, and is not followed"):
        bring(claim)


def test_foreign_files_stay_and_are_named_in_a_line_each(claim: Path, private: Path):
    (private / "hush").write_text("hush")
    outside(claim, f"results/{LAUNCH}.extra", private / "hush")
    outside(claim, f"results/{LAUNCH}.traces", private)
    outside(claim, f"logs/{LAUNCH}.log", private / "hush")
    (claim / f"results/{LAUNCH}.sh").write_text("hush")
    os.mkfifo(claim / f"results/{LAUNCH}.scores.jsonl.gz")
    done = command(claim, str(claim))
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("left out: ")]
    assert [Path(line.split(": ")[1]).name for line in lines] == [
        "launch-0.extra",
        "launch-0.scores.jsonl.gz",
        "launch-0.sh",
        "launch-0.traces",
        "launch-0.log",
    ]
    home = claim.parent
    found = [path for folder in ("results", "logs") for path in (home / folder).rglob("*") if path.is_file()]
    assert not [path for path in found if b"hush" in path.read_bytes()]
    assert sorted(path.name for path in at(home).parent.glob("launch-0.*")) == [
        "launch-0.json",
        "launch-0.sequences.jsonl.gz",
    ]


def test_a_log_behind_a_link_to_a_folder_stays(claim: Path, private: Path):
    (private / "launch-0.log").write_text("hush")
    outside(claim, f"logs/offline/{BF16.experiment()}", private)
    assert len(bring(claim).records) == 2
    assert not list((claim.parent / "logs" / "offline" / BF16.experiment()).glob("*"))
