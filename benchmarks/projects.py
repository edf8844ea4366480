"""What is timed: a copy of this project with many launches, and a bare workflow with as many jobs."""

from __future__ import annotations

import gzip
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import yaml

from rollout_bench.contracts.store import sequences_path
from rollout_bench.measure.launch.passes import FEWEST
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.matrix import expand
from rollout_bench.plan.planfile import write_plan
from rollout_bench.plan.schedule import Schedule, schedule
from rollout_bench.snakefile import PLAN_FILE

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "tests")]

from synthetic_records import LOAD, make_record, make_sequences  # noqa: E402
from workspace import Workspace  # noqa: E402

QUANTS = ("bf16", "w8a16", "w8a8")
LAUNCHES = 10
"""Of each experiment."""

BARE = """\
rule all:
    input:
        "results/summary.txt",


rule job:
    output:
        "results/{{number}}.txt",
    log:
        "logs/{{number}}.log",
    shell:
        "echo {{wildcards.number}} > {{output}} 2> {{log}}"


rule summary:
    input:
        expand("results/{{number}}.txt", number=range({jobs})),
    output:
        "results/summary.txt",
    log:
        "logs/summary.log",
    shell:
        "cat results/[0-9]*.txt > {{output}} 2> {{log}}"
"""


def size(launches: int) -> int:
    """Return the number of launches that a matrix of whole models has: `launches` or the next one above."""
    of_a_model = len(QUANTS) * LAUNCHES
    return math.ceil(launches / of_a_model) * of_a_model


def make_ours(folder: Path, launches: int) -> Workspace:
    """Return a copy of the project whose config selects `size(launches)` launches, of models that differ in shape.

    So none shares its checkpoints with another, and the DAG has two more jobs for each model.
    """
    models = {
        f"model-{place:04}": {"synthetic": {"preset": "qwen3-tiny", "vocab_size": 2048 + place}}
        for place in range(size(launches) // (len(QUANTS) * LAUNCHES))
    }
    matrix = {"models": list(models), "quants": list(QUANTS), "launches": LAUNCHES, "model_settings": models}
    matrix["workload_settings"] = {"demo": LOAD}
    return Workspace(folder, matrix)


def make_bare(folder: Path, jobs: int) -> Path:
    """Return a workflow of `jobs` trivial shell jobs and one that gathers them, under this project's profile."""
    folder.mkdir()
    (folder / "Snakefile").write_text(BARE.format(jobs=jobs))
    shutil.copytree(REPOSITORY / "profiles", folder / "profiles")
    return folder


def planned(ours: Workspace) -> Schedule:
    """Return what the workflow in `ours` selects."""
    with chdir(ours.path):
        config = read_config(yaml.safe_load(Path("config.yaml").read_text()))
        return schedule(config, expand(config, probe_engine(None)))


def fill_ours(ours: Workspace) -> int:
    """Write the plan, and a record and a side file of invented numbers for each launch; return how many.

    Not through `write_record`, whose fsyncs would take minutes.
    """
    plan = planned(ours)
    with chdir(ours.path):
        for place, launch in enumerate(plan.launches):
            wanted = launch.experiment.spec.measuring.iterations
            rates = [400.0 + place % 97 + step for step in range(FEWEST if wanted == "auto" else wanted)]
            record = make_record(launch.experiment.spec, launch.index, rates)
            path = Path(launch.record)
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = "".join(row.model_dump_json() + "\n" for row in make_sequences(record))
            sequences_path(path).write_bytes(gzip.compress(rows.encode(), compresslevel=6, mtime=0))
            path.write_text(json.dumps(record.model_dump(mode="json"), indent=1) + "\n")
        write_plan(PLAN_FILE, plan.plan_file())
    return len(plan.launches)


def fill_bare(bare: Path, jobs: int) -> None:
    """Write what each job of the bare workflow would, the summary last."""
    (bare / "results").mkdir(exist_ok=True)
    for path in _bare_outputs(bare, jobs):
        path.write_text("done\n")
    newest = max(path.stat().st_mtime_ns for path in _bare_outputs(bare, jobs))
    summary = bare / "results" / "summary.txt"
    summary.write_text("done\n")
    os.utime(summary, ns=(newest + 10**9, newest + 10**9))


def _bare_outputs(bare: Path, jobs: int) -> Iterator[Path]:
    return (bare / "results" / f"{number}.txt" for number in range(jobs))
