"""One direction: the engine's side runs in any Python that has vLLM, and the analysis needs no engine."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "workflow" / "scripts"
OURS = "rollout_bench"

ANALYSIS = {"pandas", "scipy", "matplotlib", "rich", "snakemake", "tabulate"}
ENGINE = {"vllm", "torch", "torchao", "transformers", "safetensors"}


def imported_by(path: Path) -> set[str]:
    """Modules that a file imports anywhere in it; relative ones made absolute."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(SCRIPTS).with_suffix("").parts[: -node.level] if node.level else ()
            base = ".".join([*package, *([node.module] if node.module else [])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return names


def file_of(module: str) -> Path | None:
    """The file of one of our modules."""
    path = SCRIPTS / Path(*module.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def needs(start: Path) -> set[str]:
    """Top-level packages that a file needs, through our own modules."""
    todo, seen, packages = [start], set(), set()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        for module in imported_by(path):
            own = file_of(module) if module.split(".")[0] == OURS else None
            if own is not None:
                todo.append(own)
            elif module.split(".")[0] != OURS:
                packages.add(module.split(".")[0])
    return packages


@pytest.mark.parametrize("command", ["run_launch.py", "build_checkpoint.py", "check.py", "calibrate.py"])
def test_a_command_of_the_engine_side_needs_nothing_that_vllm_does_not_install(command: str):
    assert needs(SCRIPTS / command) & (ANALYSIS | {"filelock"}) == set()


def test_the_engine_process_needs_nothing_that_vllm_does_not_install():
    for path in (SCRIPTS / OURS / "engines").glob("*.py"):
        assert needs(path) & (ANALYSIS | {"filelock"}) == set(), path.name


ANALYSING = ["summarise.py", "plot.py", "compare.py", "plan.py", "diagnose.py", "bounds.py", "read_trace.py"]


@pytest.mark.parametrize("command", ANALYSING)
def test_a_command_of_the_analysis_needs_no_engine(command: str):
    assert needs(SCRIPTS / command) & ENGINE == set()


def test_shares_of_the_limit_are_computed_without_engine_and_without_tables():
    assert needs(SCRIPTS / OURS / "bounds" / "share.py") & (ENGINE | ANALYSIS | {"psutil"}) == set()


def test_one_sampler_serves_every_mode():
    parts = {f"{OURS}.workloads.{part}" for part in ("prompts", "lengths", "numbers")}
    takers = {
        path.relative_to(SCRIPTS / OURS)
        for path in SCRIPTS.rglob("*.py")
        if path.parent.name != "workloads" and imported_by(path) & parts
    }
    assert takers == {Path("plan/load_checks.py")}  # which draws nothing
    for worker in ("offline_worker", "online_worker"):
        assert f"{OURS}.engines.source" in imported_by(SCRIPTS / OURS / "engines" / f"{worker}.py")


def test_the_walk_finds_what_is_there():
    assert {"pandas", "pydantic"} <= needs(SCRIPTS / "summarise.py")
    assert "vllm" in {p for path in (SCRIPTS / OURS / "engines").glob("*.py") for p in needs(path)}
