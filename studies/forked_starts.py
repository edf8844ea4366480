"""Does an engine that is forked from a block's process measure and scatter as one that is started plainly?

The demo's blocks are measured twice, forked and plain, alternately. Prints for each quantization the ratio of their
passes with its 95 % interval over blocks, and the ratio of the spreads between launches with that of an F test.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from copies import Copy
from measured_rounds import read_blocks, trimmed_mean
from scipy import stats

FORKS = "imported_for(members, held)"


def measured(folder: Path, blocks: int) -> dict[str, dict[str, np.ndarray]]:
    """Return the logarithm of the seconds of a pass of each launch, by quantization, of plain and forked starts."""
    copies = {name: Copy(folder / name, {}) for name in ("plain", "forked")}
    command = copies["plain"].path / "src" / "rollout_bench" / "commands" / "measure.py"
    command.write_text(command.read_text().replace(FORKS, "None"))
    for launches in range(1, blocks + 1):
        for copy in copies.values() if launches % 2 else reversed(copies.values()):
            if not copy.run("--config", f"launches={launches}"):
                raise SystemExit("a block failed\nsee the lines above; the same command goes on")
    return {
        name: {
            quant: np.array([float(trimmed_mean(np.log(block.passes_s[quant]))) for block in found])
            for quant in found[0].passes_s
        }
        for name, copy in copies.items()
        if (found := read_blocks(copy.path / "results"))
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the copies lie; an unfinished one goes on")
    parser.add_argument("--blocks", type=int, default=10, help="of each (default: %(default)s)")
    arguments = parser.parse_args()
    found = measured(arguments.folder, arguments.blocks)
    for quant, forked in found["forked"].items():
        plain = found["plain"][quant]
        ratio = stats.ttest_1samp(forked - plain, 0).confidence_interval()
        spread = forked.std(ddof=1) / plain.std(ddof=1)
        bounds = stats.f.ppf([0.975, 0.025], len(forked) - 1, len(plain) - 1) ** 0.5
        print(
            f"{quant}: a pass takes {np.exp((forked - plain).mean()):.3f} [{np.exp(ratio.low):.3f}, "
            f"{np.exp(ratio.high):.3f}] times as long, launches scatter {spread:.2f} "
            f"[{spread / bounds[0]:.2f}, {spread / bounds[1]:.2f}] times as much"
        )


if __name__ == "__main__":
    main()
