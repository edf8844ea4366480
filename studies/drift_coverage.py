"""How often do mode drift's intervals hold the truth where rare tokens carry it? 95 % is promised.

Made log ratios: most tokens differ by 0.5 %, a rare one by 30 %, so that its ratio is outside [0.9, 1.1]. Rare tokens
come alone, or gather in sequences: the chance of a sequence is then drawn from a beta distribution with this
intraclass correlation. Run: python studies/drift_coverage.py [tries]
"""

import math
import sys

import numpy as np

from rollout_bench.analysis.stats.divergence import divergence

CASES = [(16, 64), (64, 64), (64, 256)]
CHANCES = [1 / 100, 1 / 1000, 1 / 5000]
CORRELATIONS = [0.0, 0.02]


def main() -> None:
    """Print the coverage of the share and of KL k3 for each case."""
    tries = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    random = np.random.default_rng(6)
    print(f"{tries} tries; standard error of 95 %: {100 * math.sqrt(0.95 * 0.05 / tries):.1f} points\n")
    print("| sequences x tokens | one token in | correlation | share holds, % | mean upper end, % | k3 holds, % |")
    print("|---|--:|--:|--:|--:|--:|")
    for (sequences, tokens), chance, correlation in (
        (case, chance, correlation) for case in CASES for chance in CHANCES for correlation in CORRELATIONS
    ):
        holds = k3_holds = 0
        ends = []
        k3 = chance * (math.exp(0.3) - 1.3) + (1 - chance) * 0.5 * 0.005**2
        for _ in range(tries):
            chances = np.full(sequences, chance)
            if correlation:
                size = 1 / correlation - 1
                chances = random.beta(chance * size, (1 - chance) * size, sequences)
            ratios = [np.where(random.random(tokens) < p, 0.3, 0.005 * random.standard_normal(tokens)) for p in chances]
            found = divergence(ratios, 0.95)
            holds += found.outside.low <= chance <= found.outside.high
            k3_holds += found.k3.low <= k3 <= found.k3.high
            ends.append(found.outside.high)
        print(
            f"| {sequences} x {tokens} | {1 / chance:.0f} | {correlation:g} | {100 * holds / tries:.0f} | "
            f"{100 * np.mean(ends):.2f} | {100 * k3_holds / tries:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
