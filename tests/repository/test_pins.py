"""The pins, their inputs, the conda environments and the environment that runs this say the same."""

import re
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements"
PLATFORMS = {"cpu": "environment.yml", "cuda": "environment-cuda.yml", "ascend": "environment-ascend.yml"}
BROKEN_ON_CPU = {"torchvision", "torchaudio", "torchcodec"}


def lines_of(path: Path) -> list[str]:
    """Lines without comments and hashes."""
    lines = [line.strip().removesuffix(" \\") for line in path.read_text().splitlines()]
    return [line for line in lines if line and not line.startswith(("#", "--hash="))]


def pins_of(lines: list[str]) -> dict[str, str]:
    """Name to version of `name==version` lines; anything else in them fails the test."""
    pins = {}
    for line in lines:
        match = re.fullmatch(r"([a-z0-9-]+)==([A-Za-z0-9.+!]+)", line)
        assert match, f"not a plain pin: {line!r}"
        assert match[1] not in pins, f"pinned twice: {match[1]}"
        pins[match[1]] = match[2]
    return pins


def inputs_of(path: Path) -> list[Requirement]:
    found = []
    for line in lines_of(path):
        if line.startswith("-r "):
            found += inputs_of(path.parent / line.removeprefix("-r ").strip())
        else:
            found.append(Requirement(line))
    return found


@pytest.mark.parametrize("platform", PLATFORMS)
def test_pins_satisfy_every_input_and_conda_has_the_same(platform: str) -> None:
    lines = lines_of(REQUIREMENTS / f"{platform}.txt")
    pins = pins_of(lines)
    for wanted in inputs_of(REQUIREMENTS / f"{platform}.in"):
        pinned = pins.get(canonicalize_name(wanted.name))
        assert pinned, f"{wanted} has no pin in {platform}.txt: make pins"
        assert wanted.specifier.contains(pinned, prereleases=True), f"{wanted}, pinned {pinned}: make pins"
    packages = yaml.safe_load((ROOT / PLATFORMS[platform]).read_text())["dependencies"][-1]["pip"]
    assert [line for line in packages if not line.startswith("--")] == lines


@pytest.mark.parametrize("platform", PLATFORMS)
def test_each_pin_has_hashes_but_pytorchs_wheel_for_the_cpu(platform: str) -> None:
    pins = re.split(r"^(?=\w)", (REQUIREMENTS / f"{platform}.txt").read_text(), flags=re.MULTILINE)[1:]
    bare = [pin for pin in pins if not re.fullmatch(r"\S+==\S+( \\\n    --hash=sha256:[0-9a-f]{64})+\n", pin)]
    assert [pin.partition("==")[0] for pin in bare] == (["torch"] if platform == "cpu" else [])


@pytest.mark.parametrize("path", sorted(REQUIREMENTS.iterdir()), ids=lambda path: path.name)
def test_requirements_name_no_host_and_no_local_path(path: Path) -> None:
    for line in path.read_text().splitlines():
        assert "://" not in line, line
        assert not re.search(r"(^|\s)(/|~/|file:|--(extra-)?index|--find-links)", line), line


def test_the_running_environment_lacks_the_packages_that_break_the_engine() -> None:
    installed = {canonicalize_name(found.name) for found in metadata.distributions()}
    assert not BROKEN_ON_CPU & installed
