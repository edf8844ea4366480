"""Time a dry run of many launches beside one of bare Snakemake with as many jobs, in turn.

Bare Snakemake has one rule, once with the directives of ours and once with nothing but an output, and the same profile.
Each call is a process of its own, whose output goes to a file. Prints the median seconds of a core and their ratios.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import kept  # noqa: F401 (adds the fixtures of the tests to the path)
from workspace import REPOSITORY, TINY, Workspace

QUANTS = ["bf16", "w8a8"]
MODELS = 100

PLAIN = """
rule measure:
    output:
        touch("results/{experiment}/launch-{launch}"),
    shell:
        "true"
"""

SAME = """
rule measure:
    input:
        lambda wildcards: [],
    output:
        touch("results/{experiment}/launch-{launch}"),
    log:
        "logs/{experiment}/launch-{launch}.log",
    priority: lambda wildcards: 1
    conda:
        "environment.yml"
    threads: lambda wildcards: 1
    resources:
        devices=lambda wildcards: 1,
        attempt=lambda wildcards, attempt: attempt,
    params:
        records=lambda wildcards: "",
        members=lambda wildcards: [],
        placing=lambda wildcards: [],
    message:
        "measures:{params.records}"
    shell:
        "true {params.members:q} {params.placing:q} {resources.attempt}"
"""
"""A rule with the directives of ours, each as cheap as it can be."""


def ours(folder: Path, launches: int, *, interleave: bool) -> Path:
    """Return the folder of a clone whose config has `launches` launches of each of `MODELS` x `QUANTS`."""
    models = {f"model-{number}": TINY["model_settings"]["tiny"] for number in range(MODELS)}
    changes: dict[str, Any] = {"models": list(models), "model_settings": models, "quants": QUANTS}
    Workspace(folder, {**TINY, **changes, "launches": launches, "interleave": interleave})
    return folder


def bare(folder: Path, rule: str, experiments: int, launches: int) -> Path:
    """Return the folder of a workflow with `experiments` x `launches` jobs of `rule`."""
    shutil.copytree(REPOSITORY / "profiles", folder / "profiles")
    shutil.copy(REPOSITORY / "environment.yml", folder)
    wanted = f"""
rule all:
    input:
        expand("results/{{experiment}}/launch-{{launch}}", experiment=range({experiments}), launch=range({launches})),
"""
    (folder / "Snakefile").write_text(wanted + rule)
    return folder


def dry_run_s(folder: Path) -> float:
    """Return the seconds of a core that one dry run takes."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with (folder / "out.txt").open("w") as out:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "snakemake", "-n"]
        subprocess.run(command, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Time all in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--launches", type=int, default=25, help="of each of 200 experiments (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="dry runs of each (default: %(default)s)")
    arguments = parser.parse_args()
    experiments = MODELS * len(QUANTS)
    print("| launches | jobs | rollout-bench, s | same directives, s | ratio | plain rule, s | ratio |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for interleave in (False, True):
        with tempfile.TemporaryDirectory() as where:
            compared = experiments // (len(QUANTS) if interleave else 1)
            folders = (
                ours(Path(where) / "ours", arguments.launches, interleave=interleave),
                bare(Path(where) / "same", SAME, compared, arguments.launches),
                bare(Path(where) / "plain", PLAIN, compared, arguments.launches),
            )
            times = [[dry_run_s(folder) for folder in folders] for _ in range(arguments.rounds)]
        planned, same, plain = (statistics.median(column) for column in zip(*times, strict=True))
        counts = f"| {experiments * arguments.launches} | {compared * arguments.launches} "
        print(
            f"{counts}| {planned:.1f} | {same:.1f} | {planned / same:.2f} | {plain:.1f} | {planned / plain:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
