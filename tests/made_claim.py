"""A results claim as launches leave it, and collect.py run on it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from docs_pages import REPOSITORY
from synthetic_records import make_failure, make_record, make_spec, save

from rollout_bench.cluster.retrieval import Collected, collect
from rollout_bench.contracts.store import record_path

BF16, W8A8 = make_spec(), make_spec(quant="w8a8")


def make_claim(folder: Path) -> Path:
    """Return a volume below `folder` with two records of bf16 and one failure of w8a8, with their logs."""
    claim = folder / "claim"
    save(claim / "results", make_record(BF16, 0), make_record(BF16, 1), make_failure(W8A8))
    for spec, launch in ((BF16, 0), (BF16, 1), (W8A8, 0)):
        log = claim / "logs" / "offline" / spec.experiment() / f"launch-{launch}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("said\n")
    return claim


def bring(claim: Path) -> Collected:
    return collect(claim, claim.parent / "results", claim.parent / "logs")


def at(folder: Path, spec=BF16, launch: int = 0) -> Path:
    return record_path(folder / "results", "offline", spec.experiment(), launch)


def command(claim: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run collect.py in the folder beside the claim."""
    return subprocess.run(
        [sys.executable, REPOSITORY / "workflow/scripts/collect.py", *arguments],
        cwd=claim.parent,
        capture_output=True,
        text=True,
        check=False,
    )
