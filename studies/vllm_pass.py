"""One pass of `vllm bench throughput`, as it times it itself, over prompts that rollout-bench made.

Called by fidelity.py, one process a pass. Everything between the prompts and the seconds is vLLM's own code,
`vllm.benchmarks.throughput.run_vllm`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rollout_bench.contracts.spec import Spec, read_spec
from rollout_bench.workloads.requests import Source


def requests(spec: Spec, vocabulary: int, launch: int, iteration: int) -> list[Any]:
    """Return what rollout-bench hands to the engine in that iteration, as vLLM's benchmark takes it.

    A request a sequence.
    """
    from vllm.benchmarks.datasets import SampleRequest

    return [
        SampleRequest(
            prompt={"prompt_token_ids": request.prompt_token_ids},
            prompt_len=len(request.prompt_token_ids),
            expected_output_len=request.output_tokens,
        )
        for request in Source(spec.workload, vocabulary, spec.model.name).requests(launch, iteration)
    ]


def main() -> None:
    """Run the pass and write {"elapsed_s": seconds, "output_tokens": counted}."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", type=Path, required=True, help="spec.json of the experiment")
    parser.add_argument("--model", required=True, help="folder with the weights")
    parser.add_argument("--launch", type=int, required=True, help="whose prompts are taken")
    parser.add_argument("--iteration", type=int, required=True, help="whose prompts are timed")
    parser.add_argument("--warm", action="store_true", help="warm up first, with the prompts of iteration 0")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    arguments = parser.parse_args()
    spec = read_spec(arguments.spec)

    from vllm.benchmarks.throughput import run_vllm
    from vllm.engine.arg_utils import EngineArgs

    vocabulary = json.loads((Path(arguments.model) / "config.json").read_text())["vocab_size"]
    # As ours starts the engine: prompts are token ids.
    args = EngineArgs(model=arguments.model, skip_tokenizer_init=True, **spec.engine.args)
    elapsed_s, outputs = run_vllm(
        requests(spec, vocabulary, arguments.launch, arguments.iteration),
        n=1,
        engine_args=args,
        do_profile=False,
        disable_detokenize=True,
        warmup_requests=requests(spec, vocabulary, arguments.launch, 0) if arguments.warm else None,
    )
    tokens = sum(len(one.token_ids) for output in outputs or [] for one in output.outputs)
    arguments.out.write_text(json.dumps({"elapsed_s": elapsed_s, "output_tokens": tokens}))


if __name__ == "__main__":
    main()
