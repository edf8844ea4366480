"""Puts src/ on the path, so that these commands run in any Python without installing rollout-bench."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))
