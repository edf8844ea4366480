"""Check that vLLM has the internals that mode messages reads."""

from pathlib import Path

from rollout_bench.contracts.failures import Cause
from rollout_bench.contracts.spec import Spec
from rollout_bench.measure.launch.hooks import Hooks
from rollout_bench.modes.messages import vllm_symbols


def obstacle(spec: Spec, record: Path) -> Cause | None:
    """Return the cause if the installed vLLM lacks a place that the probes need."""
    lacks = vllm_symbols.moved(vllm_symbols.installed() or Path())
    return Cause("messages_moved", vllm_symbols.sentence(lacks), vllm_symbols.REMEDY) if lacks else None


HOOKS = Hooks(obstacle=obstacle)
