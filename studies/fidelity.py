"""The same load timed by rollout-bench and by `vllm bench throughput`, each in a process of its own.

In each round, in an order that is drawn: a launch of rollout-bench beside vLLM's benchmark, and a second launch beside
the worker of such a launch without supervisor and guardian. The two comparisons share no launch. Each process makes a
warm-up pass and the pass that counts. Same weights, prompts, lengths, engine arguments and environment. Kept in
studies/results/fidelity.json after each round; continues where it was ended.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from copies import TEMPORARY, Copy
from kept import RESULTS, SETTINGS, Place, alone, keep, kept

from rollout_bench.analysis.stats.intervals import RatioInterval, ratio_interval
from rollout_bench.contracts.fields import Strict
from rollout_bench.contracts.spec import Spec, read_spec
from rollout_bench.contracts.store import read_record
from rollout_bench.measure.launch.preflight import engine_environment
from rollout_bench.plan.planfile import read_plan
from rollout_bench.plan.schedule import PLAN_FILE

HERE = Path(__file__).resolve().parent
RESULT = "fidelity"

LOAD = {
    "prompts": 8,
    "samples_per_prompt": 4,
    "prompt_tokens": 64,
    "output_tokens": 32,
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


OURS, THEIRS, OURS_AGAIN, BARE = "ours", "theirs", "ours, again", "bare"
ARMS = (OURS, THEIRS, OURS_AGAIN, BARE)
"""What takes a turn in each round: launches, vLLM's benchmark, and the worker without a supervisor."""

COMPARED = ((OURS, THEIRS), (OURS_AGAIN, BARE))


class FidelityRound(Strict):
    """Seconds of the pass of each arm, in the order of their turns."""

    index: int
    passes_s: dict[str, float]
    output_tokens: int


class Fidelity(Strict):
    """All rounds; `load` is what each pass does, `drawn` whether the order of the arms was; it rotated before."""

    place: Place
    model: str
    load: dict[str, int]
    drawn: bool
    rounds: list[FidelityRound]

    def ratio(self, side: str, base: str) -> RatioInterval | None:
        """Throughput of one arm over another's; None with fewer than two rounds that have both."""
        both = [one.passes_s for one in self.rounds if {side, base} <= set(one.passes_s)]
        return rate_ratio([one[base] / one[side] for one in both]) if len(both) > 1 else None


def rate_ratio(ratios: Sequence[float]) -> RatioInterval:
    """Return the geometric mean of ratios, one a round, with its interval."""
    return ratio_interval([math.log(ratio) for ratio in ratios], SETTINGS.confidence)


@dataclass(frozen=True)
class Prepared:
    """What a pass needs: a copy of the project, the spec's file, and the folder of the weights."""

    copy: Copy
    spec_file: Path
    model: Path

    @property
    def spec(self) -> Spec:
        """The spec in that file."""
        return read_spec(self.spec_file)

    @property
    def load(self) -> dict[str, int]:
        """What each pass does."""
        workload = self.spec.workload.model_dump()
        return {name: workload[name] for name in ("prompts", "samples_per_prompt", "prompt_tokens", "output_tokens")}

    @property
    def environment(self) -> dict[str, str]:
        """The engine's environment, as the supervisor sets it."""
        environment = {**engine_environment(self.spec, str(self.model)), "PATH": self.copy.environment["PATH"]}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        return environment


def prepare(folder: Path) -> Prepared:
    """Return a copy in `folder` that has the weights and the spec.

    Raises:
        SystemExit: the engine does not run.
    """
    copy = Copy(folder, CONFIG)
    # One launch through Snakemake builds the weights, writes the spec, and is not used.
    if not copy.run("results/summary.txt"):
        raise SystemExit("the engine does not run here\nsee the lines above")
    planned = read_plan(folder / PLAN_FILE).experiments[0]
    spec_file = folder / "results" / planned.mode / planned.experiment / "spec.json"
    return Prepared(copy, spec_file, next((folder / "models" / "synthetic").glob("[!.]*-bf16")))


