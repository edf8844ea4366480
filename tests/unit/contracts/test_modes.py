"""What a mode says that it has is there, and of the type that its readers expect."""

from dataclasses import fields
from inspect import isclass
from typing import Any

import pytest
from toy_mode import TOY

from rollout_bench.contracts.fields import Strict
from rollout_bench.contracts.mode import Lazy, Mode
from rollout_bench.contracts.mode_parts import ModeSpec
from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.problems import FailureKind, FlagKind
from rollout_bench.contracts.record import Launched
from rollout_bench.measure.launch.hooks import Hooks
from rollout_bench.numbers.number import Number
from rollout_bench.plan.planning import Planning

MODELS = {"section": Strict, "spec": ModeSpec, "record": Launched, "rows": Strict}
ITEMS = {"numbers": Number, "flags": FlagKind, "failures": FailureKind}
VALUES = {"planning": Planning, "hooks": Hooks}


@pytest.mark.parametrize("mode", [*MODES.values(), TOY], ids=lambda mode: mode.name)
def test_what_a_mode_names_is_there(mode: Mode):
    named = {field.name: value for field in fields(mode) if isinstance(value := getattr(mode, field.name), Lazy)}
    for name, lazy in named.items():
        assert is_of_its_type(name, lazy.get()), (name, lazy.place)


def is_of_its_type(name: str, found: Any) -> bool:
    if name in MODELS:
        return isclass(found) and issubclass(found, MODELS[name])
    if name in VALUES:
        return isinstance(found, VALUES[name])
    if name in ITEMS:
        return all(isinstance(item, ITEMS[name]) for item in found)
    if name in ("iteration_fields", "replica_fields", "start_fields", "drawings"):
        return bool(found) and all(isinstance(key, str) for key in found)
    return all(len(each) == 4 for each in found) if name == "commands" else callable(found)


@pytest.mark.parametrize(
    "place", ["rollout_bench.modes.steps.checks:PLANING", "rollout_bench.modes.steps.cheks:PLANNING"]
)
def test_a_misspelt_place_is_an_error(place: str):
    with pytest.raises((AttributeError, ImportError)):
        Lazy[Any](place).get()
