"""The best setting of a grid, by rollout-bench and by vLLM's own way to sweep: do both find the same one?

The grid is `GRID`, of the demo's model in bf16 on a CPU. rollout-bench measures it as any config that has `sweep`: all
settings in turn, block after block. vLLM's sweep makes one point after the other, several runs of each in a row. Its
`vllm bench sweep` knows servers only, so a run is `vllm bench throughput` here, in a process of its own. Both make as
many passes of each point that count, each engine after a warm-up of the same size, with the same engine arguments.
Kept in validation/results/sweep_fidelity.json, theirs after each run; continues where it was ended, and goes on where
--launches is raised.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from copies import TEMPORARY, Copy
from kept import REPOSITORY, RESULTS, SETTINGS, Place, alone, keep, kept

sys.path.append(str(REPOSITORY / "benchmarks"))

from sampling_loop import Loop, make_tokenizer

from rollout_bench.analysis.stats.best import may_be_best
from rollout_bench.analysis.stats.blocks import contrasts
from rollout_bench.analysis.stats.intervals import NO_SPREAD, mean
from rollout_bench.analysis.timed.answers import Standing, compared_rows, standing
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.contracts.fields import Strict
from rollout_bench.contracts.spec import Spec, read_spec
from rollout_bench.plan.planfile import read_plan
from rollout_bench.snakefile import PLAN_FILE

RESULT = "sweep_fidelity"

MODEL = "qwen3-90m"
GRID = {"max_num_seqs": [2, 8, 32], "enforce_eager": [True, False]}
LOAD = {"prompts": 8, "samples_per_prompt": 4, "prompt_tokens": 64, "output_tokens": 32}
ENGINE_ARGS = {"max_num_seqs": 32, "kv_cache_memory_bytes": 1 << 28, "enforce_eager": True}
"""Where no setting says otherwise; a point of the grid, so that the default is one of its settings."""

ITERATIONS = 1
"""Passes that count in a launch: theirs has so many runs for each launch of ours."""

CONFIG = {
    "models": [MODEL],
    "quants": ["bf16"],
    "workloads": ["sweep"],
    "launches": 1,
    "warmup_iterations": 1,
    "iterations": ITERATIONS,
    "sweep": GRID,
    "baseline": {"quant": None, "setting": "default"},
    "workload_settings": {"sweep": {**LOAD, "engine_args": ENGINE_ARGS}},
}


class SweepAnswer(Strict):
    """Which setting has the best mean of those that may be the best, which can't be told from it, which surely are not.

    Settings by their names in the workflow, the best first.
    """

    best: str
    ties: list[str]
    others: list[str]

    @property
    def may_be(self) -> set[str]:
        """The settings that may be the best."""
        return {self.best, *self.ties}

    def says(self, setting: str) -> str:
        """Return what it says of a setting."""
        if setting == self.best:
            return "best"
        return "can't be told" if setting in self.ties else "not the best" if setting in self.others else "-"


class SweepFidelity(Strict):
    """Seconds of all passes by the name of the setting, and how long each way took.

    `ours_s` has the passes of each valid launch, `invalid` counts the other launches, and `ours` is what the workflow
    answers, None where it has no answer yet. `theirs_s` has one pass for each process.
    """

    place: Place
    model: str
    load: dict[str, int]
    launches: int
    iterations: int
    ours_s: dict[str, list[list[float]]]
    invalid: int
    ours: SweepAnswer | None
    ours_took_s: float
    theirs_s: dict[str, list[float]]
    theirs_took_s: float

    @property
    def output_tokens(self) -> int:
        """Of a pass."""
        return self.load["prompts"] * self.load["samples_per_prompt"] * self.load["output_tokens"]

    @property
    def our_rates(self) -> dict[str, list[float]]:
        """Output tokens per second of each valid launch."""
        return {
            name: [self.output_tokens * len(passes) / sum(passes) for passes in launches]
            for name, launches in self.ours_s.items()
        }

    @property
    def their_rates(self) -> dict[str, list[float]]:
        """Output tokens per second of each run."""
        return {name: [self.output_tokens / one for one in runs] for name, runs in self.theirs_s.items()}

    @property
    def theirs(self) -> SweepAnswer | None:
        """What the runs of vLLM's way come to by the same statistics; it has none of its own."""
        return answer_of(self.their_rates)


def answer_of(rates: Mapping[str, Sequence[float]]) -> SweepAnswer | None:
    """Return the answer of runs that took no turns, by the number of the run; None where they tell of no spread.

    Runs of the same number have nothing in common, so their pairs are as good as any.
    """
    most = max(map(len, rates.values()), default=0)
    if len(rates) < 2 or most < 2:
        return None
    padded = [[*own, *[math.nan] * (most - len(own))] for own in rates.values()]
    logs = np.log(np.array(padded, dtype=float)).T
    ratios = logs[:, 1:] - logs[:, :1]
    found = contrasts(ratios)
    if not np.isfinite(found.error).all():
        return None
    spread = float(found.pooled_error[0]) * math.sqrt(int(found.pairs[0]) / 2)
    if spread < NO_SPREAD:
        return None
    may_be = may_be_best(ratios, spread, int(found.freedom), 1 - SETTINGS.confidence, float(found.correlation))
    names, means = list(rates), [mean(own) for own in rates.values()]
    best, *rest = sorted(range(len(names)), key=lambda place: (not may_be[place], -means[place]))
    return SweepAnswer(
        best=names[best],
        ties=[names[place] for place in rest if may_be[place]],
        others=[names[place] for place in rest if not may_be[place]],
    )