def measure(folder: Path, rounds: int, results: Path) -> Fidelity:
    """Measure what is missing of `rounds`, keeping each as it is done."""
    with alone():
        prepared = prepare(folder)
        result = kept(RESULT, Fidelity, results)
        if result is None or not result.drawn or result.load != prepared.load:
            result = Fidelity(
                place=prepared.copy.place(), model=prepared.spec.model.name, load=prepared.load, drawn=True, rounds=[]
            )
        for index in range(len(result.rounds), rounds):
            one = take_turns(prepared, index)
            result = result.model_copy(update={"rounds": [*result.rounds, one]})
            print(f"round {index + 1} of {rounds}: {one.passes_s}", flush=True)
            keep(RESULT, result, results)
        return result


def take_turns(prepared: Prepared, index: int) -> FidelityRound:
    """One round, in an order of its own; all arms have the same prompts.

    Raises:
        SystemExit: an arm fails, or the arms did not get the same number of tokens.
    """
    # The launch that built the weights had index 0, and its prompts.
    launch, copy = index + 1, prepared.copy
    common = ["--spec", prepared.spec_file, "--model", prepared.model, "--launch", launch]

    def ours() -> tuple[float, int]:
        out = prepared.spec_file.parent / f"launch-{launch}.json"
        out.unlink(missing_ok=True)
        log = copy.path / "logs" / f"pass-{launch}.log"
        variables = {**copy.environment, "PYTHONPATH": str(copy.path / "src")}
        call(["-m", "rollout_bench", "measure", *common, "--out", out, "--log", log], copy, variables)
        second = read_record(out).iterations[1]  # the very pass that is repeated, whatever it counts as
        return second.elapsed_s, second.output_tokens

    def by_itself(script: str, *more: object) -> Callable[[], tuple[float, int]]:
        def timed() -> tuple[float, int]:
            answer = copy.path / "pass.json"
            call([HERE / script, *common, *more, "--out", answer], copy, prepared.environment)
            found = json.loads(answer.read_text())
            return found["elapsed_s"], found["output_tokens"]

        return timed

    turns = {
        OURS: ours,
        THEIRS: by_itself("vllm_pass.py", "--iteration", 1, "--warm"),
        OURS_AGAIN: ours,
        BARE: by_itself("bare_pass.py"),
    }
    order = list(ARMS)
    random.Random(f"{RESULT}/order/{index}").shuffle(order)
    found = {arm: turns[arm]() for arm in order}
    tokens = {count for _, count in found.values()}
    if len(tokens) > 1:
        raise SystemExit(f"output tokens differ: {found}\nthe loads are not the same")
    return FidelityRound(index=index, passes_s={arm: found[arm][0] for arm in order}, output_tokens=tokens.pop())


def call(words: list[object], copy: Copy, environment: dict[str, str]) -> None:
    """Run a Python command in the copy; its output goes to a log, of which the end is shown when it fails.

    Raises:
        SystemExit: it fails.
    """
    log = copy.path / "logs" / "fidelity.log"
    with log.open("w") as file:
        line = [sys.executable, *map(str, words)]
        done = subprocess.run(line, cwd=copy.path, env=environment, stdout=file, stderr=file, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{log.read_text(errors='replace')[-2000:]}\n{words[0]} failed\nrun the same command again")


def main() -> None:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60, help="in all; about 1 min each (default: %(default)s)")
    parser.add_argument(
        "--folder", type=Path, default=TEMPORARY / "fidelity", help="copy of the project (default: %(default)s)"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result (default: %(default)s)")
    arguments = parser.parse_args()
    arguments.folder.parent.mkdir(parents=True, exist_ok=True)
    result = measure(arguments.folder.absolute(), arguments.rounds, arguments.results)
    for side, base in COMPARED:
        if ratio := result.ratio(side, base):
            print(f"throughput of {side} / {base}: {ratio.ratio:.4f} [{ratio.low:.4f}, {ratio.high:.4f}]")
    print(arguments.results / f"{RESULT}.json")


if __name__ == "__main__":
    main()
