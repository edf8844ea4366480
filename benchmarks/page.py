"""docs/explanation/overhead.md, from the times that were taken."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence

import psutil
from claims import Claim
from projects import LAUNCHES, QUANTS

from rollout_bench.measure.machine.host import cpu_model, git_commit

PAGE = """\
# What the workflow itself costs

<!-- Made by `python benchmarks/run.py --write docs/explanation/overhead.md`; changes here are lost. -->

A launch takes between half a minute and several minutes of engine time. What the workflow adds must stay small beside
it, also where a matrix has thousands of launches: a dry run is what one waits for most often. `make bench` times it.

| what | rollout-bench | its processor time | bare Snakemake | its processor time | ratio | promise |
|---|---|---|---|---|---|---|
{rows}

Times with brackets are on the wall clock: the median of {runs} runs, the least and the most. Processor time is user
and system, the median again; other work on the machine disturbs it less. The promises are about the
wall clock's medians.

## What is timed

- **Dry run, all missing**: `snakemake -n` in a copy of this project whose config selects {launches:,} launches:
  {models:,} models that differ in shape x {quants} x {per_experiment} launches. Beside it, in turn,
  a Snakefile with {launches:,} jobs that each `echo` a number into one file and have one log, and one job that gathers
  them all, under the same profile. A launch has more to it than such a job: it needs a checkpoint ({checkpoints:,} jobs
  more, which the bare workflow does not have), has a priority that interleaves the quants, writes a second file, and
  has a longer command.
- **Dry run, all there**: the same two with all results in place. This project does not put launches into the DAG whose
  records are there; it lists folders instead.
- **Tables and figures**: `summarise.py` and `plot.py` on {launches:,} records, which are read and validated each time,
  and for the tables their side files, too, with a row for each sequence. The numbers in these records are invented;
  their form is that of real ones.

What the supervisor of a launch costs while the engine measures is not among these.

## Where

{machine}
"""


def page(claims: Sequence[Claim], launches: int, runs: int, load: float) -> str:
    """Return the page; `load` is the machine's load average before the first run."""
    models = launches // (len(QUANTS) * LAUNCHES)
    return PAGE.format(
        rows="\n".join(_row(claim) for claim in claims),
        runs=runs,
        launches=launches,
        models=models,
        quants=f"{len(QUANTS)} quants ({', '.join(QUANTS)})",
        per_experiment=LAUNCHES,
        checkpoints=2 * models,
        machine="\n".join(f"- {line}" for line in machine_facts(load)),
    )


def machine_facts(load: float) -> list[str]:
    """Return where the times were taken: machine, versions, commit."""
    cores = len(os.sched_getaffinity(0))
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("snakemake", "pydantic", "pandas"))
    return [
        f"{cpu_model()}, {cores} cores used, {psutil.virtual_memory().total / 2**30:.0f} GiB of memory,"
        f" {platform.system()}",
        f"Load average of the machine before the first run: {load:.1f} (what else was running there)",
        f"Python {platform.python_version()}, {versions}",
        f"Commit {_short(git_commit())}",
    ]


def _short(commit: str | None) -> str:
    """Return the first digits of a commit, `-dirty` kept."""
    digits, dash, dirty = (commit or "unknown").partition("-")
    return f"{digits[:10]}{dash}{dirty}"


def _row(claim: Claim) -> str:
    bare = [claim.bare.spread, f"{claim.bare.median_processor_s:.2f} s"] if claim.bare else ["", ""]
    cells = [
        claim.what,
        claim.times.spread,
        f"{claim.times.median_processor_s:.2f} s",
        *bare,
        claim.ratio,
        claim.verdict,
    ]
    return f"| {' | '.join(cells)} |"
