"""Time how long a verdict takes: rollout-bench beside a loop of `vllm bench throughput`, to the same precision.

bf16 and w8a8 of the demo's model. rollout-bench measures block after block, as by default; the loop takes a process for
each pass, a pair of passes after the other, in an order that is drawn. The two take turns. From the spread between
blocks, the spread between pairs and what each takes follows how long each needs until the 95 % interval of the speed-up
reaches equally far. Checkpoints are there before. With --folder it continues where it was ended; what was under way is
done again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import yaml
from copies import Copy
from kept import alone
from measured_rounds import read_blocks
from sampling_loop import Loop, make_tokenizer
from verdict_page import BASELINE, OTHER, Sample, Verdict, page

QUANTS = {BASELINE: "bf16", OTHER: "compressed-tensors-w8a8"}
"""Quantization -> layout of its checkpoint."""

VOCABULARY = 16384
"""Of the demo's model."""


@dataclass
class State:
    """Seconds of what is done: of each call of `snakemake`, and the loop's processes, pair after pair.

    `load` is the machine's load average before the first of them.
    """

    ours_s: list[float] = field(default_factory=list)
    loop: list[list[Sample]] = field(default_factory=list)
    load: float = field(default_factory=lambda: os.getloadavg()[0])


def read_state(file: Path) -> State:
    """Return what `file` holds, or nothing done."""
    if not file.exists():
        return State()
    found = json.loads(file.read_text())
    return State(found["ours_s"], [[Sample(**one) for one in pair] for pair in found["loop"]], found["load"])


def measure(folder: Path, launches: int, pairs: int, changes: dict[str, object]) -> Verdict:
    """Time everything that is not done yet below `folder`; `changes` are laid over the config."""
    copy = Copy(folder / "ours", {"quants": list(QUANTS), "launches": 1, **changes})
    if not copy.run("--until", "checkpoint"):
        raise SystemExit("the checkpoints can't be built\nsee the lines above")
    tokenizer = folder / "tokenizer"
    make_tokenizer(tokenizer, VOCABULARY)
    loop = Loop(tokenizer, yaml.safe_load((copy.path / "config.yaml").read_text())["workload_settings"]["demo"])
    file = folder / "state.json"
    state = read_state(file)
    for launch in range(launches):
        if len(state.ours_s) <= launch:
            _one_block(copy, launch, state)
            _save(file, state)
        for pair in range(len(state.loop), (launch + 1) * pairs // launches):
            state.loop.append(_one_pair(loop, copy.path / "models" / "synthetic", pair))
            _save(file, state)
            print(f"loop, pair {pair + 1} of {pairs}: {state.loop[-1]}", flush=True)
    return Verdict(state.ours_s, read_blocks(copy.path / "results"), state.loop, state.load)


def _one_pair(loop: Loop, models: Path, pair: int) -> list[Sample]:
    """Run one process for each quantization, in an order that is drawn."""
    order = random.Random(f"verdict/{pair}").sample(list(QUANTS), len(QUANTS))
    samples = []
    for quant in order:
        wall_s, pass_s = loop.sample(next(models.glob(f"[!.]*-{QUANTS[quant]}")), seed=pair)
        samples.append(Sample(quant, wall_s, pass_s))
    return samples


def _one_block(copy: Copy, launch: int, state: State) -> None:
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
    parser.add_argument("--launches", type=int, default=6, help="blocks, 3 at the least (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=12, help="of the loop, 3 at the least (default: %(default)s)")
    parser.add_argument(
        "--changes", type=json.loads, default={}, metavar="JSON", help="changes of the config, to try it out"
    )
    parser.add_argument("--folder", type=Path, help="keep everything there, and continue what is there")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the results as a page, too")
    return parser


def main() -> None:
    """Measure, print the table, and write the page if asked."""
    arguments = parser().parse_args()
    if min(arguments.launches, arguments.pairs) < 3:
        raise SystemExit(
            "fewer than 3 blocks or pairs have no spread to go by\ngive --launches and --pairs of 3 or more"
        )
    with alone(), tempfile.TemporaryDirectory(prefix="rollout-bench-") as temporary:
        folder = (arguments.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        verdict = measure(folder, arguments.launches, arguments.pairs, arguments.changes)
    print(verdict.table())
    print(verdict.promise())
    if arguments.write:
        arguments.write.write_text(page(verdict))
        print(arguments.write)


if __name__ == "__main__":
    main()
