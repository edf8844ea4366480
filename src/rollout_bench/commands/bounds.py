"""Print the least time that each experiment of a config can take, and the most that a quantization can gain.

Bytes over memory bandwidth, operations over their rate: no engine is started, and nothing of it measured. The limits
are those that a device's maker publishes, or those of this machine, which are measured first where they are not known.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from rollout_bench.analysis.bounds.limits import PEAKS, DeviceLimits, Peak, known_peak, measured, published
from rollout_bench.analysis.bounds.memory import MachineMemory, unfit
from rollout_bench.contracts.inside import MachineLimits
from rollout_bench.core.errors import UserError
from rollout_bench.core.yaml_files import mapping_in
from rollout_bench.measure.machine.gpus import smallest_gpu
from rollout_bench.plan.config import Config
from rollout_bench.plan.config_file import check_config_file, read_config
from rollout_bench.plan.engine import InstalledEngine, probe_engine
from rollout_bench.plan.interleaving import comparisons, fitting
from rollout_bench.plan.matrix import Matrix, expand

DEFAULT_CONFIG = "config.yaml"


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"Known devices: {', '.join(peak.name for peak in PEAKS)}.",
    )
    parser.add_argument(
        "configs", nargs="*", metavar="CONFIG", help="config.yaml and what is laid over it, in this order; - is stdin"
    )
    parser.add_argument(
        "--configfile",
        "--configfiles",
        nargs="+",
        default=[],
        metavar="FILE",
        help="what is laid over config.yaml, as for rollout-bench plan; - is stdin",
    )
    parser.add_argument(
        "--device", help="known device with its published limits (default: bounds_device of the config, this machine)"
    )
    parser.add_argument(
        "--python", help="interpreter that has the engine (default: engine.python of the config, else this one)"
    )
    return parser


def main() -> int:
    """Read, expands, computes, prints."""
    arguments = parser().parse_args()
    if not arguments.configs and not arguments.configfile:
        raise UserError("no config is named", "say rollout-bench bounds --configfile mine.yaml, or bounds config.yaml")
    config = read_config(_merged([*(arguments.configs or [DEFAULT_CONFIG]), *arguments.configfile]))
    device, python = arguments.device or config.bounds_device, arguments.python or config.engine.python
    peak = known_peak(device) if device else None
    matrix = _matrix(config, python, peak)
    limits = published(peak) if peak else measured(_measured(matrix, python or sys.executable))
    # Not at the top: --help and errors in the config need not wait for the table.
    from rollout_bench.report.tables.spanning.bound_tables import show

    show(matrix, limits, config.baseline.named)
    for line in fit_lines(config, matrix, limits):
        print(line)
    return 0


def fit_lines(config: Config, matrix: Matrix, limits: DeviceLimits | None = None) -> list[str]:
    """Return which engines don't fit, how many of each comparison fit the memory at once, and what limits them."""
    there, device = (None, "") if limits is None else (limits.memory_bytes, f"one {limits.device}")
    if there is None and matrix.platform == "cuda":
        name, there = smallest_gpu()
        device = f"one {name}"
    memory = MachineMemory(device_bytes=there)
    problems = [unfit(e, there, device) for e in matrix.experiments] if there is not None else []
    lines = [f"{problem}" for problem in problems if problem is not None]
    for comparison in comparisons(config, matrix):
        fit = fitting(comparison, matrix.platform, memory)
        at_once = f"{fit.at_once} of {len(comparison.members)} engines fit at once"
        lines.append(f"interleaved, {comparison.name}: {at_once}: {fit.limit}.")
    return lines


def _merged(files: Sequence[str]) -> dict[str, Any]:
    """Return the configs laid over one another as Snakemake does it: mappings are merged, all else is replaced."""
    merged: dict[str, Any] = {}
    for file in files:
        if file == "-":
            _lay(merged, _of_stdin(sys.stdin.read()))
            continue
        check_config_file(Path(file))
        _lay(merged, yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {})
    return merged


def _of_stdin(text: str) -> dict[str, Any]:
    """Return the config in what is piped in: JSON, as the workflow has it, or YAML, as from-verl prints it."""
    with contextlib.suppress(ValueError):
        content = json.loads(text)  # first: YAML takes 1e-05 for a text
        if isinstance(content, dict):
            return content
    return mapping_in(text, Path("stdin"), "config", "pipe a config into it: rollout-bench from-verl training.yaml")


def _lay(below: dict[str, Any], above: dict[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            _lay(below[key], value)
        else:
            below[key] = value


def _matrix(config: Config, python: str | None, peak: Peak | None) -> Matrix:
    """Return the experiments; of a known device also where no vLLM is installed, and on the device's platform."""
    if peak is None:
        return expand(config, probe_engine(python))
    if config.platform == "auto":
        config = config.model_copy(update={"platform": peak.platform})
    try:
        engine = probe_engine(python)
    except UserError:
        engine = InstalledEngine("vllm", "unknown", {}, frozenset(), python or sys.executable)
    return expand(config, engine)


def _measured(matrix: Matrix, python: str) -> MachineLimits:
    """Return the limits of this machine, as `calibrate.py` in the engine's Python says."""
    calibrate = Path(__file__).parents[3] / "workflow" / "scripts" / "calibrate.py"
    command = [python, str(calibrate), "--json", "--platform", matrix.platform]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        print(done.stderr, end="", file=sys.stderr)
        return MachineLimits.model_validate_json(done.stdout)
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["no message"]
    remedy = "name a known device with --device, or bounds_device in the config"
    raise UserError(
        f"the limits of this machine can't be measured: {said[0] if '->' in said[-1] else said[-1]}", remedy
    )
