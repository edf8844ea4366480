"""One configuration under three names, measured as a user's run is by default: how often a table finds a difference.

A table is a run of its own: `snakemake results/summary.txt` in a folder without results, with three blocks of the
engines bf16-a, bf16-b and bf16-c alive at once, making their passes in turn, `iterations: 8`. Its verdicts are those
of its own summary.csv. Kept in studies/results/block_aa.json after each table; continues where it was ended. Raw
records stay in the folder.

The model is the demo's, of 88 million parameters, in passes of about half a second: a smaller one spends its steps on
the host and not on computing, and would not be quicker, since by the rule passes take half of the time of the starts.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from copies import TEMPORARY, Copy
from kept import RESULTS, SETTINGS, Place, Share, alone, keep, kept
from measured_rounds import (
    MeasuredBlock,
    Reported,
    log_speedups,
    read_blocks,
    read_reported,
    rounds_of,
    run_or_end,
    set_aside,
)
from noise import Array
from scipy import stats

from rollout_bench.analysis.stats.blocks import contrasts, half_widths
from rollout_bench.contracts.fields import Strict

RESULT = "block_aa"
BASELINE = "bf16-a"
OTHERS = ("bf16-b", "bf16-c")
ALPHA = 1 - SETTINGS.confidence
SAME_QUANT = {"weights_format": "bf16", "linear_dtypes": ["bfloat16"], "linear_method": "^Unquant"}

CONFIG: dict[str, Any] = {
    "models": ["qwen3-90m"],
    "quants": [BASELINE, *OTHERS],
    "workloads": ["short"],
    "launches": 3,
    "warmup_iterations": 1,
    "iterations": 8,
    "interleave": True,
    "baseline": {"quant": BASELINE},
    "quant_settings": dict.fromkeys((BASELINE, *OTHERS), SAME_QUANT),
    "workload_settings": {
        "short": {
            "prompts": 8,
            "samples_per_prompt": 4,
            "prompt_tokens": 16,
            "output_tokens": 16,
            "engine_args": {"max_num_seqs": 64, "kv_cache_memory_bytes": 1 << 27, "enforce_eager": True},
        }
    },
}


class AATable(Strict):
    """One run: what its summary says of each configuration, and the blocks behind it. `minutes` is the whole run."""

    minutes: float
    told: dict[str, Reported]
    blocks: list[MeasuredBlock]

    @property
    def judged(self) -> bool:
        """Whether each configuration has an interval."""
        return all(self.told[name].half_width is not None for name in OTHERS)

    @property
    def false(self) -> bool:
        """Whether its summary finds a difference."""
        return any(self.told[name].found for name in OTHERS)

    @property
    def counted(self) -> list[MeasuredBlock]:
        """The whole blocks that count: all where the summary takes all, else those without an invalid launch."""
        whole = [block for block in self.blocks if set(block.passes_s) == {BASELINE, *OTHERS}]
        # What the summary leaves out it decides by block, so flags of a record alone don't say it.
        if all(self.told[name].pairs == len(whole) for name in OTHERS):
            return whole
        return [block for block in whole if not block.invalid]


class BlockAA(Strict):
    """All tables, in the order in which they were measured."""

    place: Place
    tables: list[AATable]

    @property
    def judged(self) -> list[AATable]:
        """The tables that could have found something."""
        return [table for table in self.tables if table.judged]

    @property
    def false(self) -> Share:
        """Tables in which some difference was found."""
        return Share(count=sum(table.false for table in self.judged), of=len(self.judged))

    @property
    def covered(self) -> Share:
        """Tables all of whose intervals hold 1."""
        held = [
            all((one.low or 0) <= 1 <= (one.high or math.inf) for one in (table.told[name] for name in OTHERS))
            for table in self.judged
        ]
        return Share(count=sum(held), of=len(held))

    @property
    def blocks(self) -> list[MeasuredBlock]:
        """All blocks that are whole."""
        return [block for table in self.tables for block in table.counted]


def recomputed(table: AATable) -> bool | None:
    """Whether the table finds a difference, worked out here from its raw passes; None with fewer than two blocks."""
    blocks = table.counted
    if len(blocks) < 2:
        return None
    found = contrasts(np.array([log_speedups(block, BASELINE, OTHERS) for block in blocks]))
    return bool((np.abs(found.log_ratio) > half_widths(found, ALPHA)).any())


@dataclass(frozen=True)
class StartEffect:
    """Whether blocks differ by more than their rounds explain: what a start decides, as a standard deviation.

    `f`, `between` and `within` are the F statistic and its degrees of freedom, `p` the chance of as large an F. `sd` is
    the estimated spread of what a start gives to all rounds of one engine, `sd_high` its one-sided 95 % bound, and
    `round_sd` that of one pass in a round; fractions.
    """

    f: float
    between: int
    within: int
    p: float
    sd: float
    sd_high: float
    round_sd: float


def residuals(blocks: Sequence[MeasuredBlock]) -> list[Array]:
    """Log seconds [K, k] of each block without what a round gives to all configurations, and without means of names.

    The latter are 0 but for chance: the names stand for the same.
    """
    centred = [logs - logs.mean(axis=1, keepdims=True) for logs in (rounds_of(b, (BASELINE, *OTHERS)) for b in blocks)]
    names = np.mean([logs.mean(axis=0) for logs in centred], axis=0)
    return [logs - names for logs in centred]


def start_effect(blocks: Sequence[MeasuredBlock]) -> StartEffect:
    """One-way analysis of variance of `blocks` (two at the least) over what configurations of a round do not share."""
    rest = residuals(blocks)
    k, counts = rest[0].shape[1], np.array([len(logs) for logs in rest])
    between, within = (len(rest) - 1) * (k - 1), int((counts - 1).sum()) * (k - 1)
    means = [logs.mean(axis=0) for logs in rest]
    grand = sum(count * mean for count, mean in zip(counts, means, strict=True)) / counts.sum()
    spread = sum(float(c * ((m - grand) ** 2).sum()) for c, m in zip(counts, means, strict=True)) / between
    noise = sum(float(((logs - mean) ** 2).sum()) for logs, mean in zip(rest, means, strict=True)) / within
    rounds = (counts.sum() - (counts**2).sum() / counts.sum()) / (len(rest) - 1)
    f = spread / noise

    def sd(ratio: float) -> float:
        return math.sqrt(max(0.0, ratio - 1) * noise / rounds)

    return StartEffect(
        f=f,
        between=between,
        within=within,
        p=float(stats.f.sf(f, between, within)),
        sd=sd(f),
        sd_high=sd(f / float(stats.f.ppf(0.05, between, within))),
        round_sd=math.sqrt(noise),
    )


def correlations(blocks: Sequence[MeasuredBlock], lags: int = 3) -> list[tuple[float, float]]:
    """Correlation of a round with the one `lag` later, and what white noise gives, for lag 1 to `lags` or
    as many as the shortest block has.

    The mean of a short block is estimated from itself, so white noise gives a little less than 0: each of K - lag
    products has the mean -sigma^2 / K, and the squares sum to (K - 1) sigma^2.
    """
    rest = [logs - logs.mean(axis=0) for logs in residuals(blocks)]
    lags = min(lags, *(len(logs) - 1 for logs in rest))
    squares = sum(float((logs**2).sum()) for logs in rest)
    found = []
    for lag in range(1, lags + 1):
        products = sum(float((logs[lag:] * logs[:-lag]).sum()) for logs in rest)
        white = -sum((len(logs) - lag) / len(logs) for logs in rest) / sum(len(logs) - 1 for logs in rest)
        found.append((products / squares, white))
    return found


def block_sd(blocks: Sequence[MeasuredBlock]) -> float:
    """Return the standard deviation of what one block says of one configuration, whose truth is 0."""
    return float(np.sqrt(np.mean([log_speedups(block, BASELINE, OTHERS) ** 2 for block in blocks])))


def measure(folder: Path, tables: int, blocks: int, iterations: int, results: Path) -> BlockAA:
    """Measure what is missing of `tables` runs of `blocks` blocks, keeping each as it is done."""
    with alone():
        copy = Copy(folder / "copy", CONFIG)
        result = kept(RESULT, BlockAA, results) or BlockAA(place=copy.place(), tables=[])
        while len(result.tables) < tables:
            began = time.monotonic()
            run_or_end(copy, "--config", f"launches={blocks}", f"iterations={iterations}")
            minutes = round((time.monotonic() - began) / 60, 2)
            reported, measured = read_reported(copy.path / "results"), read_blocks(copy.path / "results")
            if not all(block.interleaved for block in measured):
                raise SystemExit("the engines of a block were not alive at once\nthis code does not interleave yet")
            table = AATable(minutes=minutes, told=reported, blocks=measured)
            result = result.model_copy(update={"tables": [*result.tables, table]})
            keep(RESULT, result, results)
            done = len(result.tables)
            set_aside(copy, folder / f"table-{done:02}-{time.time_ns()}")
            left = (tables - done) * float(np.mean([one.minutes for one in result.tables]))
            print(
                f"table {done} of {tables}: {minutes:.1f} min, {reported[OTHERS[0]]}, {reported[OTHERS[1]]};"
                f" {result.false.count} false so far; about {left:.0f} min left",
                flush=True,
            )
        return result


def main() -> None:
    """Measure, and print how many tables found something."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=30, help="in all; about 3 min each (default: %(default)s)")
    parser.add_argument("--blocks", type=int, default=3, help="in each table (default: %(default)s)")
    parser.add_argument(
        "--iterations", type=int, default=8, help="of each launch, to try it out (default: %(default)s)"
    )
    parser.add_argument(
        "--folder", type=Path, default=TEMPORARY / RESULT, help="for copy and records (default: %(default)s)"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result (default: %(default)s)")
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    result = measure(folder, arguments.tables, arguments.blocks, arguments.iterations, arguments.results)
    if result.judged:
        print(f"tables with a false verdict: {result.false}; promised is at most {100 * ALPHA:.0f} %")
    print(arguments.results / f"{RESULT}.json")


if __name__ == "__main__":
    main()
