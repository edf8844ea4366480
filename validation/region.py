"""The timed region of rollout-bench against that of `vllm bench throughput`, on one engine, in turn.

One engine, loaded as a launch loads it. In each round `LoadedEngine.iterate` and vLLM's own
`vllm.benchmarks.throughput._run_vllm_requests` make one pass each, in an order that is drawn, over prompts that no pass
had before. So nothing differs but what is inside the two regions, and what is done right before them. Kept in
validation/results/region.json after each round; continues, with another engine, where it was ended.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from copies import TEMPORARY
from fidelity import HERE, Prepared, prepare, rate_ratio
from kept import RESULTS, SETTINGS, Place, alone, keep, kept
from scipy import stats

from rollout_bench.analysis.stats.intervals import RatioInterval
from rollout_bench.contracts.fields import Strict

RESULT = "region"
ARMS = ("ours", "theirs")


class RegionRound(Strict):
    """Seconds of both arms, in the order of their turns, and the number of the engine that made them."""

    index: int
    engine: int
    passes_s: dict[str, float]


class Region(Strict):
    """All rounds; `load` is what each pass does."""

    place: Place
    model: str
    load: dict[str, int]
    rounds: list[RegionRound]

    @property
    def log_ratios(self) -> list[float]:
        """Logarithm of our throughput over theirs, for each round."""
        return [math.log(one.passes_s["theirs"] / one.passes_s["ours"]) for one in self.rounds]

    @property
    def ratio(self) -> RatioInterval:
        """Our throughput over theirs, from two rounds on."""
        return rate_ratio([math.exp(log) for log in self.log_ratios])

    @property
    def trimmed(self) -> Trimmed:
        """The same without the outer rounds."""
        return trimmed_ratio(self.log_ratios)


@dataclass(frozen=True)
class Trimmed:
    """A trimmed mean of log ratios, as a ratio with its interval."""

    ratio: float
    low: float
    high: float


def trimmed_ratio(logs: list[float], share: float = 0.2) -> Trimmed:
    """Mean of the middle of n log ratios with its t interval, `share` left out at each end.

    The standard error is that of the winsorised values over (1 - 2 g / n) sqrt(n), with n - 2 g - 1 degrees of freedom,
    g = floor(share n) (Tukey and McLaughlin, Sankhya A 25, 1963). One that takes ten times as long moves it little.
    """
    d, n = np.sort(np.asarray(logs)), len(logs)
    cut = int(share * n)
    middle = float(d[cut : n - cut].mean())
    winsorised = np.clip(d, d[cut], d[n - cut - 1])
    error = float(winsorised.std(ddof=1)) / ((1 - 2 * cut / n) * math.sqrt(n))
    half = float(stats.t.isf((1 - SETTINGS.confidence) / 2, n - 2 * cut - 1)) * error
    return Trimmed(math.exp(middle), math.exp(middle - half), math.exp(middle + half))


def orders(rounds: int) -> list[list[str]]:
    """Return the order of the arms in each of `rounds` rounds."""
    drawn = random.Random(RESULT)
    return [drawn.sample(ARMS, len(ARMS)) for _ in range(rounds)]


def measure(folder: Path, rounds: int, results: Path) -> Region:
    """Measure what is missing of `rounds`, keeping each as it is done."""
    with alone():
        prepared = prepare(folder)
        result = kept(RESULT, Region, results)
        if result is None or result.load != prepared.load:
            result = Region(
                place=prepared.copy.place(), model=prepared.spec.model.name, load=prepared.load, rounds=[]
            )  # fmt: skip
        if len(result.rounds) < rounds:
            engine = max((one.engine for one in result.rounds), default=-1) + 1
            result = _alternate(prepared, result, rounds, engine, results)
        return result


def _alternate(prepared: Prepared, result: Region, rounds: int, engine: int, results: Path) -> Region:
    log = prepared.copy.path / "logs" / "region.log"
    words = ["--spec", prepared.spec_file, "--model", prepared.model, "--from", len(result.rounds), "--to", rounds]
    line = [sys.executable, HERE / "region_engine.py", *words, "--launch", engine + 1]
    with log.open("w") as file:
        process = subprocess.Popen(
            [str(word) for word in line],
            cwd=prepared.copy.path,
            env=prepared.environment,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )
        assert process.stdout is not None
        for answer in process.stdout:
            if not answer.startswith("{"):  # what vLLM prints
                continue
            one = RegionRound(index=len(result.rounds), engine=engine, passes_s=json.loads(answer))
            result = result.model_copy(update={"rounds": [*result.rounds, one]})
            keep(RESULT, result, results)
            print(f"round {one.index + 1} of {rounds}: {one.passes_s}", flush=True)
        if process.wait() != 0 or len(result.rounds) < rounds:
            raise SystemExit(
                f"{log.read_text(errors='replace')[-2000:]}\nthe engine failed\nrun the same command again"
            )
    return result


def main() -> None:
    """Measure, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60, help="in all; about 4 s each (default: %(default)s)")
    parser.add_argument(
        "--folder", type=Path, default=TEMPORARY / "fidelity", help="copy of the project (default: %(default)s)"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result (default: %(default)s)")
    arguments = parser.parse_args()
    arguments.folder.parent.mkdir(parents=True, exist_ok=True)
    result = measure(arguments.folder.absolute(), arguments.rounds, arguments.results)
    if len(result.rounds) > 1:
        ratio, trimmed = result.ratio, result.trimmed
        print(f"our throughput / theirs: {ratio.ratio:.4f} [{ratio.low:.4f}, {ratio.high:.4f}]")
        print(f"without the outer rounds: {trimmed.ratio:.4f} [{trimmed.low:.4f}, {trimmed.high:.4f}]")
    print(arguments.results / f"{RESULT}.json")


if __name__ == "__main__":
    main()
