"""Write a Kubernetes Job for each launch that is missing, and remove those that are wanted no longer.

Nothing is submitted, and no cluster is asked: `kubectl apply` does that, and `rollout-bench collect` brings the records
home.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import _src  # noqa: F401 (puts src/ on the path)

from rollout_bench.cluster.manifest_files import CLAIM, COLLECTOR, SPECS, manifests, put
from rollout_bench.core.errors import UserError, run_command
from rollout_bench.plan.config import Config
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import InstalledEngine, probe_engine
from rollout_bench.plan.matrix import expand
from rollout_bench.plan.schedule import RESULTS, Schedule, kept_order_seed, schedule
from rollout_bench.snakefile import PLAN_FILE, next_round


def main() -> int:
    """Read, expand, write, say what changed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", metavar="CONFIG", help="the merged config as JSON; - is stdin")
    parser.add_argument("--python", help="interpreter that has the engine (default: engine.python of the config)")
    parser.add_argument(
        "--out", type=Path, default=RESULTS / "manifests", metavar="DIR", help="where they go (default: %(default)s)"
    )
    arguments = parser.parse_args()
    merged = sys.stdin.read() if arguments.config == "-" else Path(arguments.config).read_text()
    overlaid = json.loads(merged)
    config = read_config(overlaid)
    check_no_blocks(config)
    engine = probe_engine(arguments.python or config.engine.python)
    # Without a plan always the same orders: manifests that are written again must not change.
    plan = schedule(config, expand(config, engine), kept_order_seed(PLAN_FILE) or 0)
    check_engine(plan, engine)
    files = manifests(plan, missing(plan), overlaid)
    changes = put(arguments.out, files)
    jobs = len([name for name in files if name not in (SPECS, str(CLAIM), str(COLLECTOR))])
    print(f"{arguments.out}: {jobs} jobs; {len(changes.written)} files written, {len(changes.removed)} removed")
    if str(CLAIM) in files:
        print(f"once, for the claim: kubectl apply -f {arguments.out / CLAIM}")
    if jobs:
        print(f"next: kubectl apply -f {arguments.out}")
    return 0


def check_no_blocks(config: Config) -> None:
    """Raise `UserError` where engines are to take turns, which launches in Jobs of their own can't."""
    if config.remeasure is not None:
        raise UserError(
            "config: remeasure: manifests measure what is missing, and move no record away",
            "leave it out, and delete the records that are to be measured again; or run snakemake in a pod",
        )
    if config.interleave is True:
        raise UserError(
            "config: interleave: manifests measure each launch in a Job of its own, so that engines can't take turns",
            "set interleave: false, or run snakemake in a pod, which measures blocks: docs/how-to/kubernetes.md",
        )


def missing(plan: Schedule) -> list[str]:
    """Return records that are wanted and missing; with `launches: auto` those of the next round."""
    wanted = next_round(plan) if plan.config.launches == "auto" else plan.missing
    return [record for record in wanted if record in plan.by_record]


def check_engine(plan: Schedule, engine: InstalledEngine) -> None:
    """Raise `UserError` where the plan is made with an engine that no pod of its platform can have."""
    platform = plan.matrix.platform
    if platform != engine.platform() and any(e.spec.endpoint is None for e in plan.matrix.experiments):
        raise UserError(
            f"config: platform: {platform}: the engine here, {engine.name} {engine.version}, is for"
            f" {engine.platform()}, and a launch measures with the engine that it was planned for alone",
            "write the manifests in a container of the image: docs/how-to/kubernetes.md",
        )


if __name__ == "__main__":
    run_command(main)
