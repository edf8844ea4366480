"""Time `vllm bench throughput` with the adapters of a measured config, to hold the launches' ratio against.

In each round, in an order that turns: a start of the command for each setting, with the engine arguments, environment,
load and adapter of the spec of that setting in `--folder`, where `rollout-bench run` measured. A start makes
a warm-up pass and the pass that counts. Kept after each pass.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fidelity import HERE, throughput_words

from rollout_bench.contracts.spec import Spec, read_spec
from rollout_bench.contracts.store import read_record
from rollout_bench.core.files import write_whole
from rollout_bench.measure.engine.lora import adapter_request
from rollout_bench.measure.launch.preflight import engine_environment

LOAD = {"prompts", "samples_per_prompt", "prompt_tokens", "output_tokens"}


def spec_of(folder: Path, model: str, workload: str, setting: str) -> Spec:
    """Return the spec of a measured experiment."""
    specs = map(read_spec, sorted((folder / "results").glob("*/*/spec.json")))
    named = (model, workload, setting)
    (found,) = (each for each in specs if (each.model.name, each.workload.name, each.setting) == named)
    return found


def place_of(folder: Path) -> dict[str, str]:
    """Return when and where a launch of that folder ran."""
    record = read_record(next((folder / "results").glob("*/*/launch-0.json")))
    environment = record.environment
    measured, engine = record.started_at[:10], f"{environment.engine_name} {environment.engine_version}"
    return {"measured": measured, "device": environment.device_model, "engine": engine}


def timed(spec: Spec, model: Path, adapter: str | None, seed: int) -> dict[str, float]:
    """Return seconds and output tokens of a pass of the command.

    Raises:
        SystemExit: it fails.
    """
    words = throughput_words(spec, model, seed)
    if adapter is not None:
        words += ["--lora-path", adapter]
    with tempfile.TemporaryDirectory() as folder:
        answer, log = Path(folder, "pass.json"), Path(folder, "log")
        line = [sys.executable, str(HERE / "throughput_command.py"), *map(str, words), "--output-json", str(answer)]
        with log.open("w") as file:
            environment = engine_environment(spec, str(model))
            done = subprocess.run(line, env=environment, stdout=file, stderr=file, check=False)
        output = log.read_text(errors="replace")
        if done.returncode != 0:
            raise SystemExit(f"{output[-2000:]}\nthe command failed\nrun it again")
        (tokens,) = re.findall(r"^Total num output tokens: +(\d+)$", output, re.MULTILINE)
        return {"elapsed_s": json.loads(answer.read_text())["elapsed_time"], "output_tokens": int(tokens)}


def main() -> None:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where `rollout-bench run` measured")
    parser.add_argument("--weights", type=Path, required=True, help="folder of the model's config.json")
    parser.add_argument("--model", default="qwen3-8b", help="its name in the config (default: %(default)s)")
    parser.add_argument("--workload", default="step", help="the load (default: %(default)s)")
    parser.add_argument("--settings", nargs="+", default=["merged", "rank-16"], help="what takes turns")
    parser.add_argument("--rounds", type=int, default=3, help="starts of each (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=600, help="begin no start later (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="the file that is written")
    arguments = parser.parse_args()
    end_s = time.monotonic() + arguments.seconds
    specs = {name: spec_of(arguments.folder, arguments.model, arguments.workload, name) for name in arguments.settings}
    load = next(iter(specs.values())).workload.model_dump(mode="json", include=LOAD)
    head = {**place_of(arguments.folder), "model": arguments.model, "workload": arguments.workload, "load": load}
    runs: list[dict[str, object]] = []
    weights = arguments.weights.absolute()
    adapters = {
        name: adapter_request(spec, str(weights))[0].lora_path for name, spec in specs.items() if spec.lora is not None
    }
    for index in range(arguments.rounds):
        turns = list(specs) if index % 2 == 0 else list(reversed(specs))
        for name in turns:
            if time.monotonic() > end_s:
                return
            found = timed(specs[name], weights, adapters.get(name), index + 1)
            runs.append({"round": index, "setting": name, **found})
            write_whole(arguments.out, (json.dumps({**head, "runs": runs}, indent=2) + "\n").encode())
            print(runs[-1], flush=True)


if __name__ == "__main__":
    main()
