"""Write the manifest of a Kubernetes Job that measures a config. `kubectl apply` submits it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import _src  # noqa: F401 (puts src/ on the path)

from rollout_bench.cluster.kubernetes import manifest
from rollout_bench.core.errors import run_command
from rollout_bench.core.files import write_whole
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.matrix import expand


def main() -> int:
    """Write the manifest and print the next command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", metavar="CONFIG", help="the merged config as JSON; - means stdin")
    parser.add_argument("--python", help="interpreter that has the engine (default: engine.python of the config)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file for the manifest")
    arguments = parser.parse_args()
    merged = json.loads(sys.stdin.read() if arguments.config == "-" else Path(arguments.config).read_text())
    config = read_config(merged)
    matrix = expand(config, probe_engine(arguments.python or config.engine.python))
    write_whole(arguments.out, manifest(matrix.experiments, matrix.platform, config, merged).encode())
    print(f"next: kubectl apply -f {arguments.out}")
    return 0


if __name__ == "__main__":
    run_command(main)
