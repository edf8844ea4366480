"""Runs rollout_bench/commands/compare.py in any Python, without installing rollout-bench."""

import _src  # noqa: F401 (puts src/ on the path)

from rollout_bench.commands.compare import main
from rollout_bench.core.errors import run_command

if __name__ == "__main__":
    run_command(main)
