"""Where a study ran: machine, versions, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform

import psutil

from rollout_bench.measure.machine.host import cpu_model, git_commit


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
