"""`make demo` again and again, each time in a fresh copy of the project: how often its comparisons are decided.

The weights are built once and copied. Kept in validation/results/demo_repeats.json after each run; continues where it
was ended. Raw records stay in the folder.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

from copies import TEMPORARY, Copy
from kept import RESULTS, Place, Share, alone, keep, kept
from measured_rounds import MeasuredBlock, Told, read_blocks, read_told

from rollout_bench.contracts.fields import Strict

RESULT = "demo_repeats"
OTHERS = ("w8a8", "w8a16")
"""What differs from bf16 in the demo."""

DECIDED = ("faster", "slower")


class DemoRun(Strict):
    """One run: minutes of the whole command, with tables and figures, and what its summary says."""

    minutes: float
    told: dict[str, Told]
    blocks: list[MeasuredBlock]

    def decided(self, quant: str) -> bool:
        """Whether the summary calls the configuration faster or slower."""
        return quant in self.told and self.told[quant].verdict in DECIDED


class DemoRepeats(Strict):
    """All runs."""

    place: Place
    runs: list[DemoRun]

    def decided(self, quant: str) -> Share:
        """In how many runs a comparison was decided."""
        return Share(count=sum(run.decided(quant) for run in self.runs), of=len(self.runs))


def measure(folder: Path, runs: int, changes: list[str], results: Path) -> DemoRepeats:
    """Run what is missing of `runs` demos, keeping each as it is done."""
    with alone():
        result = kept(RESULT, DemoRepeats, results)
        weights = folder / "models"
        if not weights.exists():
            building = Copy(folder / "building", {})
            if not building.run("--until", "checkpoint"):
                raise SystemExit("the checkpoints can't be built\nsee the lines above, then run the same command again")
            (building.path / "models").rename(weights)
        while result is None or len(result.runs) < runs:
            number = len(result.runs) if result else 0
            place = folder / f"run-{number:02}"
            if place.exists():  # of a run that was ended; its time would be none
                place.rename(folder / f"ended-{time.time_ns()}")
            copy = Copy(place, {})
            shutil.copytree(weights, copy.path / "models")
            result = result or DemoRepeats(place=copy.place(), runs=[])
            began = time.monotonic()
            if not copy.run("--quiet", "host", "reason", "rules", *(["--config", *changes] if changes else [])):
                raise SystemExit("the demo failed\nsee the lines above, then run the same command again")
            run = DemoRun(
                minutes=round((time.monotonic() - began) / 60, 2),
                told=read_told(copy.path / "results"),
                blocks=read_blocks(copy.path / "results"),
            )
            result = result.model_copy(update={"runs": [*result.runs, run]})
            keep(RESULT, result, results)
            shutil.rmtree(copy.path / "models")
            told = ", ".join(f"{quant} {run.told.get(quant, 'not measured')}" for quant in OTHERS)
            print(f"run {number + 1} of {runs}: {run.minutes:.1f} min, {told}", flush=True)
        return result


def line(result: DemoRepeats) -> str:
    """Return what was decided how often."""
    of = len(result.runs)
    return ", ".join(f"{quant} decided in {result.decided(quant).count} of {of}" for quant in OTHERS)


def main() -> None:
    """Run the demos, and print how often each comparison was decided."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10, help="in all; about 8 min each (default: %(default)s)")
    parser.add_argument(
        "--config", nargs="*", default=[], metavar="KEY=VALUE", help="changes of the config, to try it out"
    )
    parser.add_argument(
        "--folder", type=Path, default=TEMPORARY / RESULT, help="for copies and records (default: %(default)s)"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result (default: %(default)s)")
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    result = measure(folder, arguments.runs, arguments.config, arguments.results)
    print(line(result))
    print(arguments.results / f"{RESULT}.json")


if __name__ == "__main__":
    main()
