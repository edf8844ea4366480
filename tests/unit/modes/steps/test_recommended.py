"""The truly best setting is among those that are recommended as often as promised, however many there are."""

import math

import numpy as np
import pytest

from rollout_bench.modes.steps.predict.prediction import Prediction
from rollout_bench.modes.steps.predict_commands import TIED, Predicted, ranked

DRAWS = 200
MISFIT = 0.02
"""By which predictions of single settings err, a share."""

TRIES = 300


def predicted(name: str, value: float, draws: np.ndarray) -> Predicted:
    return Predicted(name, Prediction(None, 1.0, 1.0, 1, 3, {100: draws}, {100: value}, 1.0, 0.0, 0.0, ()), None)


def named(random: np.random.Generator, times: np.ndarray) -> set[str]:
    """Return the best and those tied with it, of predictions of true `times` that share an error of 5 %."""
    errors = np.exp(MISFIT * random.standard_normal(times.size)) * math.exp(0.05 * random.standard_normal())
    shared = np.exp(0.05 * random.standard_normal(DRAWS))
    found = [
        predicted(str(number), value, value * shared * np.exp(MISFIT * random.standard_normal(DRAWS)))
        for number, value in enumerate(times * errors)
    ]
    best, rest = ranked(found)
    return {best.name, *(each.name for each, (_, tied) in rest if tied)}


@pytest.mark.parametrize("settings", [2, 6, 12])
def test_the_best_is_missed_no_more_often_than_promised(settings: int):
    random = np.random.default_rng(settings)
    missed = sum("0" not in named(random, np.ones(settings)) for _ in range(TRIES)) / TRIES
    assert missed <= 1 - TIED + 3 * math.sqrt(TIED * (1 - TIED) / TRIES)


def test_settings_that_are_clearly_worse_are_left_out():
    times = np.array([1.0, 1.01, 1.2, 1.3])
    assert named(np.random.default_rng(1), times) <= {"0", "1"}
