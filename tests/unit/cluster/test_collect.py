"""Records measured elsewhere come home whole and checked, whatever a hostile pod wrote; what is at home stays."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from samples.profile import make_profile, make_steps
from synthetic_records import make_failure, make_plan, make_record, make_spec, save

from rollout_bench.analysis.timed.collection import collect as read_all
from rollout_bench.cluster.retrieval import Collected, collect
from rollout_bench.contracts.store import (
    failure_path,
    record_path,
    sequences_path,
    traces_path,
    write_launched,
)
from rollout_bench.report.summary import summary_of

BF16, W8A8 = make_spec(), make_spec(quant="w8a8")


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    """Return a volume with two records of bf16 and one failure of w8a8, with their logs."""
    claim = tmp_path / "claim"
    save(claim / "results", make_record(BF16, 0), make_record(BF16, 1), make_failure(W8A8))
    for spec, launch in ((BF16, 0), (BF16, 1), (W8A8, 0)):
        log = claim / "logs" / "offline" / spec.experiment() / f"launch-{launch}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("said\n")
    return claim


def bring(claim: Path) -> Collected:
    return collect(claim, claim.parent / "results", claim.parent / "logs")


def at(folder: Path, spec=BF16, launch: int = 0) -> Path:
    return record_path(folder / "results", "offline", spec.experiment(), launch)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_all_files_come_home_and_the_summary_counts_them(claim: Path):
    done = bring(claim)
    home = claim.parent
    assert (len(done.records), len(done.failures), done.present, done.refused) == (2, 1, 0, [])
    spec = at(home).with_name("spec.json")
    assert json.loads(spec.read_text()) == BF16.model_dump(mode="json")
    spec.unlink()
    assert (content(home / "results"), content(home / "logs")) == (content(claim / "results"), content(claim / "logs"))
    summary = summary_of(home / "results", read_all(home / "results", make_plan([BF16, W8A8], launches=2)))
    assert "2/2" in summary.markdown
    assert "no memory is left for KV cache blocks" in summary.markdown


def test_asking_again_takes_what_is_new_and_touches_nothing_else(claim: Path):
    bring(claim)
    before = {path: path.stat().st_mtime_ns for path in claim.parent.glob("results/**/*")}
    save(claim / "results", make_record(BF16, 2))
    done = bring(claim)
    assert (done.records, done.present) == ([f"offline/{BF16.experiment()}/launch-2.json"], 3)
    assert {path: path.stat().st_mtime_ns for path in before if path.is_file()} == {
        path: at for path, at in before.items() if path.is_file()
    }


def test_a_record_at_home_is_never_replaced(claim: Path):
    save(claim.parent / "results", make_record(BF16, 0, rates=(1.0, 2.0, 3.0)))
    before = at(claim.parent).read_bytes()
    bring(claim)
    assert at(claim.parent).read_bytes() == before


def test_a_success_removes_the_failure_and_keeps_later_ones_out(claim: Path):
    bring(claim)
    save(claim / "results", make_record(W8A8, 0))
    assert bring(claim).records == [f"offline/{W8A8.experiment()}/launch-0.json"]
    assert not failure_path(at(claim.parent, W8A8)).exists()
    shutil.rmtree(claim / "results" / "offline" / W8A8.experiment())
    assert bring(claim).failures == []
    assert not failure_path(at(claim.parent, W8A8)).exists()


def test_a_profiles_traces_replace_those_of_an_unrecorded_launch(claim: Path):
    profile = make_profile(steps=make_steps({"decode": {"linear": 1.0}}))
    source = record_path(claim / "results", "profile", profile.spec.experiment(), profile.launch)
    write_launched(source, profile)
    for trace in profile.traces:
        deep = traces_path(source) / "of_npu" / "PROF_1" / "device.db"
        deep.parent.mkdir(parents=True, exist_ok=True)
        for path in (deep, traces_path(source) / trace.name):
            path.write_text("traced")
    home = record_path(claim.parent / "results", "profile", profile.spec.experiment(), profile.launch)
    traces_path(home).mkdir(parents=True)
    (traces_path(home) / "half").write_text("")
    assert len(bring(claim).records) == 3
    assert content(traces_path(home)) == content(traces_path(source))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def moved(path: Path) -> None:
    path.rename(path.with_name("launch-7.json"))
    sequences_path(path).rename(sequences_path(path.with_name("launch-7.json")))


DAMAGE = {
    "a_record_cut_short": (cut, "is not whole JSON"),
    "an_edited_spec": (
        lambda path: path.write_text(path.read_text().replace('"prompts": 8', '"prompts": 9')),
        "the record was edited",
    ),
    "another_launch_s": (moved, "launch 0, so the file was moved"),
    "side_file_cut_short": (lambda path: cut(sequences_path(path)), "is not the one that was written with the record"),
    "side_file_missing": (lambda path: sequences_path(path).unlink(), "is missing"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files_are_reported_and_the_rest_comes_home(claim: Path, name: str):
    damage, message = DAMAGE[name]
    damage(at(claim))
    done = bring(claim)
    assert done.records == [f"offline/{BF16.experiment()}/launch-1.json"]
    (refused,) = done.refused
    assert message in str(refused)
    assert len(str(refused).splitlines()) == 2
    assert sorted(path.name for path in at(claim.parent).parent.glob("launch-[07]*")) == []


def test_the_command_says_what_it_did_not_take_and_fails(claim: Path):
    cut(at(claim))
    state = claim / "results" / "summaries" / "\x1b[2J; $(id)" / "summary.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"plan": make_plan([BF16]).model_dump(mode="json")}))
    command = [sys.executable, "-m", "rollout_bench", "collect", str(claim)]
    done = subprocess.run(command, cwd=claim.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "1 records and 1 failures collected, 0 there already, 1 not taken" in done.stdout
    assert "next: rollout-bench summarise 'results/summaries/\\x1b[2J; $(id)'\n" in done.stdout


def outside(claim: Path, path: str, target: Path | str) -> Path:
    """Put a link to `target` at `path` on the claim, in place of what is there."""
    link = claim / path
    shutil.rmtree(link) if link.is_dir() else link.unlink(missing_ok=True)
    link.symlink_to(target)
    return link


LAUNCH = f"offline/{BF16.experiment()}/launch-0"


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """Return results of the user's that no pod may read: a record that would be taken if it lay on the claim."""
    save(tmp_path / "private", make_record(BF16, 0))
    return tmp_path / "private"


@pytest.mark.parametrize(
    "path",
    [
        f"results/{LAUNCH}.json",
        f"results/{LAUNCH}.sequences.jsonl.gz",
        f"results/{LAUNCH}.traces",
        f"results/offline/{BF16.experiment()}",
        "results",
    ],
)
def test_a_launch_with_a_link_is_not_taken_home(claim: Path, private: Path, path: str):
    outside(claim, path, private / path.removeprefix("results").lstrip("/"))
    done = bring(claim)
    assert "is a link" in str(done.refused[0])
    assert not list(at(claim.parent).parent.glob("launch-0*"))


def test_a_log_behind_a_link_stays(claim: Path, private: Path):
    outside(claim, f"logs/offline/{BF16.experiment()}", private)
    (private / "launch-0.log").write_text("hush")
    assert len(bring(claim).records) == 2
    assert not list((claim.parent / "logs" / "offline" / BF16.experiment()).glob("*"))
