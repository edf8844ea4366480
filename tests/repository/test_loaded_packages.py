"""What a process loads at run time; `.importlinter` has who may import whom."""

import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "src"


@pytest.mark.parametrize(
    ("code", "lacks"),
    [
        ("import rollout_bench.rules.run", {"numpy", "pandas", "scipy", "matplotlib"}),
        ("from rollout_bench.__main__ import parser; parser().format_help()", {"pydantic", "yaml", "numpy"}),
        ("import rollout_bench.commands.measure", {"rollout_bench.plan", "rollout_bench.numbers", "pandas"}),
        ("import rollout_bench.commands.show", {"numpy", "pandas", "scipy", "matplotlib", "snakemake"}),
        (
            "import rollout_bench.commands.plan; from rollout_bench.rules import arguments, planned, run;"
            " arguments.read_call(['--config', 'seed=1']).merged(); arguments.load(arguments.Path('../config.yaml'))",
            {"numpy", "pandas", "scipy", "snakemake.cli", "yte"},
        ),
    ],
    ids=["rules", "help", "measure", "show", "plan"],
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
