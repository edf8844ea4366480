"""The command of rollout_bench/commands/bounds.py, for any Python: nothing need be installed."""

import _src  # noqa: F401 (puts src/ on the path)

from rollout_bench.commands.bounds import main
from rollout_bench.core.errors import run_command

if __name__ == "__main__":
    run_command(main)
