"""A kit is carried to a machine without a network, measures there, and one file comes back."""

import getpass
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import forked_runs
import made_npu
import pytest
import stand_in
import yaml
from comparing import run
from workspace import REPOSITORY

from rollout_bench.commands import kit as command
from rollout_bench.core.places import home
from rollout_bench.exchange.kit import GIVEN, make, packages_of


def bench(folder: Path, *words: str) -> str:
    """Run `rollout-bench` in a folder; return what it says, with its exit status."""
    done = forked_runs.run(list(words), folder, os.environ, 600, REPOSITORY / "src")
    return f"{done.stdout}\n{done.returncode}"


def there(kit: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Do as on that machine: nothing of this project or its tests is on the path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    command = [sys.executable, kit / "kit.py", *words]
    return subprocess.run(command, cwd=kit.parent, env=environment, capture_output=True, text=True, check=False)


def carried(kit: Path, folder: Path) -> Path:
    """Return a copy of a packed kit for one test."""
    return shutil.copytree(kit, folder / "carried")


def names_of(kit: Path) -> set[str]:
    """Return words that tell of this machine, its user, or where the kit lies."""
    return {str(kit), str(Path.home()), f'"{socket.gethostname()}"', f'"{getpass.getuser()}"'}


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a kit for a machine that has all packages, as it was packed."""
    folder = tmp_path_factory.mktemp("kit")
    engine = {"python": stand_in.install(folder / "engine")}
    config = folder / "mine.yaml"
    config.write_text(yaml.safe_dump({**stand_in.CONFIG, "engine": engine, "launches": 2}))
    longer = folder / "longer.yaml"
    longer.write_text("{quants: [bf16], launches: 3}")
    assert make(folder / "packed", "cpu", "3.11", [], [[config], [config, longer]], 1 << 18) > 1
    return folder / "packed"


def test_one_file_comes_back_and_is_read_as_results(kit: Path, tmp_path: Path) -> None:
    kit = carried(kit, tmp_path)
    done = there(kit, "--minutes", "5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 records" in done.stdout
    with tarfile.open(kit / "results.tar.xz") as file:
        texts = [file.extractfile(member).read().decode() for member in file if member.name.endswith(".json")]
    assert len(texts) > 5
    assert [name for name in names_of(kit) for text in texts if name in text] == []
    refused = bench(tmp_path, "compare", str(kit / "results.tar.xz"), str(kit / "results.tar.xz"))
    assert "is the file of a kit, not a pack\n  -> put its records into results/ here: rollout-bench collect" in refused
    home_again = tmp_path / "home"
    home_again.mkdir()
    said = bench(home_again, "collect", str(kit / "results.tar.xz"))
    assert "5 records and 0 failures collected" in said
    assert "next: rollout-bench summarise results/summaries/mine" in said
    assert "3 of 3 planned" in bench(home_again, "summarise", "results/summaries/mine+longer")
    assert "Conclusion" in bench(home_again, "summarise", "results/summaries/mine")
    starts = len(stand_in.starts(kit / "work"))
    traces = next((kit / "work").glob("results/offline/*/launch-0.json")).with_suffix(".traces")
    traces.mkdir()
    (traces / "of-a-profile.json").touch()
    shutil.rmtree(kit / "tree" / GIVEN / "01")  # the same command goes on with one plan as with two
    assert "5 records" in there(kit).stdout
    with tarfile.open(kit / "results.tar.xz") as file:
        assert [name for name in file.getnames() if name.endswith("/launch-0.traces/of-a-profile.json")]
    assert len(stand_in.starts(kit / "work")) == starts, "nothing is measured twice"


@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_a_part_that_is_not_whole_is_named(kit: Path, harm: str, tmp_path: Path) -> None:
    kit = carried(kit, tmp_path)
    part = kit / "kit.00"
    if harm == "missing":
        part.unlink()
    else:
        part.write_bytes(part.read_bytes()[:-1])
    done = there(kit)
    assert (done.returncode, done.stderr) == (1, f"{part}: is {harm}\n  -> bring this part again\n")
    assert not (kit / "tree").exists()


@pytest.mark.parametrize(
    "harm", ["", "  \n", "0123456789", "0" * 64 + "  ../../part"], ids=["empty", "blank", "cut", "out"]
)
def test_damaged_checksums_are_named(kit: Path, harm: str, tmp_path: Path) -> None:
    kit = carried(kit, tmp_path)
    (kit / "SHA256SUMS").write_text(harm)
    done = there(kit)
    assert (done.returncode, done.stderr) == (1, f"{kit}/SHA256SUMS: is damaged\n  -> bring it again\n")


def test_a_kit_for_another_python_says_so(tmp_path: Path) -> None:
    make(tmp_path / "carried", "cpu", "3.10", ["iniconfig==2.1.0"], [], 1 << 20)
    done = there(tmp_path / "carried")
    this = f"python{sys.version_info.major}.{sys.version_info.minor}-x86_64"
    problem = f"{tmp_path}/carried: has packages of python3.10-x86_64, and this is {this}\n"
    assert (done.returncode, done.stderr.startswith(problem)) == (1, True), done.stderr
    assert "kit pack --python 3.1" in done.stderr


@pytest.mark.parametrize("platform", ["cpu", "cuda", "ascend"])
def test_a_kit_of_an_unknown_machine_packs_all_pins(platform: str) -> None:
    pins = (home() / "requirements" / f"{platform}.txt").read_text().splitlines()
    assert packages_of(platform, "3.12", [], None) == [line.split()[0] for line in pins if "==" in line]


def test_the_machine_keeps_versions_that_the_engine_allows() -> None:
    has = ["torch==2.11.0+cu130", "Jinja2==3.1.5", "numpy==1.0", "broken @ file:///somewhere"]
    packed = dict(line.split("==") for line in packages_of("cuda", "3.12", has, "0.25.1"))
    assert packed["vllm"] == "0.25.1"
    assert packed["numpy"] > "2"
    assert {"torch", "jinja2"}.isdisjoint(packed)


def test_the_command_says_what_to_do_next(tmp_path: Path) -> None:
    pins = (home() / "requirements" / "cuda.txt").read_text().splitlines()
    (tmp_path / "there.txt").write_text("\n".join(line for line in pins if "jinja2" not in line))
    said = bench(tmp_path, "kit", "pack", "new", "--python", "3.11", "--has", "there.txt", "--without", "jinja2")
    assert "new: 1 part, with 0 packages" in said
    assert "there: python3 new/kit.py --minutes 30" in said


def test_mistakes_are_refused_in_two_lines(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "secret.yaml").write_text("engine: {environment: {HF_TOKEN: plainword}}")
    mistakes = {
        ("pack", "full"): "full: is not empty",
        ("pack", "new", "--configfile", "none.yaml"): "none.yaml",
        ("pack", "new", "--configfile", "secret.yaml"): "engine.environment.HF_TOKEN: may be a secret",
        ("pack", "new", "--has", "none.txt"): "none.txt",
        ("pack", "new", "--part-mib", "0"): "--part-mib 0: is no size",
        ("pack", "new", "--without", "vlm"): "--without vlm: is not in the kit\n  -> did you mean 'vllm'?",
        ("pack", "new", "--vllm", "0.0.7"): "the packages were not resolved",
        ("run", "none"): "none",
        ("run", "full"): "full: its own package runs a kit",
    }
    for words, problem in mistakes.items():
        done = run(tmp_path, *words, main=command.main)
        assert done.returncode == 1
        assert problem in done.stderr, done
        assert done.stderr.count("\n  -> ") == 1, done


def test_a_kit_measures_on_npus_from_packing_to_conclusion(tmp_path: Path) -> None:
    path = made_npu.install(tmp_path / "npus")
    config = tmp_path / "mine.yaml"
    config.write_text(
        yaml.safe_dump({**made_npu.CONFIG, "launches": 2, "engine": {"python": str(path / "engine-python")}})
    )
    kit = tmp_path / "carried"
    make(kit, "ascend", "3.11", [], [[config]], 1 << 20)
    done = there(kit, "--minutes", "10", PATH=f"{path}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"ascend device: +\| (\d) +910B3", done.stdout) == ["0", "1"]
    assert "no problem found" in done.stdout
    with tarfile.open(kit / "results.tar.xz") as file:
        texts = {member.name: file.extractfile(member).read().decode("latin-1") for member in file}
    assert [name for name in texts for word in names_of(kit) if word in texts[name]] == []
    home_again = tmp_path / "home"
    home_again.mkdir()
    assert "6 records and 0 failures collected" in bench(home_again, "collect", str(kit / "results.tar.xz"))
    bench(home_again, "summarise", "results")
    summary = (home_again / "results" / "summary.md").read_text()
    assert "w8a8" in summary.partition("## Conclusion")[2].partition("##")[0]
    assert re.search(r"\| w8a8 \|.*\| 1\.30\dx ", summary)
    assert "vllm-ascend 0.23.0" in summary
    assert "Ascend910B3" in summary
    assert re.search(r"\| w8a8 \| 1/1 \| decode \| 0\.2285 \| 0\.0870 \(38\) \| 0\.00600 \(3\)", summary)
    used = set()
    for record in (json.loads(path.read_text()) for path in home_again.glob("results/offline/*/launch-*.json")):
        (device,) = record["placement"]["devices"]
        used.add(device)
        assert device == f"npu-{record['environment']['variables']['ASCEND_RT_VISIBLE_DEVICES']}"
        read = [iteration["devices"][0]["temperature_c"] for iteration in record["iterations"]]
        assert read == [{"npu-0": 47, "npu-1": 63}[device]] * 4
    assert used == {"npu-0", "npu-1"}
