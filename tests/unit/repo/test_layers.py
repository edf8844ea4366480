"""Rooms in the order in which data flows: who may import whom, what each process needs, and names that stand once."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[3] / "src"
OURS = "rollout_bench"
PACKAGE = SOURCES / OURS

ANALYSIS = {"pandas", "scipy", "matplotlib", "rich", "snakemake", "tabulate"}
ENGINE = {"vllm", "torch", "torchao", "transformers", "safetensors"}

MAY_IMPORT: dict[str, set[str]] = {
    "core": set(),
    "contracts": {"core"},
    "numbers": {"core", "contracts"},
    "workloads": {"core", "contracts"},
    "checkpoints": {"core", "contracts"},
    "llmd": {"core", "contracts"},
    "plan": {"core", "contracts", "numbers", "workloads", "checkpoints", "llmd"},
    "measure": {"core", "contracts", "workloads", "checkpoints"},
    "trainers": {"core", "contracts", "workloads", "plan"},
    "analysis": {"core", "contracts", "numbers", "workloads", "checkpoints", "plan"},
    "exchange": {"core", "contracts", "numbers", "plan", "analysis"},
    "predict": {"core", "contracts", "workloads", "checkpoints", "analysis"},
    "report": {"core", "contracts", "numbers", "plan", "analysis", "exchange"},
    "cluster": {"core", "contracts", "llmd", "plan", "measure"},
    "commands": {
        "predict",
        "rules",
        "checkpoints",
        "core",
        "contracts",
        "numbers",
        "plan",
        "measure",
        "analysis",
        "report",
        "cluster",
        "trainers",
        "exchange",
    },
    "__main__": {"core", "contracts", "commands"},
    "rules": {"core", "contracts", "plan", "measure", "analysis", "report", "cluster"},
    # a mode, by the process that imports its file
    "modes/settings": {"core", "contracts"},
    "modes/record": {"core", "contracts"},
    "modes/checks": {"core", "contracts", "plan"},
    "modes/worker": {"core", "contracts", "workloads", "checkpoints", "measure"},
    "modes/numbers": {"core", "contracts", "numbers"},
    "modes/report": {"core", "contracts", "numbers", "plan", "analysis", "predict", "report", "exchange"},
}
"""Room -> the rooms that it may import. `measure` and `plan` meet in `contracts` alone; `analysis` never measures.

No room names a mode: `contracts.modes` finds them, and `report` their templates.
"""

_FACTS = {"modes/settings", "modes/record"}
READ_BY = {
    "modes/settings": _FACTS,
    "modes/record": _FACTS,
    "modes/checks": _FACTS,
    "modes/worker": _FACTS,
    "modes/numbers": _FACTS,
    "modes/report": {*_FACTS, "modes/numbers"},
}
"""Kind of a mode's file -> the kinds of the same mode that it may import."""

OF_REPORT = {"report", "figures", "gains", "costs", "drifts", "links", "breakdown", "findings", "profiles", "traces"}
OF_REPORT |= {"loading_report", "export", "command"}
"""Files of modes that read records; the others measure, unless they have a room of their own."""


OF_RECORD = {"vllm_symbols"}
"""Files of modes with facts that all of their mode's files may read, as they do its record."""


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """Return what Python reads in a file."""
    return ast.parse(path.read_text())


