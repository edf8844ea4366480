"""Time commands on a folder with the 18 records of the demo's plan, as a user calls them.

Each call is a process of its own. All commands take turns, so that drift of the machine is shared. Prints the median
seconds of each as a Markdown table.
"""

import argparse
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import kept
import yaml
from markdown_parts import table
from synthetic_records import make_record, save
from workspace import Workspace

from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.matrix import expand

COMMANDS = {
    "rollout-bench --help": ["rollout_bench", "--help"],
    "rollout-bench plan": ["rollout_bench", "plan"],
    "rollout-bench show": ["rollout_bench", "show"],
    "rollout-bench show --table throughput": ["rollout_bench", "show", "--table", "throughput"],
    "rollout-bench summarise": ["rollout_bench", "summarise"],
    "snakemake -n": ["snakemake", "-n"],
}

RATES = {"bf16": 400.0, "w8a16": 480.0, "w8a8": 320.0}
"""Quant -> output tokens per second."""

LAUNCHES = 6


def measured(folder: Path, checkout: Path) -> Workspace:
    """Return the project in `folder`, with the code of `checkout`, a record of each launch and a summary."""
    workspace = Workspace(folder)
    for part in ("src", "workflow"):
        shutil.rmtree(folder / part)
        shutil.copytree(checkout / part, folder / part)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for experiment in expand(read_config(config), probe_engine(None)).experiments:
        rate, noise = RATES[experiment.spec.quant.name], random.Random(experiment.spec.quant.name)
        for launch in range(LAUNCHES):
            rates = [rate * noise.gauss(1, 0.005) for _ in range(8)]
            save(folder / "results", make_record(experiment.spec, launch, rates))
    done = [workspace.bench(*words).stdout for words in (["plan"], ["summarise", "--plan", "results/plan.json"])]
    assert "18 of 18 launches done" in done[0], done
    assert "18 of 18 planned launches measured" in done[1], done
    return workspace


def call_s(workspace: Workspace, words: list[str]) -> float:
    """Return the seconds that a command takes, from its start to its end."""
    environment = {**workspace.environment, "PYTHONPATH": str(workspace.path / "src")}
    before = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", *words],
        cwd=workspace.path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - before


def main() -> None:
    """Time all commands in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="calls of each (default: %(default)s)")
    parser.add_argument("--only", nargs="+", default=list(COMMANDS), choices=COMMANDS, help="time only these")
    parser.add_argument(
        "checkouts", nargs="*", type=Path, default=[kept.REPOSITORY], help="clones to compare (default: this one)"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as where, kept.alone():
        spaces = [measured(Path(where) / str(number), path) for number, path in enumerate(arguments.checkouts)]
        calls = [(space, COMMANDS[name]) for name in arguments.only for space in spaces]
        times = [[call_s(*call) for call in calls] for _ in range(arguments.rounds)]
    avx = "with" if "avx512f" in Path("/proc/cpuinfo").read_text() else "without"
    place = kept.this_place("snakemake", "pydantic", "pandas", "matplotlib")
    print(f"Medians of {arguments.rounds} calls, {avx} AVX-512, on {place}.\n")
    medians = [f"{statistics.median(column):.2f}" for column in zip(*times, strict=True)]
    rows = [[f"`{name}`", *medians[len(spaces) * n :][: len(spaces)]] for n, name in enumerate(arguments.only)]
    print(table(["command", *(f"{_commit(path)}, s" for path in arguments.checkouts)], rows))


def _commit(checkout: Path) -> str:
    words = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
