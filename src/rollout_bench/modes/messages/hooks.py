"""What a launch in mode messages needs of vLLM."""

from pathlib import Path

from rollout_bench.contracts.postmortem import Cause
from rollout_bench.contracts.spec import Spec
from rollout_bench.core import message_places
from rollout_bench.measure.launch.hooks import Hooks


def obstacle(spec: Spec, record: Path) -> Cause | None:
    """Return the cause if the installed vLLM lacks a place that the probes need."""
    lacks = message_places.moved(message_places.installed() or Path())
    return Cause("messages_moved", message_places.sentence(lacks), message_places.REMEDY) if lacks else None


HOOKS = Hooks(obstacle=obstacle)