def _at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """Yield `node` and all below it, without what only a type checker reads."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        children = node.orelse
    else:
        yield node
        children = [*ast.iter_child_nodes(node)]
    for child in children:
        yield from _at_run_time(child)


@functools.cache
def imported_by(path: Path) -> set[str]:
    """Return modules that a file imports anywhere in it; relative ones made absolute."""
    names = set()
    for node in _at_run_time(tree_of(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(SOURCES).with_suffix("").parts[: -node.level] if node.level else ()
            base = ".".join([*package, *([node.module] if node.module else [])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return names


@functools.cache
def file_of(module: str) -> Path | None:
    """Return the file of one of our modules."""
    path = SOURCES / Path(*module.split("."))
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


def modules() -> list[Path]:
    """Return every module of the package, without the files that only make a folder a package."""
    return sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


@functools.cache
def arrows() -> dict[Path, set[Path]]:
    """Return each module and the modules of ours that it imports."""
    found = {}
    for path in modules():
        imported = {file_of(name) for name in imported_by(path) if name.split(".")[0] == OURS}
        found[path] = {other for other in imported if other is not None and other.name != "__init__.py"} - {path}
    return found


def room(path: Path) -> str:
    """Return the folder or module below the package that a file belongs to; files of modes by their kind."""
    first, *rest = path.relative_to(PACKAGE).with_suffix("").parts
    if first != "modes":
        return first
    kind = rest[1] if len(rest) > 1 else ""
    named = "report" if kind in OF_REPORT else "record" if kind in OF_RECORD else kind
    return f"modes/{named if f'modes/{named}' in MAY_IMPORT else 'worker'}"


def _of_one_mode(path: Path, other: Path) -> bool:
    """Return whether both are of one mode, and measuring reads no report."""
    parts = [each.relative_to(PACKAGE).parts for each in (path, other)]
    return parts[0][0] == "modes" and parts[0][:2] == parts[1][:2] and room(other) in READ_BY[room(path)]


def test_every_room_imports_only_what_flows_into_it():
    assert {room(path) for path in modules()} == set(MAY_IMPORT)
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {other.relative_to(PACKAGE)}"
        for path, others in arrows().items()
        for other in others
        if room(other) != room(path) and room(other) not in MAY_IMPORT[room(path)] and not _of_one_mode(path, other)
    ]
    assert wrong == []


def mode_folder(path: Path) -> str:
    """Return the mode in whose folder a file lies; empty for the others."""
    parts = path.relative_to(PACKAGE).parts
    return parts[1] if parts[0] == "modes" else ""


def test_nothing_outside_of_a_mode_imports_from_its_folder():
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {other.relative_to(PACKAGE)}"
        for path, others in arrows().items()
        for other in others
        if mode_folder(other) not in ("", mode_folder(path))
    ]
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle():
    left = {path: set(others) for path, others in arrows().items()}
    while free := [path for path, others in left.items() if not others & left.keys()]:
        for path in free:
            del left[path]
    assert sorted(path.name for path in left) == []


@pytest.mark.parametrize(
    ("command", "lacks"),
    [
        *((command, ANALYSIS | {"filelock"}) for command in ("measure", "build", "check")),
        *((command, ENGINE) for command in ("summarise", "compare", "plan")),
    ],
    ids=["measure", "build", "check", "summarise", "compare", "plan"],
)
def test_a_command_needs_only_the_packages_of_its_side(command: str, lacks: set[str]):
    assert needs(PACKAGE / "commands" / f"{command}.py") & lacks == set()


@pytest.mark.parametrize(
    ("code", "lacks"),
    [
        ("import rollout_bench.rules.run", {"numpy", "pandas", "scipy", "matplotlib"}),
        ("from rollout_bench.__main__ import parser; parser().format_help()", {"pydantic", "yaml", "numpy"}),
        ("import rollout_bench.commands.show", {"numpy", "pandas", "scipy", "matplotlib", "snakemake"}),
        (
            "import rollout_bench.commands.plan; from rollout_bench.rules import arguments, planned, run;"
            " arguments.read_call(['--config', 'seed=1']).merged(); arguments.load(arguments.Path('../config.yaml'))",
            {"numpy", "pandas", "scipy", "snakemake.cli", "yte"},
        ),
    ],
    ids=["rules", "help", "show", "plan"],
)
def test_a_process_loads_no_package_that_it_can_do_without(code: str, lacks: set[str]):
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; print(*sys.modules)"],
        cwd=SOURCES,
        env={"PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
    )
    assert set(done.stdout.split()) & lacks == set()
    assert "rollout_bench" in done.stdout, done.stderr


def test_the_measuring_processes_need_nothing_that_vllm_does_not_install():
    rooms = ("measure", "modes/worker", "modes/record")
    for path in (path for path in modules() if room(path) in rooms or path == PACKAGE / "predict" / "replay.py"):
        assert needs(path) & (ANALYSIS | {"filelock"}) == set(), path.name
