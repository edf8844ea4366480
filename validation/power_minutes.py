"""How narrow the interval of w8a8 / bf16 is after a number of machine minutes: the design before, and the shipped one.

Before: one engine after the other, four iterations a launch, a longer warm-up where the first are slow. Shipped: the
engines of a block alive at once, passes in turn, `iterations: auto`. Both measure bf16, w8a8 and w8a16 of the demo.
Block by block that design goes on which has used less machine time, so that both see the same machine. After each block
the project's own summary gives the interval. A series begins without results. Kept in
validation/results/power_minutes.json after each block; continues where it was ended, a series under way with its own
results.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from copies import TEMPORARY, Copy
from kept import RESULTS, SETTINGS, Place, alone, keep, kept
from measured_rounds import MeasuredBlock, Told, read_blocks, read_told, run_or_end
from scipy import stats

from rollout_bench.contracts.fields import Strict

RESULT = "power_minutes"
BEFORE, SHIPPED = "before", "shipped"
BASELINE, OTHERS = "bf16", ("w8a8", "w8a16")
DESIGNS: dict[str, dict[str, Any]] = {
    BEFORE: {"interleave": False, "iterations": 4},
    SHIPPED: {"interleave": True, "iterations": "auto"},
}
MINUTES = (4.0, 7.0, 14.0)
"""After how much machine time of its own each design is asked."""


class GrownBlock(Strict):
    """One more block, and what the summary says of the configurations with it."""

    block: MeasuredBlock
    told: dict[str, Told]


class PowerSeries(Strict):
    """The blocks of each design, measured beside each other from nothing on."""

    designs: dict[str, list[GrownBlock]]

    def minutes(self, design: str, blocks: int | None = None) -> float:
        """Machine time of the first `blocks` blocks of a design, all of them by default."""
        return sum(one.block.seconds for one in self.designs[design][:blocks]) / 60

    def blocks_after(self, design: str, minutes: float) -> int:
        """How many blocks are done after about so many minutes: as many as come nearest to it."""
        count = len(self.designs[design])
        return min(range(count + 1), key=lambda blocks: abs(self.minutes(design, blocks) - minutes))


class PowerMinutes(Strict):
    """All series."""

    place: Place
    series: list[PowerSeries]


def half_width(series: PowerSeries, design: str, minutes: float, quant: str = OTHERS[0]) -> float | None:
    """Half width that the summary shows after about `minutes`; None where there is no interval yet."""
    blocks = series.blocks_after(design, minutes)
    return series.designs[design][blocks - 1].told[quant].half_width if blocks else None


def half_width_alone(series: PowerSeries, minutes: float, quant: str = OTHERS[0]) -> float | None:
    """Half width of the design before, as it was judged then: by the pairs of one configuration, at Holm's level."""
    blocks = [one.block for one in series.designs[BEFORE][: series.blocks_after(BEFORE, minutes)]]
    logs = [
        math.log(np.mean(block.passes_s[BASELINE]) / np.mean(block.passes_s[quant]))
        for block in blocks
        if not {BASELINE, quant} & set(block.invalid) and {BASELINE, quant} <= set(block.passes_s)
    ]
    if len(logs) < 2:
        return None
    level = (1 - SETTINGS.confidence) / len(OTHERS)
    error = float(np.std(logs, ddof=1)) / math.sqrt(len(logs))
    return math.expm1(float(stats.t.isf(level / 2, len(logs) - 1)) * error)


def measure(folder: Path, count: int, minutes: float, results: Path) -> PowerMinutes:
    """Measure what is missing of `count` series of `minutes` for each design, keeping each block as it is done."""
    with alone():
        common = {"quants": [BASELINE, *OTHERS], "launches": 1, "model_base": str(folder / "models")}
        result = kept(RESULT, PowerMinutes, results)
        for number in range(count):
            copies = {name: Copy(folder / f"{name}-{number}", {**common, **own}) for name, own in DESIGNS.items()}
            if result is None:
                result = PowerMinutes(place=copies[SHIPPED].place(), series=[])
            if len(result.series) <= number:
                result = result.model_copy(
                    update={"series": [*result.series, PowerSeries(designs={name: [] for name in DESIGNS})]}
                )
            series = result.series[number]
            while (design := min(DESIGNS, key=series.minutes)) and series.minutes(design) < minutes:
                one = _grow(copies[design], len(series.designs[design]), design)
                series.designs[design].append(one)
                keep(RESULT, result, results)
                told = ", ".join(f"{quant} {one.told[quant]}" for quant in OTHERS)
                print(
                    f"series {number + 1} of {count}, {design}: {len(series.designs[design])} blocks in"
                    f" {series.minutes(design):.1f} of {minutes:g} min: {told}",
                    flush=True,
                )
        assert result is not None
        return result


def _grow(copy: Copy, blocks: int, design: str) -> GrownBlock:
    """Measure block number `blocks` of a design."""
    run_or_end(copy, "--config", f"launches={blocks + 1}")
    block = read_blocks(copy.path / "results")[blocks]
    if block.interleaved != DESIGNS[design]["interleave"]:
        raise SystemExit(f"{design}: interleaved is {block.interleaved}\nthis code does not make the designs differ")
    return GrownBlock(block=block, told=read_told(copy.path / "results"))


def pooled(widths: Sequence[float | None]) -> float | None:
    """Geometric mean of half widths; None where none is there."""
    there = [math.log(width) for width in widths if width]
    return math.exp(float(np.mean(there))) if there else None


def main() -> None:
    """Measure, and print the half widths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=3, help="how often from nothing on (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=14.0, help="of each design in a series (default: %(default)s)")
    parser.add_argument(
        "--folder", type=Path, default=TEMPORARY / RESULT, help="for copies and records (default: %(default)s)"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result (default: %(default)s)")
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    result = measure(folder, arguments.series, arguments.minutes, arguments.results)
    for minutes in MINUTES:
        widths = {name: pooled([half_width(one, name, minutes) for one in result.series]) for name in DESIGNS}
        shown = ", ".join(
            f"{name} {'-' if width is None else f'{100 * width:.1f} %'}" for name, width in widths.items()
        )
        print(f"half width of {OTHERS[0]} / {BASELINE} after about {minutes:g} min: {shown}")
    print(arguments.results / f"{RESULT}.json")


if __name__ == "__main__":
    main()
