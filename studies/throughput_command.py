"""`vllm bench throughput`, with its own options, where the `vllm` command fails: on builds named other than vllm."""

from __future__ import annotations

from vllm.benchmarks.throughput import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser

if __name__ == "__main__":
    parser = FlexibleArgumentParser(description="vllm bench throughput")
    add_cli_args(parser)
    main(parser.parse_args())
