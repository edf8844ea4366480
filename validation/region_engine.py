"""One engine that makes passes inside rollout-bench's timed region and inside vLLM's, in turn. Called by region.py."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from region import ARMS, orders
from vllm_pass import requests

from rollout_bench.contracts.spec import read_spec
from rollout_bench.measure.engine.vllm import LoadedEngine
from rollout_bench.workloads.requests import Source


def main() -> None:
    """Print the seconds of both arms, a line of JSON a round, after one pass of each that is not printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", type=Path, required=True, help="spec.json of the experiment")
    parser.add_argument("--model", required=True, help="folder with the weights")
    parser.add_argument("--launch", type=int, required=True, help="whose prompts are taken")
    parser.add_argument("--from", dest="first", type=int, required=True, help="first round, from 0")
    parser.add_argument("--to", dest="end", type=int, required=True, help="one past the last round")
    arguments = parser.parse_args()
    spec = read_spec(arguments.spec)

    from vllm.benchmarks import throughput

    run = getattr(throughput, "_run_vllm_requests", None)
    if run is None:
        raise SystemExit("this vLLM has no vllm.benchmarks.throughput._run_vllm_requests\nuse vLLM 0.32")
    engine = LoadedEngine(spec, arguments.model)
    source = Source(spec.workload, engine.vocabulary, spec.model.name)

    def ours(number: int) -> float:
        return engine.iterate(source.requests(arguments.launch, number), number, lambda: None).iteration.elapsed_s

    def theirs(number: int) -> float:
        asked = requests(spec, engine.vocabulary, arguments.launch, number)
        elapsed_s, outputs = run(engine.llm, asked, 1, True, False, False, False)
        tokens = sum(len(one.token_ids) for output in outputs for one in output.outputs)
        if tokens != sum(request.expected_output_len for request in asked):
            raise SystemExit(f"{tokens} output tokens\nthe loads are not the same")
        return float(elapsed_s)

    arms = dict(zip(ARMS, (ours, theirs), strict=True))
    number = 0
    for number, arm in enumerate(arms.values()):
        arm(number)
    for order in orders(arguments.end)[arguments.first :]:
        found = {}
        for arm_name in order:
            number += 1
            found[arm_name] = arms[arm_name](number)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
