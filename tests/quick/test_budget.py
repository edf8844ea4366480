"""The package stays as small as it is: each room has so many statements at most, and so have the tests."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]

BUDGET = {
    "analysis": 8001,
    "checkpoints": 944,
    "cluster": 1045,
    "commands": 825,
    "contracts": 2216,
    "core": 759,
    "exchange": 1011,
    "llmd": 1248,
    "measure": 13016,
    "plan": 3213,
    "report": 5802,
    "scripts": 635,
    "snakefile": 451,
    "trainers": 1003,
    "workloads": 536,
    "tests": 33386,
}
"""Room of the package, `scripts` beside it, or `tests` -> `ast.stmt`s; lower them when something goes.

They rise only with what an issue asks for, by what that needs. Statements, since lines can be saved by packing.
"""


def room(path: Path) -> str:
    """Return what a Python file below workflow/ is counted with."""
    below = path.relative_to(ROOT / "workflow" / "scripts").parts
    if below[0] != "rollout_bench":
        return "scripts"
    return below[1] if len(below) > 2 else "snakefile"


def statements(path: Path) -> int:
    """Return how many statements a Python file has."""
    return sum(isinstance(node, ast.stmt) for node in ast.walk(ast.parse(path.read_text())))


def test_every_room_keeps_to_its_budget():
    found: Counter[str] = Counter()
    for path in (ROOT / "workflow").rglob("*.py"):
        found[room(path)] += statements(path)
    found["tests"] = sum(statements(path) for path in (ROOT / "tests").rglob("*.py"))
    assert {name: count for name, count in found.items() if count > BUDGET.get(name, 0)} == {}
