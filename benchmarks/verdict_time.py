"""Time how long a verdict takes: rollout-bench beside a loop of `vllm bench throughput` with as many measured passes.

bf16 and w8a8 of the demo's model, two launches of each with five iterations: ten passes a quantization. The loop takes
a process for each. The two take turns: one launch of each quantization, half of the loop, the other launch, the other
half. Checkpoints are there before. With --folder it continues where it was ended; what was under way is done again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import yaml
from projects import REPOSITORY
from sampling_loop import Loop, make_tokenizer

sys.path.append(str(REPOSITORY / "validation"))

from copies import Copy
from kept import alone
from verdict_page import Verdict, page

from rollout_bench.contracts.store import read_record

QUANTS = {"bf16": "bf16", "w8a8": "compressed-tensors-w8a8"}
"""Quantization -> layout of its checkpoint."""

VOCABULARY = 16384
"""Of the demo's model."""


@dataclass
class State:
    """Seconds of what is done: of each call of `snakemake`, and of the loop's processes, with those of their passes.

    `load` is the machine's load average before the first of them.
    """

    ours_s: list[float] = field(default_factory=list)
    loop_s: list[float] = field(default_factory=list)
    loop_passes_s: list[float] = field(default_factory=list)
    load: float = field(default_factory=lambda: os.getloadavg()[0])


def measure(folder: Path, launches: int, iterations: int) -> Verdict:
    """Return times everything that is not done yet below `folder`."""
    matrix = {"quants": list(QUANTS), "launches": launches, "iterations": iterations}
    copy = Copy(folder / "ours", matrix)
    if not copy.run("--until", "checkpoint"):
        raise SystemExit("the checkpoints can't be built\nsee the lines above")
    tokenizer = folder / "tokenizer"
    make_tokenizer(tokenizer, VOCABULARY)
    loop = Loop(tokenizer, yaml.safe_load((copy.path / "config.yaml").read_text())["workload_settings"]["demo"])
    file = folder / "state.json"
    state = State(**json.loads(file.read_text())) if file.exists() else State()
    samples = launches * iterations * len(QUANTS)
    for launch in range(launches):
        if len(state.ours_s) <= launch:
            _one_launch(copy, launch, state)
            _save(file, state)
        for sample in range(len(state.loop_s), (launch + 1) * samples // launches):
            quant = list(QUANTS)[sample % len(QUANTS)]
            model = next((copy.path / "models" / "synthetic").glob(f"*-{QUANTS[quant]}"))
            wall_s, pass_s = loop.sample(model, seed=sample)
            state.loop_s.append(wall_s)
            state.loop_passes_s.append(pass_s)
            _save(file, state)
            print(
                f"loop, sample {sample + 1} of {samples}, {quant}: {wall_s:.1f} s, of them {pass_s:.2f} s", flush=True
            )
    records = [read_record(path) for path in sorted(copy.path.glob("results/offline/*/launch-*.json"))]
    return Verdict(state.ours_s, records, state.loop_s, state.loop_passes_s, launches, iterations, state.load)


def _one_launch(copy: Copy, launch: int, state: State) -> None:
    """Time the call of `snakemake` that adds this launch of each quantization, with tables and figures."""
    for path in copy.path.glob(f"results/offline/*/launch-{launch}.*"):
        path.unlink()  # of a call that was ended
    began = time.perf_counter()
    if not copy.run("--config", f"launches={launch + 1}"):
        raise SystemExit("a launch failed\nsee the lines above, then run the same command again")
    state.ours_s.append(time.perf_counter() - began)


def _save(file: Path, state: State) -> None:
    file.write_text(json.dumps(asdict(state)))


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--launches", type=int, default=2, help="of each quantization (default: %(default)s)")
    parser.add_argument("--iterations", type=int, default=5, help="measured in a launch (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="keep everything there, and continue what is there")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the results as a page, too")
    return parser


def main() -> None:
    """Measure, print the table, and write the page if asked."""
    arguments = parser().parse_args()
    with alone(), tempfile.TemporaryDirectory(prefix="rollout-bench-") as temporary:
        folder = (arguments.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        verdict = measure(folder, arguments.launches, arguments.iterations)
    print(verdict.table())
    print(verdict.promise())
    if arguments.write:
        arguments.write.write_text(page(verdict))
        print(arguments.write)


if __name__ == "__main__":
    main()
