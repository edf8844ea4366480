"""Each page of the documentation names what there is: links, commands, their options, configs and their keys."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
import yaml
from docs_pages import GENERATED, REPOSITORY, blocks, commands, pages, prose
from snakemake.cli import get_argument_parser
from snakemake.utils import update_config
from workspace import Workspace

from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.matrix import expand


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_what_a_page_names_exists(page: Path):
    assert [target for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if not leads_somewhere(page, target)] == []
    for block in blocks(page, "yaml"):
        merged = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
        update_config(merged, yaml.safe_load(block.text))
        assert expand(read_config(merged), probe_engine(None)), block
    for command in commands(page, "snakemake"):
        parser = get_argument_parser()
        parser.error = refuse  # type: ignore[method-assign]
        assert all("=" in entry for entry in parser.parse_args(list(command.words[1:])).config or []), command
    for program in ("python", "rollout-bench"):
        for command in commands(page, program):
            options = said_of_options(program, command.words[1])
            assert options
            assert [word for word in command.words[2:] if word.startswith("-") and word not in options] == [], command
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    named = {command.words[1] for command in commands(page, "make")}
    assert {*named, *re.findall(r"`make ([a-z-]+)", page.read_text())} <= targets
    assert [path for path in key_paths(page) if not is_key(path)] == []


def test_pages_quote_the_example_that_they_link():
    example = prose_of_html((REPOSITORY / "docs" / "examples" / "demo.html").read_text())
    for page in (REPOSITORY / "docs" / "quickstart.md", REPOSITORY / "docs" / "read-the-results.md"):
        quoted = re.findall(r"^ *(\w+ is [\d.]+x as fast as .*)$", page.read_text(), re.MULTILINE)
        assert quoted
        assert [line for line in quoted if line not in example] == [], page


def prose_of_html(text: str) -> str:
    """Return the text of a page, with a single space for its tags and line breaks."""
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


def test_the_reference_is_what_the_code_says(tmp_path: Path):
    copy = Workspace(tmp_path / "copy")  # as it lists the rules, for which Snakemake reads what results there are
    shutil.copytree(GENERATED, copy.path / GENERATED.relative_to(REPOSITORY))
    shutil.copytree(REPOSITORY / "tools", copy.path / "tools")
    shutil.copy(REPOSITORY / "docs" / "troubleshoot.md", copy.path / "docs")  # its tables are generated
    command = [sys.executable, "tools/make_reference.py", "--check"]
    variables = {**os.environ, "PYTHONPATH": "src"}
    done = subprocess.run(command, cwd=copy.path, capture_output=True, text=True, check=False, env=variables)
    assert done.returncode == 0, done.stderr


def leads_somewhere(page: Path, target: str) -> bool:
    """Return whether a link of a page does, as far as no network is needed."""
    place, _, heading = target.partition("#")
    path = (page.parent / place).resolve() if place else page
    return bool(re.match(r"[a-z]+:", target)) or (path.exists() and (not heading or heading in anchors(path)))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def refuse(message: str) -> NoReturn:
    """Fail where Snakemake does not know an option."""
    raise AssertionError(message)


@functools.cache
def said_of_options(program: str, name: str) -> str:
    """Return what is said of a script's options, or of a sub-command's; pages show many of one."""
    if program == "rollout-bench":
        text = (GENERATED / "commands.txt").read_text()
        return text.partition(f"\n$ rollout-bench {name} --help\n")[2].partition("\n$ ")[0]
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", [name, "--help"])
        patch.setenv("COLUMNS", "100")
        with pytest.raises(SystemExit) as end:  # a process of its own would import for a second
            runpy.run_path(str(REPOSITORY / name), run_name="__main__")
    assert not end.value.code
    return printed.getvalue()


def key_paths(page: Path) -> set[str]:
    """Return what a page names like keys of a config, and that are no fields of a record, which begin alike."""
    tops = {key.split(".")[0] for key in described("config.csv")}
    paths = set(re.findall(r"`(\w+(?:\.[\w<>.-]+)+)`", prose(page))) - described("records.csv")
    return {path for path in paths if path.split(".")[0] in tops and not path.endswith((".yaml", ".yml", ".csv"))}


def is_key(path: str) -> bool:
    """Return whether the reference describes the key that a page names by its path."""
    patterns = (re.escape(key).replace("<name>", "[A-Za-z0-9<>.+-]+") for key in described("config.csv"))
    return any(re.fullmatch(pattern, path) for pattern in patterns)


@functools.cache
def described(name: str) -> set[str]:
    """Return all keys or fields that a table of the reference describes."""
    with (GENERATED / name).open(newline="") as file:
        return {row["key"] for row in csv.DictReader(file)}
