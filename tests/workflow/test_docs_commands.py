"""The commands of the documentation do what it says, as far as no engine is needed."""

from __future__ import annotations

import re

import pytest
from docs_pages import REPOSITORY, Command, commands, named_configs, pages
from workspace import Workspace

INFORMATION = ("--list-rules", "--report", "--lint")
"""Options with which Snakemake runs nothing anyway; a report needs results, its options are checked elsewhere."""


def configs(command: Command) -> dict[str, str]:
    """Return the configs of its own page that a command names: file name -> content."""
    return {file: text for file, text in named_configs(command.block.page).items() if file in command.words}


def arguments(command: Command) -> tuple[str, ...]:
    """Return what stands behind `snakemake`, without a dry run's own option."""
    return tuple(word for word in command.words[1:] if word not in ("-n", "--dry-run"))


UNIQUE = {
    (arguments(command), *configs(command).values()): command
    for page in pages()
    for command in commands(page, "snakemake")
    if not set(command.words) & set(INFORMATION)
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("workspace"))


@pytest.mark.parametrize("command", UNIQUE.values(), ids=str)
def test_a_snakemake_command_of_the_documentation_can_be_planned(workspace: Workspace, command: Command):
    for file, content in configs(command).items():
        (workspace.path / file).write_text(content)
    done = workspace.snakemake("-n", *arguments(command))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("wrong", "last_line"),
    [
        (["--configfile", "nowhere.yaml"], "FileNotFoundError: [Errno 2] No such file or directory: "),
        (["--configfile", "latin1.yaml"], "UnicodeDecodeError: 'utf-8' codec can't decode byte "),
        (["--config", "quants=[bf16,", "w8a8]"], "Config entries have to be defined as name=value pairs."),
        (["--config", "=3"], "Config entry must start with a valid identifier."),
        (["--configfile", "broken.yaml"], "Config file is not valid JSON or YAML"),
        (["--configfile", "list.yaml"], "Config file must be given as JSON or YAML with keys at top level"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_snakemake_says_itself_stands_under_troubleshooting(
    workspace: Workspace, wrong: list[str], last_line: str
):
    (workspace.path / "latin1.yaml").write_bytes("models: [é]".encode("latin-1"))
    (workspace.path / "broken.yaml").write_text("models: [a")
    (workspace.path / "list.yaml").write_text("- a")
    done = workspace.snakemake("-n", *wrong)
    assert done.returncode == 1
    assert last_line in done.stdout
    troubleshooting = next(page for page in pages() if page.stem == "troubleshoot")
    assert last_line.strip() in troubleshooting.read_text()


def test_the_tutorial_lists_the_jobs_of_the_demo(workspace: Workspace):
    page = (REPOSITORY / "docs" / "tutorial.md").read_text()
    table = page.partition("job           count\n")[2].partition("```")[0]
    listed = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}
    assert listed.pop("total") == sum(listed.values())
    assert listed == workspace.planned()


def test_every_config_that_a_page_names_is_shown_there():
    for command in UNIQUE.values():
        files = {word for word in command.words if word.endswith(".yaml") and "/" not in word}
        assert files == set(configs(command)), str(command)
