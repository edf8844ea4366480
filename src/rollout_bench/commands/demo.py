"""Measure a small model in three quantizations on this machine's CPU, and print the answer.

The engine is installed into .venv of this folder, unless it is there. It takes about five minutes on two cores. A
processor without AVX-512 emulates bf16, so it measures a smaller model.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rollout_bench.commands import environment
from rollout_bench.core.files import write_whole
from rollout_bench.core.interrupts import status_of
from rollout_bench.core.options import Parser
from rollout_bench.core.places import CONFIG, CONFIGS, home
from rollout_bench.plan.config_file import read_config
from rollout_bench.rules.arguments import read_call
from rollout_bench.rules.checks import check_words

NEXT = """
Next, with a load of your own, in a folder of its own:
  source .venv/bin/activate && mkdir mine && cd mine
  rollout-bench init --from verl training.yaml    # or: trl FILE, llm-d URL, endpoint URL of a server that is up
  rollout-bench plan"""

AGAIN = """
What was measured is kept. To go on:
  source .venv/bin/activate
  rollout-bench run"""


def _check(words: Sequence[str]) -> None:
    """Refuse values that no config has, before anything is installed."""
    check_words(words)
    call = read_call([*words, "--configfile", str(CONFIG)])
    read_config(call.merged(), call.config)


def main(argv: Sequence[str]) -> int:
    """Install, measure and show; return the exit status of the run."""
    ends = "Exit status: 0 when everything is measured, 1 on an error."
    parser = Parser(prog="rollout-bench demo", description=__doc__, epilog=ends)
    parser.add_argument(
        "--config", nargs="+", metavar="NAME=VALUE", default=[], help="as in `rollout-bench run`, such as launches=3"
    )
    values = parser.parse_args(argv).config
    _check(["--config", *values])
    if not values:
        print("A small model in three quantizations: about five minutes on two cores", flush=True)
    folder = Path(".venv")
    environment.make(folder)
    if not CONFIG.exists():
        write_whole(CONFIG, (home() / CONFIGS / CONFIG).read_bytes())
    bench = [sys.executable, "-m", "rollout_bench", "run", "--cores", "1", *(["--config", *values] if values else [])]
    path = {**os.environ, "PATH": os.pathsep.join([str(folder.absolute() / "bin"), os.environ.get("PATH", "")])}
    status = status_of(bench, path)
    print(NEXT if status == 0 else AGAIN)
    return status
