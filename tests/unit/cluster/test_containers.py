"""The Dockerfiles put into an image what the workflow needs and manifests expect, and no more. None is built here."""

import re
from pathlib import PurePosixPath

import pytest
from docs_pages import REPOSITORY
from workspace import PARTS

PLATFORMS = ["cpu", "cuda", "ascend"]


def instructions(platform: str, name: str) -> list[str]:
    text = (REPOSITORY / "containers" / f"Dockerfile.{platform}").read_text()
    joined = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", text))
    return [line.partition(" ")[2] for line in joined.splitlines() if line.startswith(f"{name} ")]


def copied(platform: str) -> set[str]:
    sources = (words.split()[:-1] for words in instructions(platform, "COPY"))
    return {source for each in sources for source in each if not source.startswith("--")}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_builder_is_sent_what_is_copied_and_nothing_else(platform: str):
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    sent = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert all(any(PurePosixPath(source).is_relative_to(part) for part in sent) for source in copied(platform))
    assert sent == {*PARTS, "LICENSE", "pyproject.toml", "containers/ascend-python"}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_nothing_secret_and_no_host_is_named(platform: str):
    text = (REPOSITORY / "containers" / f"Dockerfile.{platform}").read_text()
    assert "://" not in text
    assert not re.search(r"(?im)^(ARG|ENV) .*(token|password|key)", text)
    (base,) = instructions(platform, "FROM")
    assert "latest" not in base
    assert base.startswith("${BASE_IMAGE}") or ":" in base
