"""The documentation says what the code does: links, commands, configs, causes of failure."""

from __future__ import annotations

import argparse
import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from docs_pages import GENERATED, REPOSITORY, Block, Command, blocks, commands, pages, prose
from snakemake.cli import get_argument_parser
from snakemake.utils import update_config
from workspace import Workspace

from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.matrix import expand

PAGES = pages()
YAML_BLOCKS = [block for page in PAGES for block in blocks(page, "yaml")]
SNAKEMAKE = [command for page in PAGES for command in commands(page, "snakemake")]
SUB_COMMANDS = [command for page in PAGES for command in commands(page, "rollout-bench")]
SCRIPTS = [command for page in PAGES for command in commands(page, "python")]


def name(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_and_image_leads_somewhere(page: Path):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, heading = target.partition("#")
        path = (page.parent / place).resolve() if place else page
        if not path.exists() or (heading and heading not in anchors(path)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_make_target_exists(page: Path):
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", page.read_text()))
    named |= {command.words[1] for command in commands(page, "make")}
    assert named <= targets


@pytest.mark.parametrize("block", YAML_BLOCKS, ids=str)
def test_every_yaml_block_can_be_laid_over_the_default_config(block: Block):
    merged = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    update_config(merged, yaml.safe_load(block.text))
    expand(read_config(merged), probe_engine(None))


@pytest.mark.parametrize("command", SNAKEMAKE, ids=str)
def test_every_snakemake_command_has_options_that_exist(command: Command):
    def refuse(message: str) -> None:
        raise AssertionError(message)

    parser = get_argument_parser()
    parser.error = refuse  # type: ignore[method-assign, assignment]
    parsed: argparse.Namespace = parser.parse_args(list(command.words[1:]))
    assert all("=" in entry for entry in parsed.config or [])


@pytest.mark.parametrize("command", SCRIPTS, ids=str)
def test_every_script_exists_and_has_the_options_that_are_shown(command: Command):
    options = [word for word in command.words[2:] if word.startswith("-")]
    assert [option for option in options if option not in said_of_options(command.words[1])] == []


@pytest.mark.parametrize("command", SUB_COMMANDS, ids=str)
def test_every_sub_command_exists_and_has_the_options_that_are_shown(command: Command):
    options = [word for word in command.words[2:] if word.startswith("-")]
    said = (
        (REPOSITORY / "docs/reference/commands.md").read_text().partition(f"\n## rollout-bench {command.words[1]}\n")[2]
    )
    assert [option for option in options if option not in said.partition("\n## ")[0]] == []
    assert said


def test_the_reference_is_what_the_code_says(tmp_path: Path):
    copy = Workspace(tmp_path / "copy")  # as it lists the rules, for which Snakemake reads what results there are
    shutil.copytree(GENERATED, copy.path / GENERATED.relative_to(REPOSITORY))
    command = [sys.executable, "workflow/scripts/make_reference.py", "--check"]
    done = subprocess.run(command, cwd=copy.path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "page", [page for page in PAGES if GENERATED not in page.parents and page.name != "CHANGELOG.md"], ids=name
)
def test_every_config_key_that_is_named_by_its_path_exists(page: Path):
    tops = {key.split(".")[0] for key in reference_keys()}
    paths = set(re.findall(r"`(\w+(?:\.[\w<>.-]+)+)`", prose(page)))
    paths = {path for path in paths if path.split(".")[0] in tops and not path.endswith((".yaml", ".yml", ".csv"))}
    # fields of a record begin alike
    in_records = set(re.findall(r"^\| `([^`]+)` \|", (GENERATED / "records.md").read_text(), re.MULTILINE))
    assert {path for path in paths if not is_key(path) and path not in in_records} == set()


@functools.cache
def said_of_options(script: str) -> str:
    """Return what a script's --help says; asked once, as pages show many commands of one script."""
    line = [sys.executable, str(REPOSITORY / script), "--help"]
    return subprocess.run(line, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "100"}).stdout


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def is_key(path: str) -> bool:
    """Return whether the reference describes the key that a page names by its path."""
    patterns = (re.escape(key).replace("<name>", "[A-Za-z0-9<>.+-]+") for key in reference_keys())
    return any(re.fullmatch(pattern, path) for pattern in patterns)


def reference_keys() -> set[str]:
    """Return all keys that the config reference describes."""
    return set(re.findall(r"^\| `([^`]+)` \|", (GENERATED / "config.md").read_text(), re.MULTILINE))
