"""Predicted steps, as `rollout-bench predict` and `recommend` leave them for the summary."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from rollout_bench.contracts.fields import Strict
from rollout_bench.contracts.spec import Spec
from rollout_bench.core.files import read_model, write_json

FORECASTS = "predictions.json"
"""File in the results folder."""


@dataclass(frozen=True)
class Expected:
    """A predicted number: its value, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def holds(self, measured: float) -> bool:
        """Return whether the interval has the measured value."""
        return self.low <= measured <= self.high


class Forecast(Strict):
    """The predicted iteration of an experiment."""

    spec: Spec
    step_s: Expected = Field(description="Time of the whole step, in seconds.")
    extrapolated: bool = Field(description="Whether some of its work is beyond the calibration.")


def same_but_engine_version(one: Spec, other: Spec) -> bool:
    """Return whether two specs differ at most in the version of the engine."""
    first, second = ({**each.model_dump(mode="json"), "engine": unversioned_engine(each)} for each in (one, other))
    return first == second


def unversioned_engine(spec: Spec) -> dict[str, Any]:
    """Return the engine of `spec` without its name, its version and its plugins."""
    return spec.engine.model_dump(mode="json", exclude={"name", "version", "plugins", "before"})


class _File(Strict):
    forecasts: dict[str, Forecast] = Field(description="Key of an experiment -> its last forecast.")


def forecasts(results: Path) -> dict[str, Forecast]:
    """Return what was predicted in a results folder, by the experiments' keys.

    Raises:
        UserError: the file is damaged.
    """
    path = results / FORECASTS
    if not path.exists():
        return {}
    return read_model(path, _File, "move it away, and predict again").forecasts


def keep(results: Path, made: Iterable[Forecast]) -> None:
    """Add forecasts to those of a results folder."""
    added = {each.spec.key(): each for each in made}
    write_json(results / FORECASTS, _File(forecasts={**forecasts(results), **added}))
