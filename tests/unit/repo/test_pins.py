"""The pins, their inputs, the conda environments and the environment that runs this say the same."""

import re
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pin_requirements import CONDA_FILES

ROOT = Path(__file__).resolve().parents[3]
REQUIREMENTS = ROOT / "requirements"
PLATFORMS = ["cpu", "cuda", "ascend"]
BROKEN_ON_CPU = {"torchvision", "torchaudio", "torchcodec"}


def lines_of(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]


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
def test_every_input_is_satisfied_by_its_pin(platform: str) -> None:
    pins = pins_of(lines_of(REQUIREMENTS / f"{platform}.txt"))
    for wanted in inputs_of(REQUIREMENTS / f"{platform}.in"):
        pinned = pins.get(canonicalize_name(wanted.name))
        assert pinned, f"{wanted} has no pin in {platform}.txt: make pins"
        assert wanted.specifier.contains(pinned, prereleases=True), f"{wanted}, pinned {pinned}: make pins"


@pytest.mark.parametrize("platform", PLATFORMS)
def test_what_the_overrides_exclude_or_force_is_so_in_the_pins(platform: str) -> None:
    pins = pins_of(lines_of(REQUIREMENTS / f"{platform}.txt"))
    overrides = REQUIREMENTS / f"{platform}.overrides"
    for line in lines_of(overrides) if overrides.exists() else []:
        forced = Requirement(line)
        if forced.marker:
            assert canonicalize_name(forced.name) not in pins, f"{line}: make pins"
        else:
            assert forced.specifier.contains(pins[canonicalize_name(forced.name)]), f"{line}: make pins"


@pytest.mark.parametrize("path", sorted(REQUIREMENTS.iterdir()), ids=lambda path: path.name)
def test_requirements_name_no_host_and_no_local_path(path: Path) -> None:
    for line in path.read_text().splitlines():
        assert "://" not in line, line
        assert not re.search(r"(^|\s)(/|~/|file:|--(extra-)?index|--find-links|--hash)", line), line


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_conda_environment_of_a_platform_lists_its_pins(platform: str) -> None:
    text = (ROOT / CONDA_FILES[platform]).read_text()
    conda = yaml.safe_load(text)
    (python,) = [entry for entry in conda["dependencies"] if str(entry).startswith("python=")]
    assert python == "python=3.11"
    assert "pip" in conda["dependencies"]
    (from_pip,) = [entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict)]
    options = [line for line in from_pip if line.startswith("-")]
    assert options == (["--extra-index-url https://download.pytorch.org/whl/cpu"] if platform == "cpu" else [])
    assert text.count("://") == len(options)
    listed = pins_of([line for line in from_pip if not line.startswith("-")])
    assert listed == pins_of(lines_of(REQUIREMENTS / f"{platform}.txt")), "make pins"


def test_the_running_environment_holds_the_cpu_pins() -> None:
    differing = {}
    for name, pinned in pins_of(lines_of(REQUIREMENTS / "cpu.txt")).items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed = "nothing"
        if installed != pinned:
            differing[name] = f"pinned {pinned}, installed {installed}"
    assert not differing, f"make setup: {differing}"


def test_the_running_environment_lacks_the_packages_that_break_the_engine() -> None:
    installed = {canonicalize_name(found.name) for found in metadata.distributions()}
    assert not BROKEN_ON_CPU & installed
