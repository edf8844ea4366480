"""Print the facts for a bug report: engine, versions, devices, memory, models; and a fix for each problem.

Run it with the engine's own Python. The exit status is 1 if a problem keeps the engine from running.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import psutil

from rollout_bench.contracts.load import EndpointSpec, Places
from rollout_bench.core.errors import UserError, run_command
from rollout_bench.core.numbers import several
from rollout_bench.core.options import Parser
from rollout_bench.measure.machine.host import BUSY, used_by_others
from rollout_bench.measure.reachable import problems_of
from rollout_bench.plan.checks import unusable_model
from rollout_bench.plan.engine import probe_engine

GIB = 1 << 30

ANSWERS_S = 60.0
"""Time in which a driver's tool answers, in seconds; that of a broken driver may hang."""


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("--platform", choices=("auto", "cpu", "cuda", "ascend"), default="auto", help="kind of device")
    parser.add_argument(
        "--model",
        nargs=4,
        metavar=("KIND", "NAME", "PLACE", "WRITTEN"),
        action="append",
        default=[],
        help="a model: its load_format and its folder, hub and its id there, or synthetic and the folder that is "
        "built; then its weights as the config names them; can be given several times",
    )
    parser.add_argument(
        "--endpoint",
        type=EndpointSpec.model_validate_json,
        metavar="JSON",
        action="append",
        default=[],
        help="a server to ask for its models; can be given several times",
    )
    parser.add_argument(
        "--memory-share", type=float, default=0.0, metavar="X", help="share of a device's memory that an engine takes"
    )
    arguments = parser.parse_args()
    problems: list[UserError] = []
    facts = [*_machine_facts(), *_engine_facts(arguments, problems), *device_facts(arguments.platform, problems)]
    problems += without_room(facts, arguments.memory_share)
    facts += [*_models(arguments, problems), *_places(arguments, problems)]
    for name, value in facts:
        print(f"{name + ':':<22} {value}")
    share, who = used_by_others()
    if share > BUSY:
        most = f", most of it {who}" if who else ""
        print(f"warning: others use {100 * share:.0f} % of the cores' time{most}; launches are invalid")
        print(f"from {100 * BUSY:.0f} % on -> end it, or wait, before you measure")
    for problem in problems:
        print(f"problem: {problem}")
    print(f"{several(len(problems), 'problem')} found" if problems else "no problem found")
    return 1 if problems else 0


def _machine_facts() -> Iterator[tuple[str, str]]:
    """Yield name and value of what the machine has."""
    memory = psutil.virtual_memory()
    disk = shutil.disk_usage(".")
    yield "system", f"{platform.system()} {platform.release()} {platform.machine()}"
    yield "python", f"{platform.python_version()} ({sys.executable})"
    yield "cores", f"{len(os.sched_getaffinity(0))} usable of {psutil.cpu_count()}"
    yield "memory", f"{memory.available / GIB:.1f} GiB free of {memory.total / GIB:.1f} GiB"
    yield "disk here", f"{disk.free / GIB:.1f} GiB free"


def _engine_facts(arguments: argparse.Namespace, problems: list[UserError]) -> Iterator[tuple[str, str]]:
    """Yield name and value of what the engine and torch are; put what is wrong into `problems`."""
    wanted, is_needed = arguments.platform, bool(arguments.model) or not arguments.endpoint
    try:
        engine = probe_engine(None, is_needed=is_needed)
    except UserError as error:
        problems.append(error)
        return
    if not engine.name:
        yield "engine", "none here, and a running server needs none"
        return
    yield "engine", f"{engine.name} {engine.version}, built for {engine.platform()}"
    yield from engine.plugins.items()
    if wanted != "auto" and (refusal := engine.refusal(wanted)) is not None:
        problems.append(refusal)
    done = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.__version__)"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        yield "torch", done.stdout.strip()
    else:
        last_line = (done.stderr.strip().splitlines() or ["no message"])[-1]
        problems.append(
            UserError(f"torch can't be imported: {last_line}", "install the engine's pins again: `make setup`")
        )


