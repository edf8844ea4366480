"""What a user has who installs the wheel and has no clone."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import keep_out
import pytest
import stand_in
import yaml
from stub_server import running_stub
from workspace import REPOSITORY

from rollout_bench import __version__
from rollout_bench.core.installed import python_of


class Installed:
    """The wheel, built of the sdist, installed apart from the clone, and an empty folder to work in."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._site = folder / "work", folder / "site-packages"
        self.folder.mkdir()
        uv = Path(sys.executable).with_name("uv")
        build = [uv, "build", "--no-build-isolation", "--quiet", "--out-dir", folder, REPOSITORY]
        subprocess.run(build, check=True, env={**os.environ, "VIRTUAL_ENV": sys.prefix})
        self.wheel = folder / f"rollout_bench-{__version__}-py3-none-any.whl"
        install = [uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--target", self._site, self.wheel]
        subprocess.run(install, check=True)

    def bench(self, *words: str, first: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run `rollout-bench` in the folder; stdout holds both streams. `first` precedes all other folders."""
        guard = Path(keep_out.__file__).parent
        return subprocess.run(
            [sys.executable, "-m", "rollout_bench", *words],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, filter(None, (first, self._site, guard))))},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("wheel"))


def test_the_wheel_has_the_version_and_every_file(installed: Installed):
    with zipfile.ZipFile(installed.wheel) as wheel:
        packed = {name for name in wheel.namelist() if ".dist-info/" not in name and not name.endswith("/")}
    sources = REPOSITORY / "src"
    files = {path for path in (sources / "rollout_bench").rglob("*.*") if path.is_file() and path.suffix != ".pyc"}
    shared = {name for name in packed if name.startswith("rollout_bench/share/")}
    assert packed - shared == {path.relative_to(sources).as_posix() for path in files}
    assert "rollout_bench/share/workflow/rules/measure.smk" in shared
    with zipfile.ZipFile(installed.wheel) as wheel:
        described = wheel.read(f"rollout_bench-{__version__}.dist-info/METADATA").decode()
    _, _, shown = described.partition("\n\n")
    addresses = "https://(github.com/OWNER/rollout-bench/blob|raw.githubusercontent.com/OWNER/rollout-bench)/main/"
    assert re.sub(addresses, "", shown) == (REPOSITORY / "README.md").read_text()
    assert re.findall(r"\]\((?!https://|#)[^)]*\)", shown) == [], "an index has no files beside the page"
    assert installed.bench("--version").stdout.startswith(f"rollout-bench {__version__} (measurement_version ")
    remedy = installed.bench("plan", "--profile", "lsf").stdout.splitlines()[1]
    (page,) = (word for word in remedy.split() if word.endswith("share/docs/clusters.md"))
    assert Path(page).is_file(), "a page that is named is there"


def test_an_empty_folder_gets_its_config_plan_and_answer(installed: Installed, tmp_path: Path):
    config = installed.folder / "config.yaml"
    assert "`rollout-bench init` writes one" in installed.bench("plan").stdout
    in_pod = ["--cores", "1", "--replace-workflow-config", "--configfile", str(REPOSITORY / "config.yaml")]
    assert "measure" in installed.bench("run", "-n", *in_pod).stdout
    assert installed.bench("init").returncode == 0
    assert "exists" in installed.bench("init").stdout
    assert config.read_text() == (REPOSITORY / "config.yaml").read_text()
    config.unlink()
    mine = {**stand_in.CONFIG, "engine": {"python": stand_in.install(tmp_path / "engine")}, "launches": 2}
    (installed.folder / "mine.yaml").write_text(yaml.safe_dump(mine))
    given = ["--configfile", "mine.yaml"]
    assert "0 of 4 launches done, 4 to run" in installed.bench("plan", *given).stdout
    done = installed.bench("run", *given)
    assert done.returncode == 0, done.stdout
    assert len(stand_in.starts(installed.folder)) == 4
    linked = installed.folder / ".snakemake" / "rollout-bench"
    assert [path.name for path in linked.iterdir()] == ["rollout_bench"], "an engine's Python sees nothing else of ours"
    assert "Conclusion" in installed.bench("show").stdout
    (installed.folder / "results").rename(installed.folder / "earlier")
    assert installed.bench("run", *given).returncode == 0
    compared = installed.bench("compare", "earlier", "results")
    assert compared.returncode == 0, compared.stdout
    gate = ["--fail-if", "output_tokens_per_s < -0.1%", "--until-decided"]
    assert "call it where B is measured" in installed.bench("compare", "results", "earlier", *gate, "3").stdout
    for most in ("3", "2"):
        assert "allowed:" in installed.bench("compare", "earlier", "results", *gate, most).stdout
        assert len(stand_in.starts(installed.folder)) == 4 + 4 + 2, "up to the third launch of each, once"


WITHOUT_ENGINE = """
import importlib.metadata, os, sys

LACKING = {"vllm", "torch", "transformers", "huggingface_hub"}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in LACKING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
real = importlib.metadata.Distribution.from_name.__func__

def from_name(cls, name):
    if name.startswith("vllm"):
        raise importlib.metadata.PackageNotFoundError(name)
    return real(cls, name)

importlib.metadata.Distribution.from_name = classmethod(from_name)
os.environ["PATH"] = "/usr/bin:/bin"
"""
"""A sitecustomize that makes this interpreter one without vLLM and without what comes with it."""


def test_a_running_server_is_measured_without_an_engine_here(installed: Installed, tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_ENGINE)
    load = {"prompts": 4, "samples_per_prompt": 1, "prompt_tokens": 8, "output_tokens": 4}
    few = {"workloads": ["few"], "workload_settings": {"few": {**load, "online": {"concurrency": 2}}}}
    with running_stub() as server:
        endpoint = {"url": f"{server.url}/v1", "model": "stub"}
        given = {"modes": ["online"], "models": [], "endpoints": {"theirs": endpoint}, **few, "launches": 1}
        (installed.folder / "theirs.yaml").write_text(yaml.safe_dump(given))
        words = "--configfile", "theirs.yaml"
        assert "no problem found" in installed.bench("check", *words, first=tmp_path).stdout
        done = installed.bench("run", *words, first=tmp_path)
    assert "1 of 1 planned launch measured" in done.stdout, done.stdout
    for key, problem in (("harness=vllm-bench", "is a command of vLLM"), ("models=[qwen3-90m]", "there is no vLLM in")):
        assert problem in installed.bench("plan", *words, "--config", key, first=tmp_path).stdout


def test_the_examples_are_found_by_name_and_written_as_files(installed: Installed, tmp_path: Path):
    engine = {"engine": {"python": stand_in.install(tmp_path / "engine")}, "platform": "cpu"}
    (installed.folder / "here.yaml").write_text(yaml.safe_dump(engine))
    done = installed.bench("init", "--from", "example", "online")
    assert "Next: rollout-bench plan --configfile online.yaml" in done.stdout
    written = (installed.folder / "online.yaml").read_text()
    assert "\n# rollout-bench run --configfile online.yaml\n" in written
    assert yaml.safe_load(written) == yaml.safe_load((REPOSITORY / "config" / "online.yaml").read_text())
    for file in ("config/online.yaml", "online.yaml"):
        plan = installed.bench("plan", "--configfile", file, "here.yaml").stdout
        assert "0 of 16 launches done" in plan, plan
    for command in ("plan", "run"):
        missed = installed.bench(command, "--configfile", "config/onlin.yaml").stdout
        remedy = "  -> did you mean 'config/online.yaml'?"
        assert missed.splitlines() == ["config/onlin.yaml: there is no such config file", remedy]


def test_the_command_vllm_names_the_interpreter_of_its_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As in vLLM's image, where scripts and interpreter lie in two folders."""
    script = tmp_path / "of-an-engine"
    monkeypatch.setenv("PATH", str(tmp_path))
    for first, python in (("#!/usr/bin/python3", "/usr/bin/python3"), ("#!/bin/sh", str(tmp_path / "python3"))):
        script.write_text(f"{first}\n")
        script.chmod(0o755)
        assert python_of(script.name) == python
    assert python_of("of-none") is None
    own = tmp_path / ".venv" / "bin"  # as `rollout-bench demo` makes it
    own.mkdir(parents=True)
    script.rename(own / script.name)
    monkeypatch.chdir(tmp_path)
    assert python_of(script.name) == str(own / "python3")
