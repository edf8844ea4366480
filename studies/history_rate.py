"""How often does `rollout-bench history` call an unchanged series worse at some time, and how soon does it find a step?

Made series of log values: sessions differ by a normal amount. Run: python studies/history_rate.py [tries]
"""

import sys

import numpy as np

from rollout_bench.analysis.stats.changepoint import fall_of

MARGIN = 0.03
STEP = 0.05


def first_signal(values: list[float], begin: int) -> int | None:
    """Return the number of values after which a fall is named, `begin` at least; None if it never is."""
    places = range(begin, len(values) + 1)
    return next((n for n in places if fall_of(values[:n], MARGIN, 0.95) is not None), None)


def error(share: float, tries: int) -> float:
    """Return the standard error of a share, in points."""
    return 100 * (share * (1 - share) / tries) ** 0.5


def main() -> None:
    """Print the rates."""
    tries = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    random = np.random.default_rng(4)
    of_5, of_80 = error(0.05, tries), error(0.8, tries)
    print(f"{tries} series a row; standard error of 5 %: {of_5:.1f} points, of 80 %: {of_80:.1f}\n")
    print("| sessions differ by, % | entries before | unchanged: worse by entry 200, % | step of 5 % found in 5, % |")
    print("|--:|--:|--:|--:|")
    for spread in (0.002, 0.01, 0.02):
        for before in (10, 25, 50):
            false = ""
            if before == 10:
                unchanged = (list(spread * random.standard_normal(200)) for _ in range(tries))
                false = f"{100 * np.mean([first_signal(x, 2) is not None for x in unchanged]):.1f}"
            found = []
            for _ in range(tries):
                values = spread * random.standard_normal(before + 5)
                values[before:] -= STEP
                found.append((first_signal(list(values), 2) or 0) > before)
            print(f"| {100 * spread:g} | {before} | {false} | {100 * np.mean(found):.0f} |", flush=True)


if __name__ == "__main__":
    main()
