"""The Dockerfiles put into an image what the workflow needs and manifests expect, and no more. None is built here."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path, PurePosixPath

import pytest
from docs_pages import REPOSITORY
from workspace import PARTS

from rollout_bench.cluster.kubernetes import HOME

PLATFORMS = ["cpu", "cuda", "ascend"]


def instructions(platform: str, name: str) -> list[str]:
    text = (REPOSITORY / "containers" / f"Dockerfile.{platform}").read_text()
    joined = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", text))
    return [line.partition(" ")[2] for line in joined.splitlines() if line.startswith(f"{name} ")]


def copied(platform: str) -> set[str]:
    sources = (words.split()[:-1] for words in instructions(platform, "COPY"))
    return {source for each in sources for source in each if not source.startswith("--")}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_an_image_holds_what_a_workspace_of_the_tests_holds(platform: str):
    early = {source for source in copied(platform) if source.startswith(("src/", "workflow/"))}
    assert copied(platform) - early - {"containers/ascend-python", "pyproject.toml"} == {*PARTS, "LICENSE"}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_builder_is_sent_what_is_copied_and_nothing_else(platform: str):
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    sent = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert all(any(PurePosixPath(source).is_relative_to(part) for part in sent) for source in copied(platform))
    assert sent == {*PARTS, "LICENSE", "pyproject.toml", "containers/ascend-python"}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_commands_lie_where_manifests_call_them(platform: str):
    (workdir,) = instructions(platform, "WORKDIR")
    assert workdir == HOME


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_pins_of_the_platform_decide_what_is_installed(platform: str):
    installing = " ".join(instructions(platform, "RUN"))
    pins = "setup_environment.py" if platform == "cpu" else f"requirements/{platform}.txt"
    assert pins in installing
    assert (REPOSITORY / "requirements" / f"{platform}.txt").is_file()


@pytest.mark.parametrize("platform", PLATFORMS)
def test_nothing_secret_and_no_host_is_named(platform: str):
    text = (REPOSITORY / "containers" / f"Dockerfile.{platform}").read_text()
    assert "://" not in text
    assert not re.search(r"(?im)^(ARG|ENV) .*(token|password|key)", text)
    (base,) = instructions(platform, "FROM")
    assert "latest" not in base
    assert base.startswith("${BASE_IMAGE}") or ":" in base


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_a_launch_is_not_root(platform: str):
    assert instructions(platform, "USER") == ["1000:1000"]


def test_the_python_of_the_ascend_image_passes_on_arguments_and_exit_status(tmp_path: Path):
    (tmp_path / "python3").write_text('#!/bin/sh\nprintf "<%s>" "$@"\nexit 7\n')
    (tmp_path / "python3").chmod(0o755)
    done = subprocess.run(
        [REPOSITORY / "containers/ascend-python", "a b", "$c"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (7, "<a b><$c>")
