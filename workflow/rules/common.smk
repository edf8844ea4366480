"""In: config.yaml. Out: the shared package on the path, and the certainty that the config can be read."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir) / "src"))

from rollout_bench.core import interrupts

if workflow.is_main_process:
    interrupts.end_on_interrupt()

from rollout_bench import snakefile
from rollout_bench.cluster import slurm
from rollout_bench.cluster.internals import Internals
from rollout_bench.cluster.side_by_side import SideBySide
from rollout_bench.contracts.modes import MODES
from rollout_bench.plan.schedule import MARK

snakefile.put_on_path()
snakefile.check_default_config(workflow.remote_exec)

# jobs are submitted, or this is one; not known later than here, where rules are read
ON_CLUSTER = workflow.remote_exec or workflow.resource_settings.nodes is not None
