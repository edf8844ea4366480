"""The same load timed by rollout-bench and by `vllm bench throughput`, in turn, each in processes of its own.

In each round: one launch of rollout-bench (a warm-up iteration and a measured one), vLLM's benchmark with a warm-up,
and vLLM's benchmark without. Same weights, prompts, lengths, engine arguments and environment. Kept in
validation/results/fidelity.json after each round; continues where it was ended.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from copies import TEMPORARY, Copy
from kept import RESULTS, SETTINGS, Place, alone, keep, kept

from rollout_bench.analysis.stats.intervals import RatioInterval, ratio_interval
from rollout_bench.contracts.fields import Strict
from rollout_bench.contracts.spec import Spec, read_spec
from rollout_bench.contracts.store import read_record
from rollout_bench.measure.launch.preflight import engine_environment
from rollout_bench.plan.planfile import read_plan
from rollout_bench.snakefile import PLAN_FILE

HERE = Path(__file__).resolve().parent

LOAD = {
    "prompts": 8,
    "samples_per_prompt": 4,
    "prompt_tokens": 64,
    "output_tokens": 64,
    "engine_args": {"max_num_seqs": 64, "kv_cache_memory_bytes": 1 << 28, "enforce_eager": True},
}
CONFIG = {
    "models": ["qwen3-90m"],
    "quants": ["bf16"],
    "workloads": ["fidelity"],
    "launches": 1,
    "warmup_iterations": 1,
    "iterations": 1,
    "workload_settings": {"fidelity": LOAD},
}


class Round(Strict):
    """Seconds of one round: ours for warm-up and measured iteration, vLLM's benchmark's for the same prompts."""

    index: int
    ours_warmup_s: float
    ours_s: float
    theirs_cold_s: float
    theirs_s: float
    output_tokens: int


class Fidelity(Strict):
    """All rounds; `load` is what each pass does."""

    place: Place
    model: str
    load: dict[str, int]
    rounds: list[Round]

    @property
    def warm(self) -> RatioInterval:
        """Our throughput over vLLM's benchmark's, after a warm-up, from two rounds on."""
        return _ratio([round.theirs_s / round.ours_s for round in self.rounds])

    @property
    def cold(self) -> RatioInterval:
        """The same for the first pass of an engine."""
        return _ratio([round.theirs_cold_s / round.ours_warmup_s for round in self.rounds])


def _ratio(ratios: list[float]) -> RatioInterval:
    return ratio_interval([math.log(ratio) for ratio in ratios], SETTINGS.confidence)


def measure(folder: Path, rounds: int) -> None:
    """Measure what is missing of `rounds`, keeping each as it is done."""
    with alone():
        copy = Copy(folder, CONFIG)
        # One launch through Snakemake builds the weights, writes the spec, and is not used.
        if not copy.run("results/summary.txt"):
            raise SystemExit("the engine does not run here\nsee the lines above")
        planned = read_plan(folder / PLAN_FILE).experiments[0]
        spec_file = folder / "results" / planned.mode / planned.experiment / "spec.json"
        model = next((folder / "models" / "synthetic").iterdir())
        spec = read_spec(spec_file)
        workload = spec.workload.model_dump()
        load = {name: workload[name] for name in ("prompts", "samples_per_prompt", "prompt_tokens", "output_tokens")}
        before = kept("fidelity", Fidelity)
        done = before.rounds if before and before.load == load else []
        for index in range(len(done), rounds):
            done = [*done, take_turns(copy, spec_file, spec, model, index)]
            print(f"round {index + 1} of {rounds}: {done[-1].model_dump()}", flush=True)
            place = before.place if before and before.load == load else copy.place()
            before = Fidelity(place=place, model=spec.model.name, load=load, rounds=done)
            keep("fidelity", before)


def take_turns(copy: Copy, spec_file: Path, spec: Spec, model: Path, index: int) -> Round:
    """One round; who begins changes from round to round."""
    # The launch that built the weights had index 0, and its prompts.
    launch = index + 1
    out = spec_file.parent / f"launch-{launch}.json"
    out.unlink(missing_ok=True)

    def ours() -> tuple[float, float, int]:
        script = copy.path / "workflow" / "scripts" / "run_launch.py"
        words = ["--spec", spec_file, "--model", model, "--launch", launch, "--out", out]
        _call([script, *words, "--log", copy.path / "logs" / f"fidelity-{launch}.log"], copy, copy.environment)
        first, second = read_record(out).iterations[:2]  # the very passes that are repeated, whatever they count as
        return first.elapsed_s, second.elapsed_s, second.output_tokens

    def theirs(iteration: int, *more: str) -> tuple[float, int]:
        answer = copy.path / "pass.json"
        words = ["--spec", spec_file, "--model", model, "--launch", launch, "--iteration", iteration, *more]
        environment = {**engine_environment(spec, str(model)), "PATH": copy.environment["PATH"]}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        _call([HERE / "vllm_pass.py", *words, "--out", answer], copy, environment)
        found = json.loads(answer.read_text())
        return found["elapsed_s"], found["output_tokens"]

    turns: list[Callable[[], tuple[float, ...]]] = [ours, lambda: theirs(1, "--warm"), lambda: theirs(0)]
    found: dict[int, tuple[float, ...]] = {}
    for turn in range(len(turns)):
        chosen = (turn + index) % len(turns)
        found[chosen] = turns[chosen]()
    (warmup_s, ours_s, tokens), (theirs_s, their_tokens), (cold_s, cold_tokens) = (found[turn] for turn in range(3))
    if not tokens == their_tokens == cold_tokens:
        raise SystemExit(f"output tokens differ: {tokens}, {their_tokens}, {cold_tokens}\nthe loads are not the same")
    return Round(
        index=index,
        ours_warmup_s=warmup_s,
        ours_s=ours_s,
        theirs_cold_s=cold_s,
        theirs_s=theirs_s,
        output_tokens=int(tokens),
    )


def _call(words: list[object], copy: Copy, environment: dict[str, str]) -> None:
    """Run a Python command in the copy; its output goes to a log, of which the end is shown when it fails."""
    log = copy.path / "logs" / "fidelity.log"
    with log.open("w") as file:
        line = [sys.executable, *map(str, words)]
        done = subprocess.run(line, cwd=copy.path, env=environment, stdout=file, stderr=file, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{log.read_text(errors='replace')[-2000:]}\n{words[0]} failed\nrun the same command again")


def main() -> None:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12, help="in all; about 50 s each (default: %(default)s)")
    parser.add_argument(
        "--folder", type=Path, default=TEMPORARY / "fidelity", help="copy of the project (default: %(default)s)"
    )
    arguments = parser.parse_args()
    arguments.folder.parent.mkdir(parents=True, exist_ok=True)
    measure(arguments.folder.absolute(), arguments.rounds)
    print(RESULTS / "fidelity.json")


if __name__ == "__main__":
    main()
