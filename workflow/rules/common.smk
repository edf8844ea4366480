"""In: config.yaml. Out: the shared package on the path, and the certainty that the config can be read."""

import sys
from pathlib import Path

SCRIPTS = Path(workflow.basedir) / "workflow" / "scripts"
sys.path.insert(0, str(SCRIPTS))

from rollout_bench import workbench
from rollout_bench.side_by_side import SideBySide

workbench.check_default_config()
