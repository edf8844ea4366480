"""The router in the supervisor's process."""

from rollout_bench.measure.launch.hooks import Hooks
from rollout_bench.modes.rollout.router import Router

HOOKS = Hooks(feeder=Router)