def agreement(one: SweepAnswer, other: SweepAnswer) -> str:
    """Return whether two answers name the same best setting: `same`, `same within the noise` or `not the same`."""
    if one.best == other.best:
        return "same"
    close = one.best in other.may_be and other.best in one.may_be
    return "same within the noise" if close else "not the same"


def measure(folder: Path, launches: int, results: Path) -> SweepFidelity:
    """Measure what is missing of `launches` launches of each setting, and of as many passes by vLLM's way."""
    with alone():
        copy = Copy(folder / "ours", CONFIG)
        result = kept(RESULT, SweepFidelity, results)
        if result is None or (result.load, result.iterations) != (LOAD, ITERATIONS):
            result = _nothing_yet(copy.place())
        launches = max(launches, result.launches)
        result = _with_ours(result, copy, launches)
        keep(RESULT, result, results)
        tokenizer = folder / "theirs" / "tokenizer"
        model = next((copy.path / "models" / "synthetic").glob("[!.]*-bf16"))
        if not tokenizer.is_dir():
            tokenizer.parent.mkdir(parents=True, exist_ok=True)
            make_tokenizer(tokenizer, json.loads((model / "config.json").read_text())["vocab_size"])
        for name, args in _points(copy).items():
            loop = Loop(tokenizer, {**LOAD, "engine_args": args}, warmups=LOAD["prompts"])
            for run in range(len(result.theirs_s.get(name, ())), launches * ITERATIONS):
                wall_s, pass_s = loop.sample(model, seed=run)
                result = _with_run(result, name, wall_s, pass_s)
                keep(RESULT, result, results)
                print(f"{name}, run {run + 1} of {launches * ITERATIONS}: {pass_s:.3f} s", flush=True)
        return result


def _nothing_yet(place: Place) -> SweepFidelity:
    return SweepFidelity(
        place=place, model=MODEL, load=LOAD, launches=0, iterations=ITERATIONS, ours_s={}, invalid=0, ours=None,
        ours_took_s=0.0, theirs_s={}, theirs_took_s=0.0,
    )  # fmt: skip


def _with_ours(result: SweepFidelity, copy: Copy, launches: int) -> SweepFidelity:
    """Return `result` with what the workflow measures and answers; what is there already it does not measure again.

    Raises:
        SystemExit: a launch failed.
    """
    fresh, began = not (copy.path / PLAN_FILE).exists(), time.monotonic()
    if not copy.run("results/summary.txt", "--config", f"launches={launches}"):
        raise SystemExit("a launch failed\nsee the lines above, then run the same command again")
    took_s = time.monotonic() - began if fresh or result.launches < launches else 0.0
    collection = collect(copy.path / "results", read_plan(copy.path / PLAN_FILE))
    rows = rows_of(collection)
    base, others = next(iter(compared_rows(rows)), (None, []))
    stands = None if base is None else standing(base, others, collection.comparison)
    return result.model_copy(
        update={
            "launches": launches,
            "ours_s": {
                row.experiment.setting: [[one.elapsed_s for one in launch.passes] for launch in row.used]
                for row in rows
            },
            "invalid": sum(not launch.valid for row in rows for launch in row.launches),
            "ours": None if stands is None else _answer(stands),
            "ours_took_s": (0.0 if fresh else result.ours_took_s) + took_s,
        }
    )


def _answer(stands: Standing) -> SweepAnswer:
    return SweepAnswer(
        best=stands.best.experiment.setting,
        ties=[row.experiment.setting for row in stands.ties],
        others=[row.experiment.setting for row in stands.others],
    )


def _with_run(result: SweepFidelity, name: str, wall_s: float, pass_s: float) -> SweepFidelity:
    runs = [*result.theirs_s.get(name, ()), pass_s]
    return result.model_copy(
        update={"theirs_s": {**result.theirs_s, name: runs}, "theirs_took_s": result.theirs_took_s + wall_s}
    )


def _points(copy: Copy) -> dict[str, dict[str, Any]]:
    """Return the engine arguments of each setting, as the command takes them."""
    found = {}
    for planned in read_plan(copy.path / PLAN_FILE).experiments:
        spec = read_spec(copy.path / "results" / planned.mode / planned.experiment / "spec.json")
        found[planned.setting] = arguments_of(spec)
    return found


def arguments_of(spec: Spec) -> dict[str, Any]:
    """Return the engine arguments of `spec` but those that are false, as they are by default, and the seed.

    The command has one seed for prompts and engine, and each run has prompts of its own.
    """
    return {name: value for name, value in spec.engine.args.items() if name != "seed" and value is not False}


def main() -> None:
    """Measure, and print both answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--launches", type=int, default=3, help="of each setting in all, 3 at the least (default: %(default)s)"
    )
    parser.add_argument(
        "--folder", type=Path, default=TEMPORARY / RESULT, help="for a copy of the project (default: %(default)s)"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.launches < 3:
        raise SystemExit("fewer than 3 launches can't tell which setting is best\ngive --launches 3 or more")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    result = measure(arguments.folder.absolute(), arguments.launches, arguments.results)
    for way, answer in (("rollout-bench", result.ours), ("vLLM's way", result.theirs)):
        print(f"{way}: {'no answer yet' if answer is None else f'{answer.best}; ties: {answer.ties}'}")
    if result.ours is not None and result.theirs is not None:
        print(f"the best is {agreement(result.ours, result.theirs)}")
    print(arguments.results / f"{RESULT}.json")


if __name__ == "__main__":
    main()
