"""The block's command with engines that `stand_in_member.py` plays; all else is real.

The folder of the weights has behaviour.json, `{"<name of the workload>": "fails", ...}`, and takes passes.jsonl.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

import run_block

from rollout_bench.core.errors import run_command
from rollout_bench.measure.launch import attempt

if __name__ == "__main__":
    attempt.WORKER = "stand_in_member"
    run_command(run_block.main)
