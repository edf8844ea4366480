"""How often does `rollout-bench recommend` rule the truly best setting out, and how many does it keep?

Made predictions: each errs by a factor of all settings, which cancels, and by one of its own, `MISFIT`; the draws have
the same spread. Run: python studies/recommend_rate.py [tries]
"""

import math
import sys

import numpy as np

from rollout_bench.modes.steps.predict.prediction import Prediction
from rollout_bench.modes.steps.predict_commands import Predicted, ranked

DRAWS = 4000
SHARED, MISFIT = 0.05, 0.02


def prediction(name: str, central_s: float, draws_s: np.ndarray) -> Predicted:
    """Return a prediction of a step."""
    made = Prediction(
        spec=None,  # type: ignore[arg-type]
        output_tokens=1.0, length=1.0, devices=1, launches=3, complete_s={100: draws_s}, central_s={100: central_s},
        steps=1.0, preemptions=0.0, kv_peak=0.0, beyond=(),
    )  # fmt: skip
    return Predicted(name, made, None)


def trial(random: np.random.Generator, settings: int, gap: float) -> tuple[bool, int]:
    """Return whether the truly best of `settings` is kept, and how many are; `gap` between neighbours in misfits."""
    truth_s = np.exp(gap * MISFIT * random.permutation(settings))
    central_s = truth_s * np.exp(MISFIT * random.standard_normal(settings) + SHARED * random.standard_normal())
    shared = SHARED * random.standard_normal(DRAWS)
    errors_of = MISFIT * random.standard_normal((settings, DRAWS))
    best, others = ranked(
        [
            prediction(str(n), value, value * np.exp(shared + errors))
            for n, (value, errors) in enumerate(zip(central_s, errors_of, strict=True))
        ]
    )
    kept = {best.name, *(each.name for each, (_, is_tied) in others if is_tied)}
    return str(int(np.argmin(truth_s))) in kept, len(kept)


def main() -> None:
    """Print the rates."""
    tries = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    random = np.random.default_rng(5)
    print(f"{tries} tries; standard error of 5 %: {100 * math.sqrt(0.05 * 0.95 / tries):.1f} points\n")
    print("| settings | apart by, in misfits | truly best ruled out, % | kept, mean |")
    print("|--:|--:|--:|--:|")
    for settings in (2, 4, 6, 12):
        for gap in (0.0, 0.25, 1.0):
            kept, counts = zip(*(trial(random, settings, gap) for _ in range(tries)), strict=True)
            print(f"| {settings} | {gap:g} | {100 * (1 - np.mean(kept)):.1f} | {np.mean(counts):.1f} |", flush=True)


if __name__ == "__main__":
    main()
