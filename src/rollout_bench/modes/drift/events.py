"""Events of a drift launch."""

from typing import Literal

from rollout_bench.measure.launch.protocol import Event
from rollout_bench.modes.drift.record import ScoredRow


class SequencesScored(Event):
    """A pass that sampled or scored sequences is over."""

    event: Literal["scored"] = "scored"
    rows: list[ScoredRow]
    tokens_sha256: str
