"""Workers that do something wrong on purpose in a transition; vLLM mixes them into its own."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch

from rollout_bench.measure.probes.trainer_stand_in import HandOver, TrainerStandIn

LEAK_MB = 8
"""Megabytes that each update leaks."""


class LeakyWorker(TrainerStandIn):
    """Keeps some memory at each update."""

    def rollout_bench_update(self, *args: Any, **kwargs: Any) -> HandOver:
        """Update, and never give back what that took."""
        if not hasattr(self, "kept"):
            self.kept: list[torch.Tensor] = []
        self.kept.append(torch.ones(LEAK_MB * 10**6, dtype=torch.uint8))
        return super().rollout_bench_update(*args, **kwargs)


class StalledWorker(TrainerStandIn):
    """Says that an update began, in the file that STALLED_AT names, and does not go on with it."""

    def rollout_bench_update(self, *args: Any, **kwargs: Any) -> HandOver:
        """Stall."""
        Path(os.environ["STALLED_AT"]).touch()
        time.sleep(600)
        return super().rollout_bench_update(*args, **kwargs)
