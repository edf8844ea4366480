"""How the experiments of a mode are planned: hooks, each with the default of a mode that only generates."""

from collections.abc import Collection
from typing import Any

from rollout_bench.contracts.load import LoadSpec
from rollout_bench.contracts.mode import Mode
from rollout_bench.contracts.mode_parts import ModeSpec
from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.spec import Platform, Spec, WorkloadSpec
from rollout_bench.plan.config import Config
from rollout_bench.plan.engine import InstalledEngine

Reason = tuple[str, str]
"""Reason why a combination cannot be measured, and the remedy."""


class Planning:
    """The plan of one mode; a mode's `checks.PLANNING` is a subclass. Checks raise `UserError`.

    Attributes:
        several_engines: whether a step is of all engines that `rollout.replicas` asks for, or asks for none.
    """

    several_engines = False

    def separate_core(self, platform: Platform, load: LoadSpec | None) -> bool:
        """Return whether the engine core is a separate process.

        On a CPU, two processes would share the cores. On other platforms, one process would delay each step by the
        host's work.
        """
        return platform != "cpu" or load is not None

    def iterations(self, config: Config) -> int:
        """Return the number of measured iterations of a launch that repeats them."""
        return config.iterations

    def mode_spec(self, config: Config, args: dict[str, Any], platform: Platform) -> ModeSpec | None:
        """Return the part of the spec that only this mode has."""
        return None

    def load(self, config: Config) -> LoadSpec | None:
        """Return the arrival of requests at a server, in a mode without loads of the workload."""
        return None

    def args(self, config: Config, args: dict[str, Any]) -> dict[str, Any]:
        """Return the engine's arguments in this mode."""
        return args

    def workload(self, workload: WorkloadSpec) -> WorkloadSpec:
        """Return the load of an iteration in this mode."""
        return workload

    def further_tokens(self, config: Config, workload: str) -> int:
        """Return the tokens by which sequences may be longer than the workload's."""
        return 0

    def check(self, config: Config, engine: InstalledEngine) -> None:
        """Check that the mode is possible under one setting, for any model."""

    def check_all(self, configs: Collection[Config]) -> None:
        """Check `configs`, the config under each setting of the mode."""

    def check_spec(self, config: Config, spec: Spec) -> None:
        """Check that an engine can do the work of `spec`, and leaves reserved arguments to the mode."""

    def check_other(self, config: Config, spec: Spec) -> None:
        """Check that the section of this mode, which may not be measured, does not affect `spec` of another mode."""

    def check_here(self, spec: Spec) -> None:
        """Check that the engines of `spec` may share this machine."""

    def skip_reason(self, spec: Spec, path: str, config: Config) -> Reason | None:
        """Return why the model at `path` cannot be measured, a reason to skip it; None if it can."""
        return None

    def lines(self, specs: Collection[Spec]) -> list[str]:
        """Return lines for the plan on `specs`, all experiments of this mode."""
        return []

    def trainer_bytes(self, spec: Spec, weights_bytes: float) -> tuple[float, bool]:
        """Return a trainer's memory on a device, for weights of this size, and whether an engine shares the device."""
        return 0.0, False

    def reference(self, config: Config) -> str | None:
        """Return the quantization whose experiment the others of a model and workload refer to; None if none."""
        return None


def with_logprobs(workload: WorkloadSpec) -> WorkloadSpec:
    """Return the workload with the log probabilities of sampled tokens, if it has none."""
    return workload if workload.logprobs is not None else workload.model_copy(update={"logprobs": 0})


PLANNING = Planning()
"""The plan of modes that add nothing to it."""


def planning_of(mode: Mode | str) -> Planning:
    """Return the planning of a mode."""
    return (MODES[mode] if isinstance(mode, str) else mode).planning.get()