def device_facts(wanted: str, problems: list[UserError]) -> Iterator[tuple[str, str]]:
    tools = {"cuda": ["nvidia-smi", "--query-gpu=name,memory.total,memory.used", "--format=csv,noheader"],
             "ascend": ["npu-smi", "info"]}  # fmt: skip
    for name, command in tools.items():
        if shutil.which(command[0]) is None:
            if wanted == name:
                problems.append(
                    UserError(f"{command[0]} is not installed", f"install the {name} driver, or check PATH")
                )
            continue
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWERS_S, check=False)
        except subprocess.TimeoutExpired:
            problems.append(UserError(f"{command[0]} gives no answer in {ANSWERS_S:g} s", "check the driver"))
            continue
        for line in done.stdout.splitlines():
            yield f"{name} device", line
        if done.returncode != 0:
            output = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
            problems.append(UserError(f"{command[0]} fails: {output[-1]}", "check the driver"))


def without_room(facts: Iterable[tuple[str, str]], share: float) -> Iterator[UserError]:
    """Yield the problem that no NVIDIA GPU has the `share` of its memory free that an engine takes."""
    sizes = [re.findall(r"(\d+) MiB", text) for name, text in facts if name == "cuda device"]
    used = [int(numbers[1]) / int(numbers[0]) for numbers in sizes if len(numbers) == 2]
    if used and min(used) > 1 - share:
        yield UserError(
            f"no GPU has {share:g} of its memory free, as an engine needs: {100 * min(used):.0f} % or more is in use",
            "end what holds it, which `nvidia-smi` lists, or lower gpu_memory_utilization",
        )


def _models(arguments: argparse.Namespace, problems: list[UserError]) -> Iterator[tuple[str, str]]:
    folders = set[Path]()
    for kind, name, place, written in arguments.model:
        elsewhere = {"hub": "on the model hub", "synthetic": "built" if Path(place).is_dir() else "will be built"}
        absent = None if kind in elsewhere else unusable_model(Path(place), kind, written)
        state = elsewhere.get(kind, "found" if absent is None else "NOT USABLE")
        yield f"model {name}", f"{place} {state}"
        problems += [] if absent is None else [absent]
        if kind not in elsewhere and absent is None:
            folders.add(Path(place))
    problems += unread_models(sorted(folders))


_READS = """
import json, sys, traceback
from transformers import CONFIG_MAPPING
errors = {}
for folder in sys.argv[1:]:
    try:
        found = json.load(open(folder + "/config.json"))
        if "auto_map" not in found and found.get("model_type") not in CONFIG_MAPPING:
            from vllm.transformers_utils.config import get_config
            get_config(folder, trust_remote_code=False)
    except Exception:
        errors[folder] = traceback.format_exc()
print(json.dumps(errors))
"""
"""Program whose last line has the error of each model whose config.json vLLM cannot read. Its own model types are asked
last: 7 s of imports. With an auto_map, the model brings its own code."""


def unread_models(folders: Sequence[Path]) -> Iterator[UserError]:
    """Yield the error of each model whose config.json the engine of this interpreter can't read."""
    if not folders:
        return
    done = subprocess.run([sys.executable, "-c", _READS, *folders], capture_output=True, text=True, check=False)
    errors = dict.fromkeys(map(str, folders), done.stderr)
    if done.returncode == 0:
        errors = json.loads(done.stdout.splitlines()[-1])
    for folder, error in errors.items():
        exceptions = [line for line in error.splitlines() if re.match(r"[\w.]*(Error|Exception)\b", line)]
        told = (exceptions or ["no message"])[-1].partition(". ")[0]
        is_absent = told.startswith("ModuleNotFoundError")
        yield UserError(
            f"{folder}/config.json: the engine cannot read it: {told}",
            "name in engine.python the Python that has vLLM"
            if is_absent
            else "check the download, or take an engine that knows this model",
        )


def _places(arguments: argparse.Namespace, problems: list[UserError]) -> Iterator[tuple[str, str]]:
    """Ask servers and the model hub; yield the servers that answer."""
    hub = dict.fromkeys(place for kind, _, place, _ in arguments.model if kind == "hub")
    for places in [*(Places(endpoints=(each,)) for each in arguments.endpoint), Places(hub=tuple(hub))]:
        problems_found = list(problems_of(places))
        problems += problems_found
        yield from ((f"endpoint {each.url}", "NO USE" if problems_found else "answers") for each in places.endpoints)


if __name__ == "__main__":
    run_command(main)
