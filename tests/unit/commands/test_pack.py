"""A pack in place of a results folder: the same comparison from one file, and wrong files refused in two lines."""

import os
import shutil
import tarfile
from pathlib import Path

import pytest
from comparing import BF16, NEW, OLD, W8A8, launches, run, summarised
from every_mode import save_every_mode
from refusals import refused
from synthetic_records import make_failure, make_plan, make_record, make_sequences, make_spec, save

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.commands import pack
from rollout_bench.contracts.record import Flag
from rollout_bench.core.errors import UserError
from rollout_bench.plan.planfile import write_plan
from rollout_bench.report import pack as report_pack
from rollout_bench.report.pack import opened, write_pack
from rollout_bench.report.summary import summary_of


@pytest.mark.parametrize("options", [(), ("--all",)], ids=["selected", "all"])
def test_a_pack_gives_the_comparison_of_its_folder(tmp_path: Path, options: tuple[str, ...]):
    for side, rates, launch in (("a", OLD, 0), ("b", NEW, 1)):
        save_every_mode(tmp_path / side, launch)
        save(tmp_path / side, *launches(BF16, rates), *launches(W8A8, rates), make_failure(launch=4))
    write_plan(tmp_path / "plan.json", make_plan([BF16]))
    summarised(tmp_path, "a", "--plan", "plan.json")
    of_folder = run(tmp_path, "a", "b", *options)
    assert run(tmp_path, "a", "--out", "a.tar.xz", main=pack.main).stdout.startswith("a.tar.xz: ")
    shutil.rmtree(tmp_path / "a")
    of_pack = run(tmp_path, "a.tar.xz", "b", *options)
    assert of_pack.flat.replace("a.tar.xz", "a") == of_folder.flat


def test_an_anonymous_pack_gives_the_same_comparison_and_names_no_machine_and_no_folder(tmp_path: Path):
    launched = launches(BF16, OLD)
    environment = launched[0].environment
    variables = {"HF_HOME": "/home/jane/hf", "VLLM_HOST_IP": "10.1.2.3", "OMP_NUM_THREADS": "2"}
    named = environment.model_copy(update={"hostname": "gpu-box", "variables": variables})
    disturbed = Flag(code="cpu_shared", severity="warning", sentence="On gpu-box /home/jane/train.py ran.")
    ours = [one.model_copy(update={"environment": named, "validity": [disturbed]}) for one in launched]
    save(tmp_path / "a", *ours, make_failure(launch=4))
    save(tmp_path / "b", *launches(BF16, NEW))
    of_folder = run(tmp_path, "a", "b")
    run(tmp_path, "a", "--out", "a.tar.xz", "--anonymous", main=pack.main)
    folder = opened(tmp_path / "a.tar.xz")
    of_pack = run(tmp_path, "a.tar.xz", "b").flat.replace("a.tar.xz", "a")
    assert (
        of_pack.partition("variables.")[0] == of_folder.flat.replace("gpu-box", "machine-1").partition("variables.")[0]
    )
    texts = [file.read_text() for file in folder.rglob("*.json")]
    assert [text for text in texts if any(word in text for word in ("gpu-box", "jane", "10.1.2.3"))] == []
    assert any("On machine-1 .../train.py ran." in text and '"OMP_NUM_THREADS": "2"' in text for text in texts)


def test_an_experiment_that_names_a_folder_is_not_packed_anonymously(tmp_path: Path):
    spec = make_spec(args={"tokenizer": "/home/jane/model"})
    save(tmp_path / "a", make_record(spec))
    with refused("its experiment names a folder", "share the CSV of `rollout-bench table`"):
        write_pack(tmp_path / "a", tmp_path / "a.tar.xz", anonymous=True)
    assert not (tmp_path / "a.tar.xz").exists()


def test_a_pack_with_sequences_has_the_percentiles_of_its_folder(tmp_path: Path):
    record = make_record()
    save(tmp_path / "a", (record, make_sequences(record)))
    shown = [summary_of(folder, collect(folder, None)) for folder in packed(tmp_path, tmp_path / "a")]
    tables = [[view.title for view in summary.views if "E2EL" in view.title] for summary in shown]
    assert tables[0] == tables[2] != tables[1] == []


def packed(folder: Path, results: Path) -> list[Path]:
    """Return the folder itself, and what is in packs of it without and with sequences."""
    found = [results]
    for name, sequences in (("plain", False), ("whole", True)):
        write_pack(results, folder / f"{name}.tar.xz", sequences=sequences)
        found.append(opened(folder / f"{name}.tar.xz"))
    return found


def test_a_pack_that_unpacks_to_too_much_is_refused_before_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(report_pack, "MOST_BYTES", 1 << 20)
    with tarfile.open(tmp_path / "bomb", "w:xz") as file:
        member = tarfile.TarInfo("offline/launch-0.json")
        member.size = 1 << 40  # of which nothing is there
        file.addfile(member, None)
    with pytest.raises(UserError, match="unpacks to more than 1 MiB"):
        opened(tmp_path / "bomb")


def test_a_copy_made_later_has_the_same_pack(tmp_path: Path):
    for time, name in enumerate(("a", "copy")):
        save(tmp_path / name, *launches(BF16, OLD))
        for path in (tmp_path / name).rglob("*"):
            os.utime(path, (time, time))
        summarised(tmp_path, name)
        write_pack(tmp_path / name, tmp_path / f"{name}.tar.xz")
    assert (tmp_path / "a.tar.xz").read_bytes() == (tmp_path / "copy.tar.xz").read_bytes()


@pytest.mark.parametrize(
    ("name", "kind", "share", "problem"),
    [
        ("summary.json", tarfile.REGTYPE, 0, "ended before the end-of-stream marker"),
        ("summary.json", tarfile.REGTYPE, 0.9, "ended before the end-of-stream marker"),
        ("/etc/passwd", tarfile.REGTYPE, 1, "it has '/etc/passwd'"),
        ("offline/../../launch-0.json", tarfile.REGTYPE, 1, "it has 'offline/../../launch-0.json'"),
        (f"{'a/' * 1_500}launch-0.json", tarfile.REGTYPE, 1, "it has 'a/a/"),
        ("summary.json", tarfile.SYMTYPE, 1, "it has 'summary.json'"),
        ("summary.json", tarfile.REGTYPE, 1, "has a summary, but not the records"),
    ],
)
def test_a_wrong_pack_is_refused_in_two_lines(tmp_path: Path, name: str, kind: bytes, share: float, problem: str):
    member = tarfile.TarInfo(name)
    member.type = kind
    with tarfile.open(tmp_path / "a", "w:xz") as file:
        file.addfile(member)
    content = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(content[: int(len(content) * share)])
    done = run(tmp_path, "a", "b")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 2)
    assert problem in done.stderr.splitlines()[0]
