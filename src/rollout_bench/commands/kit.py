"""Measure on a machine without a network: make a kit here, carry it there, bring one file back.

`kit pack DIR` makes the parts. There, `python3 DIR/kit.py --minutes 30` measures. `rollout-bench collect FILE` reads
the file that comes back.
"""

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from rollout_bench.core.errors import UserError, did_you_mean
from rollout_bench.core.numbers import several
from rollout_bench.core.options import Parser
from rollout_bench.core.places import CONFIG, CONFIGS, config_file, home
from rollout_bench.core.secrets import of_config
from rollout_bench.core.yaml_files import read_mapping, read_text
from rollout_bench.exchange.kit import FILES, GIVEN, MACHINES, files_named, make, packages_of, write_back
from rollout_bench.plan.checks import check_no_secret
from rollout_bench.report.state import STATE_FILE, SUMMARIES, plan_of_summary

EVIDENCE = "evidence.yaml"
"""Config of a kit without any: one start in each of eight modes, of a small model with random weights."""

FREEZE = "write it there with `python3 -m pip freeze`"

ENDING_S = 60.0
"""Part of the minutes in which nothing is measured: launches end, and the file is written, in seconds."""


def main(argv: Sequence[str]) -> int:
    """Make a kit, or measure with one."""
    parser = Parser(
        prog="rollout-bench kit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit status: 1 on an error.",
    )
    parser.add_argument("what", choices=("pack", "run"), help="pack: make the parts here; run: measure there")
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the kit")
    parser.add_argument("--platform", choices=[*MACHINES], default="cuda", help="pack: kind of device of the machine")
    parser.add_argument("--python", default="3.12", metavar="X.Y", help="pack: its Python (default: %(default)s)")
    parser.add_argument(
        "--has", type=Path, metavar="FILE", help="pack: its packages, as `pip freeze` prints them there"
    )
    parser.add_argument(
        "--configfile",
        type=config_file,
        nargs="+",
        action="append",
        default=[],
        metavar="FILE",
        help="pack: a plan to measure, of one config or several, of which later ones win; repeat it for more plans",
    )
    parser.add_argument("--vllm", metavar="VERSION", help="pack: the engine's version (default: the one of the pins)")
    parser.add_argument(
        "--without", nargs="+", default=[], metavar="NAME", help="pack: packages that the plans can do without"
    )
    parser.add_argument(
        "--part-mib", type=int, default=50, metavar="N", help="pack: largest part, in MiB (default: %(default)s)"
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="run: time to measure in (default: %(default)g)")
    arguments = parser.parse_args(argv)
    return pack(arguments) if arguments.what == "pack" else run(arguments.folder, 60 * arguments.minutes)


def pack(arguments: argparse.Namespace) -> int:
    """Make a kit, and print what to do with it."""
    configs = [read_mapping(config, "config", "give the config's file") for config in chain(*arguments.configfile)]
    for config in configs:
        check_no_secret("", config, of_config)
    files = [path for config in configs for path in files_named(config)]
    if arguments.part_mib < 1:
        raise UserError(f"--part-mib {arguments.part_mib}: is no size", "give a whole number above 0")
    has = [] if arguments.has is None else read_text(arguments.has, "list of packages", FREEZE).splitlines()
    packages = packages_of(arguments.platform, arguments.python, has, arguments.vllm)
    names = [package.partition("==")[0] for package in packages]
    if unknown := sorted({*arguments.without} - {*names}):
        raise UserError(f"--without {unknown[0]}: is not in the kit", did_you_mean(unknown[0], names))
    packages = [package for package, name in zip(packages, names, strict=True) if name not in arguments.without]
    folder = arguments.folder
    most = arguments.part_mib << 20
    parts = make(folder, arguments.platform, arguments.python, packages, arguments.configfile, most, files)
    print(f"{folder}: {several(parts, 'part')}, with {several(len(packages), 'package')}")
    print(f"next: bring {folder} to the machine, and there: python3 {folder.name}/kit.py --minutes 30")
    return 0


def run(folder: Path, limit_s: float) -> int:
    """Measure what a kit asks for until the time is over, and write the file that is brought back."""
    if not folder.is_dir():
        raise UserError(f"{folder}: is no folder", "give the folder of the kit")
    if not 2 * ENDING_S <= limit_s < math.inf:
        raise UserError(f"--minutes {limit_s / 60:g}: is no time for a launch", "give 3 or more")
    if not (home() / GIVEN).is_dir():
        raise UserError(f"{folder}: its own package runs a kit", f"start it: python3 {folder / 'kit.py'}")
    work = folder / "work"
    if work.exists() and not work.is_dir():
        raise UserError(f"{work}: is in the way: it is no folder", "move it away")
    work.mkdir(exist_ok=True)
    shutil.copy(home() / CONFIGS / CONFIG, work)
    shutil.copytree(home() / FILES, work, dirs_exist_ok=True)
    end_s = time.monotonic() + limit_s - ENDING_S
    plans = [sorted(plan.glob("*/*")) for plan in sorted((home() / GIVEN).iterdir())]
    status = 0
    try:
        for plan in plans or [[home() / CONFIGS / EVIDENCE]]:
            status = measure_configs(work, ["--configfile", *map(str, plan)], end_s)
    except subprocess.TimeoutExpired:
        print("kit: the time is over; the same command goes on", flush=True)
    except KeyboardInterrupt:
        print("kit: interrupted; the same command goes on", flush=True)
    back = folder / "results.tar.xz"
    records = write_back(work / "results", _plans(work / "results"), back)
    print(f"{back}: {several(records, 'record')}, {back.stat().st_size >> 10} KiB; bring it back, and there:")
    print(f"  rollout-bench collect {back.name}")
    return 0 if records else status or 1


def _plans(results: Path) -> dict[str, bytes]:
    """Return the plan of each config, by its file in the results folder."""
    contents: dict[str, bytes] = {}
    for path in results.glob(f"{SUMMARIES}/*/{STATE_FILE}"):
        if plan := plan_of_summary(path.parent):
            contents[str(path.relative_to(results))] = json.dumps({"plan": plan.model_dump(mode="json")}).encode()
    return contents


def measure_configs(work: Path, configs: list[str], end_s: float) -> int:
    """Measure the plan of `configs` in the folder `work`; return the exit status.

    Raises:
        subprocess.TimeoutExpired: it was not ready at `end_s` of the monotonic clock.
    """
    bench = [sys.executable, "-m", "rollout_bench"]
    subprocess.run([*bench, "check", *configs], cwd=work, check=False)
    command = [*bench, "run", "--cores", "all", "--keep-going", *configs]
    # the file that comes back names no machine
    environment = {**os.environ, "ROLLOUT_BENCH_NODE": "kit"}
    with subprocess.Popen(command, cwd=work, env=environment, start_new_session=True) as process:
        try:
            return process.wait(max(1.0, end_s - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            os.killpg(process.pid, signal.SIGINT)
            process.wait()
            raise
