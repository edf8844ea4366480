"""Runs snakemake as `python -m snakemake` does, but has it ask Slurm for the states of jobs once a second.

Each time that nothing is new the plugin asks 10 s later than before, whatever it is told: after 1, 11, 21, 31, 41 s.
That is kind to a controller that many ask, and tests would wait for it longer than for anything else.
"""

import asyncio
import sys
from pathlib import Path

from snakemake import cli
from snakemake_executor_plugin_slurm import Executor


async def sleep(_: Executor) -> None:
    """Wait between two questions."""
    await asyncio.sleep(1.0)


if __name__ == "__main__":
    sys.path[0] = str(Path.cwd())
    Executor.sleep = sleep
    cli.main()
