"""Shared by all tests: the helpers beside this file can be imported, and nothing fails for being slow."""

import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "workflow" / "scripts"))

# By default an example may take 200 ms, and making it a second: on a machine with other work to do some take longer.
settings.register_profile("however_slow", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("however_slow")
