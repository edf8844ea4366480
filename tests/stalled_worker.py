"""A worker that stalls in a transition; vLLM mixes it into its own."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from rollout_bench.measure.probes.trainer_stand_in import HandOver, TrainerStandIn


class StalledWorker(TrainerStandIn):
    """Says that an update began, in the file that STALLED_AT names, and does not go on with it."""

    def rollout_bench_update(self, *args: Any, **kwargs: Any) -> HandOver:
        """Stall."""
        Path(os.environ["STALLED_AT"]).touch()
        time.sleep(600)
        return super().rollout_bench_update(*args, **kwargs)
