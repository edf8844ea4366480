"""The package stays as small as it is: each room and the tests have a budget of statements, test names one of words."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[3]

BUDGET = {
    "analysis": 2240,
    "checkpoints": 341,
    "cluster": 435,
    "commands": 1203,
    "contracts": 1162,
    "core": 706,
    "exchange": 376,
    "llmd": 640,
    "measure": 4093,
    "modes": 5519,
    "numbers": 160,
    "plan": 1975,
    "predict": 627,
    "report": 2023,
    "scripts": 40,
    "top": 37,
    "trainers": 761,
    "workflow": 425,
    "workloads": 434,
    "tests": 13227,
}
"""Room of the package, `scripts` beside it, or `tests` -> `ast.stmt`s; lower them when something goes.

They rise only with what an issue asks for, by what that needs. Statements, since lines can be saved by packing.
"""


def room(path: Path) -> str:
    """Return what a Python file of src/ or workflow/ is counted with."""
    if not path.is_relative_to(ROOT / "src"):
        return "scripts"
    below = path.relative_to(ROOT / "src" / "rollout_bench").parts
    return below[0] if len(below) > 1 else "top"


DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def statements(path: Path) -> int:
    """Return how many statements a Python file has, docstrings left out."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    docstrings = sum(isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None for node in nodes)
    return sum(isinstance(node, ast.stmt) for node in nodes) - docstrings


def test_every_room_keeps_to_its_budget():
    found: Counter[str] = Counter()
    for path in (*(ROOT / "src").rglob("*.py"), *(ROOT / "workflow").rglob("*.py")):
        found[room(path)] += statements(path)
    found["tests"] = sum(statements(path) for path in (ROOT / "tests").rglob("*.py"))
    assert {name: count for name, count in found.items() if count > BUDGET.get(name, 0)} == {}


def test_names_have_at_most_ten_words():
    nodes = (node for path in (ROOT / "tests").rglob("*.py") for node in ast.walk(ast.parse(path.read_text())))
    names = [node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert [name for name in names if name.startswith("test_") and name.count("_") > 10] == []
